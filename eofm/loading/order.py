"""Which rows of a store make an epoch of training: crops or seasons, balance, replay, processes.

The draws are `eofm.loading.epochs`; here they are put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from eofm.loading.epochs import (
    Factors,
    Index,
    epoch_rows,
    independent_seasons,
    repeated_rows,
    replay_count,
    replayed_rows,
    season_pairs,
    steps_per_epoch,
)

_PERMUTE: Final = 4  # tells this draw from those of eofm.loading.epochs


class Seasons(StrEnum):
    """Which two seasons of a place are seen.

    Two different ones, drawn anew in every epoch; the same two in every epoch; or two draws on
    their own, which give the same season twice in one case of n.
    """

    DIFFERENT = "seasons"
    FIXED = "fixed-seasons"
    INDEPENDENT = "independent-seasons"


@dataclass(frozen=True)
class Pool:
    """What an epoch draws from: scenes, or places of which two seasons are seen.

    Args:
        rows: Rows that may be read.
        places: The place of each row, where an item is a place; None where it is a scene.
        seasons: Which two, where an item is a place.
        factors: How often each row should come; None for all alike.
    """

    rows: Index
    places: tuple[str, ...] | None = None
    seasons: Seasons = Seasons.DIFFERENT
    factors: Factors | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.rows) if self.places is None else len(set(self.places))

    def items(self, epoch: int, seed: int) -> Index:
        """Return the rows of each item, (items, 1) or (items, 2), as this epoch sees them.

        There are as many as the pool has items, whatever the factors: an item of factor f comes
        f / (mean factor) times on average, and epochs are equally long. The factor of a place is
        the largest of its scenes'.
        """
        if self.places is None:
            lines, factors = np.arange(len(self.rows))[:, None], self.factors
        else:
            lines = self._seasons(self.places, epoch, seed)
            factors = self._place_factors()
        if factors is not None:
            often = repeated_rows(factors, epoch, seed)
            order = np.random.default_rng([seed, epoch, _PERMUTE]).permutation(len(often))
            lines = lines[often[order[: len(lines)]]]
        return self.rows[lines]

    def _seasons(self, places: tuple[str, ...], epoch: int, seed: int) -> Index:
        if self.seasons is Seasons.INDEPENDENT:
            return independent_seasons(places, epoch, seed)
        return season_pairs(places, epoch, seed, fixed=self.seasons is Seasons.FIXED)

    def _place_factors(self) -> Factors | None:
        if self.factors is None or self.places is None:
            return None
        names, place = np.unique(np.asarray(self.places, np.str_), return_inverse=True)
        largest: Factors = np.zeros(len(names))
        np.maximum.at(largest, place, self.factors)
        return largest


class EpochBatches:
    """Full batches of rows, shuffled anew every epoch, the same on every machine.

    Each process sees its own part of every step; all see equally many steps.

    Args:
        pool: What to draw from.
        batch: Items per step and process; the remainder of an epoch waits for another epoch.
        seed: Of the order.
        replay: A second pool, whose rows stand behind those of the first.
        share: Of every batch, from the second pool.
        rank: Of this process.
        world: How many processes there are.
        together: Steps that belong together: an epoch has a multiple of them.

    Attributes:
        images: Rows per batch: one or two for each item.
        epoch: The epoch that is read next.
    """

    def __init__(
        self,
        pool: Pool,
        batch: int,
        seed: int,
        *,
        replay: Pool | None = None,
        share: float = 0.0,
        rank: int = 0,
        world: int = 1,
        together: int = 1,
    ) -> None:
        self.pool, self.batch, self.seed = pool, batch, seed
        self.replay, self.share = replay, share
        self.rank, self.world, self.together = rank, world, together
        self.images = batch if pool.places is None else 2 * batch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of steps of a whole epoch."""
        new = self.batch - (replay_count(self.batch, self.share) if self.replay else 0)
        steps = steps_per_epoch(len(self.pool), self.world, new)
        return steps - steps % self.together

    def rows(self, epoch: int, start_step: int = 0) -> Index:
        """Return the rows of an epoch, (steps - start_step, images).

        Of two seasons the first half of a line holds the first views, the second half the second
        views, in the same order of places; replayed items come last in each half.
        """
        place = (epoch, self.seed, self.rank, self.world, self.batch, start_step)
        items = self.pool.items(epoch, self.seed)
        if self.replay is None:
            index = epoch_rows(len(items), *place)
        else:
            old = self.replay.items(epoch, self.seed)
            index = replayed_rows(len(items), len(old), self.share, *place)
            items = np.concatenate([items, old])
        index = index[: max(len(self) - start_step, 0)]
        return items[index].transpose(0, 2, 1).reshape(len(index), self.images)
