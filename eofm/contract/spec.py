"""Specifications of images: sensors, bands, units, normalisation, statistics.

Nothing in this module accesses pixels. A data set declares an `ImageSpec`, weights declare a
`Recipe` (`eofm.contract.recipe`), and `plan()` finds the valid path between the two. Units are
stated, never inferred from a maximum; bands are identified by name, never by number.

Sensors are Sentinel-1, Sentinel-2, aerial and RGB, with bands, wavelengths, native resolution and
statistics. Band order is the file order of SSL4EO-S12 (arXiv 2211.07044), which the SoftCon weights
expect: B01 .. B08, B8A, B09, B10, B11, B12. Wavelengths and resolutions of Sentinel-2A are from
ESA's Sentinel-2 spectral response functions; Sentinel-1 is C band at 5.405 GHz (5.55 cm).
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from numbers import Real
from operator import index
from typing import Final, Self

from eofm.errors import SpecError

__all__ = [
    "BANDS",
    "DEFAULT_STATISTICS",
    "SENSOR_BANDS",
    "STATISTICS",
    "UNITS",
    "Band",
    "ImageSpec",
    "Normalization",
    "Sensor",
    "Stated",
    "Statistics",
    "Unit",
    "are_codes",
    "are_numbers",
    "band_candidates",
    "canonical_band",
    "canonical_bands",
    "counterparts",
    "is_uncalibrated",
    "number_in",
    "resolution_groups",
    "spec_key",
    "stated_names",
    "stated_nanometres",
    "stated_size",
    "without_image_index",
    "without_image_number",
]

# --------------------------------------------------------------------------------------------- spec


class Stated(StrEnum):
    """An enumeration whose members users state by name."""

    @classmethod
    def parse(cls, text: str, what: str | None = None) -> Self:
        """Return the member with a given name.

        Args:
            text: Name, as a user writes it.
            what: Noun for the message; by default the name of the class.

        Raises:
            SpecError: If there is no such member; the message suggests the closest.
        """
        try:
            return cls(text)
        except ValueError:
            pass
        near = [repr(member.value) for member in cls._meant(str(text))]
        raise SpecError(
            f"there is no {what or cls.__name__.lower()} {str(text)!r}",
            found=text,
            expected=" | ".join(cls),
            remedy=f"did you mean {' or '.join(near)}?" if near else None,
        )

    @classmethod
    def _meant(cls, text: str) -> list[Self]:
        """Return the members that an alternative name can refer to: `sentinel-2-l2a`, `S2`, `uint16`."""
        word, plain = _letters(text), {_letters(member): member for member in cls}
        word = _OTHER_WORDS.get(word, word)
        if word in plain:
            return [plain[word]]
        begun = [member for letters, member in plain.items() if letters.startswith(word)]
        if begun and len(word) > 1:
            return begun
        return [plain[one] for one in difflib.get_close_matches(word, list(plain), n=1)]


# Names of collections, data types and other terms -> eofm's name, letters and digits only.
_OTHER_WORDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("uint16", "int16", "digitalnumber", "digitalnumbers", "counts"), "dn"),
    **dict.fromkeys(("linear", "intensity"), "power"),
    **dict.fromkeys(("decibel", "decibels"), "db"),
    **dict.fromkeys(("s2sr", "s2srharmonized", "copernicuss2srharmonized", "s2msi2a"), "s2l2a"),
    **dict.fromkeys(("s2harmonized", "copernicuss2harmonized", "s2msi1c"), "s2l1c"),
    "copernicuss1grd": "s1grd",
}


def _letters(text: str) -> str:
    """Return the letters and digits in lower case, with `sentinel` shortened to `s`."""
    return "".join(letter for letter in text.lower() if letter.isalnum()).replace("sentinel", "s")


class Sensor(Stated):
    """Sensor and product level: L1C is not L2A, GRD is not RTC."""

    S1_GRD = "s1-grd"
    S1_RTC = "s1-rtc"
    S2_L1C = "s2-l1c"
    S2_L2A = "s2-l2a"
    RGB = "rgb"
    NAIP = "naip"  # aerial red, green, blue, near infrared at 1 m or less


class Unit(Stated):
    """The unit of a pixel value.

    `DN_OFFSET1000` is a unit of its own: Sentinel-2 processing baseline 04.00 (25 January
    2022) and later, and older scenes reprocessed with it, add 1000 to every digital number.
    """

    DN = "dn"  # reflectance x 10000
    DN_OFFSET1000 = "dn-offset1000"  # reflectance x 10000 + 1000
    REFLECTANCE = "reflectance"
    UINT8 = "uint8"
    DB = "db"  # 10 log10 of backscatter power
    POWER = "power"  # backscatter power, linear
    MODEL = "model"  # normalised, as a network expects; never an input of plan()


def stated_size(size: Sequence[int]) -> tuple[int, int]:
    """Return a stated size as two ints; any integer type is accepted.

    Raises:
        SpecError: If the size is not two integers.
    """
    try:
        height, width = map(index, size)
    except (TypeError, ValueError):
        raise SpecError(
            "a size is height and width in pixels", found=size, remedy="state it, as in (64, 64)"
        ) from None
    return height, width


def stated_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return stated names as a tuple; a single string is one name, not a sequence of letters.

    Raises:
        SpecError: If they are not strings, or have no order, as in a set.
    """
    if isinstance(names, (set, frozenset)):
        raise SpecError(
            "bands have an order, but a set does not",
            found=", ".join(sorted(map(str, names))),
            remedy="state a list, in stored order",
        )
    try:
        found = (names,) if isinstance(names, str) else tuple(names)
    except TypeError:
        raise SpecError(
            "bands are stated by name", found=names, remedy='as in ("B02", "B03")'
        ) from None
    if not all(isinstance(name, str) for name in found):
        raise SpecError("bands are stated by name", found=names, remedy='as in ("B02", "B03")')
    return found


UNITS: Final[Mapping[Sensor, frozenset[Unit]]] = {
    Sensor.S1_GRD: frozenset({Unit.DB, Unit.POWER}),
    Sensor.S1_RTC: frozenset({Unit.DB, Unit.POWER}),
    Sensor.S2_L1C: frozenset({Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE}),
    Sensor.S2_L2A: frozenset({Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE}),
    Sensor.RGB: frozenset({Unit.UINT8, Unit.REFLECTANCE}),
    Sensor.NAIP: frozenset({Unit.UINT8}),
}


@dataclass(frozen=True)
class Normalization:
    """`y = (x - shift) / scale`, then optional clipping, then optional 8-bit rounding.

    Args:
        shift: Per band, in the unit of the recipe that carries it.
        scale: Per band, positive.
        source: Origin of the constants. Mandatory, because constants of unknown origin have made
            published scores incomparable.
        clip: Lower and upper bound after scaling.
        levels: Number of steps of a quantisation of [0, 1] that truncates, as a cast to an
            integer type does: 255 stands for `uint8(255 y) / 255`. Needs `clip=(0, 1)`.

    Raises:
        SpecError: If lengths differ, a scale is not positive, the source is empty, or `levels`
            comes without `clip=(0, 1)`.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    source: str
    clip: tuple[float, float] | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        # constants may be given as lists, but plans are cached by their contents
        object.__setattr__(self, "shift", tuple(self.shift))
        object.__setattr__(self, "scale", tuple(self.scale))
        if len(self.shift) != len(self.scale) or not self.shift:
            raise SpecError(
                "a normalization needs one shift and one scale per band",
                found=f"{len(self.shift)} shifts, {len(self.scale)} scales",
            )
        if not all(math.isfinite(s) and s > 0 for s in self.scale):
            raise SpecError("scales must be positive", found=self.scale)
        if not all(math.isfinite(s) for s in self.shift):
            raise SpecError("shifts must be finite", found=self.shift)
        if not (isinstance(self.source, str) and self.source.strip()):
            raise SpecError(
                "a normalization must state the source of its constants",
                remedy="name the paper, repository or data split they were computed on",
            )
        if self.levels is not None and (self.clip != (0.0, 1.0) or self.levels < 1):
            raise SpecError(
                "8-bit rounding is defined on [0, 1]",
                found=f"levels={self.levels}, clip={self.clip}",
                expected="levels >= 1 and clip=(0, 1)",
            )

    @classmethod
    def zscore(cls, mean: Sequence[float], std: Sequence[float], source: str) -> Self:
        """`(x - mean) / std`, unbounded."""
        return cls(tuple(map(float, mean)), tuple(map(float, std)), source)

    @classmethod
    def two_sigma(
        cls, mean: Sequence[float], std: Sequence[float], source: str, *, quantise: bool = True
    ) -> Self:
        """Map mean - 2 std .. mean + 2 std to [0, 1], clip, and round to 8 bits.

        This is what the README of the SoftCon weights prescribes (arXiv 2405.20462,
        zhu-xlab/softcon): scale to 0..255, clip, cast to `uint8`, divide by 255.

        Args:
            mean: Per band.
            std: Per band.
            source: Origin of the statistics.
            quantise: Whether to keep the 8-bit cast of the original.
        """
        if len(mean) != len(std):
            raise SpecError(
                "statistics need one mean and one std per band",
                found=f"{len(mean)} means, {len(std)} stds",
            )
        shift = tuple(float(m) - 2 * float(s) for m, s in zip(mean, std, strict=True))
        scale = tuple(4 * float(s) for s in std)
        return cls(shift, scale, source, clip=(0.0, 1.0), levels=255 if quantise else None)

    @classmethod
    def divide(
        cls, by: float, bands: int, source: str, *, clip: tuple[float, float] | None = None
    ) -> Self:
        """`x / by` for every band."""
        return cls((0.0,) * bands, (float(by),) * bands, source, clip=clip)

    def __repr__(self) -> str:
        """Return the rule without its constants; `spec_key` includes them."""
        clip = "" if self.clip is None else f", clipped to {self.clip[0]:g}..{self.clip[1]:g}"
        levels = f", {self.levels} levels" if self.levels else ""
        return (
            f"Normalization((x - shift) / scale of {len(self.shift)} bands{clip}{levels}; "
            f"constants: {self.source})"
        )

    def select(self, indices: Sequence[int]) -> Self:
        """Return the same rule for the bands at `indices`, in that order."""
        return type(self)(
            tuple(self.shift[i] for i in indices),
            tuple(self.scale[i] for i in indices),
            self.source,
            self.clip,
            self.levels,
        )


@dataclass(frozen=True)
class ImageSpec:
    """The kind of images in a data set. Equal specs mean the same kind of pixel.

    Sensor and unit can be given by name, `ImageSpec("s2-l2a", bands, "dn", None, 10.0)`, and bands
    and size as lists; they are converted to the types below.

    Args:
        sensor: Sensor and product level.
        bands: Canonical band names in stored order (`eofm.contract.spec` lists them).
        unit: Unit of the values.
        size: Height and width in pixels, or None if images differ.
        gsd: Ground sample distance of the grid in metres.
        normalization: Normalisation already applied to the pixels; only with `unit=model`.

    Raises:
        SpecError: If there is no such sensor or unit, the bands are empty or repeated, the unit is
            not one of the sensor's, a size or GSD is not positive, or a normalization contradicts
            the unit.
    """

    sensor: Sensor
    bands: tuple[str, ...]
    unit: Unit
    size: tuple[int, int] | None
    gsd: float
    normalization: Normalization | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensor", Sensor.parse(self.sensor))
        object.__setattr__(self, "unit", Unit.parse(self.unit))
        object.__setattr__(self, "bands", stated_names(self.bands))
        if self.size is not None:
            object.__setattr__(self, "size", stated_size(self.size))
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise SpecError("bands must be named, each once", found=self.bands)
        if self.unit is not Unit.MODEL and self.unit not in UNITS[self.sensor]:
            raise SpecError(
                f"{self.sensor} is never in unit {self.unit}",
                found=self.unit,
                expected=" | ".join(sorted(UNITS[self.sensor])),
                remedy="state the unit of the files; convert them if it is a different one",
            )
        if (self.unit is Unit.MODEL) != (self.normalization is not None):
            raise SpecError(
                "unit 'model' requires a normalization, and vice versa",
                found=f"unit={self.unit}, normalization={self.normalization}",
            )
        if self.normalization and len(self.normalization.shift) != len(self.bands):
            raise SpecError("the normalization has a different number of bands", found=self.bands)
        if self.size is not None and min(self.size) < 1:
            raise SpecError("size must be positive", found=self.size)
        if not (isinstance(self.gsd, Real) and 0 < self.gsd < math.inf):
            raise SpecError(
                "gsd must be positive",
                found=repr(self.gsd),
                expected="metres per pixel",
                remedy="state it, as in gsd=10.0",
            )

    def __repr__(self) -> str:
        return f"ImageSpec({self})"

    def __str__(self) -> str:
        size = f"{self.size[0]} x {self.size[1]} px" if self.size else "any size"
        return f"{self.sensor}, {' '.join(self.bands)}, {self.unit}, {size} at {self.gsd:g} m"


def spec_key(spec: ImageSpec) -> str:
    """Return the cache key of a spec: the text of all of its fields.

    Specs that differ in one constant of their normalisation have different keys. The text is the
    `repr` of version 0.1, so that caches of that version are still found.

    Args:
        spec: Any spec.
    """
    return _fields(spec)


def _fields(value: ImageSpec | Normalization) -> str:
    parts = (
        f"{name}={_fields(part) if isinstance(part, Normalization) else repr(part)}"
        for name, part in vars(value).items()
    )
    return f"{type(value).__name__}({', '.join(parts)})"


# -------------------------------------------------------------------------- sensors and their bands


@dataclass(frozen=True)
class Band:
    """One band: canonical name, other names, central wavelength in nm, native GSD in m.

    The other names are the common names of the STAC extension `eo` (2.0), the names of ESA's and USGS's
    product guides (HLS: `NIR_Narrow`) and of Google Earth Engine (`Red Edge 4`), in lower case
    without separators. A name shared by several bands is ambiguous.
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
        Band("B02", ("blue", "blu"), 492.4, 10),
        Band("B03", ("green", "grn"), 559.8, 10),
        Band("B04", ("red",), 664.6, 10),
        Band("B05", (*_EDGE, "rededge1", "rededge071", "re1"), 704.1, 20),
        Band("B06", (*_EDGE, "rededge2", "rededge075", "re2"), 740.5, 20),
        Band("B07", (*_EDGE, "rededge3", "rededge078", "re3"), 782.8, 20),
        Band("B08", ("nir", "nirbroad", "broadnir", "bnr", "nearinfrared"), 832.8, 10),
        Band("B8A", ("nir08", "nirnarrow", "narrownir", "rededge4", "re4"), 864.7, 20),
        Band("B09", ("nir09", "watervapour", "watervapor"), 945.1, 60),
        Band("B10", ("cirrus", "swircirrus"), 1373.5, 60),
        Band("B11", ("swir", "swir16", "swir1", "sw1"), 1613.7, 20),
        Band("B12", ("swir", "swir22", "swir2", "sw2"), 2202.4, 20),
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
# Prefixes and suffixes of band names in products: resolution, wavelength, platform and level,
# calibration, composite, date and tile. Not included are statistics that are not measurements (std,
# count) and indices, so that `B8_B4` remains an unknown name.
_WAVELENGTH: Final = re.compile(
    r"(?:(?:central |centre |center )?wavelength)?[\s:=]*(?<![\d.])(\d+(?:\.\d+)?)\s*"
    r"(nm|nanomet(?:er|re)s?|um|\u03bcm|micromet(?:er|re)s?|microns?)(?![a-z])"
)
# Range of the central wavelengths stated in products, in nm: nominal (443, 490, 842, 1375), and
# those of Sentinel-2A, B and C (S2-SRF, COPE-GSEG-EOPG-TN-15-0007).
_CENTRES: Final[Mapping[str, tuple[float, float]]] = {
    "B01": (442, 445),
    "B02": (489, 497),
    "B03": (558.5, 561),
    "B04": (664, 667),
    "B05": (703, 708),
    "B06": (739, 742),
    "B07": (779, 785),
    "B08": (832, 842.5),
    "B8A": (863.5, 866),
    "B09": (943, 948),
    "B10": (1372, 1380),
    "B11": (1609.5, 1615),
    "B12": (2185, 2203),
}
_COUNTED: Final = re.compile(r"band\W+\d+\W*")  # GDAL's default names
_AROUND: Final = re.compile(
    r"\d{1,3}m|raw|sentinel[12]?[abc]?|s[12][abc]?|msi(l1c|l2a)?|l1c|l2a|grd|rtc|iw|hls|s30|sr|toa|boa"
    r"|reflectance|backscatter|(sigma|gamma)0?|linear|power|db|median|mean|medoid|mosaic|composite"
    r"|\d{8}(t\d{6})?|t?\d{2}[a-z]{3}|n\d{4}|r\d{3}"
)
# What Earth Engine's toBands() writes before a name: the index of the image, which of a scene of
# Sentinel-2 is its times and tile, and of Sentinel-1 its product; merged collections count as well.
_INDEX: Final = re.compile(
    r"(?:\d+_)*(?:(?:\d{8}t\d{6}_){2}t\d{2}[a-z]{3}_"
    r"|s1[a-c]_[a-z0-9]{2}_grd[fhm]_1s[sd][hv]_(?:\d{8}t\d{6}_){2}(?:[0-9a-f]{4,6}_){3})?",
    re.IGNORECASE,
)
_PLATFORM: Final = re.compile(r"\bsentinel[ _-]?([12][abc]?)(?=[^a-z0-9]|$)")
# Bands of Landsat Collection 2, where SR_B5 is near infrared, not B05.
_LANDSAT: Final = re.compile(r"(?<![a-z])S[RT]_B\d", re.IGNORECASE)
_SEPARATOR: Final = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=8192)
def band_candidates(name: str, sensor: Sensor | None = None) -> tuple[str, ...]:
    """Return the bands that a name can refer to: none if unknown, several if ambiguous.

    Case, leading zeros, separators and the usual prefixes and suffixes of products are ignored. If
    a name consists of several words, as in `B04 - Red`, all of them must agree.

    Args:
        name: Band name, as spelled in a file or product or by a user.
        sensor: Sensor of the bands; None for all sensors.

    >>> [band_candidates(n, Sensor.S2_L2A) for n in ("b4", "nir08", "S2_B8a_20m", "Band 4 (665 nm)")]
    [('B04',), ('B8A',), ('B8A',), ('B04',)]
    >>> band_candidates("rededge", Sensor.S2_L2A), band_candidates("NDVI")
    (('B05', 'B06', 'B07'), ())
    """
    if _LANDSAT.search(name):
        return ()
    folded = without_image_index(name).casefold()
    text = _PLATFORM.sub(r"s\1", _WAVELENGTH.sub(" ", folded))
    parts = [part for part in _SEPARATOR.split(text) if part and not _AROUND.fullmatch(part)]
    if len(parts) > 1 and parts[0].isdecimal():
        parts = parts[1:]  # Earth Engine's toBands() numbers the images of a collection
    bands = SENSOR_BANDS[sensor] if sensor else tuple(BANDS)
    found = _agreeing(tuple(parts[:6]), bands) if len(parts) <= 6 else frozenset()
    fitting = _fitting(name, bands)
    if fitting and (not parts or _COUNTED.fullmatch(text)):
        found = fitting
    elif fitting:
        found &= fitting  # `B02 (665 nm)` contradicts itself
    return tuple(band for band in bands if band in found)


def without_image_index(name: str) -> str:
    """Return the name of a band without the index of its image, which `toBands()` writes before it.

    Args:
        name: As Earth Engine exports it.

    >>> [without_image_index(n) for n in ("20220301T103021_20220301T103026_T32UPU_QA60", "2_B4")]
    ['QA60', 'B4']
    """
    return _INDEX.sub("", name.strip(), count=1)


def stated_nanometres(name: str) -> float | None:
    """Return the wavelength in nm that a band name states, or None.

    Args:
        name: Band name: `442.7 Nanometers` or `0.665 um` (ENVI), `B4 (665 nm)`.
    """
    found = _WAVELENGTH.findall(name.casefold())
    if len(found) != 1:
        return None
    number, unit = found[0]
    return float(number) * (1 if unit.startswith("n") else 1000)


def _fitting(name: str, bands: tuple[str, ...]) -> frozenset[str]:
    """Return the bands whose central wavelength is the one stated in a name."""
    stated = stated_nanometres(name)
    if stated is None:
        return frozenset()
    nanometres = round(stated, 3)  # micrometres are not exact in binary
    inside = (b for b, (low, high) in _CENTRES.items() if low <= nanometres <= high)
    return frozenset(inside) & frozenset(bands)


def _agreeing(parts: tuple[str, ...], bands: tuple[str, ...]) -> frozenset[str]:
    """Return the bands that fit all words of a name; a word is one part or several."""
    if not parts:
        return frozenset()
    found = _meant(parts, bands)
    for cut in range(1, len(parts)):
        first = _meant(parts[:cut], bands)
        if first:
            found |= first & _agreeing(parts[cut:], bands)
    return found


def _meant(parts: tuple[str, ...], bands: tuple[str, ...]) -> frozenset[str]:
    """Return the bands that parts joined to one word can mean: `band`, `4`, but not `b1`, `1`."""
    if any(a[-1].isdecimal() and b[0].isdecimal() for a, b in pairwise(parts)):
        return frozenset()  # in Earth Engine, B1_1 is the B1 of a second image
    word = "".join(parts)
    code = _CODE.fullmatch(word)
    if code:
        number = code[1] or code[2]
        word = f"B{int(number):02d}" if number else "B8A"
        return frozenset({word} & set(bands))
    return frozenset(b for b in bands if word == b.lower() or word in BANDS[b].words)


_NUMBER: Final = re.compile(
    r"b[ _.#-]?([1-9]\d*)|(?:band|layer|lyr|channel)?[ _.#-]*0*([1-9]\d*)", re.IGNORECASE
)
_EARTH_ENGINE: Final = re.compile(r"B(?:[1-9]|1[0-2])")
_OF_AN_IMAGE: Final = re.compile(r"(.+)[ _.-]\d{1,2}")
# SNAP's names of bands that are not calibrated backscatter.
_UNCALIBRATED: Final = re.compile(
    r"(?:.*[^A-Z])?(?:amplitude|intensity|phase|beta0?|i|q)_(?:V[VH]|H[HV])(?:[^A-Z].*)?",
    re.IGNORECASE,
)


def is_uncalibrated(name: str) -> bool:
    """Return whether a name is that of an uncalibrated radar band: `Amplitude_VV`, `i_VV`."""
    return _UNCALIBRATED.fullmatch(name.strip()) is not None


def are_numbers(names: Sequence[str]) -> bool:
    """Return whether names are consecutive numbers from 1: `Band 1`, `Band 2` (GDAL), `band_1`, `b1`.

    `B01` is a band name, not a number, and so is a single `B1`; for several, see `are_codes`.

    Args:
        names: Names of all bands of an image that contain a measurement, in stored order.
    """
    if len(names) == 1 and are_codes(names):
        return False
    return bool(names) and [number_in(n) for n in names] == list(range(1, len(names) + 1))


def number_in(name: str) -> int | None:
    """Return the number in a name that consists of nothing else, `Band 4`, `b4`; otherwise None."""
    match = _NUMBER.fullmatch(name.strip())
    return int(match[1] or match[2]) if match else None


def are_codes(names: Sequence[str]) -> bool:
    """Return whether all names have Earth Engine's spelling of Sentinel-2 bands: `B1`.

    If they are also consecutive, `B1 B2 B3 B4`, they are ambiguous and have to be stated.

    Args:
        names: Band names.
    """
    return all(_EARTH_ENGINE.fullmatch(name.strip()) for name in names)


def without_image_number(name: str, sensor: Sensor | None = None) -> str | None:
    """Return the band before an image number that follows its name, or None.

    Earth Engine's joins and `addBands` append such numbers to the bands of further images.

    Args:
        name: Band name, as spelled in a file or product.
        sensor: Sensor of the bands; None for all sensors.

    >>> without_image_number("B1_1", Sensor.S2_L2A), without_image_number("Band_1")
    ('B01', None)
    """
    if band_candidates(name, sensor):
        return None
    found: tuple[str, ...] = ()
    match = _OF_AN_IMAGE.fullmatch(name.strip())
    while match and not found:  # B1_1_2 if images were joined twice
        found = band_candidates(match[1], sensor)
        match = _OF_AN_IMAGE.fullmatch(match[1])
    return found[0] if len(found) == 1 else None


def counterparts(band: str, sensor: Sensor) -> tuple[str, ...]:
    """Return the bands of a sensor that share a name with a band of another: B04 for R.

    Args:
        band: Canonical name.
        sensor: Sensor of the returned bands.

    >>> counterparts("N", Sensor.S2_L2A), counterparts("VV", Sensor.S2_L2A)
    (('B08',), ())
    """
    words = set(BANDS[band].words)
    return tuple(b for b in SENSOR_BANDS[sensor] if words & set(BANDS[b].words))


def canonical_band(name: str, sensor: Sensor | None = None) -> str:
    """Return the canonical name of a band: `B1`, `b01`, `coastal` and `S2_B01_60m` are `B01`.

    Args:
        name: Band name, as spelled in a file or product or by a user.
        sensor: Sensor whose names take precedence: `red` is B04 of Sentinel-2, but R of an aerial
            image. Names that only other sensors use are accepted too.

    Raises:
        SpecError: If no band or several bands have that name; the message lists the candidates.
    """
    found = band_candidates(name, sensor) or band_candidates(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(
            f"{name!r} can mean several bands",
            found=name,
            expected=", ".join(found),
            remedy=f"use the name of one of them, such as {found[0]!r}",
        )
    before = without_image_number(name, sensor) or without_image_number(name)
    if before is not None:
        raise SpecError(
            f"{name!r} is a band of one of several images",
            found=name,
            expected="bands of one image",
            remedy=f"use {before!r} instead, if it belongs to the intended image",
        )
    if is_uncalibrated(name):
        raise SpecError(
            f"{name!r} is not calibrated backscatter",
            found=name,
            expected="sigma0 or gamma0 of VV and VH",
            remedy="calibrate the product first, for example with SNAP",
        )
    bands = SENSOR_BANDS[sensor] if sensor else tuple(BANDS)
    near = difflib.get_close_matches(name.upper(), bands, n=1)
    near = near or difflib.get_close_matches(name.lower(), _words(bands), n=1)
    raise SpecError(
        f"there is no band {name!r}",
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
        names: Names, as a user states them. A single string is one name, or with commas, several.
        sensor: Sensor of the bands.

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
            remedy="omit the argument to read all bands, or list names, as in "
            f"bands={[SENSOR_BANDS[sensor][0]]}",
        )
    return _canonical_bands(tuple(names), sensor)


@lru_cache(maxsize=1024)  # a data set has few band lists, and calls this for every file
def _canonical_bands(names: tuple[str, ...], sensor: Sensor) -> tuple[str, ...]:
    bands = tuple(canonical_band(name, sensor) for name in names)
    foreign = [b for b in bands if b not in SENSOR_BANDS[sensor]]
    if foreign or len(set(bands)) != len(bands):
        alike = [(b,) if b not in foreign else counterparts(b, sensor) for b in bands]
        own = [found[0] for found in alike if len(found) == 1]
        raise SpecError(
            f"these are not bands of {sensor}, each once",
            found=", ".join(names),
            expected=", ".join(SENSOR_BANDS[sensor]),
            remedy=f"use the band names of {sensor}: {' '.join(own)}"
            if foreign and len(set(own)) == len(bands)
            else None,
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
        source: Repository, paper or split of origin.
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
                remedy=f"choose other statistics, or leave out {', '.join(missing)}",
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
