"""The order of images: nothing twice, nothing lost, and the same after a stop; seasons in pairs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.errors import ConfigError
from eofm.loading.sampler import (
    EpochSampler,
    Pool,
    Seasons,
    epoch_rows,
    rarity_factors,
    repeated_rows,
    replay_count,
    replayed_rows,
    season_pairs,
    steps_per_epoch,
    stream_rows,
)
from eofm.store.choice import held_out

SEEDS = st.integers(0, 2**31)
EPOCHS = st.integers(0, 10)


@given(st.integers(1, 200), EPOCHS, SEEDS, st.integers(1, 4), st.integers(1, 6), st.data())
def test_every_row_once(n_rows, epoch, seed, world, batch, data) -> None:
    """All ranks together read each row at most once, and leave less than a step."""
    if n_rows < world * batch:
        with pytest.raises(ConfigError, match="fewer rows than one step"):
            epoch_rows(n_rows, epoch, seed, 0, world, batch)
        return
    ranks = [epoch_rows(n_rows, epoch, seed, rank, world, batch) for rank in range(world)]
    steps = steps_per_epoch(n_rows, world, batch)
    read = np.concatenate(ranks).ravel().tolist()

    assert {(steps, batch)} == {rows.shape for rows in ranks}
    assert len(set(read)) == len(read) == steps * world * batch
    assert set(read) <= set(range(n_rows))
    assert n_rows - len(read) < world * batch
    start = data.draw(st.integers(0, steps + 1))
    for rank, rows in enumerate(ranks):
        resumed = epoch_rows(n_rows, epoch, seed, rank, world, batch, start_step=start)
        assert rows[start:].tolist() == resumed.tolist()


@given(st.integers(24, 100), EPOCHS, SEEDS)
def test_a_step_does_not_depend_on_the_ranks(n_rows: int, epoch: int, seed: int) -> None:
    """One process of 12 reads in a step what 2 of 6 or 4 of 3 read."""
    alone = epoch_rows(n_rows, epoch, seed, batch=12)
    for world, batch in ((2, 6), (4, 3)):
        together = [epoch_rows(n_rows, epoch, seed, rank, world, batch) for rank in range(world)]
        assert alone.tolist() == np.concatenate(together, axis=1).tolist()


def test_epochs_and_seeds_differ() -> None:
    """Another epoch or seed is another order; the same is the same."""
    orders = [epoch_rows(50, e, s, batch=50)[0].tolist() for e, s in ((0, 0), (1, 0), (0, 1))]

    assert 3 == len({tuple(order) for order in orders})
    assert orders[0] == epoch_rows(50, 0, 0, batch=50)[0].tolist()
    order = np.random.default_rng([0, 1]).permutation(50)
    assert order.tolist() == orders[1]  # the order is documented, and other code may rely on it


@pytest.mark.parametrize(
    "wrong", [{"rank": 2}, {"rank": -1}, {"batch": 0}, {"start_step": -1}, {"epoch": -1}]
)
def test_out_of_range(wrong: dict[str, int]) -> None:
    """A rank that is not there is an error, not an empty or a doubled share."""
    with pytest.raises(ConfigError, match="out of range"):
        epoch_rows(**{"n_rows": 100, "epoch": 0, "seed": 0, "rank": 0, "world": 2, **wrong})


def test_rare_classes_come_more_often() -> None:
    """The formula of the paper, on numbers worked out by hand."""
    hot = np.zeros((100, 3))
    hot[:, 0] = 1
    hot[:4, 1] = 1  # in 4 % of the labelled images
    hot[:1, 2] = 1  # in 1 %
    factors = rarity_factors(hot, np.ones(100, bool), threshold=0.16)

    assert [4.0, 2.0, 2.0, 2.0] == factors[:4].tolist()
    assert {1.0} == set(factors[4:].tolist())


def test_unlabelled_images_come_once() -> None:
    """What stands in the labels of an image that is not known counts for nothing."""
    hot = np.array([[1, 0], [1, 0], [1, 1]])
    factors = rarity_factors(hot, [True, False, False], threshold=1.0)

    assert [1.0, 1.0, 1.0] == factors.tolist()
    assert 0 == len(rarity_factors(np.zeros((0, 2)), np.zeros(0, bool)))
    assert [1.0] == rarity_factors(np.zeros((1, 0)), [True]).tolist()
    with pytest.raises(ConfigError, match="share"):
        rarity_factors(hot, [True] * 3, threshold=2)


@given(st.lists(st.floats(1, 6), max_size=20), EPOCHS, SEEDS)
def test_rows_are_repeated(factors: list[float], epoch: int, seed: int) -> None:
    """Each row comes as often as its factor says, rounded down or up."""
    rows = repeated_rows(factors, epoch, seed)
    times = Counter(rows.tolist())

    assert sorted(rows.tolist()) == rows.tolist()
    for row, factor in enumerate(factors):
        assert np.floor(factor) <= times[row] <= np.ceil(factor)


def test_fractions_even_out() -> None:
    """Over many epochs a factor of 1.25 is one and a quarter."""
    rows = sum(len(repeated_rows([1.25] * 100, epoch, 0)) for epoch in range(40))

    assert 1.25 == pytest.approx(rows / 4000, abs=0.03)


@given(st.integers(1, 30), SEEDS, st.integers(0, 100), st.integers(0, 100), st.integers(0, 50))
def test_stream(n_rows: int, seed: int, start: int, count: int, cut: int) -> None:
    """Any piece of the stream is that piece of one long stream, and rounds are permutations."""
    cut = min(cut, count)
    piece = stream_rows(n_rows, seed, start, count)
    parts = [
        stream_rows(n_rows, seed, start, cut),
        stream_rows(n_rows, seed, start + cut, count - cut),
    ]
    whole = stream_rows(n_rows, seed, 0, 3 * n_rows).reshape(3, n_rows)

    assert count == len(piece)
    assert piece.tolist() == np.concatenate(parts).tolist()
    assert [list(range(n_rows))] * 3 == np.sort(whole).tolist()


@given(st.integers(20, 80), st.integers(1, 30), st.sampled_from([0.0, 0.25, 0.5]), SEEDS, st.data())
def test_replay(n_rows: int, n_replay: int, share: float, seed: int, data) -> None:
    """New rows once an epoch; replayed ones evenly over epochs and ranks; resumable anywhere."""
    world, batch = 2, 4
    old = replay_count(batch, share)
    epochs = [
        [replayed_rows(n_rows, n_replay, share, epoch, seed, rank, world, batch) for rank in (0, 1)]
        for epoch in range(3)
    ]
    for ranks in epochs:
        new = np.concatenate([rows[:, : batch - old] for rows in ranks]).ravel()
        assert len(set(new.tolist())) == len(new)
        assert new.max() < n_rows
    replayed = [rows[:, batch - old :].ravel() for ranks in epochs for rows in ranks]
    times = Counter((np.concatenate(replayed) - n_rows).tolist())
    counts = [times[row] for row in range(n_replay)]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == sum(times.values())
    step = data.draw(st.integers(0, len(epochs[1][1])))
    resumed = replayed_rows(n_rows, n_replay, share, 1, seed, 1, world, batch, start_step=step)
    assert epochs[1][1][step:].tolist() == resumed.tolist()


@pytest.mark.parametrize("share", [-0.1, 1.0, 0.9])
def test_replay_leaves_room(share: float) -> None:
    """A batch without a new image is refused."""
    with pytest.raises(ConfigError, match="no space"):
        replay_count(4, share)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), EPOCHS, SEEDS, st.booleans())
def test_two_seasons(locations: list[str], epoch: int, seed: int, fixed: bool) -> None:
    """One pair for every place, of that place, and of two different rows where there are two."""
    pairs = season_pairs(locations, epoch, seed, fixed=fixed)

    assert sorted(set(locations)) == [locations[a] for a, _ in pairs]
    for a, b in pairs.tolist():
        assert locations[a] == locations[b]
        assert (a != b) == (locations.count(locations[a]) > 1)


def test_fixed_and_random_seasons() -> None:
    """Fixed pairs stay over epochs; random ones use all four seasons in time, in both orders."""
    locations = [f"p{i // 4}" for i in range(40)]
    fixed = {season_pairs(locations, e, 0, fixed=True).tobytes() for e in range(5)}
    drawn = np.stack([season_pairs(locations, e, 0, fixed=False) for e in range(60)])

    assert 1 == len(fixed)
    assert 12 == len({(a, b) for a, b in drawn[:, 3].tolist()})
    again = season_pairs(locations, 7, 0, fixed=False)
    assert drawn[7].tolist() == again.tolist()


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), SEEDS)
def test_whole_places_are_held_out(locations: list[str], seed: int) -> None:
    """No place is on both sides, and the last one stays."""
    outside = held_out(locations, 0.3, seed)
    inside = {p for p, out in zip(locations, outside, strict=True) if not out}

    assert inside
    assert inside.isdisjoint(p for p, out in zip(locations, outside, strict=True) if out)


def pool_of(count: int, first: int = 0) -> Pool:
    """Rows first, first + 1, ..., each an item."""
    return Pool(np.arange(first, first + count))


@given(st.integers(1, 50), st.integers(1, 8), st.integers(0, 3))
def test_an_epoch_has_no_row_twice(count: int, batch: int, epoch: int) -> None:
    """Every batch is full, and no row of an epoch comes twice."""
    if count < batch:
        return
    batches = EpochSampler(pool_of(count, 100), batch, seed=1)

    rows = batches.rows(epoch)

    assert (len(batches), batch) == rows.shape
    assert count // batch == len(batches)
    assert len(set(rows.ravel().tolist())) == rows.size
    assert set(rows.ravel().tolist()) <= set(range(100, 100 + count))


def test_the_order_of_plain_crops_is_the_permutation_of_numpy() -> None:
    """Seed and epoch decide, as they did in the first runs of this package."""
    order = np.random.default_rng([3, 2]).permutation(20)

    assert order.reshape(5, 4).tolist() == EpochSampler(pool_of(20), 4, 3).rows(2).tolist()


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

    def batches(rank: int, world: int) -> EpochSampler:
        return EpochSampler(pool, 8 // world, 5, replay=old, share=share, rank=rank, world=world)

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
    batches = EpochSampler(Pool(10 + np.arange(len(places)), tuple(places)), 2, 0)

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
    batches = EpochSampler(pool, 10, 0)
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
    batches = EpochSampler(Pool(np.arange(400), factors=factors), 20, 0)

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
    batches = EpochSampler(pool_of(24), 8, 0, replay=pool_of(10, 24), share=0.25)

    rows = np.concatenate([batches.rows(epoch) for epoch in range(5)])

    assert 4 == len(batches)
    assert (rows[:, :6] < 24).all()
    assert (rows[:, 6:] >= 24).all()
    times = Counter(rows[:, 6:].ravel().tolist())
    assert {4} == set(times.values())  # 5 epochs x 4 steps x 2 images of 10
    assert 10 == len(times)
