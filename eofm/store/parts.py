"""Several processes write one store, each its own shards.

    write_parts(out, card, images, fill, workers=8)

Images are assigned to parts before anything is written: neighbours share a part until their
windows could fill a shard. A part is a separate small packed store under `OUT/parts`, written by
`StoreWriter`: it locks, survives a kill and resumes as any store does, and nobody waits for anybody
else. When all are finished their shards move to their place in the store. So the store has the
same bytes whatever the number of processes is, and however often they were interrupted. A part of
which windows were left out for too few valid pixels makes a shard that is not full.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from eofm.contract.imagery import NativeImagery
from eofm.environment import end_with_parent
from eofm.errors import StoreError
from eofm.formats.foreign import advice, opened, sealed
from eofm.formats.text import parse_json
from eofm.io import replacing, sync_folder, unfinished
from eofm.store.format import (
    INDEX,
    JOURNAL,
    PARTS,
    SHARD_BYTES,
    SPEC,
    Entry,
    StoreCard,
    index_schema,
    read_card_file,
    read_index,
    shard_name,
    write_card_file,
)
from eofm.store.writer import BusyError, Journal, StoreWriter, check_settings
from eofm.terminal import track

__all__ = ["Fill", "T", "assign", "write_parts"]

T = TypeVar("T")

Fill = Callable[[StoreWriter, Mapping[str, T]], None]
"""Appends the windows of some named images to a writer, in order.

It skips the rows in `writer.ids` and the images in `writer.skipped`, calls `source_done` or
`quarantine` for each image, and does not finish. Several processes import it, so it is a function
at the top of a module, or an instance of a dataclass with `__call__`.
"""

_NOTHING: Final = "nothing.json"  # represents a part without a row
_ORPHAN_S: Final = 60.0  # how long the workers of a killed run may take to notice


def write_parts(
    path: str | Path,
    card: StoreCard,
    images: Mapping[str, T],
    fill: Fill[T],
    *,
    rows: Mapping[str, int] | None = None,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
) -> bool:
    """Write a store by shards, or resume one that was interrupted.

    Args:
        path: Folder to write.
        card: What will be in it, as for `StoreWriter`.
        images: Name -> what `fill` needs to know of an image, in the order of the rows.
        fill: Writes the rows of some images.
        rows: Name -> how many rows an image can have at most; without it, one each.
        workers: How many processes write. One writes in this process.
        shard_bytes: Upper bound of a shard; also the size of a unit of work.

    Returns:
        False if the store was complete already, so that nothing was written.

    Raises:
        StoreError: If the folder holds something else, a store of other settings or images, is
            being written by another run, or cannot be written; or if there is no row at all.
        EofmError: What `fill` raised.
    """
    out, bounds = Path(path), rows or dict.fromkeys(images, 1)
    per_shard = max(1, shard_bytes // card.row_bytes)
    settings = {**card.settings, "by_shard": _fingerprint(bounds)}
    card = replace(card, settings=settings, rows_per_shard=per_shard)
    spec = out / SPEC
    if spec.is_file() and not (out / JOURNAL).exists():
        check_settings(card, read_card_file(spec), out)
        return False
    parts = [{name: images[name] for name in part} for part in assign(bounds, per_shard)]
    with _locked(out, card):
        if not spec.exists():
            left = [i for i in range(len(parts)) if not _is_finished(_folder(out, i))]
            job = _Job(out, card, fill, shard_bytes)
            _run(job, {i: parts[i] for i in left}, workers)
            _assemble(out, card, len(parts))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(out / PARTS)
        (out / JOURNAL).unlink()
        sync_folder(out)
    return True


def assign(rows: Mapping[str, int], per_shard: int) -> list[list[str]]:
    """Put neighbours together until their rows could overfill a shard.

    An image with more rows than a shard holds is a part, and fills several shards.

    >>> assign({"a": 2, "b": 1, "c": 2, "d": 9}, 3)
    [['a', 'b'], ['c'], ['d']]
    """
    parts: list[list[str]] = []
    left = 0
    for name, count in rows.items():
        if not parts or count > left:
            parts.append([])
            left = per_shard
        parts[-1].append(name)
        left -= count
    return parts


def _fingerprint(rows: Mapping[str, int]) -> str:
    """Return what must be equal for images to be assigned to the same parts."""
    text = json.dumps(list(rows.items()))
    return f"{len(rows)} images, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _folder(out: Path, part: int) -> Path:
    return out / PARTS / f"{part:05d}"


def _is_finished(folder: Path) -> bool:
    done = (folder / SPEC).exists() and not (folder / JOURNAL).exists()
    return done or _said(folder) is not None


def _said(folder: Path) -> dict[str, Any] | None:
    """Return the record of a part without a row; None if it is missing or incomplete."""
    try:
        said, whole = opened(parse_json((folder / _NOTHING).read_bytes()))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return said if whole else None


@contextlib.contextmanager
def _locked(out: Path, card: StoreCard) -> Iterator[None]:
    """Hold the journal of the store, so that no second run can start."""
    with _on_disk(out):
        journal = Journal(out, card)
    try:
        check_settings(card, journal.card, out)
        with _on_disk(out):
            yield
    finally:
        journal.close()


@contextlib.contextmanager
def _on_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except (NotADirectoryError, FileExistsError) as error:
        raise StoreError(
            "the store cannot be written: a file is where its folder should be",
            where=error.filename or out,
            remedy="choose another --out",
        ) from error
    except OSError as error:
        raise StoreError(
            "the store cannot be written",
            found=error.strerror or str(error),
            where=error.filename or out,
            remedy=f"{advice(error, 'free some space')}, and run the same command again: it "
            "resumes where it stopped",
        ) from error


# ------------------------------------------------------------------------- the processes


class _StoppedError(Exception):
    """Another part has failed."""


class _PartWriter(StoreWriter):
    """Checks before every row whether another part has failed."""

    def append(self, entry: Entry, imagery: NativeImagery) -> None:
        """Write a row, unless another part has failed."""
        if _stop is not None and _stop.is_set():
            raise _StoppedError
        super().append(entry, imagery)


# set in worker processes alone
_stop: Event | None = None


def _begin_worker(stop: Event) -> None:
    global _stop  # noqa: PLW0603 (a pool's initializer has no other place for it)
    _stop = stop
    end_with_parent()


class _Job(Generic[T]):
    """Writes one part."""

    def __init__(self, out: Path, card: StoreCard, fill: Fill[T], shard_bytes: int) -> None:
        self.out, self.card, self.fill, self.shard_bytes = out, card, fill, shard_bytes

    def __call__(self, part: int, images: Mapping[str, T]) -> None:
        with self._open(_folder(self.out, part)) as writer:
            if writer.complete:
                return
            self.fill(writer, images)
            if writer.ids:
                writer.finish()
                return
        folder = _folder(self.out, part)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _NOTHING) as file:
            said = {"skipped": writer.skipped, "quarantined": writer.quarantined}
            file.write_text(json.dumps(sealed(said)), "utf-8")

    def _open(self, folder: Path) -> StoreWriter:
        """Open the part; the workers of a run that was killed may be at their last row."""
        unfinished(folder / _NOTHING).unlink(missing_ok=True)
        until = time.monotonic() + _ORPHAN_S
        while True:
            try:
                return _PartWriter(folder, self.card, shard_bytes=self.shard_bytes)
            except BusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _run(job: _Job[T], parts: Mapping[int, Mapping[str, T]], workers: int) -> None:
    """Write parts, in this process or in several."""
    if min(workers, len(parts)) <= 1:
        for part, images in track(parts.items(), "packing shards", len(parts)):
            job(part, images)
        return
    context = _context()
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(parts)), context, _begin_worker, (stop,)) as pool:
        futures = [pool.submit(job, part, images) for part, images in parts.items()]
        try:
            for future in track(as_completed(futures), "packing shards", len(futures)):
                future.result()
        except BaseException as error:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, _StoppedError | BrokenProcessPool):
                raise _first_failure(futures) from error
            raise


def _context() -> SpawnContext | ForkServerContext:
    """Return how processes start: never by a fork of this one, which has threads and locks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
    return context


def _first_failure(futures: Sequence[Future[None]]) -> BaseException:
    """Return why the work ended: the error of the first part that was not merely stopped."""
    wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, _StoppedError | BrokenProcessPool):
            return error
    return StoreError(
        "a process that wrote the store has died",
        found="it was killed, or ran out of memory",
        remedy="use fewer workers, and run the same command again: it resumes where it stopped",
    )


# ---------------------------------------------------------------------------- the store


def _assemble(out: Path, card: StoreCard, parts: int) -> None:
    """Give the shards of all parts their places, and write index and card.

    Every step can be taken again: the index is made from those of the parts, which stay until the
    store is complete; a shard that has been moved is no longer there to move.
    """
    cards, skipped, quarantined = [], 0, dict[str, str]()
    sources = 0
    for part in range(parts):
        folder = _folder(out, part)
        said = _said(folder)
        if said is not None:
            sources += len(said["skipped"])
            skipped += sum(said["skipped"].values())
            quarantined |= said["quarantined"]
            continue
        made = read_card_file(folder / SPEC)
        cards.append((folder, made))
        sources, skipped = sources + made.sources, skipped + made.skipped
        quarantined |= made.quarantined
    if not cards:
        raise StoreError("there is nothing to pack", found="0 images", where=out)
    moves = _write_index(out, card, cards)
    for source, target in moves:
        if source.exists():
            source.rename(target)
    sync_folder(out)
    rows = sum(made.rows for _, made in cards)
    card = replace(card, rows=rows, sources=sources, skipped=skipped, quarantined=quarantined)
    write_card_file(out, card)


def _write_index(
    out: Path, card: StoreCard, parts: Sequence[tuple[Path, StoreCard]]
) -> list[tuple[Path, Path]]:
    """Join the indexes of the parts; return which shard becomes which."""
    schema = index_schema(len(card.classes))
    column = schema.get_field_index("shard")
    moves: list[tuple[Path, Path]] = []
    seen: set[str] = set()
    with replacing(out / INDEX) as file, pq.ParquetWriter(file, schema) as writer:
        for folder, made in parts:
            table = read_index(folder / INDEX, made)
            _check_new(table["id"].to_pylist(), seen, out)
            first, count = len(moves), -(-made.rows // made.rows_per_shard)
            shards = pa.array([first + s for s in table["shard"].to_pylist()], pa.int32())
            writer.write_table(table.set_column(column, schema.field(column), shards))
            moves += [(folder / shard_name(i), out / shard_name(first + i)) for i in range(count)]
    return moves


def _check_new(ids: Sequence[str], seen: set[str], out: Path) -> None:
    """Check that no image of a part is in another, and remember them."""
    twice = [name for name in ids if name in seen]
    if twice:
        raise StoreError(
            "two images have the same identifier",
            found=", ".join(twice[:5]),
            where=out,
            remedy="remove one of them, delete the folder, and pack again",
        )
    seen.update(ids)
