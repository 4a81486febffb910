"""From an area to pixels, against plain numbers and pyproj."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from eofm.errors import RasterError, SpecError
from eofm.raster.grid import Grid, Window
from eofm.raster.ground import cut_out

UTM = Grid(CRS.from_epsg(32632), Affine(10, 0, 5e5, 0, -10, 5.4e6), 60, 90)
SOUTH_UP = Grid(CRS.from_epsg(32632), Affine(10, 0, 5e5, 0, 10, 5.4e6 - 600), 60, 90)
DEGREES = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 9.0, 0, -1e-4, 48.75), 60, 90)
TURNED = Grid(CRS.from_epsg(32632), Affine(8, 6, 5e5, 6, -8, 5.4e6), 60, 90)
METRES = "EPSG:32632"


def square(x: float, y: float, side: float) -> dict:
    """Return a square as GeoJSON, by its lower left corner."""
    ring = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    return {"type": "Polygon", "coordinates": [ring]}


def test_a_box_in_metres_is_the_window_it_covers() -> None:
    """Edges between pixels cut there; an edge inside a pixel takes the pixel whole."""
    exact = cut_out(UTM, 1, (5e5 + 100, 5.4e6 - 300, 5e5 + 200, 5.4e6 - 150), METRES)
    inside = cut_out(UTM, 1, (5e5 + 101, 5.4e6 - 299, 5e5 + 199, 5.4e6 - 151), METRES)

    assert Window(15, 10, 15, 10) == exact.window == inside.window
    assert exact.inside is None


def test_windows_begin_between_coarse_pixels() -> None:
    """With a 60 m band the window grows to multiples of 6, and never shrinks."""
    window = cut_out(UTM, 6, (5e5 + 100, 5.4e6 - 300, 5e5 + 200, 5.4e6 - 150), METRES).window

    assert Window(12, 6, 18, 18) == window


def test_rows_from_the_south_are_counted_from_there() -> None:
    """The same ground in an image upside down is the mirrored window."""
    window = cut_out(SOUTH_UP, 1, (5e5 + 100, 5.4e6 - 300, 5e5 + 200, 5.4e6 - 150), METRES).window

    assert Window(30, 10, 15, 10) == window


def test_a_box_in_degrees_over_metres() -> None:
    """Every point of the box lies in the window, as pyproj sees it, and none is far from it."""
    there = Transformer.from_crs(4326, 32632, always_xy=True)
    west, south, east, north = 9.002, 48.7480, 9.008, 48.7495
    window = cut_out(UTM, 1, (west, south, east, north)).window
    xs, ys = there.transform(
        *np.meshgrid(np.linspace(west, east, 50), np.linspace(south, north, 50))
    )
    cols, rows = (xs - 5e5) / 10, (5.4e6 - ys) / 10

    assert window.row <= max(0, rows.min()) < window.row + 1
    assert window.col <= cols.min() < window.col + 1
    assert window.row + window.height - 1 < rows.max() <= window.row + window.height
    assert window.col + window.width - 1 < cols.max() <= window.col + window.width


def test_a_box_in_degrees_over_degrees() -> None:
    """No projection lies between: plain division."""
    window = cut_out(DEGREES, 1, (9.001, 48.748, 9.002, 48.749)).window

    assert Window(10, 10, 10, 10) == window


@pytest.mark.parametrize("grid", [UTM, SOUTH_UP, TURNED], ids=["north", "south", "turned"])
def test_a_polygon_holds_the_pixels_whose_centre_it_holds(grid: Grid) -> None:
    """Compared with every centre of the image, one by one."""
    x, y = grid.point(30.0, 20.0)
    cut = cut_out(grid, 1, square(x, y, 92.3), METRES)
    mask = np.zeros((grid.height, grid.width), bool)
    mask[cut.window.slices] = cut.inside
    expected = np.zeros_like(mask)
    for row in range(grid.height):
        for col in range(grid.width):
            px, py = grid.point(col + 0.5, row + 0.5)
            expected[row, col] = x < px < x + 92.3 and y < py < y + 92.3

    assert expected.sum() > 50
    assert np.array_equal(expected, mask)


def test_features_and_shapely_are_polygons_too() -> None:
    """A FeatureCollection, a MultiPolygon and a shapely geometry give the same pixels."""
    shapely = pytest.importorskip("shapely")
    one, two = square(5e5 + 100, 5.4e6 - 300, 80), square(5e5 + 400, 5.4e6 - 500, 80)
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in (one, two)]
    many = {"type": "MultiPolygon", "coordinates": [one["coordinates"], two["coordinates"]]}
    cuts = [
        cut_out(UTM, 1, area, METRES)
        for area in (
            {"type": "FeatureCollection", "features": features},
            many,
            shapely.geometry.shape(many),
            {"type": "GeometryCollection", "geometries": [one, two]},
        )
    ]

    assert 128 == cuts[0].inside.sum()
    for cut in cuts[1:]:
        assert cuts[0].window == cut.window
        assert np.array_equal(cuts[0].inside, cut.inside)


@pytest.mark.parametrize(
    ("area", "problem"),
    [
        ((1, 2, 3), "box or polygons"),
        ("9,48,10,49", "box or polygons"),
        (5, "box or polygons"),
        ((10.0, 48.0, 9.0, 49.0), "west to east"),
        ((float("nan"), 48.0, 9.0, 49.0), "west to east"),
        ((5e5, 5.3e6, 5.1e5, 5.4e6), "in degrees"),
        ({"type": "Point", "coordinates": [9, 48]}, "box or polygons"),
        ({"type": "Polygon", "coordinates": [[(9, 48), (9.1, 48)]]}, "box or polygons"),
        ({"type": "Polygon"}, "box or polygons"),
        ({"type": "FeatureCollection", "features": []}, "box or polygons"),
        ({"type": "FeatureCollection", "features": [3]}, "box or polygons"),
    ],
)
def test_what_is_no_area_is_said(area: object, problem: str) -> None:
    """A wrong area is one clear error, whatever it is."""
    with pytest.raises(SpecError, match=problem):
        cut_out(UTM, 1, area)


def test_an_area_elsewhere_is_said() -> None:
    """Beside the image, too small for a pixel, beyond the projection, or of an image nowhere."""
    with pytest.raises(RasterError, match="is outside the image"):
        cut_out(UTM, 1, (12.0, 48.0, 12.1, 48.1))
    with pytest.raises(RasterError, match="is outside the image"):
        cut_out(UTM, 1, square(5e5 + 11, 5.4e6 - 19, 2), METRES)
    with pytest.raises(RasterError, match="no georeference"):
        cut_out(Grid(None, Affine(1, 0, 0, 0, -1, 0), 5, 5), 1, (9.0, 48.0, 9.1, 48.1))
    with pytest.raises(RasterError, match="not a coordinate reference system"):
        cut_out(UTM, 1, (1.0, 2.0, 3.0, 4.0), "EPSG:1")
    mercator = Grid(CRS.from_epsg(3857), Affine(10, 0, 0, 0, -10, 0), 5, 5)
    with pytest.raises(RasterError, match="is outside the image"):
        cut_out(mercator, 1, (-1.0, -90.0, 1.0, -89.0))


def test_remedies_are_right() -> None:
    """The printed examples are accepted: a box as printed, and the CRS of metres."""
    munich = Grid(CRS.from_epsg(4326), Affine(1e-3, 0, 11.0, 0, -1e-3, 49.0), 1000, 1000)

    assert cut_out(munich, 1, (11.30, 48.05, 11.40, 48.10)).window.height in {50, 51}
    assert cut_out(UTM, 1, (5e5, 5.3999e6, 5.001e5, 5.4e6), "EPSG:32632").window.height == 10
    with pytest.raises(RasterError, match="is outside the image") as caught:
        cut_out(UTM, 1, (12.0, 48.0, 12.1, 48.1))
    box = str(caught.value.remedy).removeprefix("choose an area within ").partition(" ")[0]
    assert cut_out(UTM, 1, [float(edge) for edge in box.split(",")]).window.height == UTM.height


def test_polygons_that_say_their_crs_are_taken_at_their_word() -> None:
    """A GeoDataFrame in metres is not read as degrees; one that contradicts what is stated is."""
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    metres = geopandas.GeoSeries([shapely.box(5e5 + 100, 5.4e6 - 300, 5e5 + 200, 5.4e6 - 150)])
    metres = metres.set_crs(METRES)

    assert Window(15, 10, 15, 10) == cut_out(UTM, 1, metres).window
    assert cut_out(UTM, 1, metres.to_crs(3035)).window.col in {9, 10}
    assert Window(15, 10, 15, 10) == cut_out(UTM, 1, metres, METRES).window
    with pytest.raises(SpecError, match="another CRS than stated") as refused:
        cut_out(UTM, 1, metres, "EPSG:3857")
    assert "omit where_crs" in str(refused.value.remedy)


BEYOND = Grid(CRS.from_epsg(4326), Affine(0.01, 0, 179.5, 0, -0.01, 10.0), 50, 100)
TO_360 = Grid(CRS.from_epsg(4326), Affine(1, 0, 0, 0, -1, 90), 180, 360)


@pytest.mark.parametrize(
    ("grid", "box", "columns"),
    [
        (BEYOND, (179.6, 9.6, 180, 9.9), (10, 40)),
        (BEYOND, (-180, 9.6, -179.8, 9.9), (50, 20)),
        (BEYOND, (179.9, 9.6, 180.1, 9.9), (40, 20)),
        (TO_360, (-20, 0, -10, 5), (340, 10)),
        (TO_360, (10, 0, 20, 5), (10, 10)),
    ],
)
def test_degrees_count_round_the_earth(grid: Grid, box, columns: tuple[int, int]) -> None:
    """Images beyond 180 or up to 360 degrees are found by the same longitudes as all others."""
    west, south, east, north = box
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    shape = {"type": "Polygon", "coordinates": [ring]}
    for area in (box, shape):
        window = cut_out(grid, 1, area).window
        assert columns == (window.col, window.width)
    assert cut_out(grid, 1, shape).inside.all()


def test_a_box_at_both_ends_is_cut_where_it_is_said() -> None:
    """It would have been the whole image; each half that the remedy makes is where it should be."""
    with pytest.raises(SpecError, match="both ends") as caught:
        cut_out(TO_360, 1, (-10, 0, 10, 5))
    at = float(str(caught.value.remedy).rpartition(" ")[2])

    windows = [cut_out(TO_360, 1, box).window for box in ((-10, 0, at, 5), (at, 0, 10, 5))]
    assert [(350, 10), (0, 10)] == [(w.col, w.width) for w in windows]


def test_the_halves_of_a_box_over_180_degrees() -> None:
    """The remedy for a box from east to west leads to both halves of an image beyond 180."""
    with pytest.raises(SpecError, match="from west to east") as caught:
        cut_out(BEYOND, 1, (179.9, 9.6, -179.9, 9.9))
    assert "split a box that crosses 180 degrees into two" == caught.value.remedy

    windows = [
        cut_out(BEYOND, 1, box).window for box in ((179.9, 9.6, 180, 9.9), (-180, 9.6, -179.9, 9.9))
    ]
    assert [(40, 10), (50, 10)] == [(w.col, w.width) for w in windows]


def test_metres_over_180_degrees() -> None:
    """A box in a UTM zone that crosses the line is a ring of longitudes that does not jump."""
    there = Transformer.from_crs(4326, 32660, always_xy=True)
    (west, east), (south, north) = there.transform([179.8, 180.2], [9.6, 9.9])
    window = cut_out(BEYOND, 1, (west, south, east, north), "EPSG:32660").window

    assert 28 <= window.col <= 31
    assert 38 <= window.width <= 43
