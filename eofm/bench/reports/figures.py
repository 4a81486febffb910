"""Figures of records: scores per class, confusion or co-occurrence, curves; classes as a table.

Shapes: K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.bench.predictions import Predictions
from eofm.bench.probes import Scored, class_intervals
from eofm.bench.records import Result
from eofm.bench.reports.curves import Curve
from eofm.bench.reports.report_config import RecordsExportConfig
from eofm.bench.reports.tables import metric_name, probe_words
from eofm.bench.segmentation import class_iou, resampled_iou
from eofm.probes.bootstrap import bootstrap_values, percentile_interval
from eofm.probes.metrics import confusion_matrix
from eofm.report import output, plots
from eofm.report.output import shorten
from eofm.report.plots import Estimate
from eofm.report.tables import Table, TableRow, markdown

if TYPE_CHECKING:
    from eofm.report.output import Figure


def curve_figures(found: Sequence[Curve]) -> dict[str, Figure]:
    """Return a figure for each curve, by the name of its file.

    Args:
        found: The curves.
    """
    figures = {}
    for curve in found:
        sizes = set(curve.own.values())
        sign = ("", ", dashed: the model's own", ", ringed: the model's own")[min(len(sizes), 2)]
        figures[re.sub(r"[^\w.-]+", "_", f"{curve.stem}-{curve.name}")] = plots.curves(
            f"{curve.title}: {probe_words(curve.probe, scaling=False)}",
            curve.series,
            curve.x_label + sign,
            f"{metric_name(curve.metric)}, {curve.spread}",
            log=curve.log,
            mark=sizes.pop() if len(sizes) == 1 else None,
            own=curve.own,
            levels=curve.levels,
        )
    return figures


def class_dots(title: str, kept: Mapping[str, Predictions], config: RecordsExportConfig) -> Figure:
    """Return a figure of a score per class with intervals, for several models.

    Args:
        title: Above the figure.
        kept: Model -> its predictions of the same samples.
        config: The settings of the bootstrap.
    """
    first = next(iter(kept.values()))
    if all(one.matrices is not None for one in kept.values()):
        found = {
            name: class_points(one.matrices, config.bootstrap, config.seed, one.numbers)
            for name, one in kept.items()
            if one.matrices is not None
        }
        label = "intersection over union, 95 % interval"
        return plots.dots(title, first.classes, found, label)
    series = {name: _class_precision(one, config) for name, one in kept.items()}
    hot = first.target if first.target.ndim == 2 else torch.nn.functional.one_hot(first.target)
    count = [*hot.sum(dim=0).tolist(), *[0] * len(first.classes)]
    labels = [f"{shorten(name, 28)} ({count[k]})" for k, name in enumerate(first.classes)]
    label = "average precision against all others, 95 % interval\nin brackets: test positives"
    return plots.dots(title, labels, series, label)


def _class_precision(one: Predictions, config: RecordsExportConfig) -> list[Estimate | None]:
    # of one class per sample, logits of different samples are on no common scale
    comparable = None if one.target.ndim == 2 else one.probability
    scores = one.scores if comparable is None else comparable
    found = class_intervals(scores, one.target, config.bootstrap, config.seed, one.numbers)
    return [
        None if pair is None else Estimate(pair[0], pair[1].low, pair[1].high) for pair in found
    ]


def class_matrix(title: str, one: Predictions) -> Figure:
    """Return a figure of what is predicted for each class: confusion, or what is said beside it.

    Args:
        title: Above the figure.
        one: The predictions.
    """
    if one.matrices is not None:
        shares = _row_shares(one.matrices.sum(dim=0).double().numpy())
        return plots.matrix(
            title, one.classes, shares, "true class of a pixel", "predicted, % of the row"
        )
    if one.target.ndim == 1:
        counts = confusion_matrix(one.scores.argmax(dim=1), one.target, len(one.classes))
        shares = _row_shares(counts.double().numpy())
        return plots.matrix(title, one.classes, shares, "true class", "predicted, % of the row")
    said = one.scores > 0 if one.probability is None else one.probability > 0.5
    counts = one.target.double().T @ said.double()
    positives = one.target.double().sum(dim=0)[:, None]
    shares = np.where(positives > 0, counts / positives.clamp_min(1), torch.nan)
    return plots.matrix(title, one.classes, shares, "present", "predicted, % of those present")


def _row_shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


# ----------------------------------------------------------------------- classes of a segmentation


@dataclass(frozen=True)
class ClassScores:
    """Intersection over union of each class, of several models on the same test images.

    Args:
        names: Of the classes, K.
        points: Model -> its score of each class with its interval; None for a class that occurs
            in no test mask.
        empty: Number of test images without a labelled pixel.
        figure: Where the classes are drawn; empty without.
    """

    names: tuple[str, ...]
    points: Mapping[str, tuple[Estimate | None, ...]]
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
        points = {
            name: class_points(one, repeats, seed, scored[name].groups)
            for name, one in matrices.items()
        }
        empty = min(int((one.sum(dim=(1, 2)) == 0).sum()) for one in matrices.values())
        found = cls(names, points, empty, figure)
        if figure:
            found._draw(first)
        return found

    def unlabelled(self) -> tuple[str, ...]:
        """Return a remark if test images have no labelled pixel."""
        words = f"{self.empty} test images have no labelled pixel, and count nowhere"
        return (words,) if self.empty else ()

    def describe(self) -> str:
        """Return one row per class, one column per model."""
        rows = (
            TableRow((label, *(_cell(values[index]) for values in self.points.values())))
            for index, label in enumerate(self.names)
        )
        heads = ("class", *self.points)
        made = Table(heads, tuple(rows), words=frozenset(range(1, len(heads))))
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
    values = class_iou(matrices.sum(dim=0)).tolist()
    metric = resampled_iou(matrices)
    drawn = bootstrap_values(metric, len(matrices), repeats=repeats, seed=seed, groups=groups)
    spans = [percentile_interval(drawn[:, k]) for k in range(len(values))]
    return tuple(
        Estimate(value, span.low, span.high) if value == value else None  # noqa: PLR0124 (NaN)
        for value, span in zip(values, spans, strict=True)
    )


def _cell(point: Estimate | None) -> str:
    if point is None:
        return "not in test"
    return f"{100 * point.value:.1f} ({100 * point.low:.1f} – {100 * point.high:.1f})"
