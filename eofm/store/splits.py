"""Dividing samples into splits by their names. Standard library only.

No random numbers are drawn here: samples are sorted by the sha256 of their ids, which
looks random, is the same on every machine and with every library version, does not depend on the
order of files, and nests (the first 1 % are part of the first 5 %). To draw with a generator
instead is how a "10 % subset" of the literature came to hold 9.54 % of the samples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

__all__ = ["SHARES", "SPLITS", "by_hash", "by_value", "hash_order", "hold_out", "subset_hash"]

SPLITS: Final = ("train", "val", "test")
SHARES: Final = (Fraction(3, 5), Fraction(1, 5), Fraction(1, 5))


def hash_order(ids: Iterable[str], dataset: str, seed: int = 0) -> list[str]:
    """Return `ids` in the order of sha256("{dataset}|{seed}|{id}")."""

    def key(name: str) -> str:
        return hashlib.sha256(f"{dataset}|{seed}|{name}".encode()).hexdigest()

    return sorted(ids, key=key)


def subset_hash(ids: Iterable[str]) -> str:
    """Return the sha256 of a set of ids, whatever their order: it names a split in a record."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def by_value(values: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Cut ids, sorted by a value, into 60 % train, 20 % val and 20 % test.

    Args:
        values: Id -> value: a longitude makes a spatial split, from west to east. Equal values
            go by id.
    """
    return _cut(sorted(values, key=lambda name: (values[name], name)))


def by_hash(groups: Mapping[str, Sequence[str]], dataset: str) -> dict[str, tuple[str, ...]]:
    """Cut each group of ids by hash into 60 % train, 20 % val and 20 % test.

    Args:
        groups: Class -> ids.
        dataset: Name that goes into the hash.
    """
    parts = [_cut(hash_order(groups[name], dataset)) for name in sorted(groups)]
    return {split: tuple(i for part in parts for i in part[split]) for split in SPLITS}


def hold_out(
    groups: Mapping[str, Sequence[str]], dataset: str, share: Fraction = Fraction(1, 5)
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take a share of each group by hash, at least one id of a group of two or more.

    Returns:
        The ids that stay and those taken.
    """
    stay: list[str] = []
    taken: list[str] = []
    for name in sorted(groups):
        order = hash_order(groups[name], dataset)
        count = min(math.ceil(share * len(order)), len(order) - 1)
        taken += order[:count]
        stay += order[count:]
    return tuple(stay), tuple(taken)


def _cut(order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    first = round(SHARES[0] * len(order))
    second = first + round(SHARES[1] * len(order))
    return {
        "train": tuple(order[:first]),
        "val": tuple(order[first:second]),
        "test": tuple(order[second:]),
    }
