"""The form that images have in a packed store: unit, number type and band order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch

from eofm.contract.imagery import NativeImagery
from eofm.contract.preprocess import convert_unit
from eofm.contract.sensors import SENSOR_BANDS
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity import check_sentinels
from eofm.errors import RasterError
from eofm.raster.source import OpenRaster

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


def stored_unit(sensor: Sensor, unit: Unit) -> Unit:
    """Return the unit in which a store keeps images of a sensor stated to be in `unit`."""
    return unit if sensor in {Sensor.RGB, Sensor.NAIP} else _STORED[unit]


def stored_spec(raster: OpenRaster, size: tuple[int, int]) -> ImageSpec:
    """Return the spec of windows of an image in a store: bands in the order of the sensor."""
    spec = raster.spec()
    bands = tuple(band for band in SENSOR_BANDS[spec.sensor] if band in raster.bands)
    return replace(spec, bands=bands, size=size, unit=stored_unit(spec.sensor, spec.unit))


def to_stored(native: NativeImagery, spec: ImageSpec, where: str) -> NativeImagery:
    """Bring an image to the unit, dtype and band order of a store.

    Digital numbers are rounded and clipped at 0: subtracting the offset of baseline 04.00 leaves
    small negative numbers over water and shadow.

    Args:
        native: As read, with the pixels that hold no measurement marked.
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
    check_sentinels(native, where)
    planes, bands = {}, {}
    for gsd, plane in native.planes.items():
        order = [band for band in spec.bands if band in native.bands[gsd]]
        index = [native.bands[gsd].index(band) for band in order]
        bands[gsd] = tuple(order)
        planes[gsd] = _convert(plane[:, index], found.unit, spec.unit)
    return NativeImagery(planes, bands, spec, native.valid)


def _convert(plane: torch.Tensor, unit: Unit, target: Unit) -> torch.Tensor:
    integer = target in _INTEGER
    if unit is target and (plane.dtype == torch.uint16) == integer:
        return plane
    values = plane.float()
    if unit is Unit.POWER:
        values = torch.where(values > 0, values, 1.0)  # 0 dB, under an invalid pixel
    values = convert_unit(values, unit, target)
    return values.round().clamp(0, 65_535).to(torch.uint16) if integer else values
