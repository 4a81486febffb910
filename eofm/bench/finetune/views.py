"""Labelled images for training on them, and random views of them: a crop, resized back, and flips.

Images are read once where they fit into memory, else every time. Views are made after
`eofm.contract.preprocess`, so the pixels a network is trained on come to it exactly as those it is
scored on. Draws are relative to the image: the two sensors of a pair see one view.

Shapes: B images of a batch, N of a split, C bands, H by W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor
from torch.nn import functional

from eofm.contract.imagery import Imagery, collate
from eofm.datasets.images.chips import Chip, targets_of

_ASPECT: Final = (3 / 4, 4 / 3)

_TRIES: Final = 10


@dataclass(frozen=True)
class Augmentation:
    """What is drawn.

    Args:
        crop: Smallest share of an image's area that a crop keeps; 1 crops nothing.
        flip_x: Mirror left and right, every other image.
        flip_y: Mirror top and bottom, every other image.
    """

    crop: float = 1.0
    flip_x: bool = False
    flip_y: bool = False


@dataclass(frozen=True)
class Draw:
    """The views of a batch, in shares of an image's sides.

    Args:
        centre: (B, 2), x and y, from 0 to 1.
        extent: (B, 2), width and height, at most 1.
        flip: bool (B, 2), in x and in y.
    """

    centre: Tensor
    extent: Tensor
    flip: Tensor

    def of(self, rows: slice) -> Draw:
        """Return the views of some images of the batch."""
        return Draw(self.centre[rows], self.extent[rows], self.flip[rows])


def draw_views(augmentation: Augmentation, count: int, generator: torch.Generator) -> Draw:
    """Draw the views of a batch as random resized crops are drawn elsewhere.

    Area uniform, aspect log-uniform from 3:4 to 4:3, ten tries for one that fits into the image;
    the whole image if none does.

    Args:
        augmentation: What is drawn.
        count: Number of images, B.
        generator: On the CPU.
    """
    area = torch.empty(count, _TRIES).uniform_(augmentation.crop, 1, generator=generator)
    low, high = (math.log(aspect) for aspect in _ASPECT)
    aspect = torch.empty(count, _TRIES).uniform_(low, high, generator=generator).exp()
    tries = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=2)
    fits = (tries <= 1).all(dim=2)
    first = fits.float().argmax(dim=1)
    extent = torch.where(fits.any(dim=1)[:, None], tries[torch.arange(count), first], 1.0)
    if augmentation.crop >= 1:
        extent = torch.ones(count, 2)
    corner = torch.rand(count, 2, generator=generator) * (1 - extent)
    mirrored = torch.tensor([augmentation.flip_x, augmentation.flip_y])
    flip = (torch.rand(count, 2, generator=generator) < 0.5) & mirrored
    return Draw(corner + extent / 2, extent, flip)


def make_views(pixels: Tensor, draw: Draw) -> Tensor:
    """Return the views (B, C, H, W), at the size of the images: bilinear, half-pixel centres.

    Flips alone move pixels and change none.

    Args:
        pixels: (B, C, H, W), normalised.
        draw: What `draw_views` returned for as many images.
    """
    if bool((draw.extent == 1).all()):
        return _flipped(pixels, draw.flip.to(pixels.device))
    sign = 1 - 2 * draw.flip.float()
    scale, shift = draw.extent * sign, 2 * draw.centre - 1
    theta = torch.zeros(len(pixels), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale[:, 0], scale[:, 1], shift
    grid = functional.affine_grid(theta.to(pixels), list(pixels.shape), align_corners=False)
    return functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _flipped(pixels: Tensor, flip: Tensor) -> Tensor:
    for axis, dim in ((0, 3), (1, 2)):
        chosen = flip[:, axis, None, None, None]
        pixels = torch.where(chosen, pixels.flip(dim), pixels)
    return pixels


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
    """Return the rows in an order drawn again for every epoch, in batches of `size`.

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
