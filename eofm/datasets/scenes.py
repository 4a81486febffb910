"""Data sets of one class per image that lie in class folders: EuroSAT, UC Merced, RESISC45.

Class folders alone say nothing of train and test. The lists of Neumann et al. (arXiv 1911.06721),
which torchgeo distributes beside the archives, are read where they lie in the folder, and their
md5 is compared. They are not part of this package; without them a split by hash can be asked for.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import resize
from eofm.contract.recipe import Kernel
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets import eurosat
from eofm.datasets.chips import Chip, Chips, FilePixels, Pixels, StoredAt, unpacking_remedy
from eofm.errors import ConfigError, DataError, RasterError
from eofm.raster.folder import class_files
from eofm.raster.source import RasterSource
from eofm.store.splits import SPLITS, by_hash


class SceneSplit(StrEnum):
    """How images are divided."""

    LISTS = "lists"  # the published random lists, which must lie in the folder
    SPATIAL_LISTS = "spatial-lists"  # EuroSAT: torchgeo's lists by longitude, likewise
    STRATIFIED = "stratified"  # 60/20/20 of each class, by hash of the name
    SPATIAL = "spatial"  # EuroSAT MS: 60/20/20 by longitude of the tile
    GIVEN = "given"  # EuroSAT MS: folders train and test


@dataclass(frozen=True)
class SceneSet:
    """One data set.

    Args:
        name: Goes into the hash of a stratified split.
        classes: Class names as in tables; `folders` where the folders are called otherwise.
        nested: Where the class folders may lie below the root.
        endings: Of the image files.
        spec: What the images are.
        size: Number of images.
        lists: Rule -> split -> file name and md5 of the published list.
        varying: Some images differ by some pixels from the size, and are brought to it.
    """

    name: str
    classes: tuple[str, ...]
    nested: tuple[str, ...]
    endings: tuple[str, ...]
    spec: ImageSpec
    size: int
    lists: Mapping[SceneSplit, Mapping[str, tuple[str, str]]]
    varying: bool = False


def _lists(pattern: str, train: str, val: str, test: str) -> Mapping[str, tuple[str, str]]:
    md5s = zip(SPLITS, (train, val, test), strict=True)
    return {split: (pattern.format(split), md5) for split, md5 in md5s}


_EUROSAT_LISTS: Final = {
    SceneSplit.LISTS: _lists(
        "eurosat-{}.txt",
        "908f142e73d6acdf3f482c5e80d851b1",
        "95de90f2aa998f70a3b2416bfe0687b4",
        "7ae5ab94471417b6e315763121e67c5f",
    ),
    SceneSplit.SPATIAL_LISTS: _lists(
        "eurosat-spatial-{}.txt",
        "7be3254be39f23ce4d4d144290c93292",
        "acf392290050bb3df790dc8fc0ebf193",
        "5ec1733f9c16116bf0aa2d921fc613ef",
    ),
}
_RGB: Final = ("R", "G", "B")

EUROSAT_MS: Final = SceneSet(
    "eurosat",
    eurosat.CLASSES,
    eurosat.NESTED,
    (".tif", ".tiff"),
    eurosat.SPEC,
    eurosat.TILES,
    _EUROSAT_LISTS,
)
EUROSAT_RGB: Final = SceneSet(
    "eurosat",
    eurosat.CLASSES,
    ("", "EuroSAT_RGB", "2750", "EuroSAT/2750"),
    (".jpg", ".jpeg"),
    ImageSpec(Sensor.RGB, _RGB, Unit.UINT8, (64, 64), 10.0),
    eurosat.TILES,
    _EUROSAT_LISTS,
)
EUROSAT_SAR: Final = SceneSet(
    "eurosat",
    eurosat.CLASSES,
    ("", "EuroSAT-SAR", "EuroSAT_SAR"),
    (".tif", ".tiff"),
    ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (64, 64), 10.0),
    eurosat.TILES,
    _EUROSAT_LISTS,
)
UCMERCED: Final = SceneSet(
    "ucmerced",
    (
        *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral"),
        *("denseresidential", "forest", "freeway", "golfcourse", "harbor", "intersection"),
        *("mediumresidential", "mobilehomepark", "overpass", "parkinglot", "river", "runway"),
        *("sparseresidential", "storagetanks", "tenniscourt"),
    ),
    ("", "UCMerced_LandUse/Images", "Images"),
    (".tif",),
    ImageSpec(Sensor.RGB, _RGB, Unit.UINT8, (256, 256), 0.3048),
    2_100,
    {
        SceneSplit.LISTS: _lists(
            "uc_merced-{}.txt",
            "f2fb12eb2210cfb53f93f063a35ff374",
            "11ecabfc52782e5ea6a9c7c0d263aca0",
            "046aff88472d8fc07c4678d03749e28d",
        )
    },
    varying=True,
)
RESISC45: Final = SceneSet(
    "resisc45",
    (
        *("airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge"),
        *("chaparral", "church", "circular_farmland", "cloud", "commercial_area"),
        *("dense_residential", "desert", "forest", "freeway", "golf_course"),
        *("ground_track_field", "harbor", "industrial_area", "intersection", "island", "lake"),
        *("meadow", "medium_residential", "mobile_home_park", "mountain", "overpass", "palace"),
        *("parking_lot", "railway", "railway_station", "rectangular_farmland", "river"),
        *("roundabout", "runway", "sea_ice", "ship", "snowberg", "sparse_residential"),
        *("stadium", "storage_tank", "tennis_court", "terrace", "thermal_power_station"),
        "wetland",
    ),
    ("", "NWPU-RESISC45"),
    (".jpg", ".jpeg"),
    # 0.2 to 30 m: no pixel size holds for all, and nothing here depends on it
    ImageSpec(Sensor.RGB, _RGB, Unit.UINT8, (256, 256), 1.0),
    31_500,
    {
        SceneSplit.LISTS: _lists(
            "resisc45-{}.txt",
            "b5a4c05a37de15e4ca886696a85c403e",
            "a0770cee4c5ca20b8c32bbd61e114805",
            "3dda9e4988b47eb1de9f07993653eb08",
        )
    },
)


def open_scenes(scenes: SceneSet, root: Path | str, rule: SceneSplit | None = None) -> Chips:
    """Find the images below `root` and divide them. Pixels are not read yet.

    Args:
        scenes: Which data set.
        root: Folder of the class folders, or above them.
        rule: None takes the published lists where they lie in the folder. Without them, EuroSAT
            MS is divided by its folders or by longitude, others are refused.

    Raises:
        DataError: If class folders are missing, foreign or empty, an id occurs twice, or the
            lists are not the published ones.
        ConfigError: If there is no such way of dividing.
        RasterError: If a tile has to be opened for its longitude and cannot be.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    if rule is None and _has_lists(scenes, root, SceneSplit.LISTS):
        rule = SceneSplit.LISTS
    if scenes is EUROSAT_MS and rule not in {SceneSplit.LISTS, SceneSplit.SPATIAL_LISTS}:
        return _own_division(root, rule)
    found = _find(scenes, root)
    if rule is None:
        raise ConfigError(
            "these images are not divided into train and test",
            found="no published lists in the folder",
            expected=", ".join(name for name, _ in scenes.lists[SceneSplit.LISTS].values()),
            where=root,
            remedy="put the lists there, or say --split stratified (by hash; not comparable with "
            "published scores)",
        )
    if rule is SceneSplit.STRATIFIED:
        groups = {
            n: [c.id for c in found if scenes.classes[_index(c)] == n] for n in scenes.classes
        }
        parts = by_hash(groups, scenes.name)
    elif rule in scenes.lists:
        parts = _read_lists(scenes, root, rule)
    else:
        raise ConfigError(
            f"{scenes.name} cannot be divided like this",
            found=rule,
            expected=" | ".join([*scenes.lists, SceneSplit.STRATIFIED]),
        )
    return _divided(scenes, root, rule, found, parts)


def _own_division(root: Path, rule: SceneSplit | None) -> Chips:
    """EuroSAT MS as `eofm.datasets.eurosat` divides it."""
    try:
        data = eurosat.open_eurosat(root, None if rule is None else eurosat.SplitRule(rule))
    except DataError as error:
        error.remedy = unpacking_remedy(root) or error.remedy
        raise
    splits = {
        name: tuple(Chip(t.id, t.label, (_eurosat_pixels(t),)) for t in tiles)
        for name, tiles in data.splits.items()
    }
    return Chips(root, data.rule, eurosat.CLASSES, splits)


def _eurosat_pixels(tile: eurosat.Tile) -> FilePixels:
    return FilePixels(eurosat.source_of(tile), eurosat.SPEC, frozenset({"uint16"}))


def _divided(
    scenes: SceneSet,
    root: Path,
    rule: SceneSplit,
    found: Sequence[Chip],
    parts: Mapping[str, Sequence[str]],
) -> Chips:
    by_id = {chip.id: chip for chip in found}
    missing = [i for ids in parts.values() for i in ids if i not in by_id]
    splits = {n: tuple(by_id[i] for i in parts[n] if i in by_id) for n in SPLITS}
    remarks = (f"{len(missing)} images of the lists are not there",) if missing else ()
    return Chips(root, rule, scenes.classes, splits, remarks)


def _index(chip: Chip) -> int:
    assert isinstance(chip.label, int)  # noqa: S101 (`_find` makes no other)
    return chip.label


# ----------------------------------------------------------------------------- finding


def _find(scenes: SceneSet, root: Path) -> list[Chip]:
    folder = next(
        (root / n for n in scenes.nested if any((root / n / c).is_dir() for c in scenes.classes)),
        None,
    )
    there = sorted(path.name for path in (folder or root).iterdir() if path.is_dir())
    missing = [name for name in scenes.classes if name not in there]
    if folder is None or missing:
        raise DataError(
            f"these are not the {len(scenes.classes)} class folders of {scenes.name}",
            found=", ".join(there) or "no folder",
            expected=", ".join(scenes.classes),
            where=folder or root,
            remedy=unpacking_remedy(root) or f"missing: {', '.join(missing)}",
        )
    chips = []
    for label, name in enumerate(scenes.classes):
        files = class_files(folder / name, scenes.endings)
        if not files:
            raise DataError(
                "a class folder has no image in it",
                found=", ".join(sorted({p.suffix for p in (folder / name).iterdir()})) or "nothing",
                expected=f"*{scenes.endings[0]}",
                where=folder / name,
            )
        chips += [Chip(path.stem, label, (_pixels(scenes, path),)) for path in files]
    return chips


def _pixels(scenes: SceneSet, path: Path) -> Pixels:
    spec = scenes.spec
    if spec.sensor is Sensor.RGB:
        return PicturePixels(path, spec, varying=scenes.varying)
    source = RasterSource(path.stem, (path,), spec.sensor, spec.unit, spec.bands, spec.gsd)
    kinds = frozenset({"uint16"}) if spec.unit is Unit.DN else frozenset({"float32", "float64"})
    return FilePixels(source, spec, kinds)


_DRIVERS: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "GTiff", ".tiff": "GTiff"}


@dataclass(frozen=True)
class PicturePixels:
    """A picture of three 8-bit bands, red, green and blue.

    Args:
        path: JPEG or TIFF, as its ending says.
        spec: What it is.
        varying: Bring it to the size of the spec, bilinearly, if it has another.
    """

    path: Path
    spec: ImageSpec
    varying: bool = False

    def read(self) -> Imagery:
        """Return the picture.

        Raises:
            RasterError: If it is damaged, or is not of the stated kind.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(self.path, driver=_DRIVERS[self.path.suffix.lower()]) as file:
                    values, kinds = file.read(), set(file.dtypes)
        except (OSError, RasterioError) as error:
            raise RasterError(
                "a picture is damaged or no picture",
                found=error,
                where=self.path,
                remedy="unpack the archive again",
            ) from error
        fits = self.varying or values.shape[1:] == self.spec.size
        if values.shape[0] != 3 or kinds != {"uint8"} or not fits:
            raise RasterError(
                "this is not a picture of the data set",
                found=f"{values.shape} of {', '.join(sorted(kinds))}",
                expected=f"(3, {self.spec.size}) of uint8",
                where=self.path,
            )
        assert self.spec.size is not None  # noqa: S101 (every SceneSet states one)
        pixels = torch.from_numpy(values).float()[None]
        pixels = resize(pixels, self.spec.size, Kernel.BILINEAR, antialias=True).round()
        return Imagery(pixels, self.spec, torch.ones(1, *self.spec.size, dtype=torch.bool))

    @property
    def place(self) -> StoredAt:
        """The picture."""
        return StoredAt((self.path,))

    def digest(self) -> str:
        """Return the sha256 of the file.

        Raises:
            RasterError: If it cannot be read.
        """
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise RasterError("a picture cannot be read", found=error, where=self.path) from error


# ------------------------------------------------------------------------------- lists


def _has_lists(scenes: SceneSet, root: Path, rule: SceneSplit) -> bool:
    return all((root / name).is_file() for name, _ in scenes.lists[rule].values())


def _read_lists(scenes: SceneSet, root: Path, rule: SceneSplit) -> dict[str, tuple[str, ...]]:
    """Return the ids of every split; the lists name files of any ending."""
    parts = {}
    for split, (name, md5) in scenes.lists[rule].items():
        try:
            data = (root / name).read_bytes()
        except OSError as error:
            raise DataError(
                "a published list is not there",
                found=error,
                expected=name,
                where=root,
                remedy="torchgeo distributes it beside the archive; or say --split stratified",
            ) from error
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                "this is not the published list",
                found=f"md5 {found}",
                expected=f"md5 {md5}",
                where=root / name,
                remedy="download it again",
            )
        parts[split] = tuple(Path(line).stem for line in data.decode().split())
    return parts
