"""A checkpoint becomes an encoder: weights.safetensors + card.json."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from eofm.errors import WeightsError
from eofm.models.adapt import PositionRecipe
from eofm.models.card import Card, library_versions
from eofm.models.encoder import Encoder, build_trunk, save_encoder
from eofm.models.state import load_strict
from eofm.models.vit import ViT
from eofm.recipe import Recipe
from eofm.train.config import ExportConfig
from eofm.train.module import CHECKPOINT_KEY

OBJECTIVE: Final = "SoftCon: soft contrastive learning guided by multi-labels (arXiv 2405.20462)"


def make_card(facts: Mapping[str, Any], recipe: Recipe, source: str) -> Card:
    """Return the card of one export of a run.

    Args:
        facts: What the run knows: name, architecture, positions, objective, training_data,
            counts, synthetic, config_hash.
        recipe: What the network eats.
        source: Which weights these are.
    """
    return Card(
        name=facts["name"],
        architecture=facts["architecture"],
        recipe=recipe,
        objective=facts["objective"],
        source=source,
        training_data=facts["training_data"],
        counts=dict(facts["counts"]),
        synthetic=facts["synthetic"],
        licence=facts["licence"],
        positions=PositionRecipe(facts["positions"]),
        config_hash=facts["config_hash"],
        versions=library_versions(),
    )


def export_trunk(trunk: ViT, card: Card, directory: Path) -> Encoder:
    """Write a trunk with its card, and return it as an encoder of its own (a copy)."""
    copy = build_trunk(card)
    load_strict(
        copy, {k: v.detach().cpu().clone() for k, v in trunk.state_dict().items()}, card.name
    )
    encoder = Encoder(copy, card)
    save_encoder(encoder, directory)
    return encoder


@dataclass(frozen=True)
class Exported:
    """An encoder on disk."""

    directory: Path
    card: Card

    def describe(self) -> str:
        """Return one line: what is where."""
        return f"wrote {self.directory}: {self.card.name}, {self.card.source}"


def export_checkpoint(config: ExportConfig) -> Exported:
    """Make an encoder of a checkpoint of `eofm pretrain`.

    Raises:
        WeightsError: If the file is missing, damaged, or no checkpoint of eofm.
    """
    path = Path(config.checkpoint)
    checkpoint = _load(path)
    saved = checkpoint[CHECKPOINT_KEY]
    recipe = Recipe.from_dict(saved["recipe"])
    prefix = f"method.{config.branch}.trunk."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    source = f"{config.branch} after {saved['epoch']} epochs"
    card = make_card(saved["card"], recipe, source)
    trunk = build_trunk(card)
    load_strict(trunk, state, where=str(path))
    return Exported(Path(config.to), save_encoder(Encoder(trunk, card), config.to))


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(
            "there is no such checkpoint",
            found=path,
            remedy="runs keep theirs in <run>/checkpoints/last.ckpt",
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(
            "the checkpoint cannot be read",
            found=str(error).strip().splitlines()[0],
            where=path,
            remedy="it is damaged, or not a checkpoint; code in it is never run",
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise WeightsError(
            "this checkpoint was not written by eofm pretrain",
            found=", ".join(map(str, list(checkpoint)[:8]))
            if isinstance(checkpoint, dict)
            else "?",
            expected=f"a key {CHECKPOINT_KEY!r} with the recipe",
            where=path,
        )
    return checkpoint
