"""Which objective a run has: SoftCon, or a control that leaves a part of it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.method.config import MaskForm, Objective
from eofm.train.config import PretrainConfig

# What the card of an export says it was trained for.
OBJECTIVES: Final[Mapping[Objective, str]] = {
    Objective.SOFTCON: "SoftCon: soft contrastive learning guided by multi-labels "
    "(arXiv 2405.20462)",
    Objective.MOCO: "control: the hard term of SoftCon alone, as in MoCo-v3 (arXiv 2104.02057)",
    Objective.SOFT: "control: the soft term of SoftCon alone (arXiv 2405.20462)",
    Objective.SHUFFLED: "control: SoftCon (arXiv 2405.20462) with the label sets of the scenes "
    "exchanged at random",
    Objective.MULTILABEL: "control: multi-label classification by binary cross entropy, no "
    "contrast",
}

# The two networks of a run, whatever it is: what learns, and its average over time.
BRANCHES: Final = ("student", "teacher")

# Where mean ± 2 standard deviations become 0 to 1, the mean is at one half; a z-score has it at 0.
_MEAN: Final[Mapping[str, float]] = {"two-sigma": 0.5, "zscore": 0.0}


def band_mean(config: PretrainConfig) -> float:
    """Return the value of a band's mean in the network's units: what hidden pixels become."""
    return _MEAN[config.model.normalization]


def fresh_norms_needed(config: PretrainConfig, branch: str) -> bool:
    """Whether the batch norms of a branch hold statistics of other images than it will be given.

    The student's do where it saw images with hidden parts; the average beside the multi-label
    control has seen none; and both branches have seen two sensors where there are two.

    Args:
        config: All settings.
        branch: `student` or `teacher`.
    """
    method = config.method
    if config.data.views == "sensors":
        return True
    if branch == "teacher":
        return method.objective is Objective.MULTILABEL
    return method.mask is MaskForm.PIXELS and method.mask_ratio > 0
