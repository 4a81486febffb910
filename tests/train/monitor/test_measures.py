"""What embeddings are measured by during a run, against slow readings of the papers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from eofm.train.monitor.online import (
    alignment,
    dense_steps,
    label_correlation,
    rank_correlation,
    spread,
    stability_gap,
    uniformity,
)


def test_alignment_and_uniformity_are_the_papers(generator: torch.Generator) -> None:
    """A double loop over unit vectors, as equations 1 and 2 of arXiv 2005.10242 say."""
    x = torch.randn(12, 5, generator=generator).double()
    y = x + 0.3 * torch.randn(12, 5, generator=generator).double()
    unit, other = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
    near = [float(((a - b) ** 2).sum()) for a, b in zip(unit, other, strict=True)]
    far = [
        math.exp(-2 * float(((unit[i] - unit[j]) ** 2).sum()))
        for i in range(12)
        for j in range(i + 1, 12)
    ]

    assert pytest.approx(sum(near) / 12) == alignment(x, y)
    assert pytest.approx(math.log(sum(far) / len(far))) == uniformity(x)


def test_one_point_and_a_full_sphere(generator: torch.Generator) -> None:
    """Collapse is spread 0 and uniformity 0; a wide Gaussian is near 1 and near -4."""
    point = torch.ones(50, 8)
    sphere = torch.randn(400, 128, generator=generator)

    assert 0 == spread(point)
    assert pytest.approx(0, abs=1e-12) == uniformity(point)
    assert pytest.approx(1, abs=0.01) == spread(sphere)
    assert pytest.approx(-4, abs=0.1) == uniformity(sphere)
    assert pytest.approx(0, abs=1e-12) == alignment(sphere, 3 * sphere)  # lengths do not count


@given(st.lists(st.integers(0, 4), min_size=3, max_size=30), st.integers(0, 1000))
def test_rank_correlation_is_scipys(values: list[int], seed: int) -> None:
    """With ties, Spearman's correlation is scipy's; of a constant list it is not a number."""
    other = torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    one = torch.tensor(values)

    ours = rank_correlation(one, other)

    if len(set(values)) == 1:
        assert math.isnan(ours)
    else:
        assert pytest.approx(spearmanr(one.numpy(), other.numpy()).statistic) == ours


def test_label_correlation_leaves_unknown_pairs_out(generator: torch.Generator) -> None:
    """An embedding with the cosines of the labels scores 1; a NaN pair is not looked at."""
    hot = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]])
    unit = hot / hot.norm(dim=1, keepdim=True)
    truth = unit @ unit.T
    noisy = torch.cat([hot, torch.randn(1, 3, generator=generator)])
    unknown = torch.full((6, 6), torch.nan)
    unknown[:5, :5] = truth

    assert pytest.approx(1) == label_correlation(hot, truth)
    assert pytest.approx(1) == label_correlation(noisy, unknown)
    assert math.isnan(label_correlation(hot, torch.full((5, 5), torch.nan)))


@pytest.mark.parametrize(
    ("scores", "depth", "lowest", "back"),
    [
        ([0.7, 0.6, 0.5, 0.65, 0.7], 0.2, 4, 16),
        ([0.7, 0.6, 0.5, 0.65, 0.69], 0.2, 4, None),
        ([0.7, 0.7, 0.8, 0.9, 0.95], 0.0, 0, 0),
        ([0.7, 0.6, 0.75, 0.5, 0.8], 0.2, 8, 16),
    ],
)
def test_the_gap_has_depth_and_length(
    scores: list[float], depth: float, lowest: int, back: int | None
) -> None:
    """Depth is s0 minus the least score; length ends where s0 is reached after it."""
    gap = stability_gap([0, 2, 4, 8, 16], scores)

    assert gap is not None
    assert (pytest.approx(depth), lowest, back) == (gap.depth, gap.lowest_step, gap.back)
    assert ("no gap" in gap.describe()) == (depth == 0)
    assert stability_gap([4, 8], [0.1, 0.2]) is None


def test_dense_steps_double() -> None:
    """1, 2, 4, ... up to the last, and none for 0."""
    assert (1, 2, 4, 8, 16) == dense_steps(16)
    assert (1, 2, 4, 8) == dense_steps(15)
    assert () == dense_steps(0)
