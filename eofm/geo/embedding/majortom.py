"""Chips on a named grid, so that every scene of a place has the same ones: Major TOM.

The sphere is cut along parallels into rows of about one distance, and each row along meridians into
cells of about that distance; a cell is named by its row up or down from the equator and its column
right or left of Greenwich, and lies north-east of its point (Francis and Czerkawski 2024, arXiv
2402.12095; github.com/ESA-PhiLab/Major-TOM). Here the distance is the side of a chip on the ground.
A chip is the square of pixels around the middle of its cell: two scenes of a place have chips of
one name that differ by at most half a pixel, or a pixel where their grids differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from eofm.errors import DataError
from eofm.geo.embedding.chips_job import ChipPlaces
from eofm.raster.grid import Grid, to_wgs84

_RADIUS: Final = 6_378_137.0  # metres: the sphere of Major TOM
_POLES: Final = 85.0  # degrees of latitude up to which the grid is laid
_EDGE: Final = 21  # points of each edge of a scene: a straight one is bent on the sphere


@dataclass(frozen=True)
class MajorTom:
    """The grid of one distance.

    Args:
        metres: The distance.
    """

    metres: float

    @property
    def name(self) -> str:
        """What the grid is called."""
        return f"majortom-{self.metres / 1000:g}km"

    @property
    def _rows(self) -> int:
        return math.ceil(math.pi * _RADIUS / self.metres)

    @property
    def height(self) -> float:
        """Degrees of latitude of a row."""
        return 180 / self._rows

    def width(self, row: int) -> float:
        """Degrees of longitude of a cell of a row, which is counted from the equator."""
        around = 2 * math.pi * _RADIUS * math.cos(math.radians(row * self.height))
        return 360 / math.ceil(around / self.metres)

    def label(self, row: int, column: int) -> str:
        """Return the name of a cell, as in `612U_34L`."""
        up = f"{row}U" if row >= 0 else f"{-row}D"
        return f"{up}_{column}R" if column >= 0 else f"{up}_{-column}L"


def cell_places(grid: Grid, side: int, gsd: float) -> ChipPlaces:
    """Return the chips of a scene on the named grid, from north to south and from west to east.

    Args:
        grid: Of the pixels.
        side: Of a chip, in pixels.
        gsd: Metres per pixel.

    Raises:
        DataError: If no cell has its middle in the scene.
        RasterError: If the scene lies nowhere.
    """
    cells = MajorTom(side * gsd)
    west, south, east, north = _extent(grid)
    south, north = max(south, -_POLES), min(north, _POLES)
    rows = range(math.floor(south / cells.height), math.floor(north / cells.height) + 1)
    labels: list[str] = []
    tops: list[NDArray[np.int64]] = []
    lefts: list[NDArray[np.int64]] = []
    for row in reversed(rows):
        width = cells.width(row)
        columns = np.arange(math.floor(west / width), math.floor(east / width) + 1)
        x, y = _pixels(grid, (columns + 0.5) * width, (row + 0.5) * cells.height)
        inside = (x >= 0) & (x < grid.width) & (y >= 0) & (y < grid.height)
        around = round(360 / width)
        # beyond 180 degrees the columns are counted from the other side
        names = (columns[inside] + around // 2) % around - around // 2
        labels += [cells.label(row, int(column)) for column in names]
        lefts.append(np.rint(x[inside] - side / 2).astype(np.int64))
        tops.append(np.rint(y[inside] - side / 2).astype(np.int64))
    if not labels:
        raise DataError(
            "no cell of the named grid lies in the scene",
            found=f"{grid.height} x {grid.width} pixels of {gsd:g} m",
            expected=f"space for the middle of a cell of {cells.metres:g} m",
            remedy="take smaller chips, or those of the scene: --grid scene",
        )
    ids = np.array(labels, object)
    return ChipPlaces(ids, np.concatenate(tops), np.concatenate(lefts), side)


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """Return west, south, east and north; east is above 180 of a scene that crosses there."""
    part = np.linspace(0, 1, _EDGE)
    corners = [(0, 0, 1, 0), (1, 0, 1, 1), (1, 1, 0, 1), (0, 1, 0, 0)]
    points = [
        grid.point((a + (c - a) * t) * grid.width, (b + (d - b) * t) * grid.height)
        for a, b, c, d in corners
        for t in part
    ]
    xs, ys = zip(*points, strict=True)
    longitudes, latitudes = map(np.array, to_wgs84(grid.require_crs(), xs, ys))
    if np.ptp(longitudes) > 180:
        longitudes = np.where(longitudes < 0, longitudes + 360, longitudes)
    return longitudes.min(), latitudes.min(), longitudes.max(), latitudes.max()


def _pixels(
    grid: Grid, longitudes: NDArray[np.floating[Any]], latitude: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return column and row, in fractions of pixels, of points on one parallel."""
    latitudes = [latitude] * len(longitudes)
    crs = grid.require_crs()
    if crs.is_geographic:
        # longitudes beyond 180 are those of the scene's own counting
        x, y = np.array(longitudes), np.array(latitudes)
        if crs != CRS.from_epsg(4326):
            x, y = map(np.array, warp_points(CRS.from_epsg(4326), crs, x, y))
        if grid.transform.c < -180 or grid.bounds[0] < x.min() - 180:
            x = x - 360
    else:
        x, y = map(np.array, warp_points(CRS.from_epsg(4326), crs, list(longitudes), latitudes))
    inverse = ~grid.transform
    return inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
