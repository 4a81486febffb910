"""Learning rate schedules, parameter groups, and the optimizer.

Schedules and rates are pure functions of step, names and depths, so that a resumed run continues
identically. A stage is one run; a later stage continues networks and optimiser of an earlier one
with other data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from eofm.method.branches import momentum_at
from eofm.networks.trunk import Trunk
from eofm.train.config import PretrainConfig

__all__ = [
    "DecayShape",
    "ParameterRate",
    "RateSchedule",
    "ScheduleKind",
    "cosine",
    "decay",
    "make_optimizer",
    "momentum_over_steps",
    "parameter_groups",
    "parameter_rates",
    "rate_over_steps",
]

# -------------------------------------------------------- learning rate and momentum over the steps


class ScheduleKind(StrEnum):
    """The learning rate η over a stage of T steps.

    cosine: warm-up, then half a cosine to the floor.
    rewarm: the same, but a later stage warms up from the earlier stage's floor, not from 0
        (arXiv 2308.04014).
    infinite: warm-up, cool-down to a constant rate, anneal at the end. A later stage begins in the
        constant phase, so that the rate is never raised again (arXiv 2403.08763, 2503.02844).
    wsd: warm-up, the peak rate, anneal at the end (arXiv 2404.06395); a later stage begins at the
        peak rate.
    """

    COSINE = "cosine"
    REWARM = "rewarm"
    INFINITE = "infinite"
    WSD = "wsd"


class DecayShape(StrEnum):
    """Shape of a decay as u goes from 0 to 1."""

    COSINE = "cosine"
    LINEAR = "linear"
    INVERSE_SQRT = "inverse-sqrt"
    ONE_MINUS_SQRT = "one-minus-sqrt"
    EXPONENTIAL = "exponential"


_TIMESCALE = 10.0  # of the inverse square root (arXiv 2403.08763)


def decay(u: float, high: float, low: float, shape: DecayShape) -> float:
    """Return the interpolated value of a decay from `high` to `low`.

    Args:
        u: Progress, 0 to 1.
        high: Value at 0.
        low: Value at 1; more than 0 for the exponential.
        shape: Shape of the decay.
    """
    match shape:
        case DecayShape.COSINE:
            return low + 0.5 * (high - low) * (1 + math.cos(math.pi * u))
        case DecayShape.LINEAR:
            return high + (low - high) * u
        case DecayShape.INVERSE_SQRT:
            return high + (low - high) * _bend(u) / _bend(1.0)
        case DecayShape.ONE_MINUS_SQRT:
            return low + (high - low) * (1 - math.sqrt(u))
        case DecayShape.EXPONENTIAL:
            return high * math.pow(low / high, u)


def _bend(u: float) -> float:
    return 1 / math.sqrt(1 + _TIMESCALE * u) - 1


def cosine(
    step: int, total: int, warmup: int, peak: float, floor: float = 0.0, start: float = 0.0
) -> float:
    """Linear warm-up to `peak`, then half a cosine to `floor` at step `total`.

    Args:
        step: Steps done, from 0.
        total: Steps of the whole run.
        warmup: Steps of the warm-up.
        peak: Rate at the end of the warm-up.
        floor: Rate at the end of the run.
        start: Rate at step 0.
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    if step >= total:
        return floor
    return decay((step - warmup) / (total - warmup), peak, floor, DecayShape.COSINE)


@dataclass(frozen=True)
class RateSchedule:
    """The learning rate over a stage, as a share of the peak rate.

    Args:
        kind: Kind of schedule.
        warmup: Share of the steps with a linear warm-up.
        floor: Rate at the end.
        cooldown: Share of the steps at which the cool-down of `infinite` ends.
        constant: Constant rate of `infinite`.
        cooldown_shape: Shape of the decay from the peak to the constant rate.
        anneal: Share of the steps at the end in which `infinite` and `wsd` anneal.
        anneal_shape: Shape of the decay from there to the floor.
        continued: This is a later stage.
    """

    kind: ScheduleKind = ScheduleKind.COSINE
    warmup: float = 0.1
    floor: float = 0.0
    cooldown: float = 0.3
    constant: float = 0.25
    cooldown_shape: DecayShape = DecayShape.COSINE
    anneal: float = 0.2
    anneal_shape: DecayShape = DecayShape.EXPONENTIAL
    continued: bool = False

    def rate(self, step: int, total: int, warmup: int) -> float:
        """Return the rate after `step` of `total` steps, of which `warmup` are the warm-up."""
        if self.kind in (ScheduleKind.COSINE, ScheduleKind.REWARM):
            start = self.floor if self.kind is ScheduleKind.REWARM and self.continued else 0.0
            return cosine(step, total, warmup, 1.0, self.floor, start)
        begin = total * (1 - self.anneal)
        high = self.constant if self.kind is ScheduleKind.INFINITE else 1.0
        if step > begin:
            u = min((step - begin) / (total - begin), 1.0)
            return decay(u, high, self.floor, self.anneal_shape)
        if self.continued:
            return high
        if step < warmup:
            return step / warmup
        cooled = total * self.cooldown
        if self.kind is ScheduleKind.INFINITE and step < cooled:
            u = (step - warmup) / (cooled - warmup)
            return decay(u, 1.0, self.constant, self.cooldown_shape)
        return high

    @property
    def open_ended(self) -> bool:
        """Whether a later stage can continue from before the anneal."""
        return self.kind in (ScheduleKind.INFINITE, ScheduleKind.WSD)

    def anneal_step(self, total: int) -> int:
        """Return the last step before the anneal, from which a later stage continues."""
        return math.floor(total * (1 - self.anneal) + 1e-9)


def rate_over_steps(
    total: int, warmup: int, frozen: int, schedule: RateSchedule | None = None
) -> Callable[[int], float]:
    """Return the factor on the learning rate by step: 0 while frozen, then the schedule.

    The schedule starts at step 1, because a first step at rate 0 would be wasted. Freezing does
    not shift it.

    Args:
        total: Steps of the run.
        warmup: Steps of the warm-up.
        frozen: Steps at rate 0, in which AdamW and SGD change nothing, not even by weight decay.
        schedule: Warm-up and cosine to 0 if none is given.
    """
    schedule = schedule or RateSchedule()
    return lambda step: 0.0 if step < frozen else schedule.rate(step + 1, total + 1, warmup)


def momentum_over_steps(step: int, total: int, base: float, schedule: RateSchedule) -> float:
    """Return the teacher's momentum: a cosine from `base` to 1 over the steps, or over the anneal.

    If a later stage is to continue, the momentum must not have reached 1: it stays at `base` until
    the anneal.

    Args:
        step: Optimiser steps done.
        total: Optimiser steps of the run.
        base: Momentum at the start.
        schedule: Schedule of the learning rate.
    """
    if not schedule.open_ended:
        return momentum_at(step, total, base)
    begin = schedule.anneal_step(total)
    return momentum_at(max(step - begin, 0), max(total - begin, 1), base)


# --------------------------------------------------------------------------------- parameter groups

# Parameters whose magnitude is meaningful; decaying them to zero does not regularise.
_TABLES = ("cls_token", "pos_embed", "reg_token", "register_tokens", "gamma")


@dataclass(frozen=True)
class ParameterRate:
    """The learning rate of a parameter.

    Args:
        factor: Factor on the learning rate.
        frozen: Rate 0 in the first epochs (`optim.freeze_epochs`), not `requires_grad=False`: the
            gradient must pass through the parameter to the input layer anyway, and DDP fixes the
            set of reduced parameters before the first step.
    """

    factor: float = 1.0
    frozen: bool = False


def parameter_rates(
    trunk: Trunk,
    layer_decay: float,
    *,
    freeze: bool,
    new_input: bool,
    input_rate: float | None = None,
) -> dict[str, ParameterRate]:
    """Return the learning rate of each parameter of a trunk, by name.

    A parameter of layer i of d blocks gets layer_decay^(d + 1 - i), so earlier layers learn more
    slowly (arXiv 2106.08254). A randomly initialised input layer has most to learn of all layers,
    so its factor is 1. Filters copied from RGB weights follow the decay: at the full rate the
    features of a pretrained transformer collapsed within ten steps (effective rank 94 to 25). The
    input layer is never frozen.

    Args:
        trunk: Network, which knows the layer of each parameter.
        layer_decay: Factor from one layer to the one before it; 1 for none.
        freeze: All layers but the input layer are frozen first.
        new_input: The input layer was initialised at random.
        input_rate: Factor for the input layer, in place of both rules.
    """
    own = f"{trunk.input_layer}."
    made = {}
    for name, _ in trunk.named_parameters():
        is_input = name.startswith(own)
        # not every timm network states the depth of its layers
        depth = 0 if layer_decay == 1 else trunk.depth + 1 - trunk.layer_of(name)
        factor = layer_decay**depth
        if is_input and input_rate is not None:
            factor = input_rate
        elif is_input and new_input:
            factor = 1.0
        made[name] = ParameterRate(factor, freeze and not is_input)
    return made


_AS_USUAL: Final = ParameterRate()


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    peak: float = 1.0,
    rates: Mapping[str, ParameterRate] | None = None,
    *,
    tables_decay: bool = False,
) -> list[dict[str, Any]]:
    """Group parameters by weight decay and learning rate.

    Biases, norms, LayerScale, CLS, register and position parameters and scalars do not decay.
    DINOv2 (arXiv 2304.07193) exempts only vectors, so that CLS and position tables decay.

    Args:
        named: Names and parameters; those without gradient are excluded.
        weight_decay: Weight decay of those that decay.
        peak: Learning rate at factor 1.
        rates: Rates by name; factor 1 if none is given.
        tables_decay: CLS, register and position parameters decay as well, as in DINOv2.

    Returns:
        Groups for an optimiser, each with its `lr` and whether it is `frozen` first; factor 1 comes
        first.
    """
    made: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        own = _AS_USUAL if rates is None else rates.get(name, _AS_USUAL)
        table = not tables_decay and any(part in _TABLES for part in name.split("."))
        exempt = parameter.ndim <= 1 or table
        made.setdefault((own.frozen, -own.factor, exempt), []).append(parameter)
    return [
        {
            "params": made[frozen, slowness, exempt],
            "weight_decay": 0.0 if exempt else weight_decay,
            "lr": -slowness * peak,
            "frozen": frozen,
        }
        for frozen, slowness, exempt in sorted(made)
    ]


def make_optimizer(groups: list[dict[str, Any]], config: PretrainConfig) -> Optimizer:
    """Return the optimizer of a run.

    Args:
        groups: Parameters with their settings.
        config: All settings.
    """
    # a fused step undoes the scaling of a float16 loss internally, too late for gradient clipping
    fused = config.trainer.precision != "16-mixed"
    if config.optim.optimizer == "sgd":
        whole = config.trainer.strategy != "fsdp"  # torch has no fused SGD for sharded tensors
        return SGD(groups, momentum=0.9, fused=fused and whole)
    return AdamW(groups, betas=(0.9, 0.999), fused=fused)
