"""The traces that a statement leaves in the values of one image, looked for in a sample of them.

The tests presume that no value is a sentinel and no band dead (`eofm.contract.validity.plausible`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from eofm.contract.shapes import Float
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity.masks import PER_DN


@dataclass(frozen=True)
class Doubt:
    """Why an image cannot be what it is stated to be.

    Args:
        problem: One sentence, the same for every image with this fault.
        found: The number that shows it.
        expected: What it would be, were the statement true.
        remedy: What to do.
        instead: The unit in which these values would be right, if there is one.
        band: The band that shows it, where it is one.
        image: Number of the image within its batch.
    """

    problem: str
    found: str
    expected: str
    remedy: str
    instead: Unit | None = None
    band: str | None = None
    image: int = 0


Values = Mapping[str, Tensor]
"""Band -> its measured values, float (n,); sorted where the tests look at them."""

# Where the 99th percentile of all bands of an image in this unit can lie. Digital numbers of dark
# water reach some 50, of snow and cloud 20,000; backscatter of cities 10 in power (10 dB).
_RANGE: Final[Mapping[Unit, tuple[float, float]]] = {
    Unit.DN: (30, 30_000),
    Unit.DN_OFFSET1000: (1_030, 31_000),
    Unit.REFLECTANCE: (0.003, 3),
    Unit.UINT8: (1, 255),
    Unit.POWER: (1e-5, 100),
    Unit.DB: (-40, 40),
}
# Molecules alone scatter about 0.09 and 0.06 of the light at 443 and 490 nm back to a satellite
# (optical thickness 0.236 and 0.156 at sea level: Bodhaine et al. 1999, J. Atmos. Oceanic Technol.
# 16, 1854). Half of the smaller is left for high plateaus. EuroSAT's darkest tile has 0.09 in B01.
_SKY_DN: Final = 300.0
_SKY_BANDS: Final = ("B01", "B02")
_B10_DARK: Final = 500.0
_LIFTED: Final = (900.0, 1_300.0)  # first percentile of B10 with the offset
_LIFTED_SPREAD: Final = 150.0  # between that and its median; cirrus alone varies more
_DARKEST: Final = (950.0, 1_500.0, 2_500.0)  # least, most of the darkest band, most of any band
_ENOUGH_BANDS: Final = 8
_SWIR: Final = frozenset({"B11", "B12"})
_BELOW_OFFSET: Final = 900.0  # a first percentile below this tells that nothing was added


def contradiction(values: Values, spec: ImageSpec) -> Doubt | None:
    """Ask what needs a sample of the values only, where none is a sentinel and no band is dead."""
    ordered = {band: some.sort().values for band, some in values.items()}
    tests = (_radar, _range, _sky, _order, _offset)
    return next((doubt for test in tests if (doubt := test(ordered, spec)) is not None), None)


def _quantile(ordered: Float[Tensor, " n"], share: float) -> float:
    """Return a quantile of sorted values, the nearest of them."""
    return float(ordered[round(share * (len(ordered) - 1))])


def _range(values: Values, spec: ImageSpec) -> Doubt | None:
    low, high = _RANGE[spec.unit]
    flat = torch.cat(list(values.values()))
    top = float(flat.kthvalue(1 + round(0.99 * (len(flat) - 1))).values)
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
        f"the values are not of the size that unit {spec.unit} has",
        f"99th percentile of all bands {top:.4g}",
        f"{low:g} to {high:g}",
        "state the unit the values are in",
    )


def _sky(values: Values, spec: ImageSpec) -> Doubt | None:
    """Level-1C cannot be darker in the blue than molecules make it: 8-bit renderings are."""
    if spec.sensor is not Sensor.S2_L1C or spec.unit not in {Unit.DN, Unit.REFLECTANCE}:
        return None  # of a stated offset the darkest pixels tell
    for band in _SKY_BANDS:
        if band in values:
            level = _quantile(values[band], 0.5) / PER_DN[spec.unit]
            if level < _SKY_DN:
                return Doubt(
                    "Level-1C is never so dark in the blue: the sky itself is brighter",
                    f"median of {band} {level:.0f}, as digital number",
                    f"above {_SKY_DN:.0f}",
                    "check the unit and the order of the bands; an 8-bit rendering, or Level-2A, "
                    "is not Level-1C",
                    band=band,
                )
    return None


def _order(values: Values, spec: ImageSpec) -> Doubt | None:
    """The darkest band of Level-1C is B10, with and without an offset; this comes before it."""
    if spec.sensor is not Sensor.S2_L1C or "B10" not in values or spec.unit not in PER_DN:
        return None
    scale = PER_DN[spec.unit]
    level = {band: _quantile(v, 0.5) / scale for band, v in values.items()}
    darkest = min(level, key=lambda band: level[band])
    if level["B10"] <= _B10_DARK or level[darkest] >= 0.5 * level["B10"]:
        return None
    return Doubt(
        "these bands are not in the stated order: B10 is not the dark one",
        f"median of B10 {level['B10']:.0f}, of {darkest} {level[darkest]:.0f}",
        "B10 the darkest band of Level-1C",
        "state the bands in stored order; EuroSAT's files hold B8A last: B01 B02 B03 B04 B05 B06 "
        "B07 B08 B09 B10 B11 B12 B8A",
        band="B10",
    )


def _offset(values: Values, spec: ImageSpec) -> Doubt | None:
    """Compare the stated offset of processing baseline 04.00 with what the darkest pixels say."""
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
    """Return what contradicts the statement, what was expected, and the band; or empty texts."""
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
        f"the darkest pixels of all {len(values)} bands lie between {below:.0f} and {above:.0f}",
        f"below {least:.0f} in one band at least",
        min(darkest, key=lambda name: darkest[name]),
    )


def _above(one: float, other: float, unit: Unit) -> bool:
    """Return whether backscatter lies more than 1 dB above another: over noise they are equal."""
    return one > other + 1.0 if unit is Unit.DB else one > other * 10**0.1


def _radar(values: Values, spec: ImageSpec) -> Doubt | None:
    if spec.unit not in {Unit.DB, Unit.POWER}:
        return None
    flat = torch.cat(list(values.values()))
    negative = float((flat < 0).float().mean())
    if spec.unit is Unit.DB and negative < 0.5:
        return Doubt(
            "backscatter in dB is mostly negative, and these values are not",
            f"{negative:.0%} of the values below 0",
            "more than half",
            "state the unit, if the files hold linear backscatter",
            instead=Unit.POWER,
        )
    if spec.unit is Unit.POWER and negative > 0.01:
        return Doubt(
            "linear backscatter is positive, and these values are not",
            f"{negative:.0%} of the values below 0",
            "none",
            "state the unit, if the files hold decibels",
            instead=Unit.DB,
        )
    if spec.unit is Unit.DB and bool((flat == flat.round()).all()):
        return Doubt(
            "backscatter was read through an integer type",
            "whole decibels only",
            "fractions",
            "read the files as float32, or state their scale in their scale and offset tags",
        )
    level = {band: float(v.mean()) for band, v in values.items()}
    if {"VV", "VH"} <= set(level) and _above(level["VH"], level["VV"], spec.unit):
        return Doubt(
            "VH is darker than VV on nearly every surface, and here it is brighter",
            f"mean VV {level['VV']:.3g}, mean VH {level['VH']:.3g}",
            "VV above VH",
            "state the bands in stored order, VH VV",
        )
    return None
