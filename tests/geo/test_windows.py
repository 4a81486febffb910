"""Where windows lie and how they are blended."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eofm.geo.embedding.windows import blending, chip_lattice, patch_lattice, patch_passes


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    patch=st.integers(1, 16),
    tokens=st.integers(1, 9),
    overlap=st.integers(0, 4),
)
def test_windows_cover_every_patch(
    height: int, width: int, patch: int, tokens: int, overlap: int
) -> None:
    """Every patch lies in a window, all windows lie on patches, and neighbours share enough."""
    overlap = min(overlap, tokens // 2)
    lattice = patch_lattice(height, width, patch, tokens, overlap)

    for starts, total, length in (
        (lattice.windows.tops, lattice.rows, height),
        (lattice.windows.lefts, lattice.columns, width),
    ):
        assert total == -(-length // patch)
        assert not any(start % patch for start in starts)
        first = [start // patch for start in starts]
        assert {*range(total)} <= {i for start in first for i in range(start, start + tokens)}
        assert max(first) + tokens == max(total, tokens)
        assert all(0 < b - a <= tokens - overlap for a, b in pairwise(first))


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    sides=st.sampled_from([(1, 1), (4, 1), (14, 14), (14, 7), (14, 2), (16, 4)]),
    tokens=st.integers(1, 5),
)
def test_patches_of_shifted_passes_take_turns(
    height: int, width: int, sides: tuple[int, int], tokens: int
) -> None:
    """Each cell belongs to one pass, lies at a stride, and the last pixel lies in a patch."""
    patch, stride = sides
    passes = patch_passes(height, width, patch, tokens, tokens // 2, stride)

    firsts = np.full((passes.rows, passes.columns, 2), -1)
    for one in passes.passes:
        lattice = one.lattice
        top, left = lattice.windows.corner(0)
        cells = firsts[one.row :: passes.turns, one.column :: passes.turns]
        assert (lattice.rows, lattice.columns) == cells.shape[:2]
        assert (cells == -1).all()
        cells[..., 0] = top + patch * np.arange(lattice.rows)[:, None]
        cells[..., 1] = left + patch * np.arange(lattice.columns)
    assert (firsts[..., 0] == stride * np.arange(passes.rows)[:, None]).all()
    assert (firsts[..., 1] == stride * np.arange(passes.columns)).all()
    for last, length in ((firsts[-1, -1, 0], height), (firsts[-1, -1, 1], width)):
        assert last + patch >= length
        assert last == 0 or last + patch - stride < length


@given(tokens=st.integers(1, 20), overlap=st.integers(0, 10))
def test_weights_of_neighbours_add_up_to_one(tokens: int, overlap: int) -> None:
    """In the overlap two windows share the weight, and elsewhere one has it all."""
    overlap = min(overlap, tokens // 2)
    weights = blending(tokens, overlap)

    step = tokens - overlap
    total = np.zeros(3 * step + overlap)
    for number in range(3):
        total[number * step : number * step + tokens] += weights
    assert np.allclose(total[overlap : len(total) - overlap], 1)
    assert (weights > 0).all()


def test_chips_begin_within_the_scene() -> None:
    """Chips lie at multiples of the stride, the last ones may reach over the edge."""
    assert chip_lattice(70, 33, 32, 32).tops == (0, 32, 64)
    assert chip_lattice(70, 33, 32, 16).lefts == (0, 16, 32)
