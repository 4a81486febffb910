"""Which images show the same ground."""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from eofm.raster.geotiff import grid_of, open_geotiff
from eofm.raster.grid import Grid
from eofm.raster.ground import TOLERANCE_PX, Square, same_ground

UTM32, UTM33, DEGREES = (CRS.from_epsg(code) for code in (32632, 32633, 4326))


@cache
def to(source: CRS | int, target: CRS | int) -> Transformer:
    """From one CRS to another, longitude or easting first."""
    return Transformer.from_crs(source, target, always_xy=True)


def grid(x: float, y: float, side: int = 64, crs: CRS = UTM32, pixel: float = 10.0) -> Grid:
    """A square image with its upper left corner at (x, y)."""
    return Grid(crs, Affine(pixel, 0, x, 0, -pixel, y), side, side)


def groups(*images: Grid | Square | None) -> set[frozenset[int]]:
    """The groups as sets of positions."""
    found = same_ground(images)
    return {frozenset(i for i, g in enumerate(found) if g == group) for group in found}


# ----------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("pixels", "together"),
    [(-1, False), (0, False), (1, False), (2, True), (10, True), (63, True), (64, True)],
)
@pytest.mark.parametrize("towards", [(1, 0), (0, 1), (1, 1)])
def test_overlap_counts_from_two_pixels(
    pixels: int, together: bool, towards: tuple[int, int]
) -> None:
    """Edges that touch, and one shared row of pixels, join nothing; two rows do."""
    shift = 10.0 * (64 - pixels)
    other = grid(500_000 + shift * towards[0], 6_000_000 - shift * towards[1])

    assert 1 < TOLERANCE_PX < 2
    assert ([0, 0] if together else [0, 1]) == same_ground([grid(500_000, 6_000_000), other])


def test_a_chain_is_one_place() -> None:
    """Images that overlap through others belong together, in whatever order they come."""
    chain = [grid(500_000 + 320 * k, 6_000_000) for k in range(9)]
    order = [8, 0, 4, 2, 6, 1, 7, 3, 5]

    assert [0] * 9 == same_ground([chain[k] for k in order])


def test_an_image_inside_another_and_two_that_cross() -> None:
    """No corner of the one need lie in the other."""
    small, large = grid(503_000, 5_997_000, 8), grid(500_000, 6_000_000, 640)
    wide = Grid(UTM32, Affine(10, 0, 500_000, 0, -10, 6_000_000), 20, 200)
    tall = Grid(UTM32, Affine(10, 0, 501_000, 0, -10, 6_001_000), 220, 20)

    assert [0, 0] == same_ground([small, large])
    assert [0, 0] == same_ground([wide, tall])


def test_two_dates_of_one_grid() -> None:
    """Equal grids are one place; images that lie nowhere are a place each."""
    here, there = grid(500_000, 6_000_000), grid(510_000, 6_000_000)

    assert [0, 0, 2, 3, 2, 5] == same_ground([here, here, there, None, there, None])


def test_other_crs_and_resolution() -> None:
    """The same ground in the neighbouring zone and in degrees, at 10 and at 60 m."""
    x, y = to(4326, UTM32).transform(12.0, 50.0)
    u, v = to(4326, UTM33).transform(12.0, 50.0)
    near = [grid(x, y), grid(u, v, crs=UTM33), grid(12.0, 50.0, crs=DEGREES, pixel=9e-5)]
    coarse = grid(x - 3_840, y + 3_840, 64, pixel=60.0)  # ends 1.5 pixels of 60 m short: touches

    assert [0, 0, 0] == same_ground(near)
    assert [0, 1] == same_ground([near[0], coarse])


@pytest.mark.parametrize(("longitude", "latitude"), [(180.0, 0.0), (180.0, 70.0), (-180.0, -80.0)])
def test_the_antimeridian_divides_nothing(longitude: float, latitude: float) -> None:
    """Half of an image lies beyond 180 degrees; its neighbour begins at -180."""
    across = grid(longitude - 0.003, latitude, crs=DEGREES, pixel=1e-4)
    other = grid(longitude - math.copysign(360, longitude) - 0.001, latitude, 32, DEGREES, 1e-4)
    far = grid(longitude - math.copysign(360, longitude) + 0.005, latitude, 32, DEGREES, 1e-4)

    assert [0, 0, 2] == same_ground([across, other, far])


def test_a_pole_divides_nothing() -> None:
    """Images around the north pole overlap across it."""
    polar = CRS.from_epsg(3413)

    assert [0, 0, 2] == same_ground(
        [grid(-600, 300, crs=polar), grid(-40, 300, crs=polar), grid(900, 300, crs=polar)]
    )


def test_rotated_images() -> None:
    """A diamond whose bounding box holds a square does not overlap it."""
    root = math.sqrt(0.5) * 10
    diamond = Grid(UTM32, Affine(root, root, 500_000, root, -root, 6_000_000), 100, 100)
    corner = grid(500_000, 6_000_000 + 700, 20)

    assert [0, 1] == same_ground([diamond, corner])
    assert [0, 0] == same_ground([diamond, grid(500_600, 6_000_100, 20)])


def test_what_cannot_be_located_is_alone() -> None:
    """A building plan, another planet, coordinates that are nowhere: no error, no neighbour."""
    plan = CRS.from_wkt(
        'LOCAL_CS["plan",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )
    nowhere = grid(1e12, 6_000_000)
    images = [grid(0, 0, crs=plan), grid(10, 0, crs=plan), nowhere, grid(500_000, 6_000_000)]

    assert [0, 1, 2, 3, 3] == same_ground([*images, grid(500_010, 6_000_000)])
    assert [] == same_ground([])


def test_squares_are_ground_too() -> None:
    """An image of which only the centre is kept, beside the grid it was cut from."""
    x, y = to(4326, UTM32).transform(10.5, 48.0)
    image = grid(x - 320, y + 320)
    found = same_ground(
        [
            image,
            Square(10.5, 48.0, 640, 640, 10),
            Square(10.5, 48.0 + 635 / 111_200, 640, 640, 10),  # half a pixel
            Square(10.5, 48.0 - 300 / 111_200, 640, 640, 10),
        ]
    )

    assert [0, 0, 2, 0] == found


# --------------------------------------------------------------------------------- oracle


def slow(images: list[Grid]) -> set[frozenset[int]]:
    """All pairs with shapely, in one equal-area projection, edges of 50 points."""
    shapely = pytest.importorskip("shapely", reason="the oracle needs shapely")
    polygons = []
    for image in images:
        t, n = image.transform, image.width
        low, high = TOLERANCE_PX / 2, n - TOLERANCE_PX / 2
        along = np.linspace(low, high, 50)
        cols = np.concatenate([along, np.full(50, high), along[::-1], np.full(50, low)])
        rows = np.concatenate([np.full(50, low), along, np.full(50, high), along[::-1]])
        x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
        east, north = to(image.crs, 3035).transform(x, y)
        polygons.append(shapely.Polygon(np.stack([east, north], axis=1)))
    parent = list(range(len(images)))
    for a, b in combinations(range(len(images)), 2):
        touch = polygons[a].intersects(polygons[b])
        if touch and polygons[a].intersection(polygons[b]).area > 1e-3:
            parent = [parent[a] if p == parent[b] else p for p in parent]
    return {frozenset(i for i, p in enumerate(parent) if p == group) for group in parent}


@pytest.mark.parametrize("seed", range(6))
def test_equals_all_pairs_with_shapely(seed: int) -> None:
    """Images of every size between 40 m and 40 km, three CRSs, scattered over 22 km."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(80):
        lon, lat = rng.uniform(11.85, 12.15), rng.uniform(49.9, 50.1)
        crs = (UTM32, UTM33, DEGREES)[rng.integers(3)]
        x, y = to(4326, crs).transform(lon, lat)
        side = int(10 ** rng.uniform(0.6, 2.8 if rng.random() < 0.05 else 1.8))
        pixel = float(rng.choice([10, 20, 60]))
        images.append(grid(x, y, side, crs, pixel / (111_320 if crs == DEGREES else 1)))

    found = groups(*images)
    assert slow(images) == found
    assert 5 < len(found) < 75


def test_tiles_of_one_large_image_stay_apart() -> None:
    """A mosaic that was cut without overlap, 40 x 40 tiles across a UTM zone: 1,600 places."""
    tiles = [grid(300_000 + 640 * i, 6_000_000 - 640 * j) for i in range(40) for j in range(40)]

    assert list(range(1600)) == same_ground(tiles)


def test_real_images(real_data: Path) -> None:
    """Published tiles are a place each; the modalities of a TerraMesh site are one place."""
    found = {}
    for name, pattern in (("eurosat_ms", "*/*/*.tif"), ("s2_100k", "images/*.tif")):
        files = sorted((real_data / name).glob(pattern))
        found[name] = len(set(same_ground([_grid(f) for f in files])))
    names = ("S1RTC", "S2L1C", "S2L2A")
    sites = [f for n in names for f in sorted((real_data / "terramesh" / n).glob("*.tif"))]

    assert {"eurosat_ms": 270, "s2_100k": 12} == found
    assert [0, 1, 2] * 3 == same_ground([_grid(file) for file in sites])


def _grid(file: Path) -> Grid:
    with open_geotiff(file) as dataset:
        return grid_of(dataset)


def test_straight_edges_are_close_enough() -> None:
    """Between two points of an outline a parallel leaves the straight line by what is stated."""
    geod = Geod(ellps="WGS84")
    for width_m, limit in ((110_000, 7.0), (2_560, 0.1)):
        step = width_m / 8 / (111_320 * math.cos(math.radians(60)))
        middle = geod.npts(10, 60, 10 + step, 60, 1)[0]
        assert (middle[1] - 60) * 111_400 < limit


def test_two_images_without_georeference_are_two_places() -> None:
    """Equal sizes at the origin of nothing are not one grid that was seen twice."""
    nowhere = Grid(None, Affine.identity(), 64, 64)
    unplaced = Grid(UTM32, Affine.identity(), 64, 64)

    assert [0, 1, 2, 3] == same_ground([nowhere, nowhere, unplaced, unplaced])
