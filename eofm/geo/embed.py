"""`eofm embed`: from scenes to vectors on disk; and the same for a notebook, in memory.

Each scene is a job of its own. What it takes is read by threads ahead of the network, window by
window; what is finished is on the disk, so that a killed run goes on where it was and ends with the
same bytes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import yaml

from eofm.errors import ConfigError, DataError, EofmError
from eofm.geo.area import read_area
from eofm.geo.chips_job import ChipsDone, Places, run_chips, scene_places
from eofm.geo.config import SIDE, EmbedConfig
from eofm.geo.embeddings import ChipTable, Layout, PatchGrid, Provenance, SceneRecord
from eofm.geo.explain import Explanation, explain_job
from eofm.geo.files import (
    CHIPS,
    PATCHES_TIFF,
    PATCHES_ZARR,
    open_chips,
    open_embeddings,
    open_patches,
)
from eofm.geo.ground import Ground
from eofm.geo.job import Job, writable
from eofm.geo.network import Network, encoder_of, waivers_of
from eofm.geo.patches_job import PatchesDone, run_patches
from eofm.geo.windows import PatchLattice, patch_lattice
from eofm.orphans import end_with_parent
from eofm.raster.cube_file import CubeFile
from eofm.raster.grid import Window
from eofm.raster.masks import CloudMask
from eofm.raster.opening import Source, open_scene, open_scenes
from eofm.raster.scene import Scene
from eofm.raster.where import Area, cut_out
from eofm.weights.encoder import Encoder
from eofm.weights.receipt import hash_file

CONFIG: Final = "embed.yaml"
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
            parts += [explain_job(job, *_places(job)) for job in _jobs(config, scene, encoder, out)]
        return Explanation(tuple(parts))
    with writable(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / CONFIG).write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    if len(scenes) == 1:
        return EmbedOutcome(_embed_one(config, scenes[0], out), {})
    return _embed_many(config, scenes, out)


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
    if config.workers == 1:
        results = (_attempt(config, *job) for job in zip(scenes, folders, strict=True))
    else:
        pool = ProcessPoolExecutor(
            min(config.workers, len(scenes)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=end_with_parent,
        )
        futures = [pool.submit(_attempt, config, *job) for job in zip(scenes, folders, strict=True)]
        results = (future.result() for future in futures)
    for scene, result in zip(scenes, results, strict=True):
        if isinstance(result, str):
            failed[scene.name] = result
        else:
            done += result
    return EmbedOutcome(tuple(done), failed)


def _attempt(
    config: EmbedConfig, scene: Scene, out: Path
) -> tuple[ChipsDone | PatchesDone | str, ...] | str:
    """Embed one scene of several; return why it failed, if it did."""
    try:
        return _embed_one(config, scene, out)
    except EofmError as error:
        return str(error)


def _embed_one(
    config: EmbedConfig, scene: Scene, out: Path, encoder: Encoder | None = None
) -> tuple[ChipsDone | PatchesDone | str, ...]:
    encoder = encoder or encoder_of(config, scene.spec)
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
        return tuple(_run(job) for job in _jobs(config, scene, encoder, out))


def _run(job: Job) -> ChipsDone | PatchesDone | str:
    there = _there(job)
    if there:
        if job.work.exists():  # it was killed while it tidied up
            shutil.rmtree(job.work)
        return f"{', '.join(map(str, there))}: complete already"
    places, lattice = _places(job)
    if lattice is not None:
        return run_patches(job, lattice)
    assert places is not None  # noqa: S101 (a job is one or the other)
    return run_chips(job, places)


def _there(job: Job) -> list[Path]:
    """Return the files of a job, if all of them are there; refuse those of another job."""
    names = [CHIPS]
    if job.layout is Layout.PATCHES:
        names = [PATCHES_TIFF if kind == "tif" else PATCHES_ZARR for kind in job.config.formats]
    files = [job.out / name for name in names if (job.out / name).exists()]
    for file in files:
        found = open_embeddings(file).provenance.settings.get("job", "")
        if found != job.identity:
            raise ConfigError(
                "the folder holds embeddings of another job",
                found="other scenes, weights or settings",
                where=file,
                remedy="name another folder with --out, or remove the file",
            )
    return files if len(files) == len(names) else []


# ------------------------------------------------------------------------------- the jobs


def _jobs(config: EmbedConfig, scene: Scene, encoder: Encoder, out: Path) -> list[Job]:
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
    ground: Ground,
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
        settings |= {"stride": config.stride or side, "grid": config.grid}
    else:
        tokens = network.tokens
        if side % tokens:
            raise ConfigError(
                "a patch must be whole pixels of the scene, so that its place is exact",
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
        settings |= {"patch": side // tokens, "overlap": overlap}
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


def _places(job: Job) -> tuple[Places | None, PatchLattice | None]:
    settings, part = job.made.settings, job.ground.window
    if job.layout is Layout.CHIPS:
        return scene_places(job, settings["window"], settings["stride"]), None
    lattice = patch_lattice(
        part.height, part.width, settings["patch"], job.network.tokens, settings["overlap"]
    )
    return None, lattice


def _ground(config: EmbedConfig, scene: Scene) -> Ground:
    clouds = None if config.cloud_mask is None else CloudMask.parse(config.cloud_mask)
    if config.where is None:
        return Ground(scene, Window(0, 0, scene.grid.height, scene.grid.width), None, clouds)
    area, crs = read_area(config.where, config.where_crs)
    cut = cut_out(scene.grid, scene.step, area, crs)
    return Ground(scene, cut.window, cut.inside, clouds)


def sha256_of(scene: Scene) -> str:
    """Return the sha256 of a scene's files; empty of what is no file of this machine.

    Of several files it is that of a list of their hashes and names, as `sha256sum` writes it.
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
    """Return the file that GDAL's name of a file in an archive lies in."""
    inner = name.removeprefix("/vsizip/").strip("{}")
    if inner == name:
        return Path(name)
    path = Path(inner)
    return next((p for p in [path, *path.parents] if p.is_file()), path)


# ------------------------------------------------------------------------------ notebooks


def embed_chips(
    source: Source | Scene,
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
        source: What `open_scene` opens, or a scene it has opened.
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
    source: Source | Scene,
    model: Encoder | str | Path,
    *,
    window: int | None = None,
    overlap: int | None = None,
    where: Area | None = None,
    cloud_mask: CloudMask | str | None = None,
    min_valid: float = 0.5,
    batch: int = 8,
) -> PatchGrid:
    """Return a vector for each patch of a scene as a raster, in memory.

    Args:
        source: What `open_scene` opens, or a scene it has opened.
        model: An encoder, or the words for its weights.
        window: Side of the windows in pixels; without it, that of the network's input.
        overlap: How many patches neighbouring windows share and blend; without it, a quarter.
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
            min_valid=min_valid, batch=batch, quantization="none", formats=["tif"],
        )  # fmt: skip
        _in_memory(config, source, model, where, cloud_mask)
        found = open_patches(folder)
        return replace(found, stored=found.stored.load())


def _in_memory(
    config: EmbedConfig,
    source: Source | Scene,
    model: Encoder | str | Path,
    where: Area | None,
    cloud_mask: CloudMask | str | None,
) -> None:
    scene = source if isinstance(source, Scene) else open_scene(source)
    encoder = model if isinstance(model, Encoder) else encoder_of(config, scene.spec)
    for job in _jobs(config, scene, encoder, Path(config.out)):
        ground = job.ground
        if where is not None:
            cut = cut_out(ground.scene.grid, ground.scene.step, where)
            ground = replace(ground, window=cut.window, inside=cut.inside)
        if cloud_mask is not None:
            ground = replace(ground, clouds=CloudMask.parse(cloud_mask))
        _run(replace(job, ground=ground))
