"""So2Sat LCZ42: 32 x 32 pixels of Sentinel-1 and Sentinel-2 in HDF5, 17 local climate zones.

Zhu et al. 2020 (doi 10.1109/MGRS.2020.2964708). Needs h5py.

    <root>/{training,validation,testing}.h5                            version 2
    <root>/{random,block,culture_10}/{training,testing}.h5             version 3

Each file holds `sen1` (N, 32, 32, 8), `sen2` (N, 32, 32, 10) and `label` (N, 17), one-hot. `sen2`
is reflectance at the top of the atmosphere, not digital numbers, of B02 .. B08, B8A, B11, B12.
`sen1` holds the complex, unfiltered VH and VV as four channels, then Lee-filtered intensities of
VH and VV and the covariance; of these, the two intensities are backscatter power.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.recipe import FillBand
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.base import Benchmark, Dataset, Loaded, Task, sensors_of, short_sensor
from eofm.datasets.images import chips
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    Grouping,
    StoredAt,
    hold_out_val,
    unpacking_remedy,
)
from eofm.errors import ConfigError, DataError, LabelError, RasterError

__all__ = [
    "CLASSES",
    "DATASET",
    "SPECS",
    "BenchSo2SatConfig",
    "H5Pixels",
    "So2SatVersion",
    "open_so2sat",
]

CLASSES: Final = (
    *("Compact high rise", "Compact mid rise", "Compact low rise", "Open high rise"),
    *("Open mid rise", "Open low rise", "Lightweight low rise", "Large low rise"),
    *("Sparsely built", "Heavy industry", "Dense trees", "Scattered trees", "Bush, scrub"),
    *("Low plants", "Bare rock or paved", "Bare soil or sand", "Water"),
)
_S2_BANDS: Final = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
SPECS: Final = {
    Sensor.S2_L1C: ImageSpec(Sensor.S2_L1C, _S2_BANDS, Unit.REFLECTANCE, (32, 32), 10.0),
    Sensor.S1_GRD: ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.POWER, (32, 32), 10.0),
}
_ARRAYS: Final = {Sensor.S2_L1C: ("sen2", tuple(range(10))), Sensor.S1_GRD: ("sen1", (5, 4))}
_CHANNELS: Final = {"sen1": 8, "sen2": 10, "label": 17}


class So2SatVersion(StrEnum):
    """Which So2Sat."""

    V2 = "v2"  # train: 42 cities; val and test: west and east of 10 others
    RANDOM = "v3-random"
    BLOCK = "v3-block"
    CULTURE_10 = "v3-culture-10"  # train: 42 cities; test: 10 others


_FILES: Final = {
    So2SatVersion.V2: {"train": "training.h5", "val": "validation.h5", "test": "testing.h5"},
    So2SatVersion.RANDOM: {"train": "random/training.h5", "test": "random/testing.h5"},
    So2SatVersion.BLOCK: {"train": "block/training.h5", "test": "block/testing.h5"},
    So2SatVersion.CULTURE_10: {
        "train": "culture_10/training.h5",
        "test": "culture_10/testing.h5",
    },
}


@dataclass(frozen=True)
class H5Pixels:
    """One image of an HDF5 file.

    Args:
        file: The file.
        row: Which image.
        sensor: Whose bands.
    """

    file: Path
    row: int
    sensor: Sensor

    def _stored(self) -> chips.NDArray[Any]:
        name, channels = _ARRAYS[self.sensor]
        try:
            stored: chips.NDArray[Any] = _open(self.file.absolute())[name][self.row]
        except OSError as error:
            raise RasterError(
                "an image cannot be read",
                found=error,
                where=f"{self.file}, image {self.row}",
                remedy="download the file again",
            ) from error
        return stored[..., list(channels)]

    def read(self) -> chips.Imagery:
        """Return the image. No power at all, as in shadow, is no measurement.

        Raises:
            RasterError: If the file is damaged.
        """
        import numpy as np
        import torch

        from eofm.contract.imagery import Imagery

        spec = SPECS[self.sensor]
        values = np.ascontiguousarray(self._stored().transpose(2, 0, 1), dtype=np.float32)
        valid = np.isfinite(values).all(axis=0)
        if spec.unit is Unit.POWER:
            valid &= (values > 0).all(axis=0)
            values = np.where(valid, values, np.float32(1e-6))
        return Imagery(torch.from_numpy(values)[None], spec, torch.from_numpy(valid)[None])

    @property
    def place(self) -> StoredAt:
        """One image of the file."""
        return StoredAt((self.file,), f"{self.row} {self.sensor}")

    def digest(self) -> str:
        """Return the sha256 of the values as stored.

        Raises:
            RasterError: If the file is damaged.
        """
        import numpy as np

        return hashlib.sha256(np.ascontiguousarray(self._stored()).tobytes()).hexdigest()


def open_so2sat(
    root: Path | str, version: So2SatVersion, sensors: Sequence[Sensor]
) -> tuple[Chips, int]:
    """Find the images and their labels. Pixels are not read yet.

    Version 3 has no val: 10 % of each class of train are held out by hash.

    Args:
        root: Folder of the HDF5 files.
        version: Which split of which version.
        sensors: One or both.

    Returns:
        The images, and how many there are.

    Raises:
        DataError: If a file is missing, damaged or has other arrays.
        LabelError: If a label is not one-hot.
        ConfigError: If h5py is not installed.
    """
    root = Path(root)
    splits: dict[str, tuple[Chip, ...]] = {}
    for split, name in _FILES[version].items():
        splits[split] = tuple(_chips(root / name, root, sensors))
    rule = str(version)
    if "val" not in splits:
        splits |= hold_out_val(splits["train"], "so2sat", attrgetter("label"))
        rule += ", val held out"
    chips = Chips(root, rule, CLASSES, splits)
    return chips, len(chips.all)


def _chips(file: Path, root: Path, sensors: Sequence[Sensor]) -> list[Chip]:
    if not file.is_file():
        raise DataError(
            "a file of So2Sat is not there",
            found=", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder"
            if root.is_dir()
            else "no such folder",
            expected=file.relative_to(root),
            where=root,
            remedy=unpacking_remedy(root) or "name the folder of the .h5 files with --root",
        )
    stored = _open(file.absolute())
    lacking = [n for n, c in _CHANNELS.items() if n not in stored or stored[n].shape[-1] != c]
    if lacking or len({len(stored[name]) for name in _CHANNELS}) > 1:
        raise DataError(
            "this is no file of So2Sat",
            found=", ".join(f"{n} {stored[n].shape}" for n in sorted(stored)),
            expected="sen1 (N, 32, 32, 8), sen2 (N, 32, 32, 10), label (N, 17)",
            where=file,
        )
    hot = stored["label"][:]
    if not ((hot == 0) | (hot == 1)).all() or not (hot.sum(axis=1) == 1).all():
        raise LabelError("labels of So2Sat are one-hot, and these are not", where=file)
    return [
        Chip(f"{file.stem}/{row:06d}", int(label), tuple(H5Pixels(file, row, s) for s in sensors))
        for row, label in enumerate(hot.argmax(axis=1))
    ]


@lru_cache(maxsize=8)
def _open(file: Path) -> Any:  # noqa: ANN401 (h5py has no types)
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            "So2Sat is stored as HDF5, and h5py is not installed",
            remedy="pip install 'eofm[hdf5]'",
        ) from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise DataError(
            "a file of So2Sat is damaged or not whole",
            found=error,
            where=file,
            remedy="complete the download: the file is some 50 GB for training",
        ) from error


# --------------------------------------------------------------------------------- tasks

_FILLS: Final = tuple(
    FillBand(band, 0.0, "So2Sat has no B01, B09 and B10: constant channels, 0 after scaling")
    for band in ("B01", "B09", "B10")
)
_NEIGHBOURS: Final = (
    "A random or block split lets neighbours of training patches into test: 95 against 48 for the "
    "same features on culture-10 (arXiv 2305.13456).",
)


_PATCHES: Final = Grouping(
    "patches", "the files of So2Sat do not say which city a patch shows", known=False
)


def _task(version: So2SatVersion, sensor: str) -> Task:
    return Task(
        name=f"so2sat-{version}-{sensor}",
        dataset=f"So2Sat LCZ42 {version} (Zhu et al. 2020, doi 10.1109/MGRS.2020.2964708)",
        specs=tuple(SPECS[s] for s in sensors_of(sensor, Sensor.S2_L1C)),
        classes=CLASSES,
        size=400_673,
        waivers=_FILLS if sensor == "s2" else (),
        notes=_NEIGHBOURS if version in {So2SatVersion.RANDOM, So2SatVersion.BLOCK} else (),
        grouping=_PATCHES,
    )


_TASKS: Final[Mapping[str, Task]] = {
    task.name: task
    for task in (_task(version, sensor) for version in So2SatVersion for sensor in ("s2", "s1"))
}


@dataclass(frozen=True)
class BenchSo2SatConfig(BenchConfig):
    """Score encoders and controls on So2Sat LCZ42. Needs h5py.

    Args:
        root: Folder of training.h5 and so on (v2), or of random, block and culture_10 (v3).
        version: `v3-culture-10` holds back whole cities; random and block let neighbours of
            training patches into test.
        sensor: Sentinel-2 (10 bands, reflectance) or Sentinel-1 (Lee-filtered VV and VH power).
    """

    verb: ClassVar[str] = "so2sat"
    named_by: ClassVar[tuple[str, ...]] = ("version", "sensor")

    version: Literal["v2", "v3-random", "v3-block", "v3-culture-10"] = "v3-culture-10"
    sensor: Literal["s2", "s1", "s2-l1c", "s1-grd"] = "s2"
    out: str = "runs/bench/so2sat.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sensor", short_sensor(self.sensor))

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"so2sat-{self.version}-{self.sensor}"


def _load(config: BenchSo2SatConfig) -> Loaded:
    sensors = sensors_of(config.sensor, Sensor.S2_L1C)
    chips, published = open_so2sat(config.root, So2SatVersion(config.version), sensors)
    return Loaded(_TASKS[config.task], chips, published)


DATASET: Final = Dataset(
    name="so2sat",
    title="So2Sat LCZ42",
    benchmark=Benchmark(
        "score encoders and controls on So2Sat LCZ42",
        BenchSo2SatConfig,
        _load,
        ("eofm bench so2sat --root DIR --version v3-culture-10 --model softcon_vits14_s2",),
        tuple(_TASKS.values()),
    ),
    cards=("so2sat",),
)
