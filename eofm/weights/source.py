"""What lies behind the word a user gives as weights: tensors under our names, and what is known.

The word is a file, a folder of an eofm export, an address, or a published name. A file does not
say which bands it is for; an export and a published name do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eofm.contract.recipe import Recipe
from eofm.networks.state import State, read_state
from eofm.networks.timm_trunk import PREFIX
from eofm.weights.cards import WEIGHTS, find, recognise
from eofm.weights.cards.card import Layout
from eofm.weights.download import fetch
from eofm.weights.encoder import CARD_FILE, WEIGHTS_FILE, load_encoder
from eofm.weights.keymaps import KEY_MAPS, detect_layout
from eofm.weights.receipt import known_sha256

# Of a word that is no file yet: it was meant to be one, and not a published name.
_SUFFIXES: Final = {".pth", ".pt", ".bin", ".safetensors"}


@dataclass(frozen=True)
class Source:
    """Weights as they were found.

    Args:
        name: What they are, in words: file and layout, export, published name.
        where: Path of the file or folder.
        state: Tensors under the names of our networks.
        dropped: Names of tensors that were deliberately left out.
        sha256: Of the file.
        recipe: What they eat; None where nothing says so.
        architecture: Of the network; empty where only the tensors say so.
    """

    name: str
    where: Path
    state: State
    dropped: tuple[str, ...]
    sha256: str
    recipe: Recipe | None = None
    architecture: str = ""


def open_source(weights: Path | str, architecture: str) -> Source:
    """Return the weights behind a word.

    Args:
        weights: A file; a folder of an eofm export, or its card; an address (http, https, file);
            or a published name, such as `dinov2_vits14`, fetched if it is not here yet. A file
            or folder of a published name is meant by `./dinov2_vits14`.
        architecture: Of the network they are for: a file for one of timm's has timm's names.

    Raises:
        WeightsError: If there is nothing of that name, or it cannot be read, fetched or mapped.
    """
    text, path = str(weights), Path(weights)
    if text.partition("@")[0] in WEIGHTS:
        return _from_name(text)
    if path.is_dir():
        return _from_export(path)
    if path.name == CARD_FILE or (path.name == WEIGHTS_FILE and _has_card(path)):
        return _from_export(path.parent)
    if "://" in text:
        return _from_file(fetch(text), architecture)
    if path.is_file() or path.suffix in _SUFFIXES:
        return _from_file(path, architecture)
    return _from_name(text)


def _has_card(weights: Path) -> bool:
    return weights.with_name(CARD_FILE).is_file()


def _from_export(folder: Path) -> Source:
    encoder = load_encoder(folder)
    card = encoder.card
    return Source(
        f"export {card.name} ({card.source})",
        folder,
        dict(encoder.trunk.state_dict()),
        (),
        card.sha256,
        card.recipe,
        card.architecture,
    )


def _from_file(path: Path, architecture: str) -> Source:
    state = read_state(path)
    layout = Layout.TIMM if architecture.startswith(PREFIX) else detect_layout(state)
    mapped = KEY_MAPS[layout](state)
    sha256 = known_sha256(path)
    card = recognise(path.name, sha256)
    # a name alone proves nothing where a hash is published
    if card and card.sha256 and not sha256.startswith(card.sha256):
        card = None
    return Source(
        f"{path.name} ({layout})",
        path,
        mapped.state,
        mapped.dropped,
        sha256,
        card.recipe if card else None,
    )


def _from_name(name: str) -> Source:
    card, recipe = find(name)
    path = fetch(card.url, sha256=card.sha256)
    mapped = KEY_MAPS[card.layout](read_state(path))
    return Source(
        f"{name} ({card.filename})",
        path,
        mapped.state,
        mapped.dropped,
        known_sha256(path),
        recipe,
        card.architecture,
    )
