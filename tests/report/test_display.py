"""Pictures of imagery in a notebook."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.image import imread

from eofm.contract.imagery import Georeference, Imagery
from eofm.contract.spec import SENSOR_BANDS, UNITS, ImageSpec, Sensor, Unit
from eofm.errors import SpecError
from eofm.report.sheets import composite_for, to_rgba

UTM = Georeference("EPSG:32632", (10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6))


def image(
    sensor: Sensor, bands: tuple[str, ...], unit: Unit, value: float, size: int = 8
) -> Imagery:
    """Make an image of one value; its upper left pixel is not measured."""
    pixels = torch.full((1, len(bands), size, size), float(value))
    valid = torch.ones(1, size, size, dtype=torch.bool)
    valid[0, 0, 0] = False
    return Imagery(pixels, ImageSpec(sensor, bands, unit, (size, size), 10.0), valid, (UTM,))


@pytest.mark.parametrize(
    ("sensor", "unit"), [(s, u) for s in Sensor for u in sorted(UNITS[s])], ids=str
)
def test_every_sensor_in_every_unit_has_a_picture(sensor: Sensor, unit: Unit) -> None:
    """What is not measured is transparent, all else is opaque."""
    value = {Unit.DB: -12.0, Unit.POWER: 0.06, Unit.REFLECTANCE: 0.1, Unit.UINT8: 90.0}
    shown, caption = to_rgba(image(sensor, SENSOR_BANDS[sensor], unit, value.get(unit, 1900.0)))

    assert (8, 8, 4) == shown.shape
    assert 0 == shown[0, 0, 3]
    assert 255 == shown[1:, 1:, 3].min()
    assert 0 < shown[4, 4, 0] < 255
    assert "1.6% not measured" in caption


def test_the_same_ground_looks_the_same_in_every_unit() -> None:
    """Digital numbers, with or without offset, and reflectance make equal pictures."""
    bands = ("B04", "B03", "B02")
    pictures = [
        to_rgba(image(Sensor.S2_L2A, bands, unit, value))[0]
        for unit, value in ((Unit.DN, 1200), (Unit.DN_OFFSET1000, 2200), (Unit.REFLECTANCE, 0.12))
    ]

    assert np.ptp(np.stack(pictures)[..., :3].astype(int), axis=0).max() <= 1


def test_snow_is_not_white_and_says_so() -> None:
    """Where the fixed stretch leaves an image blank, it has its own; the caption names it."""
    snow = image(Sensor.S2_L2A, ("B04", "B03", "B02"), Unit.DN, 6000)
    snow.pixels[0] += torch.arange(8.0) * 300

    shown, caption = to_rgba(snow)

    assert shown[1, :, 0].astype(int).std() > 60
    assert "own stretch: B04 6" in caption
    assert "own stretch" not in to_rgba(image(Sensor.S2_L2A, ("B04",), Unit.DN, 1000))[1]


def test_colours_follow_the_bands_that_are_there() -> None:
    """True colours where they can be, else near infrared as red, else one band as gray."""

    def shown(*bands: str) -> tuple[str, str, str]:
        return composite_for(image(Sensor.S2_L2A, bands, Unit.DN, 1000).spec).bands

    assert ("B04", "B03", "B02") == shown("B02", "B03", "B04", "B08")
    assert ("B08", "B04", "B03") == shown("B03", "B04", "B08")
    assert ("B11", "B11", "B11") == shown("B11", "B05")
    gray, _ = to_rgba(image(Sensor.S1_GRD, ("VV",), Unit.DB, -12.0))
    assert gray[4, 4, 0] == gray[4, 4, 1] == gray[4, 4, 2]


def test_power_that_is_not_positive_is_not_measured() -> None:
    """There is no dB of no power: such pixels are shown as unmeasured, not as an error."""
    radar = image(Sensor.S1_GRD, ("VV", "VH"), Unit.POWER, 0.1)
    radar.pixels[0, 1, 3, 3] = 0.0

    assert 0 == to_rgba(radar)[0][3, 3, 3]


def test_plot_is_drawn_in_coordinates() -> None:
    """The picture covers the ground of the image, and nothing is cut off."""
    ax = image(Sensor.S2_L2A, ("B04", "B03", "B02"), Unit.DN, 1000).plot()
    try:
        assert [5e5, 5e5 + 80, 5.4e6 - 80, 5.4e6] == list(ax.images[0].get_extent())
        assert "B04 B03 B02" in ax.get_title()
        ax.figure.canvas.draw()
    finally:
        plt.close(ax.figure)


def test_plot_of_a_rotated_image_counts_pixels() -> None:
    """Coordinates along the edges would be wrong there."""
    one = image(Sensor.S2_L2A, ("B08",), Unit.DN, 1000)
    turned = Imagery(
        one.pixels, one.spec, one.valid, (Georeference("EPSG:32632", (8, 3, 0, 2, -9, 0)),)
    )
    figure, ax = plt.subplots()
    try:
        assert ax is turned.plot(ax)
        assert [0, 8, 8, 0] == list(ax.images[0].get_extent())
    finally:
        plt.close(figure)


def test_the_notebook_gets_a_picture_and_the_facts() -> None:
    """The inline PNG is the image itself, at most 256 pixels wide, beside what it is."""
    text = image(Sensor.S2_L2A, ("B04", "B03", "B02"), Unit.DN, 1000, size=600)._repr_html_()
    data = re.search(r"data:image/png;base64,([^']+)", text)[1]
    picture = imread(io.BytesIO(base64.b64decode(data)))

    assert (200, 200, 4) == picture.shape
    assert 0 == picture[0, 0, 3]
    for fact in ("s2-l2a", "600 x 600", "EPSG:32632", "100.0%"):
        assert fact in text
    assert len(text) < 200_000


def test_a_batch_is_not_one_picture() -> None:
    """The message says how to take the first image, and that works."""
    one = image(Sensor.S2_L2A, ("B08",), Unit.DN, 1000)
    two = Imagery(one.pixels.repeat(2, 1, 1, 1), one.spec, one.valid.repeat(2, 1, 1))

    with pytest.raises(SpecError, match=r"imagery\[0\]"):
        to_rgba(two)
    assert (8, 8, 4) == to_rgba(two[0])[0].shape
    assert "<img" in two._repr_html_()
