"""From the settings to jobs: which part of a scene, which network, and how the vectors are made.

`--where` is numbers between commas, or a file of polygons. `--explain` says what a job would read
and do, without doing it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eofm.errors import ConfigError, DataError, EofmError, SpecError
from eofm.extras import geo_library
from eofm.formats.foreign import foreign
from eofm.geo.embedding.chips_job import ChipPlaces, scene_places
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.ground import GroundReader, SceneGround
from eofm.geo.embedding.job import Job, disk_bytes, read_checked
from eofm.geo.embedding.majortom import MajorTom, cell_places
from eofm.geo.embedding.network import Network, waivers_of
from eofm.geo.embedding.windows import PatchPasses, patch_passes
from eofm.geo.vectors.embeddings import Layout, Provenance, SceneRecord
from eofm.geo.vectors.quantize import QUANTIZE_FROM, wants_codes
from eofm.landcover.polygons import read_vectors
from eofm.raster.grid import Window, crs_text
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.products.cube_file import CubeFile
from eofm.raster.scene import Scene
from eofm.raster.where import LONGITUDE_LATITUDE, Area, cut_out
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


# ------------------------------------------------------------------------------- the area of a job


_JSON: Final = frozenset({".json", ".geojson"})


def read_area(text: str, crs: str) -> tuple[Area, str]:
    """Return an area and its CRS.

    Args:
        text: west,south,east,north, or the name of a file of polygons.
        crs: Of west,south,east,north. Polygons bring theirs; GeoJSON is in WGS 84.

    Raises:
        SpecError: If it is neither.
        DataError: If the file cannot be read.
        ConfigError: If the library that reads it is missing.
    """
    path = Path(text)
    if path.suffix.lower() in _JSON:
        return _geojson(path), LONGITUDE_LATITUDE
    if path.exists():
        return _polygons(path), LONGITUDE_LATITUDE
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        raise SpecError(
            "an area is four numbers, or a file of polygons",
            found=text,
            expected="west,south,east,north, or a file of polygons that is there",
            where="--where",
            remedy="--where 11.30,48.05,11.40,48.10",
        ) from None
    return (west, south, east, north), crs


def _geojson(path: Path) -> Mapping[str, Any]:
    try:
        shape = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("the area cannot be read", found=error, where=path) from error
    if not isinstance(shape, Mapping):
        raise DataError("this is no GeoJSON", where=path)
    return shape


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
    """What jobs would do.

    Args:
        parts: A text for each.
    """

    parts: tuple[str, ...]

    def describe(self) -> str:
        """Return the texts."""
        return "\n\n".join(self.parts)


def explain_job(job: Job, places: ChipPlaces | None, passes: PatchPasses | None) -> str:
    """Return what a job would read and do, and how long it would take by a probe of one batch.

    Args:
        job: The job.
        places: Of chips; None for patches.
        passes: Of patches; None for chips.

    Raises:
        PixelError: If the pixels of the probe contradict what is stated of them.
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
    """Return the seconds of one window: the first batch is read, and a batch is embedded twice."""
    side, batch = job.made.settings["window"], job.config.batch
    run = job.network.chips if job.layout is Layout.CHIPS else job.network.patches
    with GroundReader(job.ground) as reader:
        start = time.monotonic()
        pixels = read_checked(reader, job, *corner, side, width)
        reading = (time.monotonic() - start) / batch
    valid = pixels.valid[:, :side].clone()
    valid[0, 0] = True  # of a corner without measurement the time is the same
    windows = job.batch([pixels.values[:, :, :side]] * batch, [valid] * batch, side)
    run(windows)
    start = time.monotonic()
    run(windows)
    # threads read ahead: whichever is slower counts
    return max(reading / job.config.readers, (time.monotonic() - start) / batch)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError  # pragma: no cover


def _duration(seconds: float) -> str:
    """Return a time in words.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
