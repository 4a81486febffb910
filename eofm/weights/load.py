"""Load weights by any supported name into the network described by their card.

`eofm.weights.resolve` decides which weights are meant: published ones, those in the checkpoint of a
run, an export, or timm's own with a recipe from the user. Every tensor of a file is used or listed
as dropped, and the returned encoder rejects imagery that does not match the weights. The position
table of a vision transformer is used as published if the recipe has the size it was made for
(always with SoftCon); otherwise it is interpolated once, by its authors'
rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import timm
import torch
from torch import nn

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import foreign
from eofm.networks.build import build, build_blank
from eofm.networks.state import (
    State,
    load_strict,
    read_state,
    resize_position_embedding,
)
from eofm.networks.timm import PREFIX, as_timm
from eofm.networks.trunk import Trunk
from eofm.networks.vit import ViT
from eofm.weights.cards import candidates, find
from eofm.weights.cards.card import WeightCard
from eofm.weights.download import (
    FEWEST_DIGITS,
    compare_sha256,
    fetch,
    file_name,
    hash_file,
    known_sha256,
)
from eofm.weights.encoder import (
    Card,
    Encoder,
    build_trunk,
    library_versions,
    load_encoder,
    make_card,
    random_encoder,
)
from eofm.weights.keymaps import KEY_MAPS
from eofm.weights.resolve import Reference, WeightsKind, resolve

__all__ = ["CHECKPOINT_KEY", "from_checkpoint", "load_timm", "load_weights"]

# ---------------------------------------------------------- the networks in the checkpoint of a run

CHECKPOINT_KEY: Final = "eofm"  # key of recipe, card and progress in a checkpoint


def from_checkpoint(path: Path, branch: str, *, sensor: str | None = None) -> Encoder:
    """Return one of the two networks of a run's checkpoint.

    Args:
        path: The checkpoint.
        branch: `student` or `teacher`.
        sensor: For two sensors, the sensor of the input layer; the one that led the run if None.

    Raises:
        WeightsError: If the file is missing, damaged, or not a checkpoint of a run; it has no such
            sensor; or its batch-norm statistics are of images that no encoder will be given.
    """
    checkpoint = _read_checkpoint(path)
    with foreign(
        WeightsError,
        "the checkpoint lacks parts of a checkpoint of a run",
        where=path,
        remedy="use another checkpoint of the run, or one of its exports",
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
            remedy=f"use its student: {path}",
        )
    if branch in saved.get("stale_norms", ()) and any("running_mean" in name for name in state):
        raise WeightsError(
            f"the batch-norm statistics of the {branch} are of other images than it will be given",
            found="statistics of masked images, of two sensors, or none",
            where=path,
            remedy=f"take export/{branch} of the finished run, where they are computed again",
        )
    card = make_card(saved["card"], recipe, f"{branch} after {saved['progress']}")
    trunk = build_trunk(card)
    load_strict(trunk, state, where=str(path))
    return Encoder(trunk, card)


def _input_of(saved: Mapping[str, Any], sensor: str | None, path: Path) -> tuple[Recipe, str]:
    """Return the recipe of a sensor, and the prefix of its trunk within that of the branch."""
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


def _read_checkpoint(path: Path) -> dict[str, Any]:
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


# --------------------------------------------------------------------------------- networks of timm

_RGB_BANDS: Final = 3


def load_timm(reference: str, recipe: Recipe) -> Encoder:
    """Return a network of timm with its pretrained weights.

    timm would repeat the filters of red, green and blue for other numbers of bands; this would be
    a different network, and is rejected.

    Args:
        reference: `timm:NAME`, or `timm:NAME@FILE` with a file of those weights.
        recipe: Recipe of the network: three bands.

    Raises:
        WeightsError: If timm has no such network, the weights cannot be downloaded or do not match,
            or the recipe does not have three bands.
        SpecError: If the network does not support the recipe's size and pooling.
    """
    architecture, _, file = reference.partition("@")
    name = architecture.removeprefix(PREFIX)
    if len(recipe.bands) != _RGB_BANDS:
        raise WeightsError(
            "timm's weights are for three bands",
            found=f"a recipe of {len(recipe.bands)}: {' '.join(recipe.bands)}",
            expected="red, green and blue, such as B04 B03 B02",
            where=reference,
        )
    trunk = build(architecture, recipe, torch.Generator().manual_seed(0))
    if file and not Path(file).is_file():
        raise WeightsError("there is no such file of weights", found=file, where=reference)
    donor = _pretrained(name, recipe.size, file, reference)
    state = {f"model.{key}": value for key, value in donor.state_dict().items()}
    load_strict(trunk, state, where=reference)
    config = as_timm(donor).pretrained_cfg
    digest = hashlib.sha256()
    for key, value in sorted(trunk.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    said = "as timm's card of it says" if not file else "not stated by the file"
    card = Card(
        name=reference,
        architecture=architecture,
        recipe=recipe,
        objective=said,
        source=f"timm {timm.__version__}, {file or config.get('tag') or name}",
        training_data=said,
        counts={},
        synthetic=False,
        licence=str((not file and config.get("license")) or said),
        versions=library_versions(),
        sha256=digest.hexdigest(),
    )
    return Encoder(trunk, card)


def _pretrained(name: str, size: tuple[int, int], file: str, reference: str) -> nn.Module:
    overlay = {"file": file} if file else None
    sized: tuple[dict[str, Any], ...] = (
        {"img_size": size, "dynamic_img_size": True},
        {"img_size": size},
        {},
    )
    for options in sized:
        try:
            model: nn.Module = timm.create_model(
                name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options
            )
        except TypeError:
            continue  # an option that not all constructors have; undocumented
        except Exception as error:
            raise WeightsError(
                "timm's weights cannot be downloaded",
                found=f"{type(error).__name__}: {error}",
                where=reference,
                remedy=f"name a file of them: {PREFIX}{name}@FILE",
            ) from error
        return model
    raise WeightsError("timm cannot build this network", found=name, where=reference)


# ---------------------------------------------------------------------------------- weights by name


def load_weights(
    weights: str | Path,
    *,
    card: str | None = None,
    recipe: Recipe | None = None,
    sensor: str | None = None,
    seed: int = 0,
    directory: Path | str | None = None,
    check_hash: bool = True,
    progress: bool = True,
) -> Encoder:
    """Return the encoder of a name.

    Args:
        weights: Any form of `eofm.weights.resolve` except a user's own function: a published
            name, an export, a run or its checkpoint, a file, an address, `timm:`, `random:`.
        card: Name of the card that describes a file or an address. None: it is recognised by
            its published hash or file name.
        recipe: Recipe of a network of timm or an untrained one, which have none.
        sensor: For the checkpoint of a run on two sensors, the sensor of the input layer.
        seed: Seed of untrained weights.
        directory: Folder of downloads; None uses `EOFM_WEIGHTS`, or torch.hub's folder.
        check_hash: Whether to compare the file with its published, or first recorded, hash.
        progress: Whether to show the progress of a download.

    Raises:
        WeightsError: If the weights are unknown, cannot be downloaded, do not match the card
            or the network; if a card or recipe is given for weights that have their own,
            or is missing for weights that have none.
    """
    found = resolve(weights)
    if not found.takes_card:
        _refuse(card, "card", "a file or an address", found)
    if found.kind not in {WeightsKind.TIMM, WeightsKind.RANDOM}:
        _refuse(recipe, "recipe", "a network of timm or an untrained one", found)
    if found.kind is not WeightsKind.CHECKPOINT:
        _refuse(sensor, "sensor", "the checkpoint of a run", found)
    match found.kind:
        case WeightsKind.EXPORT:
            return load_encoder(_path_of(found))
        case WeightsKind.CHECKPOINT:
            return from_checkpoint(_path_of(found), found.branch, sensor=sensor)
        case WeightsKind.TIMM:
            return load_timm(found.text, _required(recipe, found))
        case WeightsKind.RANDOM:
            architecture = found.name or "vits14"
            return random_encoder(architecture, _required(recipe, found), seed)
        case WeightsKind.FUNCTION:
            raise WeightsError(
                "a function of your own is called by the benchmark, and yields an encoder here",
                found=found.text,
                remedy="import it and call it",
            )
        case WeightsKind.FILE if found.name:
            return _from_own_file(_path_of(found), found.name)
        case WeightsKind.FILE:
            return _from_file(_path_of(found), card, check_hash=check_hash)
        case WeightsKind.ADDRESS:
            fetched = _Fetch(directory, check_hash, progress)
            return _from_url(found.name, card, fetched)
        case WeightsKind.CARD:
            fetched = _Fetch(directory, check_hash, progress)
            described, own = find(found.name)
            path = fetched.get(described.url, described.sha256)
            return _load_file(
                path, known_sha256(path), described, own, found.name, _trust(described, check_hash)
            )


@dataclass(frozen=True)
class _Fetch:
    """Options of downloads: see `load_weights`."""

    directory: Path | str | None
    check_hash: bool
    progress: bool

    def get(self, url: str, sha256: str) -> Path:
        """Return the path of the file, downloading it if needed."""
        return fetch(
            url,
            sha256=sha256,
            directory=self.directory,
            check_hash=self.check_hash,
            progress=self.progress,
        )


def _path_of(found: Reference) -> Path:
    return Path(found.text) if found.path is None else found.path


def _required(recipe: Recipe | None, found: Reference) -> Recipe:
    if recipe is None:
        raise WeightsError(
            "these weights have no recipe",
            found=f"{found.kind} without a recipe",
            expected="a recipe beside them",
            where=found.text,
            remedy="load_weights(..., recipe=eofm.Recipe(...)), such as the recipe of another "
            "encoder: load_weights(name).recipe",
        )
    return recipe


def _from_url(url: str, card: str | None, fetched: _Fetch) -> Encoder:
    if urlsplit(url).scheme == "file":
        return _from_file(fetch(url), card, check_hash=fetched.check_hash)
    name, described, recipe = _describe(card, file_name(url), "", url)
    path = fetched.get(url, described.sha256)
    return _load_file(
        path, known_sha256(path), described, recipe, name, _trust(described, fetched.check_hash)
    )


def _from_own_file(path: Path, card: str) -> Encoder:
    """Return the encoder of a file that a card describes, the published one or another."""
    digest = _digest_of(path)
    described, recipe = find(card)
    published = bool(described.sha256) and digest.startswith(described.sha256.lower())
    name = card if published else f"{card}@{path.name}"
    trust = "as published" if published else "not the published file"
    return _load_file(path, digest, described, recipe, name, trust)


def _digest_of(path: Path) -> str:
    if not path.is_file():
        raise WeightsError(
            "there is no such weights file",
            found=path,
            remedy="download it first, or name published weights (`eofm models list`)",
        )
    return hash_file(path)


def _from_file(path: Path, card: str | None, *, check_hash: bool) -> Encoder:
    digest = _digest_of(path)
    name, described, recipe = _describe(card, path.name, digest, path)
    if check_hash and described.sha256:
        compare_sha256(digest, described.sha256, path)
    return _load_file(path, digest, described, recipe, name, _trust(described, check_hash))


def _describe(
    card: str | None, filename: str, digest: str, where: Path | str
) -> tuple[str, WeightCard, Recipe]:
    """Return the name, card and recipe of a file."""
    if card is not None:
        return card, *find(card)
    known = candidates(filename, digest)
    if len(known) == 1:
        return known[0].name, known[0], known[0].recipe
    file = where if digest else filename
    example = " or ".join(f"{c.name}@{file}" for c in known) or f"softcon_vits14_s2@{file}"
    raise WeightsError(
        "several cards describe this file"
        if known
        else "these weights are unknown, and so is their recipe",
        found=filename + (f", sha256 {digest[: 2 * FEWEST_DIGITS]}..." if digest else ""),
        expected="the name or the hash of a published file with one card",
        where=where,
        remedy=("" if digest else "download it, and ")
        + f"name the card that describes it before the file, as in {example}",
    )


def _refuse(given: object, what: str, whose: str, found: Reference) -> None:
    if given is not None:
        raise WeightsError(
            f"these weights have a {what} already",
            found=f"{what}={given!r}",
            expected=f"only beside {whose}",
            where=found.text,
            remedy=f"leave out {what}=",
        )


def _trust(described: WeightCard, verified: bool) -> str:
    return "as published" if verified and described.sha256 else "no published hash compared"


def _load_file(
    path: Path, digest: str, described: WeightCard, recipe: Recipe, name: str, trust: str
) -> Encoder:
    card = Card(
        name=name,
        architecture=described.architecture,
        recipe=recipe,
        objective=described.objective,
        source=f"{path.name}, {trust}",
        training_data=described.training_data,
        counts={},
        synthetic=False,
        licence=described.licence,
        url=described.url,
        paper=described.paper,
        versions=library_versions(),
        sha256=digest,
    )
    trunk = build_blank(card.architecture, recipe, card.positions)
    state = KEY_MAPS[described.layout](read_state(path)).state
    load_strict(trunk, _at_size(state, trunk), where=f"{path}, as {name}")
    return Encoder(trunk, card)


def _at_size(state: State, trunk: Trunk) -> State:
    if not isinstance(trunk, ViT):
        return state
    registers = trunk.architecture.registers > 0
    return resize_position_embedding(state, trunk.grid, trunk.positions, registers=registers)
