"""SoftCon: soft contrastive learning guided by multi-labels (arXiv 2405.20462).

In the order of the paper. A student sees part of one view, a teacher (its moving average) all of
the other. Their cosines s, one row per student image and one column per teacher image, enter two
terms. The hard term matches the two views of each image against all other images. The soft term
makes s follow the similarity S of the images' land-cover labels. The loss is hard + λ · soft.

Recommended reading order: `config` (all options), `terms.seam` (the interface of a term),
`terms.softcon` (the contrastive term), `losses` and `similarity` (the formulas), `masking` and
`branches` (the networks), `distributed` (the columns of all processes, and the queue),
`terms.multilabel` (the control without contrast), `objectives` (the weighted sum of a run's terms,
and how to add your own).

Shapes: B student images (rows), N teacher images (columns: those of all processes, and the queue),
d embedding width, K classes, P patch tokens.

Every name is loaded on first use, so that the settings can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from eofm.method.branches import (
        Branch,
        make_teacher,
        momentum_at,
        prediction_head,
        projection_head,
        update_teacher,
    )
    from eofm.method.config import (
        Diagonal,
        Exclude,
        HeadForm,
        HeadNorm,
        LabelSimilarity,
        MaskFill,
        MaskForm,
        Objective,
        SoftBias,
        SoftConConfig,
        SoftForm,
        SoftScale,
        SoftUnit,
    )
    from eofm.method.losses import (
        hard_loss,
        labelled_pairs,
        nearest_columns,
        own_probability,
        soft_floor,
        soft_loss,
    )
    from eofm.method.masking import MaskedTrunk, hide_blocks, keep_tokens, see_patches
    from eofm.method.objectives import CombinedTerms, SoftCon, StepOutput
    from eofm.method.similarity import (
        LabelFacts,
        cosine_matrix,
        inverse_frequencies,
        label_facts,
        label_population,
        label_similarity,
        label_vectors,
        labelled,
        mean_label_similarity,
    )
    from eofm.method.terms.multilabel import MultiLabel
    from eofm.method.terms.softcon import SoftConOutput, SoftContrast

_HOME: Final = {
    "branches": (
        "Branch",
        "make_teacher",
        "momentum_at",
        "prediction_head",
        "projection_head",
        "update_teacher",
    ),
    "config": (
        "Diagonal",
        "Exclude",
        "HeadForm",
        "HeadNorm",
        "LabelSimilarity",
        "MaskFill",
        "MaskForm",
        "Objective",
        "SoftBias",
        "SoftConConfig",
        "SoftForm",
        "SoftScale",
        "SoftUnit",
    ),
    "losses": (
        "hard_loss",
        "labelled_pairs",
        "nearest_columns",
        "own_probability",
        "soft_floor",
        "soft_loss",
    ),
    "masking": ("MaskedTrunk", "hide_blocks", "keep_tokens", "see_patches"),
    "objectives": ("CombinedTerms", "SoftCon", "StepOutput"),
    "similarity": (
        "LabelFacts",
        "cosine_matrix",
        "inverse_frequencies",
        "label_facts",
        "label_population",
        "label_similarity",
        "label_vectors",
        "labelled",
        "mean_label_similarity",
    ),
    "terms.multilabel": ("MultiLabel",),
    "terms.softcon": ("SoftConOutput", "SoftContrast"),
}
_MODULE: Final = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Branch",
    "CombinedTerms",
    "Diagonal",
    "Exclude",
    "HeadForm",
    "HeadNorm",
    "LabelFacts",
    "LabelSimilarity",
    "MaskFill",
    "MaskForm",
    "MaskedTrunk",
    "MultiLabel",
    "Objective",
    "SoftBias",
    "SoftCon",
    "SoftConConfig",
    "SoftConOutput",
    "SoftContrast",
    "SoftForm",
    "SoftScale",
    "SoftUnit",
    "StepOutput",
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


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _MODULE:
        raise AttributeError(f"module 'eofm.method' has no attribute {name!r}")
    value: object = vars(importlib.import_module(f"eofm.method.{_MODULE[name]}"))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
