"""Pixel windows, and grids of pixels with their CRS.

Rows are counted from the first line of the file, columns from its first sample.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from pathlib import Path
from shlex import quote
from typing import Final

from affine import Affine
from rasterio._err import CPLE_BaseError  # raised by the warper, not a RasterioError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform as warp_points

from eofm.contract.imagery import Georeference
from eofm.errors import RasterError

__all__ = [
    "EXAMPLE_TRANSFORM",
    "Grid",
    "Window",
    "check_proj",
    "corners",
    "crs_text",
    "name_file",
    "read_crs",
    "to_wgs84",
    "utm_of",
    "warp_command",
    "windows",
]

# WGS 84: semi-major axis in metres and squared eccentricity (NIMA TR8350.2, tables 3.1 and 3.3)
_AXIS: Final = 6_378_137.0
_ECCENTRICITY_2: Final = 6.694379990141e-3
_SMALLEST: Final = 1e-3  # metres; smaller pixels mean a transform in degrees with a CRS in metres
EXAMPLE_TRANSFORM: Final = "[10, 0, 500000, 0, -10, 5400000]"  # for the examples in remedies
_UTM: Final = re.compile(r"32[67](0[1-9]|[1-5]\d|60)")  # zones of WGS 84, without the polar 61
_ALIKE: Final = 0.02  # pixel sizes that differ by less are considered equal


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int

    @classmethod
    def of(cls, window: Sequence[int]) -> Window:
        """Return the window given by four numbers.

        Raises:
            RasterError: If they are not four numbers.
        """
        try:
            row, col, height, width = map(index, window)
        except (TypeError, ValueError):
            raise RasterError(
                "a window must be four integers",
                found=window,
                expected="first row, first column, height, width",
                remedy="state it as in window=(0, 0, 240, 240)",
            ) from None
        return cls(row, col, height, width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices, to index an array."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )


@dataclass(frozen=True)
class Grid:
    """Georeferenced rows and columns.

    Args:
        crs: Coordinate reference system; None if the file has none.
        transform: From (column, row) of a pixel corner to coordinates.
        height: Rows.
        width: Columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, place: Georeference, height: int, width: int) -> Grid:
        """Return the grid of a georeferenced image.

        Raises:
            RasterError: If PROJ does not know its CRS.
        """
        crs = None if place.crs is None else read_crs(place.crs)
        return cls(crs, Affine(*place.transform), height, width)

    @property
    def georeference(self) -> Georeference | None:
        """The georeference as kept in an `Imagery`; None if there is no CRS and no transform."""
        if self.crs is None and self.transform == Affine.identity():
            return None
        t = self.transform
        crs = None if self.crs is None else crs_text(self.crs)
        return Georeference(crs, (t.a, t.b, t.c, t.d, t.e, t.f))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in the CRS of the grid."""
        corners = [self.point(x, y) for x in (0, self.width) for y in (0, self.height)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def gsd(self) -> float:
        """Ground sample distance in metres, rounded to a whole number that is within 2 %.

        It is measured on the ground at the centre, on the WGS 84 ellipsoid, because map units are
        not metres on the ground: 10 units of EPSG:3857 are 5 m at 60 degrees north. If the two
        differ by less than 2 %, the map units are used, so that all pixels of a UTM zone are equal
        from its middle (scale 0.9996) to its edges. Pixels of 9.997 by 10.016 m (EuroSAT) and of
        8.98e-5 degrees (SSL4EO) are both the 10 m of Sentinel-2, and must have the same value.
        The longer side of oblong pixels counts: the detail resolved in both directions. In degrees
        it is the height, which does not shrink towards the poles.

        Raises:
            RasterError: If the grid has no CRS or one that is not on the Earth, or rows do not run
                along a parallel.
        """
        metres = max(self._pixel())
        if metres < _SMALLEST:
            raise _misplaced(self.require_crs(), self.point(0, 0), f"pixels of {metres:g} m")
        whole = round(metres)
        return float(whole) if whole and abs(metres / whole - 1) < _ALIKE else round(metres, 3)

    def _pixel(self) -> tuple[float, float]:
        """Return width and height of the pixel at the centre, in metres on the ground."""
        crs, t = self.require_crs(), self.transform
        if abs(t.b) > abs(t.e) or abs(t.d) > abs(t.a) or t.a < 0 or not t.determinant:
            raise RasterError(
                "the rows of the image do not run from west to east",
                found=f"a step along a row goes ({t.a:g}, {t.d:g}), and along a column "
                f"({t.b:g}, {t.e:g})",
                expected="rows along the first axis of the coordinates, columns along the second",
                remedy=f"resample it north up: {self._warp()}",
            )
        x, y = self.point(self.width / 2, self.height / 2)
        if _is_inside_utm(crs, x, y):
            return math.hypot(t.a, t.d), math.hypot(t.b, t.e)
        if _is_beyond_utm(crs, x, y):
            raise _misplaced(crs, (x, y), "a place far from its zone")
        longitudes, latitudes = to_wgs84(crs, [x, x + t.a, x + t.b], [y, y + t.d, y + t.e])
        wide = _distance(longitudes[0], latitudes[0], longitudes[1], latitudes[1])
        high = _distance(longitudes[0], latitudes[0], longitudes[2], latitudes[2])
        if not crs.is_projected:
            return wide, high
        unit = crs.linear_units_factor[1]
        stated = math.hypot(t.a, t.d) * unit, math.hypot(t.b, t.e) * unit
        alike = abs(wide / stated[0] - 1) < _ALIKE and abs(high / stated[1] - 1) < _ALIKE
        return stated if alike else (wide, high)

    def require_crs(self) -> CRS:
        """Return the CRS.

        Raises:
            RasterError: If there is none, or no transform to it.
        """
        if self.crs is None or self.transform.is_identity:
            raise RasterError(
                "the image has no georeference",
                found="no coordinate reference system"
                if self.crs is None
                else "no transform from pixels to coordinates",
                expected="a georeferenced file",
                remedy=self._to_georeference(),
            )
        return self.crs

    def _to_georeference(self) -> str:
        """Return the remedy that adds the missing part of a georeference to a file."""
        example, transform = (
            "rio edit-info --crs EPSG:32632",
            f" --transform '{EXAMPLE_TRANSFORM}' FILE",
        )
        if not self.transform.is_identity:
            return f"write the CRS of its coordinates into the file, as in: {example} FILE"
        if self.crs is not None:
            example = "rio edit-info"
            return f"write the transform into the file, as in: {example}{transform}"
        return f"write CRS and transform into the file, as in: {example}{transform}"

    def _warp(self) -> str:
        """Return the command that brings the image to a grid with rows from west to east.

        In a CRS of its own that has a name, pixels keep their size: turned by right angles or
        mirrored, they keep their values and places too.
        """
        own = "" if self.crs is None else crs_text(self.crs)
        try:
            to = own if len(own) < _NAME else utm_of(*self.centre())
            middle = self.width // 2, self.height // 2
            ends = [(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)]
            steps = [middle, (middle[0] + 1, middle[1]), (middle[0], middle[1] + 1)]
            places = [self.point(*place) for place in (*ends, *steps)]
            if to != own:
                xs, ys = zip(*places, strict=True)
                places = list(zip(*warp_points(self.crs, read_crs(to), xs, ys), strict=True))
        except (RasterError, CRSError, CPLE_BaseError):
            return warp_command("FILE", "EPSG:4326")
        (x, y), (x1, y1), (x2, y2) = places[4:]
        along, down = math.hypot(x1 - x, y1 - y), math.hypot(x2 - x, y2 - y)
        wide, high = (along, down) if abs(x1 - x) >= abs(x2 - x) else (down, along)
        if not wide * high:
            return warp_command("FILE", to)
        west, east = min(x for x, _ in places), max(x for x, _ in places)
        south, north = min(y for _, y in places), max(y for _, y in places)
        corner = ", ".join(f"{number:.12g}" for number in (west, north, wide, high))
        return warp_command(
            "FILE",
            to,
            f", transform=rasterio.transform.from_origin({corner}), "
            f"width={math.ceil((east - west) / wide - _SHARE)}, "
            f"height={math.ceil((north - south) / high - _SHARE)}",
        )

    def at(self, window: Window) -> Grid:
        """Return the grid of a window of this grid."""
        x, y = self.point(window.col, window.row)
        t = self.transform
        origin = Affine(t.a, t.b, x, t.d, t.e, y)
        return Grid(self.crs, origin, window.height, window.width)

    def point(self, col: float, row: float) -> tuple[float, float]:
        """Return the coordinates of a pixel position; (0, 0) is the outer corner."""
        return _apply(self.transform, col, row)

    def centre(self) -> tuple[float, float]:
        """Return longitude and latitude of the centre in WGS 84, to 1e-7 degree (1 cm).

        Raises:
            RasterError: If the grid has no CRS, or one that is not on the Earth.
        """
        return self.centres([Window(0, 0, self.height, self.width)])[0]

    def centres(self, windows: Sequence[Window]) -> list[tuple[float, float]]:
        """Return longitude and latitude of the centre of each window, as `centre` does.

        One call to PROJ for all of them: its overhead is a fifth of packing if each has its own.
        """
        if not windows:
            return []
        middles = [self.point(w.col + w.width / 2, w.row + w.height / 2) for w in windows]
        xs, ys = zip(*middles, strict=True)
        places = zip(*to_wgs84(self.require_crs(), xs, ys), strict=True)
        return [(round(longitude, 7), round(latitude, 7)) for longitude, latitude in places]

    def offset_in(self, other: Grid) -> tuple[int, int] | None:
        """Return row and column of the corner of this grid in `other`, if their pixels coincide.

        Programs that write the same grid can differ in the last digits of the origin (by 1e-9 m
        between the modalities of TerraMesh), so corners may be off by a thousandth of a pixel.

        Returns:
            The offset in whole pixels, or None if the pixels do not coincide.
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


def to_wgs84(crs: CRS, xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return longitudes and latitudes of points.

    Raises:
        RasterError: If the CRS is not on the Earth, the points are outside of it, or PROJ does not
            find its database.
    """
    if not crs.is_geographic and not crs.is_projected:
        raise _unearthly(crs)  # a site plan, heights, or geocentric
    try:
        longitudes, latitudes = warp_points(crs, CRS.from_epsg(4326), list(xs), list(ys))
    except (CRSError, CPLE_BaseError) as error:
        check_proj(str(error))
        raise _unearthly(crs) from error
    outside = [y for x, y in zip(longitudes, latitudes, strict=True) if not math.isfinite(x + y)]
    if outside or max(map(abs, latitudes)) > 90.0001:
        raise _misplaced(crs, (xs[0], ys[0]), "a position that does not exist on the Earth")
    return longitudes, latitudes


def corners(grid: Grid) -> tuple[tuple[float, float], ...]:
    """Return the corners of a grid as a ring of longitudes and latitudes; empty without CRS."""
    if grid.crs is None:
        return ()
    places = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height), (0, 0)]
    xs, ys = zip(*(grid.point(*place) for place in places), strict=True)
    try:
        return tuple(zip(*to_wgs84(grid.crs, xs, ys), strict=True))
    except RasterError:
        return ()  # a CRS without a position on the Earth


def _is_inside_utm(crs: CRS, x: float, y: float) -> bool:
    """Return whether a point is where metres of a UTM zone are metres on the ground.

    Within 500 km of the middle of a zone, the scale is between 0.9996 and 1.003 in all directions.
    Measuring the pixel would take a tenth of the time to read a small file.
    """
    return _is_utm(crs) and 0 <= x <= 1e6 and 0 <= y <= 9.4e6


def _is_beyond_utm(crs: CRS, x: float, y: float) -> bool:
    """Return whether a point is further from its UTM zone than a mosaic of a country reaches.

    PROJ maps such coordinates, as of swapped axes (easting 6,000,000), to another continent.
    """
    south = 1e7 * crs_text(crs).startswith("EPSG:327")  # false northing of the southern zones
    return _is_utm(crs) and (abs(x - 5e5) > _FAR or abs(y - south) > _POLE)


_FAR: Final = 3e6  # metres from the middle of a zone: 27 degrees at the equator
_POLE: Final = 1.01e7  # metres from the equator, rounded up


def _is_utm(crs: CRS) -> bool:
    authority, _, code = crs_text(crs).partition(":")
    return authority == "EPSG" and _UTM.fullmatch(code) is not None


def _unearthly(crs: CRS) -> RasterError:
    return RasterError(
        "the CRS of the image is not on the Earth",
        found=str(crs.to_wkt())[:80],
        expected="a geographic or projected CRS",
        remedy="if its true CRS is known, write it into the file, as in: "
        "rio edit-info --crs EPSG:32632 FILE",
    )


def _misplaced(crs: CRS, place: tuple[float, float], found: str) -> RasterError:
    return RasterError(
        "the coordinates of the image do not fit its CRS",
        found=f"{found}, at ({place[0]:g}, {place[1]:g})",
        expected=f"longitude or easting first, in the units of {crs.to_string()[:60]}",
        remedy="write the true CRS and transform into the file, as in: rio edit-info "
        f"--crs EPSG:32632 --transform '{EXAMPLE_TRANSFORM}' FILE",
    )


def name_file(error: RasterError, file: Path) -> None:
    """Name a file in an error about its grid, and in its remedy in place of `FILE`."""
    error.where = file
    error.remedy = (error.remedy or "").replace("FILE", quote(str(file))) or None


def check_proj(message: str) -> None:
    """Check that a message of PROJ or GDAL does not report a missing PROJ database.

    Raises:
        RasterError: If it does.
    """
    if "proj.db" not in message:
        return
    names = [name for name in ("PROJ_DATA", "PROJ_LIB") if os.environ.get(name)]
    name = " and ".join(names) or "PROJ_DATA"
    raise RasterError(
        "PROJ does not find its database of coordinate reference systems, or finds that of "
        "another installation",
        found=", ".join(f"{n}={os.environ[n]}" for n in names) or message,
        expected="the proj.db that comes with rasterio",
        remedy=f"unset {name} (another program has set it), as in: env "
        + " ".join(f"-u {n}" for n in names or ["PROJ_DATA"])
        + " eofm ...",
    )


_NAME: Final = 20  # letters of an authority code; WKT has more
_SHARE: Final = 1e-3  # of a pixel that is no row or column of its own


def warp_command(file: str, crs: str, options: str = "") -> str:
    """Return the command that warps an image to `OUT.tif`, with names, scales and nodata of bands.

    Args:
        file: Path of the image, quoted for a shell.
        crs: Authority code of the CRS of the output.
        options: Further arguments of rasterio's `WarpedVRT`, each after a comma.
    """
    return (
        'python -c "import rasterio, sys; from rasterio.shutil import copy; '
        "from rasterio.vrt import WarpedVRT; copy(WarpedVRT(rasterio.open(sys.argv[1]), "
        f"crs='{crs}'{options}), sys.argv[2], driver='GTiff')\" {file} OUT.tif"
    )


def utm_of(longitude: float, latitude: float) -> str:
    """Return the UTM zone of a position.

    >>> utm_of(9.0, 48.0), utm_of(-179.9, -10.0)
    ('EPSG:32632', 'EPSG:32701')
    """
    zone = int((longitude + 180) % 360 // 6) + 1
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


def _distance(lon: float, lat: float, other_lon: float, other_lat: float) -> float:
    """Return the distance between two nearby points, in metres.

    Uses the radii of curvature of the meridian and of the prime vertical (Snyder 1987, USGS
    Professional Paper 1395, equations 4-18 and 4-20).
    """
    sine = math.sin(math.radians((lat + other_lat) / 2))
    root = math.sqrt(1 - _ECCENTRICITY_2 * sine * sine)
    meridian = _AXIS * (1 - _ECCENTRICITY_2) / root**3
    east = math.radians((other_lon - lon + 180) % 360 - 180) * _AXIS / root
    north = math.radians(other_lat - lat) * meridian
    return math.hypot(east * math.sqrt(1 - sine * sine), north)


def windows(height: int, width: int, size: int, stride: int) -> Iterator[Window]:
    """Yield the square windows at multiples of `stride` that are wholly inside, row by row."""
    for row in range(0, height - size + 1, stride):
        for col in range(0, width - size + 1, stride):
            yield Window(row, col, size, size)


def crs_text(crs: CRS) -> str:
    """Return a CRS as an authority code if that code means the same CRS, otherwise as WKT."""
    return _code_or_wkt(crs.wkt)  # cached by its text: each file creates a new CRS object


@lru_cache(maxsize=64)
def _code_or_wkt(wkt: str) -> str:
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority(confidence_threshold=100)
    if authority is not None:
        code = ":".join(authority)
        if read_crs(code) == crs:
            return code
    return wkt


@lru_cache(maxsize=64)
def read_crs(text: str) -> CRS:
    """Return the CRS given by an authority code or WKT.

    Raises:
        RasterError: If there is no such CRS.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise RasterError(
            "this is not a coordinate reference system",
            found=text,
            expected="a name such as EPSG:32632, or WKT",
        ) from error
