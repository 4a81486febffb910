"""Three steps of the method in one process, or the same with the batch spread over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from softcon_small import Patches, model, some_labels
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from eofm.contract.imagery import Labels
from eofm.method import (
    CombinedTerms,
    HeadNorm,
    LabelFacts,
    Objective,
    SoftCon,
    SoftConConfig,
    SoftConOutput,
    update_teacher,
)

Case = Mapping[str, object]
BATCH, STEPS = 8, 3


def batches() -> list[tuple[Tensor, tuple[Labels, Labels]]]:
    """Whole batches with two seasons of labels; of the first half most have none."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(STEPS):
        views = torch.rand(2, BATCH, 3, 8, 8, generator=generator)
        places = torch.tensor([0, 1, 2, 3, 4, 4, 0, 5])
        seasons = []
        for unlabelled in ((0, 1, 3), (1, 2)):
            hot = some_labels(BATCH, generator)
            hot[5] = hot[2]
            known = torch.ones(BATCH, dtype=torch.bool)
            known[list(unlabelled)] = False
            cover = hot * torch.rand(hot.shape, generator=generator)
            seasons.append(Labels(hot * known[:, None], known, cover * known[:, None], places))
        made.append((views, (seasons[0], seasons[1])))
    return made


def run(case: Case, rank: int, world: int) -> dict[str, list[Tensor]]:
    """Take the steps; return losses, terms, gradients and what the queue holds."""
    facts = LabelFacts(9, 0.6, tuple(0.1 + 0.2 * c for c in range(9)))
    softcon = model(facts=facts, head_norm=HeadNorm.LN, mask_ratio=0.0, **case)
    step: nn.Module = softcon
    if world > 1:
        step = DistributedDataParallel(softcon, broadcast_buffers=False)
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    trained = [p for p in softcon.parameters() if p.requires_grad]
    out: dict[str, list[Tensor]] = {"terms": [], "gradients": []}
    for views, (first, second) in batches():
        softcon.zero_grad()
        output: SoftConOutput = step(
            (views[0, mine], views[1, mine]), (first[mine], second[mine]), torch.Generator()
        )
        output.loss.backward()
        terms = (output.loss.detach(), output.hard, output.soft, output.soft_excess)
        out["terms"].append(mean(torch.stack([*terms, output.own_probability]), world))
        out["gradients"] += [p.grad.clone() for p in trained]
        with torch.no_grad():
            torch._foreach_add_(trained, [p.grad for p in trained], alpha=-0.5)
        update_teacher(softcon.teacher, softcon.student, 0.9)
    out["queue"] = queue_of(softcon)
    return out


def classify(rank: int, world: int) -> dict[str, list[Tensor]]:
    """The gradients of the control that predicts the labels, and its loss, of each batch."""
    torch.manual_seed(0)
    config = SoftConConfig(objective=Objective.MULTILABEL, mask_ratio=0.0)
    method = CombinedTerms(Patches(), config, torch.Generator(), LabelFacts(9))
    step: nn.Module = method
    if world > 1:
        step = DistributedDataParallel(method, broadcast_buffers=False)
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    out: dict[str, list[Tensor]] = {"terms": [], "gradients": []}
    for views, (first, second) in batches():
        method.zero_grad()
        output = step(
            (views[0, mine], views[1, mine]), (first[mine], second[mine]), torch.Generator()
        )
        output.loss.backward()
        out["terms"].append(mean(output.loss.detach(), world))
        out["gradients"] += [p.grad.clone() for p in method.parameters() if p.requires_grad]
    return out


def mean(values: Tensor, world: int) -> Tensor:
    """The mean over all processes, as DDP makes it of gradients."""
    if world > 1:
        distributed.all_reduce(values)
    return values / world


def queue_of(softcon: SoftCon) -> list[Tensor]:
    """All buffers of the queue."""
    return [] if softcon.queue is None else [b.clone().float() for b in softcon.queue.buffers()]


def work(rank: int, world: int, folder: str, cases: Sequence[Case]) -> None:
    """One process of several: take all cases, then the control, and save what came out."""
    torch.set_num_threads(1)
    with together(rank, world, folder):
        results = [*(run(case, rank, world) for case in cases), classify(rank, world)]
    torch.save(results, Path(folder) / f"{rank}.pt")


@contextmanager
def together(rank: int, world: int, folder: str):
    """A process group over files."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
