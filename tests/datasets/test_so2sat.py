"""So2Sat in miniature: true arrays, types and names; an intensity is power, channels have names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.contract.preprocess import convert_unit
from eofm.contract.spec import Sensor, Unit
from eofm.datasets.images.chips import read_batches
from eofm.datasets.so2sat import CLASSES, SPECS, So2SatVersion, open_so2sat
from eofm.errors import DataError, LabelError

h5py = pytest.importorskip("h5py", reason="h5py is an extra")

S2_LEVELS = (0.12, 0.11, 0.10, 0.115, 0.16, 0.18, 0.175, 0.195, 0.15, 0.11)
# VH real and imaginary, VV real and imaginary, intensities of VH and VV, covariance
S1_LEVELS = (-0.02, 0.03, -0.05, 0.06, 0.012, 0.055, 0.004, -0.003)


def write(path: Path, count: int, seed: int = 0) -> Path:
    """Write a file of `count` images, the labels in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.9, 1.1, (count, 32, 32, 1))
    hot = np.eye(17)[np.arange(count) % 17]
    with h5py.File(path, "w") as file:
        file["sen1"] = np.array(S1_LEVELS) * noise
        file["sen2"] = np.array(S2_LEVELS) * noise
        file["label"] = hot
    return path


@pytest.fixture
def v3(tmp_path: Path) -> Path:
    """Version 3: culture_10/training.h5 with 40 images, testing.h5 with 6."""
    write(tmp_path / "culture_10" / "training.h5", 40)
    write(tmp_path / "culture_10" / "testing.h5", 6, seed=1)
    return tmp_path


def test_splits_of_version_3(v3: Path) -> None:
    """A val is held out of train, of every class; test is as the file."""
    chips, count = open_so2sat(v3, So2SatVersion.CULTURE_10, (Sensor.S2_L1C,))

    assert 46 == count
    assert (23, 17, 6) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))
    assert "v3-culture-10, val held out" == chips.rule
    assert CLASSES == chips.classes


def test_splits_of_version_2(tmp_path: Path) -> None:
    """Three files, three splits."""
    for name, count in (("training", 20), ("validation", 4), ("testing", 5)):
        write(tmp_path / f"{name}.h5", count)

    chips, _ = open_so2sat(tmp_path, So2SatVersion.V2, (Sensor.S2_L1C,))

    assert (20, 4, 5) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))


def test_bands_have_their_names(v3: Path) -> None:
    """Sentinel-2 is reflectance; VV and VH are the filtered intensities, in this order."""
    chips, _ = open_so2sat(v3, So2SatVersion.CULTURE_10, (Sensor.S2_L1C, Sensor.S1_GRD))

    (optical,) = read_batches(chips.splits["test"], 8)
    (radar,) = read_batches(chips.splits["test"], 8, sensor=1)

    ratio = optical.pixels.mean(dim=(0, 2, 3)) / torch.tensor(S2_LEVELS)
    assert torch.allclose(ratio, ratio[0].expand(10), rtol=1e-4)
    assert SPECS[Sensor.S2_L1C] == optical.spec
    assert ("VV", "VH") == radar.spec.bands
    assert radar.pixels[:, 0].mean() == pytest.approx(0.055, rel=0.02)
    assert radar.pixels[:, 1].mean() == pytest.approx(0.012, rel=0.02)
    decibels = convert_unit(radar.pixels, Unit.POWER, Unit.DB)
    assert decibels.mean() < -10


def test_torchgeo_numbers_what_we_name(v3: Path) -> None:
    """With torchgeo the intensities are S1_B5 and S1_B6, without unit: VH comes first."""
    datasets = pytest.importorskip("torchgeo.datasets", reason="torchgeo is an extra")
    theirs = datasets.So2Sat(v3, "3_culture_10", "test", bands=("S1_B6", "S1_B5"))

    chips, _ = open_so2sat(v3, So2SatVersion.CULTURE_10, (Sensor.S1_GRD,))
    (ours,) = read_batches(chips.splits["test"], 8)

    for row, chip in enumerate(chips.splits["test"]):
        assert torch.allclose(theirs[row]["image"], ours.pixels[row])
        assert int(theirs[row]["label"]) == chip.label


def test_no_backscatter_is_no_measurement(v3: Path) -> None:
    """Power 0 has no decibels: the pixel becomes invalid."""
    with h5py.File(v3 / "culture_10" / "testing.h5", "r+") as file:
        file["sen1"][0, 3, 4, 4] = 0.0
    chips, _ = open_so2sat(v3, So2SatVersion.CULTURE_10, (Sensor.S1_GRD,))

    image = chips.splits["test"][0].pixels[0].read()

    assert not image.valid[0, 3, 4]
    assert 32 * 32 - 1 == int(image.valid.sum())


def test_files_that_are_not_so2sat_are_named(v3: Path, tmp_path: Path) -> None:
    """Missing, cut off, without an array, labels that are not one-hot."""
    sensors = (Sensor.S2_L1C,)
    with pytest.raises(DataError, match="is not there") as caught:
        open_so2sat(v3, So2SatVersion.V2, sensors)
    assert "training.h5" in str(caught.value)
    cut = write(tmp_path / "cut" / "culture_10" / "training.h5", 4)
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged or not whole"):
        open_so2sat(tmp_path / "cut", So2SatVersion.CULTURE_10, sensors)
    lacking = write(tmp_path / "lacking" / "culture_10" / "training.h5", 4)
    with h5py.File(lacking, "r+") as file:
        del file["sen2"]
    with pytest.raises(DataError, match="no file of So2Sat"):
        open_so2sat(tmp_path / "lacking", So2SatVersion.CULTURE_10, sensors)
    strange = write(tmp_path / "strange" / "culture_10" / "training.h5", 4)
    with h5py.File(strange, "r+") as file:
        file["label"][0] = 0
    with pytest.raises(LabelError, match="one-hot"):
        open_so2sat(tmp_path / "strange", So2SatVersion.CULTURE_10, sensors)
