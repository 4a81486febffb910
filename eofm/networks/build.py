"""Build networks with random weights by the name of an architecture."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Final

import torch

from eofm.contract.recipe import Pooling, Recipe
from eofm.errors import WeightsError
from eofm.networks import foundation, resnet, timm, vit
from eofm.networks.state import PositionRecipe
from eofm.networks.trunk import Trunk

__all__ = ["BUILDERS", "Builder", "build", "build_blank", "default_pooling"]

Builder = Callable[[str, Recipe, torch.Generator, PositionRecipe], Trunk]


def _vit(name: str, recipe: Recipe, generator: torch.Generator, positions: PositionRecipe) -> Trunk:
    return vit.build_vit(
        name,
        len(recipe.bands),
        recipe.size,
        generator,
        pooling=recipe.pooling,
        positions=positions,
    )


def _resnet(name: str, recipe: Recipe, generator: torch.Generator, _: PositionRecipe) -> Trunk:
    return resnet.build_resnet(
        name, len(recipe.bands), recipe.size, generator, pooling=recipe.pooling
    )


def _timm(name: str, recipe: Recipe, generator: torch.Generator, _: PositionRecipe) -> Trunk:
    return timm.build_timm(name, len(recipe.bands), recipe.size, generator, pooling=recipe.pooling)


def _foundation(name: str, recipe: Recipe, generator: torch.Generator, _: PositionRecipe) -> Trunk:
    return foundation.build_foundation(name, recipe, generator)


BUILDERS: Final[Mapping[str, Builder]] = {
    **dict.fromkeys(vit.ARCHITECTURES, _vit),
    **dict.fromkeys(resnet.RESNETS, _resnet),
    **dict.fromkeys(foundation.FOUNDATION, _foundation),
}


def build(
    architecture: str,
    recipe: Recipe,
    generator: torch.Generator,
    positions: PositionRecipe = PositionRecipe.DINOV2,
) -> Trunk:
    """Return an untrained network for a recipe's bands, size and pooling.

    Args:
        architecture: A key of `BUILDERS`, a truncated ViT (its first blocks, `vits14-7blocks`), or
            `timm:` and the name of a network of timm.
        recipe: Input that it will expect.
        generator: Random generator of the weights, on the CPU.
        positions: How a `ViT` interpolates its position table for images of another size; ignored
            by other networks.

    Raises:
        WeightsError: If no architecture has that name.
        SpecError: If the recipe's size or pooling does not fit the architecture.
    """
    builder = _timm if architecture.startswith(timm.PREFIX) else BUILDERS.get(architecture)
    if builder is None and vit.find_architecture(architecture) is not None:
        builder = _vit
    if builder is None:
        raise WeightsError(
            f"there is no architecture {architecture!r}",
            found=architecture,
            expected=f"{', '.join(BUILDERS)}, a ViT of fewer blocks as in vits14-7blocks, or "
            f"{timm.PREFIX} and a network of timm",
            remedy=_nearest(architecture),
        )
    return builder(architecture, recipe, generator, positions)


def _nearest(name: str) -> str | None:
    """Return the remedy for an unknown name: `vit-small-14` and `dinov2_vits14` mean `vits14`."""
    if timm.is_known(name):
        return f"write {timm.PREFIX}{name}"

    def plain(text: str) -> str:
        sizes = {"small": "s", "base": "b", "large": "l", "giant": "g", "patch": ""}
        text = re.sub("|".join(sizes), lambda found: sizes[found[0]], text.lower())
        return re.sub(r"^dino(v2)?|_lc|[^a-z0-9]", "", text)

    names = {plain(known): known for known in BUILDERS}
    near = difflib.get_close_matches(plain(name), names, n=1, cutoff=0.85)
    return f"did you mean {names[near[0]]}?" if near else None


def build_blank(
    architecture: str, recipe: Recipe, positions: PositionRecipe = PositionRecipe.DINOV2
) -> Trunk:
    """Return a network whose weights must all be loaded; its initial values are meaningless.

    Args:
        architecture: As for `build`.
        recipe: Input that it will expect.
        positions: As for `build`.

    Raises:
        WeightsError: If no architecture has that name.
        SpecError: If the recipe's size or pooling does not fit the architecture.
    """
    if vit.find_architecture(architecture) is not None:
        return vit.blank_vit(
            architecture,
            len(recipe.bands),
            recipe.size,
            pooling=recipe.pooling,
            positions=positions,
        )
    return build(architecture, recipe, torch.Generator().manual_seed(0), positions)


def default_pooling(architecture: str) -> Pooling:
    """Return the usual pooling of an architecture: its CLS token, or the mean if it has none.

    For a truncated ViT it is the mean too, as its CLS token was not trained as an output there.

    Raises:
        WeightsError: If no architecture has that name.
    """
    if architecture.startswith(timm.PREFIX):
        return timm.default_pooling(architecture)
    found = vit.find_architecture(architecture)
    return Pooling.CLS if found is not None and found.final_norm else Pooling.MEAN
