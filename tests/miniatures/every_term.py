"""Every term of an objective alone, on two blocks of a transformer, in one process or several."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from softcon_ranks import mean, together
from softcon_small import some_labels
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eofm.contract.imagery import Labels
from eofm.method import CombinedTerms, HeadNorm, LabelFacts, SoftConConfig, update_teacher
from eofm.method.terms.seam import TeacherKind, ViewKind, find_term
from eofm.networks.joint import share_trunk
from eofm.networks.vit import Architecture, ViT, initialise

BATCH, STEPS, SIDE, WIDTH = 10, 3, 16, 32
# What is made smaller for a test, where a term has such a setting.
SMALL = {
    **{"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "decoder_hidden": 64},
    **{"queue": 2 * BATCH, "neighbours": 3},
}
Results = dict[str, list[Tensor]]


class FrozenVectors(nn.Module):
    """A frozen teacher of one layer, as wide as the student."""

    dim = WIDTH

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(WIDTH, 3, generator=generator)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, :3].mean(dim=(2, 3)) @ self.weight.T


def vit(channels: int, seed: int) -> ViT:
    """Two blocks on 4 x 4 patches."""
    with torch.random.fork_rng(devices=[]):
        made = ViT(Architecture(WIDTH, 2, 4, 4), channels, (SIDE, SIDE))
    initialise(made, torch.Generator().manual_seed(seed))
    return made


def asked(name: str) -> dict[str, object]:
    """The settings of a term for a test."""
    kind = find_term(name)
    own = kind.settings is not SoftConConfig  # whose settings are those of the group `method`
    known = {field.name for field in fields(kind.settings)} if own else set()
    found: dict[str, object] = {key: value for key, value in SMALL.items() if key in known}
    if kind.needs.teacher is TeacherKind.FROZEN:
        found["teacher"] = "frozen"
    return found


def alone(name: str, seed: int = 0) -> CombinedTerms:
    """A run of one term."""
    sensors = find_term(name).needs.views is ViewKind.SENSORS
    trunk = share_trunk({"a": vit(3, seed), "b": vit(2, seed)}) if sensors else vit(3, seed)
    config = SoftConConfig(
        hidden=16, dim=8, head_norm=HeadNorm.LN, terms={name: {"weight": 1, **asked(name)}}
    )
    generator = torch.Generator().manual_seed(seed)
    facts = LabelFacts(9, 0.6)
    return CombinedTerms(
        trunk, config, generator, facts, band_mean=0.5, frozen=lambda _: FrozenVectors()
    )


def batch_of(name: str, step: int) -> tuple[tuple[Tensor, Tensor], tuple[Labels, Labels]]:
    """Two views of a batch, with labels of two seasons: of the first half most have none."""
    generator = torch.Generator().manual_seed(step)
    views = torch.rand(2, BATCH, 3, SIDE, SIDE, generator=generator)
    other = views[1, :, :2] if find_term(name).needs.views is ViewKind.SENSORS else views[1]
    seasons = []
    for unlabelled in ((0, 1, 3), (1, 2)):
        hot = some_labels(BATCH, generator)
        known = torch.ones(BATCH, dtype=torch.bool)
        known[list(unlabelled)] = False
        cover = hot * torch.rand(hot.shape, generator=generator)
        places = torch.arange(BATCH) + 100 * step
        seasons.append(Labels(hot * known[:, None], known, cover * known[:, None], places))
    return (views[0], other), (seasons[0], seasons[1])


def measured(step: int) -> Tensor:
    """Which pixels count, bool (BATCH, 1, SIDE, SIDE): of the first half fewer."""
    valid = torch.ones(BATCH, 1, SIDE, SIDE, dtype=torch.bool)
    valid[: BATCH // 2, :, : 3 + step, :9] = False
    return valid


@contextmanager
def drawn_for_all(rank: int, world: int) -> Iterator[None]:
    """Let a process draw for the whole batch, and keep what is of its own images.

    What is drawn for each image has the batch as its first or second dimension.
    """
    inner, own = torch.rand, BATCH // world

    def rand(*size: Any, **options: Any) -> Tensor:
        shape = list(size[0]) if len(size) == 1 and not isinstance(size[0], int) else list(size)
        if "generator" not in options or own not in shape[:2]:
            return inner(*size, **options)
        at = shape.index(own)
        shape[at] = BATCH
        return inner(*shape, **options).narrow(at, rank * own, own)

    torch.rand = rand  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.rand = inner


def run(name: str, rank: int = 0, world: int = 1) -> Results:
    """Take the steps; return losses, gradients and the buffers at the end."""
    method = alone(name)
    step: nn.Module = method
    if world > 1:
        step = DistributedDataParallel(method, broadcast_buffers=False)
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    trained = [p for p in method.parameters() if p.requires_grad]
    out: Results = {"loss": [], "gradients": []}
    generator = torch.Generator().manual_seed(3)
    for number in range(STEPS):
        method.zero_grad()
        (one, other), (first, second) = batch_of(name, number)
        valid = measured(number)
        with drawn_for_all(rank, world):
            output = step(
                (one[mine], other[mine]),
                (first[mine], second[mine]),
                generator,
                lambda _, valid=valid: valid[mine],
            )
        output.loss.backward()
        out["loss"].append(mean(output.loss.detach().clone(), world))
        out["gradients"] += [p.grad.clone() for p in trained if p.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(trained, [p.grad for p in trained], alpha=-0.1)
        if method.teacher is not None:
            update_teacher(method.teacher, method.student, 0.9)
    out["buffers"] = [b.clone().float() for b in method.terms.buffers()]
    return out


def work(rank: int, world: int, folder: str, names: Sequence[str]) -> None:
    """One process of several: take the steps of all terms, and save what came out."""
    torch.set_num_threads(1)
    with together(rank, world, folder):
        results = {name: run(name, rank, world) for name in names}
    torch.save(results, Path(folder) / f"{rank}.pt")


class Training:
    """A run of one term with its optimizer, which can be saved and gone on with."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name, self.method = name, alone(name, seed)
        trained = [p for p in self.method.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, number: int) -> Tensor:
        """Take a step on the batch of that number; return its loss."""
        views, labels = batch_of(self.name, number)
        valid = measured(number)
        self.optimizer.zero_grad()
        output = self.method(views, labels, self.generator, lambda _: valid)
        output.loss.backward()
        self.optimizer.step()
        if self.method.teacher is not None:
            update_teacher(self.method.teacher, self.method.student, 0.9)
        return output.loss.detach()

    def save(self) -> bytes:
        """What a checkpoint holds of it."""
        file = io.BytesIO()
        states = (self.method.state_dict(), self.optimizer.state_dict(), self.generator.get_state())
        torch.save(states, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        """Go on from there."""
        method, optimizer, state = torch.load(io.BytesIO(saved), weights_only=True)
        self.method.load_state_dict(method)
        self.optimizer.load_state_dict(optimizer)
        self.generator.set_state(state)
