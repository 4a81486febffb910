"""STAC metadata of vectors: an item and a collection, and an item of the model.

In the embeddings extension (v0.0.1, github.com/geo-embeddings/embeddings-stac-specification), the
collection describes a kind of vector (type, dimensions, layout of chips), and the item how one file
was made (parameters, preparation, quantisation). The model is an item of the Machine Learning Model
extension (v1.5.2). The contents of these files do not depend on the time of writing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eofm.environment import geo_library
from eofm.geo.embedding.job import Job
from eofm.geo.embeddings import Codes, Layout, Provenance
from eofm.io import replacing
from eofm.raster.grid import corners
from eofm.weights.encoder import Encoder

__all__ = [
    "EMBEDDINGS",
    "MLM",
    "MODEL",
    "PROCESSING",
    "collection_name",
    "collection_of",
    "item_name",
    "item_of",
    "model_of",
    "write_stac",
]

EMBEDDINGS: Final = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
PROCESSING: Final = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
MLM: Final = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
MODEL: Final = "model.json"
_MEDIA: Final = {
    ".parquet": "application/vnd.apache.parquet",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd.zarr; version=3",
}
_ALWAYS: Final = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")  # of a scene without a date
_JSON: Final = "application/json"
_GEOJSON: Final = "application/geo+json"


def item_name(layout: Layout) -> str:
    """Return the file name of the item of a layout."""
    return f"{layout}.item.json"


def collection_name(layout: Layout) -> str:
    """Return the file name of the collection of a layout."""
    return f"{layout}.collection.json"


def write_stac(job: Job, made: Provenance, files: Sequence[Path], codes: Codes | None) -> None:
    """Write item, collection and model next to the files of a job.

    Args:
        job: The job.
        made: Provenance of the vectors.
        files: Files of the vectors.
        codes: Codes of int8.
    """
    contents = {
        item_name(job.layout): item_of(job, made, files, codes),
        collection_name(job.layout): collection_of(job, made),
        MODEL: model_of(job.network.encoder),
    }
    for name, content in contents.items():
        with replacing(job.out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def item_of(
    job: Job, made: Provenance, files: Sequence[Path], codes: Codes | None
) -> dict[str, Any]:
    """Return the item of the output of a job: see `write_stac`."""
    geometry, bbox = _ground(job)
    start, end = _times(made)
    kind = str(made.quantization)
    quantization: dict[str, Any] = {"method": "none", "original_dtype": "float32"}
    if codes is not None:
        quantization = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": kind,
            "scale": [float(x) for x in codes.scale],
            "offset": [float(x) for x in codes.offset],
        }
    elif kind != "none":
        quantization = {"method": "cast", "original_dtype": "float32", "quantized_dtype": kind}
    plan = {"format": "eofm-plan", "expression": job.network.plan.describe().splitlines()}
    properties: dict[str, Any] = {
        "datetime": start if start == end else None,
        "start_datetime": start,
        "end_datetime": end,
        "license": made.licence,
        "emb:runtime_parameters": {
            **made.settings,
            "plan": made.plan_hash,
            "way": made.way_hash,
            "weights": f"sha256:{made.weights_sha256}",
            "min_valid": job.config.min_valid,
        },
        "emb:preprocessing": plan,
        "emb:quantization": quantization,
    }
    assets = {
        "embeddings" if not number else f"embeddings-{file.suffix[1:]}": {
            "href": f"./{file.name}",
            "type": _MEDIA[file.suffix],
            "title": f"{job.network.dim}-dimensional vectors of {job.layout}",
            "roles": ["data"],
        }
        for number, file in enumerate(files)
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [EMBEDDINGS, PROCESSING],
        "id": _id(job, made),
        "collection": _collection(job, made),
        "geometry": geometry,
        "bbox": bbox,
        "properties": properties,
        "links": [
            _link("collection", f"./{collection_name(job.layout)}", _JSON),
            _link("emb:model", f"./{MODEL}", _GEOJSON),
            *_sources(job, made),
        ],
        "assets": assets,
    }


def collection_of(job: Job, made: Provenance) -> dict[str, Any]:
    """Return the collection of a kind of vector, with the single item of a job."""
    _, bbox = _ground(job)
    settings = made.settings
    side = settings["window"] if job.layout is Layout.CHIPS else settings["patch"]
    step = settings.get("stride", side)
    named = settings.get("grid", "scene") != "scene"
    layout: dict[str, Any] = {
        "layout_type": "named_grid" if named else "regular_grid",
        "chip_size": [side, side],
    }
    layout |= {"grid_id": settings["grid"]} if named else {"stride": [step, step]}
    start, end = (None if time in _ALWAYS else time for time in _times(made))
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "stac_extensions": [EMBEDDINGS],
        "id": _collection(job, made),
        "description": f"Vectors of {made.model} for {job.layout} of {made.sensor}",
        "license": made.licence,
        "extent": {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [[start, end]]}},
        "emb:type": "chip" if job.layout is Layout.CHIPS else "pixel",
        "emb:dimensions": job.network.dim,
        "data_type": "float32" if str(made.quantization) == "none" else str(made.quantization),
        "gsd": settings["patch_metres"],
        "emb:chip_layout": layout,
        "emb:temporal_resolution": "single_acquisition",
        "links": [
            _link("emb:model", f"./{MODEL}", _GEOJSON),
            *_sources(job, made),
            _link("item", f"./{item_name(job.layout)}", _GEOJSON),
        ],
    }


def model_of(encoder: Encoder) -> dict[str, Any]:
    """Return the item of an encoder; `mlm:input` describes its expected input."""
    card, recipe, trunk = encoder.card, encoder.recipe, encoder.trunk
    rule = recipe.normalization
    expected = {
        "name": f"{recipe.sensor} in {recipe.unit}",
        "bands": list(recipe.bands),
        "input": {
            "shape": [-1, len(recipe.bands), *recipe.size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": shift, "stddev": scale}
            for shift, scale in zip(rule.shift, rule.scale, strict=True)
        ],
        "resize_type": {
            "nearest": "interpolation-nearest",
            "bilinear": "interpolation-linear",
            "bicubic": "interpolation-cubic",
        }[recipe.resize.kernel.value],
        "pre_processing_function": {"format": "eofm-recipe", "expression": recipe.to_dict()},
    }
    outputs = [("embedding", [-1, trunk.dim], ["batch", "embedding"])]
    outputs.append(("patches", [-1, trunk.tokens, trunk.dim], ["batch", "token", "embedding"]))
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": card.name,
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": _ALWAYS[0],
            "end_datetime": _ALWAYS[1],
            "description": f"{card.objective}; {card.source}",
            "license": card.licence,
            "bands": [{"name": band} for band in recipe.bands],
            "mlm:name": card.name,
            "mlm:architecture": card.architecture,
            "mlm:tasks": ["similarity-search"],
            "mlm:framework": "pytorch",
            "mlm:total_parameters": sum(p.numel() for p in trunk.parameters()),
            "mlm:pretrained": card.objective != "none",
            "mlm:pretrained_source": card.training_data,
            "mlm:input": [expected],
            "mlm:output": [
                {
                    "name": name,
                    "tasks": ["similarity-search"],
                    "result": {"shape": shape, "dim_order": order, "data_type": "float32"},
                }
                for name, shape, order in outputs
            ],
        },
        "links": [],
        "assets": {
            "model": {
                "href": card.url or f"urn:sha256:{card.sha256}",
                "title": f"weights, sha256 {card.sha256}",
                "type": "application/octet-stream",
                "roles": ["mlm:model"],
                "mlm:artifact_type": "safetensors.torch.save_file",
            }
        },
    }


# ---------------------------------------------------------------------------------- parts


def _id(job: Job, made: Provenance) -> str:
    return f"{job.ground.scene.name}-{job.layout}-{made.settings['job'][:12]}"


def _collection(job: Job, made: Provenance) -> str:
    return f"{made.model}-{job.layout}-{made.way_hash[:12]}"


def _link(rel: str, href: str, media: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": media}


def _sources(job: Job, made: Provenance) -> list[dict[str, str]]:
    hashes = {scene.id: scene.sha256 for scene in made.scenes}
    scene = job.ground.scene
    digest = hashes.get(scene.name, "")
    link = {"rel": "emb:source-data", "href": scene.origin or scene.name, "title": scene.name}
    return [{**link, "title": f"{scene.name}, sha256 {digest}"} if digest else link]


def _times(made: Provenance) -> tuple[str, str]:
    dates = [date if date.endswith("Z") else f"{date}Z" for date in made.dates]
    return (dates[0], dates[-1]) if dates else _ALWAYS


def _ground(job: Job) -> tuple[Mapping[str, Any], list[float]]:
    """Return outline and bounding box in longitude and latitude.

    Geometries across the antimeridian are split there (RFC 7946, sections 3.1.9 and 5.2).
    """
    ring = [(round(_wrapped(x), 7), round(y, 7)) for x, y in corners(job.ground.grid)]
    west, east = min(x for x, _ in ring), max(x for x, _ in ring)
    south, north = min(y for _, y in ring), max(y for _, y in ring)
    if east - west <= 180:
        return {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north]
    shapely = geo_library(
        "shapely", "scenes across 180 degrees need a library that is not installed"
    )
    moved = [(x + 360 if x < 0 else x, y) for x, y in ring]
    whole = shapely.Polygon(moved)
    left = whole.intersection(shapely.box(0, -90, 180, 90))
    right = whole.intersection(shapely.box(180, -90, 360, 90))
    parts = [
        [[(x, y) for x, y in left.exterior.coords]],
        [[(x - 360, y) for x, y in right.exterior.coords]],
    ]
    bbox = [min(x for x, _ in moved), south, max(x for x, _ in moved) - 360, north]
    return {"type": "MultiPolygon", "coordinates": parts}, bbox


def _wrapped(longitude: float) -> float:
    """Return a longitude between -180 and 180.

    >>> _wrapped(180.5), _wrapped(180.0), _wrapped(-200.0)
    (-179.5, 180.0, 160.0)
    """
    return longitude if abs(longitude) <= 180 else (longitude + 180) % 360 - 180
