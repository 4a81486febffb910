"""`eofm embed`: embed scenes to files; in a notebook, the same in memory.

Each scene is a separate job: an area of the scene, a network, and the settings of the vectors.
Threads read windows ahead of the network. Finished blocks are on disk, so that a killed run resumes
where it stopped and ends with identical bytes.

`--where` is numbers separated by commas, or a file of polygons. `--explain` prints what a job would
read and do, without running it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import torch

from eofm.contract.imagery import Imagery
from eofm.environment import dask_client, end_with_parent, geo_library
from eofm.errors import ConfigError, DataError, EofmError, SpecError
from eofm.formats.foreign import foreign
from eofm.geo.embedding.config import SIDE, EmbedConfig
from eofm.geo.embedding.job import (
    Job,
    Network,
    disk_bytes,
    encoder_of,
    read_checked,
    waivers_of,
    writable,
)
from eofm.geo.embedding.outputs import (
    ChipPlaces,
    ChipsDone,
    MajorTom,
    PatchesDone,
    cell_places,
    run_chips,
    run_patches,
    scene_places,
)
from eofm.geo.embedding.windows import GroundReader, PatchPasses, SceneGround, patch_passes
from eofm.geo.embedding_files import open_chips, open_embeddings, open_patches
from eofm.geo.embeddings import (
    QUANTIZE_FROM,
    ChipTable,
    Layout,
    PatchGrid,
    Provenance,
    SceneRecord,
    wants_codes,
)
from eofm.geo.results import CONFIG, check_folder, write_settings
from eofm.landcover.polygons import read_vectors
from eofm.raster.cube_file import CubeFile
from eofm.raster.grid import Window, crs_text
from eofm.raster.ground import LONGITUDE_LATITUDE, Area, cut_out
from eofm.raster.opening import Source, open_scene, open_scenes
from eofm.raster.scene import Scene
from eofm.raster.tags import CloudMask
from eofm.terminal import notice, track
from eofm.weights.download import hash_file
from eofm.weights.encoder import Encoder

__all__ = [
    "EmbedOutcome",
    "Explanation",
    "embed",
    "embed_chips",
    "embed_patches",
    "explain_job",
    "jobs_of",
    "places_of",
    "read_area",
    "sha256_of",
]

# ---------------------------------------------------------------------------- from settings to jobs


def jobs_of(config: EmbedConfig, scene: Scene, encoder: Encoder, out: Path) -> list[Job]:
    """Return the jobs of a scene: chips, patches, or both.

    Args:
        config: The settings.
        scene: The scene.
        encoder: The network, on its device.
        out: Folder to write to.

    Raises:
        RasterError: If the scene has no georeference, or the area is outside of it.
        SpecMismatch: If the scene does not match the network.
        ConfigError: If the settings do not match the network.
    """
    scene.grid.require_crs()
    needed = [band for band in encoder.recipe.bands if band in scene.bands]
    chosen = scene.select(needed) if needed and tuple(needed) != scene.bands else scene
    ground = _ground(config, chosen)
    record = SceneRecord(scene.name, sha256_of(scene), scene.date)
    jobs = []
    if config.chips is not None:
        jobs.append(_job(config, ground, encoder, out, record, Layout.CHIPS, config.chips))
    if config.patches:
        side = config.window or encoder.recipe.size[0]
        jobs.append(_job(config, ground, encoder, out, record, Layout.PATCHES, side))
    return jobs


def _job(
    config: EmbedConfig,
    ground: SceneGround,
    encoder: Encoder,
    out: Path,
    record: SceneRecord,
    layout: Layout,
    side: int,
) -> Job:
    spec = ground.spec(side)
    network = Network(encoder, spec, waivers_of(spec, encoder, config.force))
    settings: dict[str, Any] = {"layout": layout.value, "window": side, "gsd": spec.gsd}
    if layout is Layout.CHIPS:
        named = {"grid": MajorTom(side * spec.gsd).name}
        plain = {"stride": config.stride or side, "grid": config.grid}
        settings |= plain if config.grid == "scene" else named
    else:
        tokens = network.tokens
        if side % tokens:
            raise ConfigError(
                "a patch must cover whole pixels of the scene, so that its position is exact",
                found=f"windows of {side} pixels for {tokens} x {tokens} patches",
                expected=f"a multiple of {tokens}",
                where="--window",
                remedy=f"--window {max(1, round(side / tokens)) * tokens}",
            )
        overlap = tokens // 4 if config.overlap is None else config.overlap
        if overlap > tokens // 2:
            raise ConfigError(
                "more than half of a window cannot be shared with its neighbour",
                found=f"--overlap {overlap}",
                expected=f"0 to {tokens // 2} patches",
                where="--overlap",
                remedy=f"--overlap {tokens // 2}",
            )
        patch = side // tokens
        settings |= {"patch": patch, "overlap": overlap}
        if config.stride is not None:
            settings |= _finer(config.stride, patch)
    settings["patch_metres"] = spec.gsd * settings.get("patch", side)
    if encoder.card.url:
        settings["source"] = encoder.card.url
    made = Provenance(
        encoder.card.name,
        network.sha256,
        network.plan.hash,
        network.way(layout),
        str(spec.sensor),
        str(spec.unit),
        (record,),
        config.licence,
        settings=settings,
    )
    return Job(ground, network, config, made, layout, out)


def _finer(stride: int, patch: int) -> dict[str, int]:
    """Return what a stride adds to the settings: nothing if it equals the side of a patch.

    Raises:
        ConfigError: If the stride does not divide the side of a patch.
    """
    if patch % stride:
        fits = [step for step in range(1, patch + 1) if patch % step == 0]
        raise ConfigError(
            "shifted passes need a stride by which the side of a patch can be divided",
            found=f"--stride {stride} for patches of {patch} pixels",
            expected=", ".join(map(str, fits)),
            where="--stride",
            remedy=f"--stride {min(fits, key=lambda step: abs(step - stride))}",
        )
    return {} if stride == patch else {"stride": stride}


def places_of(job: Job) -> tuple[ChipPlaces | None, PatchPasses | None]:
    """Return the places of the chips or the windows of a job; the other of the two is None.

    Raises:
        DataError: If no cell of a named grid is in the scene.
    """
    settings, part = job.made.settings, job.ground.window
    if job.layout is Layout.CHIPS:
        if settings["grid"] != "scene":
            return cell_places(job.ground.grid, settings["window"], settings["gsd"]), None
        return scene_places(job, settings["window"], settings["stride"]), None
    patch, tokens = settings["patch"], job.network.tokens
    stride = settings.get("stride", patch)
    return None, patch_passes(part.height, part.width, patch, tokens, settings["overlap"], stride)


def _ground(config: EmbedConfig, scene: Scene) -> SceneGround:
    clouds = None if config.cloud_mask is None else CloudMask.parse(config.cloud_mask)
    if config.where is None:
        return SceneGround(scene, Window(0, 0, scene.grid.height, scene.grid.width), None, clouds)
    area, crs = read_area(config.where, config.where_crs)
    cut = cut_out(scene.grid, scene.step, area, crs)
    return SceneGround(scene, cut.window, cut.inside, clouds)


def sha256_of(scene: Scene) -> str:
    """Return the sha256 of a scene's files; empty for sources that are not local files.

    For several files it is the hash of a list of their hashes and names, as `sha256sum` writes it.
    """
    pixels = scene.pixels
    if isinstance(pixels, CubeFile):
        file = pixels.array
        return hash_file(file) if isinstance(file, Path) and file.is_file() else ""
    files = sorted({_archive(name) for name in pixels.names or map(str, pixels.files)})
    if not all(file.is_file() for file in files):
        return ""
    hashes = [hash_file(file) for file in files]
    if len(hashes) == 1:
        return hashes[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _archive(name: str) -> Path:
    """Return the archive that contains a file, from GDAL's name of the file."""
    inner = name.removeprefix("/vsizip/").strip("{}")
    if inner == name:
        return Path(name)
    path = Path(inner)
    return next((p for p in [path, *path.parents] if p.is_file()), path)


# ------------------------------------------------------------------------------- the area of a job


def read_area(text: str, crs: str) -> tuple[Area, str]:
    """Return an area and its CRS.

    Args:
        text: west,south,east,north, or the name of a file of polygons.
        crs: CRS of west,south,east,north. Files of polygons have their own.

    Raises:
        SpecError: If `text` is neither.
        DataError: If the file cannot be read.
        ConfigError: If the library that reads it is missing.
    """
    path = Path(text)
    if path.exists():
        return _polygons(path), LONGITUDE_LATITUDE
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        raise SpecError(
            "an area is four numbers, or a file of polygons",
            found=text,
            expected="west,south,east,north, or an existing file of polygons",
            where="--where",
            remedy="--where 11.30,48.05,11.40,48.10",
        ) from None
    return (west, south, east, north), crs


def _polygons(path: Path) -> Mapping[str, Any]:
    geopandas = geo_library("geopandas", "polygons need a library that is not installed")
    layer = read_vectors(path)
    with foreign(DataError, "the area cannot be read", where=path, passing=(EofmError,)):
        shapes = geopandas.GeoSeries(layer.shapes, crs=crs_text(layer.crs))
        shape: Mapping[str, Any] = json.loads(shapes.to_crs(4326).to_json())
    return shape


# ----------------------------------------------------------------------------- what a job would do


@dataclass(frozen=True)
class Explanation:
    """Description of what jobs would do.

    Args:
        parts: One text per job.
    """

    parts: tuple[str, ...]

    def describe(self) -> str:
        """Return the texts."""
        return "\n\n".join(self.parts)


def explain_job(job: Job, places: ChipPlaces | None, passes: PatchPasses | None) -> str:
    """Return what a job would read and do, and its estimated time from one batch.

    Args:
        job: The job.
        places: Places of chips; None for patches.
        passes: Passes of patches; None for chips.

    Raises:
        PixelError: If the pixels of the sample batch contradict the stated unit or bands.
        RasterError: If a file is damaged.
    """
    settings, dim = job.made.settings, job.network.dim
    side, gsd = settings["window"], settings["gsd"]
    if passes is not None:
        lattice = passes.passes[0].lattice
        count, windows = passes.rows * passes.columns, passes.windows
        finer = f", every {passes.stride} px by {len(passes.passes)} passes"
        lines = {
            "patches": f"{passes.rows} x {passes.columns} of {lattice.patch} px, "
            f"{settings['patch_metres']:g} m on the ground{finer if passes.turns > 1 else ''}",
            "windows": f"{windows} of {side} px ({side * gsd:g} m), {lattice.overlap} patches "
            "shared with each neighbour and blended",
        }
        reach = lattice.windows.lefts[: job.config.batch]
        corner, width = lattice.windows.corner(0), reach[-1] + side - reach[0]
    else:
        assert places is not None  # noqa: S101 (a job is one or the other)
        count = windows = len(places)
        lines = {
            "chips": f"{count} of {side} px, {side * gsd:g} m on the ground, "
            + (f"every {settings['stride']} px" if "stride" in settings else "one for each cell")
            + f", grid {settings['grid']}",
        }
        group = places.groups(job.config.batch)[0]
        corner = places.corner(group.start)
        width = int(places.lefts[group.stop - 1]) + side - corner[1]
    codes = wants_codes(job.config.quantization, count)
    number = 1 if codes else 4 if passes is None else 2
    kind = {1: "int8", 2: "float16", 4: "float32"}[number]
    seconds = _probe(job, corner, width)
    rule = f" (from {QUANTIZE_FROM} vectors on)" if codes else ""
    lines |= {
        "vectors": f"{count} x {dim} {kind}{rule}, {_size(count * dim * number)}",
        "disk": f"{_size(disk_bytes(job, count))} while it runs, in {job.out}",
        "time": f"about {_duration(seconds * windows)} on {job.network.device.type}, by one batch "
        f"of {job.config.batch}: {1 / seconds:.1f} windows/s",
    }
    text = "\n".join(f"{name:8} {line}" for name, line in lines.items())
    return f"{job.ground.scene.describe()}\n{text}\n{job.network.plan.describe()}"


def _probe(job: Job, corner: tuple[int, int], width: int) -> float:
    """Return the seconds per window: the first batch is read, and a batch is embedded twice."""
    side, batch = job.made.settings["window"], job.config.batch
    run = job.network.chips if job.layout is Layout.CHIPS else job.network.patches
    with GroundReader(job.ground) as reader:
        start = time.monotonic()
        pixels = read_checked(reader, job, *corner, side, width)
        reading = (time.monotonic() - start) / batch
    valid = pixels.valid[:, :side].clone()
    valid[0, 0] = True  # the time does not depend on whether the pixels are valid
    windows = job.batch([pixels.values[:, :, :side]] * batch, [valid] * batch, side)
    run(windows)
    start = time.monotonic()
    run(windows)
    # threads read ahead: the slower of the two counts
    return max(reading / job.config.readers, (time.monotonic() - start) / batch)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError  # pragma: no cover


def _duration(seconds: float) -> str:
    """Return a duration as text.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ------------------------------------------------------------------------------------- running them

_GDAL_CACHE: Final = 256  # MB; GDAL's own default grows with the machine
_LIST: Final = ".txt"


@dataclass(frozen=True)
class EmbedOutcome:
    """Result of embedding scenes.

    Args:
        done: Result of each scene; a text if it existed already.
        failed: Scene -> reason of the failure, if there were several scenes.
    """

    done: tuple[ChipsDone | PatchesDone | str, ...]
    failed: Mapping[str, str]

    @property
    def status(self) -> int:
        """Exit status: 1 if a scene failed."""
        return int(bool(self.failed))

    def describe(self) -> str:
        """Return one line per file and per failed scene."""
        lines = [done if isinstance(done, str) else done.describe() for done in self.done]
        return "\n".join([*lines, *(_failure(name, why) for name, why in self.failed.items())])


def _failure(name: str, why: str) -> str:
    return f"{name}: {why}"


# ------------------------------------------------------------------------------- the verb


def embed(config: EmbedConfig) -> EmbedOutcome | Explanation:
    """Embed scenes and write the vectors, or return what this would take.

    Args:
        config: The settings.

    Raises:
        EofmError: If a scene cannot be opened, the network does not match it, or a single scene
            cannot be embedded. With several scenes, those that can be embedded are.
    """
    out = Path(config.out)
    check_folder(config, out)
    scenes, unopened = _scenes(config)
    if config.explain:
        parts = [_failure(name, why) for name, why in unopened.items()]
        for scene in scenes:
            encoder = encoder_of(config, scene.spec)
            parts += [
                explain_job(job, *places_of(job)) for job in jobs_of(config, scene, encoder, out)
            ]
        return Explanation(tuple(parts))
    if len(scenes) == 1 and not unopened and config.dask is None:
        return EmbedOutcome(_embed_one(_on_device(config), scenes[0], out), {})
    _keep(config, out)
    return _embed_many(config, scenes, out, unopened)


def _keep(config: EmbedConfig, out: Path) -> None:
    """Write the settings next to the output."""
    with writable(out):
        write_settings(config, out / CONFIG)


def _scenes(config: EmbedConfig) -> tuple[list[Scene], dict[str, str]]:
    """Return the scenes and, if several were named, those that cannot be opened, with reasons.

    Raises:
        EofmError: If no scene can be opened.
    """
    words: list[str] = []
    for word in config.scenes:
        words += _listed(Path(word)) if word.endswith(_LIST) else [word]
    scenes: list[Scene] = []
    unopened: dict[str, EofmError] = {}
    for word in track(words, "opening scenes") if len(words) > 1 else words:
        try:
            scenes += open_scenes(
                word,
                sensor=config.sensor,
                unit=config.unit,
                bands=config.bands,
                item=config.item,
                time=config.time,
            )
        except EofmError as error:
            unopened[word] = error
    if unopened and not scenes:
        raise next(iter(unopened.values()))
    twice = sorted(name for name, n in Counter(scene.name for scene in scenes).items() if n > 1)
    if twice:
        raise ConfigError(
            "two scenes have the same name, and would be written into one folder",
            found=", ".join(twice[:5]),
            remedy="embed them one by one, each into a separate folder: --out",
        )
    return scenes, {word: str(error) for word, error in unopened.items()}


def _listed(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the list of scenes cannot be read", found=error, where=file) from error
    words = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not words:
        raise DataError(
            "the list of scenes is empty",
            found=f"{len(lines)} lines, all empty or comments",
            expected="a scene on each line",
            where=file,
            remedy="write one on each line, as in: ls -d PRODUCTS/*.SAFE > scenes.txt",
        )
    return [_beside(word, file) for word in words]


def _beside(word: str, file: Path) -> str:
    """Return a path of a list that is not found from the working directory, but beside the list."""
    beside = file.parent / word
    with suppress(OSError, ValueError):  # a text that is no path
        return str(beside) if beside.exists() and not Path(word).exists() else word
    return word


def _embed_many(
    config: EmbedConfig, scenes: Sequence[Scene], out: Path, unopened: Mapping[str, str]
) -> EmbedOutcome:
    done: list[ChipsDone | PatchesDone | str] = []
    failed = dict(unopened)
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
    """Yield the result of each scene, in order: see `_attempt`."""
    if config.dask is not None:
        yield from _on_dask(config, config.dask, scenes, folders)
        return
    count = len(config.devices) if config.devices else config.workers
    if count == 1:
        yield from _one_by_one(config, scenes, folders)
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
        # workers print nothing: progress is shown here, by scenes
        yield from track((future.result() for future in futures), "scenes", len(scenes))
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed",
            found="perhaps the machine is out of memory",
            remedy="run again with fewer --workers: what is finished stays",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    config: EmbedConfig, scenes: Sequence[Scene], folders: Sequence[Path]
) -> Iterator[tuple[ChipsDone | PatchesDone | str, ...] | str]:
    start = time.monotonic()
    for number, (scene, folder) in enumerate(zip(scenes, folders, strict=True)):
        # progress within a scene is counted in windows: progress bars cannot be nested
        each = (time.monotonic() - start) / max(number, 1)
        left = f", about {_duration(each * (len(scenes) - number))} left" if number else ""
        notice(f"scene {number + 1} of {len(scenes)}: {scene.name}{left}", repeat=True)
        yield _attempt(config, scene, folder)


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
    """Divide the cores among the worker processes, and give each its own device."""
    end_with_parent()
    torch.set_num_threads(threads)
    _OWN["device"] = devices.get()


def _on_device(config: EmbedConfig) -> EmbedConfig:
    """Return the settings of one scene: a single device, no further division."""
    device = _OWN.get("device", (config.devices or [config.device])[0])
    return replace(config, device=device, devices=None, workers=1, dask=None)


def _attempt(
    config: EmbedConfig, scene: Scene, out: Path
) -> tuple[ChipsDone | PatchesDone | str, ...] | str:
    """Embed one of several scenes; return the reason if it failed."""
    try:
        return _embed_one(_on_device(config), scene, out)
    except EofmError as error:
        return str(error)


def _embed_one(
    config: EmbedConfig, scene: Scene, out: Path
) -> tuple[ChipsDone | PatchesDone | str, ...]:
    jobs = jobs_of(config, scene, encoder_of(config, scene.spec), out)
    complete = [_is_complete(job) for job in jobs]  # all of them, before the first starts
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
        done = tuple(
            _tidied(job) if ended else _run(job) for job, ended in zip(jobs, complete, strict=True)
        )
    if out == Path(config.out):  # for several scenes, the folder above has the settings
        _keep(config, out)
    return done


def _tidied(job: Job) -> str:
    """Report a complete job, removing working files left by a killed run."""
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
    """Return whether all files of a job exist; raise an error if they are from another job."""
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
        model: An encoder, or the name of its weights as on the command line.
        chips: Side of a chip in pixels.
        stride: Step from chip to chip; without it, the side of a chip.
        where: The part of the scene: see `Scene.read`.
        cloud_mask: Cloud mask to apply.
        min_valid: Minimum share of a chip that is valid and free of clouds.
        batch: Chips per forward pass.

    Raises:
        EofmError: If the scene cannot be read, or does not match the network.
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
        model: An encoder, or the name of its weights as on the command line.
        window: Side of the windows in pixels; default: that of the network's input.
        overlap: Number of patches that neighbouring windows share and blend; default: a quarter.
        stride: Step from patch to patch in pixels, a divisor of their side; steps smaller than a
            patch use shifted passes.
        where: The part of the scene: see `Scene.read`.
        cloud_mask: Cloud mask to apply.
        min_valid: Minimum share of a patch that is valid and free of clouds.
        batch: Windows per forward pass.

    Raises:
        EofmError: If the scene cannot be read, or does not match the network.
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
    """Open sources with complete metadata; for others, raise an error on how to open them."""
    try:
        return open_scene(source.to_xarray() if isinstance(source, Imagery) else source)
    except SpecError as error:
        error.remedy = "open it first, and embed the scene: "
        error.remedy += 'eofm.open_scene(source, sensor="s2-l2a", unit="dn")'
        raise
