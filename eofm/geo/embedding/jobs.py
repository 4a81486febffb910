"""From the settings to jobs: which part of a scene, which network, and how the vectors are made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from eofm.errors import ConfigError
from eofm.geo.embedding.area import read_area
from eofm.geo.embedding.chips_job import ChipPlaces, scene_places
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.ground import SceneGround
from eofm.geo.embedding.job import Job
from eofm.geo.embedding.majortom import MajorTom, cell_places
from eofm.geo.embedding.network import Network, waivers_of
from eofm.geo.embedding.windows import PatchPasses, patch_passes
from eofm.geo.vectors.embeddings import Layout, Provenance, SceneRecord
from eofm.raster.grid import Window
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.products.cube_file import CubeFile
from eofm.raster.scene import Scene
from eofm.raster.where import cut_out
from eofm.weights.encoder import Encoder
from eofm.weights.fetch.record import hash_file


def jobs_of(config: EmbedConfig, scene: Scene, encoder: Encoder, out: Path) -> list[Job]:
    """Return the jobs of a scene: chips, patches, or both.

    Args:
        config: The settings.
        scene: The scene.
        encoder: The network, on its device.
        out: Folder to write to.

    Raises:
        RasterError: If the scene lies nowhere, or the area beside it.
        SpecMismatch: If the network does not take it.
        ConfigError: If the settings do not fit the network.
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
    """Return what a stride adds to the settings: nothing where it is the side of a patch.

    Raises:
        ConfigError: If patches of so many pixels cannot take turns at that stride.
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
    """Return where the chips or the windows of a job lie; the other of the two is None.

    Raises:
        DataError: If no cell of a named grid lies in the scene.
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
