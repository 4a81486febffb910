"""The statistics of batch norms, taken anew.

A batch norm remembers the mean and variance of what it saw in training. A student that saw images
with hidden parts, or a network that saw two sensors in turn, remembers those of no image that it
will ever be given: before it is used, they are taken anew.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eofm.errors import TrainingError


def has_batch_norm(network: nn.Module) -> bool:
    """Whether the network remembers statistics of batches."""
    return bool(_batch_norms(network))


@torch.no_grad()
def refresh_batch_norms(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace what the batch norms remember by the average over these batches.

    Each batch counts alike, so they should be of one size. Nothing but the statistics changes, and
    the network is left in the mode, evaluation or training, that it was in.

    Args:
        network: A network without batch norm is left alone.
        batches: Pixels as the network takes them, (B, C, H, W), normalised.

    Returns:
        How many batches were used; 0 where there is no batch norm.

    Raises:
        TrainingError: If there is no batch.
    """
    norms = _batch_norms(network)
    if not norms:
        return 0
    modes = {module: module.training for module in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the plain average over all batches
    network.eval()  # no dropout, no drop path: only the batch norms look at their batch
    count = 0
    try:
        for norm in norms:
            norm.train()
        for pixels in batches:
            network(pixels)
            count += 1
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    if not count:
        raise TrainingError(
            "there are no images to take the statistics of batch norm from",
            found="no batch",
            expected="one or more",
        )
    return count


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    modules = network.modules()
    return [m for m in modules if isinstance(m, _BatchNorm) and m.track_running_stats]
