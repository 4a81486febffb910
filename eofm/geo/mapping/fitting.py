"""A probe of vectors that can be asked for millions of cells, and how far those lie from its data.

A probe gives a class to any vector, also to one like none it has seen. The distance to the nearest
training vector says where that happens. Its limit is the distance that all but one in a hundred
training vectors keep to the nearest vector of another polygon.

Shapes: M training cells, N cells, D dimensions, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.geo.cells import Floats, Index
from eofm.geo.maps_config import MapProbe
from eofm.probes.knn import knn_probe
from eofm.probes.linear import Labelled, LinearFit, Scaler, Scaling, StrengthGrid, fit_linear
from eofm.probes.logistic import Eigenbasis

_ROWS: Final = 1 << 12  # cells asked at once
_LEAST_LIKELY: Final = math.log(1e-3)
_TOLERANCE: Final = 1e-5  # of the gradient: probabilities are off by less than 0.001
# Of classes that are easy to tell apart the likelihood rises with C without end, and fits take
# ever longer for nothing: the grid ends where that begins.
_STRENGTHS: Final = StrengthGrid.log10(-6, 0, 7)


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A read-out that is fitted.

    Args:
        name: Id of the probe, with all its choices.
        classes: K.
        strength: C of a linear probe; None of kNN.
        _ask: Vectors (n, D) -> probabilities (n, K).
    """

    name: str
    classes: int
    strength: float | None
    _ask: Callable[[Tensor], Tensor]

    def probability(self, vectors: Floats) -> Floats:
        """Return the probability of each class, float32 (N, K).

        Args:
            vectors: Finite, (N, D).
        """
        out = np.empty((len(vectors), self.classes), np.float32)
        for first in range(0, len(vectors), _ROWS):
            part = torch.from_numpy(np.ascontiguousarray(vectors[first : first + _ROWS]))
            out[first : first + _ROWS] = self._ask(part).numpy()
        return out


def fit_probe(
    kind: MapProbe,
    x: Floats,
    labels: Index,
    folds: Index,
    classes: int,
    *,
    neighbours: int = 5,
    strength: float | None = None,
) -> FittedProbe:
    """Fit a read-out on training cells.

    The linear layer is that of `eofm.probes.linear`, on standardised vectors, refitted on all
    cells once its strength is chosen: by likelihood, on the fold of which the others miss the
    fewest classes.

    Args:
        kind: Which.
        x: (M, D).
        labels: (M,).
        folds: Fold of each cell, (M,): whole polygons of a square of ground.
        classes: K.
        neighbours: Of kNN; of fewer cells, all of them.
        strength: C that is taken without a choice.

    Raises:
        LabelError: If all cells have one class.
        PixelError: If a vector is not finite or all zero.
    """
    if kind is MapProbe.KNN:
        train = _labelled(x, labels, classes)
        count = min(neighbours, len(x))
        found = knn_probe(train, train.x[:1], k=count, scaling=Scaling.STANDARD)

        def ask(part: Tensor) -> Tensor:
            voted = knn_probe(train, part, k=count, scaling=Scaling.STANDARD).probability
            assert voted is not None  # noqa: S101 (kNN always has one)
            return voted.float()

        return FittedProbe(found.probe, classes, None, ask)
    fit = _fit_linear(x, labels, folds, classes, strength)
    weight, bias = affine(fit)
    return FittedProbe(
        fit.probe, classes, fit.strength, lambda part: torch.softmax(part @ weight + bias, dim=1)
    )


def affine(fit: LinearFit) -> tuple[Tensor, Tensor]:
    """Return weights float32 (D, K) and biases (K,) of a linear fit for unscaled vectors.

    Args:
        fit: On features that were standardised, or not scaled at all.
    """
    weight, bias = fit.weight, fit.bias
    if fit.scaler.mean is not None and fit.scaler.std is not None:
        weight = weight / fit.scaler.std[:, None]
        bias = bias - fit.scaler.mean @ weight
    return weight.float(), bias.float()


def _fit_linear(
    x: Floats, labels: Index, folds: Index, classes: int, strength: float | None
) -> LinearFit:
    held = None if strength is not None else _validation(labels, folds)
    if held is None:
        grid = StrengthGrid.single(strength or 1.0)
        train = _labelled(x, labels, classes)
        return fit_linear(
            train,
            None,
            choice=_choice,
            grid=grid,
            scaling=Scaling.STANDARD,
            tolerance=_TOLERANCE,
        )
    inside = folds == held
    return fit_linear(
        _labelled(x[~inside], labels[~inside], classes),
        _labelled(x[inside], labels[inside], classes),
        choice=_choice,
        grid=_STRENGTHS,
        scaling=Scaling.STANDARD,
        refit=True,
        tolerance=_TOLERANCE,
    )


def _validation(labels: Index, folds: Index) -> int | None:
    """Return the fold to choose on: the others have two classes at least, and miss the fewest."""
    numbers = np.unique(folds)
    if len(numbers) < 2:
        return None
    left = [len(np.unique(labels[folds != one])) for one in numbers]
    best = int(np.argmax(left))
    return int(numbers[best]) if left[best] > 1 else None


def _choice(scores: Tensor, labels: Tensor) -> float:
    """Return the mean log-likelihood; a class that was not to be learnt costs a fixed amount.

    Accuracy would do worse: where several strengths are all right it takes the strongest penalty,
    under which a class with few cells is never said.
    """
    own = torch.log_softmax(scores, dim=1).gather(1, labels[:, None])
    return float(own.clamp_min(_LEAST_LIKELY).mean())


def _labelled(x: Floats, labels: Index, classes: int) -> Labelled:
    return Labelled(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(labels), classes)


def said(probability: NDArray[np.float32]) -> Index:
    """Return the class of the largest probability, (N,); of equals the first."""
    return np.asarray(probability.argmax(axis=1), np.int64)


# ----------------------------------------------------------------------------------------- novelty


_REFERENCES: Final = 512  # training vectors that are compared with
_DIMENSIONS: Final = 32
_QUANTILE: Final = 0.99


@dataclass(frozen=True, eq=False)
class Novelty:
    """Training vectors in their principal components.

    Args:
        references: float32 (R, d).
        shift: float32 (D,), subtracted first.
        rotation: float32 (D, d): of standardised vectors on their first components.
        limit: The distance that counts as 1.
    """

    references: Tensor
    shift: Tensor
    rotation: Tensor
    limit: float

    @classmethod
    def of(cls, x: Floats, polygons: Index) -> Novelty:
        """Return the distances from training vectors.

        Args:
            x: (M, D).
            polygons: Of each, (M,); two at least.
        """
        step = max(1, -(-len(x) // _REFERENCES))
        part = torch.from_numpy(np.ascontiguousarray(x[::step]))
        own = torch.from_numpy(np.ascontiguousarray(polygons[::step]))
        scaler = Scaler.of(part, Scaling.STANDARD)
        assert scaler.mean is not None  # noqa: S101 (of STANDARD it is there)
        assert scaler.std is not None  # noqa: S101
        basis = Eigenbasis.of(scaler(part))
        order = basis.energy[:-1].argsort(descending=True)[:_DIMENSIONS]
        rotation = basis.directions[:, order] / scaler.std[:, None]
        references = (part.double() - scaler.mean) @ rotation
        distance = torch.cdist(references, references)
        distance[own[:, None] == own] = torch.inf
        nearest = distance.min(dim=1).values
        nearest = nearest[nearest.isfinite()]
        limit = float(torch.quantile(nearest, _QUANTILE)) if len(nearest) else 0.0
        return cls(references.float(), scaler.mean.float(), rotation.float(), max(limit, 1e-12))

    def __call__(self, vectors: Floats) -> Floats:
        """Return the distance to the nearest training vector over the limit, (N,)."""
        out: NDArray[np.float32] = np.empty(len(vectors), np.float32)
        squares = self.references.square().sum(dim=1)
        for first in range(0, len(vectors), _ROWS):
            part = torch.from_numpy(np.ascontiguousarray(vectors[first : first + _ROWS]))
            z = (part - self.shift) @ self.rotation
            found = torch.addmm(squares, z, self.references.T, alpha=-2).min(dim=1).values
            nearest = (found + z.square().sum(dim=1)).clamp_min(0).sqrt()
            out[first : first + _ROWS] = (nearest / self.limit).numpy()
        return out
