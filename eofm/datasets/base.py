"""What a data set declares of itself. Nothing here opens a file, and no heavy library is loaded.

A module of this folder is one data set. Its `DATASET` says what the package can do with it: which
benchmark tasks it has and how their images are opened, how it is packed, how a folder of it is
recognised and checked, and which data cards describe it. `eofm.datasets.registry` finds the
declarations, and every verb reads them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from eofm.bench.config import ScoringConfig
from eofm.contract.recipe import AcceptSensor, FillBand, Waiver
from eofm.contract.spec import UNITS, ImageSpec, Sensor, Unit
from eofm.datasets.images.chips import NO_GROUPS, Chips, Grouping
from eofm.datasets.images.dense import DenseChips
from eofm.errors import ConfigError

if TYPE_CHECKING:
    from eofm.datasets.check import CheckConfig, Described
    from eofm.probes.metrics import Metric

    # modules of settings have the type from here: those who read the settings load what they name
    from eofm.store.packing import ItemsReport as ItemsReport  # noqa: PLC0414

__all__ = [
    "AnyChips",
    "BenchT",
    "Benchmark",
    "Dataset",
    "FolderLayout",
    "Loaded",
    "Name",
    "PackT",
    "Packing",
    "SensorName",
    "SplitList",
    "Task",
    "TaskKind",
    "UnitName",
    "check_labels",
    "check_sensors",
    "check_share",
    "check_unit",
    "check_workers",
    "level_2a",
    "own_task",
    "sensors_of",
    "short_sensor",
    "split_sensors",
]


# Images with labels, or with masks.
AnyChips = Chips | DenseChips

# --------------------------------------------------------------------------------- tasks


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


class TaskKind(StrEnum):
    """What a label is."""

    ONE_CLASS = "one class per image"
    SEVERAL_CLASSES = "several classes per image"
    SEGMENTATION = "a class per pixel"


# Ids of `eofm.probes.metrics.Metric`; the first is the primary one.
_METRICS: Final[Mapping[TaskKind, tuple[str, ...]]] = {
    TaskKind.ONE_CLASS: ("oa", "aa"),
    TaskKind.SEVERAL_CLASSES: ("ap_micro", "ap_macro"),
    TaskKind.SEGMENTATION: ("miou", "pixel_oa"),
}


@dataclass(frozen=True)
class Task:
    """One benchmark task. A changed task is a new version, never an edit.

    Args:
        name: Full name, as in tables and records.
        dataset: Data set and revision.
        specs: What its images are, one per sensor.
        classes: Class names in the order of the label indices.
        size: Number of images of the whole set; fewer make a subset, and the table says so.
        kind: What a label is.
        splits: The lists by which it can be divided.
        waivers: Exceptions every model is granted on this task where it needs them, with reasons.
        notes: What a reader of its scores should know.
        grouping: Which of its images belong together, and how that is known.
        version: Part of every record's key: scores of two versions are never compared.
    """

    name: str
    dataset: str
    specs: tuple[ImageSpec, ...]
    classes: tuple[str, ...]
    size: int
    kind: TaskKind = TaskKind.ONE_CLASS
    splits: tuple[SplitList, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    notes: tuple[str, ...] = ()
    grouping: Grouping = NO_GROUPS
    version: str = "1"

    def __repr__(self) -> str:
        """Return what is scored in one line."""
        images = f"{self.size:,} images" if self.size else "own images"
        pixels = " and ".join(
            f"{spec.sensor}, {len(spec.bands)} bands in {spec.unit}" for spec in self.specs
        )
        return (
            f"Task({self.name}, version {self.version}: {images} of {pixels}; "
            f"{len(self.classes)} classes, {self.kind}; {', '.join(self.metrics)})"
        )

    @property
    def spec(self) -> ImageSpec:
        """What the images of the first sensor are."""
        return self.specs[0]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Ids of its metrics; the first is the primary one."""
        from eofm.probes.metrics import Metric

        return tuple(Metric(word) for word in _METRICS[self.kind])


def own_task(
    verb: str,
    what: str,
    root: Path,
    spec: ImageSpec,
    classes: tuple[str, ...],
    kind: TaskKind,
    grouping: Grouping,
) -> Task:
    """Return the task of images of the user's own, which is named after their folder.

    Args:
        verb: Its family, as in `eofm bench VERB`.
        what: What the images are, in words.
        root: Their folder.
        spec: What its images are.
        classes: As of `Task`.
        kind: As of `Task`.
        grouping: As of `Task`.
    """
    name = root.resolve().name
    about = f"{what} of the folder {name}"
    return Task(f"{verb}-{name}", about, (spec,), classes, 0, kind, grouping=grouping)


def level_2a(why: str, fill: str) -> tuple[Waiver, ...]:
    """Return the exceptions of a task of Sentinel-2 Level-2A: networks for Level-1C may take it.

    Args:
        why: Why they are scored on it.
        fill: Why B10, which Level-2A lacks, is filled with 0.
    """
    return AcceptSensor(Sensor.S2_L2A, why), FillBand("B10", 0.0, fill)


@dataclass(frozen=True)
class Loaded:
    """A task with its images.

    Args:
        task: The declaration.
        chips: The images, divided.
        published: Number of images that there would be in all, where windows of one image count
            once; None where nothing is published.
    """

    task: Task
    chips: AnyChips
    published: int | None


# --------------------------------------------------------------- what a data set can do

BenchT = TypeVar("BenchT", bound=ScoringConfig)
PackT = TypeVar("PackT")


@dataclass(frozen=True)
class Benchmark(Generic[BenchT]):
    """`eofm bench NAME`.

    Args:
        summary: One line for `eofm --help`.
        settings: Its options; `settings.task` is the full name of the task they choose.
        open: Finds the images that the settings name. Pixels are not read yet.
        examples: Lines for the help of the verb.
        tasks: The tasks, by their full names; none where they are named after the user's folder.
    """

    summary: str
    settings: type[BenchT]
    open: Callable[[BenchT], Loaded]
    examples: tuple[str, ...]
    tasks: tuple[Task, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the images are the user's own, and tasks are named after their folder."""
        return not self.tasks


@dataclass(frozen=True)
class Packing(Generic[PackT]):
    """`eofm pack NAME`.

    Args:
        summary: One line for `eofm --help`.
        settings: Its options.
        run: `module:function` that packs by the settings and returns a report.
        examples: Lines for the help of the verb.
    """

    summary: str
    settings: type[PackT]
    run: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class FolderLayout:
    """How `eofm data check` recognises a folder of the data set, and what it looks into.

    Args:
        fits: Whether a folder is one.
        describe: Lists what is in it: images to read, counts, and what is wrong already.
    """

    fits: Callable[[Path], bool]
    describe: Callable[[Path, CheckConfig], Described]


@dataclass(frozen=True)
class Dataset:
    """A data set, or images of the user's own in a known layout.

    Args:
        name: One word, as in `eofm bench NAME` and `eofm pack NAME`; full names of its tasks begin
            with it.
        title: What it is called in texts.
        benchmark: How it is scored, where it has labels for that.
        packing: How it is packed.
        layout: How a folder of it is checked.
        cards: Names of the files in `data_cards/` that describe it.
    """

    name: str
    title: str
    benchmark: Benchmark[Any] | None = None
    packing: Packing[Any] | None = None
    layout: FolderLayout | None = None
    cards: tuple[str, ...] = ()


# ------------------------------------------------------------------- words for sensors

# A sensor may be named by its product or by its family, wherever a data set has one of the family.
_SHORT: Final[Mapping[str, str]] = {"s2-l1c": "s2", "s2-l2a": "s2", "s1-grd": "s1"}


def short_sensor(word: str) -> str:
    """Return the word that full names of tasks have for a sensor.

    >>> short_sensor("s2-l2a"), short_sensor("both")
    ('s2', 'both')
    """
    return _SHORT.get(word, word)


def sensors_of(word: str, optical: Sensor) -> tuple[Sensor, ...]:
    """Return the sensors that a word names.

    Args:
        word: `s2`, `s1` or `both`, or the name of a product.
        optical: Which product of Sentinel-2 the data set holds.
    """
    both = (optical, Sensor.S1_GRD)
    return {"s2": both[:1], "s1": both[1:], "both": both}[short_sensor(word)]


# --------------------------------------------------------------------- settings of verbs that pack


SensorName = Literal["s1-grd", "s1-rtc", "s2-l1c", "s2-l2a", "rgb", "naip"]
UnitName = Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"]

Name = TypeVar("Name", bound=str)


def check_workers(workers: int) -> None:
    """Refuse a number of workers below one."""
    if workers < 1:
        raise ConfigError("at least one worker is needed", found=workers)


def split_sensors(text: str, names: Mapping[str, Name]) -> tuple[Name, ...]:
    """Return the sensors of a list such as `s2c,s1`.

    Args:
        text: Names with commas between them.
        names: Every name that may be given -> its sensor.

    Raises:
        ConfigError: If one is unknown, or given twice.
    """
    given = [word.strip() for word in text.split(",")]
    sensors = tuple(names[word] for word in given if word in names)
    if len(set(sensors)) < len(given):
        raise ConfigError(
            "sensors are a list of different names with commas between them",
            found=text,
            expected=" | ".join(names),
        )
    return sensors


def check_sensors(sensor: str | None, sensors: str | None, names: Mapping[str, str]) -> None:
    """Refuse settings that name no sensor, or one and several at once."""
    if (sensor is None) == (sensors is None):
        raise ConfigError(
            "say which sensor to pack, or which sensors",
            found=f"sensor={sensor}, sensors={sensors}",
            remedy=f"--sensor {next(iter(names.values()))}, or "
            f"--sensors {','.join(dict.fromkeys(names.values()))}",
        )
    if sensors is not None:
        split_sensors(sensors, names)


def check_unit(sensor: str, unit: str) -> None:
    """Refuse a unit in which images of a sensor never are."""
    possible = UNITS[Sensor.parse(sensor)]
    if Unit.parse(unit) not in possible:
        raise ConfigError(
            f"{sensor} is never in unit {unit}",
            found=unit,
            expected=" | ".join(sorted(possible)),
            remedy="state the unit the files are in",
        )


def check_labels(
    landcover: str | None, scheme: str | None, threshold: float, min_valid: float
) -> None:
    """Refuse a land-cover map without its scheme, and shares that are none."""
    if (landcover is None) != (scheme is None):
        raise ConfigError(
            "a land-cover map and its scheme belong together",
            found=f"landcover={landcover}, scheme={scheme}",
            remedy="give both, or neither for an unlabelled store",
        )
    check_share("threshold", threshold)
    check_share("min_valid", min_valid)


def check_share(name: str, value: float) -> None:
    """Refuse a number below 0 or above 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a share", found=value, expected="0 to 1")
