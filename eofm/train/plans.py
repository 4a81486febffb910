"""The way of a training batch to a network: everything of a plan but the resize."""

from __future__ import annotations

from eofm.contract.preprocess import Plan, plan
from eofm.contract.recipe import AcceptSize, Recipe
from eofm.contract.spec import ImageSpec

_WHY = "a random resized crop follows and brings each view to the recipe's size"


def training_plan(spec: ImageSpec, recipe: Recipe) -> Plan:
    """Return the plan for a training batch: everything but the resize, which the crop does.

    Raises:
        SpecMismatch: If the store's imagery does not fit the recipe.
    """
    if spec.size is None or spec.size == recipe.size:
        return plan(spec, recipe)
    return plan(spec, recipe, (AcceptSize(spec.size, _WHY),))
