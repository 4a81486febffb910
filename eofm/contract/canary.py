"""Canaries: do the pixels contradict what is declared about them?

A spec is declared and never inferred. But a wrong declaration leaves traces that no scenery can
explain: cirrus band B10 of a Level-1C image is nearly black, water vapour dims B09 at the top of
the atmosphere and not at its bottom, B08 and B8A see the same ground. The checks below look for
such traces before a number is computed, and refuse; they never correct anything.

Thresholds, with what they were measured on: means of EuroSAT (64 tiles at a time) B10/B8A
.004-.006, B09/B8A .24-.32; single BigEarthNet patches (L2A) B09/B8A .98-1.00; B10 of three
TerraMesh sites 17 and 59 without the offset of processing baseline 04.00, 1069 with it;
VV - VH 4.9-7.9 dB in BigEarthNet.

Shapes: B images, C bands, H by W pixels.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor, Unit
from eofm.errors import PixelError

# A ratio of band means says something of the sensor only when the images are many and mixed:
# over one lake B10 is as bright as B8A.
ENOUGH_IMAGES: Final = 64

_RANGE_P99: Final = {
    Unit.DN: (500.0, 30_000.0),
    Unit.DN_OFFSET1000: (1_000.0, 31_000.0),
    Unit.REFLECTANCE: (0.03, 3.0),
    Unit.UINT8: (2.0, 255.0),
}
_OFFSET_B10: Final = 500.0
# Quantiles are taken of at most so many values: torch refuses more than 16 million.
_SAMPLE: Final = 1_000_000


def check_signature(imagery: Imagery) -> None:
    """Raise if the pixels of a batch contradict its spec.

    Checked are: no band is constant; the brightest values lie in the range of the declared unit;
    the offset of baseline 04.00 in Level-1C images (by B10); from 64 images on, the ratios of
    band means that tell Level-1C from Level-2A and a right band order from a wrong one; for
    Sentinel-1, decibels and the order of VV and VH. The offset in Level-2A images is not
    checked: nothing dark enough is always there.

    Args:
        imagery: A batch in physical units, as read. The more images, and the more various, the
            more it says.

    Raises:
        PixelError: With what was found.
    """
    means = _means(imagery)
    _check_variation(imagery)
    _check_range(imagery)
    spec = imagery.spec
    if spec.sensor in {Sensor.S1_GRD, Sensor.S1_RTC}:
        _check_radar(imagery, means)
    if spec.sensor is Sensor.S2_L1C:
        _check_offset(imagery, means)
    if spec.sensor in {Sensor.S2_L1C, Sensor.S2_L2A} and len(imagery) >= ENOUGH_IMAGES:
        _check_ratios(imagery, means)


def _means(imagery: Imagery) -> Tensor:
    """Return the mean of each band of each image over its valid pixels: float64 (B, C)."""
    valid = imagery.valid[:, None]
    pixels = torch.where(valid, imagery.pixels, 0)
    return pixels.sum(dim=(2, 3), dtype=torch.float64) / valid.sum(dim=(2, 3)).clamp_min(1)


def _check_variation(imagery: Imagery) -> None:
    valid = imagery.valid[:, None]
    if not valid.any():
        raise PixelError("not one pixel of these images is valid", where=_where(imagery))
    low = torch.where(valid, imagery.pixels, torch.inf).amin(dim=(0, 2, 3))
    high = torch.where(valid, imagery.pixels, -torch.inf).amax(dim=(0, 2, 3))
    broken = ~torch.isfinite(high - low)  # one NaN makes both of them NaN
    for index, band in enumerate(imagery.spec.bands):
        if broken[index]:
            raise PixelError(
                "pixels marked valid are not finite",
                found=f"NaN or infinity in band {band}",
                where=_where(imagery),
                remedy="mark nodata in the valid mask",
            )
        if low[index] == high[index]:
            raise PixelError(
                "a band is constant",
                found=f"{band} = {low[index]:g} in every pixel",
                expected="measurements",
                where=_where(imagery),
                remedy="a band that was filled in is no band of the data: leave it out of the spec",
            )


def _check_range(imagery: Imagery) -> None:
    unit = imagery.spec.unit
    if unit not in _RANGE_P99:
        return
    values = imagery.pixels.movedim(1, -1)[imagery.valid].flatten()
    step = -(-len(values) // _SAMPLE)
    p99 = float(torch.quantile(values[::step], 0.99))
    low, high = _RANGE_P99[unit]
    if not low <= p99 <= high:
        raise PixelError(
            f"these values are not in the declared unit {unit}",
            found=f"99 % of the values are below {p99:g}",
            expected=f"{low:g}..{high:g}",
            where=_where(imagery),
            remedy="declare the unit the files are really in",
        )
    if unit is Unit.UINT8 and (values != values.round()).any():
        raise PixelError(
            "8-bit values are whole numbers",
            found=f"{float(values[values != values.round()][0]):g}",
            where=_where(imagery),
        )


def _check_offset(imagery: Imagery, means: Tensor) -> None:
    """Baseline 04.00 lifts B10, which is nearly black, to 1000 and more."""
    spec = imagery.spec
    if "B10" not in spec.bands or spec.unit is Unit.REFLECTANCE:
        return
    lifted = means[:, spec.bands.index("B10")] > _OFFSET_B10
    expected = spec.unit is Unit.DN_OFFSET1000
    wrong = int((lifted != expected).sum())
    # a single image can be bright in B10 under cirrus, none is dark with the offset
    if wrong * 2 > len(imagery) or (expected and wrong):
        darkest = spec.bands[int(means.mean(dim=0).argmin())]
        if not expected and darkest != "B10":
            raise PixelError(
                "these bands are not in the declared order: B10 is not the dark one",
                found=", ".join(f"{b} {_level(imagery, means, b)}" for b in ("B10", darkest)),
                expected="B10 the darkest band of Level-1C, with or without an offset",
                where=f"{_where(imagery)}, bands {' '.join(spec.bands)}",
                remedy="check the stored order of the bands",
            )
        level = float(means[lifted != expected, spec.bands.index("B10")].median())
        raise PixelError(
            f"the declared unit is {spec.unit}, but B10 says otherwise",
            found=f"mean B10 about {level:.0f} in {wrong} of {len(imagery)} images",
            expected="above 1000 with the offset, below 100 without",
            where=_where(imagery),
            remedy=f"declare unit {Unit.DN if expected else Unit.DN_OFFSET1000} for these images",
        )


def _level(imagery: Imagery, means: Tensor, band: str) -> str:
    return f"{float(means[:, imagery.spec.bands.index(band)].mean()):.0f}"


def _check_ratios(imagery: Imagery, means: Tensor) -> None:
    """Tell Level-1C from Level-2A, and the right order of bands from a wrong one."""
    spec = imagery.spec
    shift = 1000.0 if spec.unit is Unit.DN_OFFSET1000 else 0.0
    level = dict(zip(spec.bands, (means.mean(dim=0) - shift).tolist(), strict=True))
    top_of_atmosphere = spec.sensor is Sensor.S2_L1C
    # between .6 and .85 a mean of B09 says nothing of the product level
    bounds = {
        ("B08", "B8A"): (0.8, 1.1),
        ("B10", "B8A"): (0.0, 0.05),
        ("B09", "B8A"): (0.0, 0.85) if top_of_atmosphere else (0.6, 2.0),
    }
    for (band, other), (low, high) in bounds.items():
        if band not in level or other not in level:
            continue
        ratio = level[band] / level[other] if level[other] > 0 else float("inf")
        if not low <= ratio <= high:
            raise PixelError(
                f"these bands are not those of {spec.sensor} in the declared order",
                found=f"mean {band} / mean {other} = {ratio:.3g}",
                expected=f"{low:g}..{high:g}",
                where=f"{_where(imagery)}, bands {' '.join(spec.bands)}",
                remedy="check the stored order of the bands and the product level",
            )


def _check_radar(imagery: Imagery, means: Tensor) -> None:
    spec = imagery.spec
    if spec.unit is not Unit.DB:
        return
    lowest = float(imagery.pixels.movedim(1, -1)[imagery.valid].min())
    average = dict(zip(spec.bands, means.mean(dim=0).tolist(), strict=True))
    found = ", ".join(f"mean {band} {value:.1f} dB" for band, value in average.items())
    remedy = "check the order of the bands and whether the values are decibels"
    if max(average.values()) >= 0 or lowest < -80:
        raise PixelError(
            "this is not Sentinel-1 backscatter in dB",
            found=f"{found}, minimum {lowest:.1f} dB",
            expected="negative means, nothing below -80 dB",
            where=_where(imagery),
            remedy=remedy,
        )
    if {"VV", "VH"} <= set(average) and not 3 <= average["VV"] - average["VH"] <= 12:
        raise PixelError(
            "VV and VH are not those of Sentinel-1",
            found=found,
            expected="VV above VH by 3 to 12 dB",
            where=_where(imagery),
            remedy=remedy,
        )
    if bool((imagery.pixels == imagery.pixels.round()).all()):
        raise PixelError(
            "backscatter was read through an integer type",
            found="whole decibels only",
            expected="fractions",
            where=_where(imagery),
            remedy="read the files as float32",
        )


def _where(imagery: Imagery) -> str:
    return f"{len(imagery)} images of {imagery.spec.sensor}"
