"""Scores against scikit-learn, against values known by hand, and their intervals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import f1_score as sklearn_f1

from eofm.errors import ConfigError, LabelError, PixelError
from eofm.probes.metrics import (
    METRIC_WORDS,
    Metric,
    average_accuracy,
    average_precision,
    batched_average_precision,
    confusion_matrix,
    equal_mass_bins,
    expected_calibration_error,
    f1_score,
    overall_accuracy,
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
    assert per_class == pytest.approx(ap.per_class, abs=1e-10)
    assert sum(per_class) / 4 == pytest.approx(ap.macro, abs=1e-10)
    micro = step_ap(scores.flatten().tolist(), targets.flatten().tolist())
    assert micro == pytest.approx(ap.micro, abs=1e-10)


def test_average_precision_equals_scikit_learn(generator: torch.Generator) -> None:
    """The numbers are those every other benchmark reports."""
    scores = torch.randn(200, 5, generator=generator)
    targets = (torch.rand(200, 5, generator=generator) < 0.2).long()

    ap = average_precision(scores, targets)

    for average, value in (
        ("micro", ap.micro),
        ("macro", ap.macro),
        ("weighted", ap.weighted),
    ):
        expected = average_precision_score(targets.numpy(), scores.numpy(), average=average)
        assert expected == pytest.approx(value, abs=1e-10)


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

    assert ap.micro == pytest.approx(shuffled.micro, abs=1e-10)
    assert ap.per_class == pytest.approx(shuffled.per_class, abs=1e-10)


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


@pytest.mark.parametrize("levels", [2, 6, 1000])
def test_tied_scores_equal_scikit_learn(generator: torch.Generator, levels: int) -> None:
    """With the few levels of kNN votes too, and with large float32 logits."""
    scores = torch.randint(levels, (300, 3), generator=generator) * 7.3
    targets = (torch.rand(300, 3, generator=generator) < 0.4).long()

    ap = average_precision(scores, targets)

    expected = average_precision_score(targets.numpy(), scores.numpy(), average=None)
    assert list(expected) == pytest.approx(ap.per_class, abs=1e-10)


def test_f1_equals_scikit_learn(generator: torch.Generator) -> None:
    """Micro, macro and per class, at the threshold stated."""
    probability = torch.rand(120, 4, generator=generator).double()
    targets = (torch.rand(120, 4, generator=generator) < 0.3).long()

    for threshold in (0.5, 0.7):
        f1 = f1_score(probability, targets, threshold)

        said = (probability > threshold).long().numpy()
        for average, value in (("micro", f1.micro), ("macro", f1.macro), (None, f1.per_class)):
            expected = sklearn_f1(targets.numpy(), said, average=average)
            assert expected == pytest.approx(value, abs=1e-12)


def test_f1_takes_no_logits() -> None:
    """A threshold of 0.5 on logits is another threshold; they are refused."""
    with pytest.raises(PixelError, match="probabilities must lie"):
        f1_score(torch.tensor([[3.0]]), torch.ones(1, 1))


def test_confusion_equals_scikit_learn(generator: torch.Generator) -> None:
    """Rows are the truth."""
    target, predicted = torch.randint(5, (2, 80), generator=generator)

    expected = sklearn_confusion(target.numpy(), predicted.numpy(), labels=range(5))

    assert expected.tolist() == confusion_matrix(predicted, target, 5).tolist()


def test_calibration_by_hand() -> None:
    """Two bins: says 0.9, right in 1 of 2; says 0.6, right in 2 of 2."""
    confidence = torch.tensor([0.9, 0.9, 0.6, 0.6]).double()
    correct = torch.tensor([True, False, True, True])

    error = expected_calibration_error(confidence, correct, bins=2)

    assert 0.5 * 0.4 + 0.5 * 0.4 == pytest.approx(error)


def test_bins_hold_equal_mass_and_never_cut_a_level(generator: torch.Generator) -> None:
    """Ten bins of 100 distinct values hold 10 each; equal values share a bin."""
    distinct = torch.randperm(100, generator=generator) / 100

    assert [10] * 10 == torch.bincount(equal_mass_bins(distinct, 10)).tolist()
    levels = torch.randint(6, (100,), generator=generator) / 5
    for level in range(6):
        assert 1 == len(torch.unique(equal_mass_bins(levels, 15)[levels == level / 5]))
    with pytest.raises(ConfigError, match="at least one bin"):
        equal_mass_bins(distinct, 0)


def test_no_metric_is_called_map() -> None:
    """Every id says which average it is, and has an explanation."""
    assert set(Metric) == set(METRIC_WORDS)
    assert not [metric for metric in Metric if "map" in metric]
    less = {Metric.ECE, Metric.PROMPT_OVERLAP, Metric.ACROSS_OVERLAP}
    assert less == {metric for metric in Metric if metric.smaller_is_better}


def test_the_mean_over_batches_is_another_number(generator: torch.Generator) -> None:
    """As scikit-learn per 64 samples in order, the rest dropped; the order moves it."""
    share = torch.linspace(0.05, 0.9, 150)[:, None]  # as where neighbours resemble one another
    targets = (torch.rand(150, 5, generator=generator) < share).long()
    scores = targets + 2 * torch.rand(150, 5, generator=generator)

    found = batched_average_precision(scores, targets)

    parts = [slice(0, 64), slice(64, 128)]
    expected = [
        average_precision_score(targets[p].numpy(), scores[p].numpy(), average="micro")
        for p in parts
    ]
    assert sum(expected) / 2 == pytest.approx(found)
    order = torch.randperm(150, generator=generator)
    assert abs(found - batched_average_precision(scores[order], targets[order])) > 0.01
    with pytest.raises(LabelError, match="no whole batch"):
        batched_average_precision(scores[:63], targets[:63])
