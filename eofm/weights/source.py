"""What lies behind the weights a user names: tensors under our names, and what is known of them.

Which weights are meant is decided by `eofm.weights.resolve`. A file does not say which bands it is
for; an export, a checkpoint and a published name do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.networks.state import State, read_state
from eofm.networks.timm_trunk import PREFIX
from eofm.weights.cards import find, recognise
from eofm.weights.cards.card import StateLayout
from eofm.weights.checkpoint import from_checkpoint
from eofm.weights.encoder import Encoder, load_encoder
from eofm.weights.fetch.download import fetch
from eofm.weights.fetch.receipt import known_sha256
from eofm.weights.layouts.keymaps import KEY_MAPS, detect_layout
from eofm.weights.resolve import WeightsKind, resolve


@dataclass(frozen=True)
class Source:
    """Weights as they were found.

    Args:
        name: What they are, in words: file and layout, export, published name.
        where: Path of the file or folder.
        state: Tensors under the names of our networks.
        dropped: Names of tensors that were deliberately left out.
        sha256: Of the file.
        recipe: What they expect; None where nothing says so.
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
    """Return the tensors of weights to start from.

    Args:
        weights: A form of `eofm.weights.resolve`; published weights are fetched if they are not
            here yet.
        architecture: Of the network they are for: a file for one of timm's has timm's names.

    Raises:
        WeightsError: If there is nothing of that name, or it cannot be read, fetched or mapped.
    """
    found = resolve(weights)
    match found.kind:
        case WeightsKind.CARD:
            return _from_name(found.name)
        case WeightsKind.EXPORT if found.path is not None:
            return _from_encoder(load_encoder(found.path), found.path)
        case WeightsKind.CHECKPOINT if found.path is not None:
            return _from_encoder(from_checkpoint(found.path, found.branch), found.path)
        case WeightsKind.ADDRESS:
            return _from_file(fetch(found.name), architecture)
        case WeightsKind.FILE if found.path is not None:
            return _from_file(found.path, architecture)
        case _:
            raise WeightsError(
                f"training does not start from a {found.kind}",
                found=found.text,
                expected="a published name, an export, a run or its checkpoint, a file, or an "
                "address",
                remedy="save its state dict to a file and name that",
            )


def _from_encoder(encoder: Encoder, where: Path) -> Source:
    card = encoder.card
    return Source(
        f"export {card.name} ({card.source})",
        where,
        dict(encoder.trunk.state_dict()),
        (),
        card.sha256,
        card.recipe,
        card.architecture,
    )


def _from_file(path: Path, architecture: str) -> Source:
    state = read_state(path)
    layout = StateLayout.TIMM if architecture.startswith(PREFIX) else detect_layout(state)
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
