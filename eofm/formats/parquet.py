"""Parquet: tables whose declared sizes are checked before their bytes are unpacked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eofm.formats.text import parse_json

__all__ = [
    "SEAL",
    "ColumnDigests",
    "RowsError",
    "check_table",
    "is_sealed",
    "metadata_of",
    "null_count",
    "read_schema",
    "read_sealed",
    "read_table",
    "seal_columns",
]

# Limit of the unpacked size, as a multiple of the file or absolute. Run-length and dictionary
# encoding exceed it only if that was intended.
_RATIO: Final = 200
_ALWAYS: Final = 64 * 2**20


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, rows: int | None = None
) -> pa.Table:
    """Return a table, or some columns of it.

    Args:
        path: The file.
        columns: Columns to read; None means all.
        rows: Expected number of rows, if known.

    Raises:
        OSError: If it cannot be read.
        pa.ArrowException: If it is damaged.
        ValueError: If the number of rows differs, or it would unpack to more than a file of its
            size can hold.
    """
    limit = _limit(path)
    with pq.ParquetFile(path) as file:
        about = file.metadata
        if rows is not None and about.num_rows != rows:
            raise RowsError(about.num_rows)
        schema = file.schema_arrow
        _check_claims(about, schema, limit)
        texts = [field.name for field in schema if _is_text(field.type)]
    if columns is not None:
        texts = [name for name in texts if name in columns]
    named = None if columns is None else list(columns)
    table = pq.read_table(path, columns=named, read_dictionary=texts, partitioning=None)
    for name in texts:
        _check_text(table[name], limit, name)
    return table.cast(_plain(table.schema))


def check_table(path: Path) -> pa.Schema:
    """Return the columns of a table for another library, after checking its declared sizes.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        pa.ArrowException: If it is damaged.
        ValueError: If it would unpack to more than a file of its size can hold.
    """
    with pq.ParquetFile(path) as file:
        _check_claims(file.metadata, file.schema_arrow, _limit(path))
        return file.schema_arrow


def _limit(path: Path) -> int:
    return max(_ALWAYS, _RATIO * path.stat().st_size)


class RowsError(ValueError):
    """A table has an unexpected number of rows.

    Args:
        found: Its number of rows.
    """

    def __init__(self, found: int) -> None:
        self.found = found
        super().__init__(f"{found} rows")


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a table, with its metadata.

    Raises:
        OSError: If it cannot be read.
        pa.ArrowException: If it is damaged.
    """
    return pq.read_schema(path)


def null_count(column: pa.ChunkedArray) -> int:
    """Count the rows without a value, and the gaps in lists."""
    gaps: int = column.null_count
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        gaps += sum(chunk.flatten().null_count for chunk in column.chunks)
    return gaps


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return columns with texts instead of the dictionaries of texts that they were read as."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields, metadata=schema.metadata)


def _check_claims(about: Any, schema: pa.Schema, limit: int) -> None:  # noqa: ANN401 (no types)
    """Compare rows and bytes declared in the footer with the capacity of the file.

    Not for single columns: if their statistics are damaged, Arrow terminates the process.
    """
    groups = range(about.num_row_groups)
    packed = sum(about.row_group(group).total_byte_size for group in groups)
    claimed = max(packed, about.num_rows * max(1, sum(_width(field.type) for field in schema)))
    if claimed > limit:
        raise ValueError(f"it asks for {claimed} bytes of memory, too many for a file of its size")


def _width(kind: pa.DataType) -> int:
    """Return the minimum number of bytes of a value."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:  # of variable width
        return 4


def _check_text(column: pa.ChunkedArray, limit: int, name: str) -> None:
    """Compare the length of all texts, unpacked, with the capacity of the file."""
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
            total += pc.sum(lengths.cast(pa.int64())).as_py() or 0
    if total > limit:
        raise ValueError(f"column {name} asks for {total} bytes, too many for a file of its size")


# ------------------------------------------------------------------------------- checksums

SEAL: Final = b"eofm.columns"


_STREAMS: Final = 6  # of a list of texts; other types may be empty


class ColumnDigests:
    """The sha256 of every column of a table in pieces, independent of the division into pieces."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}

    def add(self, table: pa.Table) -> None:
        """Add further rows."""
        for name in table.schema.names:
            streams = self._columns.setdefault(name, [sha256() for _ in range(_STREAMS)])
            for chunk in table[name].chunks:
                _take_in(chunk, streams)

    def result(self) -> dict[str, str]:
        """Return name -> sha256."""
        return {
            name: sha256(b"".join(stream.digest() for stream in streams)).hexdigest()
            for name, streams in self._columns.items()
        }

    def metadata(self) -> dict[bytes, bytes]:
        """Return the checksums of columns as metadata of a file."""
        return {SEAL: json.dumps(self.result()).encode()}


def seal_columns(table: pa.Table, said: Mapping[bytes, bytes]) -> pa.Table:
    """Return a table whose metadata are `said` and the checksums of its columns.

    Args:
        table: All rows of a file that is to be written.
        said: Further metadata.
    """
    digests = ColumnDigests()
    digests.add(table)
    return table.replace_schema_metadata({**said, **digests.metadata()})


def _take_in(values: pa.Array, streams: Sequence[Any]) -> None:
    """Hash the validity, values and lengths of an array.

    Each uses its own stream, so that the division into pieces has no effect.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    there, content, texts, *rest = streams
    gaps = values.null_count > 0
    there.update(
        values.is_valid().to_numpy(zero_copy_only=False).tobytes() if gaps else b"\1" * len(values)
    )
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        content.update(pc.list_value_length(values).fill_null(0).to_numpy().tobytes())
        _take_in(values.flatten(), [texts, *rest])
    elif _is_text(values.type):
        content.update(pc.binary_length(values).fill_null(0).to_numpy().tobytes())
        texts.update(_joined(values.fill_null("")))
    else:
        if gaps:
            values = values.fill_null(pa.scalar(0).cast(values.type))
        content.update(values.to_numpy(zero_copy_only=False).tobytes())


def _joined(texts: pa.Array) -> bytes:
    """Return non-null texts concatenated in UTF-8, as they are in memory."""
    _, ends, content = texts.buffers()
    if content is None:
        return b""
    limits = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return content[int(limits[0]) : int(limits[-1])].to_pybytes() if len(texts) else b""


def metadata_of(path: Path) -> dict[bytes, bytes]:
    """Return the metadata of a file.

    Raises:
        OSError: If it cannot be read.
        pa.ArrowException: If it is damaged.
    """
    with pq.ParquetFile(path) as file:
        return dict(file.metadata.metadata or {})


def is_sealed(path: Path) -> bool:
    """Return whether the columns of a file have checksums; tables of eofm 0.1 have none."""
    return SEAL in metadata_of(path)


def read_sealed(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table, or some columns of it, after comparing them with their checksums.

    Columns without a checksum are read unchecked.

    Raises:
        ValueError: If a column does not match; further kinds as `read_table`.
    """
    table = read_table(path, columns)
    stated = parse_json(metadata_of(path).get(SEAL, b"{}"))
    digests = ColumnDigests()
    digests.add(table)
    wrong = [name for name, found in digests.result().items() if stated.get(name, found) != found]
    if stated and columns is None:
        wrong += sorted(set(stated) ^ set(table.schema.names))
    if wrong:
        raise ValueError(f"not as written: {', '.join(wrong)}")
    return table
