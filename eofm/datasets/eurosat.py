"""EuroSAT, multispectral: 27,000 Sentinel-2 L1C tiles of 64 x 64 pixels in ten classes.

Helber et al. 2019, arXiv 1709.00029. Two layouts are read:

    <root>/[EuroSAT_MS/ | ds/images/.../tif/ | ...]<Class>/<Class>_<n>.tif     as published
    <root>/{train,test[,val]}/<Class>/<anything>.tif                           already divided

The files have no band names, and their order is not that of other Sentinel-2 sets: B8A comes
last (phelber/EuroSAT#7). Software that assumed otherwise read B8A, B09 .. B12 from the wrong
places for years (torchgeo#2458). The digital numbers precede processing baseline 04.00: unit
`dn`, without the offset of 1000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from eofm.contract.imagery import Imagery, collate
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import ConfigError, DataError, RasterError
from eofm.progress import track
from eofm.raster.folder import class_files
from eofm.raster.source import RasterSource
from eofm.store.splits import SPLITS, by_hash, by_value, hold_out

CLASSES: Final = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
TILES: Final = 27_000
FILE_ORDER: Final = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08"),
    *("B09", "B10", "B11", "B12", "B8A"),
)
SPEC: Final = ImageSpec(Sensor.S2_L1C, FILE_ORDER, Unit.DN, (64, 64), 10.0)

# where the class folders of the published archives lie, below the folder they are unpacked in
NESTED: Final = (
    "",
    "EuroSAT_MS",
    "EuroSATallBands",
    "tif",
    "ds/images/remote_sensing/otherDatasets/sentinel_2/tif",
)
_SUFFIXES: Final = (".tif", ".tiff")


class SplitRule(StrEnum):
    """How tiles are divided into train, val and test."""

    SPATIAL = "spatial"  # by longitude of the tile's centre, west to east, 60/20/20
    STRATIFIED = "stratified"  # 60/20/20 of each class, by hash of the tile's name
    GIVEN = "given"  # the folders train and test; val, if absent, is 20 % of train by hash


@dataclass(frozen=True)
class Tile:
    """One image file.

    Args:
        id: File name without its ending. Where the folders were divided and numbered by somebody
            else, so that names repeat, the path below the root; unique in either case.
        path: The file.
        label: Index into `CLASSES`.
    """

    id: str
    path: Path
    label: int


@dataclass(frozen=True)
class EuroSat:
    """The tiles of a folder, divided.

    Args:
        root: The folder as the user named it.
        rule: How it was divided.
        splits: `train`, `val` and `test`, each in the order of ids.
    """

    root: Path
    rule: SplitRule
    splits: Mapping[str, tuple[Tile, ...]]

    @property
    def tiles(self) -> int:
        """Number of tiles in all splits together; 27,000 in the published set."""
        return sum(len(tiles) for tiles in self.splits.values())


def open_eurosat(root: Path | str, rule: SplitRule | None = None) -> EuroSat:
    """Find the tiles below `root` and divide them. Pixels are not read yet.

    Args:
        root: Folder in one of the two layouts.
        rule: None takes the folders as given where there are `train` and `test`, and divides by
            longitude otherwise.

    Raises:
        DataError: If there are no class folders, some are missing, one is empty, an id occurs
            twice, or a split lacks a class.
        RasterError: If a tile has to be opened for its longitude and cannot be.
        ConfigError: If the rule does not suit the layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    given = (root / "train").is_dir() and (root / "test").is_dir()
    if rule is not None and given != (rule is SplitRule.GIVEN):
        raise ConfigError(
            "this way of dividing does not suit the folder",
            found=f"split={rule}, folders train and test {'' if given else 'not '}there",
            expected="given" if given else "spatial or stratified",
            where=root,
            remedy="leave --rule (of eofm pack) or --split (of eofm bench) out",
        )
    divided = _as_given(root) if given else _divide(_class_root(root), rule or SplitRule.SPATIAL)
    splits = {name: tuple(sorted(divided[name], key=lambda tile: tile.id)) for name in SPLITS}
    _check_unique([tile for tiles in splits.values() for tile in tiles])
    return EuroSat(root, SplitRule.GIVEN if given else rule or SplitRule.SPATIAL, splits)


def read_tile(tile: Tile) -> Imagery:
    """Read one tile whole: (1, 13, 64, 64) in file order.

    Raises:
        RasterError: If the file is damaged, or is no EuroSAT MS tile.
    """
    with source_of(tile).open() as raster:
        size, kinds = (raster.grid.height, raster.grid.width), set(raster.dtypes)
        if size != SPEC.size or kinds != {"uint16"}:
            raise RasterError(
                "this is no tile of EuroSAT MS",
                found=f"{size[0]} x {size[1]} pixels of {', '.join(sorted(kinds))}",
                expected="64 x 64 pixels of uint16: digital numbers as published",
                where=tile.path,
                remedy="use the published files; converted or resized copies are other data",
            )
        return raster.read()


def source_of(tile: Tile) -> RasterSource:
    """Return where the pixels of a tile are: thirteen bands in file order."""
    return RasterSource(tile.id, (tile.path,), SPEC.sensor, SPEC.unit, SPEC.bands, SPEC.gsd)


def read_batches(tiles: Sequence[Tile], size: int) -> Iterator[Imagery]:
    """Yield the tiles in batches of at most `size`, in order.

    Raises:
        RasterError: If a file is damaged, or is no EuroSAT MS tile.
    """
    for start in range(0, len(tiles), size):
        yield collate([read_tile(tile) for tile in tiles[start : start + size]])


def labels_of(tiles: Sequence[Tile]) -> Tensor:
    """Return the class indices (N,), int64."""
    return torch.tensor([tile.label for tile in tiles], dtype=torch.int64)


# ----------------------------------------------------------------------------- finding


def _class_root(root: Path) -> Path:
    """Return the folder that holds the class folders."""
    for nested in NESTED:
        folder = root / nested
        if any((folder / name).is_dir() for name in CLASSES):
            return folder
    found = sorted(path.name for path in root.iterdir())[:8]
    raise DataError(
        "this is no EuroSAT folder",
        found=", ".join(found) or "an empty folder",
        expected=f"folders {', '.join(CLASSES)}, or train and test with these inside",
        where=root,
        remedy="unpack EuroSAT_MS.zip and name the folder that holds the class folders",
    )


def _tiles_in(folder: Path) -> list[Tile]:
    """Return the tiles of ten class folders.

    Raises:
        DataError: If a class folder is missing, foreign or without tiles.
    """
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    foreign = sorted(name for name in present - set(CLASSES) if not name.startswith((".", "_")))
    missing = [name for name in CLASSES if name not in present]
    if missing or foreign:
        raise DataError(
            "these are not the ten class folders of EuroSAT",
            found=", ".join(sorted(present)) or "no folder",
            expected=", ".join(CLASSES),
            where=folder,
            remedy="; ".join(
                f"{what}: {', '.join(names)}"
                for what, names in (("missing", missing), ("foreign", foreign))
                if names
            ),
        )
    tiles: list[Tile] = []
    for label, name in enumerate(CLASSES):
        files = class_files(folder / name, _SUFFIXES)
        if not files:
            raise DataError(
                "a class folder has no GeoTIFF in it",
                found=", ".join(sorted({p.suffix for p in (folder / name).iterdir()})) or "nothing",
                expected=f"{name}_<n>.tif",
                where=folder / name,
                remedy="the multispectral set is needed (EuroSAT_MS.zip), not the RGB one",
            )
        tiles += [Tile(path.stem, path, label) for path in files]
    _check_names(tiles)
    return tiles


def _check_names(tiles: Sequence[Tile]) -> None:
    """Refuse a file whose name says another class than its folder."""
    for tile in tiles:
        named = tile.id.rsplit("_", 1)[0]
        if named in CLASSES and named != CLASSES[tile.label]:
            raise DataError(
                "a tile lies in the folder of another class",
                found=f"{tile.path.name} in {CLASSES[tile.label]}",
                expected=f"in {named}",
                where=tile.path,
                remedy="move it back; its label would be wrong",
            )


def _check_unique(tiles: Sequence[Tile]) -> None:
    """Refuse a published name that is there twice: it is one tile, whatever its folder."""
    seen: dict[str, Tile] = {}
    for tile in tiles:
        if tile.id in seen:
            raise DataError(
                "two tiles have the same published name",
                found=f"{seen[tile.id].path} and {tile.path}",
                expected="every name once in all splits together",
                remedy="remove one of them: a copy of a training tile in the test split is a leak",
            )
        seen[tile.id] = tile


def _with_own_names(splits: Mapping[str, Sequence[Tile]], root: Path) -> dict[str, list[Tile]]:
    """Return tiles of unique ids: paths below the root where names repeat."""
    count = Counter(tile.id for part in splits.values() for tile in part)
    twice = {i for i, n in count.items() if n > 1 and i.rsplit("_", 1)[0] not in CLASSES}
    if not twice:
        return {name: list(part) for name, part in splits.items()}
    named = {tile.path for part in splits.values() for tile in part if tile.id not in twice}
    return {
        name: [
            tile if tile.path in named else replace(tile, id=_below(tile.path, root))
            for tile in part
        ]
        for name, part in splits.items()
    }


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


# ---------------------------------------------------------------------------- dividing


def _as_given(root: Path) -> dict[str, list[Tile]]:
    found = {n: _tiles_in(root / n) for n in SPLITS if (root / n).is_dir()}
    found = _with_own_names(found, root)
    if "val" in found:
        return found
    train, test = found["train"], found["test"]
    stay, taken = hold_out(_by_class(train), "eurosat")
    by_id = {tile.id: tile for tile in train}
    return {"train": [by_id[i] for i in stay], "val": [by_id[i] for i in taken], "test": test}


def _divide(folder: Path, rule: SplitRule) -> dict[str, list[Tile]]:
    tiles = _with_own_names({"": _tiles_in(folder)}, folder)[""]
    _check_unique(tiles)
    by_id = {tile.id: tile for tile in tiles}
    if rule is SplitRule.SPATIAL:
        parts = by_value({t.id: _longitude(t) for t in track(tiles, "locating tiles")})
    else:
        parts = by_hash(_by_class(tiles), "eurosat")
    return {name: [by_id[i] for i in parts[name]] for name in SPLITS}


def _by_class(tiles: Sequence[Tile]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {name: [] for name in CLASSES}
    for tile in tiles:
        groups[CLASSES[tile.label]].append(tile.id)
    return groups


def _longitude(tile: Tile) -> float:
    with source_of(tile).open() as raster:
        try:
            return raster.grid.centre()[0]
        except RasterError as error:
            error.problem = "a tile cannot be divided by longitude: it does not say where it lies"
            error.where = tile.path
            error.remedy = (
                f"use the published files, or {error.remedy}; a benchmark can do without: eofm "
                "bench eurosat --split stratified"
            )
            raise
