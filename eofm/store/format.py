"""The packed store on disk: plain files that numpy and any Parquet reader open without eofm.

    STORE/
      spec.json           what the pixels are, the label rule, how the store was made
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
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import StoreError
from eofm.formats.foreign import foreign
from eofm.formats.seal import CHECKSUM, opened, sealed
from eofm.formats.text import parse_json

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
PAIRS: Final = "rows.parquet"  # beside the folders of several stores: `eofm.store.paired`
RELABELLED: Final = "relabelled"
SHARD_BYTES: Final = 2 * 1024**3
HEADER_BYTES: Final = 128

# What is stored for each unit: digital numbers as they are delivered, all else in float32.
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
        skipped: How many windows were left out for want of valid pixels.
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
        """Name what a run with this card would do otherwise than one with the other."""
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
        """Return the card that JSON holds; whatever is wrong with it raises what it likes."""
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
    """Return an amount of bytes in words.

    >>> byte_words(3_900_000_000), byte_words(720_000)
    ('3.90 GB', '0.7 MB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def current(folder: Path, name: str) -> Path:
    """Return where a small file of a store is: see `eofm.store.edit.relabel`."""
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
