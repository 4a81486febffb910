"""`eofm bench table --classes`: scores per class, with the frequency of each class in train.

They are computed from the predictions next to the records, like slices: average precision against
all other classes or, for a segmentation, the intersection over union.

Concept frequency is the relation of class scores to the number of training labels of each class.
arXiv 2404.04125 finds that zero-shot scores increase with the logarithm of the frequency of a
concept in pretraining; here the counts are those of the training split that a record was fitted on.
Intervals resample test samples and do not account for the small number of classes. A trend
therefore needs eight of them, and describes the classes of this task, not a causal effect.

Shapes: K classes, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.probes import Scored, class_draws, draws_of_classes
from eofm.bench.records import Result, over
from eofm.bench.reports.tables import probe_words
from eofm.bench.segmentation import (
    PROMPT,
    PROMPT_METRICS,
    SEGMENTATION,
    class_iou,
    resampled_iou,
    resampled_prompt_classes,
)
from eofm.errors import ConfigError
from eofm.probes.bootstrap import decade_slope, once, percentile_interval, spearman
from eofm.report import output, plots
from eofm.report.plots import Estimate
from eofm.report.tables import Table, TableRow, markdown

if TYPE_CHECKING:
    from eofm.report.output import Figure

__all__ = [
    "FEWEST_CLASSES",
    "LEAST_SPAN",
    "NO_TREND",
    "ByClass",
    "ClassScores",
    "FrequencyTrend",
    "class_tables",
    "estimates_of",
    "iou_draws",
    "table_of_classes",
    "trend_of",
    "trend_rows",
]


# -------------------------------------------------------------------------------- concept frequency

# Minimum number of classes with a score and a label for a trend.
FEWEST_CLASSES: Final = 8
# Minimum ratio of the largest count to the smallest for a slope per factor of ten.
LEAST_SPAN: Final = 3

NO_TREND: Final = (
    f"No trend with the count: it needs {FEWEST_CLASSES} classes that occur in train and test, and "
    "counts that differ."
)


@dataclass(frozen=True)
class FrequencyTrend:
    """Relation of class scores to class counts in train.

    Args:
        correlation: Spearman's rank correlation, from -1 to 1.
        slope: Increase of a score per tenfold count, by least squares; None if the largest count is
            less than three times the smallest.
    """

    correlation: Estimate
    slope: Estimate | None

    @property
    def correlation_words(self) -> str:
        """Text for a cell of a table: `+0.62 (+0.31 – +0.78)`."""
        return _words(self.correlation, 1, 2)

    @property
    def slope_words(self) -> str:
        """The same for the slope, in points of a score in per cent; empty without a slope."""
        return "" if self.slope is None else _words(self.slope, 100, 1)


def trend_of(plain: Tensor, drawn: Tensor, counts: Sequence[int]) -> FrequencyTrend | None:
    """Return the trend of one model's class scores; None if there are too few classes.

    Args:
        plain: Score of each class, (K,); NaN for a class that does not occur in test.
        drawn: The same on every resample of the test samples, (R, K).
        counts: Count of each class in train, K; classes with 0 are excluded.
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
    """Return the last rows of a table of classes: correlation and slope of every model.

    Args:
        trends: Model -> its trend. Without any trend there are no rows.
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
    if not estimate.has_interval:
        return f"{value:+.{digits}f}"
    return f"{value:+.{digits}f} ({low:+.{digits}f} – {high:+.{digits}f})"


# ------------------------------------------------------------------------ classes of a segmentation


@dataclass(frozen=True)
class ClassScores:
    """Intersection over union of each class, of several models on the same test images.

    Args:
        names: Names of the classes, K.
        points: Model -> its score of each class with its interval; None for a class that occurs
            in no test mask.
        counts: Labelled training pixels of each class, K.
        trends: Model -> trend of its scores with these counts; None without a trend.
        empty: Number of test images without a labelled pixel, for any model.
        figure: File of the figure; empty without.
        interval: Description of the intervals, or why there are none.
    """

    names: tuple[str, ...]
    points: Mapping[str, tuple[Estimate | None, ...]]
    counts: tuple[int, ...]
    trends: Mapping[str, FrequencyTrend | None]
    empty: int
    figure: str
    interval: str

    @classmethod
    def of(
        cls, scored: Mapping[str, Scored], first: Result, names: tuple[str, ...], figure: str
    ) -> ClassScores:
        """Return the classes of a run, and draw them if a figure is named.

        Args:
            scored: Model -> scores of its linear layer.
            first: A record of the run, for the task and the number of resamples.
            names: Names of the classes.
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
        interval = over(first.sample, first.interval.level)
        found = cls(names, points, first.train_counts, trends, empty, figure, interval)
        if figure:
            found._draw(first)
        return found

    def unlabelled(self) -> tuple[str, ...]:
        """Return a note if test images have no labelled pixel."""
        words = f"{self.empty} test images have no labelled pixel and are not counted"
        return (words,) if self.empty else ()

    def describe(self) -> str:
        """Return one row per class, one column per model, and the trends with the counts below."""
        made = table_of_classes(
            self.names, self.counts, self.points, self.trends, counted="train pixels"
        )
        head = f"Intersection over union % of each class, {self.interval}:"
        drawn = f"\n\n- classes: {self.figure}" if self.figure else ""
        return f"{head}\n\n{markdown(made)}{drawn}"

    def _draw(self, first: Result) -> None:
        subset = "" if first.sample.complete else ", a subset"
        figure = plots.dots(
            f"{first.task}{subset}: {probe_words(first.probe)}",
            self.names,
            {name: list(values) for name, values in self.points.items()},
            f"intersection over union, {self.interval}",
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
    """Return one row per class, one column per model, and the trends with the counts below.

    Args:
        names: Names of the classes, K.
        counts: Count of each in train, K.
        points: Model -> a score of each class.
        trends: Model -> trend of its scores with the counts.
        counted: Name of the counted units.
        absent: Text for a class without a score.
    """
    rows = [
        TableRow((name, f"{count:,}", *(_cell(values[k], absent) for values in points.values())))
        for k, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    below = [TableRow(row, faint=True) for row in trend_rows(trends)]
    heads = ("class", counted, *points)
    notes = () if below else (NO_TREND,)
    return Table(heads, (*rows, *below), notes=notes, words=frozenset(range(2, len(heads))))


def estimates_of(plain: Tensor, drawn: Tensor) -> tuple[Estimate | None, ...]:
    """Return the score of each class with its interval; None for a class without one.

    Args:
        plain: (K,), NaN without.
        drawn: Scores on every resample, (R, K).
    """
    spans = [percentile_interval(drawn[:, k]) for k in range(len(plain))]
    return tuple(
        None if math.isnan(value) else Estimate(value, span.low, span.high)
        for value, span in zip(plain.tolist(), spans, strict=True)
    )


def iou_draws(
    matrices: Tensor, repeats: int, seed: int, groups: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return each class's intersection over union (K,), and `draws_of_classes`.

    NaN for a class that is in no target.

    Args:
        matrices: Pixels by true and predicted class, int64 (M, K, K).
        repeats: Resamples, R.
        seed: Seed of the resampling.
        groups: Number of each test sample's group, (M,); None resamples single samples.
    """
    plain, metric = class_iou(matrices.sum(dim=0)), resampled_iou(matrices)
    return plain, draws_of_classes(plain, metric, len(matrices), repeats, seed, groups)


def _cell(point: Estimate | None, absent: str) -> str:
    if point is None:
        return absent
    if not point.has_interval:
        return f"{100 * point.value:.1f}"
    return f"{100 * point.value:.1f} ({100 * point.low:.1f} – {100 * point.high:.1f})"


# ---------------------------------------------------------------------------- classes of every task

_PRECISION: Final = "average precision against all other classes"
_IOU: Final = "intersection over union"
_AUROC: Final = "AUROC of prompt patches in their image"


@dataclass(frozen=True)
class ByClass:
    """The classes of several models under one probe, on the same images.

    Args:
        first: A record of them, for task, split and probe.
        classes: Names, K.
        counts: Count of each in train, K.
        points: Model -> a score of each class; None for a class that does not occur in test.
        trends: Model -> trend of its scores with the counts.
    """

    first: Result
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    points: Mapping[str, tuple[Estimate | None, ...]]
    trends: Mapping[str, FrequencyTrend | None]

    @classmethod
    def of(
        cls, rows: Mapping[str, Result], kept: Mapping[str, Predictions], repeats: int, seed: int
    ) -> ByClass:
        """Return the classes of some models.

        Args:
            rows: Model -> a record of it.
            kept: Model -> its predictions.
            repeats: Resamples.
            seed: Seed of the resampling.

        Raises:
            LabelError: If no test sample has a label.
        """
        first = next(iter(rows.values()))
        draws = {name: _class_draws(one, repeats, seed) for name, one in kept.items()}
        return cls(
            first,
            next(iter(kept.values())).classes,
            first.train_counts,
            {name: estimates_of(*one) for name, one in draws.items()},
            {name: trend_of(*one, first.train_counts) for name, one in draws.items()},
        )

    @property
    def score(self) -> str:
        """Description of the score of a class."""
        return {SEGMENTATION: _IOU, PROMPT: _AUROC}.get(self.first.kind, _PRECISION)

    @property
    def _of_pixels(self) -> bool:
        return self.first.kind in {SEGMENTATION, PROMPT}

    def table(self) -> Table:
        """Return one row per class, one column per model, and the trends with the counts below."""
        made = table_of_classes(
            self.classes,
            self.counts,
            self.points,
            self.trends,
            counted="train pixels" if self._of_pixels else "train images",
            # a class in test may have no pure patch
            absent="no prompt" if self.first.kind == PROMPT else "not in test",
        )
        first = self.first
        note = f"There is {over(first.sample, first.interval.level)}."
        if first.shown_interval is not None:
            level = f"{100 * first.interval.level:g} %"
            note = f"In brackets: {level} interval, which resamples test samples."
        return replace(
            made,
            name=self.first.task,
            about=f"by class, {self.score}, %, split `{self.first.sample.split}`, "
            f"{probe_words(self.first.probe, scaling=False)}",
            notes=(note, *made.notes),
        )

    def figure(self, title: str) -> Figure | None:
        """Return a figure of scores over counts; None if there is no trend.

        Args:
            title: Title of the figure.
        """
        if not any(self.trends.values()):
            return None
        series = {
            self._named(name): [
                (float(count), point)
                for count, point in zip(self.counts, values, strict=True)
                if point is not None and count
            ]
            for name, values in self.points.items()
        }
        what = "pixels" if self._of_pixels else "images"
        return plots.scattered(title, series, f"training {what} of the class", f"{self.score}, %")

    def _named(self, name: str) -> str:
        trend = self.trends[name]
        return name if trend is None else f"{name}, rank {trend.correlation.value:+.2f}"


def _class_draws(one: Predictions, repeats: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the score of each class, and its value on every resample."""
    if one.prompts is not None:
        metric, samples = resampled_prompt_classes(one.prompts, PROMPT_METRICS[0]), len(one.prompts)
        plain = metric(once(samples))[0]
        return plain, draws_of_classes(plain, metric, samples, repeats, seed, one.numbers)
    if one.matrices is not None:
        return iou_draws(one.matrices, repeats, seed, one.numbers)
    return class_draws(one.comparable, one.target, repeats, seed, one.numbers)


def class_tables(results: Sequence[Result], path: Path) -> list[Table]:
    """Return the classes of records, one table per task, split, subset and probe.

    Args:
        results: Records; label subsets and other input sizes are excluded.
        path: The file that contains them.

    Raises:
        ConfigError: If no record has class counts of train.
        DataError: If predictions cannot be read, or do not belong to their record.
    """
    groups: dict[tuple[str, ...], dict[str, Result]] = {}
    for r in results:
        if r.train_counts and r.predictions and not r.sample.labels and not r.of:
            words = probe_words(r.probe, scaling=False)
            place = (r.task, r.version, r.sample.split, r.sample.ids_sha256, words)
            groups.setdefault(place, {}).setdefault(r.model.name, r)
    if not groups:
        raise ConfigError(
            "no record has class counts of the training split",
            found=f"{len(results)} records without counts or predictions",
            where=path,
            remedy="run the benchmark again with another --out, which writes them",
        )
    return [_class_table(rows, path) for rows in groups.values()]


def _class_table(rows: Mapping[str, Result], path: Path) -> Table:
    first = next(iter(rows.values()))
    kept = {name: predictions_of(one, path) for name, one in rows.items()}
    return ByClass.of(rows, kept, first.interval.repeats, first.seed).table()
