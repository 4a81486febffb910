"""Labelled images for training on them: read once where they fit into memory, else every time.

Shapes: B images of a batch, N of a split, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from eofm.contract.imagery import Imagery, collate
from eofm.datasets.chips import Chip, targets_of

# What a split may hold in memory.
_MEMORY: Final = 2**30
_READERS: Final = 4


@dataclass(frozen=True)
class Batch:
    """Some images with their labels.

    Args:
        imagery: One entry per sensor, B images each, in physical units.
        target: (B,) class indices, or (B, K) with 1 where a class is present.
    """

    imagery: tuple[Imagery, ...]
    target: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        moved = tuple(i.to(device, non_blocking=non_blocking) for i in self.imagery)
        return type(self)(moved, self.target.to(device, non_blocking=non_blocking))


class Images:
    """The images of a split.

    Args:
        chips: The images, N.
        classes: K.
        memory: Bytes of pixels it may keep.
    """

    def __init__(self, chips: Sequence[Chip], classes: int, memory: int = _MEMORY) -> None:
        self.chips = tuple(chips)
        self.target = targets_of(self.chips, classes)
        self._memory = memory
        self._kept: dict[int, tuple[Imagery, ...]] = {}

    def __len__(self) -> int:
        return len(self.chips)

    def batches(self, rows: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Yield batches; those after the next are read while one is being used.

        Args:
            rows: Which images, batch by batch.

        Raises:
            RasterError: If an image is damaged.
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as readers:
            waiting: list[tuple[Sequence[int], list[Future[tuple[Imagery, ...]]]]] = []
            try:
                for chosen in rows:
                    waiting.append((chosen, [readers.submit(self._image, row) for row in chosen]))
                    if len(waiting) > 1:
                        yield self._batch(*waiting.pop(0))
                while waiting:
                    yield self._batch(*waiting.pop(0))
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _batch(self, rows: Sequence[int], futures: list[Future[tuple[Imagery, ...]]]) -> Batch:
        images = [future.result() for future in futures]
        per_sensor = zip(*images, strict=True)
        return Batch(tuple(collate(list(one)) for one in per_sensor), self.target[list(rows)])

    def _image(self, row: int) -> tuple[Imagery, ...]:
        found = self._kept.get(row)
        if found is None:
            found = tuple(pixels.read() for pixels in self.chips[row].pixels)
            size = sum(imagery.pixels.nbytes + imagery.valid.nbytes for imagery in found)
            if size * len(self) <= self._memory:
                self._kept[row] = found
        return found


def in_order(count: int, size: int) -> list[list[int]]:
    """Return the rows 0 .. count - 1 in batches of at most `size`."""
    return [list(range(i, min(i + size, count))) for i in range(0, count, size)]


def shuffled(count: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the rows in an order drawn anew for every epoch, in batches of `size`.

    An incomplete last batch is left out: as elsewhere, and no batch norm sees a single image. The
    images in it differ from epoch to epoch.

    Args:
        count: Number of images, at least `size`.
        size: Of a batch.
        seed: Of the order.
        epoch: Which; the same epoch of the same seed has the same order, whatever came before.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    return [order[i : i + size] for i in range(0, count - size + 1, size)]
