"""Write embeddings to files, and open them from supported files, including other programs'.

chips.parquet      GeoParquet of eofm, Earth Index or Clay     -> `ChipTable`
patches.tif        GeoTIFF of eofm                             -> `PatchGrid`
patches.zarr       Zarr of eofm                                -> `PatchGrid`
a folder           output of `eofm embed --out`: whichever of the three it holds; for several
                   scenes with chips, one `ChipTable` of all

*GeoParquet*, version 1.1: polygons with bounding boxes, and a list of numbers. geopandas,
DuckDB, QGIS and torchgeo read the file without eofm. Its metadata contain `geo`, as required by
the format; `emb`, as in Earth Index (version 0.0.1 of the schema in
github.com/cloudnativegeo/geo-embeddings-survey); and `eofm`, the provenance and the scale and
offset of int8. Products of other programs can be read if they are GeoParquet with a column of lists
called `embedding` (Earth Index) or `embeddings` (Clay).

*GeoTIFF*: one band per dimension, band-interleaved and tiled, with overviews if the raster is
large: the layout of a cloud-optimised GeoTIFF. int8 has a scale and an offset per band and nodata
-128; floating-point numbers have 16 bits and NaN. The tag `EOFM_PROVENANCE` contains the
provenance.

*Zarr*, format 3: the array `embedding` (dim, y, x) with CF coordinates and `spatial_ref`; for int8
also `scale` and `offset` (dim).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import rioxarray
import xarray as xr
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from eofm.environment import geo_library
from eofm.errors import ConfigError, DataError, EofmError
from eofm.formats.arrays import check_zarr
from eofm.formats.foreign import foreign
from eofm.formats.parquet import check_table
from eofm.formats.text import parse_json
from eofm.geo.embeddings import (
    HIDDEN,
    MAKE_AGAIN,
    UNREADABLE,
    ChipTable,
    Codes,
    Layout,
    PatchGrid,
    Provenance,
    Quantization,
    SceneRecord,
    has_vector,
    require_same_vectors,
)
from eofm.io import replacing, unfinished
from eofm.raster.cube import placed
from eofm.raster.geotiff import check_memory, grid_of, open_geotiff
from eofm.terminal import notice

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "CHIPS",
    "EMB_VERSION",
    "PATCHES_TIFF",
    "PATCHES_ZARR",
    "PROVENANCE",
    "SUFFIXES",
    "TIFF",
    "ZARR",
    "emb_metadata",
    "open_chips",
    "open_embeddings",
    "open_patches",
    "read_chips",
    "read_tiff",
    "read_zarr",
    "write_chips",
    "write_tiff",
    "write_zarr",
]


# -------------------------------------------------------------------------------- chips: GeoParquet

SUFFIXES: Final = frozenset({".parquet", ".gpq", ".geoparquet"})
EMB_VERSION: Final = "0.0.1"
_VECTORS: Final = ("embedding", "embeddings")
_DATES: Final = ("datetime", "date")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_LINEAR: Final = "linear by dimension"
_SHARES: Final = frozenset({"valid_share", "cloud_share"})
_ROWS: Final = 16_384  # of a row group
_NO_TABLE: Final = "this is not a table of embeddings"
_EXPECTED: Final = "GeoParquet with a column of lists called embedding or embeddings"

# ---------------------------------------------------------------------------------- out


def write_chips(file: Path, parts: Iterable[ChipTable]) -> None:
    """Write chips atomically as one GeoParquet file.

    Args:
        file: Output file.
        parts: Chips of one kind, at least one part; each becomes one or more row groups.

    Raises:
        DataError: If there is no part, or the parts differ in kind.
        ConfigError: If the libraries are not installed.
        OSError: If the disk is full, or the folder does not exist.
    """
    geo_library("geopandas", "chips need a library that is not installed")
    rest = iter(parts)
    first = next(rest, None)
    if first is None:
        raise DataError("there is no chip to write", where=file)
    schema = _schema(first)
    bounds = [np.inf, np.inf, -np.inf, -np.inf]
    with (
        replacing(file) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for part in chain([first], rest):
            _check_alike(part, first, file)
            for start in range(0, len(part), _ROWS):
                rows = part[start : start + _ROWS]
                writer.write_table(_table(rows, schema))
                low, high = rows.table.total_bounds[:2], rows.table.total_bounds[2:]
                bounds = [*np.minimum(bounds[:2], low), *np.maximum(bounds[2:], high)]
        writer.add_key_value_metadata(_metadata(first, bounds))


def _check_alike(part: ChipTable, first: ChipTable, file: Path) -> None:
    if part.dim != first.dim or part.stored.dtype != first.stored.dtype or part.crs != first.crs:
        raise DataError(
            "parts of one table of chips differ",
            found=f"{part.dim} x {part.stored.dtype} in {part.crs}",
            expected=f"{first.dim} x {first.stored.dtype} in {first.crs}",
            where=file,
        )


def _schema(chips: ChipTable) -> pa.Schema:
    number = pa.from_numpy_dtype(chips.stored.dtype)
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("geometry", pa.binary()),
            pa.field("bbox", pa.struct([(name, pa.float64()) for name in _CORNERS])),
            pa.field("datetime", pa.timestamp("us", tz="UTC")),
            pa.field("valid_share", pa.float32()),
            pa.field("cloud_share", pa.float32()),
            pa.field("embedding", pa.list_(pa.field("item", number), chips.dim)),
        ]
    )


def _table(chips: ChipTable, schema: pa.Schema) -> pa.Table:
    import pandas as pd
    import shapely

    frame = chips.table
    shapes = frame.geometry.to_numpy()
    corners = shapely.bounds(shapes)
    box = pa.StructArray.from_arrays([pa.array(edge) for edge in corners.T], names=_CORNERS)
    dates = pd.to_datetime(frame["datetime"], utc=True)
    flat = pa.array(np.ascontiguousarray(chips.stored).reshape(-1))
    columns = {
        "id": pa.array(frame["id"], pa.string()),
        "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
        "bbox": box.cast(schema.field("bbox").type),
        "datetime": pa.array(dates, schema.field("datetime").type, from_pandas=True),
        "valid_share": pa.array(frame["valid_share"], pa.float32(), from_pandas=True),
        "cloud_share": pa.array(frame["cloud_share"], pa.float32(), from_pandas=True),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _metadata(chips: ChipTable, bounds: list[float]) -> dict[str, str]:
    corners = {name: ["bbox", name] for name in _CORNERS}
    crs = chips.table.crs
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": None if crs is None else crs.to_json_dict(),
                "bbox": [float(edge) for edge in bounds],
                "covering": {"bbox": corners},
            }
        },
    }
    codes = chips.codes
    own = {
        "provenance": chips.provenance.to_json(),
        "scale": None if codes is None else [float(x) for x in codes.scale],
        "offset": None if codes is None else [float(x) for x in codes.offset],
    }
    contents = {"geo": geo, "emb": emb_metadata(chips.provenance, chips.dim), "eofm": own}
    return {key: json.dumps(content) for key, content in contents.items()}


def emb_metadata(made: Provenance, dim: int) -> dict[str, Any]:
    """Return the metadata that Earth Index writes under the key `emb`.

    Args:
        made: Provenance of the vectors.
        dim: Dimensions.
    """
    dates = made.dates or (None,)
    return {
        "version": EMB_VERSION,
        "model": {
            "id": made.model,
            "version": made.weights_sha256,
            "name": made.model,
            "config": json.dumps({"way": made.way_hash, **made.settings}, sort_keys=True),
            "source": str(made.settings.get("source", "")),
        },
        "providers": [],
        "license": made.licence,
        "datetime": dates[0],
        "start_datetime": dates[0],
        "end_datetime": dates[-1],
        "datasets": [
            {
                "dataset_id": scene.id,
                "dataset_source": f"sha256:{scene.sha256}" if scene.sha256 else scene.id,
                "dataset_name": f"{made.sensor} {scene.id}".strip(),
            }
            for scene in made.scenes
        ],
        "embedding_dim": dim,
        "embedding_quantization": "None"
        if made.quantization is Quantization.NONE
        else f"{made.quantization}, {_LINEAR}: see the key eofm"
        if made.quantization is Quantization.INT8
        else str(made.quantization),
    }


# ---------------------------------------------------------------------------------- in


def read_chips(file: Path) -> ChipTable:
    """Read chips of eofm, of Earth Index, of Clay, or of another program with the same layout.

    Vectors stay in the file until they are used.

    Raises:
        DataError: If the file is damaged, is not GeoParquet, or has no vectors of equal length.
        ConfigError: If the libraries are not installed.
    """
    geo_library("geopandas", "chips need a library that is not installed")
    with foreign(DataError, _NO_TABLE, expected=_EXPECTED, where=file, passing=(EofmError,)):
        return _read_chips(file)


def _read_chips(file: Path) -> ChipTable:
    import geopandas

    schema = check_table(file)
    name = next((name for name in _VECTORS if name in schema.names), None)
    if name is None:
        raise _foreign(file, f"columns {', '.join(schema.names)}")
    others = [n for n in schema.names if n not in {name, "bbox"} and n[:2] != "__"]
    table = geopandas.read_parquet(file, columns=others)
    column = pq.read_table(file, columns=[name], memory_map=True).column(name)
    written = pq.read_metadata(file).metadata or {}
    if not len(column):
        raise DataError("the table of embeddings is empty", where=file)
    if column.null_count:
        notice(f"{file}: {column.null_count} of {len(column)} rows without a vector are left out")
        table = table[~column.is_null().to_numpy()].reset_index(drop=True)
    stored = _numbers(column.drop_null().combine_chunks(), file)
    metadata = {k.decode(): v.decode(errors="replace") for k, v in written.items()}
    if "eofm" in metadata:
        made, codes = _own(metadata["eofm"], file)
        _check_coded(stored.dtype, file, coded=codes is not None)
    else:
        made, codes = _of_others(metadata, name, table, file), None
        if _LINEAR in metadata.get("emb", "") or set(table) >= _SHARES:  # eofm wrote it
            _check_coded(stored.dtype, file, coded=False)
    return ChipTable(_completed(table, file), stored, made, codes)


def _check_coded(kind: object, file: Path, *, coded: bool) -> None:
    """Raise an error if vectors and codes have been separated.

    Other programs copy int8 without its codes, or convert it to floating-point numbers and keep the
    codes. Their numbers would be taken for vectors.

    Args:
        kind: Type of the stored numbers.
        file: The file.
        coded: Whether there are codes.
    """
    if (kind == np.int8) != coded:
        raise DataError(
            "another program has separated the vectors from the codes of int8",
            found=f"vectors of {kind} {'with' if coded else 'without'} codes",
            expected="int8 with a scale and an offset for each dimension, or numbers without",
            where=file,
            remedy="use the original file, or make one without codes, as in: "
            "eofm embed SCENE --model M --quantization none --out DIR",
        )


def _foreign(file: Path, found: object) -> DataError:
    return DataError(_NO_TABLE, found=found, expected=_EXPECTED, where=file)


def _numbers(column: Any, file: Path) -> NDArray[Any]:  # noqa: ANN401 (pyarrow has no types)
    """Return lists of one length as an array (N, D)."""
    if isinstance(column, pa.ChunkedArray):  # without any chunk
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)):
        raise _foreign(file, f"a column of {kind}")
    if not len(column):
        raise _foreign(file, "no row with a vector")
    flat = column.flatten()
    size, rest = divmod(len(flat), len(column))
    lengths = (
        {size} if pa.types.is_fixed_size_list(kind) else set(column.value_lengths().to_pylist())
    )
    if rest or lengths != {size} or flat.null_count:
        raise _foreign(
            file, f"vectors of {len(lengths)} lengths, {flat.null_count} numbers missing"
        )
    values = flat.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fi":
        raise _foreign(file, f"vectors of {values.dtype}")
    if values.dtype == np.float64 or (values.dtype.kind == "i" and values.dtype != np.int8):
        values = values.astype(np.float32)
    found: NDArray[Any] = values.reshape(len(column), size)
    return found


def _own(text: str, file: Path) -> tuple[Provenance, Codes | None]:
    with foreign(DataError, "the metadata of eofm cannot be read", where=file):
        own = parse_json(text)
        made = Provenance.from_json(own["provenance"], file)
        if own["scale"] is None:
            return made, None
        with np.errstate(over="ignore"):  # `Codes` refuses what is not finite
            scale, offset = (np.array(own[key]).astype(np.float32) for key in ("scale", "offset"))
        return made, Codes(scale, offset)


def _of_others(
    metadata: Mapping[str, str], name: str, table: GeoDataFrame, file: Path
) -> Provenance:
    """Return provenance of a product of another program; equal metadata give equal `way_hash`."""
    with foreign(DataError, "the metadata of embeddings cannot be read", where=file):
        emb = parse_json(metadata.get("emb", "{}"), nan=True)
        model = emb.get("model", {})
        words = [str(model.get(key, "")) for key in ("id", "version", "config")]
        licence = str(emb.get("license", ""))
        dates = [str(emb.get(key) or "") for key in ("start_datetime", "end_datetime")]
        sources = [
            str(d.get("dataset_name") or d["dataset_source"]) for d in emb.get("datasets", [])
        ]
    if not emb and name == "embeddings" and "source_url" in table:
        words = ["Clay", "", ""]
        sources = sorted({str(url) for url in table["source_url"]})
    way = hashlib.sha256(json.dumps(words).encode()).hexdigest() if any(words) else ""
    scenes = tuple(SceneRecord(source, date=dates[0]) for source in sources)
    return Provenance(words[0], "", "", way, scenes=scenes, licence=licence)


def _completed(table: GeoDataFrame, file: Path) -> GeoDataFrame:
    """Return a table with an `id` and a `datetime`, from the column names of other programs."""
    import pandas as pd

    if "id" not in table:
        numbers = table["index"] if "index" in table else range(len(table))
        table = table.assign(id=[f"{file.stem}_{number}" for number in numbers])
    date = next((name for name in _DATES if name in table), None)
    if date is None:
        return table.assign(datetime=pd.NaT)
    return table.assign(datetime=pd.to_datetime(table[date], utc=True))


# ------------------------------------------------------------------------ patches: GeoTIFF and Zarr

PROVENANCE: Final = "EOFM_PROVENANCE"
TIFF: Final = frozenset({".tif", ".tiff"})
ZARR: Final = ".zarr"
_TILE: Final = 256  # pixels per side, at most; also the largest raster without overviews
_UNIT: Final = 16  # sides of TIFF tiles are multiples of it
_CHUNK: Final = 64  # patches per side
_SMALL: Final = {"blockxsize": _CHUNK, "blockysize": _CHUNK}

# ---------------------------------------------------------------------------------- GeoTIFF


def write_tiff(file: Path, grid: PatchGrid) -> None:
    """Write a patch grid atomically as GeoTIFF, one row of tiles at a time.

    Raises:
        OSError: If the disk is full, or the folder does not exist.
    """
    with replacing(file) as temporary:
        plain = temporary.with_name(temporary.name + ".plain")
        try:
            _write_plain(plain, grid)
            levels = _levels(*grid.valid.shape)
            if levels:
                with rasterio.open(plain, "r+") as target:
                    target.build_overviews(levels, Resampling.nearest)
            copy_raster(
                plain, temporary, driver="GTiff", copy_src_overviews=True, **_layout(grid.stored)
            )
        except (RasterioError, CPLE_BaseError, OSError) as error:
            # GDAL reports a full disk as a failed write
            raise OSError(f"{file} cannot be written: {error}") from error
        finally:
            plain.unlink(missing_ok=True)


def _layout(stored: xr.DataArray) -> dict[str, Any]:
    """Return the creation options of GDAL."""
    whole = stored.dtype == np.int8
    tile = min(_TILE, -(-max(stored.shape[1:]) // _UNIT) * _UNIT)
    return {
        "tiled": True,
        "blockxsize": tile,
        "blockysize": tile,
        "interleave": "band",
        "compress": "deflate",
        "bigtiff": "if_safer",
        **({"predictor": 2} if whole else {"nbits": 16}),
    }


def _write_plain(file: Path, grid: PatchGrid) -> None:
    rows, columns = grid.valid.shape
    whole = grid.stored.dtype == np.int8
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=rows,
        width=columns,
        count=grid.dim,
        dtype="int8" if whole else "float32",
        nodata=HIDDEN if whole else np.nan,
        crs=grid.grid.crs,
        transform=grid.grid.transform,
        **_layout(grid.stored) | {"compress": None, "predictor": 1, **_SMALL},
    ) as target:
        target.update_tags(**{PROVENANCE: grid.provenance.to_json()})
        target.descriptions = tuple(f"dim_{number:04d}" for number in range(grid.dim))
        if grid.codes is not None:
            target.scales = tuple(map(float, grid.codes.scale))
            target.offsets = tuple(map(float, grid.codes.offset))
        for strip, part in _strips(grid, _CHUNK):
            window = RasterioWindow(0, strip.start, columns, strip.stop - strip.start)
            target.write(part if whole else part.astype(np.float32), window=window)


def _strips(grid: PatchGrid, height: int) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield strips of rows as stored, (D, y, X), with the values that mark missing vectors."""
    whole = grid.stored.dtype == np.int8
    rows = grid.valid.shape[0]
    for start in range(0, rows, height):
        strip = slice(start, min(start + height, rows))
        part = grid.stored.isel(y=strip).to_numpy()
        hidden = ~grid.valid[strip]
        if hidden.any():
            part = np.where(hidden, part.dtype.type(HIDDEN if whole else np.nan), part)
        yield strip, part


def _levels(rows: int, columns: int) -> list[int]:
    return [2**n for n in range(1, 12) if max(rows, columns) > _TILE * 2 ** (n - 1)]


def read_tiff(file: Path) -> PatchGrid:
    """Open a patch grid in a GeoTIFF; vectors stay in the file until they are used.

    A file without provenance is accepted if its bands can be the dimensions of a vector, as in
    AlphaEarth (64 bands of int8); its provenance is then unknown.

    Raises:
        DataError: If the file is damaged, has no georeference, or is an image, not embeddings.
    """
    with foreign(DataError, UNREADABLE, where=file, remedy=MAKE_AGAIN, passing=(EofmError,)):
        with open_geotiff(file) as source:
            check_memory(source, source.height * source.width)
            text = source.tags().get(PROVENANCE)
            if text is None:
                _check_vectors(source, file)
            kind = source.dtypes[0]
            scales, offsets = source.scales, source.offsets
            place = grid_of(source)
            valid = has_vector(source.read(1)) & (source.read_masks(1) != 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scales that differ by band, which are read above
            stored = rioxarray.open_rasterio(file, cache=False, parse_coordinates=False)
        assert isinstance(stored, xr.DataArray)  # noqa: S101 (a list is for files of several sets)
        codes = None
        coded = set(scales) != {1.0} or set(offsets) != {0.0}
        if coded or text is not None:  # int8 of others may have none
            _check_coded(np.dtype(kind), file, coded=coded)
        if kind == "int8":
            codes = Codes(np.array(scales, np.float32), np.array(offsets, np.float32))
        made = Provenance("", "", "", "") if text is None else Provenance.from_json(text, file)
        stored = placed(stored.drop_vars("band").rename(band="dim"), place)
        return PatchGrid(stored, valid, made, codes)


# Distinguishes a vector grid of another program from an image: a number type used for vectors, and
# more bands than imagery has (13 of Sentinel-2, 18 of stacked sensors).
_VECTOR_TYPES: Final = frozenset({"float16", "float32", "float64", "int8"})
_LEAST_DIM: Final = 32


def _check_vectors(source: DatasetReader, file: Path) -> None:
    """Reject a raster without provenance whose bands are not dimensions of a vector.

    Raises:
        DataError: If it is an image: digital numbers, a class map, a few bands.
    """
    kinds = sorted(set(source.dtypes))
    if source.count >= _LEAST_DIM and set(kinds) <= _VECTOR_TYPES:
        return
    bands = "1 band" if source.count == 1 else f"{source.count} bands"
    raise DataError(
        "this raster is an image, not embeddings",
        found=f"{bands} of {', '.join(kinds)}, and no provenance of eofm",
        expected=f"a file of eofm; of other programs, {_LEAST_DIM} bands or more of "
        "floating-point numbers or int8",
        where=file,
        remedy=f"embed it first, as in: eofm embed {quote(str(file))} --sensor s2-l2a --unit dn "
        "--model M --patches --out DIR",
    )


# ------------------------------------------------------------------------------------ Zarr


# Dimensions of a vector; y and x are compared with their coordinates, and this one has none.
_MOST_DIM: Final = 65_536


def write_zarr(folder: Path, grid: PatchGrid) -> None:
    """Write a patch grid atomically as Zarr, one row of chunks at a time.

    Raises:
        ConfigError: If zarr is not installed.
        OSError: If the disk is full, or the folder does not exist.
    """
    zarr = geo_library("zarr", "embeddings as Zarr need a library that is not installed")
    temporary = unfinished(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    rows, columns = grid.valid.shape
    whole = grid.stored.dtype == np.int8
    number = np.dtype(np.int8 if whole else np.float16)
    _small(grid).to_zarr(temporary, zarr_format=3, consolidated=False, mode="w-")
    group = zarr.open_group(temporary, mode="r+")
    array = group.create_array(
        "embedding",
        shape=(grid.dim, rows, columns),
        chunks=(grid.dim, min(_CHUNK, rows), min(_CHUNK, columns)),
        dtype=number,
        fill_value=number.type(HIDDEN if whole else np.nan),
        dimension_names=("dim", "y", "x"),
        attributes={"grid_mapping": "spatial_ref", "long_name": "embedding"},
    )
    for strip, part in _strips(grid, _CHUNK):
        array[:, strip] = part.astype(number, copy=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not part of the format yet, but xarray needs it
        zarr.consolidate_metadata(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _small(grid: PatchGrid) -> xr.Dataset:
    """Return everything except the vectors: coordinates, CRS, validity, scale and offset."""
    valid = placed(xr.DataArray(grid.valid.astype(np.uint8), dims=("y", "x")), grid.grid)
    valid.attrs.update(long_name="1 where there is a vector", grid_mapping="spatial_ref")
    valid.encoding.clear()
    data = valid.to_dataset(name="valid")
    data.attrs.update(Conventions="CF-1.10", eofm_provenance=grid.provenance.to_json())
    if grid.codes is not None:
        data["scale"] = ("dim", grid.codes.scale)
        data["offset"] = ("dim", grid.codes.offset)
        data["scale"].attrs["long_name"] = "value = embedding x scale + offset"
    return data


def read_zarr(folder: Path) -> PatchGrid:
    """Open a patch grid in Zarr; vectors stay in the folder until they are used.

    Raises:
        DataError: If it is damaged, or was not written by eofm.
        ConfigError: If zarr is not installed.
    """
    zarr = geo_library("zarr", "embeddings as Zarr need a library that is not installed")
    with foreign(
        DataError,
        UNREADABLE,
        expected="Zarr with embedding (dim, y, x), as eofm writes it",
        where=folder,
        remedy=MAKE_AGAIN,
        passing=(EofmError,),
    ):
        group = zarr.open_group(folder, mode="r", use_consolidated=False)
        arrays = dict(group.arrays())
        check_zarr(arrays, arrays.keys() - {"embedding"}, folder)
        if (dimensions := arrays["embedding"].shape[0]) > _MOST_DIM:
            raise ValueError(f"vectors of {dimensions} dimensions, more than {_MOST_DIM}")
        data = xr.open_zarr(folder, consolidated=False, chunks=None, mask_and_scale=False)
        stored = data["embedding"]
        valid = data["valid"].to_numpy().astype(np.bool_)
        made = Provenance.from_json(data.attrs["eofm_provenance"], folder)
        codes = None
        _check_coded(stored.dtype, folder, coded={"scale", "offset"} <= set(data.variables))
        if stored.dtype == np.int8:
            codes = Codes(data["scale"].to_numpy(), data["offset"].to_numpy())
        stored = stored.assign_coords(spatial_ref=data["spatial_ref"])
        return PatchGrid(stored, valid, made, codes)


# ---------------------------------------------------------------------------------- whichever it is

CHIPS: Final = "chips.parquet"
PATCHES_TIFF: Final = "patches.tif"
PATCHES_ZARR: Final = "patches.zarr"


def open_embeddings(path: Path | str, layout: Layout | None = None) -> ChipTable | PatchGrid:
    """Open embeddings; vectors stay on disk until they are used, except those of several scenes.

    Args:
        path: A file, or the folder that `eofm embed` wrote; the chips of several scenes become one
            table, in the CRS of the first.
        layout: Layout to open in a folder; a file of the other layout is an error. None: the layout
            that exists.

    Raises:
        DataError: If there are none, or they are damaged.
        ConfigError: If a folder has both layouts and none is named, or the libraries are not
            installed.
        SpecError: If scenes of one folder have vectors of different models or plans.
    """
    path = Path(path)
    if path.is_dir() and path.suffix != ZARR:
        scenes = [] if layout is Layout.PATCHES else _chips_of_scenes(path)
        if scenes:
            return _joined(path, scenes)
    file = _in_folder(path, layout) if path.is_dir() and path.suffix != ZARR else path
    if not file.exists():
        raise DataError(
            "there are no such embeddings",
            expected="a file of embeddings, or the folder that eofm embed wrote",
            where=file,
            remedy="make them, as in: eofm embed SCENE --model M --chips 32 --out DIR",
        )
    suffix = file.suffix.lower()
    found = Layout.CHIPS if suffix in SUFFIXES else Layout.PATCHES
    if suffix not in SUFFIXES | TIFF | {ZARR}:
        raise DataError(
            "this type of file does not hold embeddings",
            found=suffix or file.name,
            expected=", ".join(sorted({*SUFFIXES, *TIFF, ZARR})),
            where=file,
        )
    if layout not in {None, found}:
        raise DataError(
            f"these embeddings are {found}",
            expected=str(layout),
            where=file,
            remedy=f"make the others, as in: eofm embed SCENE --model M --{layout} --out DIR",
        )
    if suffix in SUFFIXES:
        return read_chips(file)
    return read_zarr(file) if suffix == ZARR else read_tiff(file)


def open_chips(path: Path | str) -> ChipTable:
    """Open embeddings of chips: see `open_embeddings`."""
    found = open_embeddings(path, Layout.CHIPS)
    assert isinstance(found, ChipTable)  # noqa: S101 (the layout says so)
    return found


def open_patches(path: Path | str) -> PatchGrid:
    """Open embeddings of patches: see `open_embeddings`."""
    found = open_embeddings(path, Layout.PATCHES)
    assert isinstance(found, PatchGrid)  # noqa: S101 (the layout says so)
    return found


def _chips_of_scenes(folder: Path) -> list[Path]:
    """Return the chip tables of a folder that has folders of scenes and no embeddings itself."""
    own = (folder / name for name in (CHIPS, PATCHES_TIFF, PATCHES_ZARR))
    return [] if any(file.exists() for file in own) else sorted(folder.glob(f"*/{CHIPS}"))


def _joined(folder: Path, files: Sequence[Path]) -> ChipTable:
    """Return the chips of several scenes as one table.

    int8 with common codes is kept; with different codes per scene, vectors become float32.
    """
    import pandas as pd

    tables = [read_chips(file) for file in files]
    first = tables[0]
    for file, one in zip(files, tables, strict=True):
        try:
            require_same_vectors(first.provenance, one.provenance)
        except EofmError as error:
            error.where = file
            raise
    with foreign(DataError, UNREADABLE, where=folder, remedy=MAKE_AGAIN):
        frames = [
            one.table.to_crs(first.crs).assign(scene=file.parent.name)
            for file, one in zip(files, tables, strict=True)
        ]
        table = pd.concat(frames, ignore_index=True)
    if table["id"].duplicated().any():  # chips of a named grid, which scenes share
        table["id"] = table["scene"] + "/" + table["id"].astype(str)
    alike = all(_same_numbers(first, one) for one in tables)
    made = replace(
        first.provenance,
        scenes=tuple(dict.fromkeys(s for one in tables for s in one.provenance.scenes)),
        quantization=first.provenance.quantization if alike else Quantization.NONE,
        settings={k: v for k, v in first.provenance.settings.items() if k not in _OF_ONE_JOB},
    )
    notice(f"{folder}: {len(table)} chips of {len(files)} scenes together")
    parts = [one.stored if alike else one.block(slice(None)) for one in tables]
    return ChipTable(table, np.concatenate(parts), made, first.codes if alike else None)


_OF_ONE_JOB: Final = frozenset({"job", "recall_at_10"})


def _same_numbers(first: ChipTable, other: ChipTable) -> bool:
    """Return whether two tables store vectors with the same type and codes."""
    if first.codes is None or other.codes is None:
        return first.codes is other.codes and first.stored.dtype == other.stored.dtype
    pairs = ((first.codes.scale, other.codes.scale), (first.codes.offset, other.codes.offset))
    return all(np.array_equal(a, b) for a, b in pairs)


def _in_folder(folder: Path, layout: Layout | None) -> Path:
    chips, patches = folder / CHIPS, folder / PATCHES_TIFF
    if not patches.exists():
        patches = folder / PATCHES_ZARR
    wanted = {Layout.CHIPS: chips, Layout.PATCHES: patches}
    there = [kind for kind, file in wanted.items() if file.exists() and layout in {None, kind}]
    if len(there) == 1:
        return wanted[there[0]]
    if there:
        raise ConfigError(
            "the folder holds embeddings of chips and of patches",
            where=folder,
            remedy=f"name one of the two: {chips} or {patches}",
        )
    names = {CHIPS} if layout is Layout.CHIPS else {PATCHES_TIFF, PATCHES_ZARR}
    scenes = sorted(f.parent for f in folder.glob("*/*") if f.name in names)
    raise DataError(
        f"there are no embeddings{'' if layout is None else f' of {layout}'} in the folder",
        found=", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "an empty folder",
        expected=f"{CHIPS}, {PATCHES_TIFF} or {PATCHES_ZARR}",
        where=folder,
        remedy=f"name the folder of one scene: {scenes[0]}"
        if scenes
        else "eofm embed SCENE --model M --out DIR",
    )
