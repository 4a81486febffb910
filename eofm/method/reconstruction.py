"""Prediction of hidden patches' pixels from tokens, shared by all reconstruction terms.

Targets are normalised per patch and *per band* (MAE, arXiv 2111.06377, normalises a patch over its
three colours together). The contrast of satellite bands differs by an order of magnitude, and with
a joint scale those of low contrast would hardly count. Brightness and contrast changes of a whole
view cancel out in such targets. Invalid pixels enter neither the statistics nor the loss.

The reference is the loss of predicting the patch mean, which is 0 in these units
(`patch_mean_floor`): with a loss above it nothing has been learned, whatever the curve looks like.

Shapes: B images, C bands, H by W pixels, P patches of Q pixels, K seen and M hidden patches, D
width of the trunk, d of the decoder, N tokens of another view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import ConfigError, SpecError, require
from eofm.method.branches import linear_layer
from eofm.method.config import MaskForm
from eofm.method.distributed import mean_over_ranks
from eofm.method.masking import number_kept
from eofm.method.terms.seam import PatchMask, RunFacts, Seen, Side, TermOutput

__all__ = [
    "EPSILON",
    "Attention",
    "DecoderBlock",
    "DecoderConfig",
    "PixelDecoder",
    "PixelLoss",
    "PixelTargets",
    "WithDecoder",
    "completion",
    "grid_positions",
    "hidden_patches",
    "make_decoders",
    "patch_mean_floor",
    "patchify",
    "pixel_loss",
    "pixel_targets",
]

# Added to the variance of a patch, as in MAE, so that quantisation noise of flat patches is not
# amplified. In units where a band's standard deviation is 0.25, its root is 1/250 of that.
EPSILON: Final = 1e-6
_TOKEN_STD: Final = 0.02  # initial std of the mask token, as in MAE


class PixelLoss(StrEnum):
    """Distance of predicted pixels: absolute (SiT), or squared (MAE, CropMAE, CroCo)."""

    L1 = "l1"
    MSE = "mse"


@dataclass(frozen=True)
class PixelTargets:
    """Prediction targets of a batch.

    Args:
        values: (B, P, C, Q), mean 0 and variance 1 over the valid pixels of each patch and band.
        counts: bool (B, P, Q), the valid pixels.
    """

    values: Float[Tensor, "b p c q"]
    counts: Bool[Tensor, "b p q"]

    def of(self, patches: Int64[Tensor, "b m"]) -> PixelTargets:
        """Return the targets of some patches of each image."""
        image = torch.arange(len(patches), device=patches.device)[:, None]
        return PixelTargets(self.values[image, patches], self.counts[image, patches])


def patchify(pixels: Float[Tensor, "b c h w"], block: int) -> Float[Tensor, "b p c q"]:
    """Cut images into square patches, row by row, with separate bands: (B, P, C, Q).

    Args:
        pixels: (B, C, H, W).
        block: Side of a patch in pixels.

    Raises:
        SpecError: If the images cannot be cut into whole patches.
    """
    batch, bands, height, width = pixels.shape
    if height % block or width % block:
        raise SpecError(
            "the image cannot be cut into whole patches",
            found=f"{height} x {width} pixels",
            expected=f"multiples of {block}",
        )
    cut = pixels.reshape(batch, bands, height // block, block, width // block, block)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, bands, block * block)


def pixel_targets(
    pixels: Float[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"], block: int
) -> PixelTargets:
    """Return the pixels of each patch, normalised per patch and band, in float32.

    Args:
        pixels: (B, C, H, W).
        valid: bool (B, H, W).
        block: Side of a patch in pixels.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        counts = patchify(valid[:, None].float(), block) > 0.5
        values = patchify(pixels.detach().float(), block)
        many = counts.sum(dim=3, keepdim=True).clamp(min=1)
        mean = torch.where(counts, values, 0).sum(dim=3, keepdim=True) / many
        values = torch.where(counts, values - mean, 0)
        variance = values.square().sum(dim=3, keepdim=True) / many
        return PixelTargets(values * (variance + EPSILON).rsqrt(), counts[:, :, 0])


def pixel_loss(
    predicted: Float[Tensor, "b m c q"], targets: PixelTargets, form: PixelLoss
) -> Float[Tensor, ""]:
    """Return the mean distance over the valid pixels and bands of all ranks.

    Without valid pixels it is 0, still connected to the prediction.

    Args:
        predicted: (B, M, C, Q).
        targets: Targets of the same patches.
        form: Kind of distance.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        apart = predicted.float() - targets.values
        each = apart.abs() if form is PixelLoss.L1 else apart.square()
        counts = targets.counts[:, :, None].expand_as(each)
        return mean_over_ranks(torch.where(counts, each, 0).sum(), counts.sum())


def patch_mean_floor(targets: PixelTargets, form: PixelLoss) -> Float[Tensor, ""]:
    """Return the loss of predicting the mean of every patch and band, without any structure.

    With `mse` it is 1, except for patches without contrast; with `l1` it depends on the imagery.

    Args:
        targets: Targets of the predicted patches.
        form: Kind of distance.
    """
    return pixel_loss(torch.zeros_like(targets.values), targets, form)


def hidden_patches(keep: Int64[Tensor, "b k"], patches: int) -> Int64[Tensor, "b m"]:
    """Return the patches that are not in `keep`, in the order of the image.

    Args:
        keep: int64 (B, K), without repetition in a row.
        patches: Number of patches, P = K + M.
    """
    seen = torch.zeros(len(keep), patches, dtype=torch.uint8, device=keep.device)
    seen.scatter_(1, keep, 1)
    return seen.argsort(dim=1, stable=True)[:, : patches - keep.shape[1]]


def grid_positions(
    rows: int, columns: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "p d"]:
    """Return sine-cosine positions of a grid, row by row: half for columns, half for rows.

    As in MAE (arXiv 2111.06377): frequencies 10000^(-i / (d / 4)), sines before cosines.

    Args:
        rows: Rows of patches.
        columns: Columns of patches.
        width: d, a multiple of 4.
        device: Device to compute them on, as a copy from pageable memory would synchronise a GPU.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    patch = torch.arange(rows * columns, device=device)

    def half(places: Int64[Tensor, " p"]) -> Float[Tensor, "p q"]:
        angle = places[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    return torch.cat([half(patch % columns), half(patch // columns)], dim=1)


@dataclass(frozen=True)
class DecoderConfig:
    """Size of the decoder from tokens to pixels, which is discarded after training.

    Args:
        width: d, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Width between the two layers of a block's MLP.

    Raises:
        ConfigError: If the width is not such a multiple, or a number is not positive.
    """

    width: int
    depth: int
    heads: int
    hidden: int

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "hidden"):
            value = getattr(self, name)
            require(value > 0, f"decoder.{name}", value, "more than 0")
        step = math.lcm(4, self.heads)
        require(self.width % step == 0, "decoder.width", self.width, f"a multiple of {step}")


class WithDecoder:
    """Settings of a term with a decoder, named as in its YAML."""

    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    decoder_hidden: int

    @property
    def decoder(self) -> DecoderConfig:
        """Size of the decoder."""
        return DecoderConfig(
            self.decoder_width, self.decoder_depth, self.decoder_heads, self.decoder_hidden
        )


class Attention(nn.Module):
    """Multi-head attention of some tokens to others, or to themselves.

    Args:
        width: d.
        heads: Attention heads.
        generator: Random generator of the weights, on the CPU.
    """

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear_layer(width, width, generator, bias=True)
        self.key_value = linear_layer(width, 2 * width, generator, bias=True)
        self.out = linear_layer(width, width, generator, bias=True)

    def forward(
        self, tokens: Float[Tensor, "b t d"], memory: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b t d"]:
        """Return the attention of `tokens` (B, T, d) to `memory` (B, N, d)."""
        query = self._by_head(self.query(tokens))
        key, value = (self._by_head(each) for each in self.key_value(memory).chunk(2, dim=2))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _by_head(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b heads t e"]:
        batch, count, width = tokens.shape
        return tokens.view(batch, count, self.heads, width // self.heads).transpose(1, 2)


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention if there is another view, MLP; each after a norm.

    The order is CroCo's (arXiv 2210.10716); CropMAE (2403.17823) orders the same parts differently.

    Args:
        config: Size.
        generator: Random generator of the weights, on the CPU.
        cross: Whether there is another view.
    """

    def __init__(self, config: DecoderConfig, generator: torch.Generator, *, cross: bool) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.heads, generator)
        if cross:
            self.norm_query, self.norm_memory = nn.LayerNorm(width), nn.LayerNorm(width)
            self.cross = Attention(width, config.heads, generator)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            linear_layer(width, config.hidden, generator, bias=True),
            nn.GELU(),
            linear_layer(config.hidden, width, generator, bias=True),
        )

    def forward(
        self, tokens: Float[Tensor, "b t d"], memory: Float[Tensor, "b n d"] | None
    ) -> Float[Tensor, "b t d"]:
        """Return the tokens (B, T, d) after attention to each other and to `memory`, and MLP."""
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed)
        if memory is not None:
            tokens = tokens + self.cross(self.norm_query(tokens), self.norm_memory(memory))
        out: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return out


class PixelDecoder(nn.Module):
    """Decodes tokens of visible patches, and of another view, to pixels of hidden patches.

    Args:
        dim: Width of the trunk's tokens, D.
        block: Side of a patch in pixels.
        bands: Number of predicted bands, C.
        config: Size.
        generator: Random generator of the weights, on the CPU.
        cross: Whether the decoder attends to another view.
    """

    def __init__(
        self,
        dim: int,
        block: int,
        bands: int,
        config: DecoderConfig,
        generator: torch.Generator,
        *,
        cross: bool,
    ) -> None:
        super().__init__()
        self.bands, self.width = bands, config.width
        self.embed = linear_layer(dim, config.width, generator, bias=True)
        token = torch.empty(config.width).normal_(std=_TOKEN_STD, generator=generator)
        self.mask_token = nn.Parameter(token)
        self.blocks = nn.ModuleList(
            DecoderBlock(config, generator, cross=cross) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.pixels = linear_layer(config.width, bands * block * block, generator, bias=True)

    def forward(
        self,
        tokens: Float[Tensor, "b seen D"],
        keep: Int64[Tensor, "b k"],
        grid: tuple[int, int],
        memory: Float[Tensor, "b all D"] | None = None,
    ) -> Float[Tensor, "b m c q"]:
        """Return the pixels of the hidden patches, (B, M, C, Q), in the order of the image.

        Args:
            tokens: CLS and the visible patches, (B, 1 + K, D).
            keep: int64 (B, K), indices of the visible patches.
            grid: Rows and columns of patches.
            memory: CLS and all patches of another view of the same grid, (B, 1 + P, D).
        """
        position = grid_positions(*grid, self.width, tokens.device)
        hidden = hidden_patches(keep, len(position))
        seen = self.embed(tokens)
        # CLS has no position; patches have the same positions in both views
        seen = torch.cat([seen[:, :1], seen[:, 1:] + position[keep]], dim=1)
        state = torch.cat([seen, (self.mask_token + position[hidden]).to(seen.dtype)], dim=1)
        if memory is not None:
            memory = self.embed(memory) + functional.pad(position, (0, 0, 1, 0))
        for block in self.blocks:
            state = block(state, memory)
        out: Tensor = self.pixels(self.norm(state[:, 1 + keep.shape[1] :]))
        return out.view(*out.shape[:2], self.bands, -1)


def make_decoders(
    term: str,
    facts: RunFacts,
    bands: Sequence[int],
    ratio: float,
    config: DecoderConfig,
    generator: torch.Generator,
    *,
    cross: bool,
) -> nn.ModuleDict:
    """Return a decoder for each number of predicted bands, by that number.

    Args:
        term: Name of the term, for the error.
        facts: Facts about the trunk and the run.
        bands: Numbers of bands of the predicted views; two sensors have two decoders.
        ratio: Share of hidden patches.
        config: Size.
        generator: Random generator of the weights, on the CPU.
        cross: Whether the decoder attends to another view.

    Raises:
        ConfigError: If hidden patches are not dropped, because the network has no tokens or the
            mask fills pixels; or if no patch is hidden.
    """
    if not facts.drops_tokens or facts.method.mask is MaskForm.PIXELS:
        raise ConfigError(
            f"the term {term} predicts patches whose tokens are dropped",
            found="a network without tokens, such as a ResNet"
            if not facts.drops_tokens
            else f"method.mask={MaskForm.PIXELS}",
            expected="a vision transformer, and method.mask=tokens",
            where=f"method.terms={term}",
            remedy="choose a transformer (model.architecture=vits14), or leave the term out",
        )
    if number_kept(facts.tokens, ratio) == facts.tokens:
        raise ConfigError(
            f"the term {term} has nothing to predict: no patch is hidden",
            found=f"{facts.tokens} patches, of which a share of {ratio:g} is hidden",
            expected="at least one hidden and two visible patches",
            where=f"method.terms={term}",
            remedy="raise the mask ratio, or the size of the images (model.size)",
        )
    return nn.ModuleDict(
        {
            str(each): PixelDecoder(facts.width, facts.patch, each, config, generator, cross=cross)
            for each in sorted(set(bands))
        }
    )


def completion(
    decoders: nn.ModuleDict,
    seen: Seen,
    views: Sequence[int],
    mask: PatchMask,
    facts: RunFacts,
    form: PixelLoss,
    *,
    cross: bool,
) -> TermOutput:
    """Return the error of hidden pixels, a mean over views, and that of patch means (`floor`).

    Args:
        decoders: `make_decoders`.
        seen: The batch and the networks' outputs for it.
        views: Views that are masked and predicted, in turn.
        mask: Mask of the views.
        facts: Facts about the trunk and the run.
        form: Distance of pixels.
        cross: Whether the decoder attends to the other, unmasked view.
    """
    parts = []
    for view in views:
        memory = seen.forward(Side.STUDENT, 1 - view) if cross else None
        pixels, keep = seen.images(view), seen.keep(view, mask)
        assert keep is not None  # noqa: S101 (masks that hide nothing were refused)
        decoder = decoders[str(pixels.shape[1])]
        predicted = decoder(seen.forward(Side.STUDENT, view, mask), keep, facts.grid, memory)
        hidden = hidden_patches(keep, facts.tokens)
        targets = pixel_targets(pixels, seen.valid(view)[:, 0], facts.patch).of(hidden)
        parts.append((pixel_loss(predicted, targets, form), patch_mean_floor(targets, form)))
    error, floor = (torch.stack(each).mean() for each in zip(*parts, strict=True))
    return TermOutput(error, {"error": error.detach(), "floor": floor})
