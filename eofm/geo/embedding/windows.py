"""Where windows lie, and how neighbours are blended.

Windows of a patch grid overlap. Within the overlap the weight of one falls as a raised cosine (the
half of a Hann window) while that of its neighbour rises, and the two add up to 1: the vectors
change from one window to the next without a step.

Shapes: T patches at the side of a window, of p pixels each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from eofm.raster.grid import Grid


@dataclass(frozen=True)
class WindowLattice:
    """Square windows in rows and columns over a part of a scene.

    Args:
        side: Of a window, in pixels.
        tops: First row of the windows of each row of windows, in pixels. A window may reach over
            the edge of the scene, where nothing is measured.
        lefts: First column likewise.
    """

    side: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def corner(self, number: int) -> tuple[int, int]:
        """Return first row and column of a window, counted row by row."""
        row, column = divmod(number, len(self.lefts))
        return self.tops[row], self.lefts[column]


def chip_lattice(height: int, width: int, side: int, stride: int) -> WindowLattice:
    """Return chips from the first pixel on, every `stride` pixels, that begin within the scene."""
    return WindowLattice(side, tuple(range(0, height, stride)), tuple(range(0, width, stride)))


@dataclass(frozen=True)
class PatchLattice:
    """Windows of a patch grid.

    Args:
        windows: The windows.
        patch: p, pixels at the side of a patch.
        tokens: T, patches at the side of a window.
        overlap: Patches that neighbouring windows share.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
    """

    windows: WindowLattice
    patch: int
    tokens: int
    overlap: int
    rows: int
    columns: int

    def grid(self, pixels: Grid) -> Grid:
        """Return where the patches lie.

        Args:
            pixels: Where the pixels lie that the windows are counted in. The corner of the first
                pixel is that of the first patch, and a step of a patch is p steps of a pixel: in
                any CRS, with rows from south to north, and rotated.
        """
        t, p = pixels.transform, self.patch
        transform = Affine(t.a * p, t.b * p, t.c, t.d * p, t.e * p, t.f)
        return Grid(pixels.crs, transform, self.rows, self.columns)


def patch_lattice(height: int, width: int, patch: int, tokens: int, overlap: int) -> PatchLattice:
    """Return the windows whose patches cover a scene.

    The last window of a row ends with the last patch; it overlaps the one before by as much as
    that takes. Only a scene that is smaller than a window is filled up with unmeasured pixels, and
    the last patch, of which some pixels may lie beyond the edge.
    """
    rows, columns = -(-height // patch), -(-width // patch)
    windows = WindowLattice(
        patch * tokens,
        tuple(patch * start for start in _starts(rows, tokens, tokens - overlap)),
        tuple(patch * start for start in _starts(columns, tokens, tokens - overlap)),
    )
    return PatchLattice(windows, patch, tokens, overlap, rows, columns)


def _starts(total: int, size: int, step: int) -> list[int]:
    return [*range(0, max(0, total - size), step), max(0, total - size)]


def blending(tokens: int, overlap: int) -> NDArray[np.float32]:
    """Return the weights of the patches of a window along one side, (T,)."""
    weights = np.ones(tokens)
    if overlap:
        rise = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap) ** 2
        weights[:overlap] = rise
        weights[-overlap:] = np.minimum(weights[-overlap:], rise[::-1])
    return weights.astype(np.float32)
