"""Every threshold of what is plausible, from both sides, and every fault by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from levels import levels

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import (
    Doubt,
    _part,
    _quantile,
    _written,
    check_sentinels,
    doubt_of,
    doubt_of_type,
    find_doubts,
)
from eofm.errors import PixelError

L1C = SENSOR_BANDS[Sensor.S2_L1C]
L2A = SENSOR_BANDS[Sensor.S2_L2A]
RADAR = ("VV", "VH")


def spec_of(sensor: Sensor, unit: Unit, bands: Sequence[str]) -> ImageSpec:
    """The spec of images of any size."""
    return ImageSpec(sensor, tuple(bands), unit, None, 10.0)


def ask(
    values: Mapping[str, float | Sequence[float]], sensor: Sensor, unit: Unit, count: int = 101
) -> Doubt | None:
    """What is doubtful of values of each band; a number stands for `count` pixels of it."""
    tensors = {
        band: torch.as_tensor([v] * count if isinstance(v, float | int) else v, dtype=torch.float32)
        for band, v in values.items()
    }
    return doubt_of(tensors, spec_of(sensor, unit, tuple(values)))


def problem(doubt: Doubt | None) -> str:
    """The sentence of a doubt, or nothing."""
    return "" if doubt is None else doubt.problem


def scaled(unit: Unit, bands: Sequence[str] = L1C) -> dict[str, list[float]]:
    """101 plausible pixels of every band in a unit."""
    light = torch.linspace(0.8, 1.2, 101)
    values = levels(bands).view(-1, 1) * light
    if unit is Unit.REFLECTANCE:
        values = values / 1e4
    elif unit is Unit.DN_OFFSET1000:
        values = values + 1000
    elif unit is Unit.POWER:
        values = 10 ** (values / 10)
    return {band: row.tolist() for band, row in zip(bands, values, strict=True)}


def plain(sensor: Sensor, unit: Unit) -> dict[str, list[float]]:
    """101 plausible pixels of every band of a sensor."""
    if sensor is Sensor.RGB:
        return {band: list(range(100, 201)) for band in ("R", "G", "B")}
    return scaled(unit, RADAR if sensor is Sensor.S1_GRD else L1C)


# -------------------------------------------------------------------------------- one by one


@pytest.mark.parametrize(
    ("sensor", "unit", "value", "possible"),
    [
        (Sensor.S2_L1C, Unit.DN, -1001, True),
        (Sensor.S2_L1C, Unit.DN, -1002, False),
        (Sensor.S2_L1C, Unit.DN, 65_535, True),
        (Sensor.S2_L1C, Unit.DN, 65_536, False),
        (Sensor.S2_L1C, Unit.DN_OFFSET1000, -1, True),
        (Sensor.S2_L1C, Unit.DN_OFFSET1000, -1.125, False),
        (Sensor.S2_L1C, Unit.DN_OFFSET1000, 65_535, True),
        (Sensor.S2_L1C, Unit.DN_OFFSET1000, 65_536, False),
        (Sensor.S2_L1C, Unit.REFLECTANCE, -0.2, True),
        (Sensor.S2_L1C, Unit.REFLECTANCE, -0.21, False),
        (Sensor.S2_L1C, Unit.REFLECTANCE, 100, True),
        (Sensor.S2_L1C, Unit.REFLECTANCE, 101, False),
        (Sensor.RGB, Unit.UINT8, 0, True),
        (Sensor.RGB, Unit.UINT8, -1, False),
        (Sensor.RGB, Unit.UINT8, 255, True),
        (Sensor.RGB, Unit.UINT8, 256, False),
        (Sensor.S1_GRD, Unit.POWER, -1, True),
        (Sensor.S1_GRD, Unit.POWER, -1.1, False),
        (Sensor.S1_GRD, Unit.POWER, 1e6, True),
        (Sensor.S1_GRD, Unit.POWER, 1.1e6, False),
        (Sensor.S1_GRD, Unit.DB, -80, True),
        (Sensor.S1_GRD, Unit.DB, -81, False),
        (Sensor.S1_GRD, Unit.DB, 100, True),
        (Sensor.S1_GRD, Unit.DB, 101, False),
        (Sensor.S1_GRD, Unit.DB, 1e20, False),
        (Sensor.S2_L1C, Unit.DN, -9999, False),
    ],
)
def test_values_that_no_measurement_takes(
    sensor: Sensor, unit: Unit, value: float, possible: bool
) -> None:
    """One pixel of such a value in one band is found, with the value, the band and the remedy."""
    values = plain(sensor, unit)
    band = ("VV" if value > 0 else "VH") if sensor is Sensor.S1_GRD else next(iter(values))
    values[band][50] = value

    doubt = ask(values, sensor, unit)

    assert possible == (doubt is None), doubt
    if doubt is not None:
        assert "marks pixels as nodata" in doubt.problem
        assert f"{value:.7g} in 1% of the pixels, first in band {band}" == doubt.found
        assert f"rio edit-info --nodata {value:.7g} FILE" in doubt.remedy
        assert (band, None) == (doubt.band, doubt.instead)
        assert f"in unit {unit}" in doubt.expected


@pytest.mark.parametrize(("same", "others", "found"), [(9, 1, True), (8, 1, False), (1, 0, True)])
def test_one_value_is_nodata_and_many_are_another_unit(same: int, others: int, found: bool) -> None:
    """A nodata value makes up nine tenths of what is impossible; many values are another unit."""
    values = scaled(Unit.DN)
    values["B04"][20 : 20 + same] = [-9999.0] * same
    values["B04"][70 : 70 + others] = [-5000.0] * others

    assert found == ("marks pixels as nodata" in problem(ask(values, Sensor.S2_L1C, Unit.DN)))


@pytest.mark.parametrize(
    ("value", "count", "dead"), [(0, 1, True), (700, 9_999, False), (700, 10_000, True)]
)
def test_dead_bands(value: float, count: int, dead: bool) -> None:
    """0 everywhere is dead at any size, another constant from 100 x 100 pixels on."""
    doubt = ask({"B02": [600.0, 300], "B03": value}, Sensor.S2_L2A, Unit.DN, count)

    assert dead == (doubt is not None)
    if doubt is not None:
        assert "a band contains no measurement" == doubt.problem
        assert f"B03 is {value:g} in every pixel" == doubt.found
        assert doubt.remedy is not None
        assert doubt.remedy.startswith("remove the image from the data, or leave B03 out ")
        assert "B03" == doubt.band


@pytest.mark.parametrize(
    ("sensor", "unit", "value", "fits"),
    [
        (Sensor.S2_L2A, Unit.DN, 30, True),
        (Sensor.S2_L2A, Unit.DN, 29, False),
        (Sensor.S2_L2A, Unit.DN, 30_000, True),
        (Sensor.S2_L2A, Unit.DN, 30_001, False),
        (Sensor.S2_L2A, Unit.DN_OFFSET1000, 1_030, True),
        (Sensor.S2_L2A, Unit.DN_OFFSET1000, 1_029, False),
        (Sensor.S2_L2A, Unit.DN_OFFSET1000, 31_000, True),
        (Sensor.S2_L2A, Unit.DN_OFFSET1000, 31_001, False),
        (Sensor.S2_L2A, Unit.REFLECTANCE, 0.00301, True),
        (Sensor.S2_L2A, Unit.REFLECTANCE, 0.00299, False),
        (Sensor.S2_L2A, Unit.REFLECTANCE, 3, True),
        (Sensor.S2_L2A, Unit.REFLECTANCE, 3.01, False),
        (Sensor.RGB, Unit.UINT8, 1, True),
        (Sensor.RGB, Unit.UINT8, 0.9, False),
        (Sensor.RGB, Unit.UINT8, 255, True),
        (Sensor.S1_GRD, Unit.POWER, 1.01e-5, True),
        (Sensor.S1_GRD, Unit.POWER, 0.99e-5, False),
        (Sensor.S1_GRD, Unit.POWER, 100, True),
        (Sensor.S1_GRD, Unit.POWER, 101, False),
        (Sensor.S1_GRD, Unit.DB, -39.9, True),
        (Sensor.S1_GRD, Unit.DB, -40.1, False),
    ],
)
def test_the_size_of_values(sensor: Sensor, unit: Unit, value: float, fits: bool) -> None:
    """The 99th percentile of all bands lies within what the unit can hold, bounds included."""
    band = {Sensor.RGB: "R", Sensor.S1_GRD: "VV"}.get(sensor, "B04")
    doubt = ask({band: value}, sensor, unit)

    assert fits == (doubt is None), doubt
    if doubt is not None:
        assert f"the values are not in the range of unit {unit}" == doubt.problem
        assert f"99th percentile of all bands {value:.4g}" == doubt.found
        assert (None, None) == (doubt.instead, doubt.band)


@pytest.mark.parametrize(("bright", "fits"), [(1, True), (2, False)])
def test_the_size_is_that_of_the_brightest_but_one_percent(bright: int, fits: bool) -> None:
    """Of 101 pixels one may be anything."""
    doubt = ask({"B04": [40_000.0] * bright + [900.0] * (101 - bright)}, Sensor.S2_L2A, Unit.DN)

    assert fits == (doubt is None)


@pytest.mark.parametrize(("bright", "fits"), [(39.5, True), (40.5, False)])
def test_the_size_of_decibels_from_above(bright: float, fits: bool) -> None:
    """Cities reflect 10 dB, nothing 40."""
    doubt = ask({"VV": [-12.3] * 60 + [bright] * 40}, Sensor.S1_GRD, Unit.DB)

    assert fits == (doubt is None)


def test_bytes_are_whole_numbers() -> None:
    """One fraction among 8-bit values is found."""
    values = plain(Sensor.RGB, Unit.UINT8)
    values["G"][7] = 100.5

    doubt = ask(values, Sensor.RGB, Unit.UINT8)

    assert ("8-bit values are whole numbers", "100.5") == (problem(doubt), doubt and doubt.found)


@pytest.mark.parametrize(("band", "other"), [("B01", "B02"), ("B02", "B01")])
@pytest.mark.parametrize(("unit", "level"), [(Unit.DN, 300.0), (Unit.REFLECTANCE, 0.030001)])
def test_the_sky_is_bright_in_the_blue(band: str, other: str, unit: Unit, level: float) -> None:
    """Level-1C has at least 300 in B01 and B02; Level-2A and numbers with offset are not asked."""
    values: dict[str, float] = {band: level, other: 2 * level, "B04": 1.5 * level}
    assert ask(values, Sensor.S2_L1C, unit) is None
    values[band] = level * 0.996

    doubt = ask(values, Sensor.S2_L1C, unit)

    assert "never this dark in the blue" in problem(doubt)
    assert doubt is not None
    assert (band, f"median of {band} 299, as digital number") == (doubt.band, doubt.found)
    assert "above 300" == doubt.expected
    assert ask(values, Sensor.S2_L2A, unit) is None


def test_the_sky_is_judged_by_the_median() -> None:
    """Half of the pixels may be darker."""
    values = {"B01": [200.0] * 50 + [400.0] * 51, "B04": 500.0}
    assert ask(values, Sensor.S2_L1C, Unit.DN) is None
    values["B01"] = [200.0] * 51 + [400.0] * 50
    assert "blue" in problem(ask(values, Sensor.S2_L1C, Unit.DN))


@pytest.mark.parametrize(
    ("cirrus", "darkest", "ordered"),
    [(501, 250, False), (501, 251, True), (500, 200, True), (2000, 999, False), (2000, 1000, True)],
)
@pytest.mark.parametrize("unit", [Unit.DN, Unit.REFLECTANCE])
def test_the_darkest_band_is_b10(cirrus: float, darkest: float, ordered: bool, unit: Unit) -> None:
    """Above 500 and twice as bright as the darkest band, what is called B10 is not."""
    values: dict[str, float | list[float]] = {"B01": 1500, "B09": darkest, "B10": cirrus}
    if unit is Unit.REFLECTANCE:
        values = {band: float(v) * 0.9999e-4 for band, v in values.items()}  # type: ignore[arg-type]

    doubt = ask(values, Sensor.S2_L1C, unit)

    assert ordered == (doubt is None), doubt
    if doubt is not None:
        assert "B10 is not the darkest" in doubt.problem
        assert f"median of B10 {cirrus}, of B09 {darkest}" == doubt.found
        assert "B10" == doubt.band


@pytest.mark.parametrize(
    ("low", "middle", "lifted"),
    [
        (900, 900, True),
        (899, 899, False),
        (1300, 1300, True),
        (1301, 1301, False),
        (1000, 1150, True),
        (1000, 1151, False),
    ],
)
def test_an_offset_lifts_b10(low: float, middle: float, lifted: bool) -> None:
    """A dark end from 900 to 1300 with the median close to it is the offset; cirrus is spread."""
    cirrus = [float(low)] * 5 + [float(middle)] * 96
    doubt = ask({"B01": 2400, "B08": 3300, "B10": cirrus}, Sensor.S2_L1C, Unit.DN)

    assert lifted == (doubt is not None), doubt
    if doubt is not None:
        assert "without the offset of processing baseline 04.00 seem to carry it" in doubt.problem
        assert (f"median of B10 {middle}", "below 500") == (doubt.found, doubt.expected)
        assert (Unit.DN_OFFSET1000, "B10") == (doubt.instead, doubt.band)


@pytest.mark.parametrize(("dark", "lifted"), [(1, True), (2, False)])
def test_the_dark_end_of_b10_is_its_first_percentile(dark: int, lifted: bool) -> None:
    """Of 101 pixels one may be dark all the same."""
    values = {"B01": 2400.0, "B10": [500.0] * dark + [1000.0] * (101 - dark)}

    assert lifted == (ask(values, Sensor.S2_L1C, Unit.DN) is not None)


def test_reflectance_with_an_offset() -> None:
    """0.1 in every pixel of B10 is the offset too: no unit holds it, so it is to be subtracted."""
    values = {"B01": 0.24, "B08": 0.33, "B10": 0.102}

    doubt = ask(values, Sensor.S2_L1C, Unit.REFLECTANCE)

    assert doubt is not None
    assert "subtract 0.1" in doubt.remedy
    assert doubt.instead is None
    assert ask({b: v - 0.1 for b, v in values.items()}, Sensor.S2_L1C, Unit.REFLECTANCE) is None


@pytest.mark.parametrize(
    ("dark", "level", "lacking"), [(2, 899, True), (2, 900, False), (1, 1, False)]
)
@pytest.mark.parametrize("sensor", [Sensor.S2_L1C, Sensor.S2_L2A])
def test_a_stated_offset_that_is_not_there(
    dark: int, level: float, lacking: bool, sensor: Sensor
) -> None:
    """A first percentile below 900 in one band tells that nothing was added."""
    values: dict[str, float | list[float]] = {"B02": 2400.0, "B03": 1500.0}
    values["B04"] = [float(level)] * dark + [1400.0] * (101 - dark)

    doubt = ask(values, sensor, Unit.DN_OFFSET1000)

    assert lacking == (doubt is not None), doubt
    if doubt is not None:
        assert "with the offset of processing baseline 04.00 seem to lack it" in doubt.problem
        assert (Unit.DN, "B04") == (doubt.instead, doubt.band)
        assert f"first percentile of B04 {level}" == doubt.found
        assert "above 900 in every band" == doubt.expected


@pytest.mark.parametrize(
    ("darkest", "brightest", "lifted"),
    [
        (950, 2000, True),
        (949, 2000, False),
        (1500, 2000, True),
        (1501, 2000, False),
        (1100, 2500, True),
        (1100, 2501, False),
    ],
)
@pytest.mark.parametrize("unit", [Unit.DN, Unit.REFLECTANCE])
def test_an_offset_lifts_the_darkest_pixels_of_level_2a(
    darkest: float, brightest: float, lifted: bool, unit: Unit
) -> None:
    """All bands agree: none has a pixel below 950, one near 1000, none starts above 2500."""
    values = {band: 1800.0 for band in L2A} | {"B11": float(brightest), "B03": float(darkest)}
    if unit is Unit.REFLECTANCE:
        # a little towards the inside of the bounds, as float32 rounds
        inside = {950: 1.00001, 1100: 1.0}
        values = {b: v / 1e4 * inside.get(int(v), 0.99999) for b, v in values.items()}

    doubt = ask(values, Sensor.S2_L2A, unit)

    assert lifted == (doubt is not None), doubt
    if doubt is not None:
        assert "seem to carry it" in doubt.problem
        assert (Unit.DN_OFFSET1000 if unit is Unit.DN else None, "B03") == (
            doubt.instead,
            doubt.band,
        )
        assert f"all 12 bands are between {darkest} and {brightest}" in doubt.found
        assert "below 950 in at least one band" == doubt.expected


@pytest.mark.parametrize(
    ("bands", "asked"),
    [
        ((*L2A[:7], "B11"), True),
        ((*L2A[:7], "B12"), True),
        ((*L2A[:6], "B11"), False),
        (L2A[:10], False),
    ],
)
def test_few_bands_are_never_accused_of_an_offset(bands: tuple[str, ...], asked: bool) -> None:
    """Eight bands with one of the short-wave infrared at least: bare soil looks like an offset."""
    doubt = ask({band: 1100.0 for band in bands}, Sensor.S2_L2A, Unit.DN)

    assert asked == (doubt is not None)


@pytest.mark.parametrize(("dark", "lifted"), [(1, True), (2, False)])
def test_the_darkest_pixels_are_one_in_a_thousand(dark: int, lifted: bool) -> None:
    """Of 1001 pixels one may be dark."""
    values: dict[str, float | list[float]] = {band: 1100.0 for band in L2A}
    values["B04"] = [20.0] * dark + [1100.0] * (1001 - dark)

    assert lifted == (ask(values, Sensor.S2_L2A, Unit.DN) is not None)


def test_level_1c_without_b10_is_not_accused() -> None:
    """Nothing in the other bands of Level-1C tells of an offset: the sky is in all of them."""
    values = {band: 1100.0 for band in L1C if band != "B10"}

    assert ask(values, Sensor.S2_L1C, Unit.DN) is None


@pytest.mark.parametrize(
    ("unit", "values", "words", "instead"),
    [
        (Unit.DB, [-12.3] * 50 + [3.3] * 50, "", None),
        (Unit.DB, [-12.3] * 49 + [3.3] * 51, "dB is mostly negative", Unit.POWER),
        (Unit.POWER, [-0.5] * 1 + [0.1] * 99, "", None),
        (Unit.POWER, [-0.5] * 2 + [0.1] * 98, "linear backscatter is positive", Unit.DB),
        (Unit.DB, [-12.0] * 100, "converted to an integer type", None),
        (Unit.DB, [-12.0] * 99 + [-12.25], "", None),
        (Unit.POWER, [1.0] * 100, "", None),
    ],
)
def test_radar(unit: Unit, values: list[float], words: str, instead: Unit | None) -> None:
    """Decibels are negative in half of the pixels, power in one of a hundred at most."""
    doubt = ask({"VV": values}, Sensor.S1_GRD, unit)

    assert words in problem(doubt)
    assert (not words) == (doubt is None)
    assert doubt is None or instead is doubt.instead


def test_zeros_are_not_negative() -> None:
    """Four decibels of ten below 0 are too few, whatever the others."""
    doubt = ask({"VV": [0.0] * 60 + [-5.5] * 40}, Sensor.S1_GRD, Unit.DB)

    assert "mostly negative" in problem(doubt)
    assert doubt is not None
    assert "40% of the values below 0" == doubt.found


@pytest.mark.parametrize(("vh", "right"), [(-12.3, True), (-11.32, True), (-11.28, False)])
@pytest.mark.parametrize("unit", [Unit.DB, Unit.POWER])
def test_vh_is_darker(vh: float, right: bool, unit: Unit) -> None:
    """1 dB above VV, which noise over calm water can make, is as far as it goes."""
    vv = -12.3
    if unit is Unit.POWER:
        vh, vv = 10 ** (vh / 10), 10 ** (vv / 10)
    doubt = ask({"VH": vh, "VV": vv}, Sensor.S1_RTC, unit)

    assert right == (doubt is None)
    assert right or "VH is brighter than VV" in problem(doubt)


def test_nothing_to_look_at_is_no_doubt() -> None:
    """Without a measured value there is nothing to say; an empty band does not hide the others."""
    spec = spec_of(Sensor.S1_GRD, Unit.DB, RADAR)

    assert doubt_of({"VV": torch.empty(0), "VH": torch.empty(0)}, spec) is None
    assert doubt_of({"VV": torch.empty(0), "VH": torch.full((9,), 3.3)}, spec) is not None


@pytest.mark.parametrize("unit", list(Unit)[:-1])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_number_types(unit: Unit, dtype: str) -> None:
    """8 bits cannot hold digital numbers; anything else holds anything."""
    small = dtype in {"uint8", "int8"} and unit in {Unit.DN, Unit.DN_OFFSET1000}

    doubt = doubt_of_type(dtype, unit)

    assert small == (doubt is not None)
    assert doubt is None or f"number type {dtype}" == doubt.found


def test_65535_in_every_band_of_a_pixel_is_nodata() -> None:
    """Bands with as many values show the same pixels; one of another resolution tells nothing."""
    values = {band: [900.0] * 90 + [65_535.0] * 10 for band in ("B02", "B03", "B04")}

    doubt = ask(values, Sensor.S2_L2A, Unit.DN)

    assert doubt is not None
    assert "65535 in 10% of the pixels, first in band B02" == doubt.found
    values["B03"] = [65_535.0] * 10 + [900.0] * 90
    assert "marks pixels" not in problem(ask(values, Sensor.S2_L2A, Unit.DN))
    coarse = {"B02": [900.0] * 399 + [65_535.0], "B11": [900.0] * 99 + [65_535.0]}
    assert ask(coarse, Sensor.S2_L2A, Unit.DN) is None
    coarse["B11"] = 0.0
    assert "B11 is 0 in every pixel" == getattr(ask(coarse, Sensor.S2_L2A, Unit.DN), "found", "")


def test_shares_of_dark_pixels_are_exact_over_many() -> None:
    """The first percentile of 801 pixels is the ninth, as is one in a thousand of 8001."""
    for dark, lacking in ((9, True), (8, False)):
        values = {"B02": [500.0] * dark + [1400.0] * (801 - dark)}
        assert lacking == (ask(values, Sensor.S2_L2A, Unit.DN_OFFSET1000) is not None)
    for dark, lifted in ((8, True), (9, False)):
        many: dict[str, float | list[float]] = {band: 1100.0 for band in L2A}
        many["B04"] = [20.0] * dark + [1100.0] * (8001 - dark)
        assert lifted == (ask(many, Sensor.S2_L2A, Unit.DN) is not None)
    for bright, fits in ((8, True), (9, False)):
        lit = {"B04": [40_000.0] * bright + [900.0] * (801 - bright)}
        assert fits == (ask(lit, Sensor.S2_L2A, Unit.DN) is None)


@pytest.mark.parametrize("value", [-3.4028234663852886e38, 1e20, 9.969209968386869e36, -9999, 0.1])
def test_a_nodata_value_is_written_so_that_it_is_found_again(value: float) -> None:
    """The least float32 cut to seven digits was another number, and declaring it did not help."""
    stored = float(torch.tensor(value, dtype=torch.float32))
    text = _written(stored)

    assert stored == float(torch.tensor(float(text), dtype=torch.float32))
    assert len(text) <= len("-3.4028235e+38")


@pytest.mark.parametrize(("count", "words"), [(1, "0.025%"), (19, "0.47%"), (24, "1%"), (40, "1%")])
def test_some_pixels_are_never_none(count: int, words: str) -> None:
    """One of 4,000 pixels was 0 % of them."""
    flags = torch.zeros(4_000, dtype=torch.bool)
    flags[:count] = True

    assert words == _part(flags)


@pytest.mark.parametrize("fill", [65_535, 32_767])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_the_largest_integer_in_every_band_is_nodata(fill: int, dtype: torch.dtype) -> None:
    """Of uint16 and of int16; in one band it may be saturation."""
    pixels = torch.full((1, 3, 4, 4), 700.0)
    spec = ImageSpec(Sensor.S2_L2A, ("B02", "B03", "B04"), Unit.DN, (4, 4), 10.0)
    pixels[0, :2, 1, 1] = fill
    valid = torch.ones(1, 4, 4, dtype=torch.bool)

    def native() -> NativeImagery:
        return NativeImagery({10: pixels.to(dtype)}, {10: spec.bands}, spec, valid)

    check_sentinels(native(), "a")
    pixels[0, 2, 1, 1] = fill
    with pytest.raises(PixelError, match="marks pixels as nodata"):
        check_sentinels(native(), "a")
    doubt = doubt_of(dict(zip(spec.bands, pixels[0].flatten(1), strict=True)), spec)
    assert doubt is not None
    assert str(fill) in doubt.found


@pytest.mark.parametrize(
    ("unit", "value", "bands"),
    [
        (Unit.DN, -1.0, L2A),
        (Unit.DN, 9999.0, L2A),
        (Unit.DN, 9999.0, ("B02", "B03", "B04", "B08")),
        (Unit.DN_OFFSET1000, 1000.0, L2A),
        (Unit.REFLECTANCE, -0.1, L2A),
        (Unit.DB, -50.0, ("VV", "VH")),
        (Unit.POWER, 0.5, ("VV", "VH")),
    ],
)
@pytest.mark.parametrize(
    ("share", "found"), [(0.009, False), (0.0115, True), (0.5, True), (0.95, False)]
)
def test_one_value_in_all_bands_is_no_measurement(
    unit: Unit, value: float, bands: tuple[str, ...], share: float, found: bool
) -> None:
    """A margin filled with a possible value is seen by its being the same in every band."""
    sensor = Sensor.S1_GRD if unit in {Unit.DB, Unit.POWER} else Sensor.S2_L2A
    generator = torch.Generator().manual_seed(0)
    level = {Unit.DN: 400.0, Unit.DN_OFFSET1000: 1400.0, Unit.REFLECTANCE: 0.04}
    level |= {Unit.DB: -9.0, Unit.POWER: 0.1}
    base = torch.arange(len(bands)) * (-7.0 if unit is Unit.DB else level[unit]) + level[unit]
    noise = torch.rand(len(bands), 100, 100, generator=generator)
    pixels = base[:, None, None] + noise * (level[unit] / 4)
    pixels.flatten(1)[:, : round(share * 10_000)] = value
    spec = ImageSpec(sensor, bands, unit, (100, 100), 10.0)
    doubts = find_doubts(Imagery(pixels[None], spec, torch.ones(1, 100, 100, dtype=torch.bool)))

    words = "marks pixels as nodata, but is not declared"
    assert found == any(words in doubt.problem for doubt in doubts)


def test_three_bands_may_agree() -> None:
    """Red, green and blue of clipped water are equal, and no fill."""
    grey = [5.0] * 50 + [800.0] * 50
    doubt = ask({b: grey for b in ("B02", "B03", "B04")}, Sensor.S2_L2A, Unit.DN)

    assert "not declared" not in problem(doubt)


@pytest.mark.parametrize("unit", [Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE])
def test_clouds_that_are_clipped_at_full_reflectance_are_no_nodata(unit: Unit) -> None:
    """Collections that clip to 0 to 10000 hold that value in all bands of a cloud."""
    scale = 1e-4 if unit is Unit.REFLECTANCE else 1.0
    added = 1000.0 if unit is Unit.DN_OFFSET1000 else 0.0
    values = {
        band: [(10_000.0 + added) * scale] * 20
        + [(500.0 + added + 97.0 * i + j) * scale for j in range(80)]
        for i, band in enumerate(L2A)
    }
    doubt = ask(values, Sensor.S2_L2A, unit)

    assert "not declared" not in problem(doubt)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.float32])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_every_pixel_is_asked_for_a_value_that_all_bands_share(
    dtype: torch.dtype, share: float
) -> None:
    """Also where two bands are equal everywhere, and the others tell fill from measurement."""
    bands = ("B02", "B03", "B04", "B08")
    ground = torch.arange(400, 800).float().view(20, 20)
    pixels = torch.stack([ground, ground, 2 * ground, 3 * ground])
    pixels.flatten(1)[:, : round(share * 400)] = 9999.0
    spec = ImageSpec(Sensor.S2_L2A, bands, Unit.DN, (20, 20), 10.0)
    valid = torch.ones(1, 20, 20, dtype=torch.bool)
    native = NativeImagery({10: pixels[None].to(dtype)}, {10: bands}, spec, valid)

    if share:
        with pytest.raises(PixelError, match="marks pixels as nodata"):
            check_sentinels(native, "a")
    else:
        check_sentinels(native, "a")


def test_gray_pixels_of_a_picture_are_no_nodata() -> None:
    """Red, green and blue agree in half of a photograph."""
    values = {
        band: [40.0] * 50 + [60.0 + 30.0 * number + i for i in range(50)]
        for number, band in enumerate(SENSOR_BANDS[Sensor.RGB])
    }

    assert ask(values, Sensor.RGB, Unit.UINT8) is None


def test_zeros_are_for_the_mask_to_see() -> None:
    """0 in all bands is unmeasured ground, which `measured` finds; it is no undeclared nodata."""
    values = {
        band: [0.0] * 20 + [300.0 + 97.0 * number + i for i in range(80)]
        for number, band in enumerate(L2A)
    }

    assert "not declared" not in problem(ask(values, Sensor.S2_L2A, Unit.DN))


def test_a_quantile_is_a_value_that_is_there() -> None:
    """The nearest by rank, both ends included."""
    ordered = torch.arange(101.0)

    assert [0.0, 1.0, 50.0, 99.0, 100.0] == [
        _quantile(ordered, share) for share in (0.0, 0.01, 0.5, 0.99, 1.0)
    ]
    assert _quantile(torch.tensor([3.0]), 1.0) == 3.0


@pytest.mark.parametrize(("negative", "right"), [(9, True), (11, False)])
def test_backscatter_power_is_positive(negative: int, right: bool) -> None:
    """One value of a hundred may lie below 0, by noise removal."""
    some = torch.linspace(0.1, 0.3, 1000 - negative).tolist()
    values = {"VV": [-0.5] * negative + some, "VH": [-0.3] * negative + [v / 4 for v in some]}

    doubt = ask(values, Sensor.S1_RTC, Unit.POWER)

    assert right == ("linear backscatter is positive" not in problem(doubt))


@pytest.mark.parametrize(("numbers", "counted"), [(8, True), (9, False)])
def test_whole_backscatter_is_counted_numbers_from_nine_on(numbers: int, counted: bool) -> None:
    """Fewer different numbers than nine are whole by chance; the largest one is said."""
    whole = [float(1 + number % numbers) for number in range(108)]
    doubt = ask({"VV": whole, "VH": whole[1:] + whole[:1]}, Sensor.S1_RTC, Unit.POWER)

    assert counted != ("not an integer" in problem(doubt))
    if doubt is not None and not counted:
        assert f"whole numbers up to {numbers}" == doubt.found


@pytest.mark.parametrize("brightest", [90, 600, 4000])
def test_uncalibrated_backscatter_is_calibrated_however_bright(brightest: int) -> None:
    """Digital numbers of a GRD are a few hundred: no unit that can be stated makes them power."""
    some = torch.linspace(1, brightest, 200).round().tolist()
    doubt = ask({"VV": some, "VH": [1 + v // 2 for v in some]}, Sensor.S1_GRD, Unit.POWER)

    assert doubt is not None
    assert doubt.remedy.startswith("calibrate the product")


def test_bytes_end_at_255() -> None:
    """A brightest part of 255 is an image, one of 256 is another unit."""
    assert ask({band: [0.0, 255.0] * 50 for band in "RGB"}, Sensor.RGB, Unit.UINT8) is None
    assert ask({band: [0.0, 256.0] * 50 for band in "RGB"}, Sensor.RGB, Unit.UINT8) is not None


def test_the_spread_of_b10_is_up_to_its_median() -> None:
    """Cirrus over less than half of the image does not hide the offset; over more it may."""
    for clouded, lifted in ((40, True), (60, False)):
        values = {"B01": 2400.0, "B10": [1000.0] * (101 - clouded) + [1400.0] * clouded}
        assert lifted == (ask(values, Sensor.S2_L1C, Unit.DN) is not None)


@pytest.mark.parametrize(
    ("band", "brightest", "mixed"),
    [("B04", 2.9, True), ("B04", 3.0, False), ("B10", 0.45, True), ("B10", 0.5, False)],
)
def test_fractions_among_digital_numbers_end_where_reflectance_does(
    band: str, brightest: float, mixed: bool
) -> None:
    """Half of the values below 1 and no whole number: another unit, up to the brightest of it."""
    values: dict[str, list[float]] = dict(scaled(Unit.DN))
    values[band] = [0.05 + 0.003 * place for place in range(100)] + [brightest]

    assert mixed == (
        "in a different unit than the other" in problem(ask(values, Sensor.S2_L1C, Unit.DN))
    )


# ----------------------------------------------------- what every pixel is asked when it is read


def stored_image(
    values: torch.Tensor, sensor: Sensor, unit: Unit, bands: tuple[str, ...]
) -> NativeImagery:
    """A batch (B, C, H, W) as it is stored, all of it measured."""
    spec = ImageSpec(sensor, bands, unit, tuple(values.shape[2:]), 10.0)
    valid = torch.ones(len(values), *values.shape[2:], dtype=torch.bool)
    return NativeImagery({10: values}, {10: bands}, spec, valid)


def textured(bands: int, low: float, high: float, seed: int = 0) -> torch.Tensor:
    """An image (1, C, 20, 20) in which no two bands agree anywhere."""
    noise = torch.rand(1, bands, 20, 20, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * (torch.arange(bands).view(1, -1, 1, 1) + noise) / bands


@pytest.mark.parametrize(
    ("sensor", "unit", "bands", "low", "high", "fill"),
    [
        (Sensor.S1_GRD, Unit.DB, ("VV", "VH"), -20.0, -5.0, -50.0),
        (Sensor.S1_RTC, Unit.POWER, ("VV", "VH"), 0.01, 0.3, 0.5),
        (Sensor.S2_L2A, Unit.DN, ("B02", "B03", "B04", "B08"), 300.0, 3000.0, 1.0),
        (Sensor.S2_L2A, Unit.REFLECTANCE, ("B02", "B03", "B04", "B08"), 0.03, 0.3, 1.5),
    ],
)
def test_a_fill_is_found_in_any_image_of_a_batch(
    sensor: Sensor, unit: Unit, bands: tuple[str, ...], low: float, high: float, fill: float
) -> None:
    """In 1.5 % of the pixels of one image; the same share of single bands is a measurement."""
    good = textured(len(bands), low, high)
    for place in (0, 1):
        batch = torch.cat([good, textured(len(bands), low, high, seed=1)])
        batch[place].flatten(1)[:1, :6] = fill
        check_sentinels(stored_image(batch, sensor, unit, bands), "a")
        batch[place].flatten(1)[:, :6] = fill
        with pytest.raises(PixelError, match="marks pixels as nodata"):
            check_sentinels(stored_image(batch, sensor, unit, bands), "a")


def test_a_fill_of_two_bands_of_whole_numbers() -> None:
    """65535 in both is nodata, in one saturation; of a single band it may be either."""
    values = textured(2, 300, 3000).to(torch.int32)
    values[0, 0, 3, 3] = 65_535
    bands = ("B02", "B03")
    check_sentinels(stored_image(values.to(torch.uint16), Sensor.S2_L2A, Unit.DN, bands), "a")
    values[0, 1, 3, 3] = 65_535
    for dtype in (torch.uint16, torch.float32):
        image = stored_image(values.to(dtype), Sensor.S2_L2A, Unit.DN, bands)
        with pytest.raises(PixelError, match="marks pixels as nodata"):
            check_sentinels(image, "a")
    alone = values[:, :1].to(torch.uint16)
    check_sentinels(stored_image(alone, Sensor.S2_L2A, Unit.DN, bands[:1]), "a")


def test_one_band_of_a_picture_is_asked_like_three() -> None:
    """There is no second one to compare it with."""
    values = torch.arange(256.0).view(1, 1, 16, 16)
    check_sentinels(stored_image(values, Sensor.RGB, Unit.UINT8, ("R",)), "a")
    values[0, 0, 0, 0] = 300.0
    with pytest.raises(PixelError):
        check_sentinels(stored_image(values, Sensor.RGB, Unit.UINT8, ("R",)), "a")


# -------------------------------------------------------------------- one band in another unit


def with_fractions(fractions: Sequence[float], others: float = 400.0) -> str:
    """The problem of Level-2A in digital numbers whose B04 holds `fractions`."""
    values: dict[str, list[float]] = {
        band: [others - (place % 7) - number for place in range(101)]
        for number, band in enumerate(L2A)
    }
    values["B03"] = [others] * 101  # in the infrared it were land
    values["B04"] = list(fractions)
    return problem(ask(values, Sensor.S2_L2A, Unit.DN))


@pytest.mark.parametrize(
    ("fractions", "mixed"),
    [
        ([0.5] * 50 + [1.0] + [1.5] * 50, False),  # the median is 1
        ([0.5] * 50 + [0.75] + [1.5] * 50, True),
        ([0.5] * 60 + [1.5] * 41, True),  # it is the median that counts
        ([0.5] * 50 + [0.0] * 50, False),  # half of them fractions
        ([0.5] * 51 + [0.0] * 49, True),
        ([0.5] * 40 + [0.0] * 60, False),
    ],
)
def test_a_band_of_reflectance_is_mostly_fractions_below_1(
    fractions: list[float], mixed: bool
) -> None:
    """More than half of its values, and the median below 1."""
    assert mixed == ("in a different unit than the other" in with_fractions(fractions))


@pytest.mark.parametrize(("others", "mixed"), [(250.0, True), (249.0, False)])
def test_a_reflectance_is_not_far_above_all_other_bands(others: float, mixed: bool) -> None:
    """A half as 5,000 is twenty times 250; over darker bands it is a dark band, resampled."""
    assert mixed == ("in a different unit than the other" in with_fractions([0.5] * 101, others))


def test_the_brightest_fraction_is_said() -> None:
    """The largest value of the band, and not another one."""
    values: dict[str, list[float]] = dict(scaled(Unit.DN, L2A))
    values["B04"] = [0.25] * 100 + [0.75]
    doubt = ask(values, Sensor.S2_L2A, Unit.DN)

    assert doubt is not None
    assert "B04 contains fractions up to 0.75" == doubt.found


def dark(
    top: float, brightest: str = "B08", bands: Sequence[str] = L2A, whole: bool = False
) -> str:
    """The problem of an image of values up to `top` that are stated to be digital numbers."""
    values = {band: [round(top / 2) - 0.3 * (not whole)] * 100 for band in bands}
    values[brightest] = [top - 1] * 50 + [top] * 50
    return problem(ask(values, Sensor.S2_L2A, Unit.DN))


@pytest.mark.parametrize("whole", [False, True])
def test_land_is_not_so_dark_in_digital_numbers(whole: bool) -> None:
    """Per cent, radiance and 8-bit values as floats: up to 255, brightest in the infrared."""
    for top, refused in ((31.0, True), (255.0, True), (256.0, False)):
        assert refused == ("not in the range" in dark(top, whole=whole)), top


def test_water_is_so_dark() -> None:
    """It is brightest in the visible; without a visible band nothing tells it from land."""
    assert "not in the range" not in dark(60.0, "B03")
    assert "not in the range" not in dark(60.0, "B01")
    infrared = ("B08", "B8A", "B11", "B12")
    assert "not in the range" not in dark(60.0, bands=infrared)
    assert "not in the range" in dark(60.0, bands=("B04", *infrared))
    equal = {band: [60.0] * 50 + [59.0] * 50 for band in L2A}
    assert "not in the range" not in problem(ask(equal, Sensor.S2_L2A, Unit.DN))


@pytest.mark.parametrize(("lowest", "mixed"), [(0.0, True), (-0.5, False)])
def test_decibels_are_below_0_somewhere_in_every_band(lowest: float, mixed: bool) -> None:
    """One value is enough."""
    values = {"VV": [-11.5] * 100 + [-12.0], "VH": [lowest] + [0.25] * 50 + [0.5] * 40}
    found = problem(ask(values, Sensor.S1_GRD, Unit.DB))

    assert mixed == ("in a different unit than the other" in found), found


# ------------------------------------------------------------------- values scaled for a network


@pytest.mark.parametrize(("unit", "limit"), [(Unit.DB, -3.0), (Unit.POWER, 0.5)])
def test_vh_is_not_so_bright(unit: Unit, limit: float) -> None:
    """Standardised backscatter has a mean near 0; the mean decides, not single values."""
    step = 0.25
    values = {"VV": [limit + 0.5, limit + 1.5] * 50, "VH": [limit - step, limit + step] * 50}
    assert "" == problem(ask(values, Sensor.S1_RTC, unit))
    values["VH"][0] += 0.5
    doubt = ask(values, Sensor.S1_RTC, unit)

    assert "not in the range" in problem(doubt)
    assert doubt is not None
    assert "VH" in doubt.found


@pytest.mark.parametrize(
    ("unit", "below"), [(Unit.REFLECTANCE, -0.21), (Unit.DN, -1002.0), (Unit.DN_OFFSET1000, -2.0)]
)
@pytest.mark.parametrize(("pixels", "refused"), [(200, False), (167, True)])
def test_many_impossible_values_are_normalised(
    unit: Unit, below: float, pixels: int, refused: bool
) -> None:
    """Different ones are no nodata; up to 1 % of the values can be noise of a processor."""
    values = {band: (v * 2)[:pixels] for band, v in scaled(unit, L2A).items()}
    for number, band in enumerate(L2A):
        for place in (0, 1):  # a single one is nodata
            values[band][place] = below * (1 + 0.01 * number + 0.1 * place)
    doubt = ask(values, Sensor.S2_L2A, unit)

    assert refused == (doubt is not None and "% of the values below" in doubt.found)


def test_bands_scaled_to_their_own_range_are_refused() -> None:
    """Minimum and maximum of every band are exactly 0 and 1; three bands tell, and of radar two."""
    scale = torch.linspace(0, 1, 101)
    values = {band: scale.roll(7 * k).tolist() for k, band in enumerate(L2A)}
    three = {band: values[band] for band in ("B02", "B03", "B04")}
    for some in (values, three):
        assert "band by band" in problem(ask(some, Sensor.S2_L2A, Unit.REFLECTANCE))
    two = {band: values[band] for band in ("B02", "B03")}
    assert "band by band" not in problem(ask(two, Sensor.S2_L2A, Unit.REFLECTANCE))
    for place, other in ((three["B03"].index(0), 0.01), (three["B03"].index(1), 0.99)):
        changed = three | {"B03": list(three["B03"])}
        changed["B03"][place] = other
        assert "band by band" not in problem(ask(changed, Sensor.S2_L2A, Unit.REFLECTANCE))
    radar = {"VV": scale.tolist(), "VH": (scale**2).tolist()}
    assert "band by band" in problem(ask(radar, Sensor.S1_RTC, Unit.POWER))
    # of other units the range alone tells
    assert "band by band" not in problem(ask(values, Sensor.S2_L2A, Unit.DN))
    picture = dict(zip("RGB", three.values(), strict=True))
    assert "band by band" not in problem(ask(picture, Sensor.RGB, Unit.REFLECTANCE))


@pytest.mark.parametrize("unit", [Unit.DB, Unit.POWER])
def test_digital_numbers_of_radar_are_to_be_calibrated(unit: Unit) -> None:
    """Stated as dB, power was offered, which leads to the next refusal."""
    counts = [float(90 + 3 * k) for k in range(101)]
    doubt = ask({"VV": counts, "VH": [k - 60 for k in counts]}, Sensor.S1_GRD, unit)

    assert doubt is not None
    assert "calibrate the product" in doubt.remedy
    assert doubt.instead is None
    fractions = ask({"VV": [k + 0.5 for k in counts], "VH": counts}, Sensor.S1_GRD, Unit.DB)
    assert fractions is not None
    assert Unit.POWER is fractions.instead
