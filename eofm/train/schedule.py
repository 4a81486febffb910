"""Learning rate over steps and layers, and which parameters decay.

Pure functions of the step, so that a resumed run continues where it was. The teacher's momentum
schedule is part of the method: `eofm.softcon.momentum_at`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from eofm.models.trunk import Trunk


def cosine(step: int, total: int, warmup: int, peak: float, floor: float = 0.0) -> float:
    """Linear warm-up to `peak`, then half a cosine to `floor` at step `total`.

    Args:
        step: Steps done, from 0.
        total: Steps of the whole run.
        warmup: Steps of the warm-up.
        peak: Rate at the end of the warm-up.
        floor: Rate at the end of the run.
    """
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return floor
    return floor + 0.5 * (peak - floor) * (
        1 + math.cos(math.pi * (step - warmup) / (total - warmup))
    )


# Parameters whose size has a meaning of its own; pulling them to zero is no regularisation.
_TABLES = ("cls_token", "pos_embed", "reg_token", "register_tokens", "gamma")


@dataclass(frozen=True)
class Pace:
    """How fast a parameter learns.

    Args:
        factor: On the learning rate.
        waits: Stands still in the first epochs (`optim.freeze_epochs`): at rate 0, and not by
            `requires_grad`. The gradient must cross it to reach the input layer anyway, and DDP
            fixes what it reduces before the first step.
    """

    factor: float = 1.0
    waits: bool = False


def paces(trunk: Trunk, layer_decay: float, *, freeze: bool, new_input: bool) -> dict[str, Pace]:
    """Return the pace of each parameter of a trunk, by name.

    A parameter of layer i of d blocks gets layer_decay^(d + 1 - i): the earlier, the slower
    (arXiv 2106.08254). That would starve an input layer that is new, of all layers the one with
    most to learn: it gets 1. It also never waits.

    Args:
        trunk: Says which layer a parameter is of.
        layer_decay: Factor from one layer to the one before it; 1 for none.
        freeze: All but the input layer wait.
        new_input: The input layer was not loaded as it stands in the weights.
    """
    own = f"{trunk.input_layer}."
    made = {}
    for name, _ in trunk.named_parameters():
        is_input = name.startswith(own)
        # not every network of timm says how deep its layers lie
        depth = 0 if layer_decay == 1 else trunk.depth + 1 - trunk.layer_of(name)
        factor = layer_decay**depth
        made[name] = Pace(1.0 if is_input and new_input else factor, freeze and not is_input)
    return made


_AS_USUAL: Final = Pace()


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    rate: float = 1.0,
    pace: Mapping[str, Pace] | None = None,
) -> list[dict[str, Any]]:
    """Put parameters that decay alike and learn at one pace into one group each.

    Biases, norms, LayerScale, CLS, register and position parameters and scalars do not decay
    (method of DINOv2 and MoCo-v3; arXiv 2304.07193).

    Args:
        named: Names and parameters; those without gradient are left out.
        weight_decay: Of those that decay.
        rate: Learning rate at factor 1.
        pace: By name; full pace where none is given.

    Returns:
        Groups for an optimiser, each with its `lr` and whether it `waits`; full pace comes first.
    """
    made: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        own = _AS_USUAL if pace is None else pace.get(name, _AS_USUAL)
        exempt = parameter.ndim <= 1 or any(part in _TABLES for part in name.split("."))
        made.setdefault((own.waits, -own.factor, exempt), []).append(parameter)
    return [
        {
            "params": made[waits, slowness, exempt],
            "weight_decay": 0.0 if exempt else weight_decay,
            "lr": -slowness * rate,
            "waits": waits,
        }
        for waits, slowness, exempt in sorted(made)
    ]


def rate_over_steps(total: int, warmup: int, wait: int) -> Callable[[int], float]:
    """Return the factor on the learning rate by step: 0 while waiting, then warm-up and cosine.

    The schedule is counted from 1: a first step at rate 0 would be lost. Waiting does not shift it.

    Args:
        total: Steps of the run.
        warmup: Steps of the warm-up.
        wait: Steps at rate 0. With AdamW and SGD nothing then moves, nor decays.
    """
    return lambda step: 0.0 if step < wait else cosine(step + 1, total + 1, warmup, 1.0)
