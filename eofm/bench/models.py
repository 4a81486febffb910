"""From the words of `--model` to what they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
import yaml
from torch import nn

from eofm.bench.config import BenchConfig, listed
from eofm.bench.controls import (
    IMAGESTATS,
    RANDOM,
    RCF,
    RCF_ZCA,
    ImageStatistics,
    default_recipe,
    gaussian_control,
    random_control,
    untrained_control,
    zca_control,
)
from eofm.bench.features import EncoderSource, FeatureSource, Identity, joined
from eofm.bench.network import NetworkSource, is_reference, load_own
from eofm.bench.task import Task
from eofm.bench.waive import ABLATION_WHY, waivers_for
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import AcceptSize, Recipe, Waiver
from eofm.errors import ConfigError, MismatchKind, SpecError
from eofm.networks import timm_trunk
from eofm.networks.build import BUILDERS, default_pooling
from eofm.probes.linear import Scaling
from eofm.weights import torchgeo_names
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import Encoder
from eofm.weights.load import load_weights
from eofm.weights.timm_pretrained import load_timm

_CONTROLS: Final = (IMAGESTATS, RCF, RCF_ZCA)
_FORMS: Final = (
    "a folder, a published name, torchgeo:ENUM.MEMBER, timm:NAME, module:function, "
    f"{', '.join(_CONTROLS)}, {RANDOM}, {RANDOM}:ARCHITECTURE, or NAME= before one of these"
)
_RANDOM_SIZE: Final = (224, 224)

# (sensor, index) -> a training image
TrainImages = Callable[[int, int], Imagery]


@dataclass(frozen=True)
class Candidate:
    """What is scored in one row: a source of features for every sensor of the task.

    Args:
        name: Name in tables.
        parts: One per sensor; their features are put side by side.
        of: Name of the model of which this is one with another input size; else empty.
    """

    name: str
    parts: tuple[FeatureSource, ...]
    of: str = ""

    @property
    def scaling(self) -> Scaling:
        """What a probe does to the features first."""
        return self.parts[0].scaling

    def identity(self, task: Task) -> Identity:
        """Return what it is, for the images of a task.

        Raises:
            SpecMismatch: If it cannot take them.
        """
        found = [p.identity(spec) for p, spec in zip(self.parts, task.specs, strict=True)]
        return joined(self.name, found)


def resolve_models(
    config: BenchConfig, task: Task, images: TrainImages, total: int
) -> list[Candidate]:
    """Return what `config.model` names, in its order, then the controls it does not name.

    Args:
        config: The settings.
        task: What it is for: its images and the exceptions it grants.
        images: Training images, of which `rcf-zca` takes patches.
        total: Number of training images.

    Raises:
        ConfigError: If two get the same name, `random` has nothing to be like, a word names
            nothing, or the device is not there.
        WeightsError: If weights cannot be had, or do not fit.
    """
    forced = tuple(MismatchKind(word) for word in listed(config.force))
    shop = _Shop(config, task, images, total, device_of(config.device), forced)
    named = [_named(word) for word in config.models]
    if config.controls:
        targets = {target for _, target in named}
        named += [(name, name) for name in _CONTROLS if name not in targets]
    _check_names([name for name, _ in named])
    candidates = [shop.candidate(name, target) for name, target in named]
    for name, target in named:
        candidates += shop.resized(name, target)
    if config.controls and not any(_is_twin(target) for _, target in named):
        candidates += shop.twins()
    _check_names([candidate.name for candidate in candidates])
    return candidates


def plan_source(
    task: Task, word: str, recipe: str | None, forced: Sequence[MismatchKind]
) -> FeatureSource:
    """Return what a word names, for the first sensor of a task; networks without their weights.

    Raises:
        ConfigError: If the word names nothing, or a control that has no plan.
        WeightsError: If the weights are not known.
    """
    config = BenchConfig("", model=word, recipe=recipe, controls=False)

    def no_images(sensor: int, index: int) -> Imagery:
        raise ConfigError(f"{RCF_ZCA} takes its filters from images", remedy=f"plan {RCF}")

    shop = _Shop(config, task, no_images, 0, torch.device("cpu"), tuple(forced))
    name, target = _named(word)
    return shop.source(name, target, 0)


@dataclass
class _Shop:
    """Makes sources, and loads each network once."""

    config: BenchConfig
    task: Task
    images: TrainImages
    total: int
    device: torch.device
    forced: tuple[MismatchKind, ...]
    encoders: dict[tuple[str, int], Encoder] = field(default_factory=dict)
    own: dict[str, Encoder | tuple[nn.Module, Recipe]] = field(default_factory=dict)

    def resized(self, model: str, target: str) -> list[Candidate]:
        """Return an encoder at the sizes of the settings that are not its own; no control."""
        words = [word for word in self.config.sizes if word != "own"]
        if _kind(target) in {*_CONTROLS, RANDOM}:
            return []
        found: dict[str, Candidate] = {}
        for pixels in map(int, words):
            sizes = [self._rounded(half, i, pixels) for i, half in enumerate(target.split("+"))]
            if all(size is None for size in sizes):
                continue  # the recipe's own: that row is there
            name = f"{model} {next(size for size in sizes if size is not None)} px"
            parts = tuple(
                self.source(name, half, i, size)
                for i, (half, size) in enumerate(zip(target.split("+"), sizes, strict=True))
            )
            found.setdefault(name, Candidate(name, parts, model))
        return list(found.values())

    def _rounded(self, target: str, sensor: int, pixels: int) -> int | None:
        """Return whole patches nearest to a number of pixels; None if that is the own size."""
        if _is_own(target):
            made = self._own(target, sensor)
            if not isinstance(made, Encoder):
                return None if made[1].size == (pixels, pixels) else pixels
        encoder = self._encoder(target, sensor)
        step = encoder.trunk.multiple
        size = max(1, round(pixels / step)) * step
        return None if encoder.recipe.size == (size, size) else size

    def candidate(self, name: str, target: str) -> Candidate:
        sensors = len(self.task.specs)
        halves = target.split("+") if sensors > 1 else [target]
        if sensors > 1 and len(halves) == 1 and _kind(target) in {*_CONTROLS, RANDOM}:
            halves = [target] * sensors
        if len(halves) != sensors:
            raise ConfigError(
                "a task of two sensors needs an encoder for each",
                found=target,
                expected=" + ".join(str(spec.sensor) for spec in self.task.specs),
                where="--model",
                remedy="join them: --model ENCODER_OF_S2+ENCODER_OF_S1",
            )
        return Candidate(name, tuple(self.source(name, h, i) for i, h in enumerate(halves)))

    def source(self, name: str, target: str, sensor: int, size: int | None = None) -> FeatureSource:
        spec, seed = self.task.specs[sensor], self.config.seed
        if target == IMAGESTATS:
            return ImageStatistics(name)
        if target == RCF:
            return gaussian_control(name, spec, seed, self.device)
        if target == RCF_ZCA:
            return zca_control(
                name, spec, seed, self.device, lambda i: self.images(sensor, i), self.total
            )
        if _kind(target) == RANDOM:
            return self._random(name, target, sensor)
        if _is_own(target):
            made = self._own(target, sensor)
            if not isinstance(made, Encoder):
                network, recipe = made
                granted = self._waivers(recipe, sensor, size)
                return NetworkSource(name, network.to(self.device), recipe, target, waivers=granted)
        encoder = self._encoder(target, sensor)
        return EncoderSource(name, encoder, waivers=self._waivers(encoder.recipe, sensor, size))

    def _own(self, target: str, sensor: int) -> Encoder | tuple[nn.Module, Recipe]:
        """Call a user's function once."""
        if target not in self.own:
            self.own[target] = load_own(target)
        made = self.own[target]
        if isinstance(made, Encoder):
            self.encoders[target, sensor] = made.to(self.device)
        return made

    def twins(self) -> list[Candidate]:
        """Return an untrained twin of every architecture and recipe among the encoders."""
        if len(self.task.specs) > 1:
            pairs = {i: e for (_, i), e in reversed(self.encoders.items())}
            if len(pairs) < len(self.task.specs):
                return []
            parts = tuple(self._twin(RANDOM, pairs[i], i) for i in sorted(pairs))
            return [Candidate(RANDOM, parts)]
        kinds = {(e.card.architecture, e.recipe): e for e in self.encoders.values()}
        names = [RANDOM, *(f"{RANDOM}-{i}" for i in range(2, len(kinds) + 1))]
        return [
            Candidate(name, (self._twin(name, encoder, 0),))
            for name, encoder in zip(names, kinds.values(), strict=False)
        ]

    def _twin(self, name: str, encoder: Encoder, sensor: int) -> FeatureSource:
        waivers = self._waivers(encoder.recipe, sensor)
        return random_control(encoder, self.config.seed, name, waivers)

    def _random(self, name: str, target: str, sensor: int) -> FeatureSource:
        like = target.partition(":")[2]
        if like in BUILDERS or like.startswith(timm_trunk.PREFIX):
            spec = self.task.specs[sensor]
            recipe = default_recipe(spec, _RANDOM_SIZE, default_pooling(like))
            return untrained_control(like, recipe, self.config.seed, self.device, name)
        return self._twin(name, self._encoder(like or self._first(sensor), sensor), sensor)

    def _first(self, sensor: int) -> str:
        """Return the first encoder among the models, for `random` to be like."""
        for _, target in map(_named, self.config.models):
            if _kind(target) not in {*_CONTROLS, RANDOM} and "module" not in _kind(target):
                return target.split("+")[sensor] if len(self.task.specs) > 1 else target
        raise ConfigError(
            "a random encoder needs an architecture and a recipe to be like",
            found=RANDOM,
            expected=f"{RANDOM}:ARCHITECTURE, {RANDOM}:FOLDER, or an encoder among the models",
            where="--model",
        )

    def _encoder(self, target: str, sensor: int) -> Encoder:
        if (target, sensor) not in self.encoders:
            self.encoders[target, sensor] = self._load(target).to(self.device)
        return self.encoders[target, sensor]

    def _load(self, target: str) -> Encoder:
        if target.startswith(torchgeo_names.PREFIX):
            return load_weights(torchgeo_names.card_name(target))
        if target.startswith(timm_trunk.PREFIX):
            return load_timm(target, read_recipe(self.config.recipe))
        return load_weights(target)

    def _waivers(self, recipe: Recipe, sensor: int, size: int | None = None) -> tuple[Waiver, ...]:
        spec = self.task.specs[sensor]
        found = waivers_for(spec, recipe, self.task.waivers, self.forced)
        return found if size is None else (*found, AcceptSize((size, size), ABLATION_WHY))


def read_recipe(file: str | None) -> Recipe:
    """Return the recipe of a YAML file: the fields of `eofm.Recipe`, as in a card.

    Raises:
        ConfigError: If none is named, or it cannot be read.
    """
    if file is None:
        raise ConfigError(
            "a network of timm does not say what it eats",
            expected="--recipe FILE: sensor, bands, unit, size, normalization, resize, pooling",
            remedy="see benchmarks/README.md for a recipe",
        )
    try:
        content = yaml.safe_load(Path(file).read_text("utf-8"))
        return Recipe.from_dict(content if isinstance(content, dict) else {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, SpecError) as error:
        raise ConfigError("a recipe cannot be read", found=error, where=file) from error


# ------------------------------------------------------------------------------- words


def _kind(target: str) -> str:
    return target.partition(":")[0]


def _is_twin(target: str) -> bool:
    """Return whether a word means an untrained twin of an encoder: random:resnet50 does not."""
    like = target.partition(":")[2]
    architecture = like in BUILDERS or like.startswith(timm_trunk.PREFIX)
    return _kind(target) == RANDOM and not architecture


def _is_own(target: str) -> bool:
    known = target.startswith((torchgeo_names.PREFIX, timm_trunk.PREFIX, f"{RANDOM}:"))
    return not known and is_reference(target)


def _named(word: str) -> tuple[str, str]:
    """Split NAME=TARGET; without a name, a folder is called as it is, all else what it says."""
    name, equals, target = word.partition("=")
    if equals:
        if not name.strip() or not target.strip():
            raise ConfigError("a model needs a name and a target", found=word, expected=_FORMS)
        return name.strip(), target.strip()
    if word.partition("@")[0] in WEIGHTS or ":" in word or "+" in word:
        return word, word
    return Path(word).name or word, word


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "two models would have the same name in the table",
            found=", ".join(twice),
            where="--model",
            remedy="name them: --model first=FOLDER,second=FOLDER",
        )


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "there is no GPU here", found="--device cuda", remedy="use --device cpu, or auto"
        )
    return torch.device(name)
