"""Patch grids as GeoTIFF and as Zarr: rasters that GIS programs and xarray open without eofm.

*GeoTIFF*: a band for each dimension, kept apart (band-interleaved), in tiles, with overviews where
it is large: the layout of a cloud-optimised GeoTIFF. int8 has a scale and an offset for each band
and nodata -128; floating-point numbers have 16 bits and NaN. Provenance stands in the tag
`EOFM_PROVENANCE`.

*Zarr*, format 3: the array `embedding` (dim, y, x) with CF coordinates and `spatial_ref`; of int8
also `scale` and `offset` (dim).
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any, Final

import numpy as np
import rasterio
import rioxarray
import xarray as xr
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # some of GDAL's errors, as they are
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from eofm.errors import DataError, EofmError
from eofm.extras import geo_library
from eofm.formats.foreign import foreign
from eofm.geo.vectors.embeddings import (
    HIDDEN,
    UNREADABLE,
    Codes,
    PatchGrid,
    Provenance,
    has_vector,
)
from eofm.io import replacing, unfinished
from eofm.raster.cube import placed
from eofm.raster.geotiff import check_memory, grid_of, open_geotiff

PROVENANCE: Final = "EOFM_PROVENANCE"
TIFF: Final = frozenset({".tif", ".tiff"})
ZARR: Final = ".zarr"
_TILE: Final = 256  # pixels at a side, at most; also the largest raster without overviews
_UNIT: Final = 16  # sides of TIFF's tiles are multiples of it
_CHUNK: Final = 64  # patches at a side
_SMALL: Final = {"blockxsize": _CHUNK, "blockysize": _CHUNK}

# ---------------------------------------------------------------------------------- GeoTIFF


def write_tiff(file: Path, grid: PatchGrid) -> None:
    """Write a patch grid as GeoTIFF, whole or not at all, row of tiles by row of tiles.

    Raises:
        OSError: If the disk is full, or the folder not there.
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
            # GDAL says of a full disk that a write has failed
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
    """Yield strips of rows as stored, (D, y, X), with what marks that there is no vector."""
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
    """Open a patch grid that is a GeoTIFF; vectors stay in the file until they are used.

    A file without provenance is read too where its bands can be the dimensions of a vector, as
    those of AlphaEarth (64 bands of int8): of how it was made nothing is known then.

    Raises:
        DataError: If the file is damaged, lies nowhere, or is an image and no embeddings.
    """
    with foreign(DataError, UNREADABLE, where=file, passing=(EofmError,)):
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
        if kind == "int8":
            codes = Codes(np.array(scales, np.float32), np.array(offsets, np.float32))
        made = Provenance("", "", "", "") if text is None else Provenance.from_json(text, file)
        stored = placed(stored.drop_vars("band").rename(band="dim"), place)
        return PatchGrid(stored, valid, made, codes)


# What tells a grid of vectors that others wrote from an image: numbers that vectors are kept in,
# and more of them at a place than imagery has bands (13 of Sentinel-2, 18 of stacked sensors).
_VECTOR_TYPES: Final = frozenset({"float16", "float32", "float64", "int8"})
_LEAST_DIM: Final = 32


def _check_vectors(source: DatasetReader, file: Path) -> None:
    """Refuse a raster without provenance whose bands are no dimensions of a vector.

    Raises:
        DataError: If it is an image: digital numbers, a class map, a few bands.
    """
    kinds = sorted(set(source.dtypes))
    if source.count >= _LEAST_DIM and set(kinds) <= _VECTOR_TYPES:
        return
    bands = "1 band" if source.count == 1 else f"{source.count} bands"
    raise DataError(
        "this raster is an image, and no embeddings",
        found=f"{bands} of {', '.join(kinds)}, and no provenance of eofm",
        expected=f"a file of eofm; of other programs, {_LEAST_DIM} bands or more of "
        "floating-point numbers or int8",
        where=file,
        remedy=f"embed it first, as in: eofm embed {quote(str(file))} --sensor s2-l2a --unit dn "
        "--model M --patches --out DIR",
    )


# ------------------------------------------------------------------------------------ Zarr


def write_zarr(folder: Path, grid: PatchGrid) -> None:
    """Write a patch grid as Zarr, whole or not at all, row of chunks by row of chunks.

    Raises:
        ConfigError: If zarr is not installed.
        OSError: If the disk is full, or the folder not there.
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
        warnings.simplefilter("ignore")  # it is no part of the format yet, but xarray asks for it
        zarr.consolidate_metadata(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _small(grid: PatchGrid) -> xr.Dataset:
    """Return all but the vectors: coordinates, CRS, where there are vectors, scale and offset."""
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
    """Open a patch grid that is Zarr; vectors stay in the folder until they are used.

    Raises:
        DataError: If it is damaged, or none of eofm.
        ConfigError: If zarr is not installed.
    """
    geo_library("zarr", "embeddings as Zarr need a library that is not installed")
    with foreign(
        DataError,
        UNREADABLE,
        expected="Zarr with embedding (dim, y, x), as eofm writes it",
        where=folder,
        passing=(EofmError,),
    ):
        data = xr.open_zarr(folder, consolidated=False, chunks=None, mask_and_scale=False)
        _check_zarr(data, folder)
        stored = data["embedding"]
        valid = data["valid"].to_numpy().astype(np.bool_)
        made = Provenance.from_json(data.attrs["eofm_provenance"], folder)
        codes = None
        if stored.dtype == np.int8:
            codes = Codes(data["scale"].to_numpy(), data["offset"].to_numpy())
        stored = stored.assign_coords(spatial_ref=data["spatial_ref"])
        return PatchGrid(stored, valid, made, codes)


# What is read whole may have so many times the bytes of its files, or so many in any case; a chunk
# is unpacked whole, whatever part of it is asked for.
_RATIO: Final = 2_000
_ALWAYS: Final = 2**29


def _check_zarr(data: xr.Dataset, folder: Path) -> None:
    """Refuse to make many gigabytes out of files of a few bytes, whatever their metadata say."""
    whole = max(one.nbytes for name, one in data.variables.items() if name != "embedding")
    chunks = [
        math.prod(one.encoding.get("chunks") or (1,)) * one.dtype.itemsize
        for one in data.variables.values()
    ]
    asked = max(whole, *chunks)
    if asked > _ALWAYS:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if asked > _RATIO * size:
            raise ValueError(f"{asked} bytes are asked for, too many for files of {size}")
