"""A converged linear layer on frozen features, its strength chosen on the validation split.

Shapes: N training samples, M test samples, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from eofm.errors import ConfigError, LabelError
from eofm.probes.features import Labelled, ProbeResult, Scaler, Scaling, check_features
from eofm.probes.logistic import Eigenbasis, LogisticProblem, Loss, Solution

__all__ = [
    "C11",
    "C40",
    "C45",
    "Choice",
    "LinearFit",
    "StrengthGrid",
    "fit_linear",
    "linear_probe",
]

# (scores (N, K), labels as in `Labelled.y`) -> criterion for choosing C, larger is better
Choice = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class StrengthGrid:
    """Strengths C to choose from, from strong to weak penalty, evenly spaced in log10.

    Args:
        name: As in the probe's id.
        values: Ascending.
    """

    name: str
    values: tuple[float, ...]

    @classmethod
    def log10(cls, low: float, high: float, count: int) -> StrengthGrid:
        """Return 10 ** linspace(low, high, count), called C<count>."""
        step = (high - low) / (count - 1)
        return cls(f"C{count}", tuple(10 ** (low + i * step) for i in range(count)))

    @classmethod
    def single(cls, strength: float) -> StrengthGrid:
        """Return a grid of one fixed strength."""
        return cls(f"C={strength:g}", (strength,))

    def extended(self, *, upwards: bool) -> tuple[float, ...]:
        """Return two more decades beyond one end, with the grid's spacing, going outwards."""
        ratio = self.values[1] / self.values[0]
        count = round(2 / math.log10(ratio))
        if upwards:
            return tuple(self.values[-1] * ratio**i for i in range(1, count + 1))
        return tuple(self.values[0] / ratio**i for i in range(1, count + 1))


C11: Final = StrengthGrid.log10(-6, 4, 11)
C40: Final = StrengthGrid.log10(-6, 4, 40)  # the grid of torchgeo-bench
C45: Final = StrengthGrid.log10(-6, 5, 45)  # the grid of DINOv2

_GRID_TOLERANCE: Final = 1e-5
_FINAL_TOLERANCE: Final = 1e-8
_FINAL_STEPS: Final = 4000


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear layer, and how its strength was chosen.

    Args:
        probe: Id of the probe, with all its choices.
        scaler: Scaling of the features.
        weight: float64, (D, K), for scaled features; zeros for a class that was not fitted.
        bias: float64, (K,); the constant logit of a class that was not fitted.
        multi_label: Whether its logits are independent.
        strength: Chosen C.
        on_edge: The chosen C is at the end of the grid, even after extending it.
        gradient_norm: Gradient norm of the final fit; well below 1e-4 means converged.
        validation: Each C tried with its score on the validation split.
        solution: The final fit of the fitted classes.
        fitted: bool, (K,), mask of the fitted classes.
    """

    probe: str
    scaler: Scaler
    weight: Tensor
    bias: Tensor
    multi_label: bool
    strength: float
    on_edge: bool
    gradient_norm: float
    validation: tuple[tuple[float, float], ...]
    solution: Solution
    fitted: Tensor

    def scores(self, x: Float[Tensor, "m d"]) -> Float64[Tensor, "m k"]:
        """Return the logits (M, K), float64, of unscaled features (M, D)."""
        return _scores(self.solution, self.fitted, self.bias, self.scaler(x))

    def probability(self, logits: Float64[Tensor, "m k"]) -> Float64[Tensor, "m k"]:
        """Return the probabilities (M, K) of logits."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)


def _scores(
    solution: Solution,
    fitted: Bool[Tensor, " k"],
    constant: Float64[Tensor, " k"],
    x: Float64[Tensor, "m d"],
) -> Float64[Tensor, "m k"]:
    scores = constant.repeat(len(x), 1)
    scores[:, fitted] = solution.scores(x)
    return scores


def linear_probe(
    train: Labelled,
    val: Labelled | None,
    test_x: Float[Tensor, "m d"],
    *,
    choice: Choice,
    grid: StrengthGrid = C11,
    scaling: Scaling = Scaling.NONE,
    refit: bool = False,
) -> ProbeResult:
    """Fit a linear layer by L-BFGS (see `fit_linear`), and score the test samples.

    Args:
        train: Training split.
        val: Validation split; None only with `StrengthGrid.single`.
        test_x: (M, D).
        choice: Score for choosing C: the metric of the task.
        grid: Strengths to try.
        scaling: Scaling of the features; its constants are always those of the training split.
        refit: Fit once more on train + validation with the chosen C, as torchgeo-bench and DINOv2
            do; it gains half a point to a point, and the id states it.

    Raises:
        ConfigError: If there is a grid but no validation split.
        LabelError: If training has only one class, or the splits have different labels.
        PixelError: If a test feature is not finite or a row is all zero.
    """
    check_features(test_x)
    fit = fit_linear(train, val, choice=choice, grid=grid, scaling=scaling, refit=refit)
    logits = fit.scores(test_x)
    return ProbeResult(
        probe=fit.probe,
        scores=logits,
        probability=fit.probability(logits),
        strength=fit.strength,
        on_edge=fit.on_edge,
        gradient_norm=fit.gradient_norm,
        validation=fit.validation,
    )


def fit_linear(
    train: Labelled,
    val: Labelled | None,
    *,
    choice: Choice,
    grid: StrengthGrid = C11,
    scaling: Scaling = Scaling.NONE,
    refit: bool = False,
    tolerance: float = _FINAL_TOLERANCE,
) -> LinearFit:
    """Fit a linear layer by L-BFGS and choose C on the validation split.

    Multi-label: independent binary cross entropies. One class per sample: softmax cross entropy.
    See `eofm.probes.logistic` for the objective. The fits go from strong to weak penalty, each
    initialised from the previous ones. Of equal validation scores the smaller C wins. If the best C
    is at an end of the grid, the grid is extended there once by two decades.

    A class that no or every training sample has cannot be fitted. Multi-label: its logit is the
    constant (smoothed) log-odds. One class per sample: its logit is -inf.

    Args:
        train: Training split.
        val: Validation split; None only with `StrengthGrid.single`.
        choice: Score for choosing C: the metric of the task.
        grid: Strengths to try.
        scaling: Scaling of the features; its constants are always those of the training split.
        refit: Fit once more on train + validation with the chosen C.
        tolerance: Gradient norm below which the final fit is done.

    Raises:
        ConfigError: If there is a grid but no validation split.
        LabelError: If training has only one class, or the splits have different labels.
    """
    _check_splits(train, val, grid)
    scaler = Scaler.of(train.x, scaling)
    x, rest = scaler(train.x), [scaler(val.x)] if val else []
    problem = _SplitProblem.of(x, train.multi_hot(), train.multi_label)
    tried: dict[float, tuple[Solution, float]] = {}

    def attempt(strengths: tuple[float, ...], path: list[Tensor]) -> None:
        for strength in strengths:
            solution = problem.fit(strength, _ahead(path), _GRID_TOLERANCE)
            score = choice(problem.scores(solution, rest[0]), val.y) if val else 0.0
            tried[strength] = solution, score
            path.append(solution.theta)

    def best() -> float:
        return max(sorted(tried), key=lambda c: tried[c][1])  # max keeps the first of equals

    attempt(grid.values, [])
    at_end = len(grid.values) > 1 and best() in (grid.values[0], grid.values[-1])
    if at_end:
        upwards = best() == grid.values[-1]
        nearest = grid.values[-2:] if upwards else grid.values[1::-1]
        attempt(grid.extended(upwards=upwards), [tried[c][0].theta for c in nearest])
    strength = best()
    start: Tensor | None = tried[strength][0].theta
    if refit and val:
        hot = torch.cat([train.multi_hot(), val.multi_hot()])
        problem, start = _SplitProblem.of(torch.cat([x, rest[0]]), hot, train.multi_label), None
    final = problem.fit(strength, start, tolerance, _FINAL_STEPS)
    chosen = f"val,{'refit' if refit else 'norefit'}" if val else "fixed"
    weight, bias = x.new_zeros(x.shape[1], train.classes), problem.constant.clone()
    weight[:, problem.fitted], bias[problem.fitted] = final.weight, final.bias
    return LinearFit(
        probe=f"linear[lbfgs,{grid.name},{chosen},{scaling}]",
        scaler=scaler,
        weight=weight,
        bias=bias,
        multi_label=train.multi_label,
        strength=strength,
        on_edge=at_end and strength in (min(tried), max(tried)),
        gradient_norm=final.gradient_norm,
        validation=tuple((c, tried[c][1]) for c in sorted(tried)) if val else (),
        solution=final,
        fitted=problem.fitted,
    )


def _ahead(path: list[Tensor]) -> Tensor | None:
    """Extrapolate the next minimiser along the grid, which halves the number of steps."""
    return 2 * path[-1] - path[-2] if len(path) > 1 else path[-1] if path else None


def _check_splits(train: Labelled, val: Labelled | None, grid: StrengthGrid) -> None:
    if val is None and len(grid.values) > 1:
        raise ConfigError(
            "a strength can only be chosen on a validation split",
            found=f"grid {grid.name}, no validation split",
            remedy="give one, or fix the strength: Grid.single(1.0)",
        )
    if val is not None and (val.classes, val.multi_label) != (train.classes, train.multi_label):
        raise LabelError(
            "training and validation have other labels",
            found=f"{train.classes} and {val.classes} classes",
        )


@dataclass(frozen=True)
class _SplitProblem(LogisticProblem):
    """The training split in its eigenbasis, without the classes that cannot be fitted."""

    fitted: Bool[Tensor, " k"]
    constant: Float64[Tensor, " k"]  # logit of a class that is not fitted

    @classmethod
    def of(
        cls, x: Float64[Tensor, "n d"], targets: Float64[Tensor, "n k"], multi_label: bool
    ) -> _SplitProblem:
        """Return the problem of training vectors (N, D) and their classes (N, K).

        Raises:
            LabelError: If no class is in some training samples and not in others.
        """
        count, n = targets.sum(dim=0), len(targets)
        fitted = (count > 0) & (count < n)
        if int(fitted.sum()) < (1 if multi_label else 2):
            raise LabelError(
                "no class can be learnt: each is in all training samples or in none",
                found=f"{n} training samples of {len(count)} classes",
                remedy="use more training samples",
            )
        loss = Loss.BINARY if multi_label else Loss.SOFTMAX
        odds = torch.log((count + 0.5) / (n - count + 0.5))
        constant = odds if multi_label else torch.full_like(odds, -torch.inf)
        return cls(Eigenbasis.of(x), targets[:, fitted], loss, fitted, constant)

    def scores(self, solution: Solution, x: Float64[Tensor, "m d"]) -> Float64[Tensor, "m k"]:
        """Return the logits of vectors (M, D) for all classes, (M, K)."""
        return _scores(solution, self.fitted, self.constant, x)
