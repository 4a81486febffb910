"""`index.parquet`: one row per image, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eofm.errors import StoreError
from eofm.formats.foreign import foreign
from eofm.formats.parquet import RowsError, null_count, read_schema, read_table
from eofm.formats.seal import file_sha256
from eofm.store.format import SPEC, StoreCard, index_schema

DAMAGED: Final = "a piece of the store is missing or damaged"
COPY: Final = "copy the store again, or delete it and pack it again"
_ROUNDED: Final = 1e-5  # shares are float32


def damaged(file: Path, found: str, expected: str | None = None) -> StoreError:
    """Return the error that names a file of a store as not what it must be.

    Args:
        file: Which.
        found: What is there.
        expected: What must be there.
    """
    return StoreError(
        DAMAGED,
        found=found,
        expected=expected,
        where=file,
        remedy=COPY,
    )


def read_index(file: Path, card: StoreCard) -> pa.Table:
    """Read an index and return it with the columns of the present version.

    Args:
        file: The index.
        card: That of its store.

    Raises:
        StoreError: If it is not the one of the card, or its columns, its number of rows, its labels
            or its places in the shards cannot be right.
    """
    with foreign(StoreError, DAMAGED, where=file, remedy=COPY):
        table = _of_rows(file, card)
        schema = index_schema(len(card.classes), card.version)
    holes = [name for name in schema.names if name != "transform" and null_count(table[name])]
    if holes:
        raise damaged(file, f"nulls in {', '.join(holes)}", "a value in every row")
    _check_places(file, table)
    _check_labels(file, table)
    _check_sealed(file, card)
    for column in index_schema(len(card.classes)):
        if column.name not in table.schema.names:  # unknown in a store of version 2
            absent = pa.array([""] * len(table)) if column.name == "crs" else pa.nulls(len(table))
            table = table.append_column(column, absent.cast(column.type))
    return table


def _of_rows(file: Path, card: StoreCard) -> pa.Table:
    """Read a table that has the columns and as many rows as the card says."""
    schema = index_schema(len(card.classes), card.version)
    there = read_schema(file)
    if not there.equals(schema):
        raise damaged(file, _columns_apart(there, schema), _columns_apart(schema, there))
    try:
        return read_table(file, rows=card.rows)
    except RowsError as error:
        raise damaged(file, str(error), f"{card.rows} rows, as {SPEC} says") from error


def _check_labels(file: Path, table: pa.Table) -> None:
    """Check that labels are 0 or 1, and shares from 0 to 1; NaN of labels that were not counted."""
    hot, share = (_flat(table[name]) for name in ("multi_hot", "fraction"))
    valid = table["valid_share"].to_numpy()
    if len(hot) and hot.max() > 1:
        raise damaged(file, f"a label {hot.max()}", "labels 0 and 1")
    for values in (share, valid):
        wrong = (values < 0) | (values > 1 + _ROUNDED)
        if wrong.any():
            raise damaged(file, f"a share {values[wrong][0]}", "shares from 0 to 1")


def _flat(column: pa.ChunkedArray) -> NDArray[Any]:
    values: NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return values


def _check_sealed(file: Path, card: StoreCard) -> None:
    """Check that the index is the one that was written with the card, where that says which."""
    if card.index_sha256 and file_sha256(file) != card.index_sha256:
        raise StoreError(
            "the index is not the one that belongs to the card of the store",
            found=f"sha256 {file_sha256(file)}",
            expected=f"sha256 {card.index_sha256}, as {SPEC} says",
            where=file,
            remedy=COPY,
        )


def _columns_apart(some: pa.Schema, others: pa.Schema) -> str:
    """Name the columns that the other schema does not have, or has in another type."""
    apart = [
        f"{field.name} ({field.type})"
        for field in some
        if field.name not in others.names or others.field(field.name).type != field.type
    ]
    return ", ".join(apart) or "the same columns in another order, or none more"


def _check_places(file: Path, table: pa.Table) -> None:
    """Check that the rows of every shard are numbered from 0 on, each number once."""
    shards, rows = (np.asarray(table[name].to_numpy(), np.int64) for name in ("shard", "row"))
    order = np.lexsort((rows, shards))
    shard, row = shards[order], rows[order]
    if len(shard) and (shard[0] != 0 or (np.diff(shard) > 1).any()):
        found = f"shards {', '.join(map(str, np.unique(shard)[:5].tolist()))}"
        raise damaged(file, found, "shards numbered from 0 on")
    begins = np.flatnonzero(np.diff(shard, prepend=-1))
    number = np.arange(len(row)) - np.repeat(begins, np.diff(begins, append=len(row)))
    wrong = np.flatnonzero(row != number)
    if len(wrong):
        at = wrong[0]
        raise damaged(
            file, f"row {row[at]} in shard {shard[at]}", "every row of a shard once, from 0 on"
        )
