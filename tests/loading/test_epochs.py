"""The order of images: nothing twice, nothing lost, and the same after a stop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.errors import ConfigError
from eofm.loading.sampler import (
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
    with pytest.raises(ConfigError, match="no room"):
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
