"""Whether pixels can be what is stated, and their form in a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.contract.imagery import NativeImagery
from eofm.contract.sensors import SENSOR_BANDS
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity import Doubt
from eofm.errors import PixelError, RasterError
from eofm.raster.quality import find_doubt
from eofm.raster.source import RasterSource
from eofm.store.convert import stored_spec, stored_unit, to_stored

L1C = SENSOR_BANDS[Sensor.S2_L1C]
S1 = SENSOR_BANDS[Sensor.S1_GRD]


def optical(offset: float = 0, scale: float = 1.0, size: int = 40) -> np.ndarray:
    """Make 13 bands as L1C has them: B10 about 15, the others some hundreds to thousands."""
    rng = np.random.default_rng(1)
    means = np.full(13, 1500.0)
    means[L1C.index("B10")] = 15
    pixels = means[:, None, None] * rng.uniform(0.6, 1.4, (13, size, size))
    return pixels * scale + offset


def radar(size: int = 40) -> np.ndarray:
    """Make VV and VH in decibels."""
    rng = np.random.default_rng(1)
    return np.array([-10.4, -17.1])[:, None, None] + rng.normal(0, 2.5, (2, size, size))


@pytest.fixture
def doubt(tmp_path: Path, write_tif: Callable[..., Path]) -> Callable[..., Doubt | None]:
    """Write pixels, state a unit, and return what is doubtful about it."""

    def ask(
        pixels: np.ndarray, unit: Unit, sensor: Sensor = Sensor.S2_L1C, **keywords
    ) -> Doubt | None:
        path = write_tif(tmp_path / "a.tif", pixels, **keywords)
        with RasterSource("a", (path,), sensor, unit).open() as raster:
            return find_doubt(raster)

    return ask


# ------------------------------------------------------------------------------- doubts


@pytest.mark.parametrize(
    ("pixels", "unit"),
    [
        (optical().astype("uint16"), Unit.DN),
        (optical().astype("int16"), Unit.DN),
        (optical(1000).astype("uint16"), Unit.DN_OFFSET1000),
        (optical(0, 1e-4).astype("float32"), Unit.REFLECTANCE),
        (optical(0, 0.04).astype("uint16"), Unit.DN),  # dark water
        (np.clip(optical(0, 9), 0, 28_000).astype("uint16"), Unit.DN),  # snow
        (np.zeros((13, 40, 40), "uint16"), Unit.DN),  # beside the swath
    ],
)
def test_true_statements(doubt, pixels: np.ndarray, unit: Unit) -> None:
    """Images that are what they are stated to be raise no doubt, dark, bright or empty."""
    assert doubt(pixels, unit) is None


def test_unstated_offset(doubt) -> None:
    """B10 of about 1014 shows the offset, and the unit it would be right in is offered."""
    found = doubt(optical(1000).astype("uint16"), Unit.DN)

    assert "seem to carry it" in found.problem
    assert "median of B10 1014" == found.found
    assert Unit.DN_OFFSET1000 is found.instead


def test_offset_that_is_not_there(doubt) -> None:
    """Stating the offset of an image without it would subtract 1000 from every band: refused."""
    found = doubt(np.clip(optical(), 0, None).astype("uint16"), Unit.DN_OFFSET1000)

    assert "seem to lack it" in found.problem
    assert Unit.DN is found.instead


def test_cloud_is_no_offset(doubt) -> None:
    """High cloud over two fifths of an image is bright in B10, and no doubt; nor is a margin."""
    pixels = optical().astype("uint16")
    pixels[:, :, :16] += 2000
    assert doubt(pixels, Unit.DN) is None

    pixels = optical(1000).astype("uint16")
    pixels[:, :, :30] = 0  # undeclared nodata over most of the image
    assert doubt(pixels, Unit.DN_OFFSET1000) is None
    assert doubt(pixels, Unit.DN) is not None


@pytest.mark.parametrize(
    ("pixels", "unit"),
    [
        (optical(0, 1e-4).astype("float32"), Unit.DN),
        (optical(0, 1e-4).astype("float32"), Unit.DN_OFFSET1000),
        (optical().astype("uint16"), Unit.REFLECTANCE),
        (optical(0, 60).astype("float32"), Unit.DN),
    ],
)
def test_wrong_scale(doubt, pixels: np.ndarray, unit: Unit) -> None:
    """Reflectance is not a digital number, nor the other way round."""
    assert f"the size that unit {unit} has" in doubt(pixels, unit).problem


def test_preview(doubt) -> None:
    """An 8-bit rendering is not digital numbers."""
    assert "8-bit" in doubt(optical(0, 0.05).astype("uint8"), Unit.DN).problem


@pytest.mark.parametrize(
    ("pixels", "unit", "problem"),
    [
        (radar(), Unit.DB, None),
        (10 ** (radar() / 10), Unit.POWER, None),
        (10 ** (radar() / 10), Unit.DB, "mostly negative"),
        (radar(), Unit.POWER, "is positive"),
        (radar()[::-1], Unit.DB, "VH is darker"),
        (10 ** (radar()[::-1] / 10), Unit.POWER, "VH is darker"),
    ],
)
def test_radar(doubt, pixels: np.ndarray, unit: Unit, problem: str | None) -> None:
    """Decibels, power and swapped polarisations are told apart."""
    found = doubt(pixels.astype("float32"), unit, Sensor.S1_GRD)

    assert (problem is None) == (found is None)
    assert problem is None or problem in found.problem


def test_only_windows_are_looked_at(doubt) -> None:
    """Nine windows stand for an image; a fault between them is not looked for."""
    pixels = optical(size=300).astype("uint16")
    pixels[:, 70:110, 70:110] = 65_535

    assert doubt(pixels, Unit.DN) is None


# ------------------------------------------------------------------------------ storing


def native(values: np.ndarray, sensor: Sensor, unit: Unit, bands: tuple[str, ...]) -> NativeImagery:
    """Make an image on one grid, all valid."""
    spec = ImageSpec(sensor, bands, unit, values.shape[1:], 10.0)
    valid = torch.ones(1, *values.shape[1:], dtype=torch.bool)
    return NativeImagery({10: torch.from_numpy(values)[None]}, {10: bands}, spec, valid)


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
    path = write_tif(tmp_path / "a.tif", optical(1000).astype("uint16"))
    source = RasterSource("a", (path,), Sensor.S2_L1C, Unit.DN_OFFSET1000, stored_order)
    with source.open() as raster:
        found = stored_spec(raster, (20, 20))

    assert ImageSpec(Sensor.S2_L1C, L1C, Unit.DN, (20, 20), 10.0) == found


def test_real_units(real_data: Path) -> None:
    """No real image at hand is doubted in its own unit, and each offset site is in the other."""
    root = real_data
    stated = {
        "terramesh/S2L1C/38D*": (Sensor.S2_L1C, Unit.DN),
        "terramesh/S2L1C/637U*": (Sensor.S2_L1C, Unit.DN),
        "terramesh/S2L1C/609U*": (Sensor.S2_L1C, Unit.DN_OFFSET1000),
        "terramesh/S2L2A/*": (Sensor.S2_L2A, Unit.DN),
        "terramesh/S1RTC/*": (Sensor.S1_RTC, Unit.DB),
        "s2_100k/images/*": (Sensor.S2_L2A, Unit.DN),
        "eurosat_ms/test/*/*": (Sensor.S2_L1C, Unit.DN),
    }
    for pattern, (sensor, unit) in stated.items():
        bands = None
        if "eurosat" in pattern:
            bands = (*(b for b in L1C if b != "B8A"), "B8A")
        for path in sorted(root.glob(pattern)):
            with RasterSource(path.stem, (path,), sensor, unit, bands).open() as raster:
                assert find_doubt(raster) is None, path
            if sensor is Sensor.S2_L1C:
                other = Unit.DN if unit is Unit.DN_OFFSET1000 else Unit.DN_OFFSET1000
                with RasterSource(path.stem, (path,), sensor, other, bands).open() as raster:
                    assert find_doubt(raster) is not None, path
