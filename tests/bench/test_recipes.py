"""The recipes of papers: what is declared, what runs, and what is refused with its reason."""

from __future__ import annotations

import pytest

from eofm.bench.config import PROBE_KINDS, RECIPES, expand_probes
from eofm.bench.finetune.trainings import TRAININGS
from eofm.bench.probes import KINDS
from eofm.bench.texts import TEXT_KINDS
from eofm.errors import ConfigError


def test_every_probe_that_is_named_can_run() -> None:
    """The names that the settings know are those that the harness has."""
    assert [*KINDS, *TEXT_KINDS, *TRAININGS] == list(PROBE_KINDS)
    assert {p for recipe in RECIPES.values() for p in recipe.probes} <= set(PROBE_KINDS)
    assert all(recipe.probes for recipe in RECIPES.values())


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_state_their_faults_and_gaps(name: str) -> None:
    """No recipe pretends to be whole; each names its metric by an id."""
    recipe = RECIPES[name]

    assert recipe.faults
    assert recipe.missing
    assert "ap_" in recipe.metric or "oa" in recipe.metric
    assert "mAP" not in recipe.metric


def test_a_recipe_stands_for_its_probes() -> None:
    """Named with others, each probe runs once."""
    assert ("knn", "linear-c1", "nmc") == expand_probes(["corley2023", "nmc", "knn"])


def test_an_unknown_probe_is_named() -> None:
    """With the list of what there is."""
    with pytest.raises(ConfigError, match="no such probe") as caught:
        expand_probes(["knn", "magic"])

    assert "torchgeo-bench" in str(caught.value)
