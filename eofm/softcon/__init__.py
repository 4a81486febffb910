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

from eofm.softcon.heads import HeadNorm, prediction_head, projection_head
from eofm.softcon.losses import SoftForm, hard_loss, soft_floor, soft_loss
from eofm.softcon.masking import keep_tokens
from eofm.softcon.method import Branch, SoftCon, SoftConOutput, SoftConSettings, Trunk
from eofm.softcon.similarity import (
    LabelSimilarity,
    cosine_matrix,
    label_similarity,
    mean_label_similarity,
)
from eofm.softcon.teacher import make_teacher, momentum_at, update_teacher

__all__ = [
    "Branch",
    "HeadNorm",
    "LabelSimilarity",
    "SoftCon",
    "SoftConOutput",
    "SoftConSettings",
    "SoftForm",
    "Trunk",
    "cosine_matrix",
    "hard_loss",
    "keep_tokens",
    "label_similarity",
    "make_teacher",
    "mean_label_similarity",
    "momentum_at",
    "prediction_head",
    "projection_head",
    "soft_floor",
    "soft_loss",
    "update_teacher",
]
