"""Where the pixels lie: a pixel window, and a grid with its CRS.

Rows count from the first line of the file, columns from its first sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform as warp_points

from eofm.errors import RasterError

_METRES_PER_DEGREE = 111_320.0  # of latitude, mean over the ellipsoid


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices, as arrays take them."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )


@dataclass(frozen=True)
class Grid:
    """Georeferenced rows and columns.

    Args:
        crs: Coordinate reference system; None where the file states none.
        transform: From (column, row) of a pixel's corner to coordinates.
        height: Rows.
        width: Columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in the grid's CRS."""
        corners = [self.point(x, y) for x in (0, self.width) for y in (0, self.height)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def gsd(self) -> float:
        """Ground sample distance in metres, within 2 % of a whole number: that number.

        EuroSAT's pixels of 9.997 by 10.016 m and SSL4EO's of 8.98e-5 degrees are both the 10 m
        of Sentinel-2, and images of one kind must say the same. In degrees it is the height of
        a pixel, which does not shrink towards the poles.

        Raises:
            RasterError: If the grid has no CRS.
        """
        crs = self.require_crs()
        if crs.is_geographic:
            metres = abs(self.transform.e) * _METRES_PER_DEGREE
        else:
            metres = math.sqrt(abs(self.transform.determinant)) * crs.linear_units_factor[1]
        whole = round(metres)
        return float(whole) if whole and abs(metres / whole - 1) < 0.02 else round(metres, 3)

    def require_crs(self) -> CRS:
        """Return the CRS.

        Raises:
            RasterError: If there is none.
        """
        if self.crs is None:
            raise RasterError(
                "the image says nothing about where it lies",
                found="no coordinate reference system",
                expected="a georeferenced file",
                remedy="write the CRS into it, as in: rio edit-info --crs EPSG:32632 FILE",
            )
        return self.crs

    def at(self, window: Window) -> Grid:
        """Return the grid of a window of this one."""
        x, y = self.point(window.col, window.row)
        t = self.transform
        origin = Affine(t.a, t.b, x, t.d, t.e, y)
        return Grid(self.crs, origin, window.height, window.width)

    def point(self, col: float, row: float) -> tuple[float, float]:
        """Return the coordinates of a place given in pixels, (0, 0) being the outer corner."""
        return _apply(self.transform, col, row)

    def centre(self) -> tuple[float, float]:
        """Return longitude and latitude of the centre in WGS 84, to 1e-7 degree (1 cm)."""
        x, y = self.point(self.width / 2, self.height / 2)
        longitude, latitude = warp_points(self.require_crs(), CRS.from_epsg(4326), [x], [y])
        return round(longitude[0], 7), round(latitude[0], 7)

    def offset_in(self, other: Grid) -> tuple[int, int] | None:
        """Return row and column of this grid's corner in `other`, if their pixels coincide.

        Two writers of one grid can differ in the last digits of the origin (by 1e-9 m between
        the modalities of TerraMesh), so pixels coincide when no corner is off by more than a
        thousandth of a pixel.

        Returns:
            The offset in whole pixels, or None where the pixels of the two do not coincide.
        """
        if self.crs != other.crs:
            return None
        there = ~other.transform
        shifts = []
        for x in (0, self.width):
            for y in (0, self.height):
                col, row = _apply(there, *self.point(x, y))
                shifts.append((row - y, col - x))
        row, col = round(shifts[0][0]), round(shifts[0][1])
        if any(abs(dy - row) > 1e-3 or abs(dx - col) > 1e-3 for dy, dx in shifts):
            return None
        return row, col


def _apply(transform: Affine, x: float, y: float) -> tuple[float, float]:
    # by hand: affine 2 has no `@`, affine 3 deprecates `*`
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def windows(height: int, width: int, size: int, stride: int) -> Iterator[Window]:
    """Yield the square windows at multiples of `stride` that lie wholly inside, row by row."""
    for row in range(0, height - size + 1, stride):
        for col in range(0, width - size + 1, stride):
            yield Window(row, col, size, size)


@lru_cache(maxsize=64)
def crs_text(crs: CRS) -> str:
    """Return a CRS as an authority code where that code means the same CRS, else as WKT."""
    authority = crs.to_authority(confidence_threshold=100)
    if authority is not None:
        code = ":".join(authority)
        if read_crs(code) == crs:
            return code
    wkt: str = crs.to_wkt()
    return wkt


@lru_cache(maxsize=64)
def read_crs(text: str) -> CRS:
    """Return the CRS that an authority code or WKT names.

    Raises:
        RasterError: If it names none.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise RasterError(
            "this is no coordinate reference system",
            found=text,
            expected="a name such as EPSG:32632, or WKT",
        ) from error
