"""Metadata of a file: the unit of its values, and which of its layers are masks.

The unit of stored values comes from the metadata of the file or product, or from the user; one is
required, and both must agree (`settle`, which also decides the sensor). By GDAL's convention,
physical value = stored value x scale + offset (GDAL raster data model). For Sentinel-2 the physical
value is reflectance, so the pair determines the unit of the stored values: 1e-4 and 0 are digital
numbers, 1e-4 and -0.1 those with the offset of processing baseline 04.00. For radar the physical
value is backscatter, in the unit that the user or the band name states.

Products store cloud masks, probabilities and angles in the same file or in separate ones. These
layers are left out by name; a cloud mask is applied on request.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.contract.spec import (
    UNITS,
    Sensor,
    Unit,
    without_image_index,
)
from eofm.errors import RasterError, SpecError, as_argument
from eofm.formats.foreign import foreign
from eofm.raster.geotiff import damaged, grid_of
from eofm.raster.grid import Grid, Window

__all__ = [
    "NO_UNIT",
    "OTHER_UNIT",
    "CloudMask",
    "Clouds",
    "TagScaling",
    "Word",
    "check_baseline",
    "check_baseline_of_array",
    "check_offset",
    "check_unscaled",
    "clouds_of_file",
    "declares_measured",
    "is_beside",
    "mask_named",
    "read_scaling",
    "settle",
    "unit_of_baseline",
    "use_of",
    "with_scale",
    "without_scale",
    "word_of",
]

# -------------------------------------------------------------------------------------------- units

Word = TypeVar("Word", Sensor, Unit)


def settle(
    what: str,
    stated: Word | None,
    found: Word | None,
    by: str,
    where: object,
    among: Sequence[Word] = (),
) -> Word:
    """Return the sensor or unit given by the user or by the product metadata.

    Args:
        what: Name of the argument: `sensor` or `unit`.
        stated: Statement of the user, or None.
        found: Value in the product metadata, or None.
        by: The metadata element that gives `found`.
        where: File or name.
        among: The values that it can have here, for the message; the first is its example.

    Raises:
        SpecError: If neither gives it, or they disagree.
    """
    if stated is not None and found is not None and stated is not found:
        raise SpecError(
            f"the product metadata give another {what} than stated",
            found=f"{found}, by {by}",
            expected=f"{stated}, as stated",
            where=where,
            remedy=f"omit the {what}: that of the product is then used",
        )
    settled = stated or found
    if settled is None:
        usual = Sensor.S2_L2A if what == "sensor" else Unit.DN
        example = among[0] if among else usual
        raise SpecError(
            f"neither the user nor the product states the {what}",
            expected=" | ".join(among) or f"one of the {what}s of eofm",
            where=where,
            remedy=f"state it, as in {as_argument(what, example)}",
        )
    return settled


_SILENT: Final = (1.0, 0.0)
_TO_DN: Final = (1.0, -1000.0)  # removes the offset: the result is digital numbers, not reflectance
_TOLERANCE: Final = 1e-3  # of the scale: writers round to float32
# (scale, offset) -> unit of the stored values
_STORED: Final[Mapping[Unit, tuple[tuple[float, float], ...]]] = {
    Unit.DN: ((1e-4, 0.0),),
    Unit.DN_OFFSET1000: ((1e-4, -0.1), _TO_DN),
    Unit.UINT8: ((1 / 255, 0.0),),
}
_RADAR: Final = frozenset({Unit.DB, Unit.POWER})
_PHYSICAL: Final = frozenset({Unit.REFLECTANCE, *_RADAR})


@dataclass(frozen=True)
class TagScaling:
    """How stored values are converted when they are read.

    Args:
        unit: Unit of the values after reading.
        stored: Unit of the values in the file; None if it is not one of `Unit`.
        factors: Applied (scale, offset) of each band; empty if stored values are not converted.
        tags: (scale, offset) of each band in the file; empty if it has none.
    """

    unit: Unit
    stored: Unit | None
    factors: tuple[tuple[float, float], ...] = ()
    tags: tuple[tuple[float, float], ...] = ()

    def apply(self, values: NDArray[Any], bands: Sequence[int]) -> NDArray[Any]:
        """Return physical values (c, h, w) of some bands, float32, or the stored ones.

        Args:
            values: Stored values.
            bands: Their band numbers in the image, counted from 0.
        """
        if not self.factors:
            return values
        scale, offset = np.array([self.factors[i] for i in bands])[:, :, None, None].swapaxes(0, 1)
        physical: NDArray[Any] = (values * scale + offset).astype(np.float32)
        return physical


def read_scaling(
    pairs: Sequence[tuple[float, float]],
    sensor: Sensor,
    stated: Unit | None,
    described: Unit | None,
    where: Path,
) -> TagScaling:
    """Decide the unit of an image by its tags and the user's statement.

    Args:
        pairs: Scale and offset of each band.
        sensor: Sensor and product level.
        stated: Unit stated by the user, if any.
        described: Unit in the descriptions or unit tags of the bands, or in the file name, if any.
        where: The file, for the error message.

    Raises:
        RasterError: If tags and statement contradict each other, or neither gives a unit.
    """
    if described is not None and stated not in {None, described}:
        found = f"{described}, by its band descriptions, unit tags or name"
        raise _contradiction(found, stated, described, where, "those")
    stated = stated or described
    if any(scale == 0 or not math.isfinite(scale) for scale, _ in pairs):
        raise RasterError(
            "the scale of a file is not a valid factor",
            found=f"scale and offset {_shown(pairs)}",
            expected="a scale other than 0",
            where=where,
            remedy=f"correct its tags, as in: {without_scale(where)}",
        )
    given = [pair for pair in pairs if pair != _SILENT and not _near(pair, _SILENT)]
    if Unit.REFLECTANCE in UNITS[sensor]:
        _check_convention(given, where)
    if not given:
        if stated is None:
            raise _unstated(sensor, where)
        return TagScaling(stated, stated)
    if stated is not None and stated not in UNITS[sensor]:
        return TagScaling(stated, stated)  # refused later, by the checks of the spec
    stored = _stored_unit(given, sensor)
    if len(given) != len(pairs) and (stated is None or stated in _PHYSICAL):
        raise _partly(pairs, stored, where)
    if stated in _PHYSICAL or (stated is None and stored is None):
        if stated is None and Unit.REFLECTANCE not in UNITS[sensor]:
            raise _unstated(sensor, where)  # a scale alone does not distinguish decibels from power
        factors = tuple((1e-4, -0.1) if stored and _near(p, _TO_DN) else p for p in pairs)
        return TagScaling(stated or Unit.REFLECTANCE, stored, factors, tuple(pairs))
    if stated is Unit.DN and all(_near(pair, _TO_DN) for pair in pairs):
        return TagScaling(Unit.DN, stored, tuple(pairs), tuple(pairs))
    if stored is None or stated not in {None, stored}:
        right = stored or Unit.REFLECTANCE
        raise _contradiction(f"scale and offset {_shown(given)}", stated, right, where)
    return TagScaling(stored, stored, tags=tuple(pairs))


# Tags that result when quantification value 10000 and offset -1000 of a product are copied as such.
_COPIED: Final[Mapping[tuple[float, float], tuple[float, float]]] = {
    (1e-4, -1000.0): (1e-4, -0.1),
    (1e4, -1000.0): (1e-4, -0.1),
    (1e4, -0.1): (1e-4, -0.1),
    (1e4, 0.0): (1e-4, 0.0),
}


def _check_convention(given: Sequence[tuple[float, float]], where: Path) -> None:
    """Check that scale and offset follow GDAL's convention, and were not copied from the product.

    Raises:
        RasterError: If they are the product's quantification value and offset.
    """
    for wrong, right in _COPIED.items():
        write = f"array.attrs.update(scale_factor={right[0]!r}, add_offset={right[1]!r})"
        if where.suffix:  # a file, not an array
            write = with_scale(where, *right)
        if given and all(np.allclose(pair, wrong, rtol=_TOLERANCE, atol=1e-6) for pair in given):
            raise RasterError(
                "scale and offset do not convert the stored values to reflectance",
                found=f"scale and offset {_shown(given)}: {given[0][0]:g} x 2000 "
                f"{given[0][1]:+g} = {2000 * given[0][0] + given[0][1]:g}",
                expected=f"stored value x scale + offset, as with {right[0]:g}, {right[1]:g}",
                where=where,
                remedy=f"write them in GDAL's convention: {write}",
            )


# Lower bound of the largest absolute value of an image after scaling: 45 in digital numbers or 1.15
# in 8-bit numbers for reflectance; no radar image lies entirely within 5 dB of 0.
_LEAST: Final[Mapping[Unit, float]] = {
    Unit.REFLECTANCE: 0.0045,
    Unit.POWER: 0.0045,
    Unit.DB: 5.0,
}
# With the offset of baseline 04.00, 1000 is a reflectance of 0; atmospheric correction can push
# shadow and water up to 0.01 below that.
_DARKEST: Final = 900
_TELLING: Final = 16  # pixels; fewer are not conclusive
_LOOKED_AT: Final = 1 << 14  # pixels per band; larger bands are subsampled regularly


def check_unscaled(
    values: NDArray[Any],
    declared: NDArray[np.bool_] | None,
    scaling: TagScaling,
    bands: Sequence[int],
    where: object,
    remedy: str,
) -> None:
    """Check that values with a stated scale have not been scaled already.

    A scale stores fractions as integers. Arithmetic keeps the attributes of an array, and
    conversion to floats keeps the tags of a file, which then describe values that no longer exist.
    Fractions alone prove nothing, since averages of stored integers are fractions too, but those
    keep the magnitude of stored integers.

    Args:
        values: Stored values, (c, h, w).
        declared: True where the file declares nodata; None if nowhere.
        scaling: Scaling stated by the file or array.
        bands: Band numbers of the values, counted from 0.
        where: File or name.
        remedy: How to remove the scale there.

    Raises:
        RasterError: If the values are fractions so small that the scale was applied before.
    """
    if values.dtype.kind != "f" or not scaling.tags or values[0].size < _TELLING:
        return
    some, counts = _sample(values, declared)
    fractions = counts & (some != np.rint(some))
    if 2 * fractions.sum() <= counts.sum():
        return
    pairs = [scaling.tags[i] for i in bands]
    unit = scaling.unit if scaling.unit in _PHYSICAL else Unit.REFLECTANCE
    scales = np.array([1e-4 if _near(p, _TO_DN) else abs(p[0]) for p in pairs])
    largest = np.abs(np.where(fractions, some, 0)).max(axis=(1, 2))
    if float((largest * scales).max()) >= _LEAST[unit]:
        return
    raise RasterError(
        "values that were scaled already still have a stated scale",
        found=f"fractions up to {largest.max():.4g}, and scale and offset {_shown(pairs)}",
        expected="integers, as stored under such a scale, or no scale",
        where=where,
        remedy=f'{remedy}; and state the unit of the values, as in unit="{unit}"',
    )


def check_offset(
    values: NDArray[Any], declared: NDArray[np.bool_], scaling: TagScaling, where: str, remedy: str
) -> None:
    """Check that an array whose offset was subtracted does not state that offset any more.

    The values are integers before and after, so `check_unscaled` cannot see it. For arrays only:
    the tags of a file describe the stored values.

    Args:
        values: Stored values, (c, h, w).
        declared: True where nodata is declared.
        scaling: Scaling stated by the array.
        where: Its name.
        remedy: How to remove the offset there.

    Raises:
        RasterError: If most pixels would have reflectance well below 0 in each of several bands.
    """
    declared_offset = scaling.tags and scaling.stored is Unit.DN_OFFSET1000
    if not declared_offset or len(values) == 1 or values[0].size < _TELLING:
        return
    some, counts = _sample(values, declared)
    dark = (counts & (some < _DARKEST)).all(axis=0)
    if 2 * dark.sum() <= counts.any(axis=0).sum():
        return
    raise RasterError(
        "an offset that was subtracted already is still stated",
        found=f"less than {_DARKEST} in every band of {dark.sum()} of {dark.size} pixels, and "
        f"scale and offset {_shown(scaling.tags)}: reflectance below 0",
        expected="digital numbers with 1000 added, or no offset",
        where=where,
        remedy=f'{remedy}; and state the unit of the values, as in unit="dn"',
    )


def _sample(
    values: NDArray[Any], declared: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return regularly sampled pixels, and which of their values are measured."""
    step = max(1, math.isqrt(values[0].size // _LOOKED_AT))
    some = values[:, ::step, ::step]
    counts = np.isfinite(some) & (some != 0)
    return some, counts if declared is None else counts & ~declared[:, ::step, ::step]


_OFFSET_SINCE: Final = 4.0  # processing baseline 04.00


def unit_of_baseline(baseline: float) -> Unit:
    """Return the unit of a Sentinel-2 product: 1000 is added since processing baseline 04.00."""
    return Unit.DN_OFFSET1000 if baseline >= _OFFSET_SINCE else Unit.DN


_BASELINE: Final = re.compile(r"0\d\.\d{2}")  # 99.99 marks products that users processed themselves


def check_baseline(
    tags: Mapping[str, str], scaling: TagScaling, where: object, dropped: str | None = None
) -> None:
    """Check the unit against the processing baseline that GDAL copies from a Sentinel-2 product.

    Args:
        tags: Tags of the file.
        scaling: Its scaling; scale tags of the bands take precedence over the baseline.
        where: The file, for the error message.
        dropped: The command that removes the baseline; None for that of a file.

    Raises:
        RasterError: If only one of the two includes the offset of 1000.
    """
    text = tags.get("PROCESSING_BASELINE", "").strip()
    units = {Unit.DN, Unit.DN_OFFSET1000}
    if not _BASELINE.fullmatch(text) or scaling.tags or scaling.stored not in units:
        return
    tagged = unit_of_baseline(float(text))
    if tagged is scaling.stored:
        return
    changed = "subtracted from" if tagged is Unit.DN_OFFSET1000 else "added to"
    dropped = dropped or f"rio edit-info --tag PROCESSING_BASELINE= {quote(str(where))}"
    raise RasterError(
        "the tags of a file give another unit than stated",
        found=f"PROCESSING_BASELINE={text}, which is {tagged}",
        expected=scaling.stored,
        where=where,
        remedy=f"state {as_argument('unit', tagged)}; or, if 1000 was {changed} the values: "
        f"{dropped}",
    )


def check_baseline_of_array(
    baseline: str,
    values: NDArray[Any],
    declared: NDArray[np.bool_],
    scaling: TagScaling,
    where: str,
    dropped: str,
) -> None:
    """Check the unit against the processing baseline that a coordinate of an array states.

    Arithmetic keeps coordinates, so an array can state the baseline of a product of which 1000 was
    subtracted since. Pixels below `_DARKEST` prove that; without such pixels the baseline counts.

    Args:
        baseline: As in STAC items: `05.09`.
        values: Stored values, (c, h, w).
        declared: True where nodata is declared.
        scaling: Its scaling.
        where: Name of the array.
        dropped: The command that removes the coordinate.

    Raises:
        RasterError: See `check_baseline`.
    """
    if values[0].size < _TELLING:
        return
    some, counts = _sample(values, declared)
    dark = (counts & (some < _DARKEST)).sum(axis=(1, 2))
    if scaling.stored is Unit.DN and (100 * dark > counts.sum(axis=(1, 2))).any():
        return
    check_baseline({"PROCESSING_BASELINE": baseline}, scaling, where, dropped)


def without_scale(file: Path | str) -> str:
    """Return the command that removes scale and offset from a file and keeps its values."""
    return with_scale(file, 1, 0)


def with_scale(file: Path | str, scale: float, offset: float) -> str:
    """Return the command that writes a scale and offset for all bands into a file."""
    return (
        "python -c \"import rasterio, sys; f = rasterio.open(sys.argv[1], 'r+'); "
        f'f.scales = ({scale!r},) * f.count; f.offsets = ({offset!r},) * f.count; f.close()" '
        f"{quote(str(file))}"
    )


def _near(pair: tuple[float, float], other: tuple[float, float]) -> bool:
    slack = _TOLERANCE * max(abs(other[0]), abs(other[1]))
    return abs(pair[0] - other[0]) <= _TOLERANCE * other[0] and abs(pair[1] - other[1]) <= slack


def _stored_unit(given: Sequence[tuple[float, float]], sensor: Sensor) -> Unit | None:
    """Return the unit that all pairs determine, or None."""
    for unit, known in _STORED.items():
        if unit in UNITS[sensor] and all(any(_near(p, k) for k in known) for p in given):
            return unit
    return None


def _shown(pairs: Sequence[tuple[float, float]]) -> str:
    return "; ".join(dict.fromkeys(f"{scale:.6g}, {offset:.6g}" for scale, offset in pairs))


OTHER_UNIT: Final = "the file states another unit than the user"
"""Problem text of contradicting tags, for callers that add context to the error."""


def _contradiction(
    found: str, stated: Unit | None, right: Unit, where: Path, wrong: str = "its tags"
) -> RasterError:
    return RasterError(
        OTHER_UNIT,
        found=found,
        expected=f"metadata of the unit {stated}",
        where=where,
        remedy=f"state its unit: {as_argument('unit', right)}; or correct {wrong}",
    )


def _partly(pairs: Sequence[tuple[float, float]], stored: Unit | None, where: Path) -> RasterError:
    remedy = "write scale and offset of every band into the file"
    if stored is not None:
        remedy = f"state the unit of the stored values: --unit {stored}"
    return RasterError(
        "some bands of an image have a scale, and others have none",
        found=_shown(pairs),
        expected="a scale and offset for every band, or for none",
        where=where,
        remedy=remedy,
    )


NO_UNIT: Final = "neither the user nor the file states the unit of the values"
"""Problem text of a missing unit, for callers that add context to the error."""


def _unstated(sensor: Sensor, where: Path) -> RasterError:
    units = sorted(UNITS[sensor])
    return RasterError(
        NO_UNIT,
        found="no scale and offset that determine it",
        expected=" | ".join(units),
        where=where,
        remedy=f"state it, as in {as_argument('unit', units[0])}",
    )


# --------------------------------------------------------------------------- masks and other layers

# Names of bands that hold neither reflectance nor backscatter, in lower case without separators,
# from the Sentinel-2 product specification (S2-PDGS-TAS-DI-PSD, L2A), the Earth Engine catalogue
# (COPERNICUS/S2_SR_HARMONIZED, S1_GRD, CLOUD_SCORE_PLUS), Sentinel Hub's data pages, the HLS v2.0
# user guide, SNAP and ASF's RTC products; and the common spectral indices.
# fmt: off
_BESIDE: Final = frozenset({
    "scl", "qa10", "qa20", "qa60", "mskcldprb", "msksnwprb", "mskclassiopaque", "mskclassicirrus",
    "mskclassisnowice", "cldprb", "snwprb", "cld", "snw", "clp", "clm", "cloudprobability",
    "cloudprobabilities", "probability", "cloudmask", "cloud", "clouds", "cs", "cscdf", "aot",
    "wvp", "tci", "tcir", "tcig", "tcib", "alpha", "datamask", "mask", "validmask", "fmask", "qa",
    "qapixel", "sunazimuthangles", "sunzenithangles", "viewazimuthmean", "viewzenithmean", "saa",
    "sza", "vaa", "vza", "angle", "localincidenceangle", "incidenceangle",
    "projectedlocalincidenceangle", "incidenceanglefromellipsoid", "incmap", "lsmap",
    "layovershadowmask", "shadowmask", "elevation", "dem",
    "ndvi", "ndwi", "ndsi", "ndmi", "nbr", "evi", "savi",
})
# fmt: on
_DECLARES: Final = frozenset({"alpha", "datamask", "validmask"})
_WORD: Final = re.compile(r"[^a-z0-9]+")
_RESOLUTION_AT_END: Final = re.compile(r"[ _-]\d{1,3}m$")


class CloudMask(StrEnum):
    """Cloud masks, by the names used in their products.

    * `SCL`: the scene classification of Level-2A. Masked are 0 (no data), 1 (saturated or
      defective), 3 (cloud shadow), 8 and 9 (cloud of medium and high probability) and 10 (thin
      cirrus); kept are dark areas, vegetation, soil, water, unclassified and snow (Sentinel-2
      product specification, table of the scene classification).
    * `QA60`: bits 10 (opaque cloud) and 11 (cirrus) of Earth Engine's Sentinel-2 collections.
      Products from 25 January 2022 to 28 February 2024 had no such masks, and the band is "no
      cloud" everywhere. 255 is unknown, and masked.
    * `MSK_CLDPRB`: Level-2A's probability of cloud in per cent, and s2cloudless in Earth Engine.
      Masked from 40 on, the threshold of 0.4 published for s2cloudless.
    * `CLP`: the same from Sentinel Hub, where 255 means 1: masked from 102.
    * `CLM`: Sentinel Hub's mask: 1 is cloud, 255 no data.
    * `FMASK`: HLS: bits 1 (cloud), 2 (adjacent to one) and 3 (shadow), and 255, no data (HLS v2.0
      user guide).
    """

    SCL = "SCL"
    QA60 = "QA60"
    MSK_CLDPRB = "MSK_CLDPRB"
    CLP = "CLP"
    CLM = "CLM"
    FMASK = "Fmask"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the mask of that name.

        Raises:
            RasterError: If the name is not known.
        """
        text = str(text)
        found = next((mask for mask in cls if mask.matches_name(text)), None)
        if found is not None:
            return found
        near = difflib.get_close_matches(text.upper(), list(cls), n=1)
        raise RasterError(
            f"there is no cloud mask {text!r}",
            found=text,
            expected=" | ".join(cls),
            remedy=f"did you mean '{near[0]}'?" if near else None,
        )

    def matches_name(self, name: str) -> bool:
        """Return whether a name denotes this mask in any product."""
        return word_of(name) in _SPELLINGS[self]

    def largest(self, values: NDArray[Any]) -> float:
        """Return the largest value of a mask, at least 0, without fill values and NaN.

        Args:
            values: The mask, or a window of it.
        """
        return float(values[np.isfinite(values) & ~self._filled(values)].max(initial=0))

    def _filled(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where a value is a fill value of files, which the mask itself does not use."""
        return np.isin(values, (65_535,) if self is CloudMask.CLP else (255, 65_535))

    def clouded(
        self,
        values: NDArray[Any],
        largest: Callable[[], float] | None = None,
        *,
        sure: bool = False,
    ) -> NDArray[np.bool_]:
        """Return where stored values mean cloud, shadow or unknown.

        Args:
            values: The mask, or a window of it.
            largest: For a window: a function that returns the largest value of the whole mask.
            sure: Whether the file declares the meaning of its values, for example by the unit `%`.
                Otherwise a mask with only 0 and 1 may be a binary cloud mask.

        Raises:
            RasterError: If the values are not those of this mask: fractions for classes or bits,
                probabilities of 0 to 1 for per cent, more than 100 per cent, or only 0 and 1,
                neither of which would be cloud.
        """
        known = np.isfinite(values)
        values = np.where(known, values, 0)
        masked: NDArray[np.bool_] = ~known | (values < 0)  # no product has such a value
        least = {CloudMask.MSK_CLDPRB: 40, CloudMask.CLP: 102}.get(self)
        if values.dtype.kind == "f":
            self._check_whole(values, None if least is None else largest or values.max)
        most = self.largest(values)
        if not sure and self in _NO_CLOUD_BY_1 and most == 1:
            self._check_more(largest or values.max)
        if least is not None:
            self._check_most(most)
            return masked | (values >= least)
        stored = values.astype(np.int64)
        if self is CloudMask.SCL:
            masked |= _OBSCURED[np.clip(stored, 0, len(_OBSCURED) - 1)]
        elif self is CloudMask.QA60:
            masked |= ((stored & (1 << 10 | 1 << 11)) != 0) | (stored == 255)
        elif self is CloudMask.FMASK:
            masked |= ((stored & 0b1110) != 0) | (stored == 255)
        else:
            masked |= stored != 0
        return masked

    def _check_more(self, largest: Callable[[], float]) -> None:
        """Refuse a mask of only 0 and 1: binary masks made from a product often keep its name."""
        if largest() > 1:
            return
        raise RasterError(
            f"the cloud mask {self} holds only 0 and 1, neither of which means cloud",
            found="0 and 1 in the whole mask",
            expected=_RANGES.get(self, "the bits of its product"),
            remedy=f"if 1 means cloud, name it {CloudMask.CLM}, where it does; otherwise there is "
            "no cloud: read the image without a cloud mask",
        )

    def _check_most(self, most: float) -> None:
        """Refuse probabilities above their maximum, which are in another unit."""
        if most <= _MOST_OF[self]:
            return
        remedy = "export the mask again with the values of its product"
        if self is CloudMask.MSK_CLDPRB and most <= _MOST_OF[CloudMask.CLP]:
            remedy = f"if 255 means a probability of 1, name it {CloudMask.CLP}, where it does"
        elif self is CloudMask.MSK_CLDPRB:
            remedy = "if it is in hundredths of per cent, divide it by 100: rio calc --not-masked "
            remedy += '--dtype uint8 "(/ (read 1) 100)" FILE OUT.tif'
        raise RasterError(
            f"the cloud mask {self} has values above its maximum",
            found=f"{most:g}",
            expected=_RANGES[self],
            remedy=f"{remedy}; or read the image without a cloud mask",
        )

    def _check_whole(self, values: NDArray[Any], largest: Callable[[], float] | None) -> None:
        """Refuse fractions; for a probability, which has `largest`, only values of 0 to 1."""
        fractions = values[values != np.rint(values)]
        if not fractions.size:
            return
        if largest is None or (values.max() <= 1 and largest() <= 1):
            raise RasterError(
                f"the cloud mask {self} was scaled or interpolated: its values are fractions",
                found=f"{fractions[0]:g}",
                expected=_RANGES.get(self, "the integers of its product"),
                remedy="export the mask again with the values of its product, without scaling it "
                "like the bands; or read the image without a cloud mask",
            )


# Indexed by class: all but dark areas, vegetation, soil, water, unclassified and snow. 12 stands
# for all values above it, which are not classes, such as 255.
_OBSCURED: Final = ~np.isin(np.arange(13), (2, 4, 5, 6, 7, 11))
_RANGES: Final = {  # of the probabilities
    CloudMask.MSK_CLDPRB: "per cent, 0 to 100",
    CloudMask.CLP: "0 to 255, where 255 means 1",
}
_MOST_OF: Final = {CloudMask.MSK_CLDPRB: 100, CloudMask.CLP: 255}
# In these, 1 does not mean cloud: 1 per cent, 1 of 255, a bit that the product does not use.
_NO_CLOUD_BY_1: Final = frozenset(
    {CloudMask.MSK_CLDPRB, CloudMask.CLP, CloudMask.QA60, CloudMask.FMASK}
)

_SPELLINGS: Final[Mapping[CloudMask, frozenset[str]]] = {
    CloudMask.SCL: frozenset({"scl"}),
    CloudMask.QA60: frozenset({"qa60"}),
    CloudMask.MSK_CLDPRB: frozenset(
        {"mskcldprb", "cldprb", "probability", "cloudprobability", "cloudprobabilities", "cld"}
    ),
    CloudMask.CLP: frozenset({"clp"}),
    CloudMask.CLM: frozenset({"clm"}),
    CloudMask.FMASK: frozenset({"fmask"}),
}


def mask_named(name: str) -> CloudMask | None:
    """Return the cloud mask that a name denotes, if any."""
    return next((mask for mask in CloudMask if mask.matches_name(name)), None)


def use_of(name: str, sensor: Sensor) -> str:
    """Return the note on a band that is not read as a measurement."""
    if mask_named(name) is not None:
        return "a cloud mask, applied only on request"
    return f"left out, not a requested band of {sensor}"


def word_of(name: str) -> str:
    """Return a name in lower case, without separators and resolution: `SCL_20m` is `scl`.

    The index of an image before it, as of Earth Engine's `toBands()`, is no part of it either.
    """
    bare = without_image_index(name).casefold()
    return _WORD.sub("", _RESOLUTION_AT_END.sub("", bare))


def is_beside(name: str) -> bool:
    """Return whether a name denotes a mask, an angle or another auxiliary layer."""
    return word_of(name) in _BESIDE


def declares_measured(name: str) -> bool:
    """Return whether a band of that name is 0 where nothing was measured, and not 0 elsewhere."""
    return word_of(name) in _DECLARES


_SIDE: Final = 1024  # pixels per side of the first, subsampled read of a mask
_PER_CENT: Final = frozenset({"%", "percent", "per cent", "percentage"})
_OF_ESA: Final = re.compile(r"(MSK_CLDPRB|CLD)_\d{2}m\.jp2")  # in QI_DATA of a SAFE product


def clouds_of_file(mask: CloudMask, dataset: DatasetReader, grid: Grid) -> Clouds:
    """Return the cloud mask in a separate file.

    Args:
        mask: Kind of mask.
        dataset: The open file.
        grid: Grid of the finest band of the image.

    Raises:
        RasterError: If it has several bands, or does not cover the image.
    """
    bands = [colour for colour in dataset.colorinterp if colour is not ColorInterp.alpha]
    if len(bands) > 1:
        raise RasterError(
            "the file of a cloud mask holds several bands",
            found=f"{len(bands)} bands",
            expected=f"1 band, {mask}",
            where=dataset.name,
            remedy=f"keep the band that is {mask}; if it is the first, with: rio stack "
            f"{quote(dataset.name)} --bidx 1 -o OUT.tif",
        )
    return Clouds(mask, dataset, 1, grid)


@dataclass(frozen=True)
class Clouds:
    """An open cloud mask.

    Args:
        mask: Kind of mask.
        dataset: Its file.
        index: Its band number in the file, counted from 1.
        grid: Grid of the finest band of the image. The pixel size of the mask is the same, an
            integer multiple or an integer fraction.

    Raises:
        RasterError: If the mask does not cover the image.
    """

    mask: CloudMask
    dataset: DatasetReader
    index: int
    grid: Grid

    def __post_init__(self) -> None:
        own, fine = grid_of(self.dataset), self.grid
        ratio, rest = divmod(max(fine.height, own.height), min(fine.height, own.height))
        coarse = own.width * ratio == fine.width and own.height * ratio == fine.height
        finer = fine.width * ratio == own.width and fine.height * ratio == own.height
        fits = not rest and (coarse or finer) and own.crs == fine.crs
        if not fits or not np.allclose(own.bounds, fine.bounds, rtol=0, atol=abs(fine.transform.a)):
            raise RasterError(
                "a cloud mask covers a different area than its image",
                found=f"{own.height} x {own.width} pixels",
                expected=f"an integer fraction or multiple of {fine.height} x {fine.width} pixels "
                "over the same area",
                where=self.dataset.name,
                remedy="crop both to the same extent",
            )

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return where a window of the image, on its finest grid, is masked."""
        n = self.dataset.height // self.grid.height
        if n > 1:  # a pixel is masked if any finer pixel in it is
            finer = Window(window.row * n, window.col * n, window.height * n, window.width * n)
            below = self._clouded(finer)
            return np.asarray(below.reshape(window.height, n, window.width, n).any(axis=(1, 3)))
        r = self.grid.height // self.dataset.height
        top, left = window.row // r, window.col // r
        bottom, right = -(-(window.row + window.height) // r), -(-(window.col + window.width) // r)
        coarse = self._clouded(Window(top, left, bottom - top, right - left))
        fine = coarse.repeat(r, 0).repeat(r, 1)
        row, col = window.row - top * r, window.col - left * r
        return fine[row : row + window.height, col : col + window.width]

    def _clouded(self, window: Window) -> NDArray[np.bool_]:
        values = self._values(window)
        unknown = self._undeclared(values) | self._hidden(window)
        if unknown.any():
            values = np.where(unknown, 0, values)
        try:
            return unknown | self.mask.clouded(values, lambda: self._largest, sure=self._sure)
        except RasterError as error:
            error.where = self.dataset.name
            error.remedy = (error.remedy or "").replace("FILE", quote(self.dataset.name)) or None
            raise

    def _undeclared(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the mask is nodata; 0 never is, as it means clear sky."""
        nodata = self.dataset.nodatavals[self.index - 1]
        return np.zeros(values.shape, np.bool_) if not nodata else values == nodata

    def _hidden(self, window: Window) -> NDArray[np.bool_]:
        """Return where the file's own validity mask excludes the pixel."""
        flags = self.dataset.mask_flag_enums[self.index - 1]
        if MaskFlags.per_dataset not in flags or MaskFlags.alpha in flags:
            return np.zeros((window.height, window.width), np.bool_)
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        with foreign(RasterError, "the cloud mask cannot be read", where=self.dataset.name):
            return np.asarray(self.dataset.read_masks(self.index, window=place) == 0)

    @cached_property
    def _sure(self) -> bool:
        """Whether the file declares per cent, by its unit or by ESA's file name."""
        unit = (self.dataset.units[self.index - 1] or "").strip().casefold()
        return unit in _PER_CENT or _OF_ESA.fullmatch(Path(self.dataset.name).name) is not None

    @cached_property
    def _largest(self) -> float:
        """The largest value of the whole mask; a subsampled read usually suffices."""
        size = self.dataset.shape
        few = (min(_SIDE, size[0]), min(_SIDE, size[1]))
        with foreign(RasterError, "the cloud mask cannot be read", where=self.dataset.name):
            found = self._largest_of(self.dataset.read(self.index, out_shape=few))
            if found > 1 or few == size:
                return found
            return self._largest_of(self.dataset.read(self.index))

    def _largest_of(self, values: NDArray[Any]) -> float:
        return self.mask.largest(values[~self._undeclared(values)])

    def _values(self, window: Window) -> NDArray[Any]:
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            values: NDArray[Any] = self.dataset.read(self.index, window=place)
        except RasterioError as error:
            raise damaged(self.dataset.name, error) from error
        return values
