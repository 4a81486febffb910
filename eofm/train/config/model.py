"""Settings of `eofm pretrain`: what to train, and what it expects. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """What to train, and what it expects.

    Args:
        architecture: `vits14`, `vitb14`, `resnet50`, ..., or `timm:` and the name of one of timm's
            networks. All but the ViTs need `method.mask_ratio` 0.
        weights: Where training starts: a file (DINOv2, DINO, torchvision, timm; .pth or
            .safetensors), the folder of an earlier export, an address, or a name of `eofm models
            list`, such as dinov2_vits14. Without it, from random weights. Of two sensors
            (`data.views=sensors`) either weights for both or, joined by `+`, those of each:
            softcon_vits14_s2+softcon_vits14_s1; the second gives its input layer.
        continue_from: Checkpoint of an earlier stage, such as runs/first/checkpoints/constant.ckpt:
            student, teacher, heads and the optimizer's moments continue from there, with new data
            and a new schedule. The networks must be alike, and so must the bands.
        input_init: How the input layer is made from RGB weights. `random` is the paper's choice;
            `rgb-matched` copies the colours to their bands and `rgb-nearest` also to the bands next
            to them; `mean` copies gray to all; `timm` cycles the colours.
        position: How the position embedding of DINOv2's ViTs is interpolated to the working grid.
        size: Input size in pixels; a multiple of the patch size.
        pooling: Which output becomes the embedding. `auto` is the CLS token, or the mean where
            there is none, as in a ResNet.
        normalization: `two-sigma` maps mean ± 2 std to [0, 1] as SoftCon's README does.
        quantise: Keep the 8-bit rounding of that README.
        statistics: `published` constants of the sensor, or those of the `store`'s training split.
    """

    architecture: str = "vit-tiny-14"
    weights: str | None = None
    continue_from: str | None = None
    input_init: Literal["random", "rgb-matched", "rgb-nearest", "mean", "timm"] = "random"
    position: Literal["dinov2", "timm"] = "dinov2"
    size: int = 112
    pooling: Literal["auto", "cls", "mean"] = "auto"
    normalization: Literal["two-sigma", "zscore"] = "two-sigma"
    quantise: bool = True
    statistics: Literal["published", "store"] = "published"
