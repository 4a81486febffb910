"""The classes of a segmentation one by one: a table, and a figure of them.

Shapes: K classes, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from eofm.bench.probes import Scored
from eofm.bench.records import Result
from eofm.bench.reports.frequency import NO_TREND, FrequencyTrend, trend_of, trend_rows
from eofm.bench.reports.tables import probe_words
from eofm.bench.segmentation import class_iou, resampled_iou
from eofm.probes.bootstrap import bootstrap_values, percentile_interval
from eofm.report import output, plots
from eofm.report.plots import Estimate
from eofm.report.tables import Table, TableRow, markdown


@dataclass(frozen=True)
class ClassScores:
    """Intersection over union of each class, of several models on the same test images.

    Args:
        names: Of the classes, K.
        points: Model -> its score of each class with its interval; None for a class that occurs
            in no test mask.
        counts: Labelled training pixels of each class, K.
        trends: Model -> how its scores go with these counts; None where there is no telling.
        empty: Number of test images without a labelled pixel, whoever looks at them.
        figure: Where the classes are drawn; empty without.
    """

    names: tuple[str, ...]
    points: Mapping[str, tuple[Estimate | None, ...]]
    counts: tuple[int, ...]
    trends: Mapping[str, FrequencyTrend | None]
    empty: int
    figure: str

    @classmethod
    def of(
        cls, scored: Mapping[str, Scored], first: Result, names: tuple[str, ...], figure: str
    ) -> ClassScores:
        """Return the classes of a run, and draw them where a figure is named.

        Args:
            scored: Model -> what its linear layer reaches.
            first: A record of the run: of which task, with how many resamples.
            names: Of the classes.
            figure: PNG to write; empty for none.

        Raises:
            DataError: If the figure cannot be written.
        """
        matrices = {n: one.matrices for n, one in scored.items() if one.matrices is not None}
        repeats, seed = first.interval.repeats, first.seed
        draws = {
            name: iou_draws(one, repeats, seed, scored[name].groups)
            for name, one in matrices.items()
        }
        points = {name: estimates_of(*one) for name, one in draws.items()}
        trends = {name: trend_of(*one, first.train_counts) for name, one in draws.items()}
        empty = min(int((one.sum(dim=(1, 2)) == 0).sum()) for one in matrices.values())
        found = cls(names, points, first.train_counts, trends, empty, figure)
        if figure:
            found._draw(first)
        return found

    def unlabelled(self) -> tuple[str, ...]:
        """Return a remark if test images have no labelled pixel."""
        words = f"{self.empty} test images have no labelled pixel, and count nowhere"
        return (words,) if self.empty else ()

    def describe(self) -> str:
        """Return one row per class, one column per model, and the trend with the counts below."""
        made = table_of_classes(
            self.names, self.counts, self.points, self.trends, counted="train pixels"
        )
        head = "Intersection over union % of each class, with its 95 % interval:"
        drawn = f"\n\n- classes: {self.figure}" if self.figure else ""
        return f"{head}\n\n{markdown(made)}{drawn}"

    def _draw(self, first: Result) -> None:
        subset = "" if first.sample.complete else ", a subset"
        figure = plots.dots(
            f"{first.task}{subset}: {probe_words(first.probe)}",
            self.names,
            {name: list(values) for name, values in self.points.items()},
            "intersection over union, 95 % interval",
        )
        output.save(figure, Path(self.figure), "name another --figure")


def table_of_classes(
    names: Sequence[str],
    counts: Sequence[int],
    points: Mapping[str, tuple[Estimate | None, ...]],
    trends: Mapping[str, FrequencyTrend | None],
    *,
    counted: str,
    absent: str = "not in test",
) -> Table:
    """Return one row per class, one column per model, and the trend with the counts below.

    Args:
        names: Of the classes, K.
        counts: Of each in train, K.
        points: Model -> a score of each class.
        trends: Model -> how its scores go with the counts.
        counted: What the counts are of.
        absent: What stands for a class without a score.
    """
    rows = [
        TableRow((name, f"{count:,}", *(_cell(values[k], absent) for values in points.values())))
        for k, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    below = [TableRow(row, faint=True) for row in trend_rows(trends)]
    heads = ("class", counted, *points)
    notes = () if below else (NO_TREND,)
    return Table(heads, (*rows, *below), notes=notes, words=frozenset(range(2, len(heads))))


def class_points(
    matrices: Tensor, repeats: int, seed: int, groups: Tensor | None
) -> tuple[Estimate | None, ...]:
    """Return each class's intersection over union with its interval; None if it is in no target.

    Args:
        matrices: What pixels of each true class were called, int64 (M, K, K).
        repeats: Resamples.
        seed: Of the resampling.
        groups: Number of each test sample's group, (M,); None resamples single samples.
    """
    return estimates_of(*iou_draws(matrices, repeats, seed, groups))


def estimates_of(plain: Tensor, drawn: Tensor) -> tuple[Estimate | None, ...]:
    """Return a score of each class with its interval; None for a class without one.

    Args:
        plain: (K,), NaN without.
        drawn: On every resample, (R, K).
    """
    spans = [percentile_interval(drawn[:, k]) for k in range(len(plain))]
    return tuple(
        None if math.isnan(value) else Estimate(value, span.low, span.high)
        for value, span in zip(plain.tolist(), spans, strict=True)
    )


def iou_draws(
    matrices: Tensor, repeats: int, seed: int, groups: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return each class's intersection over union (K,), and on every resample (R, K).

    NaN for a class that is in no target.

    Args:
        matrices: What pixels of each true class were called, int64 (M, K, K).
        repeats: Resamples, R.
        seed: Of the resampling.
        groups: Number of each test sample's group, (M,); None resamples single samples.
    """
    metric = resampled_iou(matrices)
    drawn = bootstrap_values(metric, len(matrices), repeats=repeats, seed=seed, groups=groups)
    return class_iou(matrices.sum(dim=0)), drawn


def _cell(point: Estimate | None, absent: str) -> str:
    if point is None:
        return absent
    return f"{100 * point.value:.1f} ({100 * point.low:.1f} – {100 * point.high:.1f})"
