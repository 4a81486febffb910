"""Figures of records: scores per class, confusion or co-occurrence, curves.

Shapes: K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.bench.predictions import Predictions
from eofm.bench.probes import class_intervals
from eofm.bench.reports.classes import class_points
from eofm.bench.reports.curves import Curve
from eofm.bench.reports.report_config import RecordsExportConfig
from eofm.bench.reports.tables import metric_name, probe_words
from eofm.probes.metrics import confusion_matrix
from eofm.report import plots
from eofm.report.output import shorten
from eofm.report.plots import Estimate

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
    found = class_intervals(one.comparable, one.target, config.bootstrap, config.seed, one.numbers)
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
