"""Fewer training labels: subsets by a stated rule, the same on every machine.

The training images are put in the order of sha256("{data set}|{draw}|{id}"), and the first are
taken: the first 1 % lie within the first 10 %, whatever the order of files. `N-shot` takes the
first N of each class. Draw 0 of a BigEarthNet task is the list that `--percent` takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from eofm.bench.config import listed
from eofm.bench.results import Sample
from eofm.datasets.chips import Chip, class_counts
from eofm.errors import ConfigError
from eofm.store.splits import hash_order

_SENSOR: Final = re.compile(r"-(s1|s2|both)(-43)?$")
_SHOTS: Final = "-shot"


@dataclass(frozen=True)
class Subset:
    """Some of the training images.

    Args:
        words: `10 %` or `5-shot`; empty for all of them.
        draw: Number of the draw.
        chips: The images, in the order of the whole split.
        index: Their places in it.
    """

    words: str
    draw: int
    chips: tuple[Chip, ...]
    index: tuple[int, ...]

    def rule(self, split: str) -> str:
        """Return how the images are divided, in words, given how the whole set is."""
        if not self.words:
            return split
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{split}, {self.words} of train{draw}"


def whole_split(sample: Sample) -> str:
    """Return how the images of a sample are divided, in words, whatever share of labels it has."""
    tail = Subset(sample.labels, sample.draw, (), ()).rule("")
    return sample.split.removesuffix(tail)


def subsets(
    text: str, draws: int, train: Sequence[Chip], task: str, classes: Sequence[str]
) -> list[Subset]:
    """Return the subsets of the training images that settings name; all of them without settings.

    Args:
        text: As `BenchConfig.shares`.
        draws: Of each kind; all images are drawn once.
        train: The training images.
        task: Name of the task. Its sensor has no say: Sentinel-1 and -2 get the same places.
        classes: Names of the classes.

    Raises:
        ConfigError: If a class of single-label images would have no training image.
    """
    found: dict[tuple[int, ...], Subset] = {}
    for draw in range(draws):
        order = hash_order((chip.id for chip in train), _SENSOR.sub("", task), draw)
        for word in listed(text) or ("100",):
            subset = _subset(word, draw, order, train)
            _check_classes(subset, train, classes)
            found.setdefault(subset.index, subset)
    return list(found.values())


def _subset(word: str, draw: int, order: Sequence[str], train: Sequence[Chip]) -> Subset:
    if word.endswith(_SHOTS):
        kept = _first_of_each(order, train, int(word.removesuffix(_SHOTS)))
        words = word
    else:
        share = Fraction(word.rstrip("%"))
        kept = set(order[: math.ceil(share / 100 * len(order))])
        words = f"{float(share):g} %"
    index = tuple(place for place, chip in enumerate(train) if chip.id in kept)
    whole = len(index) == len(train)
    return Subset("" if whole else words, 0 if whole else draw, _at(train, index), index)


def _at(train: Sequence[Chip], index: Sequence[int]) -> tuple[Chip, ...]:
    return tuple(train[place] for place in index)


def _first_of_each(order: Sequence[str], train: Sequence[Chip], count: int) -> set[str]:
    """Return the first images of each class; an image of several classes counts for each."""
    labels = {chip.id: chip.label for chip in train}
    seen: dict[int, int] = {}
    kept = set()
    for name in order:
        label = labels[name]
        for one in (label,) if isinstance(label, int) else label:
            seen[one] = seen.get(one, 0) + 1
            if seen[one] <= count:
                kept.add(name)
    return kept


def _check_classes(subset: Subset, train: Sequence[Chip], classes: Sequence[str]) -> None:
    if any(isinstance(chip.label, tuple) for chip in train):
        return
    before, after = class_counts(train, classes), class_counts(subset.chips, classes)
    empty = [name for name in classes if before[name] and not after[name]]
    if empty:
        raise ConfigError(
            "so few labels leave a class without a training image",
            found=f"{subset.words}, draw {subset.draw}: {len(subset.chips)} images, none of "
            + ", ".join(empty),
            where="--shares",
            remedy="take a larger share, or so many of each class: --shares 5-shot",
        )
