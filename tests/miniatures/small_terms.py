"""Terms of an objective on a small transformer, and images whose hidden parts can be known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from softcon_small import some_labels
from torch import Tensor

from eofm.contract.imagery import Labels
from eofm.method import CombinedTerms, LabelFacts, SoftConConfig, update_teacher
from eofm.method.objectives import StepOutput
from eofm.networks.joint import JointTrunk
from eofm.networks.trunk import Trunk
from eofm.networks.vit import Architecture, ViT, initialise

PATCH, SIDE = 4, 16
DECODER: Mapping[str, object] = {
    "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "decoder_hidden": 64,
}  # fmt: skip
Two = tuple[Tensor, Tensor]


def small_vit(channels: int = 3, seed: int = 0, **changes: object) -> ViT:
    """A transformer of one block for images of 16 pixels in 4 x 4 patches."""
    with torch.random.fork_rng(devices=[]):
        vit = ViT(Architecture(32, 1, 4, PATCH, **changes), channels, (SIDE, SIDE))
    initialise(vit, torch.Generator().manual_seed(seed))
    return vit


def combined(
    terms: Mapping[str, object], trunk: Trunk | JointTrunk | None = None, **method: object
) -> CombinedTerms:
    """The terms of a run, with heads of a size for tests."""
    config = SoftConConfig(**{"hidden": 16, "dim": 8, "terms": dict(terms), **method})
    generator = torch.Generator().manual_seed(0)
    return CombinedTerms(trunk or small_vit(), config, generator, LabelFacts(9, 0.5))


def waves(generator: torch.Generator, count: int = 16, bands: int = 3, many: int = 1) -> Tensor:
    """Images of plane waves, (count, bands, 16, 16): what is hidden follows from what is not.

    Args:
        generator: Source of directions, phases, and of the weight of each band.
        count: Number of images.
        bands: Bands of each.
        many: How many waves are added up: with three, little of an image follows from the rest.
    """
    line = torch.linspace(-1, 1, SIDE)
    out = torch.zeros(count, bands, SIDE, SIDE)
    for _ in range(many):
        angle, phase = 6.28 * torch.rand(2, count, 1, 1, generator=generator)
        way = angle.cos() * line[None, :, None] + angle.sin() * line[None, None, :]
        weight = 0.5 + torch.rand(count, bands, 1, 1, generator=generator)
        out += weight * (4 * way + phase).sin()[:, None]
    return out / many


def twice(generator: torch.Generator) -> Two:
    """The same waves as both views."""
    images = waves(generator)
    return images, images


def labels_of(views: Two) -> Labels:
    """Some labels for the images."""
    count = len(views[0])
    hot = some_labels(count, torch.Generator().manual_seed(3))
    return Labels(hot, torch.ones(count, dtype=torch.bool))


def step(
    terms: CombinedTerms, views: Two, seed: int = 0, valid: Tensor | None = None
) -> StepOutput:
    """One step with masks of a seed."""
    generator = torch.Generator().manual_seed(seed)
    measured = None if valid is None else lambda _: valid
    output: StepOutput = terms(views, labels_of(views), generator, measured)
    return output


def train(
    terms: CombinedTerms, batch: Callable[[torch.Generator], Two], steps: int, lr: float = 4e-3
) -> None:
    """Take some steps on batches that are drawn afresh."""
    weights = [p for p in terms.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        optimizer.zero_grad()
        step(terms, batch(generator), number).loss.backward()
        optimizer.step()
        if terms.teacher is not None:
            update_teacher(terms.teacher, terms.student, 0.9)


@torch.no_grad()
def scored(terms: CombinedTerms, views: Two) -> dict[str, float]:
    """The scalars of some images, with the same masks at every call; nothing is changed."""
    terms.eval()
    output = step(terms, views)
    terms.train()
    return {name: float(value) for name, value in output.scalars.items()}


def passes(terms: CombinedTerms, views: Two) -> int:
    """How often the student's trunk is run in a step."""
    count = 0
    trunk = terms.student.trunk
    trunks = trunk.trunks.values() if isinstance(trunk, JointTrunk) else [trunk]

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    hooks = [each.norm.register_forward_hook(counted) for each in trunks]
    step(terms, views)
    for hook in hooks:
        hook.remove()
    # of a joint trunk the last norm is one module with a hook for each of its sensors
    return count // len(hooks)


def unreached(terms: CombinedTerms, views: Two, seed: int = 0) -> set[str]:
    """The trained parameters that the loss of a step does not reach: they would stop DDP."""
    terms.zero_grad()
    step(terms, views, seed).loss.backward()
    trained = {n: p for n, p in terms.named_parameters() if p.requires_grad}
    return {n for n, p in trained.items() if p.grad is None}
