"""Batches of a packed store as fast as the memory allows: threads, and buffers that are used again.

    with Feeder(store, batch=256) as feeder:
        for imagery, labels in feeder.feed(train[epoch_rows(len(train), epoch, seed, batch=256)]):
            step(imagery.to("cuda"), labels.to("cuda"))

Reading is a copy from the page cache into memory that is already there; `pread` drops the GIL, so
that threads do it while the consumer computes, and no process has to send pixels to another. Images
keep their native resolution and dtype: `eofm.contract.preprocess.to_grid` makes them float32 on the
device.

A batch is valid until the next one is asked for; then its memory is given to a later batch. A
consumer that holds several at a time (as when it copies to a device without waiting) says so.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from eofm.contract.imagery import Labels, NativeImagery
from eofm.errors import ConfigError, StoreError
from eofm.io import BINARY, Closing, allow_open_files
from eofm.store.format import HEADER_BYTES, VALID, npy_header
from eofm.store.metadata import Selection, select_bands
from eofm.store.reader import Store

Batch = tuple[NativeImagery, Labels]


class Feeder(Closing):
    """Reads batches ahead of their consumer into a ring of buffers.

    Several stores of the same kind of pixel and label are read as one, with the rows of the second
    counted on from those of the first: so old images can be replayed among new ones
    (`eofm.loading.sampler.replayed_rows`).

    Attributes:
        spec: What `to_grid` makes of the images.

    Args:
        stores: One store or several.
        batch: The most images of a batch.
        ahead: How many batches are read ahead.
        threads: How many are read at the same time.
        hold: How many batches, the newest among them, the consumer uses at a time.
        bands: Names of the bands to read; None means all.
        pin: Page-locked memory, for copies to a GPU that do not wait.
        labels: Of all rows of all stores (`eofm.store.label_table`), in place of the stores'
            own.

    Raises:
        ConfigError: If a number is not positive, or there is not a label for every row.
        StoreError: If stores are of different kinds.
        SpecError: If a band is not in the stores.
    """

    def __init__(
        self,
        stores: Store | Sequence[Store],
        batch: int,
        *,
        ahead: int = 2,
        threads: int = 2,
        hold: int = 1,
        bands: Sequence[str] | None = None,
        pin: bool = False,
        labels: Labels | None = None,
    ) -> None:
        self._stores = (stores,) if isinstance(stores, Store) else tuple(stores)
        if min(batch, ahead, threads, hold, len(self._stores)) < 1:
            raise ConfigError(
                "a feeder needs positive numbers, and a store",
                found=f"batch {batch}, ahead {ahead}, threads {threads}, hold {hold}, "
                f"{len(self._stores)} stores",
            )
        for other in self._stores[1:]:
            check_alike(self._stores[0], other)
        self._selection = select_bands(self._stores[0].card, bands)
        self.spec = self._selection.spec
        self._batch, self._ahead, self._hold, self._threads = batch, ahead, hold, threads
        self._ends = np.cumsum([len(store) for store in self._stores])
        self._files = StoreFiles(self._stores)
        weakref.finalize(self, self._files.close)
        self._slots = [
            _Buffer(self._stores[0], self._selection, batch, pin=pin) for _ in range(ahead + hold)
        ]
        self._busy = False
        self._labels = labels
        if labels is not None and len(labels) != len(self):
            raise ConfigError(
                "the labels are not those of the rows",
                found=f"{len(labels)} labels",
                expected=f"{len(self)}, one for each row of the stores",
            )

    def __len__(self) -> int:
        """Return the number of rows of all stores."""
        return int(self._ends[-1])

    def feed(self, batches: Iterable[ArrayLike]) -> Iterator[Batch]:
        """Yield the images and labels of each list of rows, in their order.

        Args:
            batches: Lists of rows, each of at most `batch`.

        Yields:
            Images as stored and their labels. The pixels live in a buffer: they are overwritten
            when the consumer asks for the `hold`-th batch after.

        Raises:
            ConfigError: If a batch is larger than stated, or the feeder is feeding already.
            IndexError: If there is no such row.
            StoreError: If a file has changed since its store was opened.
        """
        if self._busy:
            raise ConfigError(
                "a feeder feeds one consumer at a time: they would share its buffers",
                remedy="make another Feeder of the same store",
            )
        self._busy = True
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="eofm-feed")
        pending: deque[tuple[Future[Batch], _Buffer]] = deque()
        try:
            yield from self._ring(pool, pending, iter(batches))
        finally:
            for future, _ in pending:
                future.cancel()
            pool.shutdown(wait=True)
            self._busy = False

    def _ring(
        self,
        pool: ThreadPoolExecutor,
        pending: deque[tuple[Future[Batch], _Buffer]],
        batches: Iterator[ArrayLike],
    ) -> Iterator[Batch]:
        free, held = deque(self._slots), deque[_Buffer]()
        more = True
        while True:
            while more and free and len(pending) < self._ahead:
                future = self._next(pool, batches, free[0])
                more = future is not None
                if future is not None:
                    pending.append((future, free.popleft()))
            if not pending:
                return
            batch = pending[0][0].result()
            held.append(pending.popleft()[1])
            yield batch
            if len(held) == self._hold:
                free.append(held.popleft())

    def _next(
        self, pool: ThreadPoolExecutor, batches: Iterator[ArrayLike], slot: _Buffer
    ) -> Future[Batch] | None:
        """Begin to read the next batch; an error of the sampler waits for its turn."""
        try:
            rows = np.asarray(next(batches), np.int64).reshape(-1)
        except StopIteration:
            return None
        except Exception as error:
            failed: Future[Batch] = Future()
            failed.set_exception(error)
            return failed
        return pool.submit(self._read, rows, slot)

    def _read(self, rows: NDArray[np.int64], slot: _Buffer) -> Batch:
        """Fill a slot; runs in a thread."""
        if len(rows) > self._batch:
            raise ConfigError(
                "a batch is larger than the feeder's buffers",
                found=f"{len(rows)} rows",
                expected=f"at most {self._batch}",
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"there is no row {rows.min()} or {rows.max()} among {len(self)}")
        which = np.searchsorted(self._ends, rows, side="right")
        within = rows - np.append(0, self._ends)[which]
        for number, store in enumerate(self._stores):
            here = np.flatnonzero(which == number)
            slot.fill(here.tolist(), self._files, number, store.places(within[here]))
        if self._labels is not None:
            return slot.imagery(len(rows)), self._labels[torch.from_numpy(rows)]
        return slot.imagery(len(rows)), self._own_labels(which, within)

    def _own_labels(self, which: NDArray[np.int64], within: NDArray[np.int64]) -> Labels:
        """Return what the stores say of some rows: zeros and unknown where one has no labels."""
        hot = np.zeros((len(which), len(self._stores[0].classes)), np.float32)
        known = np.zeros(len(which), bool)
        for number, store in enumerate(self._stores):
            here = np.flatnonzero(which == number)
            if store.classes:
                labels = store.labels(within[here])
                hot[here], known[here] = labels.multi_hot.numpy(), labels.known.numpy()
        return Labels(torch.from_numpy(hot), torch.from_numpy(known))

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def check_alike(first: Store, other: Store) -> None:
    """Refuse stores whose images cannot share a batch.

    Args:
        first: Its classes are those of the batch.
        other: Of the same classes, or without labels: its images are then unlabelled.

    Raises:
        StoreError: If pixels or classes differ in kind.
    """
    for what, mine, theirs in (
        ("spec", first.spec, other.spec),
        ("resolution groups", dict(first.card.groups), dict(other.card.groups)),
        ("land-cover scheme", first.scheme, other.scheme),
        ("classes", first.classes, other.classes),
    ):
        labels = what in {"land-cover scheme", "classes"}
        if mine != theirs and not (labels and not other.classes):
            raise StoreError(
                f"stores of different {what} cannot share a batch",
                found=theirs,
                expected=f"{mine}, as in {first.path}",
                where=other.path,
                remedy="give each store a feeder of its own",
            )


class _Buffer:
    """Memory for one batch.

    Args:
        store: Tells shapes and dtypes.
        selection: The bands that are read.
        batch: The most images.
        pin: Page-locked memory.
    """

    def __init__(self, store: Store, selection: Selection, batch: int, *, pin: bool) -> None:
        pieces = store.card.pieces()
        self._selection = selection
        self._planes: dict[int, torch.Tensor] = {}
        # (file, bytes from the start of its row, one view per image)
        self._targets: list[tuple[str, int, list[memoryview]]] = []
        for gsd, runs in selection.runs.items():
            (_, *size), dtype = pieces[f"{gsd}m"]
            plane_bytes = int(np.prod(size)) * dtype.itemsize
            kind = torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
            shape = (batch, len(selection.groups[gsd]), *size)
            # zeros: the first touch of a page costs more than filling it again and again
            self._planes[gsd] = torch.empty(shape, dtype=kind, pin_memory=pin).zero_()
            array: NDArray[np.generic] = self._planes[gsd].numpy()
            at = 0
            for run in runs:
                count = run.stop - run.start
                views = [array[i, at : at + count].data.cast("B") for i in range(batch)]
                self._targets.append((f"{gsd}m", run.start * plane_bytes, views))
                at += count
        packed: NDArray[np.uint8] = np.empty((batch, *pieces[VALID][0]), np.uint8)
        self._targets.append((VALID, 0, [packed[i].data for i in range(batch)]))
        self._packed = packed
        mask = torch.empty((batch, *store.card.size), dtype=torch.bool, pin_memory=pin)
        self._valid = mask.zero_()
        self._bits = self._valid.numpy().view(np.uint8).reshape(batch, -1)
        self._ones = np.packbits(np.ones(self._bits.shape[1], np.uint8)).tobytes()
        self._whole = [False] * batch  # which images of the mask hold nothing but ones

    def fill(
        self, order: Sequence[int], files: StoreFiles, store: int, places: Sequence[Place]
    ) -> None:
        """Read some images of a store.

        Args:
            order: Which images of the batch they become.
            files: Where to read them from.
            store: Number of the store.
            places: Where they are in it.
        """
        for name, offset, views in self._targets:
            files.read((store, name), places, offset, [views[i] for i in order])
        for i in order:
            packed = self._packed[i]
            whole = packed.tobytes() == self._ones
            if not whole:
                self._bits[i] = np.unpackbits(packed, count=self._bits.shape[1])
            elif not self._whole[i]:  # most images are valid all over, and so was the one before
                self._bits[i] = 1
            self._whole[i] = whole

    def imagery(self, count: int) -> NativeImagery:
        """Return the first images, without a copy."""
        planes = {gsd: plane[:count] for gsd, plane in self._planes.items()}
        chosen = self._selection
        return NativeImagery(planes, dict(chosen.groups), chosen.spec, self._valid[:count])


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
        remedy="copy the store again, or delete it and pack it again",
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
