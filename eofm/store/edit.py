"""Changing a finished store: copies of rows (`eofm data subset`, `merge`) and other labels.

Copying is as crash-safe as packing. Every row is compared with its checksum before it is copied, so
that a damaged image cannot get a right one. Where stores are merged, places of different stores
that are the same ground become one.

Other labels for the same pixels (`eofm data relabel`) come from a table that `eofm labels` wrote.
Labels hold for ground that the image shows: a table that counted whole footprints is refused for
images with invalid pixels, unless `--ground all` is given. An interrupted call leaves the old
labels or the new ones (`eofm.store.writer.rewrite`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import eofm
from eofm.errors import LabelError, StoreError
from eofm.landcover.table import Ground, LabelTable, open_table
from eofm.raster.grid import Grid
from eofm.raster.ground import Square, same_ground
from eofm.store.choice import matching, read_ids, sampled, with_ids
from eofm.store.config import MergeConfig, RelabelConfig, SubsetConfig
from eofm.store.describe import PackReport
from eofm.store.format import Entry, LabelRule, Plain, StoreCard, index_schema
from eofm.store.grids import known_grids
from eofm.store.reader import Store
from eofm.store.splits import subset_hash
from eofm.store.writer import StoreWriter, open_to_rewrite, rewrite
from eofm.terminal import track

__all__ = [
    "Place",
    "RelabelReport",
    "entry_of",
    "join_places",
    "merge_stores",
    "relabel_store",
    "subset_store",
]

# ----------------------------------------------------------------------------------- copies of rows


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
                else "train on several stores, or pack them with the same settings",
            )


@dataclass(frozen=True)
class _Sources:
    """How many rows each source image has in the copy."""

    left: Counter[str]

    def last_of(self, name: str) -> bool:
        """Count a row; return whether it was the last one of its source."""
        self.left[name] -= 1
        return not self.left[name]


def _copy(
    parts: Sequence[tuple[Store, NDArray[np.int64]]],
    out: str,
    settings: Mapping[str, Plain],
    joined: Mapping[tuple[int, str], str] | None = None,
) -> PackReport:
    """Copy rows of stores with equal settings; `joined` renames places as in `join_places`."""
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
    if place is not None:  # its images are in several stores: only their names distinguish them
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


# ------------------------------------------------------------------------------------------ places


Place = tuple[int, str]
"""Number of a store and the name of a place in it."""


def join_places(stores: Sequence[Store]) -> dict[Place, str]:
    """Find the places of different stores that overlap, or have one name.

    The ground of an image is its grid. Of stores of 0.1, which kept only the centre, it is taken to
    be a rectangle of the size of the store that faces north. Places within one store are what they
    were stated to be when it was packed: they become one only where a place of another store
    overlaps both.

    Args:
        stores: In the order in which they are merged.

    Returns:
        The name of each such place in the first store that has it; only of places that hold
        several images.

    Raises:
        StoreError: If a CRS or a transform of an index cannot be read.
    """
    images: list[Grid | Square | None] = []
    keys: list[Place] = []
    sources: dict[Place, set[str]] = {}
    for number, store in enumerate(stores):
        places, names = (store.table[name].to_pylist() for name in ("location", "source"))
        for location, source in zip(places, names, strict=True):
            keys.append((number, location))
            sources.setdefault((number, location), set()).add(source)
        images += _grounds(store)
    groups = same_ground(images, [number for number, _ in keys])
    return {
        place: members[0][1]
        for members in _joined(keys, groups)
        if len({number for number, _ in members}) > 1
        and len(set().union(*(sources[place] for place in members))) > 1
        for place in members
    }


def _grounds(store: Store) -> list[Grid | Square | None]:
    """Return the ground of every image, None where its place is not known."""
    (height, width), gsd = store.card.size, store.spec.gsd
    centres = (store.table[name].to_pylist() for name in ("longitude", "latitude"))
    found: list[Grid | Square | None] = []
    for grid, east, north in zip(known_grids(store), *centres, strict=True):
        around = Square(east, north, height * gsd, width * gsd, gsd)
        found.append(grid or (around if math.isfinite(east + north) else None))
    return found


def _joined(keys: Sequence[Place], groups: Sequence[int]) -> list[list[Place]]:
    """Return places that share a group of images, or a name, in the order of the stores."""
    parent: dict[Place | str | int, Place | str | int] = {}

    def top(key: Place | str | int) -> Place | str | int:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for key, group in zip(keys, groups, strict=True):
        parent[top(group)] = top(key)
        parent[top(key[1])] = top(key)  # stores of several sensors use the same name for a place
    members: dict[Place | str | int, dict[Place, None]] = {}
    for key in keys:
        members.setdefault(top(key), {})[key] = None
    return [list(places) for places in members.values()]


# ------------------------------------------------------------------------------------- other labels

_AT_ONCE: Final = 256  # masks in memory
_COLUMNS: Final = ("fraction", "multi_hot", "known", "valid_share")


@dataclass(frozen=True)
class RelabelReport:
    """What became of the labels.

    Args:
        store: The store with its new labels.
        unlabelled: Images of it that the table does not know.
        spare: Rows of the table without an image.
    """

    store: PackReport
    unlabelled: int
    spare: int

    def describe(self) -> str:
        """Return some lines for the terminal."""
        lines = [self.store.describe()]
        if self.unlabelled:
            lines.append(f"  {self.unlabelled} images are not in the table, and are unlabelled")
        if self.spare:
            lines.append(f"  {self.spare} rows of the table are of other images")
        return "\n".join(lines)


def relabel_store(config: RelabelConfig) -> RelabelReport:
    """Join a table of labels to a store by identifier.

    Raises:
        LabelError: If the table is damaged, repeats an identifier, does not know an image of the
            store, or counted ground that an image does not show.
        StoreError: If the store is damaged, or the new one cannot be written.
    """
    store = open_to_rewrite(config.store, in_place=config.in_place)
    labels = open_table(config.labels)
    card, index, counts = _join(store, labels, unknown_too=config.missing == "unlabelled")
    if config.ground == "seen" and labels.ground is Ground.ALL:
        _check_seen(store, index, labels)
    path = rewrite(store, config.out, card, index)
    return RelabelReport(PackReport.of(path, already=False), *counts)


def _not_in_full(store: Store, rows: NDArray[np.int64]) -> list[int]:
    """Return those of some rows whose image has invalid pixels."""
    found: list[int] = []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        found += part[~store.valid(part).all(axis=(1, 2))].tolist()
    return found


def _check_seen(store: Store, index: pa.Table, labels: LabelTable) -> None:
    """Refuse labels of ground that an image does not show."""
    blind = _not_in_full(store, np.flatnonzero(np.asarray(index["known"].to_numpy())))
    if blind:
        names = store.table["id"].take(pa.array(blind[:3])).to_pylist()
        raise LabelError(
            "the labels were counted on ground that some images do not show",
            found=f"{len(blind)} of {len(store)} images are not measured in full: "
            f"{', '.join(names)}{', ...' if blind[3:] else ''}; the table counted whole footprints",
            where=labels.path,
            remedy="count them for this store: eofm labels MAPS --scheme SCHEME "
            f"--scenes {quote(str(store.path))} --out OTHER.parquet; or take them as they are: "
            "--ground all",
        )


def _join(
    store: Store, labels: LabelTable, *, unknown_too: bool
) -> tuple[StoreCard, pa.Table, tuple[int, int]]:
    """Return card and index with other labels; and how many images, and lines, found no match."""
    line_of = _lines_by_id(labels)
    ids: list[str] = store.table["id"].to_pylist()
    missing = [name for name in ids if name not in line_of]
    if missing and not unknown_too:
        raise LabelError(
            "images of the store are not in the table of labels",
            found=f"{len(missing)} of {len(ids)}: {', '.join(missing[:10])}"
            f"{', ...' if missing[10:] else ''}",
            where=labels.path,
            remedy="label them, or make them unlabelled with --missing unlabelled",
        )
    lines = np.array([line_of.get(name, -1) for name in ids], np.int64)
    rule = _rule(labels)
    provenance: dict[str, Plain] = {**store.card.provenance, "labels": labels.path.name}
    card = replace(store.card, labels=rule, provenance=provenance)
    spare = len(line_of) - (len(ids) - len(missing))
    return card, _with_labels(store.table, labels, lines, len(rule.classes)), (len(missing), spare)


def _lines_by_id(labels: LabelTable) -> Mapping[str, int]:
    names: list[str] = labels.read(["id"])["id"].to_pylist()
    line_of = {name: line for line, name in enumerate(names)}
    if len(line_of) != len(names):
        twice = [name for line, name in enumerate(names) if line_of[name] != line]
        raise LabelError(
            "the table of labels names an image twice",
            found=", ".join(twice[:10]),
            where=labels.path,
        )
    return line_of


def _rule(labels: LabelTable) -> LabelRule:
    about = labels.about
    try:
        scheme = about["scheme"]
        name = scheme["name"] if isinstance(scheme, Mapping) else scheme
        return LabelRule(
            str(name), labels.classes, float(about["threshold"]), float(about["min_valid"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            "the table of labels does not say how they were made",
            found=repr(error),
            where=labels.path,
        ) from error


def _with_labels(
    index: pa.Table, labels: LabelTable, lines: NDArray[np.int64], classes: int
) -> pa.Table:
    """Return an index with the labels of some lines of a table; of line -1 there are none."""
    schema = index_schema(classes)
    table = labels.read(_COLUMNS)
    known = lines >= 0
    for name in _COLUMNS:
        field = schema.field(name)
        values = table[name].combine_chunks()
        if name in {"fraction", "multi_hot"}:
            flat = values.flatten().to_numpy().reshape(-1, classes)[lines]
            flat = np.where(known[:, None], flat, 0).reshape(-1)
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(flat, field.type.value_type), classes
            )
        else:
            flat = np.where(known, np.asarray(values.to_numpy(zero_copy_only=False))[lines], 0)
            column = pa.array(flat.astype(field.type.to_pandas_dtype()), field.type)
        index = index.set_column(schema.get_field_index(name), field, column)
    return index.cast(schema)
