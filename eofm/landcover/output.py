"""Write the table so that a killed run loses nothing but unfinished batches.

While `labels.parquet` is being written there is a folder `labels.parquet.parts`: `run.json` says
what run it is of, and each finished batch is a file. At the end they are put together, in order,
into row groups of one size: the table does not depend on how its batches came about.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from eofm.errors import ConfigError, LabelError
from eofm.formats.foreign import foreign
from eofm.formats.parquet import SEAL, ColumnDigests, metadata_of, read_sealed, seal_columns
from eofm.formats.seal import opened, sealed
from eofm.formats.text import parse_json, read_json
from eofm.io import BINARY, replacing, try_lock
from eofm.landcover.table import KEY, SEALED, TableBatch, open_table
from eofm.progress import notice

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
        run: What decides its rows and its batches. Only a run of the same may resume.
        about: The table's metadata.
        layout: Its columns.
        batches: How many batches there will be.
        resume: Whether to resume what is there.

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
        """Write what run this is, or check that it is that of the parts that are there."""
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
        """Keep a finished batch.

        Raises:
            LabelError: If it cannot be written.
        """
        tally = {"skipped": batch.skipped, "ignored": batch.ignored}
        table = seal_columns(batch.table, {KEY: json.dumps(sealed(tally)).encode()})
        with self._full_disk(), replacing(self._part(number)) as file:
            pq.write_table(table, file)

    def finish(self) -> None:
        """Put the batches together.

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
    """Add up what the batches left out or ignored."""
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
