"""Composites use named bands and one fixed stretch per sensor, but for images it leaves blank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Recipe
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import SpecError
from eofm.report import output, sheets
from eofm.report.plots import ClassCounts
from eofm.report.sheets import (
    COMPOSITES,
    FIXED,
    Thumb,
    composite_for,
    composite_of,
    draw_mask,
    stretches,
    to_rgb,
)

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


def test_a_subset_of_the_bands_is_shown_in_gray() -> None:
    """The first band between two standard deviations around its published mean, in any unit."""
    spec = replace(SPEC, bands=("B08", "B11"))
    stats = STATISTICS["ssl4eo-s12-l1c"].select(("B08",))
    composite = composite_for(spec)
    middle = stats.mean[0]

    dn = to_rgb(image(spec, {"B08": middle}), composite=composite)
    share = to_rgb(
        image(replace(spec, unit=Unit.REFLECTANCE), {"B08": middle / 10000}), composite=composite
    )

    assert composite_for(SPEC) is composite_of(Sensor.S2_L1C)
    assert composite.caption.startswith("B08, ")
    # limits of two digits, so that the caption can be read
    assert pytest.approx([0.5] * 3, abs=0.02) == dn[0, 0, 0].tolist()
    assert torch.allclose(dn, share, atol=1e-5)


# --------------------------------------------------------------------------------- stretch


def scene_of(values: torch.Tensor) -> Imagery:
    """One L1C image whose bands all have these digital numbers, (H, W)."""
    pixels = values.expand(1, len(S2), *values.shape).clone()
    spec = replace(SPEC, size=(values.shape[0], values.shape[1]))
    return Imagery(pixels, spec, torch.ones(1, *values.shape, dtype=torch.bool))


def test_snow_has_a_stretch_of_its_own_and_its_structure_is_seen() -> None:
    """Bright beyond the fixed stretch, it is white without one and has contrast with it."""
    snow = scene_of(torch.linspace(6000, 9000, 64).view(8, 8))

    (own,) = stretches(snow)
    fixed, shown = to_rgb(snow), to_rgb(snow, stretch=[own])

    assert own != FIXED
    assert 1.0 == float(fixed.min())
    assert float(shown[0, ..., 0].std()) > 0.1
    assert "own stretch: B04 " in own.words(composite_of(Sensor.S2_L1C))


def test_land_and_scattered_cloud_keep_the_fixed_stretch() -> None:
    """Less than half of the pixels clipped is no blank image, so pictures can be compared."""
    land = torch.linspace(800, 2200, 64).view(8, 8)
    cloudy = land.clone()
    cloudy.view(-1)[:30] = 9000

    for values in (land, cloudy):
        assert (FIXED,) == stretches(scene_of(values))
    assert torch.equal(to_rgb(scene_of(land)), to_rgb(scene_of(land), stretch=[FIXED]))
    assert "" == FIXED.words(composite_of(Sensor.S2_L1C))


def test_the_own_stretch_is_between_percentiles_of_the_valid_pixels() -> None:
    """By numpy on the clipped-free shares; nodata has no say, and one grey alone stays fixed."""
    values = torch.linspace(6000, 9000, 64).view(8, 8)
    snow = scene_of(values)
    snow.valid[0, 0] = False
    snow.pixels[:, :, 0] = 0

    (own,) = stretches(snow)

    low, span = np.array([300, 300, 700]), np.array([2500, 2000, 1600])
    first, last = np.percentile(values[1:].numpy(), [2, 98])  # every band is the same here
    assert pytest.approx(((first - low) / span).tolist(), rel=1e-4) == own.low
    assert pytest.approx(((last - low) / span).tolist(), rel=1e-4) == own.high
    white = to_rgb(snow, stretch=[own])[0, 1:]
    assert float((white.amax(dim=-1) - white.amin(dim=-1)).max()) < 1e-5  # no tint
    dark = scene_of(torch.zeros(8, 8))
    assert (FIXED,) == stretches(dark)
    snow.valid[:] = False
    assert (FIXED,) == stretches(snow)


# ---------------------------------------------------------------------------------- sheets


def test_a_mask_fades_exactly_the_dropped_patches() -> None:
    """Kept patches are untouched, dropped ones are dark, row by row."""
    rgb = torch.full((4, 6, 3), 0.8)

    drawn = draw_mask(rgb, torch.tensor([0, 5]), 2)

    assert torch.equal(rgb[:2, :2], drawn[:2, :2])
    assert torch.equal(rgb[2:, 4:], drawn[2:, 4:])
    assert 16 == int((drawn[..., 0] < 0.2).sum())
    assert draw_mask(rgb, None, 2) is rgb


def test_a_contact_sheet_shows_every_picture_in_its_place() -> None:
    """Rows are images, columns their views; each caption stands under the first of its row."""
    one, two = torch.rand(2, 3, 8, 8, 3, generator=torch.Generator().manual_seed(0))

    figure = sheets.contact_sheet({"scene": list(one), "view $1$": list(two)}, ["a", "b", "c"], "t")

    axes = np.array(figure.axes).reshape(3, 2)
    for row in range(3):
        assert np.array_equal(one[row], axes[row, 0].images[0].get_array())
        assert np.array_equal(two[row], axes[row, 1].images[0].get_array())
    assert ["a", "b", "c"] == [axis.get_xlabel() for axis in axes[:, 0]]
    assert output.png(figure).startswith(b"\x89PNG")


def test_the_overview_of_a_store_shows_its_samples_places_and_classes() -> None:
    """Every sample is drawn; those with a stretch of their own are marked, and counted once."""
    pictures = np.random.default_rng(0).random((9, 4, 4, 3))
    thumbs = [Thumb(p, f"id-{i}", "water", "own" * (i == 8)) for i, p in enumerate(pictures)]
    counts = ClassCounts(("water", "snow"), np.array([[3, 1], [1, 1]]), 3, 1)
    where = (np.array([10.0, 20.0]), np.array([50.0, 60.0]), "2 places")

    figure = sheets.overview("t", where, counts, thumbs, "B04 B03 B02")

    shown = [axis.images[0].get_array() for axis in figure.axes[3:] if axis.images]
    assert 9 == len(shown)
    assert all(np.array_equal(a, b) for a, b in zip(pictures, shown, strict=True))
    assert [[10.0, 50.0], [20.0, 60.0]] == figure.axes[0].collections[0].get_offsets().tolist()
    starred = [axis.get_title() for axis in figure.axes if axis.get_title().startswith("* ")]
    assert ["* id-8\nwater"] == starred
    assert "leaves 1 blank" in figure.subfigs[1].get_suptitle()
    assert output.png(figure).startswith(b"\x89PNG")


# ------------------------------------------------------------------------------- rasters as figures


def test_grays_have_a_bar_that_says_what_they_stand_for() -> None:
    """The bar has the words at their places; without words there is none; both are drawn whole."""
    pixels = sheets.grays(np.array([[0.0, 0.5], [1.0, np.nan]], np.float32))
    figure = sheets.raster("t", pixels, {"none": sheets.NO_NUMBER_COLOUR}, {0: "0", 0.5: "limit"})
    plain = sheets.raster("t", pixels)

    picture, bar = figure.axes
    assert [0, 0.5] == bar.get_xticks().tolist()
    assert ["0", "limit"] == [text.get_text() for text in bar.get_xticklabels()]
    assert 1 == len(plain.axes)
    for one in (figure, plain):
        assert output.png(one).startswith(b"\x89PNG")
        top = one.axes[0].title.get_window_extent().y1
        assert top <= one.bbox.y1
    assert picture.get_position().height > 0.5
