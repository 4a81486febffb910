"""The journal of a store that is being written: what is not in it does not exist.

Its first line holds the store's card, then comes one line per committed image and one per source
that was read to its end. A line counts when its line end is there, and its crc32 is right: from a
damaged line on, a later run makes everything again. Journals of eofm 0.1 have no crc32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from eofm.errors import StoreError
from eofm.formats.foreign import in_words
from eofm.formats.seal import line_is_whole, sealed_line
from eofm.formats.text import parse_json
from eofm.io import BINARY, replacing, try_lock, write_all
from eofm.progress import notice
from eofm.store.format import JOURNAL, VERSION, StoreCard, index_schema

Line = dict[str, Any]
_INDEX_CHUNK: Final = 10_000  # rows of the index held in memory at a time
_LONGEST: Final = 2**26  # bytes of a line


class BusyError(StoreError):
    """Another process is writing the store."""


class Journal:
    """An open journal, locked against other processes.

    Attributes:
        file: Where it is.
        lines: What it held when it was opened, each line with its offset in the file.

    Args:
        folder: The store.
        card: What the store will be.

    Raises:
        StoreError: If the folder holds something else, another process has the journal open, or it
            is damaged.
        OSError: If it cannot be written.
    """

    def __init__(self, folder: Path, card: StoreCard) -> None:
        self.file = folder / JOURNAL
        if not self.file.exists():
            check_empty(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.file) as file:
                file.write_bytes(sealed_line({"card": card.to_json()}))
        self._handle = os.open(self.file, os.O_RDWR | os.O_APPEND | BINARY)
        try:
            _lock(self._handle, folder)
            self.lines, whole = _read_whole(self.file)
            _check_version(self.card, folder)
            os.ftruncate(self._handle, whole)
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def card(self) -> StoreCard:
        """The card that the journal was begun with."""
        return StoreCard.from_json(self.lines[0][1]["card"], self.file)

    def cut(self, offset: int) -> None:
        """Forget the lines from `offset` on."""
        os.ftruncate(self._handle, offset)
        self.lines = [(start, line) for start, line in self.lines if start < offset]

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line."""
        write_all(self._handle, memoryview(sealed_line(line)))

    def sync(self) -> None:
        """Make what was written survive a loss of power."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._handle)


class _DamagedError(ValueError):
    """A line of a journal is not the one that was written."""


def _parse(text: bytes, number: int, *, sealed: bool | None) -> Line:
    """Return what a line says; in a journal that begins with a crc32, every line has one."""
    try:
        line: Line = parse_json(text, nan=True)  # shares of labels that were not counted
        whole = line_is_whole(text)
        if whole is not False and whole == sealed and _is_line(line):
            return line
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"line {number}: {in_words(error)}") from error
    raise _DamagedError(f"line {number}: it is not the line that was written")


def _is_line(line: object) -> bool:
    """Return whether something is a card, a row, or what is said of a source."""
    match line:
        case {"card": str()}:
            return True
        case {"row": {"crc32": int(), **row}}:
            names = ("id", "source", "source_unit", "location")
            return all(isinstance(row.get(name), str) for name in names)
        case {"done": str(), "skipped": int(), **rest}:
            return isinstance(rest.get("broken", ""), str)
    return False


def _read(file: Path) -> Iterator[tuple[int, Line]]:
    """Yield each whole line and where it ends. A cut-off line is of an uncommitted row."""
    end, sealed = 0, None
    with file.open("rb") as stream:
        for number, text in enumerate(iter(lambda: stream.readline(_LONGEST), b""), 1):
            if not text.endswith(b"\n"):
                return
            if number == 1:
                sealed = line_is_whole(text)
            end += len(text)
            yield end, _parse(text, number, sealed=sealed)


def _read_whole(file: Path) -> tuple[list[tuple[int, Line]], int]:
    """Return the lines up to the first damaged one with their offsets, and the length of all."""
    ends, lines = [0], []
    damage = "no card in its first line"
    try:
        for end, line in _read(file):
            ends.append(end)
            lines.append(line)
    except _DamagedError as error:
        damage = str(error)
        if lines:
            notice(f"{file}: {damage}; what was packed from there on is packed again")
    if not lines or not isinstance(lines[0].get("card"), str):
        raise _damaged(file, damage)
    return list(zip(ends, lines, strict=False)), ends[-1]


def check_empty(folder: Path) -> None:
    """Check that a store can be begun in a folder.

    Raises:
        StoreError: If there is something in it.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError("the path for the store is a file", where=folder)
    files = folder.iterdir() if folder.exists() else ()
    foreign = sorted(f.name for f in files if not f.name.startswith(JOURNAL))
    if foreign:
        raise StoreError(
            "the folder for the store is not empty",
            found=", ".join(foreign[:5]),
            expected="an empty or a new folder",
            where=folder,
            remedy="choose another --out, or clear the folder",
        )


def check_settings(card: StoreCard, there: StoreCard, folder: Path) -> None:
    """Check that a store is what a run would write.

    Raises:
        StoreError: If it was begun or written with other settings; they are named.
    """
    different = card.differences(there)
    if different:
        raise StoreError(
            "the folder holds a store of other settings",
            found="; ".join(different),
            where=folder,
            remedy="choose another --out, or delete that store",
        )


def _lock(handle: int, where: Path) -> None:
    if not try_lock(handle):
        raise BusyError(
            "another process is writing this store",
            where=where,
            remedy="wait for it, or stop it",
        )


def _check_version(card: StoreCard, folder: Path) -> None:
    """Refuse to mix rows of two versions: the earlier ones lack columns, and counted otherwise."""
    if card.version != VERSION:
        raise StoreError(
            "a half-written store was begun by another version of eofm",
            found=f"store version {card.version}",
            expected=f"store version {VERSION}",
            where=folder,
            remedy="delete the folder and pack again, or finish it with the version that began it",
        )


def _damaged(file: Path, found: str) -> StoreError:
    return StoreError(
        "the journal of a half-written store is damaged",
        found=found,
        where=file,
        remedy="delete the folder and pack again",
    )


def write_index(file: Path, journal: Path, card: StoreCard) -> None:
    """Write `index.parquet` from the journal, a chunk of rows at a time.

    Args:
        file: What to write.
        journal: What to read.
        card: Tells classes and rows per shard.

    Raises:
        StoreError: If the journal was damaged meanwhile.
    """
    schema = index_schema(len(card.classes))
    rows: list[Line] = []
    number = 0
    with pq.ParquetWriter(file, schema) as writer:
        for _, line in _intact(journal):
            if "row" not in line:
                continue
            shard, within = divmod(number, card.rows_per_shard)
            rows.append({**line["row"], "shard": shard, "row": within})
            number += 1
            if len(rows) == _INDEX_CHUNK:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _intact(journal: Path) -> Iterator[tuple[int, Line]]:
    try:
        yield from _read(journal)
    except _DamagedError as error:
        raise StoreError(
            "the journal of a store was damaged while it was written",
            found=error,
            where=journal,
            remedy="run the same command again: it resumes before that line",
        ) from error
