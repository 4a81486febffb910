"""Give a store other small files, all at once, for the same pixels.

Labels and georeference of a store are in its two small files, `index.parquet` and `spec.json`. To
replace both at once, they are written into a folder, which is then named `relabelled`: from this
moment on the new files hold, and readers find them there (`eofm.store.format.current`). Then each
file moves to its place. Whenever this is interrupted, the store has the old files or the new ones,
and the next call clears up. A new store shares the pixel files of the old one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from eofm.errors import StoreError
from eofm.io import replacing, sync_folder
from eofm.store.format import INDEX, JOURNAL, RELABELLED, SPEC, StoreCard, current, shard_name
from eofm.store.journal import check_empty
from eofm.store.metadata import write_card_file
from eofm.store.reader import Store

_STAGED: Final = RELABELLED + ".tmp"


def open_to_rewrite(path: str, *, in_place: bool) -> Store:
    """Open a store whose small files will be replaced; finish what an earlier call began.

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
    """Return whether a folder holds a finished store of just this card and index."""
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
    """Finish what was begun when the labels of a store were replaced, or forget it.

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
    journal.touch()  # the store counts as half written
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
            where=error.filename or out,
            remedy="free some space, and run the same command again",
        ) from error
