"""The bootstrap by groups: equal to a slow one, and right where the one by samples is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eofm.errors import ConfigError
from eofm.probes.bootstrap import (
    FEW_GROUPS,
    bootstrap_interval,
    bootstrap_values,
    group_numbers,
    resampled_accuracy,
    resampled_ap,
    resampled_average_accuracy,
    resampled_difference,
)
from eofm.probes.metrics import Metric

NAMES = ["berlin", "berlin", "aachen", "cottbus", "cottbus", "cottbus", "dresden"]


def slow_draws(names: list[str], repeats: int, seed: int) -> list[list[int]]:
    """Return the samples of each resample, by a loop: whole groups, as often as they are drawn."""
    ordered = sorted(set(names))
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            row
            for number in torch.randint(len(ordered), (len(ordered),), generator=generator).tolist()
            for row, name in enumerate(names)
            if name == ordered[number]
        ]
        for _ in range(repeats)
    ]


def test_numbers_follow_the_names_not_the_order() -> None:
    """Another order of the samples gives each group the same number."""
    numbers = group_numbers(NAMES)

    assert [1, 1, 0, 2, 2, 2, 3] == numbers.tolist()
    assert torch.int64 == numbers.dtype
    assert numbers.flip(0).equal(group_numbers(NAMES[::-1]))


def test_whole_groups_are_drawn() -> None:
    """Values, intervals and paired differences are those of NumPy on repeated samples."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (7, 3))
    target[:, 0] = 1
    one, other = rng.random((7, 3)), rng.random((7, 3))
    groups = group_numbers(NAMES)
    hits = np.array([1, 0, 1, 1, 0, 0, 1])
    accuracy = resampled_accuracy(torch.from_numpy(1 - hits), torch.zeros(7, dtype=torch.int64))
    ap = [
        resampled_ap(torch.from_numpy(s), torch.from_numpy(target), Metric.AP_MICRO)
        for s in (one, other)
    ]

    drawn = slow_draws(NAMES, 60, seed=3)
    values = bootstrap_values(accuracy, 7, repeats=60, seed=3, groups=groups)
    found = bootstrap_interval(accuracy, 7, repeats=60, seed=3, groups=groups)
    gaps = bootstrap_values(resampled_difference(*ap), 7, repeats=60, seed=3, groups=groups)

    expected = [hits[rows].mean() for rows in drawn]
    assert expected == pytest.approx(values.tolist())
    assert np.quantile(expected, [0.025, 0.975]) == pytest.approx([found.low, found.high])
    slow = [_plain_ap(one[r], target[r]) - _plain_ap(other[r], target[r]) for r in drawn]
    assert slow == pytest.approx(gaps.tolist())


def _plain_ap(scores: np.ndarray, target: np.ndarray) -> float:
    """Return micro average precision by walking down the thresholds."""
    scores, hot = scores.ravel(), target.ravel()
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        said = scores >= threshold
        recall = hot[said].sum() / hot.sum()
        area += (recall - before) * hot[said].mean()
        before = recall
    return area


def test_groups_of_one_are_single_samples() -> None:
    """With every sample in a group of its own, nothing changes."""
    metric = resampled_average_accuracy(torch.tensor([0, 1, 0, 0]), torch.tensor([0, 1, 1, 0]))

    plain = bootstrap_interval(metric, 4, repeats=99, seed=1)

    assert plain == bootstrap_interval(metric, 4, repeats=99, seed=1, groups=torch.arange(4))


def test_every_sample_needs_a_group() -> None:
    """Groups of other samples are refused."""
    metric = resampled_accuracy(torch.zeros(7), torch.zeros(7, dtype=torch.int64))

    with pytest.raises(ConfigError, match="needs a group"):
        bootstrap_values(metric, 7, groups=group_numbers(NAMES)[:3])


def coverage(groups: int, size: int, studies: int) -> tuple[float, float]:
    """Return how often intervals hold the true accuracy: drawn by sample, and by group.

    In each study every group has an accuracy of its own, drawn from a Beta distribution: products
    of another sky and season are easier or harder as a whole.
    """
    rng = np.random.default_rng(0)
    true, names = 3 / 4.3, [f"{g:03}" for g in np.repeat(np.arange(groups), size)]
    held = [0, 0]
    for study in range(studies):
        hits = rng.random(len(names)) < np.repeat(rng.beta(3, 1.3, groups), size)
        metric = resampled_accuracy(
            torch.from_numpy(~hits).long(), torch.zeros(len(names), dtype=torch.int64)
        )
        for k, drawn in enumerate((None, group_numbers(names))):
            found = bootstrap_interval(metric, len(names), repeats=250, seed=study, groups=drawn)
            held[k] += found.low <= true <= found.high
    return held[0] / studies, held[1] / studies


@pytest.mark.slow
def test_only_the_bootstrap_by_groups_covers_what_it_promises() -> None:
    """Of 300 studies of 60 products, 95 % intervals by chip hold the truth in far fewer."""
    by_chip, by_product = coverage(groups=60, size=15, studies=300)

    assert by_chip < 0.75
    assert 0.92 < by_product < 0.98


def test_few_groups_cover_less() -> None:
    """Why there is a warning: four products hold the truth in far less than 95 of 100 studies."""
    by_chip, by_product = coverage(groups=4, size=20, studies=200)

    assert by_chip < by_product < 0.85
    assert 4 < FEW_GROUPS < 40
