"""Pieces of work: some windows of a map, or some scenes. Each can run in any process.

WindowJob   a rectangle of windows of one map's own grid, read piece by piece
SceneJob    some scenes, each on its own grid
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from eofm.landcover.count import GridCounter, choose_kernel
from eofm.landcover.maps import Catalogue, LandCover, MapFile
from eofm.landcover.multilabel import ClassMap, Reason, strange_codes, unknown_codes
from eofm.landcover.multilabel import Seen as Mask
from eofm.landcover.strips import (
    CACHE_BYTES,
    Pieces,
    SymbolReader,
    columns_per_strip,
    piece_shape,
)
from eofm.landcover.table import PresenceRule, Rows, TableBatch
from eofm.landcover.warp import opened, to_degrees
from eofm.raster.grid import Grid, Window

# A scene is read in pieces of at most so many pixels: their codes are held as int32.
_SCENE_PIXELS: Final = 4 * 1024**2
# Threads of a process, each with a file handle of its own.
THREADS: Final = 2


class LabelJob(Protocol):
    """A piece of work."""

    @property
    def size(self) -> int:
        """How many windows or scenes."""

    def run(self) -> TableBatch:
        """Count them."""


def run_job(job: LabelJob) -> TableBatch:
    """Run a job: what is sent to other processes.

    Raises:
        LabelError: If a map holds codes that the scheme does not know.
        RasterError: If a map cannot be read.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        return job.run()


# ----------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class WindowJob:
    """A rectangle of windows of a map.

    Args:
        map: The map.
        tops: First lines of the windows.
        lefts: First columns of the windows.
        window: Side of the windows.
        rule: How counts become labels.
        pixels: About how many the whole run counts: the compiled loop has to be worth loading.
    """

    map: MapFile
    tops: range
    lefts: range
    window: int
    rule: PresenceRule
    pixels: int = 0

    @property
    def size(self) -> int:
        """How many windows."""
        return len(self.tops) * len(self.lefts)

    def run(self) -> TableBatch:
        """Count the windows."""
        rows = Rows()
        with ExitStack() as stack:
            readers = self._readers(stack)
            counts = self._count(readers, rows)
            for top, line in zip(self.tops, counts, strict=True):
                self._check(line, top, readers[0], rows)
        rows.counts = [counts.reshape(len(rows.ids), -1)]
        self._name_sources(rows)
        return rows.finish(self.rule)

    def _readers(self, stack: ExitStack) -> list[SymbolReader]:
        """Open the map once for each thread."""
        datasets = [stack.enter_context(opened(self.map.file)) for _ in range(THREADS)]
        return [SymbolReader(dataset, self.rule.scheme) for dataset in datasets]

    def _count(self, readers: Sequence[SymbolReader], rows: Rows) -> NDArray[np.int64]:
        """Count the windows in as many threads as there are readers, and say where they lie.

        A thread counts a piece right after it has read it, while the piece is in the cache of its
        core.

        Returns:
            Pixels of each class, of nodata and of cloud, (T, L, K + 2).
        """
        tops, lefts, side = self.tops, self.lefts, self.window
        area = Window(tops[0], lefts[0], tops[-1] + side - tops[0], lefts[-1] + side - lefts[0])
        shape = piece_shape(readers[0].dataset)
        pieces = Pieces(area, *shape, len(readers))
        kernel = choose_kernel(self.pixels)
        counters = [GridCounter(tops, lefts, side, r.legend, kernel) for r in readers]

        def work(thread: int) -> None:
            scratch = np.empty(shape[0] * shape[1], np.uint8)
            try:
                for piece in pieces.of(thread):
                    size = piece.height, piece.width
                    symbols = scratch[: size[0] * size[1]].reshape(size)
                    readers[thread].read(piece, symbols)
                    counters[thread].add(piece.row, piece.col, symbols)
            except BaseException:
                pieces.drop()
                raise

        with ThreadPoolExecutor(len(readers)) as pool:
            others = [pool.submit(work, thread) for thread in range(1, len(readers))]
            self._describe(rows)
            work(0)
        for other, counter in zip(others, counters[1:], strict=True):
            other.result()
            counters[0].include(counter)
        return counters[0].counts()

    def _check(self, counts: NDArray[np.int64], top: int, reader: SymbolReader, rows: Rows) -> None:
        """Refuse, or tally, pixels of codes that the scheme does not know."""
        pixels = self.window * self.window
        for number in np.flatnonzero(counts.sum(axis=1) != pixels).tolist():
            window = Window(top, self.lefts[number], self.window, self.window)
            where = f"{self.map.file}, window {window.row}, {window.col}"
            _judge(reader.codes(window), self.rule, where, rows)

    def _describe(self, rows: Rows) -> None:
        """Fill in where the windows lie."""
        crs, transform, side = self.map.crs, self.map.require_grid().transform, self.window
        rows.ids = [f"{self.map.name}_{top}_{left}" for top in self.tops for left in self.lefts]
        top, left = (e.ravel() for e in np.meshgrid(self.tops, self.lefts, indexing="ij"))
        xs, ys = (v.tolist() for v in _points(transform, left + side / 2, top + side / 2))
        centres = np.array(to_degrees(crs, xs, ys, self.map.file))
        rows.centres = [centres.round(7).T]
        corners = [_points(transform, left + x, top + y) for x in (0, side) for y in (0, side)]
        xs, ys = (np.stack(axis) for axis in zip(*corners, strict=True))
        rows.boxes = [np.stack([xs.min(0), ys.min(0), xs.max(0), ys.max(0)], axis=1)]
        n = len(rows.ids)
        rows.crs, rows.dates = [crs.to_string()] * n, [""] * n
        rows.sizes, rows.reasons = [self.window**2] * n, [Reason.KNOWN] * n

    def _name_sources(self, rows: Rows) -> None:
        """Name the map as the source of the windows that it gave pixels."""
        k = len(self.rule.scheme.names)
        counts = np.concatenate(rows.counts)
        gave = (counts[:, :k].any(axis=1) | (counts[:, k + 1] > 0)).tolist()
        nothing: list[str] = []
        file, date = [self.map.file.as_posix()], [self.map.date]
        rows.sources = [file if given else nothing for given in gave]
        rows.map_dates = [date if given else nothing for given in gave]


def window_jobs(
    maps: Catalogue, window: int, stride: int, rule: PresenceRule, batch: int
) -> list[WindowJob]:
    """Cut all windows of all maps into jobs, in the order of the table.

    A wide map is done panel after panel, so that a strip of it is small.

    Args:
        maps: The maps.
        window: Side of the windows.
        stride: Step from window to window.
        rule: How counts become labels.
        batch: About how many windows to a job.
    """
    jobs = []
    grids = [entry.require_grid() for entry in maps.maps]
    pixels = sum(grid.height * grid.width for grid in grids)
    for entry, grid in zip(maps.maps, grids, strict=True):
        lefts = range(0, grid.width - window + 1, stride)
        tops = range(0, grid.height - window + 1, stride)
        with opened(entry.file) as dataset:
            columns = max((columns_per_strip(dataset) - window) // stride + 1, 1)
        for first in range(0, len(lefts), columns):
            panel = lefts[first : first + columns]
            step = max(batch // len(panel), 1)
            jobs += [
                WindowJob(entry, tops[t : t + step], panel, window, rule, pixels)
                for t in range(0, len(tops), step)
            ]
    return jobs


# ------------------------------------------------------------------------------------ scenes


class MeasuredPixels(Protocol):
    """Which pixels of a scene its image measures. It is sent to other processes."""

    def read(self, window: Window) -> Mask:
        """Return the mask of a window of the scene, (h, w)."""


@dataclass(frozen=True)
class LabelScene:
    """An image to be labelled.

    Args:
        id: Unique in the table.
        grid: Its pixels.
        date: When it was taken, in ISO 8601; empty where unknown.
        name: Name of the image it was cut from: a map in a folder may have it.
        seen: Which of its pixels are measured; None counts all of them.
    """

    id: str
    grid: Grid
    date: str = ""
    name: str = ""
    seen: MeasuredPixels | None = None


@dataclass(frozen=True)
class SceneJob:
    """Some scenes.

    Args:
        scenes: The scenes.
        cover: All maps.
        rule: How counts become labels.
    """

    scenes: Sequence[LabelScene]
    cover: LandCover
    rule: PresenceRule

    @property
    def size(self) -> int:
        """How many scenes."""
        return len(self.scenes)

    def run(self) -> TableBatch:
        """Count the scenes."""
        rows = Rows()
        rows.centres = [_centres(self.scenes)]
        for scene in self.scenes:
            self._add(scene, rows)
        return rows.finish(self.rule)

    def _add(self, scene: LabelScene, rows: Rows) -> None:
        grid = scene.grid
        counts, size = np.zeros(len(self.rule.scheme.names) + 2, np.int64), 0
        with self.cover.on(grid, scene.name, scene.date) as view:
            for window in _pieces(grid):
                seen = None if scene.seen is None else scene.seen.read(window)
                size += window.height * window.width if seen is None else int(seen.sum())
                if view.readers:
                    counts += view.count(window, seen, f"scene {scene.id}")
            rows.ignore(view.ignored)
            taken = view.used
            reason = view.reason if size or view.reason else Reason.UNSEEN
        rows.ids.append(scene.id)
        rows.boxes.append(np.array([grid.bounds]))
        rows.crs.append(grid.require_crs().to_string())
        rows.dates.append(scene.date)
        rows.counts.append(counts[None])
        rows.sizes.append(size)
        rows.reasons.append(reason)
        rows.sources.append([entry.file.as_posix() for entry in taken])
        rows.map_dates.append([entry.date for entry in taken])


def scene_jobs(
    scenes: Sequence[LabelScene], cover: LandCover, rule: PresenceRule, batch: int
) -> list[SceneJob]:
    """Cut scenes into jobs, in the order of the table."""
    return [SceneJob(scenes[i : i + batch], cover, rule) for i in range(0, len(scenes), batch)]


def _pieces(grid: Grid) -> Iterator[Window]:
    """Cut a scene into windows of whole lines, small enough to hold."""
    lines = max(_SCENE_PIXELS // grid.width, 1)
    for top in range(0, grid.height, lines):
        yield Window(top, 0, min(lines, grid.height - top), grid.width)


# ------------------------------------------------------------------------------------- both


def _judge(codes: ClassMap, rule: PresenceRule, where: str, rows: Rows) -> None:
    strange = strange_codes(codes, rule.scheme)
    if not rule.scheme.ignore_unknown:
        raise unknown_codes(strange, rule.scheme, where)
    rows.ignore(strange)


def _centres(scenes: Sequence[LabelScene]) -> NDArray[np.float64]:
    """Return longitude and latitude of each centre (N, 2), one CRS after the other."""
    of_crs: dict[CRS, list[int]] = {}
    for number, scene in enumerate(scenes):
        of_crs.setdefault(scene.grid.require_crs(), []).append(number)
    degrees = np.empty((len(scenes), 2))
    for crs, numbers in of_crs.items():
        grids = [scenes[n].grid for n in numbers]
        xs, ys = zip(*(grid.point(grid.width / 2, grid.height / 2) for grid in grids), strict=True)
        for axis, values in enumerate(to_degrees(crs, xs, ys, f"scene {scenes[numbers[0]].id}")):
            degrees[numbers, axis] = [round(value, 7) for value in values]  # as Grid.centre
    return degrees


def _points(
    transform: Affine, cols: NDArray[np.floating], rows: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the coordinates of places given in pixels."""
    return (
        transform.a * cols + transform.b * rows + transform.c,
        transform.d * cols + transform.e * rows + transform.f,
    )
