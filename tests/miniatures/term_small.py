"""Small runs of terms: a trunk of one layer, frozen teachers of one, batches, some steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from softcon_small import Patches, small, some_labels
from torch import Tensor, nn

from eofm.contract.imagery import Labels
from eofm.method.objectives import CombinedTerms
from eofm.method.similarity import LabelFacts

FACTS = LabelFacts(9, 0.6)
PATTERNS = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(11))
PATTERNS = nn.functional.interpolate(PATTERNS, size=8)


class Frozen(nn.Module):
    """A frozen teacher: another trunk of one layer, of any width."""

    def __init__(self, dim: int = 10, seed: int = 7) -> None:
        super().__init__()
        self.trunk = patches(dim, seed).requires_grad_(False)
        self.dim = dim

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk(pixels)


def patches(dim: int = 12, seed: int = 0) -> Patches:
    """A trunk of one layer, the same for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Patches(dim)


def combined(
    terms: dict[str, object],
    frozen: Callable[[str], nn.Module] | None = None,
    seed: int = 0,
    **changes: object,
) -> CombinedTerms:
    """The terms of a run on a trunk of one layer."""
    generator = torch.Generator().manual_seed(seed)
    config = small(terms=terms, **changes)
    return CombinedTerms(
        patches(seed=seed), config, generator, FACTS, frozen=frozen or (lambda source: Frozen())
    )


def images(generator: torch.Generator, count: int = 16) -> tuple[tuple[Tensor, Tensor], Labels]:
    """Two views of images of six patterns, all of different places, the last one unlabelled."""
    weights = torch.randn(count, len(PATTERNS), generator=generator)
    one = 0.5 * torch.einsum("np,pchw->nchw", weights, PATTERNS)
    other = one + 0.05 * torch.randn(one.shape, generator=generator)
    hot = some_labels(count, generator)
    hot[-1] = 0
    known = torch.arange(count) < count - 1
    places = torch.randint(10**9, (count,), generator=generator)
    return (one, other), Labels(hot, known, places=places)


def train(method: CombinedTerms, steps: int, seed: int = 1, lr: float = 1e-2) -> list[float]:
    """Take steps on fresh batches; return the losses."""
    generator = torch.Generator().manual_seed(seed)
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=lr), []
    for _ in range(steps):
        views, labels = images(generator)
        output = method(views, labels, generator)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    return losses
