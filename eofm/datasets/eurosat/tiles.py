"""The tiles of EuroSAT MS: where they lie, how they are divided without a list, and packed.

    <root>/[EuroSAT_MS/ | ds/images/.../tif/ | ...]<Class>/<Class>_<n>.tif     as published
    <root>/{train,test[,val]}/<Class>/<anything>.tif                           already divided

The files have no band names, and their order is not that of other Sentinel-2 sets: B8A comes
last (phelber/EuroSAT#7). Software that assumed otherwise read B8A, B09 .. B12 from the wrong
places for years (torchgeo#2458). The digital numbers precede processing baseline 04.00: unit
`dn`, without the offset of 1000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from eofm.datasets.eurosat import CLASSES, NESTED, SPEC, PackEurosatConfig
from eofm.datasets.images.chips import Chip, Chips, FilePixels, file_pixels, unpacking_remedy
from eofm.datasets.images.class_folders import FolderSplit
from eofm.datasets.images.packing import pack_chips
from eofm.errors import ConfigError, DataError, RasterError
from eofm.raster.folder import class_files
from eofm.store.format import LabelRule
from eofm.store.packing import ItemsReport
from eofm.store.splits import SPLITS, by_hash, by_value, hold_out
from eofm.terminal import track

__all__ = ["divide_eurosat", "open_eurosat", "pack_eurosat"]

_SUFFIXES: Final = (".tif", ".tiff")
_DTYPES: Final = frozenset({"uint16"})


@dataclass(frozen=True)
class _Tile:
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

    @property
    def pixels(self) -> FilePixels:
        """Where its pixels are: thirteen bands in file order."""
        return file_pixels(self.path, SPEC, _DTYPES, self.id)


def open_eurosat(root: Path | str, rule: FolderSplit | None = None) -> Chips:
    """Find the tiles below `root` and divide them, as a benchmark needs them.

    Args:
        root: Folder in one of the two layouts.
        rule: As in `divide_eurosat`.

    Raises:
        DataError: If there is no image in train or in test; as `divide_eurosat`.
        RasterError: As `divide_eurosat`.
        ConfigError: As `divide_eurosat`.
    """
    used, splits = divide_eurosat(root, rule)
    return Chips(Path(root), used, CLASSES, splits)


def divide_eurosat(
    root: Path | str, rule: FolderSplit | None = None
) -> tuple[FolderSplit, dict[str, tuple[Chip, ...]]]:
    """Find the tiles below `root` and divide them. Pixels are not read yet.

    Args:
        root: Folder in one of the two layouts.
        rule: `spatial` (by longitude of the tile's centre, west to east, 60/20/20), `stratified`
            (60/20/20 of each class, by hash of the tile's name) or `given` (the folders train and
            test; val, if absent, is 20 % of train by hash). None takes the folders as given where
            there are `train` and `test`, and divides by longitude otherwise.

    Returns:
        How they were divided, and the tiles of `train`, `val` and `test` in the order of ids.

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
    if rule is not None and given != (rule is FolderSplit.GIVEN):
        raise ConfigError(
            "this way of dividing does not suit the folder",
            found=f"split={rule}, folders train and test {'' if given else 'not '}there",
            expected="given" if given else "spatial or stratified",
            where=root,
            remedy="leave --rule (of eofm pack) or --split (of eofm bench) out",
        )
    used = FolderSplit.GIVEN if given else rule or FolderSplit.SPATIAL
    try:
        divided = _as_given(root) if given else _divide(_class_root(root), used)
    except DataError as error:
        error.remedy = unpacking_remedy(root) or error.remedy
        raise
    ordered = {name: sorted(divided[name], key=lambda tile: tile.id) for name in SPLITS}
    _check_unique([tile for tiles in ordered.values() for tile in tiles])
    return used, {
        name: tuple(Chip(t.id, t.label, (t.pixels,)) for t in tiles)
        for name, tiles in ordered.items()
    }


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


def _tiles_in(folder: Path) -> list[_Tile]:
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
    tiles: list[_Tile] = []
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
        tiles += [_Tile(path.stem, path, label) for path in files]
    _check_names(tiles)
    return tiles


def _check_names(tiles: Sequence[_Tile]) -> None:
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


def _check_unique(tiles: Sequence[_Tile]) -> None:
    """Refuse a published name that is there twice: it is one tile, whatever its folder."""
    seen: dict[str, _Tile] = {}
    for tile in tiles:
        if tile.id in seen:
            raise DataError(
                "two tiles have the same published name",
                found=f"{seen[tile.id].path} and {tile.path}",
                expected="every name once in all splits together",
                remedy="remove one of them: a copy of a training tile in the test split is a leak",
            )
        seen[tile.id] = tile


def _with_own_names(splits: Mapping[str, Sequence[_Tile]], root: Path) -> dict[str, list[_Tile]]:
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


def _as_given(root: Path) -> dict[str, list[_Tile]]:
    found = {n: _tiles_in(root / n) for n in SPLITS if (root / n).is_dir()}
    found = _with_own_names(found, root)
    if "val" in found:
        return found
    train, test = found["train"], found["test"]
    stay, taken = hold_out(_by_class(train), "eurosat")
    by_id = {tile.id: tile for tile in train}
    return {"train": [by_id[i] for i in stay], "val": [by_id[i] for i in taken], "test": test}


def _divide(folder: Path, rule: FolderSplit) -> dict[str, list[_Tile]]:
    tiles = _with_own_names({"": _tiles_in(folder)}, folder)[""]
    _check_unique(tiles)
    by_id = {tile.id: tile for tile in tiles}
    if rule is FolderSplit.SPATIAL:
        parts = by_value({t.id: _longitude(t) for t in track(tiles, "locating tiles")})
    else:
        parts = by_hash(_by_class(tiles), "eurosat")
    return {name: [by_id[i] for i in parts[name]] for name in SPLITS}


def _by_class(tiles: Sequence[_Tile]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {name: [] for name in CLASSES}
    for tile in tiles:
        groups[CLASSES[tile.label]].append(tile.id)
    return groups


def _longitude(tile: _Tile) -> float:
    with tile.pixels.source.open() as raster:
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


# ----------------------------------------------------------------------------- packing


def pack_eurosat(config: PackEurosatConfig) -> ItemsReport:
    """Pack the tiles of a split. The files keep B8A last, a store has the order of the sensor.

    A run that was interrupted resumes where it stopped when it is called again.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds, and what was left out.

    Raises:
        DataError: If the folder is not that of EuroSAT MS, or a tile cannot be read where all are
            required.
        RasterError: If no tile says where it lies: a store keeps the place of every image.
        ConfigError: If the rule does not suit the layout.
        PixelError: If the pixels cannot be those of EuroSAT.
        StoreError: If `out` holds something else, or cannot be written.
    """
    stated = None if config.rule is None else FolderSplit(config.rule)
    rule, splits = divide_eurosat(config.root, stated)
    root = Path(config.root).as_posix()
    return pack_chips(
        splits,
        SPEC,
        LabelRule("eurosat", CLASSES, 0.0, 0.0),
        config.out,
        title=f"EuroSAT MS, divided {rule}",
        settings={"verb": "pack eurosat", "root": root, "rule": rule.value, "split": config.split},
        split=config.split,
        strict=config.require == "all",
        workers=config.workers,
        verify=config.verify,
        stats=config.stats,
    )
