"""Composites use named bands and one fixed stretch per sensor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Recipe
from eofm.contract.sensors import SENSOR_BANDS, STATISTICS
from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
from eofm.errors import SpecError
from eofm.report.figures import COMPOSITES, composite_of, to_rgb

S2 = SENSOR_BANDS[Sensor.S2_L1C]
SPEC = ImageSpec(Sensor.S2_L1C, S2, Unit.DN, (4, 4), 10)


def image(spec: ImageSpec, values: dict[str, float]) -> Imagery:
    """One image with a constant per band."""
    pixels = torch.tensor([float(values.get(band, 1000.0)) for band in spec.bands])
    size = spec.size or (4, 4)
    return Imagery(
        pixels.view(1, -1, 1, 1).expand(1, -1, *size).clone(),
        spec,
        torch.ones(1, *size, dtype=torch.bool),
    )


def test_red_green_blue_come_by_name() -> None:
    """B04, B03 and B02 become red, green and blue between their fixed bounds, in any band order."""
    values = {"B04": 2800.0, "B03": 300.0, "B02": 1500.0}

    straight = to_rgb(image(SPEC, values))[0, 0, 0]
    reverse = to_rgb(image(replace(SPEC, bands=S2[::-1]), values))[0, 0, 0]

    assert pytest.approx([1.0, 0.0, 0.5]) == straight.tolist()
    assert straight.equal(reverse)


def test_the_offset_does_not_brighten_a_picture() -> None:
    """A scene with the +1000 offset looks like itself without it."""
    plain = to_rgb(image(SPEC, {"B04": 1200.0}))
    offset = to_rgb(image(replace(SPEC, unit=Unit.DN_OFFSET1000), {"B04": 2200.0, "B03": 2000.0,
                                                                   "B02": 2000.0}))  # fmt: skip

    assert torch.allclose(plain, offset)


def test_a_normalised_image_looks_like_the_scene() -> None:
    """The normalisation is undone, up to its 8-bit steps."""
    stats = STATISTICS["ssl4eo-s12-l1c"]
    recipe = Recipe(
        Sensor.S2_L1C, S2, Unit.DN, (4, 4), Normalization.two_sigma(stats.mean, stats.std, "test")
    )
    scene = image(SPEC, {"B04": 1200.0, "B03": 900.0, "B02": 1100.0})

    normalised = Preprocess(plan(SPEC, recipe))(scene)

    assert torch.allclose(to_rgb(scene), to_rgb(normalised, Unit.DN), atol=0.02)


def test_sar_shows_the_ratio_in_blue() -> None:
    """VV, VH and VV - VH, in dB."""
    spec = ImageSpec(Sensor.S1_RTC, ("VV", "VH"), Unit.DB, (4, 4), 10)

    assert (
        pytest.approx([0.5, 0.5, 0.375])
        == to_rgb(image(spec, {"VV": -11, "VH": -17}))[0, 0, 0].tolist()
    )


def test_invalid_pixels_are_gray_and_missing_bands_an_error() -> None:
    """Nodata is neither black nor white; a subset without the composite's bands is refused."""
    scene = image(SPEC, {})
    scene.valid[0, 0, 0] = False

    assert [0.5, 0.5, 0.5] == to_rgb(scene)[0, 0, 0].tolist()
    with pytest.raises(SpecError, match="B04"):
        to_rgb(image(replace(SPEC, bands=("B02", "B03")), {}))


def test_every_sensor_has_a_caption() -> None:
    """A picture can always say its bands and stretch."""
    assert set(Sensor) == set(COMPOSITES)
    assert "B04 B03 B02" in composite_of(Sensor.S2_L1C).caption
