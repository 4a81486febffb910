"""Cells in rows and columns: patches as they are, chips as far as they lie on a lattice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray

from eofm.errors import DataError
from eofm.geo.cells import Cells, GridCells, Index, metric_centres, zone_of
from eofm.probes.knn import Neighbours
from eofm.raster.grid import Grid

_OFF: Final = 0.35  # of a step, by which a chip may be beside its place


@dataclass(frozen=True, eq=False)
class Lattice:
    """Which cell stands in which row and column.

    Args:
        grid: Of the rows and columns.
        cells: Number of the cell, (rows, columns); -1 where there is none.
    """

    grid: Grid
    cells: Index


def lattice_of(cells: Cells) -> Lattice:
    """Return the rows and columns of cells.

    Args:
        cells: Patches, or chips at equal steps in the UTM zone of their middle.

    Raises:
        DataError: If chips do not lie at equal steps.
    """
    if isinstance(cells, GridCells):
        grid = cells.patches.grid
        numbers = np.arange(grid.height * grid.width).reshape(grid.height, grid.width)
        return Lattice(grid, np.where(cells.patches.valid, numbers, -1))
    which = np.flatnonzero(cells.valid)
    xy = metric_centres(cells, which)
    step = _step(xy)
    low = xy.min(axis=0)
    place = (xy - low) / step
    col, up = np.rint(place).astype(np.int64).T
    row = up.max() - up
    off = np.abs(place - np.rint(place)).max()
    table = np.full((int(row.max()) + 1, int(col.max()) + 1), -1, np.int64)
    table[row, col] = which
    if off > _OFF or int((table >= 0).sum()) < len(which):
        raise DataError(
            "the chips do not lie in rows and columns",
            found=f"steps of about {step:.0f} m, and chips {off * step:.0f} m beside their place",
            expected="one size and one step, in one UTM zone",
            remedy="embed the scene by patches: eofm embed SCENE --model M --patches --out DIR",
        )
    top, left = low[1] + up.max() * step + step / 2, low[0] - step / 2
    return Lattice(
        Grid(zone_of(cells, which), Affine(step, 0, left, 0, -step, top), *table.shape), table
    )


def _step(xy: NDArray[np.float64]) -> float:
    """Return the usual distance to the nearest other chip."""
    if len(xy) < 2:
        return 1.0
    places = torch.from_numpy(xy)
    nearest = Neighbours(places).nearest(places, 2)[:, 1].numpy()
    return max(float(np.median(np.hypot(*(xy - xy[nearest]).T))), 1e-6)
