"""The singular values of features, in three numbers, and the rank within classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eofm.probes.features import (
    Spectrum,
    decay_exponent,
    effective_rank,
    singular_values,
    spectrum_of,
    within_class_rank,
)


def test_effective_rank_counts_directions(generator: torch.Generator) -> None:
    """Isotropic features in three of twenty directions have rank three; constant ones none."""
    basis, _ = torch.linalg.qr(torch.randn(20, 3, generator=generator).double())
    line, _ = torch.linalg.qr(torch.randn(60, 3, generator=generator).double())
    x = (line - line.mean(dim=0)) @ basis.T + 5

    assert 2.9 < effective_rank(x) <= 3.0001
    assert effective_rank(x.T) < 4
    assert 0.0 == effective_rank(torch.ones(6, 4))


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_singular_values_and_their_shares_are_numpys(
    shape: tuple[int, int], generator: torch.Generator
) -> None:
    """Of wide and of tall features; rank and lead are entropy and share of the same values."""
    x = torch.randn(shape, generator=generator)
    wide = x.numpy().astype(np.float64)
    expected = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    share = expected / expected.sum()
    found = spectrum_of(x)

    assert expected[::-1] == pytest.approx(singular_values(x).numpy(), abs=1e-6)
    assert share[0] == pytest.approx(found.lead, rel=1e-6)
    entropy = -sum(s * math.log(s) for s in share if s > 1e-12)
    assert math.exp(entropy) == pytest.approx(found.rank, rel=1e-5)
    assert effective_rank(x) == found.rank


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_exponent_of_an_exact_power_law_is_found(alpha: float) -> None:
    """σ_j² = j^-α gives α back, whatever its scale and its first ten values are."""
    eigen = 3 * torch.arange(1, 201, dtype=torch.float64) ** -alpha
    eigen[:10] += torch.arange(10, 0, -1)

    assert alpha == pytest.approx(decay_exponent(eigen.sqrt().flip(0)), rel=1e-9)


def test_the_exponent_is_a_weighted_line_of_numpy(generator: torch.Generator) -> None:
    """numpy.polyfit with weights sqrt(1 / j) from the 11th to half of the directions."""
    eigen = torch.rand(80, generator=generator).double().sort(descending=True).values
    place = np.arange(11, 41)
    slope, _ = np.polyfit(np.log(place), np.log(eigen[10:40].numpy()), 1, w=place**-0.5)

    assert -slope == pytest.approx(decay_exponent(eigen.sqrt().flip(0)), rel=1e-6)


def test_few_directions_have_no_exponent(generator: torch.Generator) -> None:
    """39 directions end before ten can be fitted; what rounding leaves is no direction."""
    x = torch.randn(100, 39, generator=generator)
    flat = torch.randn(100, 10, generator=generator) @ torch.randn(10, 90, generator=generator)

    assert spectrum_of(x).alpha is None
    assert spectrum_of(torch.cat([x, x[:, :1] ** 2], dim=1)).alpha is not None
    assert spectrum_of(flat.double()).alpha is None
    assert Spectrum(0.0, 0.0) == spectrum_of(torch.ones(6, 4))


def test_a_class_at_one_point_has_no_rank_within(generator: torch.Generator) -> None:
    """Classes apart but each collapsed have rank 0 within; without their means, classes differ."""
    y = torch.arange(60) % 3
    centres = torch.randn(3, 12, generator=generator)
    noise = torch.randn(60, 12, generator=generator)

    assert 0 == pytest.approx(within_class_rank(centres[y], y), abs=1e-3)
    spread = within_class_rank(centres[y] + noise, y)
    each = [effective_rank((centres[y] + noise)[y == k]) for k in range(3)]
    assert sum(each) / 3 == pytest.approx(spread)
    hot = torch.nn.functional.one_hot(y)
    assert spread == within_class_rank(centres[y] + noise, hot)


def test_a_sample_of_two_classes_counts_in_both_and_a_lone_one_in_none(
    generator: torch.Generator,
) -> None:
    """By loops over columns; a class of one sample has no spread to speak of."""
    x = torch.randn(6, 4, generator=generator)
    y = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    expected = (effective_rank(x[:3]) + effective_rank(x[1:5])) / 2

    assert expected == pytest.approx(within_class_rank(x, y))
    assert math.isnan(within_class_rank(x[:1], y[:1]))
