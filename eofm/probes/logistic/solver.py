"""L-BFGS for many small convex problems at once: each class takes its own steps.

Shapes: N samples, R directions, K classes, G groups: K for BINARY, 1 for SOFTMAX.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from eofm.probes.logistic.objective import Line, LogisticObjective, Point

_MEMORY: Final = 10
_SUFFICIENT_SLOPE: Final = 0.5  # a step is long enough when the slope has halved
_LINE_STEPS: Final = 25

# a move, the change of the gradient over it, and one over their inner product
_Pair = tuple[Tensor, Tensor, Tensor]


@dataclass
class _State:
    """Where each class of an objective stands. Classes that have converged leave it.

    Args:
        objective: Of the classes that are left.
        theta: (K, R + 1).
        margins: (K, N), `theta @ z'`.
        value: (G, 1), the objective.
        gradient: (K, R + 1).
        diagonal: (K, R + 1), the preconditioner.
        history: The last moves.
    """

    objective: LogisticObjective
    theta: Float64[Tensor, "k r1"]
    margins: Float64[Tensor, "k n"]
    value: Float64[Tensor, "g 1"]
    gradient: Float64[Tensor, "k r1"]
    diagonal: Float64[Tensor, "k r1"]
    history: deque[_Pair]

    @classmethod
    def of(cls, objective: LogisticObjective, theta: Float64[Tensor, "k r1"]) -> _State:
        """Return where the classes stand at some weights, `theta` (K, R + 1), with no move yet."""
        margins, still = theta @ objective.z.T, torch.zeros_like(objective.y)
        nowhere = Line(objective, theta, margins, torch.zeros_like(theta), still)
        point = nowhere.at(objective.total(still[:, :1]))
        gradient = objective.gradient(theta, point.p)
        diagonal = objective.inverse_diagonal(point.p)
        history: deque[_Pair] = deque(maxlen=_MEMORY)
        return cls(objective, theta, margins, point.value, gradient, diagonal, history)

    def norm(self) -> Float64[Tensor, "g 1"]:
        """Return the gradient norm of each group, (G, 1)."""
        return self.objective.dot(self.gradient, self.gradient).sqrt()

    def step(self) -> None:
        """Take one step of every class."""
        objective = self.objective
        direction = -_two_loop(objective, self.gradient, self.history, self.diagonal)
        ahead = direction @ objective.z.T
        line = Line(objective, self.theta, self.margins, direction, ahead)
        slope = objective.dot(self.gradient, direction)
        step, point = _line_search(line, self.value, slope)
        move = step * direction
        self.theta, self.value = self.theta + move, point.value
        self.margins = torch.addcmul(self.margins, step, ahead)
        fresh = objective.gradient(self.theta, point.p)
        change, self.gradient = fresh - self.gradient, fresh
        bend = objective.dot(move, change)
        # a group that stands still (converged to rounding) teaches nothing about curvature
        self.history.append((move, change, torch.where(bend > 0, 1 / bend, 0)))

    def keep(self, rows: Bool[Tensor, " g"] | Int64[Tensor, " g"]) -> None:
        """Continue with some classes alone: independent problems, so nothing is lost."""
        self.objective = replace(self.objective, y=self.objective.y[rows])
        self.theta, self.margins = self.theta[rows], self.margins[rows]
        self.value, self.gradient = self.value[rows], self.gradient[rows]
        self.diagonal = self.diagonal[rows]
        pairs = ((a[rows], b[rows], c[rows]) for a, b, c in self.history)
        self.history = deque(pairs, maxlen=_MEMORY)


def minimise(
    objective: LogisticObjective, theta: Float64[Tensor, "k r1"], tolerance: float, steps: int
) -> tuple[Float64[Tensor, "k r1"], Float64[Tensor, " g"], int]:
    """Run L-BFGS until every group has converged; one slow class does not hold up the others.

    Returns:
        theta, the gradient norm of each class's group (K,), and the steps taken.
    """
    found, norms = theta.clone(), theta.new_full((len(theta),), torch.inf)
    state, rows, taken = _State.of(objective, theta), torch.arange(len(theta)), 0
    rows = rows.to(theta.device)
    while True:
        norm = state.norm().flatten().expand(len(rows))
        found[rows], norms[rows] = state.theta, norm
        going = norm > tolerance
        if not going.any() or taken == steps:
            return found, norms, taken
        if not going.all():
            state.keep(going)
            rows = rows[going]
        state.step()
        taken += 1


def _two_loop(
    objective: LogisticObjective,
    gradient: Float64[Tensor, "k r1"],
    history: deque[_Pair],
    diagonal: Float64[Tensor, "k r1"],
) -> Float64[Tensor, "k r1"]:
    """Apply the L-BFGS approximation of the inverse Hessian (Nocedal & Wright, algorithm 7.4)."""
    q, alphas = gradient, []
    for move, change, rho in reversed(history):
        alpha = rho * objective.dot(move, q)
        q = q - alpha * change
        alphas.append(alpha)
    q = diagonal * q
    for (move, change, rho), alpha in zip(history, reversed(alphas), strict=True):
        q = q + (alpha - rho * objective.dot(change, q)) * move
    return q


def _line_search(
    line: Line, value: Float64[Tensor, "g 1"], slope: Float64[Tensor, "g 1"]
) -> tuple[Float64[Tensor, "g 1"], Point]:
    """Find a step where the slope has halved and the value has not grown.

    Along a line the objective is convex: Newton steps on its slope, kept inside a bracket.

    Args:
        line: Where to look.
        value: (G, 1), where it starts.
        slope: (G, 1), where it starts.
    """
    most, limit = value + 1e-12 * value.abs(), _SUFFICIENT_SLOPE * slope.abs()
    step = torch.ones_like(value)
    low, high = torch.zeros_like(step), torch.full_like(step, torch.inf)
    for _ in range(_LINE_STEPS):
        point = line.at(step)
        too_far = (point.slope > limit) | (point.value > most)
        too_near = ~too_far & (point.slope < -limit)
        if not (too_far | too_near).any():
            break
        low, high = torch.where(too_near, step, low), torch.where(too_far, step, high)
        curvature = line.curvature(point.p).clamp_min(torch.finfo(torch.float64).tiny)
        newton = step - point.slope / curvature
        middle = torch.where(high.isinf(), 2 * step, (low + high) / 2)
        better = torch.where((newton > low) & (newton < high), newton, middle)
        step = torch.where(too_far | too_near, better, step)
    return step, point
