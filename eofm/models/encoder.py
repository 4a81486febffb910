"""An encoder: a network with the recipe of what it eats, and the card of where it comes from.

`Encoder.embed` takes imagery in physical units and finds the way to the network's input through
`eofm.preprocess.plan`; imagery that does not fit the recipe is refused. An encoder on disk is a
folder of two files, `weights.safetensors` and `card.json`. The recipe stands in both, and the
card holds the sha256 of the weights, so that neither can be exchanged unnoticed.

Shapes: B images, P patches, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from eofm.errors import EofmError, SpecError, WeightsError
from eofm.imagery import Imagery
from eofm.models.card import FORMAT, Card, library_versions
from eofm.models.state import load_strict
from eofm.models.vit import ViT, build_vit
from eofm.preprocess import Plan, Preprocess, plan
from eofm.recipe import Recipe, Waiver
from eofm.spec import ImageSpec

WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "card.json"


@final
class Encoder(nn.Module):
    """A network, its recipe and its card. It embeds; it does not train.

    Args:
        trunk: The network; it is put into evaluation mode and stays there.
        card: Describes it.

    Raises:
        SpecError: If the network and the recipe disagree in bands, size, pooling or positions.
    """

    def __init__(self, trunk: ViT, card: Card) -> None:
        super().__init__()
        has = (trunk.channels, trunk.size, trunk.pooling, trunk.positions)
        recipe = card.recipe
        wants = (len(recipe.bands), recipe.size, recipe.pooling, card.positions)
        if has != wants:
            raise SpecError(
                "the network is not the one the card describes",
                found="{} bands, size {}, pooling {}, positions {}".format(*has),
                expected="{} bands, size {}, pooling {}, positions {}".format(*wants),
                where=card.name,
            )
        self.trunk = trunk
        self.card = card
        self._preprocess: dict[tuple[ImageSpec, tuple[Waiver, ...]], Preprocess] = {}
        self.eval()

    @property
    def recipe(self) -> Recipe:
        """What the network eats."""
        return self.card.recipe

    @property
    def dim(self) -> int:
        """Width of an embedding, D."""
        return self.trunk.dim

    def plan_for(self, spec: ImageSpec, waivers: Sequence[Waiver] = ()) -> Plan:
        """Return the way from `spec` to the network's input.

        Raises:
            SpecMismatch: If there is none.
        """
        return self._preprocess_for(spec, waivers).plan

    @torch.no_grad()
    def embed(self, imagery: Imagery, waivers: Sequence[Waiver] = ()) -> Tensor:
        """Return one vector per image, float32 (B, D), on the encoder's device.

        Args:
            imagery: In physical units, of one kind.
            waivers: Named exceptions to the recipe.

        Raises:
            SpecMismatch: If the imagery does not fit the recipe, or a waiver is not needed.
            PixelError: If a valid pixel is not finite, or an image has no valid pixel.
        """
        pixels = self._prepare(imagery, waivers)
        embedding: Tensor = self.trunk(pixels)
        return embedding.float()

    @torch.no_grad()
    def features(self, imagery: Imagery, waivers: Sequence[Waiver] = ()) -> Tensor:
        """Return one vector per patch, float32 (B, P, D), row by row.

        Args:
            imagery: In physical units, of one kind.
            waivers: Named exceptions to the recipe.

        Raises:
            SpecMismatch: If the imagery does not fit the recipe, or a waiver is not needed.
            PixelError: If a valid pixel is not finite, or an image has no valid pixel.
        """
        pixels = self._prepare(imagery, waivers)
        return self.trunk.forward_features(pixels)[:, 1:].float()

    def _prepare(self, imagery: Imagery, waivers: Sequence[Waiver]) -> Tensor:
        self.eval()  # training code may hold the same trunk
        weight = self.trunk.cls_token
        prepared: Imagery = self._preprocess_for(imagery.spec, waivers)(imagery.to(weight.device))
        return prepared.pixels.to(weight.dtype)

    def _preprocess_for(self, spec: ImageSpec, waivers: Sequence[Waiver]) -> Preprocess:
        key = spec, tuple(waivers)
        if key not in self._preprocess:
            self._preprocess[key] = Preprocess(plan(spec, self.recipe, waivers))
        return self._preprocess[key]


def build_trunk(card: Card) -> ViT:
    """Return the network a card describes, with weights that are to be replaced.

    Raises:
        WeightsError: If no architecture has that name.
        SpecError: If the recipe's size does not fit the architecture.
    """
    recipe = card.recipe
    return build_vit(
        card.architecture,
        len(recipe.bands),
        recipe.size,
        torch.Generator().manual_seed(0),
        pooling=recipe.pooling,
        positions=card.positions,
    )


def random_encoder(architecture: str, recipe: Recipe, seed: int) -> Encoder:
    """Return an untrained encoder: the control that every trained one must beat.

    Args:
        architecture: A key of `eofm.models.vit.ARCHITECTURES`.
        recipe: What it eats.
        seed: Of its weights.
    """
    generator = torch.Generator().manual_seed(seed)
    trunk = build_vit(
        architecture, len(recipe.bands), recipe.size, generator, pooling=recipe.pooling
    )
    card = Card(
        name=f"random-{architecture}",
        architecture=architecture,
        recipe=recipe,
        objective="none",
        source=f"random weights, seed {seed}",
        training_data="none",
        counts={},
        synthetic=False,
        licence="Apache-2.0",
        versions=library_versions(),
    )
    return Encoder(trunk, replace(card, sha256=_sha256(_serialise(trunk, card))))


# ---------------------------------------------------------------------------------- disk


def save_encoder(encoder: Encoder, directory: Path | str) -> Card:
    """Write `weights.safetensors` and `card.json`, each whole or not at all.

    The card comes last and names the sha256 of the weights, so a kill between the two leaves a
    folder that `load_encoder` refuses, never one that it misreads.

    Args:
        encoder: What to write.
        directory: Made if needed; an earlier encoder in it is replaced.

    Returns:
        The card as written, with the sha256.

    Raises:
        WeightsError: If the folder cannot be written.
    """
    directory = Path(directory)
    data = _serialise(encoder.trunk, encoder.card)
    card = replace(encoder.card, sha256=_sha256(data))
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / WEIGHTS_FILE, data)
        _write(directory / CARD_FILE, text.encode())
    except OSError as error:
        raise WeightsError(
            "the encoder cannot be written",
            found=error,
            where=directory,
            remedy="name a folder that can be written to, on a disk with room",
        ) from error
    return card


def load_encoder(directory: Path | str) -> Encoder:
    """Return the encoder that `save_encoder` wrote.

    Raises:
        WeightsError: If a file is missing, damaged or foreign, or the two do not belong together.
    """
    directory = Path(directory)
    card = _load_card(directory / CARD_FILE)
    data = _load_weights(directory / WEIGHTS_FILE)
    if _sha256(data) != card.sha256:
        raise WeightsError(
            "the weights are not those the card describes",
            found=f"sha256 {_sha256(data)}",
            expected=f"sha256 {card.sha256}",
            where=directory / WEIGHTS_FILE,
            remedy="copy both files again, or export the run again",
        )
    try:
        state = load(data)
    except SafetensorError as error:
        raise WeightsError(
            "the weights file cannot be read",
            found=error,
            expected="safetensors",
            where=directory / WEIGHTS_FILE,
        ) from error
    identity = _metadata(data).get("eofm")
    if identity != _identity(card):
        raise WeightsError(
            "the card is not that of these weights: recipe or architecture differ",
            found=_identity(card),
            expected=identity,
            where=directory / CARD_FILE,
            remedy="a card is not to be edited; export the run again",
        )
    return _assemble(card, state, directory)


def _assemble(card: Card, state: Mapping[str, Tensor], directory: Path) -> Encoder:
    try:
        trunk = build_trunk(card)
    except EofmError as error:
        raise WeightsError(
            "no network can be built from this card", found=error, where=directory / CARD_FILE
        ) from error
    load_strict(trunk, state, where=str(directory))
    return Encoder(trunk, card)


def _load_card(path: Path) -> Card:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            "there is no encoder here",
            found=f"no {CARD_FILE}",
            expected=f"a folder with {WEIGHTS_FILE} and {CARD_FILE}",
            where=path.parent,
            remedy="name the folder of an export: runs/<name>/export/student",
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError("the card cannot be read", found=error, where=path) from error
    if not isinstance(content, dict):
        raise WeightsError("this is not the card of an encoder", found=content, where=path)
    try:
        return Card.from_dict(content)
    except WeightsError as error:
        error.where = path
        raise


def _load_weights(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            "the weights of this encoder cannot be read",
            found=error,
            expected=WEIGHTS_FILE,
            where=path.parent,
            remedy="copy the whole folder: weights and card belong together",
        ) from error


def _identity(card: Card) -> str:
    """Return what must not be exchanged: format, architecture, recipe, positions."""
    content = {
        "format": FORMAT,
        "architecture": card.architecture,
        "recipe": card.recipe.to_dict(),
        "positions": card.positions,
    }
    return json.dumps(content, sort_keys=True)


def _serialise(trunk: ViT, card: Card) -> bytes:
    """Return the weights file: the same bytes for the same tensors and card."""
    state = {key: value.detach().cpu().contiguous() for key, value in trunk.state_dict().items()}
    # one metadata entry only: safetensors does not promise an order among several
    return save(state, metadata={"eofm": _identity(card)})


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its header is 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
