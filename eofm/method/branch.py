"""Trunk and projector, and what the student sees of an image."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from eofm.method.chunks import in_chunks
from eofm.method.heads import projection_head
from eofm.method.masking import MaskForm, hide_blocks
from eofm.method.settings import SoftConSettings


class Trunk(Protocol):
    """What the method asks of an encoder, besides being an `nn.Module`."""

    @property
    def dim(self) -> int:
        """Width of its output, D."""

    @property
    def tokens(self) -> int:
        """Number of patches of an image, P."""

    @property
    def block(self) -> int:
        """Side of a patch in pixels: what is filled where pixels are hidden."""

    def __call__(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return (B, D) for pixels (B, C, H, W), seeing the patches `keep` (B, K) only."""


class Branch(nn.Module):
    """Trunk and projector: the part that the student and the teacher have in common.

    Attributes:
        chunk: Images that run through the trunk at a time; 0 for all (`eofm.method.chunks`).
    """

    def __init__(self, trunk: Trunk, settings: SoftConSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = trunk
        self.settings = settings
        self.chunk = 0
        self.projector = projection_head(
            trunk.dim, settings.hidden, settings.out, settings.head_norm, generator, settings.head
        )

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return (B, d), seeing the patches `keep` (B, K) only, or all."""
        look = partial(
            see_patches, self.trunk, mask=self.settings.mask, fill=self.settings.mask_fill
        )
        vectors = in_chunks(look, pixels, keep, self.chunk)
        projection: Tensor = self.projector(vectors)
        return projection


def see_patches(
    trunk: Trunk, pixels: Tensor, keep: Tensor | None, mask: MaskForm, fill: float
) -> Tensor:
    """Return what a trunk makes of some patches of the images, (B, D).

    Args:
        trunk: The encoder.
        pixels: (B, C, H, W), normalised.
        keep: int64 (B, K), the patches to see; all of them if None.
        mask: What becomes of the others.
        fill: Of their pixels, where these are filled.
    """
    if keep is not None and mask is MaskForm.PIXELS:
        return trunk(hide_blocks(pixels, keep, trunk.block, fill))
    return trunk(pixels, keep)
