"""Hallucinated positives: a further view of an image in feature space (arXiv 2307.12168).

The vectors of two views of an image differ by the effect of augmentation. A vector a little further
along that line, passed through a small network H, represents a view that no augmentation produced.
It has to match the teacher's vector of the second view, like a real one:

    z_h = H(z_1 + a (z_1 - z_2)),    a ~ U(0, a_max),    L = InfoNCE(z_h, z'_2)

The formula is taken from descriptions of the paper, not from the paper. The term is off by default.

Shapes: B images, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eofm.contract.imagery import Labels
from eofm.errors import require
from eofm.method.branches import prediction_head, projector_of
from eofm.method.config import HeadForm
from eofm.method.distributed import gathered, own_columns
from eofm.method.losses import hard_loss, own_probability
from eofm.method.similarity import cosine_matrix
from eofm.method.terms.seam import (
    Needs,
    RandomMask,
    RunFacts,
    Seen,
    Side,
    TeacherKind,
    Term,
    TermOutput,
)

__all__ = ["TERM", "Hallucinate", "HallucinateSettings", "extrapolated"]

_HEAD: Final = "hallucinate"


@dataclass(frozen=True)
class HallucinateSettings:
    """Settings of the term; temperature, heads and mask are set in the group `method`.

    Args:
        furthest: Largest step a_max along the difference of the two views.

    Raises:
        ConfigError: If it is not more than 0.
    """

    furthest: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.furthest > 0,
            "method.terms.hallucinate.furthest",
            self.furthest,
            "more than 0: at 0 there is no other view",
        )


def extrapolated(
    first: Float[Tensor, "b d"],
    second: Float[Tensor, "b d"],
    furthest: float,
    generator: torch.Generator,
) -> Float[Tensor, "b d"]:
    """Return z_1 + a (z_1 - z_2), (B, d), with a separate a for every image.

    Args:
        first: z_1, (B, d).
        second: z_2, (B, d).
        furthest: a_max; at 0 the result is z_1.
        generator: Random generator of a, on the CPU.
    """
    steps = torch.rand(len(first), 1, generator=generator) * furthest
    return first + steps.to(first) * (first - second)


@final
class Hallucinate(Term[HallucinateSettings]):
    """InfoNCE of hallucinated vectors against the moving average's, with a separate projector.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk.
        generator: Random generator of the initial weights of H, on the CPU.
    """

    about = "hallucinated positives in feature space (arXiv 2307.12168)"
    settings = HallucinateSettings
    needs = Needs(teacher=TeacherKind.EMA)

    def __init__(
        self, settings: HallucinateSettings, facts: RunFacts, generator: torch.Generator
    ) -> None:
        super().__init__(settings, facts, generator)
        method = facts.method
        self.hallucinator = prediction_head(
            method.dim, method.hidden, method.head_norm, generator, HeadForm.MOCO3
        )

    @classmethod
    def heads(
        cls, settings: HallucinateSettings, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return the projector."""
        drops = facts.drops_tokens
        return {_HEAD: projector_of(facts.method, facts.width, generator, drops_tokens=drops)}

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the mean loss over the directions; both directions if the method is symmetric."""
        mask = RandomMask(self.facts.method.mask_ratio)
        real = [seen.project(Side.STUDENT, view, _HEAD, mask) for view in (0, 1)]
        losses, found = [], []
        for view in self.facts.views:
            other = 1 - view
            made = extrapolated(real[view], real[other], self.chosen.furthest, generator)
            keys = gathered(seen.project(Side.TEACHER, other, _HEAD))
            cosines = cosine_matrix(self.hallucinator(made), keys)
            own = own_columns(made)
            losses.append(hard_loss(cosines, own, self.facts.method.tau))
            found.append(own_probability(cosines, own, self.facts.method.tau))
        return TermOutput(
            torch.stack(losses).mean(), {"own_probability": torch.stack(found).mean()}
        )


TERM = Hallucinate
