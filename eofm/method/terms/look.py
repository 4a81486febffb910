"""LOOK: an image should be classified correctly by its nearest neighbours (arXiv 2110.06014).

Supervised contrastive learning pulls all images of a class to one point. Leave-one-out kNN requires
less: among the nearest neighbours of an image, excluding itself, images of its class must have most
of the weight, so a class may keep several clusters. Here an image has several labels, and "of the
same class" becomes the similarity of label sets S:

    p_i = Σ_{j in kNN(i)} S_ij exp(s_ij / τ) / Σ_{j in kNN(i)} exp(s_ij / τ),    L = mean_i -ln p_i

Shapes: B student images (rows), N teacher images (columns), d embedding width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import require
from eofm.method.branches import projector_of
from eofm.method.config import LabelSimilarity
from eofm.method.distributed import (
    Columns,
    KeyQueue,
    Targets,
    gathered,
    mean_over_ranks,
    own_columns,
)
from eofm.method.losses import labelled_pairs, nearest_columns
from eofm.method.similarity import cosine_matrix, label_similarity, label_vectors, labelled
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

__all__ = ["TERM", "Look", "LookSettings", "neighbour_floor", "neighbour_loss", "neighbours_of"]

_HEAD: Final = "look"


@dataclass(frozen=True)
class LookSettings:
    """Settings of the term; similarity of labels, heads and mask are set in the group `method`.

    Args:
        neighbours: Number of nearest images that vote, k.
        tau: Temperature of the votes.
        queue: Number of teacher vectors from earlier steps to search for neighbours as well, a
            multiple of the batch; 0 for the batch only.

    Raises:
        ConfigError: If a value is out of range.
    """

    neighbours: int = 64
    tau: float = 0.2
    queue: int = 16384

    def __post_init__(self) -> None:
        where = "method.terms.look"
        require(self.neighbours > 0, f"{where}.neighbours", self.neighbours, "more than 0")
        require(self.tau > 0, f"{where}.tau", self.tau, "more than 0")
        require(self.queue >= 0, f"{where}.queue", self.queue, "0 or more")


def neighbours_of(
    cosines: Float[Tensor, "b n"],
    similarity: Float[Tensor, "b n"],
    allowed: Bool[Tensor, "b n"],
    count: int,
) -> Bool[Tensor, "b n"]:
    """Return the mask of columns that vote on each row, bool (B, N).

    They are the nearest allowed ones. If none of them shares a class with the row, the nearest one
    that does is added, because the row would learn nothing without it.

    Args:
        cosines: s, (B, N).
        similarity: S, (B, N); ignored for columns that are not allowed.
        allowed: bool (B, N), columns that may vote: labelled, and not the row's own image.
        count: Number of voters, k.
    """
    near = nearest_columns(cosines, allowed, count)
    sharing = allowed & (similarity > 0)
    alone = ~(near & sharing).any(dim=1, keepdim=True)
    return near | (nearest_columns(cosines, sharing, 1) & alone)


def neighbour_loss(
    cosines: Float[Tensor, "b n"],
    similarity: Float[Tensor, "b n"],
    allowed: Bool[Tensor, "b n"],
    count: int,
    tau: float,
) -> Float[Tensor, ""]:
    """Return L, the mean of -ln p over the rows of all ranks that share a class with some column.

    Without such a row it is 0, still connected to s. It is 0 if images with equal labels have all
    the weight of each row, and -ln of the mean of S if all s are equal and all columns vote.

    Args:
        cosines: s, (B, N).
        similarity: S, (B, N); ignored for columns that are not allowed.
        allowed: As for `neighbours_of`.
        count: Number of voters, k.
        tau: Temperature τ of the votes.
    """
    voters = neighbours_of(cosines, similarity, allowed, count)
    rows = (voters & (similarity > 0)).any(dim=1)
    logits, lowest = cosines / tau, torch.finfo(cosines.dtype).min
    votes = torch.where(voters, logits, lowest)
    # the lowest finite number, not -inf: the gradient of a row without a voter must not be NaN
    shared = torch.where(voters & (similarity > 0), similarity, 1)
    right = torch.where(voters & (similarity > 0), logits + shared.log(), lowest)
    per_row = votes.logsumexp(dim=1) - right.logsumexp(dim=1)
    return mean_over_ranks((per_row * rows).sum(), rows.sum())


def neighbour_floor(
    similarity: Float[Tensor, "b n"], allowed: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Return the minimum of `neighbour_loss`: all weight on the most similar column.

    Args:
        similarity: S, (B, N); ignored for columns that are not allowed.
        allowed: As for `neighbours_of`.
    """
    best = torch.where(allowed, similarity, 0).amax(dim=1)
    rows = best > 0
    return mean_over_ranks(-torch.where(rows, best, 1).log().sum(), rows.sum())


@final
class Look(Term[LookSettings]):
    """Clusters images with similar labels, with a separate projector.

    Rows are the student's vectors of visible patches, as in `softcon`; columns are the moving
    average's vectors of whole images, of this step and of earlier ones. An image never votes on
    itself or on images of the same place: in a queue longer than an epoch it would be its own
    nearest neighbour.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk and the labels.
        generator: Not used: the projector is created by `heads`.
    """

    about = "LOOK: leave-one-out nearest neighbours by labels (arXiv 2110.06014)"
    settings = LookSettings
    needs = Needs(labels=True, places=True, teacher=TeacherKind.EMA)

    def __init__(self, settings: LookSettings, facts: RunFacts, generator: torch.Generator) -> None:
        super().__init__(settings, facts, generator)
        self.class_weights: Tensor | None
        weights = facts.labels.class_weights
        require(
            bool(weights) or facts.method.similarity is not LabelSimilarity.IDF,
            "method.similarity",
            facts.method.similarity,
            "another one: class weights are taken where the soft term has a weight",
        )
        self.register_buffer(
            "class_weights", torch.tensor(weights) if weights else None, persistent=False
        )
        self.queue: KeyQueue | None = None
        if settings.queue:
            self.queue = KeyQueue(
                settings.queue, facts.method.dim, facts.labels.classes, places=True
            )

    @classmethod
    def heads(
        cls, settings: LookSettings, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return the projector."""
        drops = facts.drops_tokens
        return {_HEAD: projector_of(facts.method, facts.width, generator, drops_tokens=drops)}

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the mean loss over the directions; both directions if the method is symmetric."""
        mask = RandomMask(self.facts.method.mask_ratio)
        per_view = (labels, labels) if isinstance(labels, Labels) else labels
        targets = [self._targets(each) for each in per_view]
        losses, excesses, spreads, pushed = [], [], [], []
        for view in self.facts.views:
            other = 1 - view
            keys = seen.project(Side.TEACHER, other, _HEAD)
            fresh = Columns(gathered(keys), targets[other].of_all_ranks())
            queries = seen.project(Side.STUDENT, view, _HEAD, mask)
            loss, floor = self._direction(queries, targets[view], fresh)
            losses.append(loss)
            excesses.append(loss.detach() - floor)
            normed = functional.normalize(fresh.keys.float(), dim=1)
            spreads.append(normed.std(dim=0).mean() * math.sqrt(normed.shape[1]))
            pushed.append(fresh)
        if self.queue is not None and self.training:
            for fresh in pushed:
                self.queue.push(fresh)
        return TermOutput(
            torch.stack(losses).mean(),
            {
                "excess": torch.stack(excesses).mean(),
                "embedding_std": torch.stack(spreads).mean(),
            },
        )

    def _targets(self, labels: Labels) -> Targets:
        vectors = label_vectors(labels, self.facts.method.similarity, self.class_weights)
        return Targets(vectors, labelled(labels, vectors), labels.places)

    def _direction(
        self, queries: Float[Tensor, "b d"], rows: Targets, fresh: Columns
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the loss of one view against the other, and its floor."""
        columns = fresh if self.queue is None else self.queue.behind(fresh)
        cosines = cosine_matrix(queries, columns.keys)
        kind = self.facts.method.similarity
        similarity = label_similarity(rows.vectors, columns.targets.vectors, kind)
        allowed = labelled_pairs(rows.known, columns.targets.known)
        allowed = allowed.scatter(1, own_columns(queries)[:, None], False)
        if rows.places is not None and columns.targets.places is not None:
            allowed &= rows.places[:, None] != columns.targets.places[None, :]
        if columns.missing is not None:
            allowed &= ~columns.missing
        loss = neighbour_loss(cosines, similarity, allowed, self.chosen.neighbours, self.chosen.tau)
        return loss, neighbour_floor(similarity, allowed)


TERM = Look
