"""Batches of packed stores, in an order determined by the seed, the epoch and the step.

A batch is read in the store's native dtype and resolution and converted to float images on the
device (`eofm.contract.preprocess.to_grid`), which is cheaper than moving float32 cubes. Threads
read ahead into reusable buffers (`eofm.loading.feeder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import Imagery, Labels
from eofm.contract.preprocess import Plan, plan, to_grid
from eofm.contract.recipe import AcceptSize, Recipe
from eofm.contract.spec import ImageSpec, Sensor
from eofm.errors import ConfigError, PixelError, TrainingError
from eofm.loading.feeder import (
    Batch,
    Feeder,
    PairFeeder,
    Pixels,
    SecondStore,
    StoreLoader,
    check_alike,
)
from eofm.loading.sampler import EpochSampler, Pool, Seasons, rarity_factors, replay_count
from eofm.store.choice import held_out
from eofm.store.reader import Store, exchanged, label_table
from eofm.train.config import DataConfig

__all__ = [
    "FEWEST_TO_DIVIDE",
    "HOLDOUTS",
    "ROWS_AT_ONCE",
    "StoreDataModule",
    "check_share",
    "iterate_rows",
    "name_scenes",
    "training_plan",
]

ROWS_AT_ONCE: Final = 64
# With at least this many held-out locations, half is evaluated in training, half scored at the end.
FEWEST_TO_DIVIDE: Final = 4
# Held-out shares that a remedy may suggest: more than half leaves too little to train on.
HOLDOUTS: Final = tuple(n / 20 for n in range(1, 11))
_SHOWN: Final = 10


def iterate_rows(store: Store, rows: Sequence[int]) -> Iterator[Imagery]:
    """Yield `rows` of a store in order, in float32 on one grid, in batches of bounded size."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield to_grid(store.images(list(rows[start : start + ROWS_AT_ONCE])))


def name_scenes(error: PixelError, stores: Sequence[Store], batch: Sequence[int]) -> PixelError:
    """Add the names of the scenes to an error about images of a batch.

    Args:
        error: Error with the indices of the images in the batch.
        stores: Stores whose rows are numbered consecutively.
        batch: Row of each image.
    """
    rows = [batch[image] for image in error.images]
    words = [f"{_name(stores, row)} (row {row})" for row in rows[:_SHOWN]]
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return PixelError(
        error.problem,
        found=error.found,
        expected=error.expected,
        where=f"{', '.join(words)}{more} of {stores[0].path}",
        remedy="inspect them and repair or exclude them (eofm data check, eofm data verify)",
        images=error.images,
    )


def check_share(batch: int, processes: int) -> None:
    """Refuse a batch that cannot be divided evenly among the processes.

    Raises:
        ConfigError: If so.
    """
    if batch % processes:
        raise ConfigError(
            "the batch must be divided evenly among the processes",
            found=f"{batch} scenes for {processes} processes",
            expected=f"a multiple of {processes}",
            where="optim.batch",
        )


class StoreDataModule(L.LightningDataModule):
    """Training scenes and held-out scenes of a store.

    Args:
        store: The packed store.
        config: Held-out share, seed, views, balance, replay, and treatment of unlabelled scenes.
        batch: Scenes per step over all processes; places if the views are seasons.
        seed: Seed of the order.
        readers: Number of reading threads.
        accumulate: Batches per optimizer step; an epoch has a multiple of this number.
        second_store: Store of another sensor, whose images are the second views; scenes
            without an image in it are excluded.
        shares: Labels hold the share of each class in a scene.
        places: Labels hold the place of each scene.
        exchange: Permute the labels of the training scenes with the seed, as a control.

    Attributes:
        train_rows: Rows to train on.
        outside_rows: Rows of held-out locations; unlabelled ones too if training uses those.
        val_rows: Labelled rows of held-out locations for evaluation during training and for
            choosing a checkpoint.
        test_rows: Labelled rows of held-out locations that are scored at the end.
        divided: Whether `val_rows` and `test_rows` share no location; otherwise they are equal.
        probe_rows: Labelled rows of training locations, on which the linear probe is fitted.
        replay: The second store, or None.
        labels: Labels of all rows of the store and the replayed store, as used in training.

    Raises:
        TrainingError: If there are fewer training scenes than a batch, or none has labels.
        StoreError: If the replayed store is of another kind.
    """

    def __init__(
        self,
        store: Store,
        config: DataConfig,
        batch: int,
        seed: int,
        *,
        readers: int = 2,
        accumulate: int = 1,
        second_store: SecondStore | None = None,
        shares: bool = False,
        places: bool = False,
        exchange: bool = False,
    ) -> None:
        super().__init__()
        self.store, self.config = store, config
        self.batch, self.seed, self.readers = batch, seed, readers
        self.accumulate, self.second_store = accumulate, second_store
        self._loader: StoreLoader | None = None
        self._resume: dict[str, int] | None = None
        outside = held_out(store.locations.tolist(), config.holdout, config.seed)
        self.replay = None if config.replay is None else Store(config.replay)
        if self.replay is not None:
            check_alike(store, self.replay)
        self.labels = label_table(
            self._stores, inherit=config.unlabelled == "inherit", shares=shares, places=places
        )
        known = store.labels(range(len(store))).known.numpy()
        told = self.labels.known[: len(store)].numpy()
        usable = np.ones_like(known) if config.unlabelled == "hard-only" else told
        if second_store is not None:
            usable, known = usable & (second_store.row_of >= 0), known & (second_store.row_of >= 0)
        self.train_rows = np.flatnonzero(~outside & usable)
        if exchange:
            old = np.arange(len(store), len(self.labels))
            self.labels = exchanged(self.labels, np.append(self.train_rows, old), seed)
        if config.unlabelled != "hard-only" and not told.any():
            raise TrainingError(
                "no scene is labelled",
                found=f"{len(store)} scenes, all unlabelled",
                where=store.path,
                remedy="label the store (eofm data relabel), or train without labels: "
                "--data.unlabelled hard-only --method.soft_weight 0",
            )
        self.outside_rows = np.flatnonzero(outside & usable)
        self.probe_rows = np.flatnonzero(~outside & known)
        self._labelled = known
        self.val_rows, self.test_rows = self._divided(outside & known)
        self.divided = self.val_rows is not self.test_rows
        self._outside = set(store.locations[outside].tolist())
        if self.replay is not None and not len(self._replay_pool() or ()):
            raise TrainingError(
                "there is nothing to replay",
                found=f"{len(self.replay)} scenes, all at held-out locations",
                where=self.replay.path,
                remedy="replay another store, or none",
            )
        self._check_enough(int(outside.sum()), int((~known).sum()))

    def _divided(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the held-out rows to evaluate during training, and those to score at the end."""
        rows = np.flatnonzero(kept)
        places = self.store.locations[rows].tolist()
        if len(set(places)) < FEWEST_TO_DIVIDE:
            return rows, rows
        first = held_out(places, 0.5, self.config.seed + 2)
        return rows[first], rows[~first]

    @property
    def scored_places(self) -> int:
        """Number of held-out locations that are scored at the end."""
        return len(set(self.store.locations[self.test_rows].tolist()))

    def holdout_for(self, places: int) -> float | None:
        """Return the smallest `holdout` with which that many locations are scored at the end.

        Args:
            places: Number of locations to score.

        Returns:
            A multiple of 0.05; None if half of all locations are not enough.
        """
        names = self.store.locations
        for share in HOLDOUTS:
            outside = held_out(names.tolist(), share, self.config.seed)
            _, scored = self._divided(outside & self._labelled)
            if len(set(names[scored].tolist())) >= places:
                return share
        return None

    def _check_enough(self, outside: int, unlabelled: int) -> None:
        """Refuse a store with too few scenes for one step.

        Args:
            outside: Number of held-out scenes.
            unlabelled: Number of unlabelled scenes.
        """
        store, config = self.store, self.config
        new = self.batch - (replay_count(self.batch, config.replay_share) if self.replay else 0)
        new *= self.accumulate
        items = len(self._pool(store, self.train_rows))
        if items < new:
            what = "scenes" if config.views in ("crops", "sensors") else "places"
            raise TrainingError(
                f"there are fewer training {what} than a batch",
                found=f"{items} {what} to train on: {len(store)} scenes in the store, "
                f"{outside} at held-out locations, {unlabelled} unlabelled",
                expected=f"at least {new} (optim.batch"
                + (f" x {self.accumulate}, trainer.accumulate)" if self.accumulate > 1 else ")"),
                where=store.path,
                remedy="use a smaller --optim.batch or --data.holdout"
                + ("" if config.unlabelled == "hard-only" else ", or --data.unlabelled hard-only"),
            )

    @property
    def _stores(self) -> tuple[Store, ...]:
        """The stores that are read, in order."""
        return (self.store,) if self.replay is None else (self.store, self.replay)

    @property
    def train_labels(self) -> Labels:
        """Labels of the training rows, as the objective gets them."""
        return self.labels[torch.from_numpy(self.train_rows)]

    def seen_by(self, sensor: Sensor, rows: NDArray[np.int64]) -> tuple[Store, list[int]]:
        """Return the store of a sensor, and its rows of the same places.

        Args:
            sensor: Sensor of the store or of the second store.
            rows: Rows of the store, such as `probe_rows`.
        """
        if self.second_store is not None and sensor is self.second_store.store.spec.sensor:
            return self.second_store.store, self.second_store.row_of[rows].tolist()
        return self.store, rows.tolist()

    def images(self, rows: Sequence[int]) -> Pixels:
        """Return images of the store, and of the second store if there is one, as stored."""
        mine = self.store.images(rows)
        if self.second_store is None:
            return mine
        return mine, self.second_store.store.images(self.second_store.row_of[np.asarray(rows)])

    def _pool(self, store: Store, rows: NDArray[np.int64], first: int = 0) -> Pool:
        """Return the sampling pool of some rows of a store, numbered from `first`."""
        views, factors = self.config.views, None
        if self.config.balance == "rarity" and store is self.store:
            labels = self.labels[torch.from_numpy(rows)]
            factors = rarity_factors(labels.multi_hot.numpy(), labels.known.numpy())
        return Pool(
            first + rows,
            tuple(store.locations[rows].tolist()) if views in tuple(Seasons) else None,
            seasons=Seasons(views) if views in tuple(Seasons) else Seasons.DIFFERENT,
            factors=factors,
        )

    def _replay_pool(self) -> Pool | None:
        """Return the replayed scenes, except those at locations held out of the first store."""
        if self.replay is None:
            return None
        inside = [place not in self._outside for place in self.replay.locations.tolist()]
        return self._pool(self.replay, np.flatnonzero(inside), len(self.store))

    def batches(self, rank: int = 0, world: int = 1) -> EpochSampler:
        """Return the sampler of one process: which rows it reads, and when.

        Raises:
            ConfigError: If the batch cannot be divided evenly.
        """
        check_share(self.batch, world)
        return EpochSampler(
            self._pool(self.store, self.train_rows),
            self.batch // world,
            self.seed,
            replay=self._replay_pool(),
            share=self.config.replay_share,
            rank=rank,
            world=world,
            together=self.accumulate,
        )

    def train_dataloader(self) -> StoreLoader:
        """Return the loader of this process; there is one at a time."""
        self.close()
        rank, world, pin = 0, 1, False
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            pin = self.trainer.strategy.root_device.type == "cuda"
        sampler = self.batches(rank, world)
        feeder: Feeder | PairFeeder
        feeder = Feeder(
            self._stores,
            sampler.images,
            ahead=self.readers,
            threads=self.readers,
            pin=pin,
            labels=self.labels,
        )
        if self.second_store is not None:
            other = Feeder(
                self.second_store.store,
                sampler.images,
                ahead=self.readers,
                threads=self.readers,
                pin=pin,
            )
            feeder = PairFeeder(feeder, other, self.second_store)
        self._loader = StoreLoader(feeder, sampler)
        if self._resume is not None:
            self._loader.load_state_dict(self._resume)
        return self._loader

    def state_dict(self) -> dict[str, int]:
        """Return the position of the loader.

        It is saved here as well, as Lightning does not restore a loader's own state if the number
        of steps was requested before (2.6: `estimated_stepping_batches` creates the loader).
        """
        return {} if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume the next loader from the saved position, and the current one if it exists."""
        self._resume = state_dict or None
        if self._resume is not None and self._loader is not None:
            self._loader.load_state_dict(self._resume)

    def named(self, error: PixelError) -> PixelError:
        """Add the names of the scenes to an error about images of the current batch."""
        if self._loader is None or not len(self._loader.present) or not error.images:
            return error
        return name_scenes(error, self._stores, self._loader.present.tolist())

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches."""
        return 0.0 if self._loader is None else self._loader.waited

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy a batch to the device, asynchronously to a GPU."""
        imagery, labels = batch
        if device.type != "cuda":
            return _moved(imagery, device), labels.to(device)
        moved = _moved(imagery, device, wait=False), labels.to(device, non_blocking=True)
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


def _name(stores: Sequence[Store], row: int) -> str:
    """Return the identifier of a row; the rows of the stores are numbered consecutively."""
    for store in stores:
        if row < len(store):
            return str(store.ids[row])
        row -= len(store)
    raise IndexError(f"there is no row {row}")


def _moved(images: Pixels, device: torch.device, *, wait: bool = True) -> Pixels:
    """Move the images of one or two sensors to a device."""
    if isinstance(images, tuple):
        return (
            images[0].to(device, non_blocking=not wait),
            images[1].to(device, non_blocking=not wait),
        )
    return images.to(device, non_blocking=not wait)


_WHY = "a random resized crop follows and brings each view to the recipe's size"


def training_plan(spec: ImageSpec, recipe: Recipe) -> Plan:
    """Return the plan for a training batch, without the resize, which the crop performs.

    Raises:
        SpecMismatch: If the store's imagery does not fit the recipe.
    """
    if spec.size is None or spec.size == recipe.size:
        return plan(spec, recipe)
    return plan(spec, recipe, (AcceptSize(spec.size, _WHY),))
