"""Counting codes in windows, against a loop of np.unique."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.data.grid import Window
from eofm.data.labels import count
from eofm.data.labels.count import Legend, WindowCounter, count_windows
from eofm.data.labels.strips import strips
from eofm.data.schemes import SCHEMES, Scheme

DW, ESRI = SCHEMES["dynamic-world"], SCHEMES["esri"]


def slow(class_map: np.ndarray, window: int, stride: int, scheme: Scheme) -> np.ndarray:
    """Count window by window and code by code, as the definition says."""
    rows = []
    for top in range(0, class_map.shape[0] - window + 1, stride):
        for left in range(0, class_map.shape[1] - window + 1, stride):
            part = class_map[top : top + window, left : left + window]
            found = dict(
                zip(*map(np.ndarray.tolist, np.unique(part, return_counts=True)), strict=True)
            )
            row = [
                sum(found.get(c, 0) for c, n in scheme.classes.items() if n == name)
                for name in scheme.names
            ]
            row += [sum(found.get(code, 0) for code in scheme.nodata)]
            row += [sum(found.get(code, 0) for code in scheme.cloud)]
            rows.append(row)
    return np.array(rows, np.int64).reshape(-1, len(scheme.names) + 2)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_windows_are_counted(data: st.DataObject) -> None:
    """Odd sizes, strides below and above the window, few and many codes: all as the loop says."""
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 60)))
    window = data.draw(st.integers(1, 20))
    stride = data.draw(st.integers(1, 25))
    scheme = data.draw(st.sampled_from([DW, ESRI]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    few = rng.choice(scheme.codes, data.draw(st.integers(1, len(scheme.codes))), replace=False)
    class_map = rng.choice(few, (height, width)).astype(np.uint8)

    found = count_windows(class_map, window, stride, Legend.of(scheme))

    assert np.array_equal(slow(class_map, window, stride, scheme), found)


@pytest.mark.parametrize("panel_bytes", [1, 60, 200])
def test_windows_over_the_edge_of_a_panel(panel_bytes: int, monkeypatch) -> None:
    """How many columns are copied to the cache at a time does not change a count."""
    monkeypatch.setattr(count, "_PANEL_BYTES", panel_bytes)
    class_map = np.random.default_rng(3).integers(0, 9, (9, 50)).astype(np.uint8)

    for stride in (1, 4, 5, 11):
        found = count_windows(class_map, 5, stride, Legend.of(DW))
        assert np.array_equal(slow(class_map, 5, stride, DW), found)


def test_table_of_codes() -> None:
    """Codes beyond a byte are looked up: the counts are those of the codes themselves."""
    scheme = SCHEMES["corine"]
    class_map = np.random.default_rng(1).choice(scheme.codes, (24, 24)).astype(np.int32)
    legend = Legend.by_table(scheme)

    found = count_windows(legend.encode(class_map), 8, 8, legend)

    assert np.array_equal(slow(class_map, 8, 8, scheme), found)


@pytest.mark.parametrize("code", [-1, 9, 254, 1000, 70_000])
def test_unknown_codes_are_in_no_column(code: int) -> None:
    """A pixel of a code that the scheme does not know is missing from the counts."""
    class_map = np.array([[0, 1], [code, 2]], np.int32)
    legend = Legend.by_table(DW)

    counts = WindowCounter(2, legend).count(legend.encode(class_map), [0])

    assert 3 == counts.sum()
    assert [1, 1, 1] == counts[0, :3].tolist()


def test_codes_with_one_name_are_one_class() -> None:
    """Codes are merged before anything is thresholded."""
    scheme = Scheme("own", {1: "a", 2: "b", 3: "a"}, (0,), (), "test")
    class_map = np.array([[1, 2, 3], [3, 3, 0], [2, 1, 0]], np.uint8)

    assert [[5, 2, 2, 0]] == count_windows(class_map, 3, 3, Legend.of(scheme)).tolist()


def test_nodata_that_the_map_declares() -> None:
    """A map's own nodata value is nodata even where the scheme does not list it."""
    counts = count_windows(np.full((2, 2), 77, np.uint8), 2, 2, Legend.of(DW, 77.0))

    assert [0] * 9 + [4, 0] == counts[0].tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 30), st.integers(1, 50), st.integers(1, 17), st.integers(0, 30))
def test_strips_are_the_map(first: int, height: int, lines: int, keep: int) -> None:
    """Strips come in order, start at whole blocks, and bring exactly the lines asked for."""
    whole = np.random.default_rng(0).integers(0, 250, (90, 7)).astype(np.uint8)
    reads = []

    def read(window: Window, out: np.ndarray) -> None:
        reads.append(window)
        out[...] = whole[window.slices]

    end = first
    for top, found in strips(read, Window(first, 2, height, 4), lines, keep):
        assert np.array_equal(whole[top : top + len(found), 2:6], found)
        assert top == max(first, end - keep)
        end = top + len(found)

    assert first + height == end
    assert all(window.row % lines == 0 for window in reads[1:])
    assert height == sum(window.height for window in reads)  # nothing is read twice
