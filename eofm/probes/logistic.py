"""Logistic regression to convergence, with all classes in one product, in float64.

Two losses over the same linear model, with an unpenalised bias:

    BINARY   for each class k:  mean_n BCE(y_nk, x_n w_k + b_k)  +  |w_k|² / (2 C n)
    SOFTMAX  jointly:           mean_n CE(y_n, x_n W + b)        +  |W|² / (2 C n)

Times C n, that is what scikit-learn's `LogisticRegression(C=C)` minimises: once per class, or
once for three and more classes.

Features of a network are ill-conditioned (a few directions have nearly all variance), so plain
L-BFGS takes thousands of steps. Here it works in the eigenbasis of the features, in which the
Hessian is almost diagonal and known: `w̄_k s_i² / n + 1 / (C n)`. Its inverse initialises the
two-loop recursion. The line search uses the margins already computed and needs no product with the
features.

Shapes: N samples, D features, R = min(N, D) directions, K classes, G groups: K for BINARY, 1
for SOFTMAX.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Bool, Float, Float64, Int64, Real
from torch import Tensor

__all__ = [
    "Eigenbasis",
    "Line",
    "LogisticObjective",
    "LogisticProblem",
    "Loss",
    "Point",
    "Solution",
    "fit_logistic",
    "minimise",
]

# --------------------------------------------------------------------------------------- objective


_LEAST_WEIGHT: Final = 1e-4  # of p (1 - p) in the preconditioner: nearly separable classes


class Loss(StrEnum):
    """Independent classes (multi-label), or one class per sample."""

    BINARY = "bce"
    SOFTMAX = "ce"


@dataclass(frozen=True)
class Point:
    """The objective at one point of a line: value and slope along it, and probabilities.

    `value` and `slope` are (G, 1), one entry per group: G = K classes for BINARY, one for SOFTMAX.
    """

    value: Float64[Tensor, "g 1"]
    slope: Float64[Tensor, "g 1"]
    p: Float64[Tensor, "k n"]


@dataclass(frozen=True)
class LogisticObjective:
    """One problem per class (BINARY) or one for all (SOFTMAX)."""

    z: Float64[Tensor, "n r1"]
    y: Float64[Tensor, "k n"]
    loss: Loss
    penalty: Float64[Tensor, " r1"]
    energy: Float64[Tensor, " r1"]

    def total(self, per_class: Float64[Tensor, "k _"]) -> Float64[Tensor, "g 1"]:
        """Sum (K, anything) over each group: (K, 1) for BINARY, (1, 1) for SOFTMAX."""
        if self.loss is Loss.BINARY:
            return per_class.sum(dim=1, keepdim=True)
        return per_class.sum().view(1, 1)

    def dot(self, a: Float64[Tensor, "k c"], b: Float64[Tensor, "k c"]) -> Float64[Tensor, "g 1"]:
        """Return the inner product of each group, in one pass over (K, anything)."""
        return self.total(torch.bmm(a[:, None], b[:, :, None])[:, 0])

    def gradient(
        self, theta: Float64[Tensor, "k r1"], p: Float64[Tensor, "k n"]
    ) -> Float64[Tensor, "k r1"]:
        """Return the gradient (K, R + 1)."""
        return (p - self.y) @ self.z / len(self.z) + self.penalty * theta

    def inverse_diagonal(self, p: Float64[Tensor, "k n"]) -> Float64[Tensor, "k r1"]:
        """Return the preconditioner (K, R + 1): approximate inverse of the Hessian's diagonal."""
        weight = (p * (1 - p)).mean(dim=1, keepdim=True).clamp_min(_LEAST_WEIGHT)
        return 1 / (weight * self.energy + self.penalty)


class Line:
    """The objective along a direction.

    The label term is linear and the penalty quadratic in the step, with known coefficients; an
    evaluation costs little more than one sigmoid and one softplus per margin.

    Args:
        objective: Objective to evaluate.
        theta: (K, R + 1), start of the line.
        margins: (K, N), `theta @ z'`.
        direction: (K, R + 1).
        ahead: (K, N), `direction @ z'`.
    """

    def __init__(
        self,
        objective: LogisticObjective,
        theta: Float64[Tensor, "k r1"],
        margins: Float64[Tensor, "k n"],
        direction: Float64[Tensor, "k r1"],
        ahead: Float64[Tensor, "k n"],
    ) -> None:
        self._objective, self._margins, self._ahead = objective, margins, ahead
        shrink = objective.penalty * direction
        dot = objective.dot
        self._label = dot(objective.y, margins), dot(objective.y, ahead)
        self._penalty = (
            dot(objective.penalty * theta, theta) / 2,
            dot(shrink, theta),
            dot(shrink, direction),
        )

    def at(self, step: Float64[Tensor, "g 1"]) -> Point:
        """Evaluate at a step (G, 1)."""
        objective, n = self._objective, len(self._objective.z)
        margins = torch.addcmul(self._margins, step, self._ahead)
        if objective.loss is Loss.BINARY:
            p = torch.sigmoid(margins)
            partition = objective.total(torch.nn.functional.softplus(margins))
        else:
            per_sample = torch.logsumexp(margins, dim=0)
            p = torch.exp(margins - per_sample)
            partition = per_sample.sum().view(1, 1)
        constant, slope, bend = self._penalty
        labels, rise = self._label
        return Point(
            (partition - labels - step * rise) / n + constant + step * (slope + step * bend / 2),
            (objective.dot(p, self._ahead) - rise) / n + slope + step * bend,
            p,
        )

    def curvature(self, p: Float64[Tensor, "k n"]) -> Float64[Tensor, "g 1"]:
        """Return the second derivative (G, 1) for probabilities `p`."""
        objective, ahead = self._objective, self._ahead
        if objective.loss is Loss.BINARY:
            spread = objective.dot(p * (1 - p), ahead.square())
        else:
            drift = (p * ahead).sum(dim=0)
            spread = objective.dot(p, (ahead - drift).square())
        return spread / len(objective.z) + self._penalty[2]


# ------------------------------------------------------------------------------------------ solver


_MEMORY: Final = 10
_SUFFICIENT_SLOPE: Final = 0.5  # a step is long enough when the slope has halved
_LINE_STEPS: Final = 25

# a move, the change of the gradient over it, and one over their inner product
_Pair = tuple[Tensor, Tensor, Tensor]


@dataclass
class _State:
    """State of the optimisation of each class; converged classes are removed.

    Args:
        objective: Objective of the remaining classes.
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
        """Return the state at weights `theta` (K, R + 1), without a history."""
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
        # a group that does not move (converged to rounding) gives no information on curvature
        self.history.append((move, change, torch.where(bend > 0, 1 / bend, 0)))

    def keep(self, rows: Bool[Tensor, " g"] | Int64[Tensor, " g"]) -> None:
        """Continue with some classes only, which is exact as the problems are independent."""
        self.objective = replace(self.objective, y=self.objective.y[rows])
        self.theta, self.margins = self.theta[rows], self.margins[rows]
        self.value, self.gradient = self.value[rows], self.gradient[rows]
        self.diagonal = self.diagonal[rows]
        pairs = ((a[rows], b[rows], c[rows]) for a, b, c in self.history)
        self.history = deque(pairs, maxlen=_MEMORY)


def minimise(
    objective: LogisticObjective, theta: Float64[Tensor, "k r1"], tolerance: float, steps: int
) -> tuple[Float64[Tensor, "k r1"], Float64[Tensor, " g"], int]:
    """Run L-BFGS until every group has converged; a slow class does not delay the others.

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
    """Find a step at which the slope has halved and the value has not increased.

    Along a line the objective is convex: Newton steps on its slope, kept inside a bracket.

    Args:
        line: Line to search.
        value: (G, 1), value at the start.
        slope: (G, 1), slope at the start.
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


# --------------------------------------------------------------------------------------------- fit


_WORTH_THREADS: Final = 20_000_000  # multiplications in one product


@dataclass(frozen=True)
class Eigenbasis:
    """Centred features in the eigenbasis of their covariance, with a column of ones.

    The directions are orthonormal and span the rows of the features, which contain the minimiser,
    so the result is exact, also for N < D.

    Args:
        z: float64, (N, R + 1); the last column is 1.
        directions: float64, (D, R).
        mean: float64, (D,).
    """

    z: Float64[Tensor, "n r1"]
    directions: Float64[Tensor, "d r"]
    mean: Float64[Tensor, " d"]

    @cached_property
    def energy(self) -> Float64[Tensor, " r1"]:
        """Mean square of each column of z, (R + 1,): the Hessian's diagonal up to a factor."""
        return self.z.square().mean(dim=0)

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Eigenbasis:
        """Return the eigenbasis of (N, D) features, computed once for all strengths."""
        x = features.double()
        mean = x.mean(dim=0)
        centred = x - mean
        if len(x) >= x.shape[1]:
            _, directions = torch.linalg.eigh(centred.T @ centred)
        else:
            directions = torch.linalg.svd(centred, full_matrices=False).Vh.T
        z = torch.cat([centred @ directions, x.new_ones(len(x), 1)], dim=1)
        return cls(z, directions.contiguous(), mean)


@dataclass(frozen=True)
class Solution:
    """A fitted linear model.

    Args:
        theta: float64, (K, R + 1), in the eigenbasis; the start of the next strength.
        weight: float64, (D, K).
        bias: float64, (K,).
        gradient_norm: Euclidean norm of the gradient of the worst class, a measure of convergence.
        steps: Iterations taken.
    """

    theta: Float64[Tensor, "k r1"]
    weight: Float64[Tensor, "d k"]
    bias: Float64[Tensor, " k"]
    gradient_norm: float
    steps: int

    def scores(self, features: Float[Tensor, "m d"]) -> Float64[Tensor, "m k"]:
        """Return the logits (N, K), float64, of (N, D) features."""
        return features.double() @ self.weight + self.bias


def fit_logistic(
    basis: Eigenbasis,
    targets: Real[Tensor, "n k"],
    loss: Loss,
    strength: float,
    *,
    start: Float64[Tensor, "k r1"] | None = None,
    tolerance: float = 1e-6,
    steps: int = 2000,
) -> Solution:
    """Minimise the objective for one strength.

    Args:
        basis: The features.
        targets: (N, K) of 0 and 1; exactly one 1 per row for SOFTMAX.
        loss: Kind of loss.
        strength: C, the inverse of the penalty.
        start: `theta` of a neighbouring strength; zeros if None.
        tolerance: Stop when the gradient norm of every class is below it.
        steps: Maximum number of iterations.

    Returns:
        The minimiser, or the last iterate with its gradient norm.
    """
    with _threads(basis.z.numel() * targets.shape[1]):
        return _fit(basis, targets, loss, strength, start, tolerance, steps)


@dataclass(frozen=True)
class LogisticProblem:
    """Common parts of the fits along a path of strengths.

    Args:
        basis: The features.
        targets: (N, K): see `fit_logistic`.
        loss: Kind of loss.
    """

    basis: Eigenbasis
    targets: Real[Tensor, "n k"]
    loss: Loss

    def fit(
        self,
        strength: float,
        start: Float64[Tensor, "k r1"] | None,
        tolerance: float,
        steps: int = 2000,
    ) -> Solution:
        """Minimise the objective for one strength: see `fit_logistic`."""
        return fit_logistic(
            self.basis,
            self.targets,
            self.loss,
            strength,
            start=start,
            tolerance=tolerance,
            steps=steps,
        )


@contextlib.contextmanager
def _threads(cells: int) -> Iterator[None]:
    """Use one thread for small problems, where thread synchronisation outweighs the gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if cells < _WORTH_THREADS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    basis: Eigenbasis,
    targets: Real[Tensor, "n k"],
    loss: Loss,
    strength: float,
    start: Float64[Tensor, "k r1"] | None,
    tolerance: float,
    steps: int,
) -> Solution:
    # classes are the first axis: (K, N) @ (N, R) is four times as fast as (R, N) @ (N, K)
    z, y = basis.z, targets.double().T.contiguous()
    penalty = z.new_full((z.shape[1],), 1 / (strength * len(z)))
    penalty[-1] = 0  # the bias is not penalised
    theta = z.new_zeros(len(y), z.shape[1]) if start is None else start
    objective = LogisticObjective(z, y, loss, penalty, basis.energy)
    theta, norm, taken = minimise(objective, theta, tolerance, steps)
    weight = basis.directions @ theta[:, :-1].T
    return Solution(theta, weight, theta[:, -1] - basis.mean @ weight, float(norm.max()), taken)
