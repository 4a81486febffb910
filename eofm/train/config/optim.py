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
        weight_decay: Not applied to what `decay` exempts.
        decay: What weight decay acts on: `matrices` exempts biases, norms, LayerScale, and CLS,
            register and position parameters; `dinov2` lets the last three decay.
        schedule: Course of the learning rate. `cosine` to `floor`; `rewarm`: the same, and a stage
            that continues another warms up from `floor` (arXiv 2308.04014); `infinite`: cools down
            to `constant`, stays, and anneals to `floor` at the end, and a stage that continues
            begins in the constant phase (arXiv 2503.02844); `wsd`: stays at the peak until the
            anneal (arXiv 2404.06395). With the last two a checkpoint constant.ckpt is kept from
            before the anneal, for `model.continue_from`, and the teacher's momentum rises from
            there on only.
        warmup: Share of the steps with a linear warm-up.
        floor: Last learning rate, as a share of the peak. More than 0 for an exponential anneal,
            and for `rewarm` to begin anywhere but at 0.
        cooldown: Share of the steps after which `infinite` has cooled down.
        constant: Constant rate of `infinite`, as a share of the peak.
        cooldown_shape: Way from the peak to the constant rate.
        anneal: Share of the steps, at the end, in which `infinite` and `wsd` anneal.
        anneal_shape: Way to the floor; `auto` is exponential for `infinite`, linear for `wsd`.
        clip: Largest gradient norm; 0 for any.
        freeze_epochs: Train only the input layer and the heads for so many epochs first.
        layer_decay: Factor on the learning rate from a layer to the one before it: 1 for none, 0.65
            to 0.9 to protect the early layers. An input layer that is drawn at random (input_init
            `random`, or no weights) is not slowed down; one with copied filters is.
        input_lr: Factor on the learning rate of the input layer, in place of that rule: 1 for full
            pace. Without it, the rule.
        seed: Of weights, order, views and masks.
    """

    epochs: int = 8
    batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.1
    decay: Literal["matrices", "dinov2"] = "matrices"
    schedule: Literal["cosine", "rewarm", "infinite", "wsd"] = "cosine"
    warmup: float = 0.1
    floor: float = 0.0
    cooldown: float = 0.3
    constant: float = 0.25
    cooldown_shape: Literal["cosine", "linear", "inverse-sqrt"] = "cosine"
    anneal: float = 0.2
    anneal_shape: Literal["auto", "exponential", "linear", "one-minus-sqrt", "cosine"] = "auto"
    clip: float = 3.0
    freeze_epochs: int = 0
    layer_decay: float = 1.0
    input_lr: float | None = None
    seed: int = 0
