"""Choosing rows of a store: by identifiers, by conditions on its index, by a sample."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eofm.errors import ConfigError, StoreError
from eofm.formats.foreign import foreign, read_bounded
from eofm.store.reader import Store
from eofm.store.splits import hash_order

__all__ = ["Mask", "held_out", "matching", "read_ids", "sampled", "with_ids"]

_COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION: Final = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|=|<|>)\s*(.*?)\s*")
_LISTS: Final = frozenset({"fraction", "multi_hot", "transform"})

_IDS_BYTES: Final = 2**28

Mask = NDArray[np.bool_]


def read_ids(file: str | Path) -> list[str]:
    """Return the identifiers in a text file, one per line; empty lines do not count.

    Raises:
        ConfigError: If it cannot be read.
    """
    with foreign(ConfigError, "the file of identifiers cannot be read", where=file):
        lines = read_bounded(Path(file), _IDS_BYTES).decode("utf-8").split("\n")
    return [line.strip() for line in lines if line.strip()]


def with_ids(store: Store, ids: Sequence[str]) -> Mask:
    """Return which rows have one of these identifiers.

    Raises:
        StoreError: If an identifier is not in the store; it lists them.
    """
    wanted, there = set(ids), store.table["id"].to_pylist()
    unknown = sorted(wanted.difference(there))
    if unknown:
        raise StoreError(
            "identifiers are not in the store",
            found=f"{len(unknown)}: {', '.join(unknown[:10])}{', ...' if unknown[10:] else ''}",
            where=store.path,
            remedy="correct the list",
        )
    return np.array([name in wanted for name in there], bool)


def matching(store: Store, condition: str) -> Mask:
    """Return which rows meet a condition on a column of the index.

    Args:
        store: The store.
        condition: As in `latitude>=40`, `season=summer`, `known=true` or `class!=crops`.

    Raises:
        ConfigError: If it cannot be understood.
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise _unclear(condition, "COLUMN=VALUE, !=, <, <=, > or >=")
    column, sign, value = match.groups()
    compare = _COMPARE[sign]
    if column == "class":
        return _with_class(store, sign, value, condition)
    columns = [name for name in store.table.schema.names if name not in _LISTS]
    if column not in columns:
        raise _unclear(condition, f"a column: {', '.join([*columns, 'class'])}")
    values = store.table[column].to_numpy()
    if values.dtype == np.bool_:
        if value not in {"true", "false"} or sign not in {"=", "==", "!="}:
            raise _unclear(condition, f"{column}=true or {column}=false")
        return np.asarray(compare(values, value == "true"), bool)
    if values.dtype.kind in "fiu":
        try:
            return np.asarray(compare(values, float(value)), bool)
        except ValueError:
            raise _unclear(condition, f"a number after {column}{sign}") from None
    return np.asarray(compare(values.astype(np.str_), value), bool)


def _with_class(store: Store, sign: str, value: str, condition: str) -> Mask:
    if value not in store.classes or sign not in {"=", "==", "!="}:
        raise _unclear(condition, f"class= or class!= one of {', '.join(store.classes) or 'none'}")
    labels = store.labels(range(len(store)))
    present = labels.multi_hot[:, store.classes.index(value)].numpy() > 0
    # of an unlabelled image neither is known
    return np.asarray((present if sign != "!=" else ~present) & labels.known.numpy(), bool)


def _unclear(condition: str, expected: str) -> ConfigError:
    return ConfigError(
        "a condition cannot be understood", found=condition, expected=expected, where="where"
    )


def sampled(store: Store, among: Mask, count: int, seed: int) -> Mask:
    """Return at most `count` of some rows: those whose hash of seed and identifier sorts first."""
    ids = store.table["id"].to_pylist()
    chosen = [ids[row] for row in np.flatnonzero(among)]
    kept = set(hash_order(chosen, "store", seed)[:count])
    return np.array([name in kept for name in ids], bool) & among


def held_out(locations: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Return a bool per scene: whether its location is held out of training.

    Whole locations are held out: two seasons of one place, or two overlapping windows of one
    image, on both sides of the split would measure memory. Locations are ordered by a hash of
    seed and name, so the choice does not depend on the order of the scenes.

    Args:
        locations: One name per scene.
        share: Share of the locations, rounded, but at least one, and never the last.
        seed: Another seed, another choice.
    """
    names = sorted(set(locations), key=lambda name: _hash(f"{seed}|{name}"))
    count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
    chosen = set(names[:count])
    return np.array([name in chosen for name in locations], dtype=bool)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
