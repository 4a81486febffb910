"""Item, collection and model beside the vectors, against the schemas of their extensions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from geo_scenes import GRIDS, config, export, small_encoder, texture, write_scene
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from eofm.geo.embedding.embed import embed
from eofm.geo.embedding_files import open_chips, open_patches

SCHEMAS = Path(__file__).parent / "schemas"
ADDRESSES = {
    "mlm-1.5.2": "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "embeddings-0.0.1": "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    "processing-1.1.0": "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
    "processing-1.2.0": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "raster-1.1.0": "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "classification-1.1.0": "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
    "geojson-Feature": "https://geojson.org/schema/Feature.json",
    "geojson-Geometry": "https://geojson.org/schema/Geometry.json",
    "stac-1.0.0-collection": "https://schemas.stacspec.org/v1.0.0/collection-spec/json-schema/"
    "collection.json",
    **{
        f"stac-1.0.0-{name}": f"https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/{name}.json"
        for name in ("item", "basics", "datetime", "instrument", "licensing", "provider")
    },
}  # fmt: skip


def schema(name: str) -> Any:
    """One of the schemas, under the address at which others look for it."""
    content = json.loads((SCHEMAS / f"{name}.json").read_text())
    content.pop("$id", None)  # a # at its end, or another version: the address counts
    return content


REGISTRY = Registry().with_resources(
    (address, Resource.from_contents({"$id": address, **schema(name)}, DRAFT7))
    for name, address in ADDRESSES.items()
)


def problems(content: Any, name: str) -> list[str]:
    """What a schema finds wrong."""
    kind = Draft202012Validator if "2020-12" in schema(name)["$schema"] else Draft7Validator
    own = {"$id": ADDRESSES[name], **schema(name)}
    checker = kind(own, registry=REGISTRY)
    return [
        f"{list(error.absolute_path)}: {error.message}" for error in checker.iter_errors(content)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The folder of a run of both layouts, of which the chips are int8."""
    scene = write_scene(tmp_path / "scene.tif", texture(64, 64))
    model = export(tmp_path / "model", small_encoder())
    settings = {"chips": 16, "patches": True, "quantization": "int8", "licence": "CC-BY-4.0"}
    embed(config(scene, model, tmp_path / "out", **settings))
    return tmp_path / "out"


def load(path: Path) -> Any:
    """A file of JSON."""
    return json.loads(path.read_text())


@pytest.mark.parametrize("layout", ["chips", "patches"])
def test_items_and_collections_are_valid(written: Path, layout: str) -> None:
    """Both keep the schema of the embeddings extension, and that of STAC."""
    item, collection = (load(written / f"{layout}.{kind}.json") for kind in ("item", "collection"))

    assert problems(item, "embeddings-0.0.1") == []
    assert problems(item, "stac-1.0.0-item") == []
    assert problems(collection, "embeddings-0.0.1") == []
    assert problems(collection, "stac-1.0.0-collection") == []


def test_the_model_is_valid(written: Path) -> None:
    """The item of the model keeps the schema of the extension for models."""
    model = load(written / "model.json")

    assert problems(model, "mlm-1.5.2") == []


def test_the_schemas_can_refuse(written: Path) -> None:
    """A field that is missing or misspelt is found by each."""
    item, model = load(written / "chips.item.json"), load(written / "model.json")
    collection = load(written / "chips.collection.json")

    item["properties"]["emb:dimensions"] = 192  # one of collections
    collection.pop("emb:type")
    model["properties"]["mlm:input"][0].pop("input")

    assert problems(item, "embeddings-0.0.1")
    assert problems(collection, "embeddings-0.0.1")
    assert problems(model, "mlm-1.5.2")


def test_what_they_say_is_what_was_done(written: Path) -> None:
    """Files, hashes, dimensions, layout and quantisation are those of the vectors."""
    item, collection = load(written / "chips.item.json"), load(written / "chips.collection.json")
    chips, patches = open_chips(written), open_patches(written)

    ran = item["properties"]["emb:runtime_parameters"]
    assert ran["weights"] == f"sha256:{chips.provenance.weights_sha256}"
    assert ran["plan"] == chips.provenance.plan_hash
    assert item["properties"]["emb:quantization"]["scale"] == chips.codes.scale.tolist()
    assert (written / item["assets"]["embeddings"]["href"]).exists()
    source = next(link for link in item["links"] if link["rel"] == "emb:source-data")
    assert source["href"].endswith("scene.tif")
    assert chips.provenance.scenes[0].sha256 in source["title"]
    assert collection["emb:type"] == "chip"
    assert collection["emb:dimensions"] == chips.dim
    assert collection["data_type"] == "int8"
    assert collection["gsd"] == 160
    assert collection["emb:chip_layout"] == {
        "layout_type": "regular_grid", "chip_size": [16, 16], "stride": [16, 16]
    }  # fmt: skip
    grid = load(written / "patches.collection.json")
    assert (grid["emb:type"], grid["gsd"]) == ("pixel", 140)
    assert set(load(written / "patches.item.json")["assets"]) == {"embeddings", "embeddings-zarr"}
    assert patches.provenance.settings["patch"] == 14


def test_the_item_lies_where_the_scene_does(written: Path) -> None:
    """Outline and box are in longitude and latitude."""
    item = load(written / "chips.item.json")

    west, south, east, north = item["bbox"]
    assert 8.99 < west < 9.0001 < east < 9.02
    assert 48.7 < south < north < 48.8
    assert len(item["geometry"]["coordinates"][0]) == 5


def test_a_scene_across_180_degrees_is_cut_there(tmp_path: Path) -> None:
    """Its outline has two parts, and its box begins in the east (RFC 7946)."""
    crs, _ = GRIDS["degrees"]
    transform = Affine(0.0001, 0, 179.9968, 0, -0.0001, -16)
    scene = write_scene(tmp_path / "s.tif", texture(64, 64), crs=crs, transform=transform)
    model = export(tmp_path / "model", small_encoder())
    embed(replace(config(scene, model, tmp_path / "out"), chips=32))

    item = load(tmp_path / "out" / "chips.item.json")

    west, _, east, _ = item["bbox"]
    assert (round(west, 4), round(east, 4)) == (179.9968, -179.9968)
    assert item["geometry"]["type"] == "MultiPolygon"
    xs = [x for part in item["geometry"]["coordinates"] for x, _ in part[0]]
    assert max(map(abs, xs)) <= 180
    assert problems(item, "embeddings-0.0.1") == []
    assert len(open_chips(tmp_path / "out")) == 4
