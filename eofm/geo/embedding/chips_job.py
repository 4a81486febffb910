"""A vector for each chip of a scene.

Shapes: N chips, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eofm.extras import geo_library
from eofm.geo.embedding.ground import GroundPixels, GroundReader, Readers
from eofm.geo.embedding.job import (
    Job,
    check_disk,
    check_scene,
    no_vectors,
    read_checked,
    writable,
)
from eofm.geo.embedding.stac import write_stac
from eofm.geo.embedding.windows import chip_lattice
from eofm.geo.embedding.work import ArrayFile, Work, working
from eofm.geo.vectors.chip_file import write_chips
from eofm.geo.vectors.embeddings import ChipTable, Codes
from eofm.geo.vectors.quantize import quantized
from eofm.progress import track
from eofm.raster.grid import Grid, crs_text

_BLOCK: Final = 512  # chips
_PART: Final = 16_384  # chips that are in memory at a time
_SHARES: Final = 3  # measured, clouded, and whether there is a vector


@dataclass(frozen=True, eq=False)
class ChipPlaces:
    """Where chips lie.

    Args:
        ids: What each is called, (N,).
        tops: First row in pixels of the ground, (N,); chips of one row follow one another.
        lefts: First column, (N,).
        side: In pixels.
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
        """Return runs of chips that are read and embedded together: neighbours in a row."""
        groups: list[range] = []
        start = 0
        for i in range(1, len(self) + 1):
            # of a named grid the chips of one row lie a pixel higher or lower
            near = i < len(self) and abs(self.tops[i] - self.tops[start]) < self.side
            near = near and 0 <= self.lefts[i] - self.lefts[i - 1] <= 2 * self.side
            if not near or i - start == batch:
                groups.append(range(start, i))
                start = i
        return groups


@dataclass(frozen=True)
class ChipsDone:
    """What a job of chips has made.

    Args:
        file: Where the vectors are.
        chips: How many there are.
        skipped: How many were left out: not measured, or under clouds.
        recall: recall@10 of int8 against float32; None where they are float32.
    """

    file: Path
    chips: int
    skipped: int
    recall: float | None

    def describe(self) -> str:
        """Return one line."""
        left = f", {self.skipped} left out (unmeasured or clouded)" if self.skipped else ""
        kind = "float32" if self.recall is None else f"int8, recall@10 {self.recall:.3f}"
        return f"{self.file}: {self.chips} chips{left}, {kind}"


def run_chips(job: Job, places: ChipPlaces) -> ChipsDone:
    """Embed the chips of a scene, or resume it, and write them.

    Raises:
        DataError: If nothing is measured, or the disk cannot be written to.
        PixelError: If pixels contradict what is stated of them.
        RasterError: If a file is damaged.
        ConfigError: If another job is half finished in the folder, or a library is missing.
    """
    geo_library("geopandas", "chips need a library that is not installed")
    with writable(job.out):
        check_disk(job, len(places))
        with working(job.work, job.identity) as work:
            vectors = work.rows("vectors", (len(places), job.network.dim), np.float32)
            shares = work.rows("shares", (len(places), _SHARES), np.float32)
            _embed(job, places, work, vectors, shares)
            done = _finish(job, places, vectors, shares)
    return done


def _embed(job: Job, places: ChipPlaces, work: Work, vectors: ArrayFile, shares: ArrayFile) -> None:
    if not work.done:
        check_scene(job, places)
    groups = places.groups(job.config.batch)
    blocks = _blocks(groups)
    todo = [group for block in blocks[work.done :] for group in block]

    def read(reader: GroundReader, group: range) -> GroundPixels:
        return read_checked(reader, job, *_hull(places, group))

    with Readers(job.ground, job.config.readers) as readers:
        found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        ahead = readers.ahead(todo, read)
        for group, pixels in track(ahead, f"embedding {job.ground.scene.name}", len(todo)):
            found.append(_vectors(job, places, group, pixels))
            block = blocks[work.done]
            if group == block[-1]:
                vectors.write(block[0].start, np.concatenate([part for part, _ in found]))
                shares.write(block[0].start, np.concatenate([part for _, part in found]))
                work.commit(work.done + 1)
                found = []


def _blocks(groups: list[range]) -> list[list[range]]:
    """Return groups by blocks of about so many chips."""
    ends = [0]
    count = 0
    for number, group in enumerate(groups, 1):
        count += len(group)
        if count >= _BLOCK or number == len(groups):
            ends.append(number)
            count = 0
    return [groups[a:b] for a, b in pairwise(ends)]


def _hull(places: ChipPlaces, group: range) -> tuple[int, int, int, int]:
    """Return the rectangle around the chips of a group: top, left, height, width."""
    tops, lefts = places.tops[group.start : group.stop], places.lefts[group.start : group.stop]
    top, left = int(tops.min()), int(lefts.min())
    return top, left, int(tops.max()) + places.side - top, int(lefts.max()) + places.side - left


def _vectors(
    job: Job, places: ChipPlaces, group: range, pixels: GroundPixels
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors (n, D) and shares (n, 3) of a group; a chip left out has zeros."""
    top, left, _, _ = _hull(places, group)
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


def _finish(job: Job, places: ChipPlaces, vectors: ArrayFile, shares: ArrayFile) -> ChipsDone:
    table = shares.read(0, len(places))
    kept = table[:, 2] > 0
    count = int(kept.sum())
    if not count:
        valid = float((table[:, 0] * (1 - table[:, 1])).mean())
        raise no_vectors(job, len(places), valid)
    codes, found, made = quantized(
        job.config.quantization, count, lambda: _kept(vectors, kept), job.made
    )
    made = replace(made, settings={**made.settings, "job": job.identity})
    parts = _parts(replace(job, made=made), places, vectors, table, codes)
    (file,) = job.files
    write_stac(job, made, job.files, codes)
    write_chips(file, parts)  # last: a job is complete when its table is there
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
    """Return the chips of a scene from its first pixel on, row by row."""
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
