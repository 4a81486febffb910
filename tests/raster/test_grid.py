"""Grids and windows."""

from __future__ import annotations

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from eofm.errors import RasterError
from eofm.raster.grid import Grid, Window, windows

UTM = CRS.from_epsg(32632)


def grid(a: float = 10.0, e: float = -10.0, x: float = 5e5, y: float = 5.4e6, n: int = 60) -> Grid:
    """Make a square grid in UTM."""
    return Grid(UTM, Affine(a, 0, x, 0, e, y), n, n)


@pytest.mark.parametrize(
    ("crs", "a", "e", "gsd"),
    [
        (32632, 10.0, -10.0, 10.0),
        (32632, 9.997, -10.0155, 10.0),  # EuroSAT
        (32632, 20.0, -20.0, 20.0),
        (32632, 2.5, -2.5, 2.5),
        (4326, 6e-5, -8.983e-5, 10.0),  # an export in degrees, far north
        (2263, 32.8083333, -32.8083333, 10.0),  # US survey feet
    ],
)
def test_gsd_is_in_metres(crs: int, a: float, e: float, gsd: float) -> None:
    """Pixels are measured in metres whatever the CRS counts in, and 9.997 m are called 10."""
    made = Grid(CRS.from_epsg(crs), Affine(a, 0, 10, 0, e, 60), 10, 10)

    assert gsd == made.gsd


def test_no_crs_is_an_error_only_when_asked() -> None:
    """A grid without CRS has bounds, but no centre on the globe and no GSD."""
    nowhere = Grid(None, Affine(1, 0, 0, 0, 1, 0), 4, 6)

    assert (0, 0, 6, 4) == nowhere.bounds
    for question in (lambda: nowhere.gsd, nowhere.centre):
        with pytest.raises(RasterError, match="where it lies"):
            question()


def test_centre_is_in_wgs84() -> None:
    """The centre is that of the middle pixel corner, transformed by PROJ."""
    lon, lat = warp_points(UTM, CRS.from_epsg(4326), [5e5 + 300], [5.4e6 - 300])

    assert (round(lon[0], 7), round(lat[0], 7)) == grid().centre()


def test_window_has_its_own_origin() -> None:
    """The grid of a window begins at the window's corner."""
    part = grid().at(Window(3, 5, 7, 9))

    assert (7, 9) == (part.height, part.width)
    assert (5e5 + 50, 5.4e6 - 30) == part.point(0, 0)
    assert (5e5 + 50, 5.4e6 - 100, 5e5 + 140, 5.4e6 - 30) == part.bounds


def test_pixels_coincide_despite_the_last_digits() -> None:
    """Origins that differ by 1e-9 m are the same grid, and an offset is in whole pixels."""
    assert (0, 0) == grid(x=5e5 + 1e-9).offset_in(grid())
    assert (-4, 12) == grid(x=5e5 + 120, y=5.4e6 + 40).offset_in(grid())


@pytest.mark.parametrize(
    "other",
    [
        grid(x=5e5 + 5),
        grid(a=10.01),
        grid(a=20, e=-20),
        grid(y=5.4e6 + 0.1),
        Grid(CRS.from_epsg(32633), grid().transform, 60, 60),
    ],
)
def test_pixels_that_do_not_coincide(other: Grid) -> None:
    """Half a pixel aside, pixels of another size, or another CRS are another grid."""
    assert other.offset_in(grid()) is None


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_are_all_that_fit(height: int, width: int, size: int, stride: int) -> None:
    """Windows are exactly the squares at multiples of the stride that lie inside, in order."""
    expected = [
        (row, col)
        for row in range(height)
        for col in range(width)
        if row % stride == 0 and col % stride == 0
        if row + size <= height and col + size <= width
    ]

    assert expected == [(w.row, w.col) for w in windows(height, width, size, stride)]
