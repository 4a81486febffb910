"""Everything that changes the objective, in one place, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eofm.errors import ConfigError
from eofm.method.heads import HeadForm, HeadNorm
from eofm.method.losses import SoftForm
from eofm.method.masking import MaskForm
from eofm.method.similarity import LabelSimilarity


class Exclude(StrEnum):
    """Which images the hard term does not push away from each other.

    None of them; those of one place (its seasons and its overlapping windows look alike for a
    reason); or those with the same classes, the self-labelled false negatives.
    """

    NONE = "none"
    SAME_LOCATION = "same-location"
    SAME_LABELS = "same-labels"


class SoftBias(StrEnum):
    """The bias of the bce form: learned, fixed where it starts (logit of the mean S), or 0."""

    LEARNED = "learned"
    FIXED = "fixed"
    ZERO = "zero"


class Diagonal(StrEnum):
    """Similarity of an image with itself where the views are two seasons.

    That of both seasons' labels, or 1: the same place.
    """

    LABELS = "labels"
    ONE = "one"


class SoftUnit(StrEnum):
    """What λ counts: the soft term as it stands, or in units of equal gradients at the start.

    The forms differ fivefold in the size of their gradients, so that one λ is not the same weight
    for two of them; in units of equal gradients it is.
    """

    PLAIN = "plain"
    GRADIENT = "gradient"


@dataclass(frozen=True)
class SoftConSettings:
    """Everything that changes the objective.

    Args:
        tau: Temperature of the hard term.
        hard_weight: Weight of the hard term; 0 leaves the soft term alone.
        hard_exclude: Which images are no negatives of each other.
        soft_tau: Temperature of the soft term (bce, ce).
        soft_weight: λ; 0 leaves MoCo-v3.
        soft_unit: What λ counts.
        soft_form: Form of the soft term.
        soft_bias: Bias of the bce form.
        soft_scale_learned: Learn the scale of the bce form as well, from 1 / soft_tau, up to 100
            (SigLIP, arXiv 2303.15343).
        soft_neighbours: Only the so many most similar columns of a row enter the soft term, as in
            LOOK (arXiv 2110.06014); 0 for all.
        soft_diagonal: Similarity of an image with itself.
        similarity: Label similarity.
        queue: How many keys of earlier steps are columns too (MoCo, arXiv 1911.05722); 0 for none.
        mask_ratio: Share of the student's patches that are hidden.
        mask: How they are hidden.
        mask_fill: What hidden pixels become, in normalised units; without a use for tokens.
        symmetric: Add the direction from the second view to the first.
        head: Whose projector and predictor.
        hidden: Hidden width of both heads.
        out: Width of the contrastive embedding, d.
        head_norm: Normalisation inside the heads.

    Raises:
        ConfigError: If a value is out of range.
    """

    tau: float = 0.2
    hard_weight: float = 1.0
    hard_exclude: Exclude = Exclude.NONE
    soft_tau: float = 0.2
    soft_weight: float = 1.0
    soft_unit: SoftUnit = SoftUnit.PLAIN
    soft_form: SoftForm = SoftForm.BCE
    soft_bias: SoftBias = SoftBias.LEARNED
    soft_scale_learned: bool = False
    soft_neighbours: int = 0
    soft_diagonal: Diagonal = Diagonal.LABELS
    similarity: LabelSimilarity = LabelSimilarity.COSINE
    queue: int = 0
    mask_ratio: float = 0.7
    mask: MaskForm = MaskForm.TOKENS
    mask_fill: float = 0.0
    symmetric: bool = True
    head: HeadForm = HeadForm.MOCO3
    hidden: int = 4096
    out: int = 256
    head_norm: HeadNorm = HeadNorm.BN

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("tau", self.tau > 0, "> 0"),
            ("hard_weight", self.hard_weight >= 0, ">= 0"),
            ("soft_tau", self.soft_tau > 0, "> 0"),
            ("soft_weight", self.soft_weight >= 0, ">= 0"),
            ("soft_weight", self.hard_weight + self.soft_weight > 0, "> 0 if hard_weight is 0"),
            ("soft_neighbours", self.soft_neighbours >= 0, ">= 0"),
            ("queue", self.queue >= 0, ">= 0"),
            ("mask_ratio", 0 <= self.mask_ratio < 1, "0 <= ratio < 1"),
            ("hidden", self.hidden > 0, "> 0"),
            ("out", self.out > 0, "> 0"),
            (
                "soft_scale_learned",
                not self.soft_scale_learned or self.soft_form is SoftForm.BCE,
                "false: only the bce form has a scale to learn",
            ),
            (
                "soft_bias",
                self.soft_bias is SoftBias.LEARNED or self.soft_form is SoftForm.BCE,
                "learned, the default: only the bce form has a bias",
            ),
        ):
            if not holds:
                raise ConfigError(
                    f"{name} is out of range",
                    found=vars(self)[name],
                    expected=expected,
                    where=f"SoftConSettings.{name}",
                )
