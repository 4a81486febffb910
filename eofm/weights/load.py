"""Load published weights by name, address or file, into the network their card describes.

Every tensor of the file is used or named as left out, and the encoder that comes back refuses
imagery that is not what the weights eat. The position table of a vision transformer is taken as
published where the recipe's size is the one it was made for (always with SoftCon); else it is
interpolated once, by its authors' rule.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.networks.adapt import resize_position_embedding
from eofm.networks.build import build_blank
from eofm.networks.state import State, load_strict, read_state
from eofm.networks.trunk import Trunk
from eofm.networks.vit import ViT
from eofm.weights.cards import WEIGHTS, candidates, find
from eofm.weights.cards.card import WeightCard
from eofm.weights.download import fetch, file_name
from eofm.weights.encoder import CARD_FILE, Encoder, load_encoder
from eofm.weights.encoder_card import Card, library_versions
from eofm.weights.keymaps import KEY_MAPS
from eofm.weights.receipt import FEWEST_DIGITS, compare_sha256, hash_file, known_sha256


def load_weights(
    weights: str | Path,
    *,
    card: str | None = None,
    directory: Path | str | None = None,
    check_hash: bool = True,
    progress: bool = True,
) -> Encoder:
    """Return an encoder with published weights, or one that eofm exported.

    Args:
        weights: A published name (`softcon_vits14_s2`, `softcon_vits14_s2@torchgeo-zscore`; a
            file of that name is meant by `./softcon_vits14_s2`), an address, or a path: a file
            of published weights, or the folder of an export.
        card: Name of the card that describes a file or an address. None: it is recognised by
            its published hash or file name.
        directory: Where downloads are kept; None takes `EOFM_WEIGHTS`, or torch.hub's folder.
        check_hash: Compare the file with its published hash, or with the one first recorded.
        progress: Show how far a download is.

    Raises:
        WeightsError: If the weights are unknown, cannot be had, are others than the card says, or
            do not fit the network.
    """
    text = str(weights)
    named = isinstance(weights, str) and text.partition("@")[0] in WEIGHTS
    if not named and (Path(text).is_dir() or Path(text).name == CARD_FILE):
        _refuse_card(card, text)
        path = Path(text)
        return load_encoder(path.parent if path.name == CARD_FILE else path)
    if named:
        _refuse_card(card, text)
        described, recipe = find(text)
        path = fetch(
            described.url,
            sha256=described.sha256,
            directory=directory,
            check_hash=check_hash,
            progress=progress,
        )
        return _load(path, known_sha256(path), described, recipe, text, verified=check_hash)
    if "://" in text:
        return _from_url(text, card, directory, check_hash=check_hash, progress=progress)
    return _from_file(Path(text), card, check_hash=check_hash)


def _from_url(
    url: str,
    card: str | None,
    directory: Path | str | None,
    *,
    check_hash: bool,
    progress: bool,
) -> Encoder:
    if urlsplit(url).scheme == "file":
        return _from_file(fetch(url), card, check_hash=check_hash)
    name, described, recipe = _describe(card, file_name(url), "")
    path = fetch(
        url,
        sha256=described.sha256,
        directory=directory,
        check_hash=check_hash,
        progress=progress,
    )
    return _load(path, known_sha256(path), described, recipe, name, verified=check_hash)


def _from_file(path: Path, card: str | None, *, check_hash: bool) -> Encoder:
    if not path.is_file():
        raise WeightsError(
            "there are no such weights",
            found=path,
            expected="a name of `eofm models list`, an address, a weights file, or the folder of "
            "an export",
            remedy=_nearest(str(path)),
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
        else "these weights are not known, so what they eat is not either",
        found=filename + (f", sha256 {digest[: 2 * FEWEST_DIGITS]}..." if digest else ""),
        expected="the name or the hash of a published file with one card",
        remedy=f"say which card describes them: load_weights(..., card={example})",
    )


def _refuse_card(card: str | None, weights: str) -> None:
    if card is not None:
        raise WeightsError(
            "these weights have a card of their own",
            found=f"card={card!r}",
            where=weights,
            remedy="leave out card=; it describes a file or an address",
        )


def _nearest(name: str) -> str | None:
    try:
        find(name)
    except WeightsError as error:
        return error.remedy
    return f"a published name is given as text, not as a path: {name!r}"


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
