"""Sentinel-1, Sentinel-2, aerial and RGB: bands, wavelengths, native resolution, statistics.

Band order is the file order of SSL4EO-S12 (arXiv 2211.07044), which the SoftCon weights expect:
B01 .. B08, B8A, B09, B10, B11, B12. Wavelengths and resolutions of Sentinel-2A are from ESA's
Sentinel-2 spectral response functions; Sentinel-1 is C band at 5.405 GHz (5.55 cm).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from eofm.contract.spec import Sensor, Unit, stated_names
from eofm.errors import SpecError


@dataclass(frozen=True)
class Band:
    """One band: canonical name, the words for it, centre wavelength in nm, native GSD in m.

    The words are the common names of the STAC extension `eo` (2.0), the names of ESA's and USGS's
    product guides (HLS: `NIR_Narrow`) and of Google Earth Engine (`Red Edge 4`), in lower case
    without separators. A word may belong to several bands; it then names none of them.
    """

    name: str
    words: tuple[str, ...]
    wavelength_nm: float
    gsd: float


_C_BAND_NM = 5.55e7  # 5.405 GHz
_EDGE = ("rededge", "vegetationrededge")

BANDS: Final[Mapping[str, Band]] = {
    band.name: band
    for band in (
        Band("B01", ("coastal", "coastalaerosol", "ultrablue"), 442.7, 60),
        Band("B02", ("blue",), 492.4, 10),
        Band("B03", ("green",), 559.8, 10),
        Band("B04", ("red",), 664.6, 10),
        Band("B05", (*_EDGE, "rededge1", "rededge071", "re1"), 704.1, 20),
        Band("B06", (*_EDGE, "rededge2", "rededge075", "re2"), 740.5, 20),
        Band("B07", (*_EDGE, "rededge3", "rededge078", "re3"), 782.8, 20),
        Band("B08", ("nir", "nirbroad", "broadnir", "nearinfrared"), 832.8, 10),
        Band("B8A", ("nir08", "nirnarrow", "narrownir", "rededge4", "re4"), 864.7, 20),
        Band("B09", ("nir09", "watervapour", "watervapor"), 945.1, 60),
        Band("B10", ("cirrus", "swircirrus"), 1373.5, 60),
        Band("B11", ("swir", "swir16", "swir1"), 1613.7, 20),
        Band("B12", ("swir", "swir22", "swir2"), 2202.4, 20),
        Band("VV", (), _C_BAND_NM, 10),
        Band("VH", (), _C_BAND_NM, 10),
        Band("R", ("red",), 664.6, 10),
        Band("G", ("green",), 559.8, 10),
        Band("B", ("blue",), 492.4, 10),
        Band("N", ("nir", "nearinfrared"), 832.8, 10),
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


# --------------------------------------------------------------------------------- names

_CODE: Final = re.compile(r"(?:b|band)(?:0?([1-9])|(1[0-2])|0?(8a))")
# What products write around the name of a band: resolution, wavelength, platform and level,
# calibration, composite, date and tile. Statistics that are no measurement (std, count) are not
# among it, nor is an index: `B8_B4` stays a name that nobody knows.
_WAVELENGTH: Final = re.compile(r"(central wavelength)?\s*\d{3,4}(\.\d+)?\s*nm\b")
_AROUND: Final = re.compile(
    r"\d{1,3}m|raw|sentinel[12]?[abc]?|s[12][abc]?|msi(l1c|l2a)?|l1c|l2a|grd|rtc|iw|hls|s30|sr|toa|boa"
    r"|reflectance|backscatter|(sigma|gamma)0?|linear|power|db|median|mean|medoid|mosaic|composite"
    r"|\d{8}(t\d{6})?|t?\d{2}[a-z]{3}|n\d{4}|r\d{3}"
)
_PLATFORM: Final = re.compile(r"\bsentinel[ _-]?([12][abc]?)(?=[^a-z0-9]|$)")
# The bands of Landsat's collection 2: its SR_B5 is near infrared, and B05 is none.
_LANDSAT: Final = re.compile(r"(?<![a-z])S[RT]_B\d", re.IGNORECASE)
_SEPARATOR: Final = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=8192)
def band_candidates(name: str, sensor: Sensor | None = None) -> tuple[str, ...]:
    """Return the bands that a name can mean: none if it is unknown, several if it is ambiguous.

    Upper and lower case, leading zeros and separators do not count, nor does what products write
    around a name. Where it holds several words, as in `B04 - Red`, all of them have to agree.

    Args:
        name: As a file, a product or a user spells it.
        sensor: Whose bands; None for those of every sensor.

    >>> [band_candidates(n, Sensor.S2_L2A) for n in ("b4", "nir08", "S2_B8a_20m", "Band 4 (665 nm)")]
    [('B04',), ('B8A',), ('B8A',), ('B04',)]
    >>> band_candidates("rededge", Sensor.S2_L2A), band_candidates("NDVI")
    (('B05', 'B06', 'B07'), ())
    """
    if _LANDSAT.search(name):
        return ()
    text = _PLATFORM.sub(r"s\1", _WAVELENGTH.sub(" ", name.casefold().strip()))
    parts = [part for part in _SEPARATOR.split(text) if part and not _AROUND.fullmatch(part)]
    if len(parts) > 1 and parts[0].isdecimal():
        parts = parts[1:]  # Earth Engine's toBands() numbers the images of a collection
    bands = SENSOR_BANDS[sensor] if sensor else tuple(BANDS)
    found = _agreeing(tuple(parts[:6]), bands) if len(parts) <= 6 else frozenset()
    return tuple(band for band in bands if band in found)


def _agreeing(parts: tuple[str, ...], bands: tuple[str, ...]) -> frozenset[str]:
    """Return what all words of a name can mean, a word being one part or several of them."""
    if not parts:
        return frozenset()
    found = _meant("".join(parts), bands)
    for cut in range(1, len(parts)):
        first = _meant("".join(parts[:cut]), bands)
        if first:
            found |= first & _agreeing(parts[cut:], bands)
    return found


def _meant(word: str, bands: tuple[str, ...]) -> frozenset[str]:
    code = _CODE.fullmatch(word)
    if code:
        number = code[1] or code[2]
        word = f"B{int(number):02d}" if number else "B8A"
        return frozenset({word} & set(bands))
    return frozenset(b for b in bands if word == b.lower() or word in BANDS[b].words)


def canonical_band(name: str, sensor: Sensor | None = None) -> str:
    """Return the canonical name of a band: `B1`, `b01`, `coastal` and `S2_B01_60m` are `B01`.

    Args:
        name: As a file, a product or a user spells it.
        sensor: Whose words count: `red` is B04 of Sentinel-2 and R of an aerial image. A name that
            only bands of other sensors have is theirs.

    Raises:
        SpecError: If no band has that name, or several have; the message offers what it can mean.
    """
    found = band_candidates(name, sensor) or band_candidates(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(
            f"{name!r} can mean several bands",
            found=name,
            expected=", ".join(found),
            remedy=f"name the one that is meant, as in {found[0]!r}",
        )
    bands = SENSOR_BANDS[sensor] if sensor else tuple(BANDS)
    near = difflib.get_close_matches(name.upper(), bands, n=1)
    near = near or difflib.get_close_matches(name.lower(), _words(bands), n=1)
    raise SpecError(
        f"no band is called {name!r}",
        found=name,
        expected=", ".join(bands),
        remedy=f"did you mean {near[0]!r}?" if near else None,
    )


def _words(bands: Sequence[str]) -> list[str]:
    words = Counter(word for band in bands for word in BANDS[band].words)
    return [word for word, count in words.items() if count == 1]


def canonical_bands(names: Sequence[str], sensor: Sensor) -> tuple[str, ...]:
    """Return canonical names, checked to be bands of `sensor`, each once.

    Args:
        names: As a user states them. One text is taken for one name, not for its letters; with
            commas, for several.
        sensor: Whose bands.

    Raises:
        SpecError: If a name is unknown, ambiguous, repeated, or not a band of the sensor, or the
            names have no order.
    """
    if isinstance(names, str):
        names = [names] if band_candidates(names, sensor) else names.split(",")
    elif isinstance(names, (set, frozenset)):
        names = stated_names(names)  # refuses it
    else:
        names = list(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise SpecError(
            "bands are stated by name",
            found=names,
            expected=", ".join(SENSOR_BANDS[sensor]),
            remedy="leave them out to read what there is, or name them, as in "
            f"bands={[SENSOR_BANDS[sensor][0]]}",
        )
    bands = tuple(canonical_band(name, sensor) for name in names)
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
