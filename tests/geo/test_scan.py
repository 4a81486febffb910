"""The product with int8 codes is that with the decoded vectors, and ranking is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_world import chips_of, world

from eofm.geo.cells import cells_of
from eofm.geo.search import best, scan, scan_codes
from eofm.geo.vectors.embeddings import HIDDEN, Codes


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_codes_need_no_decoding(rows: int, dim: int, cosine: bool, seed: int) -> None:
    """For any scale and offset, also in several threads and blocks."""
    random = np.random.default_rng(seed)
    stored = random.integers(-127, 128, (rows, dim), dtype=np.int8)
    codes = Codes(
        random.uniform(0.001, 0.1, dim).astype(np.float32),
        random.normal(size=dim).astype(np.float32),
    )
    direction = random.normal(size=dim).astype(np.float32)
    decoded = codes.decode(stored).astype(np.float64)
    expected = decoded @ direction
    if cosine:
        expected = expected / np.maximum(np.linalg.norm(decoded, axis=1), 1e-15)
    size = np.abs(decoded).max() * np.abs(direction).sum()

    found = scan_codes(stored, codes, direction, cosine=cosine)
    lengths = np.linalg.norm(decoded, axis=1) if cosine else np.ones(rows)
    # float32 sums of terms as large as the offset: near a length of 0 nothing is exact
    assert (np.abs(found - expected) * lengths <= 1e-4 * max(size, 1)).all()


@pytest.mark.parametrize("cosine", [False, True])
def test_grids_and_chips_of_all_numbers_agree(cosine: bool) -> None:
    """A grid, the same cells as chips, and these as int8 score alike; NaN without a vector."""
    patches, _ = world(size=(24, 24))
    chips = chips_of(patches)
    codes = Codes.between(chips.vectors.min(axis=0), chips.vectors.max(axis=0))
    stored = codes.encode(chips.vectors)
    stored[5] = HIDDEN
    whole = replace(chips, stored=stored, codes=codes)
    direction = np.random.default_rng(0).normal(size=16).astype(np.float32)

    grid, table, coded = (
        scan(cells_of(one), direction, 0.5, cosine=cosine) for one in (patches, chips, whole)
    )
    assert np.isnan(grid.reshape(24, 24)[-1]).all()
    assert np.allclose(grid[np.isfinite(grid)], table, atol=1e-6)
    assert np.isnan(coded[5])
    assert np.allclose(np.delete(table, 5), np.delete(coded, 5), atol=0.1)
    unit = chips.vectors[0] @ direction
    if cosine:
        unit /= np.linalg.norm(direction) * np.linalg.norm(chips.vectors[0])
    assert np.isclose(unit + 0.5, table[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_ranking_is_that_of_a_stable_sort(values: list[int], top: int) -> None:
    """The best are those of a sort of everything; of equals the first cell."""
    scores = np.array(values, np.float32)
    scores[::7] = np.nan
    without = np.array([3], np.int64)[: len(values) > 3]
    kept = [i for i in range(len(values)) if np.isfinite(scores[i]) and i not in without]

    assert sorted(kept, key=lambda i: (-scores[i], i))[:top] == best(scores, top, without).tolist()
