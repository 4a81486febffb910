"""EuroSAT: 27,000 tiles of 64 x 64 pixels in ten classes (Helber et al. 2019, arXiv 1709.00029).

Multispectral Sentinel-2 L1C (MS), the same as pictures (RGB), and matched radar (EuroSAT-SAR,
zhu-xlab/FGMAE). How MS is found and divided is told in `eofm.datasets.eurosat.tiles`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.spec import ImageSpec, Sensor, Unit
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
from eofm.datasets.check.options import CheckConfig
from eofm.datasets.check.report import Described
from eofm.datasets.images.chips import Chips, Grouping
from eofm.datasets.images.class_folders import (
    RGB,
    ClassFolders,
    FolderSplit,
    list_files,
    load_class_folders,
)
from eofm.settings import checked_settings

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


def _own_division(root: Path, rule: FolderSplit | None) -> Chips:
    from eofm.datasets.eurosat.tiles import open_eurosat

    return open_eurosat(root, rule)


def _folders(
    nested: tuple[str, ...], endings: tuple[str, ...], spec: ImageSpec, *, own: bool = False
) -> ClassFolders:
    divide = _own_division if own else None
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


# ----------------------------------------------------------------- packing and checking


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


def _is_eurosat(root: Path) -> bool:
    tops = (root, root / "train", *(root / nested for nested in NESTED))
    return any((top / name).is_dir() for top in tops for name in CLASSES)


def _describe(root: Path, config: CheckConfig) -> Described:
    from eofm.datasets.check.report import described_chips
    from eofm.datasets.eurosat.tiles import divide_eurosat

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
        "eofm.datasets.eurosat.tiles:pack_eurosat",
        ("eofm pack eurosat --root EuroSAT_MS --out STORE",),
    ),
    layout=FolderLayout(_is_eurosat, _describe),
    cards=("eurosat",),
)
