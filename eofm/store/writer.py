"""Write a packed store so that a crash, at any moment, loses at most the image being written.

An image is committed in this order: its pixels are appended to the files of the shard, then one
line with its index entry and checksum to the journal. A row that is not in the journal does not
exist: a later run truncates the files to the committed rows and resumes. Only a finished store has
`index.parquet` and `spec.json`, and no journal. Packing that was interrupted produces the same
bytes as packing that was not.

The first line of the journal holds the store's card, then comes one line per committed image and
one per source that was read to its end. A line counts when its line end is there, and its crc32 is
right: from a damaged line on, a later run makes everything again. Journals of eofm 0.1 have no
crc32.

A killed process leaves its writes to the system, so it is enough that they were made in order. A
after a power loss the line of the journal may be there without the pixels; therefore the files are
synced every `SYNC_EVERY` rows, and a later run compares the checksums of that many last rows.

Labels and georeference of a finished store are in its two small files. To replace both at once
(`rewrite`), they are written into a folder, which is then named `relabelled`: from this moment on
the new files hold, and readers find them there (`eofm.store.format.current`). Then each file moves
to its place. Whenever this is interrupted, the store has the old files or the new ones, and the
next call clears up. A new store shares the pixel files of the old one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eofm.contract.imagery import NativeImagery
from eofm.errors import StoreError
from eofm.formats.foreign import advice, in_words, line_is_whole, sealed_line
from eofm.formats.text import parse_json
from eofm.io import BINARY, Closing, replacing, sync_folder, try_lock, unfinished, write_all
from eofm.store.format import (
    HEADER_BYTES,
    INDEX,
    JOURNAL,
    RELABELLED,
    SHARD_BYTES,
    SPEC,
    VALID,
    VERSION,
    Entry,
    StoreCard,
    checksum,
    current,
    index_schema,
    npy_header,
    read_card_file,
    shard_name,
    write_card_file,
)
from eofm.store.reader import Store
from eofm.terminal import notice

__all__ = [
    "SYNC_EVERY",
    "BusyError",
    "Journal",
    "Line",
    "StoreWriter",
    "check_empty",
    "check_settings",
    "clear_up",
    "on_disk",
    "open_to_rewrite",
    "rewrite",
    "write_index",
]

# ------------------------------------------------------------------------------------------ journal

Line = dict[str, Any]
_INDEX_CHUNK: Final = 10_000  # rows of the index held in memory at a time
_LONGEST: Final = 2**26  # bytes of a line


class BusyError(StoreError):
    """Another process is writing the store."""


class Journal:
    """An open journal, locked against other processes.

    Attributes:
        file: Where it is.
        lines: Content when it was opened, each line with its offset in the file.

    Args:
        folder: The store.
        card: Card of the store to be written.

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
        """Flush everything written to the disk, so that it survives a loss of power."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._handle)


class _DamagedError(ValueError):
    """A line of a journal is not the one that was written."""


def _parse(text: bytes, number: int, *, sealed: bool | None) -> Line:
    """Return the content of a line; if a journal begins with a crc32, every line has one."""
    try:
        line: Line = parse_json(text, nan=True)  # shares of labels that were not counted
        whole = line_is_whole(text)
        if whole is not False and whole == sealed and _is_line(line):
            return line
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"line {number}: {in_words(error)}") from error
    raise _DamagedError(f"line {number}: it is not the line that was written")


def _is_line(line: object) -> bool:
    """Return whether a value is a card, a row, or the record of a source."""
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
    """Yield each whole line and its end. A truncated line is that of an uncommitted row."""
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
            notice(f"{file}: {damage}; everything from there on is packed again")
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
    """Check that a store has the settings of a run.

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


# --------------------------------------------------------------------------------------------- rows

SYNC_EVERY: Final = 128


class StoreWriter(Closing):
    """Appends images to a packed store, or resumes one that was interrupted.

    Use it in a `with` statement; leaving it without `finish()` leaves a store to resume. A new
    store touches the disk with its first row.

    Attributes:
        path: The folder.
        card: What `spec.json` will say.
        complete: Whether the folder holds a finished store with equal settings.
        ids: Identifiers of the committed rows.
        source_units: Name -> stated unit of every image that has a committed row.
        source_locations: Name -> place of every such image.
        skipped: Name -> number of windows left out, for every image that was read completely.
        quarantined: Name -> problem, of every image that could not be read and was passed over;
            it counts as read, and is in `skipped` too.

    Args:
        path: Folder to write.
        card: What will be in it. `rows` and `rows_per_shard` are filled in.
        shard_bytes: Upper bound of a shard.

    Raises:
        StoreError: If the folder holds something else, a store of other settings, is being
            written by another process, or cannot be written.
    """

    def __init__(
        self, path: str | Path, card: StoreCard, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.path = Path(path)
        self.card = replace(card, rows_per_shard=max(1, shard_bytes // card.row_bytes))
        self.ids: set[str] = set()
        self.source_units: dict[str, str] = {}
        self.source_locations: dict[str, str] = {}
        self.skipped: dict[str, int] = {}
        self.quarantined: dict[str, str] = {}
        self._pieces = self.card.pieces()
        self._files: dict[str, int] = {}
        self._unsynced = 0
        self._unsaid: list[Mapping[str, str | int]] = []
        self._journal: Journal | None = None
        self._closed = False
        spec = current(self.path, SPEC)
        self.complete = spec.is_file() and not (self.path / JOURNAL).exists()
        if self.complete:
            check_settings(self.card, read_card_file(spec), self.path)
        elif (self.path / JOURNAL).exists():
            with self._writing():
                self._journal = Journal(self.path, self.card)
                check_settings(self.card, self._journal.card, self.path)
                self._resume(self._journal)
        else:
            check_empty(self.path)

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, entry: Entry, imagery: NativeImagery) -> None:
        """Commit one image.

        Args:
            entry: Its line in the index.
            imagery: B = 1, in the dtype, groups and size of the card.

        Raises:
            StoreError: If the row exists already, contradicts the card, or cannot be written.
        """
        pieces = self._encode(entry, imagery)
        with self._writing():
            journal = self._open_journal()
            self._say(journal)
            if not self._files:
                self._create_shard(len(self) // self.card.rows_per_shard)
            for name, piece in pieces.items():
                write_all(self._files[name], piece.data.cast("B"))
            journal.append({"row": {**vars(entry), "crc32": checksum(pieces.values())}})
            self.ids.add(entry.id)
            self.source_units[entry.source] = entry.source_unit
            self.source_locations[entry.source] = entry.location
            self._unsynced += 1
            if len(self) % self.card.rows_per_shard == 0:
                self._seal()
            elif self._unsynced >= SYNC_EVERY:
                self._sync()

    def source_done(self, name: str, skipped: int) -> None:
        """Note that an image has been read to its end.

        Args:
            name: Its name.
            skipped: Number of its windows that were left out.
        """
        self._note({"done": name, "skipped": skipped})

    def quarantine(self, name: str, problem: str) -> None:
        """Note that an image cannot be read, and is passed over: the finished store lists it.

        Rows that were committed before the fault was met stay.

        Args:
            name: Its name.
            problem: Reason in one line.
        """
        self._note({"done": name, "skipped": 0, "broken": problem})

    def _note(self, line: Mapping[str, str | int]) -> None:
        self._learn(line)
        self._unsaid.append(line)
        if self.ids:  # a store needs at least one row
            with self._writing():
                self._say(self._open_journal())

    def finish(self) -> None:
        """Make it a finished store.

        Raises:
            StoreError: If the store has no row, or cannot be written.
        """
        if not self.ids:
            raise StoreError("there is nothing to pack", found="0 images", where=self.path)
        with self._writing():
            journal = self._open_journal()
            if self._files:
                self._seal()
            card = replace(
                self.card,
                rows=len(self),
                sources=len(self.skipped),
                skipped=sum(self.skipped.values()),
                quarantined=self.quarantined,
            )
            with replacing(self.path / INDEX) as file:
                write_index(file, journal.file, card)
            write_card_file(self.path, card)
            self.close()
            journal.file.unlink()
            sync_folder(self.path)
        self.complete = True

    def close(self) -> None:
        """Close the files without finishing. No further rows can be appended."""
        for handle in self._files.values():
            os.close(handle)
        self._files = {}
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._closed = True

    # -------------------------------------------------------------------------- resuming

    def _resume(self, journal: Journal) -> None:
        """Truncate the journal and the shards to the last complete row."""
        rows = [(start, line["row"]) for start, line in journal.lines if "row" in line]
        keep = self._count_whole([row["crc32"] for _, row in rows])
        if keep < len(rows):
            journal.cut(rows[keep][0])
        for _, line in journal.lines:
            if "row" in line:
                self.ids.add(line["row"]["id"])
                self.source_units[line["row"]["source"]] = line["row"]["source_unit"]
                self.source_locations[line["row"]["source"]] = line["row"]["location"]
            elif "done" in line:
                self._learn(line)
        journal.lines = []
        shard, within = divmod(keep, self.card.rows_per_shard)
        self._forget_shards(shard + 1 if within else shard)
        if within:
            self._reopen_shard(shard, within)
            return
        if keep and not all(self._piece(shard - 1, name).exists() for name in self._pieces):
            # the shard before is full, and the crash came before all its files had their names
            self._reopen_shard(shard - 1, self.card.rows_per_shard)
            self._seal()

    def _forget_shards(self, first: int) -> None:
        """Remove shards of which no row is committed: begun, or with lines that were damaged."""
        for folder in self.path.glob("shard-*"):
            if folder.name >= shard_name(first):
                shutil.rmtree(folder)

    def _learn(self, line: Mapping[str, Any]) -> None:
        """Read the record of an image that was read completely."""
        self.skipped[line["done"]] = line["skipped"]
        if "broken" in line:
            self.quarantined[line["done"]] = line["broken"]

    def _count_whole(self, crcs: list[int]) -> int:
        """Return the number of complete rows, checking the last ones of the last shard."""
        last = max(len(crcs) - 1, 0) // self.card.rows_per_shard
        first = max(last * self.card.rows_per_shard, len(crcs) - SYNC_EVERY)
        for i in range(first, len(crcs)):
            if self._row_checksum(last, i - last * self.card.rows_per_shard) != crcs[i]:
                return i
        return len(crcs)

    def _row_checksum(self, shard: int, row: int) -> int | None:
        crc = 0
        for name in self._pieces:
            file, size = self._piece(shard, name), self._row_size(name)
            try:
                with (file if file.exists() else unfinished(file)).open("rb") as stream:
                    stream.seek(HEADER_BYTES + row * size)
                    crc = zlib.crc32(stream.read(size), crc)
            except FileNotFoundError:
                return None
        return crc

    # ---------------------------------------------------------------------------- shards

    def _piece(self, shard: int, name: str) -> Path:
        return self.path / shard_name(shard) / f"{name}.npy"

    def _row_size(self, name: str) -> int:
        shape, dtype = self._pieces[name]
        return int(np.prod(shape)) * dtype.itemsize

    def _create_shard(self, shard: int) -> None:
        """Create the files of a shard, with space for the header."""
        (self.path / shard_name(shard)).mkdir(exist_ok=True)
        for name in self._pieces:
            file = unfinished(self._piece(shard, name))
            self._files[name] = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY, 0o666)
            self._write_header(name, 0)

    def _reopen_shard(self, shard: int, rows: int) -> None:
        """Open the files of a shard, cut to `rows` rows."""
        for name in self._pieces:
            file = self._piece(shard, name)
            if file.exists():
                file.rename(unfinished(file))
            self._files[name] = os.open(unfinished(file), os.O_RDWR | BINARY)
            end = HEADER_BYTES + rows * self._row_size(name)
            os.ftruncate(self._files[name], end)
            os.lseek(self._files[name], end, os.SEEK_SET)

    def _seal(self) -> None:
        """Write the headers of the open shard, sync it, and give its files their names."""
        self._sync()
        shard, last = divmod(len(self) - 1, self.card.rows_per_shard)
        for name in self._pieces:
            self._write_header(name, last + 1)
            os.fsync(self._files[name])
            os.close(self._files.pop(name))
            unfinished(self._piece(shard, name)).replace(self._piece(shard, name))
        sync_folder(self.path / shard_name(shard))

    def _write_header(self, name: str, rows: int) -> None:
        shape, dtype = self._pieces[name]
        os.lseek(self._files[name], 0, os.SEEK_SET)
        write_all(self._files[name], memoryview(npy_header((rows, *shape), dtype)))

    def _sync(self) -> None:
        for handle in self._files.values():
            os.fsync(handle)
        if self._journal is not None:
            self._journal.sync()
        self._unsynced = 0

    # ---------------------------------------------------------------------------- checks

    def _encode(self, entry: Entry, imagery: NativeImagery) -> dict[str, NDArray[Any]]:
        """Return the pixels of a row, file by file, checked against the card."""
        if entry.id in self.ids:
            raise StoreError("an image is in the store already", found=entry.id, where=self.path)
        lengths = {len(entry.fraction), len(entry.multi_hot)}
        if lengths != {len(self.card.classes)}:
            raise StoreError(
                "an image has another number of classes than the store",
                found=f"{len(entry.fraction)} fractions, {len(entry.multi_hot)} labels",
                expected=len(self.card.classes),
                where=entry.id,
            )
        arrays = {f"{gsd}m": plane.numpy() for gsd, plane in imagery.planes.items()}
        arrays[VALID] = np.packbits(imagery.valid.numpy().reshape(len(imagery), -1), axis=1)
        expected = {name: ((1, *shape), dtype) for name, (shape, dtype) in self._pieces.items()}
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if imagery.spec != self.card.spec or imagery.bands != self.card.groups or found != expected:
            raise StoreError(
                "an image is not of the kind the store holds",
                found=f"{imagery.spec}, {found}",
                expected=f"{self.card.spec}, {expected}",
                where=entry.id,
            )
        return {
            name: np.ascontiguousarray(arrays[name][0], dtype)
            for name, (_, dtype) in self._pieces.items()
        }

    def _open_journal(self) -> Journal:
        """Return the journal; the first call on a new store begins it."""
        if self._closed or self.complete:
            state = "complete" if self.complete else "closed"
            raise StoreError(f"this store is {state}", where=self.path)
        if self._journal is None:
            self._journal = Journal(self.path, self.card)
        return self._journal

    def _say(self, journal: Journal) -> None:
        """Note the sources that were read to their end."""
        while self._unsaid:
            journal.append(self._unsaid.pop(0))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Stop writing after an error; turn an OSError (a full disk) into a StoreError."""
        try:
            yield
        except OSError as error:
            self.close()
            raise StoreError(
                "the store cannot be written",
                found=error.strerror or str(error),
                where=error.filename or self.path,
                remedy=f"{advice(error, 'free some space')}, and run the same command again: it "
                f"resumes after {len(self)} images",
            ) from error
        except BaseException:
            self.close()
            raise


# ------------------------------------------------------------ other small files for the same pixels

_STAGED: Final = RELABELLED + ".tmp"


def open_to_rewrite(path: str, *, in_place: bool) -> Store:
    """Open a store whose small files will be replaced; complete an interrupted earlier call.

    Args:
        path: The store.
        in_place: Whether the store itself will change.

    Raises:
        StoreError: If it is no store, or cannot be written.
    """
    if in_place:
        with on_disk(Path(path)):
            clear_up(Path(path))
    return Store(path)


def rewrite(store: Store, out: str | None, card: StoreCard, index: pa.Table) -> Path:
    """Write a store of other small files and the same pixels.

    Args:
        store: The store.
        out: Folder of a new store; None changes the store itself.
        card: What its card will say.
        index: Its rows, with the columns of the present version.

    Returns:
        Where the result is.

    Raises:
        StoreError: If it cannot be written, or the folder holds something else.
    """
    path = store.path if out is None else Path(out)
    with on_disk(path):
        if _is_done(path, card, index):  # an earlier call was interrupted after its last step
            return path
        if out is None:
            _replace(path, card, index)
        else:
            _link(store, path, card, index)
    return path


def _is_done(path: Path, card: StoreCard, index: pa.Table) -> bool:
    """Return whether a folder holds a finished store with exactly this card and index."""
    if not current(path, SPEC).is_file() or (path / JOURNAL).exists():
        return False
    there = Store(path)
    same = replace(card, index_sha256=there.card.index_sha256).to_json() == there.card.to_json()
    return same and there.sealed and bool(there.table.equals(index))


def _write(folder: Path, card: StoreCard, index: pa.Table) -> None:
    with replacing(folder / INDEX) as file:
        pq.write_table(index, file)
    write_card_file(folder, card)


def _replace(path: Path, card: StoreCard, index: pa.Table) -> None:
    """Give a store other small files, both at once."""
    staged = path / _STAGED
    staged.mkdir()
    _write(staged, card, index)
    staged.rename(path / RELABELLED)
    sync_folder(path)
    clear_up(path)


def clear_up(path: Path) -> None:
    """Complete an interrupted replacement of the labels of a store, or discard it.

    Args:
        path: The store.

    Raises:
        OSError: If the disk does not allow it.
    """
    shutil.rmtree(path / _STAGED, ignore_errors=True)
    newer = path / RELABELLED
    if not newer.exists():
        return
    for name in (INDEX, SPEC):
        if (newer / name).exists():
            (newer / name).replace(path / name)
    sync_folder(path)
    newer.rmdir()


def _link(store: Store, out: Path, card: StoreCard, index: pa.Table) -> None:
    """Make a store of other small files and the same pixels; it has its card last."""
    journal = out / JOURNAL
    if not journal.exists() or journal.stat().st_size:  # that of a run that packs
        check_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    journal.touch()  # the store is treated as incomplete
    for shard in range(store.shards):
        (out / shard_name(shard)).mkdir(exist_ok=True)
        for name in store.card.pieces():
            _link_file(store.piece(shard, name), out / shard_name(shard) / f"{name}.npy")
        sync_folder(out / shard_name(shard))
    _write(out, card, index)
    journal.unlink()
    sync_folder(out)


def _link_file(source: Path, target: Path) -> None:
    """Let two names share the bytes of a file, which is never written again; else copy it."""
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        with replacing(target) as file:
            shutil.copyfile(source, file)


@contextlib.contextmanager
def on_disk(out: Path) -> Iterator[None]:
    """Turn an OSError (a full disk) into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            "the store cannot be written",
            found=error.strerror or str(error),
            where=error.filename2 or error.filename or out,  # of a copy: the target
            remedy=f"{advice(error, 'free some space')}, and run the same command again",
        ) from error
