"""Accuracy of a map: cross-validation over squares on the ground, area estimates, intervals.

Neighbouring cells resemble each other, so cross-validation over single cells measures how well a
map reproduces its training polygons (Roberts et al. 2017, doi 10.1111/ecog.02881). Here, whole
polygons are held out, together with all others in the same square on the ground; the parts of one
feature are one polygon, and squares that share a polygon are held out together. The side of a
square is given by the user or is the range of the variogram of the vectors: the distance beyond
which similarity no longer decreases. For clustered polygons the range cannot be estimated, and
half of the extent is used.

Counting the pixels of a map gives a biased area, because errors do not cancel. With a
reference sample that was drawn by a probability design, the stratified estimator corrects it
(Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015, equations 2 to 11; Cochran 1977).

Shapes: M training cells, N cells, P polygons, D dimensions, K classes; rows of a matrix are classes
of the map, columns those of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.warp import transform as warp_points
from torch import Tensor

from eofm.errors import ConfigError, LabelError
from eofm.geo.cells import Cells, Doubles, Floats, GridCells, Index, zone_of
from eofm.geo.training import EXPLODE, FittedProbe, TrainingCells, said
from eofm.probes.bootstrap import bootstrap_values, enough_groups, percentile_interval
from eofm.report.plots import Estimate
from eofm.terminal import track

__all__ = [
    "Z95",
    "AreaEstimate",
    "Assessment",
    "BlockFrom",
    "CrossValidation",
    "Fit",
    "Folds",
    "LearningPoint",
    "Metres",
    "Variogram",
    "assess",
    "cell_areas",
    "cell_side",
    "cross_validate",
    "estimate_areas",
    "fewest_trained",
    "learning_curve",
    "make_folds",
    "square_matrices",
    "variogram",
]

# --------------------------------------------------------------------------------- blocks of ground

_SAMPLE: Final = 1500  # cells of which all pairs are compared
_LAGS: Final = 20
_PLATEAU: Final = 0.95  # of the plateau: from here on pairs count as unrelated
_PAIRS: Final = 30  # of a lag that is used (Journel and Huijbregts 1978, page 194)
Metres = NDArray[np.float64]


class BlockFrom(StrEnum):
    """Source of the side of the squares."""

    STATED = "stated"
    VARIOGRAM = "variogram"
    EXTENT = "extent"  # half of it: no range can be estimated from the positions of the polygons


@dataclass(frozen=True, eq=False)
class Variogram:
    """Dissimilarity of vectors at a distance: half of their mean squared difference.

    Args:
        lags: Distances in metres, the centres of the bins.
        semivariance: Per lag, as a share of the plateau, or of the mean over all pairs if the
            plateau is unknown; NaN for a lag without pairs.
        range: Distance in metres at which pairs become as dissimilar as distant ones; half of the
            extent if unknown.
        known: Whether there are enough distant pairs to estimate the plateau and thus the range.
    """

    lags: Metres
    semivariance: NDArray[np.float64]
    range: float
    known: bool


def variogram(xy: Metres, vectors: Floats, cell: float = 0.0) -> Variogram:
    """Return the empirical variogram of vectors, standardised and summed over the dimensions.

    The plateau is the mean over the lags beyond a quarter of the extent. Distances above half the
    extent are excluded, since only pairs from the corners have them (Matheron 1963, Cressie 1993,
    section 2.4). If most of the lags beyond a quarter hold few pairs, as for polygons in two
    clusters, there is no plateau. The range is then half of the extent, which is conservative: a
    range that is too large underestimates the accuracy, one that is too small overestimates it.

    Args:
        xy: Metres, (M, 2).
        vectors: (M, D).
        cell: Side of a cell in metres, the minimum of the range.
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
        return Variogram(np.zeros(1), np.ones(1), max(cell, 1e-3), known=False)
    bins = np.minimum((distance / furthest * _LAGS).astype(int), _LAGS)
    count = np.bincount(bins, minlength=_LAGS + 1)[:_LAGS]
    total = np.bincount(bins, unlike, _LAGS + 1)[:_LAGS]
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    lags = (np.arange(_LAGS) + 0.5) * furthest / _LAGS
    enough = count >= _PAIRS
    far = total[_LAGS // 2 :].sum() / max(int(count[_LAGS // 2 :].sum()), 1)
    if enough[_LAGS // 2 :].mean() < 0.5 or far <= 0:
        usual = float(unlike.mean())
        return Variogram(lags, mean / (usual or 1), max(furthest, cell), known=False)
    share = mean / far
    reached = np.flatnonzero(enough & (np.nan_to_num(share) >= _PLATEAU))
    found = float(lags[reached[0]] if len(reached) else lags[-1])
    return Variogram(lags, share, max(found, cell), known=True)


@dataclass(frozen=True, eq=False)
class Folds:
    """Assignment of polygons to the folds in which they are held out.

    Args:
        of_polygon: Fold of each polygon, (P,), from 0.
        of_block: Square of each polygon, (P,), from 0.
        side: Side of a square in metres.
        source: Source of the side.
        notes: Warnings for the report.
    """

    of_polygon: Index
    of_block: Index
    side: float
    source: BlockFrom
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.of_polygon.max()) + 1


def make_folds(
    centres: Metres,
    labels: Index,
    weights: Index,
    side: float,
    folds: int,
    *,
    source: BlockFrom,
    cell: float = 0.0,
    polygons: Index | None = None,
) -> Folds:
    """Divide polygons into folds of whole squares.

    Squares are assigned to folds one after the other, those with the rarest classes first, each
    to the fold that has least of its classes so far. A side that the user did not set is halved,
    down to that of a cell, until every class with at least two polygons is in two squares. Squares
    that contain parts of the same polygon are merged.

    Args:
        centres: Centres of the parts of the polygons in metres, (Q, 2).
        labels: Class of each polygon, (P,).
        weights: Number of cells of each polygon, (P,).
        side: Side of a square in metres.
        folds: Maximum number of folds.
        source: Source of the side.
        cell: Side of a cell in metres.
        polygons: Polygon of each part, (Q,); None if each polygon has one part.

    Raises:
        LabelError: If there is only one polygon, or no square separates them.
        ConfigError: If all polygons are in one square of the side that the user set.
    """
    if len(labels) < 2:
        raise LabelError(
            "a map needs two polygons or more",
            found=f"{len(labels)} on the embeddings",
            remedy="draw more polygons",
        )
    ground = _Ground(centres, np.arange(len(labels)) if polygons is None else polygons, labels)
    wanted, smallest = side, max(ground.finest, cell)
    blocks = ground.squares(side)
    while source is not BlockFrom.STATED and side > smallest and not _apart(blocks, labels):
        side = max(side / 2, smallest)
        blocks = ground.squares(side)
    if int(blocks.max()) == 0:
        raise _one_square(ground, side)
    notes = _block_notes(side, wanted, source)
    return Folds(_divide(blocks, labels, weights, folds), blocks, side, source, notes)


def _block_notes(side: float, wanted: float, source: BlockFrom) -> tuple[str, ...]:
    """Return warnings for the report about a side that the user did not set."""
    if source is BlockFrom.EXTENT:
        unknown = (
            "the range of the variogram is unknown: too few pairs of cells are a quarter to "
            "half of the extent apart, as for clustered polygons"
        )
        if side < wanted:
            return (
                f"**squares of {side:.0f} m are used, although the range of similarity of vectors "
                f"is unknown**: {unknown}; larger squares would put all polygons of a class into "
                "one; the accuracy may be overestimated",
            )
        return (
            f"{unknown}; squares of {side:.0f} m, half of the extent, are used instead, which "
            "tends to underestimate the accuracy; set a smaller side if you know one: "
            "--block METRES",
        )
    if side < wanted:
        return (
            f"**squares of {side:.0f} m are used, although vectors are similar up to "
            f"{wanted:.0f} m**: larger ones would put all polygons of a class into one; the "
            "accuracy is overestimated",
        )
    return ()


@dataclass(frozen=True, eq=False)
class _Ground:
    """Positions of polygons.

    Args:
        centres: Centres of their parts, (Q, 2).
        polygons: Polygon of each part, (Q,).
        labels: Class of each polygon, (P,).
    """

    centres: Metres
    polygons: Index
    labels: Index

    @property
    def extent(self) -> float:
        """Size of the square in metres that contains all parts."""
        return float(np.ptp(self.centres, axis=0).max())

    @property
    def finest(self) -> float:
        """A side that separates any two polygons in different places."""
        return max(self.extent / 1024, 1e-3)

    def squares(self, side: float) -> Index:
        """Return the square of each polygon, (P,); the lattice starts at the lowest coordinates."""
        at = np.floor((self.centres - self.centres.min(axis=0)) / side).astype(np.int64)
        _, numbers = np.unique(at, axis=0, return_inverse=True)
        own = joined = np.asarray(numbers.ravel(), np.int64)
        while True:
            # all parts of a polygon get its lowest square, and so do polygons that share a square
            lowest = _lowest(joined, self.polygons)
            spread = _lowest(lowest[self.polygons], own)[own]
            if np.array_equal(spread, joined):
                break
            joined = spread
        return np.asarray(np.unique(lowest, return_inverse=True)[1], np.int64)

    def fitting(self, side: float) -> float | None:
        """Return a smaller side that separates the polygons, to two digits if possible, or None.

        Args:
            side: A side that does not separate them.
        """
        while side > self.finest and not _apart(self.squares(side), self.labels):
            side /= 2
        for one in (float(f"{side:.2g}"), side):
            if _apart(self.squares(one), self.labels):
                return one
        return side if int(self.squares(side).max()) else None


def _lowest(values: Index, groups: Index) -> Index:
    """Return the lowest value of each group; groups are numbered from 0 without gaps."""
    found = np.full(int(groups.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(found, groups, values)
    return found


def _one_square(ground: _Ground, side: float) -> LabelError | ConfigError:
    fitting = ground.fitting(side)
    found = f"squares of {side:g} m, polygons within {ground.extent:.0f} m"
    if fitting is None:
        return LabelError(
            "no square separates the polygons, so none is left for testing",
            found=found,
            expected="polygons apart from each other",
            remedy=f"draw polygons apart from each other; {EXPLODE}",
        )
    return ConfigError(
        "all polygons are in one square, so none is left for testing",
        found=found,
        remedy=f"state smaller squares: --block {fitting:g}",
    )


def _apart(blocks: Index, labels: Index) -> bool:
    """Return whether each class with at least two polygons is in at least two squares."""
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
        # cells of the classes of this square that the fold would hold; of equal folds, the emptiest
        load = (held * (shares[block] > 0)).max(axis=1) + 1e-6 * held.sum(axis=1)
        fold = int(load.argmin())
        fold_of[block] = fold
        held[fold] += shares[block]
    used, numbered = np.unique(fold_of, return_inverse=True)
    assert len(used) >= 2  # noqa: S101 (two squares or more, and the emptiest fold is taken)
    return np.asarray(numbered[blocks], np.int64)


# ----------------------------------------------------------------------------------- areas of cells

_COLUMNS: Final = 9  # of a row of patches, between which areas are interpolated
_SIDES: Final = 32  # cells whose sides are computed


def cell_areas(cells: Cells) -> NDArray[np.float64]:
    """Return the area of each cell in square metres, (N,).

    Areas are computed in the UTM zone of the centre, within 0.2 % of those on the ellipsoid. For a
    patch grid, the areas of some cells of each row are computed and the others interpolated.

    Args:
        cells: Chips or patches.

    Raises:
        RasterError: If the CRS is not terrestrial.
    """
    if not isinstance(cells, GridCells):
        return _areas(cells, np.arange(len(cells.valid)))
    grid = cells.patches.grid
    columns = np.unique(np.linspace(0, grid.width - 1, _COLUMNS).astype(np.int64))
    rows = np.arange(grid.height)
    which = (rows[:, None] * grid.width + columns).ravel()
    sampled = _areas(cells, which).reshape(grid.height, len(columns))
    every = np.arange(grid.width)
    return np.concatenate([np.interp(every, columns, row) for row in sampled])


def cell_side(cells: Cells, which: Index) -> float:
    """Return the longer side of a cell in metres, the median of the given cells.

    Args:
        cells: Chips or patches.
        which: Numbers of at least one cell.

    Raises:
        RasterError: If the CRS is not terrestrial.
    """
    import shapely

    shapes = _on_the_ground(cells, which[:: max(1, len(which) // _SIDES)])
    edges = [np.diff(shapely.get_coordinates(one), axis=0) for one in shapes]
    return float(np.median([np.hypot(*edge.T).max() for edge in edges]))


def _areas(cells: Cells, which: Index) -> NDArray[np.float64]:
    import shapely

    return np.asarray(shapely.area(_on_the_ground(cells, which)), np.float64)


def _on_the_ground(cells: Cells, which: Index) -> NDArray[Any]:
    """Return cells as polygons in metres of the UTM zone of their centre."""
    import shapely

    shapes = cells.outlines(which)
    zone = zone_of(cells, which)

    def metres(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        xs, ys = warp_points(cells.crs, zone, xy[:, 0].tolist(), xy[:, 1].tolist())
        return np.stack([np.asarray(xs), np.asarray(ys)], axis=1)

    return shapes if cells.crs == zone else np.asarray(shapely.transform(shapes, metres), object)


# -------------------------------------------------------------------------------- areas of classes


Z95: Final = 1.959963984540054  # of the normal distribution, 95 % between -z and z


@dataclass(frozen=True, eq=False)
class AreaEstimate:
    """Areas and accuracies with standard errors; NaN if undefined.

    Args:
        mapped: Share of each class in the map, (K,).
        area: Estimated share of each class, (K,): equation 9.
        area_error: Its standard error, equation 10.
        overall: Overall accuracy, equation 1.
        overall_error: Equation 5.
        users: User's accuracy of each class, (K,): equation 2.
        users_error: Equation 6.
        producers: Producer's accuracy of each class, (K,): equation 3.
        producers_error: Equation 7.
    """

    mapped: Doubles
    area: Doubles
    area_error: Doubles
    overall: float
    overall_error: float
    users: Doubles
    users_error: Doubles
    producers: Doubles
    producers_error: Doubles


def estimate_areas(counts: NDArray[np.int64], mapped: Doubles) -> AreaEstimate:
    """Return the stratified estimates of areas and accuracies.

    Args:
        counts: Number of samples, (K, K): rows are the classes of the map, columns the reference.
        mapped: Share of each class in the map, (K,), or its area in any unit.

    Raises:
        LabelError: If a class of the map has fewer than two samples, so its error is unknown.
    """
    n = counts.sum(axis=1).astype(np.float64)
    weight = mapped / mapped.sum()
    there = weight > 0
    few = np.flatnonzero(there & (n < 2))
    if len(few):
        raise LabelError(
            "an area estimate needs two samples or more in each class of the map",
            found=f"{int(n[few[0]])} in class number {int(few[0])}",
            expected="2, and better 50",
            remedy="draw more sample points where the map shows that class, or leave the areas "
            "out: --design purposive",
        )
    row = np.divide(counts, n[:, None], out=np.zeros(counts.shape), where=n[:, None] > 0)
    p = weight[:, None] * row
    area = p.sum(axis=0)
    spread = row * (1 - row) / np.maximum(n - 1, 1)[:, None]
    users = np.where(there, np.diag(row), np.nan)
    users_variance = np.where(there, np.diag(spread), np.nan)
    producers = np.divide(np.diag(p), area, out=np.full(len(area), np.nan), where=area > 0)
    return AreaEstimate(
        mapped=weight,
        area=area,
        area_error=np.sqrt((weight[:, None] ** 2 * spread).sum(axis=0)),
        overall=float(np.trace(p)),
        overall_error=float(np.sqrt((weight**2 * np.diag(spread)).sum())),
        users=users,
        users_error=np.sqrt(users_variance),
        producers=producers,
        producers_error=_producers_error(weight, spread, producers, area),
    )


def _producers_error(
    weight: Doubles, spread: Doubles, producers: Doubles, area: Doubles
) -> Doubles:
    """Equation 7, with areas as shares: they cancel."""
    squares = weight[:, None] ** 2 * spread
    own = np.diag(squares)
    others = squares.sum(axis=0) - own
    variance = (1 - producers) ** 2 * own + producers**2 * others
    positive = np.where(area > 0, area, np.nan)
    return np.asarray(np.sqrt(variance) / positive, np.float64)


# --------------------------------------------------------------------------------- cross-validation

# (vectors, labels, folds, fixed strength) -> a fitted read-out
Fit = Callable[[Floats, Index, Index, float | None], FittedProbe]

_REPEATS: Final = 1000
_SHARES: Final = (0.25, 0.5)
_DRAWS: Final = 2


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Predictions for each training cell by a read-out trained without the cell's square.

    Args:
        said: Predicted class, (M,).
        probability: (M, K).
        probes: Id of the read-out of each fold.
        strengths: C of each fold; empty for kNN.
        scored: bool, (K,): classes that were in the training folds when they were tested, which
            requires polygons in at least two folds.
        tested: bool, (M,): cells predicted by a read-out that was trained on their class and at
            least one other; only these count as right or wrong.
    """

    said: Index
    probability: Floats
    probes: tuple[str, ...]
    strengths: tuple[float, ...]
    scored: NDArray[np.bool_]
    tested: NDArray[np.bool_]


def cross_validate(x: Floats, training: TrainingCells, folds: Folds, fit: Fit) -> CrossValidation:
    """Hold out each fold in turn.

    Args:
        x: Vectors of the training cells, (M, D).
        training: The training cells.
        folds: Folds of the polygons.
        fit: Fits a read-out.
    """
    fold = folds.of_polygon[training.polygons]
    classes = len(training.classes)
    probability = np.zeros((len(x), classes), np.float32)
    probes: list[str] = []
    strengths: list[float] = []
    tested = np.zeros(len(x), np.bool_)
    for held in track(range(folds.count), "testing on held-out squares"):
        test = fold == held
        known = np.unique(training.labels[~test])
        if len(known) < 2:
            # only one class is left for training, and it would be predicted everywhere
            probability[test, training.labels[~test][0]] = 1
            continue
        tested[test] = np.isin(training.labels[test], known)
        made = fit(x[~test], training.labels[~test], fold[~test], None)
        probability[test] = made.probability(x[test])
        probes.append(made.name)
        strengths += [] if made.strength is None else [made.strength]
    spread = [len(np.unique(fold[training.labels == code])) > 1 for code in range(classes)]
    return CrossValidation(
        said(probability), probability, tuple(dict.fromkeys(probes)), tuple(strengths),
        np.array(spread, np.bool_), tested,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Assessment:
    """Accuracies with 95 % intervals; None if nothing can be scored.

    With fewer squares than `eofm.probes.bootstrap.FEWEST_GROUPS` there is no interval: both ends
    equal the value.

    Args:
        confusion: Tested cells, (K, K): rows are the classes of the polygons, columns the
            predictions.
        overall: Share of cells predicted correctly; None if fewer than two classes are scored,
            since a single class cannot be confused with another.
        users: Per class, share of the cells predicted as the class that belong to it; None if
            `overall` is None, and for a class that is not scored.
        producers: Per class, share of its cells that are predicted as the class.
        polygons: Number of polygons of each class.
        tested: Number of them that were tested.
        squares: Number of squares on the ground that contain the tested polygons.
        all_squares: Number of squares that contain the polygons of all classes.
        scored: Classes that are scored.
    """

    confusion: NDArray[np.int64]
    overall: Estimate | None
    users: tuple[Estimate | None, ...]
    producers: tuple[Estimate | None, ...]
    polygons: tuple[int, ...]
    tested: tuple[int, ...]
    squares: tuple[int, ...]
    all_squares: int
    scored: NDArray[np.bool_]

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of tested cells of each class."""
        return tuple(self.confusion.sum(axis=1).tolist())


def assess(
    training: TrainingCells, found: CrossValidation, squares: Index, seed: int = 0
) -> Assessment:
    """Return accuracies of the predictions, with intervals by bootstrap over squares.

    Polygons of one square resemble each other and are predicted by the same read-out. Resampling
    single polygons gives intervals with too low coverage (tests/geo/test_intervals.py).

    Cells of a class in only one fold are excluded, because the read-out that predicted them was
    not trained on that class; so are cells predicted by a read-out trained on a single class.

    Args:
        training: The training cells.
        found: The predictions.
        squares: Square with which each polygon was held out, (P,).
        seed: Seed of the resampling.
    """
    classes = len(training.classes)
    part = training.some(found.tested)
    own = squares[training.polygons][found.tested]
    matrices = square_matrices(own, part.labels, found.said[found.tested], classes)
    total = matrices.sum(axis=0)
    flat = torch.from_numpy(matrices.reshape(len(matrices), -1)).double()

    def accuracies(counts: Tensor) -> Tensor:
        return _accuracies((counts @ flat).view(-1, classes, classes))

    exact = _accuracies(torch.from_numpy(total).double()[None])[0].tolist()
    drawn = bootstrap_values(accuracies, len(matrices), repeats=_REPEATS, seed=seed)
    # the producer's accuracy depends on the squares of its class, everything else on all
    of_class = tuple((matrices.sum(axis=2) > 0).sum(axis=0).tolist())
    units = [len(matrices)] * (1 + classes) + list(of_class)
    whole = [_estimate(*one) for one in zip(exact, drawn.T, units, strict=True)]
    several = int(found.scored.sum()) > 1
    users, producers = whole[1 : 1 + classes], whole[1 + classes :]
    return Assessment(
        total,
        whole[0] if several else None,
        tuple(u if s and several else None for u, s in zip(users, found.scored, strict=True)),
        tuple(producers),
        _per_class(training, classes),
        _per_class(part, classes),
        of_class,
        len(matrices),
        found.scored,
    )


def _per_class(training: TrainingCells, classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(training.polygon_labels, minlength=classes).tolist())


def square_matrices(
    squares: Index, labels: Index, predicted: Index, classes: int
) -> NDArray[np.int64]:
    """Return the confusion matrix of each square that contains a cell, (S, K, K).

    Args:
        squares: Square of each cell, (M,).
        labels: Class of each, (M,).
        predicted: Predicted class of each cell, (M,).
        classes: K.
    """
    names, number = np.unique(squares, return_inverse=True)
    key = (number.ravel() * classes + labels) * classes + predicted
    counts = np.bincount(key, minlength=len(names) * classes**2)
    return counts.reshape(len(names), classes, classes)


def _accuracies(matrices: Tensor) -> Tensor:
    """Return overall, user's and producer's accuracies of (R, K, K), (R, 1 + 2 K)."""
    right = matrices.diagonal(dim1=1, dim2=2)
    overall = right.sum(dim=1, keepdim=True) / matrices.sum(dim=(1, 2))[:, None]
    return torch.cat([overall, right / matrices.sum(dim=1), right / matrices.sum(dim=2)], dim=1)


def _estimate(value: float, drawn: Tensor, units: int) -> Estimate | None:
    if value != value:  # noqa: PLR0124 (0 of 0: no cell is predicted as it, or none belongs to it)
        return None
    if not enough_groups(units):
        return Estimate(value, value, value)  # without an interval
    interval = percentile_interval(drawn)
    return Estimate(value, interval.low, interval.high)


@dataclass(frozen=True)
class LearningPoint:
    """Accuracy with a part of the polygons.

    Args:
        polygons: Number of training polygons, the rounded mean over folds and draws.
        overall: Mean over draws, with the lowest and highest.
        draws: Number of draws; a single draw has no lowest and highest.
    """

    polygons: int
    overall: Estimate
    draws: int


def learning_curve(
    x: Floats,
    training: TrainingCells,
    folds: Folds,
    fit: Fit,
    full: CrossValidation,
    seed: int = 0,
    *,
    least: int = 1,
) -> tuple[LearningPoint, ...]:
    """Return the accuracy with a quarter, half and all of the training polygons.

    The folds and the scored cells are those of the full set; every class keeps at least one
    polygon. The regularisation strength is the median of those chosen with all polygons. If fewer
    than two classes are scored, the list is empty.

    Args:
        x: Vectors of the training cells, (M, D).
        training: The training cells.
        folds: Folds of the polygons.
        fit: Fits a read-out.
        full: The cross-validation with all polygons.
        seed: Seed of the draws of polygons.
        least: Minimum number of cells to fit a read-out; smaller draws are left out.
    """
    if int(full.scored.sum()) < 2:
        return ()
    strength = float(np.median(full.strengths)) if full.strengths else None
    fold = folds.of_polygon[training.polygons]
    random = np.random.default_rng(seed)
    points = []
    for share in _SHARES:
        drawn = [_draw(training, folds, share, random) for _ in range(_DRAWS)]
        if min(_fewest(fold, chosen) for chosen in drawn) < least:
            continue
        values = [_score(x, training, fold, fit, chosen, strength, full) for chosen in drawn]
        used = [len(np.unique(training.polygons[chosen])) for chosen in drawn]
        points.append(LearningPoint(_trained(np.mean(used), folds), _mean(values), _DRAWS))
    whole = float((full.said == training.labels)[full.tested].mean())
    everything = Estimate(whole, whole, whole)
    points.append(LearningPoint(_trained(len(training.features), folds), everything, 1))
    kept = {point.polygons: point for point in points}
    return tuple(kept[place] for place in sorted(kept))


def fewest_trained(training: TrainingCells, folds: Folds) -> int:
    """Return the smallest number of training cells of any fold's read-out.

    Args:
        training: The training cells.
        folds: Folds of the polygons.
    """
    return _fewest(folds.of_polygon[training.polygons], np.ones(len(training), np.bool_))


def _fewest(fold: Index, chosen: NDArray[np.bool_]) -> int:
    return int(chosen.sum()) - int(np.bincount(fold[chosen]).max())


def _trained(polygons: float | np.floating, folds: Folds) -> int:
    """Return the number of training polygons of a fold."""
    return round(float(polygons) * (folds.count - 1) / folds.count)


def _mean(values: Sequence[float]) -> Estimate:
    return Estimate(float(np.mean(values)), min(values), max(values))


def _draw(
    training: TrainingCells, folds: Folds, share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the cells of some polygons of each class, of two folds per class if possible."""
    chosen: list[int] = []
    for code in range(len(training.classes)):
        mine = random.permutation(np.flatnonzero(training.polygon_labels == code))
        first = _one_of_two_folds(mine, folds)
        count = max(round(share * len(mine)), len(first))
        rest = [one for one in mine.tolist() if one not in first]
        chosen += [*first, *rest[: count - len(first)]]
    return np.isin(training.polygons, chosen)


def _one_of_two_folds(polygons: Index, folds: Folds) -> list[int]:
    """Return a polygon and one of another fold, so that every fold's training has the class."""
    found: dict[int, int] = {}
    for one in polygons.tolist():
        found.setdefault(int(folds.of_polygon[one]), one)
    return list(found.values())[:2]


def _score(
    x: Floats,
    training: TrainingCells,
    fold: Index,
    fit: Fit,
    chosen: NDArray[np.bool_],
    strength: float | None,
    full: CrossValidation,
) -> float:
    right = np.zeros(len(x), np.bool_)
    for train, test in _splits(fold, chosen):
        labels = training.labels[train]
        if len(np.unique(labels)) < 2:
            right[test] = training.labels[test] == labels[0]
            continue
        made = fit(x[train], labels, fold[train], strength)
        right[test] = said(made.probability(x[test])) == training.labels[test]
    return float(right[full.tested].mean())


def _splits(
    fold: Index, chosen: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    for held in range(int(fold.max()) + 1):
        yield chosen & (fold != held), fold == held
