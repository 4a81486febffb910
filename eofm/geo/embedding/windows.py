"""Where windows lie, and how neighbours are blended.

Patches finer than those of the network come of shifted passes: the windows are laid p / s times
along each side, s pixels further each time, and the patches of all passes take turns in one grid.

Windows of a patch grid overlap. Within the overlap the weight of one falls as a raised cosine (the
half of a Hann window) while that of its neighbour rises, and the two add up to 1: the vectors
change from one window to the next without a step.

Shapes: T patches at the side of a window, of p pixels each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """Windows of one pass over a scene, whose patches lie side by side.

    Args:
        windows: The windows; their first patch begins less than a patch from the first pixel.
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


@dataclass(frozen=True)
class PatchPass:
    """One of the passes whose patches take turns.

    Args:
        row: Row of the grid that its first row of patches is.
        column: Column likewise.
        lattice: Its windows.
    """

    row: int
    column: int
    lattice: PatchLattice


@dataclass(frozen=True)
class PatchPasses:
    """A grid of patches.

    Args:
        patch: p, pixels at the side of a patch.
        stride: s, pixels from patch to patch; p where a single pass makes the grid.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
        passes: The passes; each has every (p / s)-th row and column.
    """

    patch: int
    stride: int
    rows: int
    columns: int
    passes: tuple[PatchPass, ...]

    @property
    def turns(self) -> int:
        """Passes along a side, p / s."""
        return self.patch // self.stride

    @property
    def windows(self) -> int:
        """Windows of all passes."""
        return sum(len(one.lattice.windows) for one in self.passes)

    def grid(self, pixels: Grid) -> Grid:
        """Return where the patches lie: a cell of s pixels around the middle of each.

        Args:
            pixels: Where the pixels lie that the windows are counted in. The middle of the first
                patch is p / 2 pixels from the corner of the first pixel, and a step of a patch is
                s steps of a pixel: in any CRS, with rows from south to north, and rotated.
        """
        t, s, edge = pixels.transform, self.stride, (self.patch - self.stride) / 2
        x, y = t.c + (t.a + t.b) * edge, t.f + (t.d + t.e) * edge
        transform = Affine(t.a * s, t.b * s, x, t.d * s, t.e * s, y)
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


def patch_passes(
    height: int, width: int, patch: int, tokens: int, overlap: int, stride: int
) -> PatchPasses:
    """Return the passes whose patches, `stride` pixels apart, cover a scene.

    As few patches as cover the last pixel; the last may reach over the edge by less than a stride.

    Args:
        height: Of the scene in pixels.
        width: Likewise.
        patch: p.
        tokens: T.
        overlap: Patches that neighbouring windows of a pass share.
        stride: s, by which p can be divided.
    """
    rows, columns = (max(0, -(-(length - patch) // stride)) + 1 for length in (height, width))
    turns = patch // stride
    passes = []
    for row in range(min(turns, rows)):
        for column in range(min(turns, columns)):
            down, across = -(-(rows - row) // turns), -(-(columns - column) // turns)
            lattice = patch_lattice(down * patch, across * patch, patch, tokens, overlap)
            shifted = replace(
                lattice.windows,
                tops=tuple(top + row * stride for top in lattice.windows.tops),
                lefts=tuple(left + column * stride for left in lattice.windows.lefts),
            )
            passes.append(PatchPass(row, column, replace(lattice, windows=shifted)))
    return PatchPasses(patch, stride, rows, columns, tuple(passes))


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
