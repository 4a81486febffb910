"""Scores of a segmentation: a confusion matrix per test image, summed before anything is divided.

The mean of per-image or per-batch scores is another number: an image without a class has no
intersection over union of it. Intervals resample images (or what belongs together: the windows of
one scene), since the pixels of one image are not independent of one another.

Shapes: N images, K classes, G groups, R resamples, H by W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from eofm.datasets.dense_chips import VOID
from eofm.errors import LabelError
from eofm.probes.bootstrap import Resampled
from eofm.probes.metrics import Metric

# Key of the probe in records.
SEGMENTATION: Final = "dense-linear"


def confusions(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return how many pixels of each true class were called what: int64 (N, K, K).

    Args:
        predicted: Class indices, (N, H, W).
        target: Class indices, (N, H, W); `VOID` pixels count nowhere.
        classes: K.

    Raises:
        LabelError: If the shapes differ, or a class is out of range.
    """
    if predicted.shape != target.shape:
        raise LabelError(
            "a segmentation has not the size of its mask",
            found=tuple(predicted.shape),
            expected=tuple(target.shape),
        )
    true, said = target.long(), predicted.long()
    known, cells = true != VOID, classes**2
    strange = (true < VOID) | (true >= classes) | (said < 0) | (said >= classes)
    if bool((strange & known).any()):
        raise LabelError("a class is out of range", expected=f"0..{classes - 1}")
    image = torch.arange(len(target)).view(-1, 1, 1)
    # void pixels go to a bin behind all others: cheaper than to pick the rest out
    index = torch.where(known, (image * classes + true) * classes + said, len(target) * cells)
    count = torch.bincount(index.flatten(), minlength=len(target) * cells + 1)
    return count[:-1].view(-1, classes, classes)


def grouped(matrices: Tensor, groups: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Sum the matrices of each group: int64 (G, K, K), and the groups in order.

    Args:
        matrices: (N, K, K).
        groups: Of each image, N.
    """
    names = tuple(dict.fromkeys(groups))
    place = {name: index for index, name in enumerate(names)}
    out = matrices.new_zeros(len(names), *matrices.shape[1:])
    return out.index_add(0, torch.tensor([place[g] for g in groups]), matrices), names


def class_iou(matrices: Tensor) -> Tensor:
    """Return the intersection over union of each class, float64 (..., K).

    NaN for a class that occurs in no target, whether or not it was predicted: it stays out of the
    mean.

    Args:
        matrices: (..., K, K), true classes in rows.
    """
    counts = matrices.double()
    right = counts.diagonal(dim1=-2, dim2=-1)
    true, said = counts.sum(dim=-1), counts.sum(dim=-2)
    return torch.where(true > 0, right / (true + said - right), torch.nan)


def mean_iou(matrices: Tensor) -> Tensor:
    """Return the mean over the classes that occur in the targets, float64 (...)."""
    return class_iou(matrices).nanmean(dim=-1)


def pixel_accuracy(matrices: Tensor) -> Tensor:
    """Return the share of labelled pixels whose class is right, float64 (...)."""
    counts = matrices.double()
    return counts.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / counts.sum(dim=(-2, -1))


def resampled_segmentation(matrices: Tensor, metric: Metric) -> Resampled:
    """Return a score as a function of how often each group was drawn.

    Args:
        matrices: (G, K, K).
        metric: `Metric.MIOU` or `Metric.PIXEL_OA`.

    Raises:
        LabelError: If no pixel is labelled.
    """
    _check(matrices)
    score = mean_iou if metric is Metric.MIOU else pixel_accuracy
    return lambda counts: score(_drawn(matrices, counts))


def resampled_iou(matrices: Tensor) -> Resampled:
    """Return each class's intersection over union as a function of counts: (R, G) -> (R, K).

    Raises:
        LabelError: If no pixel is labelled.
    """
    _check(matrices)
    return lambda counts: class_iou(_drawn(matrices, counts))


def _check(matrices: Tensor) -> None:
    if int(matrices.sum()) == 0:
        raise LabelError("no pixel of the test images is labelled")


def _drawn(matrices: Tensor, counts: Tensor) -> Tensor:
    """Return the sum over the groups drawn, (R, K, K)."""
    k = matrices.shape[-1]
    return (counts @ matrices.flatten(1).double()).view(-1, k, k)
