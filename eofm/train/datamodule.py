"""Batches of packed stores, in an order that is a function of the seed, the epoch and the step.

A batch leaves the store in its native dtype and resolution and is made into float images on the
device (`eofm.preprocess.to_grid`), which is cheaper than moving float32 cubes. Threads read ahead
into buffers that are used again (`eofm.data.feed`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from eofm.data.epochs import held_out, rarity_factors, replay_count
from eofm.data.feed import Feeder, check_alike
from eofm.data.pack import Store
from eofm.errors import ConfigError, TrainingError
from eofm.imagery import Imagery, Labels, NativeImagery
from eofm.preprocess import to_grid
from eofm.train.config import DataConfig
from eofm.train.order import EpochBatches, Pool

Batch = tuple[NativeImagery, Labels]

WALK_BATCH: Final = 64


def walk(store: Store, rows: Sequence[int]) -> Iterator[Imagery]:
    """Yield `rows` of a store in order, in float32 on one grid, in batches of bounded size."""
    for start in range(0, len(rows), WALK_BATCH):
        yield to_grid(store.images(list(rows[start : start + WALK_BATCH])))


# --------------------------------------------------------------------------------- loader


class Copied(Protocol):
    """Something that knows when a batch has been copied: a `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until it has."""


class StoreLoader:
    """What Lightning iterates: batches from a feeder, with a place to go on from.

    A batch may be used until the next one is asked for; then its memory is read into again.

    Attributes:
        sampler: Says which rows; Lightning tells it the epoch.
        waited: Seconds that the consumer has waited for batches.

    Args:
        feeder: Reads.
        sampler: Chooses.
    """

    def __init__(self, feeder: Feeder, sampler: EpochBatches) -> None:
        self.feeder = feeder
        self.sampler = sampler
        self.waited = 0.0
        self._epoch = self._step = 0
        self._resume: tuple[int, int] | None = None
        self._feed: Iterator[Batch] | None = None
        self._copied: Copied | None = None

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch that is set when the first one is asked for."""
        self.stop()
        self._epoch, self._step = self.sampler.epoch, 0
        if self._resume is not None and self._resume[0] == self._epoch:
            self._step = self._resume[1]
        self._resume = None
        if self._step == 0:
            # torch's DataLoader draws a seed for its workers here: a run has the same random
            # numbers, hence the same result, whoever feeds it
            torch.empty((), dtype=torch.int64).random_()
        feed = self.feeder.feed(self.sampler.rows(self._epoch, self._step))
        self._feed = feed
        while True:
            began = time.monotonic()
            self._wait_for_copy()
            batch = next(feed, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            self._step += 1
            yield batch

    def copied_when(self, event: Copied) -> None:
        """Do not read into the memory of the present batch before this event."""
        self._copied = event

    def _wait_for_copy(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None

    def stop(self) -> None:
        """End the epoch that is being read, if there is one."""
        self._wait_for_copy()
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()  # type: ignore[attr-defined]  # a generator

    def close(self) -> None:
        """Stop, and close the files."""
        self.stop()
        self.feeder.close()

    def state_dict(self) -> dict[str, int]:
        """Return how far the consumer is: goes into Lightning's checkpoints."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the last batch that was consumed, once that epoch begins."""
        self._resume = (state["epoch"], state["step"])


# ----------------------------------------------------------------------------------- data


class StoreDataModule(L.LightningDataModule):
    """Training scenes and held-out scenes of a store.

    Args:
        store: The packed store.
        config: Held-out share, seed, views, balance, replay, and what to do with unlabelled scenes.
        batch: Scenes per step, of all processes together; places where views are seasons.
        seed: Of the order.
        readers: Threads that read.

    Attributes:
        train_rows: Rows to train on.
        test_rows: Labelled rows of held-out locations.
        probe_rows: Labelled rows of training locations, on which the linear probe is fitted.
        replay: The second store, or None.

    Raises:
        TrainingError: If there are fewer training scenes than a batch.
        StoreError: If the second store is of another kind.
    """

    def __init__(
        self, store: Store, config: DataConfig, batch: int, seed: int, *, readers: int = 2
    ) -> None:
        super().__init__()
        self.store, self.config = store, config
        self.batch, self.seed, self.readers = batch, seed, readers
        self._loader: StoreLoader | None = None
        self._resume: dict[str, int] | None = None
        outside = held_out(store.locations.tolist(), config.holdout, config.seed)
        known = store.labels(range(len(store))).known.numpy()
        usable = known if config.unlabelled == "drop" else np.ones_like(known)
        self.train_rows = np.flatnonzero(~outside & usable)
        self.probe_rows = np.flatnonzero(~outside & known)
        self.test_rows = np.flatnonzero(outside & known)
        self._outside = set(store.locations[outside].tolist())
        self.replay = None if config.replay is None else Store(config.replay)
        if self.replay is not None:
            check_alike(store, self.replay)
            if not len(self._replay_pool() or ()):
                raise TrainingError(
                    "there is nothing to replay",
                    found=f"{len(self.replay)} scenes, all at held-out locations",
                    where=self.replay.path,
                    remedy="replay another store, or none",
                )
        new = batch - (replay_count(batch, config.replay_share) if self.replay else 0)
        items = len(self._pool(store, self.train_rows))
        if items < new:
            what = "scenes" if config.views == "crops" else "places"
            raise TrainingError(
                f"there are fewer training {what} than a batch",
                found=f"{items} {what} to train on: {len(store)} scenes in the store, "
                f"{int(outside.sum())} at held-out locations, {int((~known).sum())} unlabelled",
                expected=f"at least {new} (optim.batch)",
                where=store.path,
                remedy="use a smaller optim.batch or data.holdout, or data.unlabelled=hard-only",
            )

    def _pool(self, store: Store, rows: NDArray[np.int64], first: int = 0) -> Pool:
        """Return what an epoch draws from some rows of a store, counted from `first`."""
        seasons = self.config.views != "crops"
        factors = None
        if self.config.balance == "rarity" and store is self.store:
            labels = store.labels(rows)
            factors = rarity_factors(labels.multi_hot.numpy(), labels.known.numpy())
        return Pool(
            first + rows,
            tuple(store.locations[rows].tolist()) if seasons else None,
            fixed=self.config.views == "fixed-seasons",
            factors=factors,
        )

    def _replay_pool(self) -> Pool | None:
        """Return the second store's scenes, but for those at places held out of the first."""
        if self.replay is None:
            return None
        inside = [place not in self._outside for place in self.replay.locations.tolist()]
        return self._pool(self.replay, np.flatnonzero(inside), len(self.store))

    def batches(self, rank: int = 0, world: int = 1) -> EpochBatches:
        """Return which rows one of several processes reads, and when.

        Raises:
            ConfigError: If the batch cannot be shared out evenly.
        """
        if self.batch % world:
            raise ConfigError(
                "a batch must be shared out evenly",
                found=f"{self.batch} scenes for {world} processes",
                expected=f"a multiple of {world}",
                where="optim.batch",
            )
        return EpochBatches(
            self._pool(self.store, self.train_rows),
            self.batch // world,
            self.seed,
            replay=self._replay_pool(),
            share=self.config.replay_share,
            rank=rank,
            world=world,
        )

    def train_dataloader(self) -> StoreLoader:
        """Return the loader of this process; there is one at a time."""
        self.close()
        rank, world, pin = 0, 1, False
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            pin = self.trainer.strategy.root_device.type == "cuda"
        sampler = self.batches(rank, world)
        stores = (self.store,) if self.replay is None else (self.store, self.replay)
        feeder = Feeder(stores, sampler.images, ahead=self.readers, threads=self.readers, pin=pin)
        self._loader = StoreLoader(feeder, sampler)
        if self._resume is not None:
            self._loader.load_state_dict(self._resume)
        return self._loader

    def state_dict(self) -> dict[str, int]:
        """Return how far the loader is.

        It is saved here as well, as Lightning restores a loader's own state only if nobody has
        asked it how many steps there are (2.6: `estimated_stepping_batches` makes the loader).
        """
        return {} if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next loader go on from there."""
        self._resume = state_dict or None

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches."""
        return 0.0 if self._loader is None else self._loader.waited

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy a batch to the device, without waiting where it is a GPU."""
        imagery, labels = batch
        if device.type != "cuda":
            return imagery.to(device), labels.to(device)
        moved = imagery.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if self._loader is not None:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._loader.copied_when(event)
        return moved

    def close(self) -> None:
        """Stop reading and close the files."""
        if self._loader is not None:
            self._loader.close()

    def teardown(self, stage: str) -> None:
        """Close the files when training has ended."""
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        """Close the files when training has failed."""
        self.close()
