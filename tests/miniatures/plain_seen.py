"""What a term of the objective sees, without a run: a small transformer and two views."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from eofm.method.terms.seam import Mask, RunFacts, Seen, Side, Term
from eofm.networks.trunk import Trunk
from eofm.networks.vit import Architecture, ViT, initialise

PATCH, SIDE = 4, 16


def small_vit(channels: int = 3, seed: int = 0, registers: int = 0) -> ViT:
    """A transformer of two blocks for images of 16 pixels in 4 x 4 patches."""
    with torch.random.fork_rng(devices=[]):
        vit = ViT(Architecture(32, 2, 4, PATCH, registers), channels, (SIDE, SIDE))
    initialise(vit, torch.Generator().manual_seed(seed))
    return vit


def facts_of(trunk: Trunk, *others: Trunk, **changes: object) -> RunFacts:
    """What a term must know of such a network, or of one for each view."""
    channels = (trunk.channels, (others or (trunk,))[-1].channels)
    known = {"width": trunk.dim, "grid": trunk.grid, "patch": trunk.block, "channels": channels}
    return RunFacts(**{**known, **changes})


class PlainSeen(Seen):
    """Two views before a network, or before one for each view, and its copy as the teacher.

    Attributes:
        passes: What was computed, in order: side, view, mask.
    """

    def __init__(
        self, trunks: Trunk | tuple[Trunk, Trunk], views: tuple[Tensor, Tensor], *,
        valid: Tensor | None = None, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        self.trunks = trunks if isinstance(trunks, tuple) else (trunks, trunks)
        self.teachers = tuple(copy.deepcopy(t).requires_grad_(False) for t in self.trunks)
        self.views = views
        pixels = views[0]
        shown = torch.ones(len(pixels), 1, *pixels.shape[2:], dtype=torch.bool)
        self.shown = shown if valid is None else valid
        self.generator = generator or torch.Generator().manual_seed(0)
        self.passes: list[tuple[Side, int, Mask | None]] = []
        self.keeps: dict[tuple[int, Mask], Tensor | None] = {}
        self.tokens: dict[tuple[Side, int, Mask | None], Tensor] = {}

    def images(self, view: int) -> Tensor:
        return self.views[view]

    def valid(self, view: int) -> Tensor:
        return self.shown

    def keep(self, view: int, mask: Mask | None) -> Tensor | None:
        if mask is None:
            return None
        if (view, mask) not in self.keeps:
            grid = self.trunks[view].grid
            self.keeps[view, mask] = mask.draw(len(self.views[view]), grid, self.generator)
        return self.keeps[view, mask]

    def forward(self, side: Side, view: int, mask: Mask | None = None) -> Tensor:
        if (side, view, mask) not in self.tokens:
            self.passes.append((side, view, mask))
            trunk = (self.trunks if side is Side.STUDENT else self.teachers)[view]
            with torch.set_grad_enabled(side is Side.STUDENT):
                made = trunk.forward_features(self.views[view], self.keep(view, mask))
            self.tokens[side, view, mask] = torch.cat([made[:, :1], made[:, trunk.prefix :]], 1)
        return self.tokens[side, view, mask]

    def project(self, side: Side, view: int, head: str, mask: Mask | None = None) -> Tensor:
        raise NotImplementedError

    def frozen(self, view: int) -> Tensor:
        raise NotImplementedError


def fields(generator: torch.Generator, count: int = 32, bands: int = 3, waves: int = 1) -> Tensor:
    """Images of plane waves, (count, bands, 16, 16): what is hidden follows from what is not.

    Args:
        generator: Source of directions, phases, and of the weight of each band.
        count: Number of images.
        bands: Bands of each.
        waves: How many are added up.
    """
    line = torch.linspace(-1, 1, SIDE)
    out = torch.zeros(count, bands, SIDE, SIDE)
    for _ in range(waves):
        angle, phase = 6.28 * torch.rand(2, count, 1, 1, generator=generator)
        way = angle.cos() * line[None, :, None] + angle.sin() * line[None, None, :]
        weight = 0.5 + torch.rand(count, bands, 1, 1, generator=generator)
        out += weight * (4 * way + phase).sin()[:, None]
    return out / waves


def train(
    term: Term[object],
    trunks: Trunk | tuple[Trunk, Trunk],
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]],
    steps: int,
    seed: int = 1,
) -> None:
    """Take some steps on batches that are drawn afresh."""
    networks = trunks if isinstance(trunks, tuple) else (trunks,)
    weights = [p for each in (term, *networks) for p in each.parameters()]
    optimizer = torch.optim.AdamW(dict.fromkeys(weights), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        seen = PlainSeen(trunks, batch(generator), generator=generator)
        optimizer.zero_grad()
        term.loss(seen, None, generator).loss.backward()
        optimizer.step()


@torch.no_grad()
def scored(
    term: Term[object],
    trunks: Trunk | tuple[Trunk, Trunk],
    views: tuple[Tensor, Tensor],
) -> dict[str, float]:
    """Return a term's scalars on some images, with the same masks at every call."""
    term.eval()
    output = term.loss(PlainSeen(trunks, views), None, torch.Generator())
    term.train()
    return {name: float(value) for name, value in output.scalars.items()}
