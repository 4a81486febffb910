"""A user's own images with a mask each.

    <root>/<split>/images/<name>.tif    all of one size and kind
    <root>/<split>/masks/<name>.tif     one band of codes, of the same size

Splits are train, val and test; without a val, 20 % of train are held out by hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.chips import FilePixels, unpacking_remedy
from eofm.datasets.dense_chips import Coding, DenseChip, DenseChips, Mask
from eofm.errors import DataError, LabelError
from eofm.raster.source import RasterSource
from eofm.store.splits import hold_out

_SPLITS: Final = ("train", "val", "test")
_ENDINGS: Final = (".tif", ".tiff")


def open_mask_folder(
    root: Path | str,
    sensor: Sensor,
    unit: Unit,
    classes: Mapping[int, str],
    *,
    void: Sequence[int] = (),
    bands: Sequence[str] | None = None,
) -> tuple[DenseChips, ImageSpec]:
    """Find the images and masks of a folder. Of the pixels, only the first image is opened.

    Args:
        root: The folder.
        sensor: What the images are.
        unit: Unit of their values.
        classes: Code in the masks -> name of the class; codes of one name are one class.
        void: Codes that say nothing.
        bands: In stored order; None takes what the files say, else the order of the sensor.

    Returns:
        The images, and what they are.

    Raises:
        DataError: If the layout is another, or an image has no mask or a mask no image.
        LabelError: If there are fewer than two classes, or a code is a class and void.
        RasterError: If the first image cannot be read.
        SpecError: If a band is not one of the sensor's.
    """
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
    first = found["train"][0][0]
    with RasterSource(first.stem, (first,), sensor, unit, named).open() as raster:
        spec = raster.spec()
    assert spec.size is not None  # noqa: S101 (an open raster knows its size)
    splits: dict[str, tuple[DenseChip, ...]] = {}
    for split, pairs in found.items():
        splits[split] = tuple(
            DenseChip(
                f"{split}/{image.stem}",
                f"{split}/{image.stem}",
                (
                    FilePixels(
                        RasterSource(image.stem, (image,), sensor, unit, named, spec.gsd), spec
                    ),
                ),
                Mask(mask, coding, spec.size),
            )
            for image, mask in pairs
        )
    rule = "given"
    if "val" not in splits:
        _, taken = hold_out({"": [chip.id for chip in splits["train"]]}, "masks")
        splits["val"] = tuple(c for c in splits["train"] if c.id in set(taken))
        splits["train"] = tuple(c for c in splits["train"] if c.id not in set(taken))
        rule = "given, val held out"
    return DenseChips(root, rule, names, splits), spec


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return each image of a split with its mask."""
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
    return [(images[name], masks[name]) for name in sorted(images)]


def _rasters(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _ENDINGS and not path.name.startswith(".")
    }
