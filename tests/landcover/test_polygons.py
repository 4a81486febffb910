"""Polygons as a land-cover map: GeoPackage, GeoJSON and Shapefile, in any CRS, and their faults."""

from __future__ import annotations

import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from eofm.cli import main
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import ConfigError, EofmError, LabelError, RasterError
from eofm.geo.places import read_labels
from eofm.landcover.config import LabelsConfig
from eofm.landcover.maps import LandCover, find_maps
from eofm.landcover.polygons import PARQUETS, VECTORS, _code, read_layer, read_vectors
from eofm.landcover.run import write_labels
from eofm.landcover.schemes import Scheme, read_scheme
from eofm.raster.grid import Grid, Window
from eofm.store.reader import Store

geopandas = pytest.importorskip("geopandas")
shapely = pytest.importorskip("shapely")

SCHEME = Scheme("mine", {1: "wood", 2: "lake", 3: "field"}, (0,), (9,), "a test")
TEXT = "name: mine\nclasses: {1: wood, 2: lake, 3: field}\nnodata: [0]\ncloud: [9]\n"
UTM = CRS.from_epsg(32632)
IMAGE = Grid(UTM, Affine(10, 0, 5e5, 0, -10, 5.4e6), 40, 50)
WHOLE = Window(0, 0, 40, 50)
WOOD = [(500_033, 5_399_967), (500_201, 5_399_990), (500_180, 5_399_702), (500_050, 5_399_650)]
LAKE = [(500_261, 5_399_953), (500_472, 5_399_901), (500_301, 5_399_642)]


def layer(path: Path, *polygons, crs: str = "EPSG:32632", **columns) -> Path:
    """Write polygons, wood and lake where none are given, in a CRS."""
    shapes = [shapely.Polygon(points) for points in (polygons or (WOOD, LAKE))]
    table = geopandas.GeoDataFrame(
        columns or {"class": ["wood", "lake"]}, geometry=shapes, crs="EPSG:32632"
    )
    table = table.to_crs(crs) if crs else table.set_crs(None, allow_override=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the writer's own, of a layer without CRS
        table.to_parquet(path) if path.suffix in PARQUETS else table.to_file(path)
    return path


def read(*paths: Path, grid: Grid = IMAGE, window: Window = WHOLE, field: str = "class"):
    """Read polygons on a grid."""
    with LandCover(find_maps([str(p) for p in paths], field=field), SCHEME).on(grid) as view:
        return view.read(window)


def inside(grid: Grid, *polygons, code: int = 1) -> np.ndarray:
    """Ask of the centre of every pixel, one by one, in which polygon of UTM 32 it lies."""
    expected = np.zeros((grid.height, grid.width), int)
    shapes = [shapely.Polygon(p) for p in (polygons or (WOOD, LAKE))]
    for row in range(grid.height):
        for col in range(grid.width):
            x, y = grid.point(col + 0.5, row + 0.5)
            (x,), (y,) = warp_points(grid.crs, UTM, [x], [y])
            for number, shape in enumerate(shapes):
                if shape.contains(shapely.Point(x, y)):
                    expected[row, col] = code + number
    return expected


@pytest.mark.parametrize("name", sorted(f"p{suffix}" for suffix in VECTORS))
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3035"])
def test_every_format_and_crs(name: str, crs: str, tmp_path: Path) -> None:
    """A pixel has the class of the polygon over its centre, as asked pixel by pixel."""
    if name == "p.geojson" and crs == "EPSG:3035":
        pytest.skip("GeoJSON is in WGS 84")
    found = read(layer(tmp_path / name, crs=crs))

    expected = inside(IMAGE)
    assert 200 < (expected == 1).sum() < 700
    assert (expected != found).sum() <= (0 if crs == "EPSG:32632" else 1)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 5e5, 0, 10, 5.4e6 - 400),
        Affine(8, 6, 500_010, 6, -8, 5_399_800),
        Affine(0, 10, 5e5, 10, 0, 5.4e6 - 500),
    ],
    ids=["south-up", "rotated", "transposed"],
)
def test_grids_of_any_direction(transform: Affine, tmp_path: Path) -> None:
    """South-up, rotated and transposed images see the polygons where they lie."""
    grid = Grid(UTM, transform, 40, 50)

    found = read(layer(tmp_path / "p.gpkg"), grid=grid)

    assert np.array_equal(inside(grid), found)
    assert len(np.unique(found)) > 1
    part = read(tmp_path / "p.gpkg", grid=grid, window=Window(7, 5, 20, 30))
    assert np.array_equal(found[7:27, 5:35], part)


def test_edges_of_a_hundred_kilometres(tmp_path: Path) -> None:
    """A long edge that is straight in degrees is curved on the image, as its every point says."""
    edge = [(7.0, 48.0), (11.0, 48.9), (11.0, 47.0)]
    shapes = geopandas.GeoDataFrame(
        {"class": [1]}, geometry=[shapely.Polygon(edge)], crs="EPSG:4326"
    )
    shapes.to_file(tmp_path / "p.gpkg")
    (x,), (y,) = warp_points("EPSG:4326", UTM, [9.0], [48.45])
    rows, cols = np.mgrid[0:400, 0:500] + 0.5
    for gsd in (10, 100):
        grid = Grid(UTM, Affine(gsd, 0, x - 250 * gsd, 0, -gsd, y + 200 * gsd), 400, 500)
        points = (x + (cols - 250) * gsd).ravel(), (y - (rows - 200) * gsd).ravel()
        lon, lat = map(np.array, warp_points(UTM, "EPSG:4326", *points))
        expected = (lat < 48.0 + 0.9 * (lon - 7) / 4).reshape(400, 500)

        found = read(tmp_path / "p.gpkg", grid=grid, window=Window(0, 0, 400, 500))

        assert 0.2 < expected.mean() < 0.8
        assert (expected != found).sum() <= 2


@pytest.mark.parametrize("left", [179.998, -180.002])
def test_over_the_180th_meridian(left: float, tmp_path: Path) -> None:
    """Polygons on both sides of the 180th meridian lie under an image across it."""
    east = shapely.box(179.99, 9.99, 180, 10.01)
    west = shapely.box(-180, 9.99, -179.99, 10.01)
    shapes = geopandas.GeoDataFrame({"class": [1, 2]}, geometry=[east, west], crs="EPSG:4326")
    shapes.to_file(tmp_path / "p.gpkg")
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, left, 0, -1e-4, 10.002), 40, 40)
    (x,), (y,) = warp_points("EPSG:4326", "EPSG:32660", [180.0], [10.0])
    utm = Grid(CRS.from_epsg(32660), Affine(10, 0, x - 200, 0, -10, y + 200), 40, 40)

    for grid in (degrees, utm):
        found = read(tmp_path / "p.gpkg", grid=grid, window=Window(0, 0, 40, 40))
        assert [1] * 20 + [2] * 20 == found[20].tolist()


@pytest.mark.parametrize("name", ["p.gpkg", "p.fgb", "p.parquet"])
def test_labels_and_pack_agree(name: str, tmp_path: Path, write_tif) -> None:
    """`pack tiles --landcover p.gpkg --field` and `labels p.gpkg --field` give the same labels."""
    pixels = np.random.default_rng(0).integers(300, 3000, (3, 40, 50)).astype(np.uint16)
    pixels[:, :, :8] = 0
    write_tif(tmp_path / "images/i.tif", pixels, nodata=0)
    path = layer(tmp_path / name, crs="EPSG:4326")
    (tmp_path / "s.yaml").write_text(TEXT)
    words = ["pack", "tiles", "--images", str(tmp_path / "images"), "--sensor", "s2-l2a"]
    words += ["--unit", "dn", "--bands", '["B02","B03","B04"]', "--landcover", str(path)]
    words += ["--field", "class", "--scheme", str(tmp_path / "s.yaml"), "--window", "20"]
    words += ["--min_valid", "0.05", "--out", str(tmp_path / "store")]

    assert 0 == main(words)
    write_labels(
        LabelsConfig([str(path)], str(tmp_path / "s.yaml"), str(tmp_path / "l.parquet"),
                     str(tmp_path / "store"), field="class", min_valid=0.05)
    )  # fmt: skip

    store, rows = Store(tmp_path / "store"), pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert ("wood", "lake", "field") == store.classes
    assert store.fractions(range(4)).tolist() == [row["fraction"] for row in rows]
    assert store.labels(range(4)).multi_hot.tolist() == [row["multi_hot"] for row in rows]
    corner = inside(IMAGE)[:20, :20]
    corner[:, :8] = 0
    share = (corner == 1).sum() / (20 * 12)
    assert abs(share - rows[0]["valid_share"]) < 2 / 240
    assert [path.as_posix()] == rows[0]["source"]


def test_codes_in_the_field(tmp_path: Path) -> None:
    """Whole numbers, also stored as decimals, are codes of the scheme; cloud is one of them."""
    path = layer(tmp_path / "p.gpkg", code=[2, 9], decimal=[2.0, 9.0])

    found = read(path, field="code")

    assert np.array_equal(np.where(inside(IMAGE) == 1, 2, inside(IMAGE) // 2 * 9), found)
    assert np.array_equal(found, read(path, field="decimal"))


def test_first_file_has_precedence(tmp_path: Path) -> None:
    """Files are a mosaic like any maps: the remedy for classes that overlap."""
    square = [
        (500_100, 5_399_900),
        (500_400, 5_399_900),
        (500_400, 5_399_700),
        (500_100, 5_399_700),
    ]
    wood = layer(tmp_path / "wood.gpkg", WOOD, **{"class": ["wood"]})
    field = layer(tmp_path / "field.gpkg", square, **{"class": ["field"]})
    both = layer(tmp_path / "both.gpkg", WOOD, square, **{"class": ["wood", "field"]})

    with pytest.raises(LabelError, match="two classes lie over the same pixels") as caught:
        read(both)
    assert "wood and field over" in str(caught.value.found)
    assert "FIRST.gpkg SECOND.gpkg" in str(caught.value.remedy)

    is_wood, is_field = inside(IMAGE, WOOD), inside(IMAGE, square)
    assert np.array_equal(np.where(is_wood, 1, is_field * 3), read(wood, field))
    assert np.array_equal(np.where(is_field, 3, is_wood), read(field, wood))


def test_one_class_may_overlap_itself(tmp_path: Path) -> None:
    """Two polygons of one class over one pixel do not contradict each other."""
    path = layer(tmp_path / "p.gpkg", WOOD, WOOD, **{"class": ["wood", "wood"]})

    assert np.array_equal(inside(IMAGE, WOOD), read(path))


BOW = [(500_000, 5_399_000), (500_100, 5_399_100), (500_100, 5_399_000), (500_000, 5_399_100)]


@pytest.mark.parametrize(
    ("make", "field", "said", "found"),
    [
        (layer, "kind", "no such field", "class"),
        (lambda p: layer(p, **{"class": ["wood", "moor"]}), "class", "does not know", "moor"),
        (lambda p: layer(p, **{"class": [1, 7]}), "class", "does not know", "7 (1 pixel)"),
        (lambda p: layer(p, **{"class": [1.5, 2.0]}), "class", "does not know", "1.5"),
        (lambda p: layer(p, **{"class": ["wood", None]}), "class", "nothing in the field", "1 of"),
        (lambda p: layer(p, BOW, LAKE), "class", "not valid", "Self-intersection"),
        (lambda p: layer(p, crs=""), "class", "no georeference", "no coord"),
    ],
)
def test_faults(make, field: str, said: str, found: str, tmp_path: Path) -> None:
    """Each fault of a layer is one error that names it."""
    path = make(tmp_path / "p.gpkg")

    with pytest.raises(LabelError, match=said) as caught:
        read(path, field=field)

    assert found in str(caught.value.found)
    assert str(path) in str(caught.value.where)


def test_layers_that_are_none(tmp_path: Path) -> None:
    """Points, an empty layer, two layers, text and a missing file are refused by name."""
    points = geopandas.GeoDataFrame(
        {"class": ["wood"]}, geometry=[shapely.Point(5e5, 5.4e6)], crs=32632
    )
    points.to_file(tmp_path / "points.gpkg")
    points.iloc[:0].to_file(tmp_path / "empty.gpkg", geometry_type="Polygon")
    layer(tmp_path / "two.gpkg")
    points.to_file(tmp_path / "two.gpkg", layer="more")
    (tmp_path / "text.gpkg").write_text("no database")
    (tmp_path / "text.geojson").write_text("{")

    for name, said in (
        ("points.gpkg", "holds polygons alone"), ("empty.gpkg", "no polygons"),
        ("two.gpkg", "one layer"), ("text.gpkg", "cannot be read"), ("text.geojson", "be read"),
        ("missing.gpkg", "no such land-cover map"),
    ):  # fmt: skip
        with pytest.raises(LabelError, match=said):
            read(tmp_path / name)


def test_a_layer_of_several_is_a_map(tmp_path: Path) -> None:
    """Named as in QGIS, by the remedy of the file that holds several."""
    geopandas = pytest.importorskip("geopandas")
    whole, two = layer(tmp_path / "whole.gpkg"), layer(tmp_path / "two.gpkg")
    geopandas.read_file(whole).to_file(two, layer="more")
    with pytest.raises(LabelError, match="one layer") as caught:
        read(two)
    named = shlex.split(str(caught.value.remedy).partition("as in ")[2])[0]

    np.testing.assert_array_equal(read(whole), read(Path(named)))


def test_the_remedies(tmp_path: Path) -> None:
    """What the errors say is done, and done so the layer is read: scheme, field, CRS, validity."""
    path = layer(tmp_path / "p.gpkg", **{"class": ["wood", "moor"]})
    with pytest.raises(LabelError) as caught:
        read(path)
    (tmp_path / "s.yaml").write_text(str(caught.value.remedy).partition("--scheme: ")[2])
    out, boxes = tmp_path / "l.parquet", tmp_path / "boxes.parquet"
    box = {"id": ["a"], "minx": [5e5], "miny": [5_399_600.0], "maxx": [500_500.0]}
    import pyarrow as pa

    pq.write_table(pa.table({**box, "maxy": [5.4e6], "crs": ["EPSG:32632"]}), boxes)
    command = ["labels", str(path), "--scenes", str(boxes), "--out", str(out)]
    command += ["--scheme", str(tmp_path / "s.yaml")]
    with pytest.raises(ConfigError, match="which field") as missing:
        read(path, field=None)
    assert "--field class" in str(missing.value.remedy)
    assert 0 == main([*command, *str(missing.value.remedy).rpartition(": ")[2].split()])

    spaced = layer(tmp_path / "q.gpkg", **{"land use": ["wood", "moor"]})
    with pytest.raises(ConfigError, match="which field") as missing:
        read(spaced, field=None)
    words = shlex.split(str(missing.value.remedy).rpartition(": ")[2])
    out.unlink()
    assert 0 == main([str(spaced) if w == str(path) else w for w in command] + words)

    bow = layer(tmp_path / "bow.gpkg", BOW, LAKE)
    table = geopandas.read_file(bow)
    table.geometry = table.geometry.make_valid()
    table.to_file(bow)
    assert 2 == read(bow)[10, 35]
    nowhere = geopandas.read_file(layer(tmp_path / "nowhere.gpkg", crs=""))
    nowhere.set_crs("EPSG:32632", allow_override=True).to_file(tmp_path / "there.gpkg")
    assert np.array_equal(inside(IMAGE), read(tmp_path / "there.gpkg"))


@pytest.mark.parametrize(
    "values",
    [["a, b", "feld: klein"], ["yes", "{#"], ["lake", 'ä "b"'], ["1", "moor"], ["null", "0"]],
)
def test_the_scheme_of_the_remedy_knows_every_value(tmp_path: Path, values: list[str]) -> None:
    """It was no YAML, lacked what the former scheme knew, and gave codes that were taken."""
    path = layer(tmp_path / "p.gpkg", **{"class": values})
    (tmp_path / "s.yaml").write_text("name: old\nclasses: {1: lake}\nnodata: [0]\n")

    def found() -> set[str | None]:
        scheme = read_scheme(tmp_path / "s.yaml")
        with LandCover(find_maps([str(path)], field="class"), scheme).on(IMAGE) as view:
            return {scheme.classes.get(code) for code in np.unique(view.read(WHOLE)).tolist()}

    with pytest.raises(LabelError, match="does not know") as caught:
        found()
    (tmp_path / "s.yaml").write_text(str(caught.value.remedy).partition("--scheme: ")[2])
    assert {None, *values} - {"0"} == found()


@pytest.mark.parametrize("suffix", [".geojson", ".parquet"])
def test_a_list_is_no_class(tmp_path: Path, suffix: str) -> None:
    """Of a field of lists the truth of an array was asked; the remedy keeps the first of each."""
    path = layer(
        tmp_path / f"p{suffix}", crs="EPSG:4326", **{"class": [["wood"], ["lake", "wood"]]}
    )
    for call in (read, lambda file: read_labels(file, "class")):
        with pytest.raises(LabelError, match="several values in a feature") as caught:
            call(path)
    scope = {
        "layer": geopandas.read_file(path) if suffix == ".geojson" else geopandas.read_parquet(path)
    }
    exec(str(caught.value.remedy).partition("geopandas: ")[2], scope)
    assert ("wood", "lake") == read_labels(scope["layer"], "class").values


def test_windows_of_polygons(tmp_path: Path) -> None:
    """Polygons have no windows of their own, and that is said."""
    path = layer(tmp_path / "p.gpkg")
    (tmp_path / "s.yaml").write_text(TEXT)

    with pytest.raises(ConfigError, match="no pixels of their own"):
        write_labels(
            LabelsConfig([str(path)], str(tmp_path / "s.yaml"), str(tmp_path / "l.parquet"),
                         window=20, field="class")
        )  # fmt: skip


def test_geojson_without_a_field(tmp_path: Path) -> None:
    """A .geojson is a STAC list unless a field is named; of polygons the error says so."""
    path = layer(tmp_path / "p.geojson", crs="EPSG:4326")

    with pytest.raises(RasterError, match="holds no STAC items") as caught:
        find_maps([str(path)])
    assert "--field NAME" in str(caught.value.remedy)


def test_without_the_libraries(tmp_path: Path, monkeypatch) -> None:
    """Where pyogrio is not installed the error names the extra."""
    path = layer(tmp_path / "p.gpkg")
    monkeypatch.setitem(sys.modules, "pyogrio", None)

    with pytest.raises(ConfigError, match="not installed") as caught:
        read_layer(path, "class")

    assert 'pip install "eofm[geo]"' == caught.value.remedy


def test_pack_settings_tell_the_field(tmp_path: Path, write_tif) -> None:
    """A store of another field is not gone on with; options without a map are refused."""
    with pytest.raises(ConfigError, match="without a land-cover map"):
        PackTilesConfig("i", "s2-l2a", "dn", "o", field="class")
    write_tif(tmp_path / "images/i.tif", np.full((3, 40, 50), 900, np.uint16))
    path = layer(tmp_path / "p.gpkg", **{"class": ["wood", "lake"], "other": ["lake", "wood"]})
    (tmp_path / "s.yaml").write_text(TEXT)
    config = {
        "images": str(tmp_path / "images"), "sensor": "s2-l2a", "unit": "dn", "window": 40,
        "out": str(tmp_path / "store"), "bands": ["B02", "B03", "B04"], "landcover": str(path),
        "scheme": str(tmp_path / "s.yaml"),
    }  # fmt: skip
    pack_tiles(PackTilesConfig(**config, field="class"))

    with pytest.raises(EofmError, match="other settings") as caught:
        pack_tiles(PackTilesConfig(**config, field="other"))
    assert "settings.field" in str(caught.value.found)


def test_codes_as_text_are_codes(tmp_path: Path) -> None:
    """QGIS keeps codes as text, and a shapefile fills them up; a class of that name goes before."""
    plain = read(layer(tmp_path / "a.gpkg"))

    assert np.array_equal(plain, read(layer(tmp_path / "b.gpkg", **{"class": ["1", "2"]})))
    assert np.array_equal(plain, read(layer(tmp_path / "c.gpkg", **{"class": ["wood ", " 2"]})))
    assert _code("7", {"7": 3}) == 3
    assert _code("wood 7", {}) is None


def test_a_spike_is_repaired_by_the_remedy(tmp_path: Path) -> None:
    """Some invalid polygons become collections when they are made valid; ours is a polygon."""
    spike = [*WOOD[:2], (500_201, 5_399_995), WOOD[1], *WOOD[2:]]
    path = layer(tmp_path / "spike.gpkg", spike, LAKE)
    with pytest.raises(LabelError, match="not valid") as refused:
        read(path)
    call = str(refused.value.remedy).partition("layer.geometry = ")[2]
    frame = geopandas.read_file(path)
    frame.geometry = eval(call, {"layer": frame})
    frame.to_file(path)

    assert np.array_equal(inside(IMAGE), read(path))


def test_a_table_of_text_is_made_into_points(tmp_path: Path) -> None:
    """CSV was said to have no layers; the command that is printed makes a layer of it."""
    (tmp_path / "my points.csv").write_text("x,y,class\n9.0,48.7,wood\n9.1,48.8,moor\n")
    with pytest.raises(LabelError, match="without geometry") as refused:
        read_vectors(tmp_path / "my points.csv")
    command = shlex.split(str(refused.value.remedy).partition("longitude and latitude: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    made = geopandas.read_file(tmp_path / "my points.gpkg")

    assert [(9.0, 48.7), (9.1, 48.8)] == [(p.x, p.y) for p in made.geometry]
    assert "EPSG:4326" == str(made.crs)
