"""What the objective must know of the labels of all training images before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, TrainingError
from eofm.method.losses import SoftForm
from eofm.method.settings import SoftBias, SoftConSettings, SoftUnit
from eofm.method.similarity import (
    LabelSimilarity,
    inverse_frequencies,
    label_population,
    label_similarity,
)

# A mean similarity of exactly 0 or 1 has no finite logit.
_LARGEST_BIAS: Final = 5.0


@dataclass(frozen=True)
class LabelFacts:
    """What the objective takes from the training labels.

    Args:
        classes: Number of classes, K.
        mean_similarity: Mean of S, at whose logit the bias of bce starts: nine frequent classes
            make it far from 0, and without the bias all of the first steps go into that offset.
            The default 0.5 is a bias of 0.
        class_weights: Of the idf similarity, one per class; empty without it.
        soft_unit: By what the soft term is multiplied before λ is.

    Raises:
        ConfigError: If the mean is not within 0 and 1.
    """

    classes: int = 0
    mean_similarity: float = 0.5
    class_weights: tuple[float, ...] = ()
    soft_unit: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.mean_similarity <= 1:
            raise ConfigError(
                "a mean label similarity is out of range",
                found=self.mean_similarity,
                expected="a number from 0 to 1",
            )

    @property
    def bias(self) -> float:
        """The logit of the mean similarity, within -5 and 5."""
        logit = torch.logit(torch.tensor(self.mean_similarity))
        return float(logit.clamp(-_LARGEST_BIAS, _LARGEST_BIAS))

    @property
    def all_alike(self) -> bool:
        """Whether all labelled images have the same labels, so that only the hard term separates.

        All similarities are 1 then: the soft term says that all images are one.
        """
        return self.mean_similarity > 1 - 1e-9


def label_facts(labels: Labels, settings: SoftConSettings, columns: int) -> LabelFacts:
    """Return what the objective takes from the labels of the training images.

    Args:
        labels: Of all training images.
        settings: The objective; labels are not looked at if the soft term has no weight.
        columns: Of the matrix, N: the batch of all ranks, and the queue.

    Raises:
        TrainingError: If there is a soft term, and no image is labelled; or if all are labelled
            alike, and nothing but the soft term has a weight: its optimum is one single point.
    """
    classes = labels.multi_hot.shape[1]
    if settings.soft_weight == 0:
        return LabelFacts(classes)
    idf = settings.similarity is LabelSimilarity.IDF
    weights = inverse_frequencies(labels) if idf else None
    vectors, share = label_population(labels, settings.similarity, weights)
    similarity = label_similarity(vectors, vectors, settings.similarity).double()
    facts = LabelFacts(
        classes,
        # a mean of ones may come out as 1.0000000000000002
        min(float(share @ similarity @ share), 1.0),
        () if weights is None else tuple(weights.tolist()),
    )
    if facts.all_alike and settings.hard_weight == 0:
        raise TrainingError(
            "all training images have the same labels, and nothing would keep them apart",
            found=f"{int(labels.known.sum())} labelled images, every similarity 1, hard_weight 0",
            remedy="give the hard term a weight, or use data with different labels",
        )
    if settings.soft_unit is SoftUnit.PLAIN:
        return facts
    unit = _equal_gradients(similarity, share, settings, columns, facts)
    return LabelFacts(facts.classes, facts.mean_similarity, facts.class_weights, unit)


def _equal_gradients(
    similarity: torch.Tensor,
    share: torch.Tensor,
    settings: SoftConSettings,
    columns: int,
    facts: LabelFacts,
) -> float:
    """Return the gradient of the hard term over that of the soft term, before anything is learned.

    Sizes are mean absolute row sums of the gradient by s, where all s are equal (0).

    Raises:
        TrainingError: If the soft term has no gradient there.
    """
    hard = 4 * (columns - 1) / columns
    match settings.soft_form:
        case SoftForm.BCE:
            bias = 0.0 if settings.soft_bias is SoftBias.ZERO else facts.bias
            size = (1 / (1 + math.exp(-bias)) - similarity).abs() / settings.soft_tau
        case SoftForm.CE:
            mass = (similarity @ share)[:, None]
            size = (1 - similarity / mass).abs() / settings.soft_tau
        case SoftForm.MSE:
            size = 2 * similarity
        case SoftForm.MSE_SHIFTED:
            size = (0.5 - similarity).abs()
    soft = float(share @ size @ share)
    if soft < 1e-6:
        raise TrainingError(
            "the soft term has no gradient to match with that of the hard term",
            found=f"a mean label similarity of {facts.mean_similarity:.6g}",
            remedy="count its weight plainly, or use data with different labels",
        )
    return hard / soft
