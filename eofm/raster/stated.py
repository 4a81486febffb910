"""Whether pixels can be what is stated of them, and their form in a packed store.

The unit of a file is stated by its owner and never inferred. But some statements cannot be true:
B10, in which the ground is invisible, is nearly black unless 1000 was added to it; backscatter in
dB is mostly negative. Such images are refused before anything is packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import NativeImagery
from eofm.contract.preprocess import convert_unit
from eofm.contract.sensors import SENSOR_BANDS
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import PixelError, RasterError
from eofm.raster.grid import Window
from eofm.raster.source import OpenRaster, fine_mask

# One unit per sensor in a store. RGB has no conversion between its two and keeps the stated one.
_STORED: Final[Mapping[Unit, Unit]] = {
    Unit.DN: Unit.DN,
    Unit.DN_OFFSET1000: Unit.DN,
    Unit.REFLECTANCE: Unit.DN,
    Unit.DB: Unit.DB,
    Unit.POWER: Unit.DB,
    Unit.UINT8: Unit.UINT8,
}
_INTEGER: Final = frozenset({Unit.DN, Unit.UINT8})

# Where the 99th percentile of all bands of an image in this unit can lie. Digital numbers of dark
# water reach some 50, of snow and cloud 20,000; what is wrong by a factor of 100 lies outside.
_RANGE: Final[Mapping[Unit, tuple[float, float]]] = {
    Unit.DN: (30, 30_000),
    Unit.DN_OFFSET1000: (1_030, 31_000),
    Unit.REFLECTANCE: (0.003, 3),
    Unit.UINT8: (1, 255),
    Unit.POWER: (1e-5, 1e3),
    Unit.DB: (-40, 40),
}
_B10_DARK: Final = 500.0  # TerraMesh: 17 and 59 without the offset, 1069 with it
_NODATA_BELOW: Final = -1_000.0  # -9999 and -32768 are no measurement in any unit
_SAMPLE: Final = 64  # side of the nine windows that are looked at


@dataclass(frozen=True)
class Doubt:
    """Why an image cannot be what it is stated to be.

    Args:
        problem: In one sentence, the same for every image with this fault.
        found: The number that shows it.
        expected: What it would be, were the statement true.
        remedy: What to do.
        instead: The unit in which these values would be right, if there is one.
    """

    problem: str
    found: str
    expected: str
    remedy: str
    instead: Unit | None = None


def stored_unit(sensor: Sensor, unit: Unit) -> Unit:
    """Return the unit in which a store keeps images of a sensor stated to be in `unit`."""
    return unit if sensor in {Sensor.RGB, Sensor.NAIP} else _STORED[unit]


def find_doubt(raster: OpenRaster) -> Doubt | None:
    """Look at nine small windows of an image, and return why its unit cannot be the stated one.

    Raises:
        RasterError: If a file is damaged.
    """
    unit = raster.unit
    if unit in {Unit.DN, Unit.DN_OFFSET1000} and set(raster.dtypes) & {"uint8", "int8"}:
        return Doubt(
            "8-bit files cannot hold the digital numbers of Sentinel-2",
            f"number type {raster.dtypes[0]}",
            "16 bit",
            "use the original product, not a preview rendered from it",
        )
    values = _sample(raster)
    flat = np.concatenate([v for v in values.values() if v.size] or [np.zeros(0, np.float32)])
    if not flat.size:
        return None  # nothing but nodata; its windows will be left out
    return _doubt_radar(unit, values) or _doubt_range(unit, flat) or _doubt_offset(unit, values)


def _sample(raster: OpenRaster) -> dict[str, NDArray[np.float32]]:
    """Return the values other than 0 of each band: 0 is what an undeclared margin holds."""
    step, grid = raster.coarsest, raster.grid
    side = max(step, _SAMPLE // step * step)
    found: dict[str, list[NDArray[np.float32]]] = {band: [] for band in raster.bands}
    for row in _starts(grid.height, side, step):
        for col in _starts(grid.width, side, step):
            window = Window(row, col, min(side, grid.height), min(side, grid.width))
            native = raster.read_native(window)
            for gsd, plane in native.planes.items():
                for band, values in zip(native.bands[gsd], plane[0].float().numpy(), strict=True):
                    found[band].append(values[values != 0])
    return {band: np.concatenate(parts) for band, parts in found.items()}


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return sorted({start // step * step for start in (0, last // 2, last)})


def _doubt_range(unit: Unit, flat: NDArray[np.float32]) -> Doubt | None:
    low, high = _RANGE[unit]
    top = float(np.percentile(flat, 99))
    if low <= top <= high:
        return None
    return Doubt(
        f"the values are not of the size that unit {unit} has",
        f"99th percentile of all bands {top:.4g}",
        f"{low:g} to {high:g}",
        "state the unit the files are in",
    )


def _doubt_offset(unit: Unit, values: Mapping[str, NDArray[np.float32]]) -> Doubt | None:
    """Look at B10: the median, because a cloud is bright in it, but does not cover an image."""
    b10 = values.get("B10", np.zeros(0, np.float32))
    if unit not in {Unit.DN, Unit.DN_OFFSET1000} or not b10.size:
        return None
    median = float(np.median(b10))
    other = {Unit.DN: Unit.DN_OFFSET1000, Unit.DN_OFFSET1000: Unit.DN}[unit]
    if (median > _B10_DARK) == (unit is Unit.DN_OFFSET1000):
        return None
    says = {Unit.DN: "stated to be without", Unit.DN_OFFSET1000: "stated to be with"}[unit]
    seems = {Unit.DN: "carry", Unit.DN_OFFSET1000: "lack"}[unit]
    return Doubt(
        f"images {says} the offset of processing baseline 04.00 seem to {seems} it",
        f"median of B10 {median:.0f}",
        f"below {_B10_DARK:.0f}" if unit is Unit.DN else f"about 1000, above {_B10_DARK:.0f}",
        "look up the processing baseline in the product's metadata, and state the unit",
        instead=other,
    )


def _doubt_radar(unit: Unit, values: Mapping[str, NDArray[np.float32]]) -> Doubt | None:
    if unit not in {Unit.DB, Unit.POWER}:
        return None
    flat = np.concatenate(list(values.values()))
    negative = float((flat < 0).mean())
    if unit is Unit.DB and negative < 0.5:
        return Doubt(
            "backscatter in dB is mostly negative, and these values are not",
            f"{negative:.0%} of the values below 0",
            "more than half",
            "state the unit, if the files hold linear backscatter",
            instead=Unit.POWER,
        )
    if unit is Unit.POWER and negative > 0.01:
        return Doubt(
            "linear backscatter is positive, and these values are not",
            f"{negative:.0%} of the values below 0",
            "none",
            "state the unit, if the files hold decibels",
            instead=Unit.DB,
        )
    if {"VV", "VH"} <= set(values) and values["VV"].mean() < values["VH"].mean():
        return Doubt(
            "VH is darker than VV on nearly every surface, and here it is brighter",
            f"mean VV {values['VV'].mean():.3g}, mean VH {values['VH'].mean():.3g}",
            "VV above VH",
            "state the bands in stored order, as in --bands [VH,VV]",
        )
    return None


# ------------------------------------------------------------------------------ storing


def stored_spec(raster: OpenRaster, size: tuple[int, int]) -> ImageSpec:
    """Return the spec of windows of an image in a store: bands in the order of the sensor."""
    spec = raster.spec()
    bands = tuple(band for band in SENSOR_BANDS[spec.sensor] if band in raster.bands)
    return replace(spec, bands=bands, size=size, unit=stored_unit(spec.sensor, spec.unit))


def to_stored(native: NativeImagery, spec: ImageSpec, where: str) -> NativeImagery:
    """Bring an image to the unit, dtype and band order of a store.

    Digital numbers are rounded and clipped at 0: subtracting the offset of baseline 04.00 leaves
    small negative numbers over water and shadow. Where the digital number is 0 in every band of
    the finest grid nothing was measured (0 is the nodata of Sentinel-2 products, which many files
    do not declare), and there is no dB of no power: such pixels become invalid.

    Args:
        native: As read.
        spec: Of the store.
        where: Name of the image, for the message of an error.

    Raises:
        PixelError: If there is a value that can only be nodata, though none is declared.
        RasterError: If it has other bands or another GSD than the store.
    """
    found = native.spec
    if set(found.bands) != set(spec.bands) or abs(found.gsd / spec.gsd - 1) > 0.02:
        raise RasterError(
            "an image differs from the first one of its folder",
            found=f"{' '.join(found.bands)} at {found.gsd:g} m",
            expected=f"{' '.join(spec.bands)} at {spec.gsd:g} m",
            where=where,
            remedy="pack different kinds of images into different stores",
        )
    valid = native.valid & _measured(native)
    planes, bands = {}, {}
    for gsd, plane in native.planes.items():
        order = [band for band in spec.bands if band in native.bands[gsd]]
        index = [native.bands[gsd].index(band) for band in order]
        bands[gsd] = tuple(order)
        planes[gsd] = _convert(plane[:, index], found.unit, spec.unit, where)
    return NativeImagery(planes, bands, spec, valid)


def _measured(native: NativeImagery) -> torch.Tensor:
    unit = native.spec.unit
    if unit in {Unit.DN, Unit.DN_OFFSET1000}:
        # torch compares few operators of uint16; as signed numbers 0 stays 0
        plane = native.planes[min(native.planes)]
        bits = plane.view(torch.int16) if plane.dtype == torch.uint16 else plane
        return (bits != 0).any(dim=1)
    if unit is Unit.POWER:
        size = (int(native.valid.shape[1]), int(native.valid.shape[2]))
        masks = [fine_mask((plane > 0).all(dim=1), size) for plane in native.planes.values()]
        return torch.stack(masks).all(dim=0)
    return torch.ones_like(native.valid)


def _convert(plane: torch.Tensor, unit: Unit, target: Unit, where: str) -> torch.Tensor:
    integer = target in _INTEGER
    if unit is target and (plane.dtype == torch.uint16) == integer:
        _check_nodata(plane, where)
        return plane
    values = plane.float()
    _check_nodata(values, where)
    if unit is Unit.POWER:
        values = torch.where(values > 0, values, 1.0)  # 0 dB, under an invalid pixel
    values = convert_unit(values, unit, target)
    return values.round().clamp(0, 65_535).to(torch.uint16) if integer else values


def _check_nodata(plane: torch.Tensor, where: str) -> None:
    if plane.dtype == torch.uint16 or not (plane < _NODATA_BELOW).any():
        return
    raise PixelError(
        "a value below every measurement marks pixels as nodata, but the file does not declare it",
        found=f"{plane.min().item():g}",
        where=where,
        remedy=f"declare it: rio edit-info --nodata {plane.min().item():g} FILE",
    )
