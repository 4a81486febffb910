"""Class-folder data sets in miniature: EuroSAT RGB and SAR, UC Merced, RESISC45, lists."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from eofm.datasets.eurosat import EUROSAT_MS, EUROSAT_RGB, EUROSAT_SAR
from eofm.datasets.images import class_folders
from eofm.datasets.images.chips import Chips, read_batches
from eofm.datasets.images.class_folders import ClassFolders, FolderSplit, open_class_folders
from eofm.datasets.resisc45 import RESISC45
from eofm.datasets.ucmerced import UCMERCED
from eofm.errors import ConfigError, DataError, RasterError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
assert NotGeoreferencedWarning


def picture(path: Path, size: tuple[int, int], driver: str, level: int = 0) -> None:
    """Write a picture: red, green and blue of a level of their own, a little noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(level).integers(0, 3, (3, *size))
    values = np.array([40, 90, 160])[:, None, None] + level % 50 + noise
    options = {"quality": 95} if driver == "JPEG" else {}
    with rasterio.open(
        path, "w", driver=driver, dtype="uint8", count=3, height=size[0], width=size[1], **options
    ) as file:
        file.write(values.astype(np.uint8))


def radar(path: Path, level: int = 0) -> None:
    """Write VV and VH in dB, with fractions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.array([-11.25, -18.75])[:, None, None] + np.zeros((2, 64, 64)) + level / 64
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=2, height=64, width=64
    ) as file:
        file.write(values.astype(np.float32))


def fill(root: Path, data: ClassFolders, ending: str, count: int = 5) -> Path:
    """Write `count` images of every class in the published layout."""
    level = 0
    for name in data.classes:
        for number in range(count):
            path = root / data.nested[1] / name / f"{name}_{number}{ending}"
            level += 1
            if ending == ".jpg":
                picture(path, data.spec.size or (1, 1), "JPEG", level)
            elif len(data.spec.bands) == 3:
                size = (250, 249) if number == 0 else (256, 256)
                picture(path, size, "GTiff", level)
            else:
                radar(path, level)
    return root


def write_lists(
    root: Path, data: ClassFolders, rule: FolderSplit = FolderSplit.LISTS
) -> ClassFolders:
    """Write lists 3/1/1 of each class, named .jpg as published; return a set that knows them."""
    parts = {"train": range(3), "val": [3], "test": [4]}
    known = {}
    for split, (name, _) in data.lists[rule].items():
        text = "\n".join(f"{c}_{i}.jpg" for c in data.classes for i in parts[split]) + "\n"
        (root / name).write_text(text)
        known[split] = (name, hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
    return replace(data, lists={**data.lists, rule: known})


def sizes(chips: Chips) -> tuple[int, ...]:
    """Images of train, val and test."""
    return tuple(len(chips.splits[s]) for s in ("train", "val", "test"))


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (EUROSAT_RGB, ".jpg"),
        (EUROSAT_SAR, ".tif"),
        (RESISC45, ".jpg"),
        (UCMERCED, ".tif"),
    ],
    ids=["eurosat-rgb", "eurosat-sar", "resisc45", "ucmerced"],
)
def test_the_published_lists_divide(tmp_path: Path, data: ClassFolders, ending: str) -> None:
    """Without being asked for, where they lie in the folder; pixels come in the declared order."""
    few = replace(data, classes=data.classes[:3])
    fill(tmp_path, few, ending)
    known = write_lists(tmp_path, few)

    chips = open_class_folders(known, tmp_path)

    assert (9, 3, 3) == sizes(chips)
    assert FolderSplit.LISTS == chips.rule
    (images,) = read_batches(chips.splits["test"], 8)
    assert data.spec == images.spec
    means = images.pixels.mean(dim=(0, 2, 3))
    rising = len(data.spec.bands) == 3
    assert means.tolist() == sorted(means.tolist(), reverse=not rising)


def test_pictures_of_uneven_size_are_brought_to_one(tmp_path: Path) -> None:
    """44 of UC Merced's are some pixels smaller than 256, and keep whole 8-bit values."""
    few = replace(UCMERCED, classes=UCMERCED.classes[:2])
    fill(tmp_path, few, ".tif", count=1)

    (image,) = read_batches(class_folders._find(few, tmp_path)[:1], 1)

    assert (1, 3, 256, 256) == tuple(image.pixels.shape)
    assert torch.equal(image.pixels, image.pixels.round())


def test_without_lists_nothing_is_divided_silently(tmp_path: Path) -> None:
    """The error names the lists; a stratified split is there for the asking."""
    few = replace(EUROSAT_SAR, classes=EUROSAT_SAR.classes[:2])
    fill(tmp_path, few, ".tif")

    with pytest.raises(ConfigError, match="not divided") as caught:
        open_class_folders(few, tmp_path)

    assert "eurosat-train.txt" in str(caught.value)
    assert (6, 2, 2) == sizes(open_class_folders(few, tmp_path, FolderSplit.STRATIFIED))
    with pytest.raises(ConfigError, match="cannot be divided like this"):
        open_class_folders(few, tmp_path, FolderSplit.SPATIAL)
    with pytest.raises(DataError, match="is not there"):
        open_class_folders(few, tmp_path, FolderSplit.SPATIAL_LISTS)


def test_a_changed_list_is_refused(tmp_path: Path) -> None:
    """A list of the published name with other lines is not the published list."""
    few = replace(EUROSAT_SAR, classes=EUROSAT_SAR.classes[:2])
    fill(tmp_path, few, ".tif")
    write_lists(tmp_path, few)

    with pytest.raises(DataError, match="not the published list") as caught:
        open_class_folders(few, tmp_path)

    assert few.lists[FolderSplit.LISTS]["train"][1] in str(caught.value)


def test_spatial_lists_divide_when_asked_for(tmp_path: Path) -> None:
    """Torchgeo's lists by longitude, under their own names, compared with their published md5."""
    few = replace(EUROSAT_MS, classes=EUROSAT_MS.classes[:2])
    fill(tmp_path, replace(few, spec=EUROSAT_SAR.spec), ".tif")
    known = write_lists(tmp_path, few, FolderSplit.SPATIAL_LISTS)

    chips = open_class_folders(known, tmp_path, FolderSplit.SPATIAL_LISTS)

    assert (6, 2, 2) == sizes(chips)
    assert FolderSplit.SPATIAL_LISTS == chips.rule
    with pytest.raises(DataError, match="not the published list") as caught:
        open_class_folders(few, tmp_path, FolderSplit.SPATIAL_LISTS)
    assert "7be3254be39f23ce4d4d144290c93292" in str(caught.value)


def test_missing_images_of_the_lists_are_counted(tmp_path: Path) -> None:
    """A half-unpacked archive makes a subset that says so."""
    few = replace(EUROSAT_SAR, classes=EUROSAT_SAR.classes[:2])
    fill(tmp_path, few, ".tif")
    known = write_lists(tmp_path, few)
    for path in tmp_path.rglob("*_0.tif"):
        path.unlink()

    chips = open_class_folders(known, tmp_path)

    assert ("2 images of the lists are not there",) == chips.remarks


def test_folders_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Nothing there, an archive, a class missing, a class empty, a picture that is none."""
    few = replace(RESISC45, classes=RESISC45.classes[:3])
    with pytest.raises(DataError, match="no such folder"):
        open_class_folders(few, tmp_path / "nowhere")
    (tmp_path / "NWPU-RESISC45.zip").touch()
    with pytest.raises(DataError, match="class folders of resisc45") as caught:
        open_class_folders(few, tmp_path, FolderSplit.STRATIFIED)
    assert "unpack NWPU-RESISC45.zip" in str(caught.value)
    fill(tmp_path, replace(few, classes=few.classes[:2]), ".jpg")
    with pytest.raises(DataError, match="class folders of resisc45"):
        open_class_folders(few, tmp_path, FolderSplit.STRATIFIED)
    empty = tmp_path / "NWPU-RESISC45" / few.classes[2]
    empty.mkdir()
    with pytest.raises(DataError, match="no image in it"):
        open_class_folders(few, tmp_path, FolderSplit.STRATIFIED)
    (empty / "a.jpg").write_bytes(b"no picture")
    picture(empty / "b.jpg", (64, 64), "JPEG")
    picture(empty / "c.jpg", (256, 256), "JPEG")
    chips = open_class_folders(few, tmp_path, FolderSplit.STRATIFIED)
    for name, message in (("a", "damaged"), ("b", "not a picture of")):
        with pytest.raises(RasterError, match=message):
            list(read_batches([c for c in chips.all if c.id == name], 1))
