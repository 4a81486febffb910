"""Grids and windows."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points
from remedies import run_python, run_rio

import eofm
from eofm.errors import RasterError
from eofm.raster.grid import Grid, Window, windows

UTM = CRS.from_epsg(32632)
LOCAL = 'LOCAL_CS["plan",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


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


@pytest.mark.parametrize(
    ("crs", "x", "y", "step"),
    [
        (3857, 1_113_194, 8_399_737, 10),  # 60 degrees north: 5 m
        (3857, 0, 0, 10),
        (3857, -5_000_000, -5_012_341, 30),
        (3035, 4_321_000, 3_210_000, 10),
        (3995, 0, -1_500_000, 10),
        (4087, 1_113_194, 6_679_169, 10),  # degrees of longitude stretched to those of latitude
        (6933, 1_000_000, 6_000_000, 10),  # true to area, so twice as high as wide there
        (4326, 10, 60, 1e-4),
        (4326, 179.9999, -45, 1e-4),
        (2263, 1_000_000, 200_000, 30),
    ],
)
def test_gsd_is_that_of_the_ground(crs: int, x: float, y: float, step: float) -> None:
    """The longer side of a pixel is what the geodesic of PROJ says, in any projection."""
    made = Grid(CRS.from_epsg(crs), Affine(step, 0, x, 0, -step, y), 8, 8)
    geod = pyproj.Geod(ellps="WGS84")
    centre, east, south = ((x + dx * step, y - dy * step) for dx, dy in ((4, 4), (5, 4), (4, 5)))
    lon, lat = warp_points(
        made.crs, CRS.from_epsg(4326), *map(list, zip(centre, east, south, strict=True))
    )
    sides = [geod.inv(lon[0], lat[0], lon[k], lat[k])[2] for k in (1, 2)]

    assert made.gsd == pytest.approx(max(sides), rel=0.02)


@given(
    zone=st.integers(1, 60),
    south=st.booleans(),
    east=st.floats(0, 1e6),
    north=st.floats(0, 9.3e6),
)
def test_metres_of_a_utm_zone_are_those_of_the_ground(
    zone: int, south: bool, east: float, north: float
) -> None:
    """Where nothing is measured, pyproj finds no more than 0.4 % between map and ground."""
    code = 32600 + 100 * south + zone
    made = Grid(CRS.from_epsg(code), Affine(10, 0, east, 0, -20, north), 1, 1)
    to_degrees = pyproj.Transformer.from_crs(code, 4326, always_xy=True)
    lons, lats = to_degrees.transform([east + 5, east + 5], [north, north - 20])
    _, _, ground = pyproj.Geod(ellps="WGS84").inv(lons[0], lats[0], lons[1], lats[1])

    assert made.gsd == 20
    assert ground == pytest.approx(20, rel=0.004)


@pytest.mark.parametrize(("crs", "x"), [(32661, 2e6), (3857, 5e5), (32632, 3e6)])
def test_other_metres_are_measured(crs: int, x: float) -> None:
    """Only the zones themselves are taken at their word, and only where they are made for."""
    made = Grid(CRS.from_epsg(crs), Affine(10, 0, x, 0, -10, 6.5e6), 1, 1)

    assert made.gsd != 10


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [(32632, 6e6, 5e5), (32632, 5e5, 2e7), (32732, 5e5, -2e6), (32601, -3e6, 4e6)],
)
def test_a_place_far_from_its_zone_is_none(crs: int, x: float, y: float) -> None:
    """PROJ takes exchanged axes to another continent, and a northing of 2e7 around the pole."""
    with pytest.raises(RasterError, match="do not fit its CRS") as caught:
        _ = Grid(CRS.from_epsg(crs), Affine(10, 0, x, 0, -10, y), 1, 1).gsd

    assert "far from its zone" in str(caught.value.found)


@pytest.mark.parametrize(("crs", "x", "y"), [(32632, 5e5, -2e6), (32732, 5e5, 1.05e7)])
def test_zones_reach_across_the_equator(crs: int, x: float, y: float) -> None:
    """Landsat's products of the south are in northern zones, with negative northing."""
    assert 10 == Grid(CRS.from_epsg(crs), Affine(10, 0, x, 0, -10, y), 1, 1).gsd


def test_gsd_in_web_mercator() -> None:
    """10 units of EPSG:3857 at 60 degrees north are 5 m."""
    at_60 = Affine(10, 0, 1_113_194, 0, -10, 8_399_737)

    assert 5.0 == Grid(CRS.from_epsg(3857), at_60, 64, 64).gsd


@pytest.mark.parametrize("east", [166_000, 500_000, 834_000])
def test_gsd_is_one_in_all_of_a_zone(east: float) -> None:
    """The scale of UTM, 0.9996 in the middle, changes no digit of a pixel size."""
    for step in (2.5, 10.0, 13.37):
        assert step == grid(a=step, e=-step, x=east).gsd


@pytest.mark.parametrize("degrees", [0, 10, -30, 44])
def test_a_rotated_pixel_is_as_long(degrees: float) -> None:
    """Rotation by less than 45 degrees changes nothing of the size, nor do rows from the south."""
    turned = Affine.translation(5e5, 5.4e6) @ Affine.rotation(degrees) @ Affine.scale(10, -10)

    assert 10.0 == Grid(UTM, turned, 60, 60).gsd
    assert 10.0 == Grid(UTM, Affine(10, 0, 5e5, 0, 10, 5.4e6), 60, 60).gsd


@pytest.mark.parametrize(
    ("crs", "transform", "problem"),
    [
        ("EPSG:4326", Affine(0, 9e-5, 10, 9e-5, 0, 50), "from west to east"),
        ("EPSG:32632", Affine(0, 10, 5e5, 10, 0, 5.4e6), "from west to east"),
        ("EPSG:32632", Affine(1, 0, 0, 0, 1, 0), "no georeference"),
        ("EPSG:32632", Affine(9e-5, 0, 10, 0, -9e-5, 50), "do not fit its CRS"),
        ("EPSG:4326", Affine(10, 0, 5e5, 0, -10, 5.4e6), "do not fit its CRS"),
        (LOCAL, Affine(10, 0, 5e5, 0, -10, 5.4e6), "not on the Earth"),
    ],
)
def test_what_lies_nowhere(
    tmp_path: Path,
    write_tif,
    monkeypatch: pytest.MonkeyPatch,
    crs: str,
    transform: Affine,
    problem: str,
) -> None:
    """Swapped axes, a local CRS, foreign units: refused by name, with a command that helps."""
    path, out = write_tif(tmp_path / "a.tif", np.ones((12, 8, 8), np.uint16)), tmp_path / "OUT.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GDAL, on writing such a thing
        with rasterio.open(path, "r+") as dataset:
            dataset.crs, dataset.transform = CRS.from_user_input(crs), transform
    with pytest.raises(RasterError, match=problem) as caught:
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    assert path == caught.value.where
    monkeypatch.chdir(tmp_path)
    if "python -c" in str(caught.value.remedy):
        run_python(caught.value, warned="ignore")
    else:
        run_rio(caught.value, {"FILE": path})

    image = eofm.read_geotiff(out if out.exists() else path, sensor="s2-l2a", unit="dn")
    assert 5 <= image.spec.gsd <= 12


def test_no_crs_is_an_error_only_when_asked() -> None:
    """A grid without CRS has bounds, but no centre on the globe and no GSD."""
    nowhere = Grid(None, Affine(1, 0, 0, 0, 1, 0), 4, 6)

    assert (0, 0, 6, 4) == nowhere.bounds
    for question in (lambda: nowhere.gsd, nowhere.centre):
        with pytest.raises(RasterError, match="no georeference"):
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


def test_a_world_file_keeps_its_place(tmp_path: Path, write_tif) -> None:
    """Only the CRS is missing: the remedy writes nothing else, and the image stays where it is."""
    path = write_tif(tmp_path / "a.tif", np.ones((12, 8, 8), np.uint16), crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = Affine(10, 0, 6e5, 0, -10, 5.3e6)
    with pytest.raises(RasterError, match="no georeference") as caught:
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    assert "--transform" not in run_rio(caught.value)

    image = eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    assert (10, 0, 6e5, 0, -10, 5.3e6) == image.grid.transform
