"""Nine windows of an image in files tell whether its pixels can be what is stated of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.contract.validity import Doubt, doubt_of_type
from eofm.raster.source import OpenRaster, RasterSource, _sample, find_doubt

L1C = SENSOR_BANDS[Sensor.S2_L1C]


def optical(offset: float = 0, scale: float = 1.0, size: int = 40) -> np.ndarray:
    """Make 13 bands as L1C has them: B10 about 15, the others some hundreds to thousands."""
    rng = np.random.default_rng(1)
    means = np.full(13, 1500.0)
    means[L1C.index("B10")] = 15
    pixels = means[:, None, None] * rng.uniform(0.6, 1.4, (13, size, size))
    return pixels * scale + offset


def water() -> np.ndarray:
    """Make 13 bands over dark water: only the blue, in which the sky is seen, is above 100."""
    level = np.where(np.isin(L1C, ("B01", "B02")), 0.4, 0.04)[:, None, None]
    return np.maximum(optical() * level, 1)


def radar(size: int = 40) -> np.ndarray:
    """Make VV and VH in decibels."""
    rng = np.random.default_rng(1)
    return np.array([-10.4, -17.1])[:, None, None] + rng.normal(0, 2.5, (2, size, size))


def both(raster: OpenRaster) -> Doubt | None:
    """The doubt of an image, which is the same of the nine windows read and cut from the whole."""
    found = find_doubt(raster)
    assert found == find_doubt(raster, raster.read_native())
    return found


@pytest.fixture
def doubt(tmp_path: Path, write_tif: Callable[..., Path]) -> Callable[..., Doubt | None]:
    """Write pixels, state a unit, and return what is doubtful about it."""

    def ask(
        pixels: np.ndarray, unit: Unit, sensor: Sensor = Sensor.S2_L1C, **keywords
    ) -> Doubt | None:
        path = write_tif(tmp_path / "a.tif", pixels, **keywords)
        with RasterSource("a", (path,), sensor, unit).open() as raster:
            dtypes = [doubt_of_type(dtype, unit) for dtype in raster.dtypes]
            return find_doubt(raster) if any(dtypes) else both(raster)

    return ask


# ------------------------------------------------------------------------------- doubts


@pytest.mark.parametrize(
    ("pixels", "unit"),
    [
        (optical().astype("uint16"), Unit.DN),
        (optical().astype("int16"), Unit.DN),
        (optical(1000).astype("uint16"), Unit.DN_OFFSET1000),
        (optical(0, 1e-4).astype("float32"), Unit.REFLECTANCE),
        (water().astype("uint16"), Unit.DN),
        (np.clip(optical(0, 9), 0, 28_000).astype("uint16"), Unit.DN),  # snow
        (np.zeros((13, 40, 40), "uint16"), Unit.DN),  # beside the swath
    ],
)
def test_true_statements(doubt, pixels: np.ndarray, unit: Unit) -> None:
    """Images that are what they are stated to be raise no doubt, dark, bright or empty."""
    assert doubt(pixels, unit) is None


def test_bands_of_three_resolutions(tmp_path: Path, write_bands: Callable[..., Path]) -> None:
    """Windows cut from an image hold, band by band, what the same windows read from it hold."""
    sizes = {"B02": 360, "B8A": 180, "B09": 60}
    folder = write_bands(tmp_path / "a", sizes)
    files = tuple(folder / f"{band}.tif" for band in sizes)
    with RasterSource("a", files, Sensor.S2_L2A, Unit.DN, tuple(sizes)).open() as raster:
        cut, read = (_sample(raster, whole) for whole in (raster.read_native(), None))

    assert cut.keys() == read.keys() == set(sizes)
    assert all(torch.equal(cut[band], read[band]) for band in sizes)
    assert [9 * 60 * 60, 9 * 30 * 30, 9 * 10 * 10] == [len(read[band]) for band in sizes]


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
    assert f"not in the range of unit {unit}" in doubt(pixels, unit).problem


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
        (radar()[::-1], Unit.DB, "VH is brighter"),
        (10 ** (radar()[::-1] / 10), Unit.POWER, "VH is brighter"),
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


LIFTED = ("S2L1C/609U", "patch_252161", "patch_57755")  # with the offset of baseline 04.00


@pytest.mark.slow
def test_real_units(real_data: Path) -> None:
    """No real image at hand is doubted in its own unit, and every optical one is in the other.

    Two of the twelve S2-100K patches hold the offset of baseline 04.00.
    """
    root = real_data
    stated = {
        "terramesh/S2L1C/*": (Sensor.S2_L1C, Unit.DN),
        "terramesh/S2L2A/*": (Sensor.S2_L2A, Unit.DN),
        "terramesh/S1RTC/*": (Sensor.S1_RTC, Unit.DB),
        "s2_100k/images/*": (Sensor.S2_L2A, Unit.DN),
        "eurosat_ms/test/*/*": (Sensor.S2_L1C, Unit.DN),
    }
    for pattern, (sensor, plain) in stated.items():
        bands = (*(b for b in L1C if b != "B8A"), "B8A") if "eurosat" in pattern else None
        for path in sorted(root.glob(pattern)):
            lifted = any(name in str(path) for name in LIFTED)
            units = [Unit.DN_OFFSET1000, Unit.DN] if lifted else [Unit.DN, Unit.DN_OFFSET1000]
            units = [plain] if plain is Unit.DB else units
            found = []
            for unit in units:
                with RasterSource(path.stem, (path,), sensor, unit, bands).open() as raster:
                    found.append(both(raster))
            assert found[0] is None, path
            assert all(doubt is not None for doubt in found[1:]), path
