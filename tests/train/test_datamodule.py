"""Batches come once per epoch in a seeded order; whole locations are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.data.pack import Store
from eofm.errors import TrainingError
from eofm.train.config import DataConfig
from eofm.train.datamodule import EpochBatches, StoreDataModule, held_out

names = st.lists(st.sampled_from([f"place-{i}" for i in range(20)]), min_size=1, max_size=60)


@given(names, st.floats(0, 0.9), st.integers(0, 5))
def test_a_location_is_never_on_both_sides(places: list[str], share: float, seed: int) -> None:
    """Held out or not is a property of the location; the share is met, and one is always left."""
    outside = held_out(places, share, seed)

    pairs = set(zip(places, outside.tolist(), strict=True))
    sides = {place: {side for name, side in pairs if name == place} for place in places}
    assert all(len(side) == 1 for side in sides.values())
    count = sum(side == {True} for side in sides.values())
    assert abs(count - share * len(sides)) <= 0.5 or count in {1, len(sides) - 1}
    assert (count > 0) == (share > 0 and len(sides) > 1)
    assert count < len(sides)


@given(names, st.integers(0, 5))
def test_the_split_does_not_depend_on_the_order(places: list[str], seed: int) -> None:
    """Reversing the scenes reverses the mask and changes nothing else."""
    forward, backward = held_out(places, 0.3, seed), held_out(places[::-1], 0.3, seed)

    assert forward.tolist() == backward[::-1].tolist()


@given(st.integers(1, 50), st.integers(1, 8), st.integers(0, 3))
def test_an_epoch_has_no_row_twice(count: int, batch: int, epoch: int) -> None:
    """Every batch is full, and no row of an epoch comes twice."""
    sampler = EpochBatches(range(100, 100 + count), batch, seed=1)
    sampler.set_epoch(epoch)

    batches = list(sampler)

    rows = [row for one in batches for row in one]
    assert len(sampler) == len(batches) == count // batch
    assert all(batch == len(one) for one in batches)
    assert len(set(rows)) == len(rows)
    assert batches == list(sampler)


def test_epochs_differ_and_seeds_differ() -> None:
    """The order is a function of seed and epoch."""

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = EpochBatches(range(32), 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_unlabelled_scenes_are_dropped_or_kept(store_path: Path) -> None:
    """`drop` leaves unlabelled scenes out, `hard-only` keeps them; probes never use them."""
    store = Store(store_path)
    drop = StoreDataModule(store, DataConfig(holdout=0.25), 4, 0)
    keep = StoreDataModule(store, DataConfig(holdout=0.25, unlabelled="hard-only"), 4, 0)

    known = store.labels(range(len(store))).known.numpy()
    outside = held_out(store.locations.tolist(), 0.25, 0)
    assert np.flatnonzero(~outside).tolist() == keep.train_rows.tolist()
    assert np.flatnonzero(~outside & known).tolist() == drop.train_rows.tolist()
    for rows in (keep.probe_rows, keep.test_rows, drop.train_rows):
        assert known[rows].all()


def test_batches_stay_native_until_they_are_on_the_device(store_path: Path) -> None:
    """A batch is uint16 planes at 10, 20 and 60 m with its labels."""
    data = StoreDataModule(Store(store_path), DataConfig(holdout=0.25), 4, 0)

    imagery, labels = next(iter(data.train_dataloader()))

    assert {10: (4, 4, 60, 60), 20: (4, 6, 30, 30), 60: (4, 3, 10, 10)} == {
        gsd: tuple(plane.shape) for gsd, plane in imagery.planes.items()
    }
    assert "torch.uint16" == str(imagery.planes[10].dtype)
    assert np.isin(labels.multi_hot.numpy(), (0, 1)).all()


def test_too_small_a_store_says_so(store_path: Path) -> None:
    """The message counts held-out and unlabelled scenes."""
    with pytest.raises(TrainingError, match="fewer training scenes than a batch"):
        StoreDataModule(Store(store_path), DataConfig(), 100, 0)
