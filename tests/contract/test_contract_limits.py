"""Limits of specs, recipes, imagery and labels, from both sides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from eofm.contract.imagery import Imagery, Labels, NativeImagery
from eofm.contract.prepare import as_imagery, read_waivers
from eofm.contract.preprocess import Preprocess, convert_unit, plan, resize, to_grid
from eofm.contract.recipe import (
    AcceptScale,
    AcceptSensor,
    FillBand,
    Kernel,
    Recipe,
    ResizeRule,
    waivers_for,
)
from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
from eofm.errors import MismatchKind, PixelError, SpecError, SpecMismatch

BANDS = ("B02", "B03")
SPEC = ImageSpec(Sensor.S2_L2A, BANDS, Unit.DN, (4, 4), 10.0)
NORM = Normalization((0.0, 0.0), (1.0, 2.0), "a test")
RECIPE = Recipe(Sensor.S2_L2A, BANDS, Unit.DN, (4, 4), NORM)


def test_smallest_sizes() -> None:
    """One pixel is an image and an input; none is neither, in either direction."""
    assert (1, 1) == replace(SPEC, size=(1, 1)).size
    assert (1, 4) == replace(RECIPE, size=(1, 4)).size
    for size in ((0, 4), (4, 0)):
        with pytest.raises(SpecError, match="size must be positive"):
            replace(SPEC, size=size)
        with pytest.raises(SpecError, match="size must be positive"):
            replace(RECIPE, size=size)


def test_every_constant_of_a_normalization_counts() -> None:
    """One scale or shift that is none is refused among right ones; dividing shifts nothing."""
    for shift, scale in (((0.0, 1.0), (1.0, 0.0)), ((0.0, math.nan), (1.0, 1.0))):
        with pytest.raises(SpecError):
            Normalization(shift, scale, "a test")
    assert ((0.0, 0.0), (5.0, 5.0)) == (
        Normalization.divide(5, 2, "a test").shift,
        Normalization.divide(5, 2, "a test").scale,
    )
    assert 1 == replace(NORM, clip=(0.0, 1.0), levels=1).levels
    with pytest.raises(SpecError, match="rounding"):
        replace(NORM, clip=(0.0, 1.0), levels=0)
    with pytest.raises(SpecError) as caught:
        Normalization.two_sigma([1.0, 2.0], [1.0], "a test")
    assert "2 means, 1 stds" == caught.value.found
    model = replace(SPEC, unit=Unit.MODEL, normalization=NORM)
    assert NORM == model.normalization
    with pytest.raises(SpecError, match="number of bands"):
        replace(model, bands=("B02",))


def test_bands_of_a_recipe() -> None:
    """None, or one twice, is no recipe; antialiasing is on unless it is switched off."""
    for bands in ((), ("B02", "B02")):
        with pytest.raises(SpecError, match="each once"):
            replace(RECIPE, bands=bands)
    assert ResizeRule() == ResizeRule(Kernel.BILINEAR, antialias=True)
    tall = replace(RECIPE, size=(3, 5), normalization=replace(NORM, clip=(-1.0, 2.0)))
    assert tall == Recipe.from_dict(tall.to_dict())


def test_what_imagery_found_stands_in_its_errors() -> None:
    """Bands, size and mask as they are."""
    valid = torch.ones(3, 4, 4, dtype=torch.bool)
    with pytest.raises(SpecError) as caught:
        Imagery(torch.zeros(3, 1, 4, 4), SPEC, valid)
    assert "1 bands" == caught.value.found
    with pytest.raises(SpecError) as caught:
        Imagery(torch.zeros(3, 2, 4, 5), SPEC, valid)
    assert (4, 5) == caught.value.found
    with pytest.raises(SpecError) as caught:
        Imagery(torch.zeros(3, 2, 4, 4), SPEC, valid[:2])
    assert "(3, 4, 4) torch.bool" == caught.value.expected


def test_planes_hold_the_bands_of_their_spec() -> None:
    """Other bands, and other resolutions than the bands name, are both refused."""
    valid, plane = torch.ones(1, 4, 4, dtype=torch.bool), torch.zeros(1, 2, 4, 4)
    with pytest.raises(SpecError, match="do not contain the bands"):
        NativeImagery({20: plane}, {10: BANDS}, SPEC, valid)
    with pytest.raises(SpecError, match="do not contain the bands"):
        NativeImagery({10: plane}, {10: ("B02", "B04")}, SPEC, valid)


def test_shares_and_places_have_the_shape_of_labels() -> None:
    """Each by itself; the shapes that are there are named."""
    hot, known = torch.zeros(3, 2), torch.ones(3, dtype=torch.bool)
    Labels(hot, known, torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(SpecError) as caught:
        Labels(hot, known, None, torch.zeros(2, dtype=torch.int64))
    assert "(2,)" == caught.value.found
    with pytest.raises(SpecError) as caught:
        Labels(hot, known, torch.zeros(3, 3))
    assert "(3, 3)" == caught.value.found


def test_one_power_below_zero_is_enough() -> None:
    """Among right values, 0 and negative ones have no dB."""
    for value in (0.0, -0.1):
        with pytest.raises(PixelError, match="must be positive"):
            convert_unit(torch.tensor([0.5, value, 2.0]), Unit.POWER, Unit.DB)


def test_arrays_of_another_rank_with_as_many_bands() -> None:
    """Five axes or two, of which the second has the bands, are no batch."""
    for shape in ((1, 2, 4, 4, 1), (4, 2)):
        with pytest.raises(SpecError, match="batch of float32"):
            as_imagery(np.ones(shape), replace(SPEC, size=None))


def test_each_of_the_waivers_is_one() -> None:
    """A list with something else in it is refused."""
    with pytest.raises(SpecError, match="list of Waiver objects"):
        read_waivers([AcceptScale("a test"), "scale"])


def test_a_batch_of_labels_is_as_long_as_its_images() -> None:
    """Rows count, not classes."""
    assert 2 == len(Labels(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool)))


def test_the_grid_is_made_without_antialiasing() -> None:
    """Bands that are finer than the grid are sampled, as OpenCV does, not averaged."""
    fine = torch.arange(64.0).view(1, 1, 8, 8)
    native = NativeImagery(
        {10: torch.zeros(1, 1, 4, 4), 5: fine},
        {10: ("B02",), 5: ("B03",)},
        SPEC,
        torch.ones(1, 4, 4, dtype=torch.bool),
    )
    ramp = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = resize(ramp, (4, 4), Kernel.BILINEAR, antialias=False)

    native = replace(native, planes={10: native.planes[10], 5: ramp})

    assert torch.equal(expected[0, 0], to_grid(native).pixels[0, 1])
    assert not torch.allclose(resize(ramp, (4, 4), Kernel.BILINEAR, antialias=True), expected)


def _native(plane: torch.Tensor, bands: tuple[str, ...], spec: ImageSpec) -> NativeImagery:
    valid = torch.ones(len(plane), *plane.shape[2:], dtype=torch.bool)
    return NativeImagery({10: plane}, {10: bands}, spec, valid)


def test_the_grid_of_one_resolution_is_a_copy_in_the_order_of_the_spec() -> None:
    """In float32 and contiguous, whatever the order and the type of what was read."""
    plane = torch.arange(32.0).view(1, 2, 4, 4)
    for bands, expected in ((BANDS, plane), (BANDS[::-1], plane.flip(1))):
        for read in (plane, plane.to(torch.int16), plane.to(memory_format=torch.channels_last)):
            made = to_grid(_native(read, bands, SPEC)).pixels
            assert torch.equal(expected, made)
            assert (torch.float32, True) == (made.dtype, made.is_contiguous())
            assert read.data_ptr() != made.data_ptr()


def test_the_grid_of_imagery_without_a_size_is_that_of_its_mask() -> None:
    """Higher than wide, so that the two cannot be exchanged; a stated size stays."""
    plane = torch.arange(48.0).view(1, 2, 6, 4)
    open_size = to_grid(_native(plane, BANDS, replace(SPEC, size=None)))
    assert ((6, 4), (6, 4)) == (open_size.spec.size, tuple(open_size.pixels.shape[2:]))
    assert torch.equal(plane, open_size.pixels)
    stated = to_grid(_native(plane, BANDS, replace(SPEC, size=(6, 4))))
    assert (6, 4) == stated.spec.size


def test_pixels_that_have_the_size_are_not_resampled() -> None:
    """They are handed on, not copied."""
    pixels = torch.zeros(1, 1, 3, 5)
    for kernel in Kernel:
        assert resize(pixels, (3, 5), kernel, antialias=True) is pixels


@pytest.mark.parametrize(
    ("image", "network"), [((2, 4), (4, 8)), ((4, 2), (8, 4)), ((3, 3), (4, 4))]
)
def test_the_aspect_ratio_is_kept(image: tuple[int, int], network: tuple[int, int]) -> None:
    """An image of the network's ratio fits; turned, or higher or wider by a pixel, it does not."""
    recipe = replace(RECIPE, size=network)
    assert network == plan(replace(SPEC, size=image), recipe).target.size
    wrong = {(image[0] + 1, image[1]), (image[0], image[1] + 1), image[::-1]} - {image}
    for size in wrong:
        with pytest.raises(SpecMismatch, match="would distort") as caught:
            plan(replace(SPEC, size=size), recipe)
        assert f"{size[0]} x {size[1]}" == caught.value.found
        assert f"the aspect ratio of {network[0]} x {network[1]}" == caught.value.expected


def test_what_is_shrunk_too_far_is_named_by_its_size() -> None:
    """Five times is allowed; a wrong ground size is then the reason that is given, not this one."""
    recipe = replace(RECIPE, size=(4, 8))
    assert (4, 8) == plan(replace(SPEC, size=(20, 40)), recipe).target.size
    with pytest.raises(SpecMismatch, match="ground size of the pixels"):
        plan(replace(SPEC, size=(20, 40), gsd=30.0), recipe)
    with pytest.raises(SpecMismatch, match="lose most of its detail") as caught:
        plan(replace(SPEC, size=(24, 48)), recipe)
    assert "24 x 48 px at 10 m, as 4 x 8 px at 60 m" == caught.value.found
    assert "windows of at most 20 px" == caught.value.expected


def test_a_missing_band_is_filled_beside_one_that_is_there() -> None:
    """Also where only one is there."""
    only = replace(SPEC, bands=("B03",))
    recipe = replace(RECIPE, normalization=replace(NORM, shift=(0.0, 0.0), scale=(1.0, 1.0)))
    made = Preprocess(plan(only, recipe, waivers=(FillBand("B02", 7.0, "a test"),)))(
        Imagery(torch.full((1, 1, 4, 4), 500.0), only, torch.ones(1, 4, 4, dtype=torch.bool))
    )
    assert [7.0, 500.0] == made.pixels.mean(dim=(0, 2, 3)).tolist()


def test_a_band_is_filled_with_a_finite_number() -> None:
    """Neither words nor NaN nor an infinity."""
    for value in ("0", None, math.nan, math.inf):
        with pytest.raises(SpecError, match="must be a number"):
            FillBand("B02", value, "a test")  # type: ignore[arg-type]
    assert 1.5 == FillBand("B02", 1.5, "a test").value


def test_the_first_of_several_grants_is_taken() -> None:
    """One for the sensor and one for each missing band; a second would be refused as unused."""
    sensors = [AcceptSensor(Sensor.S2_L1C, why) for why in ("first", "second")]
    fills = [FillBand("B03", value, "a task") for value in (1.0, 2.0)]
    other = replace(SPEC, sensor=Sensor.S2_L1C, bands=("B02",))
    assert (sensors[0], fills[0]) == waivers_for(other, RECIPE, (*sensors, *fills), ())
    forced = waivers_for(other, RECIPE, (), (MismatchKind.SENSOR, MismatchKind.BANDS))
    assert [AcceptSensor, FillBand] == [type(waiver) for waiver in forced]


def test_bands_last_are_recognised_in_an_image_and_in_a_batch() -> None:
    """Both get the words that turn them; five dimensions are no image."""
    for shape in ((4, 5, 2), (3, 4, 5, 2)):
        with pytest.raises(SpecError, match="in a different order") as caught:
            as_imagery(np.ones(shape, dtype=np.float32), SPEC)
        assert shape == caught.value.found
        turned = np.moveaxis(np.ones(shape, dtype=np.float32), -1, -3)  # the printed remedy
        with pytest.raises(SpecError) as caught:
            as_imagery(turned, SPEC)
        assert "size" in str(caught.value) or "4, 5" in str(caught.value)


def test_reprs_say_what_is_beside_the_labels_and_what_is_waived() -> None:
    """And nothing of what is not."""
    hot, known = torch.zeros(2, 3), torch.ones(2, dtype=torch.bool)
    places = torch.zeros(2, dtype=torch.int64)
    assert "Labels(2 images, 2 of them labelled, 3 classes)" == repr(Labels(hot, known))
    assert repr(Labels(hot, known, shares=torch.zeros(2, 3))).endswith(
        "classes, with covered shares)"
    )
    assert repr(Labels(hot, known, places=places)).endswith("classes, with places)")
    assert "waivers" not in repr(plan(SPEC, RECIPE))
    waived = plan(replace(SPEC, bands=("B03",)), RECIPE, waivers=(FillBand("B02", 0.0, "a test"),))
    assert repr(waived).endswith("; 1 waivers)")


def test_images_are_named_where_none_of_their_pixels_is_valid() -> None:
    """Those that have none, and not the others."""
    valid = torch.ones(3, 4, 4, dtype=torch.bool)
    valid[2] = False
    with pytest.raises(PixelError) as caught:
        Preprocess(plan(SPEC, RECIPE))(Imagery(torch.ones(3, 2, 4, 4), SPEC, valid))
    assert (2,) == caught.value.images


def test_no_image_has_no_valid_share() -> None:
    """An empty batch says so, without a division by nothing."""
    empty = Imagery(torch.zeros(0, 2, 4, 4), SPEC, torch.ones(0, 4, 4, dtype=torch.bool))

    facts = empty.facts()

    assert "0" == facts["images"]
    assert any(value.startswith("0 %") or value.startswith("0%") for value in facts.values()), facts
