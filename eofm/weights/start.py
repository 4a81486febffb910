"""Initial weights of a training: random, of a vision model, or of an earlier pretraining.

`eofm.weights.resolve` decides which weights are meant. A file does not state its bands; an export,
a checkpoint and a published name do (`Source`). In all cases the result is a network for the bands
and the size of a recipe, and an `Origin` with the source of every tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from eofm.contract.preprocess import convert_unit
from eofm.contract.recipe import Recipe
from eofm.contract.spec import DEFAULT_STATISTICS, STATISTICS, Normalization, Sensor
from eofm.errors import WeightsError
from eofm.networks import resnet, vit
from eofm.networks.build import build
from eofm.networks.state import (
    InputInit,
    PositionRecipe,
    State,
    adapt_input,
    fold_affine,
    load_strict,
    read_state,
    resize_position_embedding,
    select_input_bands,
)
from eofm.networks.timm import PREFIX
from eofm.networks.trunk import Trunk
from eofm.networks.vit import ViT, cut_state, whole_name
from eofm.weights.cards import find, recognise
from eofm.weights.cards.card import StateLayout
from eofm.weights.download import fetch, known_sha256
from eofm.weights.encoder import Encoder, load_encoder
from eofm.weights.keymaps import KEY_MAPS, detect_layout
from eofm.weights.load import from_checkpoint
from eofm.weights.resolve import WeightsKind, resolve

__all__ = ["Origin", "Source", "open_source", "start_from"]


@dataclass(frozen=True)
class Source:
    """Weights before adaptation.

    Args:
        name: Description: file and layout, export, published name.
        where: Path of the file or folder.
        state: Tensors under the names of our networks.
        dropped: Names of tensors that were deliberately dropped.
        sha256: Hash of the file.
        recipe: Their recipe; None if unknown.
        architecture: Name of the network; empty if only implied by the tensors.
    """

    name: str
    where: Path
    state: State
    dropped: tuple[str, ...]
    sha256: str
    recipe: Recipe | None = None
    architecture: str = ""


def open_source(weights: Path | str, architecture: str) -> Source:
    """Return the tensors of initial weights.

    Args:
        weights: A form of `eofm.weights.resolve`; published weights are downloaded if needed.
        architecture: Target network: a file for one of timm's has timm's names.

    Raises:
        WeightsError: If there is nothing of that name, or it cannot be read, downloaded or mapped.
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
            return _from_file(found.path, architecture, found.name)
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


def _from_file(path: Path, architecture: str, described: str = "") -> Source:
    """Return the weights of a file.

    Args:
        path: Of the file.
        architecture: Of the network to be trained.
        described: Name of the card that describes the file; empty: it is recognised.
    """
    state = read_state(path)
    layout = StateLayout.TIMM if architecture.startswith(PREFIX) else detect_layout(state)
    mapped = KEY_MAPS[layout](state)
    sha256 = known_sha256(path)
    card = recognise(path.name, sha256)
    # if a hash is published, the name alone proves nothing
    if card and card.sha256 and not sha256.startswith(card.sha256):
        card = None
    recipe = card.recipe if card else None
    if described:
        _, recipe = find(described)
    return Source(
        f"{path.name} ({layout})",
        path,
        mapped.state,
        mapped.dropped,
        sha256,
        recipe,
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


@dataclass(frozen=True)
class Origin:
    """Sources of the tensors of a network; each is in one of the first three lists.

    Args:
        weights: Description of the initial weights.
        input_layer: Description of the adaptation of the input layer.
        loaded: Tensors unchanged from the weights.
        adapted: Tensors computed from those of the weights.
        initialised: Tensors initialised at random.
        dropped: Tensors of the weights that were deliberately dropped.
        new_input: Whether the input layer was initialised at random.
        sha256: Hash of the weights file; empty for random weights.
    """

    weights: str
    input_layer: str = "random"
    loaded: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    initialised: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    new_input: bool = True
    sha256: str = ""

    @property
    def line(self) -> str:
        """Summary in one line."""
        if not self.sha256:
            return self.weights
        counts = f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted"
        counts += f", {len(self.initialised)} drawn afresh, {len(self.dropped)} left out"
        return f"{self.weights}: {counts}; input layer {self.input_layer}"

    def describe(self) -> str:
        """Return the summary, the sha256 and every tensor's name."""
        lines = [self.line, f"sha256: {self.sha256 or 'none'}"]
        for title, names in (
            ("loaded", self.loaded),
            ("adapted", self.adapted),
            ("drawn afresh", self.initialised),
            ("left out", self.dropped),
        ):
            lines += ["", f"{title} ({len(names)})", *(f"  {name}" for name in names)]
        return "\n".join(lines)


def start_from(
    weights: Path | str | None,
    architecture: str,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    input_init: InputInit,
    positions: PositionRecipe,
) -> tuple[Trunk, Origin]:
    """Return a network ready for training, and the source of each of its tensors.

    For RGB weights, `input_init` creates a new input layer. Weights for the recipe's own bands keep
    theirs; those for a subset or superset, as L1C for L2A and back, keep the filter of each band
    (`eofm.networks.state.select_input_bands`). They must have been trained with the normalisation
    of the recipe. Positions are interpolated to the recipe's size. A truncated ViT
    (`vits14-7blocks`) uses the first blocks of the full one's weights.

    Args:
        weights: None for random weights; a file in any layout that `eofm.weights.keymaps`
            knows; the folder of an eofm export; an address; or a published name.
        architecture: Name of the network.
        recipe: Recipe of the network.
        generator: Random generator.
        input_init: Adaptation of an RGB input layer.
        positions: Interpolation of positions in a `ViT`; timm's networks do it as timm does.

    Raises:
        WeightsError: If the weights cannot be read or do not match.
        SpecError: If the recipe does not match the architecture.
    """
    trunk = build(architecture, recipe, generator, positions)
    if weights is None:
        return trunk, Origin("random weights", initialised=tuple(trunk.state_dict()))
    source = open_source(weights, architecture)
    _check_architecture(source, architecture)
    source = _cut(source, architecture)
    state, words = _fit_input(source, trunk.input_layer, recipe, input_init, generator)
    state = _fit_positions(state, source, trunk, positions)
    load_strict(trunk, state, where=str(source.where))
    return trunk, _origin(source, state, trunk.input_layer, words)


def _check_architecture(source: Source, architecture: str) -> None:
    """Raise an error for weights that are known to be of another network.

    Raises:
        WeightsError: If they are.
    """
    state = source.state
    found = source.architecture or vit.architecture_of(state) or resnet.architecture_of(state)
    if found not in {None, architecture, whole_name(architecture)}:
        raise _unfit(source, found, architecture, f"--model.architecture {found}")


def _cut(source: Source, architecture: str) -> Source:
    """Drop the blocks of a ViT that a truncated network does not have, and report it."""
    state = cut_state(source.state, architecture)
    left_out = tuple(key for key in source.state if key not in state)
    return replace(source, state=state, dropped=source.dropped + left_out)


def _unfit(source: Source, found: object, expected: object, remedy: str) -> WeightsError:
    return WeightsError(
        "the weights were made for another network or other input",
        found=f"{found} ({source.name})",
        expected=expected,
        where=source.where,
        remedy=remedy,
    )


def _origin(source: Source, state: State, input_layer: str, words: str) -> Origin:
    """Classify the tensors: those the pure functions did not change are still the same objects."""
    loaded = tuple(key for key in state if state[key] is source.state.get(key))
    changed = [key for key in state if key not in loaded]
    drawn = {f"{input_layer}.weight", f"{input_layer}.bias"} if words == InputInit.RANDOM else set()
    return Origin(
        source.name,
        words,
        loaded,
        adapted=tuple(key for key in changed if key not in drawn),
        initialised=tuple(key for key in changed if key in drawn),
        dropped=source.dropped,
        new_input=bool(drawn),
        sha256=source.sha256,
    )


# ----------------------------------------------------------------------------- input layer

_RGB: Final = ("R", "G", "B")


def _fit_input(
    source: Source, key: str, recipe: Recipe, rule: InputInit, generator: torch.Generator
) -> tuple[State, str]:
    """Return the state with an input layer for the recipe's bands, and a description of it."""
    expects = source.recipe
    if expects is not None and expects.sensor is not Sensor.RGB:
        return _continue_input(source, expects, key, recipe)
    weight = source.state.get(f"{key}.weight")
    channels = 0 if weight is None or weight.ndim != 4 else weight.shape[1]
    if expects is None and channels == len(recipe.bands) != 3:
        return dict(source.state), f"kept (the file does not say for which {channels} bands)"
    if channels != 3:
        raise _unfit(
            source,
            f"{channels} bands",
            f"3 (red, green, blue) or {len(recipe.bands)}: {' '.join(recipe.bands)}",
            "use weights for RGB, or continue with the bands the weights are for",
        )
    if recipe.bands == _RGB:
        state, words = dict(source.state), "kept"
    else:
        state = adapt_input(source.state, recipe.bands, rule, generator, key)
        words = str(rule)
    if words == InputInit.RANDOM:
        return state, words
    # vision models get z-scores unless stated otherwise
    return _fold(
        state, key, expects is not None and _from_0_to_1(expects), _from_0_to_1(recipe)
    ), words


def _from_0_to_1(recipe: Recipe) -> bool:
    """Whether pixels are in [0, 1], mean ± 2 std, and not around 0 with unit variance."""
    return recipe.normalization.clip == (0.0, 1.0)


def _fold(state: State, key: str, source: bool, target: bool) -> State:
    """Convert a layer between input ranges: u in [0, 1] is (z + 2) / 4."""
    if source == target:
        return state
    scale, offset = (4.0, -2.0) if target else (0.25, 0.5)
    return fold_affine(state, scale, offset, key, _norm_behind(state, key))


def _norm_behind(state: State, key: str) -> str | None:
    """Return the name of the batch norm that follows the first convolution of a ResNet."""
    norm = key.removesuffix("conv1") + "bn1"
    return norm if key.endswith("conv1") and f"{norm}.running_mean" in state else None


def _continue_input(source: Source, expects: Recipe, key: str, recipe: Recipe) -> tuple[State, str]:
    """Adapt an input layer whose bands are known."""
    remedy = "continue with the same sensor, normalization and statistics"
    have, want = set(expects.bands), set(recipe.bands)
    if not (have <= want or want <= have) or not _are_related(expects.sensor, recipe.sensor):
        raise _unfit(source, _input_of(expects), _input_of(recipe), remedy)
    if not _same_normalization(expects, recipe):
        raise _unfit(source, expects.normalization, recipe.normalization, remedy)
    if expects.bands == recipe.bands:
        return dict(source.state), "kept"
    held = {band: _mean_of(expects, band) for band in expects.bands if band not in want}
    state = dict(source.state)
    state = select_input_bands(
        state, expects.bands, recipe.bands, key, _norm_behind(state, key), held
    )
    return state, f"brought from {len(expects.bands)} to {len(recipe.bands)} bands by name"


def _input_of(recipe: Recipe) -> str:
    return f"{recipe.sensor}, bands {' '.join(recipe.bands)}"


def _are_related(one: Sensor, other: Sensor) -> bool:
    """Whether an input layer for one sensor is a useful start for the other."""
    return one is other or {one, other} == {Sensor.S2_L1C, Sensor.S2_L2A}


def _same_normalization(have: Recipe, want: Recipe) -> bool:
    """Whether both normalise a band alike. Constants of L1C and L2A may differ."""
    if not _same_kind(have.normalization, want.normalization):
        return False
    if have.sensor is not want.sensor:
        return True
    common = [band for band in have.bands if band in want.bands]
    one = have.normalization.select([have.bands.index(band) for band in common])
    other = want.normalization.select([want.bands.index(band) for band in common])
    return have.unit is want.unit and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
        for a, b in zip(one.shift + one.scale, other.shift + other.scale, strict=True)
    )


def _same_kind(one: Normalization, other: Normalization) -> bool:
    return (one.clip, one.levels, any(one.shift)) == (other.clip, other.levels, any(other.shift))


def _mean_of(recipe: Recipe, band: str) -> float:
    """Return the mean of a band, by published statistics, after normalisation."""
    statistics = STATISTICS[DEFAULT_STATISTICS[recipe.sensor]].select([band])
    mean = convert_unit(torch.tensor(statistics.mean), statistics.unit, recipe.unit).item()
    index = recipe.bands.index(band)
    value = (mean - recipe.normalization.shift[index]) / recipe.normalization.scale[index]
    clip = recipe.normalization.clip
    return value if clip is None else min(max(value, clip[0]), clip[1])


# ------------------------------------------------------------------------------- positions

_TABLES: Final = ("pos_embed", "model.pos_embed")  # of a ViT, of one of timm's


def _fit_positions(state: State, source: Source, trunk: Trunk, positions: PositionRecipe) -> State:
    """Interpolate the position table, if there is one, to the network's grid."""
    own = trunk.state_dict()
    for key in _TABLES:
        if key not in own or key not in state or own[key].shape[1] == state[key].shape[1]:
            continue
        size = None if source.recipe is None else source.recipe.size
        if source.architecture and size is not None and size[0] != size[1]:
            raise _unfit(source, f"size {size}", "a square size", "continue with the same size")
        prefix = own[key].shape[1] - trunk.tokens
        how = positions if isinstance(trunk, ViT) else PositionRecipe.TIMM
        registers = isinstance(trunk, ViT) and trunk.architecture.registers > 0
        state = resize_position_embedding(state, trunk.grid, how, key, prefix, registers=registers)
    return state
