"""Scores against scikit-learn, against values known by hand, and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from eofm.errors import ConfigError, LabelError, PixelError
from eofm.metrics import (
    average_accuracy,
    average_precision,
    bootstrap_interval,
    overall_accuracy,
    resampled_accuracy,
    resampled_average_accuracy,
    resampled_difference,
)


def step_ap(scores: list[float], targets: list[int]) -> float:
    """AP from its definition, one distinct score after the other, in plain Python."""
    total, before, area = sum(targets), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, targets, strict=True) if s >= threshold]
        recall, precision = sum(chosen) / total, sum(chosen) / len(chosen)
        area, before = area + (recall - before) * precision, recall
    return area


def test_average_precision_is_its_definition(generator: torch.Generator) -> None:
    """Micro, macro and per-class AP equal a plain loop over distinct scores, ties included."""
    scores = torch.randint(6, (60, 4), generator=generator) / 5
    targets = torch.rand(60, 4, generator=generator) < 0.3

    ap = average_precision(scores, targets)

    per_class = [step_ap(scores[:, k].tolist(), targets[:, k].tolist()) for k in range(4)]
    assert per_class == pytest.approx(ap.per_class, abs=1e-6)
    assert sum(per_class) / 4 == pytest.approx(ap.macro, abs=1e-6)
    micro = step_ap(scores.flatten().tolist(), targets.flatten().tolist())
    assert micro == pytest.approx(ap.micro, abs=1e-6)


def test_average_precision_equals_scikit_learn(generator: torch.Generator) -> None:
    """The numbers are those every other benchmark reports."""
    scores = torch.randn(200, 5, generator=generator)
    targets = (torch.rand(200, 5, generator=generator) < 0.2).long()

    ap = average_precision(scores, targets)

    for average, value in (("micro", ap.micro), ("macro", ap.macro)):
        expected = average_precision_score(targets.numpy(), scores.numpy(), average=average)
        assert expected == pytest.approx(value, abs=1e-6)


def test_large_logits_stay_apart() -> None:
    """Logits of 40 and 50 are not one step, as they would be after a float32 sigmoid."""
    scores = torch.tensor([[50.0], [40.0], [30.0], [-50.0]])
    targets = torch.tensor([[1], [0], [1], [0]])

    assert (1 + 2 / 3) / 2 == pytest.approx(average_precision(scores, targets).macro)


def test_an_absent_class_stays_out_of_the_macro_average() -> None:
    """It has no AP; counting it as 0 would halve the score."""
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.7]])
    targets = torch.tensor([[1, 0], [0, 0]])

    ap = average_precision(scores, targets)

    assert (1.0, None) == ap.per_class
    assert 1.0 == ap.macro
    assert 1 == ap.classes_scored


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30))
def test_order_of_samples_never_matters(seed: int, samples: int) -> None:
    """Shuffling the set leaves every AP alone, also with many equal scores."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(3, (samples, 3), generator=generator).float()
    targets = torch.randint(2, (samples, 3), generator=generator)
    targets[0, 0] = 1
    order = torch.randperm(samples, generator=generator)

    ap, shuffled = (
        average_precision(scores, targets),
        average_precision(scores[order], targets[order]),
    )

    assert ap.micro == pytest.approx(shuffled.micro, abs=1e-6)
    assert ap.per_class == pytest.approx(shuffled.per_class, abs=1e-6)


def test_infinite_scores_rank() -> None:
    """A class a linear probe could not fit scores minus infinity, and simply ranks last."""
    scores = torch.tensor([[-math.inf, 1.0], [0.0, -math.inf]], dtype=torch.float64)

    assert 1.0 == average_precision(scores, torch.tensor([[0, 1], [1, 0]])).micro


def test_average_precision_refuses_what_it_cannot_score() -> None:
    """No positive at all, a NaN, a shape or a label that does not fit: each a clear error."""
    with pytest.raises(LabelError, match="at least one positive"):
        average_precision(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(PixelError, match="NaN"):
        average_precision(torch.tensor([[torch.nan]]), torch.ones(1, 1))
    with pytest.raises(LabelError, match="must both be"):
        average_precision(torch.zeros(3, 2), torch.ones(2, 3))
    with pytest.raises(LabelError, match="0 or 1"):
        average_precision(torch.zeros(1, 1), torch.full((1, 1), 2))


def test_accuracies_by_hand() -> None:
    """OA counts samples, AA classes; a class without samples has no say."""
    target = torch.tensor([0, 0, 0, 2])
    predicted = torch.tensor([0, 0, 1, 2])

    assert 0.75 == overall_accuracy(predicted, target)
    assert (2 / 3 + 1) / 2 == pytest.approx(average_accuracy(predicted, target))


def test_average_accuracy_equals_scikit_learn(generator: torch.Generator) -> None:
    """What we call average accuracy is its balanced accuracy."""
    target, predicted = torch.randint(5, (2, 80), generator=generator)

    balanced = balanced_accuracy_score(target.numpy(), predicted.numpy())

    assert balanced == pytest.approx(average_accuracy(predicted, target))


def test_accuracy_refuses_an_empty_set() -> None:
    """Nothing was scored: that is no accuracy of 0."""
    empty = torch.empty(0, dtype=torch.long)
    with pytest.raises(LabelError, match="per sample"):
        overall_accuracy(empty, empty)


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

    rows = resampled_average_accuracy(predicted, target)(index)

    plain = [average_accuracy(predicted[row], target[row]) for row in index]
    assert plain == pytest.approx(rows.tolist())


def test_bootstrap_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same interval, however many resamples fit into memory."""
    predicted, target = torch.arange(50) % 3, torch.arange(50) % 4
    metric = resampled_accuracy(predicted, target)
    whole = bootstrap_interval(metric, 50, seed=3)

    monkeypatch.setattr("eofm.metrics._BOOTSTRAP_CELLS", 70)

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
    with pytest.raises(ConfigError, match="bootstrap needs"):
        bootstrap_interval(lambda index: index[:, 0], samples, repeats=repeats, level=level)
