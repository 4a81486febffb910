"""From the settings of a run to its task and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eofm.bench.config import (
    BenchBigEarthNetConfig,
    BenchConfig,
    BenchEurosatConfig,
    BenchFolderConfig,
    BenchResisc45Config,
    BenchSat6Config,
    BenchSo2SatConfig,
    BenchTreeSatAIConfig,
    BenchUCMercedConfig,
    listed,
)
from eofm.bench.task import Task, bigearthnet_name, find_task, folder_task
from eofm.contract.spec import Sensor, Unit
from eofm.datasets import scenes
from eofm.datasets.bigearthnet import Version
from eofm.datasets.bigearthnet_chips import Choice, open_bigearthnet_chips
from eofm.datasets.bigearthnet_copernicus import open_copernicus_bigearthnet
from eofm.datasets.chips import Chips
from eofm.datasets.labelled_folder import open_labelled_folder
from eofm.datasets.sat6 import open_sat6
from eofm.datasets.so2sat import So2SatVersion, open_so2sat
from eofm.datasets.treesatai import open_treesatai
from eofm.errors import ConfigError


@dataclass(frozen=True)
class Loaded:
    """A task with its images.

    Args:
        task: The declaration.
        chips: The images, divided.
        published: How many images there would be in all; None where nothing is published.
    """

    task: Task
    chips: Chips
    published: int | None


def load(config: BenchConfig) -> Loaded:
    """Open the data set that the settings name.

    Raises:
        DataError: If the folder is not the data set.
        ConfigError: If the settings name no data set, or contradict the folder.
    """
    match config:
        case BenchEurosatConfig():
            return _eurosat(config)
        case BenchBigEarthNetConfig():
            return _bigearthnet(config)
        case BenchFolderConfig():
            return _folder(config)
        case BenchSo2SatConfig():
            return _so2sat(config)
        case BenchTreeSatAIConfig():
            return _treesatai(config)
        case BenchUCMercedConfig():
            return _scenes(scenes.UCMERCED, config.verb, config.root, config.split)
        case BenchResisc45Config():
            return _scenes(scenes.RESISC45, config.verb, config.root, config.split)
        case BenchSat6Config():
            chips, published = open_sat6(config.root)
            return Loaded(find_task("sat6"), chips, published)
    raise ConfigError("these settings name no data set", found=type(config).__name__)


_EUROSATS: Final[Mapping[str, tuple[str, scenes.SceneSet]]] = {
    "ms": ("eurosat", scenes.EUROSAT_MS),
    "rgb": ("eurosat-rgb", scenes.EUROSAT_RGB),
    "sar": ("eurosat-sar", scenes.EUROSAT_SAR),
}


def _eurosat(config: BenchEurosatConfig) -> Loaded:
    name, data = _EUROSATS[config.sensor]
    return _scenes(data, name, config.root, config.split)


def _scenes(data: scenes.SceneSet, name: str, root: str, split: str) -> Loaded:
    rule = None if split == "auto" else scenes.Rule(split)
    task = find_task(name)
    return Loaded(task, scenes.open_scenes(data, root, rule), task.size)


_SENSORS: Final[Mapping[str, tuple[Sensor, ...]]] = {
    "s2": (Sensor.S2_L2A,),
    "s1": (Sensor.S1_GRD,),
    "both": (Sensor.S2_L2A, Sensor.S1_GRD),
}


def _bigearthnet(config: BenchBigEarthNetConfig) -> Loaded:
    task = find_task(bigearthnet_name(config.version, config.sensor, config.classes))
    if config.version == "copernicus-bench":
        found, count = open_copernicus_bigearthnet(config.root, _SENSORS[config.sensor])
        return Loaded(task, found, count)
    choice = Choice(
        Version(config.version),
        _SENSORS[config.sensor],
        config.classes,
        config.excluded,
        config.percent,
    )
    chips, published = open_bigearthnet_chips(config.root, choice, config.metadata)
    return Loaded(task, chips, published)


def _folder(config: BenchFolderConfig) -> Loaded:
    chips, spec = open_labelled_folder(
        config.root,
        Sensor(config.sensor),
        Unit(config.unit),
        bands=listed(config.bands) if config.bands else None,
        table=config.labels,
        place=config.place,
    )
    name = chips.root.resolve().name
    return Loaded(folder_task(name, spec, chips.classes, several=chips.multi_label), chips, None)


def _so2sat(config: BenchSo2SatConfig) -> Loaded:
    sensor = Sensor.S2_L1C if config.sensor == "s2" else Sensor.S1_GRD
    chips, published = open_so2sat(config.root, So2SatVersion(config.version), (sensor,))
    return Loaded(find_task(f"so2sat-{config.version}-{config.sensor}"), chips, published)


def _treesatai(config: BenchTreeSatAIConfig) -> Loaded:
    task = find_task(f"treesatai-{config.metres}m-over{config.percent}")
    chips, published = open_treesatai(config.root, config.metres, config.percent / 100)
    return Loaded(task, chips, published)
