"""`eofm data verify`: are the bytes of a store those that were written?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eofm.errors import StoreError
from eofm.progress import track
from eofm.store.config import VerifyConfig
from eofm.store.format import byte_words
from eofm.store.reader import Store

_CHUNK: Final = 64  # images per task
_NAMED: Final = 10


@dataclass(frozen=True)
class VerifyReport:
    """A store in which every checksum is right.

    Args:
        store: Where it is.
        images: How many images were read.
        read: How many bytes that was.
        sealed: Whether card and index have a checksum too, which is right.
    """

    store: Path
    images: int
    read: int
    sealed: bool

    def describe(self) -> str:
        """Return what was compared, and what has no checksum, for the terminal."""
        size = f"{self.images} images, {byte_words(self.read)}"
        if self.sealed:
            return f"{self.store} is sound: {size}, card and index"
        return (
            f"{self.store}: the pixels of {size} are sound; of bands, labels, splits and places "
            "the store has no checksum: it was written by eofm 0.1\n"
            f"  remedy:   eofm data upgrade {self.store} --in_place true"
        )


def verify_store(config: VerifyConfig) -> VerifyReport:
    """Read every image, in threads, and compare its crc32 with the index.

    Opening the store has compared card and index with their own checksums.

    Raises:
        StoreError: If files are missing or cut off, identifiers are repeated, or bytes have
            changed; it names the images.
    """
    store = Store(config.store)
    ids = store.table["id"]
    if len(ids.unique()) != len(ids):
        raise StoreError(
            "the index names an image twice",
            found=f"{len(ids)} images, {len(ids.unique())} identifiers",
            where=store.path,
        )
    bad = [row for rows in track(_faults(store, config.threads), "reading") for row in rows]
    if bad:
        names = ids.take(bad[:_NAMED]).to_pylist()
        shown = ", ".join(f"{row} ({name})" for row, name in zip(bad, names, strict=False))
        shards = sorted({shard for shard, _ in store.places(bad)})
        raise StoreError(
            "images in the store have changed since they were written",
            found=f"{len(bad)} of {len(store)} with a wrong checksum, in shards "
            f"{', '.join(map(str, shards[:_NAMED]))}: {shown}{', ...' if bad[_NAMED:] else ''}",
            where=store.path,
            remedy="copy those shards again, or pack the store again",
        )
    return VerifyReport(store.path, len(store), len(store) * store.card.row_bytes, store.sealed)


def _faults(store: Store, threads: int) -> Iterator[list[int]]:
    """Yield the changed rows of each chunk; checksums are computed without the GIL."""
    chunks = [range(i, min(i + _CHUNK, len(store))) for i in range(0, len(store), _CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(store.changed, chunks)
