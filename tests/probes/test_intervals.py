"""Intervals: each resample is scored as the plain metric scores it, by counts alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from eofm.errors import ConfigError
from eofm.probes.bootstrap import (
    Resampled,
    bootstrap_interval,
    bootstrap_values,
    once,
    percentile_interval,
    resampled_accuracy,
    resampled_ap,
    resampled_average_accuracy,
    resampled_batched_ap,
    resampled_calibration_error,
    resampled_class_ap,
    resampled_difference,
    resampled_f1,
)
from eofm.probes.metrics import (
    Metric,
    average_accuracy,
    average_precision,
    batched_average_precision,
    expected_calibration_error,
    f1_score,
)


def counts(index: Tensor) -> Tensor:
    """How often each sample occurs in each row of indices."""
    return torch.stack([torch.bincount(row, minlength=index.shape[1]) for row in index]).double()


def multi_label(
    generator: torch.Generator, samples: int = 60, classes: int = 4
) -> tuple[Tensor, Tensor]:
    """Tied scores and labels."""
    scores = torch.randint(9, (samples, classes), generator=generator).double() / 8
    targets = (torch.rand(samples, classes, generator=generator) < 0.3).long()
    return scores, targets


@pytest.mark.parametrize("metric", [Metric.AP_MICRO, Metric.AP_MACRO, Metric.AP_WEIGHTED])
def test_resampled_ap_is_scikit_learns_on_the_drawn_samples(
    generator: torch.Generator, metric: Metric
) -> None:
    """Counting a sample twice equals having it twice in the list, ties included."""
    scores, targets = multi_label(generator)
    index = torch.randint(60, (8, 60), generator=generator)

    values = resampled_ap(scores, targets, metric)(counts(index))

    average = metric.removeprefix("ap_")
    for row, value in zip(index, values.tolist(), strict=True):
        expected = average_precision_score(
            targets[row].numpy(), scores[row].numpy(), average=average
        )
        assert expected == pytest.approx(value, abs=1e-10)


def test_every_metric_of_the_split_itself(generator: torch.Generator) -> None:
    """With every sample once, each resampled metric is the plain one."""
    scores, targets = multi_label(generator)
    ap, f1 = average_precision(scores, targets), f1_score(scores, targets)
    error = expected_calibration_error(scores.flatten(), targets.flatten())

    def of(metric: Resampled) -> float:
        return float(metric(once(60)))

    assert ap.micro == pytest.approx(of(resampled_ap(scores, targets, Metric.AP_MICRO)))
    assert ap.macro == pytest.approx(of(resampled_ap(scores, targets, Metric.AP_MACRO)))
    assert ap.weighted == pytest.approx(of(resampled_ap(scores, targets, Metric.AP_WEIGHTED)))
    assert f1.micro == pytest.approx(of(resampled_f1(scores, targets, Metric.F1_MICRO)))
    assert f1.macro == pytest.approx(of(resampled_f1(scores, targets, Metric.F1_MACRO)))
    assert error == pytest.approx(of(resampled_calibration_error(scores, targets)))
    per_class = resampled_class_ap(scores, targets)(once(60))[0].tolist()
    assert per_class == pytest.approx(ap.per_class)


def test_single_label_calibration_is_of_the_class_said(generator: torch.Generator) -> None:
    """The largest probability against whether its class is right."""
    probability = torch.rand(50, 3, generator=generator).double().softmax(dim=1)
    target = torch.randint(3, (50,), generator=generator)
    confidence, said = probability.max(dim=1)

    value = resampled_calibration_error(probability, target)(once(50))

    assert expected_calibration_error(confidence, said == target) == pytest.approx(float(value))


def test_resampled_f1_is_that_of_the_drawn_samples(generator: torch.Generator) -> None:
    """A class the draw misses stays out of its macro average."""
    scores, targets = multi_label(generator, samples=12)
    index = torch.randint(12, (20, 12), generator=generator)

    values = resampled_f1(scores, targets, Metric.F1_MACRO)(counts(index))

    plain = [f1_score(scores[row], targets[row]).macro for row in index]
    assert plain == pytest.approx(values.tolist())


def test_a_class_missing_in_a_resample_stays_out_of_it() -> None:
    """Its AP is undefined there: it neither counts as 0 nor spoils the interval."""
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.8]])
    targets = torch.eye(2).long()

    values = resampled_class_ap(scores, targets)(torch.tensor([[2.0, 0.0], [1.0, 1.0]]).double())
    macro = resampled_ap(scores, targets, Metric.AP_MACRO)(torch.tensor([[2.0, 0.0]]).double())

    assert values.isnan().tolist() == [[False, True], [False, False]]
    assert [1.0] == macro.tolist()
    assert 1.0 == percentile_interval(values[:, 1]).low


def test_ap_does_not_depend_on_chunks(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sorted decisions fit into memory."""
    metric = resampled_ap(*multi_label(generator), Metric.AP_MICRO)
    whole = bootstrap_values(metric, 60, repeats=20)

    monkeypatch.setattr("eofm.probes.bootstrap._SORTED_CELLS", 500)

    assert torch.allclose(whole, bootstrap_values(metric, 60, repeats=20), atol=1e-12)


@pytest.mark.parametrize("wrong", [Metric.OA, Metric.F1_MICRO])
def test_a_foreign_metric_is_refused(generator: torch.Generator, wrong: Metric) -> None:
    """Accuracy is no average precision."""
    with pytest.raises(ConfigError, match="no average precision"):
        resampled_ap(*multi_label(generator), wrong)
    with pytest.raises(ConfigError, match="no F1"):
        resampled_f1(*multi_label(generator), Metric.AP_MICRO)


def test_interval_matches_a_plain_bootstrap() -> None:
    """The percentiles agree with numpy's binomial, which is what resampling accuracy is."""
    predicted = torch.zeros(100, dtype=torch.long)
    target = (torch.arange(100) >= 80).long()

    interval = bootstrap_interval(resampled_accuracy(predicted, target), 100, repeats=4000, seed=1)

    low, high = np.quantile(
        np.random.default_rng(0).binomial(100, 0.8, 200_000) / 100, [0.025, 0.975]
    )
    assert low == pytest.approx(interval.low, abs=0.011)
    assert high == pytest.approx(interval.high, abs=0.011)
    assert (0.95, 4000) == (interval.level, interval.repeats)


def test_resampled_average_accuracy_equals_the_plain_one(generator: torch.Generator) -> None:
    """Each row of a resample is scored as `average_accuracy` scores that subset."""
    target = torch.randint(4, (30,), generator=generator)
    predicted = torch.randint(4, (30,), generator=generator)
    index = torch.randint(30, (5, 30), generator=generator)

    rows = resampled_average_accuracy(predicted, target)(counts(index))

    plain = [average_accuracy(predicted[row], target[row]) for row in index]
    assert plain == pytest.approx(rows.tolist())


def test_bootstrap_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same interval, however many resamples fit into memory."""
    predicted, target = torch.arange(50) % 3, torch.arange(50) % 4
    metric = resampled_accuracy(predicted, target)
    whole = bootstrap_interval(metric, 50, seed=3)

    monkeypatch.setattr("eofm.probes.bootstrap._BOOTSTRAP_CELLS", 70)

    assert whole == bootstrap_interval(metric, 50, seed=3)
    assert whole != bootstrap_interval(metric, 50, seed=4)


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    """Models that err on the same samples differ for certain, though their intervals overlap."""
    target = torch.zeros(200, dtype=torch.long)
    worse, better = (torch.arange(200) < 60).long(), (torch.arange(200) < 50).long()
    one, other = resampled_accuracy(better, target), resampled_accuracy(worse, target)

    gap = bootstrap_interval(resampled_difference(one, other), 200, seed=0)

    assert 0 < gap.low
    lower = bootstrap_interval(one, 200, seed=0).low
    assert lower < bootstrap_interval(other, 200, seed=0).high


@pytest.mark.parametrize(
    ("samples", "repeats", "level"), [(0, 10, 0.95), (5, 0, 0.95), (5, 10, 1.0)]
)
def test_bootstrap_refuses_nonsense(samples: int, repeats: int, level: float) -> None:
    """Without samples, repeats or a level there is no interval."""
    with pytest.raises(ConfigError, match="needs"):
        bootstrap_interval(lambda counts: counts[:, 0], samples, repeats=repeats, level=level)


def test_the_mean_over_batches_is_resampled_within_them(generator: torch.Generator) -> None:
    """With every sample once it is the plain number; samples of the dropped rest have no say."""
    scores, targets = multi_label(generator, samples=140)
    metric = resampled_batched_ap(scores, targets)
    twice = once(140)
    twice[:, 128:] = 2

    assert batched_average_precision(scores, targets) == pytest.approx(float(metric(once(140))))
    assert torch.equal(metric(once(140)), metric(twice))
