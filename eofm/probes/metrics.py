"""Scores of predictions on a whole test set. Their intervals are in `eofm.probes.bootstrap`.

Metrics are computed on the whole, concatenated set, because the mean of per-batch scores differs
(on BigEarthNet by 2 points for micro AP and by up to 40 for macro AP). Ids of metrics are
`ap_micro`, `ap_macro`, `oa`, ...; "mAP" is not an id, because micro and macro AP differ by ten
points on the same predictions.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from jaxtyping import Float64, Int64, Real, Shaped
from torch import Tensor

from eofm.errors import ConfigError, LabelError, PixelError

__all__ = [
    "BATCH",
    "ECE_BINS",
    "F1",
    "METRIC_WORDS",
    "AveragePrecision",
    "Metric",
    "average_accuracy",
    "average_precision",
    "batched_average_precision",
    "check_classes",
    "check_probability",
    "check_scores",
    "confusion_matrix",
    "equal_mass_bins",
    "expected_calibration_error",
    "f1_score",
    "overall_accuracy",
]

ECE_BINS: Final = 15

# Samples per batch of `Metric.AP_MICRO_BATCHES`, which several papers report.
BATCH: Final = 64


class Metric(StrEnum):
    """Ids of metrics."""

    AP_MICRO = "ap_micro"
    AP_MACRO = "ap_macro"
    AP_WEIGHTED = "ap_weighted"
    AP_MICRO_BATCHES = "ap_micro_batch64"
    F1_MICRO = "f1_micro"
    F1_MACRO = "f1_macro"
    OA = "oa"
    AA = "aa"
    ECE = "ece"
    MIOU = "miou"
    PIXEL_OA = "pixel_oa"
    PROMPT_AUROC = "prompt_auroc"
    PROMPT_IOU = "prompt_iou"
    PROMPT_BEST_IOU = "prompt_best_iou"
    PROMPT_OVERLAP = "prompt_overlap"
    ACROSS_AUROC = "across_auroc"
    ACROSS_OVERLAP = "across_overlap"

    @property
    def smaller_is_better(self) -> bool:
        """Whether the metric measures errors or overlap, so that smaller is better."""
        return self in {Metric.ECE, Metric.PROMPT_OVERLAP, Metric.ACROSS_OVERLAP}


METRIC_WORDS: Final[Mapping[Metric, str]] = {
    Metric.AP_MICRO: "average precision of all samples' and classes' decisions in one list",
    Metric.AP_MACRO: "mean average precision of the classes that occur in the test split",
    Metric.AP_WEIGHTED: "average precision of the classes, weighted by their positives",
    Metric.AP_MICRO_BATCHES: f"mean of ap_micro over batches of {BATCH} in order, the rest "
    "dropped: as papers report it, and no average precision of the set",
    Metric.F1_MICRO: "F1 of all decisions at probability above 0.5",
    Metric.F1_MACRO: "mean F1 of the classes that occur in the test split, at 0.5",
    Metric.OA: "overall accuracy: share of samples whose class is right",
    Metric.AA: "average accuracy: mean recall of the classes that occur in the test split",
    Metric.MIOU: "mean intersection over union of the classes that occur in the test split",
    Metric.PIXEL_OA: "share of labelled pixels whose class is right",
    Metric.PROMPT_AUROC: "chance that a patch of the prompt's class resembles the prompt more "
    "than a patch of another class in the same image; 50 % tells nothing",
    Metric.PROMPT_IOU: "intersection over union of the patches above one similarity, chosen on "
    "validation, with those of the prompt's class in the same image",
    Metric.PROMPT_BEST_IOU: "the same with the best similarity for each prompt, which an oracle "
    "chooses",
    Metric.PROMPT_OVERLAP: "overlap of the similarities within the prompt's class and to other "
    "classes, in the same image; smaller is better, 100 % tells nothing",
    Metric.ACROSS_AUROC: "as prompt_auroc, with patches of images of other groups",
    Metric.ACROSS_OVERLAP: "as prompt_overlap, with patches of images of other groups; smaller is "
    "better",
    Metric.ECE: f"expected calibration error, {ECE_BINS} bins of equal mass; smaller is better",
}


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, AP = Σ (R_i - R_{i-1}) P_i over the distinct scores.

    Args:
        micro: Average precision of all N x K decisions in one list.
        macro: Mean over the classes that occur in the targets.
        per_class: One value per class; None where the class has no positive.
        weighted: Mean over the classes, weighted by their numbers of positives.
    """

    micro: float
    macro: float
    per_class: tuple[float | None, ...]
    weighted: float

    @property
    def classes_scored(self) -> int:
        """Number of classes in the macro average."""
        return sum(value is not None for value in self.per_class)


def average_precision(
    scores: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."]
) -> AveragePrecision:
    """Return micro, macro, weighted and per-class average precision of multi-label scores.

    Equal scores form one step, so the order of the samples never matters. A class without a
    positive has no AP and is excluded from the macro average (torchmetrics would count it as 0,
    scikit-learn warns and does the same).

    Args:
        scores: (N, K), any monotone confidence: logits, probabilities, votes.
        targets: (N, K), 1 or True where the class is present.

    Raises:
        LabelError: If the shapes differ, targets are not 0 or 1, or no class is present at all.
        PixelError: If a score is NaN.
    """
    check_scores(scores, targets)
    hot = targets.double()
    positives = hot.sum(dim=0)
    values = _ap_of_columns(scores, hot)
    present = positives > 0
    per_class = tuple(
        value if there else None
        for value, there in zip(values.tolist(), present.tolist(), strict=True)
    )
    micro = float(_ap_of_columns(scores.reshape(-1, 1), hot.reshape(-1, 1)))
    macro = float(values[present].mean())
    weighted = float((values * positives)[present].sum() / positives.sum())
    return AveragePrecision(micro, macro, per_class, weighted)


def batched_average_precision(
    scores: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."]
) -> float:
    """Return the mean of micro average precision over batches, without an incomplete last one.

    The scripts of SSL4EO-S12, FG-MAE and Copernicus-Bench compute their scores in this way. It
    depends on the order of the samples and is kept only for comparison with them.

    Args:
        scores: (N, K), at least `BATCH` samples.
        targets: (N, K), 1 or True where the class is present.

    Raises:
        LabelError: If there is no full batch, or a batch has no positive.
        PixelError: If a score is NaN.
    """
    if len(scores) < BATCH:
        raise LabelError(
            "there is no whole batch", found=f"{len(scores)} samples", expected=f"{BATCH} or more"
        )
    starts = range(0, len(scores) // BATCH * BATCH, BATCH)
    values = [
        average_precision(scores[i : i + BATCH], targets[i : i + BATCH]).micro for i in starts
    ]
    return sum(values) / len(values)


def check_scores(scores: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."]) -> None:
    """Refuse input without an average precision.

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
    if int(targets.sum()) == 0:
        raise LabelError(
            "average precision needs at least one positive label",
            found="none",
            where=f"{scores.shape[0]} samples, {scores.shape[1]} classes",
            remedy="score more samples, or check that the labels are known",
        )


def _ap_of_columns(
    scores: Real[Tensor, "n k"], hot: Float64[Tensor, "n k"]
) -> Float64[Tensor, " k"]:
    """Return (K,): each column's AP; NaN for a column without a positive.

    AP is the mean, over the positives, of the precision at the end of the positive's step.
    """
    ordered, order = scores.T.contiguous().sort(dim=1, descending=True)
    hits = hot.T.gather(1, order)
    count = hits.shape[1]
    place = torch.arange(count, device=scores.device)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    # the nearest end of a step at or after each position
    end = torch.where(last, place, count).flip(1).cummin(dim=1).values.flip(1)
    precision = hits.cumsum(dim=1) / (place + 1)
    return (hits * precision.gather(1, end)).sum(dim=1) / hits.sum(dim=1)


# ------------------------------------------------------------------------- decisions


@dataclass(frozen=True)
class F1:
    """F1 = 2 TP / (2 TP + FP + FN).

    Args:
        micro: F1 of all N x K decisions.
        macro: Mean over the classes that occur in the targets.
        per_class: One value per class; None where the class has no positive.
        threshold: A class is predicted present if its probability is above it.
    """

    micro: float
    macro: float
    per_class: tuple[float | None, ...]
    threshold: float


def f1_score(
    probability: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."], threshold: float = 0.5
) -> F1:
    """Return micro, macro and per-class F1 of multi-label probabilities at one threshold.

    Args:
        probability: (N, K), within [0, 1], not logits, for which 0.5 is no threshold.
        targets: (N, K), 1 or True where the class is present.
        threshold: A class is predicted present above it.

    Raises:
        LabelError: If the shapes differ, targets are not 0 or 1, or no class is present at all.
        PixelError: If a probability is NaN or outside [0, 1].
    """
    check_scores(probability, targets)
    check_probability(probability)
    hot, said = targets.double(), (probability > threshold).double()
    right, either = (hot * said).sum(dim=0), hot.sum(dim=0) + said.sum(dim=0)
    present = hot.sum(dim=0) > 0
    values = 2 * right / either.clamp_min(1)
    per_class = tuple(
        value if there else None
        for value, there in zip(values.tolist(), present.tolist(), strict=True)
    )
    return F1(
        float(2 * right.sum() / either.sum()), float(values[present].mean()), per_class, threshold
    )


def check_probability(probability: Shaped[Tensor, " ..."]) -> None:
    """Refuse values that are not probabilities.

    Raises:
        PixelError: If a value is NaN or outside [0, 1].
    """
    if not ((probability >= 0) & (probability <= 1)).all():
        raise PixelError(
            "probabilities must lie within 0..1",
            found=f"{float(probability.min()):g}..{float(probability.max()):g}",
            remedy="put logits through a sigmoid or a softmax first",
        )


def overall_accuracy(predicted: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."]) -> float:
    """Return the share of samples whose class is right.

    Args:
        predicted: (N,) class indices.
        target: (N,) class indices.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    check_classes(predicted, target)
    return float((predicted == target).double().mean())


def average_accuracy(predicted: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."]) -> float:
    """Return the mean recall over the classes that occur in `target`.

    Args:
        predicted: (N,) class indices.
        target: (N,) class indices.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    check_classes(predicted, target)
    support = torch.bincount(target).double()
    hits = torch.bincount(target[predicted == target], minlength=len(support)).double()
    return float((hits[support > 0] / support[support > 0]).mean())


def check_classes(predicted: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."]) -> None:
    """Refuse input without an accuracy.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    if predicted.ndim != 1 or predicted.shape != target.shape or not len(target):
        raise LabelError(
            "accuracy needs one predicted and one true class per sample",
            found=f"{tuple(predicted.shape)} and {tuple(target.shape)}",
            expected="(N,) and (N,), N > 0",
        )


def confusion_matrix(
    predicted: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."], classes: int
) -> Int64[Tensor, "k k"]:
    """Return counts, int64 (K, K): rows are true classes, columns predicted classes.

    Args:
        predicted: (N,) class indices.
        target: (N,) class indices.
        classes: K.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    check_classes(predicted, target)
    cell = target * classes + predicted
    return torch.bincount(cell, minlength=classes * classes).view(classes, classes)


# ----------------------------------------------------------------------- calibration


def equal_mass_bins(confidence: Real[Tensor, " m"], bins: int = ECE_BINS) -> Int64[Tensor, " m"]:
    """Return (M,) bin indices with about equally many decisions per bin; equal values share a bin.

    kNN has k + 1 levels of confidence; a split within a level would depend on the order of files.

    Args:
        confidence: (M,), within [0, 1].
        bins: Maximum number of bins.

    Raises:
        ConfigError: If `bins` is less than 1.
    """
    if bins < 1:
        raise ConfigError("calibration needs at least one bin", found=bins)
    ordered = confidence.sort().values
    cuts = torch.arange(1, bins, device=confidence.device) * len(ordered) // bins
    edges = torch.unique(ordered[cuts])
    return torch.searchsorted(edges, confidence, right=True)


def expected_calibration_error(
    confidence: Shaped[Tensor, " ..."], correct: Shaped[Tensor, " ..."], bins: int = ECE_BINS
) -> float:
    """Return Σ_b (n_b / M) |mean confidence - share correct|, over bins of equal mass.

    Args:
        confidence: (M,), within [0, 1], of the predicted class or of each multi-label decision.
        correct: (M,), whether the decision is correct.
        bins: Maximum number of bins.

    Raises:
        LabelError: If the shapes differ or are empty.
        PixelError: If a confidence is outside [0, 1].
    """
    check_classes(confidence, correct)
    check_probability(confidence)
    which = equal_mass_bins(confidence, bins)
    gap = torch.bincount(which, confidence.double() - correct.double(), bins)
    return float(gap.abs().sum() / len(confidence))
