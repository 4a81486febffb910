"""Where training starts: random weights, DINOv2's, or an encoder of an earlier run."""

from __future__ import annotations

from pathlib import Path

import torch

from eofm.errors import WeightsError
from eofm.models.adapt import (
    InputInit,
    PositionRecipe,
    adapt_input,
    dinov2_to_vit,
    fold_affine,
    resize_position_embedding,
)
from eofm.models.encoder import CARD_FILE, load_encoder
from eofm.models.state import State, load_strict, read_state
from eofm.models.vit import ViT, build_vit
from eofm.recipe import Recipe


def start_from(
    weights: Path | str | None,
    architecture: str,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    input_init: InputInit,
    positions: PositionRecipe,
) -> tuple[ViT, str]:
    """Return a network ready to be trained, and one line saying where its weights are from.

    Args:
        weights: None for random weights; a DINOv2 state dict (.pth, .safetensors), whose input
            layer is adapted to the recipe's bands and whose positions are interpolated to its
            size; or the folder of an eofm export with the same bands.
        architecture: Name of the network.
        recipe: What it will eat.
        generator: Source of whatever is drawn.
        input_init: How an RGB input layer is adapted.
        positions: How positions are interpolated.

    Raises:
        WeightsError: If the weights cannot be read or do not fit.
    """
    vit = build_vit(
        architecture,
        len(recipe.bands),
        recipe.size,
        generator,
        pooling=recipe.pooling,
        positions=positions,
    )
    if weights is None:
        return vit, "random weights"
    path = Path(weights)
    if path.is_dir() or path.name == CARD_FILE:
        state, origin = _from_export(path, architecture, recipe)
    else:
        state = dinov2_to_vit(read_state(path))
        state = adapt_input(state, recipe.bands, input_init, generator)
        if input_init is not InputInit.RANDOM and recipe.normalization.clip == (0.0, 1.0):
            state = fold_affine(state)  # copied filters expect z = 4u - 2
        origin = f"DINOv2 weights {path.name}, input layer {input_init}, positions {positions}"
    load_strict(vit, resize_position_embedding(state, vit.grid, positions), where=str(path))
    return vit, origin


def _from_export(path: Path, architecture: str, recipe: Recipe) -> tuple[State, str]:
    folder = path if path.is_dir() else path.parent
    encoder = load_encoder(folder)
    has = (encoder.card.architecture, encoder.recipe.bands, encoder.recipe.normalization)
    wants = (architecture, recipe.bands, recipe.normalization)
    if has != wants:
        raise WeightsError(
            "the export was made for another network or other input",
            found=f"{has[0]}, bands {' '.join(has[1])}, {has[2].source}",
            expected=f"{wants[0]}, bands {' '.join(wants[1])}, {wants[2].source}",
            where=folder,
            remedy="continue with the same architecture, sensor, normalization and statistics",
        )
    return dict(encoder.trunk.state_dict()), f"export {encoder.card.name} ({encoder.card.source})"
