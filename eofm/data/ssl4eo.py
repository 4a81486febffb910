"""The folders of SSL4EO-S12 (arXiv 2211.07044), and `eofm pack ssl4eo`.

    ROOT/s2c/0000001/20210117T104259_20210117T104300_T31TFJ/B1.tif ... B12.tif     L1C
    ROOT/s2a/0000001/20210117T104259_20210117T105030_T31TFJ/B1.tif ... B12.tif     L2A, no B10
    ROOT/s1/0000001/S1A_IW_GRDH_1SDV_20210115T054321_.../VV.tif VH.tif             GRD in dB

One file per band, 264, 132 or 44 pixels wide. The georeference of the published files is
approximate: it is in degrees, and shifted by half a pixel of each band, so that the bands of one
scene seem to lie up to 25 m apart. They do not; they were cut to one centre.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import eofm
from eofm.data.config import PackSsl4eoConfig
from eofm.data.folder import band_of, choose_bands
from eofm.data.grid import Window
from eofm.data.landcover import SCHEMES
from eofm.data.landcover_map import LandCoverMap
from eofm.data.pack_entry import Entry
from eofm.data.pack_layout import LabelRule, StoreCard
from eofm.data.pack_report import PackReport
from eofm.data.pack_resume import check_sources
from eofm.data.pack_writer import StoreWriter
from eofm.data.raster import OpenRaster, RasterSource
from eofm.data.stated import find_doubt, stored_spec, to_stored
from eofm.errors import LabelError, PixelError, RasterError
from eofm.progress import track
from eofm.spec import Sensor, Unit

FOLDERS: Final = {Sensor.S1_GRD: "s1", Sensor.S2_L1C: "s2c", Sensor.S2_L2A: "s2a"}
UNITS: Final = {Sensor.S1_GRD: Unit.DB, Sensor.S2_L1C: Unit.DN, Sensor.S2_L2A: Unit.DN}

_TIME: Final = re.compile(r"(?<!\d)\d{8}T\d{6}(?!\d)")
_LOOKED_AT: Final = 32  # scenes, before packing begins
_HALF_A_PIXEL: Final = 0.51  # see the module's docstring: half of a 60 m pixel, less half of 10 m


@dataclass(frozen=True)
class Scene:
    """One season of one place.

    Args:
        location: The place, seven digits.
        season: Name of the product it was cut from.
        folder: Where its bands are.
        sensor: Sensor and product level.
    """

    location: str
    season: str
    folder: Path
    sensor: Sensor

    @property
    def name(self) -> str:
        """Place and season."""
        return f"{self.location}/{self.season}"

    @property
    def date(self) -> datetime | None:
        """When it was taken, from the name of the product; None where that holds no time."""
        return season_date(self.season)

    def require_date(self) -> datetime:
        """Return when it was taken.

        Raises:
            LabelError: If the name of the product holds no time.
        """
        if self.date is None:
            raise LabelError(
                "a scene cannot be paired with a map: its name holds no time",
                found=self.season,
                expected="YYYYMMDDTHHMMSS in the name of its folder",
                where=self.folder,
            )
        return self.date

    def source(self) -> RasterSource:
        """Return where its pixels are.

        Raises:
            RasterError: If a band is missing.
        """
        found = {}
        for file in sorted(self.folder.glob("*.tif")):
            band, _ = band_of(file.stem, self.sensor)
            if band:
                found[band] = file
        chosen = choose_bands(found, self.sensor, None, self.folder)
        return RasterSource(
            self.name,
            tuple(chosen.values()),
            self.sensor,
            UNITS[self.sensor],
            tuple(chosen),
            gsd=10.0,
            slack=_HALF_A_PIXEL,
        )


def season_date(season: str) -> datetime | None:
    """Return the first time in a product's name: when sensing began."""
    match = _TIME.search(season)
    if match is None:
        return None
    try:
        return datetime.strptime(match.group(), "%Y%m%dT%H%M%S")
    except ValueError:
        return None


def list_scenes(root: str | Path, sensor: Sensor) -> list[Scene]:
    """Return all scenes of a sensor, ordered by place and name.

    Raises:
        RasterError: If there are none.
    """
    folder = Path(root) / FOLDERS[sensor]
    seasons = sorted(path for path in folder.glob("*/*") if path.is_dir())
    if not seasons:
        raise RasterError(
            f"there are no {sensor} scenes in the layout of SSL4EO-S12",
            found="no such folder" if not folder.is_dir() else "no folders in it",
            expected=f"{FOLDERS[sensor]}/0000001/SEASON/{'VV' if sensor is Sensor.S1_GRD else 'B1'}"
            ".tif and so on",
            where=folder,
            remedy="give the folder that holds s1, s2c or s2a",
        )
    return [Scene(path.parent.name, path.name, path, sensor) for path in seasons]


def nearest_season(date: datetime, seasons: Sequence[str], max_gap_days: float) -> str | None:
    """Return the season nearest in time, or None if all are farther away than the gap.

    Sentinel-1 products sort by platform before date, so seasons cannot be paired by their rank.

    Args:
        date: Of the scene that wants a partner.
        seasons: Names of Sentinel-2 products; those without a time are passed over.
        max_gap_days: The greatest distance that counts.
    """
    gaps = []
    for season in sorted(seasons):
        other = season_date(season)
        if other is not None:
            gaps.append((abs((date - other).total_seconds()) / 86_400, season))
    gap, season = min(gaps, default=(float("inf"), ""))
    return season if gap <= max_gap_days else None


# ------------------------------------------------------------------------------- packing


def pack_ssl4eo(config: PackSsl4eoConfig) -> PackReport:
    """Pack every scene of one sensor, each band at its native resolution.

    A run that was interrupted goes on where it stopped when it is called again.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds.

    Raises:
        RasterError: If there are no scenes, or one cannot be read.
        LabelError: If a map does not overlap its scene or holds unknown codes.
        StoreError: If `out` holds something else, or cannot be written.
    """
    sensor = Sensor(config.sensor)
    scenes = list_scenes(config.root, sensor)
    maps = _find_maps(config, scenes)
    with StoreWriter(config.out, _card(config, scenes[0])) as writer:
        check_sources(writer, {scene.name: UNITS[sensor] for scene in scenes})
        if writer.complete:
            return PackReport.of(writer.path, already=True)
        left = [scene for scene in scenes if scene.name not in writer.skipped]
        _check_units(left)
        for scene in track(left, f"packing {FOLDERS[sensor]} scenes"):
            written = scene.name in writer.ids or _pack_scene(scene, maps.get(scene.name), writer)
            writer.source_done(scene.name, int(not written))
        if not writer.ids:
            raise PixelError("no scene has a valid pixel", where=config.root)
        writer.finish()
    return PackReport.of(writer.path, already=False)


def _card(config: PackSsl4eoConfig, first: Scene) -> StoreCard:
    """Return what the store will say of itself, as far as the first scene tells."""
    labels = None
    if config.scheme is not None:
        labels = LabelRule(
            config.scheme,
            SCHEMES[config.scheme].names,
            float(config.threshold),
            float(config.min_valid),
        )
    with first.source().open() as raster:
        spec = stored_spec(raster, (raster.grid.height, raster.grid.width))
        groups = dict(to_stored(raster.read_native(), spec, first.name).bands)
    landcover = config.landcover and Path(config.landcover).as_posix()
    return StoreCard(
        spec=spec,
        groups=groups,
        labels=labels,
        settings={
            "verb": "pack ssl4eo",
            "root": Path(config.root).as_posix(),
            "landcover": landcover,
            "max_gap_days": float(config.max_gap_days),
        },
        provenance={"eofm": eofm.__version__, "synthetic": _is_synthetic(Path(config.root))},
    )


def _is_synthetic(root: Path) -> bool:
    """Whether `root` says of itself that it was made up, as `eofm world` does in its world.json."""
    try:
        card = json.loads((root / "world.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and card.get("synthetic") is True


def _check_units(scenes: Sequence[Scene]) -> None:
    """Look at some scenes, spread evenly: what lies in this layout need not be SSL4EO-S12."""
    for scene in scenes[:: max(1, -(-len(scenes) // _LOOKED_AT))]:
        with scene.source().open() as raster:
            doubt = find_doubt(raster)
        if doubt is not None:
            raise PixelError(
                doubt.problem,
                found=doubt.found,
                expected=doubt.expected,
                where=scene.folder,
                remedy="pack scenes of another unit with `eofm pack tiles`, where it can be stated",
            )


def _find_maps(config: PackSsl4eoConfig, scenes: Sequence[Scene]) -> dict[str, LandCoverMap]:
    """Return scene name -> its map, for the scenes that have one.

    A Sentinel-2 scene has the map of its own name. A Sentinel-1 scene takes that of the nearest
    Sentinel-2 season of its place.
    """
    if config.landcover is None or config.scheme is None:
        return {}
    root, scheme = Path(config.landcover), SCHEMES[config.scheme]
    seasons: dict[str, list[str]] = {}
    for file in sorted(root.glob("*/*.tif")):
        seasons.setdefault(file.parent.name, []).append(file.stem)
    found = {}
    for scene in scenes:
        there = seasons.get(scene.location, [])
        season: str | None = scene.season
        if scene.sensor is Sensor.S1_GRD:
            season = nearest_season(scene.require_date(), there, config.max_gap_days)
        if season in there:
            found[scene.name] = LandCoverMap(root / scene.location / f"{season}.tif", scheme)
    if not found:
        raise LabelError(
            "no scene has a land-cover map",
            found=f"{sum(map(len, seasons.values()))} maps in {len(seasons)} folders",
            expected=f"maps such as {scenes[0].name}.tif",
            where=root,
            remedy="give the folder with one subfolder per place, or leave --landcover out",
        )
    return found


def _pack_scene(scene: Scene, maps: LandCoverMap | None, writer: StoreWriter) -> bool:
    """Commit a scene; return False if it has no valid pixel, as the void ones of SSL4EO-S12."""
    card = writer.card
    with scene.source().open() as raster:
        _check_size(raster, card)
        imagery = to_stored(raster.read_native(), card.spec, scene.name)
        if not bool(imagery.valid.any()):
            return False
        longitude, latitude = raster.grid.centre()
        entry = Entry(
            id=scene.name,
            location=scene.location,
            season=scene.season,
            longitude=longitude,
            latitude=latitude,
            date="" if scene.date is None else scene.date.isoformat(timespec="seconds"),
            source=scene.name,
            source_unit=UNITS[scene.sensor].value,
        )
        if card.labels is not None:
            entry = entry.unlabelled(card.labels)
            if maps is not None:
                with maps.over(raster.grid, scene.name) as view:
                    codes = view.read(Window(0, 0, *card.size))
                entry = entry.labelled(codes, card.labels)
        writer.append(entry, imagery)
    return True


def _check_size(raster: OpenRaster, card: StoreCard) -> None:
    size = (raster.grid.height, raster.grid.width)
    if size != card.size:
        raise RasterError(
            "a scene has another size than the first one",
            found=f"{size[0]} x {size[1]} pixels",
            expected=f"{card.size[0]} x {card.size[1]} pixels",
            where=raster.source.name,
            remedy="pack scenes of another size into another store",
        )
