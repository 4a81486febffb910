"""`eofm pack ssl4eo`: the scenes of SSL4EO-S12, with labels, into a packed store per sensor.

A Sentinel-2 scene has the labels of its own season: from a class map of its own name, or from
SSL4EO-S12-ML. A Sentinel-1 scene takes those of the Sentinel-2 season of its place that is
nearest in time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, final

from eofm.contract.spec import Sensor
from eofm.datasets.base import split_sensors
from eofm.datasets.images.packing import SensorsReport, pack_sensors
from eofm.datasets.ssl4eo import FOLDERS, SEASONS, SENSOR_NAMES, UNITS, PackSsl4eoConfig
from eofm.datasets.ssl4eo.folders import (
    LABEL_CLASSES,
    MultiLabels,
    Ssl4eoScene,
    list_scenes,
    missing_places,
    nearest_season,
    read_ids,
    read_multilabels,
    season_names,
)
from eofm.errors import LabelError, RasterError
from eofm.landcover.maps import LandCover, find_maps
from eofm.landcover.multilabel import Reason, Seen
from eofm.landcover.schemes import SCHEMES, Scheme, find_scheme
from eofm.raster.grid import Window
from eofm.raster.source import OpenRaster
from eofm.store.format import Entry, LabelRule, Plain
from eofm.store.packing import Item, ItemsReport, listed, make_card, pack_items
from eofm.store.paired import match_stores

__all__ = ["VOID_IDS", "pack_ssl4eo"]

VOID_IDS = "void_ids.csv"


def pack_ssl4eo(config: PackSsl4eoConfig) -> ItemsReport | SensorsReport:
    """Pack every scene, each band at its native resolution.

    A run that was interrupted resumes where it stopped when it is called again.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds, and what was left out; of several sensors, that of each.

    Raises:
        RasterError: If there are no scenes, or one is missing or cannot be read where all are
            required; if one of several sensors has no folder, before anything is written.
        LabelError: If labels fit no scene, do not overlap one, or hold unknown codes.
        PixelError: If the pixels cannot be those of SSL4EO-S12.
        StoreError: If `out` holds something else, or cannot be written.
    """
    if config.sensors is None:
        return _pack_sensor(config)
    sensors = split_sensors(config.sensors, SENSOR_NAMES)
    for sensor in map(Sensor, sensors):
        if not (Path(config.root) / FOLDERS[sensor]).is_dir():
            list_scenes(config.root, sensor)  # which says so now, not after the first store
    return pack_sensors(
        Path(config.out),
        sensors,
        partial(_pack_one_of, config),
        partial(match_stores, max_gap_days=config.max_gap_days),
    )


def _pack_one_of(config: PackSsl4eoConfig, sensor: str, out: Path) -> ItemsReport:
    word = SENSOR_NAMES[sensor]
    return _pack_sensor(replace(config, sensor=word, sensors=None, out=out.as_posix()))


def _pack_sensor(config: PackSsl4eoConfig) -> ItemsReport:
    assert config.sensor is not None  # noqa: S101 (the settings have checked it)
    sensor = Sensor.parse(config.sensor)
    strict = config.require == "all"
    scenes, notes = _choose(config, sensor)
    if strict and notes.incomplete:
        raise RasterError(
            "scenes are missing, and all are required",
            found="; ".join(notes.incomplete),
            where=Path(config.root) / FOLDERS[sensor],
            remedy="download them, or leave --require out",
        )
    labels = _open_labels(config, scenes)
    items = [
        Item(
            scene.name,
            UNITS[sensor],
            scene.source,
            _SceneLine(scene).entry,
            None if labels is None else labels.of(scene).put,
        )
        for scene in scenes
    ]
    card = make_card(
        items,
        None if labels is None else labels.rule,
        {
            "verb": "pack ssl4eo",
            "root": Path(config.root).as_posix(),
            "landcover": config.landcover and Path(config.landcover).as_posix(),
            **({"labels": Path(config.labels).as_posix()} if config.labels else {}),
            **({"ids": Path(config.ids).as_posix()} if config.ids else {}),
            **({} if labels is None else labels.settings()),
            "max_gap_days": float(config.max_gap_days),
        },
        {"synthetic": _is_synthetic(Path(config.root))},
    )
    packed = pack_items(items, card, config.out, strict=strict, workers=config.workers)
    packed = packed.then(verify=config.verify, stats=config.stats, workers=config.workers)
    return ItemsReport(packed, (*notes.said(), *(labels.said(scenes) if labels else [])))


# ------------------------------------------------------------------------------- choosing


@dataclass(frozen=True)
class _Notes:
    """What is not there."""

    incomplete: tuple[str, ...]
    void: int

    def said(self) -> list[str]:
        """Return a sentence for each thing that is not there."""
        void = [f"{self.void} scenes of places that are listed as void, left out"]
        return [*self.incomplete, *(void if self.void else [])]


def _choose(config: PackSsl4eoConfig, sensor: Sensor) -> tuple[list[Ssl4eoScene], _Notes]:
    """Return the scenes wanted, without those of void places, and what is missing."""
    void_file = Path(config.root) / VOID_IDS
    void = set(read_ids(void_file)) if void_file.is_file() else set()
    wanted = None if config.ids is None else read_ids(config.ids)
    listed = list_scenes(config.root, sensor, wanted)
    scenes = [scene for scene in listed if scene.location not in void]
    incomplete = []
    if wanted is not None:
        absent = [p for p in missing_places(config.root, sensor, wanted) if p not in void]
        if absent:
            incomplete.append(
                f"{len(absent)} of {len(wanted)} listed places are not there: "
                + ", ".join(absent[:5])
            )
    counts = Counter(scene.location for scene in scenes)
    short = [place for place, count in counts.items() if count < SEASONS]
    if short:
        incomplete.append(
            f"{len(short)} of {len(counts)} places have fewer than {SEASONS} seasons: "
            + ", ".join(short[:5])
        )
    return scenes, _Notes(tuple(incomplete), len(listed) - len(scenes))


def _is_synthetic(root: Path) -> bool:
    """Whether `root` says of itself that it was made up, as `eofm world` does in its world.json."""
    try:
        card = json.loads((root / "world.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and card.get("synthetic") is True


# -------------------------------------------------------------------------------- labels


@dataclass(frozen=True)
class _Label:
    """Where the labels of one scene are: in a map, or known already.

    Args:
        rule: How the store is labelled.
        file: The class map.
        scheme: Meaning of its codes.
        multi_hot: The labels; with neither, the scene is unlabelled.
    """

    rule: LabelRule
    file: Path | None = None
    scheme: Scheme | None = None
    multi_hot: tuple[int, ...] | None = None

    def put(self, entry: Entry, raster: OpenRaster, seen: Seen) -> Entry:
        """Return the row of the index with the labels."""
        if self.file is not None and self.scheme is not None:
            grid = raster.grid
            with LandCover(find_maps([str(self.file)]), self.scheme).on(grid, entry.id) as view:
                if view.reason is not Reason.KNOWN:
                    raise LabelError(
                        "the land-cover map of a scene does not overlap it",
                        expected="a map of the same place",
                        where=f"{entry.id} and {self.file}",
                        remedy="check the CRS of both, or remove the map: the scene is unlabelled",
                    )
                cover = view.cover(Window(0, 0, grid.height, grid.width), seen, entry.id)
            return entry.labelled(cover, self.rule)
        return (
            entry.unlabelled(self.rule) if self.multi_hot is None else listed(entry, self.multi_hot)
        )


@dataclass(frozen=True)
class _SceneLine:
    """Makes the line of a scene in the index."""

    scene: Ssl4eoScene

    def entry(self, raster: OpenRaster) -> Entry:
        """Return the line, without labels, with what the opened files say of the place."""
        scene = self.scene
        longitude, latitude = raster.grid.centre()
        return Entry(
            id=scene.name,
            location=scene.location,
            season=scene.season,
            longitude=longitude,
            latitude=latitude,
            date="" if scene.date is None else scene.date.isoformat(timespec="seconds"),
            source=scene.name,
            source_unit=UNITS[scene.sensor].value,
        )


class _Labels(Protocol):
    """Where labels come from."""

    @property
    def rule(self) -> LabelRule:
        """What the store says of them."""

    def of(self, scene: Ssl4eoScene) -> _Label:
        """Return where those of a scene are."""

    def settings(self) -> dict[str, Plain]:
        """Return what else decides labels, for the settings of the store."""

    def said(self, scenes: Sequence[Ssl4eoScene]) -> list[str]:
        """Return what the user should know of the labels."""


def _open_labels(config: PackSsl4eoConfig, scenes: Sequence[Ssl4eoScene]) -> _Labels | None:
    if config.labels is not None:
        labels = read_multilabels(config.labels, partial=config.labels_partial)
        return _Listed(config, labels, scenes)
    if config.landcover is not None and config.scheme is not None:
        return _Mapped(config, scenes)
    return None


def _season_for(
    scene: Ssl4eoScene, config: PackSsl4eoConfig, labelled: Sequence[str]
) -> str | None:
    """Return the Sentinel-2 season whose labels a Sentinel-1 scene takes.

    It is the nearest of all seasons of the place, be it labelled or not.
    """
    seasons = {*season_names(config.root, scene.location), *labelled}
    return nearest_season(scene.require_date(), sorted(seasons), config.max_gap_days)


@final
class _Mapped:
    """Labels from one class map per season.

    Raises:
        LabelError: If no scene has a map.
    """

    def __init__(self, config: PackSsl4eoConfig, scenes: Sequence[Ssl4eoScene]) -> None:
        assert config.landcover is not None  # noqa: S101 (the caller has checked both)
        assert config.scheme is not None  # noqa: S101
        self._scheme = scheme = find_scheme(config.scheme)
        self.rule = LabelRule(
            scheme.name, scheme.names, float(config.threshold), float(config.min_valid)
        )
        root = Path(config.landcover)
        seasons: dict[str, list[str]] = {}
        for file in sorted(root.glob("*/*.tif")):
            seasons.setdefault(file.parent.name, []).append(file.stem)
        self._maps: dict[str, Path] = {}
        for scene in scenes:
            there = seasons.get(scene.location, [])
            season: str | None = scene.season
            if scene.sensor is Sensor.S1_GRD:
                season = _season_for(scene, config, there)
            if season in there:
                self._maps[scene.name] = root / scene.location / f"{season}.tif"
        if not self._maps:
            raise LabelError(
                "no scene has a land-cover map",
                found=f"{sum(map(len, seasons.values()))} maps in {len(seasons)} folders",
                expected=f"maps such as {scenes[0].name}.tif",
                where=root,
                remedy="give the folder with one subfolder per place, or leave --landcover out",
            )

    def of(self, scene: Ssl4eoScene) -> _Label:
        """Return the map of the scene."""
        return _Label(self.rule, file=self._maps.get(scene.name), scheme=self._scheme)

    def settings(self) -> dict[str, Plain]:
        """Tell a scheme of the user's own by its codes: published ones have their name."""
        own = self._scheme.name not in SCHEMES
        return {"scheme_digest": self._scheme.digest} if own else {}

    def said(self, scenes: Sequence[Ssl4eoScene]) -> list[str]:
        """Nothing: the report counts the labels."""
        return []


@final
class _Listed:
    """Labels from the file of SSL4EO-S12-ML.

    Raises:
        LabelError: If the file has no entry for any scene.
    """

    def __init__(
        self, config: PackSsl4eoConfig, labels: MultiLabels, scenes: Sequence[Ssl4eoScene]
    ) -> None:
        # the file says which classes are present, and not how much they cover or of what
        self.rule = LabelRule("ssl4eo-s12-ml", LABEL_CLASSES, 0.0, 0.0)
        self._labels = labels
        self._seasons: Mapping[str, str | None] = {
            scene.name: self._season(config, scene) for scene in scenes
        }
        if not any(self._seasons.values()):
            raise LabelError(
                "the label file has no entry for any of the scenes",
                found=f"seasons such as {next(iter(labels.seasons), 'none')}/"
                + next(iter(next(iter(labels.seasons.values()), {})), "none"),
                expected=f"seasons such as {scenes[0].name}",
                where=labels.path,
            )

    def _season(self, config: PackSsl4eoConfig, scene: Ssl4eoScene) -> str | None:
        labels, place = self._labels, scene.location
        if scene.sensor is Sensor.S1_GRD:
            listed = list(labels.seasons.get(place, ()))
            season = _season_for(scene, config, listed)
            # an L2A name, where there are no L1C folders, stands for the same overpass
            return season and labels.season_of(place, season, Sensor.S2_L2A)
        return labels.season_of(place, scene.season, scene.sensor)

    def of(self, scene: Ssl4eoScene) -> _Label:
        """Look the scene up."""
        found = self._labels.multi_hot(scene.location, self._seasons[scene.name])
        return _Label(self.rule, multi_hot=found)

    def settings(self) -> dict[str, Plain]:
        """Nothing: the name of the file is there."""
        return {}

    def said(self, scenes: Sequence[Ssl4eoScene]) -> list[str]:
        """Count what was joined and what was not."""
        without = sum(season is None for season in self._seasons.values())
        here = {scene.location for scene in scenes}
        used = {f"{name.split('/')[0]}/{season}" for name, season in self._seasons.items()}
        unknown = sum(
            f"{place}/{season}" not in used
            for place in here
            for season in self._labels.seasons.get(place, ())
        )
        elsewhere = len(self._labels.seasons.keys() - here)
        said = [self._labels.describe(), f"{without} of {len(scenes)} scenes have no entry there"]
        if unknown:
            said.append(f"{unknown} entries of these places fit no scene")
        return [*said, f"{elsewhere} places of it are not here"] if elsewhere else said
