"""Settings of `eofm pretrain`: optimisation. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation.

    Args:
        epochs: Passes over the training scenes.
        batch: Scenes per step; every other scene of the batch is a negative.
        optimizer: `adamw`, or `sgd` with momentum 0.9, which ResNets are usually pretrained with.
        lr: Peak learning rate per 256 scenes: the rate used is lr * batch / 256.
        weight_decay: Not applied to biases, norms, LayerScale, CLS and position parameters.
        warmup: Share of the steps with a linear warm-up.
        clip: Largest gradient norm; 0 for any.
        freeze_epochs: Train only the input layer and the heads for so many epochs first.
        layer_decay: Factor on the learning rate from a layer to the one before it: 1 for none, 0.65
            to 0.9 to protect the early layers. An input layer that is new is not slowed down.
        seed: Of weights, order, views and masks.
    """

    epochs: int = 8
    batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip: float = 3.0
    freeze_epochs: int = 0
    layer_decay: float = 1.0
    seed: int = 0
