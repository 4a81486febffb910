"""What the jobs of a scene share: what is read, by which network, and what may stop it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.validity import check_plausible, check_sentinels
from eofm.errors import DataError, PixelError
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.ground import GroundPixels, GroundReader, SceneGround
from eofm.geo.embedding.network import Network
from eofm.geo.vectors.embeddings import Layout, Provenance
from eofm.geo.vectors.files import CHIPS, PATCHES_TIFF, PATCHES_ZARR
from eofm.raster.grid import crs_text

_GRIDS: Final = {"tif": PATCHES_TIFF, "zarr": PATCHES_ZARR}
_LOOKED_AT: Final = 16  # windows of a scene, before it is begun


class Windows(Protocol):
    """Square windows of a scene, numbered."""

    @property
    def side(self) -> int:
        """Of a window, in pixels."""

    def __len__(self) -> int: ...

    def corner(self, number: int) -> tuple[int, int]:
        """Return first row and column of a window."""


@dataclass(frozen=True)
class Job:
    """One layout of one scene.

    Args:
        ground: What is read.
        network: What makes vectors of it.
        config: The settings.
        made: How the vectors are made, but for the quantisation.
        layout: Of the vectors.
        out: Folder to write to.
    """

    ground: SceneGround
    network: Network
    config: EmbedConfig
    made: Provenance
    layout: Layout
    out: Path

    @property
    def work(self) -> Path:
        """Folder of what is half finished."""
        return self.out / f".{self.layout}.work"

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the vectors are in the end; a job is complete when all of them are there."""
        if self.layout is Layout.CHIPS:
            return (self.out / CHIPS,)
        return tuple(self.out / _GRIDS[kind] for kind in self.config.formats)

    @property
    def identity(self) -> str:
        """What decides the result, as a hash: also the order in which numbers are added."""
        ground = self.ground
        t, clouds = ground.grid.transform, ground.clouds
        content = {
            "made": replace(self.made, settings={}).to_json(),
            "settings": dict(self.made.settings),
            "crs": None if ground.grid.crs is None else crs_text(ground.grid.crs),
            "transform": [t.a, t.b, t.c, t.d, t.e, t.f],
            "window": vars(ground.window) | {"clouds": clouds},
            "inside": ""
            if ground.inside is None
            else hashlib.sha256(ground.inside.tobytes()).hexdigest(),
            "batch": self.config.batch,
            "min_valid": self.config.min_valid,
            "quantization": self.config.quantization,
            "device": self.network.device.type,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def batch(self, values: Sequence[Tensor], valid: Sequence[Tensor], side: int) -> Imagery:
        """Return windows as a batch."""
        spec = self.ground.spec(side)
        return Imagery(torch.stack(tuple(values)), spec, torch.stack(tuple(valid)))


def read_checked(
    reader: GroundReader, job: Job, top: int, left: int, height: int, width: int
) -> GroundPixels:
    """Return a rectangle; refuse one with a value that no measurement takes: see `check_sentinels`.

    Every pixel is looked at. What a scene as a whole tells (its unit, the order of its bands) has
    been asked by `check_scene`: a window of clouds alone would give a wrong answer.

    Args:
        reader: Of the job's ground.
        job: The job.
        top: First row of the rectangle.
        left: First column.
        height: Rows.
        width: Columns.

    Raises:
        PixelError: If it holds one, with the place.
        RasterError: If a file is damaged.
    """
    pixels = reader.read(top, left, height, width)
    if "pixels" in job.config.force:
        return pixels
    spec = replace(job.ground.spec(1), size=(height, width))
    native = NativeImagery({1: pixels.values[None]}, {1: spec.bands}, spec, pixels.valid[None])
    window = job.ground.window
    place = f"row {window.row + top}, column {window.col + left}, {height} x {width} pixels"
    with _forceable():
        check_sentinels(native, f"{job.ground.scene.name}, {place}")
    return pixels


def check_scene(job: Job, windows: Windows) -> None:
    """Refuse a scene whose pixels contradict what is stated of them: see `check_plausible`.

    Args:
        job: The job.
        windows: All of its windows; some, spread over the scene, are judged together, as one image.

    Raises:
        PixelError: If so.
        RasterError: If a file is damaged.
    """
    if "pixels" in job.config.force:
        return
    side = windows.side
    corners = [windows.corner(number) for number in spread(len(windows), _LOOKED_AT)]
    with GroundReader(job.ground) as reader:
        parts = [reader.read(*corner, side, side) for corner in corners]
    values = torch.cat([part.values for part in parts], dim=2)[None]
    valid = torch.cat([part.valid for part in parts], dim=1)[None]
    if not bool(valid.any()):
        return  # unmeasured where it was looked at, which is no contradiction
    spec = replace(job.ground.spec(1), size=(side, side * len(parts)))
    with _forceable():
        check_plausible(Imagery(values, spec, valid), [job.ground.scene.name])


@contextmanager
def _forceable() -> Iterator[None]:
    """Say of pixels that are refused how they can be taken nevertheless."""
    try:
        yield
    except PixelError as error:
        error.remedy = f"{error.remedy or 'look at the scene'}; or take them: --force pixels"
        raise


def spread(count: int, wanted: int) -> list[int]:
    """Return some numbers below `count`, evenly spread.

    >>> spread(100, 4), spread(2, 4)
    ([12, 37, 62, 87], [0, 1])
    """
    wanted = min(count, wanted)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say of a disk that cannot be written to where and why.

    Raises:
        DataError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            "the embeddings cannot be written",
            found=error.strerror or error,
            where=folder,
            remedy="free space on the disk, or name another folder with --out; what is finished is "
            "kept, and the same command resumes it",
        ) from error


def check_disk(job: Job, count: int) -> None:
    """Refuse to begin what the disk has no space for.

    Args:
        job: The job.
        count: Vectors.

    Raises:
        DataError: If it has not.
    """
    needed = disk_bytes(job, count)
    job.out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(job.out).free
    if needed > free:
        raise DataError(
            "the disk has no space for the embeddings",
            found=f"{free / 1e9:.3g} GB free",
            expected=f"{needed / 1e9:.3g} GB",
            where=job.out,
            remedy="name a folder on another disk with --out, or a part of the scene with --where",
        )


def disk_bytes(job: Job, count: int) -> int:
    """Return the bytes on disk that a job takes while it runs: its rows, and the finished file.

    Rows of patches are float16, but GeoTIFF has a plain form first, in float32.
    """
    return 2 * np.dtype(np.float32).itemsize * count * job.network.dim


def no_vectors(job: Job, windows: int, valid: float) -> DataError:
    """Return the error of a scene of which nothing can be embedded.

    Args:
        job: The job.
        windows: Number of windows that were looked at.
        valid: Share of the pixels that are measured and free of clouds.
    """
    return DataError(
        f"none of the {job.layout} is measured and free of clouds",
        found=f"{valid:.1%} of the pixels of {windows} windows",
        expected=f"{job.config.min_valid:.0%} of one of the {job.layout}",
        where=job.ground.scene.name,
        remedy="take another scene or area, or accept less: --min_valid 0.01",
    )
