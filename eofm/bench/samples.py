"""Samples of a run: its images, their hashes, copies, label subsets, counts.

The settings of a run name its task and its images; some pixels are checked against the declared
unit and bands before anything is scored.

Subsets of labels follow a stated rule that gives the same subsets on every machine: the training
images are sorted by sha256("{data set}|{draw}|{id}"), and the first are used. So the first 1 % are
part of the first 10 %, whatever the order of files. `N-shot` takes the first N of each class.
Draw 0 of a BigEarthNet task is the list that `--percent` takes.

Models often perform poorly on classes that are rare in training; every record therefore contains
the number of training labels of each class, for comparison with its score
(`eofm.bench.reports.classes`).

Images that hold the same pixels are a leak where one is in test and the other in train or val.
Content decides, not names and not files: the sha256 of the values as they are read, in the unit
they are stored in. A copy that was renamed, compressed otherwise or given other tags is a copy; two
files of one name are not.

Shapes: N images, K classes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache as once_per_run
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Final, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from eofm.bench.config import ScoringConfig, listed
from eofm.bench.features import FeatureCache, Key, code_sha256, content_sha256, keep_json, kept_json
from eofm.bench.records import Sample
from eofm.contract import validity
from eofm.contract.imagery import Imagery, collate
from eofm.contract.spec import ImageSpec, spec_key
from eofm.datasets.base import AnyChips, Loaded, Task
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    Grouping,
    Pixels,
    class_counts,
    groups_sha256,
)
from eofm.datasets.images.dense import VOID, DenseChip
from eofm.datasets.registry import FAMILIES
from eofm.errors import ConfigError, PixelError
from eofm.store.splits import SPLITS, hash_order, subset_hash
from eofm.terminal import track

__all__ = [
    "GroupFields",
    "Image",
    "Splits",
    "Subset",
    "check_pixels",
    "copies_in_test",
    "copy_remarks",
    "countries_in",
    "group_fields",
    "groups_in",
    "label_counts",
    "limited",
    "load",
    "pixel_counts",
    "sample_of",
    "subsample_of",
    "subsets",
    "unit_of",
    "units_of",
    "values_of",
    "values_sha256",
    "whole_split",
]


def load(config: ScoringConfig) -> Loaded:
    """Open the data set of the settings.

    Raises:
        DataError: If the folder is not the data set.
        ConfigError: If the settings name no data set, or contradict the folder.
    """
    if config.verb not in FAMILIES:
        raise ConfigError("these settings name no data set", found=type(config).__name__)
    return FAMILIES[config.verb].open(config)


# ------------------------------------------------------------------------ quality checks

# Maximum number of training images checked, and of rows and columns of each.
_IMAGES: Final = 128
_SIDE: Final = 64


def check_pixels(
    task: Task, chips: AnyChips, digests: Mapping[str, str], cache: FeatureCache
) -> None:
    """Check that pixels match their declaration; bytes that passed before are not read again.

    Args:
        task: Task with the declaration of the images.
        chips: The images; a sample of train, evenly spread, is checked.
        digests: `digests_of` the images.
        cache: Cache of the checks that passed.

    Raises:
        PixelError: If they do not match.
        RasterError: If an image is damaged.
    """
    train = chips.splits["train"]
    some = train[:: -(-len(train) // _IMAGES)]
    content, code = content_sha256(some, digests), code_sha256(validity.__file__)
    for sensor, spec in enumerate(task.specs):
        what = {"spec": spec_key(spec), "sensor": str(sensor), "data": content}
        key = Key({"kind": "quality checks", "code": code, **what})
        cache.fact(key, partial(_look, some, sensor, chips.root))


def _look(some: Sequence[Chip | DenseChip], sensor: int, root: Path) -> int:
    """Check a sample of images and return their number."""
    batch = collate([_thinned(chip.pixels[sensor].read()) for chip in some])
    try:
        validity.check_plausible(batch, [chip.id for chip in some])
    except PixelError as error:
        error.where = f"{root}" if error.where is None else f"{root}: {error.where}"
        files = some[error.images[0]].pixels[sensor].place.files if error.images else ()
        if len(files) == 1 and error.remedy is not None:
            error.remedy = error.remedy.replace("FILE", quote(str(files[0])))
        raise
    return len(batch)


def _thinned(imagery: Imagery) -> Imagery:
    """Return some of the rows and columns of a large image, to save memory."""
    step = max(1, min(imagery.pixels.shape[2:]) // _SIDE)
    pixels = imagery.pixels[:, :, ::step, ::step]
    size = (pixels.shape[2], pixels.shape[3])
    return Imagery(pixels, replace(imagery.spec, size=size), imagery.valid[:, ::step, ::step])


# ----------------------------------------------------------------------------------------- samples


class GroupFields(TypedDict):
    """The fields of a `Sample` on groups."""

    groups: int
    grouping: str
    grouped_by: str
    grouped: bool
    groups_sha256: str


def unit_of(chip: Chip | DenseChip) -> str:
    """Return the unit of sampling: the image, or the scene of which it is a window."""
    return chip.scene if isinstance(chip, DenseChip) else chip.id


def units_of(part: Iterable[Chip | DenseChip]) -> tuple[str, ...]:
    """Return the samples of a split, unique and in order."""
    return tuple(dict.fromkeys(unit_of(chip) for chip in part))


def groups_in(part: Iterable[Chip | DenseChip]) -> tuple[str, ...]:
    """Return the group of each of `units_of` a split, in their order."""
    found = {unit_of(chip): chip.group or unit_of(chip) for chip in part}
    return tuple(found.values())


def countries_in(part: Sequence[Chip | DenseChip]) -> tuple[str, ...]:
    """Return the country of each image of a split; empty if unknown."""
    found = tuple(chip.country for chip in part if isinstance(chip, Chip))
    return found if any(found) else ()


def limited(loaded: Loaded, limit: int | None) -> AnyChips:
    """Return the images of a task, of each split at most `limit` samples, chosen by hash."""
    if limit is None:
        return loaded.chips
    kept = {}
    for name, part in loaded.chips.splits.items():
        units = set(hash_order(units_of(part), loaded.task.name)[:limit])
        kept[name] = frozenset(chip.id for chip in part if unit_of(chip) in units)
    return loaded.chips.keeping(kept)


def _ids_sha256(chips: AnyChips) -> str:
    return subset_hash(f"{name} {unit}" for name in SPLITS for unit in units_of(chips.splits[name]))


def subsample_of(
    whole: Sample,
    subset: Subset,
    chips: Chips,
    digests: Mapping[str, str],
    values: Mapping[str, str],
) -> Sample:
    """Return the sample with a subset of the labels; `complete` still refers to the images.

    Args:
        whole: Sample with all labels.
        subset: The subset.
        chips: The images, in train those of the subset.
        digests: `digests_of` the images.
        values: `values_of` the images.
    """
    if not subset.words:
        return whole
    train = chips.splits["train"]
    return replace(
        whole,
        split=subset.rule(whole.split),
        ids_sha256=_ids_sha256(chips),
        data_sha256=content_sha256(chips.all, digests),
        n_train=len(train),
        copies=_copies(chips, values),
        labels=subset.words,
        draw=subset.draw,
        train_sha256=subset_hash(chip.id for chip in train),
    )


def sample_of(
    loaded: Loaded, chips: AnyChips, digests: Mapping[str, str], values: Mapping[str, str]
) -> Sample:
    """Return the description of the samples of a run.

    Args:
        loaded: The task.
        chips: Its images, or a subset.
        digests: `digests_of` the images.
        values: `values_of` the images.
    """
    train, val, test = (units_of(chips.splits[name]) for name in SPLITS)
    published = loaded.published
    return Sample(
        dataset=loaded.task.dataset,
        split=chips.rule,
        ids_sha256=_ids_sha256(chips),
        data_sha256=content_sha256(chips.all, digests),
        n_train=len(train),
        n_val=len(val),
        n_test=len(test),
        complete=len(units_of(chips.all))
        == (len(units_of(loaded.chips.all)) if published is None else published),
        copies=_copies(chips, values),
        train_sha256=subset_hash(train),
        val_sha256=subset_hash(val),
        test_sha256=subset_hash(test),
        **group_fields(loaded.task.grouping, test, groups_in(chips.splits["test"])),
    )


def _copies(chips: AnyChips, values: Mapping[str, str]) -> int:
    """Return the number of test samples whose pixels equal those of an image of train or val."""
    found = copies_in_test(chips.splits, values)
    return len({unit_of(chip) for chip in chips.splits["test"] if chip.id in found})


def group_fields(grouping: Grouping, ids: Sequence[str], groups: Sequence[str]) -> GroupFields:
    """Return the fields of a sample on the groups of its test split.

    Args:
        grouping: Grouping of the task.
        ids: Ids of the test samples.
        groups: The group of each of them.
    """
    return {
        "groups": len(set(groups)),
        "grouping": grouping.what,
        "grouped_by": grouping.why,
        "grouped": grouping.known,
        "groups_sha256": groups_sha256(ids, groups),
    }


# ------------------------------------------------------------------------------------- copies

_NAMED: Final = 5
_VALUES: Final = "values.json"


class Image(Protocol):
    """One image of a task."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def pixels(self) -> tuple[Pixels, ...]:
        """One entry per sensor."""
        ...


Splits = Mapping[str, Sequence[Image]]


def values_of(
    images: Sequence[Image],
    digests: Mapping[str, str],
    specs: Sequence[ImageSpec],
    cache: Path | None = None,
) -> dict[str, str]:
    """Return the sha256 of the pixels of every image, by id.

    Args:
        images: The images.
        digests: `digests_of` them: an image with the same files need not be decoded again.
        specs: Declarations of the images, which determine how a file is read.
        cache: Folder of cached hashes; None decodes all images.

    Raises:
        RasterError: If an image is damaged.
        DataError: If the folder cannot be written.
    """
    file = None if cache is None else cache / _VALUES
    known = {} if file is None else _remembered(file)
    fresh: dict[str, str] = {}
    kind = " ".join(f"{spec.sensor} {','.join(spec.bands)} {spec.unit}" for spec in specs)
    keys = {image.id: f"{digests[image.id]} {kind}" for image in images}
    for image in track(images, "comparing images"):
        key = keys[image.id]
        if key not in known and key not in fresh:
            fresh[key] = values_sha256(image)
    every = {**known, **fresh}
    if file is not None and fresh:
        keep_json(file, every)
    return {name: every[key] for name, key in keys.items()}


def _remembered(file: Path) -> dict[str, str]:
    """Return the cached hashes; empty if the file is incomplete."""
    return {str(key): str(digest) for key, digest in kept_json(file).items()}


def values_sha256(image: Image) -> str:
    """Return the sha256 of the values of an image as read, and of which of them are measured.

    Raises:
        RasterError: If a file is damaged, or the image is not of the stated kind.
    """
    digest = hashlib.sha256()
    for pixels in image.pixels:
        imagery = pixels.read()
        digest.update(f"{imagery.spec.bands} {tuple(imagery.pixels.shape)}".encode())
        digest.update(np.ascontiguousarray(imagery.pixels.numpy()).data)
        digest.update(np.ascontiguousarray(imagery.valid.numpy()).data)
    return digest.hexdigest()


def copies_in_test(splits: Splits, digests: Mapping[str, str]) -> dict[str, str]:
    """Return test images that hold the pixels of one of train or val: name -> its name.

    Args:
        splits: The images.
        digests: The `values_sha256` of each, by name.
    """
    seen = {digests[c.id]: c.id for name in ("train", "val") for c in splits[name]}
    test = [(one.id, digests[one.id]) for one in splits["test"]]
    return {name: seen[digest] for name, digest in test if digest in seen}


def copy_remarks(splits: Splits, digests: Mapping[str, str], root: Path) -> tuple[str, ...]:
    """Return remarks that name the files of copies: of test in train or val, and within a split.

    Args:
        splits: The images.
        digests: The `values_sha256` of each, by name.
        root: The folder that file names are relative to.
    """
    by_id = {one.id: one for name in SPLITS for one in splits[name]}
    across = copies_in_test(splits, digests)
    within: dict[str, str] = {}
    for name in SPLITS:
        seen: dict[str, str] = {}
        for one in splits[name]:
            first = seen.setdefault(digests[one.id], one.id)
            if first != one.id:
                within[one.id] = first
    said = []
    for what, found in (
        ("Leak: copies of training images in test", across),
        ("Images that are there twice within a split", within),
    ):
        if found:
            pairs = [
                f"{_file(by_id[a], root)} is {_file(by_id[b], root)}" for a, b in found.items()
            ]
            more = f" and {len(pairs) - _NAMED} more" if pairs[_NAMED:] else ""
            said.append(f"{what}: {', '.join(pairs[:_NAMED])}{more}. Remove one of each two files.")
    return tuple(said)


def _file(image: Image, root: Path) -> str:
    """Return the first file of an image, and which part of it; its name tells no more."""
    place = image.pixels[0].place
    file = place.files[0]
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return f"{shown} ({place.part})" if place.part else str(shown)


# -------------------------------------------------------------------------- subsets of labels


_SENSOR: Final = re.compile(r"-(s1|s2|both)(-43)?$")

_SHOTS: Final = "-shot"


@dataclass(frozen=True)
class Subset:
    """A subset of the training images.

    Args:
        words: `10 %` or `5-shot`; empty for all of them.
        draw: Number of the draw.
        chips: The images, in the order of the whole split.
        index: Their positions in it.
    """

    words: str
    draw: int
    chips: tuple[Chip, ...]
    index: tuple[int, ...]

    def rule(self, split: str) -> str:
        """Return the description of the split, given that of the whole set."""
        if not self.words:
            return split
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{split}, {self.words} of train{draw}"


def whole_split(sample: Sample) -> str:
    """Return the description of the split of a sample without its label subset."""
    tail = Subset(sample.labels, sample.draw, (), ()).rule("")
    return sample.split.removesuffix(tail)


def subsets(
    text: str, draws: int, train: Sequence[Chip], task: str, classes: Sequence[str]
) -> list[Subset]:
    """Return the subsets of the training images in the settings; by default all images.

    Args:
        text: As `BenchConfig.shares`.
        draws: Number of draws of each kind; all images are drawn once.
        train: The training images.
        task: Name of the task. Its sensor is ignored: Sentinel-1 and -2 get the same places.
        classes: Names of the classes.

    Raises:
        ConfigError: If a class of single-label images would have no training image.
    """
    found: dict[tuple[int, ...], Subset] = {}
    several = any(isinstance(chip.label, tuple) for chip in train)
    before = {} if several else class_counts(train, classes)
    for draw in range(draws):
        order = hash_order((chip.id for chip in train), _SENSOR.sub("", task), draw)
        for word in listed(text) or ("100",):
            subset = _subset(word, draw, order, train)
            if subset.words and not several:
                _check_classes(subset, before)
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
    """Return the first images of each class; multi-label images count for each class."""
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


def _check_classes(subset: Subset, before: Mapping[str, int]) -> None:
    """Check that every class with training images still has some in the subset."""
    after = class_counts(subset.chips, list(before))
    empty = [name for name, count in before.items() if count and not after[name]]
    if empty:
        raise ConfigError(
            "so few labels leave a class without a training image",
            found=f"{subset.words}, draw {subset.draw}: {len(subset.chips)} images, none of "
            + ", ".join(empty),
            where="--shares",
            remedy="use a larger share, or a number per class: --shares 5-shot",
        )


# --------------------------------------------------------------------------------- counts of labels


def label_counts(target: Tensor, classes: int) -> tuple[int, ...]:
    """Return the number of training images of each class, (K,).

    Args:
        target: (N,) class indices, or (N, K) with 1 where a class is present.
        classes: K.
    """
    hot = torch.nn.functional.one_hot(target, classes) if target.ndim == 1 else target
    return tuple(int(count) for count in hot.sum(dim=0))


def pixel_counts(
    chips: Sequence[DenseChip], classes: int, digests: Mapping[str, str], cache: FeatureCache
) -> tuple[int, ...]:
    """Return the number of labelled pixels of each class in the training masks, (K,).

    Masks are read once per data set: the counts are stored in the feature cache.

    Args:
        chips: The training images.
        classes: K.
        digests: sha256 of every image and its mask, by id.
        cache: Cache of the counts.

    Raises:
        RasterError: If a mask is damaged.
        LabelError: If a mask does not match its image or has an unknown code.
    """

    @once_per_run
    def counted() -> list[int]:
        total = torch.zeros(classes, dtype=torch.int64)
        for chip in track(chips, "counting labels"):
            mask = chip.mask.read()
            total += torch.bincount(mask[mask != VOID].long(), minlength=classes)
        return [int(count) for count in total]

    data = content_sha256(chips, digests)
    found = []
    for index in range(classes):
        key = Key({"kind": "labelled pixels", "data": data, "class": f"{index} of {classes}"})

        def count(index: int = index) -> int:
            return counted()[index]

        found.append(cache.fact(key, count))
    return tuple(found)
