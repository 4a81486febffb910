"""The columns of the similarity matrix: the teacher's keys of all ranks, and of earlier steps.

With one process nothing is communicated. Every rank holds B rows of the batch and all N = R B
columns. For a loss that is a mean over rows, every rank must use R times its part of the global
mean, because `DistributedDataParallel` divides the sum of gradients by R.

Shapes: B rows, N columns, R ranks, Q keys of the queue, d embedding width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Real, Shaped
from torch import Tensor, distributed, nn
from torch.nn import functional

from eofm.errors import ConfigError

__all__ = ["Columns", "KeyQueue", "Targets", "gathered", "mean_over_ranks", "own_columns", "ranks"]


@dataclass(frozen=True)
class Targets:
    """Labels and places of some images.

    Args:
        vectors: Label vectors (n, K): `eofm.method.similarity.label_vectors`.
        known: bool (n,), whether the image can be compared by its labels.
        places: int64 (n,), or None if they are not needed.
    """

    vectors: Real[Tensor, "n k"]
    known: Bool[Tensor, " n"]
    places: Int64[Tensor, " n"] | None

    def of_all_ranks(self) -> Targets:
        """Return the targets of the images of all processes, in rank order."""
        places = None if self.places is None else gathered(self.places)
        return Targets(gathered(self.vectors), gathered(self.known), places)


@dataclass(frozen=True)
class Columns:
    """Teacher keys with the targets of their images.

    Args:
        keys: (N, d).
        targets: Targets of the same images.
        missing: bool (N,), queue slots without a key yet; None without a queue.
    """

    keys: Float[Tensor, "n d"]
    targets: Targets
    missing: Bool[Tensor, " n"] | None = None


class KeyQueue(nn.Module):
    """Keys of earlier steps as further columns (MoCo, arXiv 1911.05722), first in, first out.

    Its tensors are buffers, so that a checkpoint holds them and a resumed run continues exactly.
    All ranks hold the same keys, gathered from all ranks. No operation synchronises the device.

    Args:
        size: Number of keys, Q; a multiple of the number added in a step.
        width: Width of a key, d.
        classes: Width of a label vector, K.
        places: Whether the places of the images are kept too.
    """

    keys: Tensor
    vectors: Tensor
    known: Tensor
    places: Tensor
    filled: Tensor
    next: Tensor

    def __init__(self, size: int, width: int, classes: int, *, places: bool) -> None:
        super().__init__()
        self.size, self.has_places = size, places
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("vectors", torch.zeros(size, classes))
        self.register_buffer("known", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("places", torch.zeros(size if places else 0, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def behind(self, fresh: Columns) -> Columns:
        """Return the columns of this step, followed by those of earlier steps.

        Raises:
            ConfigError: If the queue size is not a multiple of the batch, or the labels have a
                different width.
        """
        new = fresh.targets
        self._check(*new.vectors.shape)
        places = None if new.places is None else torch.cat([new.places, self.places])
        targets = Targets(
            torch.cat([new.vectors, self.vectors]), torch.cat([new.known, self.known]), places
        )
        missing = torch.cat([torch.zeros_like(new.known), ~self.filled])
        return Columns(torch.cat([fresh.keys.float(), self.keys]), targets, missing)

    @torch.no_grad()
    def push(self, fresh: Columns) -> None:
        """Replace the oldest keys by those of this step."""
        count = len(fresh.targets.known)
        at = (self.next + torch.arange(count, device=self.keys.device)) % self.size
        self.keys[at] = functional.normalize(fresh.keys.float(), dim=1)
        self.vectors[at] = fresh.targets.vectors.float()
        self.known[at] = fresh.targets.known
        if self.has_places and fresh.targets.places is not None:
            self.places[at] = fresh.targets.places
        self.filled[at] = True
        self.next.copy_((self.next + count) % self.size)

    def _check(self, count: int, classes: int) -> None:
        if self.size % count or classes != self.vectors.shape[1]:
            raise ConfigError(
                "the queue does not fit the batch",
                found=f"a queue of {self.size} keys with {self.vectors.shape[1]} classes for a "
                f"batch of {count} images with {classes}",
                expected="a multiple of the batch, and the same classes",
                where="queue",
            )


def ranks() -> int:
    """Return the number of processes that train together, R."""
    return distributed.get_world_size() if _together() else 1


def own_columns(rows: Shaped[Tensor, "b ..."]) -> Int64[Tensor, " b"]:
    """Return the column of each of this process's own rows among those of all ranks."""
    first = distributed.get_rank() * len(rows) if _together() else 0
    return first + torch.arange(len(rows), device=rows.device)


def gathered(rows: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "rb ..."]:
    """Return the rows of all ranks in rank order, (R B, ...), without a gradient.

    Teacher keys and labels have no gradient, so a plain gather is exact. All ranks must have the
    same number of rows.
    """
    if ranks() == 1:
        return rows
    flags = rows.dtype is torch.bool
    mine = (rows.to(torch.uint8) if flags else rows.detach()).contiguous()
    # torch 2.14 renamed the gather into one tensor; earlier versions lack the new name
    parts = [torch.empty_like(mine) for _ in range(ranks())]
    if mine.numel():
        distributed.all_gather(parts, mine)
    everyone = torch.cat(parts)
    return everyone.bool() if flags else everyone


def mean_over_ranks(total: Float[Tensor, ""], count: Int64[Tensor, ""]) -> Float[Tensor, ""]:
    """Return R · total / (counts of all ranks), whose mean over the ranks is the global mean.

    Unlabelled images are spread unevenly over the ranks, so a mean of the ranks' means would be
    wrong. If the global count is 0, the result is 0, connected to `total`.

    Args:
        total: Sum over the summands of this rank.
        count: Number of summands, an integer.
    """
    if ranks() > 1:
        count = count.clone()
        distributed.all_reduce(count)
        total = total * ranks()
    return total / count.clamp(min=1)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
