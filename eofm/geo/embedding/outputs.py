"""One vector per chip of a scene, as a table, or per patch, as a raster.

Chips may be on a named grid, so that every scene of a place has the same chips: Major TOM. The
sphere is divided along parallels into rows of about one distance, and each row along meridians into
cells of about that distance. A cell is named by its row up or down from the equator and its column
right or left of Greenwich, and is north-east of its point (Francis and Czerkawski 2024, arXiv
2402.12095; github.com/ESA-PhiLab/Major-TOM). Here the distance is the side of a chip on the ground.
A chip is the square of pixels around the centre of its cell: chips of two scenes with the same name
differ by at most half a pixel, or by one pixel if the pixel grids of the scenes differ.

Patches are blended where windows overlap.

Shapes: N chips, D dimensions, T patches per side of a window, Y by X patches of the scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from eofm.environment import geo_library
from eofm.errors import DataError
from eofm.geo.embedding.job import (
    ArrayFile,
    Interlaced,
    Job,
    Work,
    as_planes,
    check_disk,
    check_scene,
    no_vectors,
    read_checked,
    working,
    writable,
)
from eofm.geo.embedding.stac import write_stac
from eofm.geo.embedding.windows import (
    GroundPixels,
    GroundReader,
    PatchLattice,
    PatchPasses,
    Readers,
    blending,
    chip_lattice,
)
from eofm.geo.embedding_files import PATCHES_ZARR, write_chips, write_tiff, write_zarr
from eofm.geo.embeddings import ChipTable, Codes, PatchGrid, Quantization, quantized
from eofm.raster.cube import placed
from eofm.raster.grid import Grid, crs_text, to_wgs84
from eofm.terminal import track

__all__ = [
    "ChipPlaces",
    "ChipsDone",
    "MajorTom",
    "PatchesDone",
    "cell_places",
    "outlines",
    "run_chips",
    "run_patches",
    "scene_places",
]

# -------------------------------------------------------------------------------------------- chips

_BLOCK: Final = 512  # chips
_PART: Final = 16_384  # chips in memory at a time
_SHARES: Final = 3  # valid, clouded, and whether there is a vector


@dataclass(frozen=True, eq=False)
class ChipPlaces:
    """Positions of chips.

    Args:
        ids: Name of each, (N,).
        tops: First row in pixels of the ground, (N,); chips of the same row are consecutive.
        lefts: First column, (N,).
        side: Side in pixels.
    """

    ids: NDArray[np.object_]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    side: int

    def __len__(self) -> int:
        return len(self.tops)

    def corner(self, number: int) -> tuple[int, int]:
        """Return first row and column of a chip."""
        return int(self.tops[number]), int(self.lefts[number])

    def groups(self, batch: int) -> list[range]:
        """Return runs of neighbouring chips in a row, which are read and embedded together."""
        groups: list[range] = []
        start = 0
        for i in range(1, len(self) + 1):
            # on a named grid, chips of one row can differ by a pixel in height
            near = i < len(self) and abs(self.tops[i] - self.tops[start]) < self.side
            near = near and 0 <= self.lefts[i] - self.lefts[i - 1] <= 2 * self.side
            if not near or i - start == batch:
                groups.append(range(start, i))
                start = i
        return groups


@dataclass(frozen=True)
class ChipsDone:
    """Result of a job of chips.

    Args:
        file: File of the vectors.
        chips: Number of chips.
        skipped: Number of chips left out: invalid or clouded.
        recall: recall@10 of int8 against float32; None if the vectors are float32.
    """

    file: Path
    chips: int
    skipped: int
    recall: float | None

    def describe(self) -> str:
        """Return one line."""
        left = f", {self.skipped} left out (invalid or clouded)" if self.skipped else ""
        kind = "float32" if self.recall is None else f"int8, recall@10 {self.recall:.3f}"
        return f"{self.file}: {self.chips} chips{left}, {kind}"


def run_chips(job: Job, places: ChipPlaces) -> ChipsDone:
    """Embed the chips of a scene, or resume, and write them.

    Raises:
        DataError: If no pixel is valid, or the disk cannot be written to.
        PixelError: If pixels contradict the stated unit or bands.
        RasterError: If a file is damaged.
        ConfigError: If another job is half finished in the folder, or a library is missing.
    """
    geo_library("geopandas", "chips need a library that is not installed")
    with writable(job.out):
        check_disk(job, len(places))
        with working(job.work, job.identity) as work:
            vectors = work.rows("vectors", (len(places), job.network.dim), np.float32)
            shares = work.rows("shares", (len(places), _SHARES), np.float32)
            _embed_chips(job, places, work, vectors, shares)
            done = _finish_chips(job, places, work, vectors, shares)
    return done


def _embed_chips(
    job: Job, places: ChipPlaces, work: Work, vectors: ArrayFile, shares: ArrayFile
) -> None:
    if not work.done:
        check_scene(job, places)
    groups = places.groups(job.config.batch)
    blocks = _blocks(groups)
    todo = [group for block in blocks[work.done :] for group in block]

    def read(reader: GroundReader, group: range) -> GroundPixels:
        return read_checked(reader, job, *_hull_of_chips(places, group))

    with Readers(job.ground, job.config.readers) as readers:
        found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        ahead = readers.ahead(todo, read)
        for group, pixels in track(ahead, f"embedding {job.ground.scene.name}", len(todo)):
            found.append(_vectors_of_chips(job, places, group, pixels))
            block = blocks[work.done]
            if group == block[-1]:
                vectors.write(block[0].start, np.concatenate([part for part, _ in found]))
                shares.write(block[0].start, np.concatenate([part for _, part in found]))
                work.commit(work.done + 1)
                found = []


def _blocks(groups: list[range]) -> list[list[range]]:
    """Return groups divided into blocks of about `_BLOCK` chips."""
    ends = [0]
    count = 0
    for number, group in enumerate(groups, 1):
        count += len(group)
        if count >= _BLOCK or number == len(groups):
            ends.append(number)
            count = 0
    return [groups[a:b] for a, b in pairwise(ends)]


def _hull_of_chips(places: ChipPlaces, group: range) -> tuple[int, int, int, int]:
    """Return the bounding rectangle of a group of chips: top, left, height, width."""
    tops, lefts = places.tops[group.start : group.stop], places.lefts[group.start : group.stop]
    top, left = int(tops.min()), int(lefts.min())
    return top, left, int(tops.max()) + places.side - top, int(lefts.max()) + places.side - left


def _vectors_of_chips(
    job: Job, places: ChipPlaces, group: range, pixels: GroundPixels
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors (n, D) and shares (n, 3) of a group; a chip left out has zeros."""
    top, left, _, _ = _hull_of_chips(places, group)
    side = places.side
    cuts = [
        (slice(r, r + side), slice(c, c + side))
        for r, c in ((int(places.tops[i]) - top, int(places.lefts[i]) - left) for i in group)
    ]
    shares = np.zeros((len(group), _SHARES), np.float32)
    kept = []
    for number, cut in enumerate(cuts):
        measured = pixels.measured[cut]
        shares[number, 0] = float(measured.float().mean())
        if pixels.clouded is not None and shares[number, 0]:
            shares[number, 1] = float(pixels.clouded[cut][measured].float().mean())
        if float(pixels.valid[cut].float().mean()) >= job.config.min_valid:
            shares[number, 2] = 1
            kept.append(number)
    vectors = np.zeros((len(group), job.network.dim), np.float32)
    if kept:
        values = [pixels.values[:, *cuts[i]] for i in kept]
        valid = [pixels.valid[cuts[i]] for i in kept]
        vectors[kept] = job.network.chips(job.batch(values, valid, side))
    return vectors, shares


# ------------------------------------------------------------------------------- the file


def _finish_chips(
    job: Job, places: ChipPlaces, work: Work, vectors: ArrayFile, shares: ArrayFile
) -> ChipsDone:
    table = shares.read(0, len(places))
    kept = table[:, 2] > 0
    count = int(kept.sum())
    if not count:
        work.commit(0)  # nothing to keep: the folder is free for another --min_valid
        valid = table[:, 0] * (1 - table[:, 1])
        raise no_vectors(job, len(places), float(valid.mean()), float(valid.max()))
    codes, found, made = quantized(
        job.config.quantization, count, lambda: _kept(vectors, kept), job.made
    )
    made = replace(made, settings={**made.settings, "job": job.identity})
    parts = _parts(replace(job, made=made), places, vectors, table, codes)
    (file,) = job.files
    write_stac(job, made, job.files, codes)
    write_chips(file, parts)  # last: a job is complete when its table exists
    return ChipsDone(file, count, len(places) - count, found)


def _kept(vectors: ArrayFile, kept: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(kept), _PART):
        stop = min(start + _PART, len(kept))
        yield vectors.read(start, stop)[kept[start:stop]]


def _parts(
    job: Job,
    places: ChipPlaces,
    vectors: ArrayFile,
    shares: NDArray[np.float32],
    codes: Codes | None,
) -> Iterator[ChipTable]:
    import geopandas

    grid, date = job.ground.grid, job.ground.scene.date or None
    clouds = job.ground.clouds is not None
    for start in range(0, len(places), _PART):
        stop = min(start + _PART, len(places))
        some = np.arange(start, stop)[shares[start:stop, 2] > 0]
        if not len(some):
            continue
        columns: dict[str, Any] = {
            "id": places.ids[some],
            "datetime": [date] * len(some),
            "valid_share": shares[some, 0],
            "cloud_share": shares[some, 1] if clouds else np.full(len(some), np.nan, np.float32),
        }
        shapes = outlines(grid, places.tops[some], places.lefts[some], places.side)
        table = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs_text(grid.require_crs()))
        part = vectors.read(start, stop)[some - start]
        yield ChipTable(table, part if codes is None else codes.encode(part), job.made, codes)


def scene_places(job: Job, side: int, stride: int) -> ChipPlaces:
    """Return the chips of a scene from its first pixel, row by row."""
    part, name = job.ground.window, job.ground.scene.name
    lattice = chip_lattice(part.height, part.width, side, stride)
    corners = [(top, left) for top in lattice.tops for left in lattice.lefts]
    ids = [f"{name}_{part.row + top}_{part.col + left}" for top, left in corners]
    tops, lefts = np.array(corners, np.int64).T
    return ChipPlaces(np.array(ids, object), tops, lefts, side)


def outlines(
    grid: Grid, tops: NDArray[np.int64], lefts: NDArray[np.int64], side: int
) -> NDArray[np.object_]:
    """Return the outline of each chip in the coordinates of the grid, as polygons."""
    import shapely

    t = grid.transform
    cols = np.stack([lefts, lefts + side, lefts + side, lefts, lefts], axis=1)
    rows = np.stack([tops, tops, tops + side, tops + side, tops], axis=1)
    x = t.a * cols + t.b * rows + t.c
    y = t.d * cols + t.e * rows + t.f
    found: NDArray[np.object_] = shapely.polygons(np.stack([x, y], axis=-1))
    return found


# ------------------------------------------------------------------- chips on the grid of Major TOM

_RADIUS: Final = 6_378_137.0  # metres: the sphere of Major TOM
_POLES: Final = 85.0  # degrees of latitude, limits of the grid
_EDGE: Final = 21  # points per edge of a scene: straight edges are curves on the sphere


@dataclass(frozen=True)
class MajorTom:
    """The Major TOM grid for a distance.

    Args:
        metres: The distance.
    """

    metres: float

    @property
    def name(self) -> str:
        """Name of the grid."""
        return f"majortom-{self.metres / 1000:g}km"

    @property
    def _rows(self) -> int:
        return math.ceil(math.pi * _RADIUS / self.metres)

    @property
    def height(self) -> float:
        """Height of a row in degrees of latitude."""
        return 180 / self._rows

    def width(self, row: int) -> float:
        """Return the width in degrees of longitude of a cell; rows are counted from the equator."""
        around = 2 * math.pi * _RADIUS * math.cos(math.radians(row * self.height))
        return 360 / math.ceil(around / self.metres)

    def label(self, row: int, column: int) -> str:
        """Return the name of a cell, as in `612U_34L`."""
        up = f"{row}U" if row >= 0 else f"{-row}D"
        return f"{up}_{column}R" if column >= 0 else f"{up}_{-column}L"


def cell_places(grid: Grid, side: int, gsd: float) -> ChipPlaces:
    """Return the chips of a scene on the named grid, from north to south and from west to east.

    Args:
        grid: Grid of the pixels.
        side: Side of a chip in pixels.
        gsd: Metres per pixel.

    Raises:
        DataError: If the scene contains no centre of a cell.
        RasterError: If the scene has no georeference.
    """
    cells = MajorTom(side * gsd)
    west, south, east, north = _extent(grid)
    south, north = max(south, -_POLES), min(north, _POLES)
    rows = range(math.floor(south / cells.height), math.floor(north / cells.height) + 1)
    labels: list[str] = []
    tops: list[NDArray[np.int64]] = []
    lefts: list[NDArray[np.int64]] = []
    for row in reversed(rows):
        width = cells.width(row)
        columns = np.arange(math.floor(west / width), math.floor(east / width) + 1)
        x, y = _pixels(grid, (columns + 0.5) * width, (row + 0.5) * cells.height)
        inside = (x >= 0) & (x < grid.width) & (y >= 0) & (y < grid.height)
        around = round(360 / width)
        # beyond 180 degrees the columns are counted from the other side
        names = (columns[inside] + around // 2) % around - around // 2
        labels += [cells.label(row, int(column)) for column in names]
        lefts.append(np.rint(x[inside] - side / 2).astype(np.int64))
        tops.append(np.rint(y[inside] - side / 2).astype(np.int64))
    if not labels:
        raise DataError(
            "no cell of the named grid is in the scene",
            found=f"{grid.height} x {grid.width} pixels of {gsd:g} m",
            expected=f"space for the centre of a cell of {cells.metres:g} m",
            remedy="use smaller chips, or those of the scene: --grid scene",
        )
    ids = np.array(labels, object)
    return ChipPlaces(ids, np.concatenate(tops), np.concatenate(lefts), side)


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """Return west, south, east and north; east is above 180 for scenes across the antimeridian."""
    part = np.linspace(0, 1, _EDGE)
    corners = [(0, 0, 1, 0), (1, 0, 1, 1), (1, 1, 0, 1), (0, 1, 0, 0)]
    points = [
        grid.point((a + (c - a) * t) * grid.width, (b + (d - b) * t) * grid.height)
        for a, b, c, d in corners
        for t in part
    ]
    xs, ys = zip(*points, strict=True)
    longitudes, latitudes = map(np.array, to_wgs84(grid.require_crs(), xs, ys))
    if np.ptp(longitudes) > 180:
        longitudes = np.where(longitudes < 0, longitudes + 360, longitudes)
    return longitudes.min(), latitudes.min(), longitudes.max(), latitudes.max()


def _pixels(
    grid: Grid, longitudes: NDArray[np.floating[Any]], latitude: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return column and row, in fractions of pixels, of points on one parallel."""
    latitudes = [latitude] * len(longitudes)
    crs = grid.require_crs()
    if crs.is_geographic:
        # longitudes beyond 180 as in the coordinates of the scene
        x, y = np.array(longitudes), np.array(latitudes)
        if crs != CRS.from_epsg(4326):
            x, y = map(np.array, warp_points(CRS.from_epsg(4326), crs, x, y))
        if grid.transform.c < -180 or grid.bounds[0] < x.min() - 180:
            x = x - 360
    else:
        x, y = map(np.array, warp_points(CRS.from_epsg(4326), crs, list(longitudes), latitudes))
    inverse = ~grid.transform
    return inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f


# ------------------------------------------------------------------------------------------ patches

_STRIP: Final = 16  # rows of patches in memory at a time
_SEEN: Final = 2  # of the patches of a row of windows: mean and highest valid share


@dataclass(frozen=True)
class PatchesDone:
    """Result of a job of patches.

    Args:
        files: Files of the vectors.
        shape: Rows and columns of patches.
        vectors: Number of patches with a vector.
        ground: Side of a patch on the ground in metres.
        step: Step from patch to patch in metres.
        recall: recall@10 of int8 against float16; None if the vectors are float16.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int]
    vectors: int
    ground: float
    step: float
    recall: float | None

    def describe(self) -> str:
        """Return one line."""
        kind = "float16" if self.recall is None else f"int8, recall@10 {self.recall:.3f}"
        rows, columns = self.shape
        every = "" if self.step == self.ground else f" every {self.step:g} m"
        return (
            f"{', '.join(map(str, self.files))}: {rows} x {columns} patches of "
            f"{self.ground:g} m{every}, {self.vectors} with a vector, {kind}"
        )


@dataclass(frozen=True)
class _Group:
    """Windows of one row that are read and embedded together: indices of pass, row and columns."""

    number: int
    row: int
    columns: range


def run_patches(job: Job, passes: PatchPasses) -> PatchesDone:
    """Embed the patches of a scene, or resume, and write them.

    Raises:
        DataError: If no pixel is valid, or the disk cannot be written to.
        PixelError: If pixels contradict the stated unit or bands.
        RasterError: If a file is damaged.
        ConfigError: If another job is half finished in the folder, or a library is missing.
    """
    if "zarr" in job.config.formats:
        geo_library("zarr", "embeddings as Zarr need a library that is not installed")
    with writable(job.out):
        check_disk(job, passes.rows * passes.columns)
        with working(job.work, job.identity) as work:
            parts = [
                work.rows(
                    f"vectors{number or ''}",
                    (one.lattice.rows, one.lattice.columns, job.network.dim),
                    np.float16,
                )
                for number, one in enumerate(passes.passes)
            ]
            rows = sum(len(one.lattice.windows.tops) for one in passes.passes)
            seen = work.rows("seen", (rows, _SEEN), np.float32)
            _embed_patches(job, passes, work, parts, seen)
            done = _finish_patches(job, passes, work, parts, seen)
    return done


# ------------------------------------------------------------------------------- blending


class _Blend:
    """Accumulate windows, one row of windows after another, and return finished rows.

    Args:
        lattice: The windows.
        dim: D.
    """

    def __init__(self, lattice: PatchLattice, dim: int) -> None:
        self._lattice = lattice
        side = blending(lattice.tokens, lattice.overlap)
        self._weights = side[:, None] * side[None]
        self._sums = np.zeros((lattice.tokens, lattice.columns, dim), np.float32)
        self._total = np.zeros((lattice.tokens, lattice.columns), np.float32)
        self._valid = np.zeros((lattice.tokens, lattice.columns), np.bool_)

    def add(self, left: int, vectors: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add a window: vectors (T, T, D) and their validity, and its first column in patches."""
        part = slice(left, left + self._lattice.tokens)
        # the lattice of a scene smaller than a window ends before the window does
        here = self._sums[:, part].shape[1]
        self._sums[:, part] += self._weights[:, :here, None] * vectors[:, :here]
        self._total[:, part] += self._weights[:, :here]
        self._valid[:, part] |= valid[:, :here]

    def finished(self, rows: int) -> NDArray[np.float16]:
        """Return the first rows, (rows, X, D), and advance; NaN for missing vectors."""
        total = self._total[:rows]
        there = self._valid[:rows] & (total > 0)
        mean = self._sums[:rows] / np.where(total > 0, total, 1)[..., None]
        found = np.where(there[..., None], mean, np.nan).astype(np.float16)
        for array in (self._sums, self._total, self._valid):
            array[: -rows or None] = array[rows:].copy() if rows < len(array) else 0
            array[len(array) - rows :] = 0
        return found

    @property
    def carried(self) -> NDArray[np.float32]:
        """Sums that the next row of windows is added to, as one array (T, X, D + 2)."""
        extra = np.stack([self._total, self._valid.astype(np.float32)], axis=-1)
        return np.concatenate([self._sums, extra], axis=-1)

    @carried.setter
    def carried(self, value: NDArray[np.float32]) -> None:
        """Resume from a value of `carried`."""
        self._sums, self._total = value[..., :-2].copy(), value[..., -2].copy()
        self._valid = value[..., -1] > 0


def _embed_patches(
    job: Job, passes: PatchPasses, work: Work, parts: list[ArrayFile], seen: ArrayFile
) -> None:
    lattices, dim = [one.lattice for one in passes.passes], job.network.dim
    if not work.done:
        check_scene(job, lattices[0].windows)
    groups = _groups(lattices, job.config.batch, work.done)
    blend = _Blend(lattices[0], dim)
    shares: list[NDArray[np.float32]] = []

    def read(reader: GroundReader, group: _Group) -> GroundPixels:
        return read_checked(reader, job, *_hull_of_windows(lattices[group.number], group))

    def carry(number: int, done: int) -> ArrayFile:
        # two alternating files: that of the last block is intact while the next one is written
        shape = (lattices[number].tokens, lattices[number].columns, dim + 2)
        return work.rows(f"carry{done % 2}", shape, np.float32)

    with Readers(job.ground, job.config.readers) as readers:
        ahead = readers.ahead(groups, read)
        progress = track(ahead, f"embedding {job.ground.scene.name}", len(groups))
        for count, (group, pixels) in enumerate(progress):
            lattice = lattices[group.number]
            if group.row == group.columns.start == 0:
                blend = _Blend(lattice, dim)
            elif not count:  # a pass that was started before
                blend = _Blend(lattice, dim)
                blend.carried = carry(group.number, work.done).read(0, lattice.tokens)
            shares.append(_shares(lattice, pixels))
            for left, found, valid in _windows(job, lattice, group, pixels, shares[-1]):
                blend.add(left, found, valid)
            if group.columns.stop == len(lattice.windows.lefts):
                whole = np.concatenate(shares, axis=1)
                seen.write(work.done, np.array([[whole.mean(), whole.max()]]))
                shares = []
                start, stop = _finished(lattice, group.row)
                parts[group.number].write(start, blend.finished(stop - start))
                carry(group.number, work.done + 1).write(0, blend.carried)
                work.commit(work.done + 1)


def _groups(lattices: list[PatchLattice], batch: int, done: int) -> list[_Group]:
    """Return the groups that remain after `done` rows of windows."""
    rows = [
        (number, row)
        for number, lattice in enumerate(lattices)
        for row in range(len(lattice.windows.tops))
    ]
    return [
        _Group(number, row, range(start, min(start + batch, columns)))
        for number, row in rows[done:]
        for columns in [len(lattices[number].windows.lefts)]
        for start in range(0, columns, batch)
    ]


def _hull_of_windows(lattice: PatchLattice, group: _Group) -> tuple[int, int, int, int]:
    """Return the bounding rectangle of a group of windows: top, left, height, width."""
    windows = lattice.windows
    left, last = windows.lefts[group.columns[0]], windows.lefts[group.columns[-1]]
    return windows.tops[group.row], left, windows.side, last + windows.side - left


def _finished(lattice: PatchLattice, row: int) -> tuple[int, int]:
    """Return the range of patch rows that no later row of windows adds to."""
    tops = [top // lattice.patch for top in lattice.windows.tops]
    stop = tops[row + 1] if row + 1 < len(tops) else lattice.rows
    return tops[row], stop


def _shares(lattice: PatchLattice, pixels: GroundPixels) -> NDArray[np.float32]:
    """Return the valid share of each patch of a group of windows, (T, patches)."""
    mask = pixels.valid[None].float()
    found: NDArray[np.float32] = torch.nn.functional.avg_pool2d(mask, lattice.patch)[0].numpy()
    return found


def _windows(
    job: Job,
    lattice: PatchLattice,
    group: _Group,
    pixels: GroundPixels,
    shares: NDArray[np.float32],
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield first column in patches, vectors (T, T, D) and validity (T, T) of windows with any."""
    windows, side = lattice.windows, lattice.windows.side
    first = windows.lefts[group.columns[0]]
    kept, values, masks, valids = [], [], [], []
    for column in group.columns:
        left = windows.lefts[column]
        cut = slice(left - first, left - first + side)
        patch = (left - first) // lattice.patch
        valid = shares[:, patch : patch + lattice.tokens] >= job.config.min_valid
        if valid.any():
            kept.append(left // lattice.patch)
            values.append(pixels.values[:, :, cut])
            masks.append(pixels.valid[:, cut])
            valids.append(valid)
    if kept:
        found = job.network.patches(job.batch(values, masks, side))
        yield from zip(kept, found, valids, strict=True)


# ------------------------------------------------------------------------------ the files


def _finish_patches(
    job: Job, passes: PatchPasses, work: Work, parts: list[ArrayFile], seen: ArrayFile
) -> PatchesDone:
    shape = (passes.rows, passes.columns, job.network.dim)
    placed_parts = [(p.row, p.column, a) for p, a in zip(passes.passes, parts, strict=True)]
    vectors = Interlaced(shape, passes.turns, tuple(placed_parts))
    valid = np.concatenate([~np.isnan(part[..., 0]) for part in _strips(vectors)])
    count = int(valid.sum())
    if not count:
        work.commit(0)
        mean, best = seen.read(0, seen.shape[0]).T
        raise no_vectors(job, passes.windows, float(mean.mean()), float(best.max()))
    codes, found, made = quantized(
        job.config.quantization,
        count,
        lambda: _finite(vectors),
        replace(job.made, quantization=Quantization.FLOAT16),
    )
    made = replace(made, settings={**made.settings, "job": job.identity})
    place = passes.grid(job.ground.grid)
    grid = PatchGrid(placed(as_planes(vectors, codes), place), valid, made, codes)
    write_stac(job, made, job.files, codes)
    for file in job.files:  # last: a job is complete when they exist
        (write_zarr if file.name == PATCHES_ZARR else write_tiff)(file, grid)
    gsd = job.ground.scene.gsd
    side, step = passes.patch * gsd, passes.stride * gsd
    return PatchesDone(job.files, (passes.rows, passes.columns), count, side, step, found)


def _strips(vectors: Interlaced) -> Iterator[NDArray[Any]]:
    for start in range(0, vectors.shape[0], _STRIP):
        yield vectors.read(start, min(start + _STRIP, vectors.shape[0]))


def _finite(vectors: Interlaced) -> Iterator[NDArray[np.float32]]:
    for part in _strips(vectors):
        yield part[~np.isnan(part[..., 0])].astype(np.float32)
