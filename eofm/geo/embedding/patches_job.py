"""A vector for each patch of a scene, as a raster, blended where windows overlap.

Shapes: T patches at the side of a window, Y by X patches of the scene, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
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
from eofm.geo.embedding.windows import PatchLattice, PatchPasses, blending
from eofm.geo.embedding.work import ArrayFile, Interlaced, Work, as_planes, working
from eofm.geo.vectors.embeddings import PatchGrid, Quantization
from eofm.geo.vectors.files import PATCHES_ZARR
from eofm.geo.vectors.grid_file import write_tiff, write_zarr
from eofm.geo.vectors.quantize import quantized
from eofm.progress import track
from eofm.raster.cube import placed

_STRIP: Final = 16  # rows of patches that are in memory at a time


@dataclass(frozen=True)
class PatchesDone:
    """What a job of patches has made.

    Args:
        files: Where the vectors are.
        shape: Rows and columns of patches.
        vectors: How many patches have a vector.
        ground: Side of a patch on the ground in metres.
        step: From patch to patch, in metres.
        recall: recall@10 of int8 against float16; None where they are float16.
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
    """Windows of one row that are read and embedded together: numbers of pass, row and columns."""

    number: int
    row: int
    columns: range


def run_patches(job: Job, passes: PatchPasses) -> PatchesDone:
    """Embed the patches of a scene, or resume it, and write them.

    Raises:
        DataError: If nothing is measured, or the disk cannot be written to.
        PixelError: If pixels contradict what is stated of them.
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
            _embed(job, passes, work, parts)
            done = _finish(job, passes, parts)
    return done


# ------------------------------------------------------------------------------- blending


class _Blend:
    """Adds up the windows of one row of windows after the other, and hands on what is finished.

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
        """Add a window: vectors (T, T, D) and where they are valid, its first column in patches."""
        part = slice(left, left + self._lattice.tokens)
        # a lattice of a scene smaller than a window ends before the window does
        here = self._sums[:, part].shape[1]
        self._sums[:, part] += self._weights[:, :here, None] * vectors[:, :here]
        self._total[:, part] += self._weights[:, :here]
        self._valid[:, part] |= valid[:, :here]

    def finished(self, rows: int) -> NDArray[np.float16]:
        """Return the first rows, (rows, X, D), and move on; NaN where there is no vector."""
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
        """What the next row of windows is added to, as one array (T, X, D + 2)."""
        extra = np.stack([self._total, self._valid.astype(np.float32)], axis=-1)
        return np.concatenate([self._sums, extra], axis=-1)

    @carried.setter
    def carried(self, value: NDArray[np.float32]) -> None:
        """Resume from what `carried` returned."""
        self._sums, self._total = value[..., :-2].copy(), value[..., -2].copy()
        self._valid = value[..., -1] > 0


def _embed(job: Job, passes: PatchPasses, work: Work, parts: list[ArrayFile]) -> None:
    lattices, dim = [one.lattice for one in passes.passes], job.network.dim
    if not work.done:
        check_scene(job, lattices[0].windows)
    groups = _groups(lattices, job.config.batch, work.done)
    blend = _Blend(lattices[0], dim)

    def read(reader: GroundReader, group: _Group) -> GroundPixels:
        return read_checked(reader, job, *_hull(lattices[group.number], group))

    def carry(number: int, done: int) -> ArrayFile:
        # two files in turn: that of the last block is whole while the next one is written
        shape = (lattices[number].tokens, lattices[number].columns, dim + 2)
        return work.rows(f"carry{done % 2}", shape, np.float32)

    with Readers(job.ground, job.config.readers) as readers:
        ahead = readers.ahead(groups, read)
        progress = track(ahead, f"embedding {job.ground.scene.name}", len(groups))
        for count, (group, pixels) in enumerate(progress):
            lattice = lattices[group.number]
            if group.row == group.columns.start == 0:
                blend = _Blend(lattice, dim)
            elif not count:  # a pass that was begun before
                blend = _Blend(lattice, dim)
                blend.carried = carry(group.number, work.done).read(0, lattice.tokens)
            for left, found, valid in _windows(job, lattice, group, pixels):
                blend.add(left, found, valid)
            if group.columns.stop == len(lattice.windows.lefts):
                start, stop = _finished(lattice, group.row)
                parts[group.number].write(start, blend.finished(stop - start))
                carry(group.number, work.done + 1).write(0, blend.carried)
                work.commit(work.done + 1)


def _groups(lattices: list[PatchLattice], batch: int, done: int) -> list[_Group]:
    """Return what is read and embedded together, after so many rows of windows."""
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


def _hull(lattice: PatchLattice, group: _Group) -> tuple[int, int, int, int]:
    """Return the rectangle around the windows of a group: top, left, height, width."""
    windows = lattice.windows
    left, last = windows.lefts[group.columns[0]], windows.lefts[group.columns[-1]]
    return windows.tops[group.row], left, windows.side, last + windows.side - left


def _finished(lattice: PatchLattice, row: int) -> tuple[int, int]:
    """Return the rows of patches that no later row of windows adds to: from, and before."""
    tops = [top // lattice.patch for top in lattice.windows.tops]
    stop = tops[row + 1] if row + 1 < len(tops) else lattice.rows
    return tops[row], stop


def _windows(
    job: Job, lattice: PatchLattice, group: _Group, pixels: GroundPixels
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield first column in patches, vectors (T, T, D) and validity (T, T) of windows with any."""
    windows, side = lattice.windows, lattice.windows.side
    first = windows.lefts[group.columns[0]]
    kept, values, masks, shares = [], [], [], []
    for column in group.columns:
        left = windows.lefts[column]
        cut = slice(left - first, left - first + side)
        mask = pixels.valid[:, cut]
        share = torch.nn.functional.avg_pool2d(mask[None].float(), lattice.patch)[0]
        valid = (share >= job.config.min_valid).numpy()
        if valid.any():
            kept.append(left // lattice.patch)
            values.append(pixels.values[:, :, cut])
            masks.append(mask)
            shares.append(valid)
    if kept:
        found = job.network.patches(job.batch(values, masks, side))
        yield from zip(kept, found, shares, strict=True)


# ------------------------------------------------------------------------------ the files


def _finish(job: Job, passes: PatchPasses, parts: list[ArrayFile]) -> PatchesDone:
    shape = (passes.rows, passes.columns, job.network.dim)
    placed_parts = [(p.row, p.column, a) for p, a in zip(passes.passes, parts, strict=True)]
    vectors = Interlaced(shape, passes.turns, tuple(placed_parts))
    valid = np.concatenate([~np.isnan(part[..., 0]) for part in _strips(vectors)])
    count = int(valid.sum())
    if not count:
        raise no_vectors(job, passes.windows, 0.0)
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
    for file in job.files:  # last: a job is complete when they are there
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
