"""Settings of `eofm data check`. No heavy library is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from eofm.datasets.base import SensorName, UnitName, check_unit
from eofm.datasets.images.places import check_place
from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = ["CheckConfig"]


@dataclass(frozen=True)
@checked_settings
class CheckConfig:
    """Look at a data set or a packed store, and say what is wrong with it.

    Args:
        path: A packed store, or a folder of a known data set, such as SSL4EO-S12, BigEarthNet,
            EuroSAT, TerraMesh or S2-100K; for other folders of GeoTIFFs, state sensor and unit.
        sensor: Sensor and product level of a folder of GeoTIFFs.
        unit: Unit of their values; without it, what scale and offset of the files say.
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
        if self.sensor is None and self.unit is not None:
            raise ConfigError(
                "a unit is stated of images of which the sensor is not",
                found=f"unit={self.unit}",
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
