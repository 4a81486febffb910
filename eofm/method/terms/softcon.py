"""SoftCon in the order of the paper: student, predictor, teacher, hard and soft term.

Shapes: B student images (rows), N teacher images (columns), C bands, H by W pixels, d embedding
width, K kept patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import TrainingError
from eofm.method.branches import head_of, prediction_head, projector_of
from eofm.method.config import (
    Diagonal,
    Exclude,
    SoftBias,
    SoftConConfig,
    SoftForm,
    SoftScale,
)
from eofm.method.distributed import Columns, KeyQueue, Targets, gathered, own_columns
from eofm.method.losses import (
    hard_loss,
    labelled_pairs,
    nearest_columns,
    own_probability,
    soft_floor,
    soft_loss,
)
from eofm.method.similarity import (
    cosine_matrix,
    label_similarity,
    label_vectors,
    labelled,
)
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

__all__ = ["PROJECTOR", "TERM", "SoftConOutput", "SoftContrast"]

# The head that the teacher averages as well, and its name in checkpoints.
PROJECTOR: Final = "projector"
_LARGEST_SCALE: Final = 100.0
_SAME: Final = 1 - 1e-6  # a cosine of equal vectors, up to rounding


@dataclass(frozen=True)
class SoftConOutput:
    """Outcome of a step. Only `loss` has a gradient; terms are sums over directions.

    Args:
        loss: hard + λ · soft.
        hard: The hard term, detached.
        soft: The soft term, detached.
        soft_excess: The soft term minus the entropy of its targets: the reducible part.
        own_probability: Mean softmax probability of the own image: 1 / N when nothing is learned.
        spread: Mean standard deviation of the teacher's normalised embeddings, times sqrt(d): near
            1 when they fill the sphere, 0 when they have collapsed to one point.
        labelled_pairs: Share of pairs that the soft term uses.
        keep: Visible patches of each of the student's views, int64 (B, K), or None for all. Empty
            from `SoftContrast.contrast`, which gets no images.
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
        """Return the values to log, by name."""
        return {
            "loss": self.loss.detach(),
            "hard": self.hard,
            "soft": self.soft,
            "soft_excess": self.soft_excess,
            "own_probability": self.own_probability,
            "embedding_std": self.spread,
            "labelled_pairs": self.labelled_pairs,
        }


@final
class SoftContrast(Term[SoftConConfig]):
    """The contrastive term of SoftCon: predictor, logits, queue, and the loss of embeddings.

    If several processes train together (`torch.distributed`), rows are the images of this process
    and columns those of all. The gradients averaged by `DistributedDataParallel` then equal those
    of a single process with the whole batch. Every process must have the same number of images.

    Args:
        settings: The objective.
        facts: Facts about the trunk and the training labels (`label_facts`).
        generator: Random generator of the heads' initial weights, on the CPU.
    """

    about = "SoftCon: soft contrastive learning guided by multi-labels (arXiv 2405.20462)"
    settings = SoftConConfig
    needs = Needs(labels=True, teacher=TeacherKind.EMA)
    prefix = ""

    def __init__(
        self, settings: SoftConConfig, facts: RunFacts, generator: torch.Generator
    ) -> None:
        super().__init__(settings, facts, generator)
        self.predictor = prediction_head(
            settings.dim,
            settings.hidden,
            settings.head_norm,
            generator,
            head_of(settings, drops_tokens=facts.drops_tokens),
        )
        self.bias: Tensor | None
        self._make_logits(settings)
        self.class_weights: Tensor | None
        known = facts.labels
        weights = torch.tensor(known.class_weights) if known.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.queue: KeyQueue | None = None
        if settings.queue:
            places = settings.hard_exclude is Exclude.SAME_LOCATION
            self.queue = KeyQueue(settings.queue, settings.dim, known.classes, places=places)

    @classmethod
    def needs_of(cls, settings: SoftConConfig) -> Needs:
        """Return the requirements; labels only if the soft term has a weight."""
        return replace(cls.needs, labels=settings.weights[1] > 0)

    @classmethod
    def heads(
        cls, settings: SoftConConfig, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return the projector."""
        drops = facts.drops_tokens
        return {PROJECTOR: projector_of(settings, facts.width, generator, drops_tokens=drops)}

    def _make_logits(self, config: SoftConConfig) -> None:
        """Create bias and scale of the bce form if used; unused parameters would stop DDP."""
        bce = config.soft_form is SoftForm.BCE
        if bce and config.soft_bias is SoftBias.LEARNED:
            self.bias = nn.Parameter(torch.tensor(self.facts.labels.bias))
        else:
            fixed = bce and config.soft_bias is SoftBias.FIXED
            self.register_buffer("bias", torch.tensor(self.facts.labels.bias) if fixed else None)
        self.log_scale: nn.Parameter | None = None
        if config.soft_scale is SoftScale.LEARNED:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.soft_tau)))

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the loss of a batch and the values to log.

        Raises:
            TrainingError: If the batch has fewer than two images, which leaves no negatives.
        """
        output = self.contrast(*self.embed(seen), labels)
        scalars = output.logged()
        del scalars["loss"]
        return TermOutput(output.loss, scalars)

    def embed(self, seen: Seen) -> tuple[list[Float[Tensor, "b d"]], list[Float[Tensor, "b d"]]]:
        """Return the student's queries and the teacher's keys, (B, d), one for each direction.

        Raises:
            TrainingError: If the batch has fewer than two images.
        """
        if (count := len(seen.images(0))) < 2:
            raise TrainingError(
                "a batch of one has no negatives",
                found=f"{count} images",
                expected="2 or more; 64 or more to learn from",
                remedy="raise the batch size, and drop the last incomplete batch",
            )
        queries, keys = [], []
        mask = RandomMask(self.chosen.mask_ratio)
        for student, teacher in self.directions:
            projected = seen.project(Side.STUDENT, student, PROJECTOR, mask)
            queries.append(self.predictor(projected))
            keys.append(seen.project(Side.TEACHER, teacher, PROJECTOR))
        return queries, keys

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """Pairs of student view and teacher view, one or two."""
        return ((0, 1), (1, 0)) if self.chosen.symmetric else ((0, 1),)

    def contrast(
        self,
        queries: Sequence[Float[Tensor, "b d"]],
        keys: Sequence[Float[Tensor, "b d"]],
        labels: Labels | tuple[Labels, Labels],
    ) -> SoftConOutput:
        """Return the loss of embeddings from any source, then push the keys to the queue.

        Args:
            queries: Embeddings of the student, (B, d), one for each of `directions`.
            keys: Embeddings of the teacher, (B, d), of the same images in the same order.
            labels: Labels of the images, or of each view if the views are of different seasons.

        Raises:
            TrainingError: If the labels lack the shares or places that the settings require.
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
        """Return the label targets that the terms need.

        Raises:
            TrainingError: If they lack shares or places.
        """
        asked = self.chosen.hard_exclude is Exclude.SAME_LOCATION
        if asked and labels.places is None:
            raise TrainingError(
                "the labels do not say which images are of one place",
                expected="labels with places",
                where=f"hard_exclude {Exclude.SAME_LOCATION}",
            )
        vectors = label_vectors(labels, self.chosen.similarity, self.class_weights)
        return Targets(vectors, labelled(labels, vectors), labels.places if asked else None)

    def _direction(
        self, queries: Float[Tensor, "b d"], rows: Targets, fresh: Columns
    ) -> SoftConOutput:
        """Return both terms of one student view against one teacher view."""
        config = self.chosen
        columns = fresh if self.queue is None else self.queue.behind(fresh)
        cosines = cosine_matrix(queries, columns.keys)
        own = own_columns(queries)
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
            loss=hard_weight * hard + soft_weight * self.facts.labels.soft_unit * soft,
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
        """Return the soft term, and its excess over its minimum."""
        config = self.chosen
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
        """Return the mask of columns that are not negatives of a row, bool (B, N), or None."""
        excluded = None
        if self.chosen.hard_exclude is Exclude.SAME_LABELS:
            excluded = pairs & (similarity > _SAME)
        elif rows.places is not None and columns.targets.places is not None:
            excluded = rows.places[:, None] == columns.targets.places[None, :]
        if columns.missing is None:
            return excluded
        missing = columns.missing.expand(len(rows.known), -1)
        return missing if excluded is None else excluded | missing


TERM: Final = SoftContrast
