"""ResNets on timm's blocks (arXiv 1512.03385), with the names of torchvision and without a head.

The state dict of `resnet50` is torchvision's without `fc`, so DINO's `dino_resnet50_pretrain.pth`
(arXiv 2104.14294), torchvision's, timm's and SoftCon's files load by name.

Shapes: B images, C bands, H by W pixels, P cells of the last map, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import timm
import torch
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.errors import SpecError, WeightsError
from eofm.networks.trunk import Trunk, drawn_from

__all__ = ["RESNETS", "STRIDE", "ResNet", "architecture_of", "build_resnet"]

# Width of the last map.
RESNETS: Final[Mapping[str, int]] = {"resnet18": 512, "resnet50": 2048}

# Blocks of the four stages, and whether a block has three convolutions.
_STAGES: Final[Mapping[tuple[tuple[int, ...], bool], str]] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), True): "resnet50",
}


def architecture_of(state: Mapping[str, Tensor]) -> str | None:
    """Return the name in `RESNETS` of a state dict's architecture, or None if there is none.

    Args:
        state: Tensors under torchvision's names.
    """
    parts = {tuple(key.split(".")[:2]) for key in state}
    depths = tuple(sum(first == f"layer{i}" for first, *_ in parts) for i in range(1, 5))
    return _STAGES.get((depths, "layer1.0.conv3.weight" in state))


STRIDE: Final = 32  # side of a cell of the last map in pixels


@final
class ResNet(Trunk):
    """A residual network whose vector is the mean over the last map.

    Args:
        name: A key of `RESNETS`.
        channels: Bands, C.
        size: Native height and width in pixels; other sizes are accepted too.
        pooling: Only the mean: there is no CLS token.

    Raises:
        SpecError: If the pooling is not the mean.
    """

    def __init__(
        self, name: str, channels: int, size: tuple[int, int], pooling: Pooling = Pooling.MEAN
    ) -> None:
        if pooling is not Pooling.MEAN:
            raise SpecError(
                f"{name} has no CLS token",
                found=f"pooling {pooling}",
                expected=f"pooling {Pooling.MEAN}",
                remedy=f'state pooling "{Pooling.MEAN}" in the recipe',
            )
        super().__init__(channels, size, pooling, multiple=1, prefix=0)
        self._dim = RESNETS[name]
        # a random network is a control: with the last scale of each branch at zero, as timm
        # initialises it, it would consist of a few convolutions only
        net = timm.create_model(name, in_chans=channels, num_classes=0, zero_init_last=False)
        self.conv1, self.bn1 = net.get_submodule("conv1"), net.get_submodule("bn1")
        self.act1, self.maxpool = net.get_submodule("act1"), net.get_submodule("maxpool")
        self.layer1, self.layer2 = net.get_submodule("layer1"), net.get_submodule("layer2")
        self.layer3, self.layer4 = net.get_submodule("layer3"), net.get_submodule("layer4")

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self._dim

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last map at the native size."""
        return -(-self.size[0] // STRIDE), -(-self.size[1] // STRIDE)

    @property
    def block(self) -> int:
        """Side of a cell of the last map in pixels, also for cells cut by the image border."""
        return STRIDE

    @property
    def drops_tokens(self) -> bool:
        """Return False: a convolution needs all pixels, and `keep` is refused."""
        return False

    @property
    def input_layer(self) -> str:
        """The first convolution, without a bias."""
        return "conv1"

    @property
    def depth(self) -> int:
        """Number of stages."""
        return 4

    def layer_of(self, parameter: str) -> int:
        """Return 0 for the stem (`conv1`, `bn1`), and 1 to 4 for the stages."""
        module = parameter.partition(".")[0]
        return int(module[-1]) if module.startswith("layer") else 0

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the mean over the last map, (B, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: Must be None.

        Raises:
            SpecMismatch: If the channels are not C.
            SpecError: If `keep` is given.
        """
        self.refuse_keep(keep)
        return self._maps(pixels)[-1].mean(dim=(2, 3))

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the last map as tokens, (B, P, D), row by row.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: Must be None.

        Raises:
            SpecMismatch: If the channels are not C.
            SpecError: If `keep` is given.
        """
        self.refuse_keep(keep)
        return self._maps(pixels)[-1].flatten(2).transpose(1, 2)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return the maps of stages 0 to 3, at strides 4 to 32; they have no final norm.

        See `Trunk.get_intermediate_layers`.

        Raises:
            SpecError: If there is no such stage, or a CLS token is requested.
            SpecMismatch: If the channels are not C.
        """
        if return_class_token:
            raise SpecError("a ResNet has no CLS token", remedy="leave return_class_token out")
        wanted = self.check_layers(n, self.depth)
        maps = self._maps(x)
        if reshape:
            return tuple(maps[i] for i in wanted)
        return tuple(maps[i].flatten(2).transpose(1, 2) for i in wanted)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the output of each stage, (B, D, H / stride, W / stride)."""
        self.check_pixels(pixels)
        x = self.maxpool(self.act1(self.bn1(self.conv1(pixels))))
        maps: list[Tensor] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def build_resnet(
    name: str,
    channels: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    pooling: Pooling = Pooling.MEAN,
) -> ResNet:
    """Build a ResNet by name, with He's initialisation (fan-out) from `generator`.

    Args:
        name: A key of `RESNETS`.
        channels: Bands, C.
        size: Native height and width in pixels.
        generator: Random generator of the initial weights, on the CPU.
        pooling: Only the mean.

    Raises:
        WeightsError: If no ResNet has that name.
        SpecError: If the pooling is not the mean.
    """
    if name not in RESNETS:
        raise WeightsError(f"there is no ResNet {name!r}", found=name, expected=", ".join(RESNETS))
    with drawn_from(generator):
        return ResNet(name, channels, size, pooling)
