"""Make published weights fit: a state dict goes in, a state dict comes out.

Every function is pure: the state it is given is left as it was. A tensor is used, or it is
named in `DROPPED`, or the function raises; nothing is left over in silence.

Shapes: O output channels, C bands, k by k pixels of a patch, P patches, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor, nn

from eofm.errors import WeightsError
from eofm.models.state import State

# --------------------------------------------------------------------------- DINOv2 names

# The mask token serves DINOv2's own objective; here tokens are dropped, never replaced.
DROPPED: Final = ("mask_token",)

_BLOCK_KEYS: Final = (
    *(f"{m}.{p}" for m in ("norm1", "attn.qkv", "attn.proj") for p in ("weight", "bias")),
    "ls1.gamma",
    *(f"{m}.{p}" for m in ("norm2", "mlp.fc1", "mlp.fc2") for p in ("weight", "bias")),
    "ls2.gamma",
)
_OUTER_KEYS: Final = (
    "cls_token",
    "pos_embed",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "norm.weight",
    "norm.bias",
)
# A LayerScale is built at 1e-5 by DINOv2 and timm; a trained one is far above.
UNTRAINED_GAMMA: Final = 1e-4


def dinov2_to_vit(state: Mapping[str, Tensor]) -> State:
    """Return the weights of a register-free DINOv2 ViT under the names of `eofm.models.vit`.

    The names agree (arXiv 2304.07193, facebookresearch/dinov2) but for `DROPPED`.

    Args:
        state: `dinov2_vits14_pretrain.pth` or `dinov2_vitb14_pretrain.pth`.

    Raises:
        WeightsError: If a tensor is unknown or missing, or a LayerScale was never trained: such
            a network is nearly the identity, and would train without complaint.
    """
    kept = {key: value for key, value in state.items() if key not in DROPPED}
    blocks = {int(m[1]) for key in kept if (m := re.match(r"blocks\.(\d+)\.", key))}
    expected = set(_OUTER_KEYS)
    expected |= {
        f"blocks.{i}.{key}" for i in range(max(blocks, default=0) + 1) for key in _BLOCK_KEYS
    }
    unknown, missing = sorted(set(kept) - expected), sorted(expected - set(kept))
    if unknown or missing:
        raise WeightsError(
            "this is not a DINOv2 ViT without registers",
            found="; ".join([f"unknown {k}" for k in unknown] + [f"missing {k}" for k in missing]),
            expected="the tensors of dinov2_vits14_pretrain.pth or dinov2_vitb14_pretrain.pth",
            remedy="take the release without registers, not chunked, without a training prefix",
        )
    check_layer_scale(kept)
    return kept


def check_layer_scale(state: Mapping[str, Tensor]) -> None:
    """Raise where a LayerScale is still at its initial value.

    Raises:
        WeightsError: If the mean magnitude of a `gamma` is below `UNTRAINED_GAMMA`.
    """
    means = {k: v.float().abs().mean().item() for k, v in state.items() if k.endswith(".gamma")}
    low = [f"{key} = {mean:.1e}" for key, mean in means.items() if not mean > UNTRAINED_GAMMA]
    if low:
        raise WeightsError(
            "LayerScale was not loaded or never trained: the network is nearly an identity",
            found=", ".join(low),
            expected=f"mean |gamma| > {UNTRAINED_GAMMA:g}",
            remedy="use the trained weights, with their ls1.gamma and ls2.gamma",
        )


# ----------------------------------------------------------------------------- input layer


class InputInit(StrEnum):
    """How the input layer for C bands comes from that for red, green and blue.

    `RANDOM` is drawn afresh, as SoftCon is reported to do. `RGB_MATCHED` gives the red, green and
    blue bands their own filters and the others zeros. `MEAN` gives every band the mean over the
    colours, scaled so that gray stays gray. `TIMM` repeats R, G, B in the order of the channels,
    which is spectrally wrong for Sentinel-2 and kept for comparison.
    """

    RANDOM = "random"
    RGB_MATCHED = "rgb-matched"
    MEAN = "mean"
    TIMM = "timm"


_COLOUR_OF: Final = {"B04": 0, "B03": 1, "B02": 2, "R": 0, "G": 1, "B": 2}


def adapt_input(
    state: Mapping[str, Tensor],
    bands: Sequence[str],
    rule: InputInit,
    generator: torch.Generator,
    key: str = "patch_embed.proj",
) -> State:
    """Return `state` with an input layer for `bands` in place of the one for red, green, blue.

    Args:
        state: Holds `{key}.weight` (O, 3, k, k) in the order R, G, B, and `{key}.bias` (O,).
        bands: Canonical names in input order.
        rule: How to make the layer. `RGB_MATCHED` becomes `MEAN` where no band is a colour
            (Sentinel-1).
        generator: Source of randomness of `RANDOM`.
        key: Name of the layer.

    Raises:
        WeightsError: If the layer is missing, or not for three channels.
    """
    rgb, bias = _input_layer(state, key)
    if rgb.shape[1] != 3:
        raise WeightsError(
            "the input layer to adapt must be for red, green and blue",
            found=f"{rgb.shape[1]} channels",
            expected="3 channels",
            where=f"{key}.weight",
            remedy="start from RGB weights, or continue with the bands the weights are for",
        )
    if rule is InputInit.RANDOM:
        weight, bias = _random_layer(rgb, bias, len(bands), generator)
    else:
        weight = _inflate(rgb.float(), bands, rule).to(rgb.dtype)
    return {**state, f"{key}.weight": weight, f"{key}.bias": bias}


def _input_layer(state: Mapping[str, Tensor], key: str) -> tuple[Tensor, Tensor]:
    try:
        return state[f"{key}.weight"], state[f"{key}.bias"]
    except KeyError as error:
        raise WeightsError(
            "the weights have no such input layer",
            found=", ".join(list(state)[:6]),
            expected=f"{key}.weight and {key}.bias",
        ) from error


def _random_layer(
    like: Tensor, bias: Tensor, channels: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw U(±1/sqrt(C k²)), torch's default for a convolution and DINOv2's for its input."""
    weight = like.new_empty((like.shape[0], channels, *like.shape[2:]))
    bound = weight[0].numel() ** -0.5
    return (
        weight.uniform_(-bound, bound, generator=generator),
        torch.empty_like(bias).uniform_(-bound, bound, generator=generator),
    )


def _inflate(rgb: Tensor, bands: Sequence[str], rule: InputInit) -> Tensor:
    colours = [_COLOUR_OF.get(band) for band in bands]
    if rule is InputInit.RGB_MATCHED and any(c is not None for c in colours):
        none = torch.zeros_like(rgb[:, 0])
        return torch.stack([none if c is None else rgb[:, c] for c in colours], dim=1)
    if rule is InputInit.TIMM and len(bands) > 1:
        cycle = [i % 3 for i in range(len(bands))]
        return rgb[:, cycle] * (3 / len(bands))
    return rgb.sum(dim=1, keepdim=True).expand(-1, len(bands), -1, -1) / len(bands)


def fold_affine(
    state: Mapping[str, Tensor],
    scale: float = 4.0,
    offset: float = -2.0,
    key: str = "patch_embed.proj",
) -> State:
    """Return `state` whose input layer takes u where it took z = scale * u + offset.

    DINOv2's filters expect roughly unit variance; `two_sigma` pixels are u = (z + 2) / 4, hence
    the defaults. Exact wherever nothing is padded, as in a patch embedding.

    Args:
        state: Holds `{key}.weight` (O, C, k, k) and `{key}.bias` (O,).
        scale: Factor from u to z.
        offset: Offset from u to z.
        key: Name of the layer.

    Raises:
        WeightsError: If the layer is missing.
    """
    weight, bias = _input_layer(state, key)
    folded = bias + offset * weight.sum(dim=(1, 2, 3))
    return {**state, f"{key}.weight": weight * scale, f"{key}.bias": folded}


# ----------------------------------------------------------------------- position embedding


class PositionRecipe(StrEnum):
    """How a table of position embeddings is brought to another grid. They are not equal.

    `DINOV2` is what its register-free models do at run time: bicubic by the scale factor
    (target + 0.1) / source, without antialiasing. `TIMM` is bicubic by size with antialiasing.
    """

    DINOV2 = "dinov2"
    TIMM = "timm"


def resize_position_embedding(
    state: Mapping[str, Tensor],
    grid: tuple[int, int],
    recipe: PositionRecipe,
    key: str = "pos_embed",
) -> State:
    """Return `state` with its position table, CLS entry first, brought from a square to `grid`.

    Args:
        state: Holds `key`, (1, 1 + P, D) with P a square number: 37 x 37 for DINOv2.
        grid: Rows and columns of patches wanted.
        recipe: How to interpolate.
        key: Name of the table.

    Raises:
        WeightsError: If there is no table, or it is not that of a square grid.
    """
    if key not in state or state[key].ndim != 3:
        raise WeightsError("the weights have no position table", expected=f"{key}: (1, 1 + P, D)")
    patches = state[key].shape[1] - 1
    side = round(max(patches, 0) ** 0.5)
    if side * side != patches or patches < 1:
        raise WeightsError(
            "the position table is not that of a square grid with one CLS entry",
            found=tuple(state[key].shape),
            expected="(1, 1 + n², D)",
            where=key,
        )
    return {**state, key: resample_positions(state[key], (side, side), grid, recipe)}


def resample_positions(
    table: Tensor, source: tuple[int, int], target: tuple[int, int], recipe: PositionRecipe
) -> Tensor:
    """Interpolate the patch part of a position table in float32; the CLS entry is kept.

    Args:
        table: (1, 1 + P, D), CLS first, patches by row.
        source: Rows and columns of the table.
        target: Rows and columns wanted.
        recipe: How to interpolate.

    Returns:
        (1, 1 + P', D); the table itself where the grids agree.
    """
    if source == target:
        return table
    field = table[:, 1:].float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    if recipe is PositionRecipe.TIMM:
        field = nn.functional.interpolate(field, size=target, mode="bicubic", antialias=True)
    else:
        factors = [(t + 0.1) / s for t, s in zip(target, source, strict=True)]
        field = nn.functional.interpolate(field, scale_factor=factors, mode="bicubic")
    patches = field.permute(0, 2, 3, 1).reshape(1, target[0] * target[1], -1)
    return torch.cat([table[:, :1], patches.to(table.dtype)], dim=1)
