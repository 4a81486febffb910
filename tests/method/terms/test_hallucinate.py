"""Positives that no augmentation made."""

from __future__ import annotations

import pytest
import torch

from eofm.method.terms.hallucinate import extrapolated


def test_vectors_lie_beyond_the_first_view_and_away_from_the_second(generator):
    """z_1 + a (z_1 - z_2) with one a from 0 to a_max for each image, by loops."""
    first, second = torch.randn(2, 50, 6, generator=generator)
    made = extrapolated(first, second, 0.5, generator)
    steps = (made - first) / (first - second)

    assert 0 <= steps.min()
    assert steps.max() <= 0.5 + 1e-5
    assert torch.allclose(steps, steps[:, :1].expand(-1, 6), atol=1e-3)
    assert 0.25 == pytest.approx(steps[:, 0].mean().item(), abs=0.08)
    assert steps[:, 0].std() > 0.1


def test_without_a_distance_to_go_nothing_is_made(generator):
    """At a_max 0 it is the first view; where both views agree there is nowhere to go."""
    first, second = torch.randn(2, 5, 6, generator=generator)

    assert torch.equal(first, extrapolated(first, second, 0.0, generator))
    assert torch.equal(first, extrapolated(first, first, 1.0, generator))


def test_the_same_source_makes_the_same_vectors(generator):
    """What is drawn comes from the generator alone."""
    first, second = torch.randn(2, 5, 6, generator=generator)
    one, other = (
        extrapolated(first, second, 1.0, torch.Generator().manual_seed(3)) for _ in range(2)
    )

    assert torch.equal(one, other)
