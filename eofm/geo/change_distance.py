"""Distance between the vectors of two dates, and the part that the season does not explain.

Season, sun and haze move the vectors of a whole scene in the same way: all forest moves together.
So the vectors of one date are predicted from those of the other by a linear rule fitted on the
scene, and the residual is the change (chronochrome: Schaum and Stocker 1997; compared with other
methods by Theiler 2008, doi 10.1364/AO.47.000F12). Cells with a large residual get a lower weight
in the next fit, so that changes do not become part of the rule; this is the reweighting of
IR-MAD (Nielsen 2007, doi 10.1109/TIP.2006.888195).

Shapes: N cells, D dimensions, K principal directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from eofm.geo.cells import Cells, ChipCells, Doubles, Floats, GridCells, Index
from eofm.geo.embeddings import ChipTable, PatchGrid, relative_step
from eofm.terminal import track

__all__ = ["Distances", "LinearRule", "distances"]

_DIRECTIONS: Final = 32  # principal directions of the predicting date, at most
_FEWEST_DIRECTIONS: Final = 2  # with none, each vector would be compared with the mean of its date
_CELLS_EACH: Final = 20  # cells per coefficient of a direction
_LEARNT_FROM: Final = 1 << 13  # cells, evenly spaced: 25 MB at 384 dimensions, for each date
_ROUNDS: Final = 4  # of reweighting: the weights hardly change after three
_RIDGE: Final = 1e-9  # of the mean variance: for directions without any


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances between the two vectors of each cell.

    Args:
        cosine: 1 - cosine, float32 (N,), NaN unless both vectors exist and are not zero.
        unexplained: Half of the squared difference between a unit vector and its prediction from
            the other date, the mean of both directions, float32 (N,), NaN as `cosine`.
        least: Cosine distance of two vectors that differ by one quantisation step in every
            dimension, float32 (N,): half of the square of `relative_step`.
    """

    cosine: Floats
    unexplained: Floats
    least: Floats

    @property
    def alike(self) -> NDArray[np.bool_]:
        """Mask of cells whose vectors differ by less than the numerical resolution, (N,)."""
        return np.asarray(self.cosine <= self.least)

    @property
    def log(self) -> Doubles:
        """Natural logarithm of `unexplained`, clipped at `least`, (N,); NaN for equal vectors.

        Equal vectors come from identical pixels and carry no information on the usual distance.
        """
        raised = np.maximum(self.unexplained, self.least).astype(np.float64)
        return np.log(np.where(self.cosine > 0, raised, np.nan))


@dataclass(frozen=True, eq=False)
class LinearRule:
    """Linear prediction of the unit vectors of one date from those of another.

    Args:
        centre: Subtracted from a vector, float32 (D,).
        directions: Principal directions of the first date, float32 (D, K).
        coefficients: Per direction, float32 (K, D).
        offset: Prediction for the centre, float32 (D,).
    """

    centre: Floats
    directions: Floats
    coefficients: Floats
    offset: Floats

    @classmethod
    def learn(cls, given: Doubles, wanted: Doubles) -> Self:
        """Fit the rule to cells of which most have not changed.

        Args:
            given: Unit vectors of one date, (n, D).
            wanted: Unit vectors of the same cells at the other date, (n, D).
        """
        count, dim = given.shape
        kept = min(max(count // _CELLS_EACH, _FEWEST_DIRECTIONS), _DIRECTIONS, dim)
        centre = given.mean(axis=0)
        _, every = np.linalg.eigh((given - centre).T @ (given - centre))  # smallest variance first
        directions = every[:, ::-1][:, :kept]
        known = np.column_stack([np.ones(count), (given - centre) @ directions])
        ridge = _RIDGE * np.diag([0.0, *[np.square(known[:, 1:]).sum(axis=1).mean() / kept] * kept])
        weights = np.full(count, 1 / count)
        for _ in range(_ROUNDS):
            weighted = (known * weights[:, None]).T
            # minimum-norm least squares, for directions without any variance
            found = np.linalg.lstsq(weighted @ known + ridge, weighted @ wanted, rcond=None)[0]
            off = np.square(wanted - known @ found).sum(axis=1)
            usual = max(float(np.median(off)), np.finfo(np.float64).tiny)
            weights = np.minimum(1.0, usual / np.maximum(off, usual))
            weights /= weights.sum()
        parts = (centre, directions, found[1:], found[0])
        return cls(*(np.asarray(part, np.float32) for part in parts))

    def __call__(self, given: Floats) -> Floats:
        """Return the predicted vectors, (n, D)."""
        predicted = (given - self.centre) @ self.directions @ self.coefficients + self.offset
        return np.asarray(predicted, np.float32)


def distances(first: Cells, second: Cells) -> Distances:
    """Return the distances between the two vectors of each cell.

    The cosine distance is half of the squared difference of the unit vectors. This equals
    1 - cosine without the rounding error of the subtraction for nearly equal vectors.

    Args:
        first: Cells of one date.
        second: The same cells at another date.
    """
    cosine, least, unexplained = (np.full(len(first.valid), np.nan, np.float32) for _ in range(3))
    rules = _learn_both(first, second)
    both = zip(first.blocks(), second.blocks(), strict=True)
    for (rows, a), (_, b) in track(both, "comparing two dates", first.block_count):
        with np.errstate(invalid="ignore", divide="ignore"):
            long_a, long_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
            unit_a, unit_b = a / long_a[:, None], b / long_b[:, None]  # a and b may be the caller's
            cosine[rows] = _half_square(unit_a - unit_b)
            step = relative_step(_stored(first), long_a) + relative_step(_stored(second), long_b)
            least[rows] = (step / 2) ** 2 / 2
            if rules:
                off_b, off_a = unit_b - rules[0](unit_a), unit_a - rules[1](unit_b)
                unexplained[rows] = (_half_square(off_b) + _half_square(off_a)) / 2
    off = ~(first.valid & second.valid)
    cosine[off] = unexplained[off] = np.nan
    return Distances(cosine, unexplained, least)


def _learn_both(first: Cells, second: Cells) -> tuple[LinearRule, LinearRule] | None:
    """Fit the rules from one date to the other and back; None if no cell differs."""
    both = np.flatnonzero(first.valid & second.valid)
    some: Index = both[:: max(1, -(-len(both) // _LEARNT_FROM))]
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (_unit(cells.vectors(some).astype(np.float64)) for cells in (first, second))
    # equal vectors come from identical pixels and carry no information on the season
    differ = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1) & (a != b).any(axis=1)
    if not differ.any():
        return None
    a, b = a[differ], b[differ]
    return LinearRule.learn(a, b), LinearRule.learn(b, a)


def _unit(vectors: Doubles) -> Doubles:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _half_square(vectors: Floats) -> Floats:
    return np.asarray(np.einsum("nd,nd->n", vectors, vectors) / 2, np.float32)


def _stored(cells: Cells) -> ChipTable | PatchGrid:
    if isinstance(cells, GridCells):
        return cells.patches
    assert isinstance(cells, ChipCells)  # noqa: S101 (cells are one or the other)
    return cells.chips
