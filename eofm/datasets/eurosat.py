"""EuroSAT: 27,000 tiles of 64 x 64 pixels in ten classes (Helber et al. 2019, arXiv 1709.00029).

Multispectral Sentinel-2 L1C (MS), the same as pictures (RGB), and matched radar (EuroSAT-SAR,
zhu-xlab/FGMAE). The folders of MS:

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets import base
from eofm.datasets.base import (
    Benchmark,
    Dataset,
    FolderLayout,
    Loaded,
    Packing,
    SplitList,
    Task,
    check_workers,
)
from eofm.datasets.check import CheckConfig, Described, described_chips
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    FilePixels,
    Grouping,
    file_pixels,
    unpacking_remedy,
)
from eofm.datasets.images.class_folders import (
    RGB,
    ClassFolders,
    FolderSplit,
    list_files,
    load_class_folders,
)
from eofm.errors import ConfigError, DataError, RasterError
from eofm.settings import checked_settings
from eofm.store.splits import SPLITS, by_hash, by_value, hold_out
from eofm.terminal import track

__all__ = [
    "CLASSES",
    "DATASET",
    "EUROSAT",
    "EUROSAT_MS",
    "EUROSAT_RGB",
    "EUROSAT_SAR",
    "FILE_ORDER",
    "NESTED",
    "SPEC",
    "TILES",
    "BenchEurosatConfig",
    "PackEurosatConfig",
    "divide_eurosat",
    "open_eurosat",
    "pack_eurosat",
]

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

# ------------------------------------------------------------------- tiles and their division

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
    from eofm.raster.folder import class_files

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


# --------------------------------------------------------------------------------- tasks

_RANDOM_LISTS: Final = SplitList("lists", {"train": 16_200, "val": 5_400, "test": 5_400})

_SPATIAL_LISTS: Final = SplitList(
    "spatial-lists",
    _RANDOM_LISTS.counts,
    {
        "train": "20a07eb31f50ed1ffd4e3e9c7c3ad12c3232d360e71a0afbd9366cfef4b3e6bf",
        "val": "4d1cf74631ccad2e063e48878dfb18be9181af7640f954787870b8a425d9f205",
        "test": "03cce753459274b50817326de5304bd3d2eb6d5bbb65107e9887a212df9a0e9b",
    },
)

_LIST_FILES: Final = {
    FolderSplit.LISTS: list_files(
        "eurosat-{}.txt",
        "908f142e73d6acdf3f482c5e80d851b1",
        "95de90f2aa998f70a3b2416bfe0687b4",
        "7ae5ab94471417b6e315763121e67c5f",
    ),
    FolderSplit.SPATIAL_LISTS: list_files(
        "eurosat-spatial-{}.txt",
        "7be3254be39f23ce4d4d144290c93292",
        "acf392290050bb3df790dc8fc0ebf193",
        "5ec1733f9c16116bf0aa2d921fc613ef",
    ),
}


def _folders(
    nested: tuple[str, ...], endings: tuple[str, ...], spec: ImageSpec, *, own: bool = False
) -> ClassFolders:
    divide = open_eurosat if own else None
    return ClassFolders("eurosat", CLASSES, nested, endings, spec, TILES, _LIST_FILES, divide)


EUROSAT_MS: Final = _folders(NESTED, (".tif", ".tiff"), SPEC, own=True)
EUROSAT_RGB: Final = _folders(
    ("", "EuroSAT_RGB", "2750", "EuroSAT/2750"),
    (".jpg", ".jpeg"),
    ImageSpec(Sensor.RGB, RGB, Unit.UINT8, (64, 64), 10.0),
)
EUROSAT_SAR: Final = _folders(
    ("", "EuroSAT-SAR", "EuroSAT_SAR"),
    (".tif", ".tiff"),
    ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (64, 64), 10.0),
)
_SETS: Final[Mapping[str, ClassFolders]] = {
    "eurosat": EUROSAT_MS,
    "eurosat-rgb": EUROSAT_RGB,
    "eurosat-sar": EUROSAT_SAR,
}


_TILES: Final = Grouping(
    "tiles", "EuroSAT does not say from which products its tiles were cut", known=False
)


def _task(name: str, dataset: str, notes: tuple[str, ...] = ()) -> Task:
    splits = (_RANDOM_LISTS, _SPATIAL_LISTS)
    spec = _SETS[name].spec
    return Task(name, dataset, (spec,), CLASSES, TILES, splits=splits, notes=notes, grouping=_TILES)


_HELBER: Final = "(Helber et al. 2019, arXiv 1709.00029)"
_STRETCHED: Final = "The pictures were stretched for viewing: their values are no reflectance."
EUROSAT: Final = _task("eurosat", f"EuroSAT MS, 13 bands, Sentinel-2 L1C {_HELBER}")
_TASKS: Final = (
    EUROSAT,
    _task("eurosat-rgb", f"EuroSAT RGB, JPEG {_HELBER}", (_STRETCHED,)),
    _task("eurosat-sar", "EuroSAT-SAR, Sentinel-1 GRD in dB, matched to EuroSAT (zhu-xlab/FGMAE)"),
)


@dataclass(frozen=True)
class BenchEurosatConfig(BenchConfig):
    """Score encoders and controls on EuroSAT.

    Args:
        root: Folder of EuroSAT as published (class folders, or the archive's folder above
            them), or, for MS, with train/<class> and test/<class>.
        sensor: `ms` (13 bands, s2-l1c), `rgb` (JPEG) or `sar` (EuroSAT-SAR, s1-grd).
        split: How tiles are divided. `spatial` (by longitude, MS) or `stratified` (by hash) for
            the published layout; `given` for train and test folders; `lists` and `spatial-lists`:
            the published lists eurosat-train.txt and so on, or eurosat-spatial-train.txt and so
            on, which must lie in the folder. `auto`: given folders, else lists, else spatial.
    """

    verb: ClassVar[str] = "eurosat"
    named_by: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Literal["ms", "rgb", "sar", "s2-l1c", "s1-grd"] = "ms"
    split: Literal["auto", "spatial", "stratified", "given", "lists", "spatial-lists"] = "auto"
    out: str = "runs/bench/eurosat.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        words = {"s2-l1c": "ms", "s1-grd": "sar"}
        object.__setattr__(self, "sensor", words.get(self.sensor, self.sensor))

    @property
    def task(self) -> str:
        """Full name of the task."""
        return "eurosat" if self.sensor == "ms" else f"eurosat-{self.sensor}"


def _open(config: BenchEurosatConfig) -> Loaded:
    (task,) = (task for task in _TASKS if task.name == config.task)
    return load_class_folders(task, _SETS[task.name], config.root, config.split)


# ----------------------------------------------------------------------------- packing


@dataclass(frozen=True)
@checked_settings
class PackEurosatConfig:
    """Pack the tiles of EuroSAT MS, with their class and split.

    Args:
        root: Folder of the class folders, or of train and test with these inside.
        out: Folder of the packed store. An interrupted run resumes where it stopped.
        rule: How tiles are divided; without it, as the folders are, else by longitude.
        split: Which split, or all; the store says of every tile in which one it is.
        require: With `all`, every tile must be readable; else those that are not are passed over
            and listed in the store with the reason.
        workers: How many processes read and write. Their number changes no byte of the store.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    root: str
    out: str
    rule: Literal["spatial", "stratified", "given"] | None = None
    split: Literal["train", "val", "test", "all"] = "all"
    require: Literal["readable", "all"] = "readable"
    workers: int = 1
    verify: bool = field(default=False, metadata={"flag": True})
    stats: bool = field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        check_workers(self.workers)


def pack_eurosat(config: PackEurosatConfig) -> base.ItemsReport:
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
    from eofm.datasets.images.packing import pack_chips
    from eofm.store.format import LabelRule

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


# -------------------------------------------------------------------------------- declaration


def _is_eurosat(root: Path) -> bool:
    tops = (root, root / "train", *(root / nested for nested in NESTED))
    return any((top / name).is_dir() for top in tops for name in CLASSES)


def _describe(root: Path, config: CheckConfig) -> Described:
    given = (root / "train").is_dir()
    # a division that needs no file to be opened
    _, splits = divide_eurosat(root, None if given else FolderSplit.STRATIFIED)
    return described_chips("EuroSAT MS", splits, CLASSES, SPEC, TILES, divided=given, what="tiles")


DATASET: Final = Dataset(
    name="eurosat",
    title="EuroSAT",
    benchmark=Benchmark(
        "score encoders and controls on EuroSAT: MS, RGB or SAR",
        BenchEurosatConfig,
        _open,
        (
            "eofm bench eurosat --root EuroSAT_MS --model runs/mine/export/student \\",
            "    --probe knn,linear",
            "eofm bench eurosat --root DIR --model softcon_vits14_s2,random:resnet50",
            "eofm bench eurosat --root DIR --model softcon_vits14_s2 --probe finetune \\",
            "    --train.epochs 30 --train.factors 0.01,0.1",
            "eofm bench eurosat --root DIR --model softcon_vits14_s2 --size 32,64,96,128 \\",
            "    --normalization own,zscore,divide10000",
        ),
        _TASKS,
    ),
    packing=Packing(
        "pack the tiles of EuroSAT MS, with class and split",
        PackEurosatConfig,
        "eofm.datasets.eurosat:pack_eurosat",
        ("eofm pack eurosat --root EuroSAT_MS --out STORE",),
    ),
    layout=FolderLayout(_is_eurosat, _describe),
    cards=("eurosat",),
)
