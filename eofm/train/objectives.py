"""Which objective a run has: SoftCon, or a control that leaves a part of it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from eofm.method import HeadForm, MaskForm
from eofm.method.multilabel import MultiLabel, MultiLabelSettings
from eofm.networks.joint import JointTrunk
from eofm.networks.trunk import Trunk
from eofm.train.config import PretrainConfig

# What the card of an export says it was trained for.
OBJECTIVES: Final[Mapping[str, str]] = {
    "softcon": "SoftCon: soft contrastive learning guided by multi-labels (arXiv 2405.20462)",
    "moco": "control: the hard term of SoftCon alone, as in MoCo-v3 (arXiv 2104.02057)",
    "soft": "control: the soft term of SoftCon alone (arXiv 2405.20462)",
    "shuffled": "control: SoftCon (arXiv 2405.20462) with the label sets of the scenes exchanged "
    "at random",
    "multilabel": "control: multi-label classification by binary cross entropy, no contrast",
}

# The two networks of a run, whatever it is: what learns, and its average over time.
BRANCHES: Final = ("student", "teacher")

# Where mean ± 2 standard deviations become 0 to 1, the mean is at one half; a z-score has it at 0.
_MEAN: Final[Mapping[str, float]] = {"two-sigma": 0.5, "zscore": 0.0}


def mask_fill(config: PretrainConfig) -> float:
    """Return what hidden pixels become, in normalised units."""
    return _MEAN[config.model.normalization] if config.method.mask_fill == "mean" else 0.0


def weights_of_terms(config: PretrainConfig) -> tuple[float, float]:
    """Return the weights of the hard term and of the soft term."""
    weight = config.method.soft_weight
    return {"moco": (1.0, 0.0), "soft": (0.0, weight)}.get(config.method.objective, (1.0, weight))


def head_of(config: PretrainConfig, *, tokens: bool) -> HeadForm:
    """Return whose projector and predictor are used.

    Args:
        config: All settings.
        tokens: The network is a transformer.
    """
    if config.method.head != "auto":
        return HeadForm(config.method.head)
    return HeadForm.MOCO3 if tokens else HeadForm.MOCO3_RESNET


def multi_label(
    trunk: Trunk | JointTrunk, config: PretrainConfig, classes: int, generator: torch.Generator
) -> MultiLabel:
    """Return the control that predicts the labels.

    Raises:
        ConfigError: If the store has no classes.
    """
    settings = MultiLabelSettings(
        classes,
        mask_ratio=config.method.mask_ratio,
        mask=MaskForm(config.method.mask),
        mask_fill=mask_fill(config),
        symmetric=config.method.symmetric,
    )
    return MultiLabel(trunk, settings, generator)


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
        return method.objective == "multilabel"
    return method.mask == "pixels" and method.mask_ratio > 0
