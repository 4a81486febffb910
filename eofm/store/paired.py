"""Several sensors of the same places: one packed store per sensor, and one table of rows.

    OUT/
      s2-l1c/        a packed store
      s1-grd/        a packed store
      rows.parquet   one line per place and season: id, location, season, s2-l1c, s1-grd

The columns named like the stores hold the row of the image there, or -1 where that sensor did not
look. The stores are written one by one, each as crash-safe as any; the table comes last and at
once, so that a folder with a table is complete.

    write_pairs("OUT", match_stores("OUT", ["s2-l1c", "s1-grd"], max_gap_days=30))
    both = PairedStore("OUT")
    images = both.images(both.complete()[:8])        # {"s2-l1c": NativeImagery, "s1-grd": ...}
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eofm.contract.imagery import NativeImagery
from eofm.errors import StoreError
from eofm.formats.foreign import foreign
from eofm.formats.parquet import read_sealed, seal_columns
from eofm.io import replacing
from eofm.store.format import PAIRS
from eofm.store.reader import Rows, Store

__all__ = ["ROWS", "Pair", "PairedStore", "match_ids", "match_stores", "write_pairs"]

ROWS: Final = PAIRS
_KEYS: Final = ("id", "location", "season")


@dataclass(frozen=True)
class Pair:
    """Images of one place at about one time.

    Args:
        id: Unique in the table.
        location: The place.
        season: Which of several times.
        images: Name of a store -> identifier of its image; stores without one are omitted.
    """

    id: str
    location: str
    season: str
    images: Mapping[str, str]


class PairedStore:
    """Stores of several sensors whose images belong together.

    Attributes:
        path: The folder.
        stores: Name of the folder -> the store.
        table: `rows.parquet`.

    Args:
        path: The folder.

    Raises:
        StoreError: If there is no table, a store is missing or damaged, or has been packed again
            since the table was written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.table = _read_rows(self.path / ROWS)
        names = [name for name in self.table.schema.names if name not in _KEYS]
        self.stores = {name: Store(self.path / name) for name in names}
        said = self.table.schema.metadata or {}
        for name, store in self.stores.items():
            if said.get(name.encode()) != _fingerprint(store).encode():
                raise StoreError(
                    "a store is not the one whose rows are in the table",
                    found=f"{len(store)} images in {name}, made otherwise",
                    where=self.path / ROWS,
                    remedy="pair the stores again (eofm.store.paired.write_pairs)",
                )
        self._rows = {name: self.table[name].to_numpy() for name in names}
        for name, rows in self._rows.items():
            if len(rows) and not -1 <= rows.min() <= rows.max() < len(self.stores[name]):
                raise StoreError(
                    "the table of rows names rows that a store does not have",
                    found=f"{rows.min()} to {rows.max()} of {name}",
                    expected=f"-1 to {len(self.stores[name]) - 1}",
                    where=self.path / ROWS,
                    remedy="pair the stores again (eofm.store.paired.write_pairs)",
                )

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        there = ", ".join(f"{int((self._rows[name] >= 0).sum()):,} {name}" for name in self.stores)
        return f"PairedStore({len(self):,} lines: {there}; {self.path})"

    def rows(self, name: str) -> NDArray[np.int64]:
        """Return the row of every line of the table in one store; -1 where there is none.

        Raises:
            StoreError: If no store has this name.
        """
        if name not in self._rows:
            raise StoreError(
                "no store has this name",
                found=name,
                expected=", ".join(self._rows),
                where=self.path,
            )
        return np.asarray(self._rows[name], np.int64)

    def complete(self, names: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Return the lines of the table that have an image in each of some stores, or in all."""
        there = [self.rows(name) >= 0 for name in (self.stores if names is None else names)]
        return np.flatnonzero(np.logical_and.reduce(there))

    def images(
        self,
        lines: Rows,
        names: Sequence[str] | None = None,
        bands: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, NativeImagery]:
        """Return the images of some lines of the table, one batch per store.

        Args:
            lines: Which, in the order wanted.
            names: Of which stores; None means of all.
            bands: Name of a store -> the bands to read of it; of the others all are read.

        Raises:
            StoreError: If a store has no image for a line (see `complete`).
        """
        index = np.asarray(lines, np.int64).reshape(-1)
        found = {}
        for name in self.stores if names is None else names:
            rows = self.rows(name)[index]
            if (rows < 0).any():
                missing = self.table["id"].take(pa.array(index[rows < 0][:5])).to_pylist()
                raise StoreError(
                    f"some lines have no image in {name}",
                    found=", ".join(missing),
                    where=self.path / ROWS,
                    remedy="take lines from complete()",
                )
            found[name] = self.stores[name].images(rows, (bands or {}).get(name))
        return found


def match_stores(
    path: str | Path, names: Sequence[str], *, max_gap_days: float = 30.0
) -> list[Pair]:
    """Pair each image of the first store with the nearest in time at its place in the others.

    Images without a date are paired where the season has the same name.

    Args:
        path: The folder of the stores.
        names: Folders of the stores, the leading one first.
        max_gap_days: The greatest distance in time that counts.
    """
    leader, *others = [Store(Path(path) / name) for name in names]
    there = [_by_location(store) for store in others]
    pairs = []
    for line in leader.table.select([*_KEYS, "date"]).to_pylist():
        images = {names[0]: line["id"]}
        for name, places in zip(names[1:], there, strict=True):
            match = _nearest(line, places.get(line["location"], []), max_gap_days)
            if match is not None:
                images[name] = match
        pairs.append(Pair(line["id"], line["location"], line["season"], images))
    return pairs


def match_ids(path: str | Path, names: Sequence[str]) -> list[Pair]:
    """Pair each image of the first store with those of the same identifier in the others.

    Args:
        path: The folder of the stores.
        names: Folders of the stores, the leading one first.
    """
    leader, *others = [Store(Path(path) / name) for name in names]
    there = {name: set(store.ids.tolist()) for name, store in zip(names[1:], others, strict=True)}
    pairs = []
    for line in leader.table.select(_KEYS).to_pylist():
        found = {names[0], *(name for name, ids in there.items() if line["id"] in ids)}
        pairs.append(
            Pair(line["id"], line["location"], line["season"], dict.fromkeys(found, line["id"]))
        )
    return pairs


def _by_location(store: Store) -> dict[str, list[dict[str, Any]]]:
    places: dict[str, list[dict[str, Any]]] = {}
    for line in store.table.select([*_KEYS, "date"]).to_pylist():
        places.setdefault(line["location"], []).append(line)
    return places


def _nearest(
    line: Mapping[str, Any], others: Sequence[Mapping[str, Any]], max_gap_days: float
) -> str | None:
    """Return the identifier of the image nearest in time, the first by name among equals."""
    gaps: list[tuple[float, str]] = []
    for other in others:
        if line["date"] and other["date"]:
            gap = datetime.fromisoformat(line["date"]) - datetime.fromisoformat(other["date"])
            gaps.append((abs(gap.total_seconds()) / 86_400, other["id"]))
        elif line["season"] == other["season"]:
            gaps.append((0.0, other["id"]))
    gap_days, match = min(gaps, default=(float("inf"), ""))
    return match if gap_days <= max_gap_days else None


def write_pairs(path: str | Path, pairs: Sequence[Pair], names: Sequence[str] = ()) -> Path:
    """Write `rows.parquet` atomically next to finished stores.

    Args:
        path: The folder of the stores.
        pairs: The lines, in order. Every name of a store in them is a folder of `path`.
        names: Stores that have a column even if no line has an image of them.

    Returns:
        The file.

    Raises:
        StoreError: If there is no pair, a store is missing or half written, an image is not in its
            store, or an identifier occurs twice.
    """
    out = Path(path)
    names = sorted({*names, *(name for pair in pairs for name in pair.images)})
    if not pairs:
        raise StoreError("there is nothing to pair", found=f"{len(pairs)} lines", where=out)
    _check_once([pair.id for pair in pairs], out)
    stores = {name: Store(out / name) for name in names}
    columns: dict[str, Any] = {key: [vars(pair)[key] for pair in pairs] for key in _KEYS}
    for name, store in stores.items():
        columns[name] = _rows_of(store, [pair.images.get(name) for pair in pairs])
    fields = [(key, pa.string()) for key in _KEYS] + [(name, pa.int64()) for name in names]
    said = {name.encode(): _fingerprint(store).encode() for name, store in stores.items()}
    table = pa.table(columns, schema=pa.schema(fields))
    with replacing(out / ROWS) as file:
        pq.write_table(seal_columns(table, said), file)
    return out / ROWS


def _rows_of(store: Store, ids: Sequence[str | None]) -> NDArray[np.int64]:
    row_of = {name: row for row, name in enumerate(store.table["id"].to_pylist())}
    missing = [name for name in ids if name is not None and name not in row_of]
    if missing:
        raise StoreError(
            "images are not in their store",
            found=", ".join(missing[:5]) + (f", and {len(missing) - 5} more" * bool(missing[5:])),
            where=store.path,
        )
    return np.array([-1 if name is None else row_of[name] for name in ids], np.int64)


def _check_once(ids: Sequence[str], where: Path) -> None:
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise StoreError("two lines have the same id", found=", ".join(twice[:5]), where=where)


def _fingerprint(store: Store) -> str:
    """Return what changes when a store is packed again, and not when it is relabelled."""
    names = "\n".join(store.table["id"].to_pylist()).encode()
    crc = zlib.crc32(names, zlib.crc32(store.table["crc32"].to_numpy().tobytes()))
    return f"{len(store)} images, crc32 {crc:08x}"


def _read_rows(file: Path) -> pa.Table:
    if not file.is_file():
        raise StoreError(
            "there are no paired stores",
            found=f"no {ROWS}",
            where=file.parent,
            remedy="pack each sensor into a folder of this one, and pair them "
            "(eofm.store.paired.write_pairs)",
        )
    with foreign(
        StoreError,
        "the table of rows is damaged",
        where=file,
        remedy="run the command that packed the stores again: it writes the table again",
    ):
        table = read_sealed(file)
        missing = [key for key in _KEYS if key not in table.schema.names]
        if missing:
            raise StoreError(
                "the table of rows lacks columns", found=", ".join(missing), where=file
            )
        for column in table.schema:
            kind = pa.string() if column.name in _KEYS else pa.int64()
            if column.type != kind or table[column.name].null_count:
                raise TypeError(f"{column}; {kind} without nulls was expected")
        return table
