"""The linear probe of an evaluation chooses its strength where nothing is scored."""

from __future__ import annotations

import pytest
import torch

from eofm.probes.features import Labelled, Scaling
from eofm.probes.linear import StrengthGrid, linear_probe
from eofm.probes.metrics import average_precision
from eofm.train.evaluate import quick_linear, set_aside

PLACES = [f"place {i // 2}" for i in range(80)]


def embeddings(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 80 noisy embeddings whose labels lie in directions of little variance, and labels."""
    generator = torch.Generator().manual_seed(rank)
    hidden = torch.randn(80, rank, generator=generator)
    labels = (hidden[:, -2:] > 0).long()
    scale = torch.logspace(0, -2, rank)
    mixing = torch.randn(rank, 32, generator=generator)
    return (hidden * scale) @ mixing + 0.002 * torch.randn(80, 32, generator=generator), labels


def fixed(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, c: float) -> torch.Tensor:
    """Return the logits of a probe with one strength, fitted to all."""
    return linear_probe(
        Labelled(train, labels, 2),
        None,
        test,
        choice=lambda *_: 0.0,
        grid=StrengthGrid.single(c),
        scaling=Scaling.STANDARD,
    ).scores


def test_the_strength_is_chosen_inside_and_fitted_again() -> None:
    """As in a plain loop: each C on four fifths, scored on the rest; the best one on all."""
    x, labels = embeddings(6)
    test, truth = embeddings(6)[0][:20] * 1.01, labels[:20]
    aside = set_aside(PLACES, 1)

    made = quick_linear(x, labels, PLACES, test)

    tried = {
        c: average_precision(fixed(x[~aside], labels[~aside], x[aside], c), labels[aside]).macro
        for c in (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3)
    }
    best = max(sorted(tried), key=lambda c: tried[c])
    assert best != pytest.approx(0.1)
    # the features are scaled by the four fifths, so that it is near and not equal
    distance = {c: float((fixed(x, labels, test, c) - made).norm()) for c in tried}
    assert best == min(distance, key=lambda c: distance[c])
    at_fixed = average_precision(fixed(x, labels, test, 0.1), truth).macro
    assert average_precision(made, truth).macro > at_fixed


def test_whole_places_are_set_aside_where_there_are_enough() -> None:
    """A fifth of the places; every fifth scene where there are fewer than five of them."""
    aside = set_aside(PLACES, 1)
    inside = {p for p, out in zip(PLACES, aside.tolist(), strict=True) if out}

    assert 8 == len(inside)
    assert 16 == int(aside.sum())
    assert [True, False, False, False, False, True] == set_aside(["a", "b"] * 3, 1).tolist()
