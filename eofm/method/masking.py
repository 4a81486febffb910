"""What the student sees of an image: the teacher sees all of it.

A vision transformer drops the tokens of hidden patches, which saves time and memory. A network
without tokens, or a transformer in dense form, gets the whole image with hidden blocks filled: it
saves nothing, but it hides as much.

Shapes: B images, C bands, H by W pixels, P patches or blocks of which K are kept.
"""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor

from eofm.errors import ConfigError, SpecError


class MaskForm(StrEnum):
    """How patches are hidden from the student.

    Their tokens are dropped (notes on the paper's code say so; only dropping saves memory), or
    their pixels are filled.
    """

    TOKENS = "tokens"
    PIXELS = "pixels"


def keep_tokens(batch: int, tokens: int, ratio: float, generator: torch.Generator) -> Tensor | None:
    """Draw which patches the student sees, uniformly and for each image on its own.

    The same number K for the whole batch (as in MAE, arXiv 2111.06377).

    Args:
        batch: Number of images, B.
        tokens: Number of patches, P.
        ratio: Share to hide, 0 to below 1.
        generator: Source of randomness; the result is on its device.

    Returns:
        int64 (B, K), K = max(2, floor(P (1 - ratio))), or None if nothing is hidden.

    Raises:
        ConfigError: If the ratio is out of range, or fewer than two patches are there to keep.
    """
    if not 0 <= ratio < 1 or (ratio > 0 and tokens < 2):
        raise ConfigError(
            "the student must drop less than all of at least two patches",
            found=f"mask ratio {ratio} of {tokens} patches",
            expected="0 <= ratio < 1, 2 patches or more",
        )
    if ratio == 0:
        return None
    # 100 (1 - 0.9) is 9.999...98 in binary, and ten patches are meant
    kept = max(2, math.floor(tokens * (1 - ratio) + 1e-9))
    noise = torch.rand(batch, tokens, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :kept]


def hide_blocks(pixels: Tensor, keep: Tensor, block: int, fill: float) -> Tensor:
    """Return the images with all blocks filled but those that `keep` names.

    Args:
        pixels: (B, C, H, W), normalised.
        keep: int64 (B, K), the blocks to leave as they are, counted row by row; at a border that
            cuts through blocks their remainder counts as one.
        block: Side of a block in pixels: of a patch, or the final stride of a convolutional
            network.
        fill: What hidden pixels become in every band, in normalised units.

    Raises:
        SpecError: If there is no such block, or not one line of blocks for each image.
    """
    batch, _, height, width = pixels.shape
    rows, columns = -(-height // block), -(-width // block)
    wrong = keep.numel() > 0 and not 0 <= int(keep.min()) <= int(keep.max()) < rows * columns
    if keep.ndim != 2 or len(keep) != batch or wrong:
        raise SpecError(
            "the blocks to keep are not those of the images",
            found=f"keep of shape {tuple(keep.shape)} for {batch} images of {rows} x {columns} "
            f"blocks of {block} pixels",
            expected=f"({batch}, K) with values from 0 to {rows * columns - 1}",
        )
    seen = torch.zeros(batch, rows * columns, dtype=torch.bool, device=pixels.device)
    seen = seen.scatter_(1, keep, True).view(batch, 1, rows, columns)
    seen = seen.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)
    return torch.where(seen[..., :height, :width], pixels, fill)
