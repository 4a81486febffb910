"""BigEarthNet: Sentinel-2 L2A and Sentinel-1 GRD patches of 120 pixels, from ten countries.

Version 1 (Sumbul et al. 2019, 2021), version 2 (Clasen et al. 2024, arXiv 2407.03653), and the 5 %
of version 2 that Copernicus-Bench divides for itself (arXiv 2503.11849). Their layouts are told in
`eofm.datasets.bigearthnet.patches` and `.chips`. The versions share most of their ground: half
of the test patches of version 2 were training patches of version 1, so scores are never compared.

Labels are handled by name, because three orders of the 19 classes are about: the official one
below, the alphabetical one in the tables of version 2, and one in which alphabetical numbers had
been sent through the official mapping, so that every label was wrong (torchgeo#1127).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.datasets.base import (
    Benchmark,
    Dataset,
    FolderLayout,
    Loaded,
    Packing,
    SplitList,
    Task,
    TaskKind,
    check_sensors,
    check_workers,
    level_2a,
    sensors_of,
    short_sensor,
)
from eofm.datasets.check import CheckConfig, Described
from eofm.datasets.images.chips import Grouping
from eofm.errors import ConfigError, LabelError
from eofm.settings import checked_settings

__all__ = [
    "CLASSES_19",
    "CLASSES_43",
    "COUNTS_COPERNICUS",
    "COUNTS_V1",
    "COUNTS_V2",
    "DATASET",
    "EXCLUDED_V1",
    "EXCLUDED_V2",
    "FOLDERS",
    "MEMBERS",
    "METADATA",
    "SENSOR_NAMES",
    "SIZE",
    "SPECS",
    "UNITS",
    "BenchBigEarthNetConfig",
    "PackBigEarthNetConfig",
    "Version",
    "multi_hot",
    "task_name",
    "to_19",
]

# -------------------------------------------- classes: 43 of CORINE Land Cover, and 19 made of them

CLASSES_43: Final = (
    "Continuous urban fabric",
    "Discontinuous urban fabric",
    "Industrial or commercial units",
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Non-irrigated arable land",
    "Permanently irrigated land",
    "Rice fields",
    "Vineyards",
    "Fruit trees and berry plantations",
    "Olive groves",
    "Pastures",
    "Annual crops associated with permanent crops",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland",
    "Moors and heathland",
    "Sclerophyllous vegetation",
    "Transitional woodland/shrub",
    "Beaches, dunes, sands",
    "Bare rock",
    "Sparsely vegetated areas",
    "Burnt areas",
    "Inland marshes",
    "Peatbogs",
    "Salt marshes",
    "Salines",
    "Intertidal flats",
    "Water courses",
    "Water bodies",
    "Coastal lagoons",
    "Estuaries",
    "Sea and ocean",
)

# Sumbul et al. 2021 (BigEarthNet-MM). A class of the 43 that stands in no row was dropped.
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": ("Pastures",),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coniferous forest": ("Coniferous forest",),
    "Mixed forest": ("Mixed forest",),
    "Natural grassland and sparsely vegetated areas": (
        "Natural grassland",
        "Sparsely vegetated areas",
    ),
    "Moors, heathland and sclerophyllous vegetation": (
        "Moors and heathland",
        "Sclerophyllous vegetation",
    ),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
CLASSES_19: Final = tuple(MEMBERS)

_TO_19: Final = {member: name for name, members in MEMBERS.items() for member in members}
_KNOWN_43: Final = frozenset(CLASSES_43)


def to_19(labels: Iterable[str], where: object = None) -> frozenset[str]:
    """Return the 19-class names of 43-class names. Classes that were dropped vanish.

    Raises:
        LabelError: If a name is not one of the 43.
    """
    names = frozenset(labels)
    _check(names, _KNOWN_43, where)
    return frozenset(_TO_19[name] for name in names if name in _TO_19)


def multi_hot(labels: Iterable[str], classes: tuple[str, ...], where: object) -> tuple[int, ...]:
    """Return 1 for every class that is among the labels, in the order of the classes.

    Raises:
        LabelError: If a label is not one of the classes.
    """
    names = frozenset(labels)
    _check(names, frozenset(classes), where)
    return tuple(int(name in names) for name in classes)


def _check(names: frozenset[str], known: frozenset[str], where: object) -> None:
    strange = sorted(names - known)
    if strange:
        raise LabelError(
            f"labels that are not among the {len(known)} classes",
            found="; ".join(strange),
            expected=f"the {len(known)}-class names of BigEarthNet",
            where=where,
        )


# ------------------------------------------------------------------------------------------- images

SIZE: Final = (120, 120)
UNITS: Final = {Sensor.S2_L2A: Unit.DN, Sensor.S1_GRD: Unit.DB}
SPECS: Final[Mapping[Sensor, ImageSpec]] = {
    sensor: ImageSpec(sensor, SENSOR_BANDS[sensor], unit, SIZE, 10.0)
    for sensor, unit in UNITS.items()
}
FOLDERS: Final = ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0", "BigEarthNet-S2", "BigEarthNet-S1")
METADATA: Final = "metadata.parquet"
SENSOR_NAMES: Final[Mapping[str, Literal["s2-l2a", "s1-grd"]]] = {
    **{"s2-l2a": "s2-l2a", "s1-grd": "s1-grd"},
    **{"s2": "s2-l2a", "s1": "s1-grd"},
}

# Patches per split, of the official lists.
COUNTS_V1: Final = {"train": 269_695, "val": 123_723, "test": 125_866}
COUNTS_V2: Final = {"train": 237_871, "val": 122_342, "test": 119_825}
COUNTS_COPERNICUS: Final = {"train": 11_894, "val": 6_117, "test": 5_991}
EXCLUDED_V1: Final = {
    "patches_with_seasonal_snow": 61_707,
    "patches_with_cloud_and_shadow": 9_280,
    "patches_with_no_19_class_targets": 57,
}
EXCLUDED_V2: Final = 69_450


class Version(StrEnum):
    """Which BigEarthNet."""

    V1 = "v1"
    V2 = "v2"


# --------------------------------------------------------------------------------- tasks

_V1_LISTS: Final = (
    SplitList(
        "official",
        COUNTS_V1,
        {
            "train": "aa7097119a1342cb97256283090deb8a1c0f4fa7e146eadf0f25924fd2a8c622",
            "val": "45b61b66f88e954b9f855c3027d1365ae86da3d71d45cc61adbe7e96738699a8",
            "test": "a276d495692b877a827fe6e1a717c923f691e95cb9d93ba858264ad92edb3f07",
        },
    ),
    SplitList(
        "official, 10 % of train",
        {**COUNTS_V1, "train": 26_970},
        {"train": "3dd1dbc2f8bb4a0bd95d32b4fb2aa4b3da349e8d50110ef59f5b07519bb5b71a"},
    ),
    SplitList(
        "official, 1 % of train",
        {**COUNTS_V1, "train": 2_697},
        {"train": "e809d2ab972bcc3d3a653ef031ffec8191bf39a1ab7cb81dacf0d6913d6dea4c"},
    ),
)

_WITH_SNOW: Final = {"train": 272_544, "val": 139_577, "test": 137_367}

_V2_LISTS: Final = (
    SplitList(
        "official",
        COUNTS_V2,
        {
            "train": "fda779ef0ea3f246e01d8e17361667d0d5f0deea568534048e44955cd0c914c0",
            "val": "3ed8fb168a04c2e15bf6d5ce85ef7080ffa05638fa23e765b22f478ec258a8de",
            "test": "979abdfda82885e7a2271db6af2340a3f0c75c1180fb3d4cc53c334e157768ca",
        },
    ),
    SplitList(
        "official, 10 % of train",
        {**COUNTS_V2, "train": 23_788},
        {"train": "43ec415c913d9775a0dba9704b4ee3485f85b7155d82186ddaa0e20af895980f"},
    ),
    SplitList(
        "official, 1 % of train",
        {**COUNTS_V2, "train": 2_379},
        {"train": "4b3bf1ed1fd4f2b8409e4ee4880d964062548eeae40a41262256e9aa2de79ee5"},
    ),
    SplitList(
        "official, with snow and cloud",
        _WITH_SNOW,
        {
            "train": "c0b7c08818f68d56c1d89074d2ce1f55ea5f110169864703ed88d5e95f18c3e6",
            "val": "bb046907626ad94a62f1d4c9ea4fea1aac99e5d62464b45ec88bdbd0a86a7743",
            "test": "9c55fc3355c1209d768f5744194343a78a1db494c32d40fb0b7f84a3a4a0d0b4",
        },
    ),
    SplitList(
        "official, with snow and cloud, 10 % of train",
        {**_WITH_SNOW, "train": 27_255},
        {"train": "7366cb5a9cd94d3abba69ad4c92492d9114cb565fbacbbcf7646bdd7b68ac82e"},
    ),
    SplitList(
        "official, with snow and cloud, 1 % of train",
        {**_WITH_SNOW, "train": 2_726},
        {"train": "06b9a795810cad61ac57b5edaa5797cfd919cf24daa7cb8588686bca9f4edf82"},
    ),
)

_LISTS: Final[Mapping[str, tuple[SplitList, ...]]] = {
    "v1": _V1_LISTS,
    "v2": _V2_LISTS,
    "copernicus-bench": (SplitList("copernicus-bench", COUNTS_COPERNICUS),),
}

_DATA: Final = {
    "v1": "BigEarthNet-MM v1.0 (Sumbul et al. 2019, 2021)",
    "v2": "BigEarthNet v2.0, reBEN (Clasen et al. 2024, arXiv 2407.03653)",
}

# 119,825 test patches of version 2 come from about a hundred products: those of one are alike.
_PRODUCTS: Final = Grouping("Sentinel-2 products", "the name of a patch begins with its product")
_RARE: Final = (
    "Macro AP of version 2 rests on classes with 117 and 152 positives in test: see its interval.",
)
_COPERNICUS: Final = (
    "Published scores of Copernicus-Bench are means over batches of 64 of micro AP; these are of "
    "the whole test split.",
)
_WAIVERS: Final = level_2a(
    "BigEarthNet is Level-2A; networks for Level-1C are customarily scored on it",
    "Level-2A has no B10; 0 after scaling, as the evaluation code of SSL4EO-S12 does",
)


def task_name(version: str, sensor: str, classes: int) -> str:
    """Return the name of a BigEarthNet task: `bigearthnet-v2-s2`, `bigearthnet-v1-s1-43`.

    Args:
        version: `v1`, `v2` or `copernicus-bench`.
        sensor: `s2`, `s1` or `both`.
        classes: 19 or 43.
    """
    return f"bigearthnet-{version}-{sensor}" + ("" if classes == 19 else f"-{classes}")


def _task(version: str, sensor: str, classes: int) -> Task:
    subset = version == "copernicus-bench"
    lists = _LISTS[version]
    more = ", the 5 % of Copernicus-Bench (arXiv 2503.11849)" if subset else ""
    sensors = sensors_of(sensor, Sensor.S2_L2A)
    return Task(
        name=task_name(version, sensor, classes),
        dataset=_DATA["v1" if version == "v1" else "v2"] + more,
        specs=tuple(SPECS[s] for s in sensors),
        classes=CLASSES_19 if classes == len(CLASSES_19) else CLASSES_43,
        size=sum(lists[0].counts.values()),
        kind=TaskKind.SEVERAL_CLASSES,
        splits=lists,
        waivers=_WAIVERS if Sensor.S2_L2A in sensors else (),
        notes=_COPERNICUS if subset else _RARE if version == "v2" else (),
        grouping=_PRODUCTS,
    )


_TASKS: Final = tuple(
    _task(version, sensor, classes)
    for version, classes in (("v2", 19), ("v1", 19), ("v1", 43), ("copernicus-bench", 19))
    for sensor in ("s2", "s1", "both")
)


@dataclass(frozen=True)
class BenchBigEarthNetConfig(BenchConfig):
    """Score encoders and controls on BigEarthNet, official splits.

    Args:
        root: The folder that holds BigEarthNet-v1.0 and BigEarthNet-S1-v1.0, or BigEarthNet-S2 and
            BigEarthNet-S1; for copernicus-bench that of multilabel-train.csv.
        version: Which BigEarthNet. Their scores are never compared. `copernicus-bench` is 5 % of v2
            in the division of that benchmark.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, features side by side.
        classes: 19, or the 43 of version 1.
        metadata: Folder of the official lists (train.csv and so on, or metadata.parquet). Without
            it they are looked for in root, root/splits and root/metadata.
        excluded: Keep patches under snow, cloud or cloud shadow, which the authors leave out
            (version 2).
        percent: Percent of the training patches: the first of them in the order of
            sha256("bigearthnet-<version>|0|<patch>").
    """

    verb: ClassVar[str] = "bigearthnet"
    named_by: ClassVar[tuple[str, ...]] = ("version", "sensor", "classes")

    version: Literal["v1", "v2", "copernicus-bench"] = "v2"
    sensor: Literal["s2", "s1", "both", "s2-l2a", "s1-grd"] = "s2"
    classes: Literal[19, 43] = 19
    metadata: str | None = None
    excluded: bool = False
    percent: Literal[1, 10, 100] = 100
    out: str = "runs/bench/bigearthnet.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sensor", short_sensor(self.sensor))
        if self.version != "v1" and self.classes == 43:
            raise ConfigError(
                "version 2 has 19 classes", found="--classes 43", remedy="say --version v1"
            )
        if self.version == "copernicus-bench" and (
            self.excluded or self.percent != 100 or self.metadata
        ):
            raise ConfigError(
                "the lists of Copernicus-Bench are taken as they are",
                found="--excluded, --percent or --metadata",
                remedy="leave them out, or take --version v2",
            )

    @property
    def task(self) -> str:
        """Full name of the task."""
        return task_name(self.version, self.sensor, self.classes)


def _open(config: BenchBigEarthNetConfig) -> Loaded:
    from eofm.datasets.bigearthnet.chips import (
        BigEarthNetChoice,
        open_bigearthnet_chips,
        open_copernicus_bigearthnet,
    )

    sensors = sensors_of(config.sensor, Sensor.S2_L2A)
    if config.version == "copernicus-bench":
        chips, published = open_copernicus_bigearthnet(config.root, sensors)
    else:
        choice = BigEarthNetChoice(
            Version(config.version), sensors, config.classes, config.excluded, config.percent
        )
        chips, published = open_bigearthnet_chips(config.root, choice, config.metadata)
    (task,) = (task for task in _TASKS if task.name == config.task)
    return Loaded(task, chips, published)


# ----------------------------------------------------------------- packing and checking


@dataclass(frozen=True)
@checked_settings
class PackBigEarthNetConfig:
    """Pack the patches of BigEarthNet v1 or v2, with official labels and splits.

    Args:
        root: The folder that holds BigEarthNet-v1.0 and BigEarthNet-S1-v1.0, or BigEarthNet-S2 and
            BigEarthNet-S1.
        out: Folder of the packed store. An interrupted run resumes where it stopped.
        sensor: Which half of the pairs; without it, and without sensors, s2-l2a.
        sensors: Both, as in s2-l2a s1-grd, each into a store OUT/SENSOR. The table
            OUT/rows.parquet says which patches belong together.
        metadata: Folder of the official lists (train.csv and so on, or metadata.parquet). Without
            it they are looked for in root, root/splits and root/metadata.
        classes: 19, or the 43 of version 1.
        split: Which split, or all; the store says of every patch in which one it is.
        excluded: Keep patches under snow, cloud or cloud shadow, which the authors leave out.
        require: With `all`, every patch that the lists name must be there and whole. With
            `readable`, those that are not there are counted, and those that cannot be read are
            passed over and listed in the store with the reason.
        workers: How many processes read and write. Their number changes no byte of the store.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    root: str
    out: str
    sensor: Literal["s2-l2a", "s1-grd", "s2", "s1"] | None = None
    sensors: str | None = field(default=None, metadata={"list": True})
    metadata: str | None = None
    classes: Literal[19, 43] = 19
    split: Literal["train", "val", "test", "all"] = "all"
    excluded: bool = False
    require: Literal["readable", "all"] = "readable"
    workers: int = 1
    verify: bool = field(default=False, metadata={"flag": True})
    stats: bool = field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        if self.sensor is not None or self.sensors is not None:
            check_sensors(self.sensor, self.sensors, SENSOR_NAMES)
        if self.sensor is not None:
            object.__setattr__(self, "sensor", SENSOR_NAMES[self.sensor])
        check_workers(self.workers)


def _is_bigearthnet(root: Path) -> bool:
    return any((root / name).is_dir() for name in FOLDERS) or (root / METADATA).is_file()


def _describe(root: Path, config: CheckConfig) -> Described:
    from eofm.datasets.bigearthnet.patches import describe

    return describe(root, config)


DATASET: Final = Dataset(
    name="bigearthnet",
    title="BigEarthNet",
    benchmark=Benchmark(
        "score encoders and controls on BigEarthNet v1 or v2: Sentinel-2, Sentinel-1 or both",
        BenchBigEarthNetConfig,
        _open,
        (
            "eofm bench bigearthnet --root DIR --model softcon_vits14_s2 --probe knn,linear",
            "eofm bench bigearthnet --root DIR --sensor both --percent 10 \\",
            "    --model softcon_vits14_s2+softcon_vits14_s1",
            "eofm bench bigearthnet --root DIR --version v1 --model softcon_vits14_s2 \\",
            "    --probe softcon --train.faults true",
            "eofm bench bigearthnet-v1-s1-43 --root DIR --model softcon_vits14_s1",
        ),
        _TASKS,
    ),
    packing=Packing(
        "pack BigEarthNet v1 or v2, with official labels and splits",
        PackBigEarthNetConfig,
        "eofm.datasets.bigearthnet.patches:pack_bigearthnet",
        (
            "eofm pack bigearthnet --root DIR --sensor s2-l2a --split train --out STORE",
            "eofm pack bigearthnet --root DIR --metadata DIR --sensor s1-grd --classes 19 \\",
            "    --workers 8 --out STORE",
            "eofm pack bigearthnet --root DIR --sensors s2-l2a s1-grd --out OUT",
        ),
    ),
    layout=FolderLayout(_is_bigearthnet, _describe),
    cards=("bigearthnet-v1", "bigearthnet-v2"),
)
