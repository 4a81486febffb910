"""What is scored on what: hashes of ids and images, and copies across splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from eofm.bench.cache import keep_json
from eofm.bench.digests import content_sha256
from eofm.bench.labels import Subset
from eofm.bench.results import Sample
from eofm.bench.tasks import Loaded
from eofm.contract.spec import ImageSpec
from eofm.datasets.chips import Chips
from eofm.datasets.copies import Image, copies_in_test, values_sha256
from eofm.progress import track
from eofm.store.splits import SPLITS, subset_hash


def _ids_sha256(chips: Chips) -> str:
    return subset_hash(f"{name} {chip.id}" for name in SPLITS for chip in chips.splits[name])


def subsample_of(
    whole: Sample,
    subset: Subset,
    chips: Chips,
    digests: Mapping[str, str],
    values: Mapping[str, str],
) -> Sample:
    """Return what is scored with some of the labels: `complete` goes on speaking of the images.

    Args:
        whole: With all of them.
        subset: The share.
        chips: The images, in train those of the share.
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
        copies=len(copies_in_test(chips.splits, values)),
        labels=subset.words,
        draw=subset.draw,
        train_sha256=subset_hash(chip.id for chip in train),
    )


def sample_of(
    loaded: Loaded, chips: Chips, digests: Mapping[str, str], values: Mapping[str, str]
) -> Sample:
    """Return what is scored on what.

    Args:
        loaded: The task.
        chips: Its images, or those of them that are kept.
        digests: `digests_of` the images.
        values: `values_of` the images.
    """
    train, val, test = (chips.splits[name] for name in SPLITS)
    whole = len(loaded.chips.all) if loaded.published is None else loaded.published
    train_sha, val_sha, test_sha = (subset_hash(c.id for c in part) for part in (train, val, test))
    return Sample(
        dataset=loaded.task.dataset,
        split=chips.rule,
        ids_sha256=_ids_sha256(chips),
        data_sha256=content_sha256(chips.all, digests),
        n_train=len(train),
        n_val=len(val),
        n_test=len(test),
        complete=len(chips.all) == whole,
        copies=len(copies_in_test(chips.splits, values)),
        train_sha256=train_sha,
        val_sha256=val_sha,
        test_sha256=test_sha,
    )


_VALUES: Final = "values.json"


def values_of(
    images: Sequence[Image],
    digests: Mapping[str, str],
    specs: Sequence[ImageSpec],
    cache: Path | None = None,
) -> dict[str, str]:
    """Return the sha256 of the pixels of every image, by id.

    Args:
        images: The images.
        digests: `digests_of` them: an image of the same files need not be decoded again.
        specs: What they are stated to be: it decides what is read of a file.
        cache: Folder in which they are remembered; None decodes all images.

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
    """Return what is remembered; nothing where the file is not whole."""
    try:
        return {str(a): str(b) for a, b in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}
