"""The networks inside the checkpoint of a run, each as an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import foreign
from eofm.networks.adapt import PositionRecipe
from eofm.networks.state import load_strict
from eofm.weights.encoder import Encoder, build_trunk
from eofm.weights.encoder_card import Card, library_versions

CHECKPOINT_KEY: Final = "eofm"  # under which a checkpoint keeps recipe, card and progress


def make_card(facts: Mapping[str, Any], recipe: Recipe, source: str) -> Card:
    """Return the card of one export of a run.

    Args:
        facts: What the run knows: name, architecture, positions, objective, training_data,
            counts, synthetic, config_hash.
        recipe: What the network expects.
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


def from_checkpoint(path: Path, branch: str, *, sensor: str | None = None) -> Encoder:
    """Return one of the two networks of a run's checkpoint.

    Args:
        path: The checkpoint.
        branch: `student` or `teacher`.
        sensor: Whose input layer, of two; the one that led the run if None.

    Raises:
        WeightsError: If the file is missing, damaged, or not a checkpoint of a run; it has no such
            sensor; or its batch norms remember images that no encoder will be given.
    """
    checkpoint = _load(path)
    with foreign(
        WeightsError,
        "the checkpoint does not hold what one of a run holds",
        where=path,
        remedy="take another checkpoint of the run, or one of its exports",
    ):
        return _encoder_of(checkpoint, path, branch, sensor)


def _encoder_of(
    checkpoint: Mapping[str, Any], path: Path, branch: str, sensor: str | None
) -> Encoder:
    saved = checkpoint[CHECKPOINT_KEY]
    recipe, place = _input_of(saved, sensor, path)
    prefix = f"method.{branch}.trunk.{place}"
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    if not state:
        raise WeightsError(
            f"the run of this checkpoint has no {branch}",
            found=f"no tensors of a {branch}: no term of the run needs one",
            expected="student",
            where=path,
            remedy=f"take its student: {path}",
        )
    if branch in saved.get("stale_norms", ()) and any("running_mean" in name for name in state):
        raise WeightsError(
            f"the batch norms of the {branch} remember other images than it will be given",
            found="statistics of masked images, of two sensors, or none",
            where=path,
            remedy=f"take export/{branch} of the finished run, where they are computed again",
        )
    card = make_card(saved["card"], recipe, f"{branch} after {saved['progress']}")
    trunk = build_trunk(card)
    load_strict(trunk, state, where=str(path))
    return Encoder(trunk, card)


def _input_of(saved: Mapping[str, Any], sensor: str | None, path: Path) -> tuple[Recipe, str]:
    """Return the recipe of a sensor, and where its trunk lies within that of the branch."""
    recipes = [Recipe.from_dict(saved["recipe"])]
    if saved.get("partner") is not None:
        recipes.append(Recipe.from_dict(saved["partner"]))
    for recipe in recipes:
        if sensor in (None, str(recipe.sensor)):
            return recipe, f"trunks.{recipe.sensor}." if len(recipes) > 1 else ""
    raise WeightsError(
        "the run was not trained on this sensor",
        found=sensor,
        expected=", ".join(str(recipe.sensor) for recipe in recipes),
        where=path,
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(
            "there is no such checkpoint",
            found=path,
            remedy="runs keep theirs in <run>/checkpoints/last.ckpt",
        )
    with foreign(
        WeightsError,
        "the checkpoint cannot be read",
        where=path,
        remedy="it is damaged, or not a checkpoint; code in it is never run",
    ):
        checkpoint = read_torch(path)
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
