"""A toy data set, complete in this file: images of two brightnesses, one class each.

<root>/{train,val,test}/{dark,bright}/<n>.tif    B02, B03, B04 and B08 of Sentinel-2 L2A
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.base import Benchmark, Dataset, FolderLayout, Loaded, Packing, Task
from eofm.datasets.check import CheckConfig, Described, described_chips
from eofm.datasets.images.chips import Chip, Chips, file_pixels
from eofm.store.splits import SPLITS

CLASSES: Final = ("dark", "bright")
SPEC: Final = ImageSpec(Sensor.S2_L2A, ("B02", "B03", "B04", "B08"), Unit.DN, (16, 16), 10.0)
SIZE: Final = {"all": 36, "train": 24}


def find(root: Path) -> dict[str, tuple[Chip, ...]]:
    """List the images by split."""
    return {
        split: tuple(
            Chip(f"{split}/{name}/{file.stem}", label, (file_pixels(file, SPEC),))
            for label, name in enumerate(CLASSES)
            for file in sorted((root / split / name).glob("*.tif"))
        )
        for split in SPLITS
    }


TASKS: Final = tuple(
    Task(f"toy-{part}", "a toy, synthetic", (SPEC,), CLASSES, size) for part, size in SIZE.items()
)


@dataclass(frozen=True)
class BenchToyConfig(BenchConfig):
    """Score encoders and controls on the toy.

    Args:
        root: Folder of train, val and test.
        part: Which part of it.
    """

    verb: ClassVar[str] = "toy"
    named_by: ClassVar[tuple[str, ...]] = ("part",)

    part: Literal["all", "train"] = "all"
    out: str = "runs/bench/toy.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"toy-{self.part}"


def load(config: BenchToyConfig) -> Loaded:
    """Open the images that the settings name."""
    root = Path(config.root)
    (task,) = (task for task in TASKS if task.name == config.task)
    return Loaded(task, Chips(root, "given", CLASSES, find(root)), task.size)


@dataclass(frozen=True)
class PackToyConfig:
    """Pack the toy.

    Args:
        root: Folder of train, val and test.
        out: Folder of the packed store.
    """

    root: str
    out: str


def pack(config: PackToyConfig) -> object:
    """Pack all images with their classes and splits."""
    from eofm.datasets.images.packing import pack_chips
    from eofm.store.format import LabelRule

    return pack_chips(
        find(Path(config.root)),
        SPEC,
        LabelRule("toy", CLASSES, 0.0, 0.0),
        config.out,
        title="toy",
        settings={"verb": "pack toy", "root": config.root},
    )


def fits(root: Path) -> bool:
    """Whether a folder is one of the toy."""
    there = Counter(path.name for path in root.glob("train/*"))
    return there.keys() == set(CLASSES)


def describe(root: Path, config: CheckConfig) -> Described:
    """List what is in a folder of the toy."""
    return described_chips("the toy", find(root), CLASSES, SPEC, SIZE["all"])


DATASET: Final = Dataset(
    name="toy",
    title="the toy",
    benchmark=Benchmark(
        "score encoders and controls on the toy",
        BenchToyConfig,
        load,
        ("eofm bench toy --root DIR",),
        TASKS,
    ),
    packing=Packing(
        "pack the toy",
        PackToyConfig,
        "eofm.datasets.toy:pack",
        ("eofm pack toy --root DIR --out STORE",),
    ),
    layout=FolderLayout(fits, describe),
)
