"""Counting codes in windows, against a loop of np.unique."""

from __future__ import annotations

import sys
from functools import lru_cache
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eofm.landcover import multilabel
from eofm.landcover.multilabel import GridCounter, Legend, WindowCounter, count_windows
from eofm.landcover.schemes import SCHEMES, Scheme
from eofm.landcover.warp import Pieces
from eofm.raster.grid import Window

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
    monkeypatch.setattr(multilabel, "_PANEL_BYTES", panel_bytes)
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


@pytest.fixture(params=["numpy", "compiled"])
def kernel(request) -> multilabel.Kernel | None:
    """Each of the loops that count."""
    if request.param == "numpy":
        return None
    pytest.importorskip("numba")
    return multilabel.load_kernel()


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_loop_on_any_pieces(kernel, data: st.DataObject) -> None:
    """Whatever counts, however the map is cut and in whatever order it comes: counts as the loop.

    Strides that divide the window, as 5 and 10 do 20, are those for which windows share cells.
    """
    height, width = data.draw(st.tuples(st.integers(20, 45), st.integers(20, 60)))
    window = data.draw(st.sampled_from([3, 12, 20]))
    stride = data.draw(st.sampled_from([3, 5, 6, 7, 10, 20, 25]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    class_map = rng.choice([*DW.codes, 99], (height, width)).astype(np.uint8)
    legend = Legend.of(DW)
    tops, lefts = (range(0, size - window + 1, stride) for size in class_map.shape)
    counter = GridCounter(tops, lefts, window, legend, kernel)

    h, w = data.draw(st.tuples(st.integers(1, 45), st.integers(1, 60)))
    corners = [(top, left) for top in range(0, height, h) for left in range(0, width, w)]
    for top, left in data.draw(st.permutations(corners[:40])) + corners[40:]:
        counter.add(top, left, class_map[top : top + h, left : left + w])

    expected = slow(class_map, window, stride, DW).reshape(len(tops), len(lefts), -1)
    assert np.array_equal(expected, counter.counts())


def test_large_windows(kernel) -> None:
    """Windows of more lines and columns than a byte counts, or the first cache holds: all alike."""
    class_map = np.zeros((530, 1100), np.uint8)
    class_map[3:301, 5:700] = 4
    class_map[7::11, ::3] = 8
    counter = GridCounter(range(1), range(0, 571, 570), 530, Legend.of(DW), kernel)

    counter.add(0, 0, class_map)

    assert np.array_equal(
        np.concatenate([slow(class_map[:, c : c + 530], 530, 1, DW) for c in (0, 570)]),
        counter.counts()[0],
    )


def test_compiled_loop_is_optional(monkeypatch) -> None:
    """Without numba there is no compiled loop, and small maps do not ask for it."""
    monkeypatch.setitem(sys.modules, "numba", None)
    fresh = lru_cache(maxsize=1)(multilabel.load_kernel.__wrapped__)
    monkeypatch.setattr(multilabel, "load_kernel", fresh)

    assert multilabel.choose_kernel(1000) is None
    assert 0 == fresh.cache_info().currsize
    assert multilabel.choose_kernel(2**40) is None


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 30),
    st.integers(1, 50),
    st.integers(1, 17),
    st.integers(1, 9),
    st.lists(st.integers(0, 3), max_size=200),
)
def test_pieces_are_the_map(first: int, height: int, lines: int, columns: int, turns: list) -> None:
    """Pieces start at whole blocks, and each pixel is in one of them, whoever takes how many.

    `turns` says which of four threads takes the next piece; then each takes what it finds.
    """
    area = Window(first, 2, height, 6)
    seen = np.zeros((90, 9), np.int64)
    pieces = Pieces(area, lines, columns, 4)
    hands = [pieces.of(thread) for thread in range(4)]

    for window in chain((next(hands[n], None) for n in turns), *hands):
        if window is not None:
            assert window.row in {first, window.row // lines * lines}
            assert window.col in {2, window.col // columns * columns}
            seen[window.slices] += 1

    inside = np.zeros_like(seen)
    inside[area.slices] = 1
    assert np.array_equal(inside, seen)


def test_pieces_of_a_thread_are_below_one_another() -> None:
    """A thread works through its own columns from above, and helps others from below."""
    pieces = Pieces(Window(0, 0, 30, 40), 10, 10, 2)

    assert [(r, c) for r in (0, 10, 20) for c in (0, 10)] == [
        (p.row, p.col) for _, p in zip(range(6), pieces.of(0), strict=False)
    ]
    helped = next(pieces.of(0))
    assert (20, 30) == (helped.row, helped.col)
    pieces.drop()
    assert [] == list(pieces.of(1))
