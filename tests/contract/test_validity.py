"""Wrong declarations are caught by their traces, right ones pass, on real imagery too."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import torch
from levels import levels

from eofm.contract.imagery import Imagery
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import ENOUGH_IMAGES, check_plausible
from eofm.errors import PixelError


def images(generator: torch.Generator, count: int = ENOUGH_IMAGES, unit: Unit = Unit.DN) -> Imagery:
    """Level-1C images with the band means of EuroSAT."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    pixels = levels(bands) * (0.5 + torch.rand(count, len(bands), 8, 8, generator=generator))
    spec = ImageSpec(Sensor.S2_L1C, bands, unit, (8, 8), 10.0)
    return Imagery(pixels, spec, torch.ones(count, 8, 8, dtype=torch.bool))


def declared(imagery: Imagery, **changes: object) -> Imagery:
    """The same pixels under another declaration."""
    return replace(imagery, spec=replace(imagery.spec, **changes))


def test_honest_images_pass(generator: torch.Generator) -> None:
    """What is declared right raises nothing, in each of its units."""
    honest = images(generator)
    check_plausible(honest)
    check_plausible(replace(declared(honest, unit=Unit.REFLECTANCE), pixels=honest.pixels / 10000))
    lifted = replace(declared(honest, unit=Unit.DN_OFFSET1000), pixels=honest.pixels + 1000)
    check_plausible(lifted)


def test_b8a_read_from_its_usual_place_is_caught(generator: torch.Generator) -> None:
    """EuroSAT files hold B8A last; declared in the usual order, B10 would be B11's values."""
    stored = images(generator)
    order = [*range(8), *range(9, 13), 8]

    with pytest.raises(PixelError, match="not in the stated order") as caught:
        check_plausible(replace(stored, pixels=stored.pixels[:, order]))

    assert "of B09 12" in str(caught.value)
    assert caught.value.remedy is not None
    told = re.search(r"B8A last: ([B\w ]+)", caught.value.remedy)
    assert told is not None
    named = replace(stored.spec, bands=tuple(told[1].split()))
    check_plausible(replace(stored, pixels=stored.pixels[:, order], spec=named))


def test_swapped_infrared_bands_are_caught(generator: torch.Generator) -> None:
    """B08 and B8A see the same ground; B07 and B04 in their places do not."""
    stored = images(generator)
    order = [0, 1, 2, 7, 4, 5, 6, 3, *range(8, 13)]

    with pytest.raises(PixelError, match="in the stated order") as caught:
        check_plausible(replace(stored, pixels=stored.pixels[:, order]))

    assert "mean B08 / mean B8A = 0.3" in str(caught.value)


def test_level_2a_is_not_level_1c(generator: torch.Generator) -> None:
    """Below the water vapour B09 is as bright as B8A."""
    surface = images(generator)
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    surface.pixels[:, bands.index("B09")] *= 2600 / 729

    with pytest.raises(PixelError, match="s2-l1c") as caught:
        check_plausible(surface)

    assert "B09" in str(caught.value)


def test_level_1c_is_not_level_2a(generator: torch.Generator) -> None:
    """The other way round it is caught as well."""
    top = images(generator)
    keep = [i for i, band in enumerate(top.spec.bands) if band != "B10"]
    spec = replace(top.spec, sensor=Sensor.S2_L2A, bands=SENSOR_BANDS[Sensor.S2_L2A])

    with pytest.raises(PixelError, match="B09"):
        check_plausible(Imagery(top.pixels[:, keep], spec, top.valid))


def test_a_lake_is_not_accused(generator: torch.Generator) -> None:
    """Over few images of water the ratios mean nothing, and are not asked."""
    water = images(generator, count=4)
    water.pixels[:, 5:9] = water.pixels[:, 5:9] * 0.05

    check_plausible(water)


@pytest.mark.parametrize("count", [1, ENOUGH_IMAGES])
def test_an_undeclared_offset_is_caught(generator: torch.Generator, count: int) -> None:
    """B10 near 1000 is the offset of baseline 04.00; the error names the unit to declare."""
    honest = images(generator, count)

    with pytest.raises(PixelError, match="seem to carry it") as caught:
        check_plausible(replace(honest, pixels=honest.pixels + 1000))

    assert "state the unit: unit dn-offset1000" in str(caught.value)


def test_a_declared_offset_that_is_not_there_is_caught(generator: torch.Generator) -> None:
    """Subtracting 1000 from pixels without it would blacken them."""
    with pytest.raises(PixelError, match="seem to lack it"):
        check_plausible(images(generator, unit=Unit.DN_OFFSET1000))


def test_one_cirrus_cloud_is_no_offset(generator: torch.Generator) -> None:
    """A single image bright in B10 does not make a baseline."""
    cloudy = images(generator)
    cloudy.pixels[0, cloudy.spec.bands.index("B10")] += 800

    check_plausible(cloudy)


def test_wrong_units_are_caught(generator: torch.Generator) -> None:
    """Reflectance declared as digital numbers, and the reverse."""
    honest = images(generator)

    with pytest.raises(PixelError, match="in the range of unit dn"):
        check_plausible(replace(honest, pixels=honest.pixels / 10000))
    with pytest.raises(PixelError, match="in the range of unit reflectance"):
        check_plausible(declared(honest, unit=Unit.REFLECTANCE))


def test_a_filled_band_is_caught(generator: torch.Generator) -> None:
    """A band of zeros was not measured."""
    padded = images(generator)
    padded.pixels[:, 3] = 0

    with pytest.raises(PixelError, match="a band contains no measurement") as caught:
        check_plausible(padded)

    assert "B04 is 0 in every pixel" in str(caught.value)


def test_nodata_is_not_looked_at(generator: torch.Generator) -> None:
    """NaN under the mask is fine, NaN among valid pixels is not, and nothing valid is nothing."""
    honest = images(generator)
    honest.pixels[0, :, 0, 0] = torch.nan
    honest.valid[0, 0, 0] = False
    check_plausible(honest)

    with pytest.raises(PixelError, match="not finite"):
        check_plausible(replace(honest, valid=torch.ones_like(honest.valid)))
    with pytest.raises(PixelError, match="no pixel"):
        check_plausible(replace(honest, valid=torch.zeros_like(honest.valid)))


def radar(vv: float, vh: float, generator: torch.Generator) -> Imagery:
    """Backscatter around two means."""
    level = torch.tensor([vv, vh]).view(1, 2, 1, 1)
    pixels = level + torch.randn(3, 2, 16, 16, generator=generator)
    spec = ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (16, 16), 10.0)
    return Imagery(pixels, spec, torch.ones(3, 16, 16, dtype=torch.bool))


def test_radar_in_decibels_passes_and_nothing_else(generator: torch.Generator) -> None:
    """Swapped polarisations, linear power and integers leave traces."""
    honest = radar(-12.6, -20.3, generator)
    check_plausible(honest)

    with pytest.raises(PixelError, match="VH is brighter than VV"):
        check_plausible(radar(-20.3, -12.6, generator))
    with pytest.raises(PixelError, match="dB is mostly negative"):
        check_plausible(replace(honest, pixels=10 ** (honest.pixels / 10)))
    with pytest.raises(PixelError, match="integer type"):
        check_plausible(replace(honest, pixels=honest.pixels.round()))


def read(path: Path, sensor: Sensor, unit: Unit) -> Imagery:
    """One whole file in the usual band order."""
    with rasterio.open(path) as source:
        pixels = torch.from_numpy(source.read().astype("float32"))[None]
    bands = SENSOR_BANDS[sensor]
    spec = ImageSpec(sensor, bands, unit, (pixels.shape[2], pixels.shape[3]), 10.0)
    return Imagery(pixels, spec, torch.isfinite(pixels).all(dim=1))


def test_real_sites_show_their_offset(real_data: Path) -> None:
    """Of three TerraMesh sites the one of baseline 04.00 needs its unit, the others theirs."""
    for path in sorted((real_data / "terramesh" / "S2L1C").glob("*.tif")):
        lifted = "609U" in path.name
        right, wrong = (Unit.DN_OFFSET1000, Unit.DN) if lifted else (Unit.DN, Unit.DN_OFFSET1000)
        check_plausible(read(path, Sensor.S2_L1C, right))
        with pytest.raises(PixelError, match="seem to carry it" if lifted else "seem to lack it"):
            check_plausible(read(path, Sensor.S2_L1C, wrong))


# Of twelve S2-100K patches two hold the offset of baseline 04.00: no pixel of any band is darker
# than 1126 and 1148, of the others one band at least has pixels below 900.
LIFTED = ("252161", "57755")


def test_real_radar_and_surface_reflectance_pass(real_data: Path) -> None:
    """TerraMesh backscatter and S2-100K reflectance are what they are, and no other."""
    for path in sorted((real_data / "terramesh" / "S1RTC").glob("*.tif")):
        check_plausible(read(path, Sensor.S1_RTC, Unit.DB))
    for path in sorted((real_data / "s2_100k" / "images").glob("*.tif")):
        lifted = path.stem.removeprefix("patch_") in LIFTED
        right, wrong = (Unit.DN_OFFSET1000, Unit.DN) if lifted else (Unit.DN, Unit.DN_OFFSET1000)
        check_plausible(read(path, Sensor.S2_L2A, right))
        with pytest.raises(PixelError, match="processing baseline") as caught:
            check_plausible(read(path, Sensor.S2_L2A, wrong))
        assert f"unit {right}" in str(caught.value)
