"""The exact search against brute force in float64, where float32 alone fails, and at ties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eofm.probes import neighbours
from eofm.probes.neighbours import Neighbours


def brute(rows: Tensor, points: Tensor, k: int) -> list[list[int]]:
    """The k nearest rows of each point by a plain loop; ties go to the earlier row."""
    found = []
    for point in points:
        distance = ((rows - point) ** 2).sum(dim=1).tolist()
        found.append(sorted(range(len(rows)), key=lambda j: (distance[j], j))[:k])
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 12), st.integers(1, 7))
def test_search_equals_brute_force(seed: int, rows: int, dims: int, k: int) -> None:
    """Random rows on a coarse lattice, where many distances are equal, come in the right order."""
    generator = torch.Generator().manual_seed(seed)
    train = torch.randint(-2, 3, (rows, dims), generator=generator).double()
    test = torch.randint(-2, 3, (9, dims), generator=generator).double()
    k = min(k, rows)

    assert brute(train, test, k) == Neighbours(train).nearest(test, k).tolist()


def test_search_is_exact_where_the_float32_product_is_not(generator: torch.Generator) -> None:
    """Rows that differ in the seventh digit: the expanded form cannot rank them, we can."""
    base = 100 * torch.randn(1, 64, generator=generator, dtype=torch.float64)
    far = base + 1e3 * torch.randn(20, 64, generator=generator, dtype=torch.float64)
    near = base + 1e-5 * torch.randn(300, 64, generator=generator, dtype=torch.float64)
    train, test = torch.cat([far, near]), base + torch.zeros(3, 64)
    test[1:] += 1e-5 * torch.randn(2, 64, generator=generator, dtype=torch.float64)
    a, b = test.float(), train.float()
    expanded = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T

    found = Neighbours(train).nearest(test, 5).tolist()

    assert brute(train, test, 5) == found
    assert expanded.topk(5, largest=False).indices.tolist() != found


def test_chunks_do_not_change_the_result(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows at a time give what all at once give."""
    train = torch.randn(100, 8, generator=generator, dtype=torch.float64)
    test = torch.randn(37, 8, generator=generator, dtype=torch.float64)
    whole = Neighbours(train).nearest(test, 3)

    monkeypatch.setattr(neighbours, "_CHUNK_CELLS", 500)

    assert torch.equal(whole, Neighbours(train).nearest(test, 3))


def test_values_beyond_float32_are_still_ranked() -> None:
    """Squares that overflow float32 send the search to the float64 path, not to wrong rows."""
    train = torch.tensor([[1e25], [3e25], [2e25]], dtype=torch.float64)

    assert [[1, 2, 0]] == Neighbours(train).nearest(torch.full((1, 1), 4e25).double(), 3).tolist()
