"""The cells of an ablation: sizes and normalisations an encoder is fed instead of its own.

Shapes: C bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from eofm.bench.ablate_config import AUTO
from eofm.contract.preprocess import convert_unit
from eofm.contract.recipe import Recipe
from eofm.contract.spec import ImageSpec, Normalization, Unit
from eofm.datasets.chips import Chip, read_batches
from eofm.errors import ConfigError, SpecMismatch
from eofm.progress import track
from eofm.weights.encoder import Encoder


@dataclass(frozen=True)
class Setting:
    """One input of one model.

    Args:
        model: Name of the model.
        size: Pixels at a side.
        normalization: As on the command line.
        own: Whether both are the recipe's.
    """

    model: str
    size: int
    normalization: str
    own: bool

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.model} {self.size} px {self.normalization}"


@dataclass(frozen=True)
class BandStatistics:
    """Of each band over the valid pixels of the training split.

    Args:
        mean: (C,).
        std: (C,).
        low: Smallest values, (C,).
        high: Largest values, (C,).
        source: In words.
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
    """Return the rules to try, `auto` spelt out.

    Args:
        words: As on the command line.
        spec: What the images are.

    Raises:
        ConfigError: If a division does not suit the unit of the images.
    """
    divisions = [n for n, (_, unit, _) in _DIVISIONS.items() if _reaches(spec.unit, unit)]
    every = ("own", *OF_TRAIN, *divisions)
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


def recipes(
    sizes: Sequence[str],
    rules: Sequence[str],
    model: str,
    encoder: Encoder,
    spec: ImageSpec,
    constants: BandStatistics | None,
) -> list[tuple[Setting, Recipe]]:
    """Return every cell of the table with what the encoder eats in it.

    Args:
        sizes: In pixels, or `own`; rounded to whole patches.
        rules: Normalisations.
        model: Name of the model.
        encoder: It.
        spec: What the images are.
        constants: Of the training split; None if no rule needs them.
    """
    own, found = encoder.recipe, []
    for word in sizes:
        step = encoder.trunk.multiple
        size = own.size[0] if word == "own" else max(1, round(int(word) / step)) * step
        for rule in rules:
            recipe = own if rule == "own" else _normalized(own, rule, spec, constants)
            standard = rule == "own" and (size, size) == own.size
            recipe = recipe if standard else replace(recipe, size=(size, size))
            found.append((Setting(model, size, rule, standard), recipe))
    return found


def _normalized(
    recipe: Recipe, rule: str, spec: ImageSpec, constants: BandStatistics | None
) -> Recipe:
    count = len(recipe.bands)
    if rule in _DIVISIONS:
        by, unit, why = _DIVISIONS[rule]
        return replace(recipe, unit=unit, normalization=Normalization.divide(by, count, why))
    assert constants is not None  # noqa: S101 (computed for every other rule)
    source = constants.source
    first, second = {
        "zscore": (constants.mean, constants.std),
        "two-sigma": (constants.mean, constants.std),
        "minmax": (constants.low, constants.high - constants.low),
    }[rule]
    # a band that the images lack is filled after the normalisation: its constants mean nothing
    places = [spec.bands.index(b) if b in spec.bands else None for b in recipe.bands]
    shift = [0.0 if i is None else float(first[i]) for i in places]
    scale = [1.0 if i is None else float(second[i]) for i in places]
    if rule == "two-sigma":
        made = Normalization.two_sigma(shift, scale, source)
    else:
        made = Normalization.zscore(shift, scale, f"{rule} of {source}")
    return replace(recipe, unit=spec.unit, normalization=made)


def statistics(train: Sequence[Chip]) -> BandStatistics:
    """Return the statistics of each band over the training split."""
    total = square = low = high = torch.zeros(0)
    count = torch.zeros(1)
    step = 64
    batches = track(read_batches(train, step), "statistics of train", -(-len(train) // step))
    for imagery in batches:
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
        count = count + valid.sum()
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    return BandStatistics(mean, std, low, high, f"the training split, {len(train)} images")
