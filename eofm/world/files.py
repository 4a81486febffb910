"""Writing a world: GeoTIFFs, folders, resuming after an interruption, several processes.

    {out}/world.json                                  what was asked for; "synthetic": true
    {out}/s2c/{id:07d}/{season}/{B1..B12}.tif         uint16 digital numbers, native resolution
    {out}/s1/{id:07d}/{season}/{VV,VH}.tif            float32 dB
    {out}/dw/{id:07d}/{season}.tif                    uint8 Dynamic World codes, nodata 255
    {out}/safe/{id:07d}/{product}.SAFE                with `safe`: s2c as ESA delivers it
    {out}/safe/{id:07d}/{product}.geojson             polygons of known ground beside it

A location is written under `.partial` and moved into place, `s2c` last: a location whose `s2c`
folder exists is complete. A folder of `dw` has no file for a season without labels.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from eofm.contract.sensors import BANDS
from eofm.contract.spec import Sensor
from eofm.errors import ConfigError, DataError
from eofm.io import replacing
from eofm.progress import track
from eofm.workers import end_with_parent
from eofm.world.biomes import BIOMES
from eofm.world.config import WorldConfig
from eofm.world.landscape import PIXEL, draw_landscape
from eofm.world.places import Visit, WorldPlace, draw_place, draw_visit
from eofm.world.safe import Product, write_polygons, write_safe
from eofm.world.season import WorldScene, draw_scene
from eofm.world.spectra import GroundCover

VERSION: Final = 1  # of the recipe: the same numbers give the same bytes within a version
UNLABELLED: Final = 0.1  # share of seasons without a map
_MODALITIES = ("dw", "s1", "safe", "s2c")  # the order in which folders move into place
_CARD = "world.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class WorldReport:
    """What `write_world` did.

    Args:
        out: The world's folder.
        scenes: Locations in it.
        seasons: Seasons per location.
        written: Locations written by this call; the others were there already.
        labelled: Seasons with a map, among those.
        presence: Class name -> share of those maps that show it.
    """

    out: Path
    scenes: int
    seasons: int
    written: int
    labelled: int
    presence: Mapping[str, float]

    def describe(self) -> str:
        """Return the report as text."""
        head = (
            f"synthetic world at {self.out}: {self.scenes} locations, {self.seasons} seasons each "
            f"({self.written} locations written now)"
        )
        if not self.labelled:
            return head
        classes = ", ".join(f"{name} {share:.0%}" for name, share in self.presence.items())
        return f"{head}\n{self.labelled} maps, of which show: {classes}"


def write_world(config: WorldConfig) -> WorldReport:
    """Write a synthetic world, or complete one.

    Args:
        config: What to write. In a script that sets `workers` above 1, call it below
            `if __name__ == "__main__":`, as for any process pool.

    Returns:
        What was written.

    Raises:
        ConfigError: If the folder holds a world of other settings, or more locations.
        DataError: If the folder holds something else, or cannot be written to.
    """
    try:
        return _write(config)
    except (OSError, RasterioError, BrokenProcessPool) as error:
        raise DataError(
            "the world could not be written",
            found=error,
            where=config.out,
            remedy="see to space and permissions, then run again: finished locations are kept",
        ) from error


def _write(config: WorldConfig) -> WorldReport:
    out = Path(config.out)
    _claim(out, config)
    todo = [i for i in range(config.scenes) if not (out / "s2c" / f"{i:07d}").is_dir()]
    presence: Counter[str] = Counter()
    labelled = 0
    for classes in track(_written(config, todo), "writing the synthetic world", len(todo)):
        labelled += len(classes)
        presence.update(name for season in classes for name in season)
    shutil.rmtree(out / _PARTIAL, ignore_errors=True)
    shares = {
        c.name.lower().replace("_", " "): presence[c.name] / max(labelled, 1) for c in GroundCover
    }
    return WorldReport(out, config.scenes, config.seasons, len(todo), labelled, shares)


# --- the folder ---------------------------------------------------------------------------------


def _claim(out: Path, config: WorldConfig) -> None:
    """Write `world.json`, or check that the one there asks for the same world.

    Raises:
        ConfigError: If it asks for another world or for more locations.
        DataError: If the folder is not empty and not a world.
    """
    identity = _identity(config)
    card = out / _CARD
    if card.is_file():
        there = _read_card(card)
        scenes = there.pop("scenes")
        if there != identity:
            keys = {*identity, *there}
            differing = sorted(k for k in keys if there.get(k) != identity.get(k))
            raise ConfigError(
                "another world is in this folder",
                found=", ".join(f"{k}={there.get(k)}" for k in differing),
                expected=", ".join(f"{k}={identity.get(k)}" for k in differing),
                where=card,
                remedy="choose another --out, or repeat the settings of the world that is there",
            )
        if isinstance(scenes, int) and scenes > config.scenes:
            raise ConfigError(
                "the world in this folder is larger than the one asked for",
                found=f"scenes={scenes}",
                expected=f"scenes={config.scenes}",
                where=card,
                remedy=f"ask for --scenes {scenes} or more, or choose another --out",
            )
    elif out.is_dir() and any(out.iterdir()):
        raise DataError(
            "the folder is not empty and holds no world",
            found=", ".join(sorted(p.name for p in out.iterdir())[:5]),
            expected=_CARD,
            where=out,
            remedy="choose a new folder for --out",
        )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(identity | {"scenes": config.scenes}, indent=2) + "\n"
    with replacing(card) as file:
        file.write_text(text, encoding="utf-8")


def _identity(config: WorldConfig) -> dict[str, object]:
    """Return what makes two worlds the same, apart from their number of locations."""
    identity: dict[str, object] = {
        "what": "synthetic world of eofm, in the file layout of SSL4EO-S12 v1",
        "synthetic": True,
        "version": VERSION,
        "seed": config.seed,
        "size": config.size,
        "seasons": config.seasons,
    }
    return identity if config.safe is None else identity | {"safe": config.safe}


def _read_card(card: Path) -> dict[str, object]:
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "the card of the world cannot be read",
            where=card,
            remedy="delete the world's folder and write it again",
        ) from error
    if not isinstance(content, dict) or "scenes" not in content:
        raise DataError("this is not the card of a world", found=content, where=card)
    return content


# --- locations ----------------------------------------------------------------------------------

_Classes = list[list[str]]  # per labelled season: the classes its map shows


def _written(config: WorldConfig, todo: list[int]) -> Iterator[_Classes]:
    """Write locations, in this process or in several, and yield what their maps show."""
    if min(config.workers, len(todo)) < 2:
        for location in todo:
            yield write_location(config, location)
        return
    # spawned, not forked: the caller may hold threads, and a fork would copy their locks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(config.workers, len(todo)), context, end_with_parent) as pool:
        try:
            yield from pool.map(write_location, [config] * len(todo), todo, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_location(config: WorldConfig, location: int) -> _Classes:
    """Write one location with all its seasons.

    Returns:
        For each season that has a map, the names of the classes in it.
    """
    out, folder = Path(config.out), f"{location:07d}"
    partial = out / _PARTIAL / f"{folder}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    modalities = [name for name in _MODALITIES if name != "safe" or config.safe]
    for modality in modalities:
        (partial / modality).mkdir(parents=True)
    classes = []
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
        for visit, place, scene, labelled in draw_location(config, location):
            _write_season(partial, place, visit, scene, labelled=labelled)
            if config.safe:
                product = Product(Sensor.S2_L1C, config.safe, place, visit.optical)
                write_safe(partial / "safe", product, scene.optical)
                drawn = np.random.default_rng([config.seed, location, visit.optical.toordinal()])
                polygons = partial / "safe" / f"{product.name}.geojson"
                write_polygons(polygons, scene.cover, place, drawn)
            if labelled:
                classes.append(
                    [GroundCover(c).name for c in np.unique(scene.cover) if c < len(GroundCover)]
                )
    for modality in modalities:
        target = out / modality / folder
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # of an interrupted run: s2c is not there yet
        (partial / modality).replace(target)
    partial.rmdir()
    return classes


def draw_location(
    config: WorldConfig, location: int
) -> Iterator[tuple[Visit, WorldPlace, WorldScene, bool]]:
    """Draw the seasons of a location, without writing.

    Yields:
        The visit, the place, the scene, and whether there is a map of it.
    """
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, location]))
    weights = np.array([b.weight for b in BIOMES.values()])
    biome = list(BIOMES.values())[int(rng.choice(len(weights), p=weights / weights.sum()))]
    place = draw_place(rng, biome.boxes)
    shift_days = int(rng.integers(365))
    land = draw_landscape(rng, biome, config.size)
    for season in range(config.seasons):
        # a stream of its own: a season is the same however many there are
        own = np.random.default_rng(np.random.SeedSequence([config.seed, location, 1 + season]))
        visit = draw_visit(own, place, season, shift_days)
        labelled = bool(own.random() >= UNLABELLED)
        yield visit, place, draw_scene(own, land, biome, place, visit), labelled


def _write_season(
    root: Path, place: WorldPlace, visit: Visit, scene: WorldScene, *, labelled: bool
) -> None:
    optical, radar = root / "s2c" / visit.optical_id, root / "s1" / visit.radar_id
    optical.mkdir()
    radar.mkdir()
    crs = CRS.from_epsg(place.epsg)
    for band, pixels in scene.optical.items():
        short = band[0] + band[1:].lstrip("0")  # SSL4EO-S12 says B1
        _write_tif(optical / f"{short}.tif", pixels, crs, place, BANDS[band].gsd)
    for polarisation, decibel in scene.radar.items():
        _write_tif(radar / f"{polarisation}.tif", decibel, crs, place, PIXEL)
    if labelled:
        path = root / "dw" / f"{visit.optical_id}.tif"
        _write_tif(path, scene.cover, crs, place, PIXEL, nodata=255)


def _write_tif(
    path: Path,
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    crs: CRS,
    place: WorldPlace,
    gsd: float,
    nodata: int | None = None,
) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype.name,
        crs=crs,
        transform=Affine(gsd, 0, place.left, 0, -gsd, place.top),
        nodata=nodata,
    ) as file:
        file.write(pixels, 1)
