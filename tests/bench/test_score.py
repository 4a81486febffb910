"""Scores of one model, and what is said when a control does as well."""

from __future__ import annotations

import pytest
import torch

from eofm.bench.score import Scored, Splits, compare, run_probe
from eofm.metrics import Metric, average_accuracy, overall_accuracy, resampled_accuracy
from eofm.probe import Labelled, ProbeResult, Scaling


def splits(generator: torch.Generator) -> Splits:
    """Four overlapping classes."""
    centres = 1.2 * torch.randn(4, 10, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(count) % 4
        return centres[y] + torch.randn(count, 10, generator=generator), y

    (train, train_y), (val, val_y), (test, test_y) = draw(80), draw(40), draw(60)
    return Splits(
        Labelled(train, train_y, 4), Labelled(val, val_y, 4), test, test_y, torch.arange(80)
    )


@pytest.mark.parametrize("kind", ["knn", "linear"])
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
        assert interval.low < scored.value(metric) < interval.high
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
