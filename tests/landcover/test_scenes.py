"""`eofm labels --scenes`: other CRSs, mosaics, VRTs, STAC lists, dates, scenes of every kind."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.shutil import copy as raster_copy
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as warp_points

from eofm.errors import ConfigError, LabelError, RasterError
from eofm.landcover import jobs
from eofm.landcover.config import LabelsConfig
from eofm.landcover.run import LabelReport, write_labels
from eofm.landcover.schemes import SCHEMES
from eofm.raster.grid import Grid
from eofm.store.reader import Store

DW = SCHEMES["dynamic-world"]
BOX = (500_100.0, 5_399_600.0, 500_340.0, 5_399_900.0)  # 24 x 30 pixels of 10 m


def label(maps: object, scenes: Path, out: Path, **options) -> LabelReport:
    """Label scenes."""
    listed = [str(m) for m in (maps if isinstance(maps, list) else [maps])]
    given = {"scheme": "dynamic-world", **options}
    return write_labels(LabelsConfig(listed, out=str(out), scenes=str(scenes), **given))


def footprints(
    path: Path, *boxes: tuple, crs: str = "EPSG:32632", dates: list | None = None
) -> Path:
    """Write a table of footprints named a, b, c, ..."""
    columns = {
        "id": [chr(ord("a") + i) for i in range(len(boxes))],
        **{
            key: [box[i] for box in boxes] for i, key in enumerate(("minx", "miny", "maxx", "maxy"))
        },
        "crs": [crs] * len(boxes),
    }
    pq.write_table(pa.table(columns | ({} if dates is None else {"date": dates})), path)
    return path


def classes(height: int = 60, width: int = 60, seed: int = 0) -> np.ndarray:
    """Make a map of noise."""
    return np.random.default_rng(seed).integers(0, 9, (height, width)).astype(np.uint8)


def lookup(path: Path, grid: Grid) -> np.ndarray:
    """Return the fractions of a grid by looking up every pixel's centre."""
    with rasterio.open(path) as dataset:
        codes, inverse, crs = dataset.read(1), ~dataset.transform, dataset.crs
    rows, cols = np.mgrid[0 : grid.height, 0 : grid.width] + 0.5
    points = [grid.point(c, r) for r, c in zip(rows.ravel(), cols.ravel(), strict=True)]
    xs, ys = map(np.array, warp_points(grid.crs, crs, *map(list, zip(*points, strict=True))))
    col = np.floor(inverse.a * xs + inverse.b * ys + inverse.c).astype(int)
    row = np.floor(inverse.d * xs + inverse.e * ys + inverse.f).astype(int)
    inside = (row >= 0) & (col >= 0) & (row < codes.shape[0]) & (col < codes.shape[1])
    found = codes[row[inside], col[inside]]
    return np.bincount(found, minlength=9)[:9] / max(len(found), 1)


def rows_of(out: Path) -> list[dict]:
    """Return a table's rows."""
    return pq.read_table(out).to_pylist()


# ----------------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("crs", "gsd", "origin"),
    [
        ("EPSG:32632", 10.0, (500_000.0, 5_400_000.0)),  # the same pixels
        ("EPSG:32632", 7.0, (500_003.0, 5_400_001.0)),
        ("EPSG:4326", (1.2e-4, 8e-5), (9.0, 48.755)),
        ("EPSG:3035", 10.0, (4_247_003.0, 2_849_703.0)),
    ],
)
def test_maps_in_any_crs(crs: str, gsd, origin, tmp_path: Path, write_tif) -> None:
    """Each pixel of the scene takes the map pixel under its centre."""
    path = write_tif(tmp_path / "m.tif", classes(120, 120), crs=crs, gsd=gsd, origin=origin)
    scenes = footprints(tmp_path / "f.parquet", BOX)

    label(path, scenes, tmp_path / "l.parquet")

    (row,) = rows_of(tmp_path / "l.parquet")
    grid = Grid(CRS.from_epsg(32632), Affine(10, 0, BOX[0], 0, -10, BOX[3]), 30, 24)
    assert 1.0 == row["valid_share"]
    # a centre within a thousandth of a pixel of a border may fall on either side
    np.testing.assert_allclose(row["fraction"], lookup(path, grid), atol=2.1 / 720)
    assert BOX == tuple(row[key] for key in ("minx", "miny", "maxx", "maxy"))


def test_large_scenes_are_read_in_pieces(tmp_path: Path, write_tif, monkeypatch) -> None:
    """A scene counted piece by piece has the counts of the whole."""
    path = write_tif(tmp_path / "m.tif", classes())
    scenes = footprints(tmp_path / "f.parquet", BOX)
    label(path, scenes, tmp_path / "whole.parquet")
    monkeypatch.setattr(jobs, "_SCENE_PIXELS", 24 * 7)

    label(path, scenes, tmp_path / "pieces.parquet")

    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "pieces.parquet").read_bytes()


def test_mosaic_by_first_valid(tmp_path: Path, write_tif) -> None:
    """The first map has precedence, a later one fills its nodata; only givers are named."""
    first, second = np.full((60, 60), 1, np.uint8), np.full((60, 60), 2, np.uint8)
    first[:, 22:] = 255  # the scene's columns 12 and on
    paths = [
        write_tif(tmp_path / "first.tif", first, nodata=255),
        write_tif(tmp_path / "elsewhere.tif", second, origin=(600_000, 5e6)),
        write_tif(tmp_path / "second.tif", second),
        write_tif(tmp_path / "third.tif", np.full((60, 60), 3, np.uint8)),
    ]
    scenes = footprints(tmp_path / "f.parquet", BOX, (7e5, 5.2e6, 7.001e5, 5.2001e6))

    report = label(paths, scenes, tmp_path / "l.parquet")

    row, outside = rows_of(tmp_path / "l.parquet")
    assert [0, 0.5, 0.5, 0, 0, 0, 0, 0, 0] == row["fraction"]
    assert [paths[0].as_posix(), paths[2].as_posix()] == row["source"]
    assert (False, "no map overlaps", []) == tuple(
        outside[k] for k in ("known", "reason", "source")
    )
    assert {"no map overlaps": 1} == report.unknown


def test_vrt(tmp_path: Path, write_tif) -> None:
    """A VRT over a map gives the map's labels, for scenes and for its own windows."""
    path = write_tif(tmp_path / "m.tif", classes(), nodata=255)
    with rasterio.open(path) as dataset, WarpedVRT(dataset, nodata=255) as vrt:
        raster_copy(vrt, tmp_path / "m.vrt", driver="VRT")
    scenes = footprints(tmp_path / "f.parquet", BOX)
    for name in ("m.tif", "m.vrt"):
        label(tmp_path / name, scenes, tmp_path / f"s-{name}.parquet")
        write_labels(
            LabelsConfig(
                [str(tmp_path / name)], DW.name, str(tmp_path / f"w-{name}.parquet"), window=20
            )
        )

    for kind in "sw":
        tif, vrt_rows = (
            pq.read_table(tmp_path / f"{kind}-{name}.parquet").drop(["source"])
            for name in ("m.tif", "m.vrt")
        )
        assert tif.equals(vrt_rows)


def test_vrt_of_a_missing_file(tmp_path: Path, write_tif) -> None:
    """A VRT whose source is gone is an error, not nodata."""
    path = write_tif(tmp_path / "m.tif", classes())
    with rasterio.open(path) as dataset, WarpedVRT(dataset, nodata=255) as vrt:
        raster_copy(vrt, tmp_path / "m.vrt", driver="VRT")
    path.unlink()

    with pytest.raises(RasterError, match="cannot be read"):
        label(tmp_path / "m.vrt", footprints(tmp_path / "f.parquet", BOX), tmp_path / "l.parquet")


def test_over_the_180th_meridian(tmp_path: Path, write_tif) -> None:
    """A scene over the 180th meridian is labelled from the maps on both sides."""
    grid = {"crs": "EPSG:4326", "gsd": 1e-4}
    east = write_tif(
        tmp_path / "e.tif", np.full((200, 200), 4, np.uint8), origin=(179.98, 10.01), **grid
    )
    west = write_tif(
        tmp_path / "w.tif", np.full((200, 200), 6, np.uint8), origin=(-180.0, 10.01), **grid
    )
    (x,), (y,) = warp_points(CRS.from_epsg(4326), CRS.from_epsg(32660), [180.0], [10.0])
    box = (x - 500, y - 500, x + 500, y + 500)

    label(
        [east, west],
        footprints(tmp_path / "f.parquet", box, crs="EPSG:32660"),
        tmp_path / "l.parquet",
    )

    (row,) = rows_of(tmp_path / "l.parquet")
    assert row["valid_share"] > 0.98
    assert abs(row["fraction"][4] - 0.5) < 0.03 > abs(row["fraction"][6] - 0.5)


# ------------------------------------------------------------------------------------ dates


def dated_maps(tmp_path: Path, write_tif) -> Path:
    """Write maps of class 1, 2 and 3 of three days; the second has a hole."""
    holed = np.full((60, 60), 2, np.uint8)
    holed[:, :22] = 255
    for day, codes in (("0601", np.full((60, 60), 1, np.uint8)), ("0611", holed),
                       ("0721", np.full((60, 60), 3, np.uint8))):  # fmt: skip
        write_tif(tmp_path / f"maps/dw_2021{day}.tif", codes, nodata=255)
    return tmp_path / "maps"


def test_nearest_in_time(tmp_path: Path, write_tif) -> None:
    """The nearest map wins, the next fills its holes; beyond the tolerance labels are unknown."""
    maps = dated_maps(tmp_path, write_tif)
    dates = ["2021-06-01", "2021-06-10", "2021-07-11T12:00:00", "2022-01-01", ""]
    scenes = footprints(tmp_path / "f.parquet", *[BOX] * 5, dates=dates)

    report = label(maps, scenes, tmp_path / "l.parquet", dates="_%Y%m%d", max_gap_days=20.0)

    rows = rows_of(tmp_path / "l.parquet")
    assert [1, 0.5, 1] == [max(row["fraction"]) for row in rows[:3]]
    assert [["2021-06-01"], ["2021-06-11", "2021-06-01"], ["2021-07-21"]] == [
        row["map_date"] for row in rows[:3]
    ]
    assert {"no map within the days allowed": 1, "the scene has no date": 1} == report.unknown
    assert dates == [row["date"] for row in rows]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("ms"), pa.string()])
def test_dates_of_any_column_type(kind: pa.DataType, tmp_path: Path, write_tif) -> None:
    """A column of dates, of moments or of text says the same."""
    maps = dated_maps(tmp_path, write_tif)
    days = pa.array([date(2021, 7, 11), None]).cast(pa.date32())
    column = pa.array(["2021-07-11", None]) if kind == pa.string() else days.cast(kind)
    scenes = footprints(tmp_path / "f.parquet", BOX, BOX, dates=column)

    label(maps, scenes, tmp_path / "l.parquet", dates="_%Y%m%d", max_gap_days=20.0)

    first, second = rows_of(tmp_path / "l.parquet")
    assert (["2021-07-21"], "the scene has no date") == (first["map_date"], second["reason"])


@pytest.mark.parametrize(
    ("options", "dates", "said"),
    [
        ({"dates": "_%Y%m%d"}, ["2021-06-01"], "of several dates"),
        ({"max_gap_days": 5.0}, ["2021-06-01"], "a map has no date"),
        ({"dates": "_%Y%m%d", "max_gap_days": 5.0}, [""], "no scene has a date"),
        ({"dates": "_%Y%m%d", "max_gap_days": 5.0}, ["June"], "a date that is none"),
        ({"dates": "-%Y"}, ["2021-06-01"], "does not tell one date"),
    ],
)
def test_dates_that_lack(options, dates, said: str, tmp_path: Path, write_tif) -> None:
    """Dates that are needed and missing, or there and not heeded, are one error each."""
    maps = dated_maps(tmp_path, write_tif)
    scenes = footprints(tmp_path / "f.parquet", BOX, dates=dates)

    with pytest.raises((LabelError, ConfigError), match=said):
        label(maps, scenes, tmp_path / "l.parquet", **options)

    assert not (tmp_path / "l.parquet.parts").exists()


# ------------------------------------------------------------------------------------- STAC


def item(name: str, href: str, **properties) -> dict:
    """Make a STAC item with a map and a thumbnail."""
    return {
        "type": "Feature",
        "id": name,
        "properties": properties,
        "assets": {
            "thumb": {"href": "t.tif", "type": "image/tiff", "roles": ["thumbnail"]},
            "map": {
                "href": href,
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            },
            "legend": {"href": "legend.json", "type": "application/json"},
        },
    }


def test_stac_items(tmp_path: Path, write_tif) -> None:
    """Items bring maps with their dates: instants and intervals, relative and file:// paths."""
    one = write_tif(tmp_path / "data/one.tif", np.full((60, 60), 1, np.uint8))
    write_tif(tmp_path / "data/two 2.tif", np.full((60, 60), 2, np.uint8))
    year = {
        "datetime": None,
        "start_datetime": "2020-01-01T00:00:00Z",
        "end_datetime": "2020-12-31T23:59:59Z",
    }
    items = [
        item("one", one.as_uri(), datetime="2021-06-01T10:00:00Z"),
        item("two", "data/two 2.tif", **year),
    ]
    for each, roles in zip(items, (0.5, ["data"]), strict=True):  # no list counts as no roles
        each["assets"]["map"]["roles"] = roles
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    scenes = footprints(tmp_path / "f.parquet", BOX, BOX, dates=["2021-05-01", "2020-08-01"])

    label(tmp_path / "items.json", scenes, tmp_path / "l.parquet", max_gap_days=60.0)

    rows = rows_of(tmp_path / "l.parquet")
    assert [1, 2] == [int(np.argmax(row["fraction"])) for row in rows]
    assert [["2021-06-01T10:00:00"], ["2020-01-01T00:00:00/2020-12-31T23:59:59"]] == [
        row["map_date"] for row in rows
    ]


@pytest.mark.parametrize(
    ("text", "asset", "said"),
    [
        ("{", None, "cannot be read as JSON"),
        ("{}", None, "holds no STAC items"),
        ('[{"id": "a", "assets": {}}]', None, "holds no STAC items"),
        ("[]", None, "holds no STAC items"),
        (
            json.dumps([item("a", "https://host/m.tif", datetime="2021-01-01")]),
            None,
            "not on this machine",
        ),
        (json.dumps([item("a", "m.tif", datetime="2021-01-01")]), "other", "which asset"),
        (json.dumps([item("a", "m.tif", datetime="in May")]), None, "date of a STAC item"),
        (json.dumps([item("a", "m.tif", start_datetime="2021-01-01")]), None, "date of a STAC"),
        (json.dumps([item("a", "odd://host/m.tif", datetime="2021-01-01")]), None, "this kind"),
        (json.dumps([{**item("a", "m.tif"), "assets": {"map": "m.tif"}}]), None, "which asset"),
    ],
)
def test_bad_stac(text: str, asset, said: str, tmp_path: Path) -> None:
    """Each fault of a list of items is named."""
    (tmp_path / "items.json").write_text(text)
    scenes = footprints(tmp_path / "f.parquet", BOX)

    with pytest.raises((LabelError, RasterError), match=said):
        label(tmp_path / "items.json", scenes, tmp_path / "l.parquet", asset=asset)


# ----------------------------------------------------------------------------- kinds of scenes


def test_folder_of_images(tmp_path: Path, write_tif, write_bands) -> None:
    """A multi-band file is a scene, and so is a set of files per band, on its finest grid."""
    path = write_tif(tmp_path / "m.tif", classes())
    write_tif(tmp_path / "images/x_20210601.tif", np.ones((3, 12, 12), np.uint16))
    write_bands(tmp_path / "images/y_20210701", {"B02": 12, "B8A": 6, "B09": 2})

    label(path, tmp_path / "images", tmp_path / "l.parquet", scene_dates="_%Y%m%d")

    x, y = rows_of(tmp_path / "l.parquet")
    assert ["x_20210601", "y_20210701"] == [x["id"], y["id"]]
    assert ["2021-06-01", "2021-07-01"] == [x["date"], y["date"]]
    assert x["fraction"] == y["fraction"]
    expected = np.bincount(classes()[:12, :12].ravel(), minlength=9) / 144
    np.testing.assert_allclose(x["fraction"], expected, rtol=1e-6)


def test_packed_store(tmp_path: Path, write_tif, miniature) -> None:
    """Images whose centres alone a store keeps are squares in the CRS that is stated."""
    store = miniature.store(tmp_path / "store", 2)
    grid = {"crs": "EPSG:4326", "gsd": 1e-4, "origin": (7.2, -3.45)}
    path = write_tif(tmp_path / "m.tif", classes(1000, 1000), **grid)

    label(path, store, tmp_path / "utm.parquet", scene_crs="utm")
    label(path, store, tmp_path / "degrees.parquet", scene_crs="EPSG:4326")

    assert Store(store).ids.tolist() == [row["id"] for row in rows_of(tmp_path / "utm.parquet")]
    for name, crs, step in (("utm", "EPSG:32732", 10.0), ("degrees", "EPSG:4326", 10 / 111_320)):
        row = rows_of(tmp_path / f"{name}.parquet")[0]
        assert crs == row["crs"]
        assert abs(row["longitude"] - 7.25) < 1e-6 > abs(row["latitude"] + 3.5)
        np.testing.assert_allclose(row["maxx"] - row["minx"], 18 * step, rtol=1e-6)
        np.testing.assert_allclose(row["maxy"] - row["miny"], 12 * step, rtol=1e-6)
        transform = Affine(step, 0, row["minx"], 0, -step, row["maxy"])
        expected = lookup(path, Grid(CRS.from_user_input(crs), transform, 12, 18))
        np.testing.assert_allclose(row["fraction"], expected, atol=2.1 / 216)


def test_images_called_by_letters_are_labelled_each(tmp_path: Path, write_tif) -> None:
    """Of a, b and c, b was taken for the blue band of one image, and the others left out."""
    path = write_tif(tmp_path / "m.tif", classes(), nodata=255)
    for name in "abc":
        write_tif(tmp_path / "images" / f"{name}.tif", classes())
    label(path, tmp_path / "images", tmp_path / "s.parquet")

    assert ["a", "b", "c"] == pq.read_table(tmp_path / "s.parquet")["id"].to_pylist()


def test_an_image_that_lies_nowhere_is_named(tmp_path: Path, write_tif) -> None:
    """The error holds the file, and so does its remedy."""
    path = write_tif(tmp_path / "m.tif", classes(), nodata=255)
    image = write_tif(tmp_path / "images" / "x.tif", classes(), crs=None)
    with pytest.raises(RasterError, match="no georeference") as caught:
        label(path, image.parent, tmp_path / "s.parquet")

    assert image == caught.value.where
    assert str(image) in caught.value.remedy


def test_labels_are_footprints(tmp_path: Path, write_tif) -> None:
    """The windows of one map can be the scenes of another."""
    path = write_tif(tmp_path / "m.tif", classes(), nodata=255)
    write_labels(LabelsConfig([str(path)], DW.name, str(tmp_path / "w.parquet"), window=20))

    label(path, tmp_path / "w.parquet", tmp_path / "s.parquet")

    assert pq.read_table(tmp_path / "w.parquet").equals(pq.read_table(tmp_path / "s.parquet"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": ["a", "a"]}, "share an id"),
        ({"minx": [BOX[2], BOX[0]]}, "no rectangles"),
        ({"maxy": [np.nan, BOX[3]]}, "no rectangles"),
        ({"crs": ["EPSG:32632", "nonsense"]}, "not a coordinate reference system"),
        ({"crs": None}, "lacks columns"),
    ],
)
def test_bad_footprints(change: dict, said: str, tmp_path: Path, write_tif) -> None:
    """Each fault of a table of footprints is named."""
    path = write_tif(tmp_path / "m.tif", classes())
    file = footprints(tmp_path / "f.parquet", BOX, BOX)
    table = pq.read_table(file)
    ((name, values),) = change.items()
    table = table.drop([name])
    pq.write_table(table if values is None else table.append_column(name, pa.array(values)), file)

    with pytest.raises(LabelError, match=said):
        label(path, file, tmp_path / "l.parquet")


def test_no_scenes(tmp_path: Path, write_tif) -> None:
    """A path that is nothing, and a folder without images, are one error each."""
    path = write_tif(tmp_path / "m.tif", classes())
    (tmp_path / "empty").mkdir()

    with pytest.raises(LabelError, match="there are no such scenes"):
        label(path, tmp_path / "nothing", tmp_path / "l.parquet")
    with pytest.raises(RasterError, match="holds no images"):
        label(path, tmp_path / "empty", tmp_path / "l.parquet")


def test_maps_of_another_place(tmp_path: Path, write_tif) -> None:
    """If no map overlaps any scene, that is an error and no table."""
    path = write_tif(tmp_path / "m.tif", classes(), origin=(300_000, 5e6))
    before = {path, footprints(tmp_path / "f.parquet", BOX, BOX)}

    with pytest.raises(LabelError, match="no land-cover map overlaps any scene") as caught:
        label(path, tmp_path / "f.parquet", tmp_path / "l.parquet", batch=1)

    assert "EPSG:32632" in str(caught.value.found)
    assert before == set(tmp_path.iterdir())


def test_real_terramesh(real_data: Path, tmp_path: Path) -> None:
    """Real sites are labelled from the maps of the same place by overlap alone, pixel for pixel."""
    label(real_data / "terramesh/LULC", real_data / "terramesh/S2L1C", tmp_path / "l.parquet",
          scheme="terramesh")  # fmt: skip

    rows = rows_of(tmp_path / "l.parquet")
    assert 3 == len(rows)
    for row in rows:
        with rasterio.open(real_data / f"terramesh/LULC/{row['id']}.tif") as dataset:
            codes = dataset.read(1)
        valid = np.isin(codes, list(SCHEMES["terramesh"].classes)).sum()
        expected = [np.float32((codes == c).sum() / valid) for c in SCHEMES["terramesh"].classes]
        assert expected == row["fraction"]
