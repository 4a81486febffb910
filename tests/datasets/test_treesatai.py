"""TreeSatAI in miniature: band order of the files, shares of area, thresholds, negative numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.datasets.images.chips import read_batches
from eofm.datasets.treesatai import CLASSES, FILE_ORDER, SIDES, open_treesatai, spec_of
from eofm.errors import DataError, LabelError

SHARES = {
    "Fagus_sylvatica_1_1_WEFL_NLF.tif": [["Fagus", 0.93], ["Quercus", 0.05], ["Larix", 0.02]],
    "Picea_abies_2_2_WEFL_NLF.tif": [["Picea", 1.0]],
    "Pinus_sylvestris_3_3_WEFL_NLF.tif": [["Pinus", 0.6], ["Betula", 0.4]],
    "Quercus_robur_4_4_BI_NLF.tif": [["Quercus", 0.5], ["Fagus", 0.5]],
}


def level(band: str) -> int:
    """The constant of a band."""
    return 100 + 50 * sorted(FILE_ORDER).index(band)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of train and one of test, of 60 and 200 m, in the published layout."""
    for metres, side in SIDES.items():
        for name in SHARES:
            path = tmp_path / "s2" / f"{metres}m" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.array([level(b) for b in FILE_ORDER])[:, None, None]
            values = values + np.zeros((12, side, side))
            values[0, 0, 0] = -37
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                dtype="int16",
                count=12,
                height=side,
                width=side,
                crs="EPSG:25832",
                transform=Affine(10, 0, 500_000, 0, -10, 5_800_000),
            ) as file:
                file.write(values.astype(np.int16))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(SHARES))
    names = list(SHARES)
    (tmp_path / "train_filenames.lst").write_text("\n".join(names[:3]) + "\n")
    (tmp_path / "test_filenames.lst").write_text(names[3] + "\n")
    return tmp_path


@pytest.mark.parametrize("metres", [60, 200])
def test_bands_are_those_of_the_file_order(root: Path, metres: int) -> None:
    """B08 stands before B05 and B01 last; a number below 0 is read as 0."""
    chips, count = open_treesatai(root, metres, 0.07)

    (images,) = read_batches(chips.splits["test"], 4)

    assert 4 == count
    assert spec_of(metres) == images.spec
    for place, band in enumerate(images.spec.bands):
        assert level(band) == images.pixels[0, place, 1, 1]
    assert 0 == images.pixels[0, 0, 0, 0]
    assert images.valid.all()


def test_a_threshold_makes_another_task(root: Path) -> None:
    """Above 0 every share counts; above 7 % the small ones do not. No share is cut to 0 or 1."""
    labels = {}
    for threshold in (0.0, 0.07):
        chips, _ = open_treesatai(root, 60, threshold)
        labels[threshold] = {
            c.id.split("_")[0]: tuple(CLASSES[i] for i in c.label)  # type: ignore[union-attr]
            for c in chips.all
        }

    assert ("Fagus", "Larix", "Quercus") == labels[0.0]["Fagus"]
    assert ("Fagus",) == labels[0.07]["Fagus"]
    assert ("Betula", "Pinus") == labels[0.07]["Pinus"]


def test_the_official_lists_divide(root: Path) -> None:
    """Test as listed; of train one image in ten is held out by hash."""
    chips, _ = open_treesatai(root, 60, 0.0)

    assert (2, 1, 1) == tuple(len(chips.splits[s]) for s in ("train", "val", "test"))
    assert "Quercus_robur_4_4_BI_NLF" == chips.splits["test"][0].id
    assert all(chip.group for name in ("val", "test") for chip in chips.splits[name])


def test_missing_images_are_counted(root: Path) -> None:
    """A part of the archive is a subset that says so."""
    (root / "s2" / "60m" / "Picea_abies_2_2_WEFL_NLF.tif").unlink()

    chips, count = open_treesatai(root, 60, 0.0)

    assert 4 == count
    assert ("1 of 4 images are not on disk",) == chips.remarks


def test_folders_that_do_not_fit_are_named(root: Path, tmp_path: Path) -> None:
    """No lists beside the archives, labels gone, a genus of another list, an image unlabelled."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "s2.zip").touch()
    with pytest.raises(DataError, match="no folder of TreeSatAI") as caught:
        open_treesatai(other, 60, 0.0)
    assert "unpack s2.zip" in str(caught.value)
    labels = root / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
    labels.write_text(json.dumps({**SHARES, "Picea_abies_2_2_WEFL_NLF.tif": [["Oak", 1.0]]}))
    with pytest.raises(LabelError, match="none of the 15"):
        open_treesatai(root, 60, 0.0)
    labels.write_text(json.dumps({k: v for k, v in SHARES.items() if "Picea" not in k}))
    with pytest.raises(LabelError, match="has no labels"):
        open_treesatai(root, 60, 0.0)
    labels.write_text("{")
    with pytest.raises(LabelError, match="cannot be read"):
        open_treesatai(root, 60, 0.0)
