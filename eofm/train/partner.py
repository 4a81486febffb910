"""The second sensor of a run on two: its way to the network, and its views.

Shapes: B places, C bands, S by S pixels of a view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from eofm.contract.imagery import NativeImagery
from eofm.contract.preprocess import Plan, Preprocess, to_grid
from eofm.contract.recipe import Recipe
from eofm.loading.augment import Views, with_geometry_of
from eofm.train.config import AugmentConfig
from eofm.train.recipe import shows_colour


@dataclass(frozen=True)
class Partner:
    """What a run knows of its second sensor.

    Args:
        name: Of its store and of its trunk.
        plan: From its imagery to normalised pixels.
        recipe: What its input layer expects.
        new_input: Its input layer was drawn afresh.
    """

    name: str
    plan: Plan
    recipe: Recipe
    new_input: bool


def views_for(recipe: Recipe, config: AugmentConfig) -> Views:
    """Return the random views that suit a recipe: SAR images have no colours."""
    return Views(
        recipe.size[0],
        config,
        clip=recipe.normalization.clip,
        colour=shows_colour(recipe.sensor),
    )


@final
class PairedViews(nn.Module):
    """One random view of each of two images of a place, by two sensors.

    Args:
        first: Makes views of the first sensor.
        second: What there is to know of the second.
        config: Ranges, probabilities, and whether both views show the same crop.
    """

    def __init__(self, first: Views, second: Partner, config: AugmentConfig) -> None:
        super().__init__()
        self.first, self.second = first, views_for(second.recipe, config)
        self.preprocess = Preprocess(second.plan)
        self.same_crop = config.pair == "same"

    def forward(self, pixels: Tensor, native: NativeImagery) -> tuple[Tensor, Tensor]:
        """Return a view of each, (B, C, S, S) with its own C.

        Args:
            pixels: Of the first sensor, normalised.
            native: Of the second, as stored, of the same places in the same order.
        """
        others = self.preprocess(to_grid(native)).pixels
        draw, other = self.first.draw(pixels.shape), self.second.draw(others.shape)
        if self.same_crop:
            other = with_geometry_of(draw, other)
        return self.first.make(pixels, draw), self.second.make(others, other)
