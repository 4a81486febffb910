"""A job: the part of a scene to read, the network, and the progress stored on disk.

An encoder has one plan, on its device. A killed run loses less than one block: a folder contains
plain arrays, written in place by rows, and `state.json`, which identifies the job and counts the
blocks that are completely on disk. The state is replaced after the rows of a block were synced;
rows of an incomplete block are written again.

Shapes: B windows, C bands, H by W pixels, T patches per side of a window, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import DTypeLike, NDArray
from torch import Tensor
from xarray.backends.common import BackendArray
from xarray.core import indexing

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.preprocess import ConvertUnit, Plan, SelectBands, plan
from eofm.contract.recipe import (
    FORCEABLE,
    FORCED_WHY,
    AcceptScale,
    Waiver,
    default_recipe,
    waivers_for,
)
from eofm.contract.spec import ImageSpec
from eofm.contract.validity import check_plausible, check_sentinels
from eofm.environment import device_of
from eofm.errors import (
    ConfigError,
    DataError,
    EofmError,
    MismatchKind,
    PixelError,
    SpecMismatch,
    WeightsError,
)
from eofm.formats.foreign import advice, foreign, opened, sealed
from eofm.formats.text import read_json
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.windows import GroundPixels, GroundReader, SceneGround
from eofm.geo.embedding_files import CHIPS, PATCHES_TIFF, PATCHES_ZARR
from eofm.geo.embeddings import Codes, Layout, Provenance
from eofm.io import BINARY, locked, replacing, write_all
from eofm.networks.build import default_pooling
from eofm.networks.state import state_sha256
from eofm.raster.grid import crs_text
from eofm.raster.source import RasterSource
from eofm.weights.encoder import Encoder
from eofm.weights.load import load_weights
from eofm.weights.resolve import RANDOM, WeightsKind, resolve

__all__ = [
    "ArrayFile",
    "Interlaced",
    "Job",
    "Network",
    "Windows",
    "Work",
    "as_planes",
    "check_disk",
    "check_scene",
    "disk_bytes",
    "encoder_of",
    "no_vectors",
    "read_checked",
    "spread",
    "waivers_of",
    "working",
    "writable",
]

# -------------------------------------------------------------------------------------- the network

_SIZE: Final = 224  # of networks whose weights state none


def encoder_of(config: EmbedConfig, spec: ImageSpec) -> Encoder:
    """Return the encoder that the settings name, on its device.

    Weights without a recipe (untrained ones, those of timm) get the default of the benchmark: all
    bands of the scene, z-scored by published statistics.

    Args:
        config: The settings.
        spec: Description of the pixels.

    Raises:
        WeightsError: If there are no such weights, or they do not match.
        ConfigError: If the device is not available.
    """
    device = device_of(config.device)
    found = resolve(config.model)
    recipe = None
    if found.kind in {WeightsKind.TIMM, WeightsKind.RANDOM}:
        name = found.name or "vits14"
        if found.text == RANDOM:
            name = "vits14"
        size = config.size or _SIZE
        recipe = default_recipe(spec, (size, size), default_pooling(name))
    elif config.size is not None:
        raise ConfigError(
            "these weights state the size of their input themselves",
            found=f"--size {config.size}",
            where=config.model,
            remedy="leave out --size",
        )
    return load_weights(config.model, recipe=recipe).to(device)


def waivers_of(spec: ImageSpec, encoder: Encoder, force: Sequence[str]) -> tuple[Waiver, ...]:
    """Return the waivers that a plan needs, among those that are forced.

    Args:
        spec: Description of the windows.
        encoder: The network.
        force: Words of `--force`.
    """
    forced = [kind for kind in FORCEABLE if kind.value in force]
    waivers = waivers_for(spec, encoder.recipe, (), forced)
    if MismatchKind.SCALE.value in force:
        try:
            plan(spec, encoder.recipe, waivers)
        except SpecMismatch as error:
            if error.kind is MismatchKind.SCALE:
                return (*waivers, AcceptScale(FORCED_WHY))
    return waivers


class Network:
    """An encoder with its plan for windows of one kind.

    Attributes:
        plan: From pixels to the network's input.

    Args:
        encoder: The network, on its device.
        spec: Description of the windows.
        waivers: Waivers granted.

    Raises:
        SpecMismatch: If the windows do not match the network.
    """

    def __init__(self, encoder: Encoder, spec: ImageSpec, waivers: Sequence[Waiver] = ()) -> None:
        self.encoder = encoder.eval()
        self._step = preprocess_for(spec, encoder.recipe, waivers)
        self._weight = next(encoder.trunk.parameters())
        self.plan: Plan = self._step.plan
        self.sha256 = encoder.card.sha256 or state_sha256(encoder)

    @property
    def dim(self) -> int:
        """D."""
        return self.encoder.dim

    @property
    def device(self) -> torch.device:
        """Device of the encoder."""
        return self._weight.device

    def _prepared(self, imagery: Imagery) -> torch.Tensor:
        prepared: Imagery = self._step(imagery.to(self._weight.device, non_blocking=True))
        return prepared.pixels.to(self._weight.dtype)

    @torch.inference_mode()
    def chips(self, imagery: Imagery) -> NDArray[np.float32]:
        """Return one vector for each window, (B, D).

        Raises:
            PixelError: If a window has no valid pixel, or a vector is not finite.
        """
        return self._finite(self.encoder(self._prepared(imagery)))

    @torch.inference_mode()
    def patches(self, imagery: Imagery) -> NDArray[np.float32]:
        """Return one vector for each patch, (B, T, T, D).

        Raises:
            PixelError: If a window has no valid pixel, or a vector is not finite.
        """
        tokens = self.encoder.forward_features(self._prepared(imagery))
        vectors = self._finite(tokens[:, self.encoder.trunk.prefix :])
        side = math.isqrt(vectors.shape[1])
        return vectors.reshape(len(vectors), side, side, -1)

    def _finite(self, vectors: torch.Tensor) -> NDArray[np.float32]:
        if not bool(torch.isfinite(vectors).all()):
            raise PixelError(
                "the network returned vectors that are not finite", where=self.encoder.card.name
            )
        found: NDArray[np.float32] = vectors.float().cpu().numpy()
        return found

    @property
    def tokens(self) -> int:
        """Patches per side of a window, T.

        Raises:
            WeightsError: If the network has no square grid of patches.
        """
        rows, columns = self.encoder.trunk.grid
        size = self.plan.target.size
        if rows != columns or size != self.encoder.recipe.size:
            raise WeightsError(
                "a patch grid needs a square network",
                found=f"{rows} x {columns} patches",
                where=self.encoder.card.name,
            )
        return rows

    def way(self, layout: Layout) -> str:
        """Return the hash of all that makes vectors comparable: see `Provenance.way_hash`."""
        steps = [
            [type(step).__name__, asdict(step)]
            for step in self.plan.steps
            if not isinstance(step, (ConvertUnit, SelectBands))
        ]
        target = asdict(self.plan.target)
        # on a grid in degrees the pixel size in metres varies with latitude, in the third digit
        target["gsd"] = f"{self.plan.target.gsd:.2g}"
        content = {
            "weights": self.sha256,
            "target": target,
            "steps": steps,
            "waivers": [[type(w).__name__, asdict(w)] for w in self.plan.waivers],
            "token": "patch" if layout is Layout.PATCHES else self.encoder.recipe.pooling,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------ blocks of a half-finished job on disk

_STATE: Final = "state.json"
_LOCK: Final = "lock"
_NO_STATE: Final = "the state of a half-finished job cannot be read"


@dataclass(frozen=True)
class ArrayFile:
    """An array in its own file, read and written by rows; unwritten rows are 0.

    Args:
        file: Its numbers, in C order.
        shape: Shape of the array; the first axis counts rows.
        dtype: Type of its numbers.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Write rows starting at `start`, and sync them to disk."""
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT | BINARY, 0o644)
        try:
            os.lseek(handle, start * self._row_bytes, os.SEEK_SET)
            write_all(
                handle, np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
            )
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows from `start` up to, but not including, `stop`."""
        count = (stop - start) * self._row_bytes
        with self.file.open("rb") as file:
            file.seek(start * self._row_bytes)
            data = bytearray(file.read(count))
        data += bytes(count - len(data))
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])


@dataclass(frozen=True)
class Interlaced:
    """Interleaved arrays: each has every n-th row and column of the whole.

    Args:
        shape: Shape of the whole; the first axes count rows and columns.
        turns: n.
        parts: First row, first column and array of each.
    """

    shape: tuple[int, ...]
    turns: int
    parts: tuple[tuple[int, int, ArrayFile], ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers."""
        return self.parts[0][2].dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows from `start` up to, but not including, `stop`."""
        found = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        for row, column, part in self.parts:
            first, last = (max(0, -(-(end - row) // self.turns)) for end in (start, stop))
            if first < last:
                above = row + first * self.turns - start
                found[above :: self.turns, column :: self.turns] = part.read(first, last)
        return found


class Work:
    """Progress of a job, which may have been started before.

    Attributes:
        done: Number of finished blocks.

    Args:
        folder: Folder of the progress; created if needed.
        job: Identity of the job: a folder of any other job is an error.

    Raises:
        ConfigError: If another job is half finished here.
        DataError: If the state cannot be read.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self.folder, self._job, self.done = folder, job, 0
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / _STATE
        if not state.exists():
            self.commit(0)
            return
        remedy = f"remove the folder and begin again: rm -r {folder}"
        with foreign(DataError, _NO_STATE, where=state, remedy=remedy):
            found, whole = opened(read_json(state, DataError, _NO_STATE, remedy=remedy))
            other, self.done = found["job"] != job, found["done"]
            if not whole:
                raise ValueError("its checksum does not match its contents")
            if type(self.done) is not int or self.done < 0:
                raise ValueError(f"{self.done!r} blocks")
        if other:
            raise ConfigError(
                "another job is half finished in this folder",
                found="other scenes, weights or settings",
                where=folder,
                remedy=f"name another folder with --out, or remove it: rm -r {folder}",
            )

    def rows(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> ArrayFile:
        """Return one of the job's arrays."""
        return ArrayFile(self.folder / name, shape, np.dtype(dtype))

    def commit(self, done: int) -> None:
        """Record that this number of blocks is on disk."""
        with replacing(self.folder / _STATE) as temporary:
            temporary.write_text(json.dumps(sealed({"job": self._job, "done": done})))
        self.done = done

    def remove(self) -> None:
        """Remove the folder after the job is complete."""
        shutil.rmtree(self.folder)


@contextmanager
def working(folder: Path, job: str) -> Iterator[Work]:
    """Work on a job; if it fails before its first block is finished, remove its folder.

    So a user who corrects the unit after an error does not get the error of a half-finished job.
    Two processes writing the same rows would mix the state of one with the rows of the other.

    Args:
        folder: See `Work`.
        job: See `Work`.

    Raises:
        ConfigError: See `Work`; or another process works on a job in the folder.
        DataError: See `Work`.
    """
    with _alone(folder):
        work = Work(folder, job)
        try:
            yield work
        except EofmError:
            if not work.done:
                work.remove()
            raise
        work.remove()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a file in a folder while the body runs; the folder is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / _LOCK) as alone:
        if not alone:
            raise ConfigError(
                "another process embeds into this folder",
                where=folder.parent,
                remedy="wait until it has finished, or name another folder with --out",
            )
        yield


class _Planes(BackendArray):
    """Rows of patches (Y, X, D) as an array (D, Y, X) that is read lazily."""

    def __init__(self, rows: ArrayFile | Interlaced, codes: Codes | None) -> None:
        height, width, dim = rows.shape
        self._rows, self._codes = rows, codes
        self.shape = (dim, height, width)
        self.dtype = rows.dtype if codes is None else np.dtype(np.int8)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401 (as xarray has it)
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        dims, rows, columns = key
        single = isinstance(rows, int)
        wanted = [rows] if isinstance(rows, int) else list(range(self.shape[1])[rows])
        first = min(wanted, default=0)
        part = self._rows.read(first, max(wanted, default=-1) + 1)
        if self._codes is not None:
            part = self._codes.encode(part.astype(np.float32))
        planes = np.moveaxis(part[[row - first for row in wanted]], -1, 0)
        return np.asarray(planes[:, 0 if single else slice(None)][dims][..., columns])


def as_planes(rows: ArrayFile | Interlaced, codes: Codes | None = None) -> xr.DataArray:
    """Return rows of patches (Y, X, D) as an array (dim, y, x) that stays on disk.

    Args:
        rows: float16 or float32.
        codes: Encodes the values as int8; None leaves them unchanged.
    """
    lazy = indexing.LazilyIndexedArray(_Planes(rows, codes))
    return xr.DataArray(xr.Variable(("dim", "y", "x"), lazy), name="embedding")


# ------------------------------------------------------------------- what the jobs of a scene share

_GRIDS: Final = {"tif": PATCHES_TIFF, "zarr": PATCHES_ZARR}
_LOOKED_AT: Final = 16  # windows of a scene that are checked before it is embedded


class Windows(Protocol):
    """Numbered square windows of a scene."""

    @property
    def side(self) -> int:
        """Side of a window in pixels."""

    def __len__(self) -> int: ...

    def corner(self, number: int) -> tuple[int, int]:
        """Return first row and column of a window."""


@dataclass(frozen=True)
class Job:
    """One layout of one scene.

    Args:
        ground: Part of the scene to read.
        network: Network that computes the vectors.
        config: The settings.
        made: Provenance of the vectors, without the quantisation.
        layout: Layout of the vectors.
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
        """Folder of unfinished work."""
        return self.out / f".{self.layout}.work"

    @property
    def files(self) -> tuple[Path, ...]:
        """Final files of the vectors; a job is complete when all of them exist."""
        if self.layout is Layout.CHIPS:
            return (self.out / CHIPS,)
        return tuple(self.out / _GRIDS[kind] for kind in self.config.formats)

    @property
    def identity(self) -> str:
        """Hash of everything that determines the result, including the order of summation."""
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
    """Return a rectangle; raise an error for values that no sensor measures: `check_sentinels`.

    Every pixel is checked. Properties of the whole scene (its unit, the order of its bands) were
    checked by `check_scene`: a single window of clouds would give a wrong answer.

    Args:
        reader: Reader of the job's ground.
        job: The job.
        top: First row of the rectangle.
        left: First column.
        height: Rows.
        width: Columns.

    Raises:
        PixelError: If it contains such a value, with its position.
        RasterError: If a file is damaged.
    """
    pixels = reader.read(top, left, height, width)
    if "pixels" in job.config.force:
        return pixels
    spec = replace(job.ground.spec(1), size=(height, width))
    native = NativeImagery({1: pixels.values[None]}, {1: spec.bands}, spec, pixels.valid[None])
    window = job.ground.window
    place = f"row {window.row + top}, column {window.col + left}, {height} x {width} pixels"
    with _forceable(job):
        check_sentinels(native, f"{job.ground.scene.name}, {place}")
    return pixels


def check_scene(job: Job, windows: Windows) -> None:
    """Raise an error for a scene whose pixels contradict its metadata: see `check_plausible`.

    Args:
        job: The job.
        windows: All of its windows; a sample, spread over the scene, is checked as one image.

    Raises:
        PixelError: If they do.
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
        return  # no valid pixel in the sample, which is not a contradiction
    spec = replace(job.ground.spec(1), size=(side, side * len(parts)))
    with _forceable(job):
        check_plausible(Imagery(values, spec, valid), [job.ground.scene.name])


@contextmanager
def _forceable(job: Job) -> Iterator[None]:
    """Add to errors about pixels how they can be overridden, and which file a remedy is about."""
    try:
        yield
    except PixelError as error:
        remedy, pixels = error.remedy or "check the scene", job.ground.scene.pixels
        if isinstance(pixels, RasterSource) and not pixels.names:
            remedy = pixels.with_file(remedy, error.band)
        error.remedy = f"{remedy}; or accept them: --force pixels"
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
    """Report where and why a disk cannot be written to.

    Raises:
        DataError: Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            "the embeddings cannot be written",
            found=error.strerror or error,
            where=folder,
            remedy=f"{advice(error, 'free some space')}, or name another folder with --out; what "
            "is finished is kept, and the same command resumes it",
        ) from error


def check_disk(job: Job, count: int) -> None:
    """Raise an error if the disk has too little space for the output.

    Args:
        job: The job.
        count: Number of vectors.

    Raises:
        DataError: If it has too little.
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

    Rows of patches are float16, but a GeoTIFF is first written uncompressed as float32.
    """
    return 2 * np.dtype(np.float32).itemsize * count * job.network.dim


def no_vectors(job: Job, windows: int, valid: float, best: float) -> DataError:
    """Return the error for a scene in which nothing can be embedded.

    Args:
        job: The job.
        windows: Number of windows examined.
        valid: Share of pixels that are valid and free of clouds.
        best: Highest share of a chip or patch.
    """
    # half of the best share, rounded down: so more than the best one passes
    less = math.floor(best * 500) / 1000
    return DataError(
        f"none of the {job.layout} is valid and free of clouds",
        found=f"{valid:.1%} of the pixels of {windows} windows, {best:.1%} of the best of the "
        f"{job.layout}",
        expected=f"{job.config.min_valid:.0%} of one of the {job.layout}",
        where=job.ground.scene.name,
        remedy="use another scene or area"
        + (f", or accept less: --min_valid {less:g}" if less > 0 else ""),
    )
