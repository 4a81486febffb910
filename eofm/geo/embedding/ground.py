"""The part of a scene that is embedded, and windows of it read by threads ahead of the network.

Shapes: C bands, h by w pixels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.contract.spec import ImageSpec
from eofm.io import Closing
from eofm.raster.grid import Grid, Window
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.scene import OpenScene, Scene

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SceneGround:
    """A part of a scene.

    Args:
        scene: The scene, with the bands that are read.
        window: The part: a window of its finest grid.
        inside: Which of its pixels belong to the area that was asked for, (h, w); None for all.
        clouds: The mask that hides clouds; None for none.
    """

    scene: Scene
    window: Window
    inside: NDArray[np.bool_] | None = field(default=None, repr=False)
    clouds: CloudMask | None = None

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return self.scene.grid.at(self.window)

    def spec(self, side: int) -> ImageSpec:
        """Return what square windows of it are."""
        scene = self.scene
        return ImageSpec(scene.sensor, scene.bands, scene.unit, (side, side), scene.gsd)


@dataclass(frozen=True)
class GroundPixels:
    """Pixels of a rectangle of a scene.

    Args:
        values: float32 (C, h, w).
        measured: bool (h, w): measured, and inside the area that was asked for.
        clouded: bool (h, w): under clouds; None where no mask was asked for.
    """

    values: Tensor
    measured: Tensor
    clouded: Tensor | None

    @property
    def valid(self) -> Tensor:
        """Bool (h, w): measured and free of clouds."""
        return self.measured if self.clouded is None else self.measured & ~self.clouded


class GroundReader(Closing):
    """A part of a scene whose files are open. Of one thread only.

    Args:
        ground: What to read.
    """

    def __init__(self, ground: SceneGround) -> None:
        self.ground = ground
        self._opened: OpenScene = ground.scene.open()

    def read(self, top: int, left: int, height: int, width: int) -> GroundPixels:
        """Return a rectangle of the part, counted from its corner; it may reach over the edge.

        Coarse bands are brought to the grid with the pixels around the rectangle, so that what is
        read does not depend on how it is cut.

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
    """Return the window with a coarse pixel more on every side, between coarse pixels."""
    margin = step if step > 1 else 0
    top = max(0, (window.row - margin) // step * step)
    left = max(0, (window.col - margin) // step * step)
    bottom = min(grid.height, -(-(window.row + window.height + margin) // step) * step)
    right = min(grid.width, -(-(window.col + window.width + margin) // step) * step)
    return Window(top, left, bottom - top, right - left)


class Readers(Closing):
    """Threads that read ahead, each with open files of its own.

    Args:
        ground: What they read.
        threads: How many; they are as many rectangles ahead.
    """

    def __init__(self, ground: SceneGround, threads: int) -> None:
        self._ground, self._threads = ground, threads
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
        """Yield each task with what was read for it, in order.

        Args:
            tasks: What to read.
            read: Reads one, in a thread.
        """
        waiting: deque[tuple[T, Future[R]]] = deque()
        rest = iter(tasks)
        try:
            while True:
                for task in rest:
                    waiting.append(
                        (task, self._pool.submit(lambda t: read(self._reader(), t), task))
                    )
                    if len(waiting) > self._threads:
                        break
                if not waiting:
                    return
                task, future = waiting.popleft()
                yield task, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for the threads, and close the files."""
        self._pool.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()
