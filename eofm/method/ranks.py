"""What several processes must tell each other; with one process nothing happens here.

Every rank holds B rows of the batch, and all see the N = R B columns. The gradient of a loss that
is a mean over rows is right when every rank takes R times its own part of the global mean, because
`DistributedDataParallel` divides the sum of gradients by R.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def ranks() -> int:
    """Return how many processes train together, R."""
    return distributed.get_world_size() if _together() else 1


def first_column(batch: int) -> int:
    """Return where this process's own images begin among the columns of all."""
    return distributed.get_rank() * batch if _together() else 0


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all ranks in the order of the ranks, (R B, ...), without a gradient.

    Teacher keys and labels carry none, so that a plain gather is exact. All ranks must bring
    equally many rows.
    """
    if ranks() == 1:
        return rows
    flags = rows.dtype is torch.bool
    mine = (rows.to(torch.uint8) if flags else rows.detach()).contiguous()
    everyone = mine.new_empty((ranks() * len(mine), *mine.shape[1:]))
    if mine.numel():
        distributed.all_gather_into_tensor(everyone, mine)
    return everyone.bool() if flags else everyone


def mean_over_ranks(total: Tensor, count: Tensor) -> Tensor:
    """Return R · total / (counts of all ranks), whose mean over the ranks is the global mean.

    Unlabelled images are spread unevenly over the ranks: a mean of their means would be another
    number. Where nothing counts it is 0, connected to `total`.

    Args:
        total: Sum over the terms of this rank.
        count: How many they are, a number of integer type.
    """
    if ranks() > 1:
        count = count.clone()
        distributed.all_reduce(count)
        total = total * ranks()
    return total / count.clamp(min=1)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
