"""What is scored on what: hashes of ids and images, and copies across splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eofm.bench.digests import content_sha256
from eofm.bench.labels import Subset
from eofm.bench.results import Sample
from eofm.bench.tasks import Loaded
from eofm.datasets.chips import Chips
from eofm.datasets.copies import copies_in_test
from eofm.store.splits import SPLITS, subset_hash


def _ids_sha256(chips: Chips) -> str:
    return subset_hash(f"{name} {chip.id}" for name in SPLITS for chip in chips.splits[name])


def subsample_of(
    whole: Sample,
    subset: Subset,
    chips: Chips,
    digests: Mapping[str, str],
    contents: Mapping[str, str],
) -> Sample:
    """Return what is scored with some of the labels: `complete` goes on speaking of the images.

    Args:
        whole: With all of them.
        subset: The share.
        chips: The images, in train those of the share.
        digests: `digests_of` the images.
        contents: `digests_of` their `eofm.datasets.copies.contents`.
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
        copies=len(copies_in_test(chips.splits, contents)),
        labels=subset.words,
        draw=subset.draw,
        train_sha256=subset_hash(chip.id for chip in train),
    )


def sample_of(
    loaded: Loaded, chips: Chips, digests: Mapping[str, str], contents: Mapping[str, str]
) -> Sample:
    """Return what is scored on what.

    Args:
        loaded: The task.
        chips: Its images, or those of them that are kept.
        digests: `digests_of` the images.
        contents: `digests_of` their `eofm.datasets.copies.contents`.
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
        copies=len(copies_in_test(chips.splits, contents)),
        train_sha256=train_sha,
        val_sha256=val_sha,
        test_sha256=test_sha,
    )
