"""Settings of `eofm pretrain`: the objective. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MethodConfig:
    """The SoftCon objective: hard InfoNCE term plus soft multi-label term.

    Args:
        tau: Temperature of the hard term.
        soft_tau: Temperature of the soft term.
        soft_weight: Weight λ of the soft term; 0 leaves MoCo-v3.
        soft_form: Binary cross entropy, cross entropy, or mean squared error.
        similarity: Similarity of two multi-label vectors.
        mask_ratio: Share of the student's tokens that are dropped; 0 for networks without tokens.
        symmetric: Use both directions (student of view 1 with teacher of view 2, and back).
        momentum: Teacher momentum at the start; a cosine takes it to 1.
        hidden: Hidden width of projector and predictor.
        dim: Width of the contrastive embedding.
        head_norm: Normalisation inside the heads.
    """

    tau: float = 0.2
    soft_tau: float = 0.2
    soft_weight: float = 10.0
    soft_form: Literal["bce", "ce", "mse"] = "bce"
    similarity: Literal["cosine", "jaccard"] = "cosine"
    mask_ratio: float = 0.5
    symmetric: bool = True
    momentum: float = 0.99
    hidden: int = 512
    dim: int = 128
    head_norm: Literal["bn", "ln", "none"] = "bn"
