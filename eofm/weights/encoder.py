"""An encoder: a network with its recipe, and the card with its provenance.

`Encoder.embed` takes imagery in physical units and prepares it for the network with
`eofm.contract.preprocess.plan`; imagery that does not match the recipe is rejected. On disk, an
encoder is a folder of two files, `weights.safetensors` and `card.json`. Both contain the recipe,
and the card contains the sha256 of the weights, so a mix-up of files is always detected.

Shapes: B images, P patches, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self, final

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from eofm.contract.imagery import Imagery
from eofm.contract.prepare import Pixels, as_imagery, preprocess_for, read_waivers
from eofm.contract.preprocess import Plan
from eofm.contract.recipe import AcceptPixels, Recipe, Waiver
from eofm.contract.spec import ImageSpec
from eofm.contract.validity import check_plausible
from eofm.environment import device_of, versions_of
from eofm.errors import EofmError, SpecError, WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.text import parse_json, read_json
from eofm.io import replacing
from eofm.networks.build import build, build_blank
from eofm.networks.state import PositionRecipe, load_strict
from eofm.networks.trunk import Trunk
from eofm.report.tables import facts_html, facts_text
from eofm.weights.resolve import CARD_FILE, WEIGHTS_FILE

__all__ = [
    "FORMAT",
    "Card",
    "Encoder",
    "build_trunk",
    "identity",
    "library_versions",
    "load_encoder",
    "make_card",
    "random_encoder",
    "read_identity",
    "save_encoder",
    "serialise",
    "sha256",
    "write_whole",
]

# -------------------------------------------------------- the card, and the file that it belongs to

FORMAT: Final = "eofm-encoder-1"


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute features."""
    return versions_of(("eofm", "torch", "timm"))


@dataclass(frozen=True)
class Card:
    """Provenance and recipe of weights.

    Args:
        name: Short name, as printed in tables.
        architecture: A name that `eofm.networks.build.build` knows.
        recipe: Input of the network: sensor, bands, unit, size, normalisation, pooling.
        objective: Objective of its training, with the paper.
        source: Description of the weights within the run: "teacher after 8 epochs".
        training_data: Description of the training data.
        counts: Their numbers: scenes, images, labelled images.
        synthetic: Whether the training data are synthetic.
        licence: Licence of the weights: an SPDX identifier, or `not stated`.
        url: Address of published weights; empty for a run.
        paper: arXiv id of published weights.
        positions: Interpolation of positions for images of another size.
        config_hash: sha256 of the run's resolved settings; empty without a run.
        versions: Versions of libraries used to make the weights.
        sha256: Hash of the weights file; filled in by `save_encoder`.
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
        """Parse the output of `to_dict`.

        Raises:
            WeightsError: If a key is missing or unknown, the format differs, or a field cannot be
                parsed.
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
                "fields of the card have invalid values",
                found=", ".join(f"{key}={content[key]!r}" for key in wrong),
            )
        content["recipe"] = _read_recipe(content["recipe"])
        content["positions"] = PositionRecipe(content["positions"])
        return cls(**content)


def make_card(facts: Mapping[str, Any], recipe: Recipe, source: str) -> Card:
    """Return the card of one export of a run.

    Args:
        facts: Properties of the run: name, architecture, positions, objective, training_data,
            counts, synthetic, config_hash.
        recipe: Recipe of the network.
        source: Description of the weights within the run.
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


def _is_field(key: str, value: object) -> bool:
    """Whether `value` has the JSON type of the card's field `key`."""
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
    """Return the identity of a card: format, architecture, recipe, positions."""
    content = {
        "format": FORMAT,
        "architecture": card.architecture,
        "recipe": card.recipe.to_dict(),
        "positions": card.positions,
    }
    return json.dumps(content, sort_keys=True)


def serialise(trunk: Trunk, card: Card) -> bytes:
    """Return the weights file: deterministic for the same tensors and card."""
    state = {key: value.detach().cpu().contiguous() for key, value in trunk.state_dict().items()}
    # a single metadata entry: safetensors does not guarantee an order
    # safetensors copies every tensor twice, and ends the process where there is no memory for it
    bytearray(2 * sum(tensor.nbytes for tensor in state.values()))
    return save(state, metadata={"eofm": identity(card)})


def read_identity(data: bytes) -> str | None:
    """Return the identity in a weights file, None for a file of another program.

    The header of a safetensors file is 8 bytes of length, then JSON.
    """
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = parse_json(data[8 : 8 + length]).get("__metadata__", {})
    return metadata.get("eofm")


def sha256(data: bytes) -> str:
    """Return the hash of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: a kill leaves the previous one.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


# -------------------------------------------------------------------------------------- the encoder

_COPY: Final = "copy the whole folder: weights and card belong together"
_LONGEST: Final = 90  # maximum length of a fact in `repr`


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


@final
class Encoder(nn.Module):
    """A network with its recipe and card, as returned by `load_encoder` and torch.hub.

    As a module it is the bare network: `encoder(pixels)` takes normalised pixels, propagates
    gradients, and follows `train()` and `eval()`. `preprocess` converts imagery in physical units
    to normalised pixels, or rejects it; `embed` and `features` combine both steps, always in
    evaluation mode. `trunk` is the network alone, with its published tensor names.

    Args:
        trunk: The network; it is set to evaluation mode.
        card: Its card.

    Raises:
        SpecError: If network and recipe differ in bands, size or pooling.
    """

    def __init__(self, trunk: Trunk, card: Card) -> None:
        super().__init__()
        has = (trunk.channels, trunk.size, trunk.pooling)
        recipe = card.recipe
        wants = (len(recipe.bands), recipe.size, recipe.pooling)
        if has != wants:
            raise SpecError(
                "the network is not the one the card describes",
                found="{} bands, size {}, pooling {}".format(*has),
                expected="{} bands, size {}, pooling {}".format(*wants),
                where=card.name,
            )
        self.trunk = trunk
        self.card = card
        self.eval()

    def to(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (three forms of torch)
        """Move the network, as any torch module; `auto` uses a GPU if there is one.

        Args:
            args: A device, a dtype, or a tensor, as for `torch.nn.Module.to`.
            kwargs: The same by name.

        Raises:
            ConfigError: If the device is not available.
        """
        if args and isinstance(args[0], str | int | torch.device):
            args = (device_of(args[0]), *args[1:])
        elif kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": device_of(kwargs["device"])}
        return super().to(*args, **kwargs)

    def cuda(self, device: torch.device | int | None = None) -> Self:
        """Move the network to a GPU, the first one if none is named.

        Raises:
            ConfigError: If there is no GPU.
        """
        return self.to("cuda" if device is None else device)

    def facts(self) -> dict[str, str]:
        """Return the properties of the encoder as short texts by name, as shown by `repr`."""
        weight, card = next(self.trunk.parameters()), self.card
        millions = sum(one.numel() for one in self.trunk.parameters()) / 1e6
        kind = str(weight.dtype).removeprefix("torch.")
        recipe, (height, width) = card.recipe, card.recipe.size
        made_up = ", synthetic" if card.synthetic else ""
        return {
            "network": f"{card.architecture}, {millions:.1f} million parameters, {kind} on "
            f"{weight.device}",
            "expects": f"{recipe.sensor}, {recipe.unit}, {height} x {width} pixels",
            "bands": " ".join(recipe.bands),
            "returns": f"{self.dim} numbers per image ({recipe.pooling})",
            "objective": _short(card.objective),
            "trained on": _short(card.training_data) + made_up,
            "weights": _short(card.source),
            "licence": card.licence,
        }

    def __repr__(self) -> str:
        """Return one line; `print` shows the facts, `repr(encoder.trunk)` the modules."""
        card, (height, width) = self.card, self.recipe.size
        made_up = ", synthetic" * card.synthetic
        return (
            f"Encoder({card.name}: {card.architecture}, {self.recipe.sensor}, "
            f"{len(self.recipe.bands)} bands in {self.recipe.unit}, {height} x {width} px -> "
            f"{self.dim} numbers; {card.licence}{made_up})"
        )

    def __str__(self) -> str:
        return facts_text(f"Encoder {self.card.name}", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(f"Encoder {self.card.name}", self.facts())

    @property
    def recipe(self) -> Recipe:
        """The recipe of the network."""
        return self.card.recipe

    @property
    def dim(self) -> int:
        """Width of an embedding, D."""
        return self.trunk.dim

    # ------------------------------------------------------- normalised pixels: a plain module

    def forward(self, pixels: Tensor) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised: see `preprocess`.

        Raises:
            SpecMismatch: If the channels are not C, or the size is not divisible into patches.
        """
        vectors: Tensor = self.trunk(pixels)
        return vectors

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Return all tokens after the final norm: see `Trunk.forward_features`.

        Args:
            pixels: (B, C, H, W), normalised.

        Raises:
            SpecMismatch: If the channels are not C, or the size is not divisible into patches.
        """
        return self.trunk.forward_features(pixels)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return patch tokens of several layers: see `Trunk.get_intermediate_layers`.

        Args:
            x: (B, C, H, W), normalised.
            n: The last n layers, or the indices of layers.
            reshape: Whether to return maps, (B, D, rows, columns), instead of tokens, (B, P, D).
            return_class_token: Whether to return pairs (patches, CLS token (B, D)).
            norm: Whether to apply the network's final norm to each.

        Raises:
            SpecMismatch: If the channels are not C, or the size is not divisible into patches.
        """
        return self.trunk.get_intermediate_layers(x, n, reshape, return_class_token, norm)

    # --------------------------------------------------------------- pixels in physical units

    def plan_for(self, spec: ImageSpec, waivers: Sequence[Waiver] = ()) -> Plan:
        """Return the plan from `spec` to the network's input.

        Raises:
            SpecMismatch: If there is none.
        """
        return preprocess_for(spec, self.recipe, waivers).plan

    def preprocess(
        self, pixels: Pixels, spec: ImageSpec | None = None, waivers: Sequence[Waiver] = ()
    ) -> Tensor:
        """Return the network's input: (B, C, H, W), normalised, on its device, in its dtype.

        Arithmetic is float32 whatever the network's dtype: half precision cannot resolve
        neighbouring digital numbers.

        Args:
            pixels: Imagery; or an array of physical values, (C, H, W) or (B, C, H, W); `as_imagery`
                defines missing values.
            spec: Description of an array: sensor, bands by name, unit, GSD.
            waivers: Named exceptions to the recipe.

        Raises:
            SpecError: If an array comes without a spec, or does not match it.
            SpecMismatch: If the imagery does not match the recipe, or a waiver is not needed.
            PixelError: If the pixels contradict their declaration
                (`eofm.contract.validity.check_plausible`), a valid one is not finite, or an image
                has no valid pixel.
        """
        waivers = read_waivers(waivers)
        imagery = as_imagery(pixels, spec)
        weight = next(self.trunk.parameters())
        step = preprocess_for(imagery.spec, self.recipe, waivers)
        if not any(isinstance(waiver, AcceptPixels) for waiver in waivers):
            check_plausible(imagery)
        prepared: Imagery = step(imagery.to(weight.device))
        return prepared.pixels.to(weight.dtype)

    @torch.no_grad()
    def embed(
        self, pixels: Pixels, waivers: Sequence[Waiver] = (), *, spec: ImageSpec | None = None
    ) -> Tensor:
        """Return one vector per image, float32 (B, D), on the encoder's device.

        The network computes in evaluation mode; the mode of the module does not change.

        Args:
            pixels: Imagery in physical units, or an array: see `preprocess`.
            waivers: Named exceptions to the recipe.
            spec: Description of an array.

        Raises:
            SpecMismatch: If the imagery does not match the recipe, or a waiver is not needed.
            PixelError: As `preprocess` does.
        """
        prepared = self.preprocess(pixels, spec, waivers)
        with _evaluating(self):
            embedding: Tensor = self(prepared)
        return embedding.float()

    @torch.no_grad()
    def features(
        self, pixels: Pixels, waivers: Sequence[Waiver] = (), *, spec: ImageSpec | None = None
    ) -> Tensor:
        """Return one vector per patch, float32 (B, P, D), row by row; otherwise like `embed`.

        Args:
            pixels: Imagery in physical units, or an array: see `preprocess`.
            waivers: Named exceptions to the recipe.
            spec: Description of an array.

        Raises:
            SpecMismatch: If the imagery does not match the recipe, or a waiver is not needed.
            PixelError: As `preprocess` does.
        """
        prepared = self.preprocess(pixels, spec, waivers)
        with _evaluating(self):
            tokens = self.forward_features(prepared)
        return tokens[:, self.trunk.prefix :].float()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set `module` to evaluation mode, and restore the mode of every part afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def build_trunk(card: Card) -> Trunk:
    """Return the network of a card, with weights to be replaced.

    Raises:
        WeightsError: If there is no such architecture.
        SpecError: If the recipe's size does not match the architecture.
    """
    return build_blank(card.architecture, card.recipe, card.positions)


def random_encoder(architecture: str, recipe: Recipe, seed: int) -> Encoder:
    """Return an untrained encoder, the control for trained ones.

    Args:
        architecture: A name that `eofm.networks.build.build` knows.
        recipe: Its recipe.
        seed: Seed of its weights.
    """
    trunk = build(architecture, recipe, torch.Generator().manual_seed(seed))
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
    return Encoder(trunk, replace(card, sha256=sha256(serialise(trunk, card))))


# ---------------------------------------------------------------------------------- disk


def save_encoder(encoder: Encoder, directory: Path | str) -> Card:
    """Write `weights.safetensors` and `card.json`, each atomically.

    The card comes last and contains the sha256 of the weights, so a kill between the two leaves a
    folder that `load_encoder` rejects, never one that it misreads.

    Args:
        encoder: Encoder to write.
        directory: Output folder, created if needed; an earlier encoder in it is replaced.

    Returns:
        The card as written, with the sha256.

    Raises:
        WeightsError: If the folder cannot be written.
    """
    directory = Path(directory)
    data = serialise(encoder.trunk, encoder.card)
    card = replace(encoder.card, sha256=sha256(data))
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / WEIGHTS_FILE, data)
        write_whole(directory / CARD_FILE, text.encode())
    except OSError as error:
        raise WeightsError(
            "the encoder cannot be written",
            found=error,
            where=directory,
            remedy="name a folder that can be written to, on a disk with room",
        ) from error
    return card


def load_encoder(directory: Path | str) -> Encoder:
    """Return the encoder written by `save_encoder`.

    Raises:
        WeightsError: If a file is missing, damaged or foreign, or the two do not match.
    """
    directory = Path(directory)
    card = _load_card(directory / CARD_FILE)
    data = _load_weights(directory / WEIGHTS_FILE)
    if sha256(data) != card.sha256:
        raise WeightsError(
            "the weights are not those the card describes",
            found=f"sha256 {sha256(data)}",
            expected=f"sha256 {card.sha256}",
            where=directory / WEIGHTS_FILE,
            remedy="copy both files again, or export the run again",
        )
    with foreign(
        WeightsError,
        "the weights file cannot be read",
        expected="safetensors",
        where=directory / WEIGHTS_FILE,
    ):
        state = load(data)
        found = read_identity(data)
    if found != identity(card):
        raise WeightsError(
            "the card does not belong to these weights: recipe or architecture differ",
            found=identity(card),
            expected=found,
            where=directory / CARD_FILE,
            remedy="cards must not be edited; export the run again",
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
    if not path.exists():
        raise WeightsError(
            "there is no encoder here",
            found=f"no {CARD_FILE}",
            expected=f"a folder with {WEIGHTS_FILE} and {CARD_FILE}",
            where=path.parent,
            remedy="name the folder of an export: runs/<name>/export/student; a run, a checkpoint "
            "and published weights are loaded by eofm.load_weights",
        )
    content = read_json(path, WeightsError, "the card cannot be read", remedy=_COPY)
    if not isinstance(content, dict):
        found = str(content)[:200]
        raise WeightsError("this is not the card of an encoder", found=found, where=path)
    try:
        with foreign(WeightsError, "this is not the card of an encoder", where=path):
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
            remedy=_COPY,
        ) from error
