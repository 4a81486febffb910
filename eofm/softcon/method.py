"""One step of the method: student, predictor, teacher, and the sum of both terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import ConfigError, TrainingError
from eofm.imagery import Labels
from eofm.softcon.heads import HeadNorm, prediction_head, projection_head
from eofm.softcon.losses import SoftForm, hard_loss, soft_floor, soft_loss
from eofm.softcon.masking import keep_tokens
from eofm.softcon.similarity import LabelSimilarity, cosine_matrix, label_similarity
from eofm.softcon.teacher import make_teacher


@dataclass(frozen=True)
class SoftConSettings:
    """Everything that changes the objective.

    Args:
        tau: Temperature of the hard term.
        soft_tau: Temperature of the soft term (bce, ce).
        soft_weight: λ; 0 leaves MoCo-v3.
        soft_form: Form of the soft term.
        similarity: Label similarity.
        mask_ratio: Share of the student's patches that are dropped.
        symmetric: Add the direction from the second view to the first.
        hidden: Hidden width of both heads.
        out: Width of the contrastive embedding, d.
        head_norm: Normalisation inside the heads.

    Raises:
        ConfigError: If a value is out of range.
    """

    tau: float = 0.2
    soft_tau: float = 0.2
    soft_weight: float = 1.0
    soft_form: SoftForm = SoftForm.BCE
    similarity: LabelSimilarity = LabelSimilarity.COSINE
    mask_ratio: float = 0.7
    symmetric: bool = True
    hidden: int = 4096
    out: int = 256
    head_norm: HeadNorm = HeadNorm.BN

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("tau", self.tau > 0, "> 0"),
            ("soft_tau", self.soft_tau > 0, "> 0"),
            ("soft_weight", self.soft_weight >= 0, ">= 0"),
            ("mask_ratio", 0 <= self.mask_ratio < 1, "0 <= ratio < 1"),
            ("hidden", self.hidden > 0, "> 0"),
            ("out", self.out > 0, "> 0"),
        ):
            if not holds:
                raise ConfigError(
                    f"{name} is out of range",
                    found=vars(self)[name],
                    expected=expected,
                    where=f"SoftConSettings.{name}",
                )


class Trunk(Protocol):
    """What the method asks of an encoder, besides being an `nn.Module`."""

    @property
    def dim(self) -> int:
        """Width of its output, D."""

    @property
    def tokens(self) -> int:
        """Number of patches of an image, P."""

    def __call__(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return (B, D) for pixels (B, C, H, W), seeing the patches `keep` (B, K) only."""


class Branch(nn.Module):
    """Trunk and projector: the part that the student and the teacher have in common."""

    def __init__(self, trunk: Trunk, settings: SoftConSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = trunk
        self.projector = projection_head(
            trunk.dim, settings.hidden, settings.out, settings.head_norm, generator
        )

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return (B, d)."""
        projection: Tensor = self.projector(self.trunk(pixels, keep))
        return projection


@dataclass(frozen=True)
class SoftConOutput:
    """One step of the method. Only `loss` carries a gradient; terms are sums over directions.

    Args:
        loss: hard + λ · soft.
        hard: The hard term, detached.
        soft: The soft term, detached.
        soft_excess: The soft term above the entropy of its targets: what can still be learned.
        own_probability: Mean softmax probability of the own image: 1 / N when nothing is learned.
        spread: Mean standard deviation of the teacher's normalised embeddings, times sqrt(d): near
            1 when they fill the sphere, 0 when they have collapsed to one point.
        labelled_pairs: Share of pairs that the soft term sees.
        keep: What the student saw of each view it was given, int64 (B, K); None where everything.
    """

    loss: Tensor
    hard: Tensor
    soft: Tensor
    soft_excess: Tensor
    own_probability: Tensor
    spread: Tensor
    labelled_pairs: Tensor
    keep: tuple[Tensor | None, ...]


# A mean similarity of exactly 0 or 1 has no finite logit.
_LARGEST_BIAS: Final = 5.0


@final
class SoftCon(nn.Module):
    """Student, predictor and teacher, and one step of the objective.

    The teacher is not updated here: call `update_teacher(self.teacher, self.student, m)` after
    each optimiser step, with m from `momentum_at`.

    Args:
        trunk: The encoder to pretrain: an `nn.Module` that is a `Trunk`.
        settings: The objective.
        generator: Source of the heads' initial weights, on the CPU.
        mean_similarity: Mean label similarity of the training set, at whose logit the bias of the
            bce form starts (`mean_label_similarity`): nine frequent classes make it far from 0,
            and without the bias all of the first steps go into that offset. The default 0.5
            is a bias of 0.

    Raises:
        ConfigError: If the trunk is no `nn.Module`, or the mean similarity not within 0 and 1.
    """

    def __init__(
        self,
        trunk: Trunk,
        settings: SoftConSettings,
        generator: torch.Generator,
        mean_similarity: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(trunk, nn.Module) or not 0 <= mean_similarity <= 1:
            raise ConfigError(
                "SoftCon needs a module to train and a mean label similarity",
                found=f"{type(trunk).__name__}, {mean_similarity}",
                expected="an nn.Module, and a number from 0 to 1",
            )
        self.settings = settings
        self.student = Branch(trunk, settings, generator)
        self.predictor = prediction_head(
            settings.out, settings.hidden, settings.head_norm, generator
        )
        self.teacher = make_teacher(self.student)
        self.bias: nn.Parameter | None = None  # a parameter without a use would stop DDP
        if settings.soft_form is SoftForm.BCE:
            logit = torch.logit(torch.tensor(mean_similarity))
            self.bias = nn.Parameter(logit.clamp(-_LARGEST_BIAS, _LARGEST_BIAS))

    def forward(
        self,
        views: tuple[Tensor, Tensor],
        labels: Labels | tuple[Labels, Labels],
        generator: torch.Generator,
    ) -> SoftConOutput:
        """Return the loss of a batch and what there is to log.

        Args:
            views: Two views of the same B images, each (B, C, H, W), normalised.
            labels: Of the images, or of each view where the two are of different seasons.
            generator: Source of the masks.

        Raises:
            TrainingError: If the batch has fewer than two images: there is nothing to contrast.
        """
        if len(views[0]) < 2:
            raise TrainingError(
                "a batch of one has no negatives",
                found=f"{len(views[0])} images",
                expected="2 or more; 64 or more to learn from",
                remedy="raise the batch size, and drop the last incomplete batch",
            )
        per_view = (labels, labels) if isinstance(labels, Labels) else labels
        directions = [(0, 1), (1, 0)] if self.settings.symmetric else [(0, 1)]
        steps = [
            self._direction(
                views[student], views[teacher], per_view[student], per_view[teacher], generator
            )
            for student, teacher in directions
        ]
        return SoftConOutput(
            loss=torch.stack([s.loss for s in steps]).sum(),
            hard=torch.stack([s.hard for s in steps]).sum(),
            soft=torch.stack([s.soft for s in steps]).sum(),
            soft_excess=torch.stack([s.soft_excess for s in steps]).sum(),
            own_probability=torch.stack([s.own_probability for s in steps]).mean(),
            spread=torch.stack([s.spread for s in steps]).mean(),
            labelled_pairs=torch.stack([s.labelled_pairs for s in steps]).mean(),
            keep=tuple(keep for s in steps for keep in s.keep),
        )

    def _direction(
        self,
        student_view: Tensor,
        teacher_view: Tensor,
        student_labels: Labels,
        teacher_labels: Labels,
        generator: torch.Generator,
    ) -> SoftConOutput:
        """The student looks at part of one view, the teacher at all of the other."""
        settings = self.settings
        keep = keep_tokens(
            len(student_view), self.student.trunk.tokens, settings.mask_ratio, generator
        )
        keep = None if keep is None else keep.to(student_view.device)
        queries = self.predictor(self.student(student_view, keep))
        with torch.no_grad():
            keys = self.teacher(teacher_view)
        cosines = cosine_matrix(queries, keys)
        own = torch.arange(len(queries), device=queries.device)
        rows, columns = _labelled(student_labels), _labelled(teacher_labels)
        similarity = label_similarity(
            student_labels.multi_hot, teacher_labels.multi_hot, settings.similarity
        )

        hard = hard_loss(cosines, own, settings.tau)
        soft = soft_loss(
            cosines,
            similarity,
            rows,
            columns,
            settings.soft_form,
            tau=settings.soft_tau,
            bias=0.0 if self.bias is None else self.bias,
        )
        floor = soft_floor(similarity, rows, columns, settings.soft_form)
        probability = functional.softmax(cosines.detach() / settings.tau, dim=1)
        normed = functional.normalize(keys.float(), dim=1)
        return SoftConOutput(
            loss=hard + settings.soft_weight * soft,
            hard=hard.detach(),
            soft=soft.detach(),
            soft_excess=soft.detach() - floor,
            own_probability=probability.gather(1, own[:, None]).mean(),
            spread=normed.std(dim=0).mean() * math.sqrt(normed.shape[1]),
            labelled_pairs=(rows[:, None] & columns[None, :]).float().mean(),
            keep=(keep,),
        )


def _labelled(labels: Labels) -> Tensor:
    """Return which images have a usable label set: known, and not empty."""
    return labels.known & (labels.multi_hot.sum(1) > 0)
