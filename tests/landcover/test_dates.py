"""Periods, and dates in file names."""

from __future__ import annotations

import pytest

from eofm.errors import ConfigError, LabelError
from eofm.landcover.maps import DatePattern, Period


@pytest.mark.parametrize(
    ("pattern", "name", "period"),
    [
        ("%Y%m%d", "20200607T100031_20200607T100642_T32TQM.tif", "2020-06-07"),
        ("_%Y_", "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif", "2021-01-01/2021-12-31"),
        ("%Y", "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif", "2021-01-01/2021-12-31"),
        ("%Y-%m", "lulc-2020-02.tif", "2020-02-01/2020-02-29"),
        ("%Y%j", "A2021032.tif", "2021-02-01"),
        ("_%Y%m%dT%H%M%S_", "a_20210601T102021_b_99991301T000000_.tif", "2021-06-01T10:20:21"),
        ("a.%Y", "axa.2019.tif", "2019-01-01/2019-12-31"),
    ],
)
def test_dates_in_names(pattern: str, name: str, period: str) -> None:
    """A pattern finds the date where it stands, and nowhere else."""
    assert period == str(DatePattern(pattern).find(name))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("%Y%m%d", "map.tif"),
        ("%Y%m%d", "map_202101011.tif"),  # nine digits are no date
        ("%Y%m%d", "20210101_20210102.tif"),
        ("%Y%m%d", "20211301.tif"),
    ],
)
def test_names_without_one_date(pattern: str, name: str) -> None:
    """No date, or two, are an error which names the file."""
    with pytest.raises(LabelError, match="does not tell one date") as caught:
        DatePattern(pattern).find(name)

    assert name == caught.value.where


@pytest.mark.parametrize("pattern", ["", "map", "%m%d", "%Y%d", "%Y%y", "%Y%H"])
def test_bad_pattern(pattern: str) -> None:
    """A pattern without a year, with holes, or with other directives is refused."""
    with pytest.raises(ConfigError, match="no pattern of a date"):
        DatePattern(pattern)


@pytest.mark.parametrize(
    ("one", "other", "gap"),
    [
        ("2021-06-01", "2021-06-01T23:59:00", 0.0),
        ("2021-06-01", "2021-06-04", 2.0),  # from midnight to midnight
        ("2021-01-01/2021-12-31", "2021-06-01", 0.0),
        ("2021-01-01/2021-12-31", "2022-01-11T12:00:00", 10.5),
        ("2021-06-01T00:00:00Z", "2021-06-01T02:00:00+02:00", 0.0),
        ("2021-06-01T12:00:00", "2021-05-31T00:00:00", 1.5),
    ],
)
def test_gaps(one: str, other: str, gap: float) -> None:
    """Gaps are days between the nearest ends, the same both ways, in UTC."""
    first, second = Period.parse(one), Period.parse(other)

    assert gap == first.gap_days(second) == second.gap_days(first)


@pytest.mark.parametrize("text", ["2021-06-01", "2021-06-01/2021-06-30", "2021-06-01T10:20:30"])
def test_text_and_back(text: str) -> None:
    """What a period is written as can be read again."""
    assert text == str(Period.parse(text))
