"""Probes on one model's features, scored with intervals.

Shapes: N training samples, M test samples, D features, K classes, R resamples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from eofm.errors import ConfigError
from eofm.io import load_own, names_own
from eofm.probes.bootstrap import (
    Interval,
    Resampled,
    bootstrap_interval,
    bootstrap_values,
    enough_groups,
    once,
    resampled_accuracy,
    resampled_ap,
    resampled_average_accuracy,
    resampled_batched_ap,
    resampled_calibration_error,
    resampled_class_ap,
    resampled_difference,
    resampled_f1,
    unit_count,
)
from eofm.probes.features import (
    Labelled,
    ProbeResult,
    Scaling,
    Spectrum,
    scale,
    spectrum_of,
)
from eofm.probes.knn import Distance, knn_probe, nearest_mean_probe
from eofm.probes.linear import (
    C11,
    C40,
    C45,
    StrengthGrid,
    linear_probe,
)
from eofm.probes.metrics import BATCH, Metric, average_precision, overall_accuracy
from eofm.probes.nmtune import nmtune_probe

__all__ = [
    "KINDS",
    "LAYER_KINDS",
    "MULTI_LABEL",
    "NMTUNE",
    "SINGLE_LABEL",
    "Kind",
    "Scored",
    "Splits",
    "choice_of",
    "class_draws",
    "compare",
    "draws_of_classes",
    "probe_of",
    "resampled_metrics",
    "run_probe",
]

_CONVERGED: Final = 1e-4

# Features with a lower effective rank than this are degenerate, whatever their width.
_LEAST_RANK: Final = 5.0

SINGLE_LABEL: Final = (Metric.OA, Metric.AA, Metric.ECE)

MULTI_LABEL: Final = (
    Metric.AP_MICRO,
    Metric.AP_MACRO,
    Metric.AP_WEIGHTED,
    Metric.F1_MICRO,
    Metric.F1_MACRO,
    Metric.ECE,
)


@dataclass(frozen=True)
class Splits:
    """One model's features of a task.

    Args:
        train: Training split.
        val: Validation split; None if there is none, so that no linear probe can choose its C.
        test_x: (M, D).
        test_y: (M,) class indices, or (M, K) with 1 where a class is present.
        order: (N,) ranks of the training samples, to break ties of distances.
        readouts: Columns of the features for each read-out of a grid, by name.
    """

    train: Labelled
    val: Labelled | None
    test_x: Tensor
    test_y: Tensor
    order: Tensor
    readouts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """Scores of a probe of one model on the test split.

    Args:
        kind: A key of `KINDS`, of trainings, or of a segmentation `SEGMENTATION` or `PROMPT`.
        probe: Its result.
        metrics: Each metric as a function of resampled test samples.
        samples: Number of test samples, M.
        seconds: Time spent.
        spectrum: Spectrum of the training features after scaling.
        groups: Number of each test sample's group, int64 (M,); None resamples single samples.
        narrow: Whether features are inherently too few for a meaningful rank.
        matrices: int64 (M, K, K), pixels by true and predicted class; None for whole images.
        prompts: float32 (M, K, W), sums of the prompt probe; None for all other probes
            (`eofm.bench.segmentation`).
        target: Labelled pixels of each class for the prompt probe, (M, K); None for all others,
            whose labels the archive has.
        predictions: File of the predictions, relative to the records; empty if none.
        predictions_sha256: Hash of that file.
    """

    kind: str
    probe: ProbeResult
    metrics: Mapping[Metric, Resampled]
    samples: int
    seconds: float
    spectrum: Spectrum | None = None
    groups: Tensor | None = None
    narrow: bool = False
    matrices: Tensor | None = None
    prompts: Tensor | None = None
    target: Tensor | None = None
    predictions: str = ""
    predictions_sha256: str = ""

    def value(self, metric: Metric) -> float:
        """Return the score on the test split."""
        return float(self.metrics[metric](once(self.samples)))

    def interval(self, metric: Metric, repeats: int, seed: int) -> Interval:
        """Return the bootstrap interval of the score."""
        return self.spread(self.metrics[metric], repeats, seed)

    def spread(self, metric: Resampled, repeats: int, seed: int) -> Interval:
        """Return the bootstrap interval of any function of the same test samples."""
        return bootstrap_interval(
            metric, self.samples, repeats=repeats, seed=seed, groups=self.groups
        )

    @property
    def units(self) -> int:
        """Number of test samples, or of groups of them, that are resampled."""
        return unit_count(self.samples, self.groups)

    def faults(self) -> tuple[str, ...]:
        """Return warnings about the fit."""
        norm = self.probe.gradient_norm
        rank = None if self.spectrum is None else self.spectrum.rank
        faults = {
            "C at the edge of the grid": self.probe.on_edge,
            "not converged": norm is not None and norm > _CONVERGED,
            f"effective rank {rank or 0:.1f}": rank is not None
            and not self.narrow
            and rank < _LEAST_RANK,
        }
        return (*self.probe.notes, *(text for text, holds in faults.items() if holds))


# ------------------------------------------------------------------------------ probes

Kind = Callable[[Splits, Scaling, int], ProbeResult]


def _knn(splits: Splits, scaling: Scaling, k: int) -> ProbeResult:
    return knn_probe(splits.train, splits.test_x, k=k, scaling=scaling, order=splits.order)


def _knn_cosine(splits: Splits, scaling: Scaling, k: int) -> ProbeResult:
    del k  # part of the protocol (DINO), limited to the size of a small split
    return knn_probe(
        splits.train,
        splits.test_x,
        k=min(20, len(splits.train.x)),
        metric=Distance.COSINE,
        temperature=0.07,
        scaling=scaling,
        order=splits.order,
    )


def _nmc(splits: Splits, scaling: Scaling, k: int) -> ProbeResult:
    del k
    return nearest_mean_probe(splits.train, splits.test_x, scaling=scaling)


def _linear(grid: StrengthGrid, *, refit: bool, scaled: bool = True) -> Kind:
    def probe(splits: Splits, scaling: Scaling, k: int) -> ProbeResult:
        del k
        return linear_probe(
            splits.train,
            splits.val if len(grid.values) > 1 else None,
            splits.test_x,
            choice=choice_of(splits.train.multi_label),
            grid=grid,
            scaling=scaling if scaled else Scaling.NONE,
            refit=refit,
        )

    return probe


def _linear_grid(splits: Splits, scaling: Scaling, k: int) -> ProbeResult:
    """Fit every read-out, and choose on val; for ties, the one with fewest columns."""
    del k
    if splits.val is None or not splits.readouts:
        raise ConfigError(
            "a grid of read-outs needs features of several layers and a validation split",
            found=f"{len(splits.readouts)} read-outs, "
            + ("no validation split" if splits.val is None else "a validation split"),
        )
    found: dict[str, ProbeResult] = {}
    for name, columns in sorted(splits.readouts.items(), key=lambda one: len(one[1])):
        train, val = (replace(part, x=part.x[:, columns]) for part in (splits.train, splits.val))
        choice = choice_of(splits.train.multi_label)
        test_x = splits.test_x[:, columns]
        found[name] = linear_probe(
            train, val, test_x, choice=choice, grid=C11, scaling=scaling, refit=False
        )
    reached = {name: max(score for _, score in one.validation) for name, one in found.items()}
    best = max(reached, key=lambda name: reached[name])
    return replace(
        found[best],
        probe=f"linear-grid[lbfgs,{'/'.join(found)},C11,val,norefit,{scaling}]",
        chosen=best,
        details={f"val, {name}": f"{score:.4f}" for name, score in reached.items()},
    )


def _nmtune(splits: Splits, scaling: Scaling, k: int) -> ProbeResult:
    del k
    choice = choice_of(splits.train.multi_label)
    return nmtune_probe(splits.train, splits.val, splits.test_x, choice=choice, scaling=scaling)


# Trained by steps; all other probes of features are converged or count neighbours.
NMTUNE: Final = "nmtune"

KINDS: Final[Mapping[str, Kind]] = {
    "knn": _knn,
    "knn20": _knn_cosine,
    "nmc": _nmc,
    "linear": _linear(C40, refit=False),
    "linear-refit": _linear(C40, refit=True),
    "linear-c45-refit": _linear(C45, refit=True),
    "linear-c1": _linear(StrengthGrid.single(1.0), refit=False),
    "linear-grid": _linear_grid,
    NMTUNE: _nmtune,
}


# Probes that read several layers of a network: see `eofm.bench.features.LayeredSource`.
LAYER_KINDS: Final = ("linear-grid",)


def choice_of(multi_label: bool) -> Callable[[Tensor, Tensor], float]:
    """Return the criterion for C of a linear probe on val: micro AP, or overall accuracy."""

    def accuracy(scores: Tensor, target: Tensor) -> float:
        return overall_accuracy(scores.argmax(dim=1), target)

    def micro(scores: Tensor, target: Tensor) -> float:
        return average_precision(scores, target).micro

    return micro if multi_label else accuracy


def probe_of(kind: str) -> Kind:
    """Return a probe by its name.

    A user's own probe is one file with a function that takes `Splits`, the scaling and `--k`, and
    returns a `ProbeResult`:

        eofm bench eurosat --root DIR --model MODEL --probe mine.py:medians

    Args:
        kind: A key of `KINDS`, or `module:function`, `file.py:function`.

    Raises:
        ConfigError: If there is no probe of that name.
    """
    if kind in KINDS:
        return KINDS[kind]
    if not names_own(kind):
        raise ConfigError("there is no such probe", found=kind, expected=", ".join(KINDS))
    try:
        own = load_own(kind)
    except Exception as error:
        raise ConfigError(
            "a probe of your own cannot be loaded",
            found=f"{type(error).__name__}: {error}",
            where=f"--probe {kind}",
            remedy="the part before : is a module that can be imported, or a .py file; the part "
            "after it a function of (Splits, Scaling, k)",
        ) from error
    if not callable(own):
        raise ConfigError(
            "a probe of your own is not a function",
            found=type(own).__name__,
            expected="a function of (Splits, Scaling, k) that returns a ProbeResult",
            where=f"--probe {kind}",
        )
    return own  # its return value is checked after the call


def run_probe(
    kind: str, splits: Splits, scaling: Scaling, k: int, metrics: Sequence[Metric] | None = None
) -> Scored:
    """Fit a probe on train, choose on val, score test.

    Args:
        kind: A key of `KINDS`, or a user's own function.
        splits: Features with labels.
        scaling: Scaling applied to the features first.
        k: Number of neighbours of `knn`.
        metrics: Metrics; by default all that labels and probe allow. ECE and F1 need
            probabilities, which nearest mean does not have: they are omitted there.

    Raises:
        ConfigError: If there is no such probe, or a metric does not match the labels.
    """
    function, start = probe_of(kind), time.monotonic()
    probe = function(splits, scaling, k)
    if not isinstance(probe, ProbeResult):
        raise ConfigError(
            "a probe of your own must return its predictions for the test samples",
            found=type(probe).__name__,
            expected="an eofm.probes.features.ProbeResult",
            where=f"--probe {kind}",
        )
    seconds = time.monotonic() - start
    possible = MULTI_LABEL if splits.test_y.ndim == 2 else SINGLE_LABEL
    wanted = possible if metrics is None else tuple(metrics)
    strange = [metric for metric in wanted if metric not in possible]
    if strange:
        raise ConfigError(
            "these metrics do not match the labels",
            found=", ".join(strange),
            expected=", ".join(possible),
        )
    scored = resampled_metrics(probe, splits.test_y, wanted)
    (train,) = scale(splits.train.x, scaling)
    return Scored(kind, probe, scored, len(splits.test_y), seconds, spectrum_of(train))


def resampled_metrics(
    probe: ProbeResult, target: Tensor, wanted: Sequence[Metric]
) -> dict[Metric, Resampled]:
    """Return metrics as functions of resampled test samples.

    Args:
        probe: Predictions for the test samples.
        target: (M,) or (M, K).
        wanted: Ids; those that need a probability are omitted if the probe has none, and the
            mean over batches if there is no full batch.
    """
    said = probe.scores.argmax(dim=1)
    makers: dict[Metric, Callable[[], Resampled]] = {
        Metric.OA: lambda: resampled_accuracy(said, target),
        Metric.AA: lambda: resampled_average_accuracy(said, target),
    }
    for ap in Metric.AP_MICRO, Metric.AP_MACRO, Metric.AP_WEIGHTED:
        makers[ap] = lambda ap=ap: resampled_ap(probe.scores, target, ap)  # type: ignore[misc]
    if len(target) >= BATCH:
        makers[Metric.AP_MICRO_BATCHES] = lambda: resampled_batched_ap(probe.scores, target)
    probability = probe.probability
    if probability is not None:
        sure = probability
        makers[Metric.ECE] = lambda: resampled_calibration_error(sure, target)
        for f1 in Metric.F1_MICRO, Metric.F1_MACRO:
            makers[f1] = lambda f1=f1: resampled_f1(sure, target, f1)  # type: ignore[misc]
    return {metric: makers[metric]() for metric in wanted if metric in makers}


def class_draws(
    scores: Tensor, targets: Tensor, repeats: int, seed: int, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return each class's average precision (K,), and `draws_of_classes`; NaN for none.

    Args:
        scores: (M, K).
        targets: (M, K), or (M,) class indices: one class against all others.
        repeats: Resamples, R.
        seed: Seed of the resampling.
        groups: Number of each test sample's group, (M,); None resamples single samples.
    """
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, scores.shape[1])
    plain = average_precision(scores, targets).per_class
    known = scores.new_tensor([math.nan if value is None else value for value in plain])
    metric = resampled_class_ap(scores, targets)
    return known, draws_of_classes(known, metric, len(scores), repeats, seed, groups)


def draws_of_classes(
    plain: Tensor, metric: Resampled, samples: int, repeats: int, seed: int, groups: Tensor | None
) -> Tensor:
    """Return the score of each class on every resample, (R, K).

    With too few groups for an interval it is the plain score, (1, K), without spread.

    Args:
        plain: Score of each class, (K,).
        metric: Maps (R, M) counts to (R, K) scores.
        samples: Number of test samples, M.
        repeats: Resamples, R.
        seed: Seed of the resampling.
        groups: Number of each test sample's group, (M,); None resamples single samples.
    """
    if not enough_groups(unit_count(samples, groups)):
        return plain[None]
    return bootstrap_values(metric, samples, repeats=repeats, seed=seed, groups=groups)


def compare(
    model: Scored, control: Scored, name: str, metric: Metric, repeats: int, seed: int
) -> tuple[str, ...]:
    """Return a flag if a model does not beat a control, on the same test samples.

    Args:
        model: The candidate.
        control: The control, scored by the same kind of probe.
        name: Name of the control.
        metric: Metric of the comparison.
        repeats: Resamples of the paired difference.
        seed: Seed of the resampling.

    Returns:
        `below <name>` if the paired interval of the difference is below 0, `not above <name>` if
        only the score itself is, or nothing. Signs are reversed for a metric that counts errors.
    """
    one, other = model.metrics[metric], control.metrics[metric]
    ahead = resampled_difference(one, other)
    if metric.smaller_is_better:
        ahead = resampled_difference(other, one)
    if float(ahead(once(model.samples))) > 0:
        return ()
    interval = model.spread(ahead, repeats, seed)
    certain = interval.high < 0 and enough_groups(model.units)
    return (f"below {name}" if certain else f"not above {name}",)
