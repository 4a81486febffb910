"""The form of images in a store: unit, number type, band order and what is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import measured
from eofm.errors import PixelError, RasterError
from eofm.raster.source import RasterSource
from eofm.store.packing import stored_spec, stored_unit, to_stored

L1C = SENSOR_BANDS[Sensor.S2_L1C]
S1 = SENSOR_BANDS[Sensor.S1_GRD]


def native(values: np.ndarray, sensor: Sensor, unit: Unit, bands: tuple[str, ...]) -> NativeImagery:
    """Make an image on one grid as a reader returns it: with what was measured marked."""
    spec = ImageSpec(sensor, bands, unit, values.shape[1:], 10.0)
    planes = {10: torch.from_numpy(values)[None]}
    valid = measured(planes, {}, {10: bands}, unit, values.shape[1:])
    return NativeImagery(planes, {10: bands}, spec, valid)


def spec(sensor: Sensor, unit: Unit, bands: tuple[str, ...]) -> ImageSpec:
    """Make the spec of a store of 2 x 2 images."""
    return ImageSpec(sensor, bands, unit, (2, 2), 10.0)


def test_offset_is_subtracted() -> None:
    """Baseline 04.00 loses its 1000, and what falls below 0 is 0."""
    values = np.array([[[1000, 1001], [999, 61_000]]], np.uint16)
    image = native(values, Sensor.S2_L1C, Unit.DN_OFFSET1000, ("B02",))

    stored = to_stored(image, spec(Sensor.S2_L1C, Unit.DN, ("B02",)), "x")

    assert torch.uint16 == stored.planes[10].dtype
    assert [[0, 1], [0, 60_000]] == stored.planes[10][0, 0].tolist()
    assert bool(stored.valid.all())


def test_reflectance_is_rounded() -> None:
    """Reflectance becomes digital numbers, rounded and clipped to what uint16 holds."""
    values = np.array([[[0.12345, -0.01], [0.12344, 9.0]]], np.float32)
    image = native(values, Sensor.S2_L1C, Unit.REFLECTANCE, ("B02",))

    stored = to_stored(image, spec(Sensor.S2_L1C, Unit.DN, ("B02",)), "x")

    assert [[1234, 0], [1234, 65_535]] == stored.planes[10][0, 0].tolist()


def test_signed_digital_numbers() -> None:
    """int16 files give the same store as uint16 files, small negative noise aside."""
    values = np.array([[[5, -3], [0, 32_767]]], np.float32)  # read_native gives int16 as float32
    image = native(values, Sensor.S2_L2A, Unit.DN, ("B02",))

    stored = to_stored(image, spec(Sensor.S2_L2A, Unit.DN, ("B02",)), "x")

    assert [[5, 0], [0, 32_767]] == stored.planes[10][0, 0].tolist()
    assert [[True, True], [False, True]] == stored.valid[0].tolist()


@pytest.mark.parametrize("unit", [Unit.DN, Unit.DN_OFFSET1000])
def test_black_in_every_band_is_nodata(unit: Unit) -> None:
    """0 in all bands was not measured, as the product definition says; 0 in one band was."""
    values = np.full((2, 2, 2), 1500, np.uint16)
    values[:, 0, 0] = 0
    values[0, 1, 1] = 0
    image = native(values, Sensor.S2_L1C, unit, ("B02", "B03"))

    stored = to_stored(image, spec(Sensor.S2_L1C, Unit.DN, ("B02", "B03")), "x")

    assert [[False, True], [True, True]] == stored.valid[0].tolist()


def test_no_power_has_no_decibels() -> None:
    """Power is stored in dB; where there is none the pixel is invalid and its value finite."""
    values = np.array([[[0.1, 0.0], [1.0, 10.0]], [[0.01, 0.1], [-1e-5, 1.0]]], np.float32)
    image = native(values, Sensor.S1_GRD, Unit.POWER, S1)

    stored = to_stored(image, spec(Sensor.S1_GRD, Unit.DB, S1), "x")

    assert [[True, False], [False, True]] == stored.valid[0].tolist()
    assert bool(torch.isfinite(stored.planes[10]).all())
    np.testing.assert_allclose(stored.planes[10][0, :, 0, 0], [-10, -20], rtol=1e-6)


@pytest.mark.parametrize(
    ("sensor", "unit", "bands"),
    [(Sensor.S2_L2A, Unit.DN, ("B02",)), (Sensor.S1_GRD, Unit.DB, ("VV",))],
)
def test_undeclared_nodata(sensor: Sensor, unit: Unit, bands: tuple[str, ...]) -> None:
    """-9999 is no measurement; a file that does not declare it is refused, not clipped."""
    values = np.array([[[-12, 5], [-9999, 7]]], np.float32)

    with pytest.raises(PixelError, match="rio edit-info --nodata -9999"):
        to_stored(native(values, sensor, unit, bands), spec(sensor, unit, bands), "x")


def test_bands_come_in_the_sensors_order() -> None:
    """Two images that store the same bands in another order go into one store."""
    values = np.array([np.full((2, 2), 300), np.full((2, 2), 200)], np.uint16)
    image = native(values, Sensor.S2_L1C, Unit.DN, ("B03", "B02"))

    stored = to_stored(image, spec(Sensor.S2_L1C, Unit.DN, ("B02", "B03")), "x")

    assert {10: ("B02", "B03")} == stored.bands
    assert [200, 300] == stored.planes[10][0, :, 0, 0].tolist()


@pytest.mark.parametrize(
    "other",
    [
        ImageSpec(Sensor.S2_L1C, ("B02",), Unit.DN, (2, 2), 10.0),
        ImageSpec(Sensor.S2_L1C, ("B02", "B03"), Unit.DN, (2, 2), 20.0),
    ],
)
def test_other_images_are_refused(other: ImageSpec) -> None:
    """Images with other bands or of another GSD do not share a store."""
    image = native(np.ones((2, 2, 2), np.uint16), Sensor.S2_L1C, Unit.DN, ("B02", "B03"))

    with pytest.raises(RasterError, match="differs from the first"):
        to_stored(image, other, "x")


def test_one_unit_per_sensor() -> None:
    """Whatever is read is stored as digital numbers or decibels; RGB stays what it is."""
    assert {Unit.DN} == {
        stored_unit(Sensor.S2_L1C, u) for u in (Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE)
    }
    assert {Unit.DB} == {stored_unit(Sensor.S1_RTC, u) for u in (Unit.DB, Unit.POWER)}
    assert Unit.UINT8 is stored_unit(Sensor.RGB, Unit.UINT8)
    assert Unit.REFLECTANCE is stored_unit(Sensor.RGB, Unit.REFLECTANCE)


def test_spec_of_the_store(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """The spec of a store has the sensor's band order, the stored unit and the window's size."""
    stored_order = (*(b for b in L1C if b != "B8A"), "B8A")
    path = write_tif(tmp_path / "a.tif", np.full((13, 40, 40), 2500, np.uint16))
    source = RasterSource("a", (path,), Sensor.S2_L1C, Unit.DN_OFFSET1000, stored_order)
    with source.open() as raster:
        found = stored_spec(raster, (20, 20))

    assert ImageSpec(Sensor.S2_L1C, L1C, Unit.DN, (20, 20), 10.0) == found
