"""A user's own images with a mask each.

    <root>/<split>/images/<name>.tif    all of one size and kind, subfolders included
    <root>/<split>/masks/<name>.tif     one band of codes, of the same size

Splits are train, val and test; without a val, 20 % of the places of train are held out by hash
(`eofm.datasets.own_splits`). Images of one place and split are one group: the windows of a scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.chips import FilePixels, unpacking_remedy
from eofm.datasets.dense_chips import Coding, DenseChip, DenseChips, Mask
from eofm.datasets.own_splits import OwnImage, divide
from eofm.datasets.place_pattern import check_place
from eofm.errors import DataError, LabelError
from eofm.raster.folder import walk_files
from eofm.raster.source import RasterSource

_SPLITS: Final = ("train", "val", "test")


def open_mask_folder(
    root: Path | str,
    sensor: Sensor,
    unit: Unit,
    classes: Mapping[int, str],
    *,
    void: Sequence[int] = (),
    bands: Sequence[str] | None = None,
    place: str | None = None,
) -> tuple[DenseChips, ImageSpec]:
    """Find the images and masks of a folder. Pixels are not read yet.

    Args:
        root: The folder.
        sensor: What the images are.
        unit: Unit of their values.
        classes: Code in the masks -> name of the class; codes of one name are one class.
        void: Codes that say nothing.
        bands: In stored order; None takes what the files say, else the order of the sensor.
        place: Pattern of the names that states the places (`eofm.datasets.place_pattern`). None
            takes images whose footprints overlap as one place.

    Returns:
        The images, and what they are. `remarks` of the images names test images that show the
        ground of training images.

    Raises:
        DataError: If the layout is another, or an image has no mask or a mask no image.
        LabelError: If there are fewer than two classes, or a code is a class and void.
        ConfigError: If the pattern of places fits not every image.
        RasterError: If the first image cannot be read.
        SpecError: If a band is not one of the sensor's.
    """
    check_place(place)
    root = Path(root)
    names = tuple(dict.fromkeys(classes.values()))
    if len(names) < 2:
        raise LabelError(
            "a segmentation needs two classes or more", found=", ".join(names) or "none"
        )
    coding = Coding({c: names.index(n) for c, n in classes.items()}, frozenset(void))
    found = {split: _pairs(root / split) for split in _SPLITS if (root / split).is_dir()}
    if not {"train", "test"} <= found.keys():
        there = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else []
        raise DataError(
            "this folder holds no images with masks",
            found=", ".join(there) or "nothing",
            expected="train/images, train/masks, test/images and test/masks",
            where=root,
            remedy=unpacking_remedy(root),
        )
    named = None if bands is None else canonical_bands(bands, sensor)
    first = next(iter(found["train"].values()))[0]
    with RasterSource(first.stem, (first,), sensor, unit, named).open() as raster:
        spec = raster.spec()
    assert spec.size is not None  # noqa: S101 (an open raster knows its size)
    images = [
        OwnImage(f"{split}/{name}", image, split, f"{split}/{name}")
        for split, pairs in found.items()
        for name, (image, _) in pairs.items()
    ]
    divided = divide(images, "masks", place)
    splits: dict[str, list[DenseChip]] = {split: [] for split in _SPLITS}
    for split, pairs in found.items():
        for name, (image, mask) in pairs.items():
            identifier = f"{split}/{name}"
            source = RasterSource(image.stem, (image,), sensor, unit, named, spec.gsd)
            pixels = (FilePixels(source, spec),)
            chip = DenseChip(
                identifier, divided.group[identifier], pixels, Mask(mask, coding, spec.size)
            )
            splits[divided.split[identifier]].append(chip)
    parts = {split: tuple(chips) for split, chips in splits.items()}
    return DenseChips(root, divided.rule, names, parts, divided.remarks), spec


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return each image of a split with its mask, by name."""
    images, masks = _rasters(folder / "images"), _rasters(folder / "masks")
    alone = sorted(images.keys() ^ masks.keys())
    if alone or not images:
        raise DataError(
            "images and masks are not the same" if alone else "a split holds no image",
            found=", ".join(alone[:5]) or "nothing",
            expected="images/<name>.tif with masks/<name>.tif",
            where=folder,
            remedy=f"without its other half: {len(alone)}" if alone else unpacking_remedy(folder),
        )
    return {name: (images[name], masks[name]) for name in images}


def _rasters(folder: Path) -> dict[str, Path]:
    """Return the rasters of a folder by their paths in it, without the endings."""
    found: dict[str, Path] = {}
    for path in walk_files(folder) if folder.is_dir() else []:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(
                "two files differ in their ending only: which one belongs to the other half?",
                found=f"{found[name].name} and {path.name}",
                where=path.parent,
                remedy="rename one of them, and its other half",
            )
        found[name] = path
    return found
