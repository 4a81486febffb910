"""SAT-6: 405,000 aerial images of 28 x 28 pixels, red, green, blue and near infrared, six classes.

Basu et al. 2015 (arXiv 1509.03602), cut from NAIP. Needs SciPy.

    <root>/sat-6-full.mat    train_x, test_x (28, 28, 4, N) of uint8; train_y, test_y (6, N)

The file is the 1.2 GB MATLAB one; the tables of the same pixels as text are not read. It is held
in memory whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

from eofm.bench.config import BenchConfig
from eofm.contract.recipe import AcceptSensor
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.base import Benchmark, Dataset, Loaded, SplitList, Task
from eofm.datasets.images import chips
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    Grouping,
    StoredAt,
    hold_out_val,
    unpacking_remedy,
)
from eofm.errors import ConfigError, DataError, LabelError

__all__ = [
    "CLASSES",
    "COUNTS",
    "DATASET",
    "FILE",
    "SPEC",
    "TASK",
    "BenchSat6Config",
    "MatPixels",
    "open_sat6",
]

CLASSES: Final = ("building", "barren land", "trees", "grassland", "road", "water")
SPEC: Final = ImageSpec(Sensor.NAIP, ("R", "G", "B", "N"), Unit.UINT8, (28, 28), 1.0)
COUNTS: Final = {"train": 324_000, "test": 81_000}
FILE: Final = "sat-6-full.mat"


@dataclass(frozen=True)
class MatPixels:
    """One image of the MATLAB file.

    Args:
        file: The file.
        split: `train` or `test`.
        index: Which image.
    """

    file: Path
    split: str
    index: int

    def _stored(self) -> chips.NDArray[Any]:
        import numpy as np

        stored: chips.NDArray[Any] = _open(self.file.absolute())[f"{self.split}_x"][..., self.index]
        return np.ascontiguousarray(stored.transpose(2, 0, 1))

    def read(self) -> chips.Imagery:
        """Return the image, (1, 4, 28, 28)."""
        import torch

        from eofm.contract.imagery import Imagery

        pixels = torch.from_numpy(self._stored()).float()[None]
        return Imagery(pixels, SPEC, torch.ones(1, 28, 28, dtype=torch.bool))

    @property
    def place(self) -> StoredAt:
        """One image of the file."""
        return StoredAt((self.file,), f"{self.split} {self.index}")

    def digest(self) -> str:
        """Return the sha256 of the values as stored."""
        return hashlib.sha256(self._stored().tobytes()).hexdigest()


def open_sat6(root: Path | str) -> tuple[Chips, int]:
    """Open the file and divide its images: there is no val, 10 % of train by hash are.

    Args:
        root: Folder of `sat-6-full.mat`.

    Returns:
        The images, and how many there are to be.

    Raises:
        DataError: If the file is missing, damaged or holds other arrays.
        LabelError: If a label is not one-hot.
        ConfigError: If SciPy is not installed.
    """
    root = Path(root)
    file = root / FILE
    if not file.is_file():
        raise DataError(
            "the file of SAT-6 is not there",
            found=", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder"
            if root.is_dir()
            else "no such folder",
            expected=FILE,
            where=root,
            remedy=unpacking_remedy(root) or "name the folder of the file with --root",
        )
    splits = {split: _chips(file, split) for split in COUNTS}
    divided = {**hold_out_val(splits["train"], "sat6"), "test": tuple(splits["test"])}
    return Chips(root, "official, val held out", CLASSES, divided), sum(COUNTS.values())


def _chips(file: Path, split: str) -> list[Chip]:
    stored = _open(file.absolute())
    images, hot = stored.get(f"{split}_x"), stored.get(f"{split}_y")
    fits = (
        images is not None
        and hot is not None
        and images.shape[:3] == (28, 28, 4)
        and images.dtype == "uint8"
        and hot.shape == (len(CLASSES), *images.shape[3:])
    )
    if not fits or images is None or hot is None:
        arrays = {n: a for n, a in stored.items() if not n.startswith("__")}
        raise DataError(
            "this is no file of SAT-6",
            found=", ".join(f"{n} {a.shape} {a.dtype}" for n, a in sorted(arrays.items())),
            expected=f"{split}_x (28, 28, 4, N) uint8 and {split}_y (6, N)",
            where=file,
            remedy="SAT-4 has other classes and is another set",
        )
    if not ((hot == 0) | (hot == 1)).all() or not (hot.sum(axis=0) == 1).all():
        raise LabelError("labels of SAT-6 are one-hot, and these are not", where=file)
    return [
        Chip(f"{split}/{index:06d}", int(label), (MatPixels(file, split, index),))
        for index, label in enumerate(hot.argmax(axis=0))
    ]


@lru_cache(maxsize=1)
def _open(file: Path) -> dict[str, chips.NDArray[Any]]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigError(
            "SAT-6 is stored in MATLAB's format, and SciPy is not installed",
            remedy="pip install 'eofm[mat]'",
        ) from error
    try:
        arrays: dict[str, chips.NDArray[Any]] = loadmat(file)
    # SciPy raises what its parser happens to meet in a torn file
    except Exception as error:
        raise DataError(
            "the file of SAT-6 is damaged or not whole",
            found=f"{type(error).__name__}: {error}",
            where=file,
            remedy="download it again: 1.2 GB",
        ) from error
    return arrays


# ---------------------------------------------------------------------------------- task

TASK: Final = Task(
    name="sat6",
    dataset="SAT-6 airborne (Basu et al. 2015, arXiv 1509.03602)",
    specs=(SPEC,),
    classes=CLASSES,
    size=sum(COUNTS.values()),
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
    grouping=Grouping(
        "images", "SAT-6 does not say from which aerial image each was cut", known=False
    ),
)


@dataclass(frozen=True)
class BenchSat6Config(BenchConfig):
    """Score encoders and controls on SAT-6. Needs SciPy.

    Args:
        root: Folder of sat-6-full.mat.
    """

    verb: ClassVar[str] = "sat6"

    out: str = "runs/bench/sat6.jsonl"


def _load(config: BenchSat6Config) -> Loaded:
    return Loaded(TASK, *open_sat6(config.root))


DATASET: Final = Dataset(
    name="sat6",
    title="SAT-6",
    benchmark=Benchmark(
        "score encoders and controls on SAT-6, aerial images",
        BenchSat6Config,
        _load,
        ("eofm bench sat6 --root DIR --model dinov2_vits14",),
        (TASK,),
    ),
    cards=("sat6",),
)
