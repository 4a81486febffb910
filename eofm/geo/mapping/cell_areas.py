"""How much ground a cell is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform as warp_points

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
