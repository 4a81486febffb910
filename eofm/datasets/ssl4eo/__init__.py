"""SSL4EO-S12 v1 (arXiv 2211.07044): a quarter of a million places in four seasons.

The layout of its folders is told in `eofm.datasets.ssl4eo.folders`, that of its labels,
SSL4EO-S12-ML, in `eofm.datasets.ssl4eo.folders`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.base import (
    Dataset,
    FolderLayout,
    Packing,
    check_labels,
    check_sensors,
    check_workers,
)
from eofm.datasets.check import CheckConfig, Described
from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = [
    "DATASET",
    "FOLDERS",
    "PLACES",
    "SEASONS",
    "SENSOR_NAMES",
    "SIZE",
    "UNITS",
    "PackSsl4eoConfig",
    "SensorWord",
]

PLACES: Final = 251_079
SEASONS: Final = 4
SIZE: Final = (264, 264)
FOLDERS: Final = {Sensor.S1_GRD: "s1", Sensor.S2_L1C: "s2c", Sensor.S2_L2A: "s2a"}
UNITS: Final = {Sensor.S1_GRD: Unit.DB, Sensor.S2_L1C: Unit.DN, Sensor.S2_L2A: Unit.DN}

SensorWord = Literal["s1-grd", "s2-l1c", "s2-l2a", "s1", "s2c", "s2a"]
SENSOR_NAMES: Final[Mapping[str, SensorWord]] = {
    **{"s2c": "s2-l1c", "s2a": "s2-l2a", "s1": "s1-grd"},  # as the folders are called
    **{"s2-l1c": "s2-l1c", "s2-l2a": "s2-l2a", "s1-grd": "s1-grd"},
}


@dataclass(frozen=True)
@checked_settings
class PackSsl4eoConfig:
    """Pack a folder in the layout of SSL4EO-S12: ROOT/s2c/0000001/SEASON/B1.tif and so on.

    Args:
        root: The folder that holds s1, s2c or s2a.
        out: Folder of the packed store. An interrupted run resumes where it stopped.
        sensor: Which of the three to pack: s1-grd, s2-l1c or s2-l2a, or by its folder s1, s2c or
            s2a.
        sensors: Several of them, as in s2c s1 or s2-l1c s1-grd, each into a store OUT/SENSOR. The
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
    sensor: SensorWord | None = None
    sensors: str | None = dataclasses.field(default=None, metadata={"list": True})
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
        check_sensors(self.sensor, self.sensors, SENSOR_NAMES)
        if self.sensor is not None:
            object.__setattr__(self, "sensor", SENSOR_NAMES[self.sensor])
        check_labels(self.landcover, self.scheme, self.threshold, self.min_valid)
        if self.labels is not None and self.landcover is not None:
            raise ConfigError(
                "labels come from a file or from maps, not from both",
                found=f"labels={self.labels}, landcover={self.landcover}",
                remedy="leave one of them out",
            )
        if not self.max_gap_days >= 0:
            raise ConfigError("max_gap_days must not be negative", found=self.max_gap_days)
        check_workers(self.workers)


def _is_ssl4eo(root: Path) -> bool:
    return any((root / folder).is_dir() for folder in FOLDERS.values())


def _describe(root: Path, config: CheckConfig) -> Described:
    from eofm.datasets.ssl4eo.folders import describe

    return describe(root, config)


DATASET: Final = Dataset(
    name="ssl4eo",
    title="SSL4EO-S12",
    packing=Packing(
        "pack a folder in the layout of SSL4EO-S12",
        PackSsl4eoConfig,
        "eofm.datasets.ssl4eo.pack:pack_ssl4eo",
        (
            "eofm pack ssl4eo --root DIR --sensor s2-l1c --landcover DIR/dw \\",
            "    --scheme dynamic-world --out STORE",
            "eofm pack ssl4eo --root DIR --sensors s2c s1 --workers 8 --verify --stats --out OUT",
        ),
    ),
    layout=FolderLayout(_is_ssl4eo, _describe),
    cards=("ssl4eo-s12", "ssl4eo-s12-ml"),
)
