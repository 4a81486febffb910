"""Places stated by a pattern of names."""

from __future__ import annotations

import pytest

from eofm.datasets.images.places import check_place, place_in
from eofm.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "pattern", "place"),
    [
        ("T32_berlin_20200101", "T32_{place}_*", "berlin"),
        ("T32_north_1_20200101", "T32_{place}_*", "north"),
        ("T32_north_1_20200101", "T32_{place}_????????", "north_1"),
        ("2020/T32_berlin_20200101", "T32_{place}_*", "berlin"),
        ("berlin/20200101", "{place}/*", "berlin"),
        ("berlin/20200101", "*/{place}", "20200101"),
        ("berlin/20200101", "{place}", "20200101"),
        ("a+b(1)_x", "a+b({place})_x", "1"),
        ("T32__20200101", "T32_{place}_20200101", None),
        ("berlin", "T32_{place}_*", None),
        ("axb", "a.{place}", None),
    ],
)
def test_the_place_in_a_name(name: str, pattern: str, place: str | None) -> None:
    """As short as the pattern allows; signs of regular expressions stand for themselves."""
    assert place == place_in(name, pattern)


@pytest.mark.parametrize("pattern", ["", "T32_*", "{place}_{place}"])
def test_a_pattern_names_the_place_once(pattern: str) -> None:
    """None, or two, are refused; the remedy that is printed is a pattern that is accepted."""
    with pytest.raises(ConfigError, match="once") as caught:
        check_place(pattern)

    remedy = str(caught.value.remedy)
    check_place(remedy.split("'")[1])
    check_place(None)
