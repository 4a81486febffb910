"""From the settings of a run to its task and its images, which are looked at once for faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from eofm.bench.cache import FeatureCache, Key, code_sha256, content_sha256
from eofm.bench.config import ScoringConfig, listed
from eofm.bench.task_config import (
    BenchBigEarthNetConfig,
    BenchDfc2020Config,
    BenchEurosatConfig,
    BenchFolderConfig,
    BenchMasksConfig,
    BenchResisc45Config,
    BenchSat6Config,
    BenchSen1Floods11Config,
    BenchSo2SatConfig,
    BenchTreeSatAIConfig,
    BenchUCMercedConfig,
)
from eofm.bench.tasks import Task, find_task, folder_task, mask_task
from eofm.contract import validity
from eofm.contract.imagery import Imagery, collate
from eofm.contract.spec import Sensor, Unit
from eofm.datasets import scenes
from eofm.datasets.bigearthnet import Version
from eofm.datasets.bigearthnet_chips import BigEarthNetChoice, open_bigearthnet_chips
from eofm.datasets.bigearthnet_copernicus import open_copernicus_bigearthnet
from eofm.datasets.chips import Chip, Chips
from eofm.datasets.dense_chips import DenseChip, DenseChips
from eofm.datasets.dfc2020 import open_dfc2020
from eofm.datasets.labelled_folder import open_labelled_folder
from eofm.datasets.mask_folder import open_mask_folder
from eofm.datasets.sat6 import open_sat6
from eofm.datasets.sen1floods11 import open_sen1floods11
from eofm.datasets.so2sat import So2SatVersion, open_so2sat
from eofm.datasets.treesatai import open_treesatai
from eofm.errors import ConfigError, PixelError

# Images with labels, or with masks.
AnyChips = Chips | DenseChips


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


def load(config: ScoringConfig) -> Loaded:
    """Open the data set that the settings name.

    Raises:
        DataError: If the folder is not the data set.
        ConfigError: If the settings name no data set, or contradict the folder.
    """
    match config:
        case BenchEurosatConfig():
            return _scenes(_EUROSATS[config.sensor], config.task, config.root, config.split)
        case BenchUCMercedConfig():
            return _scenes(scenes.UCMERCED, config.task, config.root, config.split)
        case BenchResisc45Config():
            return _scenes(scenes.RESISC45, config.task, config.root, config.split)
        case BenchFolderConfig():
            return _folder(config)
        case BenchMasksConfig():
            return _masks(config)
        case _:
            chips, published = _published(config)
            return Loaded(find_task(config.task), chips, published)


def _published(config: ScoringConfig) -> tuple[AnyChips, int]:
    match config:
        case BenchBigEarthNetConfig():
            return _bigearthnet(config)
        case BenchSo2SatConfig():
            sensor = Sensor.S2_L1C if config.sensor == "s2" else Sensor.S1_GRD
            return open_so2sat(config.root, So2SatVersion(config.version), (sensor,))
        case BenchTreeSatAIConfig():
            return open_treesatai(config.root, config.metres, config.percent / 100)
        case BenchSat6Config():
            return open_sat6(config.root)
        case BenchDfc2020Config():
            return open_dfc2020(config.root, _sensors(config.sensor, Sensor.S2_L1C))
        case BenchSen1Floods11Config():
            sensors = _sensors(config.sensor, Sensor.S2_L1C)
            return open_sen1floods11(config.root, sensors, bolivia=config.test == "bolivia")
    raise ConfigError("these settings name no data set", found=type(config).__name__)


_EUROSATS: Final[Mapping[str, scenes.SceneSet]] = {
    "ms": scenes.EUROSAT_MS,
    "rgb": scenes.EUROSAT_RGB,
    "sar": scenes.EUROSAT_SAR,
}


def _scenes(data: scenes.SceneSet, name: str, root: str, split: str) -> Loaded:
    rule = None if split == "auto" else scenes.SceneSplit(split)
    task = find_task(name)
    return Loaded(task, scenes.open_scenes(data, root, rule), task.size)


def _sensors(word: str, optical: Sensor) -> tuple[Sensor, ...]:
    return {"s2": (optical,), "s1": (Sensor.S1_GRD,), "both": (optical, Sensor.S1_GRD)}[word]


def _bigearthnet(config: BenchBigEarthNetConfig) -> tuple[Chips, int]:
    sensors = _sensors(config.sensor, Sensor.S2_L2A)
    if config.version == "copernicus-bench":
        return open_copernicus_bigearthnet(config.root, sensors)
    version = Version(config.version)
    choice = BigEarthNetChoice(version, sensors, config.classes, config.excluded, config.percent)
    return open_bigearthnet_chips(config.root, choice, config.metadata)


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


def _masks(config: BenchMasksConfig) -> Loaded:
    chips, spec = open_mask_folder(
        config.root,
        Sensor(config.sensor),
        Unit(config.unit),
        config.names,
        void=config.voids,
        bands=listed(config.bands) if config.bands else None,
        place=config.place,
    )
    return Loaded(mask_task(chips.root.resolve().name, spec, chips.classes), chips, None)


# ------------------------------------------------------------------------ quality checks

# Training images that are looked at, and the rows and columns of each, at most.
_IMAGES: Final = 128
_SIDE: Final = 64


def check_pixels(
    task: Task, chips: AnyChips, digests: Mapping[str, str], cache: FeatureCache
) -> None:
    """Raise if pixels contradict what is stated of them; bytes that have passed are not read again.

    Args:
        task: What the images are stated to be.
        chips: The images: some of train, from everywhere in their order, are looked at.
        digests: `digests_of` the images.
        cache: Where it is kept that they have passed.

    Raises:
        PixelError: With what was found.
        RasterError: If an image is damaged.
    """
    train = chips.splits["train"]
    some = train[:: -(-len(train) // _IMAGES)]
    content, code = content_sha256(some, digests), code_sha256(validity.__file__)
    for sensor, spec in enumerate(task.specs):
        what = {"spec": repr(spec), "sensor": str(sensor), "data": content}
        key = Key({"kind": "quality checks", "code": code, **what})
        cache.fact(key, partial(_look, some, sensor, chips.root))


def _look(some: Sequence[Chip | DenseChip], sensor: int, root: Path) -> int:
    """Return how many images have passed."""
    batch = collate([_thinned(chip.pixels[sensor].read()) for chip in some])
    try:
        validity.check_plausible(batch, [chip.id for chip in some])
    except PixelError as error:
        error.where = f"{root}" if error.where is None else f"{root}: {error.where}"
        raise
    return len(batch)


def _thinned(imagery: Imagery) -> Imagery:
    """Return some of the rows and columns of a large image, to save memory."""
    step = max(1, min(imagery.pixels.shape[2:]) // _SIDE)
    pixels = imagery.pixels[:, :, ::step, ::step]
    size = (pixels.shape[2], pixels.shape[3])
    return Imagery(pixels, replace(imagery.spec, size=size), imagery.valid[:, ::step, ::step])
