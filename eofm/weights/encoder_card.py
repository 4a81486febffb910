"""The card of an encoder, and the weights file that it belongs to.

The card says where weights come from and what they expect. `weights.safetensors` holds the tensors
and the identity of the card, so that neither is exchanged unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors.torch import save

from eofm import __version__ as eofm_version
from eofm.contract.recipe import Recipe
from eofm.errors import SpecError, WeightsError
from eofm.formats.text import parse_json
from eofm.io import replacing
from eofm.networks.adapt import PositionRecipe
from eofm.networks.trunk import Trunk

FORMAT: Final = "eofm-encoder-1"


def library_versions() -> dict[str, str]:
    """Return the versions of what computes the features."""
    # not from the installed metadata: a plain clone on the path has none
    return {"eofm": eofm_version, "torch": str(torch.__version__), "timm": timm.__version__}


@dataclass(frozen=True)
class Card:
    """Where weights come from and what they expect.

    Args:
        name: Short name, as printed in tables.
        architecture: A name that `eofm.networks.build.build` knows.
        recipe: What the network expects: sensor, bands, unit, size, normalisation, pooling.
        objective: What it was trained for, with the paper.
        source: Which weights of the run these are: "teacher after 8 epochs".
        training_data: What it was trained on, in words.
        counts: The same in numbers: scenes, images, labelled images.
        synthetic: The training data were made up, not observed.
        licence: Of the weights: an SPDX identifier, or `not stated`.
        url: Where published weights were fetched from; empty for a run of one's own.
        paper: arXiv id of published weights.
        positions: How positions are interpolated for images of another size.
        config_hash: sha256 of the run's resolved settings; empty where there was no run.
        versions: Libraries the weights were made with.
        sha256: Of the weights file; filled in by `save_encoder`.
    """

    name: str
    architecture: str
    recipe: Recipe
    objective: str
    source: str
    training_data: str
    counts: Mapping[str, int]
    synthetic: bool
    licence: str
    url: str = ""
    paper: str = ""
    positions: PositionRecipe = PositionRecipe.DINOV2
    config_hash: str = ""
    versions: Mapping[str, str] | None = None
    sha256: str = ""

    def __repr__(self) -> str:
        return (
            f"Card({self.name}: {self.architecture}, {self.recipe.sensor}, {self.source}, trained "
            f"on {self.training_data}{', synthetic' * self.synthetic}; {self.licence})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; `from_dict` is the inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"format": FORMAT, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """Read what `to_dict` wrote.

        Raises:
            WeightsError: If a key is missing or unknown, the format is another, or a field cannot
                be read.
        """
        expected = {"format", *(f.name for f in fields(cls))}
        if set(data) != expected or data["format"] != FORMAT:
            raise WeightsError(
                "this is not the card of an encoder",
                found=f"format {data.get('format')!r} with {', '.join(sorted(data))}",
                expected=f"format {FORMAT!r} with {', '.join(sorted(expected))}",
            )
        content = {key: value for key, value in data.items() if key != "format"}
        wrong = [key for key, value in content.items() if not _is_field(key, value)]
        if wrong:
            raise WeightsError(
                "fields of the card are not what they should be",
                found=", ".join(f"{key}={content[key]!r}" for key in wrong),
            )
        content["recipe"] = _read_recipe(content["recipe"])
        content["positions"] = PositionRecipe(content["positions"])
        return cls(**content)


def _is_field(key: str, value: object) -> bool:
    """Whether `value` is of the JSON type that the card's field `key` has."""
    match key:
        case "recipe":
            return isinstance(value, dict)
        case "synthetic":
            return isinstance(value, bool)
        case "counts":
            return isinstance(value, dict) and all(isinstance(n, int) for n in value.values())
        case "versions":
            return value is None or isinstance(value, dict)
        case "positions":
            return value in set(PositionRecipe)
        case _:
            return isinstance(value, str)


def _read_recipe(data: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.from_dict(data)
    except SpecError as error:
        raise WeightsError("the recipe on the card cannot be read", found=error) from error


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
