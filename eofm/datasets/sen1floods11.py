"""Sen1Floods11: floods in Sentinel-1 and Sentinel-2, 446 hand-labelled chips of 512 x 512 pixels.

Bonafilia et al. 2020 (CVPR Workshops), version 1.1:

    <root>/[v1.1/]data/flood_events/HandLabeled/{S1Hand,S2Hand,LabelHand}/<event>_<n>_S1Hand.tif
    <root>/[v1.1/]splits/flood_handlabeled/flood_{train,valid,test,bolivia}_data.csv

A mask says 1 where water is, 0 where none is, -1 where it is not known. Chips are cut into four
windows of 256 pixels, for a network sees them near their own resolution then; the windows of a
chip count as one image, and intervals resample the floods: the chips of one event were cut from
the same acquisitions.

Faults that are met with: `S2Hand` is int16 with 0 as nodata, not uint16 as documented; `S1Hand`
has NaN where there is no measurement; five chips of Ghana are void altogether and the radar of
Paraguay_34417 is missing, so they contribute nothing. Pixels are 8.98e-5 degrees: 10 m high, but
narrower than that away from the equator.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import SegmentationConfig
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.datasets.base import (
    Benchmark,
    Dataset,
    Loaded,
    SplitList,
    Task,
    TaskKind,
    sensors_of,
    short_sensor,
)
from eofm.datasets.images.chips import FilePixels, Grouping, file_pixels, unpacking_remedy
from eofm.datasets.images.dense import Coding, DenseChip, DenseChips, Mask, WindowPixels
from eofm.errors import DataError

__all__ = [
    "BOLIVIA",
    "CHIP",
    "CLASSES",
    "CODING",
    "CORNERS",
    "COUNTS",
    "DATASET",
    "SPECS",
    "WINDOW",
    "BenchSen1Floods11Config",
    "open_sen1floods11",
]

CLASSES: Final = ("No water", "Water")
CODING: Final = Coding(
    codes={0: 0, 1: 1},
    void=frozenset({-1}),
    hint="take the folder LabelHand: -1 is void, 0 no water, 1 water",
)
CHIP: Final = 512
WINDOW: Final = 256
COUNTS: Final = {"train": 252, "val": 89, "test": 90}
BOLIVIA: Final = 15
SPECS: Final[Mapping[Sensor, ImageSpec]] = {
    Sensor.S2_L1C: ImageSpec(
        Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, (WINDOW, WINDOW), 10.0
    ),
    Sensor.S1_GRD: ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (WINDOW, WINDOW), 10.0),
}
CORNERS: Final = tuple(
    (row, col) for row in range(0, CHIP, WINDOW) for col in range(0, CHIP, WINDOW)
)
_NESTED: Final = ("", "v1.1")
_LISTS: Final = "splits/flood_handlabeled"
_HAND: Final = "data/flood_events/HandLabeled"
_FILES: Final = {"train": "flood_train_data.csv", "val": "flood_valid_data.csv"}
_FOLDERS: Final = {Sensor.S2_L1C: "S2Hand", Sensor.S1_GRD: "S1Hand"}
_DTYPES: Final = {
    Sensor.S2_L1C: frozenset({"int16", "uint16"}),
    Sensor.S1_GRD: frozenset({"float32"}),
}


def open_sen1floods11(
    root: Path | str, sensors: Sequence[Sensor], *, bolivia: bool = False
) -> tuple[DenseChips, int]:
    """Find the hand-labelled chips of the official lists, cut into windows. No pixel is read yet.

    Args:
        root: Folder of the download, or of its v1.1.
        sensors: One or both.
        bolivia: Score on the 15 chips of Bolivia, an event that is in no other list.

    Returns:
        The windows on disk, and how many chips there are to be.

    Raises:
        DataError: If a list or a file is missing, or a line of a list names no chip.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    top = next((root / n for n in _NESTED if (root / n / _LISTS).is_dir()), None)
    if top is None:
        there = sorted(path.name for path in root.iterdir())[:8]
        raise DataError(
            "this is no folder of Sen1Floods11",
            found=", ".join(there) or "an empty folder",
            expected=f"{_LISTS} and {_HAND}",
            where=root,
            remedy=unpacking_remedy(root) or "copy v1.1 of the bucket as it is",
        )
    test = "flood_bolivia_data.csv" if bolivia else "flood_test_data.csv"
    named = {n: _listed(top / _LISTS / f) for n, f in {**_FILES, "test": test}.items()}
    splits = {
        split: tuple(w for name in names for w in _windows(top, name, sensors))
        for split, names in named.items()
    }
    rule = "official, Bolivia" if bolivia else "official"
    count = sum(COUNTS.values()) + (BOLIVIA - COUNTS["test"] if bolivia else 0)
    return DenseChips(root, rule, CLASSES, splits), count


def _listed(file: Path) -> list[str]:
    """Return the names of chips, `Ghana_103272`, of lines `..._S1Hand.tif,..._LabelHand.tif`."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, ValueError) as error:
        raise DataError("a list of Sen1Floods11 is not there", found=error, where=file) from error
    names = [row[0].strip().removesuffix("_S1Hand.tif") for row in rows]
    wrong = [row for row in rows if not row[0].strip().endswith("_S1Hand.tif")]
    if wrong or not names:
        raise DataError(
            "this is no list of hand-labelled chips",
            found=", ".join(wrong[0]) if wrong else "an empty file",
            expected="<event>_<n>_S1Hand.tif,<event>_<n>_LabelHand.tif",
            where=file,
        )
    return names


def _windows(top: Path, name: str, sensors: Sequence[Sensor]) -> list[DenseChip]:
    from eofm.raster.grid import Window

    hand = top / _HAND
    label = hand / "LabelHand" / f"{name}_LabelHand.tif"
    images = {s: hand / _FOLDERS[s] / f"{name}_{_FOLDERS[s]}.tif" for s in sensors}
    for file in (label, *images.values()):
        if not file.is_file():
            raise DataError(
                "a chip of the lists is not there",
                found=f"no {file.name}",
                where=file.parent,
                remedy="complete the download: 446 files in each folder",
            )
    whole = [_whole(images[sensor], sensor) for sensor in sensors]
    return [
        DenseChip(
            f"{name}_{window.row}_{window.col}",
            name,
            tuple(WindowPixels(pixels, window) for pixels in whole),
            Mask(label, CODING, (CHIP, CHIP), window),
            name.rpartition("_")[0],
        )
        for window in (Window(row, col, WINDOW, WINDOW) for row, col in CORNERS)
    ]


def _whole(file: Path, sensor: Sensor) -> FilePixels:
    return file_pixels(file, replace(SPECS[sensor], size=(CHIP, CHIP)), _DTYPES[sensor])


# --------------------------------------------------------------------------------- tasks


def _task(sensor: str) -> Task:
    return Task(
        name=f"sen1floods11-{sensor}",
        dataset="Sen1Floods11 v1.1, hand-labelled (Bonafilia et al. 2020), windows of 256 pixels",
        specs=tuple(SPECS[s] for s in sensors_of(sensor, Sensor.S2_L1C)),
        classes=CLASSES,
        size=sum(COUNTS.values()),
        kind=TaskKind.SEGMENTATION,
        splits=(SplitList("official", COUNTS),),
        notes=("The four windows of a chip count as one image.",),
        grouping=Grouping("flood events", "the name of a chip begins with its event"),
    )


_TASKS: Final = {task.name: task for task in map(_task, ("s2", "s1", "both"))}


@dataclass(frozen=True)
class BenchSen1Floods11Config(SegmentationConfig):
    """Score encoders on Sen1Floods11: water and none, by a linear layer on patches.

    Args:
        root: Folder of the download: v1.1, or data and splits.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, patches side by side.
        test: `official`, or `bolivia`: 15 chips of an event that is in no other list.
    """

    verb: ClassVar[str] = "sen1floods11"
    named_by: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Literal["s2", "s1", "both", "s2-l1c", "s1-grd"] = "s1"
    test: Literal["official", "bolivia"] = "official"
    out: str = "runs/bench/sen1floods11.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sensor", short_sensor(self.sensor))

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"sen1floods11-{self.sensor}"


def _load(config: BenchSen1Floods11Config) -> Loaded:
    sensors = sensors_of(config.sensor, Sensor.S2_L1C)
    opened = open_sen1floods11(config.root, sensors, bolivia=config.test == "bolivia")
    return Loaded(_TASKS[config.task], *opened)


DATASET: Final = Dataset(
    name="sen1floods11",
    title="Sen1Floods11",
    benchmark=Benchmark(
        "segment floods on Sen1Floods11 by a linear layer on patch tokens",
        BenchSen1Floods11Config,
        _load,
        (
            "eofm bench sen1floods11 --root DIR --sensor s1 --model softcon_vits14_s1",
            "eofm bench sen1floods11 --root DIR --sensor s2 --test bolivia --model MODEL",
        ),
        tuple(_TASKS.values()),
    ),
    cards=("sen1floods11",),
)
