"""Canaries of a task: training images are looked at once for signs of a wrong declaration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from eofm.bench.cache import FeatureCache, Key, code_sha256
from eofm.contract import validity
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec
from eofm.errors import PixelError

_IMAGES: Final = 128

_Image = TypeVar("_Image")


def looked_at(train: Sequence[_Image]) -> Sequence[_Image]:
    """Return those training images that are looked at: some from everywhere in their order.

    Args:
        train: All of them.
    """
    return train[:: -(-len(train) // _IMAGES)]


def check_pixels(
    specs: Sequence[ImageSpec],
    images: Callable[[int], Imagery],
    content: str,
    cache: FeatureCache,
    root: Path,
) -> None:
    """Raise if pixels contradict what is declared; bytes that have passed are not read again.

    Args:
        specs: What the images are, per sensor of the task.
        images: Index of a sensor -> a batch of its images in physical units.
        content: sha256 of ids and bytes of those images.
        cache: Where it is kept that they have passed.
        root: Folder of the data set, for the message.

    Raises:
        PixelError: With what was found.
        RasterError: If an image is damaged.
    """
    code = code_sha256(validity.__file__)
    for sensor, spec in enumerate(specs):
        what = {"spec": repr(spec), "sensor": str(sensor), "data": content}
        key = Key({"kind": "canaries", "code": code, **what})
        cache.fact(key, partial(_look, images, sensor, root))


def _look(images: Callable[[int], Imagery], sensor: int, root: Path) -> int:
    """Return how many images have passed."""
    batch = images(sensor)
    try:
        validity.check_plausible(batch)
    except PixelError as error:
        error.where = f"{root}" if error.where is None else f"{root}: {error.where}"
        raise
    return len(batch)
