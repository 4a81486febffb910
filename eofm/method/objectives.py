"""Which module computes the loss of a run: SoftCon, a control, or one of your own.

An objective of your own is one file, and needs no change here:

    eofm pretrain --method.objective mine.py:Spread

The class is made as `SoftCon` is, and is easiest as a subclass of it: a module with a `student` and
a `teacher` that have a `trunk` each, whose call returns something with a `loss` and `logged()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from eofm.errors import ConfigError
from eofm.io import load_own
from eofm.method.config import Objective, SoftConConfig
from eofm.method.masking import MaskedTrunk
from eofm.method.multilabel import MultiLabel
from eofm.method.similarity import LabelFacts
from eofm.method.softcon import SoftCon

__all__ = ["OBJECTIVES", "describe_objective", "make_objective"]

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


def describe_objective(objective: Objective | str) -> str:
    """Return what the card of an export says it was trained for."""
    return OBJECTIVES[objective] if isinstance(objective, Objective) else f"own: {objective}"


def make_objective(
    trunk: MaskedTrunk,
    config: SoftConConfig,
    generator: torch.Generator,
    facts: LabelFacts,
    *,
    band_mean: float,
) -> SoftCon | MultiLabel:
    """Return the module that computes the loss of a configuration.

    Args:
        trunk: The encoder to pretrain.
        config: The objective.
        generator: Source of the heads' initial weights, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units.

    Raises:
        ConfigError: If a class of your own cannot be made, or lacks what a run needs.
    """
    if config.objective is Objective.MULTILABEL:
        return MultiLabel(trunk, config, facts.classes, generator, band_mean=band_mean)
    if isinstance(config.objective, Objective):
        return SoftCon(trunk, config, generator, facts, band_mean=band_mean)
    try:
        kind = load_own(config.objective)
        made: object = kind(trunk, config, generator, facts, band_mean=band_mean)  # type: ignore[operator]
    except Exception as error:
        raise ConfigError(
            "an objective of your own cannot be made",
            found=f"{type(error).__name__}: {error}",
            expected="a class that is made as eofm.method.SoftCon is",
            where=f"method.objective={config.objective}",
            remedy="the part before : is a module that can be imported, or a .py file; the part "
            "after it a class, such as a subclass of eofm.method.SoftCon",
        ) from error
    if not isinstance(made, nn.Module) or not {"student", "teacher"} <= set(dir(made)):
        raise ConfigError(
            "an objective of your own is no method of training",
            found=type(made).__name__,
            expected="a torch.nn.Module with a student and a teacher",
            where=f"method.objective={config.objective}",
        )
    return made  # type: ignore[return-value] # what a run uses of it is there
