"""Sentinel-1, Sentinel-2, aerial and RGB: bands, wavelengths, native resolution, statistics.

Band order is the file order of SSL4EO-S12 (arXiv 2211.07044), which the SoftCon weights expect:
B01 .. B08, B8A, B09, B10, B11, B12. Wavelengths and resolutions of Sentinel-2A are from ESA's
Sentinel-2 spectral response functions; Sentinel-1 is C band at 5.405 GHz (5.55 cm).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eofm.contract.spec import Sensor, Unit
from eofm.errors import SpecError


@dataclass(frozen=True)
class Band:
    """One band: canonical name, other spellings, centre wavelength in nm, native GSD in m."""

    name: str
    aliases: tuple[str, ...]
    wavelength_nm: float
    gsd: float


_C_BAND_NM = 5.55e7  # 5.405 GHz

BANDS: Final[Mapping[str, Band]] = {
    band.name: band
    for band in (
        Band("B01", ("B1",), 442.7, 60),
        Band("B02", ("B2",), 492.4, 10),
        Band("B03", ("B3",), 559.8, 10),
        Band("B04", ("B4",), 664.6, 10),
        Band("B05", ("B5",), 704.1, 20),
        Band("B06", ("B6",), 740.5, 20),
        Band("B07", ("B7",), 782.8, 20),
        Band("B08", ("B8",), 832.8, 10),
        Band("B8A", ("B8a", "B08A"), 864.7, 20),
        Band("B09", ("B9",), 945.1, 60),
        Band("B10", (), 1373.5, 60),
        Band("B11", (), 1613.7, 20),
        Band("B12", (), 2202.4, 20),
        Band("VV", ("vv",), _C_BAND_NM, 10),
        Band("VH", ("vh",), _C_BAND_NM, 10),
        Band("R", ("red",), 664.6, 10),
        Band("G", ("green",), 559.8, 10),
        Band("B", ("blue",), 492.4, 10),
        Band("N", (), 832.8, 10),
    )
}

_L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

SENSOR_BANDS: Final[Mapping[Sensor, tuple[str, ...]]] = {
    Sensor.S2_L1C: _L1C,
    Sensor.S2_L2A: tuple(b for b in _L1C if b != "B10"),
    Sensor.S1_GRD: ("VV", "VH"),
    Sensor.S1_RTC: ("VV", "VH"),
    Sensor.RGB: ("R", "G", "B"),
    Sensor.NAIP: ("R", "G", "B", "N"),
}

_CANONICAL: Final[Mapping[str, str]] = {
    spelling: band.name for band in BANDS.values() for spelling in (band.name, *band.aliases)
}


def canonical_band(name: str) -> str:
    """Return the canonical spelling of a band: `B1` and `B01` are both `B01`.

    Raises:
        SpecError: If no band has that name; the message offers the nearest one.
    """
    try:
        return _CANONICAL[name]
    except KeyError:
        near = difflib.get_close_matches(name, list(_CANONICAL), n=1)
        raise SpecError(
            f"no band is called {name!r}",
            found=name,
            expected=", ".join(BANDS),
            remedy=f"did you mean {near[0]!r}?" if near else None,
        ) from None


def canonical_bands(names: Sequence[str], sensor: Sensor) -> tuple[str, ...]:
    """Return canonical names, checked to be bands of `sensor`, each once.

    Raises:
        SpecError: If a name is unknown, repeated, or not a band of the sensor.
    """
    bands = tuple(canonical_band(name) for name in names)
    foreign = [b for b in bands if b not in SENSOR_BANDS[sensor]]
    if foreign or len(set(bands)) != len(bands):
        raise SpecError(
            f"these are not bands of {sensor}, each once",
            found=", ".join(names),
            expected=", ".join(SENSOR_BANDS[sensor]),
        )
    return bands


@dataclass(frozen=True)
class Statistics:
    """Per-band mean and standard deviation of a data set, with their origin.

    Args:
        name: Short name, as in `STATISTICS`.
        sensor: Sensor and product level they were computed on.
        unit: Unit of the values.
        bands: Canonical band names.
        mean: Per band.
        std: Per band.
        source: Repository, paper or split they were taken from.
    """

    name: str
    sensor: Sensor
    unit: Unit
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise SpecError("statistics need one mean and one std per band", found=self.name)

    def select(self, bands: Sequence[str]) -> Statistics:
        """Return the statistics of `bands`, in that order.

        Raises:
            SpecError: If a band is missing.
        """
        missing = [b for b in bands if b not in self.bands]
        if missing:
            raise SpecError(
                f"statistics {self.name!r} do not cover every band",
                found=", ".join(self.bands),
                expected=", ".join(bands),
                remedy=f"choose others, or leave out {', '.join(missing)}",
            )
        index = [self.bands.index(b) for b in bands]
        return Statistics(
            self.name,
            self.sensor,
            self.unit,
            tuple(bands),
            tuple(self.mean[i] for i in index),
            tuple(self.std[i] for i in index),
            self.source,
        )


# fmt: off
_STATISTICS = (
    Statistics(
        "ssl4eo-s12-l1c", Sensor.S2_L1C, Unit.DN, _L1C,
        (1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7, 2318.7, 2581.0, 837.7, 22.0, 2195.2, 1537.4),
        (791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0, 1249.5, 1345.9, 577.5, 47.5, 1340.0, 1142.9),
        "SSL4EO-S12 L1C, full set: zhu-xlab/FGMAE, zhu-xlab/DeCUR, torchgeo",
    ),
    Statistics(
        "ssl4eo-s12-l1c-50k", Sensor.S2_L1C, Unit.DN, _L1C,
        (1605.57504906, 1390.78157673, 1314.8729939, 1363.52445545, 1549.44374991, 2091.74883118,
         2371.7172463, 2299.90463006, 2560.29504086, 830.06605044, 22.10351321, 2177.07172323, 1524.06546312),
        (786.78685367, 850.34818441, 875.06484736, 1138.84957046, 1122.17775652, 1161.59187054,
         1274.39184232, 1248.42891965, 1345.52684884, 577.31607053, 51.15431158, 1336.09932639, 1136.53823676),
        "SSL4EO-S12 L1C, 50k subset: zhu-xlab/SSL4EO-S12",
    ),
    Statistics(
        "ssl4eo-s12-l2a", Sensor.S2_L2A, Unit.DN, SENSOR_BANDS[Sensor.S2_L2A],
        (756.4, 889.6, 1151.7, 1307.6, 1637.6, 2212.6, 2442.0, 2538.9, 2602.9, 2666.8, 2388.8, 1821.5),
        (1111.4, 1159.1, 1188.1, 1375.2, 1376.6, 1358.6, 1418.4, 1476.4, 1439.9, 1582.1, 1460.7, 1352.2),
        "SSL4EO-S12 L2A, full set: zhu-xlab/FGMAE",
    ),
    Statistics(
        "ssl4eo-s12-grd", Sensor.S1_GRD, Unit.DB, ("VV", "VH"), (-12.59, -20.26), (5.26, 5.91),
        "SSL4EO-S12 GRD, full set: zhu-xlab/FGMAE",
    ),
    Statistics(
        "terramesh-rtc", Sensor.S1_RTC, Unit.DB, ("VV", "VH"), (-10.93, -17.329), (4.391, 4.459),
        "TerraMesh S1RTC (arXiv 2504.11172): statistics table of its reader, terramesh.py",
    ),
    Statistics(
        "imagenet", Sensor.RGB, Unit.UINT8, ("R", "G", "B"), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
        "ImageNet mean and std (0.485, 0.456, 0.406; 0.229, 0.224, 0.225) x 255: torchvision",
    ),
    Statistics(
        "sat6", Sensor.NAIP, Unit.UINT8, ("R", "G", "B", "N"),
        (112.33, 114.67, 114.19, 107.13), (54.75, 47.89, 37.13, 76.68),
        "SAT-6 train, mean and std of x / 255 (arXiv 2305.13456, its code) x 255",
    ),
)
# fmt: on

STATISTICS: Final[Mapping[str, Statistics]] = {s.name: s for s in _STATISTICS}

DEFAULT_STATISTICS: Final[Mapping[Sensor, str]] = {
    Sensor.S2_L1C: "ssl4eo-s12-l1c",
    Sensor.S2_L2A: "ssl4eo-s12-l2a",
    Sensor.S1_GRD: "ssl4eo-s12-grd",
    Sensor.S1_RTC: "terramesh-rtc",
    Sensor.RGB: "imagenet",
    Sensor.NAIP: "sat6",
}


def resolution_groups(bands: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Group bands by native ground sample distance in metres, finest first, order kept.

    >>> resolution_groups(["B01", "B02", "B05", "B08"])
    {10: ('B02', 'B08'), 20: ('B05',), 60: ('B01',)}
    """
    groups: dict[int, list[str]] = {}
    for band in bands:
        groups.setdefault(int(BANDS[band].gsd), []).append(band)
    return {gsd: tuple(groups[gsd]) for gsd in sorted(groups)}
