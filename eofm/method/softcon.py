"""One step of SoftCon in the order of the paper: student, predictor, teacher, hard and soft term.

Shapes: B student images (rows), N teacher images (columns), C bands, H by W pixels, d embedding
width, K kept patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, TrainingError
from eofm.method.config import (
    Diagonal,
    Exclude,
    Objective,
    SoftBias,
    SoftConConfig,
    SoftForm,
    SoftScale,
)
from eofm.method.distributed import Columns, KeyQueue, Targets, first_column, gathered
from eofm.method.heads import prediction_head
from eofm.method.losses import (
    hard_loss,
    labelled_pairs,
    nearest_columns,
    own_probability,
    soft_floor,
    soft_loss,
)
from eofm.method.masking import MaskedTrunk, fill_of, keep_tokens
from eofm.method.similarity import (
    LabelFacts,
    cosine_matrix,
    label_similarity,
    label_vectors,
    labelled,
)
from eofm.method.teacher import Branch, head_of, make_teacher

_LARGEST_SCALE: Final = 100.0
_SAME: Final = 1 - 1e-6  # a cosine of equal vectors, but for rounding


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
            Empty as `SoftCon.loss` returns it, which has seen no images.
    """

    loss: Float[Tensor, ""]
    hard: Float[Tensor, ""]
    soft: Float[Tensor, ""]
    soft_excess: Float[Tensor, ""]
    own_probability: Float[Tensor, ""]
    spread: Float[Tensor, ""]
    labelled_pairs: Float[Tensor, ""]
    keep: tuple[Tensor | None, ...]

    def logged(self) -> dict[str, Float[Tensor, ""]]:
        """Return the numbers to log, by name."""
        return {
            "loss": self.loss.detach(),
            "hard": self.hard,
            "soft": self.soft,
            "soft_excess": self.soft_excess,
            "own_probability": self.own_probability,
            "embedding_std": self.spread,
            "labelled_pairs": self.labelled_pairs,
        }


class SoftCon(nn.Module):
    """Student, predictor and teacher, and one step of the objective.

    Where several processes train together (`torch.distributed`), rows are the images of this one
    and columns those of all; the gradients that `DistributedDataParallel` averages are then those
    of one process with the whole batch. Every process must bring equally many images.

    The teacher is not updated here: call `update_teacher(self.teacher, self.student, m)` after
    each optimiser step, with m from `momentum_at`.

    A subclass is an objective of its own (`eofm.method.objectives`).

    Args:
        trunk: The encoder to pretrain: an `nn.Module` that is a `MaskedTrunk`.
        config: The objective.
        generator: Source of the heads' initial weights, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units, with which hidden pixels are filled
            if `config.mask_fill` says so.

    Raises:
        ConfigError: If the trunk is no `nn.Module`, or the objective is that of `MultiLabel`.
    """

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        generator: torch.Generator,
        facts: LabelFacts = LabelFacts(),  # noqa: B008 (frozen)
        *,
        band_mean: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(trunk, nn.Module):
            raise ConfigError(
                "SoftCon needs a module to train",
                found=type(trunk).__name__,
                expected="an nn.Module",
            )
        if config.objective is Objective.MULTILABEL:
            raise ConfigError(
                "SoftCon does not predict labels",
                found=f"objective {config.objective}",
                remedy="use eofm.method.multilabel.MultiLabel for this control",
            )
        self.config, self.facts = config, facts
        self.student = Branch(trunk, config, generator, fill=fill_of(config, band_mean))
        self.predictor = prediction_head(
            config.dim, config.hidden, config.head_norm, generator, head_of(config, trunk)
        )
        self.teacher = make_teacher(self.student)
        self.bias: Tensor | None
        self._make_logits(config)
        self.class_weights: Tensor | None
        weights = torch.tensor(facts.class_weights) if facts.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.queue: KeyQueue | None = None
        if config.queue:
            places = config.hard_exclude is Exclude.SAME_LOCATION
            self.queue = KeyQueue(config.queue, config.dim, facts.classes, places=places)

    def _make_logits(self, config: SoftConConfig) -> None:
        """Make bias and scale of the bce form; parameters without a use would stop DDP."""
        bce = config.soft_form is SoftForm.BCE
        if bce and config.soft_bias is SoftBias.LEARNED:
            self.bias = nn.Parameter(torch.tensor(self.facts.bias))
        else:
            fixed = bce and config.soft_bias is SoftBias.FIXED
            self.register_buffer("bias", torch.tensor(self.facts.bias) if fixed else None)
        self.log_scale: nn.Parameter | None = None
        if config.soft_scale is SoftScale.LEARNED:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.soft_tau)))

    def forward(
        self,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
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
        queries, keeps, keys = [], [], []
        for student, teacher in self.directions:
            embeddings, keep = self.student_embeddings(views[student], generator)
            queries.append(embeddings)
            keeps.append(keep)
            keys.append(self.teacher_embeddings(views[teacher]))
        return replace(self.loss(queries, keys, labels), keep=tuple(keeps))

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """Which view the student sees and which the teacher, once or twice."""
        return ((0, 1), (1, 0)) if self.config.symmetric else ((0, 1),)

    def student_embeddings(
        self, view: Float[Tensor, "b c h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b d"], Int64[Tensor, "b k"] | None]:
        """Return what the student makes of part of a view, and which part.

        Args:
            view: (B, C, H, W), normalised.
            generator: Source of the mask.

        Returns:
            Queries (B, d), with a gradient, and the kept patches (B, K); None where all are.
        """
        config = self.config
        keep = keep_tokens(len(view), self.student.trunk.tokens, config.mask_ratio, generator)
        keep = None if keep is None else keep.to(view.device)
        queries: Tensor = self.predictor(self.student(view, keep))
        return queries, keep

    @torch.no_grad()
    def teacher_embeddings(self, view: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return what the teacher makes of a whole view: keys (B, d), without a gradient."""
        keys: Tensor = self.teacher(view)
        return keys

    def loss(
        self,
        queries: Sequence[Float[Tensor, "b d"]],
        keys: Sequence[Float[Tensor, "b d"]],
        labels: Labels | tuple[Labels, Labels],
    ) -> SoftConOutput:
        """Return the loss of embeddings, wherever they come from; then the queue takes the keys.

        Args:
            queries: The student's, (B, d), one for each of `directions`.
            keys: The teacher's, (B, d), of the same images in the same order.
            labels: Of the images, or of each view where the two are of different seasons.

        Raises:
            TrainingError: If the labels lack what the settings ask for: shares or places.
        """
        if self.log_scale is not None:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(_LARGEST_SCALE))
        per_view = (labels, labels) if isinstance(labels, Labels) else labels
        rows = [self._targets(each) for each in per_view]
        columns = [
            Columns(gathered(key), rows[teacher].of_all_ranks())
            for key, (_, teacher) in zip(keys, self.directions, strict=True)
        ]
        steps = [
            self._direction(query, rows[student], fresh)
            for query, fresh, (student, _) in zip(queries, columns, self.directions, strict=True)
        ]
        if self.queue is not None and self.training:
            for fresh in columns:
                self.queue.push(fresh)
        return SoftConOutput(
            loss=torch.stack([s.loss for s in steps]).sum(),
            hard=torch.stack([s.hard for s in steps]).sum(),
            soft=torch.stack([s.soft for s in steps]).sum(),
            soft_excess=torch.stack([s.soft_excess for s in steps]).sum(),
            own_probability=torch.stack([s.own_probability for s in steps]).mean(),
            spread=torch.stack([s.spread for s in steps]).mean(),
            labelled_pairs=torch.stack([s.labelled_pairs for s in steps]).mean(),
            keep=(),
        )

    def _targets(self, labels: Labels) -> Targets:
        """Return what the terms need of the labels.

        Raises:
            TrainingError: If they lack shares or places.
        """
        asked = self.config.hard_exclude is Exclude.SAME_LOCATION
        if asked and labels.places is None:
            raise TrainingError(
                "the labels do not say which images are of one place",
                expected="labels with places",
                where=f"hard_exclude {Exclude.SAME_LOCATION}",
            )
        vectors = label_vectors(labels, self.config.similarity, self.class_weights)
        return Targets(vectors, labelled(labels, vectors), labels.places if asked else None)

    def _direction(
        self, queries: Float[Tensor, "b d"], rows: Targets, fresh: Columns
    ) -> SoftConOutput:
        """Both terms of one student view against one teacher view."""
        config = self.config
        columns = fresh if self.queue is None else self.queue.behind(fresh)
        cosines = cosine_matrix(queries, columns.keys)
        batch = len(queries)
        own = first_column(batch) + torch.arange(batch, device=queries.device)
        similarity = label_similarity(rows.vectors, columns.targets.vectors, config.similarity)
        if config.soft_diagonal is Diagonal.ONE:
            similarity = similarity.scatter(1, own[:, None], 1.0)
        pairs = labelled_pairs(rows.known, columns.targets.known)
        excluded = self._excluded(rows, columns, similarity, pairs)

        hard = hard_loss(cosines, own, config.tau, excluded)
        soft, excess = self._soft(cosines, similarity, pairs)
        normed = functional.normalize(fresh.keys.float(), dim=1)
        hard_weight, soft_weight = config.weights
        return SoftConOutput(
            loss=hard_weight * hard + soft_weight * self.facts.soft_unit * soft,
            hard=hard.detach(),
            soft=soft.detach(),
            soft_excess=excess,
            own_probability=own_probability(cosines, own, config.tau, excluded),
            spread=normed.std(dim=0).mean() * math.sqrt(normed.shape[1]),
            labelled_pairs=pairs[:, : len(fresh.keys)].float().mean(),
            keep=(),
        )

    def _soft(
        self,
        cosines: Float[Tensor, "b n"],
        similarity: Float[Tensor, "b n"],
        pairs: Bool[Tensor, "b n"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the soft term, and by how much it is above its floor."""
        config = self.config
        if config.soft_neighbours:
            pairs = nearest_columns(cosines, pairs, config.soft_neighbours)
        soft = soft_loss(
            cosines,
            similarity,
            pairs,
            config.soft_form,
            tau=config.soft_tau if self.log_scale is None else (-self.log_scale).exp(),
            bias=0.0 if self.bias is None else self.bias,
        )
        return soft, soft.detach() - soft_floor(similarity, pairs, config.soft_form)

    def _excluded(
        self,
        rows: Targets,
        columns: Columns,
        similarity: Float[Tensor, "b n"],
        pairs: Bool[Tensor, "b n"],
    ) -> Bool[Tensor, "b n"] | None:
        """Return which columns are no negatives of a row, bool (B, N); None where all are."""
        excluded = None
        if self.config.hard_exclude is Exclude.SAME_LABELS:
            excluded = pairs & (similarity > _SAME)
        elif rows.places is not None and columns.targets.places is not None:
            excluded = rows.places[:, None] == columns.targets.places[None, :]
        if columns.missing is None:
            return excluded
        missing = columns.missing.expand(len(rows.known), -1)
        return missing if excluded is None else excluded | missing
