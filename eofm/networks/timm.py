"""Any vision transformer or convolutional network of timm by name, as a `Trunk`.

`timm:vit_small_patch16_dinov3`, `timm:vit_base_patch16_224`, `timm:resnet50`: the name after the
prefix is timm's, with or without a tag. The network is timm's module, unchanged, under `model.`;
the names of its tensors are that prefix and the names in timm's files. A trial run determines the
layout of its features. The network can be run on the kept patches only.

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, N tokens, D width.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol, cast, final

import timm
import torch
from timm.models._manipulate import group_parameters
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from eofm.contract.recipe import Pooling
from eofm.errors import MismatchKind, SpecError, SpecMismatch, WeightsError
from eofm.networks.trunk import Trunk, drawn_from

__all__ = [
    "PREFIX",
    "Features",
    "TimmModel",
    "TimmTrunk",
    "as_timm",
    "build_timm",
    "create",
    "create_with",
    "default_pooling",
    "eva_features",
    "is_known",
    "known",
    "layout_of",
    "try_out",
    "vit_features",
]

# --------------------------------------------------------------------------------- networks of timm


class Features(Enum):
    """Layout of a network's features."""

    TOKENS = auto()  # (B, prefix + P, D)
    MAP = auto()  # (B, D, rows, columns)
    MAP_LAST = auto()  # (B, rows, columns, D)


class TimmModel(Protocol):
    """Common interface of the networks of timm."""

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
        """Choose the pooling of features into one vector."""
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
    """Return the same network, typed as timm's."""
    return cast(TimmModel, model)


def is_known(name: str) -> bool:
    """Return whether timm has a network of that name."""
    return timm.is_model(name)


def known(name: str) -> str:
    """Return the name if timm has such a network.

    Raises:
        WeightsError: If timm has no such network; the nearest names are listed.
    """
    if not is_known(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise WeightsError(
            f"timm {timm.__version__} has no network {name!r}",
            found=name,
            expected=", ".join(close) or "a name of timm.list_models()",
        )
    return name


def create(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    """Return a network for images of `size`, and of other sizes if timm supports that.

    Raises:
        WeightsError: If timm has no such network.
        SpecError: If it cannot be built for that size.
    """
    known(name)
    # a constructor raises TypeError for an unknown option; timm does not list the options
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
    """Return features and vector of an empty image, as their shapes are not documented.

    Raises:
        SpecError: If the network does not accept images of that size.
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
        name: Name of the network in timm.
        features: Features of one image, in the unknown layout.
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
    """Return `model.forward_features` of the kept patches, which keep their positions."""
    tokens = model._pos_embed(model.patch_embed(pixels))
    tokens = model.norm_pre(_kept(tokens, keep, model.num_prefix_tokens))
    normed: Tensor = model.norm(model.blocks(tokens))
    return normed


def eva_features(model: Eva, pixels: Tensor, keep: Tensor) -> Tensor:
    """Return `model.forward_features` of the kept patches with their rotary positions."""
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
        rope: (P, 2 d) for all blocks, (depth, heads, P, 2 d) if blocks differ, or None.
        keep: int64 (B, K).
        depth: Number of blocks.
    """
    if rope is None:
        return [None] * depth
    if rope.ndim == 2:
        return [rope[keep][:, None]] * depth
    return [own[:, keep].transpose(0, 1) for own in rope]


# --------------------------------------------------------------------------------------- as a trunk

PREFIX: Final = "timm:"

# Names of timm's final norms and poolings, after the last block.
_TAIL: Final = ("norm.", "fc_norm.", "head.")

# LayerScale starts at 1e-5 or 1e-6, so a random network would be nearly the identity; see
# `eofm.networks.vit.LAYER_SCALE_INIT`.
_SCALES: Final = (".gamma", ".gamma_1", ".gamma_2")


@final
class TimmTrunk(Trunk):
    """A network of timm without its classifier.

    The vector is timm's output without a classifier: pooled, and normalised if the network does so
    after pooling. Positions for another size are interpolated by timm.

    Args:
        name: Name of the network in timm.
        channels: Bands, C.
        size: Native height and width in pixels.
        pooling: The CLS token, or the mean over patches or cells.

    Raises:
        WeightsError: If timm has no such network, or its features are neither tokens nor a map.
        SpecError: If the network has no CLS token to pool, or does not accept images of that size.
    """

    def __init__(
        self, name: str, channels: int, size: tuple[int, int], pooling: Pooling = Pooling.CLS
    ) -> None:
        model = create(name, channels, size)
        if pooling is Pooling.CLS and "cls_token" not in dict(model.named_parameters()):
            raise SpecError(
                f"{name} has no CLS token",
                found=f"pooling {pooling}",
                expected=f"pooling {Pooling.MEAN}",
                remedy=f'state pooling "{Pooling.MEAN}" in the recipe',
            )
        as_timm(model).reset_classifier(0, "token" if pooling is Pooling.CLS else "avg")
        features, vector = try_out(model, name, channels, size)
        layout, prefix, grid = layout_of(model, name, features, size)
        if vector.shape != (1, features.shape[1 if layout is Features.MAP else -1]):
            raise WeightsError(
                f"the features of {name} and its embedding differ in width",
                found=f"features {tuple(features.shape)}, embedding {tuple(vector.shape)}",
                remedy="take a vision transformer, a ResNet or a ConvNeXt",
            )
        multiple = size[0] // grid[0] if layout is Features.TOKENS else 1
        super().__init__(channels, size, pooling, multiple=multiple, prefix=prefix)
        self.name, self.model = name, model
        self._grid, self._layout, self._dim = grid, layout, vector.shape[1]
        cfg = as_timm(model).pretrained_cfg
        self._input_layer = f"model.{cfg['first_conv']}"
        self._any_size = isinstance(model, VisionTransformer | Eva) or not cfg["fixed_input_size"]
        self._layers: dict[str, int] = {}

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self._dim

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, or of the last map, at the native size."""
        return self._grid

    @property
    def drops_tokens(self) -> bool:
        """Whether `keep` is supported, as by timm's `VisionTransformer` and `Eva` (DINOv3)."""
        return isinstance(self.model, VisionTransformer | Eva)

    @property
    def input_layer(self) -> str:
        """Name of the first convolution, as stated by timm."""
        return self._input_layer

    @property
    def depth(self) -> int:
        """Number of blocks in timm's parameter groups."""
        return max(v for k, v in self._groups().items() if not k.startswith(_TAIL))

    def layer_of(self, parameter: str) -> int:
        """Return timm's group: 0 for the stem, k + 1 for block k, depth + 1 for later layers."""
        name = parameter.removeprefix("model.")
        return self.depth + 1 if name.startswith(_TAIL) else self._groups()[name]

    def _groups(self) -> dict[str, int]:
        if not self._layers:
            matcher = as_timm(self.model).group_matcher(coarse=False)
            groups = group_parameters(self.model, matcher, reverse=True)
            # learned rotary frequencies serve every block, and timm has no group for them
            self._layers = {k: 0 if k.startswith("rope.") else v for k, v in groups.items()}
        return self._layers

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not accept the size.
            SpecError: If `keep` is given to a network that cannot drop patches.
        """
        features = self._features(pixels, keep)
        if not self.prefix:
            return as_timm(self.model).forward_head(features, pre_logits=True)
        # not timm's head, which mixes CLS and distillation token in a distilled network
        cls = self.pooling is Pooling.CLS
        vector = features[:, 0] if cls else features[:, self.prefix :].mean(dim=1)
        norm = dict(self.model.named_children()).get("fc_norm")
        return vector if norm is None else norm(vector)

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens of timm's `forward_features`; maps are flattened row by row.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Returns:
            (B, prefix + P, D), or (B, prefix + K, D).

        Raises:
            SpecMismatch: If the channels are not C, or the network does not accept the size.
            SpecError: If `keep` is given to a network that cannot drop patches.
        """
        features = self._features(pixels, keep)
        if self._layout is Features.TOKENS:
            return features
        if self._layout is Features.MAP:
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, 2)

    def _features(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        self.check_pixels(pixels)
        if not self.drops_tokens:
            self.refuse_keep(keep)
        if keep is None:
            return as_timm(self.model).forward_features(pixels)
        if isinstance(self.model, Eva):
            return eva_features(self.model, pixels, keep)
        return vit_features(cast(VisionTransformer, self.model), pixels, keep)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return timm's intermediates: blocks of a ViT, stem and stages of a ResNet.

        See `Trunk.get_intermediate_layers`.

        Raises:
            SpecError: If there is no such layer, or a CLS token is requested and there is none.
            SpecMismatch: If the channels are not C, or the network does not accept the size.
        """
        self.check_pixels(x)
        if return_class_token and "model.cls_token" not in dict(self.named_parameters()):
            raise SpecError(f"{self.name} has no CLS token", remedy="leave return_class_token out")
        model = as_timm(self.model)
        wanted = self.check_layers(n, len(model.feature_info))
        more = {"return_prefix_tokens": True} if return_class_token else {}
        outputs = model.forward_intermediates(
            x, indices=wanted, norm=norm, intermediates_only=True, **more
        )
        if return_class_token:
            return tuple((_arranged(maps, reshape), prefix[:, 0]) for maps, prefix in outputs)
        return tuple(_arranged(maps, reshape) for maps in outputs)

    def check_pixels(self, pixels: Tensor) -> None:
        """Refuse invalid input of the network.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not accept the size.
        """
        super().check_pixels(pixels)
        if not self._any_size and tuple(pixels.shape[2:]) != self.size:
            raise SpecMismatch(
                MismatchKind.SIZE,
                f"{self.name} takes images of one size",
                found=f"{pixels.shape[2]} x {pixels.shape[3]} pixels",
                expected=f"{self.size[0]} x {self.size[1]}",
                remedy="resize to the recipe's size: eofm.contract.preprocess does",
            )


def build_timm(
    architecture: str,
    channels: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    pooling: Pooling = Pooling.CLS,
) -> TimmTrunk:
    """Build a network of timm, with weights drawn from `generator` as timm draws them.

    Only LayerScale starts at 1, as in `eofm.networks.vit`.

    Args:
        architecture: timm's name, with or without `timm:` before it.
        channels: Bands, C.
        size: Native height and width in pixels.
        generator: Random generator of the initial weights, on the CPU.
        pooling: Pooling of the vector that `forward` returns.

    Raises:
        WeightsError: If timm has no such network, or its features are neither tokens nor a map.
        SpecError: If the network has no CLS token to pool, or does not accept images of that size.
    """
    with drawn_from(generator):
        trunk = TimmTrunk(architecture.removeprefix(PREFIX), channels, size, pooling)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            if name.endswith(_SCALES):
                parameter.fill_(1.0)
    return trunk


def default_pooling(architecture: str) -> Pooling:
    """Return CLS pooling if a network of timm has a CLS token, else the mean.

    Args:
        architecture: timm's name, with or without `timm:` before it.

    Raises:
        WeightsError: If timm has no such network.
    """
    with torch.device("meta"):
        model = create_with(known(architecture.removeprefix(PREFIX)), 3, {})
    return Pooling.CLS if "cls_token" in dict(model.named_parameters()) else Pooling.MEAN


def _arranged(maps: Tensor, reshape: bool) -> Tensor:
    return maps if reshape else maps.flatten(2).transpose(1, 2)
