"""The rows of an epoch: nothing twice, seasons in pairs, rare classes often, a share replayed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.loading.sampler import EpochBatches, Pool, Seasons, rarity_factors


def pool_of(count: int, first: int = 0) -> Pool:
    """Rows first, first + 1, ..., each an item."""
    return Pool(np.arange(first, first + count))


@given(st.integers(1, 50), st.integers(1, 8), st.integers(0, 3))
def test_an_epoch_has_no_row_twice(count: int, batch: int, epoch: int) -> None:
    """Every batch is full, and no row of an epoch comes twice."""
    if count < batch:
        return
    batches = EpochBatches(pool_of(count, 100), batch, seed=1)

    rows = batches.rows(epoch)

    assert (len(batches), batch) == rows.shape
    assert count // batch == len(batches)
    assert len(set(rows.ravel().tolist())) == rows.size
    assert set(rows.ravel().tolist()) <= set(range(100, 100 + count))


def test_the_order_of_plain_crops_is_the_permutation_of_numpy() -> None:
    """Seed and epoch decide, as they did in the first runs of this package."""
    order = np.random.default_rng([3, 2]).permutation(20)

    assert order.reshape(5, 4).tolist() == EpochBatches(pool_of(20), 4, 3).rows(2).tolist()


POOLS = {
    "crops": pool_of(24),
    "rarity": Pool(np.arange(24), factors=1 + np.arange(24) / 8),
    "seasons": Pool(np.arange(72), tuple(str(i // 3) for i in range(72))),
    "both": Pool(np.arange(72), tuple(str(i // 3) for i in range(72)), factors=np.arange(72) / 9),
}


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("kind", POOLS)
def test_an_order_can_be_entered_at_any_step_and_shared_out(kind: str, replay: bool) -> None:
    """From step t on it is what it would have been; two ranks together read what one does."""
    pool = POOLS[kind]
    old = None
    if replay:
        old = Pool(100 + np.arange(30), None if pool.places is None else ("a", "b", "c") * 10)
    share = 0.5 if replay else 0.0

    def batches(rank: int, world: int) -> EpochBatches:
        return EpochBatches(pool, 8 // world, 5, replay=old, share=share, rank=rank, world=world)

    alone = batches(0, 1)
    for epoch in (0, 3):
        rows = alone.rows(epoch)
        assert (len(alone), alone.images) == rows.shape
        for step in range(len(alone) + 1):
            assert rows[step:].tolist() == alone.rows(epoch, step).tolist()
        halves = [batches(rank, 2).rows(epoch) for rank in range(2)]
        assert halves[0].shape == halves[1].shape
        both = np.concatenate(halves, axis=1)
        assert np.sort(rows, axis=1).tolist() == np.sort(both, axis=1).tolist()


def test_two_seasons_of_every_place() -> None:
    """Halves of a batch are two rows of the same places; a place seen once meets itself."""
    places = [name for i, name in enumerate("abcdefgh") for _ in range(i % 4 + 1)]
    batches = EpochBatches(Pool(10 + np.arange(len(places)), tuple(places)), 2, 0)

    seen: dict[str, set[frozenset[int]]] = {}
    for epoch in range(40):
        rows = batches.rows(epoch)
        assert (4, 4) == rows.shape
        first, second = rows[:, :2].ravel() - 10, rows[:, 2:].ravel() - 10
        assert sorted("abcdefgh") == sorted(places[i] for i in first)
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            assert places[one] == places[other]
            assert (one == other) == (places.count(places[one]) == 1)
            seen.setdefault(places[one], set()).add(frozenset((one, other)))
    # a place of n seasons has n (n - 1) / 2 pairs, and all are drawn
    assert {"a": 1, "b": 1, "c": 3, "d": 6} == {name: len(seen[name]) for name in "abcd"}


def test_fixed_seasons_are_the_same_two() -> None:
    """Another epoch has another order of the same pairs."""
    pool = Pool(np.arange(40), tuple(str(i // 4) for i in range(40)), seasons=Seasons.FIXED)
    batches = EpochBatches(pool, 10, 0)
    epochs = [batches.rows(epoch)[0] for epoch in (0, 1)]

    pairs = [set(zip(rows[:10].tolist(), rows[10:].tolist(), strict=True)) for rows in epochs]
    assert pairs[0] == pairs[1]
    assert epochs[0].tolist() != epochs[1].tolist()


def test_independent_seasons_may_be_the_same() -> None:
    """Two draws on their own: each season of four comes as often, and equal ones in a quarter."""
    places = (*(str(i // 4) for i in range(400)), "alone")
    pool = Pool(np.arange(401), places, seasons=Seasons.INDEPENDENT)
    items = np.stack([pool.items(epoch, 3) for epoch in range(50)])

    assert (50, 101, 2) == items.shape
    assert (items[..., 0] // 4 == items[..., 1] // 4).all()
    assert [400, 400] == items[0, -1].tolist()
    seasons = items[:, :100] % 4
    assert pytest.approx(0.25, abs=0.02) == (seasons[..., 0] == seasons[..., 1]).mean()
    for season in range(4):
        assert pytest.approx(0.25, abs=0.02) == (seasons == season).mean()
    assert pool.items(7, 3).tolist() == items[7].tolist()
    assert pool.items(7, 4).tolist() != items[7].tolist()


def test_rare_classes_come_more_often_and_epochs_stay_as_long() -> None:
    """Scenes come in proportion to their factors: sqrt(10) for those of a class of 1 %."""
    hot = np.zeros((400, 2))
    hot[:, 0] = 1
    hot[:4, 1] = 1
    factors = rarity_factors(hot, np.ones(400, bool))
    assert pytest.approx(10**0.5) == factors[0]
    batches = EpochBatches(Pool(np.arange(400), factors=factors), 20, 0)

    counts = Counter(int(row) for epoch in range(300) for row in batches.rows(epoch).ravel())

    assert 20 == len(batches)
    assert 300 * 400 == sum(counts.values())
    rare = np.mean([counts[i] for i in range(4)]) / 300
    assert pytest.approx(10**0.5 / factors.mean(), rel=0.03) == rare
    common = np.mean([counts[i] for i in range(4, 400)]) / 300
    assert pytest.approx(1 / factors.mean(), rel=0.01) == common


def test_a_place_is_as_rare_as_its_rarest_season() -> None:
    """With seasons as views the factor of a place is the largest of its scenes'."""
    pool = Pool(np.arange(6), ("a", "a", "b", "b", "c", "c"), factors=np.array([1, 3, 1, 1, 1, 2]))
    times = Counter(
        int(pair[0]) // 2 for epoch in range(3000) for pair in pool.items(epoch, 0).tolist()
    )

    # of the six lines 3 + 1 + 2 an epoch keeps three
    assert pytest.approx([1.5, 0.5, 1.0], rel=0.06) == [times[i] / 3000 for i in range(3)]


def test_a_share_of_each_batch_is_replayed() -> None:
    """Two of eight come from the second pool, in turn, and the epoch is longer accordingly."""
    batches = EpochBatches(pool_of(24), 8, 0, replay=pool_of(10, 24), share=0.25)

    rows = np.concatenate([batches.rows(epoch) for epoch in range(5)])

    assert 4 == len(batches)
    assert (rows[:, :6] < 24).all()
    assert (rows[:, 6:] >= 24).all()
    times = Counter(rows[:, 6:].ravel().tolist())
    assert {4} == set(times.values())  # 5 epochs x 4 steps x 2 images of 10
    assert 10 == len(times)
