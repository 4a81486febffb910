"""Load weights by any of their names into the network their card describes.

Which weights are meant is decided by `eofm.weights.resolve`. Every tensor of a file is used or
named as left out, and the encoder that comes back refuses imagery that the weights do not expect.
The position table of a vision transformer is taken as published where the recipe's size is the one
it was made for (always with SoftCon); else it is interpolated once, by its authors' rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.networks.adapt import resize_position_embedding
from eofm.networks.build import build_blank
from eofm.networks.state import State, load_strict, read_state
from eofm.networks.trunk import Trunk
from eofm.networks.vit import ViT
from eofm.weights.cards import candidates, find
from eofm.weights.cards.card import WeightCard
from eofm.weights.checkpoint import from_checkpoint
from eofm.weights.encoder import Encoder, load_encoder, random_encoder
from eofm.weights.encoder_card import Card, library_versions
from eofm.weights.fetch.download import fetch, file_name
from eofm.weights.fetch.record import FEWEST_DIGITS, compare_sha256, hash_file, known_sha256
from eofm.weights.foreign.timm_pretrained import load_timm
from eofm.weights.layouts.keymaps import KEY_MAPS
from eofm.weights.resolve import Reference, WeightsKind, resolve


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
    """Return the encoder that words name.

    Args:
        weights: Any of the forms of `eofm.weights.resolve` but a function of your own: a published
            name, an export, a run or its checkpoint, a file, an address, `timm:`, `random:`.
        card: Name of the card that describes a file or an address. None: it is recognised by
            its published hash or file name.
        recipe: What a network of timm or an untrained one expects: they say nothing themselves.
        sensor: Of the checkpoint of a run on two sensors, whose input layer.
        seed: Of untrained weights.
        directory: Where downloads are kept; None takes `EOFM_WEIGHTS`, or torch.hub's folder.
        check_hash: Compare the file with its published hash, or with the one first recorded.
        progress: Show how far a download is.

    Raises:
        WeightsError: If the weights are unknown, cannot be fetched, are others than the card says,
            or do not fit the network; if a card or recipe is given to weights that bring their own,
            or is missing where they bring none.
    """
    found = resolve(weights)
    if found.kind not in {WeightsKind.FILE, WeightsKind.ADDRESS}:
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
        case WeightsKind.FILE:
            return _from_file(_path_of(found), card, check_hash=check_hash)
        case WeightsKind.ADDRESS:
            fetched = _Fetch(directory, check_hash, progress)
            return _from_url(found.name, card, fetched)
        case WeightsKind.CARD:
            fetched = _Fetch(directory, check_hash, progress)
            described, own = find(found.name)
            path = fetched.get(described.url, described.sha256)
            return _load(path, known_sha256(path), described, own, found.name, verified=check_hash)


@dataclass(frozen=True)
class _Fetch:
    """How files are fetched: see `load_weights`."""

    directory: Path | str | None
    check_hash: bool
    progress: bool

    def get(self, url: str, sha256: str) -> Path:
        """Return where the file is, fetched if it was not here."""
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
            "these weights do not say what they expect",
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
    name, described, recipe = _describe(card, file_name(url), "")
    path = fetched.get(url, described.sha256)
    return _load(path, known_sha256(path), described, recipe, name, verified=fetched.check_hash)


def _from_file(path: Path, card: str | None, *, check_hash: bool) -> Encoder:
    if not path.is_file():
        raise WeightsError(
            "there is no such weights file",
            found=path,
            remedy="download it first, or name published weights (`eofm models list`)",
        )
    digest = hash_file(path)
    name, described, recipe = _describe(card, path.name, digest)
    if check_hash and described.sha256:
        compare_sha256(digest, described.sha256, path)
    return _load(path, digest, described, recipe, name, verified=check_hash)


def _describe(card: str | None, filename: str, digest: str) -> tuple[str, WeightCard, Recipe]:
    """Return the name, card and recipe of a file."""
    if card is not None:
        return card, *find(card)
    known = candidates(filename, digest)
    if len(known) == 1:
        return known[0].name, known[0], known[0].recipe
    example = " or ".join(f'"{c.name}"' for c in known) or '"softcon_vits14_s2"'
    raise WeightsError(
        "several cards describe this file"
        if known
        else "these weights are not known, so what they expect is not either",
        found=filename + (f", sha256 {digest[: 2 * FEWEST_DIGITS]}..." if digest else ""),
        expected="the name or the hash of a published file with one card",
        remedy=f"say which card describes them: load_weights(..., card={example})",
    )


def _refuse(given: object, what: str, whose: str, found: Reference) -> None:
    if given is not None:
        raise WeightsError(
            f"these weights have a {what} of their own",
            found=f"{what}={given!r}",
            expected=f"only beside {whose}",
            where=found.text,
            remedy=f"leave out {what}=",
        )


def _load(
    path: Path, digest: str, described: WeightCard, recipe: Recipe, name: str, *, verified: bool
) -> Encoder:
    trust = "as published" if verified and described.sha256 else "no published hash compared"
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
