"""Uncertainty of scores: bootstrap over test samples, for a model or a difference of two models.

A resample is a vector of counts (how often each test sample was drawn), not a list of samples.
Sorting, ties and bins are then computed once, and every metric of a resample is a weighted sum.
The relation of resampled class scores to another quantity of each class is a rank correlation, or
the slope of a line over the logarithm of a count.

Shapes: N samples, K classes, M decisions, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from eofm.errors import ConfigError
from eofm.probes.metrics import (
    BATCH,
    Metric,
    batched_average_precision,
    check_classes,
    check_probability,
    check_scores,
    equal_mass_bins,
)

__all__ = [
    "FEWEST_GROUPS",
    "FEW_GROUPS",
    "TOO_NARROW",
    "Interval",
    "Resampled",
    "bootstrap_interval",
    "bootstrap_values",
    "decade_slope",
    "enough_groups",
    "group_numbers",
    "interquartile_mean",
    "once",
    "percentile_interval",
    "resampled_accuracy",
    "resampled_ap",
    "resampled_average_accuracy",
    "resampled_batched_ap",
    "resampled_calibration_error",
    "resampled_class_ap",
    "resampled_difference",
    "resampled_f1",
    "spearman",
    "unit_count",
]

# (R, N) counts of the test samples, float64 -> (R,) values of the metric
Resampled = Callable[[Tensor], Tensor]

# Maximum counts and sorted decisions in memory: 8 MB and about 50 MB.
_BOOTSTRAP_CELLS: Final = 1_000_000
_SORTED_CELLS: Final = 4_000_000

# With fewer groups than this there is neither an interval nor a verdict. If two models are
# equal, five groups all favour the same one in 2 of 2^5 = 32 draws (6 %), so that no difference,
# however large, is significant at the 5 % level; with six it is 3 %. Resampling hides this: two
# groups have three resamples, and one group has an interval without width.
FEWEST_GROUPS: Final = 6

# With fewer groups than this, intervals of a cluster bootstrap are too narrow: they contain the
# true value less often than their level states (Cameron, Gelbach and Miller 2008, doi
# 10.1162/rest.90.3.414, find that for 5 to 30 groups). `tests/probes/test_groups.py` measures it.
FEW_GROUPS: Final = 30
TOO_NARROW: Final = (
    f"below {FEW_GROUPS}, intervals are too narrow, and a difference that they show may be none"
)


def enough_groups(units: int) -> bool:
    """Whether there are enough groups for an interval and a verdict; otherwise none is shown.

    Args:
        units: Number of groups, or of samples if they are drawn one by one.
    """
    return units >= FEWEST_GROUPS


def unit_count(samples: int, groups: Int64[Tensor, " ..."] | None) -> int:
    """Return the number of groups in a resample, or of samples if they are drawn one by one.

    Args:
        samples: Number of test samples, N.
        groups: Number of each sample's group, int64 (N,), from 0 on.
    """
    return samples if groups is None else int(groups.max()) + 1


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
    metric: Resampled,
    samples: int,
    *,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Int64[Tensor, " ..."] | None = None,
) -> Interval:
    """Return the percentile bootstrap interval of a metric over test samples.

    It estimates how much the score would change with another draw of the same number of test
    samples, or of groups of them. It does not cover training seeds. If neighbouring samples are
    similar, as patches of one satellite product are, it is far too narrow unless whole groups are
    drawn (cluster bootstrap, Davison and Hinkley 1997, section 3.8). With fewer than
    `FEWEST_GROUPS` groups it is meaningless, kept in records but never shown (`enough_groups`).

    Args:
        metric: Maps (R, N) counts to (R,) values: `resampled_accuracy(...)` and its siblings.
        samples: Number of test samples, N.
        repeats: Number of resamples.
        seed: Seed of the resampling.
        level: Share of the resamples inside the interval.
        groups: Number of each sample's group, int64 (N,), from 0 on; None draws single samples.

    Raises:
        ConfigError: If there is no sample, no repeat, or the level is not inside (0, 1).
    """
    values = bootstrap_values(metric, samples, repeats=repeats, seed=seed, groups=groups)
    return percentile_interval(values, level)


def bootstrap_values(
    metric: Resampled,
    samples: int,
    *,
    repeats: int = 1000,
    seed: int = 0,
    groups: Int64[Tensor, " ..."] | None = None,
) -> Float64[Tensor, " r *k"]:
    """Return the metric of each resample, float64 (R,) or the shape that `metric` returns.

    Args:
        metric: Maps (R, N) counts to values.
        samples: Number of test samples, N.
        repeats: Number of resamples, R.
        seed: Seed of the resampling; two models with the same seed get the same resamples.
        groups: Number of each sample's group, int64 (N,), from 0 on: all samples of a group are
            drawn together. None draws single samples.

    Raises:
        ConfigError: If there is no sample or no repeat, or a sample has no group.
    """
    if samples < 1 or repeats < 1:
        raise ConfigError(
            "a bootstrap needs samples and repeats",
            found=f"samples={samples}, repeats={repeats}",
            expected="samples >= 1, repeats >= 1",
        )
    chunk = max(1, _BOOTSTRAP_CELLS // samples)
    if groups is None:
        drawn = _draw(samples, repeats, seed, chunk)
        return torch.cat([metric(counts) for counts in drawn]).double()
    if groups.shape != (samples,):
        raise ConfigError(
            "every test sample needs a group", found=tuple(groups.shape), expected=f"({samples},)"
        )
    drawn = _draw(unit_count(samples, groups), repeats, seed, chunk)
    return torch.cat([metric(counts[:, groups]) for counts in drawn]).double()


def group_numbers(names: Sequence[str]) -> Int64[Tensor, " n"]:
    """Return the number of each sample's group, int64 (N,): from 0 on, in the order of the names.

    The numbers do not depend on the order of the samples, so a resample draws the same groups for
    any order.

    Args:
        names: Name of each sample's group, N.
    """
    _, numbers = np.unique(np.asarray(names), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64))


def percentile_interval(values: Float[Tensor, " r"], level: float = 0.95) -> Interval:
    """Return the interval that contains a share of the values, ignoring undefined ones (NaN).

    Args:
        values: (R,).
        level: The share.

    Raises:
        ConfigError: If the level is not inside (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigError("an interval needs a level inside (0, 1)", found=level)
    tail = (1 - level) / 2
    low, high = torch.nanquantile(values, values.new_tensor([tail, 1 - tail])).tolist()
    return Interval(low, high, level, len(values))


def interquartile_mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the middle half: a quarter of the values is dropped at each end.

    As in `scipy.stats.trim_mean(values, 0.25)`, the n // 4 lowest and highest values are dropped.
    Source: arXiv 2108.13264.

    Args:
        values: (n,).

    Raises:
        ConfigError: If there are no values.
    """
    if not values.size:
        raise ConfigError("there is no mean of nothing")
    ordered = np.sort(values)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def _draw(samples: int, repeats: int, seed: int, chunk: int) -> Iterator[Float64[Tensor, "r n"]]:
    """Yield counts of at most `chunk` resamples at once."""
    generator = torch.Generator().manual_seed(seed)
    for done in range(0, repeats, chunk):
        rows = min(chunk, repeats - done)
        index = torch.randint(samples, (rows, samples), generator=generator)
        index += samples * torch.arange(rows)[:, None]
        yield torch.bincount(index.flatten(), minlength=rows * samples).view(rows, -1).double()


def once(samples: int) -> Float64[Tensor, "1 n"]:
    """Return the counts (1, N) of the test split itself: every sample once."""
    return torch.ones(1, samples, dtype=torch.float64)


def resampled_difference(one: Resampled, other: Resampled) -> Resampled:
    """Return `one - other` on the same resamples: a paired comparison of two models."""
    return lambda counts: one(counts) - other(counts)


# ----------------------------------------------------------- one class per sample


def resampled_accuracy(
    predicted: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."]
) -> Resampled:
    """Return overall accuracy as a function of counts.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    check_classes(predicted, target)
    correct = (predicted == target).double().cpu()
    return lambda counts: counts @ correct / counts.sum(dim=1)


def resampled_average_accuracy(
    predicted: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."]
) -> Resampled:
    """Return average accuracy as a function of counts.

    A class without a sample in a resample is excluded from that resample's mean.

    Raises:
        LabelError: If the shapes differ or there is no sample.
    """
    check_classes(predicted, target)
    hot = torch.nn.functional.one_hot(target).double().cpu()
    hits = hot * (predicted == target).double().cpu()[:, None]
    return lambda counts: _mean_of_classes(counts @ hits, counts @ hot, counts @ hot)


def resampled_calibration_error(
    probability: Shaped[Tensor, " ..."], target: Shaped[Tensor, " ..."]
) -> Resampled:
    """Return the expected calibration error as a function of counts; bins are those of the split.

    Args:
        probability: (N, K).
        target: (N,) class indices, to score the predicted class; or (N, K), to score all decisions.

    Raises:
        PixelError: If a probability is outside [0, 1].
    """
    check_probability(probability)
    if target.ndim == 1:
        confidence, said = probability.max(dim=1)
        confidence, correct = confidence[:, None], (said == target)[:, None]
    else:
        confidence, correct = probability, target
    which = equal_mass_bins(confidence.flatten()).cpu()
    gap = (confidence.double() - correct.double()).cpu()
    bins = int(which.max()) + 1
    rows = torch.arange(len(gap)).repeat_interleave(gap.shape[1])
    per_bin = torch.bincount(rows * bins + which, gap.flatten(), len(gap) * bins).view(-1, bins)
    columns = gap.shape[1]
    return lambda counts: (counts @ per_bin).abs().sum(dim=1) / (columns * counts.sum(dim=1))


# ------------------------------------------------------------------- multi-label


def resampled_f1(
    probability: Shaped[Tensor, " ..."],
    targets: Shaped[Tensor, " ..."],
    metric: Metric,
    threshold: float = 0.5,
) -> Resampled:
    """Return micro or macro F1 as a function of counts.

    Args:
        probability: (N, K), within [0, 1].
        targets: (N, K), 1 or True where the class is present.
        metric: `Metric.F1_MICRO` or `Metric.F1_MACRO`.
        threshold: A class is predicted present above it.

    Raises:
        LabelError: If the shapes differ, targets are not 0 or 1, or no class is present at all.
        PixelError: If a probability is NaN or outside [0, 1].
        ConfigError: If the metric is a different one.
    """
    check_scores(probability, targets)
    check_probability(probability)
    hot, said = targets.double().cpu(), (probability > threshold).double().cpu()
    right, either = 2 * hot * said, hot + said
    if metric is Metric.F1_MICRO:
        right, either = right.sum(dim=1), either.sum(dim=1)
        return lambda counts: counts @ right / (counts @ either)
    if metric is Metric.F1_MACRO:
        return lambda counts: _mean_of_classes(counts @ right, counts @ either, counts @ hot)
    raise ConfigError("this is no F1", found=metric, expected="f1_micro or f1_macro")


def _mean_of_classes(
    part: Float64[Tensor, "r k"], whole: Float64[Tensor, "r k"], positives: Float64[Tensor, "r k"]
) -> Float64[Tensor, " r"]:
    """Average part / whole (R, K) over the classes with a positive in the resample."""
    there = positives > 0
    return torch.where(there, part / whole.clamp_min(1), 0).sum(dim=1) / there.sum(dim=1)


def resampled_ap(
    scores: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."], metric: Metric
) -> Resampled:
    """Return micro, macro or weighted average precision as a function of counts.

    A class without a positive in a resample is excluded from that resample's macro average.

    Args:
        scores: (N, K).
        targets: (N, K), 1 or True where the class is present.
        metric: `Metric.AP_MICRO`, `AP_MACRO` or `AP_WEIGHTED`.

    Raises:
        LabelError: If the shapes differ, targets are not 0 or 1, or no class is present at all.
        PixelError: If a score is NaN.
        ConfigError: If the metric is a different one.
    """
    check_scores(scores, targets)
    if metric is Metric.AP_MICRO:
        rows = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
        steps = _Steps.of(scores.flatten(), targets.flatten(), rows)
        return lambda counts: steps.average_precision(_samples_first(counts))
    if metric not in {Metric.AP_MACRO, Metric.AP_WEIGHTED}:
        raise ConfigError("this is no average precision", found=metric, expected="ap_...")
    per_class = resampled_class_ap(scores, targets)
    hot = targets.double().cpu()

    def value(counts: Float64[Tensor, "r n"]) -> Float64[Tensor, " r"]:
        values = per_class(counts)
        if metric is Metric.AP_MACRO:
            return values.nanmean(dim=1)
        weight = counts @ hot
        return (values.nan_to_num() * weight).sum(dim=1) / weight.sum(dim=1)

    return value


def resampled_batched_ap(
    scores: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."]
) -> Resampled:
    """Return `eofm.probes.metrics.batched_average_precision` as a function of counts.

    Raises:
        LabelError: If there is no full batch, or a batch has no positive.
        PixelError: If a score is NaN.
    """
    batched_average_precision(scores, targets)
    parts = [slice(i, i + BATCH) for i in range(0, len(scores) - BATCH + 1, BATCH)]
    each = [resampled_ap(scores[part], targets[part], Metric.AP_MICRO) for part in parts]

    def value(counts: Float64[Tensor, "r n"]) -> Float64[Tensor, " r"]:
        values = [one(counts[:, part]) for one, part in zip(each, parts, strict=True)]
        return torch.stack(values, dim=1).nanmean(dim=1)

    return value


def resampled_class_ap(
    scores: Shaped[Tensor, " ..."], targets: Shaped[Tensor, " ..."]
) -> Resampled:
    """Return each class's average precision as a function of counts: (R, N) -> (R, K).

    The value is NaN if the resample has no positive of the class.

    Raises:
        LabelError: If the shapes differ, targets are not 0 or 1, or no class is present at all.
        PixelError: If a score is NaN.
    """
    check_scores(scores, targets)
    rows = torch.arange(len(scores))
    steps = [_Steps.of(scores[:, k], targets[:, k], rows) for k in range(scores.shape[1])]

    def values(counts: Float64[Tensor, "r n"]) -> Float64[Tensor, "r k"]:
        drawn = _samples_first(counts)
        return torch.stack([one.average_precision(drawn) for one in steps], dim=1)

    return values


@dataclass(frozen=True)
class _Steps:
    """Decisions sorted by descending score, split at the ends of steps with a positive.

    Only such steps add to the area; decisions between two of them are summed at once.

    Args:
        sample: (M',), the test sample of each decision down to the last positive's step.
        segment: (M',), the first step with a positive that ends at or after it.
        positive: (P,), the test sample of each positive.
        step: (P,), the step of each positive.
        count: Number of steps with a positive, S.
    """

    sample: Int64[Tensor, " m"]
    segment: Int64[Tensor, " m"]
    positive: Int64[Tensor, " p"]
    step: Int64[Tensor, " p"]
    count: int

    @classmethod
    def of(
        cls,
        scores: Shaped[Tensor, " m"],
        targets: Shaped[Tensor, " m"],
        sample: Int64[Tensor, " m"],
    ) -> _Steps:
        """Return the steps of flat decisions: scores, targets and test samples, each (M,)."""
        ordered, order = scores.cpu().sort(descending=True)
        hot, sample = targets.cpu()[order] != 0, sample[order]
        new = torch.ones_like(hot)
        new[1:] = ordered[1:] != ordered[:-1]
        number = new.cumsum(dim=0) - 1
        steps, step = torch.unique_consecutive(number[hot], return_inverse=True)
        within = number <= (steps[-1] if len(steps) else -1)
        segment = torch.searchsorted(steps, number[within])
        return cls(sample[within], segment, sample[hot], step, len(steps))

    def average_precision(self, drawn: Shaped[Tensor, "n r"]) -> Float64[Tensor, " r"]:
        """Return (R,) for counts (N, R), samples first; NaN without a positive."""
        chunk = max(1, _SORTED_CELLS // max(1, len(self.sample)))
        return torch.cat([self._average_precision(part) for part in torch.split(drawn, chunk, 1)])

    def _average_precision(self, drawn: Shaped[Tensor, "n r"]) -> Float64[Tensor, " r"]:
        empty = drawn.new_zeros(self.count, drawn.shape[1])
        # moves whole rows, three times as fast as single elements
        seen = empty.index_add(0, self.segment, drawn[self.sample]).double().cumsum(dim=0)
        rise = empty.index_add(0, self.step, drawn[self.positive]).double()
        area = (rise * rise.cumsum(dim=0) / seen.clamp_min(1)).sum(dim=0)
        return area / rise.sum(dim=0)


def _samples_first(counts: Float64[Tensor, "r n"]) -> Shaped[Tensor, "n r"]:
    """Return (N, R) in float32, in which integers below 2^24 and their sums are exact."""
    return counts.T.float().contiguous()


# ------------------------------------------------------------------------------ trends over classes


def spearman(x: Float[Tensor, " k"], y: Float[Tensor, "r k"]) -> Float64[Tensor, " r"]:
    """Return Spearman's rank correlation of x with each row of y.

    Equal values share the mean of their ranks, as in `scipy.stats.spearmanr`. A class with NaN in a
    row is excluded from the ranks of that row and of x.

    Args:
        x: (K,).
        y: (R, K).

    Returns:
        (R,); NaN if x or y is constant or fewer than two classes are known.
    """
    first = x.double().expand_as(y)
    known = torch.isfinite(y) & torch.isfinite(first)
    return _correlation(_ranks(first, known), _ranks(y.double(), known), known)


def decade_slope(counts: Float[Tensor, " k"], y: Float[Tensor, "r k"]) -> Float64[Tensor, " r"]:
    """Return the increase of y per tenfold increase of a count, by least squares of each row.

    Args:
        counts: (K,); zero counts are excluded.
        y: (R, K); NaN values are excluded.

    Returns:
        (R,); NaN if all counts are equal.
    """
    x = counts.double().log10().expand_as(y)
    known = torch.isfinite(y) & torch.isfinite(x)
    x, y = _centred(x, known), _centred(y.double(), known)
    return (x * y).sum(dim=1) / x.square().sum(dim=1)


def _ranks(values: Float64[Tensor, "r k"], known: Bool[Tensor, "r k"]) -> Float64[Tensor, "r k"]:
    """Return the number of smaller known values in the row; equal ones (and itself) count half."""
    one, other = values[:, :, None], values[:, None, :]
    above = (one > other).double() + 0.5 * (one == other).double()
    return (above * known[:, None, :]).sum(dim=2)


def _centred(values: Float64[Tensor, "r k"], known: Bool[Tensor, "r k"]) -> Float64[Tensor, "r k"]:
    kept = torch.where(known, values, 0.0)
    mean = kept.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True)
    return torch.where(known, values - mean, 0.0)


def _correlation(
    x: Float64[Tensor, "r k"], y: Float64[Tensor, "r k"], known: Bool[Tensor, "r k"]
) -> Float64[Tensor, " r"]:
    x, y = _centred(x, known), _centred(y, known)
    return (x * y).sum(dim=1) / (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
