"""Settings of the verbs for known data sets. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from eofm.datasets.pack_config import (
    SensorName,
    UnitName,
    check_sensors,
    check_unit,
    check_workers,
)
from eofm.datasets.place_pattern import check_place
from eofm.errors import ConfigError

BigEarthNetSensor = Literal["s2-l2a", "s1-grd"]
BIGEARTHNET_SENSORS: Final[Mapping[str, BigEarthNetSensor]] = {
    "s2-l2a": "s2-l2a",
    "s1-grd": "s1-grd",
}


@dataclass(frozen=True)
class PackBigEarthNetConfig:
    """Pack the patches of BigEarthNet v1 or v2, with official labels and splits.

    Args:
        root: The folder that holds BigEarthNet-v1.0 and BigEarthNet-S1-v1.0, or BigEarthNet-S2 and
            BigEarthNet-S1.
        out: Folder of the packed store. An interrupted run goes on where it stopped.
        sensor: Which half of the pairs; without it, and without sensors, s2-l2a.
        sensors: Both, as in s2-l2a,s1-grd, each into a store OUT/SENSOR. The table
            OUT/rows.parquet says which patches belong together.
        metadata: Folder of the official lists (train.csv and so on, or metadata.parquet). Without
            it they are looked for in root, root/splits and root/metadata.
        classes: 19, or the 43 of version 1.
        split: Which split, or all; the store says of every patch in which one it is.
        excluded: Keep patches under snow, cloud or cloud shadow, which the authors leave out.
        require: With `all`, every patch that the lists name must be there and whole. With
            `readable`, those that are not there are counted, and those that cannot be read are
            passed over and listed in the store with the reason.
        workers: How many processes read and write. Their number changes no byte of the store.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    root: str
    out: str
    sensor: BigEarthNetSensor | None = None
    sensors: str | None = None
    metadata: str | None = None
    classes: Literal[19, 43] = 19
    split: Literal["train", "val", "test", "all"] = "all"
    excluded: bool = False
    require: Literal["readable", "all"] = "readable"
    workers: int = 1
    verify: bool = field(default=False, metadata={"flag": True})
    stats: bool = field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        if self.sensor is not None or self.sensors is not None:
            check_sensors(self.sensor, self.sensors, BIGEARTHNET_SENSORS)
        check_workers(self.workers)


@dataclass(frozen=True)
class PackEurosatConfig:
    """Pack the tiles of EuroSAT MS, with their class and split.

    Args:
        root: Folder of the class folders, or of train and test with these inside.
        out: Folder of the packed store. An interrupted run goes on where it stopped.
        rule: How tiles are divided; without it, as the folders are, else by longitude.
        split: Which split, or all; the store says of every tile in which one it is.
        require: With `all`, every tile must be readable; else those that are not are passed over
            and listed in the store with the reason.
        workers: How many processes read and write. Their number changes no byte of the store.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    root: str
    out: str
    rule: Literal["spatial", "stratified", "given"] | None = None
    split: Literal["train", "val", "test", "all"] = "all"
    require: Literal["readable", "all"] = "readable"
    workers: int = 1
    verify: bool = field(default=False, metadata={"flag": True})
    stats: bool = field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        check_workers(self.workers)


@dataclass(frozen=True)
class CheckConfig:
    """Look at a data set or a packed store, and say what is wrong with it.

    Args:
        path: A packed store, or a folder in the layout of SSL4EO-S12, BigEarthNet, EuroSAT,
            TerraMesh or S2-100K; for other folders of GeoTIFFs, state sensor and unit.
        sensor: Sensor and product level of a folder of GeoTIFFs.
        unit: Unit of the values of a folder of GeoTIFFs.
        bands: Their bands, as for `eofm pack tiles`.
        unit_of: Unit of single files, by a pattern of their names, where it is not `unit`.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*. Without
            it, images whose footprints overlap are one place.
        metadata: Folder of the official lists of BigEarthNet, where it is not below `path`.
        labels: The file of SSL4EO-S12-ML, to be held against the scenes.
        limit: How many images to look into, spread evenly; 0 means all. All are counted.
        json: Print the report as JSON.
    """

    path: str = field(metadata={"positional": True})
    sensor: SensorName | None = None
    unit: UnitName | None = None
    bands: list[str] | None = None
    unit_of: dict[str, UnitName] = field(default_factory=dict)
    place: str | None = None
    metadata: str | None = None
    labels: str | None = None
    limit: int = 1000
    json: bool = field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError("limit must not be negative", found=self.limit)
        if (self.sensor is None) != (self.unit is None):
            raise ConfigError(
                "sensor and unit of a folder of GeoTIFFs belong together",
                found=f"sensor={self.sensor}, unit={self.unit}",
                remedy="give both, as in --sensor s2-l1c --unit dn",
            )
        named = [n for n in ("bands", "unit_of", "place") if getattr(self, n)]
        if self.sensor is None and named:
            raise ConfigError(
                "a known data set states its images itself; of your own images, sensor and unit "
                "have to be stated",
                found=", ".join(f"--{name}" for name in named),
                remedy="add --sensor and --unit, as in --sensor s2-l1c --unit dn",
            )
        for unit in (self.unit, *self.unit_of.values()):
            if self.sensor is not None and unit is not None:
                check_unit(self.sensor, unit)
        check_place(self.place)
