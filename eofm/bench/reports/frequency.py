"""Concept frequency: how the scores of classes go with how often the training labels hold them.

arXiv 2404.04125 finds that zero-shot scores rise with the logarithm of how often a concept was
seen in pretraining; here the counts are those of the training split that a record was fitted on.
Intervals resample test samples: they know nothing of how few classes there are, so a trend needs
eight of them, and says how the classes of this task go, not what a count causes.

Shapes: K classes, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from eofm.probes.bootstrap import percentile_interval
from eofm.probes.correlation import decade_slope, spearman
from eofm.report.plots import Estimate

# Classes with a score and a label below which no trend is told.
FEWEST_CLASSES: Final = 8
# Largest count over the smallest below which a slope over ten times as many is a guess.
LEAST_SPAN: Final = 3

NO_TREND: Final = (
    f"No trend with the count: it needs {FEWEST_CLASSES} classes that occur in train and test, and "
    "counts that differ."
)


@dataclass(frozen=True)
class FrequencyTrend:
    """How the scores of classes go with their counts in train.

    Args:
        correlation: Spearman's rank correlation, from -1 to 1.
        slope: By how much a score rises when the count grows tenfold, by least squares; None where
            the largest count is not three times the smallest.
    """

    correlation: Estimate
    slope: Estimate | None

    @property
    def correlation_words(self) -> str:
        """As in a cell of a table: `+0.62 (+0.31 – +0.78)`."""
        return _words(self.correlation, 1, 2)

    @property
    def slope_words(self) -> str:
        """The same of the slope, in points of a score in per cent; nothing where there is none."""
        return "" if self.slope is None else _words(self.slope, 100, 1)


def trend_of(plain: Tensor, drawn: Tensor, counts: Sequence[int]) -> FrequencyTrend | None:
    """Return the trend of one model's class scores; None where there is none to tell.

    Args:
        plain: Score of each class, (K,); NaN for one that does not occur in test.
        drawn: The same on every resample of the test samples, (R, K).
        counts: Of each class in train, K; classes of 0 take no part.
    """
    if len(counts) != len(plain):
        return None
    frequency = torch.tensor(counts, dtype=torch.float64)
    frequency[frequency == 0] = math.nan
    known = torch.isfinite(plain) & torch.isfinite(frequency)
    if int(known.sum()) < FEWEST_CLASSES:
        return None
    correlation = _estimate(spearman, frequency, plain, drawn)
    if math.isnan(correlation.value):
        return None
    kept = frequency[known]
    wide = float(kept.max() / kept.min()) >= LEAST_SPAN
    slope = _estimate(decade_slope, frequency, plain, drawn) if wide else None
    return FrequencyTrend(correlation, slope)


def trend_rows(trends: Mapping[str, FrequencyTrend | None]) -> list[tuple[str, ...]]:
    """Return the last rows of a table of classes: of every model its correlation and its slope.

    Args:
        trends: Model -> its trend. Without a single one there are no rows.
    """
    known = [trend for trend in trends.values() if trend is not None]
    if not known:
        return []
    kept = list(trends.values())
    rows = [
        ("rank correlation with the count", "", *(t.correlation_words if t else "" for t in kept)),
        ("points per tenfold count", "", *(t.slope_words if t else "" for t in kept)),
    ]
    return rows if any(trend.slope for trend in known) else rows[:1]


def _estimate(
    of: Callable[[Tensor, Tensor], Tensor], counts: Tensor, plain: Tensor, drawn: Tensor
) -> Estimate:
    span = percentile_interval(of(counts, drawn))
    return Estimate(float(of(counts, plain[None])), span.low, span.high)


def _words(estimate: Estimate, by: float, digits: int) -> str:
    value, low, high = (by * one for one in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.{digits}f} ({low:+.{digits}f} – {high:+.{digits}f})"
