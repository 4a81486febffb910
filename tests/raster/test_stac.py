"""STAC items: assets become bands, and properties become sensor, unit, date and place."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from remedies import named_unit

import eofm
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.opening import open_scenes

Item = dict[str, Any]
NAMES = {"blue": "B02", "red": "B04", "nir08": "B8A", "coastal": "B01"}
SIZES = {"blue": 12, "red": 12, "nir08": 6, "coastal": 2}
SCALED = [{"data_type": "uint16", "scale": 0.0001, "offset": -0.1}]


@pytest.fixture
def earth_search(tmp_path: Path, write_tif) -> Callable[..., Path]:
    """Write an item as Earth Search v1 has them, with its assets beside it."""

    def write(
        name: str = "item.json",
        properties: Item | None = None,
        change: Callable[[Item], None] = lambda item: None,
        identifier: str = "S2A_32UNV_20220301_0_L2A",
    ) -> Path:
        assets: Item = {}
        for number, (key, size) in enumerate(SIZES.items(), 1):
            pixels = np.full((size, size), 1000 + 100 * number, np.uint16)
            write_tif(tmp_path / "assets" / f"{key}.tif", pixels, gsd=120 / size)
            assets[key] = {
                "href": f"assets/{key}.tif",
                "roles": ["data", "reflectance"],
                "eo:bands": [{"name": key, "common_name": key}],
                "raster:bands": SCALED,
            }
        write_tif(tmp_path / "assets/scl.tif", np.full((6, 6), 4, np.uint8), gsd=20)
        assets["scl"] = {"href": "assets/scl.tif", "roles": ["data"]}
        assets["visual"] = {"href": "assets/TCI.tif", "roles": ["visual"], "eo:bands": [{}] * 3}
        assets["red-jp2"] = assets["red"] | {"href": "s3://elsewhere/B04.jp2"}
        assets["thumbnail"] = {"href": "https://example.org/p.jpg", "roles": ["thumbnail"]}
        told = {
            "datetime": "2022-03-01T10:30:21.024+01:00",
            "constellation": "sentinel-2",
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": "04.00",
            "earthsearch:boa_offset_applied": True,
        }
        ring = [[9.0, 48.7], [9.1, 48.7], [9.1, 48.8], [9.0, 48.7]]
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": identifier,
            "collection": "sentinel-2-l2a",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {k: v for k, v in (told | (properties or {})).items() if v is not None},
            "assets": assets,
        }
        change(item)
        path = tmp_path / name
        path.write_text(json.dumps(item), encoding="utf-8")
        return path

    return write


def test_an_item_is_a_scene(earth_search) -> None:
    """Relative addresses, names, date in UTC and footprint; no statement is needed."""
    scene = eofm.open_scene(earth_search())
    image = scene.read()

    assert ("B01", "B02", "B04", "B8A") == scene.bands
    assert (Sensor.S2_L2A, Unit.DN, 6) == (scene.sensor, scene.unit, scene.step)
    assert "2022-03-01T09:30:21" == scene.date
    assert "S2A_32UNV_20220301_0_L2A" == scene.name
    assert (9.1, 48.7) == scene.footprint[1]
    assert [1400.0, 1100.0, 1200.0, 1300.0] == image.pixels[0, :, 5, 5].tolist()
    assert (1, 12, 12) == tuple(scene.read(cloud_mask="SCL").valid.shape)


def test_bands_are_chosen(earth_search) -> None:
    """Common names, other spellings and canonical names name the same assets."""
    path = earth_search()

    assert ("B8A", "B02") == eofm.open_scene(path, bands=["nir08", "b2"]).bands
    with pytest.raises(RasterError, match="no assets"):
        eofm.open_scene(path, bands=["B05"])


@pytest.mark.parametrize(
    ("properties", "scaled", "unit"),
    [
        ({"earthsearch:boa_offset_applied": True}, True, Unit.DN),
        ({"earthsearch:boa_offset_applied": False}, True, Unit.DN_OFFSET1000),
        ({"earthsearch:boa_offset_applied": None}, True, Unit.DN_OFFSET1000),
        ({"earthsearch:boa_offset_applied": None}, False, Unit.DN_OFFSET1000),
        (
            {"earthsearch:boa_offset_applied": None, "s2:processing_baseline": "02.14"},
            False,
            Unit.DN,
        ),
        (
            {
                "earthsearch:boa_offset_applied": None,
                "s2:processing_baseline": None,
                "processing:version": "05.11",
            },
            False,
            Unit.DN_OFFSET1000,
        ),
    ],
)
def test_what_decides_the_unit(earth_search, properties: Item, scaled: bool, unit: Unit) -> None:
    """First the flag that the offset was applied, then scale and offset, then the baseline."""

    def change(item: Item) -> None:
        if not scaled:
            for asset in item["assets"].values():
                asset.pop("raster:bands", None)

    path = earth_search(properties=properties, change=change)

    assert unit is eofm.open_scene(path).unit
    assert unit is eofm.open_scene(path, unit=unit.value).unit


def test_a_statement_against_the_item(earth_search) -> None:
    """It is refused, but where the item is known to be wrong: the flag that says false."""
    with pytest.raises(SpecError, match="another unit than stated"):
        eofm.open_scene(earth_search(), unit="dn-offset1000")
    with pytest.raises(SpecError, match="another sensor than stated"):
        eofm.open_scene(earth_search(), sensor="s2-l1c")
    flagged = earth_search(properties={"earthsearch:boa_offset_applied": False})
    assert Unit.DN is eofm.open_scene(flagged, unit="dn").unit


def test_an_item_that_contradicts_itself(earth_search) -> None:
    """An offset in a baseline that had none is not decided for the user, who decides as printed."""
    path = earth_search(
        properties={"earthsearch:boa_offset_applied": None, "s2:processing_baseline": "02.14"}
    )
    with pytest.raises(SpecError, match="contradicts itself") as contradiction:
        eofm.open_scene(path)
    for unit in ("dn", "dn-offset1000"):
        assert f'unit="{unit}"' in contradiction.value.remedy
        assert unit == eofm.open_scene(path, unit=unit).unit


def test_unknown_sensor_and_unit_are_asked_for(earth_search) -> None:
    """Where the item is silent, the statement is needed and taken."""

    def silence(item: Item) -> None:
        item["collection"] = "mosaics"
        item["properties"] = {"datetime": None}
        for asset in item["assets"].values():
            asset.pop("raster:bands", None)

    path = earth_search(change=silence)
    with pytest.raises(SpecError, match="states the sensor"):
        eofm.open_scene(path)
    with pytest.raises(SpecError, match="states the unit"):
        eofm.open_scene(path, sensor="s2-l2a")
    scene = eofm.open_scene(path, sensor="s2-l2a", unit="dn")
    assert ("", Unit.DN) == (scene.date, scene.unit)


def test_stac_1_1_and_the_planetary_computer(earth_search) -> None:
    """`bands` with `eo:common_name` and scale, and assets named by the band, are understood."""

    def newer(item: Item) -> None:
        item["stac_version"] = "1.1.0"
        item["properties"] = {
            "datetime": "2022-03-01T10:30:21Z",
            "platform": "Sentinel-2A",
            "s2:product_type": "S2MSI2A",
        }
        assets = {}
        for key, band in NAMES.items():
            asset = item["assets"][key]
            del asset["eo:bands"], asset["raster:bands"]
            asset["bands"] = [{"name": band, "eo:common_name": "rededge"}]
            asset |= {"raster:scale": 0.0001, "raster:offset": 0}
            assets[f"{band}_10m"] = asset
        item["assets"] = assets

    scene = eofm.open_scene(earth_search(change=newer))
    assert (("B01", "B02", "B04", "B8A"), Unit.DN) == (scene.bands, scene.unit)


def test_one_asset_of_several_bands(earth_search, tmp_path: Path, write_tif) -> None:
    """A stack of bands is opened by the names that the item gives them."""
    pixels = np.stack([np.full((8, 8), v, np.uint16) for v in (1500, 1600)])
    write_tif(tmp_path / "assets/stack.tif", pixels)

    def stack(item: Item) -> None:
        bands = [{"name": "nir", "common_name": "nir"}, {"name": "red", "common_name": "red"}]
        item["assets"] = {"data": {"href": "assets/stack.tif", "eo:bands": bands}}

    path = earth_search(change=stack)

    assert [1500.0, 1600.0] == eofm.read_scene(path).pixels[0, :, 0, 0].tolist()
    assert ("B04",) == eofm.read_scene(path, bands=["B04"]).spec.bands


def test_several_items_are_listed_or_chosen(earth_search, tmp_path: Path) -> None:
    """An ItemCollection opens whole, or by the identifier that the message prints."""
    items = []
    for number in (1, 2, 3):
        path = earth_search(f"{number}.json", identifier=f"item-{number}")
        items.append(json.loads(path.read_text(encoding="utf-8")))
    for name, content in (
        ("all.geojson", {"type": "FeatureCollection", "features": items}),
        ("list.json", items),
    ):
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(RasterError, match="holds 3 items") as several:
            eofm.open_scene(path)
        assert 'item="item-1"' in several.value.remedy
        assert "item-2" == eofm.open_scene(path, item="item-2").name
        assert ["item-1", "item-2", "item-3"] == [scene.name for scene in open_scenes(path)]
        with pytest.raises(RasterError, match="no such item"):
            eofm.open_scene(path, item="item-9")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("no json", "read as JSON"),
        ("[" * 100_000, "read as JSON"),
        ('{"type": "Catalog", "links": []}', "no STAC items"),
        ('{"type": "FeatureCollection", "features": []}', "no STAC items"),
        ('{"type": "FeatureCollection", "features": [5]}', "no STAC items"),
        ('{"type": "FeatureCollection"}', "no STAC items"),
        ('{"type": "Feature", "properties": {}}', "no STAC items"),
        ("[]", "no STAC items"),
        ("7", "no STAC items"),
        ("null", "no STAC items"),
    ],
)
def test_what_is_no_item(tmp_path: Path, content: str, problem: str) -> None:
    """Catalogs, plain GeoJSON and broken files are one clear error."""
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    for call in (eofm.open_scene, open_scenes):
        with pytest.raises(RasterError, match=problem):
            call(path)


def test_odd_items_are_errors_of_ours(earth_search) -> None:
    """Whatever stands where something else should, no foreign exception comes out."""

    def set_red(**what: object) -> Callable[[Item], None]:
        return lambda item: item["assets"]["red"].update(what)

    faults: list[Callable[[Item], None]] = [
        set_red(**{"eo:bands": "B04"}),
        set_red(**{"eo:bands": [7]}),
        set_red(**{"raster:bands": [{"scale": "small"}]}),
        set_red(**{"raster:bands": [{"scale": 0.5}]}),
        set_red(href=None),
        set_red(href="assets/missing.tif"),
        set_red(href="gopher://x/B04.tif"),
        lambda item: item["assets"].update(red="a.tif"),
        lambda item: item["assets"].clear(),
        lambda item: item.update(properties=None, collection=None),
        lambda item: item.update(geometry=None),
        lambda item: item.update(geometry={"type": "Polygon", "coordinates": [["x"]]}),
        lambda item: item["properties"].update(datetime=5),
        lambda item: item["assets"]["red"].update(roles=0.5),
    ]
    refused = 0
    for number, fault in enumerate(faults):
        path = earth_search(
            f"{number}.json", {"earthsearch:boa_offset_applied": None}, change=fault
        )
        try:
            eofm.open_scene(path, bands=["B04"])
        except eofm.EofmError:
            refused += 1

    assert 8 <= refused < len(faults)


def test_assets_lie_where_their_headers_say(earth_search) -> None:
    """The grid is that of the finest asset."""
    grid = eofm.open_scene(earth_search()).grid

    assert CRS.from_epsg(32632) == grid.crs
    assert Affine(10, 0, 5e5, 0, -10, 5.4e6) == grid.transform


def test_the_flag_of_version_0_counts(earth_search) -> None:
    """Items of Earth Search v0 say by another name that the offset was subtracted."""
    told: Item = {
        "earthsearch:boa_offset_applied": None,
        "s2:processing_baseline": None,
        "sentinel:processing_baseline": "05.00",
        "sentinel:boa_offset_applied": True,
    }
    scene = eofm.open_scene(earth_search(properties=told), unit="dn")

    assert Unit.DN == scene.unit
    with pytest.raises(SpecError, match="sentinel:boa_offset_applied"):
        eofm.open_scene(earth_search(properties=told), unit="dn-offset1000")
    told["sentinel:boa_offset_applied"] = False
    assert Unit.DN_OFFSET1000 == eofm.open_scene(earth_search(properties=told)).unit


@pytest.mark.parametrize("by", ["key", "gsd", "raster:bands", "spatial_resolution"])
def test_the_finest_asset_of_a_band_is_taken(earth_search, tmp_path: Path, write_tif, by) -> None:
    """A coarse copy that is listed first was read; the rule for files is the finest, too."""
    write_tif(tmp_path / "assets/coarse.tif", np.full((2, 2), 77, np.uint16), gsd=60)

    def change(item: Item) -> None:
        fine = item["assets"].pop("red") | {"raster:bands": [{}]}
        coarse = fine | {"href": "assets/coarse.tif"}
        keys = ("B04_60m", "B04_10m") if by == "key" else ("coarse", "fine")
        for asset, size in ((coarse, 60), (fine, 10)):
            if by == "gsd":
                asset["gsd"] = size
            elif by == "raster:bands":
                asset["raster:bands"] = [{"spatial_resolution": size}]
            elif by == "spatial_resolution":
                asset["raster:spatial_resolution"] = size
        item["assets"] = {keys[0]: coarse, keys[1]: fine} | item["assets"]

    image = eofm.read_scene(earth_search(change=change), bands=["B04"])

    assert (12, 12) == image.spec.size
    assert 10 == image.spec.gsd
    assert 1200 == image.pixels.unique().item()


def set_scale(file: Path, scale: float, offset: float) -> None:
    """Write scale and offset into a file."""
    with rasterio.open(file, "r+") as target:
        target.scales, target.offsets = (scale,), (offset,)


def in_item(item: Item, name: str, value: object) -> None:
    """Write a property into an item."""
    item["properties"][name] = value


def test_an_item_whose_files_say_another_unit(earth_search, tmp_path: Path) -> None:
    """The remedy of the file led to what the item refuses; both ways of this one lead to pixels."""
    path = earth_search()
    files = [tmp_path / f"assets/{key}.tif" for key in NAMES]
    for file in files:
        set_scale(file, 1e-4, -0.1)
    with pytest.raises(RasterError, match="another unit") as error:
        eofm.open_scene(path)
    item_right, _, files_right = str(error.value.remedy).partition("; if the files are, ")

    written = 'write "earthsearch:boa_offset_applied": false into the item, and state the unit: '
    assert f'{written}unit="dn-offset1000"' == files_right
    other = earth_search(
        "other.json", change=lambda item: in_item(item, "earthsearch:boa_offset_applied", False)
    )
    for file in files:
        set_scale(file, 1e-4, -0.1)
    assert Unit.DN_OFFSET1000 == eofm.read_scene(other, unit="dn-offset1000").spec.unit

    command = item_right.partition("as in: ")[2].replace("python", sys.executable, 1)
    for file in files:
        subprocess.run(
            command.replace(str(tmp_path / "assets/coastal.tif"), str(file)), shell=True, check=True
        )
    assert Unit.DN == eofm.read_scene(path).spec.unit


def radar_item(folder: Path, asset: Item) -> Path:
    """Write an item of terrain-corrected radar whose one band is an asset."""
    item = {
        "type": "Feature",
        "id": "S1A_IW_GRDH",
        "collection": "sentinel-1-rtc",
        "properties": {"sar:product_type": "RTC", "constellation": "sentinel-1"},
        "assets": {"vv": asset},
    }
    path = folder / "item.json"
    path.write_text(json.dumps(item), encoding="utf-8")
    return path


def test_a_radar_item_of_scaled_integers_is_read(tmp_path: Path, write_tif) -> None:
    """It is read as its file alone is; where the file lacks the scale, the remedy writes it."""
    values = np.random.default_rng(0).integers(-2200, -900, (8, 8)).astype(np.int16)
    write_tif(tmp_path / "vv.tif", values)
    asset = {"href": "vv.tif", "raster:bands": [{"scale": 0.01}], "roles": ["data"]}
    path = radar_item(tmp_path, asset)
    with pytest.raises(RasterError, match="its files do not") as error:
        eofm.read_scene(path, unit="db", bands=["VV"])
    command = str(error.value.remedy).partition("as in: ")[2].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True)

    found = eofm.read_scene(path, unit="db", bands=["VV"])
    alone = eofm.read_geotiff(tmp_path / "vv.tif", sensor="s1-rtc", unit="db", bands=["VV"])
    np.testing.assert_array_equal(found.pixels, alone.pixels)
    np.testing.assert_allclose(found.pixels[0, 0], values * 0.01, rtol=1e-6)


def test_an_address_whose_tags_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an item states a scale, an address that does not answer is said without its key."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/vv.tif"
    asset = {"href": f"{address}?sig=SECRET", "raster:bands": [{"scale": 0.01}]}
    path = radar_item(tmp_path, asset)
    with pytest.raises(RasterError, match="URL cannot be read") as refused:
        eofm.open_scene(path, unit="db", bands=["VV"])
    assert address in str(refused.value.where)
    assert "SECRET" not in str(refused.value)


def test_masks_are_found_by_the_keys_of_copernicus(earth_search) -> None:
    """The Copernicus Data Space calls the asset `SCL_20m`."""

    def change(item: Item) -> None:
        item["assets"]["SCL_20m"] = item["assets"].pop("scl")

    scene = eofm.open_scene(earth_search(change=change))

    assert ["SCL"] == [layer.mask for layer in scene.clouds]
    assert bool(scene.read(cloud_mask="SCL").valid.all())


def test_the_files_say_what_the_item_does_not(earth_search, tmp_path: Path) -> None:
    """Items of HLS have no scale, and their files have one: the unit was asked for."""

    def silence(item: Item) -> None:
        item["collection"] = "HLSS30_2.0"
        item["properties"] = {"datetime": None}
        for asset in item["assets"].values():
            asset.pop("raster:bands", None)

    path = earth_search(change=silence)
    for file in (tmp_path / "assets").glob("*.tif"):
        with rasterio.open(file, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,), (0.0,)

    assert Unit.DN is eofm.open_scene(path, sensor="s2-l2a").unit
    assert Unit.REFLECTANCE is eofm.open_scene(path, sensor="s2-l2a", unit="reflectance").unit
    with pytest.raises(RasterError, match="another unit than the user"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn-offset1000")


@pytest.mark.parametrize("newer", [True, False])
def test_nodata_is_read_from_the_item(newer: bool, earth_search, tmp_path: Path, write_tif) -> None:
    """The files do not say it, and cannot be changed behind an address."""

    def declare(item: Item) -> None:
        for key in NAMES:
            asset = item["assets"][key]
            if newer:
                asset.pop("raster:bands")
                asset["nodata"] = -9999
            else:
                asset["raster:bands"] = [{"nodata": -9999}]

    path = earth_search(change=declare)
    for key, size in SIZES.items():
        pixels = np.full((size, size), 1000, np.int16)
        pixels[:, : size // 2] = -9999
        write_tif(tmp_path / "assets" / f"{key}.tif", pixels, gsd=120 / size)

    found = eofm.read_scene(path)

    assert not bool(found.valid[0, :, :6].any())
    assert bool(found.valid[0, 5:7, 10:].all())
    assert 1000 == float(found.pixels[0, 0, 0, -1])


def test_rtc_of_the_planetary_computer_is_no_grd(tmp_path: Path, write_tif) -> None:
    """It keeps the product type of what it is made of, and the right statement was refused."""
    assets = {}
    for key in ("vv", "vh"):
        pixels = np.full((8, 8), 0.1 if key == "vv" else 0.02, np.float32)
        pixels[:, :2] = -32768
        write_tif(tmp_path / f"{key}.tif", pixels, nodata=-32768)
        assets[key] = {"href": f"{key}.tif", "roles": ["data"]}
    item = {
        "type": "Feature",
        "id": "S1A_IW_GRDH_1SDV_20220301_rtc",
        "collection": "sentinel-1-rtc",
        "properties": {"platform": "SENTINEL-1A", "sar:product_type": "GRD"},
        "assets": assets,
    }
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item), encoding="utf-8")

    for stated in ({}, {"sensor": "s1-rtc"}):
        found = eofm.read_scene(path, unit="power", **stated)
        assert Sensor.S1_RTC is found.spec.sensor
        assert [False] * 2 + [True] * 6 == found.valid[0, 0].tolist()
    with pytest.raises(SpecError, match="another sensor than stated"):
        eofm.open_scene(path, sensor="s1-grd", unit="power")


def test_every_scale_of_an_item_that_contradicts_itself_is_said(earth_search) -> None:
    """One band without the offset of the others: the scale of the first alone was shown."""

    def exempt(item: Item) -> None:
        item["properties"].pop("earthsearch:boa_offset_applied")
        item["assets"]["red"]["raster:bands"] = [{"scale": 0.0001, "offset": 0}]

    with pytest.raises(SpecError, match="contradicts itself") as caught:
        eofm.open_scene(earth_search(change=exempt))

    assert "(0.0001, -0.1)" in str(caught.value.found)
    assert "(0.0001, 0.0)" in str(caught.value.found)


@pytest.mark.parametrize(
    ("platform", "collection"),
    [("landsat-8", "landsat-c2-l2"), ("landsat-9", "HLSL30.v2.0"), ("terra", "modis-09A1-061")],
)
def test_an_item_of_another_satellite_is_refused(
    platform: str, collection: str, earth_search
) -> None:
    """`red` and `blue` are bands of all: Landsat's numbers were Sentinel-2's digital numbers."""
    told = {"platform": platform, "constellation": None, "s2:product_type": None}
    path = earth_search(properties=told, change=lambda item: item.update(collection=collection))

    with pytest.raises(SpecError, match="from another satellite than stated") as caught:
        eofm.open_scene(path, sensor="s2-l2a", unit="dn")

    assert platform in str(caught.value.found)


def test_items_of_the_copernicus_data_space_say_their_level(earth_search) -> None:
    """They have `product:type` in place of `s2:product_type`, and `L1` for the level."""
    told = {
        "s2:product_type": None,
        "product:type": "S2MSI1C",
        "processing:level": "L1",
        "earthsearch:boa_offset_applied": None,
    }

    scene = eofm.open_scene(earth_search(properties=told))

    assert (Sensor.S2_L1C, Unit.DN_OFFSET1000) == (scene.sensor, scene.unit)


def test_the_unit_that_is_asked_for_is_one_of_the_sensor(tmp_path: Path, write_tif) -> None:
    """Of radar the message gave `dn` as its example, which is no unit of it."""
    for band, value in (("vv", 0.1), ("vh", 0.02)):
        write_tif(tmp_path / f"{band}.tif", np.full((8, 8), value, np.float32))
    item = {
        "type": "Feature",
        "id": "x",
        "collection": "sentinel-1-rtc",
        "properties": {"platform": "SENTINEL-1A", "sar:product_type": "GRD"},
        "assets": {band: {"href": f"{band}.tif"} for band in ("vv", "vh")},
    }
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))

    with pytest.raises(SpecError, match="states the unit") as caught:
        eofm.open_scene(path)

    assert "db | power" == caught.value.expected
    assert Unit.DB is eofm.open_scene(path, unit=named_unit(caught.value)).unit


def test_a_radar_item_declares_the_unit_of_its_assets(tmp_path: Path, write_tif) -> None:
    """The `unit` of `raster:bands` was not read: dB had to be stated, and power was believed."""
    write_tif(tmp_path / "vv.tif", np.linspace(-20, -5, 64, dtype=np.float32).reshape(8, 8))
    asset = {"href": "vv.tif", "raster:bands": [{"unit": "dB"}], "roles": ["data"]}
    path = radar_item(tmp_path, asset)

    assert Unit.DB is eofm.read_scene(path, bands=["VV"]).spec.unit
    with pytest.raises(SpecError, match="another unit than stated") as caught:
        eofm.read_scene(path, bands=["VV"], unit="power")
    assert "db, by the units of its assets" == caught.value.found

    path = radar_item(tmp_path, asset | {"raster:bands": [{"unit": "amplitude"}]})
    with pytest.raises(RasterError, match="amplitudes"):
        eofm.read_scene(path, bands=["VV"], unit="power")


def test_a_unit_of_an_item_that_says_nothing_leaves_it_to_the_files(
    tmp_path: Path, write_tif
) -> None:
    """`m2/m2` is neither dB nor power by name; the descriptions of the files still state dB."""
    pixels = np.linspace(-20, -5, 64, dtype=np.float32).reshape(8, 8)
    write_tif(tmp_path / "vv.tif", pixels, descriptions=["VV_dB"])
    asset = {"href": "vv.tif", "raster:bands": [{"unit": "m2/m2"}], "roles": ["data"]}

    image = eofm.read_scene(radar_item(tmp_path, asset), bands=["VV"])

    assert Unit.DB is image.spec.unit
