"""Products of the synthetic world: in the true layout, equal to its GeoTIFFs, honest about both.

Polygons of known ground lie beside them.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.features import rasterize
from safe_product import PLACE, TAKEN, digital_numbers, write_product

import eofm
from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.errors import ConfigError
from eofm.raster.safe import parse_xml, texts
from eofm.world.config import WorldConfig
from eofm.world.files import LEAST, Product, draw_location, write_polygons, write_world
from eofm.world.spectra import NO_COVER, GroundCover

NAME = re.compile(r"S2A_MSIL1C_\d{8}T\d{6}_N0511_R\d{3}_T\d\d[C-X][A-Z]{2}_\d{8}T\d{6}\.SAFE")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two locations with products of baseline 05.11."""
    out = tmp_path_factory.mktemp("world") / "world"
    write_world(WorldConfig(str(out), scenes=2, seasons=2, size=48, workers=1, safe="05.11"))
    return out


def test_products_are_equal_to_the_tifs(world: Path) -> None:
    """Every band of every season: the product is the GeoTIFF and 1000, at the same place."""
    products = sorted(world.glob("safe/*/*.SAFE"))
    assert 4 == len(products)
    for product in products:
        stamp = product.name.split("_")[2]
        (season,) = (world / "s2c" / product.parent.name).glob(f"{stamp}_*")
        scene = eofm.open_scene(product)
        assert Unit.DN_OFFSET1000 is scene.unit
        assert NAME.fullmatch(product.name)
        for band in scene.bands:
            short = "B" + band[1:].lstrip("0")
            with rasterio.open(season / f"{short}.tif") as tif:
                read = scene.read(bands=[band])
                assert np.array_equal(tif.read(1).astype(int) + 1000, read.pixels[0, 0].int())
                assert tuple(tif.transform)[:6] == read.grid.transform
                assert tif.crs.to_string() == read.grid.crs


def test_the_two_read_alike_after_conversion(world: Path) -> None:
    """With the offset taken off by the contract, folder and product are the same imagery."""
    from eofm.contract.preprocess import convert_unit

    product = next(iter(sorted(world.glob("safe/*/*.SAFE"))))
    season = next((world / "s2c" / product.parent.name).glob(f"{product.name.split('_')[2]}_*"))
    folder = eofm.read_scene(season, sensor="s2-l1c", unit="dn")
    image = eofm.read_scene(product)

    pixels = convert_unit(image.pixels, image.spec.unit, Unit.DN)
    assert folder.spec.bands == image.spec.bands
    assert np.allclose(folder.pixels, pixels, atol=2e-3)  # 20 and 60 m bands are interpolated


def test_products_change_nothing_else(world: Path, tmp_path: Path) -> None:
    """The GeoTIFFs are those of the same world without products, byte for byte."""
    write_world(WorldConfig(str(tmp_path / "w"), scenes=2, seasons=2, size=48, workers=1))
    for file in sorted((tmp_path / "w").rglob("*.tif")):
        assert file.read_bytes() == (world / file.relative_to(tmp_path / "w")).read_bytes()
    assert not (tmp_path / "w" / "safe").exists()


def test_a_world_with_other_products_is_another(world: Path) -> None:
    """The message names both baselines, and repeating the settings, as it says, works."""
    with pytest.raises(ConfigError, match="another world") as other:
        write_world(WorldConfig(str(world), scenes=2, seasons=2, size=48, workers=1))
    assert ("safe=05.11", "safe=None") == (other.value.found, other.value.expected)
    same = WorldConfig(str(world), scenes=2, seasons=2, size=48, workers=1, safe="05.11")
    assert 0 == write_world(same).written


@pytest.mark.parametrize("text", ["5.11", "05.1", "0511", "new", "", "０５.１１"])
def test_a_baseline_is_four_digits(text: str) -> None:
    """Anything else is refused before a pixel is drawn, and the remedy is a good one."""
    with pytest.raises(ConfigError, match="processing baseline") as refused:
        WorldConfig("w", safe=text)
    assert "05.11" == WorldConfig("w", safe=refused.value.remedy.split()[1]).safe


@pytest.mark.parametrize("sensor", [Sensor.S2_L1C, Sensor.S2_L2A])
def test_the_layout_is_that_of_esa(tmp_path: Path, sensor: Sensor) -> None:
    """13 or 12 images in their folders, the metadata beside them, each calling itself synthetic."""
    product = write_product(tmp_path, sensor, classes=None)
    level = "1C" if sensor is Sensor.S2_L1C else "2A"
    files = {f.relative_to(product).as_posix() for f in product.rglob("*") if f.is_file()}
    images = sorted(f for f in files if f.endswith(".jp2"))
    granule = f"GRANULE/L{level}_T32UNV_A030000_20220301T103021"
    stem = "T32UNV_20220301T103021"

    assert len(SENSOR_BANDS[sensor]) == len(images)
    expected = f"{stem}_B05.jp2" if level == "1C" else f"R20m/{stem}_B05_20m.jp2"
    assert f"{granule}/IMG_DATA/{expected}" in images
    assert {f"MTD_MSIL{level}.xml", "manifest.safe", f"{granule}/MTD_TL.xml"} < files
    assert any(re.fullmatch(r"DATASTRIP/DS_[^/]+/MTD_DS\.xml", f) for f in files)
    for name in files - set(images):
        assert "synthetic" in (product / name).read_text(encoding="utf-8")


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    """With the checksum that it has."""
    product = write_product(tmp_path)
    root = parse_xml((product / "manifest.safe").read_bytes(), "manifest.safe")
    names = [e.get("href").removeprefix("./") for e in root.iter("fileLocation")]
    found = dict(zip(names, texts(root, "checksum"), strict=True))
    files = {f.relative_to(product).as_posix() for f in product.rglob("*") if f.is_file()}

    assert files - {"manifest.safe"} == set(found)
    for name, checksum in found.items():
        assert checksum == hashlib.sha3_256((product / name).read_bytes()).hexdigest()


def test_images_are_lossless_and_never_wrap(tmp_path: Path) -> None:
    """Noise up to the highest number survives, and the offset stops at it."""
    noise = np.random.default_rng(0).integers(0, 65_536, (48, 48)).astype(np.uint16)
    product = write_product(tmp_path, pixels={"B02": noise})
    with rasterio.open(next(product.rglob("*_B02.jp2"))) as dataset:
        stored = dataset.read(1).astype(int)
    expected = np.where(noise == 0, 0, np.minimum(noise.astype(int) + 1000, 65_535))

    assert np.array_equal(expected, stored)


def test_names_follow_from_what_it_is() -> None:
    """Level, time, baseline and tile stand in the name, in the order of ESA's convention."""
    product = Product(Sensor.S2_L2A, "04.00", PLACE, TAKEN)

    assert "S2A_MSIL2A_20220301T103021_N0400_R061_T32UNV_20220301T123021" == product.name
    assert 1000 == product.offset
    assert 0 == Product(Sensor.S2_L2A, "03.01", PLACE, TAKEN).offset
    assert 12 == len(digital_numbers(SENSOR_BANDS[Sensor.S2_L2A]))


# ---------------------------------------------------------------------------------------- polygons


def test_polygons_lie_on_ground_of_their_class(tmp_path: Path) -> None:
    """Burnt into the grid again, every pixel under a polygon is of its class, and of one only."""
    random = np.random.default_rng(0)
    cover = np.kron(random.integers(0, 9, (12, 16)), np.ones((20, 20), int)).astype(np.uint8)
    cover[40:80, 60:100] = NO_COVER
    write_polygons(tmp_path / "f.geojson", cover, PLACE, random)
    table = geopandas.read_file(tmp_path / "f.geojson")

    assert "EPSG:4326" == table.crs.to_string()
    ground = table.to_crs(PLACE.epsg)
    assert (ground.area > LEAST * 99).all()
    transform = Affine(10, 0, PLACE.left, 0, -10, PLACE.top)
    codes = {code.name.lower().replace("_", " "): int(code) for code in GroundCover}
    # a centimetre is lost on the way to degrees: pixels are burnt by their middle
    burnt = [
        rasterize([(shape, 1)], cover.shape, transform=transform).astype(bool)
        for shape in ground.geometry
    ]
    for mask, name in zip(burnt, ground["class"], strict=True):
        assert mask.sum() >= LEAST
        assert {codes[name]} == set(cover[mask].tolist())
    assert 1 == np.sum(burnt, axis=0).max()


def test_few_of_a_class_are_drawn_and_always_the_same(tmp_path: Path) -> None:
    """At most forty polygons of a class; the same generator draws the same ones."""
    cover = np.zeros((480, 480), np.uint8)
    for name in "ab":
        write_polygons(tmp_path / name, cover, PLACE, np.random.default_rng(3))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    features = json.loads((tmp_path / "a").read_text())["features"]
    assert 40 == len(features)
    assert {"water"} == {one["properties"]["class"] for one in features}


def test_a_world_of_products_has_them(tmp_path: Path) -> None:
    """One file beside each product, with classes of that day's map; none without products."""
    config = WorldConfig(str(tmp_path / "w"), scenes=1, seasons=2, size=96, workers=1, safe="05.11")
    write_world(config)
    files = sorted((tmp_path / "w").glob("safe/*/*.geojson"))
    products = sorted((tmp_path / "w").glob("safe/*/*.SAFE"))

    assert [file.stem for file in files] == [product.stem for product in products]
    maps = {scene.cover.tobytes(): scene.cover for _, _, scene, _ in draw_location(config, 0)}
    names = {GroundCover(c).name for m in maps.values() for c in np.unique(m) if c != NO_COVER}
    drawn = {str(n) for file in files for n in geopandas.read_file(file).get("class", [])}
    assert drawn
    assert {name.upper().replace(" ", "_") for name in drawn} <= names

    plain = WorldConfig(str(tmp_path / "p"), scenes=1, seasons=1, size=48, workers=1)
    write_world(plain)
    assert not list((tmp_path / "p").rglob("*.geojson"))
