"""Bands of several units in one image, and the number that a remedy declares nodata."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from levels import surface
from remedies import run_rio
from torch import nn

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import (
    check_of_any_unit,
    check_plausible,
    check_scale,
    check_sentinels,
    doubt_of,
    find_doubts,
)
from eofm.errors import PixelError
from eofm.raster.source import RasterSource

L1C, L2A = SENSOR_BANDS[Sensor.S2_L1C], SENSOR_BANDS[Sensor.S2_L2A]
SIZE = 48


def image(pixels: np.ndarray, sensor: Sensor, unit: Unit) -> Imagery:
    """An image all of which is measured."""
    spec = ImageSpec(sensor, SENSOR_BANDS[sensor], unit, pixels.shape[1:], 10.0)
    tensor = torch.from_numpy(pixels.astype("float32"))[None]
    return Imagery(tensor, spec, torch.ones(1, *pixels.shape[1:], dtype=torch.bool))


@pytest.mark.parametrize("band", ["B01", "B08", "B12"])
@pytest.mark.parametrize(("unit", "added"), [(Unit.DN, 0), (Unit.DN_OFFSET1000, 1000)])
def test_one_band_of_reflectance_among_digital_numbers(band: str, unit: Unit, added: int) -> None:
    """Its 0.2 beside 2000 was taken for a digital number; as the remedy says, it is one."""
    pixels = surface(L2A, (SIZE, SIZE)) + added
    place = L2A.index(band)
    whole = pixels[place].copy()
    pixels[place] = (whole - added) / 1e4

    with pytest.raises(PixelError, match="in a different unit than the others") as caught:
        check_plausible(image(pixels, Sensor.S2_L2A, unit))

    assert f"multiply {band} by 10,000{' and add 1000' * bool(added)}," in str(caught.value.remedy)
    pixels[place] = pixels[place] * 10_000 + added
    check_plausible(image(pixels, Sensor.S2_L2A, unit))


def test_a_dark_band_that_was_resampled_is_none() -> None:
    """B10 of 0 and 1 over dry air, and water of 1 and 2, lie between whole numbers then."""
    rng = np.random.default_rng(0)
    pixels = surface(L1C, (SIZE, SIZE)) + 400  # brighter in the blue than the sky
    for band, values in (("B10", (0, 0, 0, 1)), ("B12", (1, 1, 1, 2))):
        coarse = torch.from_numpy(rng.choice(values, (1, 1, 8, 8)).astype("float32"))
        fine = nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
        pixels[L1C.index(band)] = fine[0, 0].numpy()

    check_plausible(image(pixels, Sensor.S2_L1C, Unit.DN))


def test_per_cent_are_no_digital_numbers() -> None:
    """Reflectance of 0 to 100 was embedded as if all were a hundred times as dark."""
    with pytest.raises(PixelError, match="in the range of unit dn"):
        check_plausible(image(surface(L2A, (SIZE, SIZE)) / 100, Sensor.S2_L2A, Unit.DN))


def test_dark_water_that_was_resampled_is_one_unit() -> None:
    """Where infrared is 0 and 1, and the blue 50, a third of 1 is no reflectance of 0.3."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 2, (12, SIZE, SIZE)).astype("float64")
    pixels[:6] *= 80
    pixels = (pixels + np.roll(pixels, 1, 1) + np.roll(pixels, 1, 2)) / 3

    check_plausible(image(pixels, Sensor.S2_L2A, Unit.DN))


@pytest.mark.parametrize(("linear", "other"), [("VH", "VV"), ("VV", "VH")])
def test_one_polarisation_in_decibels(linear: str, other: str) -> None:
    """VH in power beside VV in dB was called an exchange of bands; VV in power passed."""
    rng = np.random.default_rng(0)
    decibels = {
        name: rng.normal(mean, 2, (SIZE, SIZE)) for name, mean in (("VV", -11.0), ("VH", -18.0))
    }
    pixels = np.stack([decibels["VV"], decibels["VH"]])
    place = ("VV", "VH").index(linear)
    pixels[place] = 10 ** (pixels[place] / 10)

    with pytest.raises(PixelError, match="in a different unit than the others") as caught:
        check_plausible(image(pixels, Sensor.S1_GRD, Unit.DB))

    assert f"{linear} as 10 log10" in str(caught.value.remedy)
    assert other not in str(caught.value.remedy)
    pixels[place] = 10 * np.log10(pixels[place])
    check_plausible(image(pixels, Sensor.S1_GRD, Unit.DB))


def test_a_bright_city_in_decibels_is_one_unit() -> None:
    """VV above 0 dB nearly everywhere is a town of high buildings, seen at a right angle."""
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.normal(mean, 3, (SIZE, SIZE)) for mean in (4.0, -7.0)])

    check_plausible(image(pixels, Sensor.S1_GRD, Unit.DB))


@pytest.mark.parametrize(
    ("kind", "fill"),
    [("int32", -(2**31)), ("int32", 2**31 - 1), ("uint32", 2**32 - 1), ("float32", -3.4028235e38)],
)
def test_the_remedy_declares_the_number_that_is_stored(
    kind: str, fill: float, tmp_path: Path
) -> None:
    """-2.1474836e+09 is -2147483600, which stands nowhere in the file."""
    pixels = surface(L2A, (SIZE, SIZE)).astype(kind)
    pixels[:, :, :10] = fill
    file = tmp_path / "a.tif"
    at = rasterio.Affine(10, 0, 500_000, 0, -10, 6_000_000)
    with rasterio.open(file, "w", "GTiff", SIZE, SIZE, 12, "EPSG:32632", at, kind) as dataset:
        dataset.write(pixels)
    source = RasterSource("a", (file,), Sensor.S2_L2A, Unit.DN)
    with source.open() as raster, pytest.raises(PixelError, match="not declared") as caught:
        check_sentinels(raster.read_native(), "a")

    run_rio(caught.value, {"FILE": file})

    found = source.read()
    assert (False, True) == (bool(found.valid[0, :, :10].any()), bool(found.valid[0, :, 10:].all()))
    check_plausible(found)


# ----------------------------------------------------------- values that no unit holds at all

LOWEST, HIGHEST = -1001.0, 1e6  # digital numbers of Level-2A; backscatter as power


def plane(*pixels: tuple[float, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Bands (C, 1, W) of one row: each argument is a pixel, a value for each band."""
    return torch.tensor(pixels, dtype=dtype).T[:, None]


@pytest.mark.parametrize(
    ("pixels", "fill"),
    [
        ([(LOWEST,), (HIGHEST,)], None),
        ([(LOWEST - 1,), (5.0,)], -1002),
        ([(5.0,), (HIGHEST * 1.1,)], 1_100_000),
        ([(65_535.0,), (5.0,)], None),  # one band: saturation
        ([(32_767.0,), (5.0,)], None),
        ([(65_535.0, 5.0), (5.0, 65_535.0)], None),  # in one band of two
        ([(65_535.0, 65_535.0), (5.0, 6.0)], 65_535),
        ([(32_767.0, 32_767.0), (5.0, 6.0)], 32_767),
        ([(5.0, -9999.0), (5.0, 6.0)], -9999),
        ([(float("nan"), 5.0), (5.0, -9999.0)], -9999),
        ([(float("nan"), 5.0), (5.0, 6.0)], None),
        ([(1e20, -9999.0), (5.0, -9999.0)], -9999),  # the most frequent one
    ],
)
def test_values_that_no_unit_holds(pixels: list[tuple[float, ...]], fill: int | None) -> None:
    """Beyond the limits of all units, or the largest number of a type in every band."""
    values = plane(*pixels)
    valid = torch.ones(values.shape[1:], dtype=torch.bool)
    if fill is None:
        check_of_any_unit(values, valid, "a.tif")
        return
    with pytest.raises(PixelError, match="is not declared") as caught:
        check_of_any_unit(values, valid, "a.tif")
    assert f"a.tif: {fill} in " in str(caught.value.found) + str(caught.value.where)
    assert f"--nodata {fill} FILE" in str(caught.value.remedy)


def test_what_is_masked_is_not_asked_for_any_unit() -> None:
    """A masked fill is declared; the share is one of the measured pixels."""
    values = plane((-9999.0, -9999.0), (5.0, -9999.0), (5.0, 6.0), (7.0, 8.0), (7.0, 9.0))
    valid = torch.tensor([[False, False, True, True, True]])
    check_of_any_unit(values, valid, "a")
    valid[0, 1] = True
    with pytest.raises(PixelError) as caught:
        check_of_any_unit(values, valid, "a")
    assert "-9999 in 25% of the pixels" in str(caught.value)


def test_the_remedy_is_of_the_number_before_the_scale() -> None:
    """Without factors it is the value itself; those of the band are taken, not another's."""
    bands = ("B02", "B03", "B04")
    spec = ImageSpec(Sensor.S2_L2A, bands, Unit.REFLECTANCE, (2, 2), 10.0)
    pixels = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    pixels[0, 1, 0, 0] = -1.0999
    native = NativeImagery({10: pixels}, {10: bands}, spec, torch.ones(1, 2, 2, dtype=torch.bool))
    factors = {"B02": (1.0, 0.0), "B03": (1e-4, -0.1), "B04": (2.0, 0.0)}

    for stated, number in ((None, "-1.0999"), (factors, "-9999")):
        with pytest.raises(PixelError) as caught:
            check_sentinels(native, "a", stated)
        assert f"--nodata {number} FILE" in str(caught.value.remedy)


# ------------------------------------------------------------------- the means of many images


def many(
    means: dict[str, float],
    sensor: Sensor,
    unit: Unit,
    spread: float,
    valid: torch.Tensor | None = None,
) -> Imagery:
    """64 images of 4 x 4 pixels whose bands have these means exactly, and no two bands agree."""
    bands = tuple(means)
    signs = torch.tensor([1.0, -1.0]).repeat(8)
    pixels = torch.stack(
        [mean + spread * (1 + place / 4) * signs for place, mean in enumerate(means.values())]
    )
    spec = ImageSpec(sensor, bands, unit, (4, 4), 10.0)
    stack = pixels.view(1, len(bands), 4, 4).repeat(64, 1, 1, 1)
    valid = torch.ones(4, 4, dtype=torch.bool) if valid is None else valid
    return Imagery(stack, spec, valid.expand(64, 4, 4).clone())


@pytest.mark.parametrize(
    ("vh", "right"), [(-13.0, True), (-12.875, False), (-22.0, True), (-22.125, False)]
)
def test_polarisations_of_many_images_are_3_to_12_db_apart(vh: float, right: bool) -> None:
    """Both limits included."""
    imagery = many({"VV": -10.0, "VH": vh}, Sensor.S1_GRD, Unit.DB, 0.25)
    if right:
        check_plausible(imagery)
    else:
        with pytest.raises(PixelError, match="VV and VH are not those"):
            check_plausible(imagery)


def test_one_polarisation_and_linear_power_have_no_distance() -> None:
    """Decibels of VV alone, and powers, whose difference is no ratio."""
    check_plausible(many({"VV": -10.0}, Sensor.S1_GRD, Unit.DB, 0.25))
    check_plausible(many({"VV": 0.125, "VH": 0.03125}, Sensor.S1_RTC, Unit.POWER, 0.0078125))


@pytest.mark.parametrize(
    ("near", "right"), [(800.0, True), (799.0, False), (1100.0, True), (1101.0, False)]
)
def test_ratios_of_many_images_include_their_limits(near: float, right: bool) -> None:
    """B08 is 0.8 to 1.1 times B8A, also where single pixels of every image are not measured."""
    valid = torch.ones(4, 4, dtype=torch.bool)
    for masked in (False, True):
        valid[0, :2] = not masked  # one of each sign: the means stay
        imagery = many({"B08": near, "B8A": 1000.0}, Sensor.S2_L2A, Unit.DN, 32.0, valid)
        if right:
            check_plausible(imagery)
        else:
            with pytest.raises(PixelError, match="not those of s2-l2a in the stated order"):
                check_plausible(imagery)


def test_what_is_not_measured_adds_nothing_to_a_mean() -> None:
    """Three quarters masked: B10 stays a fiftieth of B8A."""
    valid = torch.zeros(4, 4, dtype=torch.bool)
    valid[0] = True
    means = {"B08": 0.3125, "B8A": 0.3125, "B10": 0.00390625}
    check_plausible(many(means, Sensor.S2_L1C, Unit.REFLECTANCE, 0.001953125, valid))


def test_a_ratio_to_nothing_is_refused() -> None:
    """B8A of exactly the offset has no reflectance to compare with."""
    imagery = many({"B08": 1800.0, "B8A": 1000.0}, Sensor.S2_L2A, Unit.DN_OFFSET1000, 32.0)
    with pytest.raises(PixelError, match="not those of s2-l2a") as caught:
        check_plausible(imagery)
    assert "= inf" in str(caught.value.found)


# -------------------------------------------------------------------- stretched and copied bands


@pytest.mark.parametrize("rounded", [np.round, np.floor, np.ceil])
@pytest.mark.parametrize("unit", [Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE])
def test_65535_for_a_reflectance_of_1_is_no_digital_number(unit: Unit, rounded) -> None:
    """The raw bands of Copernicus Browser were digital numbers six times too bright."""
    pixels = rounded(np.rint(surface(L2A, (SIZE, SIZE))) * 6.5535)

    with pytest.raises(PixelError, match="stretched to the range of 16-bit") as caught:
        check_plausible(image(pixels, Sensor.S2_L2A, unit))

    assert "steps of 6.5535" in str(caught.value.found)
    check_plausible(image(pixels / 65_535, Sensor.S2_L2A, Unit.REFLECTANCE))


def test_one_band_that_was_not_resampled_shows_the_stretch() -> None:
    """Bands of 20 and 60 m lie between the steps where they were interpolated."""
    pixels = np.rint(surface(L2A, (SIZE, SIZE)))
    place = L2A.index("B08")
    pixels[place] = np.rint(pixels[place] * 6.5535)
    others = [k for k in range(len(L2A)) if k != place]
    pixels[others] = pixels[others] * 6.5535 + 0.25

    with pytest.raises(PixelError, match="stretched") as caught:
        check_plausible(image(pixels, Sensor.S2_L2A, Unit.DN))

    assert "B08" in str(caught.value.found)


@pytest.mark.parametrize(("numbers", "refused"), [(15, False), (16, True)])
def test_few_values_are_in_steps_by_chance(numbers: int, refused: bool) -> None:
    """Sixteen different values tell, besides 0."""
    pixels = np.rint(surface(L2A, (SIZE, SIZE))) + 0.5  # no other band is whole
    steps = np.rint(np.arange(SIZE * SIZE) % (numbers + 1) * 6.5535 * 20)
    pixels[L2A.index("B08")] = steps.reshape(SIZE, SIZE)
    spec = ImageSpec(Sensor.S2_L2A, L2A, Unit.DN, None, 10.0)
    values = {band: torch.from_numpy(v.flatten()) for band, v in zip(L2A, pixels, strict=True)}

    doubt = doubt_of(values, spec)

    assert refused == (doubt is not None and "stretched" in doubt.problem)


@pytest.mark.parametrize("step", [6.5535, 257])
def test_what_is_one_beside_the_steps_is_not_stretched(step: float) -> None:
    """Rounding moves a value by less than 1."""
    pixels = np.rint(np.rint(surface(L2A, (SIZE, SIZE)) // (step / 6)) * step) + 1

    found = find_doubts(image(pixels, Sensor.S2_L2A, Unit.DN))

    assert not any("stretched" in doubt.problem for doubt in found)


@pytest.mark.parametrize(("off", "refused"), [(0, True), (1, False)])
def test_a_preview_stretched_to_16_bits(off: int, refused: bool) -> None:
    """Every value of a band is in the steps: one beside them, and the steps are chance."""
    pixels = np.rint(surface(L2A, (SIZE, SIZE))) + 0.5  # no other band is whole
    grey = np.sort(20 + np.arange(SIZE * SIZE) % 200) * 257
    grey[SIZE * SIZE // 3] += off  # not a quartile, which is compared first
    pixels[L2A.index("B08")] = grey.reshape(SIZE, SIZE)

    found = find_doubts(image(pixels, Sensor.S2_L2A, Unit.DN))

    said = [doubt.found for doubt in found if "stretched" in doubt.problem]
    assert ["B08 has steps of 257: 8-bit values stretched to 16 bits"] * refused == said


def test_the_remedy_for_a_stretch_makes_reflectance(tmp_path: Path) -> None:
    """Typed as it is printed, by the same words where reflectance was stated."""
    pixels = np.rint(surface(L2A, (SIZE, SIZE)))
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 6_000_000)
    file = tmp_path / "raw.tif"
    with rasterio.open(
        file, "w", "GTiff", SIZE, SIZE, len(L2A), "EPSG:32632", place, "uint16"
    ) as made:
        made.write(np.rint(pixels * 6.5535).astype("uint16"))
    with pytest.raises(PixelError, match="stretched") as caught:
        check_plausible(RasterSource("raw", (file,), Sensor.S2_L2A, Unit.DN).read())
    with pytest.raises(PixelError, match="not in the range") as stated:
        check_scale(RasterSource("raw", (file,), Sensor.S2_L2A, Unit.REFLECTANCE).read())
    assert caught.value.remedy == stated.value.remedy
    command = str(caught.value.remedy).partition("reflectance: ")[2].partition("; in an array")[0]

    subprocess.run(
        [sys.executable, *shlex.split(command.replace("FILE", str(file)))[1:]], check=True
    )

    found = RasterSource("raw", (file,), Sensor.S2_L2A, Unit.REFLECTANCE).read()
    check_plausible(check_scale(found))
    np.testing.assert_allclose(pixels / 1e4, found.pixels[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("unit", [Unit.POWER, Unit.DB])
def test_backscatter_times_a_factor_states_it(tmp_path: Path, unit: Unit) -> None:
    """Linear backscatter as uint16 x 10,000 was to be calibrated, which it is."""
    rng = np.random.default_rng(0)
    power = 10 ** (rng.normal([[[-10.0]], [[-17.0]]], 1.5, (2, SIZE, SIZE)) / 10)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 6_000_000)
    file = tmp_path / "s1.tif"
    with rasterio.open(file, "w", "GTiff", SIZE, SIZE, 2, "EPSG:32632", place, "uint16") as made:
        made.write(np.rint(power * 10_000).astype("uint16"))
    with pytest.raises(PixelError) as caught:
        check_plausible(RasterSource("s1", (file,), Sensor.S1_GRD, unit).read())
    command = str(caught.value.remedy).partition("unit power: ")[2].partition("; in an array")[0]

    subprocess.run(
        [sys.executable, *shlex.split(command.replace("FILE", str(file)))[1:]], check=True
    )

    found = RasterSource("s1", (file,), Sensor.S1_GRD, Unit.POWER).read()
    check_plausible(check_scale(found))
    np.testing.assert_allclose(power, found.pixels[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("unit", [Unit.DN, Unit.DN_OFFSET1000])
def test_a_copy_of_another_band_is_no_measurement(unit: Unit) -> None:
    """Two equal bands were taken, and so was one band written twelve times."""
    pixels = surface(L2A, (SIZE, SIZE)) + 1000 * (unit is Unit.DN_OFFSET1000)
    copied = pixels.copy()
    copied[L2A.index("B12")] = pixels[L2A.index("B04")]

    with pytest.raises(PixelError, match="two bands contain the same values") as caught:
        check_plausible(image(copied, Sensor.S2_L2A, unit))

    assert "B12 and B04 are equal" in str(caught.value.found)
    copied[L2A.index("B12"), 5, 7] += 1
    check_plausible(image(copied, Sensor.S2_L2A, unit))
    with pytest.raises(PixelError, match="two bands"):
        check_plausible(image(np.repeat(pixels[:1], 12, 0), Sensor.S2_L2A, unit))


def test_a_copy_is_found_beside_bands_that_begin_alike() -> None:
    """One equal pixel makes no copy, and hides none: bands are told apart by many pixels."""
    pixels = surface(L2A, (SIZE, SIZE))
    pixels[[L2A.index(band) for band in ("B02", "B03", "B04")], 0, 0] = 777
    pixels[L2A.index("B04")] = pixels[L2A.index("B03")]

    (doubt,) = find_doubts(image(pixels, Sensor.S2_L2A, Unit.DN))

    assert "B04 and B03 are equal" in doubt.found


@pytest.mark.parametrize(("numbers", "refused"), [(7, False), (8, True)])
def test_bands_of_few_values_may_be_equal(numbers: int, refused: bool) -> None:
    """Of water both short-wave infrared bands hold 0 to a few."""
    pixels = surface(L2A, (SIZE, SIZE))
    dark = (np.arange(SIZE * SIZE) % (numbers + 1)).reshape(SIZE, SIZE)
    pixels[[L2A.index("B11"), L2A.index("B12")]] = dark

    found = find_doubts(image(pixels, Sensor.S2_L2A, Unit.DN))

    assert refused == any("two bands" in doubt.problem for doubt in found)


def test_pictures_may_be_grey() -> None:
    """Three equal colours are a picture in grey."""
    grey = np.repeat(np.arange(200.0)[None, None, :].repeat(SIZE, 1), 3, 0)
    spec = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, grey.shape[1:], 1.0)

    pixels, valid = torch.from_numpy(grey.astype("float32"))[None], torch.ones(1, SIZE, 200) > 0
    found = find_doubts(Imagery(pixels, spec, valid))

    assert not found
