"""Windows of a scene: their positions, blending of neighbours, and threads that read ahead.

Patches at a finer step than those of the network come from shifted passes: the windows are laid out
p / s times along each side, shifted by s pixels each time, and the patches of all passes are
interleaved in one grid.

Windows of a patch grid overlap. Within the overlap the weight of one window falls as a raised
cosine (half of a Hann window) while that of its neighbour rises; the two sum to 1, so the vectors
change continuously from one window to the next.

Shapes: T patches per side of a window, of p pixels each; C bands, h by w pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from eofm.contract.spec import ImageSpec
from eofm.io import Closing, prefetched
from eofm.raster.grid import Grid, Window
from eofm.raster.scene import OpenScene, Scene
from eofm.raster.tags import CloudMask

__all__ = [
    "GroundPixels",
    "GroundReader",
    "PatchLattice",
    "PatchPass",
    "PatchPasses",
    "R",
    "Readers",
    "SceneGround",
    "T",
    "WindowLattice",
    "blending",
    "chip_lattice",
    "patch_lattice",
    "patch_passes",
]

# -------------------------------------------------------------------------------- where windows lie


@dataclass(frozen=True)
class WindowLattice:
    """Square windows in rows and columns over a part of a scene.

    Args:
        side: Side of a window in pixels.
        tops: First row of the windows of each row of windows, in pixels. A window may extend beyond
            the edge of the scene, where no pixel is valid.
        lefts: First column likewise.
    """

    side: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def corner(self, number: int) -> tuple[int, int]:
        """Return first row and column of a window; windows are counted row by row."""
        row, column = divmod(number, len(self.lefts))
        return self.tops[row], self.lefts[column]


def chip_lattice(height: int, width: int, side: int, stride: int) -> WindowLattice:
    """Return chips every `stride` pixels from the first pixel, starting within the scene."""
    return WindowLattice(side, tuple(range(0, height, stride)), tuple(range(0, width, stride)))


@dataclass(frozen=True)
class PatchLattice:
    """Windows of one pass over a scene, whose patches are adjacent.

    Args:
        windows: The windows; their first patch begins less than a patch from the first pixel.
        patch: p, side of a patch in pixels.
        tokens: T, patches per side of a window.
        overlap: Number of patches that neighbouring windows share.
        rows: Number of rows of patches.
        columns: Number of columns of patches.
    """

    windows: WindowLattice
    patch: int
    tokens: int
    overlap: int
    rows: int
    columns: int


@dataclass(frozen=True)
class PatchPass:
    """One of the passes whose patches are interleaved.

    Args:
        row: Row of the grid for its first row of patches.
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
        patch: p, side of a patch in pixels.
        stride: s, step from patch to patch in pixels; equal to p for a single pass.
        rows: Number of rows of patches.
        columns: Number of columns of patches.
        passes: The passes; each has every (p / s)-th row and column.
    """

    patch: int
    stride: int
    rows: int
    columns: int
    passes: tuple[PatchPass, ...]

    @property
    def turns(self) -> int:
        """Number of passes along a side, p / s."""
        return self.patch // self.stride

    @property
    def windows(self) -> int:
        """Number of windows of all passes."""
        return sum(len(one.lattice.windows) for one in self.passes)

    def grid(self, pixels: Grid) -> Grid:
        """Return the grid of the patches: a cell of s pixels around the centre of each.

        Args:
            pixels: Grid of the pixels in which the windows are counted. The centre of the first
                patch is p / 2 pixels from the corner of the first pixel, and a step of a patch is
                s steps of a pixel: in any CRS, also with rows from south to north, or rotated.
        """
        t, s, edge = pixels.transform, self.stride, (self.patch - self.stride) / 2
        x, y = t.c + (t.a + t.b) * edge, t.f + (t.d + t.e) * edge
        transform = Affine(t.a * s, t.b * s, x, t.d * s, t.e * s, y)
        return Grid(pixels.crs, transform, self.rows, self.columns)


def patch_lattice(height: int, width: int, patch: int, tokens: int, overlap: int) -> PatchLattice:
    """Return the windows whose patches cover a scene.

    The last window of a row ends with the last patch; its overlap with the previous one is
    increased accordingly. Padding with invalid pixels is needed only for a scene smaller than a
    window, and for the last patch, which may extend beyond the edge.
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

    The fewest patches that cover the last pixel are used; the last may exceed the edge by less than
    a stride.

    Args:
        height: Height of the scene in pixels.
        width: Width likewise.
        patch: p.
        tokens: T.
        overlap: Number of patches that neighbouring windows of a pass share.
        stride: s, a divisor of p.
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


# -------------------------------------------------- the part of a scene, and its windows read ahead

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SceneGround:
    """A part of a scene.

    Args:
        scene: The scene, with the bands to read.
        window: The part: a window of its finest grid.
        inside: Mask of the pixels in the requested area, (h, w); None for all.
        clouds: Cloud mask to apply; None for none.
    """

    scene: Scene
    window: Window
    inside: NDArray[np.bool_] | None = field(default=None, repr=False)
    clouds: CloudMask | None = None

    @property
    def grid(self) -> Grid:
        """Grid of its pixels."""
        return self.scene.grid.at(self.window)

    def spec(self, side: int) -> ImageSpec:
        """Return the description of its square windows."""
        scene = self.scene
        return ImageSpec(scene.sensor, scene.bands, scene.unit, (side, side), scene.gsd)


@dataclass(frozen=True)
class GroundPixels:
    """Pixels of a rectangle of a scene.

    Args:
        values: float32 (C, h, w).
        measured: bool (h, w): valid, and inside the requested area.
        clouded: bool (h, w): under clouds; None if no mask was requested.
    """

    values: Tensor
    measured: Tensor
    clouded: Tensor | None

    @property
    def valid(self) -> Tensor:
        """Bool (h, w): valid and free of clouds."""
        return self.measured if self.clouded is None else self.measured & ~self.clouded


class GroundReader(Closing):
    """Reader of a part of a scene, with open files. For a single thread only.

    Args:
        ground: Part to read.
    """

    def __init__(self, ground: SceneGround) -> None:
        self.ground = ground
        self._opened: OpenScene = ground.scene.open()

    def read(self, top: int, left: int, height: int, width: int) -> GroundPixels:
        """Return a rectangle of the part, relative to its corner; it may extend beyond the edge.

        Coarse bands are resampled with the pixels around the rectangle, so that values do not
        depend on how the part is divided.

        Raises:
            RasterError: If a file is damaged.
        """
        part, scene = self.ground.window, self.ground.scene
        pixels = torch.zeros(len(scene.bands), height, width)
        measured = torch.zeros(height, width, dtype=torch.bool)
        clouded = None if self.ground.clouds is None else torch.zeros_like(measured)
        first, begin = max(top, 0), max(left, 0)
        bottom, right = min(top + height, part.height), min(left + width, part.width)
        inside = self.ground.inside
        empty = inside is not None and not inside[first:bottom, begin:right].any()
        if bottom <= first or right <= begin or empty:
            return GroundPixels(pixels, measured, clouded)
        here = Window(part.row + first, part.col + begin, bottom - first, right - begin)
        there = (slice(first - top, bottom - top), slice(begin - left, right - left))
        around = _around(here, scene.step, scene.grid)
        imagery = self._opened.read(around)
        row, col = here.row - around.row, here.col - around.col
        cut = (slice(row, row + here.height), slice(col, col + here.width))
        pixels[:, *there] = imagery.pixels[0][:, *cut]
        measured[there] = imagery.valid[0][cut]
        if inside is not None:
            wanted = np.ascontiguousarray(inside[first:bottom, begin:right])
            measured[there] &= torch.from_numpy(wanted)
        if clouded is not None and self.ground.clouds is not None:
            clouded[there] = torch.from_numpy(self._opened.clouded(self.ground.clouds, here))
        return GroundPixels(pixels, measured, clouded)

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def _around(window: Window, step: int, grid: Grid) -> Window:
    """Return the window enlarged by one coarse pixel per side, aligned to coarse pixels."""
    margin = step if step > 1 else 0
    top = max(0, (window.row - margin) // step * step)
    left = max(0, (window.col - margin) // step * step)
    bottom = min(grid.height, -(-(window.row + window.height + margin) // step) * step)
    right = min(grid.width, -(-(window.col + window.width + margin) // step) * step)
    return Window(top, left, bottom - top, right - left)


class Readers(Closing):
    """Threads that read ahead, each with its own open files.

    Args:
        ground: Part of the scene to read.
        threads: Number of threads, and of rectangles read ahead.
    """

    def __init__(self, ground: SceneGround, threads: int) -> None:
        self._ground, self._threads = ground, threads
        # After a fork torch makes its own pool of threads anew, in the first call, without a lock:
        # readers that start at once would find none ("Invalid thread pool!").
        torch.set_num_threads(torch.get_num_threads())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._own = threading.local()
        self._readers: list[GroundReader] = []

    def _reader(self) -> GroundReader:
        if not hasattr(self._own, "reader"):
            self._own.reader = GroundReader(self._ground)
            self._readers.append(self._own.reader)
        reader: GroundReader = self._own.reader
        return reader

    def ahead(
        self, tasks: Iterable[T], read: Callable[[GroundReader, T], R]
    ) -> Iterator[tuple[T, R]]:
        """Return each task with its result, in order.

        Args:
            tasks: What to read.
            read: Reads one task, in a thread.
        """
        return prefetched(
            tasks,
            lambda task: self._pool.submit(lambda: read(self._reader(), task)),
            self._threads,
        )

    def close(self) -> None:
        """Wait for the threads, and close the files."""
        self._pool.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()
