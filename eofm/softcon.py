"""SoftCon: soft contrastive learning guided by multi-labels (arXiv 2405.20462).

In the order of the paper. A student sees part of one view, a teacher (its moving average) all of
the other. Their cosines s, one row per student image and one column per teacher image, enter two
terms. The hard term pulls each image to itself among all others. The soft term makes s follow
the similarity S of the images' land-cover labels. The loss is hard + λ · soft.

What the paper's public material leaves open (the form of the soft term, temperatures, λ) is a
setting; the defaults follow the same authors' MoCo-v3 (arXiv 2211.07044, zhu-xlab/SSL4EO-S12).

Shapes: B student images (rows), N teacher images (columns; N = B on one device), d embedding
width, K classes, P patch tokens.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import ConfigError, TrainingError
from eofm.imagery import Labels

# --------------------------------------------------------------------------- similarities


def cosine_matrix(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cosines s of student (B, d) and teacher (N, d) embeddings, float32 (B, N).

    Never in half precision: bfloat16 steps by 0.03 at a logit of 5.
    """
    with torch.autocast(student.device.type, enabled=False):
        rows = functional.normalize(student.float(), dim=1)
        columns = functional.normalize(teacher.float(), dim=1)
        return rows @ columns.T


class LabelSimilarity(StrEnum):
    """Similarity of two label sets A and B.

    Cosine of the multi-hot vectors, |A∩B| / sqrt(|A||B|); Jaccard, |A∩B| / |A∪B|.
    """

    COSINE = "cosine"
    JACCARD = "jaccard"


def label_similarity(rows: Tensor, columns: Tensor, kind: LabelSimilarity) -> Tensor:
    """Return the similarity S of label sets, float32 (B, N).

    Args:
        rows: Multi-hot (B, K).
        columns: Multi-hot (N, K).
        kind: Which similarity.

    Returns:
        Values in [0, 1], and NaN where a set is empty: nothing is known of such an image, and a
        number would state that it is unlike everything, itself included. `soft_loss` leaves
        those pairs out; anything else that touches them shows.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows, columns = rows.float(), columns.float()
        common = rows @ columns.T
        sizes, other_sizes = rows.sum(1)[:, None], columns.sum(1)[None, :]
        if kind is LabelSimilarity.COSINE:
            similarity = common / (sizes * other_sizes).sqrt()
        else:
            similarity = common / (sizes + other_sizes - common)
        return torch.where((sizes > 0) & (other_sizes > 0), similarity, torch.nan)


def mean_label_similarity(labels: Labels, kind: LabelSimilarity) -> float:
    """Return the mean of S over all pairs of labelled images: what the soft term's bias starts at.

    Each distinct label set is counted once, so the cost does not grow with the square of the
    images: nine classes have at most 511 sets.

    Raises:
        TrainingError: If no image is labelled.
    """
    labelled = labels.known & (labels.multi_hot.sum(1) > 0)
    if not labelled.any():
        raise TrainingError(
            "no image is labelled",
            found=f"{len(labels)} images without labels",
            remedy="pack the images with a land-cover map that covers them",
        )
    sets, counts = torch.unique(labels.multi_hot[labelled], dim=0, return_counts=True)
    share = counts.double() / counts.sum()
    return float(share @ label_similarity(sets, sets, kind).double() @ share)


# --------------------------------------------------------------------------------- losses


def hard_loss(cosines: Tensor, own: Tensor, tau: float) -> Tensor:
    """InfoNCE: each row's own column against all others, times 2τ as in MoCo-v3.

    H = mean_i 2τ · [logsumexp_j(s_ij / τ) - s_i,own / τ]

    Args:
        cosines: s, (B, N).
        own: int64 (B,), the column of each row's own image.
        tau: Temperature τ.
    """
    return 2 * tau * functional.cross_entropy(cosines / tau, own)


class SoftForm(StrEnum):
    """How s is made to follow S.

    Binary cross entropy of each pair, with a bias; cross entropy of each row against S as a
    distribution; mean squared error.
    """

    BCE = "bce"
    CE = "ce"
    MSE = "mse"


def soft_loss(
    cosines: Tensor,
    similarity: Tensor,
    known_rows: Tensor,
    known_columns: Tensor,
    form: SoftForm,
    *,
    tau: float,
    bias: Tensor | float = 0.0,
) -> Tensor:
    """Distance of embedding similarity s from label similarity S, over labelled pairs only.

    bce: mean over pairs of softplus(l) - S·l, with l = s/τ + bias
    ce:  mean over rows of -Σ_j T_ij · log softmax_j(s_ij / τ), with T_i = S_i / Σ_j S_ij
    mse: mean over pairs of (s - S)²

    A pair counts if both its images are labelled. Under ce unlabelled columns leave the softmax,
    and so does a row that shares no class with any column: it has no target. Where nothing
    counts the loss is 0, still connected to s, so that every parameter gets a gradient.

    Args:
        cosines: s, (B, N).
        similarity: S, (B, N); its values are not looked at where a pair does not count.
        known_rows: bool (B,).
        known_columns: bool (N,).
        form: Which distance.
        tau: Temperature of the soft term; not used by mse.
        bias: Added to the logits of bce; the other forms do not see it.
    """
    valid = known_rows[:, None] & known_columns[None, :]
    similarity = torch.where(valid, similarity, 0)
    if form is SoftForm.CE:
        return _row_cross_entropy(cosines / tau, similarity, valid)
    if form is SoftForm.BCE:
        logits = cosines / tau + bias
        distance = functional.softplus(logits) - similarity * logits
    else:
        distance = (cosines - similarity) ** 2
    return (distance * valid).sum() / valid.sum().clamp(min=1)


def _row_cross_entropy(logits: Tensor, similarity: Tensor, valid: Tensor) -> Tensor:
    target, rows = _row_targets(similarity)
    # the lowest finite number, not -inf: a row without any valid column must not become NaN
    logits = torch.where(valid, logits, torch.finfo(logits.dtype).min)
    per_row = -(target * functional.log_softmax(logits, dim=1)).sum(1)
    return (per_row * rows).sum() / rows.sum().clamp(min=1)


def _row_targets(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Return T (B, N) and which rows have one, bool (B,)."""
    mass = similarity.sum(1)
    return similarity / torch.where(mass > 0, mass, 1)[:, None], mass > 0


def soft_floor(
    similarity: Tensor, known_rows: Tensor, known_columns: Tensor, form: SoftForm
) -> Tensor:
    """Return the least value `soft_loss` can take for these labels: the entropy of its target.

    Args:
        similarity: S, (B, N).
        known_rows: bool (B,).
        known_columns: bool (N,).
        form: As given to `soft_loss`.
    """
    valid = known_rows[:, None] & known_columns[None, :]
    similarity = torch.where(valid, similarity, 0)
    if form is SoftForm.MSE:
        return similarity.new_zeros(())
    if form is SoftForm.CE:
        target, rows = _row_targets(similarity)
        return _entropy(target).sum() / rows.sum().clamp(min=1)
    pairs = _entropy(similarity) + _entropy(1 - similarity)
    return pairs.sum() / valid.sum().clamp(min=1)


def _entropy(share: Tensor) -> Tensor:
    """Return -p ln p, 0 at p = 0."""
    return -torch.xlogy(share, share)


# -------------------------------------------------------------------------------- masking


def keep_tokens(batch: int, tokens: int, ratio: float, generator: torch.Generator) -> Tensor | None:
    """Draw which patches the student sees, uniformly and for each image on its own.

    Dropped, not replaced; the same number K for the whole batch (as in MAE, arXiv 2111.06377).

    Args:
        batch: Number of images, B.
        tokens: Number of patches, P.
        ratio: Share to drop, 0 to below 1.
        generator: Source of randomness; the result is on its device.

    Returns:
        int64 (B, K), K = max(2, floor(P (1 - ratio))), or None if nothing is dropped.

    Raises:
        ConfigError: If the ratio is out of range, or fewer than two patches are there to keep.
    """
    if not 0 <= ratio < 1 or (ratio > 0 and tokens < 2):
        raise ConfigError(
            "the student must drop less than all of at least two patches",
            found=f"mask ratio {ratio} of {tokens} patches",
            expected="0 <= ratio < 1, 2 patches or more",
        )
    if ratio == 0:
        return None
    # 100 (1 - 0.9) is 9.999...98 in binary, and ten patches are meant
    kept = max(2, math.floor(tokens * (1 - ratio) + 1e-9))
    noise = torch.rand(batch, tokens, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :kept]


# ---------------------------------------------------------------------------------- heads


class HeadNorm(StrEnum):
    """Normalisation inside the heads: batch, layer, or none."""

    BN = "bn"
    LN = "ln"
    NONE = "none"


def projection_head(
    dim: int, hidden: int, out: int, norm: HeadNorm, generator: torch.Generator
) -> nn.Sequential:
    """Three linear layers, dim - hidden - hidden - out (MoCo-v3, arXiv 2104.02057)."""
    return _head((dim, hidden, hidden, out), norm, generator)


def prediction_head(
    out: int, hidden: int, norm: HeadNorm, generator: torch.Generator
) -> nn.Sequential:
    """Two linear layers, out - hidden - out, on the student's side only."""
    return _head((out, hidden, out), norm, generator)


def _head(widths: tuple[int, ...], norm: HeadNorm, generator: torch.Generator) -> nn.Sequential:
    """No biases; norm and ReLU between layers, and a last norm without scale and shift."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        last = i == len(widths) - 2
        layers.append(_linear(widths[i], widths[i + 1], generator))
        layers.append(_norm(norm, widths[i + 1], affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Torch's default, U(±1/sqrt(inputs)), drawn from `generator` and not from the global state."""
    layer = nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(device="cpu")
    nn.init.uniform_(layer.weight, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _norm(norm: HeadNorm, width: int, *, affine: bool) -> nn.Module:
    match norm:
        case HeadNorm.BN:
            return nn.BatchNorm1d(width, affine=affine)
        case HeadNorm.LN:
            return nn.LayerNorm(width, elementwise_affine=affine)
        case HeadNorm.NONE:
            return nn.Identity()


# -------------------------------------------------------------------------------- teacher

M = TypeVar("M", bound=nn.Module)


def make_teacher(student: M) -> M:
    """Return a copy of the student, equal bit for bit, that no gradient reaches."""
    return copy.deepcopy(student).requires_grad_(False)


def momentum_at(step: int, total: int, base: float) -> float:
    """Return the teacher's momentum: m(t) = 1 - (1 + cos(π t / T)) / 2 · (1 - m0), up to 1.

    Args:
        step: Optimiser steps done, t; beyond `total` it stays at 1.
        total: Optimiser steps of the run, T.
        base: Momentum at the start, m0.
    """
    progress = min(step / max(total, 1), 1.0)
    return 1 - (1 + math.cos(math.pi * progress)) / 2 * (1 - base)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """θ' ← m θ' + (1 - m) θ, in place, once per optimiser step.

    Parameters only: batch-norm statistics are the teacher's own, from the whole images it sees.

    Args:
        teacher: Its parameters are moved.
        student: Has the same parameters.
        momentum: m.
    """
    torch._foreach_lerp_(  # one kernel for all tensors
        list(teacher.parameters()), list(student.parameters()), 1 - momentum
    )


# ----------------------------------------------------------------------------- the method


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
