"""The table of labels: its columns, its metadata, how it is read and written.

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

For a packed store and a folder of images, the valid pixels of each image are counted; for a
footprint and a window of a map, all pixels.

The metadata hold a sha256 of every column and, under `eofm`, a JSON object: the scheme with all
its codes, threshold and least valid share, `ground` (`Ground`), the command that wrote it, and the
version of eofm.

A killed run loses nothing but unfinished batches. While `labels.parquet` is being written there is
a folder `labels.parquet.parts`: `run.json` identifies the run, and each finished batch is a
file. At the end they are merged, in order, into row groups of one size: the table does not
depend on the division into batches.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eofm.errors import ConfigError, LabelError
from eofm.formats.foreign import foreign, opened, sealed
from eofm.formats.parquet import (
    SEAL,
    ColumnDigests,
    metadata_of,
    null_count,
    read_sealed,
    seal_columns,
)
from eofm.formats.text import parse_json, read_json
from eofm.io import BINARY, replacing, try_lock
from eofm.landcover.multilabel import Reason, multi_labels, shares
from eofm.landcover.schemes import Scheme
from eofm.terminal import notice

__all__ = [
    "FORMAT",
    "KEY",
    "ROW_GROUP",
    "SEALED",
    "VERSION",
    "Ground",
    "LabelOutput",
    "LabelTable",
    "PresenceRule",
    "Rows",
    "TableBatch",
    "open_table",
    "schema",
]

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
        threshold: Minimum share of the valid pixels for a class to be present.
        min_valid: Share of valid pixels below which labels are unknown.
        keep_empty: Whether rows that are all nodata are written.
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
        skipped: Number of rows left out because they are all nodata.
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
        reasons: Why no pixel could be counted; `KNOWN` otherwise.
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
    """Return the reason of each row: the given one, or else the one from its counts."""
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
        about: Its metadata.
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


# ------------------------------------------------------------------------------------------ writing

ROW_GROUP: Final = 65_536
_RUN: Final = "run.json"
_LOCK: Final = "lock"


class LabelOutput:
    """A table that is being written, locked against other processes. Use it in a `with`.

    Attributes:
        out: The table.
        complete: Whether it was finished before, by a run of the same settings.

    Args:
        out: The table to write.
        run: Settings that determine rows and batches. Only an equal run may resume.
        about: The table's metadata.
        layout: Its columns.
        batches: How many batches there will be.
        resume: Whether to resume an interrupted run.

    Raises:
        ConfigError: If something is there and is not to be resumed, or is of another run.
        LabelError: If another process writes it, or it cannot be written.
    """

    def __init__(
        self,
        out: Path,
        run: Mapping[str, Any],
        about: Mapping[str, Any],
        layout: pa.Schema,
        batches: int,
        *,
        resume: bool,
    ) -> None:
        self.out, self._about, self._layout, self._batches = out, about, layout, batches
        self._folder = out.with_name(out.name + ".parts")
        self._run = json.loads(json.dumps(run))
        self.complete = False
        self._handle: int | None = None
        there = [path for path in (self._folder, out) if path.exists()]
        if there and not resume:
            raise ConfigError(
                "there is something already",
                found=", ".join(path.name for path in there),
                where=out,
                remedy="--resume resumes it; or choose another --out, or delete it",
            )
        if out.exists() and not self._folder.exists():
            self._check(open_table(out).about.get("run"), out)
            self.complete = True

    def __enter__(self) -> LabelOutput:
        if not self.complete:
            with self._full_disk():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._handle = _lock(self._folder / _LOCK, self.out)
                try:
                    self._claim()
                except BaseException:
                    self._release()
                    raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self._handle is not None and len(self.left) == self._batches:
            self.discard()  # a refused run leaves nothing behind
        self._release()

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _claim(self) -> None:
        """Write the identity of the run, or check that existing parts are of the same run."""
        file = self._folder / _RUN
        if file.exists():
            self._check(
                read_json(
                    file,
                    ConfigError,
                    "what run the finished batches are of cannot be read",
                    remedy=f"choose another --out, or delete {self._folder}",
                ),
                file,
            )
            self._forget_damaged()
        else:
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(self._run), "utf-8")

    def _forget_damaged(self) -> None:
        """Remove finished batches that are not as they were written: they are counted again."""
        for number in range(self._batches):
            part = self._part(number)
            try:
                with foreign(LabelError, "a batch is damaged", where=part):
                    if part.exists():
                        _read_part(part)
            except LabelError as error:
                notice(f"{part}: {error.found}; this batch is counted again")
                part.unlink()

    def _check(self, there: object, where: Path) -> None:
        theirs = there if isinstance(there, dict) else {}
        keys = [k for k in {**self._run, **theirs} if self._run.get(k) != theirs.get(k)]
        # the finished table does not remember in which batches it came about
        keys = [k for k in keys if k in theirs]
        if keys or not theirs:
            raise ConfigError(
                "the run that is there is another one",
                found=f"other {', '.join(keys)}" if keys else "nothing that says what it is",
                expected="the same settings, maps and scenes",
                where=where,
                remedy=f"choose another --out, or delete {self.out.name} and {self._folder.name}",
            )

    @property
    def left(self) -> list[int]:
        """Numbers of the batches that are not finished."""
        return [n for n in range(self._batches) if not self._part(n).exists()]

    def add(self, number: int, batch: TableBatch) -> None:
        """Save a finished batch.

        Raises:
            LabelError: If it cannot be written.
        """
        tally = {"skipped": batch.skipped, "ignored": batch.ignored}
        table = seal_columns(batch.table, {KEY: json.dumps(sealed(tally)).encode()})
        with self._full_disk(), replacing(self._part(number)) as file:
            pq.write_table(table, file)

    def finish(self) -> None:
        """Merge the batches.

        Raises:
            LabelError: If it cannot be written.
        """
        parts = [self._part(number) for number in range(self._batches)]
        about = sealed({**self._about, **_tally(parts), SEALED: True})
        layout = self._layout.with_metadata({KEY: json.dumps(about, ensure_ascii=False)})
        with (
            self._full_disk(),
            replacing(self.out) as file,
            pq.ParquetWriter(file, layout, compression="zstd") as writer,
        ):
            digests = ColumnDigests()
            for table in _regroup(parts):
                digests.add(table)
                writer.write_table(table.cast(layout), row_group_size=ROW_GROUP)
            writer.add_key_value_metadata(digests.metadata())
        self.discard()

    def discard(self) -> None:
        """Delete the finished batches."""
        self._release()
        shutil.rmtree(self._folder)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the finished batches."""
        for number in range(self._batches):
            yield _read_part(self._part(number))

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06d}.parquet"

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LabelError(
                "the labels could not be written",
                found=error.strerror or error,
                where=self.out,
                remedy="see to space and permissions, then run again with --resume: "
                "finished batches are kept",
            ) from error


def _tally(parts: Sequence[Path]) -> dict[str, Any]:
    """Sum the rows skipped and codes ignored in all batches."""
    skipped, ignored = 0, dict[str, int]()
    for part in parts:
        tally = parse_json(metadata_of(part)[KEY])
        skipped += tally["skipped"]
        for code, pixels in tally["ignored"].items():
            ignored[code] = ignored.get(code, 0) + pixels
    return {"skipped": skipped, "ignored": dict(sorted(ignored.items(), key=lambda x: int(x[0])))}


def _regroup(parts: Sequence[Path]) -> Iterator[pa.Table]:
    """Yield the rows of the parts in tables of `ROW_GROUP` rows; the last may be shorter."""
    waiting: pa.Table | None = None
    for part in parts:
        table = _read_part(part).replace_schema_metadata(None)
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        while waiting.num_rows >= ROW_GROUP:
            yield waiting.slice(0, ROW_GROUP).combine_chunks()
            waiting = waiting.slice(ROW_GROUP)
    if waiting is not None and waiting.num_rows:
        yield waiting.combine_chunks()


def _read_part(part: Path) -> pa.Table:
    """Read a finished batch.

    Raises:
        ValueError: If it is not as it was written; further kinds are possible. See `foreign`.
    """
    metadata = metadata_of(part)
    if SEAL not in metadata or not opened(parse_json(metadata[KEY]))[1]:
        raise ValueError("its checksum is not that of its content")
    return read_sealed(part)


def _lock(file: Path, out: Path) -> int:
    handle = os.open(file, os.O_RDWR | os.O_CREAT | BINARY)
    if not try_lock(handle):
        os.close(handle)
        raise LabelError(
            "another process is writing these labels",
            where=out,
            remedy="wait for it, or choose another --out",
        )
    return handle
