"""Spoiled files for every reader: the same value, or words, or (without a checksum) another value.

    python tests/campaigns/inputs.py --trials 25000 --seed 0

Each case writes a sound file, spoils it, and asks the reader that users reach. What comes back is
`same`, `refused` (an error of eofm), `again` (not believed, to be computed anew), `altered`, or a
`fault`: a foreign exception, or a reader that does not come back. Of a sealed format `altered` is a
fault too. Where a spoiled JSON file gets the right checksum once more (`forged`), its values reach
the parser: then another value is what was asked for.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "miniatures"))  # as in pyproject.toml

import geopandas
import kill_writers
import mutations
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import shapely
import torch
from affine import Affine
from miniature_files import Miniature
from mutations import Mutate, made
from vector_world import chips_of, drawn, on_disk, world

import eofm
from eofm.bench.candidates import read_recipe
from eofm.bench.features import FeatureCache, Key, digests_of, keep_json, kept_json
from eofm.bench.finetune.runs import Fit, RateJournal
from eofm.bench.predictions import predictions_of, write_predictions
from eofm.bench.probes import Splits, run_probe
from eofm.bench.records import Made, Result, Sample, append_results, record_lines
from eofm.bench.sources import Identity
from eofm.cli.program import UsageError, parse
from eofm.contract.recipe import Pooling
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import DataError, EofmError
from eofm.formats.foreign import sealed, sealed_line
from eofm.geo.cells import cells_of
from eofm.geo.embedding.job import Work
from eofm.geo.embedding_files import open_embeddings, write_chips, write_tiff, write_zarr
from eofm.geo.embeddings import ChipTable, Codes, Provenance, Quantization, patch_grid
from eofm.geo.places import classes_of, read_labels, read_places
from eofm.landcover.config import LabelsConfig
from eofm.landcover.jobs import SceneOptions, find_scenes
from eofm.landcover.maps import find_maps
from eofm.landcover.run import write_labels
from eofm.landcover.schemes import read_scheme
from eofm.landcover.table import open_table
from eofm.networks.state import read_state
from eofm.probes.bootstrap import Interval
from eofm.probes.features import Labelled, Scaling
from eofm.probes.metrics import Metric
from eofm.raster.stac import open_stac
from eofm.store.choice import read_ids
from eofm.store.config import StatsConfig, VerifyConfig
from eofm.store.describe import verify_store
from eofm.store.format import LabelRule, StoreCard
from eofm.store.paired import PairedStore, match_stores, write_pairs
from eofm.store.reader import Store
from eofm.store.stats import make_statistics, read_statistics
from eofm.store.writer import StoreWriter
from eofm.train.config import PretrainConfig, ReportConfig, RunConfig
from eofm.train.figures import DAMAGED, read_record
from eofm.train.report import page_of
from eofm.train.run_folder import RunFolder, open_folder
from eofm.weights.download import read_record as read_download
from eofm.weights.download import write_record
from eofm.weights.encoder import random_encoder, save_encoder
from eofm.weights.load import from_checkpoint

HANGS_S: Final = 20  # of the processor: a loaded machine is no hang


class HangError(BaseException):
    """A reader did not come back."""


class Again(Exception):  # noqa: N818 (it is no error)
    """A file was not believed: what it holds is computed anew."""


@dataclass(frozen=True)
class Case:
    """A format.

    Args:
        make: Writes a sound file into an empty folder, and returns it.
        read: Reads it as users do, and returns what it says.
        spoil: How it is spoiled.
        sealed: A checksum protects it: another value must never come back.
        forge: Gives a spoiled file its right checksum, so that its values reach the parser.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    spoil: Mutate
    sealed: bool = False
    forge: Callable[[bytes], bytes] | None = None


# ------------------------------------------------------------------------------ the sound files

_BANDS: Final = ("B02", "B8A", "B09")
_SPEC: Final = ImageSpec(Sensor.S2_L1C, _BANDS, Unit.DN, (12, 18), 10.0)
MINIATURE: Final = Miniature(
    StoreCard(
        _SPEC,
        {10: ("B02",), 20: ("B8A",), 60: ("B09",)},
        LabelRule("terramesh", ("water", "trees", "crops"), 0.0, 0.25),
        {"window": 12, "landcover": None},
    )
)


def _store(folder: Path) -> Path:
    return MINIATURE.store(folder / "s", 5)


def _said_by(store: Store) -> object:
    """All that a store says."""
    rows = range(len(store))
    planes = store.images(rows).planes
    return (
        store.card.to_json(),
        repr(store.table.to_pylist()),
        {gsd: plane.numpy().tobytes() for gsd, plane in planes.items()},
        store.labels(rows).multi_hot.tolist(),
        store.valid(rows).tobytes(),
    )


def _read_store(file: Path) -> object:
    path = next(parent for parent in file.parents if parent.name == "s")
    said = _said_by(Store(path))
    verify_store(VerifyConfig(str(path), 1))
    return said


def _journal(folder: Path) -> Path:
    card = MINIATURE.card
    with StoreWriter(folder / "s", card, shard_bytes=2 * card.row_bytes) as writer:
        for i in range(5):
            writer.append(MINIATURE.entry(i), MINIATURE.imagery(i))
            writer.source_done(f"p{i}", i % 3)
    shutil.copytree(folder / "s", folder / "kept")
    return folder / "s" / "journal.jsonl"


def _finish_store(file: Path) -> object:
    """Resume a store from a spoiled journal, and finish it."""
    spoiled, path = file.read_bytes(), file.parent
    shutil.rmtree(path)
    shutil.copytree(path.with_name("kept"), path)
    file.write_bytes(spoiled)
    card = MINIATURE.card
    with StoreWriter(path, card, shard_bytes=2 * card.row_bytes) as writer:
        for i in range(5):
            if MINIATURE.entry(i).id not in writer.ids:
                writer.append(MINIATURE.entry(i), MINIATURE.imagery(i))
            if f"p{i}" not in writer.skipped:
                writer.source_done(f"p{i}", i % 3)
        writer.finish()
    return {
        str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()
    }


def _pairs(folder: Path) -> Path:
    for name in ("a", "b"):
        MINIATURE.store(folder / name, 5)
    return write_pairs(folder, match_stores(folder, ["a", "b"]))


def _read_pairs(file: Path) -> object:
    pairs = PairedStore(file.parent)
    return repr(pairs.table.to_pylist()), [pairs.rows(name).tolist() for name in pairs.stores]


def _map(folder: Path, name: str = "map.tif") -> Path:
    rng = np.random.default_rng(0)
    file = folder / name
    with rasterio.open(
        file, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5.4e6), compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(rng.choice([0, 10, 20, 30, 40], (1, 64, 64)).astype("uint8"))
    return file


def _labels(folder: Path) -> Path:
    out = folder / "labels.parquet"
    write_labels(LabelsConfig([str(_map(folder))], scheme="worldcover", window=16, out=str(out)))
    return out


def _read_labels(file: Path) -> object:
    table = open_table(file)
    hot, known = table.labels()
    return table.about, hot.tolist(), known.tolist(), repr(table.read().to_pylist())


_IDS: Final = [f"tile-{number}" for number in range(20)]
_MODEL: Final = Identity("mine", False, "vit", "a" * 64, "b" * 64, "c" * 64, ("step",), ())


def _records(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Labelled:
        x = torch.randn(count, 5, generator=generator)
        return Labelled(x, (x[:, :3] > 0).long(), 3)

    test = draw(20)
    splits = Splits(draw(40), draw(20), test.x, test.y, torch.arange(40))
    scored = run_probe("knn", splits, Scaling.NONE, k=5)
    names = ("water", "wood", "wheat")
    sha256 = write_predictions(folder / "predictions", "abc", scored, test.y, _IDS, names)
    value = scored.value(Metric.AP_MACRO)
    result = Result(
        "set", "1", Sample("set", "given", "ids", "data", 40, 20, 20, True, 0), _MODEL,
        scored.probe.probe, None, None, Metric.AP_MACRO, value, Interval(0, 1, 0.95, 10), 0,
        ("a flag",), Made("eofm", "2026", {"eofm": "0"}, "", "cpu", 0, 0, None), kind="knn",
        predictions="predictions/abc.npz", predictions_sha256=sha256,
    )  # fmt: skip
    append_results(folder / "r.jsonl", [result])
    return folder / "r.jsonl"


def _read_records(file: Path) -> object:
    found = [Result.from_line(line) for _, line in record_lines(file)]
    if not found:
        raise DataError("no record", where=file)
    return found


def _predictions(folder: Path) -> Path:
    _records(folder)
    return folder / "predictions" / "abc.npz"


def _read_predictions(file: Path) -> object:
    records = file.parent.parent / "r.jsonl"
    (result,) = _read_records(records)  # type: ignore[misc]
    found = predictions_of(result, records)
    return found.ids, found.scores.tolist(), found.target.tolist(), found.fit


_KEY: Final = Key({"weights": "a", "data": "b"})


def _features(folder: Path, name: str) -> Path:
    FeatureCache(folder / "cache").store(_KEY, torch.arange(12.0).reshape(4, 3), {})
    return folder / "cache" / _KEY.sha256 / name


def _read_features(file: Path) -> object:
    found = FeatureCache(file.parent.parent).load(_KEY, 4)
    if found is None:
        raise Again
    return found.tolist()


def _fact(folder: Path) -> Path:
    FeatureCache(folder).fact(_KEY, lambda: 7)
    return folder / f"{_KEY.sha256}.json"


def _read_fact(file: Path) -> object:
    def anew() -> int:
        raise Again

    return FeatureCache(file.parent).fact(_KEY, anew)


def _digests(folder: Path) -> Path:
    digests_of(folder, {}, folder)
    file = folder / "digests.json"
    keep_json(file, {"version": 1, "images": {f"i{n}": [f"look {n}", "a" * 64] for n in range(3)}})
    return file


def _read_kept(file: Path) -> object:
    found = kept_json(file)
    if not found:
        raise Again
    return found


def _tried(folder: Path) -> Path:
    journal = RateJournal(folder / "j")
    journal.add(0.1, Fit((0.5, 0.75), 2), {"a": torch.arange(9.0)})
    return folder / "j" / "tried.json"


def _read_tried(file: Path) -> object:
    journal = RateJournal(file.parent)
    state = {name: tensor.tolist() for name, tensor in journal.state().items()}
    return journal.tried, journal.best(), state


def _stats(folder: Path) -> Path:
    path = _store(folder)
    return make_statistics(StatsConfig(str(path), out=str(folder / "stats.json"))).file


def _encoder(folder: Path) -> Path:
    recipe = eofm.Recipe(
        Sensor.S2_L1C, ("B02", "B03"), Unit.DN, (28, 28),
        eofm.Normalization((0.0, 0.0), (1000.0, 1000.0), "made up"), pooling=Pooling.MEAN,
    )  # fmt: skip
    encoder = random_encoder("vit-tiny-14", recipe, 0)
    save_encoder(encoder, folder / "e")
    return folder / "e" / "card.json"


def _read_encoder(file: Path) -> object:
    encoder = eofm.load_encoder(file.parent)
    return encoder.card, {k: v.numpy().tobytes() for k, v in encoder.trunk.state_dict().items()}


_STATE: Final = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(20)}


def _torch(folder: Path, name: str, *, packed: bool) -> Path:
    torch.save(_STATE, folder / name, _use_new_zipfile_serialization=packed)
    return folder / name


def _safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(_STATE, folder / "x.safetensors")
    return folder / "x.safetensors"


def _read_state(file: Path) -> object:
    return {name: tensor.tolist() for name, tensor in read_state(file).items()}


def _receipt(folder: Path) -> Path:
    (folder / "w.pth").write_bytes(b"weights")
    write_record(folder / "w.pth", "https://host/w.pth", "a" * 64)
    return folder / "w.pth.receipt.json"


def _read_receipt(file: Path) -> object:
    return read_download(file.with_name("w.pth"))


def _written(name: str, text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return write


_SCHEME: Final = """name: my-map
classes: {1: water, 2: forest, 3: forest, 7: fields}
nodata: [0]
cloud: [10]
unknown: error
"""
_RECIPE: Final = """sensor: s2-l1c
bands: [B02, B03, B04]
unit: dn
size: [224, 224]
normalization: {shift: [0.0, 0.0, 0.0], scale: [10000.0, 10000.0, 10000.0], source: made up, clip: null, levels: null}
resize: {kernel: bilinear, antialias: true, order: before-normalization}
pooling: cls
"""
_ITEM: Final = json.dumps(
    {
        "type": "Feature", "stac_version": "1.0.0", "id": "S2A_x",
        "bbox": [9, 48, 10, 49], "geometry": {"type": "Polygon", "coordinates": [[[9, 48], [10, 48], [10, 49], [9, 48]]]},
        "properties": {"datetime": "2021-06-01T10:20:30Z", "platform": "sentinel-2a", "s2:processing_baseline": "05.00", "proj:epsg": 32632},
        "assets": {
            name: {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff", "eo:bands": [{"name": name, "common_name": word}],
                   "raster:bands": [{"scale": 1e-4, "offset": -0.1}], "roles": ["data"]}
            for name, word in (("B02", "blue"), ("B03", "green"))
        },
        "links": [],
    }
)  # fmt: skip


def _stac(folder: Path) -> Path:
    for name in ("B02", "B03"):
        _map(folder, f"{name}.tif")
    return _written("item.json", _ITEM)(folder)


def _read_stac(file: Path) -> object:
    scene = open_stac(file, sensor=Sensor.S2_L2A)
    return repr(scene)


def _stac_of_maps(folder: Path) -> Path:
    _map(folder, "B02.tif")
    plain = json.loads(_ITEM)
    plain["assets"].pop("B03")
    return _written("items.json", json.dumps({"type": "FeatureCollection", "features": [plain]}))(folder)  # fmt: skip


def _footprints(folder: Path) -> Path:
    columns = {
        "id": ["a", "b"], "minx": [5e5, 5.1e5], "miny": [5.3e6, 5.3e6], "maxx": [5.01e5, 5.11e5],
        "maxy": [5.31e6, 5.31e6], "crs": ["EPSG:32632"] * 2, "date": ["2021-06-01", ""],
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "f.parquet")
    return folder / "f.parquet"


def _geotiff(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    with rasterio.open(
        folder / "x.tif", "w", driver="GTiff", width=32, height=32, count=2, dtype="uint16",
        crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5.4e6), compress="deflate", nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(rng.integers(300, 3000, (2, 32, 32)).astype("uint16"))
        dataset.descriptions = ("B02", "B03")
        dataset.update_tags(1, scale="1")
    return folder / "x.tif"


def _read_geotiff(file: Path) -> object:
    image = eofm.read_geotiff(file, sensor="s2-l1c", unit="dn")
    return image.spec, image.pixels.numpy().tobytes(), image.valid.numpy().tobytes(), image.grids


def _folder_table(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for split in ("train", "test"):
            for i in range(2):
                shutil.copy(_geotiff(folder), folder / f"{split}{i}.tif")
        rows = [
            (f"{s}{i}.tif", s, ["water", "wood"][i]) for s in ("train", "test") for i in range(2)
        ]
        file = folder / name
        if name.endswith(".parquet"):
            columns = list(zip(*rows, strict=True))
            pq.write_table(
                pa.table(dict(zip(("file", "split", "labels"), map(list, columns), strict=True))),
                file,
            )
        else:
            file.write_text("file,split,labels\n" + "".join(",".join(row) + "\n" for row in rows))
        return file

    return make


def _read_folder(file: Path) -> object:
    from eofm.datasets.folder import open_labelled_folder

    chips = open_labelled_folder(file.parent, Sensor.S2_L1C, Unit.DN)
    return repr(chips)


def _checkpoint(folder: Path) -> Path:
    torch.save({"state_dict": _STATE, "eofm": {"recipe": {}}, "epoch": 3}, folder / "x.ckpt")
    return folder / "x.ckpt"


def _read_checkpoint(file: Path) -> object:
    try:
        from_checkpoint(file, "student")
    except EofmError as error:
        if "bytes" not in str(error) and "lacks parts" in error.problem:
            return str(error.found)  # it was read, and what it holds is no run: as it was made
        raise
    return "an encoder"


def _forge_json(data: bytes) -> bytes:
    plain = json.loads(data)
    return json.dumps(sealed(plain)).encode() if isinstance(plain, dict) else data


def _forge_record(data: bytes) -> bytes:
    plain = json.loads(data)
    if not isinstance(plain, dict):
        return data
    try:
        Result.from_line(json.dumps({**plain, "key": ""}))
    except EofmError as error:
        if isinstance(error.expected, str) and len(error.expected) == 64:
            plain["key"] = error.expected
    return (json.dumps(sealed(plain)) + "\n").encode()


def _one_record(data: bytes, rng: Any) -> bytes:
    return mutations.of_json(data, rng)


# ------------------------------------------------------------------------- vectors and their maps


def _chips(folder: Path) -> Path:
    patches, _ = world(size=(6, 6), dim=4)
    chips = chips_of(patches)
    table = chips.table.assign(datetime="2021-07-04T10:30:00", valid_share=1.0, cloud_share=0.0)
    codes = Codes.between(chips.vectors.min(axis=0), chips.vectors.max(axis=0))
    made = replace(chips.provenance, quantization=Quantization.INT8)
    stored = codes.encode(chips.vectors)
    write_chips(folder / "chips.parquet", [ChipTable(table, stored, made, codes)])
    return _with_metadata(folder / "chips.parquet", b"geo", b"emb", b"eofm")


def _chips_of_others(folder: Path) -> Path:
    return _with_metadata(_chips(folder), b"geo", b"emb")


def _with_metadata(file: Path, *keys: bytes) -> Path:
    """Keep the metadata of a file where harm to its columns leaves them: with the schema."""
    metadata = pq.read_metadata(file).metadata
    kept = {key: metadata[key] for key in keys}
    pq.write_table(pq.read_table(file).replace_schema_metadata(kept), file)
    return file


def _patches(folder: Path, kind: str) -> Path:
    patches, _ = world(size=(6, 6), dim=4)
    if kind == "tif":
        stored = np.moveaxis(patches.rows(slice(None)), -1, 0)
        flat = stored.reshape(4, -1)
        codes = Codes.between(np.nanmin(flat, axis=1), np.nanmax(flat, axis=1))
        coded = np.moveaxis(codes.encode(np.moveaxis(stored, 0, -1)), -1, 0)
        write_tiff(
            folder / "patches.tif", patch_grid(coded, patches.grid, patches.provenance, codes)
        )
        return folder / "patches.tif"
    write_zarr(folder / "patches.zarr", patches)
    return folder / "patches.zarr" / kind


def _read_embeddings(file: Path) -> object:
    """All that a search or a map asks of vectors."""
    path = next((one for one in file.parents if one.suffix == ".zarr"), file)
    found = open_embeddings(path)
    cells = cells_of(found)
    vectors = [part.tobytes() for _, part in cells.blocks()]
    said = found.provenance, repr(cells.crs), cells.valid.tobytes(), vectors
    if isinstance(found, ChipTable):
        return said, repr(found.table.to_wkb().to_dict())
    return said, repr(found.grid)


def _product(folder: Path, name: str) -> Path:
    """Write a file as Earth Index (points, `emb`) or Clay (boxes, `embeddings`) publishes it."""
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32).tolist()
    index = name == "21MNT.parquet"
    columns: dict[str, object] = {"id": list("abcdef"), "embedding": vectors}
    if not index:
        dates = np.array(["2022-06-10"] * 6, "datetime64[s]")
        columns = {"index": range(6), "source_url": ["s3://a.tif"] * 6, "date": dates, "embeddings": vectors}  # fmt: skip
    places = [shapely.Point(9 + i / 300, 48) for i in range(6)]
    shapes = places if index else [place.buffer(0.001, cap_style="square") for place in places]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    frame.to_parquet(folder / name)
    if not index:
        return _with_metadata(folder / name, b"geo")
    emb = {
        "version": "0.0.1", "license": "CC-BY-4.0", "embedding_dim": 4, "embedding_quantization": "None",
        "model": {"id": "softcon", "version": "2.0.0", "config": "class token"},
        "start_datetime": "2023-01-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z",
        "datasets": [{"dataset_source": "https://x", "dataset_name": "mosaics"}],
    }  # fmt: skip
    table = pq.read_table(folder / name)
    metadata = {b"geo": table.schema.metadata[b"geo"], b"emb": json.dumps(emb).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), folder / name)
    return folder / name


def _alpha_earth(folder: Path) -> Path:
    """Write vectors of another program: 64 bands of int8, without provenance."""
    bands = np.random.default_rng(0).integers(-127, 128, (64, 8, 8)).astype(np.int8)
    with rasterio.open(
        folder / "theirs.tif", "w", driver="GTiff", width=8, height=8, count=64, dtype="int8",
        crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5.4e6), nodata=-128,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
    return folder / "theirs.tif"


def _provenance(folder: Path) -> Path:
    patches, _ = world(size=(6, 6), dim=4)
    return _written("provenance.json", patches.provenance.to_json())(folder)


def _stac_of_vectors(name: str) -> Callable[[Path], Path]:
    """The item, collection or model that `eofm embed` writes."""

    def make(folder: Path) -> Path:
        kill_writers.write_scene(folder / "scene.tif", kill_writers.texture(64, 96))
        model = save_encoder(kill_writers.scene_encoder(), folder / "embedder")
        assert model.sha256
        kill_writers.embed(
            kill_writers.embed_config(folder / "scene.tif", str(folder / "embedder"), folder / "out", batch=2, chips=16)
        )  # fmt: skip
        return folder / "out" / name

    return make


def _never(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Let a reader refuse what is not for it: no spoiled file may be accepted, or end otherwise."""

    def refuse(file: Path) -> object:
        try:
            return read(file)
        except EofmError:
            return "refused"

    return refuse


def _read_plain_places(file: Path) -> object:
    places = read_places(file)
    return places.crs.to_wkt(), [shape.wkb for shape in _CELLS.own(places)]


def _polygons(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        patches, truth = world(size=(32, 32), dim=4)
        frame = drawn(patches, truth)
        if name.startswith("points"):
            frame.geometry = frame.geometry.centroid
        if name.endswith(".parquet"):
            frame.to_parquet(folder / name)
        elif name.endswith(".geojson"):
            on_disk(frame, folder / name, "EPSG:4326")
        else:
            on_disk(frame, folder / name)
        return folder / name

    return make


_CELLS: Final = cells_of(world(size=(32, 32), dim=4)[0])


def _read_polygons(file: Path) -> object:
    places = read_labels(file, "class")
    shapes = _CELLS.own(places)
    return places.values, classes_of([places]), places.crs.to_wkt(), [s.wkb for s in shapes]


def _read_provenance(file: Path) -> object:
    return Provenance.from_json(file.read_bytes().decode(errors="replace"), file)


def _work(folder: Path) -> Path:
    Work(folder / "w", "job").commit(1)
    return folder / "w" / "state.json"


def _run_settings(folder: Path) -> Path:
    config = PretrainConfig(run=RunConfig(out=str(folder)))
    RunFolder(folder).start(config)
    return folder / "config.yaml"


def _read_run(file: Path) -> object:
    asked = PretrainConfig(run=RunConfig(out=str(file.parent), resume=True))
    return open_folder(asked)


_ROWS: Final = 8  # of a run's numbers


def _run_record(folder: Path, name: str) -> Path:
    _run_settings(folder)
    rows = [
        {"step": step, "epoch": 0, "loss": 1.0 / step, "lr": 0.1} for step in range(1, _ROWS + 1)
    ]
    (folder / "metrics.jsonl").write_bytes(b"".join(map(sealed_line, rows)))
    (folder / "environment.json").write_text(json.dumps({"started": "2026", "device": "cpu"}))
    score = {"name": "student", "knn": 0.5, "linear": 0.6}
    results = {"synthetic": True, "sensor": "s2-l1c", "classes": ["a"], "train_scenes": 9,
               "held_out_scenes": 9, "probe_failed": None, "scores": [score], "intervals": [],
               "verdict": "fine", "train_seconds": 1.0}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(sealed(results)))
    return folder / name


def _read_record_of_run(file: Path) -> object:
    record = read_record(file.parent)
    page = page_of(record, ReportConfig([str(file.parent)]))
    rows = len(record.steps["loss"][0]) if "loss" in record.steps else 0
    if rows < _ROWS or record.results.get(DAMAGED):
        raise DataError("damage was left out of the page, with a warning", where=file)
    return repr(record.steps), record.results, record.environment, page.verdict.split(" was ")[0]


def _words_of(verb: str) -> Callable[[Path], object]:
    """Read the settings of a verb as its command line does."""

    def read(file: Path) -> object:
        try:
            return parse(verb, ["--config", str(file)])
        except UsageError as error:  # status 2, in words
            raise DataError(str(error), where=file) from error
        except SystemExit as error:
            raise RuntimeError("the parser ended the process") from error

    return read


_WORDS: Final = """embeddings: vectors
labels: [a.gpkg, b.gpkg]
field: class
block: 560.0
probe: linear
folds: 5
"""

_OF_VERBS: Final = {
    "embed": "scenes: [scene.tif]\nmodel: softcon_vits14_s2\nsensor: s2-l2a\nunit: dn\nchips: 32\nbatch: 8\nmin_valid: 0.5\nout: emb\n",
    "search": "embeddings: emb\nlike: [a.gpkg]\nunlike: [b.gpkg]\ntop: 20\nout: found\n",
    "change": "before: a.tif\nafter: b.tif\n'null': [c.tif, d.tif]\nrate: 0.01\nwindow: 33\nsmallest: 1\n",
    "explore": "embeddings: emb\ndimensions: 16\nout: x.html\n",
}  # fmt: skip

CASES: Final[Mapping[str, Case]] = {
    "store: spec.json": Case(lambda d: _store(d) / "spec.json", _read_store, mutations.of_json, True, _forge_json),
    "store: index.parquet": Case(lambda d: _store(d) / "index.parquet", _read_store, mutations.of_parquet, True),
    "store: 10m.npy": Case(lambda d: _store(d) / "shard-00000/10m.npy", _read_store, mutations.of_npy, True),
    "store: valid.npy": Case(lambda d: _store(d) / "shard-00001/valid.npy", _read_store, mutations.of_npy, True),
    "store: journal.jsonl": Case(_journal, _finish_store, mutations.of_text, True),
    "stores: rows.parquet": Case(_pairs, _read_pairs, mutations.of_parquet, True),
    "store: stats.json": Case(_stats, read_statistics, mutations.of_json, True, _forge_json),
    "labels.parquet": Case(_labels, _read_labels, mutations.of_parquet, True),
    "records": Case(_records, _read_records, _one_record, True, _forge_record),
    "predictions.npz": Case(_predictions, _read_predictions, mutations.of_bytes, True),
    "cache: features.npy": Case(lambda d: _features(d, "features.npy"), _read_features, mutations.of_npy, True),
    "cache: meta.json": Case(lambda d: _features(d, "meta.json"), _read_features, mutations.of_json, True),
    "cache: fact": Case(_fact, _read_fact, mutations.of_json, True),
    "cache: digests": Case(_digests, _read_kept, mutations.of_json, True),
    "fine-tuning: tried.json": Case(_tried, _read_tried, mutations.of_json, True, _forge_json),
    "fine-tuning: best.pt": Case(lambda d: _tried(d).with_name("best.pt"), lambda f: _read_tried(f.with_name("tried.json")), mutations.of_bytes, True),
    "encoder: card.json": Case(_encoder, _read_encoder, mutations.of_json),
    "encoder: weights.safetensors": Case(lambda d: _encoder(d).with_name("weights.safetensors"), _read_encoder, mutations.of_bytes, True),
    "weights: .pth": Case(lambda d: _torch(d, "x.pth", packed=True), _read_state, mutations.of_bytes, True),
    "checkpoint": Case(_checkpoint, _read_checkpoint, mutations.of_bytes, True),
    "receipt": Case(_receipt, _read_receipt, mutations.of_json, True, _forge_json),
    "weights: .pth of torch < 1.6": Case(lambda d: _torch(d, "x.pth", packed=False), _read_state, mutations.of_bytes),
    "weights: .safetensors": Case(_safetensors, _read_state, mutations.of_bytes),
    "scheme.yaml": Case(_written("s.yaml", _SCHEME), read_scheme, mutations.of_text),
    "recipe.yaml": Case(_written("r.yaml", _RECIPE), lambda f: read_recipe(str(f)), mutations.of_text),
    "ids.txt": Case(_written("ids.txt", "a\nb\nc\n"), read_ids, mutations.of_text),
    "STAC item": Case(_stac, _read_stac, mutations.of_json),
    "STAC items of maps": Case(_stac_of_maps, lambda f: repr(find_maps([str(f)])), mutations.of_json),
    "footprints.parquet": Case(_footprints, lambda f: repr(find_scenes(f, SceneOptions(10.0, None, None))), mutations.of_parquet),
    "GeoTIFF": Case(_geotiff, _read_geotiff, mutations.of_bytes),
    "labels.csv": Case(_folder_table("labels.csv"), _read_folder, mutations.of_text),
    "labels.parquet of a folder": Case(_folder_table("labels.parquet"), _read_folder, mutations.of_parquet),
    "chips.parquet": Case(_chips, _read_embeddings, mutations.of_parquet),
    "chips.parquet of others": Case(_chips_of_others, _read_embeddings, mutations.of_parquet),
    "patches.tif": Case(lambda d: _patches(d, "tif"), _read_embeddings, mutations.of_bytes),
    "patches.zarr: zarr.json": Case(lambda d: _patches(d, "zarr.json"), _read_embeddings, mutations.of_json),
    "patches.zarr: embedding/zarr.json": Case(lambda d: _patches(d, "embedding/zarr.json"), _read_embeddings, mutations.of_json),
    "patches.zarr: embedding/c/0/0/0": Case(lambda d: _patches(d, "embedding/c/0/0/0"), _read_embeddings, mutations.of_bytes),
    "embed: state.json": Case(_work, lambda f: Work(f.parent, "job").done, mutations.of_json, True, _forge_json),
    "polygons.gpkg": Case(_polygons("p.gpkg"), _read_polygons, mutations.of_bytes),
    "polygons.geojson": Case(_polygons("p.geojson"), _read_polygons, mutations.of_json),
    "polygons.parquet": Case(_polygons("p.parquet"), _read_polygons, mutations.of_parquet),
    "run: config.yaml": Case(_run_settings, _read_run, mutations.of_text),
    "run: results.json": Case(lambda d: _run_record(d, "results.json"), _read_record_of_run, mutations.of_json, True, _forge_json),
    "run: metrics.jsonl": Case(lambda d: _run_record(d, "metrics.jsonl"), _read_record_of_run, mutations.of_text, True),
    "settings of a verb": Case(_written("s.yaml", _WORDS), _words_of("map"), mutations.of_text),
    **{
        f"settings of {verb}": Case(_written("s.yaml", text), _words_of(verb), mutations.of_text)
        for verb, text in _OF_VERBS.items()
    },
    "vectors of Earth Index": Case(lambda d: _product(d, "21MNT.parquet"), _read_embeddings, mutations.of_parquet),
    "vectors of Clay": Case(lambda d: _product(d, "03WVN.gpq"), _read_embeddings, mutations.of_parquet),
    "vectors of AlphaEarth": Case(_alpha_earth, _read_embeddings, mutations.of_bytes),
    "provenance of vectors": Case(_provenance, _read_provenance, mutations.of_json),
    "patches.zarr: valid/zarr.json": Case(lambda d: _patches(d, "valid/zarr.json"), _read_embeddings, mutations.of_json),
    "patches.zarr: valid/c/0/0": Case(lambda d: _patches(d, "valid/c/0/0"), _read_embeddings, mutations.of_bytes),
    "patches.zarr: spatial_ref/zarr.json": Case(lambda d: _patches(d, "spatial_ref/zarr.json"), _read_embeddings, mutations.of_json),
    "patches.zarr: y/c/0": Case(lambda d: _patches(d, "y/c/0"), _read_embeddings, mutations.of_bytes),
    "places.gpkg": Case(_polygons("points.gpkg"), _read_plain_places, mutations.of_bytes),
    "places.geojson": Case(_polygons("points.geojson"), _read_plain_places, mutations.of_json),
    "places.fgb": Case(_polygons("points.fgb"), _read_plain_places, mutations.of_bytes),
    "places.shp": Case(_polygons("points.shp"), _read_plain_places, mutations.of_bytes),
    "STAC item of vectors": Case(_stac_of_vectors("chips.item.json"), _never(lambda f: repr(open_stac(f, sensor=Sensor.S2_L2A))), mutations.of_json),
    "STAC item of a model": Case(_stac_of_vectors("model.json"), _never(lambda f: repr(open_stac(f, sensor=Sensor.S2_L2A))), mutations.of_json),
}  # fmt: skip


# ---------------------------------------------------------------------------------- the trials


@dataclass
class Tally:
    """What became of the trials of a case."""

    case: Case
    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fault(self, words: str, number: int) -> None:
        """Count a fault, and remember the first trial that had it."""
        self.counts["fault"] += 1
        count, first = self.faults.get(words, (0, number))
        self.faults[words] = count + 1, first


def _alarm(signum: int, frame: object) -> None:
    raise HangError


def run_case(name: str, trials: int, seed: int, folder: Path, first: int = 0) -> Tally:
    """Spoil a format so many times.

    Args:
        name: A key of `CASES`.
        trials: How often.
        seed: Of the harm.
        folder: Where the files lie.
        first: Number of the first trial.
    """
    case = CASES[name]
    tally = Tally(case)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = case.make(folder)
    data = file.read_bytes()
    want = case.read(file)
    before = signal.signal(signal.SIGPROF, _alarm)
    try:
        for number in range(first, first + trials):
            rng = made(seed, name, number)
            spoiled = case.spoil(data, rng)
            forged = case.forge is not None and rng.random() < 0.4
            if forged and case.forge is not None:
                try:
                    spoiled = case.forge(spoiled)
                except (ValueError, RecursionError):
                    forged = False
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(spoiled)
            try:
                signal.setitimer(signal.ITIMER_PROF, HANGS_S)
                got = case.read(file)
                signal.setitimer(signal.ITIMER_PROF, 0)
                same = got == want
                if same or not case.sealed or forged:
                    tally.counts["same" if same else "altered"] += 1
                else:
                    tally.fault("ALTERED", number)
            except EofmError:
                tally.counts["refused"] += 1
            except Again:
                tally.counts["again"] += 1
            except HangError:
                tally.fault("HANGS", number)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                tally.fault(f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:80]}", number)  # fmt: skip
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.signal(signal.SIGPROF, before)
    return tally


def run(trials: int, seed: int, names: list[str]) -> dict[str, Tally]:
    """Spread trials over cases."""
    found = {}
    each = -(-trials // len(names))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            began = time.monotonic()
            found[name] = tally = run_case(name, each, seed, Path(folder) / "case")
            print(
                f"{name}: {dict(tally.counts)}, {time.monotonic() - began:.0f} s", file=sys.stderr
            )
            for words, (count, number) in tally.faults.items():
                print(f"    {count} x {words}  (trial {number})", file=sys.stderr)
    return found


def table(found: Mapping[str, Tally]) -> str:
    """The counts as Markdown."""
    heads = ("same", "refused", "again", "altered", "fault")
    lines = ["| format | checksum | inputs | " + " | ".join(heads) + " |", "|" + "---|" * 8]
    total: Counter[str] = Counter()
    for name, tally in found.items():
        total += tally.counts
        cells = [str(tally.counts[head]) for head in heads]
        lines.append(
            f"| {name} | {'yes' if tally.case.sealed else 'none'} | {tally.counts.total()} | "
            + " | ".join(cells) + " |"
        )  # fmt: skip
    cells = [str(total[head]) for head in heads]
    lines.append(f"| all | | {total.total()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", action="append", choices=list(CASES), default=None)
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    found = run(words.trials, words.seed, words.case or list(CASES))
    print(table(found))
    return int(any(tally.counts["fault"] for tally in found.values()))


if __name__ == "__main__":
    sys.exit(main())
