"""A step of terms that predict pixels in one process, or with the batch spread over several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import torch
from small_terms import DECODER, combined, labels_of, waves
from softcon_ranks import mean, together
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eofm.method.terms.mim import BlockMask
from eofm.method.terms.seam import RandomMask

BATCH = 8
TERMS: Mapping[str, Mapping[str, object]] = {
    "mim": {"mim": {"cls_hidden": 16, "cls_dim": 8, "cls_weight": 1.0, **DECODER}},
    "cropmae": {"cropmae": DECODER},
    "croco": {"croco": {"completed": "both", **DECODER}},
}


def _one_mask(self: object, batch: int, grid: tuple[int, int], _: torch.Generator) -> Tensor:
    """Every third patch of every image: which process draws cannot matter."""
    return torch.arange(0, grid[0] * grid[1], 3).expand(batch, -1)


def run(name: str, rank: int, world: int) -> dict[str, Tensor]:
    """Return the scalars of a step and the gradients; most of the second half is invalid."""
    generator = torch.Generator().manual_seed(0)
    views = torch.stack([waves(generator, BATCH), waves(generator, BATCH)])
    valid = torch.rand(2, BATCH, 1, 16, 16, generator=generator) > 0.2
    valid[:, BATCH // 2 :] &= torch.rand(2, BATCH // 2, 1, 16, 16, generator=generator) > 0.8
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    terms = combined(TERMS[name])
    step: nn.Module = terms
    if world > 1:
        step = DistributedDataParallel(terms, broadcast_buffers=False)
    with patch.object(RandomMask, "draw", _one_mask), patch.object(BlockMask, "draw", _one_mask):
        two = (views[0, mine], views[1, mine])
        output = step(two, labels_of(two), torch.Generator(), lambda view: valid[view, mine])
    output.loss.backward()
    made = {key: mean(each.clone(), world) for key, each in output.scalars.items()}
    trained = {n: p for n, p in terms.named_parameters() if p.requires_grad}
    return {**made, **{n: p.grad.clone() for n, p in trained.items()}}


def work(rank: int, world: int, folder: str) -> None:
    """One process of several: take a step of every term, and save what came out."""
    torch.set_num_threads(1)
    with together(rank, world, folder):
        results = {name: run(name, rank, world) for name in TERMS}
    torch.save(results, Path(folder) / f"{rank}.pt")
