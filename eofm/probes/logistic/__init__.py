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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Float, Float64, Real
from torch import Tensor

from eofm.probes.logistic.objective import LogisticObjective, Loss
from eofm.probes.logistic.solver import minimise

__all__ = ["Eigenbasis", "LogisticProblem", "Loss", "Solution", "fit_logistic"]

_WORTH_THREADS: Final = 20_000_000  # multiplications in one product


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

    z: Float64[Tensor, "n r1"]
    directions: Float64[Tensor, "d r"]
    mean: Float64[Tensor, " d"]

    @cached_property
    def energy(self) -> Float64[Tensor, " r1"]:
        """Mean square of each column of z, (R + 1,): the Hessian's diagonal but for a factor."""
        return self.z.square().mean(dim=0)

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Eigenbasis:
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


@dataclass(frozen=True)
class LogisticProblem:
    """What a path of strengths has in common.

    Args:
        basis: The features.
        targets: (N, K): see `fit_logistic`.
        loss: Which objective.
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
    """Use one thread for small problems, where waiting for the others costs more than they do."""
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
    # classes come first in here: (K, N) @ (N, R) is four times as fast as (R, N) @ (N, K)
    z, y = basis.z, targets.double().T.contiguous()
    penalty = z.new_full((z.shape[1],), 1 / (strength * len(z)))
    penalty[-1] = 0  # the bias is free
    theta = z.new_zeros(len(y), z.shape[1]) if start is None else start
    objective = LogisticObjective(z, y, loss, penalty, basis.energy)
    theta, norm, taken = minimise(objective, theta, tolerance, steps)
    weight = basis.directions @ theta[:, :-1].T
    return Solution(theta, weight, theta[:, -1] - basis.mean @ weight, float(norm.max()), taken)
