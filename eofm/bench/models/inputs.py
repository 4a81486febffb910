"""Inputs other than a network's own: the normalisations of arXiv 2305.13456, by name.

The same weights, images, splits and probe, and only the input changed: what that costs is what
`--size` and `--normalization` show. Rows of such inputs are marked, and stay out of tables of
results.

Shapes: C bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from eofm.bench.config import AUTO, OWN
from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import convert_unit
from eofm.contract.recipe import Recipe
from eofm.contract.spec import ImageSpec, Normalization, Unit
from eofm.errors import ConfigError, SpecMismatch
from eofm.progress import track


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
        spec: What the images are.
        constants: Finds the statistics of the training split, where the rule needs them.
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
    # a band that the images lack is filled after the normalisation: its constants mean nothing
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
