"""What names of bands can mean, at the limits of each rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eofm.contract.spec import (
    SENSOR_BANDS,
    ImageSpec,
    Normalization,
    Sensor,
    Unit,
    are_codes,
    band_candidates,
    canonical_band,
    canonical_bands,
    counterparts,
)
from eofm.errors import SpecError

# The lowest and the highest centre that is stated for Sentinel-2A, B, C or the mission, in nm.
CENTRES = {
    "B01": (442, 445),
    "B02": (489, 497),
    "B03": (558.5, 561),
    "B04": (664, 667),
    "B05": (703, 708),
    "B06": (739, 742),
    "B07": (779, 785),
    "B08": (832, 842.5),
    "B8A": (863.5, 866),
    "B09": (943, 948),
    "B10": (1372, 1380),
    "B11": (1609.5, 1615),
    "B12": (2185, 2203),
}


@pytest.mark.parametrize("band", CENTRES)
def test_a_wavelength_is_a_band_up_to_its_outermost_centres(band: str) -> None:
    """And no further: a tenth of a nanometre beyond, it is the centre of no band."""
    low, high = CENTRES[band]
    for inside in (low, high):
        assert (band,) == band_candidates(f"{inside:g} nm", Sensor.S2_L1C)
        assert (band,) == band_candidates(f"{inside / 1000:.5f} um", Sensor.S2_L1C)
    for outside in (low - 0.1, high + 0.1):
        assert () == band_candidates(f"{outside:.1f} nm", Sensor.S2_L1C)


def test_words_around_a_name_are_six_at_most() -> None:
    """More is a sentence."""
    assert ("B02",) == band_candidates(" ".join(["blue"] * 6), Sensor.S2_L2A)
    assert () == band_candidates(" ".join(["blue"] * 7), Sensor.S2_L2A)


def test_numbers_are_part_of_a_name_or_not() -> None:
    """`band 4` is one word; the B1 of a second image is not B11; a bare number names nothing."""
    for name in ("band 4", "Band_4", "B 4", "b-04"):
        assert ("B04",) == band_candidates(name, Sensor.S2_L2A)
    assert () == band_candidates("B1_1", Sensor.S2_L2A)
    assert () == band_candidates("3", Sensor.S2_L2A)
    assert () == band_candidates("3 (665 nm)", Sensor.S2_L2A)
    assert ("B04",) == band_candidates("0_B4", Sensor.S2_L2A)  # Earth Engine's toBands()


def test_all_names_are_codes_or_they_are_none() -> None:
    """One other word is enough."""
    assert are_codes(["B1", "B12"])
    assert not are_codes(["B1", "red"])
    assert not are_codes(["B13"])


def test_a_band_of_another_sensor_has_a_counterpart_if_they_share_a_word() -> None:
    """Red and near infrared do; radar and light do not."""
    assert ("B04",) == counterparts("R", Sensor.S2_L2A)
    assert ("B08",) == counterparts("N", Sensor.S2_L2A)
    assert () == counterparts("VV", Sensor.S2_L2A)


def test_remedies_name_a_band_that_is_meant() -> None:
    """The first of several; that of the image; those that the sensor has, where all are known."""
    with pytest.raises(SpecError, match="can mean several") as caught:
        canonical_band("rededge", Sensor.S2_L2A)
    assert "use the name of one of them, such as 'B05'" == caught.value.remedy
    for sensor in (Sensor.S2_L2A, Sensor.S1_GRD, None):
        with pytest.raises(SpecError, match="one of several images") as caught:
            canonical_band("B1_1", sensor)
        assert caught.value.remedy is not None
        assert "'B01'" in caught.value.remedy
        assert "B01" == canonical_band("B01", sensor)  # the remedy


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (("R", "G"), "B04 B03"),
        (("B02", "R"), "B02 B04"),
        (("R", "B04"), None),  # twice the same
        (("B02", "B02"), None),  # nothing foreign
        (("B02", "VV"), None),  # no counterpart
        (("R", "VV"), None),
    ],
)
def test_bands_of_another_sensor_are_refused_with_the_words_of_this_one(
    names: tuple[str, ...], remedy: str | None
) -> None:
    """Where every one of them has just one, and none is named twice."""
    with pytest.raises(SpecError, match="these are not bands of s2-l2a") as caught:
        canonical_bands(list(names), Sensor.S2_L2A)
    assert caught.value.remedy == (remedy and f"use the band names of s2-l2a: {remedy}")
    if remedy:
        assert tuple(remedy.split()) == canonical_bands(remedy.split(), Sensor.S2_L2A)


@pytest.mark.parametrize("names", [[], [3], ["B02", 3], [None]])
def test_bands_are_stated_by_names(names: list[object]) -> None:
    """All of them; the example in the remedy works."""
    with pytest.raises(SpecError, match="stated by name") as caught:
        canonical_bands(names, Sensor.S2_L2A)  # type: ignore[arg-type]
    first = SENSOR_BANDS[Sensor.S2_L2A][0]
    assert caught.value.remedy is not None
    assert caught.value.remedy.endswith(f"bands=['{first}']")
    assert (first,) == canonical_bands([first], Sensor.S2_L2A)


def test_a_normalization_shows_its_range_and_its_levels() -> None:
    """If it has any."""
    plain = Normalization((0.0,), (1.0,), "a test")
    assert "Normalization((x - shift) / scale of 1 bands; constants: a test)" == repr(plain)
    clipped = replace(plain, clip=(0.25, 0.75))
    assert "of 1 bands, clipped to 0.25..0.75; constants" in repr(clipped)
    rounded = replace(plain, clip=(0.0, 1.0), levels=255)
    assert "of 1 bands, clipped to 0..1, 255 levels; constants" in repr(rounded)


def test_a_pixel_may_be_smaller_than_a_metre() -> None:
    """Aerial images are."""
    assert 0.3 == ImageSpec(Sensor.NAIP, ("R",), Unit.UINT8, (4, 4), 0.3).gsd
    with pytest.raises(SpecError, match="gsd must be positive"):
        ImageSpec(Sensor.NAIP, ("R",), Unit.UINT8, (4, 4), 0.0)
