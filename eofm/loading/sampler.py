"""Order of a store's rows in an epoch of training: pure functions, and the sampler that uses them.

All results are functions of a seed, an epoch, a rank and a step. No pixels are read and no state is
kept, so a run can stop at any step and resume with exactly the same images.

    rows = epoch_rows(len(train), epoch=3, seed=0, rank=1, world=8, batch=64, start_step=120)
    for batch in train[rows]: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eofm.errors import ConfigError

__all__ = [
    "EpochSampler",
    "Factors",
    "Index",
    "Pool",
    "Seasons",
    "epoch_rows",
    "independent_seasons",
    "rarity_factors",
    "repeated_rows",
    "replay_count",
    "replayed_rows",
    "season_pairs",
    "steps_per_epoch",
    "stream_rows",
]

Index = NDArray[np.int64]
Factors = NDArray[np.float64]


def steps_per_epoch(n_rows: int, world: int, batch: int) -> int:
    """Return the number of full steps per epoch on every rank; the remainder is dropped."""
    return n_rows // (world * batch)


def epoch_rows(
    n_rows: int,
    epoch: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    batch: int = 1,
    start_step: int = 0,
) -> Index:
    """Return the rows one rank reads in an epoch, a line per step.

    All ranks split the same permutation, which is a function of seed and epoch. Step t of the job
    is its t-th block of `world * batch` rows, of which rank r takes the r-th `batch`. So no row
    occurs twice in an epoch, every rank has the same number of steps, and a step has the same
    images with more or fewer ranks if `world * batch` is the same. The `n_rows mod (world * batch)`
    rows that do not fill a step are dropped, in each epoch different ones.

    Args:
        n_rows: Number of rows; the results index the caller's list.
        epoch: Number of the epoch.
        seed: Seed of the order.
        rank: Rank of this process.
        world: Number of processes.
        batch: Rows per rank and step.
        start_step: First step to return, for a run that resumes within an epoch.

    Returns:
        (steps - start_step, batch).

    Raises:
        ConfigError: If a number is out of range, or the rows do not fill one step.
    """
    if not (0 <= rank < world and batch > 0 and start_step >= 0 and epoch >= 0 and seed >= 0):
        raise ConfigError(
            "a place in a distributed run is out of range",
            found=f"rank {rank} of {world}, batch {batch}, step {start_step}, epoch {epoch}, "
            f"seed {seed}",
        )
    steps = steps_per_epoch(n_rows, world, batch)
    if steps == 0:
        raise ConfigError(
            "there are fewer rows than one step takes",
            found=f"{n_rows} rows",
            expected=f"at least {world * batch}: {world} processes x {batch}",
            remedy="use a smaller batch, or fewer processes",
        )
    order = np.random.default_rng([seed, epoch]).permutation(n_rows)
    return order[: steps * world * batch].reshape(steps, world, batch)[start_step:, rank]


# -------------------------------------------------------------------------------- rarity


def rarity_factors(multi_hot: ArrayLike, known: ArrayLike, threshold: float = 0.1) -> Factors:
    """Return the average number of times that each image should occur per epoch.

    Repeat-factor sampling (Gupta et al. 2019, arXiv 1908.03195, section 5): a class that is
    present in the share f of the labelled images has the factor max(1, sqrt(threshold / f)), and an
    image the largest factor of its classes. Unlabelled images, and those without a class, have 1.

    Args:
        multi_hot: (N, K), 1 where a class is present.
        known: (N,), whether the labels are known.
        threshold: Share of images above which a class is not repeated.

    Returns:
        float64 (N,), at least 1.

    Raises:
        ConfigError: If the threshold is not a share.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError("the threshold is a share", found=threshold, expected="0 to 1")
    labels, sure = np.asarray(multi_hot, np.float64), np.asarray(known, bool)
    labels = np.where(sure[:, None], labels, 0)
    frequency = labels.sum(axis=0) / max(int(sure.sum()), 1)
    rare = np.maximum(1.0, np.sqrt(threshold / np.where(frequency > 0, frequency, 1)))
    factors: Factors = np.max(np.where(labels > 0, rare, 1.0), axis=1, initial=1.0)
    return factors


def repeated_rows(factors: ArrayLike, epoch: int, seed: int) -> Index:
    """Return row numbers in ascending order, each repeated according to its factor.

    The integer part of a factor is the guaranteed number of repetitions; the fraction is the
    probability of one more, drawn again every epoch. Factors are at least 1, so every row occurs.

    Args:
        factors: (N,), from `rarity_factors`.
        epoch: Number of the epoch.
        seed: Seed of the draw.

    Returns:
        Rows to take the place of `range(N)`: `rows[epoch_rows(len(rows), ...)]`.
    """
    wanted = np.asarray(factors, np.float64)
    whole = np.floor(wanted)
    draw = np.random.default_rng([seed, epoch, 1]).random(len(wanted))
    times = whole + (draw < wanted - whole)
    return np.repeat(np.arange(len(wanted)), times.astype(np.int64))


# -------------------------------------------------------------------------------- replay


def stream_rows(n_rows: int, seed: int, start: int, count: int) -> Index:
    """Return a part of an endless stream of permutations of all rows.

    Args:
        n_rows: Number of rows.
        seed: Seed of the permutations.
        start: Position in the stream.
        count: Number of rows to return.

    Raises:
        ConfigError: If `n_rows` is 0.
    """
    if n_rows < 1:
        raise ConfigError("there is no row to draw from", found=f"{n_rows} rows")
    rounds = range(start // n_rows, (start + count - 1) // n_rows + 1)
    orders = [np.random.default_rng([seed, r, 2]).permutation(n_rows) for r in rounds]
    if not orders:
        return np.zeros(0, np.int64)
    first = start - rounds[0] * n_rows
    return np.concatenate(orders)[first : first + count]


def replay_count(batch: int, share: float) -> int:
    """Return the number of replayed images in a batch: the share, rounded.

    Raises:
        ConfigError: If the share is not between 0 and 1, or leaves no new image.
    """
    count = round(batch * share) if 0 <= share < 1 else batch
    if count >= batch:
        raise ConfigError(
            "the share of replayed images leaves no space for new ones",
            found=f"replay {share} of a batch of {batch}",
            expected="0 to below 1, with at least one new image",
        )
    return count


def replayed_rows(
    n_rows: int,
    n_replay: int,
    share: float,
    epoch: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    batch: int = 1,
    start_step: int = 0,
) -> Index:
    """Return the rows of an epoch in which a share of every batch is from a second list.

    The new rows are those of `epoch_rows` for the smaller batch. The replayed rows run through
    permutations of the second list across epochs and ranks, so that the counts of its rows differ
    by at most one.

    Args:
        n_rows: Length of the first list.
        n_replay: Length of the second list.
        share: Share of every batch from the second list, rounded by `replay_count`.
        epoch: Number of the epoch.
        seed: Seed of both orders.
        rank: Rank of this process.
        world: Number of processes.
        batch: Rows per rank and step from both lists.
        start_step: First step to return.

    Returns:
        (steps - start_step, batch): new rows, then replayed rows, numbered from `n_rows` on as if
        the second list were appended to the first.

    Raises:
        ConfigError: If a number is out of range.
    """
    old = replay_count(batch, share)
    new = epoch_rows(n_rows, epoch, seed, rank, world, batch - old, start_step)
    steps = steps_per_epoch(n_rows, world, batch - old)
    start = (epoch * steps + start_step) * world * old
    drawn = stream_rows(n_replay, seed, start, len(new) * world * old)
    replayed = drawn.reshape(len(new), world, old)[:, rank]
    return np.concatenate([new, n_rows + replayed], axis=1)


# -------------------------------------------------------------------------------- seasons


def season_pairs(locations: Sequence[str], epoch: int, seed: int, *, fixed: bool) -> Index:
    """Return two different seasons of every place, as views that differ by more than a crop.

    A place with one date is paired with itself.

    Args:
        locations: The place of each row.
        epoch: Number of the epoch.
        seed: Seed of the choice.
        fixed: Choose the same two in every epoch.

    Returns:
        (places, 2) rows, places in the order of their names; the order of the two is random too.
    """
    _, place = np.unique(np.asarray(locations, np.str_), return_inverse=True)
    key = [seed, 0 if fixed else 1 + epoch, 3]
    draw = np.random.default_rng(key).random(len(place))
    order = np.lexsort((draw, place))  # by place, and at random within one
    first = np.flatnonzero(np.diff(place[order], prepend=-1))
    counts = np.diff(np.append(first, len(order)))
    return np.stack([order[first], order[first + (counts > 1)]], axis=1).astype(np.int64)


def independent_seasons(locations: Sequence[str], epoch: int, seed: int) -> Index:
    """Return two independently drawn seasons of every place, which may be the same.

    Args:
        locations: The place of each row.
        epoch: Number of the epoch.
        seed: Seed of the draw.

    Returns:
        (places, 2) rows, places in the order of their names.
    """
    _, place = np.unique(np.asarray(locations, np.str_), return_inverse=True)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place)
    first = np.cumsum(counts) - counts
    draw = np.random.default_rng([seed, epoch, 5]).random((len(counts), 2))
    rows: Index = order[first[:, None] + np.floor(draw * counts[:, None]).astype(np.int64)]
    return rows


_PERMUTE: Final = 4  # separates this draw from the others in this file


class Seasons(StrEnum):
    """Choice of two seasons of a place.

    Two different seasons, drawn again in every epoch; the same two in every epoch; or two
    independent draws, which give the same season twice in one case of n.
    """

    DIFFERENT = "seasons"
    FIXED = "fixed-seasons"
    INDEPENDENT = "independent-seasons"


@dataclass(frozen=True)
class Pool:
    """Items to sample in an epoch: scenes, or places with two seasons each.

    Args:
        rows: Rows to sample.
        places: The place of each row if items are places; None if they are scenes.
        seasons: Choice of two seasons if items are places.
        factors: Average repetitions of each row; None for equal ones.
    """

    rows: Index
    places: tuple[str, ...] | None = None
    seasons: Seasons = Seasons.DIFFERENT
    factors: Factors | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.rows) if self.places is None else len(set(self.places))

    def items(self, epoch: int, seed: int) -> Index:
        """Return the rows of each item in an epoch, (items, 1) or (items, 2).

        Their number is that of the pool's items for any factors, so epochs are equally long: an
        item of factor f occurs f / (mean factor) times on average. The factor of a place is the
        largest of its scenes' factors.
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


class EpochSampler:
    """Full batches of rows, reshuffled every epoch, identical on every machine.

    Each process reads its part of every step; all have the same number of steps.

    Args:
        pool: Items to sample.
        batch: Items per step and process; the remainder of an epoch is dropped.
        seed: Seed of the order.
        replay: A second pool, whose rows are numbered after those of the first.
        share: Share of every batch from the second pool.
        rank: Rank of this process.
        world: Number of processes.
        together: Number of steps that belong together; an epoch has a multiple of it.

    Attributes:
        images: Rows per batch: one or two for each item.
        epoch: The next epoch to read.
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
        """Set the epoch, which determines the order; Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of steps of a whole epoch."""
        new = self.batch - (replay_count(self.batch, self.share) if self.replay else 0)
        steps = steps_per_epoch(len(self.pool), self.world, new)
        return steps - steps % self.together

    def rows(self, epoch: int, start_step: int = 0) -> Index:
        """Return the rows of an epoch, (steps - start_step, images).

        With two seasons, the first half of a line has the first views and the second half the
        second views, in the same order of places; replayed items are last in each half.
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
