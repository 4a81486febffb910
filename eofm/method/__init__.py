"""SoftCon: soft contrastive learning guided by multi-labels (arXiv 2405.20462).

In the order of the paper. A student sees part of one view, a teacher (its moving average) all of
the other. Their cosines s, one row per student image and one column per teacher image, enter two
terms. The hard term pulls each image to itself among all others. The soft term makes s follow
the similarity S of the images' land-cover labels. The loss is hard + λ · soft.

What the paper's public material leaves open (the form of the soft term, temperatures, λ) is a
setting; the defaults follow the same authors' MoCo-v3 (arXiv 2211.07044, zhu-xlab/SSL4EO-S12).

To read in this order: `method` (one step), `losses` and `similarity` (the formulas), `branch`,
`heads`, `masking` and `teacher` (the networks), `columns` (the queue), `ranks` (several processes),
`facts` (what is taken from the labels beforehand), `settings` (all that can be chosen).

Shapes: B student images (rows), N teacher images (columns: those of all processes, and the queue),
d embedding width, K classes, P patch tokens.
"""

from eofm.method.branch import Branch, Trunk, see_patches
from eofm.method.facts import LabelFacts, label_facts
from eofm.method.heads import HeadForm, HeadNorm, prediction_head, projection_head
from eofm.method.losses import (
    SoftForm,
    hard_loss,
    labelled_pairs,
    nearest_columns,
    own_probability,
    soft_floor,
    soft_loss,
)
from eofm.method.masking import MaskForm, hide_blocks, keep_tokens
from eofm.method.settings import Diagonal, Exclude, SoftBias, SoftConSettings, SoftUnit
from eofm.method.similarity import (
    LabelSimilarity,
    cosine_matrix,
    inverse_frequencies,
    label_population,
    label_similarity,
    label_vectors,
    labelled,
    mean_label_similarity,
)
from eofm.method.softcon import SoftCon, SoftConOutput
from eofm.method.teacher import make_teacher, momentum_at, update_teacher

__all__ = [
    "Branch",
    "Diagonal",
    "Exclude",
    "HeadForm",
    "HeadNorm",
    "LabelFacts",
    "LabelSimilarity",
    "MaskForm",
    "SoftBias",
    "SoftCon",
    "SoftConOutput",
    "SoftConSettings",
    "SoftForm",
    "SoftUnit",
    "Trunk",
    "cosine_matrix",
    "hard_loss",
    "hide_blocks",
    "inverse_frequencies",
    "keep_tokens",
    "label_facts",
    "label_population",
    "label_similarity",
    "label_vectors",
    "labelled",
    "labelled_pairs",
    "make_teacher",
    "mean_label_similarity",
    "momentum_at",
    "nearest_columns",
    "own_probability",
    "prediction_head",
    "projection_head",
    "see_patches",
    "soft_floor",
    "soft_loss",
    "update_teacher",
]
