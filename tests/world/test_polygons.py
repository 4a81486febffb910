"""Polygons of known ground beside the products of the synthetic world."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
from affine import Affine
from rasterio.features import rasterize
from safe_product import PLACE

from eofm.world.config import WorldConfig
from eofm.world.files import draw_location, write_world
from eofm.world.safe import LEAST, write_polygons
from eofm.world.spectra import NO_COVER, GroundCover


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
