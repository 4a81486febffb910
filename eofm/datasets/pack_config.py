"""Settings of `eofm pack`. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from eofm.contract.spec import UNITS, Sensor, Unit
from eofm.datasets.place_pattern import check_place
from eofm.errors import ConfigError

SensorName = Literal["s1-grd", "s1-rtc", "s2-l1c", "s2-l2a", "rgb", "naip"]
UnitName = Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"]
Ssl4eoSensor = Literal["s1-grd", "s2-l1c", "s2-l2a"]
SSL4EO_SENSORS: Final[Mapping[str, Ssl4eoSensor]] = {
    **{"s2c": "s2-l1c", "s2a": "s2-l2a", "s1": "s1-grd"},  # as the folders are called
    **{"s2-l1c": "s2-l1c", "s2-l2a": "s2-l2a", "s1-grd": "s1-grd"},
}

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class PackTilesConfig:
    """Cut a folder of GeoTIFFs into windows and pack them, with labels from a land-cover map.

    Args:
        images: Folder of GeoTIFFs: one multi-band file per image, or one file per band whose name
            is the band or ends in it, as in B02.tif or T32UPU_B02.tif. Subfolders are searched.
        sensor: Sensor and product level of the images.
        unit: Unit of the values in the files: dn is reflectance x 10000; dn-offset1000 is the
            same + 1000 (processing baseline 04.00 and later); Sentinel-1 is db or power.
        out: Folder of the packed store. An interrupted run goes on where it stopped.
        landcover: Land-cover map: a GeoTIFF, a folder of them (the map with an image's own name,
            else all that overlap it), a STAC item list (.json), or polygons (.gpkg, .geojson,
            .shp). Without one the store is unlabelled.
        scheme: Class codes of the map: dynamic-world, worldcover, esri, terramesh, corine,
            corine-grid, or a .yaml file of your own. Needed with a map.
        window: Side of the windows, in pixels of the finest band.
        stride: Step from window to window; without it, the side of a window.
        bands: Bands of a multi-band file in stored order, as in [B02,B03,B04,B08]; of files per
            band, those to read. Without it, what the files say, else all bands of the sensor.
        unit_of: Unit of single files, by a pattern of their names, where it is not `unit`.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*, where `*`
            stands for any text and `?` for one character. Without it, images whose footprints
            overlap are one place. Training and held-out images are divided by place.
        threshold: Share of the valid map pixels from which on a class counts as present. 0 means
            any pixel.
        min_valid: Share of the window's measured pixels for which the map must name a class; below
            it the window is unlabelled.
        dates: Where the maps' file names tell the date, as in _%Y%m%d. STAC items state it.
        scene_dates: The same for the names of the images; without it, their tags.
        max_gap_days: Take maps at most so many days from the image, the nearest first.
        asset: Which asset of a STAC item is the map; without it, the only GeoTIFF.
        field: Field of the polygons that holds their class: codes of the scheme, or names of its
            classes. Needs the extra: pip install "eofm[geo]".
        min_pixels: Share of a window's image pixels that must be valid; below it the window is
            left out.
        allow_unlabelled: Pack images that no map covers, unlabelled, rather than refuse them.
        workers: How many threads read and decode. Their number changes no byte of the store.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    images: str
    sensor: SensorName
    unit: UnitName
    out: str
    landcover: str | None = None
    scheme: str | None = None
    window: int = 264
    stride: int | None = None
    bands: list[str] | None = None
    unit_of: dict[str, UnitName] = dataclasses.field(default_factory=dict)
    place: str | None = None
    threshold: float = 0.0
    min_valid: float = 0.25
    dates: str | None = None
    scene_dates: str | None = None
    max_gap_days: float | None = None
    asset: str | None = None
    field: str | None = None
    min_pixels: float = 0.5
    allow_unlabelled: bool = False
    workers: int = 1
    verify: bool = dataclasses.field(default=False, metadata={"flag": True})
    stats: bool = dataclasses.field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        for unit in (self.unit, *self.unit_of.values()):
            check_unit(self.sensor, unit)
        _check_labels(self.landcover, self.scheme, self.threshold, self.min_valid)
        if self.window < 1 or (self.stride is not None and self.stride < 1):
            raise ConfigError(
                "window and stride must be positive",
                found=f"window={self.window}, stride={self.stride}",
            )
        _check_share("min_pixels", self.min_pixels)
        check_place(self.place)
        _check_map_options(self)
        check_workers(self.workers)


@dataclass(frozen=True)
class PackSsl4eoConfig:
    """Pack a folder in the layout of SSL4EO-S12: ROOT/s2c/0000001/SEASON/B1.tif and so on.

    Args:
        root: The folder that holds s1, s2c or s2a.
        out: Folder of the packed store. An interrupted run goes on where it stopped.
        sensor: Which of the three to pack: s1-grd, s2-l1c or s2-l2a.
        sensors: Several of them, as in s2c,s1 or s2-l1c,s1-grd, each into a store OUT/SENSOR. The
            table OUT/rows.parquet says which images belong together: for each scene of the first
            one, those of the others that are nearest in time, within max_gap_days.
        landcover: Folder of maps LANDCOVER/0000001/SEASON.tif. A scene without a map is packed
            unlabelled. Sentinel-1 scenes take the map of the nearest Sentinel-2 season.
        labels: The file ssl4eo_multilabel.json of SSL4EO-S12-ML, or a part of it, instead of maps.
            Scenes without an entry, or with an empty one, are packed unlabelled.
        labels_partial: Do not hold the counts of a large label file against the published ones.
        ids: File with one place per line, such as the published 50k_ids_random.csv; the others are
            left out. A file void_ids.csv in ROOT names places that are left out in any case.
        require: With `all`, every listed place must be there with four seasons and every scene be
            whole. With `readable`, what is missing is counted, and scenes that cannot be read are
            passed over and listed in the store with the reason.
        workers: How many processes read and write. Their number changes no byte of the store.
        scheme: Class codes of the maps, as in `eofm labels`. Needed with maps.
        threshold: Share of the valid map pixels from which on a class counts as present. 0 means
            any pixel.
        min_valid: Share of the scene's measured pixels for which the map must name a class; below
            it the scene is unlabelled.
        max_gap_days: Sentinel-1 scenes farther than this from every Sentinel-2 season are
            unlabelled.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    root: str
    out: str
    sensor: Ssl4eoSensor | None = None
    sensors: str | None = None
    landcover: str | None = None
    scheme: str | None = None
    labels: str | None = None
    labels_partial: bool = False
    ids: str | None = None
    require: Literal["readable", "all"] = "readable"
    threshold: float = 0.0
    min_valid: float = 0.25
    max_gap_days: float = 30.0
    workers: int = 1
    verify: bool = dataclasses.field(default=False, metadata={"flag": True})
    stats: bool = dataclasses.field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        check_sensors(self.sensor, self.sensors, SSL4EO_SENSORS)
        _check_labels(self.landcover, self.scheme, self.threshold, self.min_valid)
        if self.labels is not None and self.landcover is not None:
            raise ConfigError(
                "labels come from a file or from maps, not from both",
                found=f"labels={self.labels}, landcover={self.landcover}",
                remedy="leave one of them out",
            )
        if not self.max_gap_days >= 0:
            raise ConfigError("max_gap_days must not be negative", found=self.max_gap_days)
        check_workers(self.workers)


def check_workers(workers: int) -> None:
    """Refuse a number of workers below one."""
    if workers < 1:
        raise ConfigError("at least one worker is needed", found=workers)


def split_sensors(text: str, names: Mapping[str, Name]) -> tuple[Name, ...]:
    """Return the sensors of a list such as `s2c,s1`.

    Args:
        text: Names with commas between them.
        names: Every name that may be given -> its sensor.

    Raises:
        ConfigError: If one is unknown, or given twice.
    """
    given = [word.strip() for word in text.split(",")]
    sensors = tuple(names[word] for word in given if word in names)
    if len(set(sensors)) < len(given):
        raise ConfigError(
            "sensors are a list of different names with commas between them",
            found=text,
            expected=" | ".join(names),
        )
    return sensors


def check_sensors(sensor: str | None, sensors: str | None, names: Mapping[str, str]) -> None:
    """Refuse settings that name no sensor, or one and several at once."""
    if (sensor is None) == (sensors is None):
        raise ConfigError(
            "say which sensor to pack, or which sensors",
            found=f"sensor={sensor}, sensors={sensors}",
            remedy=f"--sensor {next(iter(names.values()))}, or "
            f"--sensors {','.join(dict.fromkeys(names.values()))}",
        )
    if sensors is not None:
        split_sensors(sensors, names)


def check_unit(sensor: str, unit: str) -> None:
    """Refuse a unit in which images of a sensor never are."""
    possible = UNITS[Sensor(sensor)]
    if Unit(unit) not in possible:
        raise ConfigError(
            f"{sensor} is never in unit {unit}",
            found=unit,
            expected=" | ".join(sorted(possible)),
            remedy="state the unit the files are in",
        )


def _check_labels(
    landcover: str | None, scheme: str | None, threshold: float, min_valid: float
) -> None:
    if (landcover is None) != (scheme is None):
        raise ConfigError(
            "a land-cover map and its scheme belong together",
            found=f"landcover={landcover}, scheme={scheme}",
            remedy="give both, or neither for an unlabelled store",
        )
    _check_share("threshold", threshold)
    _check_share("min_valid", min_valid)


def _check_map_options(config: PackTilesConfig) -> None:
    names = ("dates", "scene_dates", "max_gap_days", "asset", "field")
    given = [name for name in names if getattr(config, name) is not None]
    if given and config.landcover is None:
        raise ConfigError(
            "settings that mean nothing without a land-cover map",
            found=", ".join(f"{name}={getattr(config, name)}" for name in given),
            remedy="state --landcover and --scheme, or leave them out",
        )
    if config.max_gap_days is not None and not config.max_gap_days >= 0:
        raise ConfigError("max_gap_days must not be negative", found=config.max_gap_days)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a share", found=value, expected="0 to 1")
