"""Which cells a polygon labels, against counting points inside by hand."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from vector_world import FIELD, MADE, NAMES, PLACES, chips_of, drawn, outline, world

from eofm.errors import ConfigError, LabelError
from eofm.geo.cells import cells_of, degrees
from eofm.geo.embeddings import patch_grid
from eofm.geo.maps_config import MapProbe
from eofm.geo.places import classes_of, read_labels, read_places
from eofm.geo.training import EXPLODE, covered, fit_probe, label_cells
from eofm.raster.grid import Grid

SIZE = (24, 24)


def labelled(patches, *layers, **options):
    """The training cells of some layers."""
    read = [read_labels(layer, "class") for layer in layers]
    return label_cells(cells_of(patches), read, classes_of(read), **options)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("crs", [None, "EPSG:3035"])
def test_every_grid_and_crs(place: str, crs: str | None) -> None:
    """Cells get the class of the field they lie in, on turned grids too, from any CRS."""
    patches, truth = world(place, SIZE)
    layer = drawn(patches, truth)
    found = labelled(patches, layer if crs is None else layer.to_crs(crs))

    names = np.array(found.classes)[found.labels]
    assert set(np.array(NAMES)[truth.ravel()[found.cells]] == names) == {True}
    whole = (SIZE[0] // FIELD) * (SIZE[1] // FIELD) * (FIELD - 2) ** 2
    # the last row has no vectors, but is no part of a polygon that is drawn one patch inside
    assert whole == len(found)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.51, 1.0),
    st.lists(st.tuples(st.floats(0, 22), st.floats(0, 22)), min_size=3, max_size=6),
    st.sampled_from(sorted(PLACES)),
)
def test_purity_is_the_share_under_the_polygon(purity, corners, place) -> None:
    """A cell is labelled if a fine lattice of points says that enough of it is covered."""
    patches, _ = world(place, SIZE)
    hull = shapely.MultiPoint(corners).convex_hull.buffer(0.3)
    inside = shapely.transform(hull, lambda xy: np.array([patches.grid.point(c, r) for c, r in xy]))
    far = outline(patches.grid, 0, 23, 1, 1)
    layer = geopandas.GeoDataFrame(
        {"class": ["wood", "lake"]}, geometry=[inside, far], crs=patches.grid.crs.to_wkt()
    )
    ticks = (np.arange(24 * 12) + 0.5) / 12
    points = shapely.contains_xy(hull, *(axis.ravel() for axis in np.meshgrid(ticks, ticks)))
    share = points.reshape(24, 12, 24, 12).mean(axis=(1, 3))
    share[-1] = 0  # no vectors
    if share[:, :23].max() <= purity + 0.06:
        return
    found = labelled(patches, layer, purity=purity, per_polygon=10_000)
    mine = np.zeros(24 * 24, bool)
    mine[found.cells[found.labels == found.classes.index("wood")]] = True
    sure = np.abs(share - purity) > 0.06
    sure[0, 23] = False  # under the other class
    assert np.array_equal((share >= purity)[sure], mine.reshape(24, 24)[sure])


def test_overlapping_classes_train_nothing() -> None:
    """Cells under polygons of two classes are left out, and their number is said."""
    patches, _ = world(size=SIZE)
    shapes = [outline(patches.grid, 0, 0, 4, 4), outline(patches.grid, 2, 0, 4, 4)]
    layer = geopandas.GeoDataFrame(
        {"class": ["wood", "lake"]}, geometry=shapes, crs=patches.grid.crs.to_wkt()
    )
    found = labelled(patches, layer)

    assert {0, 1, 4, 5} == set((found.cells // SIZE[1]).tolist())
    assert "8 cells are under polygons of two classes" in " ".join(found.notes)


def test_a_point_labels_its_cell() -> None:
    """A point labels the one cell it lies in; two classes in one cell label none."""
    patches, _ = world(size=SIZE)
    places = [(3.2, 5.9), (7.5, 7.5), (7.6, 7.4)]
    layer = geopandas.GeoDataFrame(
        {"class": ["wood", "wood", "lake"]},
        geometry=[shapely.Point(patches.grid.point(*one)) for one in places],
        crs=patches.grid.crs.to_wkt(),
    )
    layer.loc[3] = ["lake", shapely.Point(patches.grid.point(10.5, 0.5))]
    found = labelled(patches, layer.to_crs(4326))

    assert {5 * 24 + 3: "wood", 10: "lake"} == dict(
        zip(found.cells.tolist(), np.array(found.classes)[found.labels].tolist(), strict=True)
    )


def test_chips_and_patches_agree() -> None:
    """The same ground as chips gets the same labels as patches."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    grid, chips = labelled(patches, layer), labelled(chips_of(patches), layer.to_crs(4326))

    assert grid.cells.tolist() == chips.cells.tolist()
    assert grid.labels.tolist() == chips.labels.tolist()


def test_a_large_polygon_does_not_outweigh_the_others() -> None:
    """A polygon gives at most so many cells, spread over it, and that is said."""
    patches, truth = world(size=SIZE)
    found = labelled(patches, drawn(patches, truth), per_polygon=7)

    assert {7} == set(np.bincount(found.polygons).tolist())
    first = found.cells[found.polygons == 0] // SIZE[1]
    assert np.ptp(first) > 3
    assert "at most 7 of a polygon" in " ".join(found.notes)


def test_outside_and_too_small() -> None:
    """Polygons elsewhere are refused with both extents; the remedies for small ones work."""
    patches, _ = world(size=SIZE)
    grid = patches.grid
    away = geopandas.GeoDataFrame(
        {"class": ["wood", "lake"]},
        geometry=[shapely.box(x, 10, x + 0.1, 10.1) for x in (20, 21)],
        crs="EPSG:4326",
    )
    with pytest.raises(LabelError, match="outside of the embeddings") as caught:
        labelled(patches, away)
    assert "20.0000, 10.0000, 21.1000, 10.1000" in str(caught.value.found)
    assert "within 9.0010, 48.7247, 9.0448, 48.7524" == caught.value.expected

    shapes = [outline(grid, 1.2, 1.2, 0.85, 0.85), outline(grid, 5, 5, 2, 2)]
    small = geopandas.GeoDataFrame(
        {"class": ["wood", "lake"]}, geometry=shapes, crs=grid.crs.to_wkt()
    )
    with pytest.raises(LabelError, match="pure enough") as caught:
        labelled(patches, small)
    purity = float(str(caught.value.remedy).rpartition("--purity ")[2])
    assert {"wood", "lake"} == set(labelled(patches, small, purity=purity).classes)

    tiny = small.iloc[:1].copy()
    tiny.geometry = [outline(grid, 1.4, 1.4, 0.3, 0.3)]
    with pytest.raises(LabelError, match="smaller than the cells") as caught:
        covered(cells_of(patches), read_places(tiny))
    layer = tiny
    exec(str(caught.value.remedy).partition("geopandas: ")[2])
    assert [25] == covered(cells_of(patches), read_places(layer)).tolist()


def test_a_class_that_lies_elsewhere_is_said_and_not_mapped() -> None:
    """A class without a polygon here is named in the notes; one class left is refused."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    layer.loc[len(layer)] = ["ice", shapely.box(0, 0, 10, 10)]
    found = labelled(patches, layer)

    assert "ice" not in found.classes
    assert "**no polygon of ice is on the embeddings**" in " ".join(found.notes)

    alone = layer[layer["class"].isin(["water", "ice"])]
    with pytest.raises(LabelError, match="only one class"):
        labelled(patches, alone)


def test_parts_of_one_feature_are_one_polygon() -> None:
    """Several parts are one polygon in number, cap and notes; taken apart they are several."""
    patches, _ = world(size=SIZE)
    grid = patches.grid
    parts = shapely.MultiPolygon([outline(grid, 0, 0, 4, 4), outline(grid, 12, 12, 4, 4)])
    shapes = [parts, outline(grid, 0, 12, 4, 4), outline(grid, 6, 2.3, 0.4, 0.4)]
    field = "class"
    layer = geopandas.GeoDataFrame(
        {field: ["wood", "lake", "lake"]}, geometry=shapes, crs=grid.crs.to_wkt()
    )
    found = labelled(patches, layer, per_polygon=20)

    assert [[0, 0], [0, 1]] == found.features.tolist()
    assert [20, 16] == np.bincount(found.polygons).tolist()
    assert [2, 1] == [len(np.unique(found.parts[found.polygons == one])) for one in (0, 1)]
    notes = " ".join(found.notes)
    assert "1 of 2 polygons have several parts, 3 parts in total" in notes
    assert "1 polygons are not used: they cover too little of a cell" in notes

    exec(EXPLODE.partition("geopandas: ")[2], {}, names := {"layer": layer})
    apart = labelled(patches, names["layer"])
    assert 3 == len(apart.features)
    assert "several parts" not in " ".join(apart.notes)


def test_a_part_outside_is_no_polygon_outside() -> None:
    """A feature with one part on the embeddings lies on them: features are counted, not parts."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    away = outline(patches.grid, 500, 500, 4, 4)
    layer.loc[0, "geometry"] = shapely.MultiPolygon([layer.geometry[0], away])
    assert "outside" not in " ".join(labelled(patches, layer).notes)

    layer.loc[0, "geometry"] = shapely.MultiPolygon([away, outline(patches.grid, 600, 0, 4, 4)])
    assert "1 of 9 polygons and points are outside" in " ".join(labelled(patches, layer).notes)


def test_names_that_differ_in_capitals_are_named() -> None:
    """Blanks around a name are none; capitals and blanks inside make classes, which are named."""
    patches, truth = world(size=SIZE)
    layer, field = drawn(patches, truth), "class"
    crops, trees = (layer.index[layer[field] == name] for name in ("crops", "trees"))
    plain = labelled(patches, layer)
    layer.loc[trees[0], field] = " trees "
    assert plain.classes == labelled(patches, layer).classes
    assert not [note for note in labelled(patches, layer).notes if "in case" in note]

    layer.loc[crops[0], field] = "CROPS "
    found = labelled(patches, layer)
    (note,) = [note for note in found.notes if "in case" in note]
    assert {*plain.classes, "CROPS"} == set(found.classes)
    assert "**`CROPS` and `crops` differ" in note

    exec(note.partition("geopandas: ")[2])
    assert plain.classes == labelled(patches, layer).classes


def test_numbers_of_classes_are_not_values_of_the_map() -> None:
    """Class 10 is value 1 of the raster, as its legend says; whoever reads the values is told."""
    patches, truth = world(size=SIZE)
    layer, field = drawn(patches, truth), "class"
    names = sorted(set(layer[field]))
    for numbers, said in (
        ([10, 20, 7, 3], "1 is class 3, 2 is class 7, 3 is class 10"),
        ([1, 2, 3, 4], ""),
    ):
        coded = layer.assign(**{field: layer[field].map(dict(zip(names, numbers, strict=False)))})
        found = labelled(patches, coded[coded[field].notna()])
        notes = [note for note in found.notes if "are numbers" in note]
        assert len(notes) == bool(said)
        assert said in "".join(notes)


def test_more_neighbours_than_cells_are_refused() -> None:
    """A vote of more cells than there are is no vote of fewer."""
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.arange(6) % 2
    with pytest.raises(ConfigError, match="number of training samples"):
        fit_probe(MapProbe.KNN, x, labels, labels, 2, neighbours=7)
    assert "k=6" in fit_probe(MapProbe.KNN, x, labels, labels, 2, neighbours=6).name


def test_overlapping_classes_are_not_called_small() -> None:
    """Two classes on the same polygons: the remedy was to draw larger ones."""
    patches, truth = world("utm", (32, 32))
    layer = drawn(patches, truth)
    other = layer.assign(**{"class": "another"})
    both = read_labels(pandas.concat([layer, other], ignore_index=True), "class")
    with pytest.raises(LabelError, match="of different classes are in the same cells") as caught:
        label_cells(cells_of(patches), [both], classes_of([both]))
    assert "do not overlap" in str(caught.value.remedy)


def test_places_without_vectors_are_not_called_outside() -> None:
    """The last row has no vectors."""
    patches, _ = world("utm", (32, 32))
    hidden = geopandas.GeoSeries(
        [outline(patches.grid, 31, 4, 1, 6)], crs=patches.grid.require_crs().to_wkt()
    )
    with pytest.raises(LabelError, match="have no vectors there") as caught:
        covered(cells_of(patches), read_places(hidden))
    assert "97%" in str(caught.value.expected)


@pytest.mark.parametrize("chips", [False, True])
@pytest.mark.parametrize("west", [-180.0, 8.9])
def test_edges_of_a_continent_are_where_they_are(west: float, chips: bool) -> None:
    """Polygons of half the earth were outside of the embeddings: their far ends have no place in
    the UTM zone. An edge of many degrees was a kilometre away.
    """
    patches, _ = world("utm", (32, 32))
    cells = cells_of(chips_of(patches) if chips else patches)
    where = degrees(cells, np.flatnonzero(cells.valid))
    middle = float(np.median(where[:, 1]))
    north = geopandas.GeoSeries([shapely.box(west, middle, 180.0, 90.0)], crs="EPSG:4326")
    found = covered(cells, read_places(north))

    assert np.array_equal(np.flatnonzero(cells.valid)[where[:, 1] > middle], found)


@pytest.mark.parametrize("chips", [False, True])
@pytest.mark.parametrize(
    ("code", "transform"),
    [
        (4326, Affine(0.001, 0, 179.99, 0, -0.001, 9.1)),
        (32601, Affine(100, 0, 168700, 0, -100, 1_000_000)),
    ],
)
def test_polygons_around_the_earth_cover_both_sides(
    code: int, transform: Affine, chips: bool
) -> None:
    """A scene on the antimeridian is on both edges of a layer in degrees."""
    grid = Grid(CRS.from_epsg(code), transform, 16, 16)
    vectors = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)
    patches = patch_grid(vectors, grid, MADE)
    cells = cells_of(chips_of(patches) if chips else patches)
    east = degrees(cells, np.arange(256))[:, 0] % 360 > 180
    assert 0 < east.sum() < 256
    earth = geopandas.GeoSeries([shapely.box(-180, -90, 180, 90)], crs="EPSG:4326")

    assert 256 == len(covered(cells, read_places(earth)))
    half = geopandas.GeoSeries([shapely.box(-180, -90, -100, 90)], crs="EPSG:4326")
    found = covered(cells, read_places(half), purity=0.9)
    assert set(found.tolist()) <= set(np.flatnonzero(east).tolist())
    assert len(found) >= east.sum() - 16


def test_ground_that_two_polygons_cover_counts_once() -> None:
    """A layer given twice, or polygons that overlap, doubled the share of a cell: half of a cell
    was a whole one.
    """
    patches, truth = world("utm", (32, 32))
    grid = patches.grid
    half = drawn(patches, truth, inset=1.5)
    cells = cells_of(patches)
    layer = read_labels(half, "class")
    once, twice, thrice = (
        label_cells(cells, [layer] * times, classes_of([layer]), purity=0.6) for times in (1, 2, 3)
    )
    assert once.cells.tolist() == twice.cells.tolist()
    assert once.cells.tolist() == thrice.cells.tolist()
    assert np.allclose(once.shares, twice.shares)
    assert np.allclose(once.shares, thrice.shares)

    pair = geopandas.GeoSeries(
        [outline(grid, 3, 4, 1, 0.4), outline(grid, 3, 4.1, 1, 0.35)], crs=half.crs
    )
    with pytest.raises(LabelError, match="smaller than the cells") as caught:
        covered(cells, read_places(pair))
    assert "the largest covers 45% of a cell" == caught.value.found
    apart = geopandas.GeoSeries(
        [outline(grid, 3, 4, 1, 0.3), outline(grid, 3, 4.3, 1, 0.3)], crs=half.crs
    )
    assert [3 * 32 + 4] == covered(cells, read_places(apart)).tolist()
