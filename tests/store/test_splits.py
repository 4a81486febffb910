"""Splits by name: the same everywhere, whatever the order of files."""

from __future__ import annotations

import hashlib
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from eofm.store.splits import SPLITS, by_hash, by_value, hash_order, hold_out, subset_hash

names = st.sets(st.text("abcdefgh0123", min_size=1, max_size=6), max_size=60)


@given(names, st.integers(0, 5))
def test_the_order_is_that_of_sha256(ids: set[str], seed: int) -> None:
    """It can be repeated in any language from the stated formula."""
    expected = sorted(ids, key=lambda i: hashlib.sha256(f"set|{seed}|{i}".encode()).hexdigest())

    assert expected == hash_order(sorted(ids), "set", seed)
    assert expected == hash_order(sorted(ids, reverse=True), "set", seed)


@given(st.dictionaries(st.sampled_from("ABC"), names.filter(len), min_size=1))
def test_every_id_lands_in_one_split(groups: dict[str, set[str]]) -> None:
    """60/20/20 of each class by hash: nothing lost, nothing twice, and no class far from that."""
    unique = {name: [f"{name}_{i}" for i in sorted(ids)] for name, ids in groups.items()}

    parts = by_hash(unique, "set")

    everything = [i for split in SPLITS for i in parts[split]]
    assert sorted(i for ids in unique.values() for i in ids) == sorted(everything)
    for name, ids in unique.items():
        train = sum(i.startswith(f"{name}_") for i in parts["train"])
        assert abs(train - 0.6 * len(ids)) <= 0.5


@given(names)
def test_a_cut_by_value_leaves_no_overlap(ids: set[str]) -> None:
    """Every training sample lies west of every validation sample, and that west of test."""
    place = {name: float(len(name)) for name in ids}

    parts = by_value(place)

    west = [max((place[i] for i in parts[s]), default=-1.0) for s in SPLITS]
    east = [min((place[i] for i in parts[s]), default=99.0) for s in SPLITS]
    assert west[0] <= east[1]
    assert max(west[:2]) <= east[2]
    assert len(ids) == sum(len(parts[s]) for s in SPLITS)


def test_ten_places_are_cut_six_two_two() -> None:
    """60/20/20, in order of the value."""
    parts = by_value({str(i): -float(i) for i in range(10)})

    assert ("9", "8", "7", "6", "5", "4") == parts["train"]
    assert ("3", "2") == parts["val"]
    assert ("1", "0") == parts["test"]


def test_a_fifth_is_held_out_of_each_class() -> None:
    """At least one of two, none of one, so that no class vanishes from training."""
    stay, taken = hold_out({"A": [f"a{i}" for i in range(10)], "B": ["b", "c"], "C": ["d"]}, "set")

    assert 2 == sum(i.startswith("a") for i in taken)
    assert 1 == len({"b", "c"} & set(taken))
    assert "d" in stay
    assert 13 == len(set(stay) | set(taken))


def test_smaller_shares_nest() -> None:
    """What is held out at 10 % is held out at 30 % too."""
    ids = {"A": [str(i) for i in range(50)]}

    small, large = (set(hold_out(ids, "set", Fraction(n, 10))[1]) for n in (1, 3))

    assert small < large


def test_the_name_of_a_subset_ignores_its_order() -> None:
    """Two listings of the same samples have one name, another sample another."""
    assert subset_hash(["a", "b"]) == subset_hash(["b", "a"])
    assert subset_hash(["a", "b"]) != subset_hash(["a", "c"])
