"""SAT-6 in miniature: the published MATLAB file with a few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eofm.contract.spec import Sensor, Unit
from eofm.datasets import sat6
from eofm.datasets.images.chips import read_batches
from eofm.datasets.sat6 import open_sat6
from eofm.errors import DataError, LabelError

scipy_io = pytest.importorskip("scipy.io", reason="SciPy is an extra")
LEVELS = np.array([110, 115, 120, 60], np.uint8)


def write_sat6(root: Path, train: int = 60, test: int = 12, **changed: np.ndarray) -> Path:
    """Write images whose bands differ in level, one of them with a bright first row."""
    root.mkdir(parents=True, exist_ok=True)
    arrays = {}
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % 6
        noise = rng.integers(0, 20, (28, 28, 4, count), dtype=np.uint8)
        tint = (8 * labels).astype(np.uint8)
        arrays[f"{split}_x"] = LEVELS[:, None] + noise + tint
        arrays[f"{split}_x"][0, :, :, 0] = 255
        arrays[f"{split}_y"] = np.eye(6, dtype=np.float64)[labels].T
    arrays["annotations"] = np.array(["building"], dtype=object)
    scipy_io.savemat(root / sat6.FILE, {**arrays, **changed})
    return root


def test_bands_and_rows_are_where_they_belong(tmp_path: Path) -> None:
    """Red, green, blue, near infrared of rows from the top; 8 bits unrounded."""
    chips, count = open_sat6(write_sat6(tmp_path))

    assert count == 405_000
    assert (54, 6, 12) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))
    (images,) = read_batches(chips.splits["test"], 12)
    assert (Sensor.NAIP, Unit.UINT8) == (images.spec.sensor, images.spec.unit)
    assert ("R", "G", "B", "N") == images.spec.bands
    assert (images.pixels[0, :, 0] == 255).all()
    assert (images.pixels[0, :, 1] < 255).all()
    means = images.pixels[1:].mean(dim=(0, 2, 3))
    assert means[3] + 40 < means[0] < means[1] < means[2]
    assert [c.label for c in chips.splits["test"]] == [n % 6 for n in range(12)]
    assert "building" == sat6.CLASSES[0]
    assert "water" == sat6.CLASSES[5]


def test_files_that_are_not_sat6_are_named(tmp_path: Path) -> None:
    """Nothing there, an unfinished download, a torn file, SAT-4, labels that are not one-hot."""
    (tmp_path / "sat-6-full.mat.part").touch()
    with pytest.raises(DataError, match="is not there") as caught:
        open_sat6(tmp_path)
    assert "has not ended" in str(caught.value)
    file = write_sat6(tmp_path / "torn") / sat6.FILE
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(DataError, match="damaged"):
        open_sat6(tmp_path / "torn")
    four = write_sat6(tmp_path / "four", train_y=np.eye(4)[np.arange(60) % 4].T)
    with pytest.raises(DataError, match="no file of SAT-6") as caught:
        open_sat6(four)
    assert "SAT-4" in str(caught.value)
    doubled = write_sat6(tmp_path / "doubled", test_y=np.ones((6, 12)))
    with pytest.raises(LabelError, match="one-hot"):
        open_sat6(doubled)
