"""Self-distillation for further pretraining (arXiv 2210.02871): stay near the first run.

Further pretraining on a small data set overfits. The remedy takes two runs. The first run trains
from weights θ0 to a teacher T as usual. The second run starts *again from θ0* with the same
objective, plus the squared distance between the CLS tokens of student and teacher for the same
whole image, after the final norm, summed over the width, with weight 1 as in
`seanie12/self-distillation`.

Shapes: B images, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method.terms.seam import Needs, RunFacts, Seen, Side, TeacherKind, Term, TermOutput

__all__ = ["TERM", "SelfDistill", "SelfDistillSettings", "squared_distance"]


@dataclass(frozen=True)
class SelfDistillSettings:
    """Settings of the term.

    Args:
        teacher: Weights from the first run, as for `model.weights`: a run or an export.
    """

    teacher: str = ""


def squared_distance(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Return the mean over images of ‖f_θ(x) - f_T(x)‖²; the teacher gets no gradient.

    Args:
        student: CLS of the student after its final norm, (B, D).
        teacher: CLS of the teacher after its final norm, (B, D).
    """
    with torch.autocast(student.device.type, enabled=False):
        return (student.float() - teacher.detach().float()).square().sum(dim=1).mean()


@final
class SelfDistill(Term[SelfDistillSettings]):
    """The student's vector of a whole view stays near that of the first run's network.

    The vector is CLS, or the trunk's exported embedding in general. The student's view is
    augmented; the teacher gets the same crop without colour jitter and blur.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk, and the width of the teacher.
        generator: Not used: the term has no trained layers.

    Raises:
        ConfigError: If teacher and student are different networks.
    """

    about = "self-distillation for further pretraining (arXiv 2210.02871)"
    settings = SelfDistillSettings
    needs = Needs(teacher=TeacherKind.FROZEN)

    def __init__(
        self, settings: SelfDistillSettings, facts: RunFacts, generator: torch.Generator
    ) -> None:
        super().__init__(settings, facts, generator)
        if facts.frozen_width != facts.width:
            raise ConfigError(
                "self-distillation needs a teacher of the same network",
                found=f"a teacher of width {facts.frozen_width}",
                expected=f"{facts.width}, the width of the student",
                where="method.terms.self_distill.teacher",
                remedy="name a run of the same architecture; for another network there is distill",
            )

    @classmethod
    def frozen_source(cls, settings: SelfDistillSettings) -> str:
        """Return the name of the teacher's weights."""
        return settings.teacher

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the mean loss over the views; both views if the method is symmetric."""
        losses = [
            squared_distance(
                seen.forward(Side.STUDENT, view)[:, 0],
                seen.frozen(view)[:, 0],
            )
            for view in self.facts.views
        ]
        loss = torch.stack(losses).mean()
        return TermOutput(loss, {"distance": loss.detach()})


TERM = SelfDistill
