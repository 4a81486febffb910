"""How alike two embeddings are, and two label sets (arXiv 2405.20462)."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

from eofm.errors import TrainingError
from eofm.imagery import Labels


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
