"""Scores of predictions on a whole test set, and how sure they are.

Always the whole, concatenated set: the mean of per-batch scores is another number (on
BigEarthNet it is off by 2 points for micro AP and by up to 40 for macro AP). Ids of metrics are
`ap_micro`, `ap_macro`, `oa`, `aa`; the bare word mAP names none, for micro and macro differ by
ten points on the same predictions.

Shapes: N samples, K classes, R bootstrap repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor

from eofm.errors import ConfigError, LabelError, PixelError

# Resamples evaluated at once: bounds the index matrix at 8 MB.
_BOOTSTRAP_CELLS: Final = 1_000_000


class Metric(StrEnum):
    """Ids of metrics."""

    AP_MICRO = "ap_micro"
    AP_MACRO = "ap_macro"
    OA = "oa"
    AA = "aa"


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, AP = Σ (R_i - R_{i-1}) P_i over the distinct scores.

    Args:
        micro: Of all N x K decisions in one list.
        macro: Mean over the classes that occur in the targets.
        per_class: One value per class; None where the class has no positive.
    """

    micro: float
    macro: float
    per_class: tuple[float | None, ...]

    @property
    def classes_scored(self) -> int:
        """Number of classes in the macro average."""
        return sum(value is not None for value in self.per_class)


def average_precision(scores: Tensor, targets: Tensor) -> AveragePrecision:
    """Return micro, macro and per-class average precision of multi-label scores.

    Equal scores form one step, so the order of the samples never matters. A class without a
    positive has no AP and stays out of the macro average (torchmetrics would count it as 0,
    scikit-learn warns and does the same).

    Args:
        scores: (N, K), any monotone confidence: logits, probabilities, votes.
        targets: (N, K), 1 or True where the class is present.

    Raises:
        LabelError: If the shapes differ, targets are not 0 or 1, or no class is present at all.
        PixelError: If a score is NaN.
    """
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise LabelError(
            "scores and targets must both be (samples, classes)",
            found=f"{tuple(scores.shape)} and {tuple(targets.shape)}",
        )
    if not ((targets == 0) | (targets == 1)).all():
        raise LabelError("targets must be 0 or 1", found=torch.unique(targets)[:5].tolist())
    if scores.isnan().any():
        raise PixelError("a score is NaN", where="average precision")
    positives = targets.sum(dim=0)
    if int(positives.sum()) == 0:
        raise LabelError(
            "average precision needs at least one positive label",
            found="none",
            where=f"{scores.shape[0]} samples, {scores.shape[1]} classes",
            remedy="score more samples, or check that the labels are known",
        )
    ranks = _ranks(scores)
    per_class = tuple(
        _binary_ap(ranks[:, k], targets[:, k]) if int(positives[k]) else None
        for k in range(scores.shape[1])
    )
    present = [value for value in per_class if value is not None]
    micro = _binary_ap(ranks.flatten(), targets.flatten())
    return AveragePrecision(micro, sum(present) / len(present), per_class)


def _ranks(scores: Tensor) -> Tensor:
    """Return dense ranks of all scores, scaled into [0, 1].

    torchmetrics passes anything outside [0, 1] through a sigmoid, where large logits become
    equal to 1 and tie. Ranks keep the order and the ties, and nothing else.
    """
    rank: Tensor = torch.unique(scores, return_inverse=True)[1].double()
    return rank / rank.max().clamp_min(1)


def _binary_ap(ranks: Tensor, targets: Tensor) -> float:
    # imported here: torchmetrics takes longer to import than most scores take to compute
    from torchmetrics.functional.classification import binary_average_precision

    return float(binary_average_precision(ranks, targets.long(), validate_args=False))


def overall_accuracy(predicted: Tensor, target: Tensor) -> float:
    """Return the share of samples whose class is right.

    Args:
        predicted: (N,) class indices.
        target: (N,) class indices.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    _check_classes(predicted, target)
    return float((predicted == target).double().mean())


def average_accuracy(predicted: Tensor, target: Tensor) -> float:
    """Return the mean recall over the classes that occur in `target`.

    Args:
        predicted: (N,) class indices.
        target: (N,) class indices.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    _check_classes(predicted, target)
    index = torch.arange(len(target), device=target.device)[None]
    return float(resampled_average_accuracy(predicted, target)(index))


def _check_classes(predicted: Tensor, target: Tensor) -> None:
    if predicted.ndim != 1 or predicted.shape != target.shape or not len(target):
        raise LabelError(
            "accuracy needs one predicted and one true class per sample",
            found=f"{tuple(predicted.shape)} and {tuple(target.shape)}",
            expected="(N,) and (N,), N > 0",
        )


# --------------------------------------------------------------------------- intervals

# (R, N) indices of resampled test samples -> (R,) values of the metric
Resampled = Callable[[Tensor], Tensor]


def resampled_accuracy(predicted: Tensor, target: Tensor) -> Resampled:
    """Return overall accuracy as a function of resampled indices."""
    correct = (predicted == target).double()
    return lambda index: correct[index.to(correct.device)].mean(dim=1)


def resampled_average_accuracy(predicted: Tensor, target: Tensor) -> Resampled:
    """Return average accuracy as a function of resampled indices.

    A class that a resample happens to miss stays out of that resample's mean.
    """
    classes = int(target.max()) + 1
    correct = (predicted == target).double()

    def metric(index: Tensor) -> Tensor:
        index = index.to(target.device)
        rows = torch.arange(len(index), device=index.device)[:, None]
        cell = (rows * classes + target[index]).flatten()
        cells = len(index) * classes
        support = torch.bincount(cell, minlength=cells).view(-1, classes)
        hits = torch.bincount(cell, correct[index].flatten(), cells).view(-1, classes)
        recall = hits / support.clamp_min(1)
        return recall.sum(dim=1) / (support > 0).sum(dim=1)

    return metric


def resampled_difference(one: Resampled, other: Resampled) -> Resampled:
    """Return `one - other` on the same resamples: a paired comparison of two models."""
    return lambda index: one(index) - other(index)


@dataclass(frozen=True)
class Interval:
    """A percentile interval.

    Args:
        low: Lower end.
        high: Upper end.
        level: Share of the resamples between them.
        repeats: Number of resamples.
    """

    low: float
    high: float
    level: float
    repeats: int


def bootstrap_interval(
    metric: Resampled, samples: int, *, repeats: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the percentile bootstrap interval of a metric over test samples.

    It says how much the score would move with another draw of as many test samples. It knows
    nothing of training seeds, and is too narrow where neighbouring samples resemble each other.

    Args:
        metric: Maps (R, N) indices to (R,) values: `resampled_accuracy(...)` and its siblings.
        samples: Number of test samples, N.
        repeats: Number of resamples.
        seed: Of the resampling.
        level: Share of the resamples inside the interval.

    Raises:
        ConfigError: If there is no sample, no repeat, or the level is not inside (0, 1).
    """
    if samples < 1 or repeats < 1 or not 0 < level < 1:
        raise ConfigError(
            "a bootstrap needs samples, repeats and a level",
            found=f"samples={samples}, repeats={repeats}, level={level}",
            expected="samples >= 1, repeats >= 1, 0 < level < 1",
        )
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _BOOTSTRAP_CELLS // samples)
    values = torch.cat(
        [
            metric(
                torch.randint(samples, (min(chunk, repeats - done), samples), generator=generator)
            )
            for done in range(0, repeats, chunk)
        ]
    ).double()
    tail = (1 - level) / 2
    low, high = torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist()
    return Interval(low, high, level, repeats)
