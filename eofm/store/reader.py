"""Read a packed store, here or behind a URL: memory-mapped images as stored, and labels.

    Store("/data/mine")
    Store("s3://bucket/stores/mine")           # pip install "eofm[remote]"
    Store("https://host/mine", cache="/fast/disk")

Of a remote store, card and index are fetched when it is opened; a file of a shard when a row of it
is first read, and then kept. Files appear in the cache at once and with the size the index demands,
also when several processes fetch them. A cache belongs to one state of a store: when card or index
have changed, another is begun. Nothing is deleted; the cache is a folder that may be.

A run may need other labels than those of the store, or more: an unlabelled season
inherits the labels of another one of its place, covered shares and places come along, or the
labels are exchanged for a control. `eofm.loading.feeder.Feeder` returns such a table in place of
the stores' own labels.

    table = label_table((store,), inherit=True, places=True)
    feeder = Feeder(store, 64, labels=table)
"""

from __future__ import annotations

import hashlib
import itertools
import operator
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import Labels, NativeImagery
from eofm.contract.spec import ImageSpec
from eofm.errors import StoreError
from eofm.formats.arrays import map_npy
from eofm.formats.foreign import foreign
from eofm.io import allow_open_files, awaited, replacing, unfinished
from eofm.report.tables import facts_html, facts_text
from eofm.store.format import (
    COPY,
    DAMAGED,
    HEADER_BYTES,
    INDEX,
    JOURNAL,
    PAIRS,
    PARTS,
    RELABELLED,
    SPEC,
    VALID,
    StoreCard,
    checksum,
    current,
    damaged,
    read_card_file,
    read_index,
    select_bands,
    shard_name,
)

__all__ = [
    "CACHE",
    "Mirror",
    "Rows",
    "Store",
    "cache_root",
    "exchanged",
    "inherited_from",
    "is_remote",
    "label_table",
]

# ------------------------------------------------------------------------------------- behind a URL

CACHE: Final = "EOFM_CACHE"
_ATTEMPTS: Final = 3


def is_remote(path: str | Path) -> bool:
    """Return whether a path is the URL of a remote store."""
    return isinstance(path, str) and "://" in path


def cache_root() -> Path:
    """Return where caches are: `$EOFM_CACHE`, or `eofm` in the user's cache folder."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eofm"


class Mirror:
    """The cache of one remote store.

    Attributes:
        url: The store.
        folder: The cache, laid out like the store.

    Args:
        url: The store.
        cache: Where caches are; None means `cache_root()`.

    Raises:
        StoreError: If the store cannot be reached, is half written, or is no store.
    """

    def __init__(self, url: str, cache: str | Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _open(self.url)
        for name, state in ((JOURNAL, "half written"), (f"{RELABELLED}/{SPEC}", "half relabelled")):
            if self._ask(self._files.exists, name):
                raise StoreError(
                    f"the store is {state}",
                    found=name,
                    where=self.url,
                    remedy="finish it where it is written, and copy it again",
                )
        card = self._card()
        size = int(self._ask(self._files.size, INDEX) or 0)
        state = hashlib.sha256(b"%s|%s|%d" % (self.url.encode(), card, size)).hexdigest()
        self.folder = (cache_root() if cache is None else Path(cache)) / "stores" / state[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fetch(SPEC, len(card))
        self.fetch(INDEX, size or None)

    def fetch(self, name: str, size: int | None) -> Path:
        """Return a file of the cache, fetched if it is not there yet.

        Args:
            name: Its path in the store.
            size: How many bytes it must have; None where that is not known.

        Raises:
            StoreError: If it cannot be fetched, or has another size.
        """
        file = self.folder / name
        if file.exists():
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        with awaited(unfinished(file).with_suffix(".lock")):
            for attempt in range(_ATTEMPTS):
                if file.exists():  # fetched by another while this one waited
                    return file
                self._download(name, file, size, last=attempt == _ATTEMPTS - 1)
        return file

    def _download(self, name: str, file: Path, size: int | None, *, last: bool) -> None:
        """Copy a whole file into the cache; only the last attempt raises."""
        try:
            self._ask(lambda at: self._files.get_file(at, str(unfinished(file))), name)
        except StoreError:
            if last:
                raise
            return
        found = unfinished(file).stat().st_size
        if size is None or found == size:
            with replacing(file):
                pass
        elif last:
            unfinished(file).unlink()
            raise StoreError(
                "a file of a remote store has another size than its index says",
                found=f"{found} bytes",
                expected=f"{size} bytes",
                where=f"{self.url}/{name}",
                remedy="copy the store again to where it is served from",
            )

    def _card(self) -> bytes:
        try:
            return bytes(self._ask(self._files.cat_file, SPEC))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StoreError(
                    "there is no packed store",
                    found=f"no {SPEC}",
                    where=self.url,
                    remedy="copy one there: all files of a folder that `eofm pack` wrote",
                ) from error
            raise

    def _ask(self, question: Callable[[str], Any], name: str) -> Any:  # noqa: ANN401
        """Call the file system about a file; whatever it raises becomes a StoreError."""
        try:
            return question(f"{self._root}/{name}")
        except Exception as error:
            raise StoreError(
                "a remote store cannot be read",
                found=f"{type(error).__name__}: {error}",
                where=f"{self.url}/{name}",
                remedy="check address, credentials and network",
            ) from error


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs

        # a cached listing of the file system would hide that a store has changed
        files, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(
            "remote stores need a library that is not installed",
            found=str(error),
            where=url,
            remedy='pip install "eofm[remote]"',
        ) from error
    except ValueError as error:
        raise StoreError(
            "an address of this kind is not known",
            found=str(error),
            where=url,
            remedy="use s3://, gs:// or https://",
        ) from error
    return files, str(root).rstrip("/")


# ---------------------------------------------------------------------------------------- the store

Rows = Sequence[int] | NDArray[np.integer[Any]]


class Store:
    """A finished packed store.

    It may be pickled into worker processes and read from threads.

    Attributes:
        path: The folder; of a remote store, its cache.
        card: All that `spec.json` says.
        table: The index, one row per image, with the columns of `index_schema`; of a store of
            version 2, `crs` is empty and `transform` null.

    Args:
        path: The folder, or the URL of a remote store (`eofm.store.reader`).
        cache: Where the shards of a remote store are kept; without it, the user's cache folder.

    Raises:
        StoreError: If it is no store, is half written, or a piece is missing or of a wrong size.
    """

    def __init__(self, path: str | Path, cache: str | Path | None = None) -> None:
        self._made_from = (path, cache)
        self._mirror = Mirror(str(path), cache) if is_remote(path) else None
        self.path = Path(path) if self._mirror is None else self._mirror.folder
        self.card, self.table = _read_small_files(self.path)
        self._shards = self._column("shard", np.int64)
        self._rows = self._column("row", np.int64)
        self._crc32 = self._column("crc32", np.uint32)
        self._maps: dict[tuple[int, str], NDArray[Any]] = {}
        self._counts: list[int] = np.bincount(self._shards).tolist() if len(self) else []
        if self._mirror is None:  # which checks sizes itself
            self._check_files()
        allow_open_files(self.shards * len(self.card.pieces()))
        shape = (len(self), len(self.classes))
        self._multi_hot = self._flat("multi_hot").astype(np.float32).reshape(shape)
        self._fraction = self._flat("fraction").astype(np.float32).reshape(shape)
        self._known = self._column("known", np.bool_)

    def __reduce__(self) -> tuple[type[Store], tuple[str | Path, str | Path | None]]:
        # a pickled memory map would be a copy of the shard
        return Store, self._made_from

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def facts(self) -> dict[str, str]:
        """Return the properties of the store as short texts by name, as `repr` shows them."""
        spec, (height, width) = self.spec, self.card.size
        places = pc.count_distinct(self.table["location"]).as_py()
        labels = f"{len(self.classes)} classes of {self.scheme}, {int(self._known.sum()):,} images"
        return {
            "images": f"{len(self):,} of {places:,} places",
            "pixels": f"{spec.sensor}, {spec.unit}, {height} x {width} at {spec.gsd:g} m",
            "bands": " ".join(spec.bands),
            "labels": labels if self.classes else "none",
            "crs": _few_words(self.crs_words()),
            "made up": "synthetic images, not observed" if self.synthetic else "",
            "path": str(self.path),
        }

    def __repr__(self) -> str:
        facts = self.facts()
        made_up = ", synthetic" * self.synthetic
        labels = f"{len(self.classes)} classes" if self.classes else "no labels"
        return f"Store({facts['images']}, {facts['pixels']}, {labels}{made_up}; {self.path})"

    def __str__(self) -> str:
        return facts_text("Store", self.facts())

    def _repr_html_(self) -> str:
        return facts_html("Store", self.facts())

    @property
    def spec(self) -> ImageSpec:
        """What `to_grid` makes of the images."""
        return self.card.spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the label vector; empty for an unlabelled store."""
        return self.card.classes

    @property
    def scheme(self) -> str | None:
        """Name of the land-cover scheme; None for an unlabelled store."""
        return None if self.card.labels is None else self.card.labels.scheme

    @property
    def synthetic(self) -> bool:
        """Whether the images are synthetic, as stated when they were packed."""
        return self.card.synthetic

    @property
    def sealed(self) -> bool:
        """Whether card and index have a checksum, which was verified; stores of 0.1 have none."""
        return bool(self.card.index_sha256)

    @property
    def ids(self) -> NDArray[np.str_]:
        """One identifier per image."""
        return self._column("id", np.str_)

    @property
    def locations(self) -> NDArray[np.str_]:
        """The place of each image: images of one place overlap or repeat one another."""
        return self._column("location", np.str_)

    def crs_words(self) -> str:
        """Return the CRS of the images as text, with the number of images in each."""
        names: list[str] = self.table["crs"].to_pylist()
        counts = Counter(_crs_word(name) for name in names)
        return ", ".join(f"{count} in {name}" for name, count in counts.most_common())

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._counts)

    def piece(self, shard: int, name: str) -> Path:
        """Return a file of a shard, `10m`, `20m`, `60m` or `valid`; fetch it if it is remote.

        Raises:
            StoreError: If it cannot be fetched.
        """
        file = f"{shard_name(shard)}/{name}.npy"
        if self._mirror is None:
            return self.path / file
        return self._mirror.fetch(file, self._piece_bytes(shard, name))

    def _piece_bytes(self, shard: int, name: str) -> int:
        """Return how long a file must be."""
        shape, dtype = self.card.pieces()[name]
        return HEADER_BYTES + self._counts[shard] * int(np.prod(shape)) * dtype.itemsize

    def places(self, rows: Rows) -> list[tuple[int, int]]:
        """Return the shard of each image, and its row there.

        Raises:
            IndexError: If a row does not exist.
        """
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        return list(zip(self._shards[index].tolist(), self._rows[index].tolist(), strict=True))

    def images(self, rows: Rows, bands: Sequence[str] | None = None) -> NativeImagery:
        """Return images as stored, each band at its own resolution.

        Args:
            rows: Which, in the order wanted.
            bands: Names of the bands to read, in the order of the spec that is wanted; None means
                all. Planes that are not requested are not read. The grid stays the store's.

        Raises:
            IndexError: If a row does not exist.
            SpecError: If a band is not in the store.
            StoreError: If a file has changed since the store was opened.
        """
        places = self.places(rows)
        chosen = select_bands(self.card, bands)
        planes = {
            gsd: torch.from_numpy(self._gather(f"{gsd}m", places, runs))
            for gsd, runs in chosen.runs.items()
        }
        valid = torch.from_numpy(self.valid(rows))
        return NativeImagery(planes, dict(chosen.groups), chosen.spec, valid)

    def valid(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which pixels of some images hold a measurement, (B, H, W) on the finest grid.

        Args:
            rows: Which, in the order wanted.

        Raises:
            IndexError: If a row does not exist.
            StoreError: If a file has changed since the store was opened.
        """
        height, width = self.card.size
        packed = self._gather(VALID, self.places(rows), (slice(None),))
        bits = np.unpackbits(packed, axis=1, count=height * width)
        return bits.view(np.bool_).reshape(-1, height, width)

    def _gather(
        self, name: str, places: Sequence[tuple[int, int]], runs: Sequence[slice]
    ) -> NDArray[Any]:
        """Return some planes of some images, of one file per shard."""
        shape, dtype = self.card.pieces()[name]
        ends = np.cumsum([0, *(len(range(*run.indices(shape[0]))) for run in runs)]).tolist()
        out = np.empty((len(places), ends[-1], *shape[1:]), dtype.newbyteorder("="))
        whole = [run.indices(shape[0]) for run in runs] == [(0, shape[0], 1)]
        start = 0
        for shard, group in itertools.groupby(places, key=operator.itemgetter(0)):
            images, rows = self._map(shard, name), [row for _, row in group]
            part = out[start : (start := start + len(rows))]
            if whole:  # one call for all images of a file
                images.take(rows, axis=0, out=part, mode="clip")  # "raise" copies twice
                continue
            for image, row in zip(part, rows, strict=True):
                for run, low, high in zip(runs, ends, ends[1:], strict=False):
                    image[low:high] = images[row, run]
        return out

    def labels(self, rows: Rows) -> Labels:
        """Return multi-labels (B, K) and which of them are known.

        Args:
            rows: Which, in the order wanted.
        """
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        return Labels(
            torch.from_numpy(self._multi_hot[index]), torch.from_numpy(self._known[index])
        )

    def fractions(self, rows: Rows) -> torch.Tensor:
        """Return the share of each class in the valid map pixels, float32 (B, K).

        Args:
            rows: Which, in the order wanted.
        """
        return torch.from_numpy(self._fraction[np.asarray(rows, dtype=np.int64).reshape(-1)])

    def verify(self, rows: Rows | None = None) -> None:
        """Read images and compare their checksums.

        Args:
            rows: Which; None means all.

        Raises:
            StoreError: If bytes have changed since they were written; it lists the images.
        """
        bad = self.changed(range(len(self)) if rows is None else rows)
        if bad:
            ids = self._names("id", bad[:10])
            shown = ", ".join(f"{i} ({name})" for i, name in zip(bad, ids, strict=False))
            raise StoreError(
                "images in the store have changed since they were written",
                found=f"{len(bad)} with a wrong checksum: {shown}{', ...' if bad[10:] else ''}",
                where=self.path,
                remedy="copy the store again, or delete it and pack it again",
            )

    def changed(self, rows: Rows) -> list[int]:
        """Return those of some rows whose bytes differ from those that were written."""
        names = list(self.card.pieces())
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        bad = []
        for i, (shard, row) in zip(index.tolist(), self.places(index), strict=True):
            if checksum(self._map(shard, name)[row] for name in names) != self._crc32[i]:
                bad.append(i)
        return bad

    def _names(self, column: str, rows: Sequence[int]) -> list[str]:
        names: list[str] = self.table[column].take(pa.array(rows, pa.int64())).to_pylist()
        return names

    def _column(self, name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.asarray(self.table[name].to_numpy(), dtype=dtype)

    def _flat(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self.table[name].combine_chunks().flatten().to_numpy()
        return values

    def _map(self, shard: int, name: str) -> NDArray[Any]:
        """Return the memory map of one file."""
        key = (shard, name)
        if key not in self._maps:
            file = self.piece(shard, name)
            with foreign(StoreError, DAMAGED, where=file, remedy=COPY):
                array = map_npy(file)
            shape, dtype = self.card.pieces()[name]
            if array.shape[1:] != shape or array.dtype != dtype:
                raise damaged(file, f"{array.shape} {array.dtype}", f"(N, *{shape}) {dtype}")
            self._maps[key] = array.view(np.ndarray)  # rows of a plain array come cheaper
        return self._maps[key]

    def _check_files(self) -> None:
        """Compare the size of every file with the index: a truncated copy is found at once."""
        for shard, count in enumerate(self._counts):
            for name in self.card.pieces():
                file = self.piece(shard, name)
                expected = self._piece_bytes(shard, name)
                found = file.stat().st_size if file.is_file() else None
                if found != expected:
                    what = "no such file" if found is None else f"{found} bytes"
                    raise damaged(file, what, f"{expected} bytes for {count} images")


def _few_words(words: str) -> str:
    """Return the first few names separated by commas, and the number of others."""
    each = words.split(", ")
    return ", ".join(each[:3]) + (f" and {len(each) - 3} more" if each[3:] else "")


def _crs_word(crs: str) -> str:
    if not crs:
        return "an unknown CRS"
    return crs if len(crs) < 20 else "a CRS without a code"  # WKT is longer


def _read_small_files(path: Path) -> tuple[StoreCard, pa.Table]:
    """Return card and index; those of a store that is being relabelled may change in between."""
    card = _read_card(path)
    try:
        return card, read_index(current(path, INDEX), card)
    except StoreError:
        again = _read_card(path)
        if again == card:
            raise
        return again, read_index(current(path, INDEX), again)


def _read_card(path: Path) -> StoreCard:
    if (path / JOURNAL).is_file():
        raise StoreError(
            "the store is half written",
            found=f"{_committed(path)} images so far, and a journal",
            where=path,
            remedy="run the command that packs it again: it resumes where it stopped",
        )
    card = current(path, SPEC)
    if (path / PAIRS).is_file() and not card.is_file():
        inside = sorted(folder.parent for folder in path.glob(f"*/{SPEC}"))
        raise StoreError(
            "this folder holds the stores of several sensors",
            found=", ".join(folder.name for folder in inside),
            expected="one store",
            where=path,
            remedy=f"name one of them, as in {inside[0] if inside else path / 'SENSOR'}",
        )
    if not card.is_file():
        raise StoreError(
            "there is no packed store",
            found="nothing" if not path.exists() else f"no {SPEC}",
            where=path,
            remedy="write one with `eofm pack tiles` or `eofm pack ssl4eo`",
        )
    return read_card_file(card)


def _committed(path: Path) -> int:
    """Return how many images a half-written store holds, in its parts too."""
    rows = 0
    for journal in [path / JOURNAL, *path.glob(f"{PARTS}/*/{JOURNAL}")]:
        with journal.open("rb") as lines:
            rows += sum(line.startswith(b'{"row"') and line.endswith(b"\n") for line in lines)
    for card in path.glob(f"{PARTS}/*/{SPEC}"):
        rows += read_card_file(card).rows
    return rows


# ------------------------------------------------------------------------- labels of several stores


def label_table(
    stores: Sequence[Store], *, inherit: bool = False, shares: bool = False, places: bool = False
) -> Labels:
    """Return the labels of the rows of some stores, one store behind the other.

    Args:
        stores: Of the same classes as the first, or without labels.
        inherit: Give an unlabelled image the labels of the labelled image of its place that is
            nearest in time; they are treated as known.
        shares: Say how much of an image each class covers.
        places: Number the places.
    """
    classes = len(stores[0].classes)
    own = [store.labels(range(len(store))) for store in stores]
    hot = torch.cat([_classes(labels.multi_hot, classes) for labels in own])
    known = torch.cat([labels.known for labels in own])
    cover = None
    if shares:
        parts = [_classes(store.fractions(range(len(store))), classes) for store in stores]
        cover = torch.cat(parts)
    number = None
    if places or inherit:
        names = np.concatenate([store.locations for store in stores])
        number = torch.from_numpy(np.unique(names, return_inverse=True)[1].astype(np.int64))
    table = Labels(hot, known, cover, number if places else None)
    if inherit and number is not None:
        times = np.concatenate([_days(store) for store in stores])
        labelled = known & (hot.sum(1) > 0)
        source = torch.from_numpy(inherited_from(number.numpy(), times, labelled.numpy()))
        came = source >= 0
        source = torch.where(came, source, 0)
        table = Labels(
            torch.where(came[:, None], hot[source], hot),
            known | came,
            None if cover is None else torch.where(came[:, None], cover[source], cover),
            table.places,
        )
    return table


_EXCHANGE: Final = 5  # distinguishes this draw from those of eofm.loading.sampler


def exchanged(labels: Labels, rows: NDArray[np.int64], seed: int) -> Labels:
    """Return the labels with those of some images exchanged at random among them.

    Every label set stays as frequent as it was, and every image keeps one for good; but it is that
    of a random image. What training gains from such labels it does not gain from what they mean.
    Images that are unlabelled stay so, and places stay where they are.

    Args:
        labels: Of all images.
        rows: Those that exchange theirs, such as the training images.
        seed: Of the exchange.
    """
    labelled = (labels.known & (labels.multi_hot.sum(1) > 0)).numpy()
    among = rows[labelled[rows]]
    source = np.arange(len(labels))
    source[among] = np.random.default_rng([seed, _EXCHANGE]).permutation(among)
    return replace(labels[torch.from_numpy(source)], places=labels.places)


def inherited_from(
    places: NDArray[np.int64], times: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the image that each unlabelled one inherits its labels from.

    Args:
        places: Number of the place of each image.
        times: When it was taken, in any unit.
        labelled: Whether the image has labels.

    Returns:
        For an unlabelled image the labelled one of its place that is nearest in time, the earlier
        of two that are as near; -1 if there is none. -1 for labelled images.
    """
    order = np.lexsort((times, places))
    sure, place, time = labelled[order], places[order], times[order]
    index = np.arange(len(order))
    before = np.maximum.accumulate(np.where(sure, index, -1))
    after = np.minimum.accumulate(np.where(sure, index, len(order))[::-1])[::-1]
    gaps = []
    for other, there in ((before, before >= 0), (after, after < len(order))):
        at = np.where(there, other, 0)
        same = there & (place[at] == place)
        gaps.append(np.where(same, np.abs(time - time[at]), np.inf))
    nearest = np.where(gaps[0] <= gaps[1], before, after)
    found = np.isfinite(np.minimum(*gaps)) & ~sure
    source = np.full(len(order), -1, np.int64)
    source[order[found]] = order[nearest[found]]
    return source


def _days(store: Store) -> NDArray[np.float64]:
    """Return the day of each image; 0 where it is not known."""
    dates: list[Any] = store.table["date"].to_pylist()
    days = [np.datetime64(date[:10], "D").astype(np.float64) if date else 0.0 for date in dates]
    return np.array(days, np.float64)


def _classes(values: torch.Tensor, classes: int) -> torch.Tensor:
    """Return (B, K) values; of a store without labels, zeros of the width of the others."""
    return values if values.shape[1] == classes else values.new_zeros(len(values), classes)
