"""Small things for tests of the method: label sets, a trunk of one layer, batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eofm.contract.imagery import Labels
from eofm.method import (
    LabelFacts,
    SoftCon,
    SoftConConfig,
    SoftForm,
    hard_loss,
    soft_loss,
)

TAU = 0.2


def multi_hot(*sets: set[int], classes: int = 9) -> Tensor:
    """Label sets as rows of zeros and ones."""
    out = torch.zeros(len(sets), classes)
    for row, members in enumerate(sets):
        out[row, list(members)] = 1
    return out


def some_labels(count: int, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Random label sets, none of them empty."""
    labels = (torch.rand(count, 9, generator=generator) < share).float()
    labels[torch.arange(count), torch.randint(9, (count,), generator=generator)] = 1
    return labels


def everything(*shape: int) -> Tensor:
    """All images, or pairs of images, are labelled."""
    return torch.ones(shape, dtype=torch.bool)


def soft(
    s: Tensor, similarity: Tensor, form: SoftForm, tau: float = TAU, bias: float = 0.0
) -> float:
    """The soft term where every image is labelled, in float64: exact on every processor."""
    pairs = everything(*s.shape)
    return soft_loss(s.double(), similarity.double(), pairs, form, tau=tau, bias=bias).item()


def hard(s: Tensor, tau: float = TAU) -> float:
    """The hard term of a square matrix whose diagonal is each row's own image, in float64."""
    return hard_loss(s.double(), torch.arange(len(s)), tau).item()


class Patches(nn.Module):
    """A trunk of one linear layer: the mean embedding of the patches it is let to see."""

    def __init__(self, dim: int = 12, grid: int = 4, side: int = 2, channels: int = 3) -> None:
        super().__init__()
        self.dim, self.tokens, self.block, self.drops_tokens = dim, grid * grid, side, True
        self.proj = nn.Conv2d(channels, dim, side, side)

    def forward(self, pixels, keep=None):
        tokens = self.proj(pixels).flatten(2).transpose(1, 2).tanh()
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, self.dim))
        return tokens.mean(1)


def small(**changes: object) -> SoftConConfig:
    """A configuration with heads of a size for tests."""
    return SoftConConfig(**{"hidden": 16, "dim": 8, **changes})


def model(seed: int = 0, facts: LabelFacts | None = None, **changes: object) -> SoftCon:
    """The method on a trunk of one layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = Patches()
    generator = torch.Generator().manual_seed(seed)
    return SoftCon(trunk, small(**changes), generator, facts or LabelFacts())


def batch(generator: torch.Generator, n: int = 6) -> tuple[tuple[Tensor, Tensor], Labels]:
    """Two views of random images; the last image is unlabelled."""
    views = torch.rand(2, n, 3, 8, 8, generator=generator)
    labels = some_labels(n, generator)
    labels[-1] = 0
    return (views[0], views[1]), Labels(labels, torch.arange(n) < n - 1)
