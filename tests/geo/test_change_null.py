"""What is usual, and the threshold above it: beside a slow version that loops over cells."""

from __future__ import annotations

import numpy as np
import pytest
from vector_world import chips_of, made_on, world

from eofm.geo.cells import cells_of
from eofm.geo.change_distance import Distances, distances
from eofm.geo.change_null import LONGER, scores
from eofm.geo.embeddings import PatchGrid, patch_grid

SIZE = (12, 15)


def date(seed: int) -> PatchGrid:
    """The same ground at a date of its own; some cells move more than others at every date."""
    patches, _ = world(size=SIZE)
    vectors = patches.stored.to_numpy()
    restless = np.exp(np.random.default_rng(5).normal(size=SIZE))
    noise = 0.2 * restless * np.random.default_rng(seed).normal(size=vectors.shape)
    return patch_grid((vectors + noise).astype(np.float32), patches.grid, made_on(seed))


def slow_excess(found: Distances, window: int) -> np.ndarray:
    """Logarithm of each cell less the median in its window, of every cell there."""
    log = np.log(found.unexplained.astype(float)).reshape(SIZE)
    reach = window // 2
    excess = np.full(SIZE, np.nan)
    for row in range(SIZE[0]):
        for col in range(SIZE[1]):
            near = log[max(0, row - reach) : row + reach + 1, max(0, col - reach) : col + reach + 1]
            excess[row, col] = log[row, col] - np.nanmedian(near)
    return excess.ravel()


def slow_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least squares through the origin, with Cauchy weights."""
    weights = [1.0] * len(x)
    for _ in range(5):
        slope = sum(w * a * b for w, a, b in zip(weights, x, y, strict=True))
        slope /= sum(w * a * a for w, a in zip(weights, x, strict=True))
        slope = max(slope, 0.0)
        spread = 1.4826 * float(np.median([abs(b - slope * a) for a, b in zip(x, y, strict=True)]))
        weights = [1 / (1 + ((b - slope * a) / spread) ** 2) for a, b in zip(x, y, strict=True)]
    return slope


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_scores_are_those_of_a_slow_version(rate: float, dated: bool) -> None:
    """Score and p of every cell, by loops and counting."""
    cells = [cells_of(date(n)) for n in range(1, 5)]
    found = distances(*cells[:2])
    pairs = [(0, 2), (0, 3), (2, 3)] if dated else []
    null = [distances(cells[a], cells[b]) for a, b in pairs]
    told = scores(cells[0], found, null, rate, 7)
    score, p, count = told.score, told.p, told.samples

    excess = slow_excess(found, 7)
    there = np.isfinite(excess)
    assert there.sum() == count
    if dated:
        usual = np.mean([slow_excess(one, 7) for one in null], axis=0)
        excess = excess - slow_slope(usual[there], excess[there]) * usual
        excess -= np.median(excess[there])
    below = sorted(-one for one in excess[there] if one <= 0)
    # the least bound that at most this share of a further cell's is above
    bound = next(
        b
        for k, b in enumerate(below)
        if (len(below) - k) / (len(below) + 1) <= 2 * rate * (1 + 1e-9)
    )
    for one, its_score, its_p in zip(excess[there], score[there], p[there], strict=True):
        reach = one / LONGER if one > 0 else -one
        share = (sum(b >= reach for b in below) + 1) / (2 * (len(below) + 1))
        assert np.isclose(np.exp(one - LONGER * bound), its_score, rtol=1e-4)
        assert np.isclose(share if one > 0 else 1 - share, its_p, atol=0.02)
    assert np.isnan(score[~there]).all()
    assert np.isnan(p[~there]).all()


def test_cells_that_move_more_now_and_less_then_keep_their_score() -> None:
    """A slope below none is none: null dates never make a cell's own movement count twice."""
    cells = cells_of(chips_of(date(1)))
    random = np.random.default_rng(0)
    least = np.zeros(len(cells.valid), np.float32)
    now, then = (
        np.exp(sign * random.normal(size=len(least))).astype(np.float32) for sign in (1, 1)
    )
    then = 1 / now * np.exp(0.01 * np.log(then))
    found, null = (Distances(d, d, least) for d in (now, then.astype(np.float32)))
    alone = scores(cells, found, [], 0.05, 9).score
    dated = scores(cells, found, [null], 0.05, 9).score

    assert np.array_equal(np.argsort(alone), np.argsort(dated))
