"""Batches of packed stores as fast as the memory allows: threads, and buffers that are used again.

    with Feeder(store, batch=256) as feeder:
        for imagery, labels in feeder.feed(train[epoch_rows(len(train), epoch, seed, batch=256)]):
            step(imagery.to("cuda"), labels.to("cuda"))

Reading is a copy from the page cache into memory that is already there; `pread` drops the GIL, so
that threads do it while the consumer computes, and no process has to send pixels to another. Images
keep their native resolution and dtype: `eofm.contract.preprocess.to_grid` makes them float32 on the
device.

A batch is valid until the next one is asked for; then its memory is given to a later batch. A
consumer that holds several at a time (as when it copies to a device without waiting) says so.

Two sensors are two views of one place: the optical store leads, the radar store is the second.
Which images belong together says the table of `eofm.store.paired`.

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
        labels: Of all rows of all stores (`eofm.store.reader`), in place of the stores'
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

    def feed(self, batches: Iterable[ArrayLike]) -> Iterator[StoreBatch]:
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
        """Begin to read the next batch; an error of the sampler waits for its turn."""
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
                remedy="pack both alike: the same sensor, bands, unit, --window and classes",
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


# ------------------------------------------------------------ two sensors as two views of one place

PairBatch = tuple[tuple[NativeImagery, NativeImagery], Labels]


@dataclass(frozen=True)
class SecondStore:
    """The store of a second sensor, whose images are the second views.

    Args:
        store: The store.
        row_of: int64, one for each row of the store that leads: the row of the image that belongs
            to it, or -1 where there is none.
    """

    store: Store
    row_of: NDArray[np.int64]


def open_pair(path: str | Path) -> tuple[Store, SecondStore]:
    """Return the optical store of a folder of several sensors, and its radar store as the second.

    Raises:
        StoreError: If there is not one of each, no image has a counterpart, or their windows
            differ in size or resolution.
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
        first: Of the store that leads.
        second: Of the second store.

    Args:
        first: Reads the store that leads.
        second: Reads the second store.
        second_store: Says which images belong together.
    """

    def __init__(self, first: Feeder, second: Feeder, second_store: SecondStore) -> None:
        self.first, self.second = first, second
        self._row_of = second_store.row_of

    def feed(self, batches: Iterable[ArrayLike]) -> Iterator[PairBatch]:
        """Yield the images of both and the labels of each list of rows of the first store.

        Args:
            batches: Lists of rows that have a counterpart.

        Raises:
            IndexError: If a row has none.
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
    """What a run knows of its second sensor.

    Args:
        name: Of its store and of its trunk.
        plan: From its imagery to normalised pixels.
        recipe: What its input layer expects.
        new_input: Its input layer was drawn at random.
    """

    name: str
    plan: Plan
    recipe: Recipe
    new_input: bool


@final
class PairedViews(nn.Module):
    """One random view of each of two images of a place, by two sensors.

    Args:
        first: Makes views of the first sensor.
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
            imagery: Of the first sensor, normalised.
            native: Of the second, as stored, of the same places in the same order.
        """
        others = self.preprocess(to_grid(native))
        draw, other = self.first.draw(imagery.pixels.shape), self.second.draw(others.pixels.shape)
        if self.same_crop:
            other = with_geometry_of(draw, other)
        return (
            view_of(self.first, imagery.pixels, imagery.valid, draw),
            view_of(self.second, others.pixels, others.valid, other),
        )


# -------------------------------------------------------------------------- what Lightning iterates

# Of two sensors a batch holds the images of both, and the labels of the place.
Pixels = NativeImagery | tuple[NativeImagery, NativeImagery]
Batch = tuple[Pixels, Labels]


class Copied(Protocol):
    """Something that knows when a batch has been copied: a `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until it has."""


class StoreLoader:
    """What Lightning iterates: batches from a feeder, which a resumed run continues.

    A batch may be used until the next one is asked for; then its memory is read into again.

    Attributes:
        sampler: Says which rows; Lightning tells it the epoch.
        waited: Seconds that the consumer has waited for batches.
        present: Rows of the batch that was given out last.

    Args:
        feeder: Reads.
        sampler: Chooses.
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
        """Yield the batches of the epoch that is set when the first one is asked for."""
        self.stop()
        self._epoch, self._step = self.sampler.epoch, 0
        if self._resume is not None and self._resume[0] == self._epoch:
            self._step = self._resume[1]
        self._resume = None
        if self._step == 0:
            # torch's DataLoader draws a seed for its workers here: a run has the same random
            # numbers, hence the same result, whatever feeds it
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
        """Do not read into the memory of the present batch before this event."""
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
        """Return how far the consumer is: goes into Lightning's checkpoints."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the last batch that was consumed, once that epoch begins."""
        self._resume = (state["epoch"], state["step"])
