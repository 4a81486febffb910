"""Shares of the training labels: nested, without replacement, the same for any order of files."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.bench.records import Sample
from eofm.bench.samples import subsets, whole_split
from eofm.datasets.bigearthnet.chips import first_share
from eofm.datasets.images.chips import Chip
from eofm.errors import ConfigError

CLASSES = ("a", "b", "c")
CHIPS = tuple(Chip(f"chip-{n:03}", n % 3, ()) for n in range(200))


def ids(text: str, draws: int = 1, chips: tuple[Chip, ...] = CHIPS) -> list[set[str]]:
    """The ids of each subset."""
    found = subsets(text, draws, chips, "eurosat", CLASSES)
    return [{chip.id for chip in one.chips} for one in found]


def test_without_settings_all_labels_are_used_once() -> None:
    """However many draws there would be, and under no other name than before."""
    (whole,) = subsets("", 5, CHIPS, "eurosat", CLASSES)

    assert ("", 0) == (whole.words, whole.draw)
    assert CHIPS == whole.chips
    assert "spatial" == whole.rule("spatial")
    assert 1 == len(subsets("100", 5, CHIPS, "eurosat", CLASSES))


@given(st.lists(st.integers(8, 100), min_size=2, max_size=4, unique=True), st.integers(0, 3))
def test_shares_are_nested_and_rounded_up(percents: list[int], draw: int) -> None:
    """The smaller lies within the larger, in every draw; sizes are exact."""
    words = ",".join(map(str, sorted(percents)))

    found = [
        s for s in subsets(words, 4, CHIPS, "eurosat", CLASSES) if s.draw == draw or not s.words
    ]

    sets = sorted(({chip.id for chip in one.chips} for one in found), key=len)
    assert all(small <= large for small, large in pairwise(sets))
    counts = {math.ceil(percent * 200 / 100) for percent in percents}
    assert counts - {200} == {len(one) for one in sets} - {200}


def test_the_order_of_files_does_not_matter_and_draws_differ() -> None:
    """Ids alone decide; another draw takes others."""
    back = tuple(reversed(CHIPS))

    assert ids("10", 3) == ids("10", 3, back)
    one, two, three = ids("10", 3)
    assert 20 == len(one) == len(two) == len(three)
    assert one != two != three


def test_index_points_at_the_images() -> None:
    """Features of a subset are rows of the features of all."""
    (part,) = subsets("25", 1, CHIPS, "eurosat", CLASSES)

    assert [CHIPS[place].id for place in part.index] == [chip.id for chip in part.chips]


def test_shots_take_so_many_of_each_class() -> None:
    """Five of each, within ten of each; of several labels an image counts for each it has."""
    five, ten = ids("5-shot,10-shot")
    assert five <= ten
    labels = Counter(chip.label for chip in CHIPS if chip.id in five)
    assert {0: 5, 1: 5, 2: 5} == labels

    several = tuple(Chip(f"{n}", (0,) if n % 4 else (0, 1), ()) for n in range(40))
    (part,) = subsets("3-shot", 1, several, "x", ("a", "b"))
    count = Counter(k for chip in part.chips for k in chip.label)  # type: ignore[union-attr]
    assert count[1] == 3
    assert 3 <= count[0] <= 6


def test_a_class_without_an_image_is_an_error() -> None:
    """Of single labels: a probe that never saw a class is another task."""
    with pytest.raises(ConfigError, match="without a training image") as caught:
        subsets("1", 5, CHIPS, "eurosat", CLASSES)

    assert "--shares 5-shot" in str(caught.value)


def test_the_first_draw_of_bigearthnet_is_its_shipped_list() -> None:
    """Whatever the sensor and the classes; the record says the same words."""
    train = tuple(Chip(f"patch-{n}", (0,), ()) for n in range(1000))
    listed = set(first_share([chip.id for chip in train], "bigearthnet-v2", 10))

    for task in "bigearthnet-v2-s2", "bigearthnet-v2-s1", "bigearthnet-v2-both":
        first, second = subsets("10", 2, train, task, CLASSES)
        assert listed == {chip.id for chip in first.chips}
        assert "official, 10 % of train" == first.rule("official")
        assert "official, 10 % of train, draw 1" == second.rule("official")


def test_a_split_is_found_again_behind_its_share() -> None:
    """Curves put the shares of one split together."""
    for part in subsets("10,5-shot,100", 2, CHIPS, "eurosat", CLASSES):
        rule = part.rule("given, of which 10 % of train")
        sample = Sample("set", rule, "", "", 1, 1, 1, True, 0, part.words, part.draw)
        assert "given, of which 10 % of train" == whole_split(sample)
