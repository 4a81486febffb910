"""What the parts of a run are told of its objective: branches, means, batch norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.method.config import MaskForm, Objective
from eofm.train.config import PretrainConfig

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
