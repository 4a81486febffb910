"""Batches of packed stores at the speed of memory, with threads and reusable buffers.

    with Feeder(store, batch=256) as feeder:
        for imagery, labels in feeder.feed(train[epoch_rows(len(train), epoch, seed, batch=256)]):
            step(imagery.to("cuda"), labels.to("cuda"))

Reading copies from the page cache into allocated memory. `pread` releases the GIL, so threads read
while the consumer computes, and no pixels are sent between processes. Images keep their native
resolution and dtype; `eofm.contract.preprocess.to_grid` converts them to float32 on the device.

A batch is valid until the next one is requested; its memory is then reused. A consumer that holds
several batches at a time (as for asynchronous copies to a device) sets `hold`.

Two sensors are two views of one place: the optical store is the first, the radar store the second.
The table of `eofm.store.paired` states which images belong together.

    optical, second = open_pair("stores/both")          # eofm pack ssl4eo --sensors s2c,s1
    feeder = PairFeeder(Feeder(optical, 64), Feeder(second.store, 64), second)
    for (images, radar), labels in feeder.feed(rows): ...

Shapes: B places, C bands, S by S pixels of a view.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Final, Protocol, TypeAlias, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from eofm.contract.imagery import Imagery, Labels, NativeImagery
from eofm.contract.preprocess import Plan, Preprocess, to_grid
from eofm.contract.recipe import Recipe
from eofm.errors import ConfigError, StoreError
from eofm.io import BINARY, Closing, allow_open_files
from eofm.loading.config import AugmentConfig
from eofm.loading.sampler import EpochSampler
from eofm.loading.views import RADAR, View, Views, view_of, views_for, with_geometry_of
from eofm.store.format import HEADER_BYTES, VALID, Selection, npy_header, select_bands
from eofm.store.paired import PairedStore
from eofm.store.reader import Store

__all__ = [
    "Batch",
    "Copied",
    "Feeder",
    "Kind",
    "PairBatch",
    "PairFeeder",
    "PairedViews",
    "Pixels",
    "Place",
    "SecondSensor",
    "SecondStore",
    "StoreBatch",
    "StoreFiles",
    "StoreLoader",
    "check_alike",
    "open_pair",
]

# ---------------------------------------------------------------------------- batches of one sensor

StoreBatch = tuple[NativeImagery, Labels]


class Feeder(Closing):
    """Reads batches ahead of their consumer into a ring of buffers.

    Several stores with the same kind of pixels and labels are read as one, with consecutive row
    numbers, for example to replay old images among new ones
    (`eofm.loading.sampler.replayed_rows`).

    Attributes:
        spec: Image spec after `to_grid`.

    Args:
        stores: One store or several.
        batch: Maximum number of images in a batch.
        ahead: Number of batches to read ahead.
        threads: Number of batches to read at the same time.
        hold: Number of batches that the consumer uses at a time, including the newest.
        bands: Names of the bands to read; None means all.
        pin: Use page-locked memory, for asynchronous copies to a GPU.
        labels: Labels of all rows of all stores (`eofm.store.reader`), in place of the stores'
            labels.

    Raises:
        ConfigError: If a number is not positive, or the number of labels differs from the rows.
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
        """Return the total number of rows of all stores."""
        return int(self._ends[-1])

    def feed(self, batches: Iterable[ArrayLike]) -> Iterator[StoreBatch]:
        """Yield the images and labels of each list of rows, in their order.

        Args:
            batches: Lists of rows, each of at most `batch`.

        Yields:
            Images as stored and their labels. The pixels are in a buffer, which is overwritten when
            the consumer requests the `hold`-th batch after this one.

        Raises:
            ConfigError: If a batch is larger than stated, or the feeder is already in use.
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
        pending: deque[tuple[Future[StoreBatch], _Buffer]] = deque()
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
        pending: deque[tuple[Future[StoreBatch], _Buffer]],
        batches: Iterator[ArrayLike],
    ) -> Iterator[StoreBatch]:
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
    ) -> Future[StoreBatch] | None:
        """Start reading the next batch; an error of the sampler is raised in order."""
        try:
            rows = np.asarray(next(batches), np.int64).reshape(-1)
        except StopIteration:
            return None
        except Exception as error:
            failed: Future[StoreBatch] = Future()
            failed.set_exception(error)
            return failed
        return pool.submit(self._read, rows, slot)

    def _read(self, rows: NDArray[np.int64], slot: _Buffer) -> StoreBatch:
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
        """Return the stores' labels of some rows; zeros and unknown for a store without labels."""
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
        first: Store with the classes of the batch.
        other: Store with the same classes, or without labels, whose images are then unlabelled.

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
                remedy="pack both alike: the same sensor, bands, unit, --window and classes",
            )


class _Buffer:
    """Memory for one batch.

    Args:
        store: Store with the shapes and dtypes.
        selection: The bands to read.
        batch: Maximum number of images.
        pin: Use page-locked memory.
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
        self._whole = [False] * batch  # images whose mask is all ones

    def fill(
        self, order: Sequence[int], files: StoreFiles, store: int, places: Sequence[Place]
    ) -> None:
        """Read some images of a store.

        Args:
            order: Indices of the images in the batch.
            files: Files to read from.
            store: Number of the store.
            places: Shards and rows in the store.
        """
        for name, offset, views in self._targets:
            files.read((store, name), places, offset, [views[i] for i in order])
        for i in order:
            packed = self._packed[i]
            whole = packed.tobytes() == self._ones
            if not whole:
                self._bits[i] = np.unpackbits(packed, count=self._bits.shape[1])
            elif not self._whole[i]:  # most images are fully valid, like the previous one here
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
    """The files of some stores, opened on demand and shared by threads.

    Args:
        stores: Stores with the same pieces.
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
            kind: Number of the store, and the name of its files.
            places: Shards and rows.
            offset: Bytes from the start of a row to the first byte to read.
            targets: One buffer per place; its length is the number of bytes to read.

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
        """Close all files."""
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
        """Read into memory without a copy; return the number of bytes read."""
        return os.preadv(handle, [into], position)

elif sys.platform == "win32":
    _seeking: Final = threading.Lock()

    def _read_into(handle: int, into: memoryview, position: int) -> int:
        """Read into memory; return the number of bytes read."""
        with _seeking:
            os.lseek(handle, position, os.SEEK_SET)
            data = os.read(handle, len(into))
        into[: len(data)] = data
        return len(data)

else:

    def _read_into(handle: int, into: memoryview, position: int) -> int:
        """Read into memory; return the number of bytes read."""
        data = os.pread(handle, len(into), position)
        into[: len(data)] = data
        return len(data)


# ------------------------------------------------------------ two sensors as two views of one place

PairBatch = tuple[tuple[NativeImagery, NativeImagery], Labels]


@dataclass(frozen=True)
class SecondStore:
    """The store of a second sensor, whose images are the second views.

    Args:
        store: The store.
        row_of: int64, for each row of the first store the row of the corresponding image, or -1 if
            there is none.
    """

    store: Store
    row_of: NDArray[np.int64]


def open_pair(path: str | Path) -> tuple[Store, SecondStore]:
    """Return the optical store of a folder of several sensors, and its radar store as the second.

    Raises:
        StoreError: If one of the two stores is missing, no image has a counterpart, or their
            windows differ in size or resolution.
    """
    paired = PairedStore(path)
    radar = [name for name, store in paired.stores.items() if store.spec.sensor in RADAR]
    optical = [name for name in paired.stores if name not in radar]
    if len(radar) != 1 or len(optical) != 1:
        raise StoreError(
            "two views of a place need one optical store and one radar store",
            found=", ".join(paired.stores),
            expected="two stores, such as s2-l1c and s1-grd",
            where=paired.path,
            remedy="pair two of them (eofm pack ssl4eo --sensors s2c,s1)",
        )
    first, second = paired.stores[optical[0]], paired.stores[radar[0]]
    if (first.spec.size, first.spec.gsd) != (second.spec.size, second.spec.gsd):
        raise StoreError(
            "the images of the two sensors show windows of different size",
            found=f"{second.spec.size} at {second.spec.gsd:g} m in {radar[0]}",
            expected=f"{first.spec.size} at {first.spec.gsd:g} m, as in {optical[0]}",
            where=paired.path,
            remedy="cut both with the same window",
        )
    row_of = np.full(len(first), -1, np.int64)
    lines = paired.complete()
    row_of[paired.rows(optical[0])[lines]] = paired.rows(radar[0])[lines]
    if not (row_of >= 0).any():
        raise StoreError(
            "no image has a counterpart of the other sensor",
            found=f"{len(paired)} lines, none of them complete",
            where=paired.path,
            remedy="pair the stores again with a larger max_gap_days",
        )
    return first, SecondStore(second, row_of)


class PairFeeder:
    """Feeds the images of two stores side by side, with the labels of the first.

    Attributes:
        first: Image spec of the first store.
        second: Image spec of the second store.

    Args:
        first: Feeder of the first store.
        second: Feeder of the second store.
        second_store: The second store, with the table of corresponding images.
    """

    def __init__(self, first: Feeder, second: Feeder, second_store: SecondStore) -> None:
        self.first, self.second = first, second
        self._row_of = second_store.row_of

    def feed(self, batches: Iterable[ArrayLike]) -> Iterator[PairBatch]:
        """Yield the images of both and the labels of each list of rows of the first store.

        Args:
            batches: Lists of rows that have a counterpart.

        Raises:
            IndexError: If a row has no counterpart.
        """
        mine, theirs = tee(batches)
        first = self.first.feed(mine)
        second = self.second.feed(self._counterparts(rows) for rows in theirs)
        try:
            for (images, labels), (others, _) in zip(first, second, strict=True):
                yield (images, others), labels
        finally:
            for feed in (first, second):
                feed.close()  # type: ignore[attr-defined]  # a generator

    def _counterparts(self, rows: ArrayLike) -> NDArray[np.int64]:
        found = self._row_of[np.asarray(rows, np.int64)]
        if (found < 0).any():
            missing = np.asarray(rows)[found < 0].tolist()
            raise IndexError(f"rows {missing[:5]} have no image of the other sensor")
        return found

    def close(self) -> None:
        """Close the files of both."""
        self.first.close()
        self.second.close()


@dataclass(frozen=True)
class SecondSensor:
    """Facts about the second sensor of a run.

    Args:
        name: Name of its store and its trunk.
        plan: Plan from its imagery to normalised pixels.
        recipe: Input that its input layer expects.
        new_input: Its input layer was initialised at random.
    """

    name: str
    plan: Plan
    recipe: Recipe
    new_input: bool


@final
class PairedViews(nn.Module):
    """One random view of each of two images of a place from two sensors.

    Args:
        first: Views of the first sensor.
        second: Facts about the second.
        config: Ranges, probabilities, and whether both views show the same crop.
    """

    def __init__(self, first: Views, second: SecondSensor, config: AugmentConfig) -> None:
        super().__init__()
        self.first, self.second = first, views_for(second.recipe, config)
        self.preprocess = Preprocess(second.plan)
        self.same_crop = config.pair == "same"

    def forward(self, imagery: Imagery, native: NativeImagery) -> tuple[View, View]:
        """Return a view of each, (B, C, S, S) with its own C.

        Args:
            imagery: Normalised imagery of the first sensor.
            native: Imagery of the second sensor as stored, of the same places in the same order.
        """
        others = self.preprocess(to_grid(native))
        draw, other = self.first.draw(imagery.pixels.shape), self.second.draw(others.pixels.shape)
        if self.same_crop:
            other = with_geometry_of(draw, other)
        return (
            view_of(self.first, imagery.pixels, imagery.valid, draw),
            view_of(self.second, others.pixels, others.valid, other),
        )


# ----------------------------------------------------------------------------- loader for Lightning

# With two sensors a batch holds the images of both, and the labels of the place.
Pixels = NativeImagery | tuple[NativeImagery, NativeImagery]
Batch = tuple[Pixels, Labels]


class Copied(Protocol):
    """Event of a finished copy of a batch, such as a `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until the copy is finished."""


class StoreLoader:
    """Loader for Lightning: batches from a feeder, with a position that a resumed run continues.

    A batch may be used until the next one is requested; its memory is then reused.

    Attributes:
        sampler: Sampler of the rows; Lightning sets its epoch.
        waited: Seconds that the consumer has waited for batches.
        present: Rows of the latest batch.

    Args:
        feeder: Reader of the batches.
        sampler: Sampler of the rows.
    """

    def __init__(self, feeder: Feeder | PairFeeder, sampler: EpochSampler) -> None:
        self.feeder = feeder
        self.sampler = sampler
        self.waited = 0.0
        self.present: NDArray[np.int64] = np.zeros(0, np.int64)
        self._epoch = self._step = 0
        self._resume: tuple[int, int] | None = None
        self._feed: Iterator[Batch] | None = None
        self._copied: Copied | None = None

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch that is set when the first one is requested."""
        self.stop()
        self._epoch, self._step = self.sampler.epoch, 0
        if self._resume is not None and self._resume[0] == self._epoch:
            self._step = self._resume[1]
        self._resume = None
        if self._step == 0:
            # torch's DataLoader draws a seed for its workers here; drawing one too gives a run the
            # same random numbers, and hence the same result, with either loader
            torch.empty((), dtype=torch.int64).random_()
        rows, first = self.sampler.rows(self._epoch, self._step), self._step
        feed: Iterator[Batch] = self.feeder.feed(rows)
        self._feed = feed
        while True:
            began = time.monotonic()
            self._wait_for_copy()
            batch = next(feed, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            self.present = rows[self._step - first]
            self._step += 1
            yield batch

    def copied_when(self, event: Copied) -> None:
        """Do not reuse the memory of the current batch before this event."""
        self._copied = event

    def _wait_for_copy(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None

    def stop(self) -> None:
        """End the epoch that is being read, if there is one."""
        self._wait_for_copy()
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()  # type: ignore[attr-defined]  # a generator

    def close(self) -> None:
        """Stop, and close the files."""
        self.stop()
        self.feeder.close()

    def state_dict(self) -> dict[str, int]:
        """Return the position of the consumer, for Lightning's checkpoints."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the last consumed batch when its epoch starts."""
        self._resume = (state["epoch"], state["step"])
