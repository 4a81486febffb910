"""TreeSatAI: 15 genera of trees in Lower Saxony, several per image (doi 10.5194/essd-15-681-2023).

    <root>/s2/{60m,200m}/<name>.tif    12 bands of Sentinel-2 L2A: 6 or 20 pixels
    <root>/labels/TreeSatBA_v9_60m_multi_labels.json    name -> [[genus, share of area], ...]
    <root>/{train,test}_filenames.lst

A label is a share of the area, mostly below 1. What share counts as present changes the task, so
the threshold is part of the task's name: above 0 there are 95,862 positives, above 0.07 there are
76,707. torchgeo's data set counts any share as present.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.base import Benchmark, Dataset, Loaded, SplitList, Task, TaskKind, level_2a
from eofm.datasets.images import chips
from eofm.datasets.images.chips import (
    PLACES,
    Chip,
    Chips,
    FilePixels,
    StoredAt,
    file_pixels,
    hold_out_val,
    unpacking_remedy,
)
from eofm.datasets.images.places import by_ground
from eofm.errors import DataError, LabelError

__all__ = [
    "CLASSES",
    "COUNTS",
    "DATASET",
    "FILE_ORDER",
    "SIDES",
    "BenchTreeSatAIConfig",
    "ClippedPixels",
    "open_treesatai",
    "spec_of",
]

CLASSES: Final = (
    *("Abies", "Acer", "Alnus", "Betula", "Cleared", "Fagus", "Fraxinus", "Larix"),
    *("Picea", "Pinus", "Populus", "Prunus", "Pseudotsuga", "Quercus", "Tilia"),
)
FILE_ORDER: Final = (
    *("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09"),
)
SIDES: Final = {60: 6, 200: 20}
COUNTS: Final = {"train": 45_337, "test": 5_044}
_LABELS: Final = "labels/TreeSatBA_v9_60m_multi_labels.json"


def spec_of(metres: int) -> ImageSpec:
    """Return what the images of 60 or 200 m are."""
    side = SIDES[metres]
    return ImageSpec(Sensor.S2_L2A, FILE_ORDER, Unit.DN, (side, side), 10.0)


@dataclass(frozen=True)
class ClippedPixels:
    """Digital numbers that the processor left below 0 over dark ground: read as 0.

    Args:
        inner: The file.
    """

    inner: FilePixels

    def read(self) -> chips.Imagery:
        """Return the image, nothing below 0."""
        imagery = self.inner.read()
        return replace(imagery, pixels=imagery.pixels.clamp_min(0))

    @property
    def place(self) -> StoredAt:
        """The file."""
        return self.inner.place

    def digest(self) -> str:
        """Return the sha256 of the file."""
        return self.inner.digest()


def open_treesatai(root: Path | str, metres: int, threshold: float) -> tuple[Chips, int]:
    """Find the images of the official lists. Pixels are not read yet.

    There is no official val: 10 % of train are held out by hash.

    Args:
        root: Folder of the unpacked archives.
        metres: 60 or 200: which cut of Sentinel-2. The labels are those of 60 m.
        threshold: A genus is present where its share of the area is larger.

    Returns:
        The images on disk, and how many the lists name.

    Raises:
        DataError: If lists, labels or images are missing.
        LabelError: If a genus is unknown, or an image has no labels.
    """
    root = Path(root)
    names = {split: _lines(root / f"{split}_filenames.lst", root) for split in COUNTS}
    shares = _read_labels(root)
    splits: dict[str, tuple[Chip, ...]] = {}
    for split, files in names.items():
        present = [n for n in files if (root / f"s2/{metres}m/{n}").is_file()]
        splits[split] = tuple(_chip(root, n, metres, shares, threshold) for n in present)
    splits |= hold_out_val(splits["train"], "treesatai")
    splits |= {name: by_ground(splits[name]) for name in ("val", "test")}
    count = sum(map(len, names.values()))
    absent = count - sum(map(len, splits.values()))
    remarks = (f"{absent} of {count} images are not on disk",) if absent else ()
    return Chips(root, "official, val held out", CLASSES, splits, remarks), count


def _lines(file: Path, root: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8").split()
    except OSError as error:
        raise DataError(
            "this is no folder of TreeSatAI",
            found=error,
            expected=f"{file.name}, {_LABELS}, s2/60m",
            where=root,
            remedy=unpacking_remedy(root),
        ) from error
    if not lines:
        raise DataError("a list of TreeSatAI is empty", where=file)
    return lines


def _read_labels(root: Path) -> dict[str, list[tuple[str, float]]]:
    try:
        table = json.loads((root / _LABELS).read_text("utf-8"))
        return {name: [(str(g), float(s)) for g, s in rows] for name, rows in table.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LabelError(
            "the labels of TreeSatAI cannot be read",
            found=error,
            where=root / _LABELS,
            remedy="unpack labels.zip",
        ) from error


def _chip(
    root: Path,
    name: str,
    metres: int,
    shares: dict[str, list[tuple[str, float]]],
    threshold: float,
) -> Chip:
    if name not in shares:
        raise LabelError("an image has no labels", found=name, where=root / _LABELS)
    strange = sorted({genus for genus, _ in shares[name]} - set(CLASSES))
    if strange:
        raise LabelError(
            "a genus is none of the 15",
            found=", ".join(strange),
            expected=", ".join(CLASSES),
            where=f"{root / _LABELS}: {name}",
        )
    label = tuple(sorted(CLASSES.index(g) for g, share in shares[name] if share > threshold))
    pixels = file_pixels(root / f"s2/{metres}m/{name}", spec_of(metres), name=name)
    return Chip(Path(name).stem, label, (ClippedPixels(pixels),))


# --------------------------------------------------------------------------------- tasks


def _task(metres: int, percent: int) -> Task:
    return Task(
        name=f"treesatai-{metres}m-over{percent}",
        dataset="TreeSatAI, Sentinel-2 L2A (Ahlswede et al. 2023, doi 10.5194/essd-15-681-2023)",
        specs=(spec_of(metres),),
        classes=CLASSES,
        size=sum(COUNTS.values()),
        kind=TaskKind.SEVERAL_CLASSES,
        splits=(
            SplitList("official, val held out", {"train": 40_803, "val": 4_534, "test": 5_044}),
        ),
        waivers=level_2a("TreeSatAI is Level-2A", "Level-2A has no B10; 0 after scaling"),
        notes=(f"A genus counts as present from a share of the area above {percent} %.",),
        grouping=PLACES,
    )


_TASKS: Final[Mapping[str, Task]] = {
    task.name: task for task in (_task(metres, percent) for metres in SIDES for percent in (0, 7))
}


@dataclass(frozen=True)
class BenchTreeSatAIConfig(BenchConfig):
    """Score encoders and controls on the Sentinel-2 images of TreeSatAI.

    Args:
        root: Folder of s2, labels, train_filenames.lst and test_filenames.lst.
        metres: Which cut: 60 (6 pixels) or 200 (20 pixels). The labels are those of 60 m.
        percent: A genus is present where its share of the area is above so many percent.
    """

    verb: ClassVar[str] = "treesatai"
    named_by: ClassVar[tuple[str, ...]] = ("metres", "percent")

    metres: Literal[60, 200] = 60
    percent: Literal[0, 7] = 7
    out: str = "runs/bench/treesatai.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"treesatai-{self.metres}m-over{self.percent}"


def _load(config: BenchTreeSatAIConfig) -> Loaded:
    chips, published = open_treesatai(config.root, config.metres, config.percent / 100)
    return Loaded(_TASKS[config.task], chips, published)


DATASET: Final = Dataset(
    name="treesatai",
    title="TreeSatAI",
    benchmark=Benchmark(
        "score encoders and controls on TreeSatAI",
        BenchTreeSatAIConfig,
        _load,
        ("eofm bench treesatai --root DIR --metres 60 --model softcon_vits14_s2",),
        tuple(_TASKS.values()),
    ),
)
