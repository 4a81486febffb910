"""The packed store on disk: plain files that numpy and any Parquet reader open without eofm.

    STORE/
      spec.json           image specification, label rule, settings of the run that packed it
      index.parquet       one row per image: its place in the shards and on the ground, its date,
                          its labels, a checksum (columns: `index_schema`)
      shard-00000/        at most 2 GiB
        10m.npy           (N, bands, h, w), little-endian uint16 (Sentinel-2) or float32 dB
        20m.npy 60m.npy   the same for coarser bands, where they are kept apart
        valid.npy         (N, bytes): the valid mask, row by row, eight pixels to a byte

While a store is being written there is also `journal.jsonl`, and pieces end in `.tmp`; several
processes at once write small stores in the folder `parts`, which become its shards. While it
is given other labels, the folder `relabelled` holds those of its two small files that have not yet
replaced the old ones.

The two small files, card and index, are written together, and an exchange of either is noticed:
the card holds the sha256 of the index, and a checksum of itself. Stores of eofm 0.1 have neither.
A row of the index is an `Entry`; which planes of which files hold a band follows from the card
(`select_bands`).
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eofm.contract.spec import ImageSpec, Sensor, Unit, canonical_bands
from eofm.errors import SpecError, StoreError
from eofm.formats.foreign import CHECKSUM, file_sha256, foreign, opened, read_bounded, sealed
from eofm.formats.parquet import RowsError, null_count, read_schema, read_table
from eofm.formats.text import JSON_BYTES, parse_json
from eofm.io import replacing
from eofm.landcover.multilabel import Cover, multi_label

__all__ = [
    "COPY",
    "DAMAGED",
    "DTYPES",
    "HEADER_BYTES",
    "INDEX",
    "JOURNAL",
    "LICENCES",
    "PAIRS",
    "PARTS",
    "READABLE",
    "RELABELLED",
    "SHARD_BYTES",
    "SPEC",
    "SYNTHETIC_LICENCE",
    "VALID",
    "VERSION",
    "Entry",
    "LabelRule",
    "Plain",
    "Selection",
    "StoreCard",
    "byte_words",
    "checksum",
    "common_licence",
    "current",
    "damaged",
    "index_schema",
    "npy_header",
    "read_card_file",
    "read_index",
    "select_bands",
    "shard_name",
    "write_card_file",
]

# ---------------------------------------------------------------------------------- card and shards

# 2: the index says in which split of its data set an image is
# 3: the index keeps CRS and transform of every image
VERSION: Final = 3
READABLE: Final = frozenset({2, 3})
_SINCE_3: Final = ("crs", "transform")
SPEC: Final = "spec.json"
INDEX: Final = "index.parquet"
JOURNAL: Final = "journal.jsonl"
VALID: Final = "valid"
PARTS: Final = "parts"
PAIRS: Final = "rows.parquet"  # next to the folders of several stores: `eofm.store.paired`
RELABELLED: Final = "relabelled"
SHARD_BYTES: Final = 2 * 1024**3
HEADER_BYTES: Final = 128

# Data type by unit: digital numbers as delivered, everything else in float32.
DTYPES: Final[Mapping[Unit, str]] = {
    Unit.DN: "<u2",
    Unit.UINT8: "<u2",
    Unit.REFLECTANCE: "<f4",
    Unit.DB: "<f4",
}

Plain = str | int | float | bool | None | Sequence["Plain"] | Mapping[str, "Plain"]


@dataclass(frozen=True)
class LabelRule:
    """How class maps became labels.

    Args:
        scheme: Name of the land-cover scheme (`eofm.landcover.schemes.SCHEMES`).
        classes: Class names, in the order of the label vector.
        threshold: Share of the valid pixels from which on a class is present; 0: any pixel.
        min_valid: Share of valid map pixels below which an image is unlabelled.
    """

    scheme: str
    classes: tuple[str, ...]
    threshold: float
    min_valid: float


SYNTHETIC_LICENCE: Final = "Apache-2.0"  # data_cards/embedded-world.md
LICENCES: Final[Mapping[str, str]] = {  # verb that packs a known set -> licence on its data card
    "pack ssl4eo": "CC-BY-4.0",
    "pack bigearthnet": "CDLA-Permissive-1.0",
    "pack eurosat": "MIT",
}


def common_licence(licences: Iterable[str]) -> str:
    """Return the common licence; empty where there is none or they differ."""
    distinct = set(licences)
    return distinct.pop() if len(distinct) == 1 else ""


@dataclass(frozen=True)
class StoreCard:
    """What `spec.json` says.

    Args:
        spec: What `to_grid` makes of the images: unit and size are known.
        groups: Native GSD in metres -> the bands stored at it.
        labels: The label rule; None for an unlabelled store.
        settings: What decides which rows there are and what is in them. A run may only resume
            a store of equal settings.
        provenance: Who made it, for the reader; not compared.
        rows_per_shard: How many rows a full shard holds.
        rows: How many rows there are; 0 until the store is finished.
        sources: How many images were cut into them.
        skipped: Number of windows left out because they have too few valid pixels.
        quarantined: Name -> problem, of the images that could not be read and were passed over.
        version: Version of the files that were read. Whatever is written has `VERSION`.
        index_sha256: Of `index.parquet`; empty where it is not stated, as in stores of eofm 0.1.
    """

    spec: ImageSpec
    groups: Mapping[int, tuple[str, ...]]
    labels: LabelRule | None
    settings: Mapping[str, Plain]
    provenance: Mapping[str, Plain] = field(default_factory=dict)
    rows_per_shard: int = 1
    rows: int = 0
    sources: int = 0
    skipped: int = 0
    quarantined: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION
    index_sha256: str = ""

    def __post_init__(self) -> None:
        if self.spec.unit not in DTYPES or self.spec.size is None:
            raise StoreError(
                "images of this kind cannot be packed",
                found=f"unit {self.spec.unit}, size {self.spec.size}",
                expected=f"one size, unit {' | '.join(DTYPES)}",
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type of the planes."""
        return np.dtype(DTYPES[self.spec.unit])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width on the grid of the spec."""
        assert self.spec.size is not None  # noqa: S101 (__post_init__ has checked it)
        return self.spec.size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; empty for an unlabelled store."""
        return () if self.labels is None else self.labels.classes

    @property
    def synthetic(self) -> bool:
        """Whether the images are synthetic, as stated when they were packed."""
        return self.provenance.get("synthetic") is True

    @property
    def licence(self) -> str:
        """The licence of the images; empty where it is not known.

        Of a copy (`eofm data subset`, `merge`) it is that of the stores it was made from, where
        they have the same one.
        """
        if self.synthetic:
            return SYNTHETIC_LICENCE
        sources = self.provenance.get("from")
        origins = sources if isinstance(sources, list) else [dict(self.settings)]
        return common_licence(
            LICENCES.get(str(each.get("verb")), "") if isinstance(each, Mapping) else ""
            for each in origins
        )

    def pieces(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return the files of a shard: name -> shape and dtype of one row, in checksum order."""
        height, width = self.size
        finest = min(self.groups)
        shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            f"{gsd}m": (
                (len(self.groups[gsd]), height * finest // gsd, width * finest // gsd),
                self.dtype,
            )
            for gsd in sorted(self.groups)
        }
        shapes[VALID] = ((-(-height * width // 8),), np.dtype("u1"))
        return shapes

    @property
    def row_bytes(self) -> int:
        """Bytes of one image over all files."""
        return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.pieces().values())

    def differences(self, other: StoreCard) -> list[str]:
        """Name the settings in which a run with this card differs from one with the other."""
        mine, theirs = _flat(self._plain()), _flat(other._plain())
        keys = [
            key
            for key in {**mine, **theirs}
            if mine.get(key) != theirs.get(key)
            and key not in {"rows", "sources", "skipped", "index_sha256"}
            and not key.startswith(("provenance", "quarantined"))
        ]
        if len(keys) > 1 and "rows_per_shard" in keys:
            keys.remove("rows_per_shard")  # follows from the others
        return [f"{key} {mine.get(key)} instead of {theirs.get(key)}" for key in keys]

    def to_json(self) -> str:
        """Return the text of `spec.json`."""
        return json.dumps(sealed(self._plain()), indent=2, ensure_ascii=False) + "\n"

    def _plain(self) -> dict[str, Any]:
        spec, labels = self.spec, self.labels
        return {
            "format": "eofm packed store",
            "version": VERSION,
            "image": {
                "sensor": spec.sensor.value,
                "bands": list(spec.bands),
                "unit": spec.unit.value,
                "size": list(self.size),
                "gsd": spec.gsd,
            },
            "groups": {str(gsd): list(bands) for gsd, bands in sorted(self.groups.items())},
            "dtype": self.dtype.str,
            "labels": None if labels is None else {**vars(labels), "classes": list(labels.classes)},
            "rows": self.rows,
            "rows_per_shard": self.rows_per_shard,
            "sources": self.sources,
            "skipped": self.skipped,
            "quarantined": dict(self.quarantined),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "index_sha256": self.index_sha256,
        }

    @classmethod
    def from_json(cls, text: str | bytes, where: Path) -> StoreCard:
        """Read what `to_json` wrote.

        Raises:
            StoreError: If it is of another version, was changed since it was written, or is not a
                store's card.
        """
        with foreign(
            StoreError,
            "this is not the card of a packed store",
            where=where,
            remedy="point to a folder written by `eofm pack`, or pack again",
        ):
            stated, whole = opened(parse_json(text))
            version = _checked_version(stated["version"], where)
            if whole is False or (whole is None and "index_sha256" in stated):
                raise StoreError(
                    "the card of the store is not as it was written",
                    found=f"a {CHECKSUM} that is not that of its content",
                    where=where,
                    remedy="copy the store again, or pack it again; a card is not to be edited",
                )
            return cls._of(stated, version)

    @classmethod
    def _of(cls, plain: Mapping[str, Any], version: int) -> StoreCard:
        """Return the card that JSON holds; malformed content raises an error of any type."""
        image, labels = plain["image"], plain["labels"]
        spec = ImageSpec(
            Sensor(image["sensor"]),
            tuple(image["bands"]),
            Unit(image["unit"]),
            (int(image["size"][0]), int(image["size"][1])),
            float(image["gsd"]),
        )
        groups = {int(gsd): tuple(bands) for gsd, bands in plain["groups"].items()}
        _check_groups(groups, spec)
        counts = {key: int(plain[key]) for key in ("rows_per_shard", "rows", "sources", "skipped")}
        if min(counts.values()) < 0 or not counts["rows_per_shard"]:
            raise ValueError(f"counts {counts}")
        return cls(
            spec=spec,
            groups=groups,
            labels=_rule_of(labels),
            settings=dict(plain["settings"]),
            provenance=dict(plain["provenance"]),
            quarantined=dict(plain.get("quarantined", {})),
            version=version,
            index_sha256=str(plain.get("index_sha256", "")),
            **counts,
        )


def _check_groups(groups: Mapping[int, tuple[str, ...]], spec: ImageSpec) -> None:
    """Check that every band of the images is in one plane, and that planes have pixels."""
    stored = sorted(band for bands in groups.values() for band in bands)
    if stored != sorted(spec.bands):
        raise ValueError(f"planes of {', '.join(map(str, stored))}; bands {', '.join(spec.bands)}")
    if min(groups) < 1 or not math.isfinite(spec.gsd):
        raise ValueError(f"planes of {', '.join(map(str, groups))} m, a gsd of {spec.gsd}")
    assert spec.size is not None  # noqa: S101 (it was given)
    if min(spec.size) * min(groups) // max(groups) < 1:
        raise ValueError(f"planes of {max(groups)} m without a pixel")


def _rule_of(plain: Mapping[str, Any] | None) -> LabelRule | None:
    if plain is None:
        return None
    classes = tuple(plain["classes"])
    if not classes or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes {plain['classes']}")
    shares = float(plain["threshold"]), float(plain["min_valid"])
    if not all(map(math.isfinite, shares)):
        raise ValueError(f"shares {shares}")
    return LabelRule(str(plain["scheme"]), classes, *shares)


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _checked_version(version: object, where: Path) -> int:
    if version not in READABLE or not isinstance(version, int):
        raise StoreError(
            "this store was written by another version of eofm",
            found=f"store version {version}",
            expected=f"store version {' or '.join(map(str, sorted(READABLE)))}",
            where=where,
            remedy="pack it again into a new folder, or read it with the eofm that wrote it",
        )
    return version


def index_schema(classes: int, version: int = VERSION) -> pa.Schema:
    """Return the columns of `index.parquet`.

    `crs` is an authority code or WKT, empty where unknown. `transform` holds a, b, c, d, e, f of
    x = a col + b row + c, y = d col + e row + f, from pixel corners of the image's finest grid to
    coordinates in that CRS; it is null where unknown. All other columns are without nulls.

    Args:
        classes: Number of classes, K.
        version: Version of the store.
    """
    columns = pa.schema(
        [
            ("id", pa.string()),
            ("location", pa.string()),
            ("season", pa.string()),
            ("longitude", pa.float64()),
            ("latitude", pa.float64()),
            ("date", pa.string()),
            ("shard", pa.int32()),
            ("row", pa.int32()),
            # lists of a fixed length cannot be empty in every Parquet reader
            ("fraction", pa.list_(pa.float32(), classes) if classes else pa.list_(pa.float32())),
            ("multi_hot", pa.list_(pa.uint8(), classes) if classes else pa.list_(pa.uint8())),
            ("known", pa.bool_()),
            ("valid_share", pa.float32()),
            ("crc32", pa.uint32()),
            ("source", pa.string()),
            ("source_unit", pa.string()),
            ("split", pa.string()),
            ("crs", pa.string()),
            ("transform", pa.list_(pa.float64(), 6)),
        ]
    )
    if version < 3:
        for name in _SINCE_3:
            columns = columns.remove(columns.get_field_index(name))
    return columns


def byte_words(count: float) -> str:
    """Return a number of bytes as text.

    >>> byte_words(3_900_000_000), byte_words(720_000)
    ('3.90 GB', '0.7 MB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def current(folder: Path, name: str) -> Path:
    """Return where a small file of a store is: see `eofm.store.writer`."""
    newer = folder / RELABELLED / name
    return newer if newer.exists() else folder / name


def shard_name(shard: int) -> str:
    """Return the folder of a shard."""
    return f"shard-{shard:05d}"


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return a header of `HEADER_BYTES`, whatever the shape: rows can be appended after it.

    The format (version 1.0) is numpy's own; only the padding is longer than numpy would choose.
    """
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape})
    length = HEADER_BYTES - 10  # after the magic, the version and the length
    return (
        b"\x93NUMPY\x01\x00"
        + length.to_bytes(2, "little")
        + text.ljust(length - 1).encode()
        + b"\n"
    )


def checksum(pieces: Iterable[NDArray[Any]]) -> int:
    """Return the crc32 over the bytes of one row, file after file."""
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(np.ascontiguousarray(piece).data, crc)
    return crc


# ------------------------------------------------------------------------------------------- index


DAMAGED: Final = "a piece of the store is missing or damaged"
COPY: Final = "copy the store again, or delete it and pack it again"
_ROUNDED: Final = 1e-5  # shares are float32


def damaged(file: Path, found: str, expected: str | None = None) -> StoreError:
    """Return the error for a file of a store that is not as it has to be.

    Args:
        file: Which.
        found: Description of the file that is there.
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
    hot, share = (_list_values(table[name]) for name in ("multi_hot", "fraction"))
    valid = table["valid_share"].to_numpy()
    if len(hot) and hot.max() > 1:
        raise damaged(file, f"a label {hot.max()}", "labels 0 and 1")
    for values in (share, valid):
        wrong = (values < 0) | (values > 1 + _ROUNDED)
        if wrong.any():
            raise damaged(file, f"a share {values[wrong][0]}", "shares from 0 to 1")


def _list_values(column: pa.ChunkedArray) -> NDArray[Any]:
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
    """Write the card of the index in a folder; return it as written.

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
        spec: That of the store, with these bands in the given order.
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
            remedy="name bands that the store has, or pack the missing ones",
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
    """The row of the index for one image.

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
