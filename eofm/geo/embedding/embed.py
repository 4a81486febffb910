"""`eofm embed`: from scenes to vectors on disk; and the same for a notebook, in memory.

Each scene is a job of its own. What it takes is read by threads ahead of the network, window by
window; what is finished is on the disk, so that a killed run resumes where it was and ends with the
same bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
import torch

from eofm.contract.imagery import Imagery
from eofm.errors import ConfigError, DataError, EofmError, SpecError
from eofm.extras import dask_client
from eofm.geo.embedding.chips_job import ChipsDone, run_chips
from eofm.geo.embedding.config import SIDE, EmbedConfig
from eofm.geo.embedding.job import Job, writable
from eofm.geo.embedding.jobs import Explanation, explain_job, jobs_of, places_of
from eofm.geo.embedding.network import encoder_of
from eofm.geo.embedding.patches_job import PatchesDone, run_patches
from eofm.geo.results import CONFIG, write_settings
from eofm.geo.vectors.embeddings import ChipTable, PatchGrid
from eofm.geo.vectors.files import open_chips, open_embeddings, open_patches
from eofm.progress import track
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.opening import Source, open_scene, open_scenes
from eofm.raster.scene import Scene
from eofm.raster.where import Area, cut_out
from eofm.weights.encoder import Encoder
from eofm.workers import end_with_parent

_GDAL_CACHE: Final = 256  # MB; GDAL's own default grows with the machine
_LIST: Final = ".txt"


@dataclass(frozen=True)
class EmbedOutcome:
    """What was embedded.

    Args:
        done: What was made of each scene; a text where it was there already.
        failed: Scene -> why it could not be embedded, where there were several.
    """

    done: tuple[ChipsDone | PatchesDone | str, ...]
    failed: Mapping[str, str]

    @property
    def status(self) -> int:
        """Exit status: 1 if a scene failed."""
        return int(bool(self.failed))

    def describe(self) -> str:
        """Return one line for each file, and each scene that failed."""
        lines = [done if isinstance(done, str) else done.describe() for done in self.done]
        return "\n".join([*lines, *(f"{name}: {why}" for name, why in self.failed.items())])


# ------------------------------------------------------------------------------- the verb


def embed(config: EmbedConfig) -> EmbedOutcome | Explanation:
    """Embed scenes and write the vectors, or say what that would take.

    Args:
        config: The settings.

    Raises:
        EofmError: If a scene cannot be opened, the network does not fit it, or (of a single scene)
            it cannot be embedded. Of several, those that can be are.
    """
    scenes = _scenes(config)
    out = Path(config.out)
    if config.explain:
        parts = []
        for scene in scenes:
            encoder = encoder_of(config, scene.spec)
            parts += [
                explain_job(job, *places_of(job)) for job in jobs_of(config, scene, encoder, out)
            ]
        return Explanation(tuple(parts))
    if len(scenes) == 1 and config.dask is None:
        return EmbedOutcome(_embed_one(_on_device(config), scenes[0], out), {})
    _keep(config, out)
    return _embed_many(config, scenes, out)


def _keep(config: EmbedConfig, out: Path) -> None:
    """Write the settings beside what they make."""
    with writable(out):
        write_settings(config, out / CONFIG)


def _scenes(config: EmbedConfig) -> list[Scene]:
    words: list[str] = []
    for word in config.scenes:
        words += _listed(Path(word)) if word.endswith(_LIST) else [word]
    scenes = [
        scene
        for word in words
        for scene in open_scenes(word, sensor=config.sensor, unit=config.unit, bands=config.bands)
    ]
    names = [scene.name for scene in scenes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "two scenes have one name, and would be written into one folder",
            found=", ".join(twice[:5]),
            remedy="embed them one by one, each with a folder of its own: --out",
        )
    return scenes


def _listed(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the list of scenes cannot be read", found=error, where=file) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _embed_many(config: EmbedConfig, scenes: Sequence[Scene], out: Path) -> EmbedOutcome:
    done: list[ChipsDone | PatchesDone | str] = []
    failed: dict[str, str] = {}
    folders = [out / scene.name.replace("/", "_") for scene in scenes]
    for scene, result in zip(scenes, _results(config, scenes, folders), strict=True):
        if isinstance(result, str):
            failed[scene.name] = result
        else:
            done += result
    return EmbedOutcome(tuple(done), failed)


def _results(
    config: EmbedConfig, scenes: Sequence[Scene], folders: Sequence[Path]
) -> Iterator[tuple[ChipsDone | PatchesDone | str, ...] | str]:
    """Yield what becomes of each scene, in order: see `_attempt`."""
    if config.dask is not None:
        yield from _on_dask(config, config.dask, scenes, folders)
        return
    count = len(config.devices) if config.devices else config.workers
    if count == 1:
        yield from (_attempt(config, *job) for job in zip(scenes, folders, strict=True))
        return
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for device in config.devices or [config.device] * count:
        devices.put(device)
    pool = ProcessPoolExecutor(
        min(count, len(scenes)),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(max(1, (os.cpu_count() or 1) // count), devices),
    )
    try:
        futures = [pool.submit(_attempt, config, *job) for job in zip(scenes, folders, strict=True)]
        # workers are silent: how far they are is said here, by scenes
        yield from track((future.result() for future in futures), "scenes", len(scenes))
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed",
            found="perhaps the machine is out of memory",
            remedy="run again with fewer --workers: what is finished stays",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _on_dask(
    config: EmbedConfig, scheduler: str, scenes: Sequence[Scene], folders: Sequence[Path]
) -> Iterator[tuple[ChipsDone | PatchesDone | str, ...] | str]:
    with dask_client(scheduler) as client:
        futures = [
            client.submit(_attempt, config, *job, pure=False)
            for job in zip(scenes, folders, strict=True)
        ]
        yield from track((future.result() for future in futures), "scenes", len(scenes))


_OWN: Final[dict[str, str]] = {}  # of a worker process: its device


def _begin_worker(threads: int, devices: SimpleQueue[str]) -> None:
    """Let processes share the cores, not each take all of them; each has a device of its own."""
    end_with_parent()
    torch.set_num_threads(threads)
    _OWN["device"] = devices.get()


def _on_device(config: EmbedConfig) -> EmbedConfig:
    """Return the settings of one scene: it has one device, and is divided no further."""
    device = _OWN.get("device", (config.devices or [config.device])[0])
    return replace(config, device=device, devices=None, workers=1, dask=None)


def _attempt(
    config: EmbedConfig, scene: Scene, out: Path
) -> tuple[ChipsDone | PatchesDone | str, ...] | str:
    """Embed one scene of several; return why it failed, if it did."""
    try:
        return _embed_one(_on_device(config), scene, out)
    except EofmError as error:
        return str(error)


def _embed_one(
    config: EmbedConfig, scene: Scene, out: Path
) -> tuple[ChipsDone | PatchesDone | str, ...]:
    jobs = jobs_of(config, scene, encoder_of(config, scene.spec), out)
    complete = [_is_complete(job) for job in jobs]  # before settings of another are replaced
    if out == Path(config.out):  # of several scenes, the folder above has the settings
        _keep(config, out)
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
        return tuple(
            _tidied(job) if ended else _run(job) for job, ended in zip(jobs, complete, strict=True)
        )


def _tidied(job: Job) -> str:
    """Say that a job is complete; it may have been killed while it tidied up."""
    if job.work.exists():
        shutil.rmtree(job.work)
    return f"{', '.join(map(str, job.files))}: complete already"


def _run(job: Job) -> ChipsDone | PatchesDone:
    places, passes = places_of(job)
    if passes is not None:
        return run_patches(job, passes)
    assert places is not None  # noqa: S101 (a job is one or the other)
    return run_chips(job, places)


def _is_complete(job: Job) -> bool:
    """Return whether all files of a job are there; refuse those of another job."""
    files = [file for file in job.files if file.exists()]
    for file in files:
        found = open_embeddings(file).provenance.settings.get("job", "")
        if found != job.identity:
            raise ConfigError(
                "the folder holds embeddings of another job",
                found="other scenes, weights or settings",
                where=file,
                remedy="name another folder with --out, or remove the file",
            )
    return 0 < len(files) == len(job.files)


# ------------------------------------------------------------------------------ notebooks


def embed_chips(
    source: Source | Scene | Imagery,
    model: Encoder | str | Path,
    *,
    chips: int = SIDE,
    stride: int | None = None,
    where: Area | None = None,
    cloud_mask: CloudMask | str | None = None,
    min_valid: float = 0.5,
    batch: int = 8,
) -> ChipTable:
    """Return a vector for each chip of a scene, in memory.

    Args:
        source: What `open_scene` opens, a scene it has opened, or imagery of one image.
        model: An encoder, or the words for its weights.
        chips: Side of a chip in pixels.
        stride: Step from chip to chip; without it, the side of a chip.
        where: The part of the scene: see `Scene.read`.
        cloud_mask: The mask that hides clouds.
        min_valid: Share of a chip that must be measured and free of clouds.
        batch: Chips that the network sees at once.

    Raises:
        EofmError: If the scene cannot be read, or does not fit the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = EmbedConfig(
            ["-"], str(model), folder, chips=chips, stride=stride, min_valid=min_valid, batch=batch,
            quantization="none",
        )  # fmt: skip
        _in_memory(config, source, model, where, cloud_mask)
        found = open_chips(folder)
        return replace(found, stored=np.array(found.stored))


def embed_patches(
    source: Source | Scene | Imagery,
    model: Encoder | str | Path,
    *,
    window: int | None = None,
    overlap: int | None = None,
    stride: int | None = None,
    where: Area | None = None,
    cloud_mask: CloudMask | str | None = None,
    min_valid: float = 0.5,
    batch: int = 8,
) -> PatchGrid:
    """Return a vector for each patch of a scene as a raster, in memory.

    Args:
        source: What `open_scene` opens, a scene it has opened, or imagery of one image.
        model: An encoder, or the words for its weights.
        window: Side of the windows in pixels; without it, that of the network's input.
        overlap: How many patches neighbouring windows share and blend; without it, a quarter.
        stride: Step from patch to patch in pixels, by which their side can be divided; finer than a
            patch by shifted passes.
        where: The part of the scene: see `Scene.read`.
        cloud_mask: The mask that hides clouds.
        min_valid: Share of a patch that must be measured and free of clouds.
        batch: Windows that the network sees at once.

    Raises:
        EofmError: If the scene cannot be read, or does not fit the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = EmbedConfig(
            ["-"], str(model), folder, patches=True, window=window, overlap=overlap,
            stride=stride, min_valid=min_valid, batch=batch, quantization="none", formats=["tif"],
        )  # fmt: skip
        _in_memory(config, source, model, where, cloud_mask)
        found = open_patches(folder)
        return replace(found, stored=found.stored.load())


def _in_memory(
    config: EmbedConfig,
    source: Source | Scene | Imagery,
    model: Encoder | str | Path,
    where: Area | None,
    cloud_mask: CloudMask | str | None,
) -> None:
    scene = source if isinstance(source, Scene) else _opened(source)
    encoder = model if isinstance(model, Encoder) else encoder_of(config, scene.spec)
    for job in jobs_of(config, scene, encoder, Path(config.out)):
        ground = job.ground
        if where is not None:
            cut = cut_out(ground.scene.grid, ground.scene.step, where)
            ground = replace(ground, window=cut.window, inside=cut.inside)
        if cloud_mask is not None:
            ground = replace(ground, clouds=CloudMask.parse(cloud_mask))
        _run(replace(job, ground=ground))


def _opened(source: Source | Imagery) -> Scene:
    """Open what says itself what it is; of anything else, say how it is opened."""
    try:
        return open_scene(source.to_xarray() if isinstance(source, Imagery) else source)
    except SpecError as error:
        error.remedy = "open it first, and embed the scene: "
        error.remedy += 'eofm.open_scene(source, sensor="s2-l2a", unit="dn")'
        raise
