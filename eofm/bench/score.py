"""Probes on one model's features, scored with intervals.

Shapes: N training samples, M test samples, D features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from eofm.metrics import (
    Interval,
    Metric,
    Resampled,
    bootstrap_interval,
    overall_accuracy,
    resampled_accuracy,
    resampled_average_accuracy,
    resampled_difference,
)
from eofm.probe import C40, Labelled, ProbeResult, Scaling, knn_probe, linear_probe

_CONVERGED: Final = 1e-4


@dataclass(frozen=True)
class Splits:
    """One model's features of a task of one class per sample.

    Args:
        train: Training split.
        val: Validation split.
        test_x: (M, D).
        test_y: (M,) class indices.
        order: (N,) ranks of the training samples; they settle equal distances.
    """

    train: Labelled
    val: Labelled
    test_x: Tensor
    test_y: Tensor
    order: Tensor


@dataclass(frozen=True)
class Scored:
    """What a probe of one model reaches on the test split.

    Args:
        kind: `knn` or `linear`.
        probe: Its outcome.
        metrics: Each metric as a function of resampled test samples.
        samples: Number of test samples, M.
        seconds: Spent.
    """

    kind: str
    probe: ProbeResult
    metrics: Mapping[Metric, Resampled]
    samples: int
    seconds: float

    def value(self, metric: Metric) -> float:
        """Return the score on the test split."""
        return float(self.metrics[metric](torch.arange(self.samples)[None]))

    def interval(self, metric: Metric, repeats: int, seed: int) -> Interval:
        """Return the bootstrap interval of the score."""
        return bootstrap_interval(self.metrics[metric], self.samples, repeats=repeats, seed=seed)

    def faults(self) -> tuple[str, ...]:
        """Return what is to be said against the fit."""
        norm = self.probe.gradient_norm
        faults = {
            "C at the edge of the grid": self.probe.on_edge,
            "not converged": norm is not None and norm > _CONVERGED,
        }
        return tuple(text for text, holds in faults.items() if holds)


def run_probe(kind: str, splits: Splits, scaling: Scaling, k: int) -> Scored:
    """Fit a probe on train, choose on val, score test.

    Args:
        kind: `knn` (L2, majority of k) or `linear` (L-BFGS, C of 40 by accuracy on val).
        splits: Features with labels.
        scaling: What is done to the features first.
        k: Number of neighbours.
    """
    start = time.monotonic()
    if kind == "knn":
        probe = knn_probe(splits.train, splits.test_x, k=k, scaling=scaling, order=splits.order)
    else:
        probe = linear_probe(
            splits.train, splits.val, splits.test_x, choice=_accuracy, grid=C40, scaling=scaling
        )
    predicted = probe.scores.argmax(dim=1)
    metrics = {
        Metric.OA: resampled_accuracy(predicted, splits.test_y),
        Metric.AA: resampled_average_accuracy(predicted, splits.test_y),
    }
    return Scored(kind, probe, metrics, len(predicted), time.monotonic() - start)


def _accuracy(scores: Tensor, target: Tensor) -> float:
    return overall_accuracy(scores.argmax(dim=1), target)


def compare(
    model: Scored, control: Scored, name: str, metric: Metric, repeats: int, seed: int
) -> tuple[str, ...]:
    """Return a flag if a model does not beat a control, on the same test samples.

    Args:
        model: The candidate.
        control: The yardstick, by the same kind of probe.
        name: Of the control.
        metric: By what.
        repeats: Resamples of the paired difference.
        seed: Of the resampling.

    Returns:
        `below <name>` if the paired interval of the difference lies below 0, `not above <name>`
        if only the score itself does, or nothing.
    """
    if model.value(metric) > control.value(metric):
        return ()
    difference = resampled_difference(model.metrics[metric], control.metrics[metric])
    interval = bootstrap_interval(difference, model.samples, repeats=repeats, seed=seed)
    return (f"below {name}" if interval.high < 0 else f"not above {name}",)
