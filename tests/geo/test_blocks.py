"""Variogram and folds, against fields whose range is known and by their own promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.errors import ConfigError, LabelError
from eofm.geo.mapping.blocks import make_folds, variogram


def patchwork(side: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places on a lattice of 100 m, and vectors that are one within squares of a side."""
    random = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(60), np.arange(60)), axis=-1).reshape(-1, 2) * 100.0
    square = np.floor((xy + random.uniform(0, side, 2)) / side).astype(int)
    square -= square.min(axis=0)
    means = random.normal(size=(*(square.max(axis=0) + 1), 8))
    vectors = means[square[:, 0], square[:, 1]] + 0.1 * random.normal(size=(len(xy), 8))
    return xy, vectors.astype(np.float32)


def test_the_range_is_that_of_the_field() -> None:
    """Squares of 500 m and of 1500 m, whose vectors are independent, are told by the range."""
    for side in (500, 1000, 1500):
        ranges = [variogram(*patchwork(side, seed)).range for seed in range(3)]

        # the variogram of squares reaches its plateau at their diagonal, 95 % of it near the side
        assert 0.6 * side < np.median(ranges) < 1.3 * side


def test_the_semivariance_is_that_of_all_pairs() -> None:
    """Each lag holds half the mean square of the differences of its pairs, counted one by one."""
    random = np.random.default_rng(0)
    xy, x = random.uniform(0, 1000, (60, 2)), random.normal(size=(60, 3)).astype(np.float32)
    found = variogram(xy, x)

    z = (x - x.mean(0)) / x.std(0)
    width = found.lags[1] - found.lags[0]
    pairs: dict[int, list[float]] = {}
    far: list[float] = []
    for i in range(60):
        for j in range(i):
            lag = int(np.hypot(*(xy[i] - xy[j])) / width)
            value = float(((z[i] - z[j]) ** 2).mean() / 2)
            pairs.setdefault(lag, []).append(value)
            far += [value] if 10 <= lag < 20 else []
    for lag in range(20):
        if lag in pairs:
            assert np.isclose(np.mean(pairs[lag]) / np.mean(far), found.semivariance[lag])


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 40), st.integers(2, 4), st.floats(100, 4000), st.integers(0, 99))
def test_folds_never_part_a_square(polygons, classes, side, seed) -> None:
    """Polygons of one square share a fold, and there are two folds or more."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 5000, (polygons, 2))
    labels = random.integers(0, classes, polygons)
    found = make_folds(centres, labels, np.ones(polygons, int), side, 5, stated=False)

    assert 2 <= found.count <= 5
    for block in np.unique(found.of_block):
        assert 1 == len(np.unique(found.of_polygon[found.of_block == block]))
    square = np.floor((centres - centres.min(0)) / found.side)
    same = (square[:, None] == square).all(-1)
    assert np.array_equal(same, found.of_block[:, None] == found.of_block)


def test_a_class_with_two_polygons_is_parted() -> None:
    """A side that was not stated shrinks until such a class lies in two folds, and says so."""
    centres = np.array([[0.0, 0], [300, 0], [4000, 4000], [4100, 0], [0, 4100]])
    labels = np.array([0, 0, 1, 1, 1])
    found = make_folds(centres, labels, np.ones(5, int), 1000, 3, stated=False)

    assert found.of_polygon[0] != found.of_polygon[1]
    assert found.side < 300
    assert "vectors resemble each other up to 1000 m" in found.notes[0]


def test_one_square_is_refused_and_the_remedy_parts_it() -> None:
    """A stated side that holds all polygons is refused; the side that is named works."""
    centres = np.array([[0.0, 0], [300, 0], [0, 900], [800, 800]])
    labels, cells = np.array([0, 0, 1, 1]), np.ones(4, int)
    with pytest.raises(ConfigError, match="one square") as caught:
        make_folds(centres, labels, cells, 5000, 5, stated=True)

    side = float(str(caught.value.remedy).rpartition("--block ")[2])
    assert make_folds(centres, labels, cells, side, 5, stated=True).count > 1


def test_one_polygon_is_no_map() -> None:
    """With one polygon there is nothing to test on."""
    with pytest.raises(LabelError, match="two polygons"):
        make_folds(np.zeros((1, 2)), np.zeros(1, int), np.ones(1, int), 100, 5, stated=False)


def test_classes_are_spread_over_the_folds() -> None:
    """Of ten squares for each of three classes, five folds hold two of each."""
    random = np.random.default_rng(3)
    centres = np.stack([np.arange(30) * 1000.0, np.zeros(30)], axis=1)
    labels = random.permutation(np.arange(30) % 3)
    found = make_folds(centres, labels, np.ones(30, int), 500, 5, stated=True)

    table = np.zeros((5, 3), int)
    np.add.at(table, (found.of_polygon, labels), 1)
    assert {2} == set(table.ravel().tolist())
