"""The table of labels: its columns, its metadata, and how it is read.

One row per window or scene:

    id                      unique in the table
    longitude, latitude     of the centre, WGS 84
    minx, miny, maxx, maxy  of the footprint, in `crs`
    crs, date               of the scene; the date is empty for windows of a map
    fraction, multi_hot     float32 and uint8 per class, in the order of the metadata
    known, reason           whether the labels are known, and if not, why (`Reason`)
    valid_share             share of the counted pixels for which the map names a class
    cloud_share             share of the counted pixels that the map calls cloud
    source, map_date        the maps that gave pixels, in order of precedence, and their dates

Counted are the pixels that the image measures, of a packed store and of a folder of images; all
pixels of a footprint, and of a window of a map.

The metadata hold a sha256 of every column and, under `eofm`, a JSON object: the scheme with all
its codes, threshold and least valid share, `ground` (`Ground`), the command that wrote it, and the
version of eofm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.formats.foreign import foreign
from eofm.formats.parquet import SEAL, metadata_of, null_count, read_sealed
from eofm.formats.seal import opened
from eofm.formats.text import parse_json
from eofm.landcover.multilabel import Reason, multi_labels, shares
from eofm.landcover.schemes import Scheme

FORMAT: Final = "eofm labels"
VERSION: Final = 1
KEY: Final = b"eofm"
SEALED: Final = "columns_sealed"  # whether metadata and columns have checksums


class Ground(StrEnum):
    """Which pixels of a scene were counted."""

    SEEN = "seen"  # those that its image measures
    ALL = "all"  # all of its footprint; tables of eofm 0.1, which do not say it, are of this kind


@dataclass(frozen=True)
class PresenceRule:
    """How counts become labels.

    Args:
        scheme: Meaning of the codes of the maps.
        threshold: Share of the valid pixels from which on a class is present.
        min_valid: Share of valid pixels below which labels are unknown.
        keep_empty: Whether rows with nothing but nodata are kept.
    """

    scheme: Scheme
    threshold: float
    min_valid: float
    keep_empty: bool


@dataclass(frozen=True)
class TableBatch:
    """Rows that are finished.

    Args:
        table: With the columns of `schema`.
        skipped: How many rows were left out because they held nothing but nodata.
        ignored: Codes that the scheme says to ignore -> pixels that had them.
    """

    table: pa.Table
    skipped: int
    ignored: Mapping[int, int]


@dataclass
class Rows:
    """Rows that are being gathered, column by column.

    Args:
        ids: Unique in the table.
        centres: Longitude and latitude, of some rows (n, 2), of the next.
        boxes: Footprint: left, bottom, right, top, of some rows (n, 4), of the next.
        crs: Of the footprints.
        dates: Of the scenes; empty where unknown.
        counts: Seen pixels of each class, of nodata and of cloud: of some rows (n, K + 2), of the
            next.
        sizes: Seen pixels in all.
        reasons: Why nothing could be counted; `KNOWN` where it could.
        sources: Maps that gave pixels.
        map_dates: Their dates.
        ignored: See `TableBatch`.
    """

    ids: list[str] = field(default_factory=list)
    centres: list[NDArray[np.float64]] = field(default_factory=list)
    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    crs: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    sources: list[list[str]] = field(default_factory=list)
    map_dates: list[list[str]] = field(default_factory=list)
    ignored: dict[int, int] = field(default_factory=dict)

    def ignore(self, strange: Mapping[int, int]) -> None:
        """Count pixels of codes that the scheme ignores."""
        for code, pixels in strange.items():
            self.ignored[code] = self.ignored.get(code, 0) + pixels

    def finish(self, rule: PresenceRule) -> TableBatch:
        """Return the rows with their labels."""
        k = len(rule.scheme.names)
        counts = np.concatenate([np.zeros((0, k + 2), np.int64), *self.counts])
        seen = np.array(self.sizes, np.int64)
        fractions, valid, cloud = shares(counts, seen)
        present, known = multi_labels(fractions, valid, rule.threshold, rule.min_valid)
        reasons = _why_unknown(self.reasons, known, valid, rule)
        centres = np.concatenate([np.zeros((0, 2)), *self.centres])
        boxes = np.concatenate([np.zeros((0, 4)), *self.boxes])
        columns = [
            self.ids,
            *np.ascontiguousarray(centres.T),
            *np.ascontiguousarray(boxes.T),
            self.crs,
            self.dates,
            _lists(fractions, pa.float32()),
            _lists(present, pa.uint8()),
            known,
            reasons,
            valid.astype(np.float32),
            cloud.astype(np.float32),
            self.sources,
            self.map_dates,
        ]
        layout = schema(k)
        arrays = [
            pa.array(c, f.type) if not isinstance(c, pa.Array) else c
            for c, f in zip(columns, layout, strict=True)
        ]
        table = pa.Table.from_arrays(arrays, schema=layout)
        skipped = 0
        if not rule.keep_empty:
            kept = counts[:, :k].any(axis=1) | (counts[:, k + 1] > 0)
            table, skipped = table.filter(pa.array(kept.tolist(), pa.bool_())), int((~kept).sum())
        return TableBatch(table, skipped, dict(self.ignored))


def _why_unknown(
    given: Sequence[Reason],
    known: NDArray[np.bool_],
    valid: NDArray[np.float64],
    rule: PresenceRule,
) -> list[str]:
    """Return the reason of each row: the one given, or else what its count says."""
    little = (valid < rule.min_valid) | (valid == 0)
    counted = np.where(little, Reason.TOO_LITTLE.value, Reason.NO_CLASS.value)
    counted = np.where(known, Reason.KNOWN.value, counted)
    return [a or b for a, b in zip(given, counted.tolist(), strict=True)]


def _lists(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), values.shape[1])


def schema(classes: int) -> pa.Schema:
    """Return the columns of a table of K classes."""
    numbers = ("longitude", "latitude", "minx", "miny", "maxx", "maxy")
    return pa.schema(
        [
            ("id", pa.string()),
            *((name, pa.float64()) for name in numbers),
            ("crs", pa.string()),
            ("date", pa.string()),
            ("fraction", pa.list_(pa.float32(), classes)),
            ("multi_hot", pa.list_(pa.uint8(), classes)),
            ("known", pa.bool_()),
            ("reason", pa.string()),
            ("valid_share", pa.float32()),
            ("cloud_share", pa.float32()),
            ("source", pa.list_(pa.string())),
            ("map_date", pa.list_(pa.string())),
        ]
    )


@dataclass(frozen=True)
class LabelTable:
    """A table of labels that `eofm labels` wrote.

    Args:
        path: Where it is.
        about: What its metadata says.
    """

    path: Path
    about: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of `fraction` and `multi_hot`."""
        return tuple(self.about["classes"])

    @property
    def ground(self) -> Ground:
        """Which pixels of a scene were counted."""
        return Ground.SEEN if self.about.get("ground") == Ground.SEEN else Ground.ALL

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows, or some columns of them.

        Raises:
            LabelError: If they are not as they were written, or cannot be labels.
        """
        with foreign(LabelError, _DAMAGED, where=self.path, remedy=_AGAIN):
            table = read_sealed(self.path, columns)
            layout = schema(len(self.classes))
            for column in table.schema:
                if not column.equals(layout.field(column.name)):
                    raise TypeError(f"{column}; {layout.field(column.name)} was expected")
                if null_count(table[column.name]):
                    raise ValueError(f"nulls in {column.name}")
            hot = table["multi_hot"] if "multi_hot" in table.schema.names else None
            if hot is not None and (pc.max(hot.combine_chunks().flatten()).as_py() or 0) > 1:
                raise ValueError("labels other than 0 and 1")
            return table

    def labels(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return multi-labels (N, K), and of which rows (N,) they are known."""
        table = self.read(["multi_hot", "known"])
        hot = table["multi_hot"].combine_chunks().flatten().to_numpy()
        return hot.reshape(-1, len(self.classes)), np.asarray(table["known"].to_numpy())


_DAMAGED: Final = "the table of labels is damaged"
_AGAIN: Final = "write it again with `eofm labels`"


def open_table(path: str | Path) -> LabelTable:
    """Open a table of labels.

    Raises:
        LabelError: If it is missing, damaged, or was not written by `eofm labels`.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError("there is no such table of labels", where=path)
    with foreign(LabelError, _DAMAGED, where=path, remedy=_AGAIN):
        metadata = metadata_of(path)
        about, whole = opened(parse_json(metadata.get(KEY, b"{}")))
        if whole is False or (about.get(SEALED) and (whole is None or SEAL not in metadata)):
            raise ValueError("its metadata are not as they were written")
        classes = about.get("classes", [])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError(f"classes {classes}")
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise LabelError(
            "this is not a table of labels",
            found=f"{about.get('format')} {about.get('version')}",
            expected=f"{FORMAT} {VERSION}",
            where=path,
            remedy="write one with `eofm labels`",
        )
    return LabelTable(path, about)
