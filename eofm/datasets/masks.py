"""A user's own images with a mask each.

    <root>/<split>/images/<name>.tif    all of one size and kind, subfolders included
    <root>/<split>/masks/<name>.tif     one band of codes, of the same size

Splits are train, val and test; without a val, 20 % of the places of train are held out by hash
(`eofm.datasets.images.places`). Images of one place and split count as one sample: the
windows of a scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import SegmentationConfig, listed
from eofm.contract.spec import ImageSpec, Sensor, Unit, canonical_bands
from eofm.datasets.base import Benchmark, Dataset, Loaded, TaskKind, own_task
from eofm.datasets.images.chips import PLACES, STATED_PLACES, FilePixels, unpacking_remedy
from eofm.datasets.images.dense import Coding, DenseChip, DenseChips, Mask
from eofm.datasets.images.places import OwnImage, check_place, divide, first_spec, split_folders
from eofm.errors import ConfigError, DataError, LabelError, require
from eofm.store.splits import SPLITS

__all__ = ["DATASET", "BenchMasksConfig", "open_mask_folder"]


def open_mask_folder(
    root: Path | str,
    sensor: Sensor,
    unit: Unit,
    classes: Mapping[int, str],
    *,
    void: Sequence[int] = (),
    bands: Sequence[str] | None = None,
    place: str | None = None,
    gsd: float | None = None,
) -> tuple[DenseChips, ImageSpec]:
    """Find the images and masks of a folder. Pixels are not read yet.

    Args:
        root: The folder.
        sensor: What the images are.
        unit: Unit of their values.
        classes: Code in the masks -> name of the class; codes of one name are one class.
        void: Codes that say nothing.
        bands: In stored order; None takes what the files say, else the order of the sensor.
        place: Pattern of the names that states the places (`eofm.datasets.images.places`). None
            takes images whose footprints overlap as one place.
        gsd: Metres per pixel of images that do not say where they lie.

    Returns:
        The images, and what they are. `remarks` of the images names test images that show the
        ground of training images.

    Raises:
        DataError: If the layout is another, or an image has no mask or a mask no image.
        LabelError: If there are fewer than two classes, or a code is a class and void.
        ConfigError: If the pattern of places fits not every image.
        RasterError: If the first image cannot be read, does not say how large its pixels are and
            nobody states it, or says otherwise.
        SpecError: If a band is not one of the sensor's.
    """
    from eofm.raster.source import RasterSource

    check_place(place)
    root = Path(root)
    names = tuple(dict.fromkeys(classes.values()))
    if len(names) < 2:
        raise LabelError(
            "a segmentation needs two classes or more", found=", ".join(names) or "none"
        )
    coding = Coding({c: names.index(n) for c, n in classes.items()}, frozenset(void))
    tops = split_folders(root) if root.is_dir() else {}
    found = {split: _pairs(tops[split]) for split in SPLITS if split in tops}
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
    spec = first_spec(first, sensor, unit, named, gsd)
    assert spec.size is not None  # noqa: S101 (an open raster knows its size)
    images = [
        OwnImage(f"{split}/{name}", image, split, f"{split}/{name}")
        for split, pairs in found.items()
        for name, (image, _) in pairs.items()
    ]
    divided = divide(images, "masks", place)
    splits: dict[str, list[DenseChip]] = {split: [] for split in SPLITS}
    for split, pairs in found.items():
        for name, (image, mask) in pairs.items():
            identifier = f"{split}/{name}"
            source = RasterSource(image.stem, (image,), sensor, unit, named, spec.gsd)
            pixels = (FilePixels(source, spec, own=True),)
            chip = DenseChip(
                identifier, divided.place[identifier], pixels, Mask(mask, coding, spec.size)
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
    """Return the rasters of a folder, or its pictures where there are none, by their paths in it
    without the endings.
    """
    from eofm.raster.folder import PICTURES, walk_files

    found: dict[str, Path] = {}
    files = (walk_files(folder) or walk_files(folder, PICTURES)) if folder.is_dir() else []
    for path in files:
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


# ---------------------------------------------------------------------------------- task


@dataclass(frozen=True)
class BenchMasksConfig(SegmentationConfig):
    """Score encoders on your own images with masks, by a linear layer on patches.

    Args:
        root: Folder of train/images, train/masks, test/images and test/masks; val is taken from
            train by place if there is none.
        classes: Code in the masks and its class: 1=water,2=forest,3=forest.
        void: Codes that say nothing.
        sensor: What the images are.
        unit: Unit of the values in the files.
        bands: Bands in stored order; without it as the files say, else all of
            the sensor.
        gsd: Metres per pixel of images that do not say where they lie, as PNG and JPEG do not.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*. Without
            it, images whose footprints overlap are one place.
    """

    verb: ClassVar[str] = "masks"

    classes: str = field(default="", metadata={"list": True})
    void: str = field(default="", metadata={"list": True})
    sensor: Literal["s2-l1c", "s2-l2a", "s1-grd", "s1-rtc", "rgb", "naip"] = "s2-l1c"
    unit: Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"] = "dn"
    bands: str | None = field(default=None, metadata={"list": True})
    gsd: float | None = None
    place: str | None = None
    out: str = "runs/bench/masks.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gsd is None or self.gsd > 0, "gsd", self.gsd, "metres above 0")
        if len(self.names) < 2:
            raise ConfigError(
                "a segmentation needs two classes or more",
                found=self.classes or "nothing",
                expected="1=water,2=forest",
                where="--classes",
            )
        if not all(_is_code(word) for word in listed(self.void)):
            raise ConfigError("a void code is a whole number", found=self.void, where="--void")

    @property
    def names(self) -> dict[int, str]:
        """Code -> class.

        Raises:
            ConfigError: If an entry is no code and name.
        """
        found: dict[int, str] = {}
        for word in listed(self.classes):
            code, _, name = word.partition("=")
            if not _is_code(code.strip()) or not name.strip() or int(code) in found:
                raise ConfigError(
                    "a class is a code and a name, each code once",
                    found=word,
                    expected="1=water,2=forest",
                    where="--classes",
                )
            found[int(code)] = name.strip()
        return found

    @property
    def voids(self) -> tuple[int, ...]:
        """The codes that say nothing."""
        return tuple(int(word) for word in listed(self.void))


def _is_code(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _load(config: BenchMasksConfig) -> Loaded:
    chips, spec = open_mask_folder(
        config.root,
        Sensor.parse(config.sensor),
        Unit.parse(config.unit),
        config.names,
        void=config.voids,
        bands=listed(config.bands) if config.bands else None,
        place=config.place,
        gsd=config.gsd,
    )
    kind, grouping = TaskKind.SEGMENTATION, STATED_PLACES if config.place else PLACES
    task = own_task("masks", "images with masks", chips.root, spec, chips.classes, kind, grouping)
    return Loaded(task, chips, None)


DATASET: Final = Dataset(
    name="masks",
    title="images of your own with masks",
    benchmark=Benchmark(
        "segment your own images with masks by a linear layer on patch tokens",
        BenchMasksConfig,
        _load,
        (
            "eofm bench masks --root DIR --sensor s2-l2a --unit dn --classes 1=water,2=forest \\",
            "    --void 0,255 --model my_models:encoder",
            "",
            "DIR holds train/images/*.tif and train/masks/*.tif (or .png, with --gsd) of the same",
            "names, test likewise.",
        ),
    ),
)
