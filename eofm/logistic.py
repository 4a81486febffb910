"""Logistic regression to convergence: all classes in one product, in float64.

Two losses over the same linear model, with the bias left out of the penalty:

    BINARY   for each class k:  mean_n BCE(y_nk, x_n w_k + b_k)  +  |w_k|² / (2 C n)
    SOFTMAX  jointly:           mean_n CE(y_n, x_n W + b)        +  |W|² / (2 C n)

Times C n, that is what scikit-learn's `LogisticRegression(C=C)` minimises: once per class, or
once for three and more classes.

Features of a network are ill-conditioned (a few directions carry nearly all variance), which
plain L-BFGS takes thousands of steps to undo. Here it works in the eigenbasis of the features,
where the Hessian is almost diagonal and known: `w̄_k s_i² / n + 1 / (C n)`. Its inverse starts
the two-loop recursion. The line search moves along margins already at hand and needs no product
with the features.

Shapes: N samples, D features, R = min(N, D) directions, K classes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor

_MEMORY: Final = 10
_SUFFICIENT_SLOPE: Final = 0.5  # a step is long enough when the slope has halved
_LINE_STEPS: Final = 25
_WORTH_THREADS: Final = 20_000_000  # multiplications in one product
_LEAST_WEIGHT: Final = 1e-4  # of p (1 - p) in the preconditioner: nearly separable classes


class Loss(StrEnum):
    """Independent classes (multi-label), or one class per sample."""

    BINARY = "bce"
    SOFTMAX = "ce"


@dataclass(frozen=True)
class Eigenbasis:
    """Centred features in the eigenbasis of their covariance, with a column of ones.

    The directions are orthonormal and span the rows of the features, where the minimiser lies:
    nothing is lost, also for N < D.

    Args:
        z: float64, (N, R + 1); the last column is 1.
        directions: float64, (D, R).
        mean: float64, (D,).
    """

    z: Tensor
    directions: Tensor
    mean: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Eigenbasis:
        """Rotate (N, D) features. Done once for all strengths."""
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
        gradient_norm: Euclidean norm of the gradient, of the worst class: how converged it is.
        steps: Iterations taken.
    """

    theta: Tensor
    weight: Tensor
    bias: Tensor
    gradient_norm: float
    steps: int

    def scores(self, features: Tensor) -> Tensor:
        """Return the logits (N, K), float64, of (N, D) features."""
        return features.double() @ self.weight + self.bias


def fit_logistic(
    basis: Eigenbasis,
    targets: Tensor,
    loss: Loss,
    strength: float,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    steps: int = 2000,
) -> Solution:
    """Minimise the objective for one strength.

    Args:
        basis: The features.
        targets: (N, K) of 0 and 1; exactly one 1 per row for SOFTMAX.
        loss: Which objective.
        strength: C, the inverse of the penalty.
        start: `theta` of a neighbouring strength; zeros without one.
        tolerance: Stop when the gradient norm of every class is below it.
        steps: Stop after as many iterations.

    Returns:
        The minimiser, or the last iterate with its gradient norm.
    """
    with _threads(basis.z.numel() * targets.shape[1]):
        return _fit(basis, targets, loss, strength, start, tolerance, steps)


@contextlib.contextmanager
def _threads(cells: int) -> Iterator[None]:
    """Use one thread for small problems, where waiting for the others costs more than they do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if cells < _WORTH_THREADS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    basis: Eigenbasis,
    targets: Tensor,
    loss: Loss,
    strength: float,
    start: Tensor | None,
    tolerance: float,
    steps: int,
) -> Solution:
    # classes come first in here: (K, N) @ (N, R) is four times as fast as (R, N) @ (N, K)
    z, y = basis.z, targets.double().T.contiguous()
    penalty = z.new_full((z.shape[1],), 1 / (strength * len(z)))
    penalty[-1] = 0  # the bias is free
    theta = z.new_zeros(len(y), z.shape[1]) if start is None else start.clone()
    norm = z.new_full((len(y),), torch.inf)
    rows, taken = torch.arange(len(y), device=z.device), 0
    while len(rows) and taken < steps:
        objective = _Objective(z, y[rows], loss, penalty)
        theta[rows], norm[rows], used = _lbfgs(objective, theta[rows], tolerance, steps - taken)
        taken += used
        rows = rows[norm[rows] > tolerance]
    weight = basis.directions @ theta[:, :-1].T
    return Solution(theta, weight, theta[:, -1] - basis.mean @ weight, float(norm.max()), taken)


@dataclass(frozen=True)
class _Point:
    """The objective at one place: value and slope along the search direction, and residuals.

    `value`, `slope` and `curvature` are (G, 1), one entry per group: G = K classes for BINARY, one
    for SOFTMAX.
    """

    value: Tensor
    slope: Tensor
    curvature: Tensor
    residual: Tensor  # (K, N): predicted probability - target


@dataclass(frozen=True)
class _Objective:
    """One problem per class (BINARY) or one for all (SOFTMAX)."""

    z: Tensor
    y: Tensor
    loss: Loss
    penalty: Tensor

    def total(self, per_class: Tensor) -> Tensor:
        """Sum (K, anything) over each group: (K, 1) for BINARY, (1, 1) for SOFTMAX."""
        if self.loss is Loss.BINARY:
            return per_class.sum(dim=1, keepdim=True)
        return per_class.sum().view(1, 1)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the inner product of each group."""
        return self.total(a * b)

    def gradient(self, theta: Tensor, residual: Tensor) -> Tensor:
        """Return the gradient (K, R + 1)."""
        return residual @ self.z / len(self.z) + self.penalty * theta

    def at(self, theta: Tensor, margins: Tensor, direction: Tensor, ahead: Tensor) -> _Point:
        """Evaluate where `margins = theta @ z'`, looking along `ahead = direction @ z'`."""
        n = len(self.z)
        if self.loss is Loss.BINARY:
            p = torch.sigmoid(margins)
            nll = self.total(torch.nn.functional.softplus(margins) - self.y * margins)
            spread = self.total(p * (1 - p) * ahead.square())
        else:
            partition = torch.logsumexp(margins, dim=0)
            p = torch.exp(margins - partition)
            nll = self.total(partition - (self.y * margins).sum(dim=0))
            drift = (p * ahead).sum(dim=0)
            spread = self.total(p * (ahead - drift).square())
        residual, shrink = p - self.y, self.penalty * direction
        return _Point(
            nll / n + self.dot(self.penalty * theta, theta) / 2,
            self.dot(residual, ahead) / n + self.dot(shrink, theta),
            spread / n + self.dot(shrink, direction),
            residual,
        )

    def inverse_diagonal(self, residual: Tensor) -> Tensor:
        """Return the preconditioner (K, R + 1): the inverse of the Hessian's diagonal, nearly."""
        p = residual + self.y
        weight = (p * (1 - p)).mean(dim=1, keepdim=True).clamp_min(_LEAST_WEIGHT)
        energy = self.z.square().mean(dim=0)
        return 1 / (weight * energy + self.penalty)


def _lbfgs(
    objective: _Objective, theta: Tensor, tolerance: float, steps: int
) -> tuple[Tensor, Tensor, int]:
    """Run L-BFGS until at least half of the groups have converged.

    The caller goes on with the others alone, so that one slow class does not hold up all.

    Returns:
        theta, the gradient norm of each class's group (K,), and the steps taken.
    """
    margins, still = theta @ objective.z.T, torch.zeros_like(objective.y)
    point = objective.at(theta, margins, torch.zeros_like(theta), still)
    diagonal = objective.inverse_diagonal(point.residual)
    gradient = objective.gradient(theta, point.residual)
    history: deque[_Pair] = deque(maxlen=_MEMORY)
    taken = 0
    while True:
        norm = objective.dot(gradient, gradient).sqrt()
        done = norm <= tolerance
        if 2 * int(done.sum()) >= len(done) or taken == steps:
            return theta, norm.flatten().expand(len(theta)), taken
        direction = -_two_loop(objective, gradient, history, diagonal)
        ahead = direction @ objective.z.T
        step, point = _line_search(objective, theta, margins, direction, ahead)
        move = step * direction
        theta, margins = theta + move, margins + step * ahead
        fresh = objective.gradient(theta, point.residual)
        change, gradient = fresh - gradient, fresh
        bend = objective.dot(move, change)
        # a group that stands still (converged to rounding) teaches nothing about curvature
        history.append((move, change, torch.where(bend > 0, 1 / bend, 0)))
        taken += 1


# a move, the change of the gradient over it, and one over their inner product
_Pair = tuple[Tensor, Tensor, Tensor]


def _two_loop(
    objective: _Objective, gradient: Tensor, history: deque[_Pair], diagonal: Tensor
) -> Tensor:
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
    objective: _Objective, theta: Tensor, margins: Tensor, direction: Tensor, ahead: Tensor
) -> tuple[Tensor, _Point]:
    """Find a step where the slope has halved and the value has not grown.

    Along a line the objective is convex: Newton steps on its slope, kept inside a bracket.
    """
    start = objective.at(theta, margins, direction, ahead)
    rounding = 1e-12 * start.value.abs()
    step = torch.ones_like(start.value)
    low, high = torch.zeros_like(step), torch.full_like(step, torch.inf)
    for _ in range(_LINE_STEPS):
        point = objective.at(theta + step * direction, margins + step * ahead, direction, ahead)
        limit = _SUFFICIENT_SLOPE * start.slope.abs()
        too_far = (point.slope > limit) | (point.value > start.value + rounding)
        too_near = ~too_far & (point.slope < -limit)
        if not (too_far | too_near).any():
            break
        low, high = torch.where(too_near, step, low), torch.where(too_far, step, high)
        newton = step - point.slope / point.curvature.clamp_min(torch.finfo(torch.float64).tiny)
        middle = torch.where(high.isinf(), 2 * step, (low + high) / 2)
        better = torch.where((newton > low) & (newton < high), newton, middle)
        step = torch.where(too_far | too_near, better, step)
    return step, point
