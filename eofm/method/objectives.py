"""Which module computes the loss of a run: the terms of its settings, or one of your own.

A term of your own is one file, and needs no change here (`eofm.method.terms.seam`):

    eofm pretrain --method.terms "{softcon: 1, mine.py:Spread: 0.1}"

So is a whole objective, which brings its networks: a class that is made as `SoftCon` is, easiest as
a subclass of it. It has a `student` and a `teacher` that have a `trunk` each, and its call returns
something with a `loss` and `logged()`:

    eofm pretrain --method.objective mine.py:Whole
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from eofm.errors import ConfigError
from eofm.io import load_own, names_own
from eofm.method.combined import CombinedTerms, Frozen, needs_of
from eofm.method.config import Exclude, Objective, SoftConConfig, TermChoice
from eofm.method.masking import MaskedTrunk
from eofm.method.similarity import LabelFacts
from eofm.method.terms.registry import find_term
from eofm.method.terms.seam import Term

__all__ = ["OBJECTIVES", "asks_for_places", "describe_objective", "is_whole", "make_objective"]

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


def describe_objective(config: SoftConConfig) -> str:
    """Return what the card of an export says it was trained for."""
    return "; ".join(_describe(choice, config) for choice in config.chosen)


def _describe(choice: TermChoice, config: SoftConConfig) -> str:
    if names_own(choice.name):
        about = f"own: {choice.name}"
    elif isinstance(config.objective, Objective) and choice.name == Objective.SOFTCON:
        about = OBJECTIVES[config.objective]
    else:
        about = find_term(choice.name).about
    return about if choice.weight == 1 else f"{choice.weight:g} x {about}"


def make_objective(
    trunk: MaskedTrunk,
    config: SoftConConfig,
    generator: torch.Generator,
    facts: LabelFacts,
    *,
    band_mean: float,
    frozen: Frozen | None = None,
) -> CombinedTerms:
    """Return the module that computes the loss of a configuration.

    Args:
        trunk: The encoder to pretrain.
        config: The objective.
        generator: Source of the heads' initial weights, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units.
        frozen: Makes the frozen teacher of a name of weights.

    Raises:
        ConfigError: If a term cannot be made, or a class of your own lacks what a run needs.
    """
    if is_whole(config):
        return _own(trunk, config, generator, facts, band_mean)
    return CombinedTerms(trunk, config, generator, facts, band_mean=band_mean, frozen=frozen)


def is_whole(config: SoftConConfig) -> bool:
    """Whether the objective is a class of your own that is more than a term: networks and all.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    if config.terms is not None or isinstance(config.objective, Objective):
        return False
    kind = _load(config.objective)
    return not (isinstance(kind, type) and issubclass(kind, Term))


def asks_for_places(config: SoftConConfig) -> bool:
    """Whether the objective must know which images are of one place.

    Raises:
        ConfigError: If a term or an objective of your own cannot be loaded.
    """
    if config.hard_exclude is Exclude.SAME_LOCATION:
        return True
    return not is_whole(config) and any(each.places for each in needs_of(config).values())


def _load(reference: str) -> object:
    try:
        return load_own(reference)
    except Exception as error:
        raise _cannot_be_made(reference, error) from error


def _cannot_be_made(reference: str, error: Exception) -> ConfigError:
    return ConfigError(
        "an objective of your own cannot be made",
        found=f"{type(error).__name__}: {error}",
        expected="a class derived from eofm.method.terms.seam.Term, or one that is made as "
        "eofm.method.SoftCon is",
        where=f"method.objective={reference}",
        remedy="the part before : is a module that can be imported, or a .py file; the part "
        "after it a class, such as a subclass of eofm.method.SoftCon",
    )


def _own(
    trunk: MaskedTrunk,
    config: SoftConConfig,
    generator: torch.Generator,
    facts: LabelFacts,
    band_mean: float,
) -> CombinedTerms:
    """Return an objective of one's own that brings its networks."""
    kind = _load(config.objective)
    try:
        made: object = kind(trunk, config, generator, facts, band_mean=band_mean)  # type: ignore[operator]
    except Exception as error:
        raise _cannot_be_made(config.objective, error) from error
    if not isinstance(made, nn.Module) or not {"student", "teacher"} <= set(dir(made)):
        raise ConfigError(
            "an objective of your own is no method of training",
            found=type(made).__name__,
            expected="a torch.nn.Module with a student and a teacher",
            where=f"method.objective={config.objective}",
        )
    return made  # type: ignore[return-value] # what a run uses of it is there
