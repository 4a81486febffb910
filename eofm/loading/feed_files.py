"""The open files of some stores: rows of them, read into memory that is already there.

`pread` and no memory map: a file that was cut short, or a disk that fails, is an error and not the
end of the process; and from a cold disk it asks for a whole image at a time, where a memory map
asks for a page.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from eofm.errors import StoreError
from eofm.io import BINARY
from eofm.open_files import allow_open_files
from eofm.store.format import HEADER_BYTES, npy_header
from eofm.store.reader import Store

Place: TypeAlias = tuple[int, int]  # shard, row
Kind: TypeAlias = tuple[int, str]  # store, name of its files

_PIECES: Final = 4  # files of a shard, at most


class StoreFiles:
    """The files of some stores, opened when they are needed, shared by threads.

    Args:
        stores: Of the same pieces.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores
        # of a store and a name: shard -> handle
        self._handles: dict[Kind, dict[int, int]] = {
            (number, name): {}
            for number, store in enumerate(stores)
            for name in store.card.pieces()
        }
        self._lock = threading.Lock()
        self._row_bytes = {
            name: int(np.prod(shape)) * dtype.itemsize
            for name, (shape, dtype) in stores[0].card.pieces().items()
        }
        allow_open_files(_PIECES * sum(store.shards for store in stores))

    def read(
        self, kind: Kind, places: Sequence[Place], offset: int, targets: Sequence[memoryview]
    ) -> None:
        """Fill each target from a row of a file.

        Args:
            kind: Which store, and the name of its files.
            places: Shards and rows.
            offset: How many bytes into a row the targets begin.
            targets: One per place; their lengths say how much is read.

        Raises:
            StoreError: If a file has changed since its store was opened.
        """
        handles, row_bytes = self._handles[kind], self._row_bytes[kind[1]]
        begin = HEADER_BYTES + offset
        for (shard, row), target in zip(places, targets, strict=True):
            handle = handles.get(shard)
            if handle is None:
                handle = self._open(kind, shard)
            into, position = target, begin + row * row_bytes
            count = _read_into(handle, into, position)
            while count < len(into):
                if not count:
                    raise _short(self._stores[kind[0]], shard, kind[1])
                into, position = into[count:], position + count
                count = _read_into(handle, into, position)

    def _open(self, kind: Kind, shard: int) -> int:
        number, name = kind
        with self._lock:
            if shard in self._handles[kind]:  # another thread was faster
                return self._handles[kind][shard]
            store = self._stores[number]
            file = store.piece(shard, name)
            try:
                handle = os.open(file, os.O_RDONLY | BINARY)
            except OSError as error:
                raise StoreError(
                    "a piece of the store cannot be opened", found=error.strerror, where=file
                ) from error
            shape, dtype = store.card.pieces()[name]
            rows = (os.fstat(handle).st_size - HEADER_BYTES) // self._row_bytes[name]
            header: bytearray = bytearray(HEADER_BYTES)
            _read_into(handle, memoryview(header), 0)
            if bytes(header) != npy_header((rows, *shape), dtype):
                os.close(handle)
                raise _short(store, shard, name)
            self._handles[kind][shard] = handle
            return handle

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for handles in self._handles.values():
                while handles:
                    os.close(handles.popitem()[1])


def _short(store: Store, shard: int, name: str) -> StoreError:
    return StoreError(
        "a piece of the store has changed since the store was opened",
        found="it is too short, or of another shape",
        where=store.piece(shard, name),
        remedy="copy the store again, or delete it and pack it anew",
    )


if sys.platform == "linux":

    def _read_into(handle: int, into: memoryview, position: int) -> int:
        """Read into memory without a copy; return how many bytes came."""
        return os.preadv(handle, [into], position)

elif sys.platform == "win32":
    _seeking: Final = threading.Lock()

    def _read_into(handle: int, into: memoryview, position: int) -> int:
        """Read into memory; return how many bytes came."""
        with _seeking:
            os.lseek(handle, position, os.SEEK_SET)
            data = os.read(handle, len(into))
        into[: len(data)] = data
        return len(data)

else:

    def _read_into(handle: int, into: memoryview, position: int) -> int:
        """Read into memory; return how many bytes came."""
        data = os.pread(handle, len(into), position)
        into[: len(data)] = data
        return len(data)
