"""How often the training labels hold each class: images, or labelled pixels.

A class that is rare in training is often one that a model is poor at; the counts stand in every
record, so that a score can be read against them (`eofm.bench.reports.frequency`).

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache as once_per_run

import torch
from torch import Tensor

from eofm.bench.cache import FeatureCache, Key, content_sha256
from eofm.datasets.images.dense import VOID, DenseChip
from eofm.progress import track


def label_counts(target: Tensor, classes: int) -> tuple[int, ...]:
    """Return how many training images have each class, (K,).

    Args:
        target: (N,) class indices, or (N, K) with 1 where a class is present.
        classes: K.
    """
    hot = torch.nn.functional.one_hot(target, classes) if target.ndim == 1 else target
    return tuple(int(count) for count in hot.sum(dim=0))


def pixel_counts(
    chips: Sequence[DenseChip], classes: int, digests: Mapping[str, str], cache: FeatureCache
) -> tuple[int, ...]:
    """Return how many labelled pixels of the training masks each class has, (K,).

    Masks are read once per data set: the counts are kept in the feature cache.

    Args:
        chips: The training images.
        classes: K.
        digests: sha256 of every image and its mask, by id.
        cache: Where counts are kept.

    Raises:
        RasterError: If a mask is damaged.
        LabelError: If a mask does not fit its image or holds an unknown code.
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
