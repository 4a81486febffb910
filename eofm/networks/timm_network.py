"""Networks of timm: made by name, tried out, and run on the patches that are kept.

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, N tokens, D width.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Protocol, cast

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from eofm.errors import SpecError, WeightsError


class Features(Enum):
    """How a network lays out what it sees."""

    TOKENS = auto()  # (B, prefix + P, D)
    MAP = auto()  # (B, D, rows, columns)
    MAP_LAST = auto()  # (B, rows, columns, D)


class TimmModel(Protocol):
    """What the networks of timm have in common."""

    num_features: int
    pretrained_cfg: dict[str, Any]
    feature_info: Sequence[object]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return tokens or a map."""
        ...

    def forward_head(self, x: Tensor, pre_logits: bool) -> Tensor:
        """Return one vector per image."""
        ...

    def reset_classifier(self, num_classes: int, global_pool: str) -> None:
        """Choose how features become one vector."""
        ...

    def group_matcher(self, coarse: bool) -> dict[str, Any]:
        """Return patterns of parameter names by depth."""
        ...

    def forward_intermediates(
        self, x: Tensor, *, indices: list[int], norm: bool, intermediates_only: bool, **more: object
    ) -> list[Any]:
        """Return the maps of the layers named."""
        ...


def as_timm(model: nn.Module) -> TimmModel:
    """Return the same network, known to be timm's."""
    return cast(TimmModel, model)


def known(name: str) -> str:
    """Return the name, if timm has such a network.

    Raises:
        WeightsError: If it has none; the nearest names are listed.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise WeightsError(
            f"timm {timm.__version__} has no network called {name!r}",
            found=name,
            expected=", ".join(close) or "a name of timm.list_models()",
        )
    return name


def create(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    """Return a network for images of `size`, and of other sizes where timm offers that.

    Raises:
        WeightsError: If timm has no such network.
        SpecError: If it cannot be built for that size.
    """
    known(name)
    # a constructor refuses an option it does not have by TypeError; which has which is not stated
    for options in ({"img_size": size, "dynamic_img_size": True}, {"img_size": size}):
        try:
            return create_with(name, channels, options)
        except TypeError:
            continue
        except (AssertionError, ValueError) as error:
            raise _size_error(name, size, error) from error
    return create_with(name, channels, {})


def create_with(name: str, channels: int, options: dict[str, Any]) -> nn.Module:
    """Return a network without classifier and with weights drawn from the global state."""
    model: nn.Module = timm.create_model(name, in_chans=channels, num_classes=0, **options)
    return model


@torch.no_grad()
def try_out(
    model: nn.Module, name: str, channels: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return features and vector of an empty image: their shapes are stated nowhere.

    Raises:
        SpecError: If the network does not take images of that size.
    """
    model.eval()
    try:
        features = as_timm(model).forward_features(torch.zeros(1, channels, *size))
        vector = as_timm(model).forward_head(features, pre_logits=True)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _size_error(name, size, error) from error
    model.train()
    return features, vector


def _size_error(name: str, size: tuple[int, int], error: Exception) -> SpecError:
    return SpecError(
        f"{name} does not take images of this size",
        found=f"{size[0]} x {size[1]} pixels: {error}",
        expected="a multiple of its patch or window",
        remedy="for example 224 x 224",
    )


def layout_of(
    model: nn.Module, name: str, features: Tensor, size: tuple[int, int]
) -> tuple[Features, int, tuple[int, int]]:
    """Return the layout of the features, the tokens before the patches, rows and columns.

    Args:
        model: The network.
        name: As timm calls it.
        features: Of one image, in the layout to be found out.
        size: Height and width of that image in pixels.

    Raises:
        WeightsError: If the features are neither tokens nor a map.
    """
    width = as_timm(model).num_features
    if features.ndim == 4 and features.shape[1] == width:
        return Features.MAP, 0, (features.shape[2], features.shape[3])
    if features.ndim == 4 and features.shape[3] == width:
        return Features.MAP_LAST, 0, (features.shape[1], features.shape[2])
    # timm: only networks of tokens have the attribute, and not all of them
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    patches = features.shape[1] - prefix if features.ndim == 3 else 0
    side = max((size[0] * size[1] / patches) ** 0.5, 1) if patches else 0.0
    grid = (round(size[0] / side), round(size[1] / side)) if side else (0, 0)
    if not patches or grid[0] * grid[1] != patches:
        raise WeightsError(
            f"the features of {name} are neither tokens nor a map",
            found=f"shape {tuple(features.shape)} for {size[0]} x {size[1]} pixels",
            expected="(1, tokens, D), (1, D, rows, columns) or (1, rows, columns, D)",
        )
    return Features.TOKENS, prefix, grid


# ------------------------------------------------------------------------- kept tokens


def _kept(tokens: Tensor, keep: Tensor, prefix: int) -> Tensor:
    """Return the first `prefix` tokens and those of the kept patches, (B, prefix + K, D)."""
    patches = torch.take_along_dim(tokens[:, prefix:], keep[:, :, None], dim=1)
    return torch.cat([tokens[:, :prefix], patches], dim=1)


def vit_features(model: VisionTransformer, pixels: Tensor, keep: Tensor) -> Tensor:
    """Return `model.forward_features` of the kept patches: positions are added before."""
    tokens = model._pos_embed(model.patch_embed(pixels))
    tokens = model.norm_pre(_kept(tokens, keep, model.num_prefix_tokens))
    normed: Tensor = model.norm(model.blocks(tokens))
    return normed


def eva_features(model: Eva, pixels: Tensor, keep: Tensor) -> Tensor:
    """Return `model.forward_features` of the kept patches, each with its own rotary position."""
    tokens, rope = model._pos_embed(model.patch_embed(pixels))
    tokens = model.norm_pre(_kept(tokens, keep, model.num_prefix_tokens))
    per_block = _kept_rope(rope, keep, len(model.blocks))
    for block, own in zip(model.blocks, per_block, strict=True):
        tokens = block(tokens, rope=own)
    normed: Tensor = model.norm(tokens)
    return normed


def _kept_rope(rope: Tensor | None, keep: Tensor, depth: int) -> list[Tensor | None]:
    """Return rotary positions of the kept patches for each block, (B, 1 or heads, K, 2 d).

    Args:
        rope: (P, 2 d) for all blocks, (depth, heads, P, 2 d) where each has its own, or None.
        keep: int64 (B, K).
        depth: Number of blocks.
    """
    if rope is None:
        return [None] * depth
    if rope.ndim == 2:
        return [rope[keep][:, None]] * depth
    return [own[:, keep].transpose(0, 1) for own in rope]
