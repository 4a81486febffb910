"""Random views of normalised images for training on them: a crop, resized back, and flips.

Views are made after `eofm.contract.preprocess`, so the pixels a network is trained on come to it
exactly as those it is scored on. Draws are relative to the image: the two sensors of a pair see one
view.

Shapes: B images, C bands, H by W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

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
