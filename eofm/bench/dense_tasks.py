"""From the settings of a dense run to its task and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eofm.bench.config import listed
from eofm.bench.dense_config import (
    BenchDfc2020Config,
    BenchMasksConfig,
    BenchSen1Floods11Config,
    DenseConfig,
)
from eofm.bench.task import Task, find_task, mask_task
from eofm.contract.spec import Sensor, Unit
from eofm.datasets.dense_chips import DenseChips
from eofm.datasets.dfc2020 import open_dfc2020
from eofm.datasets.mask_folder import open_mask_folder
from eofm.datasets.sen1floods11 import open_sen1floods11
from eofm.errors import ConfigError

SENSORS: Final[Mapping[str, tuple[Sensor, ...]]] = {
    "s2": (Sensor.S2_L1C,),
    "s1": (Sensor.S1_GRD,),
    "both": (Sensor.S2_L1C, Sensor.S1_GRD),
}


@dataclass(frozen=True)
class DenseLoaded:
    """A dense task with its images.

    Args:
        task: The declaration.
        chips: The images, divided.
        published: How many groups of images there would be in all; None where nothing is
            published.
    """

    task: Task
    chips: DenseChips
    published: int | None


def load_dense(config: DenseConfig) -> DenseLoaded:
    """Open the data set that the settings name.

    Raises:
        DataError: If the folder is not the data set.
        ConfigError: If the settings name no data set, or contradict the folder.
    """
    match config:
        case BenchDfc2020Config():
            chips, count = open_dfc2020(config.root, SENSORS[config.sensor])
            return DenseLoaded(find_task(f"dfc2020-{config.sensor}"), chips, count)
        case BenchSen1Floods11Config():
            chips, count = open_sen1floods11(
                config.root, SENSORS[config.sensor], bolivia=config.test == "bolivia"
            )
            return DenseLoaded(find_task(f"sen1floods11-{config.sensor}"), chips, count)
        case BenchMasksConfig():
            chips, spec = open_mask_folder(
                config.root,
                Sensor(config.sensor),
                Unit(config.unit),
                config.names,
                void=config.voids,
                bands=listed(config.bands) if config.bands else None,
                place=config.place,
            )
            name = chips.root.resolve().name
            return DenseLoaded(mask_task(name, spec, chips.classes), chips, None)
    raise ConfigError("these settings name no data set", found=type(config).__name__)
