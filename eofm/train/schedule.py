"""Learning rate over steps, and which parameters decay.

Pure functions of the step, so that a resumed run continues where it was. The teacher's momentum
schedule is part of the method: `eofm.softcon.momentum_at`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


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


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Split parameters into those that decay and those that do not.

    Biases, norms, LayerScale, CLS, register and position parameters and scalars do not
    (method of DINOv2 and MoCo-v3; arXiv 2304.07193).

    Args:
        named: Names and parameters; those without gradient are left out.
        weight_decay: For the first group.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        table = any(part in _TABLES for part in name.split("."))
        (exempt if parameter.ndim <= 1 or table else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
