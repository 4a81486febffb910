"""Distances of two dates: the cosine, and what one date does not say of the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_world import chips_of, made_on, world

from eofm.geo.cells import cells_of
from eofm.geo.change_distance import LinearRule, distances
from eofm.geo.embeddings import PatchGrid, patch_grid


def date(seed: int, size: tuple[int, int] = (64, 64)) -> PatchGrid:
    """The same ground at a date of its own."""
    patches, _ = world(size=size)
    vectors = patches.stored.to_numpy()
    noise = 0.3 * np.random.default_rng(1000 + seed).normal(size=vectors.shape)
    return patch_grid((vectors + noise).astype(np.float32), patches.grid, made_on(1000 + seed))


def unit_vectors(patches: PatchGrid) -> np.ndarray:
    """Unit vectors of all cells, in float64."""
    vectors = np.moveaxis(patches.array.to_numpy(), 0, -1).reshape(-1, patches.dim).astype(float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_the_distance_is_that_of_the_definition(seed: int) -> None:
    """1 - cosine, counted in float64; never below 0, NaN where one date has no vector."""
    one, other = date(seed), date(seed + 1)
    found = distances(cells_of(one), cells_of(other)).cosine
    a, b = unit_vectors(one), unit_vectors(other)

    assert np.allclose(1 - (a * b).sum(1), found, rtol=1e-5, atol=0, equal_nan=True)
    assert 0 == np.nanmax(distances(cells_of(one), cells_of(one)).cosine)


def slowly_predicted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`y` from `x` cell by cell: ordinary least squares of repeated, reweighted rows."""
    kept = min(max(len(x) // 20, 2), 32, x.shape[1])
    _, _, rows = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    known = np.hstack([(x - x.mean(axis=0)) @ rows[:kept].T, np.ones((len(x), 1))])
    weights = np.ones(len(x))
    for _ in range(4):
        root = np.sqrt(weights)[:, None]
        fitted, *_ = np.linalg.lstsq(known * root, y * root, rcond=None)
        off = [float(((y[n] - known[n] @ fitted) ** 2).sum()) for n in range(len(x))]
        weights = np.array([min(1.0, float(np.median(off)) / one) for one in off])
    return np.asarray(known @ fitted)


@pytest.mark.parametrize("rows", [3, 6, 16, 40])
def test_what_is_unexplained_is_that_of_a_slow_regression(rows: int) -> None:
    """Both ways, of few cells (two directions) and of many (all sixteen); chips as patches."""
    one, other = date(1, (rows, 12)), date(2, (rows, 12))
    found = distances(cells_of(one), cells_of(other)).unexplained
    there = one.valid.ravel() & other.valid.ravel()
    x, y = unit_vectors(one)[there], unit_vectors(other)[there]
    expected = ((y - slowly_predicted(x, y)) ** 2).sum(1) / 4
    expected += ((x - slowly_predicted(y, x)) ** 2).sum(1) / 4

    assert np.allclose(expected, found[there], rtol=1e-3)
    assert np.isnan(found[~there]).all()
    chips = [cells_of(chips_of(patches)) for patches in (one, other)]
    assert np.allclose(expected, distances(*chips).unexplained, rtol=1e-3)


def test_a_change_does_not_become_the_rule() -> None:
    """A tenth of the cells goes elsewhere: the rule of the rest is that without them."""
    random = np.random.default_rng(0)
    x, turn = random.normal(size=(4000, 8)), random.normal(size=(8, 8))
    y = x @ turn + 0.01 * random.normal(size=x.shape)
    new = y.copy()
    new[:400] = 20 + 5 * random.normal(size=(400, 8))
    rest = x[400:].astype(np.float32)
    off = [np.abs(LinearRule.learn(x, one)(rest) - y[400:]).mean() for one in (y, new)]

    assert off[0] < 0.02
    assert off[1] < 0.05


def test_vectors_of_the_caller_stay_as_they_are() -> None:
    """Vectors are brought to unit length in a copy."""
    one, other = date(1), date(2)
    before = one.stored.to_numpy().copy()
    distances(cells_of(one), cells_of(other))

    assert np.array_equal(before, one.stored.to_numpy(), equal_nan=True)
