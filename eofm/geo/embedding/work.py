"""Blocks of a half-finished job on disk: a killed run loses less than one block.

A folder holds plain arrays, written in place by rows, and `state.json`, which says what job it is
and how many of its blocks are on the disk for good. The state is replaced after the rows of a block
were synced; rows of a block that was begun are written again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from eofm.errors import ConfigError, DataError, EofmError
from eofm.formats.foreign import foreign
from eofm.formats.seal import opened, sealed
from eofm.formats.text import read_json
from eofm.geo.vectors.embeddings import Codes
from eofm.io import BINARY, replacing, write_all

_STATE: Final = "state.json"
_NO_STATE: Final = "the state of a half-finished job cannot be read"


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file of its own, read and written by rows; unwritten rows are 0.

    Args:
        file: Its numbers, in C order.
        shape: Of the array; the first axis counts rows.
        dtype: Of its numbers.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Write rows from `start` on, and wait until they are on the disk."""
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT | BINARY, 0o644)
        try:
            os.lseek(handle, start * self._row_bytes, os.SEEK_SET)
            write_all(
                handle, np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
            )
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows from `start` to before `stop`."""
        count = (stop - start) * self._row_bytes
        with self.file.open("rb") as file:
            file.seek(start * self._row_bytes)
            data = bytearray(file.read(count))
        data += bytes(count - len(data))
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])


@dataclass(frozen=True)
class Interlaced:
    """Arrays that take turns in one: each has every n-th row and column of it.

    Args:
        shape: Of the one array; the first axes count rows and columns.
        turns: n.
        parts: First row, first column and array of each.
    """

    shape: tuple[int, ...]
    turns: int
    parts: tuple[tuple[int, int, ArrayFile], ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        return self.parts[0][2].dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows from `start` to before `stop`."""
        found = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        for row, column, part in self.parts:
            first, last = (max(0, -(-(end - row) // self.turns)) for end in (start, stop))
            if first < last:
                above = row + first * self.turns - start
                found[above :: self.turns, column :: self.turns] = part.read(first, last)
        return found


class Work:
    """A job that may have been begun.

    Attributes:
        done: Blocks that are finished.

    Args:
        folder: Where it is kept; made if needed.
        job: What decides its results: any other job in the folder is refused.

    Raises:
        ConfigError: If another job is half finished here.
        DataError: If the state cannot be read.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self.folder, self._job, self.done = folder, job, 0
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / _STATE
        if not state.exists():
            self.commit(0)
            return
        remedy = f"remove the folder and begin again: rm -r {folder}"
        with foreign(DataError, _NO_STATE, where=state, remedy=remedy):
            found, whole = opened(read_json(state, DataError, _NO_STATE, remedy=remedy))
            other, self.done = found["job"] != job, found["done"]
            if not whole:
                raise ValueError("its checksum is that of other contents")
            if type(self.done) is not int or self.done < 0:
                raise ValueError(f"{self.done!r} blocks")
        if other:
            raise ConfigError(
                "another job is half finished in this folder",
                found="other scenes, weights or settings",
                where=folder,
                remedy=f"name another folder with --out, or remove it: rm -r {folder}",
            )

    def rows(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> ArrayFile:
        """Return one of its arrays."""
        return ArrayFile(self.folder / name, shape, np.dtype(dtype))

    def commit(self, done: int) -> None:
        """Say that so many blocks are on the disk."""
        with replacing(self.folder / _STATE) as temporary:
            temporary.write_text(json.dumps(sealed({"job": self._job, "done": done})))
        self.done = done

    def remove(self) -> None:
        """Remove the folder: what was to be made is made."""
        shutil.rmtree(self.folder)


@contextmanager
def working(folder: Path, job: str) -> Iterator[Work]:
    """Work on a job; of one that is refused before a block of it is finished nothing stays.

    Whoever states another unit after a refusal is not told that another job is half finished.

    Args:
        folder: See `Work`.
        job: See `Work`.

    Raises:
        ConfigError: See `Work`.
        DataError: See `Work`.
    """
    work = Work(folder, job)
    try:
        yield work
    except EofmError:
        if not work.done:
            work.remove()
        raise
    work.remove()


class _Planes(BackendArray):
    """Rows of patches (Y, X, D) as an array (D, Y, X) that is read when it is used."""

    def __init__(self, rows: ArrayFile | Interlaced, codes: Codes | None) -> None:
        height, width, dim = rows.shape
        self._rows, self._codes = rows, codes
        self.shape = (dim, height, width)
        self.dtype = rows.dtype if codes is None else np.dtype(np.int8)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401 (as xarray has it)
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        dims, rows, columns = key
        single = isinstance(rows, int)
        wanted = [rows] if isinstance(rows, int) else list(range(self.shape[1])[rows])
        first = min(wanted, default=0)
        part = self._rows.read(first, max(wanted, default=-1) + 1)
        if self._codes is not None:
            part = self._codes.encode(part.astype(np.float32))
        planes = np.moveaxis(part[[row - first for row in wanted]], -1, 0)
        return np.asarray(planes[:, 0 if single else slice(None)][dims][..., columns])


def as_planes(rows: ArrayFile | Interlaced, codes: Codes | None = None) -> xr.DataArray:
    """Return rows of patches (Y, X, D) as an array (dim, y, x) that stays on the disk.

    Args:
        rows: float16 or float32.
        codes: Encodes what is read as int8; None leaves it as it is.
    """
    lazy = indexing.LazilyIndexedArray(_Planes(rows, codes))
    return xr.DataArray(xr.Variable(("dim", "y", "x"), lazy), name="embedding")
