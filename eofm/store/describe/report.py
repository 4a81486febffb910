"""A finished store: are its bytes those that were written (`eofm data verify`), and what it holds.

`PackReport` is the outcome of `eofm pack`, which can verify the store and count its statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from eofm.errors import StoreError
from eofm.progress import track
from eofm.store.config import StatsConfig, VerifyConfig
from eofm.store.describe.stats import make_statistics
from eofm.store.format import byte_words
from eofm.store.reader import Store

# ------------------------------------------------------------------------------------------ verify


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


# ------------------------------------------------------------------------------------------ report


def class_rows(store: Store) -> dict[str, int]:
    """Return class name -> rows in which it is present; empty for an unlabelled store."""
    counts = store.labels(range(len(store))).multi_hot.sum(dim=0).int().tolist()
    return dict(zip(store.classes, counts, strict=True))


@dataclass(frozen=True)
class PackReport:
    """The outcome of `eofm pack`.

    Args:
        out: The store.
        images: How many images it was cut from.
        windows: How many rows it has.
        skipped: How many windows were left out for want of valid pixels.
        labelled: How many rows have labels.
        classes: Class name -> rows in which it is present; empty for an unlabelled store.
        already: Whether the store was complete before, and nothing was done.
        quarantined: Name -> problem, of the images that could not be read and were passed over.
        after: What was done with the finished store and what a user should know, in words.
    """

    out: Path
    images: int
    windows: int
    skipped: int
    labelled: int
    classes: Mapping[str, int]
    already: bool = False
    quarantined: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, *, already: bool) -> PackReport:
        """Return the report of a finished store."""
        store = Store(path)
        return cls(
            out=path,
            images=store.card.sources,
            windows=len(store),
            skipped=store.card.skipped,
            labelled=int(store.labels(range(len(store))).known.sum()),
            classes=class_rows(store),
            already=already,
            quarantined=store.card.quarantined,
        )

    def then(self, *, verify: bool, stats: bool, workers: int = 1) -> PackReport:
        """Do what `--verify` and `--stats` ask for, and return the report with the outcome.

        The statistics are those of the training images where the data set has a split, else of all;
        their file says which.

        Args:
            verify: Read every image again and compare its crc32 with the index.
            stats: Count the statistics of every band and write them beside the index.
            workers: How many threads read.

        Raises:
            StoreError: If bytes are not those that were written.
        """
        said = []
        if verify:
            said.append(verify_store(VerifyConfig(str(self.out), max(4, workers))).describe())
        if stats:
            train = "train" in Store(self.out).table["split"].unique().to_pylist()
            where = ["split=train"] if train else []
            said.append(make_statistics(StatsConfig(str(self.out), where=where)).describe())
        return replace(self, after=tuple(said))

    def describe(self) -> str:
        """Return some lines for the terminal."""
        state = "was complete already; nothing was done" if self.already else "is complete"
        lines = [
            f"{self.out} {state}",
            f"  {self.images} images, {self.windows} windows"
            + (f", {self.skipped} left out for want of valid pixels" if self.skipped else ""),
        ]
        if not self.classes:
            lines.append("  unlabelled")
        else:
            lines.append(f"  {self.labelled} of {self.windows} labelled")
            width = max(map(len, self.classes))
            lines += [
                f"    {name:{width}}  {count:6d}  {count / max(self.labelled, 1):4.0%}"
                for name, count in self.classes.items()
            ]
        if self.quarantined:
            lines.append(f"  {len(self.quarantined)} could not be read, and were passed over:")
            lines += [f"    {name}: {why}" for name, why in list(self.quarantined.items())[:10]]
            lines += ["    ... (all are in spec.json)"] if len(self.quarantined) > 10 else []
        lines += [f"  {line}" for text in self.after for line in text.splitlines()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()
