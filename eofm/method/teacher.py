"""The teacher: a moving average of the student."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def make_teacher(student: M) -> M:
    """Return a copy of the student, equal bit for bit, that no gradient reaches."""
    return copy.deepcopy(student).requires_grad_(False)


def momentum_at(step: int, total: int, base: float) -> float:
    """Return the teacher's momentum: m(t) = 1 - (1 + cos(π t / T)) / 2 · (1 - m0), up to 1.

    Args:
        step: Optimiser steps done, t; beyond `total` it stays at 1.
        total: Optimiser steps of the run, T.
        base: Momentum at the start, m0.
    """
    progress = min(step / max(total, 1), 1.0)
    return 1 - (1 + math.cos(math.pi * progress)) / 2 * (1 - base)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """θ' ← m θ' + (1 - m) θ, in place, once per optimiser step.

    Parameters only: batch-norm statistics are the teacher's own, from the whole images it sees.

    Args:
        teacher: Its parameters are moved.
        student: Has the same parameters.
        momentum: m.
    """
    torch._foreach_lerp_(  # one kernel for all tensors
        list(teacher.parameters()), list(student.parameters()), 1 - momentum
    )
