"""`eofm data subset` and `eofm data merge`: copies of rows, as crash-safe as packing.

Every row is compared with its checksum before it is copied, so that a damaged image cannot get a
right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import eofm
from eofm.errors import StoreError
from eofm.progress import track
from eofm.store.config import MergeConfig, SubsetConfig
from eofm.store.describe.report import PackReport
from eofm.store.format import Plain, StoreCard
from eofm.store.reader import Store
from eofm.store.rows.choice import matching, read_ids, sampled, with_ids
from eofm.store.rows.entry import Entry
from eofm.store.rows.places import join_places
from eofm.store.rows.splits import subset_hash
from eofm.store.writer import StoreWriter


def subset_store(config: SubsetConfig) -> PackReport:
    """Copy the rows that meet all conditions into a new store, in their order.

    Raises:
        ConfigError: If a condition cannot be understood.
        StoreError: If no row is left, an identifier is not in the store, an image is damaged, or
            the new store cannot be written.
    """
    store = Store(config.store)
    among = np.ones(len(store), bool)
    if config.ids is not None:
        among &= with_ids(store, read_ids(config.ids))
    for condition in config.where:
        among &= matching(store, condition)
    if config.sample is not None:
        among = sampled(store, among, config.sample, config.seed)
    rows = np.flatnonzero(among)
    if not len(rows):
        raise StoreError("no image meets all conditions", found="0 images", where=store.path)
    ids = store.table["id"].take(rows).to_pylist()
    settings = {"verb": "data subset", "ids_sha256": subset_hash(ids)}
    return _copy([(store, rows)], config.out, settings)


def merge_stores(config: MergeConfig) -> PackReport:
    """Copy the rows of several stores into a new one, store after store.

    Places of different stores that overlap become one: they take the name that the first store
    gives, so that what is held out of training is held out with all of its images.

    Raises:
        StoreError: If pixels or labels are of different kinds, an identifier occurs twice, an
            image is damaged, or the new store cannot be written.
    """
    stores = [Store(path) for path in config.stores]
    for store in stores[1:]:
        _check_alike(stores[0], store)
    ids = [name for store in stores for name in store.table["id"].to_pylist()]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise StoreError(
            "stores hold images of the same identifier",
            found=f"{len(twice)}: {', '.join(twice[:10])}{', ...' if twice[10:] else ''}",
            where=", ".join(config.stores),
            remedy="leave them out of one store: eofm data subset STORE --ids FILE --out OTHER",
        )
    settings = {"verb": "data merge", "ids_sha256": subset_hash(ids)}
    parts = [(store, np.arange(len(store))) for store in stores]
    return _copy(parts, config.out, settings, join_places(stores))


def _check_alike(first: Store, other: Store) -> None:
    """Check that rows of two stores can share one."""
    mine, theirs = first.card, other.card
    for what, key in (("images", "image"), ("resolution groups", "groups"), ("labels", "labels")):
        found = [text for text in theirs.differences(mine) if text.startswith(key)]
        if found:
            raise StoreError(
                f"stores with different kinds of {what} cannot be merged",
                found="; ".join(found),
                expected=f"what is in {first.path}",
                where=other.path,
                remedy="give both the same labels with `eofm data relabel`"
                if what == "labels"
                else "keep them apart: train on several stores, or pack them alike",
            )


@dataclass(frozen=True)
class _Sources:
    """How many rows each source image has in the copy."""

    left: Counter[str]

    def last_of(self, name: str) -> bool:
        """Count a row; return whether it was the last of its source."""
        self.left[name] -= 1
        return not self.left[name]


def _copy(
    parts: Sequence[tuple[Store, NDArray[np.int64]]],
    out: str,
    settings: Mapping[str, Plain],
    joined: Mapping[tuple[int, str], str] | None = None,
) -> PackReport:
    """Copy rows of stores that are alike; `joined` renames places, as `join_places` says."""
    first = parts[0][0].card
    provenance: dict[str, Plain] = {
        "eofm": eofm.__version__,
        "synthetic": any(store.synthetic for store, _ in parts),
        "from": [dict(store.card.settings) for store, _ in parts],
    }
    card = StoreCard(first.spec, first.groups, first.labels, settings, provenance)
    for store, _ in parts:
        _check_apart(store.path, Path(out))
    with StoreWriter(out, card) as writer:
        if writer.complete:
            return PackReport.of(writer.path, already=True)
        for number, (store, rows) in enumerate(parts):
            names = store.table["source"].take(rows).to_pylist()
            sources = _Sources(Counter(names))
            label = f"copying {store.path.name}"
            for row, name in zip(track(rows.tolist(), label), names, strict=True):
                _copy_row(writer, store, row, number, joined or {})
                key = f"{number}/{name}"  # two stores may have cut images of the same name
                if sources.last_of(name) and key not in writer.skipped:
                    writer.source_done(key, 0)
        writer.finish()
    return PackReport.of(Path(out), already=False)


def _copy_row(
    writer: StoreWriter, store: Store, row: int, number: int, joined: Mapping[tuple[int, str], str]
) -> None:
    entry = entry_of(store, row)
    if entry.id in writer.ids:
        return
    place = joined.get((number, entry.location))
    if place is not None:  # images of it lie in several stores: what tells them apart is a name
        entry = replace(entry, location=place, season=entry.season or entry.source)
    store.verify([row])
    writer.append(entry, store.images([row]))


def entry_of(store: Store, row: int) -> Entry:
    """Return the row of the index for one image, without its place in the shards."""
    line = store.table.slice(row, 1).to_pylist()[0]
    values = {field.name: line[field.name] for field in fields(Entry)}
    lists = {name: tuple(values[name]) for name in ("fraction", "multi_hot")}
    transform = None if values["transform"] is None else tuple(values["transform"])
    return Entry(**{**values, **lists, "transform": transform})


def _check_apart(store: Path, out: Path) -> None:
    if store.resolve() == out.resolve():
        raise StoreError(
            "a store cannot be copied into itself", where=out, remedy="choose another --out"
        )
