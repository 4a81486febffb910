"""Cells that touch, as one polygon each."""

from __future__ import annotations

import time

import numpy as np
import pytest
import shapely
from vector_world import PLACES, chips_of, world

from eofm.geo.cells import cells_of


@pytest.mark.parametrize("place", PLACES)
def test_patches_and_chips_merge_alike(place: str) -> None:
    """Traced in the raster, or merged outline by outline: holes, corners, and a rotated grid."""
    patches, _ = world(place, (24, 24))
    grid, chips = cells_of(patches), cells_of(chips_of(patches))
    random = np.random.default_rng(0).random(len(chips.valid)) < 0.55
    which = np.flatnonzero(random)  # the last row alone has no chip: numbers are the same

    traced, part = grid.merged(which)
    merged, other = chips.merged(which)

    assert len(traced) == len(merged) > 20
    assert max(len(shapely.get_rings(shape)) for shape in traced) > 1  # with a hole
    for number, shape in enumerate(traced):
        mine = np.flatnonzero(part == number)
        (same,) = np.unique(other[mine])
        assert np.array_equal(mine, np.flatnonzero(other == same))
        assert np.isclose(shape.area, merged[same].area)
        assert shape.symmetric_difference(merged[same]).area < 1e-6 * shape.area
    assert [len(found) for found in grid.merged(which[:0])] == [0, 0]


def test_many_cells_are_merged_at_once() -> None:
    """The time grew faster than the number of cells: 6 s for these, 39 s for four times as many."""
    patches, _ = world(size=(300, 300), dim=2)
    cells = cells_of(patches)
    which = np.flatnonzero((np.random.default_rng(0).random(300 * 300) < 0.45) & cells.valid)
    start = time.process_time()

    found, part = cells.merged(which)

    assert time.process_time() - start < 3
    assert len(found) == int(part.max()) + 1
