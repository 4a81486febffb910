"""Similarity of embeddings and of label sets (arXiv 2405.20462).

Also the facts about the labels of all training images that the objective needs before its first
step.

Shapes: B student images (rows), N teacher images (columns), d embedding width, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Bool, Float, Float32, Float64, Real
from torch import Tensor
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, TrainingError
from eofm.method.config import LabelSimilarity, SoftBias, SoftConConfig, SoftForm, SoftUnit

__all__ = [
    "MOST_VECTORS",
    "LabelFacts",
    "cosine_matrix",
    "inverse_frequencies",
    "label_facts",
    "label_population",
    "label_similarity",
    "label_vectors",
    "labelled",
    "mean_label_similarity",
    "require_labelled",
]


def cosine_matrix(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "n d"]
) -> Float[Tensor, "b n"]:
    """Return the cosines s of student (B, d) and teacher (N, d) embeddings, (B, N).

    They are computed in float32, or in float64 for float64 input, never in half precision: the
    resolution of bfloat16 is 0.03 at a logit of 5.
    """
    with torch.autocast(student.device.type, enabled=False):
        rows = functional.normalize(_at_least_single(student), dim=1)
        columns = functional.normalize(_at_least_single(teacher), dim=1)
        return rows @ columns.T


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def label_vectors(
    labels: Labels, kind: LabelSimilarity, class_weights: Float[Tensor, " k"] | None = None
) -> Real[Tensor, "b k"]:
    """Return the non-negative label vectors for `label_similarity`, (B, K).

    Args:
        labels: Labels of B images.
        kind: Kind of similarity.
        class_weights: (K,), weights of the classes for idf (`inverse_frequencies`).

    Raises:
        TrainingError: If covered shares are required and the labels have none.
    """
    if kind is LabelSimilarity.FRACTION:
        if labels.shares is None:
            raise TrainingError(
                "the labels do not state how much of an image each class covers",
                expected="labels with shares",
                remedy="use another similarity, or a store packed with land-cover maps",
            )
        return labels.shares
    if kind is LabelSimilarity.IDF and class_weights is not None:
        return labels.multi_hot * class_weights
    return labels.multi_hot


def labelled(labels: Labels, vectors: Real[Tensor, "b k"]) -> Bool[Tensor, " b"]:
    """Return the mask of images with known, non-empty labels, bool (B,)."""
    return labels.known & (vectors.sum(1) > 0)


def inverse_frequencies(labels: Labels) -> Float32[Tensor, " k"]:
    """Return ln(1 / f) of each class, float32 (K,), f being the share of labelled images with it.

    A class that all images have gets weight 0, so images with no other class have no similarity. A
    class that no image has gets the weight of a class that one image has.

    Raises:
        TrainingError: If no image is labelled.
    """
    hot = labels.multi_hot[require_labelled(labels, labels.multi_hot)].double()
    counts = hot.sum(0).clamp(min=1)
    return (len(hot) / counts).log().float()


def label_similarity(
    rows: Real[Tensor, "b k"], columns: Real[Tensor, "n k"], kind: LabelSimilarity
) -> Float32[Tensor, "b n"]:
    """Return the similarity S of label sets, float32 (B, N).

    Args:
        rows: Multi-hot, or other label vectors (`label_vectors`), (B, K).
        columns: The same, (N, K).
        kind: Kind of similarity.

    Returns:
        Values in [0, 1], and NaN if a set is empty: such an image is unknown, and a value of 0
        would mean that it differs from everything, including itself. `soft_loss` excludes those
        pairs; in any other use the NaN becomes visible.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows, columns = rows.float(), columns.float()
        common = rows @ columns.T
        sizes, other_sizes = rows.square().sum(1)[:, None], columns.square().sum(1)[None, :]
        if kind is LabelSimilarity.JACCARD:
            similarity = common / (sizes + other_sizes - common)
        else:
            similarity = (common / (sizes * other_sizes).sqrt()).clamp(max=1)
        return torch.where((sizes > 0) & (other_sizes > 0), similarity, torch.nan)


def mean_label_similarity(
    labels: Labels, kind: LabelSimilarity, class_weights: Float[Tensor, " k"] | None = None
) -> float:
    """Return the mean of S over all pairs of labelled images, from which the soft bias starts.

    Its cost does not grow with the square of the number of images (`label_population`).

    Args:
        labels: Labels of the training images.
        kind: Kind of similarity.
        class_weights: As for `label_vectors`.

    Raises:
        TrainingError: If no image is labelled.
    """
    vectors, share = label_population(labels, kind, class_weights)
    return float(share @ label_similarity(vectors, vectors, kind).double() @ share)


MOST_VECTORS = 2048


def label_population(
    labels: Labels, kind: LabelSimilarity, class_weights: Float[Tensor, " k"] | None = None
) -> tuple[Real[Tensor, "n k"], Float64[Tensor, " n"]]:
    """Return the distinct label vectors of the labelled images, and their shares.

    Nine classes have at most 511 sets. Covered shares are nearly all distinct; if there are more
    than 2048, 2048 evenly spaced ones are used.

    Args:
        labels: Labels of the training images.
        kind: Kind of similarity.
        class_weights: As for `label_vectors`.

    Returns:
        Vectors (n, K), in a fixed order, and float64 (n,), which sums to 1.

    Raises:
        TrainingError: If no image is labelled.
    """
    vectors = label_vectors(labels, kind, class_weights)
    vectors = vectors[require_labelled(labels, vectors)]
    if kind is LabelSimilarity.FRACTION and len(vectors) > MOST_VECTORS:
        vectors = vectors[torch.linspace(0, len(vectors) - 1, MOST_VECTORS).long()]
    sets, counts = torch.unique(vectors, dim=0, return_counts=True)
    return sets, counts.double() / counts.sum()


def require_labelled(labels: Labels, vectors: Real[Tensor, "b k"]) -> Bool[Tensor, " b"]:
    """Return `labelled`, and require at least one labelled image.

    Raises:
        TrainingError: If no image is labelled.
    """
    which = labelled(labels, vectors)
    if not which.any():
        raise TrainingError(
            "no image is labelled",
            found=f"{len(labels)} images without labels",
            remedy="pack the images with a land-cover map that covers them, or train with the hard "
            "term alone (soft_weight 0)",
        )
    return which


# A mean similarity of exactly 0 or 1 has no finite logit.
_LARGEST_BIAS: Final = 5.0


@dataclass(frozen=True)
class LabelFacts:
    """Facts about the training labels that the objective needs.

    Args:
        classes: Number of classes, K.
        mean_similarity: Mean of S; the bias of bce starts at its logit. With nine frequent classes
            it is far from 0, and without the bias the first steps would only learn that offset.
            The default 0.5 is a bias of 0.
        class_weights: Class weights of the idf similarity; empty without it.
        soft_unit: Factor of the soft term in addition to λ.

    Raises:
        ConfigError: If the mean is not between 0 and 1.
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
        """The logit of the mean similarity, clamped to -5 to 5."""
        logit = torch.logit(torch.tensor(self.mean_similarity))
        return float(logit.clamp(-_LARGEST_BIAS, _LARGEST_BIAS))

    @property
    def all_alike(self) -> bool:
        """Whether all labelled images have the same labels.

        All similarities are then 1, the soft term pulls all images together, and only the hard term
        separates them.
        """
        return self.mean_similarity > 1 - 1e-9


def label_facts(labels: Labels, config: SoftConConfig, columns: int) -> LabelFacts:
    """Return the facts about the training labels that the objective needs.

    Args:
        labels: Labels of all training images.
        config: The objective; labels are not read if the soft term has no weight.
        columns: Number of columns N: the batch of all ranks, and the queue.

    Raises:
        TrainingError: If there is a soft term and no image is labelled; or if all labels are equal
            and only the soft term has a weight, since its optimum is then a single point.
    """
    classes = labels.multi_hot.shape[1]
    hard_weight, soft_weight = config.weights
    if soft_weight == 0:
        return LabelFacts(classes)
    idf = config.similarity is LabelSimilarity.IDF
    weights = inverse_frequencies(labels) if idf else None
    vectors, share = label_population(labels, config.similarity, weights)
    similarity = label_similarity(vectors, vectors, config.similarity).double()
    facts = LabelFacts(
        classes,
        # a mean of ones may come out as 1.0000000000000002
        min(float(share @ similarity @ share), 1.0),
        () if weights is None else tuple(weights.tolist()),
    )
    if facts.all_alike and hard_weight == 0:
        raise TrainingError(
            "all training images have the same labels, and nothing would keep them apart",
            found=f"{int(labels.known.sum())} labelled images, every similarity 1, hard_weight 0",
            remedy="give the hard term a weight, or use data with different labels",
        )
    if config.soft_unit is SoftUnit.PLAIN or facts.all_alike:  # then there is nothing to learn
        return facts
    unit = _equal_gradients(similarity, share, config, columns, facts)
    return replace(facts, soft_unit=unit)


def _equal_gradients(
    similarity: Float[Tensor, "n n"],
    share: Float64[Tensor, " n"],
    config: SoftConConfig,
    columns: int,
    facts: LabelFacts,
) -> float:
    """Return the ratio of the hard to the soft term's gradient at the start of training.

    Magnitudes are mean absolute row sums of the gradient with respect to s, at s = 0. The soft
    term's magnitude is 0 only if all labels are equal.
    """
    hard = 4 * (columns - 1) / columns
    match config.soft_form:
        case SoftForm.BCE:
            bias = 0.0 if config.soft_bias is SoftBias.ZERO else facts.bias
            size = (1 / (1 + math.exp(-bias)) - similarity).abs() / config.soft_tau
        case SoftForm.CE:
            mass = (similarity @ share)[:, None]
            size = (1 - similarity / mass).abs() / config.soft_tau
        case SoftForm.MSE:
            size = 2 * similarity
        case SoftForm.MSE_SHIFTED:
            size = (0.5 - similarity).abs()
    return hard / float(share @ size @ share)
