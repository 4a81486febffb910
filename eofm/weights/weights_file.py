"""The bytes of `weights.safetensors`: tensors, and the identity of what they belong to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.torch import save

from eofm.formats.text import parse_json
from eofm.io import replacing
from eofm.networks.trunk import Trunk
from eofm.weights.encoder_card import FORMAT, Card


def identity(card: Card) -> str:
    """Return what must not be exchanged: format, architecture, recipe, positions."""
    content = {
        "format": FORMAT,
        "architecture": card.architecture,
        "recipe": card.recipe.to_dict(),
        "positions": card.positions,
    }
    return json.dumps(content, sort_keys=True)


def serialise(trunk: Trunk, card: Card) -> bytes:
    """Return the weights file: the same bytes for the same tensors and card."""
    state = {key: value.detach().cpu().contiguous() for key, value in trunk.state_dict().items()}
    # one metadata entry only: safetensors does not promise an order among several
    return save(state, metadata={"eofm": identity(card)})


def read_identity(data: bytes) -> str | None:
    """Return the identity in a weights file, None in a foreign one.

    The header of a safetensors file is 8 bytes of length, then JSON.
    """
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = parse_json(data[8 : 8 + length]).get("__metadata__", {})
    return metadata.get("eofm")


def sha256(data: bytes) -> str:
    """Return the hash of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a kill leaves what was there before.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)
