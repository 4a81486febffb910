"""Batches: every fault is found in its image, by its band, with what to state instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import levels, surface
from torch import Tensor

from eofm.contract import validity
from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import (
    ENOUGH_IMAGES,
    Doubt,
    check_plausible,
    check_sentinels,
    find_doubts,
    refusal,
)
from eofm.errors import PixelError

L1C = SENSOR_BANDS[Sensor.S2_L1C]
L2A = SENSOR_BANDS[Sensor.S2_L2A]
RADAR = ("VV", "VH")
EUROSAT_ORDER = [*range(8), 9, 10, 11, 12, 8]


def top(count: int = 3, size: int = 12, unit: Unit = Unit.DN) -> Imagery:
    """Level-1C images of noise around the means of EuroSAT, with a margin that is not valid."""
    generator = torch.Generator().manual_seed(5)
    light = 0.7 + 0.6 * torch.rand(count, 13, size, size, generator=generator)
    pixels = levels(L1C) * light + (1000 if unit is Unit.DN_OFFSET1000 else 0)
    valid = torch.ones(count, size, size, dtype=torch.bool)
    valid[:, :, :2] = False
    pixels[:, :, :, :2] = -9999
    return Imagery(pixels, ImageSpec(Sensor.S2_L1C, L1C, unit, (size, size), 10.0), valid)


def ground(count: int = 3, size: int = 32) -> Imagery:
    """Level-2A images with water, forest and soil."""
    stack = np.stack([surface(L2A, (size, size), seed) for seed in range(count)])
    spec = ImageSpec(Sensor.S2_L2A, L2A, Unit.DN, (size, size), 10.0)
    valid = torch.ones(count, size, size, dtype=torch.bool)
    return Imagery(torch.from_numpy(stack).float(), spec, valid)


def echoes(count: int = 3, size: int = 12, unit: Unit = Unit.DB) -> Imagery:
    """Backscatter around the means of BigEarthNet."""
    generator = torch.Generator().manual_seed(5)
    pixels = levels(RADAR) + 2 * torch.randn(count, 2, size, size, generator=generator)
    if unit is Unit.POWER:
        pixels = 10 ** (pixels / 10)
    spec = ImageSpec(Sensor.S1_GRD, RADAR, unit, (size, size), 10.0)
    return Imagery(pixels, spec, torch.ones(count, size, size, dtype=torch.bool))


def photographs() -> Imagery:
    """Whole numbers from 0 to 255."""
    pixels = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    spec = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (8, 8), 10.0)
    return Imagery(pixels.float(), spec, torch.ones(3, 8, 8, dtype=torch.bool))


def pixel(band: int, value: float) -> Callable[[Tensor], Tensor]:
    """Put a value into one pixel of a band."""

    def change(image: Tensor) -> Tensor:
        image = image.clone()
        image[band, 5, 5] = value
        return image

    return change


def everywhere(band: int, value: float) -> Callable[[Tensor], Tensor]:
    """Put a value into every pixel of a band."""
    return lambda image: torch.where(
        torch.arange(len(image))[:, None, None] == band, value, image
    ).float()


FAULTS: list[tuple[Imagery, Callable[[Tensor], Tensor], str, str | None, Unit | None]] = [
    (top(), pixel(3, -9999), "marks pixels as nodata", "B04", None),
    (top(), pixel(0, -32_768), "marks pixels as nodata", "B01", None),
    (top(), pixel(12, 1e20), "marks pixels as nodata", "B12", None),
    (echoes(), pixel(1, -9999), "marks pixels as nodata", "VH", None),
    (echoes(unit=Unit.POWER), pixel(0, -32_768), "marks pixels as nodata", "VV", None),
    (top(), everywhere(8, 0), "a band contains no measurement", "B8A", None),
    (top(size=103), everywhere(6, 44), "a band contains no measurement", "B07", None),
    (echoes(), lambda x: 10 ** (x / 10), "dB is mostly negative", None, Unit.POWER),
    (echoes(unit=Unit.POWER), lambda x: 10 * x.log10(), "is positive", None, Unit.DB),
    (echoes(), torch.round, "converted to an integer type", None, None),
    (echoes(), lambda x: x.flip(0), "VH is brighter than VV", None, None),
    (top(), lambda x: x / 1e4, "in the range of unit dn", None, None),
    (ground(), lambda x: x / 1e4, "in the range of unit dn", None, None),
    (ground(), lambda x: x * 20, "in the range of unit dn", None, None),
    (photographs(), lambda x: x / 255, "in the range of unit uint8", None, None),
    (photographs(), lambda x: x / 2, "8-bit values are whole numbers", None, None),
    (top(), lambda x: (x / 12).floor() + 1, "dark in the blue", "B01", None),
    (top(), lambda x: x[EUROSAT_ORDER], "not in the stated order", "B10", None),
    (top(), lambda x: x + 1000, "seem to carry it", "B10", Unit.DN_OFFSET1000),
    (top(unit=Unit.DN_OFFSET1000), lambda x: x - 1000, "seem to lack it", "B10", Unit.DN),
    (ground(), lambda x: x + 1000, "seem to carry it", None, Unit.DN_OFFSET1000),
]


@pytest.mark.parametrize("image", [0, 2])
@pytest.mark.parametrize(
    ("honest", "change", "words", "band", "instead"), FAULTS, ids=[str(i) for i in range(21)]
)
def test_every_fault_is_found_in_its_image(
    honest: Imagery,
    change: Callable[[Tensor], Tensor],
    words: str,
    band: str | None,
    instead: Unit | None,
    image: int,
) -> None:
    """The image by its number in the batch, the band, and the unit that would be right."""
    assert [] == find_doubts(honest)
    check_plausible(honest)
    pixels = honest.pixels.clone()
    pixels[image] = change(pixels[image])
    wrong = replace(honest, pixels=pixels)

    (doubt,) = find_doubts(wrong)

    assert words in doubt.problem
    assert image == doubt.image
    assert band is None or band == doubt.band
    assert instead is doubt.instead
    with pytest.raises(PixelError) as caught:
        check_plausible(wrong, [f"scene {i}" for i in range(len(wrong))])
    assert (image,) == caught.value.images
    assert doubt.problem == caught.value.problem
    assert f"scene {image}: {doubt.found}" == caught.value.found
    if instead is not None:
        assert str(caught.value.remedy).endswith(f": unit {instead}")
        stated = replace(honest.spec, unit=instead)
        alone = slice(image, image + 1)
        check_plausible(Imagery(pixels[alone], stated, honest.valid[alone]))  # the remedy works


def test_subtracting_the_offset_from_reflectance_works() -> None:
    """The remedy for reflectance that carries 0.1."""
    honest = top()
    spec = replace(honest.spec, unit=Unit.REFLECTANCE)
    lifted = Imagery(honest.pixels / 1e4 + 0.1, spec, honest.valid)

    with pytest.raises(PixelError, match="seem to carry it") as caught:
        check_plausible(lifted)

    assert "subtract 0.1" in str(caught.value.remedy)
    check_plausible(replace(lifted, pixels=lifted.pixels - 0.1))


def test_the_first_fault_of_an_image_is_named_and_every_image_counts() -> None:
    """At most one doubt per image; an image without a valid pixel is passed over."""
    honest = top(4)
    pixels, valid = honest.pixels.clone(), honest.valid.clone()
    pixels[0, 3], pixels[0, 4, 5, 5] = 0, -9999
    pixels[2] += 1000
    valid[3] = False

    doubts = find_doubts(Imagery(pixels, honest.spec, valid))

    assert [0, 2] == [doubt.image for doubt in doubts]
    assert "marks pixels" in doubts[0].problem
    assert "seem to carry it" in doubts[1].problem


def test_what_is_not_measured_says_nothing() -> None:
    """Under the mask anything may lie; where all is masked, that is said."""
    honest = top(2)
    dirty = honest.pixels.clone()
    dirty[(~honest.valid)[:, None].expand_as(dirty)] = torch.nan
    check_plausible(replace(honest, pixels=dirty))
    nothing = replace(honest, valid=torch.zeros_like(honest.valid))

    with pytest.raises(PixelError, match="no pixel of these images is valid") as caught:
        check_plausible(nothing, ["a", "b"])
    assert ("a, b", (0, 1)) == (caught.value.where, caught.value.images)
    with pytest.raises(PixelError) as caught:
        check_plausible(nothing)
    assert "2 images of s2-l1c" == caught.value.where
    with pytest.raises(PixelError, match="not finite"):
        find_doubts(replace(honest, pixels=dirty, valid=torch.ones_like(honest.valid)))


def test_no_image_is_no_doubt() -> None:
    """An empty batch is looked at without a crash."""
    honest = top(2)
    empty = Imagery(honest.pixels[:0], honest.spec, honest.valid[:0])

    assert [] == find_doubts(empty)


def test_saturation_in_one_band_is_a_measurement() -> None:
    """65535 in single bands is how products mark saturation; in every band it is nodata."""
    honest = ground(1)
    bright = honest.pixels.clone()
    bright[0, 3, 5, 5] = 65_535
    assert [] == find_doubts(replace(honest, pixels=bright))
    bright[0, :, 5, 5] = 65_535

    (doubt,) = find_doubts(replace(honest, pixels=bright))

    assert "65535 in 0.098% of the pixels, first in band B01" == doubt.found
    one = replace(honest.spec, bands=("B04",))
    assert [] == find_doubts(Imagery(bright[:, 3:4], one, honest.valid))


# ------------------------------------------------------------------------------ large images


def test_large_images_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image above the limit every second row and column is looked at, below it all."""
    honest = ground(1)
    pixels = honest.pixels.clone()
    pixels[0, 2, 5, 6] = -9999  # an odd row
    imagery = replace(honest, pixels=pixels)
    for limit, seen in ((32 * 32 // 3, True), (32 * 32 // 4, False)):
        monkeypatch.setattr(validity, "_LOOKED_AT", limit)
        assert seen == bool(find_doubts(imagery)), limit
    pixels[0, 2, 6, 8] = -9999
    assert find_doubts(imagery)


def test_the_sample_is_spread_and_smaller_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many values of a band are sorted, every n-th of the whole image."""
    seen: list[Tensor] = []

    def spy(values: dict[str, Tensor], _: ImageSpec) -> None:
        seen.append(values["B03"])

    monkeypatch.setattr(validity, "contradiction", spy)
    monkeypatch.setattr(validity, "_SAMPLE", 500)
    monkeypatch.setattr(validity, "_SAMPLE_OF_MANY", 100)
    one, many = ground(1), ground(2)
    assert find_doubts(one) == find_doubts(many) == []

    third = L2A.index("B03")
    assert torch.equal(one.pixels[0, third].flatten()[::3], seen[0])
    assert torch.equal(many.pixels[0, third].flatten()[::11], seen[1])
    assert torch.equal(many.pixels[1, third].flatten()[::11], seen[2])


def test_the_limits_are_those_that_are_documented() -> None:
    """4 million pixels, 65,536 values of one image and 1,024 of each of many, 64 images."""
    assert (1 << 22, 1 << 16, 1 << 10) == (
        validity._LOOKED_AT,
        validity._SAMPLE,
        validity._SAMPLE_OF_MANY,
    )
    assert 64 == ENOUGH_IMAGES


# ------------------------------------------------------------------------------ every pixel


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_sentinel_is_seen_at_every_pixel(row: int, col: int, band: int, coarse: bool) -> None:
    """Packing looks at all pixels of all planes, not at a sample; under the mask it looks away."""
    bands = {10: (*L1C[1:4], "B08"), 20: (*L1C[4:7], "B8A")}
    planes = {10: torch.full((2, 4, 16, 16), 900.0), 20: torch.full((2, 4, 8, 8), 800.0)}
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    spec = ImageSpec(Sensor.S2_L1C, (*bands[10], *bands[20]), Unit.DN, (16, 16), 10.0)
    native = NativeImagery(planes, bands, spec, valid)
    check_sentinels(native, "x")
    gsd, ratio = (20, 2) if coarse else (10, 1)
    planes[gsd][1, band, row // ratio, col // ratio] = -9999

    with pytest.raises(PixelError, match="marks pixels as nodata") as caught:
        check_sentinels(native, "scene 7")

    assert "scene 7: -9999 in " in str(caught.value)
    assert f"first in band {bands[gsd][band]}" in str(caught.value)
    valid[1, row, col] = False
    check_sentinels(native, "x")


@pytest.mark.parametrize(
    ("bands", "filled", "found"),
    [(("B02", "B03"), 2, True), (("B02", "B03"), 1, False), (("B02",), 1, False)],
)
def test_65535_in_digital_numbers_as_stored(
    bands: tuple[str, ...], filled: int, found: bool
) -> None:
    """In uint16 only 65535 in all bands of a pixel can be nodata."""
    plane = torch.full((1, len(bands), 4, 4), 900, dtype=torch.uint16)
    plane[0, :filled, 3, 1] = 65_535
    spec = ImageSpec(Sensor.S2_L2A, bands, Unit.DN, (4, 4), 10.0)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    native = NativeImagery({10: plane}, {10: bands}, spec, valid)

    if not found:
        check_sentinels(native, "x")
        return
    with pytest.raises(PixelError, match="65535 in 6% of the pixels, first in band B02"):
        check_sentinels(native, "x")
    valid[0, 3, 1] = False
    check_sentinels(native, "x")
    valid[:] = False
    check_sentinels(native, "x")


# --------------------------------------------------------------------------------- refusal


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (5, ""), (6, "; and 1 more"), (9, "; and 4 more")]
)
def test_a_refusal_names_five_images(count: int, more: str) -> None:
    """The first fault with all of its images; others come when that is mended."""
    doubts = [Doubt("p", f"n{i}", "e", "r", Unit.DN, "B01", 2 * i) for i in range(count)]
    doubts.insert(1, Doubt("another", "o", "e", "r", None, None, 1))
    names = [f"s{i}" for i in range(20)]

    error = refusal(doubts, names)

    shown = "; ".join(f"s{2 * i}: n{i}" for i in range(min(count, 5)))
    assert (f"{shown}{more}", "e", "r: unit dn") == (error.found, error.expected, error.remedy)
    assert tuple(range(0, 2 * count, 2)) == error.images
    assert "p" == error.problem
    assert "r" == refusal([replace(doubts[0], instead=None)], names).remedy


def test_images_without_names_have_numbers() -> None:
    """One image is `the image`, several are numbered within their batch."""
    for count, name in ((1, "the image: "), (3, "image 2 of the batch: ")):
        wrong = top(count)
        wrong.pixels[count - 1] += 1000
        with pytest.raises(PixelError) as caught:
            check_plausible(wrong)
        assert str(caught.value.found).startswith(name)


# ------------------------------------------------------------------------------ many images


def flat(sensor: Sensor, unit: Unit = Unit.DN, count: int = 64, **changes: float) -> Imagery:
    """Images of one value per band."""
    bands = {Sensor.S2_L1C: L1C, Sensor.S2_L2A: L2A, Sensor.S1_GRD: RADAR}[sensor]
    level = {band: float(value) for band, value in zip(bands, levels(bands), strict=True)}
    if sensor is Sensor.S2_L2A:
        level |= {"B09": 2600.0, "B04": 300.0}
    level |= changes
    shift = 1000 if unit is Unit.DN_OFFSET1000 else 0
    values = torch.tensor([level[band] for band in bands]) + shift
    pixels = values.view(1, -1, 1, 1).expand(count, -1, 4, 4).clone()
    spec = ImageSpec(sensor, bands, unit, (4, 4), 10.0)
    return Imagery(pixels, spec, torch.ones(count, 4, 4, dtype=torch.bool))


RATIOS = [
    (Sensor.S2_L1C, "B08", 0.81, True),
    (Sensor.S2_L1C, "B08", 0.79, False),
    (Sensor.S2_L1C, "B08", 1.09, True),
    (Sensor.S2_L1C, "B08", 1.11, False),
    (Sensor.S2_L2A, "B08", 0.79, False),
    (Sensor.S2_L2A, "B08", 1.11, False),
    (Sensor.S2_L1C, "B10", 0.049, True),
    (Sensor.S2_L1C, "B10", 0.051, False),
    (Sensor.S2_L1C, "B09", 0.84, True),
    (Sensor.S2_L1C, "B09", 0.86, False),
    (Sensor.S2_L1C, "B09", 0.02, True),
    (Sensor.S2_L2A, "B09", 0.59, False),
    (Sensor.S2_L2A, "B09", 0.61, True),
    (Sensor.S2_L2A, "B09", 1.99, True),
    (Sensor.S2_L2A, "B09", 2.01, False),
]


@pytest.mark.parametrize(("sensor", "band", "ratio", "fits"), RATIOS)
@pytest.mark.parametrize("unit", [Unit.DN, Unit.DN_OFFSET1000])
def test_ratios_of_band_means(
    sensor: Sensor, band: str, ratio: float, fits: bool, unit: Unit
) -> None:
    """From 64 images on the mean of a band over that of B8A tells level and order; offset apart."""
    many = flat(sensor, unit, **{band: ratio * 2596})
    few = flat(sensor, unit, 63, **{band: ratio * 2596})
    check_plausible(few)
    if fits:
        check_plausible(many)
        return
    with pytest.raises(PixelError, match=f"not those of {sensor} in the stated order") as caught:
        check_plausible(many)
    assert f"mean {band} / mean B8A = {ratio:.3g}" == caught.value.found
    assert f"64 images, bands {' '.join(many.spec.bands)}" == caught.value.where


@pytest.mark.parametrize(
    ("apart", "fits"), [(2.9, False), (3.1, True), (11.9, True), (12.1, False)]
)
def test_vv_and_vh_are_so_far_apart(apart: float, fits: bool) -> None:
    """3 to 12 dB over 64 images; fewer are not asked."""
    check_plausible(flat(Sensor.S1_GRD, Unit.DB, 63, VV=-12.3, VH=-12.3 - apart))
    many = flat(Sensor.S1_GRD, Unit.DB, VV=-12.3, VH=-12.3 - apart)
    if fits:
        check_plausible(many)
        return
    with pytest.raises(PixelError, match="VV and VH are not those of Sentinel-1") as caught:
        check_plausible(many)
    assert f"mean VV -12.3 dB, mean VH {-12.3 - apart:.1f} dB" == caught.value.found
    assert "64 images" == caught.value.where


def test_means_are_over_valid_pixels_of_images() -> None:
    """Each image counts by the mean of its valid pixels; one without any counts nothing."""
    many = flat(Sensor.S2_L1C, count=80)
    many.pixels[:, L1C.index("B08"), :, 2:] = 30_000
    many.valid[:, :, 2:] = False
    many.valid[70:] = False
    check_plausible(many)
    many.valid[:70] = True

    with pytest.raises(PixelError):
        check_plausible(many)


def test_images_that_were_not_measured_have_no_mean() -> None:
    """A batch that is half empty has the means of its other half, with offset and in dB."""
    for many in (flat(Sensor.S2_L1C, Unit.DN_OFFSET1000, 128), flat(Sensor.S1_GRD, Unit.DB, 128)):
        many.pixels[64:] = 0
        many.valid[64:] = False
        check_plausible(many)
    apart = flat(Sensor.S1_GRD, Unit.DB, 128, VV=-12.3, VH=-14.3)
    apart.valid[64:] = False
    with pytest.raises(PixelError, match="VV and VH are not those"):
        check_plausible(apart)
    apart.valid[63:] = False
    check_plausible(apart)  # 63 are too few
    hidden = flat(Sensor.S1_GRD, Unit.DB, VV=-12.3, VH=-15.4)
    hidden.pixels[:, 1, :, 1:] = 60.0
    hidden.valid[:, :, 1:] = False
    check_plausible(hidden)


def test_bands_that_are_not_there_are_not_compared() -> None:
    """Red and blue of 64 images say nothing of a ratio; a dark B8A makes an infinite one."""
    many = flat(Sensor.S2_L1C)
    spec = replace(many.spec, bands=("B02", "B04"))
    check_plausible(Imagery(many.pixels[:, [1, 3]], spec, many.valid))
    dark = flat(Sensor.S2_L2A, B8A=-1.0)

    with pytest.raises(PixelError, match="mean B08 / mean B8A = inf"):
        check_plausible(dark)


@pytest.mark.parametrize("unit", [Unit.DB, Unit.POWER])
def test_backscatter_in_whole_numbers_is_no_nodata(unit: Unit) -> None:
    """VV and VH are equal by chance where there are few numbers; the remedy took pixels away."""
    generator = torch.Generator().manual_seed(4)
    vv = torch.randn(1, 1, 64, 64, generator=generator) * 3
    vh = torch.randn(1, 1, 64, 64, generator=generator) * 3 - 6
    pixels = torch.cat([vv, vh], dim=1) - 10
    if unit is Unit.POWER:  # amplitudes, divided by ten
        pixels = 100 * 10 ** (pixels / 20) / 4
    spec = ImageSpec(Sensor.S1_GRD, RADAR, unit, (64, 64), 10.0)
    imagery = Imagery(pixels.round(), spec, torch.ones(1, 64, 64, dtype=torch.bool))
    same = (imagery.pixels[:, 0] == imagery.pixels[:, 1]) & (imagery.pixels[:, 0] != 0)
    assert same.float().mean() > 0.01

    (doubt,) = find_doubts(imagery)

    assert "nodata" not in doubt.problem + doubt.remedy
    words = {Unit.DB: "converted to an integer type", Unit.POWER: "is not an integer"}[unit]
    assert words in doubt.problem
