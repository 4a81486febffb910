"""What a network expects that was trained on nothing."""

from __future__ import annotations

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.sensors import DEFAULT_STATISTICS, STATISTICS
from eofm.contract.spec import ImageSpec, Normalization


def default_recipe(spec: ImageSpec, size: tuple[int, int], pooling: Pooling) -> Recipe:
    """Return a recipe for a network that was trained on nothing: z-scores by published statistics.

    Args:
        spec: What the images are.
        size: Of the network's input.
        pooling: Of its tokens.
    """
    statistics = STATISTICS[DEFAULT_STATISTICS[spec.sensor]].select(spec.bands)
    return Recipe(
        sensor=spec.sensor,
        bands=spec.bands,
        unit=statistics.unit,
        size=size,
        normalization=Normalization.zscore(statistics.mean, statistics.std, statistics.source),
        pooling=pooling,
    )
