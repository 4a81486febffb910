"""Resolve the arguments of `--model` to candidates, with their inputs and plans.

Inputs other than a network's own are the normalisations of arXiv 2305.13456, by name. With weights,
images, splits and probe unchanged, `--size` and `--normalization` show the effect of the input
alone. Rows of such inputs are marked, and excluded from tables of results.

`eofm bench plan TASK MODEL` prints the steps from a task's images to a model, or the mismatch.

Shapes: C bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from eofm.bench.config import (
    AUTO,
    OWN,
    BenchConfig,
    PlanConfig,
    ScoringConfig,
    SegmentationConfig,
    listed,
)
from eofm.bench.controls import (
    IMAGESTATS,
    PATCH_SIDE,
    PATCH_STATISTICS,
    PIXELS,
    RANDOM,
    RCF,
    RCF_ZCA,
    ImageStatistics,
    PatchStatistics,
    PixelValues,
    gaussian_control,
    random_control,
    untrained_control,
    zca_control,
)
from eofm.bench.sources import (
    CHANGED_WHY,
    Candidate,
    EncoderSource,
    FeatureSource,
    NetworkSource,
    TokenSource,
    load_own,
)
from eofm.bench.texts import OPEN_CLIP, ClipName, load_clip
from eofm.contract.imagery import Imagery, collate
from eofm.contract.preprocess import convert_unit, plan
from eofm.contract.recipe import FORCED_WHY, AcceptSize, Recipe, Waiver, default_recipe, waivers_for
from eofm.contract.spec import ImageSpec, Normalization, Unit
from eofm.datasets.base import Task, TaskKind
from eofm.datasets.registry import TASKS, family_of, find_task
from eofm.environment import device_of
from eofm.errors import ConfigError, MismatchKind, SpecMismatch, WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_yaml
from eofm.networks import timm
from eofm.networks.build import BUILDERS, default_pooling
from eofm.terminal import track
from eofm.weights.cards import WEIGHTS, find
from eofm.weights.encoder import Encoder
from eofm.weights.load import load_weights
from eofm.weights.resolve import WeightsKind, is_function, resolve

__all__ = [
    "OF_TRAIN",
    "BandStatistics",
    "PlanReport",
    "TrainImages",
    "bench_plan",
    "controls_of",
    "normalized",
    "plan_source",
    "read_recipe",
    "resolve_models",
    "statistics",
    "suitable",
]

# ------------------------------------------------------------------------------------- other inputs


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of each band over the valid pixels of the training split.

    Args:
        mean: (C,).
        std: (C,).
        low: Smallest values, (C,).
        high: Largest values, (C,).
        source: Description of the images used.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    source: str


OF_TRAIN: Final = ("zscore", "two-sigma", "minmax")
_DIVISIONS: Final[Mapping[str, tuple[float, Unit, str]]] = {
    "divide10000": (10_000.0, Unit.DN, "reflectance x 10000 to reflectance"),
    "divide255": (255.0, Unit.UINT8, "8 bits to [0, 1]"),
}


def suitable(words: Sequence[str], spec: ImageSpec) -> tuple[str, ...]:
    """Return the rules to try, with `auto` expanded.

    Args:
        words: As on the command line.
        spec: Description of the images.

    Raises:
        ConfigError: If a division does not match the unit of the images.
    """
    divisions = [n for n, (_, unit, _) in _DIVISIONS.items() if _reaches(spec.unit, unit)]
    every = (OWN, *OF_TRAIN, *divisions)
    rules = tuple(dict.fromkeys(r for word in words for r in (every if word == AUTO else (word,))))
    wrong = [rule for rule in rules if rule not in every]
    if wrong:
        raise ConfigError(
            "this normalisation does not suit the images",
            found=f"{', '.join(wrong)}, images in {spec.unit}",
            expected=", ".join(every),
            where="--normalization",
        )
    return rules


def _reaches(source: Unit, target: Unit) -> bool:
    try:
        convert_unit(torch.ones(1), source, target)
    except SpecMismatch:
        return False
    return True


def normalized(
    recipe: Recipe, rule: str, spec: ImageSpec, constants: Callable[[], BandStatistics]
) -> Recipe:
    """Return a recipe with another normalisation.

    Args:
        recipe: The network's own.
        rule: Name of the normalisation; the recipe's own changes nothing.
        spec: Description of the images.
        constants: Returns the statistics of the training split, if the rule needs them.
    """
    if rule == OWN:
        return recipe
    if rule in _DIVISIONS:
        by, unit, why = _DIVISIONS[rule]
        normalization = Normalization.divide(by, len(recipe.bands), why)
        return replace(recipe, unit=unit, normalization=normalization)
    found = constants()
    source = found.source
    first, second = {
        "zscore": (found.mean, found.std),
        "two-sigma": (found.mean, found.std),
        "minmax": (found.low, found.high - found.low),
    }[rule]
    # a band missing in the images is filled after normalisation: its constants have no effect
    places = [spec.bands.index(b) if b in spec.bands else None for b in recipe.bands]
    shift = [0.0 if i is None else float(first[i]) for i in places]
    scale = [1.0 if i is None else float(second[i]) for i in places]
    if rule == "two-sigma":
        made = Normalization.two_sigma(shift, scale, source)
    else:
        made = Normalization.zscore(shift, scale, f"{rule} of {source}")
    return replace(recipe, unit=spec.unit, normalization=made)


def statistics(batches: Iterable[Imagery], count: int) -> BandStatistics:
    """Return the statistics of each band over the training split, in one pass.

    Args:
        batches: The images, at least one.
        count: Number of images.
    """
    total = square = low = high = torch.zeros(0)
    seen = 0
    for imagery in track(batches, "statistics of train"):
        valid = imagery.valid[:, None]
        pixels = imagery.pixels.double()
        kept = torch.where(valid, pixels, 0)
        least = torch.where(valid, pixels, torch.inf).amin(dim=(0, 2, 3))
        most = torch.where(valid, pixels, -torch.inf).amax(dim=(0, 2, 3))
        if not len(total):
            total, square, low, high = torch.zeros_like(least), torch.zeros_like(least), least, most
        total = total + kept.sum(dim=(0, 2, 3))
        square = square + kept.square().sum(dim=(0, 2, 3))
        low, high = torch.minimum(low, least), torch.maximum(high, most)
        seen += int(valid.sum())
    mean = total / seen
    std = (square / seen - mean.square()).clamp_min(0).sqrt()
    return BandStatistics(mean, std, low, high, f"the training split, {count} images")


# ----------------------------------------------------------------------------------- models by name

_OF_WHOLE_IMAGES: Final = (IMAGESTATS, RCF, RCF_ZCA)
_CONTROLS: Final = (*_OF_WHOLE_IMAGES, PIXELS, PATCH_STATISTICS)
# Training images read at once for the constants of a normalisation.
_READ: Final = 64

_FORMS: Final = (
    "a folder, a published name, torchgeo:ENUM.MEMBER, timm:NAME, openclip:ARCHITECTURE@WEIGHTS, "
    "module:function, "
    f"{', '.join(_CONTROLS)}, {RANDOM}, {RANDOM}:ARCHITECTURE, or NAME= before one of these"
)

_RANDOM_SIZE: Final = (224, 224)

# (sensor, index) -> a training image
TrainImages = Callable[[int, int], Imagery]


def resolve_models(
    config: ScoringConfig, task: Task, images: TrainImages, total: int
) -> list[Candidate]:
    """Return the candidates that `config.model` names, in its order, then the other controls.

    Args:
        config: The settings.
        task: Its images, and the exceptions that it grants.
        images: Training images, for the patches of `rcf-zca` and constants of normalisations.
        total: Number of training images.

    Raises:
        ConfigError: If two get the same name, `random` has no encoder to copy, a word is unknown, a
            model without patches is to be scored on a segmentation, or the device is missing.
        WeightsError: If weights are not available, or do not match.
    """
    forced = tuple(MismatchKind(word) for word in listed(config.force))
    shop = _Shop(config, task, images, total, device_of(config.device), forced)
    named = [_named(word) for word in config.models]
    if config.controls:
        targets = {target for _, target in named}
        named += [(name, name) for name in _added(config, task) if name not in targets]
    _check_names([name for name, _ in named])
    candidates = [shop.candidate(name, target) for name, target in named]
    if isinstance(config, BenchConfig):
        for plain, (_, target) in zip(tuple(candidates), named, strict=True):
            candidates += shop.changed(config, plain, target)
    if config.controls and not any(_is_twin(target) for _, target in named):
        candidates += shop.twins()
    _check_names([candidate.name for candidate in candidates])
    if task.kind is TaskKind.SEGMENTATION:
        for candidate in candidates:
            _check_patches(candidate)
    return candidates


def controls_of(task: Task) -> tuple[str, ...]:
    """Return the controls of a task that do not depend on an encoder."""
    dense = task.kind is TaskKind.SEGMENTATION
    return (PIXELS, PATCH_STATISTICS) if dense else _OF_WHOLE_IMAGES


def _added(config: ScoringConfig, task: Task) -> tuple[str, ...]:
    """Return the controls that a run adds: for a segmentation, those of the requested probes."""
    if not isinstance(config, SegmentationConfig):
        return controls_of(task)
    own = {"linear": PIXELS, "prompt": PATCH_STATISTICS}
    return tuple(name for probe, name in own.items() if probe in config.probes)


def plan_source(
    task: Task, word: str, recipe: str | None, forced: Sequence[MismatchKind]
) -> FeatureSource:
    """Return the model of a word for the first sensor of a task; networks without weights.

    Raises:
        ConfigError: If the word is unknown, or a control without a plan.
        WeightsError: If the weights are not known.
    """
    config = ScoringConfig("", model=word, recipe=recipe, controls=False)

    def no_images(sensor: int, index: int) -> Imagery:
        raise ConfigError(f"{RCF_ZCA} takes its filters from images", remedy=f"plan {RCF}")

    shop = _Shop(config, task, no_images, 0, torch.device("cpu"), tuple(forced))
    name, target = _named(word)
    return shop.source(name, target, 0)


@dataclass
class _Shop:
    """Creates sources, and loads each network once."""

    config: ScoringConfig
    task: Task
    images: TrainImages
    total: int
    device: torch.device
    forced: tuple[MismatchKind, ...]
    encoders: dict[tuple[str, int], Encoder] = field(default_factory=dict)
    own: dict[str, Encoder | tuple[nn.Module, Recipe]] = field(default_factory=dict)

    def changed(self, config: BenchConfig, plain: Candidate, target: str) -> list[Candidate]:
        """Return an encoder with the modified inputs of the settings; not for controls.

        Raises:
            SpecMismatch: If it cannot take the images without further changes.
            ConfigError: If a normalisation does not match the images, or the task has two sensors.
        """
        if _kind(target) in {*_CONTROLS, RANDOM} or not (config.sizes or config.normalizations):
            return []
        plain.identity(self.task)
        rules = suitable(config.normalizations, self.task.spec) or (OWN,)
        if rules != (OWN,) and len(self.task.specs) > 1:
            raise ConfigError(
                "the normalisation of one sensor is changed at a time",
                found=", ".join(str(spec.sensor) for spec in self.task.specs),
                where="--normalization",
                remedy="name one with --sensor",
            )
        found: dict[str, Candidate] = {}
        for word in config.sizes or (OWN,):
            for rule in rules:
                made = self._changed(plain.name, target, word, rule)
                if made is not None:
                    found.setdefault(made.name, made)
        return list(found.values())

    def _changed(self, model: str, target: str, word: str, rule: str) -> Candidate | None:
        """Return an encoder with a modified input; None if the input is the encoder's own."""
        halves = target.split("+")
        sizes = [
            None if word == OWN else self._rounded(h, i, int(word)) for i, h in enumerate(halves)
        ]
        if rule == OWN and all(size is None for size in sizes):
            return None
        size = next((size for size in sizes if size is not None), None)
        pixels = self._recipe(halves[0], 0).size[0] if size is None else size
        name = f"{model} {pixels} px" + (f" {rule}" if rule != OWN else "")
        parts = tuple(
            self.source(name, half, i, size, rule)
            for i, (half, size) in enumerate(zip(halves, sizes, strict=True))
        )
        return Candidate(name, parts, model, "" if rule == OWN else rule)

    def _recipe(self, target: str, sensor: int) -> Recipe:
        made = self._own(target, sensor) if _is_network(target) else self._encoder(target, sensor)
        return made.recipe if isinstance(made, Encoder) else made[1]

    def _rounded(self, target: str, sensor: int, pixels: int) -> int | None:
        """Return the nearest input size in whole patches; None if it is the own size."""
        own = self._recipe(target, sensor).size
        if (target, sensor) not in self.encoders:  # a plain network accepts any size
            return None if own == (pixels, pixels) else pixels
        step = self._encoder(target, sensor).trunk.multiple
        size = max(1, round(pixels / step)) * step
        return None if own == (size, size) else size

    def candidate(self, name: str, target: str) -> Candidate:
        """Return an encoder or control as a candidate.

        Args:
            name: Name in the records.
            target: Word of `--model`; for a task of two sensors, two of them joined by `+`.

        Raises:
            ConfigError: If the task has two sensors, but only one encoder is named.
        """
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

    def source(
        self, name: str, target: str, sensor: int, size: int | None = None, rule: str = OWN
    ) -> FeatureSource:
        """Return the source of features of one sensor for a word.

        Args:
            name: Name in tables.
            target: The word.
            sensor: Index of the task's sensor.
            size: Size of the input in pixels, if not the network's own.
            rule: Normalisation of the input.
        """
        if _kind(target) in _CONTROLS:
            return self._control(name, target, sensor)
        if _kind(target) == RANDOM:
            return self._random(name, target, sensor)
        changed = (f"normalization {rule} for the recipe's",) if rule != OWN else ()
        made = self._own(target, sensor) if _is_network(target) else self._encoder(target, sensor)
        own = made.recipe if isinstance(made, Encoder) else made[1]
        recipe = normalized(own, rule, self.task.specs[sensor], lambda: self.constants)
        granted = self._waivers(recipe, sensor, size)
        if not isinstance(made, Encoder):
            network = made[0].to(self.device)
            saw = ClipName.of(target).trained_on if target.startswith(OPEN_CLIP) else ""
            return NetworkSource(
                name, network, recipe, target, waivers=granted, changed=changed, trained_on=saw
            )
        encoder = self._encoder(target, sensor)
        if rule != OWN:
            encoder = Encoder(encoder.trunk, replace(encoder.card, recipe=recipe))
        return EncoderSource(name, encoder, waivers=granted, changed=changed)

    def _control(self, name: str, target: str, sensor: int) -> FeatureSource:
        spec, seed = self.task.specs[sensor], self.config.seed
        if target not in controls_of(self.task):
            raise ConfigError(
                "this control has no patch tokens"
                if self.task.kind is TaskKind.SEGMENTATION
                else "this control is one of segmentation",
                found=target,
                expected=", ".join([*controls_of(self.task), RANDOM]),
                where="--model",
            )
        if target == PIXELS:
            assert spec.size is not None  # noqa: S101 (every task states a size)
            return PixelValues(name, spec.size)
        if target == PATCH_STATISTICS:
            return PatchStatistics(name, self._grid(sensor))
        if target == IMAGESTATS:
            return ImageStatistics(name)
        if target == RCF:
            return gaussian_control(name, spec, seed, self.device)
        return zca_control(
            name, spec, seed, self.device, lambda i: self.images(sensor, i), self.total
        )

    def _grid(self, sensor: int) -> tuple[int, int]:
        """Return the patch grid of the first encoder among the models, or a common size."""
        if self._encoder_words:
            words = self._encoder_words[0]
            halves = words.split("+") if len(self.task.specs) > 1 else [words]
            first = halves[min(sensor, len(halves) - 1)]
            made = self._own(first, sensor) if _is_network(first) else self._encoder(first, sensor)
            if isinstance(made, Encoder):
                return made.trunk.grid
        size = self.task.specs[sensor].size
        assert size is not None  # noqa: S101 (every task states a size)
        return max(1, size[0] // PATCH_SIDE), max(1, size[1] // PATCH_SIDE)

    @property
    def _encoder_words(self) -> list[str]:
        """Words of the models that name encoders."""
        return [
            target
            for _, target in map(_named, self.config.models)
            if _kind(target) not in {*_CONTROLS, RANDOM}
        ]

    @cached_property
    def constants(self) -> BandStatistics:
        """Statistics of the training images of the first sensor."""
        starts = range(0, self.total, _READ)
        batches = (
            collate([self.images(0, i) for i in range(start, min(start + _READ, self.total))])
            for start in starts
        )
        return statistics(batches, self.total)

    def _own(self, target: str, sensor: int) -> Encoder | tuple[nn.Module, Recipe]:
        """Call a user's function once and cache the result."""
        if target not in self.own:
            clip = target.startswith(OPEN_CLIP)
            self.own[target] = load_clip(target) if clip else load_own(target)
        made = self.own[target]
        if isinstance(made, Encoder):
            self.encoders[target, sensor] = made.to(self.device)
        return made

    def twins(self) -> list[Candidate]:
        """Return an untrained twin for every architecture and recipe among the encoders."""
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
        if like in BUILDERS or like.startswith(timm.PREFIX):
            spec = self.task.specs[sensor]
            recipe = default_recipe(spec, _RANDOM_SIZE, default_pooling(like))
            return untrained_control(like, recipe, self.config.seed, self.device, name)
        return self._twin(name, self._encoder(like or self._first(sensor), sensor), sensor)

    def _first(self, sensor: int) -> str:
        """Return the first encoder among the models, for `random` to copy."""
        for target in self._encoder_words:
            if "module" not in _kind(target):
                return target.split("+")[sensor] if len(self.task.specs) > 1 else target
        raise ConfigError(
            "a random encoder needs an architecture and a recipe",
            found=RANDOM,
            expected=f"{RANDOM}:ARCHITECTURE, {RANDOM}:FOLDER, or an encoder among the models",
            where="--model",
        )

    def _encoder(self, target: str, sensor: int) -> Encoder:
        if (target, sensor) not in self.encoders:
            self.encoders[target, sensor] = self._load(target).to(self.device)
        return self.encoders[target, sensor]

    def _load(self, target: str) -> Encoder:
        if resolve(target).kind is WeightsKind.TIMM:
            return load_weights(target, recipe=read_recipe(self.config.recipe))
        return load_weights(target)

    def _waivers(self, recipe: Recipe, sensor: int, size: int | None = None) -> tuple[Waiver, ...]:
        spec = self.task.specs[sensor]
        found = waivers_for(spec, recipe, self.task.waivers, self.forced)
        return found if size is None else (*found, AcceptSize((size, size), CHANGED_WHY))


def read_recipe(file: str | None) -> Recipe:
    """Return the recipe in a YAML file: the fields of `eofm.Recipe`, as in a card.

    Raises:
        ConfigError: If no file is named, or it cannot be read.
    """
    if file is None:
        raise ConfigError(
            "a network of timm does not state its recipe",
            expected="--recipe FILE: sensor, bands, unit, size, normalization, resize, pooling",
            remedy="see benchmarks/README.md for a recipe",
        )
    with foreign(ConfigError, "a recipe cannot be read", where=file):
        content = read_yaml(Path(file))
        return Recipe.from_dict(content if isinstance(content, dict) else {})


# ------------------------------------------------------------------------------- words


def _check_patches(candidate: Candidate) -> None:
    """Raise an error for a model without patches, or with different patch grids in its parts."""
    parts = [part for part in candidate.parts if isinstance(part, TokenSource)]
    if len(parts) < len(candidate.parts):
        raise ConfigError(
            "a segmentation needs patch tokens, and this model has none",
            found=candidate.name,
            expected=f"an encoder; controls {PIXELS}, {PATCH_STATISTICS} and {RANDOM}",
            where="--model",
            remedy="return an eofm.Encoder from your function: its trunk says what patches are",
        )
    grids = {part.grid for part in parts}
    if len(grids) > 1:
        raise ConfigError(
            "two encoders cut an image into different patches",
            found=", ".join(f"{rows} x {columns}" for rows, columns in sorted(grids)),
            where=candidate.name,
            remedy="use two with the same size and patch",
        )


def _kind(target: str) -> str:
    return target.partition(":")[0]


def _is_network(target: str) -> bool:
    """Return whether a word names a network with its own recipe: a function, or open_clip."""
    return target.startswith(OPEN_CLIP) or is_function(target)


def _is_twin(target: str) -> bool:
    """Return whether a word means an untrained twin of an encoder; not so random:resnet50."""
    like = target.partition(":")[2]
    architecture = like in BUILDERS or like.startswith(timm.PREFIX)
    return _kind(target) == RANDOM and not architecture


def _named(word: str) -> tuple[str, str]:
    """Split NAME=TARGET; the default name is that of the folder, otherwise the word itself."""
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


# -------------------------------------------------------------------------------- `eofm bench plan`


@dataclass(frozen=True)
class PlanReport:
    """The steps of a plan, or the reason why there is none.

    Args:
        text: Text to print.
        status: 0 if there is a plan, 1 if the model cannot take the images.
    """

    text: str
    status: int

    def describe(self) -> str:
        """Return the steps, or the mismatch."""
        return self.text


def bench_plan(config: PlanConfig) -> PlanReport:
    """Return how a model takes the images of a task, without reading images or published weights.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If there is no such task or model.
        WeightsError: If the weights are not known.
    """
    task = find_task(config.task)
    forced = [MismatchKind(word) for word in listed(config.force)]
    head = f"{config.model} on {task.name}, version {task.version}"
    others = [name for name in TASKS if family_of(name) == config.task and name != task.name]
    tail = [f"other tasks of {config.task}: {', '.join(others)}"] if others else []
    recipe = _recipe(config)
    try:
        lines = (
            _source_lines(task, config, forced) if recipe is None else _lines(task, recipe, forced)
        )
    except SpecMismatch as error:
        return PlanReport("\n".join([f"{head}: refused\n{error}", *tail]), 1)
    return PlanReport("\n".join([head, *lines, *tail]), 0)


def _recipe(config: PlanConfig) -> Recipe | None:
    """Return the recipe of published weights, without needing their file; None for others."""
    try:
        found = resolve(config.model)
    except WeightsError:
        return None  # a control, or several encoders: resolved elsewhere
    if found.kind is WeightsKind.TIMM:
        return read_recipe(config.recipe)
    return find(found.name)[1] if found.kind is WeightsKind.CARD else None


def _lines(task: Task, recipe: Recipe, forced: list[MismatchKind]) -> list[str]:
    """Return the plan for the sensor of the task that the recipe names, else for the first."""
    spec = next((s for s in task.specs if s.sensor is recipe.sensor), task.spec)
    waivers = waivers_for(spec, recipe, task.waivers, forced)
    lines = plan(spec, recipe, waivers).describe().splitlines()
    if any(waiver.why == FORCED_WHY for waiver in waivers):
        lines.append("forced: a row of such a run is marked, and left out of tables")
    return lines


def _source_lines(task: Task, config: PlanConfig, forced: list[MismatchKind]) -> list[str]:
    source = plan_source(task, config.model, config.recipe, forced)
    identity = source.identity(task.spec)
    return list(identity.plan) or [f"no plan: {identity.about}, of images as they are"]
