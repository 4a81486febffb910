"""Variogram and folds, against fields whose range is known and by their own promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.errors import ConfigError, LabelError
from eofm.geo.accuracy import BlockFrom, make_folds, variogram


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


def clustered(side: float, *, apart: float = 20_000.0) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters of 900 m each, far from each other, of a field of squares of a side."""
    xy, vectors = patchwork(side)
    first, second = (xy < 1000).all(axis=1), (xy >= 5000).all(axis=1)
    return np.concatenate([xy[first], xy[second] + apart]), vectors[first | second]


def test_clusters_have_no_range_and_a_coarse_block() -> None:
    """Without pairs between the near and the far ones nothing tells the range: half the extent."""
    xy, vectors = clustered(400)
    found = variogram(xy, vectors, 100.0)

    assert not found.known
    # the lags between the clusters are empty
    assert np.isnan(found.semivariance[2:]).all()
    furthest = np.hypot(*np.ptp(xy, axis=0)) / 2
    assert np.isclose(furthest, found.range)
    # a single stray pair in each far lag makes no plateau either
    stray = np.concatenate([xy, np.linspace(xy[0], xy[-1], 8)[1:-1]])
    extra = np.concatenate([vectors, vectors[:6]])
    assert variogram(xy, vectors).known is variogram(stray[:0:-1], extra[:0:-1]).known is False


def test_lags_without_pairs_are_skipped() -> None:
    """Clusters leave a gap between near and far lags: the range is a lag beyond, with pairs."""
    random = np.random.default_rng(0)
    place = np.concatenate([np.linspace(first, first + 300, 40) for first in (0, 1300, 3700)])
    xy = np.stack([place, np.zeros(120)], axis=1)
    own = np.repeat(random.normal(size=(3, 8)), 40, axis=0)
    found = variogram(xy, (own + 0.1 * random.normal(size=(120, 8))).astype(np.float32), 100.0)

    assert found.known
    assert np.isnan(found.semivariance[4:9]).all()
    assert (found.semivariance[:3] < 0.5).all()
    assert 1000 <= found.range <= 1300


def test_no_range_is_below_a_cell() -> None:
    """Vectors without any likeness of neighbours have a range of one cell, not a part of it."""
    xy = np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2) * 100.0
    vectors = np.random.default_rng(0).normal(size=(144, 8)).astype(np.float32)

    assert variogram(xy, vectors).range < 100
    assert 100 == variogram(xy, vectors, 100.0).range
    one = variogram(xy[:1], vectors[:1], 100.0)
    assert (100, False) == (one.range, one.known)


def test_a_side_that_is_not_stated_stays_above_a_cell() -> None:
    """Squares are halved down to a cell; the error of one square names a side that parts them."""
    centres = np.array([[0.0, 0], [30, 0], [400, 0], [420, 0]])
    labels, cells = np.array([0, 0, 1, 1]), np.ones(4, int)
    found = make_folds(centres, labels, cells, 800, 5, source=BlockFrom.VARIOGRAM, cell=100.0)
    assert 100 == found.side
    assert [0, 0, 1, 1] == found.of_block.tolist()

    with pytest.raises(ConfigError, match="one square") as caught:
        make_folds(centres[:2], labels[:2], cells[:2], 800, 5, source=BlockFrom.EXTENT, cell=100.0)
    side = float(str(caught.value.remedy).rpartition("--block ")[2])
    stated = BlockFrom.STATED
    assert 2 == make_folds(centres[:2], labels[1:3], cells[:2], side, 5, source=stated).count


def test_polygons_that_no_square_parts() -> None:
    """A ring around another polygon has its centre: no side is named that would not help."""
    with pytest.raises(LabelError, match="no square separates") as caught:
        make_folds(np.zeros((2, 2)), np.arange(2), np.ones(2, int), 100, 5, source=BlockFrom.STATED)
    assert "draw polygons apart" in str(caught.value.remedy)


def test_squares_that_share_a_polygon_are_one() -> None:
    """Squares with parts of one polygon, and all that lies in them, are held out as one."""
    centres = np.array([[0.0, 0], [950, 0], [900, 0], [1900, 0], [3000, 0], [50, 0]])
    polygons = np.array([0, 0, 1, 1, 2, 3])
    found = make_folds(
        centres, np.array([0, 1, 1, 0]), np.ones(4, int), 500, 5, source=BlockFrom.STATED,
        polygons=polygons,
    )  # fmt: skip

    # 0 and 1 share the square of 900 and 950, and 3 lies in that of the first part of 0
    assert found.of_block[0] == found.of_block[1] == found.of_block[3] != found.of_block[2]
    assert 2 == found.count


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 20), st.floats(100, 2000), st.integers(0, 99))
def test_no_square_holds_parts_of_two_folds(polygons, side, seed) -> None:
    """Whatever the parts: no two folds have parts in one square."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 5000, (2 * polygons, 2))
    centres[polygons:] = centres[:polygons] + random.uniform(-400, 400, (polygons, 2))
    of = np.tile(np.arange(polygons), 2)
    try:
        found = make_folds(
            centres, np.arange(polygons) % 2, np.ones(polygons, int), side, 5,
            source=BlockFrom.STATED, polygons=of,
        )  # fmt: skip
    except ConfigError:
        return
    square = np.floor((centres - centres.min(0)) / side)
    same = (square[:, None] == square).all(-1)
    fold = found.of_polygon[of]
    assert (fold[:, None] == fold)[same].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 40), st.integers(2, 4), st.floats(100, 4000), st.integers(0, 99))
def test_folds_never_part_a_square(polygons, classes, side, seed) -> None:
    """Polygons of one square share a fold, and there are two folds or more."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 5000, (polygons, 2))
    labels = random.integers(0, classes, polygons)
    found = make_folds(centres, labels, np.ones(polygons, int), side, 5, source=BlockFrom.VARIOGRAM)

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
    found = make_folds(centres, labels, np.ones(5, int), 1000, 3, source=BlockFrom.VARIOGRAM)

    assert found.of_polygon[0] != found.of_polygon[1]
    assert found.side < 300
    assert "vectors are similar up to 1000 m" in found.notes[0]


def test_one_square_is_refused_and_the_remedy_parts_it() -> None:
    """A stated side that holds all polygons is refused; the side that is named works."""
    centres = np.array([[0.0, 0], [300, 0], [0, 900], [800, 800]])
    labels, cells = np.array([0, 0, 1, 1]), np.ones(4, int)
    with pytest.raises(ConfigError, match="one square") as caught:
        make_folds(centres, labels, cells, 5000, 5, source=BlockFrom.STATED)

    side = float(str(caught.value.remedy).rpartition("--block ")[2])
    assert make_folds(centres, labels, cells, side, 5, source=BlockFrom.STATED).count > 1


def test_one_polygon_is_no_map() -> None:
    """With one polygon there is nothing to test on."""
    with pytest.raises(LabelError, match="two polygons"):
        make_folds(
            np.zeros((1, 2)), np.zeros(1, int), np.ones(1, int), 100, 5, source=BlockFrom.VARIOGRAM
        )


def test_classes_are_spread_over_the_folds() -> None:
    """Of ten squares for each of three classes, five folds hold two of each."""
    random = np.random.default_rng(3)
    centres = np.stack([np.arange(30) * 1000.0, np.zeros(30)], axis=1)
    labels = random.permutation(np.arange(30) % 3)
    found = make_folds(centres, labels, np.ones(30, int), 500, 5, source=BlockFrom.STATED)

    table = np.zeros((5, 3), int)
    np.add.at(table, (found.of_polygon, labels), 1)
    assert {2} == set(table.ravel().tolist())
