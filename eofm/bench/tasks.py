"""Tasks: what is scored on what. A changed task is a new version, never an edit.

`TASKS` is the whole table. Data are read in `eofm.bench.tasks`; nothing here opens a file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from eofm.bench.task_config import FAMILIES, OWN_IMAGES, bigearthnet_name, family_of
from eofm.contract.recipe import AcceptSensor, FillBand, Waiver
from eofm.contract.spec import ImageSpec, Sensor
from eofm.datasets import (
    bigearthnet_copernicus,
    bigearthnet_lists,
    dfc2020,
    eurosat,
    sat6,
    scenes,
    sen1floods11,
    so2sat,
    treesatai,
)
from eofm.datasets.bigearthnet_chips import SPECS as BIGEARTHNET
from eofm.datasets.bigearthnet_classes import CLASSES_19, CLASSES_43
from eofm.errors import ConfigError
from eofm.probes.metrics import Metric


@dataclass(frozen=True)
class SplitList:
    """A published list of images, or one that a stated rule makes of it.

    Args:
        rule: As in `Chips.rule`.
        counts: Split -> number of images.
        sha256: Split -> hash of its ids (`eofm.store.splits.subset_hash`), where it is known.
    """

    rule: str
    counts: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """What test samples have in common that makes them alike, as far as their names tell.

    Args:
        name: What it is, in words.
        tail: Regular expression of what a sample's name has behind that of its cluster.
    """

    name: str
    tail: str

    def of(self, ids: Sequence[str]) -> tuple[int, ...]:
        """Return the number of each sample's cluster, from 0 on, in the order of the names."""
        names = [re.sub(f"{self.tail}$", "", one) for one in ids]
        number = {name: place for place, name in enumerate(dict.fromkeys(names))}
        return tuple(number[name] for name in names)


class TaskKind(StrEnum):
    """What a label is."""

    ONE_CLASS = "one class per image"
    SEVERAL_CLASSES = "several classes per image"
    SEGMENTATION = "a class per pixel"


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name: As in tables and in `eofm bench plan`.
        version: Part of every record's key: scores of two versions are never compared.
        dataset: Data set and revision.
        specs: What its images are, one per sensor.
        classes: Class names in the order of the label indices.
        size: Number of images of the whole set; fewer make a subset, and the table says so.
        metrics: Ids; the first is the primary one.
        kind: What a label is.
        splits: The lists by which it can be divided.
        waivers: Exceptions every model is granted on this task where it needs them, with reasons.
        notes: What a reader of its scores should know.
        cluster: What is resampled for intervals; None where names tell nothing.
    """

    name: str
    version: str
    dataset: str
    specs: tuple[ImageSpec, ...]
    classes: tuple[str, ...]
    size: int
    metrics: tuple[Metric, ...]
    kind: TaskKind = TaskKind.ONE_CLASS
    splits: tuple[SplitList, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    notes: tuple[str, ...] = ()
    cluster: Cluster | None = None

    @property
    def spec(self) -> ImageSpec:
        """What the images of the first sensor are."""
        return self.specs[0]


_ONE_CLASS: Final = (Metric.OA, Metric.AA)

_SEVERAL: Final = (Metric.AP_MICRO, Metric.AP_MACRO)

_PIXELS: Final = (Metric.MIOU, Metric.PIXEL_OA)

# ------------------------------------------------------------------------------- EuroSAT

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

_EUROSAT_DATA: Final = "(Helber et al. 2019, arXiv 1709.00029)"

EUROSAT: Final = Task(
    name="eurosat",
    version="1",
    dataset=f"EuroSAT MS, 13 bands, Sentinel-2 L1C {_EUROSAT_DATA}",
    specs=(eurosat.SPEC,),
    classes=eurosat.CLASSES,
    size=eurosat.TILES,
    metrics=_ONE_CLASS,
    splits=(_RANDOM_LISTS, _SPATIAL_LISTS),
)

_EUROSAT_OTHERS: Final = (
    Task(
        name="eurosat-rgb",
        version="1",
        dataset=f"EuroSAT RGB, JPEG {_EUROSAT_DATA}",
        specs=(scenes.EUROSAT_RGB.spec,),
        classes=eurosat.CLASSES,
        size=eurosat.TILES,
        metrics=_ONE_CLASS,
        splits=(_RANDOM_LISTS, _SPATIAL_LISTS),
        notes=("The pictures were stretched for viewing: their values are no reflectance.",),
    ),
    Task(
        name="eurosat-sar",
        version="1",
        dataset="EuroSAT-SAR, Sentinel-1 GRD in dB, matched to EuroSAT (zhu-xlab/FGMAE)",
        specs=(scenes.EUROSAT_SAR.spec,),
        classes=eurosat.CLASSES,
        size=eurosat.TILES,
        metrics=_ONE_CLASS,
        splits=(_RANDOM_LISTS, _SPATIAL_LISTS),
    ),
)

# --------------------------------------------------------------------------- BigEarthNet

_L2A: Final = AcceptSensor(
    Sensor.S2_L2A,
    "BigEarthNet is Level-2A; networks for Level-1C are customarily scored on it",
)

_NO_B10: Final = FillBand(
    "B10", 0.0, "Level-2A has no B10; 0 after scaling, as the evaluation code of SSL4EO-S12 does"
)

_V1_LISTS: Final = (
    SplitList(
        "official",
        bigearthnet_lists.COUNTS_V1,
        {
            "train": "aa7097119a1342cb97256283090deb8a1c0f4fa7e146eadf0f25924fd2a8c622",
            "val": "45b61b66f88e954b9f855c3027d1365ae86da3d71d45cc61adbe7e96738699a8",
            "test": "a276d495692b877a827fe6e1a717c923f691e95cb9d93ba858264ad92edb3f07",
        },
    ),
    SplitList(
        "official, 10 % of train",
        {**bigearthnet_lists.COUNTS_V1, "train": 26_970},
        {"train": "3dd1dbc2f8bb4a0bd95d32b4fb2aa4b3da349e8d50110ef59f5b07519bb5b71a"},
    ),
    SplitList(
        "official, 1 % of train",
        {**bigearthnet_lists.COUNTS_V1, "train": 2_697},
        {"train": "e809d2ab972bcc3d3a653ef031ffec8191bf39a1ab7cb81dacf0d6913d6dea4c"},
    ),
)

_WITH_SNOW: Final = {"train": 272_544, "val": 139_577, "test": 137_367}

_V2_LISTS: Final = (
    SplitList(
        "official",
        bigearthnet_lists.COUNTS_V2,
        {
            "train": "fda779ef0ea3f246e01d8e17361667d0d5f0deea568534048e44955cd0c914c0",
            "val": "3ed8fb168a04c2e15bf6d5ce85ef7080ffa05638fa23e765b22f478ec258a8de",
            "test": "979abdfda82885e7a2271db6af2340a3f0c75c1180fb3d4cc53c334e157768ca",
        },
    ),
    SplitList(
        "official, 10 % of train",
        {**bigearthnet_lists.COUNTS_V2, "train": 23_788},
        {"train": "43ec415c913d9775a0dba9704b4ee3485f85b7155d82186ddaa0e20af895980f"},
    ),
    SplitList(
        "official, 1 % of train",
        {**bigearthnet_lists.COUNTS_V2, "train": 2_379},
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

_BIGEARTHNET_DATA: Final = {
    "v1": "BigEarthNet-MM v1.0 (Sumbul et al. 2019, 2021)",
    "v2": "BigEarthNet v2.0, reBEN (Clasen et al. 2024, arXiv 2407.03653)",
}

_SENSORS: Final[Mapping[str, tuple[Sensor, ...]]] = {
    "s2": (Sensor.S2_L2A,),
    "s1": (Sensor.S1_GRD,),
    "both": (Sensor.S2_L2A, Sensor.S1_GRD),
}

# 119,825 test patches of version 2 come from about a hundred products: those of one are alike.
_PRODUCT: Final = Cluster("Sentinel-2 product", r"_\d+_\d+")
_RARE: Final = (
    "Macro AP of version 2 rests on classes with 117 and 152 positives in test: see its interval.",
)


def _bigearthnet(version: str, sensor: str, classes: int) -> Task:
    lists = _V1_LISTS if version == "v1" else _V2_LISTS
    sensors = _SENSORS[sensor]
    return Task(
        name=bigearthnet_name(version, sensor, classes),
        version="1",
        dataset=_BIGEARTHNET_DATA[version],
        specs=tuple(BIGEARTHNET[s] for s in sensors),
        classes=CLASSES_19 if classes == 19 else CLASSES_43,
        size=sum(lists[0].counts.values()),
        metrics=_SEVERAL,
        kind=TaskKind.SEVERAL_CLASSES,
        splits=lists,
        waivers=(_L2A, _NO_B10) if Sensor.S2_L2A in sensors else (),
        notes=_RARE if version == "v2" else (),
        cluster=_PRODUCT,
    )


def _copernicus_bigearthnet(sensor: str) -> Task:
    sensors = _SENSORS[sensor]
    return Task(
        name=bigearthnet_name("copernicus-bench", sensor, 19),
        version="1",
        dataset=f"{_BIGEARTHNET_DATA['v2']}, the 5 % of Copernicus-Bench (arXiv 2503.11849)",
        specs=tuple(bigearthnet_copernicus.SPECS[s] for s in sensors),
        classes=CLASSES_19,
        size=sum(bigearthnet_copernicus.COUNTS.values()),
        metrics=_SEVERAL,
        kind=TaskKind.SEVERAL_CLASSES,
        splits=(SplitList("copernicus-bench", bigearthnet_copernicus.COUNTS),),
        waivers=(_L2A, _NO_B10) if Sensor.S2_L2A in sensors else (),
        notes=(
            "Published scores of Copernicus-Bench are means over batches of 64 of micro AP; these "
            "are of the whole test split.",
        ),
        cluster=_PRODUCT,
    )


# --------------------------------------------------------------------------------- others

_SO2SAT_FILLS: Final = tuple(
    FillBand(band, 0.0, "So2Sat has no B01, B09 and B10: constant channels, 0 after scaling")
    for band in ("B01", "B09", "B10")
)


def _so2sat(version: so2sat.So2SatVersion, sensor: str) -> Task:
    kind = Sensor.S2_L1C if sensor == "s2" else Sensor.S1_GRD
    return Task(
        name=f"so2sat-{version}-{sensor}",
        version="1",
        dataset=f"So2Sat LCZ42 {version} (Zhu et al. 2020, doi 10.1109/MGRS.2020.2964708)",
        specs=(so2sat.SPECS[kind],),
        classes=so2sat.CLASSES,
        size=400_673,
        metrics=_ONE_CLASS,
        waivers=_SO2SAT_FILLS if sensor == "s2" else (),
        notes=(
            "A random or block split lets neighbours of training patches into test: 95 against 48 "
            "for the same features on culture-10 (arXiv 2305.13456).",
        )
        if version in {so2sat.So2SatVersion.RANDOM, so2sat.So2SatVersion.BLOCK}
        else (),
    )


def _treesatai(metres: int, percent: int) -> Task:
    return Task(
        name=f"treesatai-{metres}m-over{percent}",
        version="1",
        dataset="TreeSatAI, Sentinel-2 L2A (Ahlswede et al. 2023, doi 10.5194/essd-15-681-2023)",
        specs=(treesatai.spec_of(metres),),
        classes=treesatai.CLASSES,
        size=sum(treesatai.COUNTS.values()),
        metrics=_SEVERAL,
        kind=TaskKind.SEVERAL_CLASSES,
        splits=(
            SplitList("official, val held out", {"train": 40_803, "val": 4_534, "test": 5_044}),
        ),
        waivers=(
            AcceptSensor(Sensor.S2_L2A, "TreeSatAI is Level-2A"),
            FillBand("B10", 0.0, "Level-2A has no B10; 0 after scaling"),
        ),
        notes=(f"A genus counts as present from a share of the area above {percent} %.",),
    )


def _scenes(data: scenes.SceneSet, dataset: str, counts: Mapping[str, int]) -> Task:
    return Task(
        name=data.name,
        version="1",
        dataset=dataset,
        specs=(data.spec,),
        classes=data.classes,
        size=data.size,
        metrics=_ONE_CLASS,
        splits=(SplitList("lists", counts),),
    )


_SAT6: Final = Task(
    name="sat6",
    version="1",
    dataset="SAT-6 airborne (Basu et al. 2015, arXiv 1509.03602)",
    specs=(sat6.SPEC,),
    classes=sat6.CLASSES,
    size=sum(sat6.COUNTS.values()),
    metrics=_ONE_CLASS,
    splits=(
        SplitList("official, val held out", {"train": 291_600, "val": 32_400, "test": 81_000}),
    ),
    waivers=(
        AcceptSensor(
            Sensor.NAIP,
            "SAT-6 is aerial; networks for pictures take its red, green and blue, by name",
        ),
    ),
    notes=("Nearly solved: published scores reach 99.9, so differences say little.",),
)

# --------------------------------------------------------------------------- segmentation

_L1C_SENSORS: Final[Mapping[str, tuple[Sensor, ...]]] = {
    "s2": (Sensor.S2_L1C,),
    "s1": (Sensor.S1_GRD,),
    "both": (Sensor.S2_L1C, Sensor.S1_GRD),
}


def _dfc2020(sensor: str) -> Task:
    return Task(
        name=f"dfc2020-{sensor}",
        version="1",
        dataset="DFC2020, IEEE GRSS Data Fusion Contest 2020 (doi 10.21227/rha7-m332)",
        specs=tuple(dfc2020.SPECS[s] for s in _L1C_SENSORS[sensor]),
        classes=dfc2020.CLASSES,
        size=sum(dfc2020.COUNTS_LISTS.values()),
        metrics=_PIXELS,
        kind=TaskKind.SEGMENTATION,
        splits=(
            SplitList("copernicus-bench", dfc2020.COUNTS_LISTS),
            SplitList("contest, val held out", {"train": 4_615, "val": 513, "test": 986}),
        ),
        notes=("Savanna and snow do not occur in these masks: eight classes of ten are scored.",),
    )


def _sen1floods11(sensor: str) -> Task:
    return Task(
        name=f"sen1floods11-{sensor}",
        version="1",
        dataset="Sen1Floods11 v1.1, hand-labelled (Bonafilia et al. 2020), windows of 256 pixels",
        specs=tuple(sen1floods11.SPECS[s] for s in _L1C_SENSORS[sensor]),
        classes=sen1floods11.CLASSES,
        size=sum(sen1floods11.COUNTS.values()),
        metrics=_PIXELS,
        kind=TaskKind.SEGMENTATION,
        splits=(SplitList("official", sen1floods11.COUNTS),),
        notes=("The four windows of a chip count as one image.",),
    )


_ALL: Final = (
    EUROSAT,
    *_EUROSAT_OTHERS,
    *(_bigearthnet("v2", sensor, 19) for sensor in ("s2", "s1", "both")),
    *(_bigearthnet("v1", sensor, 19) for sensor in ("s2", "s1", "both")),
    *(_bigearthnet("v1", sensor, 43) for sensor in ("s2", "s1", "both")),
    *(_so2sat(version, sensor) for version in so2sat.So2SatVersion for sensor in ("s2", "s1")),
    *(_treesatai(metres, percent) for metres in (60, 200) for percent in (0, 7)),
    _scenes(
        scenes.UCMERCED,
        "UC Merced Land Use (Yang and Newsam 2010)",
        {"train": 1_260, "val": 420, "test": 420},
    ),
    _scenes(
        scenes.RESISC45,
        "NWPU-RESISC45 (Cheng et al. 2017)",
        {"train": 18_900, "val": 6_300, "test": 6_300},
    ),
    _SAT6,
    *(_copernicus_bigearthnet(sensor) for sensor in ("s2", "s1", "both")),
    *(_dfc2020(sensor) for sensor in _L1C_SENSORS),
    *(_sen1floods11(sensor) for sensor in _L1C_SENSORS),
)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in _ALL}


def folder_task(name: str, spec: ImageSpec, classes: tuple[str, ...], *, several: bool) -> Task:
    """Return the task that a user's own labelled folder makes.

    Args:
        name: Of the folder.
        spec: What its images are.
        classes: Class names in the order of the label indices.
        several: Whether an image may have several classes.
    """
    return Task(
        name=f"folder-{name}",
        version="1",
        dataset=f"labelled images of the folder {name}",
        specs=(spec,),
        classes=classes,
        size=0,
        metrics=_SEVERAL if several else _ONE_CLASS,
        kind=TaskKind.SEVERAL_CLASSES if several else TaskKind.ONE_CLASS,
    )


def mask_task(name: str, spec: ImageSpec, classes: tuple[str, ...]) -> Task:
    """Return the segmentation task that a user's own folder of images and masks makes.

    Args:
        name: Of the folder.
        spec: What its images are.
        classes: Class names in the order of the indices.
    """
    return Task(
        name=f"masks-{name}",
        version="1",
        dataset=f"images with masks of the folder {name}",
        specs=(spec,),
        classes=classes,
        size=0,
        metrics=_PIXELS,
        kind=TaskKind.SEGMENTATION,
    )


def find_task(name: str) -> Task:
    """Return the task of a name; of a family, the one that `eofm bench FAMILY` runs.

    Args:
        name: Full name (`bigearthnet-v1-s1-43`) or family (`bigearthnet`).

    Raises:
        ConfigError: If no task is declared under that name.
    """
    if name in TASKS:
        return TASKS[name]
    default = FAMILIES[name]("").task if name in FAMILIES else ""
    if default in TASKS:
        return TASKS[default]
    if name in FAMILIES:
        raise ConfigError(
            f"the images of `{name}` are your own: no task is declared for them",
            found=name,
            expected=", ".join(TASKS),
        )
    raise _unknown(name)


def task_filter(word: str) -> Callable[[str], bool]:
    """Return which names of tasks in records a word asks for.

    Args:
        word: Full name, family, `folder-NAME`, `masks-NAME`, or nothing for all.

    Raises:
        ConfigError: If no task has that name.
    """
    known = word in {"", *TASKS, *FAMILIES} or family_of(word) in OWN_IMAGES
    if not known:
        raise _unknown(word)
    return lambda name: word in {"", name, family_of(name)}


def _unknown(name: str) -> ConfigError:
    near = difflib.get_close_matches(name, [*FAMILIES, *TASKS], n=3)
    return ConfigError(
        f"there is no task {name!r}",
        found=name,
        expected=", ".join(FAMILIES) + "; or in full: " + ", ".join(TASKS),
        remedy=f"did you mean {' or '.join(near)}?" if near else None,
    )
