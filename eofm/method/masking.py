"""Masking of the student's input; the teacher gets whole images.

A vision transformer drops the tokens of hidden patches, which saves time and memory. A network
without tokens, or a transformer in dense form, gets the whole image with hidden blocks filled,
which hides the same share but saves nothing.

Shapes: B images, C bands, H by W pixels, P patches or blocks of which K are kept.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.errors import ConfigError, SpecError
from eofm.method.config import MaskFill, MaskForm, SoftConConfig

__all__ = [
    "MaskedTrunk",
    "TokenTrunk",
    "fill_of",
    "hide_blocks",
    "keep_tokens",
    "number_kept",
    "see_patches",
    "see_tokens",
]


@runtime_checkable
class MaskedTrunk(Protocol):
    """Interface of an encoder for the method, in addition to `nn.Module`."""

    @property
    def dim(self) -> int:
        """Width of its output, D."""

    @property
    def tokens(self) -> int:
        """Number of patches of an image, P."""

    @property
    def block(self) -> int:
        """Side of a patch in pixels; blocks of this size are filled to hide pixels."""

    @property
    def drops_tokens(self) -> bool:
        """Whether it processes only the kept patches, as a vision transformer does."""

    def __call__(
        self, pixels: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Return (B, D) for pixels (B, C, H, W), from the patches `keep` (B, K) only."""


def number_kept(tokens: int, ratio: float) -> int:
    """Return the number of visible patches: K = max(2, floor(P (1 - ratio))); P at ratio 0.

    Args:
        tokens: Number of patches, P.
        ratio: Share of hidden patches, 0 to below 1.

    Raises:
        ConfigError: If the ratio is out of range, or there are fewer than two patches.
    """
    if not 0 <= ratio < 1 or (ratio > 0 and tokens < 2):
        raise ConfigError(
            "the student must drop less than all of at least two patches",
            found=f"mask ratio {ratio} of {tokens} patches",
            expected="0 <= ratio < 1, 2 patches or more",
            remedy="a larger --model.size, or --method.mask_ratio 0",
        )
    # 100 (1 - 0.9) is 9.999...98 in binary and must give ten patches
    return tokens if ratio == 0 else max(2, math.floor(tokens * (1 - ratio) + 1e-9))


@runtime_checkable
class TokenTrunk(MaskedTrunk, Protocol):
    """Further interface of an encoder for terms that read patches."""

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: CLS, registers."""

    @property
    def pooling(self) -> Pooling:
        """Pooling of its vector: CLS, or the mean of the patches."""

    def forward_features(
        self, pixels: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return tokens (B, prefix + K, D) from the patches `keep` (B, K) only."""


def keep_tokens(
    batch: int, tokens: int, ratio: float, generator: torch.Generator
) -> Int64[Tensor, "b k"] | None:
    """Draw the patches that the student sees, uniformly and independently for each image.

    The number K is the same for the whole batch (as in MAE, arXiv 2111.06377).

    Args:
        batch: Number of images, B.
        tokens: Number of patches, P.
        ratio: Share of hidden patches, 0 to below 1.
        generator: Random generator; the result is on its device.

    Returns:
        int64 (B, K), K = max(2, floor(P (1 - ratio))), or None if nothing is hidden.

    Raises:
        ConfigError: If the ratio is out of range, or there are fewer than two patches.
    """
    kept = number_kept(tokens, ratio)
    if ratio == 0:
        return None
    noise = torch.rand(batch, tokens, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :kept]


def hide_blocks(
    pixels: Float[Tensor, "b c h w"], keep: Int64[Tensor, ...], block: int, fill: float
) -> Float[Tensor, "b c h w"]:
    """Return the images with all blocks filled except those in `keep`.

    Args:
        pixels: (B, C, H, W), normalised.
        keep: int64 (B, K), indices of the visible blocks, row by row; blocks cut by the border
            count too.
        block: Side of a block in pixels: the patch size, or the final stride of a convolutional
            network.
        fill: Value of hidden pixels in every band, in normalised units.

    Raises:
        SpecError: If a block index is out of range, or `keep` has not one row per image.
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


def see_patches(
    trunk: MaskedTrunk,
    pixels: Float[Tensor, "b c h w"],
    keep: Int64[Tensor, "b k"] | None,
    mask: MaskForm,
    fill: float,
) -> Float[Tensor, "b d"]:
    """Return the trunk's output for partly visible images, (B, D).

    Args:
        trunk: The encoder.
        pixels: (B, C, H, W), normalised.
        keep: int64 (B, K), the visible patches; all of them if None.
        mask: Method of hiding the others.
        fill: Value of hidden pixels in normalised units, if they are filled.
    """
    if keep is not None and mask is MaskForm.PIXELS:
        return trunk(hide_blocks(pixels, keep, trunk.block, fill))
    return trunk(pixels, keep)


def see_tokens(
    trunk: MaskedTrunk,
    pixels: Float[Tensor, "b c h w"],
    keep: Int64[Tensor, "b k"] | None,
    mask: MaskForm,
    fill: float,
) -> Float[Tensor, "b t d"]:
    """Return the vector and the patches of each image, (B, 1 + K, D), without registers.

    Args:
        trunk: The encoder.
        pixels: (B, C, H, W), normalised.
        keep: int64 (B, K), the visible patches; all of them if None.
        mask: Method of hiding the others; if it fills pixels, all P patches are returned.
        fill: Value of hidden pixels in normalised units, if they are filled.

    Raises:
        ConfigError: If the trunk has no patch tokens.
    """
    if not isinstance(trunk, TokenTrunk):
        raise ConfigError(
            "this network gives no tokens",
            found=type(trunk).__name__,
            expected="a network with forward_features, as those of eofm.networks",
        )
    if keep is not None and mask is MaskForm.PIXELS:
        pixels, keep = hide_blocks(pixels, keep, trunk.block, fill), None
    tokens = trunk.forward_features(pixels, keep)
    if trunk.pooling is Pooling.CLS and trunk.prefix == 1:
        return tokens
    patches = tokens[:, trunk.prefix :]
    mean = trunk.pooling is Pooling.MEAN
    vector = patches.mean(dim=1, keepdim=True) if mean else tokens[:, :1]
    return torch.cat([vector, patches], dim=1)


def fill_of(config: SoftConConfig, band_mean: float) -> float:
    """Return the value of hidden pixels in normalised units.

    Args:
        config: The objective.
        band_mean: Value of a band's mean in normalised units.
    """
    return band_mean if config.mask_fill is MaskFill.MEAN else 0.0
