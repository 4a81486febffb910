"""What is measured: the rule as its documentation words it, against one pixel at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity import check_finite, coarse_mask, fine_mask, measured
from eofm.errors import PixelError

Planes = Mapping[int, Tensor]
UNITS = [unit for unit in Unit if unit is not Unit.MODEL]
ZERO_IS_NOTHING = {Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE, Unit.POWER, Unit.DB}

# ratios of the resolutions of an image of 6 x 6 fine pixels, and how many bands each has
LAYOUTS = [
    {1: 1},
    {1: 3},
    {1: 2, 2: 3, 6: 2},
    {1: 2, 3: 1},
    {1: 1, 2: 2},
    {1: 1, 2: 1},
    {1: 1, 2: 1, 3: 1},
    {2: 1, 6: 1},
]


def drawn(
    place: int, seed: int, unit: Unit, whole: bool
) -> tuple[dict[int, Tensor], dict[int, Tensor], dict[int, tuple[str, ...]]]:
    """Planes of two images with many a 0, NaN and declared pixel, their declarations and bands."""
    rng = np.random.default_rng(seed)
    kinds = [0, 1, 9000, 65_535] if whole else [0, 0.5, -0.5, -1, -3, np.nan, np.inf, -np.inf, 7]
    planes, declared, bands = {}, {}, {}
    zeros = rng.choice([0.0, 0.1, 0.5, 0.9])  # none: the short way for whole images
    for ratio, count in LAYOUTS[place].items():
        shape = (2, count, 6 // ratio, 6 // ratio)
        values = rng.choice(kinds[1:], shape, p=None)
        if rng.random() < 0.5:
            values = np.where(rng.random(shape) < 0.7, kinds[1], values)
        values = np.where(rng.random(shape) < zeros, 0, values)
        planes[10 * ratio] = torch.from_numpy(values.astype(np.uint16 if whole else np.float32))
        bands[10 * ratio] = tuple(f"{ratio}-{i}" for i in range(count))
        form = rng.integers(3)
        if form:
            flags = rng.random((2, count if form == 2 else 1, *shape[2:])) < 0.3
            declared[10 * ratio] = torch.from_numpy(flags)
    return planes, declared, bands


def sources(target: int, fine: int, coarse: int) -> list[int]:
    """The coarse pixels, along one axis, of which a fine one is made bilinearly: half centres."""
    at = Fraction(2 * target + 1, 2) * Fraction(coarse, fine) - Fraction(1, 2)
    low = math.floor(at)
    parts = {low: 1 - (at - low), low + 1: at - low}
    return [min(max(i, 0), coarse - 1) for i, weight in parts.items() if weight > 0]


def slow(
    planes: Planes, declared: Planes, bands: Mapping[int, tuple[str, ...]], unit: Unit
) -> np.ndarray:
    """The rule, one pixel after the other."""
    ratios = {gsd: 6 // plane.shape[2] for gsd, plane in planes.items()}

    def column(gsd: int, image: int, row: int, col: int) -> list[tuple[float, bool]]:
        flags = declared.get(gsd)
        return [
            (
                float(planes[gsd][image, band, row, col]),
                flags is not None and bool(flags[image, band % flags.shape[1], row, col]),
            )
            for band in range(len(bands[gsd]))
        ]

    def empty(gsd: int, image: int, row: int, col: int) -> bool:
        return all(
            flag or (value == 0 and unit in ZERO_IS_NOTHING)
            for value, flag in column(gsd, image, row, col)
        )

    def bad(gsd: int, image: int, row: int, col: int) -> bool:
        for value, flag in column(gsd, image, row, col):
            if not math.isfinite(value) or (flag and value != 0):
                return True
            if unit is Unit.POWER and -1 < value <= 0:
                return True
        if len(bands[gsd]) > 1 or len(planes) == 1:
            return empty(gsd, image, row, col)
        if any(len(names) > 1 for names in bands.values()):
            return False
        r = ratios[gsd]
        ground = [(r * row + i, r * col + j) for i in range(r) for j in range(r)]
        return any(
            all(empty(g, image, y // ratios[g], x // ratios[g]) for g in planes) for y, x in ground
        )

    out = np.ones((2, 6, 6), bool)
    for image, y, x in np.ndindex(out.shape):
        for gsd, plane in planes.items():
            side = plane.shape[2]
            for row in sources(y, 6, side):
                for col in sources(x, 6, side):
                    out[image, y, x] &= not bad(gsd, image, row, col)
    return out


@given(
    st.integers(0, len(LAYOUTS) - 1),
    st.integers(0, 2**31 - 1),
    st.sampled_from(UNITS),
    st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_the_rule_is_what_its_documentation_says(
    place: int, seed: int, unit: Unit, whole: bool
) -> None:
    """Equal to a loop over pixels for every unit, number type, layout and form of declaration."""
    planes, declared, bands = drawn(place, seed, unit, whole)
    before = {gsd: plane.clone() for gsd, plane in planes.items()}

    found = measured(planes, declared, bands, unit, (6, 6))

    assert torch.bool is found.dtype
    np.testing.assert_array_equal(slow(planes, declared, bands, unit), found.numpy())
    for gsd, plane in planes.items():
        np.testing.assert_array_equal(before[gsd].numpy(), plane.numpy())


@pytest.mark.parametrize("unit", [Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE, Unit.DB])
def test_a_margin_of_zeros_is_unmeasured_in_every_unit(unit: Unit) -> None:
    """A mean of VV over a margin of exactly 0 dB was -10 where it is -13.3."""
    plane = torch.full((1, 2, 4, 4), -13.3 if unit is Unit.DB else 0.3)
    plane[..., :2] = 0

    valid = measured({10: plane}, {}, {10: ("VV", "VH")}, unit, (4, 4))

    assert not bool(valid[..., :2].any())
    assert bool(valid[..., 2:].all())


def test_a_margin_over_single_bands_of_two_resolutions() -> None:
    """B02 at 10 m and B8A at 20 m: 0 in both is a margin, 0 in one of them dark ground."""
    fine, coarse = torch.full((1, 1, 8, 8), 700.0), torch.full((1, 1, 4, 4), 900.0)
    fine[..., :4] = 0
    coarse[..., :2] = 0
    coarse[0, 0, 3, 3] = 0
    bands = {10: ("B02",), 20: ("B8A",)}

    valid = measured({10: fine, 20: coarse}, {}, bands, Unit.DN, (8, 8))

    # the fine column beside the margin would draw from it when B8A is brought to 10 m
    assert [False] * 5 + [True] * 3 == valid[0, 0].tolist()
    assert bool(valid[0, 6:, 6:].all())


def test_eight_bit_black_is_a_colour() -> None:
    """0 of an aerial image is a measurement unless it is declared, and declared in every band."""
    plane = torch.zeros(1, 3, 2, 2)
    flags = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    flags[0, :, 0, 0] = True
    flags[0, 0, 1, 1] = True
    bands = {1: ("R", "G", "B")}

    assert bool(measured({1: plane}, {}, bands, Unit.UINT8, (2, 2)).all())
    found = measured({1: plane}, {1: flags}, bands, Unit.UINT8, (2, 2))
    assert [[False, True], [True, True]] == found[0].tolist()


@pytest.mark.parametrize(
    ("value", "kept"), [(-1.0, True), (-0.9999, False), (0.0, False), (1e-7, True), (-2.0, True)]
)
def test_power_below_nothing(value: float, kept: bool) -> None:
    """Power down to -1, noise subtracted, is no measurement; what is lower is no power at all."""
    plane = torch.tensor([value, 0.1]).view(1, 2, 1, 1)

    assert kept == bool(measured({10: plane}, {}, {10: ("VV", "VH")}, Unit.POWER, (1, 1)))


def test_masks_change_their_grid() -> None:
    """A coarse pixel reaches the fine ones that draw from it; a fine one its own coarse one."""
    coarse = torch.ones(1, 3, 3, dtype=torch.bool)
    assert bool(fine_mask(coarse, (6, 6)).all())
    coarse[0, 1, 1] = False
    fine = fine_mask(coarse, (6, 6))

    assert [[True] * 6] + [[True] + [False] * 4 + [True]] * 4 + [[True] * 6] == fine[0].tolist()
    assert [[False] * 3] * 3 == coarse_mask(fine, (3, 3))[0].tolist()
    one = torch.ones(1, 6, 6, dtype=torch.bool)
    one[0, 0, 5] = False
    assert [[True, True, False], [True] * 3, [True] * 3] == coarse_mask(one, (3, 3))[0].tolist()
    assert coarse_mask(one, (6, 6)) is one


def test_every_image_with_a_valid_nan_is_named() -> None:
    """NaN under the mask is fine; among valid pixels its images and the first band are named."""
    bands = ("B02", "B03")
    pixels = torch.ones(4, 2, 3, 3)
    valid = torch.ones(4, 3, 3, dtype=torch.bool)
    pixels[0, 0, 0, 0], valid[0, 0, 0] = torch.nan, False
    spec = ImageSpec(Sensor.S2_L1C, bands, Unit.DN, (3, 3), 10.0)
    check_finite(Imagery(pixels, spec, valid))
    pixels[1, 1, 2, 2], pixels[3, 0, 1, 1] = torch.inf, torch.nan

    with pytest.raises(PixelError, match="not finite") as caught:
        check_finite(Imagery(pixels, spec, valid))

    assert (1, 3) == caught.value.images
    assert "band B03" in str(caught.value)
    assert "image 1 of the batch" == caught.value.where


@pytest.mark.parametrize("unit", [Unit.REFLECTANCE, Unit.DB])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_in_an_image_without_zeros(unit: Unit, value: float) -> None:
    """The short way for whole images is not taken where one value is not a number."""
    plane = torch.full((2, 3, 4, 4), 0.25)
    plane[1, 2, 3, 0] = value

    mask = measured({10: plane}, {}, {10: ("a", "b", "c")}, unit, (4, 4))

    assert not mask[1, 3, 0]
    assert 31 == int(mask.sum())


def test_a_coarse_mask_of_an_image_that_is_not_square() -> None:
    """Each coarse pixel is valid where its block is, whatever the shape of the image."""
    valid = torch.ones(1, 4, 12, dtype=torch.bool)
    valid[0, 1, 7] = False

    mask = coarse_mask(valid, (2, 6))

    assert (1, 2, 6) == tuple(mask.shape)
    assert [[0, 0, 3]] == (~mask).nonzero().tolist()


@pytest.mark.parametrize(("fine", "coarse"), [(True, False), (False, True)])
def test_one_whole_resolution_does_not_speak_for_the_others(fine: bool, coarse: bool) -> None:
    """Where one resolution is whole and the other has a NaN, the NaN is unmeasured."""
    planes = {10: torch.full((1, 2, 4, 4), 0.5), 20: torch.full((1, 2, 2, 2), 0.5)}
    planes[20 if fine else 10][0, 0, 0, 0] = math.nan
    bands = {10: ("a", "b"), 20: ("c", "d")}

    valid = measured(planes, {}, bands, Unit.REFLECTANCE, (4, 4))

    assert coarse is bool(valid[0, 1, 1])
    assert not valid[0, 0, 0]
    assert valid[0, 3, 3]
