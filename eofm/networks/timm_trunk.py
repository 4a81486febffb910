"""Any vision transformer or convolutional network of timm by name, as a `Trunk`.

`timm:vit_small_patch16_dinov3`, `timm:vit_base_patch16_224`, `timm:resnet50`: the name after the
prefix is timm's, with or without a tag. The network is timm's own, untouched, under `model.`:
the names of its tensors are those of timm's files behind that prefix.

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast, final

import torch
from timm.models._manipulate import group_parameters
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.errors import MismatchKind, SpecError, SpecMismatch, WeightsError
from eofm.networks.timm_network import (
    Features,
    as_timm,
    create,
    create_with,
    eva_features,
    known,
    layout_of,
    try_out,
    vit_features,
)
from eofm.networks.trunk import Trunk, drawn_from

PREFIX: Final = "timm:"

# Where timm's final norms and poolings lie: behind the last block.
_TAIL: Final = ("norm.", "fc_norm.", "head.")

# LayerScale starts at 1e-5 or 1e-6, and a random network would be nearly the identity: the
# comment at `eofm.networks.vit.LAYER_SCALE_INIT`.
_SCALES: Final = (".gamma", ".gamma_1", ".gamma_2")


@final
class TimmTrunk(Trunk):
    """A network of timm without its classifier.

    The vector is what timm makes of the features without a classifier: pooled, and normalised
    where the network does that after pooling. Positions for another size are interpolated as timm
    does.

    Args:
        name: As timm calls it.
        channels: Bands, C.
        size: Native height and width in pixels.
        pooling: The CLS token, or the mean over patches or cells.

    Raises:
        WeightsError: If timm has no such network, or its features are neither tokens nor a map.
        SpecError: If the network has no CLS token to pool, or does not take images of that size.
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
        """Whether `keep` is understood: by timm's `VisionTransformer` and `Eva` (DINOv3)."""
        return isinstance(self.model, VisionTransformer | Eva)

    @property
    def input_layer(self) -> str:
        """The first convolution, as timm states it."""
        return self._input_layer

    @property
    def depth(self) -> int:
        """Number of blocks, as timm groups parameters."""
        return max(v for k, v in self._groups().items() if not k.startswith(_TAIL))

    def layer_of(self, parameter: str) -> int:
        """Return 0 for the stem, k + 1 for block k, depth + 1 for what follows: timm's groups."""
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
            SpecMismatch: If the channels are not C, or the network does not take the size.
            SpecError: If `keep` is given to a network that cannot leave patches out.
        """
        features = self._features(pixels, keep)
        if not self.prefix:
            return as_timm(self.model).forward_head(features, pre_logits=True)
        # not by timm's head: that of a distilled network would mix CLS and distillation token
        cls = self.pooling is Pooling.CLS
        vector = features[:, 0] if cls else features[:, self.prefix :].mean(dim=1)
        norm = dict(self.model.named_children()).get("fc_norm")
        return vector if norm is None else norm(vector)

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens as timm's `forward_features` does, maps row by row.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Returns:
            (B, prefix + P, D), or (B, prefix + K, D).

        Raises:
            SpecMismatch: If the channels are not C, or the network does not take the size.
            SpecError: If `keep` is given to a network that cannot leave patches out.
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
        """Return what timm calls intermediates: of a ViT its blocks, of a ResNet stem and stages.

        See `Trunk.get_intermediate_layers`.

        Raises:
            SpecError: If there is no such layer, or no CLS token where one is wanted.
            SpecMismatch: If the channels are not C, or the network does not take the size.
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
        """Refuse what the network cannot take.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not take the size.
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
        generator: Source of the initial weights, on the CPU.
        pooling: What `forward` returns.

    Raises:
        WeightsError: If timm has no such network, or its features are neither tokens nor a map.
        SpecError: If the network has no CLS token to pool, or does not take images of that size.
    """
    with drawn_from(generator):
        trunk = TimmTrunk(architecture.removeprefix(PREFIX), channels, size, pooling)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            if name.endswith(_SCALES):
                parameter.fill_(1.0)
    return trunk


def default_pooling(architecture: str) -> Pooling:
    """Return the CLS token where a network of timm has one, else the mean.

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
