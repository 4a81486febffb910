"""How alike two embeddings are, and two label sets (arXiv 2405.20462)."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import TrainingError


def cosine_matrix(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cosines s of student (B, d) and teacher (N, d) embeddings, (B, N).

    In float32, or in float64 where that is what comes in; never in half precision: bfloat16 steps
    by 0.03 at a logit of 5.
    """
    with torch.autocast(student.device.type, enabled=False):
        rows = functional.normalize(_at_least_single(student), dim=1)
        columns = functional.normalize(_at_least_single(teacher), dim=1)
        return rows @ columns.T


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class LabelSimilarity(StrEnum):
    """Similarity of the labels A and B of two images.

    Cosine of the multi-hot vectors, |A∩B| / sqrt(|A||B|); Jaccard, |A∩B| / |A∪B|; cosine with
    rare classes weighing more, by ln(1 / frequency); cosine of the shares of the two images that
    each class covers.
    """

    COSINE = "cosine"
    JACCARD = "jaccard"
    IDF = "idf"
    FRACTION = "fraction"


def label_vectors(
    labels: Labels, kind: LabelSimilarity, class_weights: Tensor | None = None
) -> Tensor:
    """Return what `label_similarity` compares, (B, K), without a negative value.

    Args:
        labels: Of B images.
        kind: Which similarity.
        class_weights: (K,), by which idf weighs the classes: `inverse_frequencies`.

    Raises:
        TrainingError: If covered shares are asked for, and the labels have none.
    """
    if kind is LabelSimilarity.FRACTION:
        if labels.shares is None:
            raise TrainingError(
                "the labels do not say how much of an image each class covers",
                expected="labels with shares",
                remedy="use another similarity, or a store packed with land-cover maps",
            )
        return labels.shares
    if kind is LabelSimilarity.IDF and class_weights is not None:
        return labels.multi_hot * class_weights
    return labels.multi_hot


def labelled(labels: Labels, vectors: Tensor) -> Tensor:
    """Return which images can be compared: known labels, and not of no class at all; bool (B,)."""
    return labels.known & (vectors.sum(1) > 0)


def inverse_frequencies(labels: Labels) -> Tensor:
    """Return ln(1 / f) of each class, float32 (K,), f being the share of labelled images with it.

    A class that all images have weighs nothing, and images that have no other class then have no
    similarity. A class that none has weighs as if one had it.

    Raises:
        TrainingError: If no image is labelled.
    """
    hot = labels.multi_hot[require_labelled(labels, labels.multi_hot)].double()
    counts = hot.sum(0).clamp(min=1)
    return (len(hot) / counts).log().float()


def label_similarity(rows: Tensor, columns: Tensor, kind: LabelSimilarity) -> Tensor:
    """Return the similarity S of label sets, float32 (B, N).

    Args:
        rows: Multi-hot, or other label vectors (`label_vectors`), (B, K).
        columns: The same, (N, K).
        kind: Which similarity.

    Returns:
        Values in [0, 1], and NaN where a set is empty: nothing is known of such an image, and a
        number would state that it is unlike everything, itself included. `soft_loss` leaves
        those pairs out; anything else that touches them shows.
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
    labels: Labels, kind: LabelSimilarity, class_weights: Tensor | None = None
) -> float:
    """Return the mean of S over all pairs of labelled images: what the soft term's bias starts at.

    Its cost does not grow with the square of the images: `label_population`.

    Args:
        labels: Of the training images.
        kind: Which similarity.
        class_weights: As for `label_vectors`.

    Raises:
        TrainingError: If no image is labelled.
    """
    vectors, share = label_population(labels, kind, class_weights)
    return float(share @ label_similarity(vectors, vectors, kind).double() @ share)


MOST_VECTORS = 2048


def label_population(
    labels: Labels, kind: LabelSimilarity, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the distinct label vectors of the labelled images, and the share of each.

    Nine classes have at most 511 sets. Covered shares are nearly all distinct: of more than 2048
    of them, as many are taken at even distances.

    Args:
        labels: Of the training images.
        kind: Which similarity.
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


def require_labelled(labels: Labels, vectors: Tensor) -> Tensor:
    """Return `labelled`, of which at least one must be true.

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
