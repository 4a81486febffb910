"""Pieces of work: some windows of a map, or some scenes. Each can run in any process.

WindowJob   a rectangle of windows of one map's own grid, read piece by piece
SceneJob    some scenes, each on its own grid
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from eofm.data.grid import Grid, Window
from eofm.data.labels.compiled import choose
from eofm.data.labels.count import GridCounter
from eofm.data.labels.dates import Period
from eofm.data.labels.maps import Catalogue, MapFile
from eofm.data.labels.strips import (
    CACHE_BYTES,
    SymbolReader,
    columns_per_piece,
    columns_per_strip,
    lines_per_strip,
    open_map,
    pieces,
)
from eofm.data.labels.table import Batch, Reason, Rows, Rule
from eofm.data.landcover import ClassMap, count_codes, strange_codes, unknown_codes
from eofm.data.landcover_map import MapReader

# A scene is read in pieces of at most so many pixels: their codes are held as int32.
_SCENE_PIXELS: Final = 4 * 1024**2


class Job(Protocol):
    """A piece of work."""

    @property
    def size(self) -> int:
        """How many windows or scenes."""

    def run(self) -> Batch:
        """Count them."""


def run_job(job: Job) -> Batch:
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
    """

    map: MapFile
    tops: range
    lefts: range
    window: int
    rule: Rule

    @property
    def size(self) -> int:
        """How many windows."""
        return len(self.tops) * len(self.lefts)

    def run(self) -> Batch:
        """Count the windows."""
        dataset = open_map(self.map.file)
        reader = SymbolReader(dataset, self.rule.scheme)
        area = Window(
            self.tops[0],
            self.lefts[0],
            self.tops[-1] + self.window - self.tops[0],
            self.lefts[-1] + self.window - self.lefts[0],
        )
        kernel = choose(dataset.width * dataset.height)
        counter = GridCounter(self.tops, self.lefts, self.window, reader.legend, kernel)
        shape = lines_per_strip(dataset), columns_per_piece(dataset)
        rows = Rows()
        for piece, symbols in pieces(reader.read, area, *shape):
            if not rows.ids:  # while the first pieces are read
                self._describe(rows)
            counter.add(piece.row, piece.col, symbols)
        for top, counts in zip(self.tops, counter.counts(), strict=True):
            self._check(counts, top, reader, rows)
            rows.counts.append(counts)
        self._name_sources(rows)
        return rows.finish(self.rule)

    def _check(self, counts: NDArray[np.int64], top: int, reader: SymbolReader, rows: Rows) -> None:
        """Refuse, or tally, pixels of codes that the scheme does not know."""
        pixels = self.window * self.window
        for number in np.flatnonzero(counts.sum(axis=1) != pixels).tolist():
            window = Window(top, self.lefts[number], self.window, self.window)
            where = f"{self.map.file}, window {window.row}, {window.col}"
            _judge(reader.codes(window), self.rule, where, rows)

    def _describe(self, rows: Rows) -> None:
        """Fill in where the windows lie."""
        crs, transform, side = self.map.grid.require_crs(), self.map.grid.transform, self.window
        rows.ids = [f"{self.map.name}_{top}_{left}" for top in self.tops for left in self.lefts]
        top, left = (e.ravel() for e in np.meshgrid(self.tops, self.lefts, indexing="ij"))
        rows.centres = [_lonlat(crs, *_points(transform, left + side / 2, top + side / 2))]
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
    maps: Catalogue, window: int, stride: int, rule: Rule, batch: int
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
    for entry in maps.maps:
        lefts = range(0, entry.grid.width - window + 1, stride)
        tops = range(0, entry.grid.height - window + 1, stride)
        columns = max((columns_per_strip(open_map(entry.file)) - window) // stride + 1, 1)
        for first in range(0, len(lefts), columns):
            panel = lefts[first : first + columns]
            step = max(batch // len(panel), 1)
            jobs += [
                WindowJob(entry, tops[t : t + step], panel, window, rule)
                for t in range(0, len(tops), step)
            ]
    return jobs


# ------------------------------------------------------------------------------------ scenes


@dataclass(frozen=True)
class Scene:
    """A place to be labelled.

    Args:
        id: Unique in the table.
        grid: Its pixels.
        date: When it was taken, in ISO 8601; empty where unknown.
    """

    id: str
    grid: Grid
    date: str = ""


@dataclass(frozen=True)
class SceneJob:
    """Some scenes.

    Args:
        scenes: Which.
        maps: All maps.
        rule: How counts become labels.
        max_gap_days: How far a map may be from a scene in time; None if dates do not matter.
    """

    scenes: Sequence[Scene]
    maps: Catalogue
    rule: Rule
    max_gap_days: float | None = None

    @property
    def size(self) -> int:
        """How many scenes."""
        return len(self.scenes)

    def run(self) -> Batch:
        """Count the scenes."""
        rows = Rows()
        for scene in self.scenes:
            self._add(scene, rows)
        return rows.finish(self.rule)

    def _add(self, scene: Scene, rows: Rows) -> None:
        grid = scene.grid
        chosen, reason = self._choose(scene)
        counts, used = np.zeros(len(self.rule.scheme.names) + 2, np.int64), [False] * len(chosen)
        if chosen:
            with ExitStack() as stack:
                readers = [MapReader(open_map(m.file), grid, stack) for m in chosen]
                for window in _pieces(grid):
                    codes = self._mosaic(readers, window, used)
                    found = count_codes(codes, self.rule.scheme)
                    if found.sum() != codes.size:
                        _judge(codes, self.rule, f"scene {scene.id}", rows)
                    counts += found
        rows.ids.append(scene.id)
        rows.centres.append(np.array([grid.centre()]))
        rows.boxes.append(np.array([grid.bounds]))
        rows.crs.append(grid.require_crs().to_string())
        rows.dates.append(scene.date)
        rows.counts.append(counts[None])
        rows.sizes.append(grid.height * grid.width)
        rows.reasons.append(reason)
        taken = [entry for entry, gave in zip(chosen, used, strict=True) if gave]
        rows.sources.append([entry.file.as_posix() for entry in taken])
        rows.map_dates.append([entry.date for entry in taken])

    def _choose(self, scene: Scene) -> tuple[list[MapFile], Reason]:
        """Return the maps of a scene in order of precedence, or why there are none."""
        over = self.maps.over(scene.grid)
        if not over:
            return [], Reason.NO_MAP
        if self.max_gap_days is None:
            return over, Reason.KNOWN
        if not scene.date:
            return [], Reason.NO_DATE
        taken = Period.parse(scene.date)
        gaps = [(entry.period.gap_days(taken), n) for n, entry in enumerate(over) if entry.period]
        near = [over[n] for gap, n in sorted(gaps) if gap <= self.max_gap_days]
        return near, Reason.KNOWN if near else Reason.NOT_IN_TIME

    def _mosaic(self, readers: Sequence[MapReader], window: Window, used: list[bool]) -> ClassMap:
        """Return the codes of the first map that has any, pixel by pixel; note whose they are."""
        nodata = self.rule.scheme.nodata
        codes = np.full((window.height, window.width), nodata[0], np.int32)
        empty = np.ones(codes.shape, np.bool_)
        for number, reader in enumerate(readers):
            if not reader.overlaps:
                continue
            more = reader.read(window, self.rule.scheme)
            fresh = empty & ~np.isin(more, nodata)
            if fresh.any():
                used[number] = True
                codes[fresh] = more[fresh]
                empty &= ~fresh
                if not empty.any():
                    break
        return codes


def scene_jobs(
    scenes: Sequence[Scene], maps: Catalogue, rule: Rule, gap: float | None, batch: int
) -> list[SceneJob]:
    """Cut scenes into jobs, in the order of the table."""
    return [SceneJob(scenes[i : i + batch], maps, rule, gap) for i in range(0, len(scenes), batch)]


def _pieces(grid: Grid) -> Iterator[Window]:
    """Cut a scene into windows of whole lines, small enough to hold."""
    lines = max(_SCENE_PIXELS // grid.width, 1)
    for top in range(0, grid.height, lines):
        yield Window(top, 0, min(lines, grid.height - top), grid.width)


# ------------------------------------------------------------------------------------- both


def _judge(codes: ClassMap, rule: Rule, where: str, rows: Rows) -> None:
    strange = strange_codes(codes, rule.scheme)
    if not rule.scheme.ignore_unknown:
        raise unknown_codes(strange, rule.scheme, where)
    rows.ignore(strange)


def _points(
    transform: Affine, cols: NDArray[np.floating], rows: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the coordinates of places given in pixels."""
    return (
        transform.a * cols + transform.b * rows + transform.c,
        transform.d * cols + transform.e * rows + transform.f,
    )


def _lonlat(crs: CRS, xs: NDArray[np.floating], ys: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return longitudes and latitudes (N, 2)."""
    places = warp_points(crs, CRS.from_epsg(4326), xs.tolist(), ys.tolist())
    degrees: NDArray[np.float64] = np.array(places, np.float64).round(7)
    return degrees.T
