"""Polygons and points from any file, in any CRS, and what is refused about them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from vector_world import chips_of, world

from eofm.errors import ConfigError, DataError, LabelError
from eofm.geo.embedding.embed import read_area
from eofm.geo.embedding_files import write_chips
from eofm.geo.places import classes_of, read_labels, read_places
from eofm.landcover.polygons import PARQUETS, VECTORS

SQUARE = shapely.box(9.0, 48.0, 9.01, 48.01)
OTHER = shapely.box(9.02, 48.0, 9.03, 48.01)


def frame(*shapes: object, crs: str | None = "EPSG:4326", **columns: object):
    """Polygons of two classes where nothing else is said."""
    given = list(shapes) or [SQUARE, OTHER]
    return geopandas.GeoDataFrame(
        columns or {"class": ["wood", "lake"][: len(given)]}, geometry=given, crs=crs
    )


@pytest.mark.parametrize("name", sorted(f"p{suffix}" for suffix in VECTORS))
def test_every_format_reads_alike(name: str, tmp_path: Path) -> None:
    """The same polygons come out of each format, and of the GeoDataFrame itself."""
    path = tmp_path / name
    frame().to_parquet(path) if path.suffix in PARQUETS else frame().to_file(path)

    for found in (read_labels(path, "class"), read_labels(frame(), "class")):
        where = {"wood": SQUARE, "lake": OTHER}  # FlatGeobuf has an order of its own
        assert {"wood", "lake"} == set(found.values)
        for shape, value in zip(found.shapes, found.values, strict=True):
            assert shape.equals_exact(where[value], 1e-9, normalize=True)
        assert np.allclose(shapely.area(found.shapes), 1e-4)
        assert 4326 == found.crs.to_epsg()


def test_features_of_several_parts_are_taken_apart() -> None:
    """A layer dissolved by class has as many polygons as were drawn, each with its feature."""
    found = read_labels(frame(shapely.MultiPolygon([SQUARE, OTHER]), OTHER), "class")

    assert ("wood", "wood", "lake") == found.values
    assert [0, 0, 1] == found.features.tolist()


def test_numbers_are_names_too() -> None:
    """Codes of a field are the names of classes, in the order of numbers; 3.0 is 3."""
    columns = {"code": [10.0, 9.0]}

    assert ("9", "10") == classes_of([read_labels(frame(**columns), "code")])
    assert ("lake", "wood") == classes_of([read_labels(frame(), "class")])


def test_points_and_polygons_together() -> None:
    """A layer may hold both."""
    found = read_places(frame(SQUARE, shapely.Point(9.005, 48.005)))

    assert [False, True] == found.points.tolist()


def test_one_class_alone_is_no_map() -> None:
    """One class is refused; with the other class that the remedy names, it is a map."""
    layer = frame(**{"class": ["wood", "wood"]})

    with pytest.raises(LabelError, match="two classes") as caught:
        classes_of([read_labels(layer, "class")])

    assert "not wood" in str(caught.value.remedy)
    layer.loc[1, "class"] = "not wood"
    assert ("not wood", "wood") == classes_of([read_labels(layer, "class")])


def test_invalid_geometry_is_named_and_repaired() -> None:
    """A polygon that crosses itself is refused, and what the remedy says mends it."""
    bow = shapely.Polygon([(9, 48), (9.01, 48.01), (9.01, 48), (9, 48.01)])
    layer = frame(bow, OTHER)

    with pytest.raises(LabelError, match="not valid") as caught:
        read_labels(layer, "class")
    assert "0: Self-intersection" in str(caught.value.found)

    exec(str(caught.value.remedy).partition("geopandas: ")[2])
    assert 3 == len(read_labels(layer, "class"))


def test_without_a_crs(tmp_path: Path) -> None:
    """Polygons that lie nowhere are refused, and what the remedy says mends it."""
    layer = frame(crs=None)
    path = tmp_path / "p.gpkg"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the writer's own
        layer.to_file(path)

    for given in (layer, path):
        with pytest.raises(LabelError, match="no georeference") as caught:
            read_labels(given, "class")
    layer = eval(str(caught.value.remedy).partition("geopandas: ")[2])
    assert 2 == len(read_labels(layer, "class"))


def test_fields_lines_and_missing_files(tmp_path: Path) -> None:
    """No field, a wrong one, an empty value, lines, no file: one error each."""
    line = shapely.LineString([(9, 48), (9.1, 48)])
    cases = [
        (frame(), None, ConfigError, "which field"),
        (frame(), "crop", LabelError, "no such field"),
        (frame(**{"class": ["wood", None]}), "class", LabelError, "nothing in the field"),
        (frame(line, OTHER), "class", LabelError, "polygons and points alone"),
        (tmp_path / "none.gpkg", "class", LabelError, "no such file"),
    ]
    for given, field, kind, words in cases:
        with pytest.raises(kind, match=words):
            read_labels(given, field)

    with pytest.raises(ConfigError) as caught:
        read_labels(frame(), None)
    assert "name it: --field class" == caught.value.remedy


def test_a_damaged_parquet(tmp_path: Path) -> None:
    """A broken file is an error of eofm."""
    path = tmp_path / "p.parquet"
    path.write_bytes(b"PAR1 broken")

    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(path, "class")


def test_blanks_around_a_class_are_none_of_its_name() -> None:
    """A shapefile fills texts up: "a " is a, and a text of blanks is no class."""
    shapes = [shapely.box(k, 0, k + 1, 1) for k in range(3)]
    frame = geopandas.GeoDataFrame({"class": ["a", "a ", " b"]}, geometry=shapes, crs=32632)

    assert ("a", "a", "b") == read_labels(frame, "class").values
    with pytest.raises(LabelError, match="nothing in the field"):
        read_labels(frame.assign(**{"class": ["a", "b", "  "]}), "class")
    with pytest.raises(LabelError, match="not polygons or points") as wrong:
        read_labels(frame.drop(columns="geometry"), "class")
    assert "points_from_xy" in str(wrong.value.remedy)


@pytest.mark.parametrize("suffix", sorted(VECTORS - {".geojson"}))
def test_an_area_is_read_from_every_format(suffix: str, tmp_path: Path) -> None:
    """`--where` takes the files that labels are read from, in any CRS."""
    path, layer = tmp_path / f"area{suffix}", frame(SQUARE).to_crs("EPSG:32632")
    layer.to_parquet(path) if suffix in PARQUETS else layer.to_file(path)

    area, crs = read_area(str(path), "EPSG:32632")

    assert crs == "EPSG:4326"
    found = shapely.from_geojson(json.dumps(area)).geoms[0]
    assert found.symmetric_difference(SQUARE).area < 1e-9


def test_an_area_that_cannot_be_read(tmp_path: Path) -> None:
    """No foreign exception reaches a user."""
    for name in ("area.parquet", "area.gpkg", "area.fgb"):
        (tmp_path / name).write_text("no polygons")
        with pytest.raises(DataError, match="cannot be read"):
            read_area(str(tmp_path / name), "EPSG:4326")


def test_other_objects_of_places_are_read_alike() -> None:
    """A GeoSeries and GeoJSON mappings were foreign exceptions, or refused."""
    squares = frame()
    whole = json.loads(squares.to_json())

    for given in (squares.geometry, whole):
        found = read_places(given)
        assert all(shapely.equals([SQUARE, OTHER], found.shapes))
        assert 4326 == found.crs.to_epsg()
    assert ("wood", "lake") == read_labels(whole, "class").values
    assert 1 == len(read_places(whole["features"][0]))
    assert OTHER.equals(read_places(OTHER.__geo_interface__).shapes[0])


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (SQUARE, 'geopandas.GeoSeries([shape], crs="EPSG:4326")'),
        ([SQUARE, OTHER], 'geopandas.GeoSeries(shapes, crs="EPSG:4326")'),
        (pandas.DataFrame({"x": [9.0], "y": [48.0]}), "points_from_xy"),
        (geopandas.GeoDataFrame({"x": [9.0], "y": [48.0]}), "points_from_xy"),
    ],
)
def test_what_has_no_crs_or_no_geometry_is_told_how_to_get_one(given: object, remedy: str) -> None:
    """The remedy is an expression whose value is read."""
    with pytest.raises(LabelError, match="with a CRS") as caught:
        read_places(given)
    assert remedy in str(caught.value.remedy)
    names = {"geopandas": geopandas, "shape": given, "shapes": given, "table": given}

    assert len(read_places(eval(str(caught.value.remedy), names))) > 0


def test_a_layer_of_several_is_named_as_in_qgis(tmp_path: Path) -> None:
    """The remedy names a layer; one that is not there is told from it; a folder is no layer."""
    file = tmp_path / "two.gpkg"
    frame().to_file(file, layer="first one")
    frame(SQUARE).to_file(file, layer="other")
    with pytest.raises(LabelError, match="must hold one layer") as caught:
        read_labels(file, "class")
    named = shlex.split(str(caught.value.remedy).partition("as in ")[2])[0]

    assert 2 == len(read_labels(named, "class"))
    assert 1 == len(read_places(f"{file}|layername=other"))
    with pytest.raises(LabelError, match="no such layer") as caught:
        read_places(f"{file}|layername=oter")
    assert "first one, other" == caught.value.found
    with pytest.raises(LabelError, match="folder is no layer"):
        read_places(tmp_path)
    with pytest.raises(LabelError, match="no such file"):
        read_places("{" + "x" * 5000 + "}")


def test_two_columns_of_one_name_are_refused() -> None:
    """Which of them was meant is not known; it was an AttributeError."""
    twice = frame().set_axis(["class", "geometry"], axis=1)
    twice = geopandas.GeoDataFrame(
        pandas.concat([twice, twice[["class"]]], axis=1), geometry="geometry", crs="EPSG:4326"
    )
    with pytest.raises(LabelError, match="one name") as caught:
        read_labels(twice, "class")
    assert "class" == caught.value.found


@pytest.mark.parametrize(
    "column",
    [
        pandas.array([1, None], "Int64"),
        pandas.array(["wood", None], "string"),
        pandas.array([True, None], "boolean"),
        pandas.Categorical(["wood", None]),
        [pandas.Timestamp("2021-07-04"), pandas.NaT],
    ],
)
def test_every_missing_value_of_pandas_is_one(column: object, tmp_path: Path) -> None:
    """`pandas.NA` was a TypeError, in tables and in GeoParquet."""
    squares = frame(**{"class": column})
    squares.to_parquet(tmp_path / "a.parquet")

    for given in (squares, tmp_path / "a.parquet"):
        with pytest.raises(LabelError, match="nothing in the field class") as caught:
            read_labels(given, "class")
        assert "1 of 2, feature 1" == caught.value.found


def test_geojson_names_its_crs_or_has_longitude_and_latitude() -> None:
    """The member `crs`, as QGIS writes it, was ignored in a mapping, and heeded in a file."""
    squares = frame(crs="EPSG:4326").to_crs(32632)
    found = read_places(json.loads(squares.to_json()))

    assert 32632 == found.crs.to_epsg()
    assert all(shapely.equals_exact(squares.geometry.array, found.shapes, 1e-6))
    with pytest.raises(LabelError, match="no georeference"):
        read_places({**json.loads(frame().to_json()), "crs": None})


@pytest.mark.parametrize(
    "given",
    [
        {"type": "FeatureCollection", "features": []},
        frame()[:0],
        frame(shapely.Polygon(), shapely.Point()),
    ],
)
def test_a_layer_of_nothing_is_said(given: object, tmp_path: Path) -> None:
    """They were a field that is missing, and an IndexError."""
    with pytest.raises(LabelError, match="holds no polygons"):
        read_labels(given, "class")


@pytest.mark.parametrize("given", [{"type": "Cube"}, {"type": "FeatureCollection"}])
def test_what_is_no_geojson(given: dict[str, object]) -> None:
    """No foreign exception reaches a user."""
    with pytest.raises(LabelError, match="GeoJSON cannot be read"):
        read_places(given)


def test_a_collection_is_taken_apart_by_the_remedy() -> None:
    """The remedy was to give it an area, which it has."""
    both = shapely.GeometryCollection([SQUARE, OTHER])
    for given in (frame(both), both.__geo_interface__):
        with pytest.raises(LabelError, match="polygons and points alone") as caught:
            read_places(given)
        assert "GeometryCollection" == caught.value.found
    names = {"layer": frame(both)}
    exec(str(caught.value.remedy).partition("geopandas: ")[2], names)

    assert 2 == len(read_places(names["layer"]))


@pytest.mark.parametrize(
    "table",
    [
        geopandas.GeoDataFrame({"outline": frame().geometry}),
        pandas.DataFrame({"outline": list(frame().geometry)}),
    ],
)
def test_a_table_with_geometries_is_told_which_column_has_them(table: pandas.DataFrame) -> None:
    """The remedy was to make points of columns x and y."""
    with pytest.raises(LabelError, match="with a CRS") as caught:
        read_places(table)
    names = {"geopandas": geopandas, "table": table}

    assert 2 == len(read_places(eval(str(caught.value.remedy), names)))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("p.csv", {"x": [9.0], "y": [48.0]}),
        ("a b.csv", {"Lon": [9.0], "LAT": [48.0]}),
        ("p.csv", {"WKT": ["POINT (9 48)"]}),
        ("p.parquet", {"longitude": [9.0], "latitude": [48.0]}),
        ("p.parquet", {"geometry": [shapely.Point(9, 48).wkb]}),
    ],
)
def test_a_table_is_told_how_to_become_a_layer(
    name: str, columns: dict[str, list[object]], tmp_path: Path
) -> None:
    """The remedy names the columns that are there; it was one for x and y, of CSV alone."""
    file, table = tmp_path / name, pandas.DataFrame({**columns, "class": ["wood"]})
    table.to_csv(file, index=False) if name.endswith("csv") else table.to_parquet(file)
    with pytest.raises(LabelError, match="table without geometry") as caught:
        read_labels(file, "class")
    python, *words = shlex.split(str(caught.value.remedy).partition(": ")[2])
    assert "python" == python
    runs = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert not runs.returncode, runs.stderr
    found = read_labels(words[-1], "class")

    assert ("wood",) == found.values
    assert shapely.Point(9, 48) == found.shapes[0]


def test_chips_are_places(tmp_path: Path) -> None:
    """Their GeoParquet has its metadata in the file alone, not in the schema of Arrow."""
    patches, _ = world(size=(4, 4))
    chips = chips_of(patches)
    table = chips.table.assign(datetime=pandas.NaT, valid_share=1.0, cloud_share=np.nan)
    write_chips(tmp_path / "chips.parquet", [replace(chips, table=table)])

    assert len(chips) == len(read_places(tmp_path / "chips.parquet"))
