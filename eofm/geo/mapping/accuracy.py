"""How good a map is: cross-validation over squares of ground, intervals over polygons.

Shapes: M training cells, P polygons, D dimensions, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.geo.cells import Floats, Index
from eofm.geo.mapping.blocks import Folds
from eofm.geo.mapping.fitting import FittedProbe, said
from eofm.geo.mapping.training import TrainingCells
from eofm.probes.bootstrap import bootstrap_values, percentile_interval
from eofm.report.plots import Estimate

# (vectors, labels, folds, fixed strength) -> a fitted read-out
Fit = Callable[[Floats, Index, Index, float | None], FittedProbe]

_REPEATS: Final = 1000
_SHARES: Final = (0.25, 0.5)
_DRAWS: Final = 2


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What was said of each training cell by a read-out that saw no polygon of its square.

    Args:
        said: Class, (M,).
        probability: (M, K).
        probes: Id of the read-out of each fold.
        strengths: C of each fold; empty of kNN.
        scored: bool, (K,): classes that could be learnt when they were tested, which lie in two
            folds or more.
    """

    said: Index
    probability: Floats
    probes: tuple[str, ...]
    strengths: tuple[float, ...]
    scored: NDArray[np.bool_]


def cross_validate(x: Floats, training: TrainingCells, folds: Folds, fit: Fit) -> CrossValidation:
    """Hold out one fold after the other.

    Args:
        x: Vectors of the training cells, (M, D).
        training: The training cells.
        folds: Of their polygons.
        fit: Makes a read-out.
    """
    fold = folds.of_polygon[training.polygons]
    classes = len(training.classes)
    probability = np.zeros((len(x), classes), np.float32)
    probes: list[str] = []
    strengths: list[float] = []
    for held in range(folds.count):
        test = fold == held
        if len(np.unique(training.labels[~test])) < 2:
            # one class alone is left to learn, and it is what would be said of everything
            probability[test, training.labels[~test][0]] = 1
            continue
        made = fit(x[~test], training.labels[~test], fold[~test], None)
        probability[test] = made.probability(x[test])
        probes.append(made.name)
        strengths += [] if made.strength is None else [made.strength]
    spread = [len(np.unique(fold[training.labels == code])) > 1 for code in range(classes)]
    return CrossValidation(
        said(probability), probability, tuple(dict.fromkeys(probes)), tuple(strengths),
        np.array(spread, np.bool_),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Assessment:
    """Accuracies with 95 % intervals; None where there is nothing to score.

    Args:
        confusion: Cells, (K, K): rows are the classes of the polygons, columns what was said.
        overall: Share of the cells that are right.
        users: Of each class: share of the cells said to be it that are.
        producers: Of each class: share of its cells that are said to be it.
        polygons: How many polygons each class has.
        scored: Which classes are scored.
    """

    confusion: NDArray[np.int64]
    overall: Estimate
    users: tuple[Estimate | None, ...]
    producers: tuple[Estimate | None, ...]
    polygons: tuple[int, ...]
    scored: NDArray[np.bool_]


def assess(training: TrainingCells, found: CrossValidation, seed: int = 0) -> Assessment:
    """Return accuracies of what was said, with intervals by bootstrap over polygons.

    Cells of a class that lies in one fold alone are left out: no read-out was asked that could
    know it.

    Args:
        training: The training cells.
        found: What was said of them.
        seed: Of the resampling.
    """
    classes = len(training.classes)
    kept = found.scored[training.labels]
    polygons = tuple(np.bincount(training.polygon_labels, minlength=classes).tolist())
    matrices = polygon_matrices(training.some(kept), found.said[kept])
    total = matrices.sum(axis=0)
    flat = torch.from_numpy(matrices.reshape(len(matrices), -1)).double()

    def accuracies(counts: Tensor) -> Tensor:
        return _accuracies((counts @ flat).view(-1, classes, classes))

    exact = _accuracies(torch.from_numpy(total).double()[None])[0].tolist()
    drawn = bootstrap_values(accuracies, len(matrices), repeats=_REPEATS, seed=seed)
    whole = [_estimate(value, column) for value, column in zip(exact, drawn.T, strict=True)]
    overall = whole[0]
    assert overall is not None  # noqa: S101 (a fold has a cell)
    return Assessment(
        total,
        overall,
        tuple(whole[1 : 1 + classes]),
        tuple(whole[1 + classes :]),
        polygons,
        found.scored,
    )


def polygon_matrices(training: TrainingCells, predicted: Index) -> NDArray[np.int64]:
    """Return the confusion matrix of each polygon, (P, K, K).

    Args:
        training: Cells with their classes.
        predicted: What was said of each, (M,).
    """
    classes, polygons = len(training.classes), len(training.features)
    key = (training.polygons * classes + training.labels) * classes + predicted
    return np.bincount(key, minlength=polygons * classes**2).reshape(polygons, classes, classes)


def _accuracies(matrices: Tensor) -> Tensor:
    """Return overall, user's and producer's accuracies of (R, K, K), (R, 1 + 2 K)."""
    right = matrices.diagonal(dim1=1, dim2=2)
    overall = right.sum(dim=1, keepdim=True) / matrices.sum(dim=(1, 2))[:, None]
    return torch.cat([overall, right / matrices.sum(dim=1), right / matrices.sum(dim=2)], dim=1)


def _estimate(value: float, drawn: Tensor) -> Estimate | None:
    if value != value:  # noqa: PLR0124 (0 of 0: no cell is predicted as it, or none belongs to it)
        return None
    interval = percentile_interval(drawn)
    return Estimate(value, interval.low, interval.high)


@dataclass(frozen=True)
class LearningPoint:
    """Accuracy with some of the polygons.

    Args:
        polygons: How many were trained on, on average over folds and draws.
        overall: Mean over draws, with the lowest and highest.
    """

    polygons: float
    overall: Estimate


def learning_curve(
    x: Floats,
    training: TrainingCells,
    folds: Folds,
    fit: Fit,
    full: CrossValidation,
    seed: int = 0,
) -> tuple[LearningPoint, ...]:
    """Return the accuracy with a quarter, half and all of the training polygons.

    The folds and the cells scored are those of the whole; every class keeps one polygon at least.
    The strength is the median of those chosen with all polygons.

    Args:
        x: Vectors of the training cells, (M, D).
        training: The training cells.
        folds: Of their polygons.
        fit: Makes a read-out.
        full: The cross-validation with all polygons.
        seed: Of the draws of polygons.
    """
    strength = float(np.median(full.strengths)) if full.strengths else None
    scored = full.scored[training.labels]
    random = np.random.default_rng(seed)
    points = []
    for share in _SHARES:
        values, used = [], []
        for _ in range(_DRAWS):
            chosen = _draw(training, folds, share, random)
            values.append(_score(x, training, folds, fit, chosen, strength, scored))
            used.append(len(np.unique(training.polygons[chosen])))
        points.append(LearningPoint(_trained(np.mean(used), folds), _mean(values)))
    whole = float((full.said == training.labels)[scored].mean())
    points.append(
        LearningPoint(_trained(len(training.features), folds), Estimate(whole, whole, whole))
    )
    kept = {round(point.polygons, 1): point for point in points}
    return tuple(kept[place] for place in sorted(kept))


def _trained(polygons: float | np.floating, folds: Folds) -> float:
    """Return how many polygons a fold trains on."""
    return float(polygons) * (folds.count - 1) / folds.count


def _mean(values: Sequence[float]) -> Estimate:
    return Estimate(float(np.mean(values)), min(values), max(values))


def _draw(
    training: TrainingCells, folds: Folds, share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the cells of some polygons of each class; of each two folds where it has them."""
    chosen: list[int] = []
    for code in range(len(training.classes)):
        mine = random.permutation(np.flatnonzero(training.polygon_labels == code))
        first = _one_of_two_folds(mine, folds)
        count = max(round(share * len(mine)), len(first))
        rest = [one for one in mine.tolist() if one not in first]
        chosen += [*first, *rest[: count - len(first)]]
    return np.isin(training.polygons, chosen)


def _one_of_two_folds(polygons: Index, folds: Folds) -> list[int]:
    """Return a polygon, and one of another fold, so that the class is known in every fold."""
    found: dict[int, int] = {}
    for one in polygons.tolist():
        found.setdefault(int(folds.of_polygon[one]), one)
    return list(found.values())[:2]


def _score(
    x: Floats,
    training: TrainingCells,
    folds: Folds,
    fit: Fit,
    chosen: NDArray[np.bool_],
    strength: float | None,
    scored: NDArray[np.bool_],
) -> float:
    fold = folds.of_polygon[training.polygons]
    right = np.zeros(len(x), np.bool_)
    for train, test in _splits(fold, chosen, folds.count):
        labels = training.labels[train]
        if len(np.unique(labels)) < 2:
            right[test] = training.labels[test] == labels[0]
            continue
        made = fit(x[train], labels, fold[train], strength)
        right[test] = said(made.probability(x[test])) == training.labels[test]
    return float(right[scored].mean())


def _splits(
    fold: Index, chosen: NDArray[np.bool_], count: int
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    for held in range(count):
        yield chosen & (fold != held), fold == held
