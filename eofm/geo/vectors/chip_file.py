"""Chips as GeoParquet 1.1: polygons with a bounding box each, and a list of numbers.

The file is read by geopandas, DuckDB, QGIS and torchgeo without eofm. Its metadata have `geo`, as
the format wants it; `emb`, as Earth Index has it (version 0.0.1 of the schema in
github.com/cloudnativegeo/geo-embeddings-survey); and `eofm`, the provenance and the scale and
offset of int8. Products of others are read where they are GeoParquet with a column of lists
called `embedding` (Earth Index) or `embeddings` (Clay).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eofm.errors import DataError, EofmError
from eofm.extras import geo_library
from eofm.formats.foreign import foreign
from eofm.formats.parquet import check_table
from eofm.formats.text import parse_json
from eofm.geo.vectors.embeddings import ChipTable, Codes, Provenance, Quantization, SceneRecord
from eofm.io import replacing
from eofm.progress import notice

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

SUFFIXES: Final = frozenset({".parquet", ".gpq", ".geoparquet"})
EMB_VERSION: Final = "0.0.1"
_VECTORS: Final = ("embedding", "embeddings")
_DATES: Final = ("datetime", "date")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_ROWS: Final = 16_384  # of a row group
_NO_TABLE: Final = "this is no table of embeddings"
_EXPECTED: Final = "GeoParquet with a column of lists called embedding or embeddings"

# ---------------------------------------------------------------------------------- out


def write_chips(file: Path, parts: Iterable[ChipTable]) -> None:
    """Write chips as one GeoParquet file, whole or not at all.

    Args:
        file: Where to.
        parts: Chips of one kind, at least one part; each becomes one row group or several.

    Raises:
        DataError: If there is no part, or the parts differ in kind.
        ConfigError: If the libraries are not installed.
        OSError: If the disk is full, or the folder not there.
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
    """Return what Earth Index writes under the key `emb`.

    Args:
        made: How the vectors were made.
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
        else f"{made.quantization}, linear by dimension: see the key eofm"
        if made.quantization is Quantization.INT8
        else str(made.quantization),
    }


# ---------------------------------------------------------------------------------- in


def read_chips(file: Path) -> ChipTable:
    """Read chips of eofm, of Earth Index, of Clay, or of another program that writes such files.

    Vectors stay in the file until they are used.

    Raises:
        DataError: If the file is damaged, is no GeoParquet, or holds no vectors of one length.
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
        if (codes is None) == (stored.dtype == np.int8):
            raise ValueError(
                f"vectors of {stored.dtype} {'without' if codes is None else 'with'} codes"
            )
    else:
        made, codes = _of_others(metadata, name, table, file), None
    return ChipTable(_completed(table, file), stored, made, codes)


def _foreign(file: Path, found: object) -> DataError:
    return DataError(_NO_TABLE, found=found, expected=_EXPECTED, where=file)


def _numbers(column: Any, file: Path) -> NDArray[Any]:  # noqa: ANN401 (pyarrow has no types)
    """Return lists of one length as an array (N, D)."""
    if isinstance(column, pa.ChunkedArray):  # of no chunk at all
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
    """Return what a product of others says of itself; two of one statement have one way."""
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
    """Return a table with an `id` and a `datetime`, from the names that others have for them."""
    import pandas as pd

    if "id" not in table:
        numbers = table["index"] if "index" in table else range(len(table))
        table = table.assign(id=[f"{file.stem}_{number}" for number in numbers])
    date = next((name for name in _DATES if name in table), None)
    if date is None:
        return table.assign(datetime=pd.NaT)
    return table.assign(datetime=pd.to_datetime(table[date], utc=True))
