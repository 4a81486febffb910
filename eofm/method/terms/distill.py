"""Feature distillation: the student imitates a frozen teacher (SSLD, arXiv 2103.05959).

SSLD uses the class probabilities of a classifier; a self-supervised teacher has no classes. They
are replaced by the teacher's vectors of other images: teacher and student each give a distribution
of similarities to them (SEED, arXiv 2101.04731). The distance of the two distributions is the
Jensen-Shannon divergence, as in SSLD, where it was better than cross entropy.

    p = softmax_j(cos(t_i, t_j) / τ_t),    q = softmax_j(cos(z_i, t_j) / τ_s),    m = (p + q) / 2
    L = mean_i ½ KL(p ‖ m) + ½ KL(q ‖ m)

Shapes: B images (rows), N teacher vectors (columns), d width of the teacher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import require
from eofm.method.branches import linear_layer
from eofm.method.distributed import Columns, KeyQueue, Targets, gathered
from eofm.method.similarity import cosine_matrix
from eofm.method.terms.seam import Needs, RunFacts, Seen, Side, TeacherKind, Term, TermOutput

__all__ = [
    "TERM",
    "Distill",
    "DistillForm",
    "DistillSettings",
    "cosine_loss",
    "js_divergence",
    "js_loss",
    "log_distribution",
]


class DistillForm(StrEnum):
    """Quantity to match: the similarities to other images (JS), or the vectors themselves."""

    JS = "js"
    COSINE = "cosine"


@dataclass(frozen=True)
class DistillSettings:
    """Settings of the term.

    Args:
        teacher: Weights of the frozen teacher, as for `model.weights`: a published name, an export,
            or a run. Its images are prepared by a separate plan, from the recipe on its card.
        form: `js`, the Jensen-Shannon divergence of the similarities to other images; or `cosine`,
            one minus the cosine of the two vectors.
        teacher_tau: Temperature τ_t of the teacher's similarities.
        student_tau: Temperature τ_s of the student's.
        queue: Number of teacher vectors from earlier steps to use as further other images, a
            multiple of the batch; 0 for the batch only.

    Raises:
        ConfigError: If a value is out of range.
    """

    teacher: str = ""
    form: DistillForm = DistillForm.JS
    teacher_tau: float = 0.04
    student_tau: float = 0.1
    queue: int = 4096

    def __post_init__(self) -> None:
        where = "method.terms.distill"
        for name in ("teacher_tau", "student_tau"):
            value = getattr(self, name)
            require(value > 0, f"{where}.{name}", value, "more than 0")
        require(self.queue >= 0, f"{where}.queue", self.queue, "0 or more")


def log_distribution(
    cosines: Float[Tensor, "b n"], tau: float, missing: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, "b n"]:
    """Return ln softmax_j(s_ij / τ), (B, N).

    Args:
        cosines: s, (B, N).
        tau: Temperature.
        missing: bool (N,), columns that are still empty. Their probability is 0, and its logarithm
            a large finite negative number, so that their product is 0. None if all are filled.
    """
    logits = cosines / tau
    if missing is not None:
        logits = logits.masked_fill(missing, torch.finfo(logits.dtype).min / 2)
    return functional.log_softmax(logits, dim=1)


def js_divergence(log_p: Float[Tensor, "b n"], log_q: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return the Jensen-Shannon divergence of each row, in nats: 0 at p = q, at most ln 2.

    Args:
        log_p: ln p, (B, N), finite.
        log_q: ln q, (B, N), finite.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    to_p = (log_p.exp() * (log_p - log_m)).sum(dim=1)
    to_q = (log_q.exp() * (log_q - log_m)).sum(dim=1)
    return (to_p + to_q) / 2


def js_loss(
    student: Float[Tensor, "b d"],
    teacher: Float[Tensor, "b d"],
    columns: Float[Tensor, "n d"],
    *,
    student_tau: float,
    teacher_tau: float,
    missing: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Return L; the teacher and the columns get no gradient.

    Args:
        student: z, (B, d), projected to the teacher's width.
        teacher: t, (B, d).
        columns: t_j, (N, d): the teacher's vectors of this batch of all ranks, and of earlier ones.
        student_tau: τ_s.
        teacher_tau: τ_t.
        missing: bool (N,), as for `log_distribution`.
    """
    fixed = columns.detach()
    log_p = log_distribution(cosine_matrix(teacher.detach(), fixed), teacher_tau, missing)
    log_q = log_distribution(cosine_matrix(student, fixed), student_tau, missing)
    return js_divergence(log_p, log_q).mean()


def cosine_loss(student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the mean of 1 - cos(z_i, t_i), 0 to 2; the teacher gets no gradient.

    Args:
        student: z, (B, d).
        teacher: t, (B, d).
    """
    with torch.autocast(student.device.type, enabled=False):
        near = functional.cosine_similarity(student.float(), teacher.detach().float(), dim=1)
        return (1 - near).mean()


@final
class Distill(Term[DistillSettings]):
    """The student's vector, projected linearly to the teacher's width, learns from the teacher.

    Both get the same unmasked crop: the student with its augmentation and its bands, the teacher
    without colour jitter and blur, with the bands and the size of its recipe. If the views are of
    two sensors, the teacher gets its own sensor for both views.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk, and the width of the teacher.
        generator: Random generator of the linear layer's initial weights, on the CPU.
    """

    about = "feature distillation from a frozen teacher (SSLD, arXiv 2103.05959)"
    settings = DistillSettings
    needs = Needs(teacher=TeacherKind.FROZEN)

    def __init__(
        self, settings: DistillSettings, facts: RunFacts, generator: torch.Generator
    ) -> None:
        super().__init__(settings, facts, generator)
        self.adapter = linear_layer(facts.width, facts.frozen_width, generator, bias=True)
        self.queue: KeyQueue | None = None
        if settings.form is DistillForm.JS and settings.queue:
            self.queue = KeyQueue(settings.queue, facts.frozen_width, 0, places=False)

    @classmethod
    def frozen_source(cls, settings: DistillSettings) -> str:
        """Return the name of the teacher's weights."""
        return settings.teacher

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the mean loss over the views; both views if the method is symmetric."""
        losses, near = [], []
        for view in self.facts.views:
            mine = self.adapter(seen.forward(Side.STUDENT, view)[:, 0])
            theirs = seen.frozen(view)[:, 0]
            losses.append(self._distance(mine, theirs))
            near.append(1 - cosine_loss(mine.detach(), theirs))
        return TermOutput(torch.stack(losses).mean(), {"cosine": torch.stack(near).mean()})

    def _distance(
        self, mine: Float[Tensor, "b d"], theirs: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        if self.chosen.form is DistillForm.COSINE:
            return cosine_loss(mine, theirs)
        keys = gathered(theirs)
        known = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        fresh = Columns(keys, Targets(keys.new_zeros(len(keys), 0), known, None))
        columns = fresh if self.queue is None else self.queue.behind(fresh)
        loss = js_loss(
            mine,
            theirs,
            columns.keys,
            student_tau=self.chosen.student_tau,
            teacher_tau=self.chosen.teacher_tau,
            missing=columns.missing,
        )
        if self.queue is not None and self.training:
            self.queue.push(fresh)
        return loss


TERM = Distill
