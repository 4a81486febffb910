"""Areas: how much ground a cell is, and how much each class of a map covers, with intervals.

Counting pixels of a map gives a biased area: what is mapped wrongly does not cancel. With a
reference sample that was drawn by a probability design, the stratified estimator corrects it
(Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015, equations 2 to 11; Cochran 1977).

Shapes: N cells; K classes; rows of a matrix are classes of the map, columns those of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform as warp_points

from eofm.errors import LabelError
from eofm.geo.cells import Cells, GridCells, Index, zone_of

_COLUMNS: Final = 9  # of a row of patches, between which areas are interpolated


def cell_areas(cells: Cells) -> NDArray[np.float64]:
    """Return the area of each cell in square metres, (N,).

    Areas are those in the UTM zone of the middle, within 0.2 % of the ellipsoid's there. Of a patch
    grid some cells of each row are measured, and those between them interpolated.

    Args:
        cells: Chips or patches.

    Raises:
        RasterError: If the CRS is not on the earth.
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


def _areas(cells: Cells, which: Index) -> NDArray[np.float64]:
    import shapely

    shapes = cells.outlines(which)
    zone = zone_of(cells, which)

    def metres(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        xs, ys = warp_points(cells.crs, zone, xy[:, 0].tolist(), xy[:, 1].tolist())
        return np.stack([np.asarray(xs), np.asarray(ys)], axis=1)

    moved = shapes if cells.crs == zone else shapely.transform(shapes, metres)
    return np.asarray(shapely.area(moved), np.float64)


# -------------------------------------------------------------------------------- areas of classes


Floats = NDArray[np.float64]
Z95: Final = 1.959963984540054  # of the normal distribution, 95 % between -z and z


@dataclass(frozen=True, eq=False)
class AreaEstimate:
    """Areas and accuracies with their standard errors; an undefined one is NaN.

    Args:
        mapped: Share of the map of each class, (K,).
        area: Estimated share of each class, (K,): equation 9.
        area_error: Its standard error, equation 10.
        overall: Overall accuracy, equation 1.
        overall_error: Equation 5.
        users: User's accuracy of each class, (K,): equation 2.
        users_error: Equation 6.
        producers: Producer's accuracy of each class, (K,): equation 3.
        producers_error: Equation 7.
    """

    mapped: Floats
    area: Floats
    area_error: Floats
    overall: float
    overall_error: float
    users: Floats
    users_error: Floats
    producers: Floats
    producers_error: Floats


def estimate_areas(counts: NDArray[np.int64], mapped: Floats) -> AreaEstimate:
    """Return the stratified estimates of areas and accuracies.

    Args:
        counts: Samples, (K, K): rows are the classes of the map, columns of the reference.
        mapped: Share of the map of each class, (K,), or its area in any unit.

    Raises:
        LabelError: If a class of the map has fewer than two samples: its error is unknown.
    """
    n = counts.sum(axis=1).astype(np.float64)
    weight = mapped / mapped.sum()
    there = weight > 0
    few = np.flatnonzero(there & (n < 2))
    if len(few):
        raise LabelError(
            "an area needs two samples or more in each class of the map",
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


def _producers_error(weight: Floats, spread: Floats, producers: Floats, area: Floats) -> Floats:
    """Equation 7, with areas as shares: they cancel."""
    squares = weight[:, None] ** 2 * spread
    own = np.diag(squares)
    others = squares.sum(axis=0) - own
    variance = (1 - producers) ** 2 * own + producers**2 * others
    positive = np.where(area > 0, area, np.nan)
    return np.asarray(np.sqrt(variance) / positive, np.float64)
