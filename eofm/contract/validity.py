"""The validity mask of an image, and whether its values are plausible for the stated unit.

Reading, packing, checking, benchmarking and embedding all call the functions below, so that a file
gets the same mask, the same refusal and the same message everywhere. The functions take arrays;
they open no file and never infer a unit. They answer two questions.

*Measured* (`measured`). A pixel of the mask is False where

- a band is NaN or infinite (dB of no backscatter);
- a band has a value other than 0 that the file declares as nodata, or that it masks;
- backscatter power is 0, or between -1 and 0 after noise subtraction, which has no dB;
- every band of one native resolution is 0 (dn, dn-offset1000, reflectance, power, db) or declared
  nodata. A 0 in one band only is a measurement, as in B10 over dry air: a declared nodata value of
  0 does not remove a pixel measured in other bands. A resolution with a single band is not judged
  by itself if others have several; if each has one, all are judged together.

*Plausible* (`find_doubts`). Tests for values that contradict the stated sensor and unit, regardless
of the scene content. In order:

====================  ===========================================================================
number type           8-bit integers stated as digital numbers of Sentinel-2
undeclared nodata     physically impossible (-9999, -32768, 1e20; 65535 or 32767 in every band), or
                      the same value in all bands of more than 1 % of the pixels (-1, 9999)
dead band             all 0, or constant over an image of at least 100 x 100 pixels
copied band           the same values as another band in every pixel
normalised            every band from exactly 0 to exactly 1, in reflectance or power
radar                 sign of dB and power, in one band or all; integers; VV darker than VH
stretched             integers spaced as after a stretch to 16 bits, such as by 65535 / 10000
range                 99th percentile of all bands outside the range of the unit; more than 1 %
                      impossible; digital numbers below 256 over land (brightest in the infrared);
                      mean VH above -3 dB
mixed units           a band of fractions below 1 among bands of digital numbers
8-bit numbers         Level-1C darker in B01 or B02 than the atmospheric path radiance
band order            Level-1C whose darkest band by far is not B10: EuroSAT files store B8A last
offset                +1000 of processing baseline 04.00, stated and absent or present and unstated
====================  ===========================================================================

Reading a whole image (`read_geotiff`, `read_scene`, `from_xarray`) checks its number type, and
refuses fractional digital numbers and integer reflectance (`check_scale`); the other tests run
before the pixels are used.

The offset of Level-1C is visible in B10, which does not see the ground: below 100 without it and
just above 1000 with it (17, 59 and 1069 on three TerraMesh sites; at most 40 on 270 EuroSAT tiles).
In Level-2A it is visible in the darkest pixel of each band: with the offset none is below 950, one
is near 1000, and none is above 2500. Two of twelve S2-100K patches have this pattern (darkest
pixels from 1126 and 1148); the others, three TerraMesh sites and six BigEarthNet patches do not,
whole or in windows of 32 to 128 pixels (1,101 of them, over snow, cloud, water, forest, crops and
towns). This was tested with at least ten bands; in red, green, blue and near infrared alone, bare
soil looks the same (5 of 187 windows), so that images of fewer than eight bands, or without a
short-wave infrared band, are not refused. Nor is bright sand, whose short-wave infrared is above
the limit.

Shapes: B images, C bands, H by W pixels; c bands of one native resolution, h by w of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.shapes import Bool, Float, Shaped
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import PixelError

__all__ = [
    "DEAD_BAND",
    "ENOUGH_IMAGES",
    "NO_POWER",
    "PER_DN",
    "Doubt",
    "Values",
    "check_finite",
    "check_of_any_unit",
    "check_plausible",
    "check_scale",
    "check_sentinels",
    "coarse_mask",
    "comparable",
    "contradiction",
    "doubt_of",
    "doubt_of_type",
    "find_doubts",
    "fine_mask",
    "measured",
    "measured_of",
    "refusal",
    "sum_is_finite",
]

# ------------------------------------------------------------------ which pixels hold a measurement

# Sentinel-2 numbers with and without offset, and reflectance, on the scale of digital numbers.
PER_DN: Final[Mapping[Unit, float]] = {
    Unit.DN: 1.0,
    Unit.DN_OFFSET1000: 1.0,
    Unit.REFLECTANCE: 1e-4,
}
NO_POWER: Final = -1.0
_ZERO_IS_UNMEASURED: Final = frozenset({*PER_DN, Unit.POWER, Unit.DB})


def measured(
    planes: Mapping[int, Shaped[Tensor, "b _ _ _"]],
    declared: Mapping[int, Bool[Tensor, "b _ _ _"]],
    bands: Mapping[int, tuple[str, ...]],
    unit: Unit,
    size: tuple[int, int],
) -> Bool[Tensor, "b h w"]:
    """Return which pixels of the finest grid hold a measurement: bool (B, H, W).

    Args:
        planes: Native ground sampling distance -> stored values (B, c, h, w).
        declared: Some of the same keys -> bool (B, c, h, w) or (B, 1, h, w), True where the file
            declares nodata.
        bands: The same keys -> the names of the c bands.
        unit: Unit of the values.
        size: H and W.
    """
    if not declared and unit is not Unit.POWER and all(map(_is_full, planes.values())):
        first = next(iter(planes.values()))
        return torch.ones(len(first), *size, dtype=torch.bool, device=first.device)  # most images
    valid, empty = {}, {}
    for gsd, plane in planes.items():
        valid[gsd], empty[gsd] = _measured_plane(plane, declared.get(gsd), unit)
    telling = [gsd for gsd in planes if len(bands[gsd]) > 1]
    if telling or len(planes) == 1:
        empty = {gsd: empty[gsd] for gsd in telling or planes}
    else:
        empty = _empty_together(empty, size)
    masks = []
    for gsd, mask in valid.items():
        own = mask & ~empty[gsd] if gsd in empty else mask
        masks.append(own if tuple(own.shape[1:]) == size else fine_mask(own, size))
    return torch.stack(masks).all(dim=0)


def _measured_plane(
    plane: Shaped[Tensor, "b c h w"], declared: Bool[Tensor, "b _ h w"] | None, unit: Unit
) -> tuple[Bool[Tensor, "b h w"], Bool[Tensor, "b h w"]]:
    """Judge the values of the bands of one resolution.

    Returns:
        Where every band is measured, and where all bands are empty: both bool (B, h, w).
    """
    values = comparable(plane)
    counts = values != 0
    empty = ~counts if unit in _ZERO_IS_UNMEASURED else torch.zeros_like(counts)
    valid = torch.ones_like(counts[:, 0])
    if declared is not None:
        valid = ~(declared & counts).any(dim=1)
        empty = empty | declared
    if plane.is_floating_point():
        valid = valid & torch.isfinite(plane).all(dim=1)
    if unit is Unit.POWER:
        # values far below 0 are not power; they stay valid, so that `find_doubts` refuses them
        valid = valid & ~((values <= 0) & (values > NO_POWER)).any(dim=1)
    return valid, empty.all(dim=1)


def _empty_together(
    empty: Mapping[int, Bool[Tensor, "b _ _"]], size: tuple[int, int]
) -> dict[int, Bool[Tensor, "b _ _"]]:
    """Return the empty pixels of each resolution where all other resolutions are empty too."""
    fine = [
        nn.functional.interpolate(mask.float()[:, None], size=size, mode="nearest-exact")
        for mask in empty.values()
    ]
    share = torch.stack(fine).amin(dim=0)
    return {
        gsd: mask & (nn.functional.adaptive_max_pool2d(share, list(mask.shape[1:]))[:, 0] > 0)
        for gsd, mask in empty.items()
    }


# For odd ratios float32 gives a coincident neighbour a weight of 3e-8; a true neighbour has at
# least (1/12)^2 = 7e-3, for a sixth of 60 m.
_ROUNDING: Final = 1e-4


def comparable(stored: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
    """Return a view comparable in torch, which lacks uint16: 65535 becomes -1, and 0 stays 0."""
    return stored.view(torch.int16) if stored.dtype == torch.uint16 else stored


def _is_full(plane: Shaped[Tensor, "b c h w"]) -> bool:
    """Return whether no value is 0, NaN or infinite."""
    values = comparable(plane)
    if int(torch.count_nonzero(values)) != values.numel():
        return False
    return not values.is_floating_point() or sum_is_finite(values)


def sum_is_finite(values: Float[Tensor, "*s"]) -> bool:
    """Return whether the sum of values is finite, which implies that all of them are.

    This takes a fifth of the time of a test of each value.

    Args:
        values: Any shape. A sum can also overflow, so False is not conclusive.
    """
    return bool(torch.isfinite(values.sum()))


def fine_mask(valid: Bool[Tensor, "b _ _"], size: tuple[int, int]) -> Bool[Tensor, "b _ _"]:
    """Resample a mask (B, h, w) to the finest grid (B, H, W).

    A fine pixel is valid if its bilinear interpolation uses no invalid coarse pixel.
    """
    if bool(valid.all()):
        return valid.new_ones((valid.shape[0], *size))
    weight = nn.functional.interpolate(
        (~valid).float()[:, None], size=size, mode="bilinear", align_corners=False
    )
    return weight[:, 0] < _ROUNDING


def measured_of(native: NativeImagery, gsd: int) -> Bool[Tensor, "b h w"]:
    """Return which pixels of one native resolution hold a measurement: bool (B, h, w)."""
    height, width = native.planes[gsd].shape[2:]
    return coarse_mask(native.valid, (height, width))


def coarse_mask(valid: Bool[Tensor, "b _ _"], size: tuple[int, int]) -> Bool[Tensor, "b _ _"]:
    """Resample a mask (B, H, W) to a coarser grid (B, h, w): valid where all fine pixels are."""
    step = int(valid.shape[1]) // size[0]
    if step <= 1:
        return valid
    return nn.functional.avg_pool2d(valid.float()[:, None], step)[:, 0] == 1


def check_finite(imagery: Imagery) -> None:
    """Raise if a pixel that is marked valid is NaN or infinite.

    Raises:
        PixelError: With the first band of the first image, and the numbers of all such images.
    """
    if sum_is_finite(imagery.pixels):
        return
    bad = ~torch.isfinite(imagery.pixels)
    if not bool(bad.any()):
        return
    places = torch.nonzero((bad & imagery.valid[:, None]).flatten(2).any(dim=2)).tolist()
    if not places:
        return
    image, band = places[0]
    raise PixelError(
        "pixels marked valid are not finite",
        found=f"NaN or infinity in band {imagery.spec.bands[band]}",
        where=f"image {image} of the batch",
        remedy="mark them in the valid mask",
        images=sorted({number for number, _ in places}),
    )


# ----------------------------------------------------------- plausibility of the values of an image


@dataclass(frozen=True)
class Doubt:
    """Why the values of an image contradict its stated sensor or unit.

    Args:
        problem: One sentence, identical for all images with this fault.
        found: The number found.
        expected: The range or value expected for the statement.
        remedy: What to do.
        instead: The unit that would fit these values, if there is one.
        band: The band concerned, if it is a single one.
        image: Index of the image within its batch.
        value: The undeclared nodata value.
    """

    problem: str
    found: str
    expected: str
    remedy: str
    instead: Unit | None = None
    band: str | None = None
    image: int = 0
    value: float | None = None


Values = Mapping[str, Tensor]
"""Band -> its measured values, float (n,); sorted where the tests need it."""

# Range of the 99th percentile of all bands, by unit. Digital numbers of dark water reach about 50,
# of snow and cloud 20,000; backscatter of cities reaches 10 in power (10 dB).
_RANGE: Final[Mapping[Unit, tuple[float, float]]] = {
    Unit.DN: (30, 30_000),
    Unit.DN_OFFSET1000: (1_030, 31_000),
    Unit.REFLECTANCE: (0.003, 3),
    Unit.UINT8: (1, 255),
    Unit.POWER: (1e-5, 100),
    Unit.DB: (-40, 40),
}
# Digital numbers of dark water are below 255, like 8-bit values, reflectance in per cent and
# radiance. But water is brightest in the visible, and land in the infrared and less dark: in 8,611
# windows of 16 and 32 pixels of real land the 99th percentile of all bands is 1,414 or more.
_DARKEST_LAND: Final = 256.0
_FEW_IMPOSSIBLE: Final = 0.01  # of the values, below the minimum of the unit
_VISIBLE: Final = frozenset({"B02", "B03", "B04"})
_INFRARED: Final = frozenset({"B06", "B07", "B08", "B8A", "B09", "B11", "B12"})
# Molecules alone scatter about 0.09 and 0.06 of the light at 443 and 490 nm back to a satellite
# (optical thickness 0.236 and 0.156 at sea level: Bodhaine et al. 1999, J. Atmos. Oceanic Technol.
# 16, 1854). The limit is half of the smaller, for high plateaus; EuroSAT's darkest tile has 0.09.
_SKY_DN: Final = 300.0
_SKY_BANDS: Final = ("B01", "B02")
_B10_DARK: Final = 500.0
_LIFTED: Final = (900.0, 1_300.0)  # first percentile of B10 with the offset
_LIFTED_SPREAD: Final = 150.0  # between that and its median; cirrus alone varies more
_DARKEST: Final = (950.0, 1_500.0, 2_500.0)  # least, most of the darkest band, most of any band
_ENOUGH_BANDS: Final = 8
_SWIR: Final = frozenset({"B11", "B12"})
_BELOW_OFFSET: Final = 900.0  # a first percentile below this shows that no offset was added


def contradiction(values: Values, spec: ImageSpec) -> Doubt | None:
    """Run the tests that need a sample of the values only, without sentinels and dead bands."""
    ordered = {band: some.sort().values for band, some in values.items()}
    tests = (_radar, _stretched, _range, _too_bright, _mixed, _sky, _order, _offset)
    return next((doubt for test in tests if (doubt := test(ordered, spec)) is not None), None)


def _quantile(ordered: Float[Tensor, " n"], share: float) -> float:
    """Return a quantile of sorted values, without interpolation."""
    return float(ordered[round(share * (len(ordered) - 1))])


def _is_whole(values: Shaped[Tensor, "*s"]) -> bool:
    """Return whether all values are whole numbers."""
    return bool((values == values.round()).all())


def _changes(values: Float[Tensor, " n"]) -> int:
    """Return the number of distinct values other than the smallest."""
    return int(values.sort().values.diff().count_nonzero())


_DIFFERENT: Final = 8  # distinct values; fewer can be integers by chance

# Viewers stretch values to the range of 16-bit files, which leaves gaps between the stored values:
# Copernicus Browser and EO Browser store 65535 for a reflectance of 1, and digital numbers are 1e-4
# apart; an 8-bit preview has steps of 65535 / 255. By chance one integer in three is less than 1
# from a multiple of the first.
_STEPS: Final[Mapping[float, tuple[str, str]]] = {
    65_535 / 10_000: (
        "65535 for a reflectance of 1",
        "write the scale 1/65535 into the file, and state unit reflectance: python -c "
        "\"import rasterio, sys; f = rasterio.open(sys.argv[1], 'r+'); "
        'f.scales = (1 / 65535,) * f.count; f.close()" FILE; in an array, divide by 65535',
    ),
    65_535 / 255: (
        "8-bit values stretched to 16 bits",
        "use the original product, not a preview rendered from it",
    ),
}
_COMPARED: Final = 64  # values, before all of them
_STEPS_SEEN: Final = 16  # different values in a band; fewer can be multiples by chance


def _stretched(values: Values, spec: ImageSpec) -> Doubt | None:
    """Find optical values that were stretched to the range of 16-bit integers."""
    if spec.unit not in PER_DN:
        return None
    for step, (meaning, remedy) in _STEPS.items():
        band = next((b for b, ordered in values.items() if _is_in_steps(ordered, step)), None)
        if band is not None:
            return Doubt(
                "the values were stretched to the range of 16-bit integers",
                f"{band} has steps of {step:g}: {meaning}",
                f"values in unit {spec.unit}",
                remedy,
                band=band,
            )
    return None


def _is_in_steps(ordered: Float[Tensor, " n"], step: float) -> bool:
    """Return whether sorted values are whole, and all of them multiples of a step."""
    quartiles = ordered[[len(ordered) * k // 4 for k in range(4)]].tolist()
    if any(abs(round(value / step) * step - value) >= 1 for value in quartiles):
        return False  # most bands, and faster than all of their values
    exact = ordered.double()
    if bool(((exact / step).round() * step - exact).abs().max() >= 1):
        return False
    return (
        _is_whole(ordered) and int(ordered[ordered != 0].diff().count_nonzero()) + 1 >= _STEPS_SEEN
    )


def _range(values: Values, spec: ImageSpec) -> Doubt | None:
    low, high = _RANGE[spec.unit]
    flat = torch.cat(list(values.values()))
    top = float(flat.kthvalue(1 + round(0.99 * (len(flat) - 1))).values)
    if spec.unit is Unit.DN and top < _DARKEST_LAND and _is_land(values):
        low = _DARKEST_LAND
    least = _IMPOSSIBLE[spec.unit][0]
    below = float((flat < least).float().mean())
    if below > _FEW_IMPOSSIBLE:  # of one value only, it would be undeclared nodata
        return Doubt(
            f"the values are not in the range of unit {spec.unit}",
            f"{below:.0%} of the values below {least:g}",
            f"{least:g} and more",
            "use the values from before normalisation, or state their actual unit",
        )
    if spec.unit is Unit.POWER and _is_whole(flat) and _changes(flat) >= _DIFFERENT:
        return Doubt(
            "linear backscatter is not an integer",
            f"whole numbers up to {float(flat.max()):g}",
            "fractions, below 1 for most surfaces",
            _CALIBRATE,
        )
    if low <= top <= high:
        if spec.unit is Unit.UINT8 and bool((flat != flat.round()).any()):
            return Doubt(
                "8-bit values are whole numbers",
                f"{float(flat[flat != flat.round()][0]):g}",
                "whole numbers from 0 to 255",
                "state the unit the values are in",
            )
        return None
    return Doubt(
        f"the values are not in the range of unit {spec.unit}",
        f"99th percentile of all bands {top:.4g}",
        f"{low:g} to {high:g}",
        "use the values from before scaling, or state their actual unit",
    )


# Reflectance is at most 3, and mostly below 1. Digital numbers of dark water can be that small too,
# but are integers. After resampling they are fractional, but then the other bands are small too,
# unlike next to a band in reflectance. Only B10 is 0 and 1 (over dry air) while other bands are
# large; after resampling, some of its pixels are near 1, which cirrus never reaches in reflectance.
_BRIGHTEST_FRACTION: Final = 3.0
_BRIGHTEST_CIRRUS: Final = 0.5
_BRIGHTER: Final = 20.0  # no band exceeds all others by such a factor


def _mixed(values: Values, spec: ImageSpec) -> Doubt | None:
    """Find a band in reflectance among bands of digital numbers."""
    if spec.unit not in {Unit.DN, Unit.DN_OFFSET1000}:
        return None  # the reverse case fails the range test
    level = {band: _quantile(v, 0.5) for band, v in values.items()}
    brightest = max(level.values())
    for band, ordered in values.items():
        limit = _BRIGHTEST_CIRRUS if band == "B10" else _BRIGHTEST_FRACTION
        if float(ordered[-1]) >= limit or level[band] >= 1:
            continue
        if level[band] / PER_DN[Unit.REFLECTANCE] > _BRIGHTER * brightest:
            continue
        if 2 * int((ordered != ordered.round()).sum()) > len(ordered):
            added = " and add 1000" if spec.unit is Unit.DN_OFFSET1000 else ""
            return Doubt(
                "one band is in a different unit than the others",
                f"{band} contains fractions up to {float(ordered[-1]):.4g}",
                f"values in the range of unit {spec.unit}",
                f"write all bands in one unit: multiply {band} by 10,000{added}, or re-export it",
                band=band,
            )
    return None


def _is_land(values: Values) -> bool:
    """Return whether an image with visible bands is brightest in the infrared, unlike water."""
    level = {band: _quantile(v, 0.5) for band, v in values.items()}
    infrared = max((level[band] for band in _INFRARED & set(level)), default=0.0)
    others = max((level[band] for band in set(level) - _INFRARED), default=0.0)
    return infrared > others and not _VISIBLE.isdisjoint(level)


def _sky(values: Values, spec: ImageSpec) -> Doubt | None:
    """Find Level-1C darker in the blue than Rayleigh scattering allows: 8-bit renderings."""
    if spec.sensor is not Sensor.S2_L1C or spec.unit not in {Unit.DN, Unit.REFLECTANCE}:
        return None  # a stated offset is tested on the darkest pixels
    for band in _SKY_BANDS:
        if band in values:
            level = _quantile(values[band], 0.5) / PER_DN[spec.unit]
            if level < _SKY_DN:
                return Doubt(
                    "Level-1C is never this dark in the blue: the atmosphere alone is brighter",
                    f"median of {band} {level:.0f}, as digital number",
                    f"above {_SKY_DN:.0f}",
                    "check the unit and the order of the bands; an 8-bit rendering, or Level-2A, "
                    "is not Level-1C",
                    band=band,
                )
    return None


def _order(values: Values, spec: ImageSpec) -> Doubt | None:
    """Find Level-1C whose darkest band is not B10; independent of the offset, and tested first."""
    if spec.sensor is not Sensor.S2_L1C or "B10" not in values or spec.unit not in PER_DN:
        return None
    scale = PER_DN[spec.unit]
    level = {band: _quantile(v, 0.5) / scale for band, v in values.items()}
    darkest = min(level, key=lambda band: level[band])
    if level["B10"] <= _B10_DARK or level[darkest] >= 0.5 * level["B10"]:
        return None
    return Doubt(
        "the bands are not in the stated order: B10 is not the darkest",
        f"median of B10 {level['B10']:.0f}, of {darkest} {level[darkest]:.0f}",
        "B10 the darkest band of Level-1C",
        "state the bands in stored order; EuroSAT's files store B8A last: B01 B02 B03 B04 B05 B06 "
        "B07 B08 B09 B10 B11 B12 B8A",
        band="B10",
    )


def _offset(values: Values, spec: ImageSpec) -> Doubt | None:
    """Compare the stated offset of processing baseline 04.00 with the darkest pixels."""
    if spec.sensor not in {Sensor.S2_L1C, Sensor.S2_L2A} or spec.unit not in PER_DN:
        return None
    scale = PER_DN[spec.unit]
    scaled = {band: v / scale for band, v in values.items()}
    stated = spec.unit is Unit.DN_OFFSET1000
    found, expected, band = _offset_traces(scaled, spec.sensor, stated=stated)
    if not found:
        return None
    says, seems = ("with", "lack") if stated else ("without", "carry")
    instead = {Unit.DN: Unit.DN_OFFSET1000, Unit.DN_OFFSET1000: Unit.DN}.get(spec.unit)
    return Doubt(
        f"images stated to be {says} the offset of processing baseline 04.00 seem to {seems} it",
        found,
        expected,
        "look up the processing baseline in the product's metadata, and state the unit"
        if instead is not None
        else "subtract 0.1, the offset of processing baseline 04.00, from the reflectance",
        instead=instead,
        band=band,
    )


def _offset_traces(values: Values, sensor: Sensor, *, stated: bool) -> tuple[str, str, str | None]:
    """Return the contradicting value, the expected one and the band; empty strings if none."""
    low = {band: _quantile(v, 0.01) for band, v in values.items()}
    band = min(low, key=lambda name: low[name])
    if stated:
        if low[band] >= _BELOW_OFFSET:
            return "", "", None
        return (
            f"first percentile of {band} {low[band]:.0f}",
            f"above {_BELOW_OFFSET:.0f} in every band",
            band,
        )
    if sensor is Sensor.S2_L1C and "B10" in values:
        middle = _quantile(values["B10"], 0.5)
        lifted = _LIFTED[0] <= low["B10"] <= _LIFTED[1]
        if not lifted or middle - low["B10"] > _LIFTED_SPREAD:
            return "", "", None
        return f"median of B10 {middle:.0f}", f"below {_B10_DARK:.0f}", "B10"
    if sensor is Sensor.S2_L1C or len(values) < _ENOUGH_BANDS or not _SWIR & set(values):
        return "", "", None
    darkest = {name: _quantile(v, 0.001) for name, v in values.items()}
    least, most, highest = _DARKEST
    below, above = min(darkest.values()), max(darkest.values())
    if not (least <= below <= most and above <= highest):
        return "", "", None
    return (
        f"the darkest pixels of all {len(values)} bands are between {below:.0f} and {above:.0f}",
        f"below {least:.0f} in at least one band",
        min(darkest, key=lambda name: darkest[name]),
    )


def _above(one: float, other: float, unit: Unit) -> bool:
    """Return whether backscatter exceeds another by more than 1 dB; over noise they are equal."""
    return one > other + 1.0 if unit is Unit.DB else one > other * 10**0.1


_CALIBRATE: Final = (
    "calibrate the product, if these are its digital numbers, which are amplitudes; if they are "
    "backscatter times a factor such as 10,000, state it in the file, and unit power: python -c "
    "\"import rasterio, sys; f = rasterio.open(sys.argv[1], 'r+'); "
    'f.scales = (1 / 10000,) * f.count; f.close()" FILE; in an array, divide by it'
)


def _radar(values: Values, spec: ImageSpec) -> Doubt | None:
    if spec.unit not in {Unit.DB, Unit.POWER}:
        return None
    flat = torch.cat(list(values.values()))
    negative = float((flat < 0).float().mean())
    if spec.unit is Unit.DB and negative < 0.5:
        counted = _is_whole(flat)  # power is not integer either
        return Doubt(
            "backscatter in dB is mostly negative, but these values are not",
            f"{negative:.0%} of the values below 0",
            "more than half",
            _CALIBRATE if counted else "if the files contain linear backscatter, state the unit",
            instead=None if counted else Unit.POWER,
        )
    if spec.unit is Unit.POWER and negative > 0.01:
        return Doubt(
            "linear backscatter is positive, but these values are not",
            f"{negative:.0%} of the values below 0",
            "none",
            "if the files contain decibels, state the unit",
            instead=Unit.DB,
        )
    # a city can be bright in VV, but every speckled image in decibels has values below 0
    positive = [band for band, v in values.items() if float(v[0]) >= 0]
    if spec.unit is Unit.DB and positive and len(values) > 1:
        return Doubt(
            "one band is in a different unit than the others",
            f"{positive[0]} is never below 0",
            "decibels, mostly negative",
            f"write all bands in one unit: {positive[0]} as 10 log10 of its values, if they are "
            "linear",
            band=positive[0],
        )
    if spec.unit is Unit.DB and _is_whole(flat):
        return Doubt(
            "backscatter was converted to an integer type",
            "whole decibels only",
            "fractions",
            "read the files as float32, or write the scale to their scale and offset tags",
        )
    level = {band: float(v.mean()) for band, v in values.items()}
    if {"VV", "VH"} <= set(level) and _above(level["VH"], level["VV"], spec.unit):
        return Doubt(
            "VH is brighter than VV, although it is darker on nearly every surface",
            f"mean VV {level['VV']:.3g}, mean VH {level['VH']:.3g}",
            "VV above VH",
            "state the bands in stored order, VH VV",
        )
    return None


# Ten times the brightest 16-pixel window in the real imagery tested (-12.8 dB, TerraMesh).
_BRIGHTEST_VH: Final[Mapping[Unit, float]] = {Unit.DB: -3.0, Unit.POWER: 0.5}


def _too_bright(values: Values, spec: ImageSpec) -> Doubt | None:
    """Find radar values that were scaled for a network or for display, by the mean of VH."""
    level = float(values["VH"].mean()) if "VH" in values else -math.inf
    if spec.unit not in _BRIGHTEST_VH or level <= _BRIGHTEST_VH[spec.unit]:
        return None
    return Doubt(
        f"the values are not in the range of unit {spec.unit}",
        f"mean VH {level:.3g}",
        f"below {_BRIGHTEST_VH[spec.unit]:.3g}",
        "use calibrated backscatter, from before scaling for a network or for display",
    )


# -------------------------------------------------------------- impossible values and dead bands

# Physical limits of values, by unit. Level-2A can be as low as -1000 without the offset;
# Sentinel-2 products mark saturation by 65535 in single bands. Calm water and radar shadow reach
# -40 dB (-37.3 in BigEarthNet).
_IMPOSSIBLE: Final[Mapping[Unit, tuple[float, float]]] = {
    Unit.DN: (-1_001.0, 65_535.0),
    Unit.DN_OFFSET1000: (-1.0, 65_535.0),
    Unit.REFLECTANCE: (-0.2, 100.0),
    Unit.UINT8: (0.0, 255.0),
    Unit.POWER: (NO_POWER, 1e6),
    Unit.DB: (-80.0, 100.0),
}
_FILLS_DN: Final = (65_535.0, 32_767.0)  # if in every band: maxima of uint16 and int16

_UNDECLARED: Final = "a fill value marks pixels as nodata, but is not declared"
_ONE_VALUE: Final = 0.9  # smallest share of one nodata value among the impossible values of a band
# If this many bands have the same value in a share of the pixels between these two, it is nodata;
# above the larger share the image has another fault. In the real optical imagery tested, four bands
# never agree in a pixel of any 32 x 32 window, and VV and VH agree in one pixel of a thousand.
# Clouds clipped to a reflectance of 1 do agree, and are not nodata.
_BANDS_OF_ONE_VALUE: Final[Mapping[Unit, int]] = {
    **dict.fromkeys(PER_DN, 4),
    Unit.DB: 2,
    Unit.POWER: 2,
}
_SAME_SHARES: Final = (0.01, 0.9)
_CLIPPED: Final = (10_000.0, 11_000.0)  # DN, without and with the offset
_CONSTANT_FROM: Final = 10_000  # pixels; 60 m bands of a 64 x 64 tile of sea can be constant
_LOOKED_AT: Final = 1 << 22  # pixels per image; larger ones are subsampled
# Sorted values per band: for a single image, and for each of many.
_SAMPLE: Final = 1 << 16
_SAMPLE_OF_MANY: Final = 1 << 10


def doubt_of_type(dtype: str, unit: Unit) -> Doubt | None:
    """Return why a data type cannot represent values of a unit, if so.

    Args:
        dtype: Name of the stored data type, such as `uint8`.
        unit: Stated unit.
    """
    if unit not in {Unit.DN, Unit.DN_OFFSET1000} or dtype not in {"uint8", "int8"}:
        return None
    return Doubt(
        "8-bit files cannot store the digital numbers of Sentinel-2",
        f"number type {dtype}",
        "16 bit",
        "use the original product, not a preview rendered from it",
    )


# Digital numbers are integers, and at least some are not small (`_RANGE`); reflectance is
# fractional and at most 3.
_SCALED_BELOW: Final = 30.0
_STORED_ABOVE: Final = 3.0
_LARGEST_OF_8_BITS: Final = 255  # such values are neither reflectance nor digital numbers


def check_scale(imagery: Imagery) -> Imagery:
    """Return the imagery unchanged, if the magnitude and type of its values fit its unit.

    Reading runs this test, also on windows: fractions below 1 stated as digital numbers were scaled
    already, and integers stated as reflectance were not. The other tests depend on scene content
    and are in `check_plausible`.

    Args:
        imagery: Imagery as read, in the stated unit.

    Raises:
        PixelError: If they do not fit.
    """
    unit = imagery.spec.unit
    if unit not in PER_DN or not len(imagery):
        return imagery
    step = math.isqrt(max(1, imagery.valid[0].numel() // _LOOKED_AT))
    first = imagery.pixels[0, :, 0, ::step][:, imagery.valid[0, 0, ::step]]
    if unit is not Unit.REFLECTANCE and _SCALED_BELOW <= _largest(first) < math.inf:
        return imagery  # one row suffices for most digital numbers
    valid = imagery.valid[:, ::step, ::step]
    values = imagery.pixels[:, :, ::step, ::step]
    values = values if bool(valid.all()) else values.movedim(1, 0)[:, valid]
    most = _largest(values)
    if not math.isfinite(most):
        values = values[values.isfinite()]
        most = _largest(values)
    if not values.numel():
        return imagery
    if unit is Unit.REFLECTANCE:
        suspect, wrong, instead = most > _STORED_ABOVE, "whole numbers", "dn"
        expected = "fractions; 1 is a surface that reflects all light"
    else:
        suspect, wrong, instead = most < _SCALED_BELOW, "fractions", "reflectance"
        expected = "whole numbers; 10,000 is a surface that reflects all light"
    remedy = f'state the unit the values are in, as in: unit="{instead}"'
    if wrong == "whole numbers" and most <= _LARGEST_OF_8_BITS:
        remedy = f"if this is an 8-bit preview, use the original product; otherwise {remedy}"
    # the magnitude decides for most images; all values are tested only if it does not
    if suspect and _is_whole(values) == (wrong == "whole numbers"):
        if wrong == "whole numbers":
            ordered = values.flatten().sort().values
            steps = (text for step, (_, text) in _STEPS.items() if _is_in_steps(ordered, step))
            remedy = next(steps, remedy)
        raise PixelError(
            f"the values are not in the range of unit {unit}",
            found=f"{wrong} up to {most:.4g}",
            expected=expected,
            where=", ".join(imagery.names) or None,
            remedy=remedy,
        )
    return imagery


def _largest(values: Shaped[Tensor, "*s"]) -> float:
    """Return the largest absolute value; NaN if there is one, or no value."""
    if not values.numel():
        return math.nan
    least, most = (float(end) for end in values.aminmax())
    return max(abs(least), abs(most))


def check_sentinels(
    native: NativeImagery, name: str, factors: Mapping[str, tuple[float, float]] | None = None
) -> None:
    """Raise if a measured pixel has an impossible value.

    `find_doubts` samples a large image; this tests every pixel.

    Args:
        native: Imagery in its native dtype.
        name: Name of the image, for the message.
        factors: Band -> scale and offset applied to the stored values; None if none were.

    Raises:
        PixelError: With the value and the band; the remedy names the stored value.
    """
    for gsd, stored in native.planes.items():
        if _is_possible(stored, native.spec.unit):
            continue
        bands, plane = native.bands[gsd], stored.float()
        valid = measured_of(native, gsd)
        for image in range(len(native)):
            values = plane[image][:, valid[image]]
            doubt = _sentinel(values, replace(native.spec, bands=bands)) if values.numel() else None
            if doubt is not None and doubt.band is not None and factors is not None:
                doubt = _as_stored(doubt, *factors[doubt.band])
            if doubt is not None:
                raise refusal([doubt], [name])


def check_of_any_unit(
    plane: Shaped[Tensor, "c h w"], valid: Bool[Tensor, "h w"], name: str
) -> None:
    """Raise if a measured pixel has a value that is impossible in every unit.

    For images without a stated unit, such as scenes to be labelled from a map.

    Args:
        plane: Stored values of bands of one resolution.
        valid: Which of their pixels are measured.
        name: Name of the image, for the message.

    Raises:
        PixelError: As `check_sentinels` does.
    """
    low = min(least for least, _ in _IMPOSSIBLE.values())
    high = max(most for _, most in _IMPOSSIBLE.values())
    values = plane.float()
    least, most = (float(end) for end in values.aminmax())
    if low <= least and most <= high and most < min(_FILLS_DN):
        return  # the usual case, whatever the mask; NaN fails the comparison
    bad = _beyond(values, low, high, fills=True) & valid
    if not bool(bad.any()):
        return
    value = float(values[bad].mode().values)
    doubt = Doubt(
        _UNDECLARED,
        f"{_written(value)} in {_part(bad.any(dim=0)[valid])} of the pixels",
        f"{low:g} to {high:g} in any unit, and not the maximum of the data type in all bands",
        _to_declare(value),
    )
    raise refusal([doubt], [name])


def _is_possible(plane: Shaped[Tensor, "b c h w"], unit: Unit) -> bool:
    """Return whether no value of (B, c, h, w) is suspect, ignoring the mask: the usual case."""
    values = comparable(plane)
    if plane.shape[1] >= _BANDS_OF_ONE_VALUE.get(unit, plane.shape[1] + 1):
        same = (values[:, 0] == values[:, 1]) & (values[:, 0] != 0)
        if float(same.float().flatten(1).mean(dim=1).max()) > _SAME_SHARES[0]:
            return False  # tested further: whether all bands agree
    if plane.dtype == torch.uint16:  # only fill values in all bands are suspect
        fills = (values == -1) | (values == 32_767)
        return plane.shape[1] == 1 or not bool(fills.all(dim=1).any())
    low, high = _IMPOSSIBLE[unit]
    least, most = (float(value) for value in plane.aminmax())
    return low <= least and most <= high and most < min(_FILLS_DN)  # NaN fails the comparison


def find_doubts(imagery: Imagery) -> list[Doubt]:
    """Return what contradicts the stated sensor and unit of each image of a batch.

    At most one doubt per image, the first in the order of the table above, since later tests assume
    that earlier ones passed (an offset is only visible in bands in the right order).

    Args:
        imagery: Imagery as read, in the stated unit.

    Raises:
        PixelError: If a pixel that is marked valid is not finite.
    """
    check_finite(imagery)
    spec, found = imagery.spec, []
    step = math.isqrt(max(1, imagery.valid[0].numel() // _LOOKED_AT)) if len(imagery) else 1
    sample = _SAMPLE if len(imagery) == 1 else _SAMPLE_OF_MANY
    for image in range(len(imagery)):
        valid = imagery.valid[image, ::step, ::step]
        pixels = imagery.pixels[image, :, ::step, ::step]
        values = pixels.flatten(1) if bool(valid.all()) else pixels[:, valid]
        if not values.shape[1]:
            continue
        doubt = _of_all_pixels(values, spec)
        if doubt is None:
            some = values[:, :: -(-values.shape[1] // sample)].cpu()
            doubt = contradiction(dict(zip(spec.bands, some, strict=True)), spec)
        if doubt is not None:
            found.append(replace(doubt, image=image))
    return found


def doubt_of(values: Values, spec: ImageSpec) -> Doubt | None:
    """Return why a sample of measured values of one image contradicts its spec, if so.

    Args:
        values: Values of every band, sampled from the whole image. Bands with the same number of
            values are sampled at the same pixels; bands of different resolutions differ.
        spec: The stated specification; its size is ignored.
    """
    groups: dict[int, dict[str, Tensor]] = {}
    for band, some in values.items():
        if some.numel():
            groups.setdefault(some.numel(), {})[band] = some.flatten().float()
    if not groups:
        return None
    for group in groups.values():
        pixels, own = torch.stack(list(group.values())), replace(spec, bands=tuple(group))
        doubt = _of_all_pixels(pixels, own)
        if doubt is not None:
            return doubt
    return contradiction({b: v for group in groups.values() for b, v in group.items()}, spec)


def _of_all_pixels(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Run the tests that need all measured values (C, n) of an image."""
    tests = (_sentinel, _dead, _copied, _normalised)
    return next((doubt for test in tests if (doubt := test(values, spec)) is not None), None)


def _sentinel(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Find impossible values among all measured values (C, n) of an image."""
    low, high = _IMPOSSIBLE[spec.unit]
    digital = spec.unit in {Unit.DN, Unit.DN_OFFSET1000}
    bad = _beyond(values, low, high, fills=digital)
    same = _same_in_all(values, spec.unit)
    bad = bad if same is None else bad | same
    if not bool(bad.any()):
        return None
    band = int(bad.any(dim=1).nonzero()[0])
    value = float(values[band][bad[band]].mode().values)
    if float((values[band] == value).sum()) < _ONE_VALUE * float(bad[band].sum()):
        return None  # many different values: the unit is wrong
    return Doubt(
        _UNDECLARED,
        f"{_written(value)} in {_part(bad.any(dim=0))} of the pixels, first in band "
        f"{spec.bands[band]}",
        f"{low:g} to {high:g} in unit {spec.unit}, and not the same in all bands",
        _to_declare(value),
        band=spec.bands[band],
        value=value,
    )


def _beyond(
    values: Float[Tensor, "c ..."], low: float, high: float, *, fills: bool
) -> Bool[Tensor, "c ..."]:
    """Return which values are outside two limits, or a fill value in every band."""
    bad = (values < low) | (values > high)
    if fills and len(values) > 1:
        for fill in _FILLS_DN:
            bad = bad | (values == fill).all(dim=0)
    return bad


def _to_declare(value: float) -> str:
    return (
        f"declare it in the file, as in: rio edit-info --nodata {_written(value)} FILE; in an "
        "array, replace it by NaN"
    )


def _as_stored(doubt: Doubt, scale: float, offset: float) -> Doubt:
    """Return a doubt whose remedy names the number that becomes its value by scale and offset."""
    assert doubt.value is not None  # noqa: S101 (it is set for undeclared nodata)
    stored = (doubt.value - offset) / scale
    # float32 has seven digits, and scaled values are stored as integers
    whole = round(stored) if abs(stored - round(stored)) <= 1e-6 * abs(stored) else stored
    return replace(doubt, remedy=_to_declare(whole))


def _same_in_all(values: Float[Tensor, "c n"], unit: Unit) -> Bool[Tensor, " n"] | None:
    """Return which pixels of (C, n) have the same nonzero value in all bands, if many do."""
    if len(values) < _BANDS_OF_ONE_VALUE.get(unit, len(values) + 1):
        return None
    if unit not in PER_DN and _is_whole(values):
        return None  # integer backscatter has so few values that bands agree by chance
    same = (values[0] != 0) & (values == values[:1]).all(dim=0)
    if unit in PER_DN:
        for clipped in _CLIPPED:
            same = same & (values[0] != clipped * PER_DN[unit])
    least, most = _SAME_SHARES
    return same if least < float(same.float().mean()) < most else None


def _written(value: float) -> str:
    """Format a float32 value so that a `rio` command reads it back exactly.

    Integers keep all digits, which integer files need. The maximum of an integer type, which
    float32 rounds up, is written as the exact maximum.
    """
    if value in _LARGEST:
        return str(int(value) - 1)
    if value == round(value) and abs(value) < _WHOLE_BELOW:
        return str(int(value))
    texts = (f"{value:.{digits}g}" for digits in (7, 8))
    same = (t for t in texts if float(torch.tensor(float(t), dtype=torch.float32)) == value)
    return next(same, f"{value:.9g}")


_LARGEST: Final = (2.0**31, 2.0**32)  # maxima of int32 and uint32, plus one
_WHOLE_BELOW: Final = 2.0**53


def _part(flags: Bool[Tensor, " n"]) -> str:
    """Format a share in percent; only a share of zero is shown as 0 %."""
    share = float(flags.float().mean())
    return f"{share:.0%}" if share >= 0.005 else f"{100 * share:.2g}%"


DEAD_BAND: Final = "a band contains no measurement"
"""Problem text of a constant band, for callers with a test of their own."""


def _dead(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Find a band that is constant over all measured pixels (C, n) of an image."""
    low, high = values.amin(dim=1), values.amax(dim=1)
    enough = values.shape[1] >= _CONSTANT_FROM
    for index, band in enumerate(spec.bands):
        value = float(low[index])
        if value != float(high[index]) or (value != 0 and not enough):
            continue
        return Doubt(
            DEAD_BAND,
            f"{band} is {value:g} in every pixel",
            "varying values",
            f"remove the image from the data, or leave {band} out of the bands, which requires "
            "band descriptions in the files",
            band=band,
        )
    return None


def _copied(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Find a band with the values of another band in all measured pixels (C, n) of an image."""
    if spec.unit is Unit.UINT8:
        return None  # greyscale images
    few = values[:, :: max(1, values.shape[1] // _COMPARED)].tolist()
    first: dict[tuple[float, ...], int] = {}
    for index, some in enumerate(few):
        other = first.setdefault(tuple(some), index)
        if other == index or not torch.equal(values[index], values[other]):
            continue
        if _changes(values[index]) < _DIFFERENT:
            continue  # over water, short-wave infrared bands can be 0 and 1 only
        band, like = spec.bands[index], spec.bands[other]
        return Doubt(
            "two bands contain the same values",
            f"{band} and {like} are equal in every pixel",
            "a separate measurement in each band",
            f"export {band} or {like} again, whichever is the copy, or leave it out of the bands, "
            "which requires band descriptions in the files",
            band=band,
        )
    return None


_SCALED_BANDS: Final[Mapping[Unit, int]] = {Unit.REFLECTANCE: 3, Unit.POWER: 2}


def _normalised(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Find bands that were scaled to their own range: each runs from exactly 0 to exactly 1."""
    if spec.sensor is Sensor.RGB or len(values) < _SCALED_BANDS.get(spec.unit, len(values) + 1):
        return None  # photographs use their full range
    if not bool((values.amax(dim=1) == 1).all()) or bool((values.amin(dim=1) != 0).any()):
        return None
    return Doubt(
        "the values were scaled to the range 0 to 1 band by band",
        "every band runs from exactly 0 to exactly 1",
        f"values in unit {spec.unit}",
        "use the values from before that scaling: eofm normalises them as the weights expect",
    )


# --------------------------------------------------------------------------- many images

# Ratios of band means identify the sensor only over many different images: over a single lake B10
# is as bright as B8A. EuroSAT, 64 tiles at a time: B10/B8A .004-.006, B09/B8A .24-.32;
# single BigEarthNet patches (L2A): B09/B8A .98-1.00.
ENOUGH_IMAGES: Final = 64


def check_plausible(imagery: Imagery, names: Sequence[str] = ()) -> None:
    """Raise if the pixels of a batch contradict their stated sensor or unit.

    Every image is tested by itself (`find_doubts`). From 64 images on, ratios of band means over
    all of them are tested too: they distinguish Level-1C from Level-2A, find a wrong band order,
    and for Sentinel-1 compare VV with VH.

    Args:
        imagery: Imagery as read, in the stated unit.
        names: Names of the images for the message, if the imagery has none.

    Raises:
        PixelError: With the value, the band and the images concerned.
    """
    if not bool(imagery.valid.any()):
        raise PixelError(
            "no pixel of these images is valid",
            where=", ".join(names[:_NAMED]) or f"{len(imagery)} images of {imagery.spec.sensor}",
            remedy="leave these images out",
            images=range(len(imagery)),
        )
    doubts = find_doubts(imagery)
    if doubts:
        raise refusal(doubts, names or imagery.names or _numbered(len(imagery)))
    _check_means(imagery)


_NAMED: Final = 5


def _numbered(count: int) -> list[str]:
    return ["the image"] if count == 1 else [f"image {i} of the batch" for i in range(count)]


def refusal(doubts: Sequence[Doubt], names: Sequence[str]) -> PixelError:
    """Return one error that names all images that share the first fault.

    Args:
        doubts: At least one; its `image` is an index into `names`.
        names: Names of the images.
    """
    first = doubts[0]
    same = [doubt for doubt in doubts if doubt.problem == first.problem]
    shown = "; ".join(f"{names[doubt.image]}: {doubt.found}" for doubt in same[:_NAMED])
    remedy = first.remedy
    if first.instead is not None:
        remedy += f": unit {first.instead}"
    return PixelError(
        first.problem,
        found=shown + (f"; and {len(same) - _NAMED} more" if same[_NAMED:] else ""),
        expected=first.expected,
        remedy=remedy,
        images=[doubt.image for doubt in same],
        band=first.band,
    )


def _check_means(imagery: Imagery) -> None:
    """Compare band means over all images with measured pixels."""
    spec, seen = imagery.spec, imagery.valid.flatten(1).any(dim=1)
    valid = imagery.valid[seen, None]
    if len(valid) < ENOUGH_IMAGES:
        return
    total = torch.where(valid, imagery.pixels[seen], 0).sum(dim=(2, 3), dtype=torch.float64)
    means = (total / valid.sum(dim=(2, 3))).mean(dim=0)
    shift = 1000.0 if spec.unit is Unit.DN_OFFSET1000 else 0.0
    level = dict(zip(spec.bands, (means - shift).tolist(), strict=True))
    if spec.unit is Unit.DB and {"VV", "VH"} <= set(level):
        apart = level["VV"] - level["VH"]
        if not 3 <= apart <= 12:  # 4.9 to 7.9 dB in BigEarthNet
            raise PixelError(
                "VV and VH are not those of Sentinel-1",
                found=f"mean VV {level['VV']:.1f} dB, mean VH {level['VH']:.1f} dB",
                expected="VV above VH by 3 to 12 dB",
                where=f"{len(imagery)} images",
                remedy="check the order of the bands and whether the values are decibels",
            )
    if spec.sensor not in {Sensor.S2_L1C, Sensor.S2_L2A}:
        return
    # a ratio of B09 between .6 and .85 does not identify the product level
    bounds = {
        ("B08", "B8A"): (0.8, 1.1),
        ("B10", "B8A"): (0.0, 0.05),
        ("B09", "B8A"): (0.0, 0.85) if spec.sensor is Sensor.S2_L1C else (0.6, 2.0),
    }
    for (band, other), (low, high) in bounds.items():
        if band not in level or other not in level:
            continue
        ratio = level[band] / level[other] if level[other] > 0 else float("inf")
        if not low <= ratio <= high:
            raise PixelError(
                f"the bands are not those of {spec.sensor} in the stated order",
                found=f"mean {band} / mean {other} = {ratio:.3g}",
                expected=f"{low:g} to {high:g}",
                where=f"{len(imagery)} images, bands {' '.join(spec.bands)}",
                remedy="check the stored order of the bands and the product level",
            )
