"""The two small files of a store: its card, `spec.json`, and one row per image, `index.parquet`.

They are written together, so that neither is exchanged unnoticed: the card holds the sha256 of the
index, and a checksum of itself. Stores of eofm 0.1 have neither. A row is an `Entry`; which planes
of which files hold a band follows from the card (`select_bands`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import ImageSpec
from eofm.errors import SpecError, StoreError
from eofm.formats.foreign import foreign, read_bounded
from eofm.formats.parquet import RowsError, null_count, read_schema, read_table
from eofm.formats.seal import file_sha256
from eofm.formats.text import JSON_BYTES
from eofm.io import replacing
from eofm.landcover.multilabel import Cover, multi_label
from eofm.store.format import INDEX, SPEC, LabelRule, StoreCard, index_schema

# ------------------------------------------------------------------------------------------- index


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


# -------------------------------------------------------------------------------------------- card


def read_card_file(file: Path) -> StoreCard:
    """Read the card of a store.

    Raises:
        StoreError: If it is of another version, damaged, or not a store's card.
    """
    with foreign(
        StoreError,
        "the card of a packed store cannot be read",
        where=file,
        remedy="copy the store again, or pack it again",
    ):
        text = read_bounded(file, JSON_BYTES)
    return StoreCard.from_json(text, file)


def write_card_file(folder: Path, card: StoreCard) -> StoreCard:
    """Write the card of the index that lies in a folder; return it as written.

    Raises:
        OSError: If it cannot be written.
    """
    card = replace(card, index_sha256=file_sha256(folder / INDEX))
    with replacing(folder / SPEC) as file:
        file.write_text(card.to_json(), "utf-8")
    return card


# ------------------------------------------------------------------------------------------- bands


@dataclass(frozen=True)
class Selection:
    """Bands to read.

    The grid stays that of the store, also where no band of the finest resolution is asked for:
    the valid mask lies on it.

    Args:
        spec: The store's, with these bands in the order asked for.
        groups: Native GSD in metres -> the bands read, in the order in which they are stored.
        runs: GSD -> ranges of adjacent planes, in rising order: one read each.
    """

    spec: ImageSpec
    groups: Mapping[int, tuple[str, ...]]
    runs: Mapping[int, tuple[slice, ...]]


def select_bands(card: StoreCard, bands: Sequence[str] | None = None) -> Selection:
    """Find bands in a store.

    Args:
        card: The store's.
        bands: Their names, in the order wanted; None means all.

    Raises:
        SpecError: If a name is unknown, repeated, or not in the store.
    """
    if bands is None:
        whole = {gsd: (slice(0, len(names)),) for gsd, names in card.groups.items()}
        return Selection(card.spec, dict(card.groups), whole)
    wanted = canonical_bands(bands, card.spec.sensor)
    missing = [band for band in wanted if band not in card.spec.bands]
    if missing or not wanted:
        raise SpecError(
            "the store does not hold these bands",
            found=", ".join(card.spec.bands),
            expected=", ".join(missing) or "at least one band",
            remedy="ask for bands that are there, or pack the missing ones",
        )
    groups, runs = {}, {}
    for gsd, names in card.groups.items():
        planes = [i for i, name in enumerate(names) if name in wanted]
        if planes:
            groups[gsd] = tuple(names[i] for i in planes)
            runs[gsd] = _runs(planes)
    return Selection(replace(card.spec, bands=wanted), groups, runs)


def _runs(planes: Sequence[int]) -> tuple[slice, ...]:
    """Return rising numbers as ranges.

    >>> _runs([0, 1, 2, 5])
    (slice(0, 3, None), slice(5, 6, None))
    """
    breaks = np.flatnonzero(np.diff(planes) > 1) + 1
    parts = np.split(np.asarray(planes), breaks)
    return tuple(slice(int(part[0]), int(part[-1]) + 1) for part in parts)


# -------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Entry:
    """What the index says of one image.

    Args:
        id: Unique in the store.
        location: The place: images of one place overlap, or repeat one another in time.
        season: Which of several images of one place.
        longitude: Of the centre, degrees east.
        latitude: Of the centre, degrees north.
        date: `YYYY-MM-DDTHH:MM:SS`, or empty where unknown.
        source: Name of the image it was cut from.
        source_unit: The unit that image was stated to be in.
        fraction: Share of each class in the valid map pixels.
        multi_hot: 1 where a class is present; zeros where the labels are unknown.
        known: Whether the labels are known.
        valid_share: Share of the measured pixels of the image for which the map names a class.
        split: `train`, `val` or `test`, where the data set has an official division; else empty.
        crs: CRS of the image, an authority code or WKT; empty where unknown.
        transform: Coefficients a, b, c, d, e, f from (column, row) of a pixel corner on the finest
            grid to coordinates in that CRS; None where unknown.
    """

    id: str
    location: str
    season: str
    longitude: float
    latitude: float
    date: str
    source: str
    source_unit: str
    fraction: tuple[float, ...] = ()
    multi_hot: tuple[int, ...] = ()
    known: bool = False
    valid_share: float = 0.0
    split: str = ""
    crs: str = ""
    transform: tuple[float, ...] | None = None

    def labelled(self, cover: Cover, rule: LabelRule) -> Entry:
        """Return the entry with the labels that the land cover of its measured pixels gives it.

        Args:
            cover: Share of each class of the rule.
            rule: Threshold and least share of valid pixels.
        """
        present, known = multi_label(cover, rule.threshold, rule.min_valid)
        return replace(
            self,
            fraction=tuple(cover.fractions.tolist()),
            multi_hot=tuple(present.tolist()),
            known=known,
            valid_share=cover.valid_share,
        )

    def unlabelled(self, rule: LabelRule) -> Entry:
        """Return the entry of an image that no map covers."""
        classes = len(rule.classes)
        return replace(self, fraction=(0.0,) * classes, multi_hot=(0,) * classes)
