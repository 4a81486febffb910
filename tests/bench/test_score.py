"""Scores of one model, and what is said when a control does as well."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eofm.bench.probes import (
    KINDS,
    MULTI_LABEL,
    Scored,
    Splits,
    class_draws,
    compare,
    run_probe,
)
from eofm.bench.reports.classes import estimates_of
from eofm.errors import ConfigError
from eofm.probes.bootstrap import resampled_accuracy
from eofm.probes.features import Labelled, ProbeResult, Scaling
from eofm.probes.metrics import Metric, average_accuracy, average_precision, overall_accuracy


def splits(generator: torch.Generator) -> Splits:
    """Four overlapping classes."""
    centres = 1.2 * torch.randn(4, 10, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(count) % 4
        return centres[y] + torch.randn(count, 10, generator=generator), y

    (train, train_y), (val, val_y), (test, test_y) = draw(80), draw(40), draw(60)
    return Splits(
        Labelled(train, train_y, 4),
        Labelled(val, val_y, 4),
        test,
        test_y,
        torch.arange(80),
        {"half": torch.arange(5), "all": torch.arange(10)},
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_scores_are_those_of_the_predictions(generator: torch.Generator, kind: str) -> None:
    """OA and AA of the highest score, each inside its interval."""
    data = splits(generator)

    scored = run_probe(kind, data, Scaling.NONE, k=5)

    predicted = scored.probe.scores.argmax(dim=1)
    assert overall_accuracy(predicted, data.test_y) == pytest.approx(scored.value(Metric.OA))
    assert average_accuracy(predicted, data.test_y) == pytest.approx(scored.value(Metric.AA))
    assert scored.value(Metric.OA) > 0.6
    for metric in Metric.OA, Metric.AA:
        interval = scored.interval(metric, 200, seed=0)
        assert interval.low <= scored.value(metric) <= interval.high
    assert () == scored.faults()


def fixed(correct: int, samples: int = 100, **probe: object) -> Scored:
    """A model that is right on the first `correct` samples."""
    target = torch.zeros(samples, dtype=torch.long)
    predicted = (torch.arange(samples) >= correct).long()
    metrics = {Metric.OA: resampled_accuracy(predicted, target)}
    result = ProbeResult("knn[]", torch.empty(0), **probe)  # type: ignore[arg-type]
    return Scored("knn", result, metrics, samples, 0.0)


@pytest.mark.parametrize(
    ("model", "flags"),
    [(60, ("below stats",)), (79, ("not above stats",)), (80, ("not above stats",)), (81, ())],
)
def test_a_model_that_does_not_beat_a_control_is_flagged(
    model: int, flags: tuple[str, ...]
) -> None:
    """Twenty samples behind is "below"; one behind, or equal, is "not above"; ahead is nothing."""
    assert flags == compare(fixed(model), fixed(80), "stats", Metric.OA, 500, seed=0)


def test_faults_of_a_fit_are_told() -> None:
    """A C at the end of its grid, and a fit that has not converged."""
    scored = fixed(50, on_edge=True, gradient_norm=1e-3)

    assert ("C at the edge of the grid", "not converged") == scored.faults()


def several(generator: torch.Generator) -> Splits:
    """The same samples with two more labels each now and then."""
    data = splits(generator)

    def more(labelled: Labelled) -> Labelled:
        hot = torch.nn.functional.one_hot(labelled.y, 4)
        extra = torch.rand(hot.shape, generator=generator) < 0.1
        return Labelled(labelled.x, (hot.bool() | extra).long(), 4)

    test = more(Labelled(data.test_x, data.test_y, 4))
    return Splits(more(data.train), more(data.val), test.x, test.y, data.order, data.readouts)


@pytest.mark.parametrize("kind", list(KINDS))
def test_multi_label_tasks_get_every_average(generator: torch.Generator, kind: str) -> None:
    """Micro, macro and weighted AP; F1 and calibration where the probe has probabilities."""
    data = several(generator)

    scored = run_probe(kind, data, Scaling.NONE, k=5)

    assert set(scored.metrics) == {m for m in MULTI_LABEL if kind != "nmc" or m.startswith("ap")}
    ap = average_precision(scored.probe.scores, data.test_y)
    assert ap.micro == pytest.approx(scored.value(Metric.AP_MICRO))
    assert ap.macro == pytest.approx(scored.value(Metric.AP_MACRO))
    assert ap.weighted == pytest.approx(scored.value(Metric.AP_WEIGHTED))
    points = estimates_of(*class_draws(scored.probe.scores, data.test_y, 50, seed=0))
    for value, found in zip(ap.per_class, points, strict=True):
        assert found is not None
        assert value == pytest.approx(found.value)
        assert found.low <= found.value <= found.high


def test_one_sample_puts_no_model_below_another() -> None:
    """It has no spread: its interval is a point, which proves nothing."""
    flags = compare(fixed(0, samples=1), fixed(1, samples=1), "stats", Metric.OA, 50, seed=0)

    assert ("not above stats",) == flags


def test_what_does_not_exist_is_refused(generator: torch.Generator) -> None:
    """An unknown probe, and accuracy of several labels."""
    with pytest.raises(ConfigError, match="no such probe"):
        run_probe("magic", splits(generator), Scaling.NONE, k=5)
    with pytest.raises(ConfigError, match="do not match the labels"):
        run_probe("knn", several(generator), Scaling.NONE, 5, [Metric.OA])


def test_calibration_error_is_better_when_smaller() -> None:
    """A model with less error than a control is not flagged."""
    one, other = fixed(60), fixed(80)
    error = {Metric.ECE: lambda counts: counts[:, 0] * 0 + 0.1}
    more = {Metric.ECE: lambda counts: counts[:, 0] * 0 + 0.2}
    small, large = replace(one, metrics=error), replace(other, metrics=more)

    assert () == compare(small, large, "stats", Metric.ECE, 20, seed=0)
    assert ("below stats",) == compare(large, small, "stats", Metric.ECE, 20, seed=0)


def test_degenerate_features_are_flagged(generator: torch.Generator) -> None:
    """Two directions in ten features are a fault, and the flag says how many."""
    data = splits(generator)
    flat = torch.randn(2, 10, generator=generator)

    def squash(x: torch.Tensor) -> torch.Tensor:
        return x[:, :2] @ flat

    bad = Splits(
        Labelled(squash(data.train.x), data.train.y, 4),
        Labelled(squash(data.val.x), data.val.y, 4),
        squash(data.test_x),
        data.test_y,
        data.order,
    )

    (flag,) = run_probe("knn", bad, Scaling.NONE, k=5).faults()
    assert flag.startswith("effective rank 1.") or flag.startswith("effective rank 2.")
