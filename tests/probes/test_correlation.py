"""Rank correlation and the slope over a logarithm, against scipy and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from eofm.probes.bootstrap import decade_slope, spearman


def rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts with ties, and rows of scores with ties and holes."""
    rng = np.random.default_rng(seed)
    counts = torch.from_numpy(rng.choice([3, 10, 10, 200, 5000], 17).astype(float))
    scores = torch.from_numpy(np.round(rng.random((6, 17)), 1))
    scores[torch.from_numpy(rng.random((6, 17)) < 0.2)] = math.nan
    return counts, scores


@pytest.mark.parametrize("seed", range(4))
def test_ranks_correlate_as_scipy_says(seed: int) -> None:
    """Equal values share a rank, and a class without a score takes no part."""
    counts, scores = rows(seed)

    expected = []
    for row in scores:
        known = torch.isfinite(row)
        expected.append(spearmanr(counts[known], row[known]).statistic)

    assert expected == pytest.approx(spearman(counts, scores).tolist())


@pytest.mark.parametrize("seed", range(4))
def test_the_slope_is_that_of_a_line(seed: int) -> None:
    """Least squares over log10, of the classes that have both a count and a score."""
    counts, scores = rows(seed)
    counts[2] = 0

    expected = []
    for row in scores:
        known = torch.isfinite(row) & (counts > 0)
        line = np.polyfit(counts[known].log10(), row[known], 1)
        expected.append(line[0])

    assert expected == pytest.approx(decade_slope(counts, scores).tolist())


def test_equal_counts_say_nothing() -> None:
    """A constant side has no correlation and no slope, rather than a zero."""
    scores = torch.rand(1, 9, generator=torch.Generator().manual_seed(0))

    assert math.isnan(spearman(torch.full((9,), 5.0), scores))
    assert math.isnan(decade_slope(torch.full((9,), 5.0), scores))
    assert math.isnan(spearman(torch.arange(9.0), torch.full((1, 9), 0.3)))
