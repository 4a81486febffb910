"""Batches of a packed store, in an order that is a function of the seed and the epoch.

A batch leaves the store in its native dtype and resolution and is made into float images on the
device (`eofm.preprocess.to_grid`), which is cheaper than moving float32 cubes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from eofm.data.pack import Store
from eofm.errors import TrainingError
from eofm.imagery import Imagery, Labels, NativeImagery
from eofm.preprocess import to_grid
from eofm.train.config import DataConfig

Batch = tuple[NativeImagery, Labels]

WALK_BATCH: Final = 64


def held_out(locations: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Return a bool per scene: whether its location is kept out of training.

    Whole locations are held out: two seasons of one place, or two overlapping windows of one
    image, on both sides of the split would measure memory. Locations are ordered by a hash of
    seed and name, so the choice does not depend on the order of the scenes.

    Args:
        locations: One name per scene.
        share: Share of the locations, rounded, but at least one, and never the last.
        seed: Another seed, another choice.
    """
    names = sorted(set(locations), key=lambda name: _hash(f"{seed}|{name}"))
    count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
    chosen = set(names[:count])
    return np.array([name in chosen for name in locations], dtype=bool)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def walk(store: Store, rows: Sequence[int]) -> Iterator[Imagery]:
    """Yield `rows` of a store in order, in float32 on one grid, in batches of bounded size."""
    for start in range(0, len(rows), WALK_BATCH):
        yield to_grid(store.images(list(rows[start : start + WALK_BATCH])))


class EpochBatches(Sampler[list[int]]):
    """Full batches of rows, shuffled anew every epoch.

    Args:
        rows: Rows of the store.
        batch: Rows per batch; the remainder of an epoch waits for another epoch.
        seed: Of the order.
    """

    def __init__(self, rows: Sequence[int], batch: int, seed: int) -> None:
        self.rows = np.asarray(rows)
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.rows))
        for start in range(0, len(self) * self.batch, self.batch):
            yield self.rows[order[start : start + self.batch]].tolist()


class StoreBatches(Dataset[Batch]):
    """A packed store, indexed by lists of rows."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getitem__(self, rows: list[int]) -> Batch:
        return self.store.images(rows), self.store.labels(rows)


class StoreDataModule(L.LightningDataModule):
    """Training scenes and held-out scenes of a store.

    Args:
        store: The packed store.
        config: Held-out share, seed and what to do with unlabelled scenes.
        batch: Scenes per step.
        seed: Of the order.

    Attributes:
        train_rows: Rows to train on.
        test_rows: Labelled rows of held-out locations.
        probe_rows: Labelled rows of training locations, on which the linear probe is fitted.

    Raises:
        TrainingError: If there are fewer training scenes than a batch.
    """

    def __init__(self, store: Store, config: DataConfig, batch: int, seed: int) -> None:
        super().__init__()
        self.store = store
        outside = held_out(store.locations.tolist(), config.holdout, config.seed)
        known = store.labels(range(len(store))).known.numpy()
        usable = known if config.unlabelled == "drop" else np.ones_like(known)
        self.train_rows = np.flatnonzero(~outside & usable)
        self.probe_rows = np.flatnonzero(~outside & known)
        self.test_rows = np.flatnonzero(outside & known)
        self.sampler = EpochBatches(self.train_rows.tolist(), batch, seed)
        if len(self.train_rows) < batch:
            raise TrainingError(
                "there are fewer training scenes than a batch",
                found=f"{len(self.train_rows)} scenes to train on: {len(store)} in the store, "
                f"{int(outside.sum())} at held-out locations, {int((~known).sum())} unlabelled",
                expected=f"at least {batch} (optim.batch)",
                where=store.path,
                remedy="use a smaller optim.batch or data.holdout, or data.unlabelled=hard-only",
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return batches without workers: a read from the map is cheaper than a copy between
        processes.
        """
        return DataLoader(StoreBatches(self.store), sampler=self.sampler, batch_size=None)
