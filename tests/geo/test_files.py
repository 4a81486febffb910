"""Embeddings on disk: what is written is read back, also by libraries that do not know eofm."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from rasterio.crs import CRS

from eofm.cli import main
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.environment import geo_library
from eofm.errors import ConfigError, DataError, RasterError, SpecError
from eofm.geo.embedding_files import (
    open_chips,
    open_embeddings,
    open_patches,
    write_chips,
    write_tiff,
    write_zarr,
)
from eofm.geo.embeddings import (
    ChipTable,
    Codes,
    Layout,
    PatchGrid,
    Provenance,
    Quantization,
    SceneRecord,
    patch_grid,
    require_same_vectors,
)
from eofm.raster.grid import Grid

MADE = Provenance(
    "toy",
    "a" * 64,
    "b" * 64,
    "c" * 64,
    "s2-l1c",
    "dn",
    (SceneRecord("T32UME", "d" * 64, "2021-07-04T10:30:00"),),
    "CC-BY-4.0",
    settings={"window": 32},
)
GRIDS = {
    "utm": (32632, Affine(140, 0, 5e5, 0, -140, 5e6)),
    "degrees": (4326, Affine(0.001, 0, 9, 0, -0.001, 48)),
    "south-up": (32632, Affine(140, 0, 5e5, 0, 140, 5e6)),
    "rotated": (32632, Affine(140, 10, 5e5, 10, -140, 5e6)),
}
CODES = Codes.between(np.full(6, -4, np.float32), np.linspace(4, 5, 6).astype(np.float32))


def chips(count: int = 20, dim: int = 6) -> ChipTable:
    """A row of chips with vectors drawn at random."""
    table = geopandas.GeoDataFrame(
        {
            "id": [f"chip{i}" for i in range(count)],
            "datetime": ["2021-07-04T10:30:00"] * count,
            "valid_share": np.linspace(0.5, 1, count, dtype=np.float32),
            "cloud_share": [np.nan] + [0.25] * (count - 1),
        },
        geometry=[shapely.box(320 * i, 0, 320 * (i + 1), 320) for i in range(count)],
        crs="EPSG:32632",
    )
    vectors = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return ChipTable(table, vectors, MADE)


def patches(
    place: str = "utm", *, coded: bool = False, size: tuple[int, int] = (70, 9)
) -> PatchGrid:
    """A patch grid with vectors drawn at random, of which one row holds none."""
    code, transform = GRIDS[place]
    grid = Grid(CRS.from_epsg(code), transform, *size)
    vectors = np.random.default_rng(0).normal(size=(6, *size)).astype(np.float16)
    vectors[:, 3] = np.nan
    if not coded:
        return patch_grid(vectors, grid, replace(MADE, quantization=Quantization.FLOAT16))
    stored = np.moveaxis(CODES.encode(np.moveaxis(vectors.astype(np.float32), 0, -1)), -1, 0)
    return patch_grid(stored, grid, replace(MADE, quantization=Quantization.INT8), CODES)


def test_chips_come_back(tmp_path: Path) -> None:
    """Vectors, ground, shares and provenance are those written, from however many parts."""
    made = chips()
    write_chips(tmp_path / "chips.parquet", [made[:7], made[7:]])

    found = open_chips(tmp_path)

    assert np.array_equal(made.vectors, found.vectors)
    assert np.array_equal(made.vectors[3:5], found.block(slice(3, 5)))
    assert made.provenance == found.provenance
    assert list(made.table["id"]) == list(found.table["id"])
    assert (made.table.geometry == found.table.geometry).all()
    assert found.table["datetime"].iloc[0].isoformat() == "2021-07-04T10:30:00+00:00"
    assert np.array_equal(
        made.table["cloud_share"], found.table["cloud_share"].astype(float), equal_nan=True
    )


def test_codes_are_as_near_as_half_a_step(tmp_path: Path) -> None:
    """int8 vectors come back within half a step of the codes, in float32."""
    plain = chips()
    codes = Codes.between(plain.vectors.min(axis=0), plain.vectors.max(axis=0))
    made = replace(plain, stored=codes.encode(plain.vectors), codes=codes)
    write_chips(tmp_path / "chips.parquet", [made])

    found = open_chips(tmp_path)

    assert found.stored.dtype == np.int8
    assert found.vectors.dtype == np.float32
    assert (np.abs(found.vectors - plain.vectors) <= codes.scale / 2 * 1.001).all()


def test_other_libraries_read_chips(tmp_path: Path) -> None:
    """Geopandas reads geometry and CRS, arrow a list of one length and the key of Earth Index."""
    made = chips()
    file = tmp_path / "chips.parquet"
    write_chips(file, [made])

    table = geopandas.read_parquet(file)
    left = geopandas.read_parquet(file, bbox=(0, 0, 330, 10))
    metadata = pq.read_metadata(file).metadata
    emb, geo = json.loads(metadata[b"emb"]), json.loads(metadata[b"geo"])

    assert table.crs == "EPSG:32632"
    assert list(left["id"]) == ["chip0", "chip1"]
    assert np.array_equal(np.stack(table["embedding"].to_list()), made.vectors)
    assert pa.list_(pa.float32(), 6) == pq.read_schema(file).field("embedding").type
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["bbox"] == [0, 0, 6400, 320]
    assert emb["version"] == "0.0.1"
    assert emb["model"]["id"] == "toy"
    assert (emb["embedding_dim"], emb["embedding_quantization"]) == (6, "None")
    assert emb["license"] == "CC-BY-4.0"
    assert emb["start_datetime"] == "2021-07-04T10:30:00"


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("place", GRIDS)
@pytest.mark.parametrize("write", [write_tiff, write_zarr])
def test_patch_grids_come_back(write, place: str, coded: bool, tmp_path: Path) -> None:
    """Vectors, holes, place and provenance are those written, in every kind of grid."""
    made = patches(place, coded=coded)
    write(tmp_path / ("patches.zarr" if write is write_zarr else "patches.tif"), made)

    found = open_patches(tmp_path)

    assert found.grid == made.grid
    assert np.array_equal(made.array, found.array, equal_nan=True)
    assert np.isnan(found.array[:, 3]).all()
    assert not found.valid[3].any()
    assert found.valid[4].all()
    assert np.array_equal(found.rows(slice(4, 6))[..., 2], made.array[2, 4:6])
    assert found.provenance == made.provenance
    assert found.array.rio.crs == made.grid.crs
    written = [float(x) for x in found.array.spatial_ref.attrs["GeoTransform"].split()]
    assert Affine.from_gdal(*written) == made.grid.transform


def test_the_tiff_is_laid_out_for_the_cloud(tmp_path: Path) -> None:
    """Bands are kept apart, in tiles, named, with nodata, scale, offset, and overviews if large."""
    file = tmp_path / "patches.tif"
    write_tiff(file, patches(coded=True, size=(300, 40)))

    with rasterio.open(file) as source:
        assert source.interleaving.value.lower() == "band"
        assert source.block_shapes[0] == (256, 256)
        assert source.overviews(1) == [2]
        assert source.nodata == -128
        assert source.descriptions[5] == "dim_0005"
        assert np.allclose(source.scales, CODES.scale)
        assert np.allclose(source.offsets, CODES.offset)
        assert source.read(1, window=((3, 4), (0, 1))).item() == -128


def test_xarray_opens_the_zarr(tmp_path: Path) -> None:
    """Xarray finds named dimensions, CRS and the centres of the patches, without eofm."""
    write_zarr(tmp_path / "patches.zarr", patches())

    data = xr.open_zarr(tmp_path / "patches.zarr", chunks=None)

    assert data["embedding"].dims == ("dim", "y", "x")
    assert data["embedding"].dtype == np.float16
    assert data["x"].to_numpy()[:2].tolist() == [5e5 + 70, 5e5 + 210]
    assert data["y"].to_numpy()[0] == 5e6 - 70
    assert "32632" in str(data["spatial_ref"].attrs["crs_wkt"])
    assert data["embedding"].attrs["grid_mapping"] == "spatial_ref"


def earth_index(file: Path) -> None:
    """A file as Earth Index publishes it: points in degrees, lists of any length, the key `emb`."""
    points = [shapely.Point(-56.5 + i / 300, 3.2) for i in range(3)]
    table = geopandas.GeoDataFrame(
        {"id": ["a", "b", "c"], "embedding": [[0.0, 1.0], [1.0, 0.5], [2.0, 0.25]]},
        geometry=points,
        crs="EPSG:4326",
    )
    table.to_parquet(file)
    emb = {
        "version": "0.0.1",
        "model": {"id": "dinov2_vits14_softcon", "version": "2.0.0", "config": "The class token"},
        "license": "CC-BY-4.0",
        "start_datetime": "2023-01-01T00:00:00Z",
        "end_datetime": "2024-01-01T00:00:00Z",
        "datasets": [{"dataset_source": "https://x", "dataset_name": "Sentinel2 Temporal Mosaics"}],
        "embedding_dim": 2,
        "embedding_quantization": "None",
    }
    arrow = pq.read_table(file)
    metadata = {**arrow.schema.metadata, b"emb": json.dumps(emb).encode()}
    pq.write_table(arrow.replace_schema_metadata(metadata), file)


def test_earth_index_is_read(tmp_path: Path) -> None:
    """A file of Earth Index has vectors, points, model, licence and date; two of one kind mix."""
    earth_index(tmp_path / "21MNT.parquet")

    found = open_chips(tmp_path / "21MNT.parquet")

    assert found.vectors.tolist() == [[0, 1], [1, 0.5], [2, 0.25]]
    assert found.crs == "EPSG:4326"
    assert found.provenance.model == "dinov2_vits14_softcon"
    assert found.provenance.licence == "CC-BY-4.0"
    assert found.provenance.dates == ("2023-01-01T00:00:00Z",)
    require_same_vectors(found.provenance, found.provenance)
    with pytest.raises(SpecError, match="different weights"):
        require_same_vectors(found.provenance, MADE)


def test_clay_is_read(tmp_path: Path) -> None:
    """A file of Clay, whose column is `embeddings` and which has no metadata of its own."""
    file = tmp_path / "03WVN.gpq"
    geopandas.GeoDataFrame(
        {
            "index": [0, 4],
            "source_url": ["s3://a.tif", "s3://b.tif"],
            "date": np.array(["2022-06-10", "2022-06-10"], "datetime64[s]"),
            "embeddings": [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]],
        },
        geometry=[shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)],
        crs="OGC:CRS84",
    ).to_parquet(file)

    found = open_chips(file)

    assert found.vectors.shape == (2, 3)
    assert list(found.table["id"]) == ["03WVN_0", "03WVN_4"]
    assert found.provenance.model == "Clay"
    assert [scene.id for scene in found.provenance.scenes] == ["s3://a.tif", "s3://b.tif"]


def test_vectors_of_two_ways_are_not_compared() -> None:
    """Other weights or another way are refused; another unit of the scene alone is not."""
    require_same_vectors(MADE, replace(MADE, plan_hash="other", unit="dn-offset1000"))
    with pytest.raises(SpecError, match="different weights"):
        require_same_vectors(MADE, replace(MADE, weights_sha256="f" * 64))
    with pytest.raises(SpecError, match="different ways"):
        require_same_vectors(MADE, replace(MADE, way_hash="f" * 64))


def test_a_folder_of_both_layouts_asks_which(tmp_path: Path) -> None:
    """Nothing is chosen in silence, and what the error names can be opened."""
    write_chips(tmp_path / "chips.parquet", [chips()])
    write_tiff(tmp_path / "patches.tif", patches())

    with pytest.raises(ConfigError, match="chips and of patches") as caught:
        open_embeddings(tmp_path)

    named = str(caught.value.remedy).partition(": ")[2].split(" or ")
    assert [type(open_embeddings(file)) for file in named] == [ChipTable, PatchGrid]
    assert isinstance(open_embeddings(tmp_path, Layout.CHIPS), ChipTable)
    assert isinstance(open_patches(tmp_path), PatchGrid)


def test_what_is_no_embedding_is_named(tmp_path: Path) -> None:
    """No foreign exception reaches a user."""
    text = tmp_path / "notes.parquet"
    text.write_text("no parquet")
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"a": [1]}), plain)
    uneven = tmp_path / "uneven.parquet"
    geopandas.GeoDataFrame(
        {"embedding": [[1.0], [1.0, 2.0]]}, geometry=[shapely.Point(0, 0)] * 2, crs="EPSG:4326"
    ).to_parquet(uneven)
    picture = tmp_path / "picture.tif"
    picture.write_text("no picture")
    store = tmp_path / "empty.zarr"
    store.mkdir()

    for path in (text, plain, uneven, picture, store, tmp_path / "gone.tif", tmp_path / "x.csv"):
        with pytest.raises(DataError):
            open_embeddings(path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no embeddings"):
        open_embeddings(empty)


def raster(file: Path, count: int, kind: str) -> Path:
    """A raster of random numbers as other programs write it, without a word of eofm."""
    values = np.random.default_rng(0).integers(50, 120, (count, 64, 64)).astype(kind)
    crs, transform = GRIDS["utm"]
    shape = {"count": count, "height": 64, "width": 64}
    with rasterio.open(
        file, "w", driver="GTiff", dtype=kind, crs=crs, transform=transform, **shape
    ) as target:
        target.write(values)
    return file


@pytest.mark.parametrize(
    ("count", "kind"), [(13, "uint16"), (64, "uint16"), (13, "float32"), (1, "uint8"), (3, "int8")]
)
def test_an_image_is_no_embedding(count: int, kind: str, tmp_path: Path) -> None:
    """Digital numbers, reflectance and class maps were taken for vectors of an unknown model."""
    file = raster(tmp_path / "scene.tif", count, kind)

    with pytest.raises(DataError, match="an image, not embeddings") as caught:
        open_embeddings(file)

    assert f"of {kind}" in str(caught.value.found)


def embeddable(path: Path) -> Path:
    """Write an image that `eofm embed` takes."""
    with rasterio.open(raster(path, 13, "uint16"), "r+") as target:
        target.write(np.random.default_rng(1).integers(100, 4_000, (13, 64, 64)).astype("uint16"))
        target.descriptions = tuple(SENSOR_BANDS[Sensor.S2_L1C])
        target.transform = Affine(10, 0, 5e5, 0, -10, 5e6)
    return path


def test_an_image_can_be_embedded_as_the_error_says(tmp_path: Path) -> None:
    """The command of the remedy makes what can be opened."""
    file = embeddable(tmp_path / "a scene.tif")
    with pytest.raises(DataError) as caught:
        open_embeddings(file)

    words = shlex.split(str(caught.value.remedy).partition("eofm ")[2])
    stated = {"M": "random:vit-tiny-14", "DIR": str(tmp_path / "out"), "s2-l2a": "s2-l1c"}
    assert main([stated.get(word, word) for word in words] + ["--force", "pixels"]) == 0

    assert open_embeddings(tmp_path / "out").provenance.model


@pytest.mark.parametrize(("count", "kind"), [(64, "int8"), (128, "float32")])
def test_vectors_of_others_are_read(count: int, kind: str, tmp_path: Path) -> None:
    """Many bands of numbers that vectors are kept in are embeddings, as those of AlphaEarth."""
    found = open_patches(raster(tmp_path / "theirs.tif", count, kind))

    assert found.dim == count
    assert found.provenance.model == ""


def test_a_grid_lies_somewhere() -> None:
    """A patch grid without CRS is refused."""
    with pytest.raises(RasterError, match="no georeference"):
        patch_grid(
            np.zeros((1, 2, 2), np.float32), Grid(None, Affine(1, 0, 2, 0, 1, 3), 2, 2), MADE
        )


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra there is one error, with the line that installs it."""
    monkeypatch.setitem(sys.modules, "geopandas", None)

    with pytest.raises(ConfigError, match="not installed") as caught:
        write_chips(tmp_path / "chips.parquet", [])

    assert caught.value.remedy == 'pip install "eofm[geo]"'


def test_a_library_that_cannot_be_loaded_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory it was "not installed"."""

    def refuse(name: str) -> None:
        raise ImportError("libgdal.so: failed to map segment", name=name)

    monkeypatch.setattr("eofm.environment.importlib.import_module", refuse)
    with pytest.raises(ConfigError, match="pyogrio is installed, but cannot be imported") as caught:
        geo_library("pyogrio", "polygons need libraries that are not installed")

    assert "free memory" in str(caught.value.remedy)


# ------------------------------------------------------------------------------------ damage


def rewritten(file: Path, **said: object) -> Path:
    """A table of chips whose metadata say something else of codes."""
    metadata = pq.read_metadata(file).metadata
    kept = {key: metadata[key] for key in (b"geo", b"emb")}
    own = json.loads(metadata[b"eofm"]) | said
    changed = {**kept, b"eofm": json.dumps(own).encode()}
    pq.write_table(pq.read_table(file).replace_schema_metadata(changed), file)
    return file


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"scale": None, "offset": None}, "without codes"),
        ({"scale": [1.0]}, "codes need a scale"),
        ({"scale": [1.0], "offset": [0.0]}, "one code for each dimension"),
        ({"scale": [0.0] * 6}, "codes need a scale"),
        ({"offset": [1e39] * 6}, "codes need a scale"),
        ({"provenance": json.dumps({"model": 3})}, "cannot be read"),
        ({"provenance": json.dumps({**json.loads(MADE.to_json()), "unit": 3})}, "another type"),
    ],
)
def test_codes_of_other_vectors_are_refused(
    said: dict[str, object], words: str, tmp_path: Path
) -> None:
    """Metadata that do not fit the numbers beside them: an error, not other vectors."""
    plain = chips()
    coded = replace(plain, stored=CODES.encode(plain.vectors), codes=CODES)
    write_chips(tmp_path / "chips.parquet", [coded])

    with pytest.raises(DataError, match=words):
        open_chips(rewritten(tmp_path / "chips.parquet", **said))


def copied_by_geopandas(folder: Path) -> Path:
    """Copy int8 chips with geopandas, which drops the codes with the key `eofm`."""
    plain = chips()
    made = replace(MADE, quantization=Quantization.INT8)
    coded = replace(plain, stored=CODES.encode(plain.vectors), codes=CODES, provenance=made)
    write_chips(folder / "chips.parquet", [coded])
    geopandas.read_parquet(folder / "chips.parquet").to_parquet(folder / "copy.parquet")
    return folder / "copy.parquet"


def without_eofm(folder: Path) -> Path:
    """Copy int8 chips with the metadata that other programs know, and two columns."""
    copied_by_geopandas(folder)
    metadata = pq.read_metadata(folder / "chips.parquet").metadata
    kept = {key: metadata[key] for key in (b"geo", b"emb")}
    table = pq.read_table(folder / "chips.parquet", columns=["id", "geometry", "bbox", "embedding"])
    table = table.replace_schema_metadata(kept)
    pq.write_table(table, folder / "copy.parquet")
    return folder / "copy.parquet"


def copied_by_rasterio(folder: Path, kind: str = "int8") -> Path:
    """Copy int8 patches without their codes, or convert them and keep the codes."""
    write_tiff(folder / "patches.tif", patches(coded=True))
    with rasterio.open(folder / "patches.tif") as source:
        names = ("height", "width", "count", "crs", "transform", "nodata")
        profile = {name: source.profile[name] for name in names}
        with rasterio.open(folder / "copy.tif", "w", driver="GTiff", dtype=kind, **profile) as out:
            out.write(source.read().astype(kind))
            out.update_tags(**source.tags())
            if kind != "int8":
                out.scales, out.offsets = source.scales, source.offsets
    return folder / "copy.tif"


def converted_by_xarray(folder: Path) -> Path:
    """Convert int8 patches in Zarr, and keep the codes."""
    write_zarr(folder / "patches.zarr", patches(coded=True))
    data = xr.open_zarr(folder / "patches.zarr", consolidated=False, mask_and_scale=False)
    data["embedding"] = data["embedding"].astype("float32")
    for variable in data.variables.values():
        variable.encoding = {}
    data.to_zarr(folder / "copy.zarr", consolidated=False)
    return folder / "copy.zarr"


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        (copied_by_geopandas, "int8 without codes"),
        (without_eofm, "int8 without codes"),
        (copied_by_rasterio, "int8 without codes"),
        (lambda folder: copied_by_rasterio(folder, "float32"), "float32 with codes"),
        (converted_by_xarray, "float32 with codes"),
    ],
)
def test_vectors_and_codes_that_were_separated_are_refused(
    copy: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    """The codes themselves were taken for vectors, without a word."""
    with pytest.raises(DataError, match="separated the vectors from the codes") as caught:
        open_embeddings(copy(tmp_path))

    assert words in str(caught.value.found)


def test_vectors_without_codes_are_made_as_the_error_says(tmp_path: Path) -> None:
    """The command of the remedy makes a file that geopandas can copy."""
    file = embeddable(tmp_path / "scene.tif")
    with pytest.raises(DataError) as caught:
        open_embeddings(copied_by_geopandas(tmp_path))
    words = shlex.split(str(caught.value.remedy).partition("eofm ")[2])
    stated = {"SCENE": str(file), "M": "random:vit-tiny-14", "DIR": str(tmp_path / "out")}
    scene = ["--sensor", "s2-l1c", "--unit", "dn", "--force", "pixels"]

    assert 0 == main([stated.get(word, word) for word in words] + scene)

    made = tmp_path / "out" / "chips.parquet"
    geopandas.read_parquet(made).to_parquet(tmp_path / "again.parquet")
    again = open_chips(tmp_path / "again.parquet")
    np.testing.assert_array_equal(open_chips(made).vectors, again.vectors)


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path: Path) -> None:
    """Vectors stay on the disk until they are used: their reader speaks for the library below."""
    write_zarr(tmp_path / "patches.zarr", patches())
    (tmp_path / "patches.zarr" / "embedding" / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    found = open_patches(tmp_path / "patches.zarr")

    with pytest.raises(DataError, match="cannot be read"):
        found.rows(slice(None))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Metadata that ask for a terabyte are refused before anything is made of them."""
    write_zarr(tmp_path / "patches.zarr", patches())
    for file in (tmp_path / "patches.zarr").glob("*/zarr.json"):
        about = json.loads(file.read_text())
        about["shape"] = [10**6 if length in {9, 70} else length for length in about["shape"]]
        file.write_text(json.dumps(about))

    with pytest.raises(DataError, match="cannot be read") as caught:
        open_patches(tmp_path / "patches.zarr")

    assert "too many for files of" in str(caught.value.found)


def test_a_file_is_not_sought_for_each_of_many_chunks(tmp_path: Path) -> None:
    """Coordinates of a million values in chunks of nine were read, for seconds, before a check."""
    write_zarr(tmp_path / "patches.zarr", patches())
    for name in ("x", "y"):
        file = tmp_path / "patches.zarr" / name / "zarr.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "shape": [10**6]}))

    with pytest.raises(DataError, match="cannot be read") as caught:
        open_patches(tmp_path / "patches.zarr")

    assert "chunks are asked for, too many for" in str(caught.value.found)


@pytest.mark.slow
def test_embeddings_that_are_not_there(tmp_path: Path, write_tif) -> None:
    """The error named no remedy; the command that it names makes a folder that opens."""
    with pytest.raises(DataError, match="there are no such embeddings") as caught:
        open_embeddings(tmp_path / "emb")
    words = shlex.split(str(caught.value.remedy).partition("eofm ")[2])
    scene = write_tif(tmp_path / "a.tif", np.full((12, 64, 64), 900, np.uint16))
    given = {"SCENE": str(scene), "M": "random:vits14", "DIR": str(tmp_path / "emb")}
    stated = ["--sensor", "s2-l2a", "--unit", "dn", "--size", "28", "--force", "pixels", "scale"]
    assert 0 == main([*(given.get(word, word) for word in words), *stated])
    assert 4 == len(open_embeddings(tmp_path / "emb"))


def test_a_truncated_grid_has_the_words_of_gdal(tmp_path: Path) -> None:
    """It was "read failed, see previous exception", without a remedy."""
    file = tmp_path / "patches.tif"
    write_tiff(file, patches())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(DataError) as caught:
        open_patches(file).rows(slice(None))

    assert "previous exception" not in str(caught.value)
    assert caught.value.remedy
