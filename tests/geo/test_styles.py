"""Colours of classes."""

from __future__ import annotations

import math

import pytest

from eofm.geo.results import class_colours, hex_of


def test_land_cover_has_the_colours_of_maps() -> None:
    """Wherever it stands in the list; of two kinds of trees, one has green and one another."""
    colours = class_colours(["solar", "open water", "trees", "urban trees"])

    assert ["#3b7dd8", "#1b7837"] == [hex_of(colours[code]) for code in (2, 3)]
    assert 4 == len(set(colours.values()))


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["dense crops", "forest", "pasture", "ploughed or young", "water"], [4]),
        (["a", "b", "c", "water", "crops", "built"], [1, 2, 3]),
        (["water", "lake water", "river water", "sea water"], [2, 3, 4]),
    ],
)
def test_other_classes_can_be_told_from_land_cover(names: list[str], others: list[int]) -> None:
    """No class has the blue of the palette beside water, or its orange beside crops."""
    colours = class_colours(names)
    for code in others:
        rest = [colour for other, colour in colours.items() if other != code]
        assert min(math.dist(colours[code], colour) for colour in rest) >= 80


def test_many_classes_have_colours_of_their_own() -> None:
    """The codes are 1 to n, and no colour is given twice, whatever the number of classes."""
    for count in (1, 8, 9, 60, 250):
        colours = class_colours([f"class {number}" for number in range(count)])

        assert [*range(1, count + 1)] == [*colours]
        assert count == len(set(colours.values()))
