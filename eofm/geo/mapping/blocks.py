"""Spatial blocks: what is near each other is trained on together or tested together.

Neighbouring cells resemble each other, so that cross-validation over single cells says how well a
map repeats its training polygons (Roberts et al. 2017, doi 10.1111/ecog.02881). Here whole polygons
are held out, all those of a square of ground together. The side of the square is stated, or the
range of the variogram of the vectors: the distance from which on they resemble each other no more.

Shapes: M cells, P polygons, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eofm.errors import ConfigError, LabelError
from eofm.geo.cells import Floats, Index

_SAMPLE: Final = 1500  # cells of which all pairs are compared
_LAGS: Final = 20
_PLATEAU: Final = 0.95  # of the plateau: from here on pairs count as unlike as any
Metres = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Variogram:
    """How unlike vectors are at a distance: half the mean square of their difference.

    Args:
        lags: Distances in metres, middles of their bins.
        semivariance: Of each lag, as a share of the plateau; NaN for a lag without pairs.
        range: Metres from which on pairs are as unlike as distant ones.
    """

    lags: Metres
    semivariance: NDArray[np.float64]
    range: float


def variogram(xy: Metres, vectors: Floats) -> Variogram:
    """Return the empirical variogram of vectors, all dimensions standardised and summed.

    The plateau is the mean over the lags beyond a quarter of the extent; distances above half the
    extent are left out, where pairs come from the corners alone (Matheron 1963, Cressie 1993,
    section 2.4).

    Args:
        xy: Metres, (M, 2).
        vectors: (M, D).
    """
    step = max(1, len(xy) // _SAMPLE)
    place, x = xy[::step], vectors[::step].astype(np.float64)
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    first, second = np.triu_indices(len(place), 1)
    distance = np.hypot(*(place[first] - place[second]).T)
    squares = (x**2).sum(axis=1)
    product = x @ x.T
    unlike = (squares[first] + squares[second] - 2 * product[first, second]) / (2 * x.shape[1])
    furthest = float(distance.max(initial=0)) / 2
    if furthest <= 0:
        return Variogram(np.zeros(1), np.ones(1), 0.0)
    bins = np.minimum((distance / furthest * _LAGS).astype(int), _LAGS)
    count = np.bincount(bins, minlength=_LAGS + 1)[:_LAGS]
    total = np.bincount(bins, unlike, _LAGS + 1)[:_LAGS]
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    lags = (np.arange(_LAGS) + 0.5) * furthest / _LAGS
    far = total[_LAGS // 2 :].sum() / max(int(count[_LAGS // 2 :].sum()), 1)
    if far <= 0:
        return Variogram(lags, mean, float(lags[0]))
    share = mean / far
    reached = np.flatnonzero(np.nan_to_num(share) >= _PLATEAU)
    return Variogram(lags, share, float(lags[reached[0]] if len(reached) else lags[-1]))


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each polygon is held out in.

    Args:
        of_polygon: (P,), from 0 on.
        of_block: Square of each polygon, (P,), from 0 on.
        side: Of a square, in metres.
        notes: What a reader must be told.
    """

    of_polygon: Index
    of_block: Index
    side: float
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many folds there are."""
        return int(self.of_polygon.max()) + 1


def make_folds(
    centres: Metres, labels: Index, weights: Index, side: float, folds: int, *, stated: bool
) -> Folds:
    """Divide polygons into folds of whole squares.

    Squares are given to the folds one after the other, those with the rarest classes first, each
    to the fold that has least of its classes so far. A side that was not stated is halved until
    every class with two polygons or more lies in two squares.

    Args:
        centres: Of the polygons, metres, (P, 2).
        labels: Class of each, (P,).
        weights: Cells of each, (P,).
        side: Of a square in metres.
        folds: At most so many.
        stated: Whether the user stated the side.

    Raises:
        LabelError: If there is one polygon alone.
        ConfigError: If all polygons lie in one square of the stated side.
    """
    if len(centres) < 2:
        raise LabelError(
            "a map needs two polygons or more",
            found=f"{len(centres)} on the embeddings",
            remedy="draw more polygons",
        )
    finest = _finest(centres)
    wanted = side
    blocks = _squares(centres, side)
    while not stated and side > finest and not _apart(blocks, labels):
        side /= 2
        blocks = _squares(centres, side)
    if int(blocks.max()) == 0:
        fitting = _fitting(centres, labels, side, finest)
        raise ConfigError(
            "all polygons lie in one square, and none is left to test on",
            found=f"squares of {side:g} m, polygons within {np.ptp(centres, axis=0).max():.0f} m",
            remedy=f"state smaller squares: --block {fitting:g}",
        )
    notes: tuple[str, ...] = ()
    if side < wanted:
        notes = (
            f"**squares of {side:.0f} m are used, although vectors resemble each other up to "
            f"{wanted:.0f} m**: larger ones would put all polygons of a class into one; the "
            "accuracy is too good by what neighbours share",
        )
    return Folds(_divide(blocks, labels, weights, folds), blocks, side, notes)


def _finest(centres: Metres) -> float:
    """Return a side that parts any two polygons that are not at the same place."""
    return max(float(np.ptp(centres, axis=0).max()) / 1024, 1e-3)


def _fitting(centres: Metres, labels: Index, side: float, finest: float) -> float:
    while side > finest and not _apart(_squares(centres, side), labels):
        side /= 2
    return float(f"{side:.2g}") if _apart(_squares(centres, float(f"{side:.2g}")), labels) else side


def _squares(centres: Metres, side: float) -> Index:
    """Return the square of each polygon; the lattice starts at their lowest corner."""
    at = np.floor((centres - centres.min(axis=0)) / side).astype(np.int64)
    _, blocks = np.unique(at, axis=0, return_inverse=True)
    return np.asarray(blocks.ravel(), np.int64)


def _apart(blocks: Index, labels: Index) -> bool:
    """Return whether each class of two polygons or more lies in two squares or more."""
    if int(blocks.max()) == 0:
        return False
    return all(
        len(np.unique(blocks[labels == code])) > 1
        for code in np.unique(labels)
        if int((labels == code).sum()) > 1
    )


def _divide(blocks: Index, labels: Index, weights: Index, folds: int) -> Index:
    count, classes = int(blocks.max()) + 1, int(labels.max()) + 1
    table = np.zeros((count, classes))
    np.add.at(table, (blocks, labels), weights)
    shares = table / np.maximum(table.sum(axis=0), 1)
    folds = min(folds, count)
    held = np.zeros((folds, classes))
    fold_of = np.zeros(count, np.int64)
    for block in np.argsort(-shares.max(axis=1), kind="stable"):
        # what the fold would hold of this square's own classes; of equals the emptiest
        load = (held * (shares[block] > 0)).max(axis=1) + 1e-6 * held.sum(axis=1)
        fold = int(load.argmin())
        fold_of[block] = fold
        held[fold] += shares[block]
    used, numbered = np.unique(fold_of, return_inverse=True)
    assert len(used) >= 2  # noqa: S101 (two squares or more, and the emptiest fold is taken)
    return np.asarray(numbered[blocks], np.int64)
