"""From the settings of a run to its task and its images, which are looked at once for faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from eofm.bench.cache import FeatureCache, Key, code_sha256, content_sha256
from eofm.bench.config import ScoringConfig
from eofm.contract import validity
from eofm.contract.imagery import Imagery, collate
from eofm.contract.spec import spec_key
from eofm.datasets.base import AnyChips, Loaded, Task
from eofm.datasets.images.chips import Chip
from eofm.datasets.images.dense import DenseChip
from eofm.datasets.registry import FAMILIES
from eofm.errors import ConfigError, PixelError


def load(config: ScoringConfig) -> Loaded:
    """Open the data set that the settings name.

    Raises:
        DataError: If the folder is not the data set.
        ConfigError: If the settings name no data set, or contradict the folder.
    """
    if config.verb not in FAMILIES:
        raise ConfigError("these settings name no data set", found=type(config).__name__)
    return FAMILIES[config.verb].open(config)


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
        what = {"spec": spec_key(spec), "sensor": str(sensor), "data": content}
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
