"""Write a packed store so that a crash, at any moment, loses at most the image being written.

An image is committed in this order: its pixels are appended to the files of the shard, then one
line with its index entry and checksum to the journal. A later run cuts the files back to the
committed rows and resumes. Only a finished store has `index.parquet` and `spec.json`, and no
journal. The bytes of a store that was interrupted are those of one that was not.

A killed process leaves its writes to the system, so it is enough that they were made in order. A
machine that loses power may keep the journal's line and lose the pixels; therefore the files are
synced every `SYNC_EVERY` rows, and a later run compares the checksums of that many last rows.
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
from numpy.typing import NDArray

from eofm.contract.imagery import NativeImagery
from eofm.errors import StoreError
from eofm.io import BINARY, Closing, replacing, sync_folder, unfinished, write_all
from eofm.store.format import (
    HEADER_BYTES,
    INDEX,
    JOURNAL,
    SHARD_BYTES,
    SPEC,
    VALID,
    StoreCard,
    checksum,
    current,
    npy_header,
    shard_name,
)
from eofm.store.journal import Journal, check_empty, check_settings, write_index
from eofm.store.metadata import Entry, read_card_file, write_card_file

SYNC_EVERY: Final = 128


class StoreWriter(Closing):
    """Appends images to a packed store, or resumes one that was interrupted.

    Use it in a `with` statement; leaving it without `finish()` leaves a store to resume. A new
    store touches the disk with its first row.

    Attributes:
        path: The folder.
        card: What `spec.json` will say.
        complete: Whether the folder holds a finished store of equal settings: nothing to do.
        ids: Identifiers of the committed rows.
        source_units: Name -> stated unit of every image that has a committed row.
        source_locations: Name -> place of every such image.
        skipped: Name -> windows left out, of every image that was read to its end.
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
            StoreError: If it is there already, is not what the card says, or cannot be written.
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
            skipped: How many of its windows were left out.
        """
        self._note({"done": name, "skipped": skipped})

    def quarantine(self, name: str, problem: str) -> None:
        """Note that an image cannot be read, and is passed over: the finished store lists it.

        Rows that were committed before the fault was met stay.

        Args:
            name: Its name.
            problem: What is wrong with it, in one line.
        """
        self._note({"done": name, "skipped": 0, "broken": problem})

    def _note(self, line: Mapping[str, str | int]) -> None:
        self._learn(line)
        self._unsaid.append(line)
        if self.ids:  # without a row there is no store yet
            with self._writing():
                self._say(self._open_journal())

    def finish(self) -> None:
        """Make it a finished store.

        Raises:
            StoreError: If there is no row, or it cannot be written.
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
        """Close the files, without finishing. Nothing can be appended any more."""
        for handle in self._files.values():
            os.close(handle)
        self._files = {}
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._closed = True

    # -------------------------------------------------------------------------- resuming

    def _resume(self, journal: Journal) -> None:
        """Cut the journal and the shards back to what is whole."""
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
        """Take in what a line says of an image that was read to its end."""
        self.skipped[line["done"]] = line["skipped"]
        if "broken" in line:
            self.quarantined[line["done"]] = line["broken"]

    def _count_whole(self, crcs: list[int]) -> int:
        """Return how many rows are whole, looking at the last ones of the last shard."""
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
        """Create the files of a shard, with room for the header."""
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
        """Write nothing more after an error; turn an OSError (a full disk) into a StoreError."""
        try:
            yield
        except OSError as error:
            self.close()
            raise StoreError(
                "the store cannot be written",
                found=error.strerror or str(error),
                where=error.filename or self.path,
                remedy="free some space, and run the same command again: it resumes after "
                f"{len(self)} images",
            ) from error
        except BaseException:
            self.close()
            raise
