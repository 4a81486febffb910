"""Arrays with a spec become imagery; plans are made once for each kind of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from levels import levels

import eofm
from eofm.contract import prepare
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import as_imagery, preprocess_for
from eofm.contract.preprocess import plan
from eofm.contract.recipe import AcceptSize, Recipe
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import PixelError, SpecError


def array(bands: tuple[str, ...] = SENSOR_BANDS[Sensor.S2_L1C]) -> tuple[np.ndarray, ImageSpec]:
    """A plausible array with its spec, 6 x 5 pixels."""
    pixels = (levels(bands) * torch.linspace(0.6, 1.4, 30).view(1, 6, 5)).numpy()
    return pixels, ImageSpec(Sensor.S2_L1C, bands, Unit.DN, None, 10.0)


def test_what_a_masked_array_masks_is_no_measurement() -> None:
    """A pixel masked in one band is invalid; masked 0 in one band is still seen by the others."""
    pixels, spec = array()
    mask = np.zeros_like(pixels, bool)
    mask[3, 1, 1] = mask[4, 2, 2] = True
    pixels[4, 2, 2] = 0

    found = as_imagery(np.ma.masked_array(pixels, mask), spec)
    batch = as_imagery(np.ma.masked_array(pixels[None], mask[None]), spec)

    assert [[0, 1, 1]] == torch.nonzero(~found.valid).tolist()
    assert torch.equal(found.valid, batch.valid)
    assert (6, 5) == found.spec.size
    assert bool(as_imagery(np.ma.masked_array(pixels), spec).valid.all())


def test_bytes_are_no_digital_numbers() -> None:
    """An 8-bit array stated to be digital numbers is refused, whatever its values."""
    pixels, spec = array()

    for small in (pixels.astype(np.uint8), torch.from_numpy(pixels).to(torch.int8)):
        with pytest.raises(PixelError, match="8-bit files cannot store") as caught:
            as_imagery(small, spec)
        assert "the array: number type" in str(caught.value.found)
    assert 1 == len(as_imagery(pixels.astype(np.uint16), spec))


def test_imagery_passes_and_arrays_need_words() -> None:
    """Imagery is returned as it is; another spec beside it, or none beside an array, is refused."""
    pixels, spec = array()
    made = as_imagery(pixels, spec)

    assert made is as_imagery(made)
    assert made is as_imagery(made, made.spec)
    with pytest.raises(SpecError, match="already has a spec"):
        as_imagery(made, replace(made.spec, gsd=20.0))
    with pytest.raises(SpecError, match="needs a spec"):
        as_imagery(pixels)
    pixels[:] = 1
    assert 1.0 != float(made.pixels[0, 0, 0, 0])  # a copy: the caller's stays alone


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (np.zeros((6, 5)), "batch of float32"),
        (np.zeros((12, 6, 5)), "number of bands"),
        (np.zeros((13, 6, 5), complex), "real numbers"),
        (np.zeros((13, 6, 5), bool), "real numbers"),
        (torch.zeros(13, 6, 5, dtype=torch.complex64), "real numbers"),
        (torch.zeros(13, 6, 5, dtype=torch.bool), "real numbers"),
    ],
)
def test_numbers_that_are_no_images(numbers: np.ndarray | torch.Tensor, words: str) -> None:
    """Rank, bands and kind of number are checked before anything is made of them."""
    _, spec = array()

    with pytest.raises(SpecError, match=words):
        as_imagery(numbers, spec)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_every_real_number_type_is_taken(dtype: type) -> None:
    """Integers and floating-point numbers of numpy, and their tensors, are the same image."""
    pixels, spec = array()
    whole = pixels.round().astype(dtype)

    found, tensor = as_imagery(whole, spec), as_imagery(torch.from_numpy(whole), spec)

    assert torch.float32 is found.pixels.dtype
    assert torch.equal(found.pixels, tensor.pixels)
    assert (1, 13, 6, 5) == tuple(found.pixels.shape)
    assert bool(found.valid.all())


def test_the_size_of_a_spec_is_filled_in_or_checked() -> None:
    """Height and width come from the array; a spec that states others is refused."""
    pixels, spec = array()

    assert (6, 5) == as_imagery(pixels, replace(spec, size=(6, 5))).spec.size
    with pytest.raises(SpecError, match="a different size"):
        as_imagery(pixels, replace(spec, size=(5, 6)))


def test_plans_are_kept_for_a_while() -> None:
    """The plan of a kind of imagery is made once; waivers make another, and 64 are remembered."""
    spec = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (8, 8), 10.0)
    recipe = Recipe(spec.sensor, spec.bands, spec.unit, (8, 8), Normalization.divide(255, 3, "t"))
    waiver = AcceptSize((4, 4), "a test")

    first = preprocess_for(spec, recipe)

    assert first is preprocess_for(replace(spec), recipe)
    assert plan(spec, recipe) == first.plan
    assert (4, 4) == preprocess_for(spec, recipe, [waiver]).plan.target.size
    for side in range(100, 170):
        preprocess_for(replace(spec, size=(side, side)), recipe)
    assert 64 == prepare._preprocess.cache_info().maxsize
    assert first is not preprocess_for(spec, recipe)


def test_bands_of_a_spec_are_bands_in_any_spelling() -> None:
    """`blue` and `b8a` are the bands of the recipe; what is no band of the sensor is named."""
    bands = ("B02", "B8A")
    recipe = Recipe(Sensor.S2_L2A, bands, Unit.DN, (6, 6), Normalization.divide(1e4, 2, "a test"))
    words = ImageSpec("s2-l2a", ("blue", "b8a"), "dn", None, 10.0)  # type: ignore[arg-type]
    pixels = np.full((2, 6, 6), 1000.0) + np.arange(36).reshape(6, 6)

    found = as_imagery(pixels, words)

    assert bands == found.spec.bands
    assert bands == as_imagery(found, words).spec.bands
    by_hand = Imagery(found.pixels, replace(found.spec, bands=("blue", "b8a")), found.valid)
    assert bands == as_imagery(by_hand).spec.bands
    spec = replace(words, size=(6, 6))
    assert preprocess_for(spec, recipe) is preprocess_for(found.spec, recipe)
    with pytest.raises(SpecError, match="there is no band 'NDVI'"):
        preprocess_for(replace(spec, bands=("blue", "b8a", "NDVI")), recipe)
    with pytest.raises(SpecError, match="a spec is an ImageSpec") as wrong:
        preprocess_for(found, recipe)  # type: ignore[arg-type]
    assert "imagery.spec" in str(wrong.value.remedy)


def test_the_order_of_dimensions_is_said_and_its_remedy_works() -> None:
    """Bands last, or none at all, are refused with the call that turns them."""
    pixels, spec = array()
    last = np.moveaxis(pixels, 0, -1)
    with pytest.raises(SpecError, match="a different order") as wrong:
        as_imagery(last, spec)
    assert "numpy.moveaxis(array, -1, -3)" in str(wrong.value.remedy)
    turned = as_imagery(np.moveaxis(last, -1, -3), spec)
    batch = as_imagery(torch.from_numpy(last)[None].movedim(-1, -3), spec)
    assert torch.equal(as_imagery(pixels, spec).pixels, turned.pixels)
    assert torch.equal(turned.pixels, batch.pixels)
    one = replace(spec, bands=("B02",))
    with pytest.raises(SpecError, match="a different order") as flat:
        as_imagery(pixels[1], one)
    assert "array[None]" in str(flat.value.remedy)
    assert as_imagery(pixels[1][None], one).pixels.shape == (1, 1, 6, 5)
    for strange in (torch.from_numpy(pixels).to_sparse(), torch.from_numpy(pixels).to("meta")):
        with pytest.raises(SpecError, match="dense tensor in memory"):
            as_imagery(strange, spec)


def test_the_example_of_a_spec_can_be_typed() -> None:
    """What is said to stand beside an array is a spec."""
    pixels, _ = array()
    with pytest.raises(SpecError, match="needs a spec") as wrong:
        as_imagery(pixels)

    call = str(wrong.value.remedy).partition("spec=")[2]
    stated = eval(call, {"eofm": eofm})

    assert (Sensor.S2_L2A, Unit.DN) == (stated.sensor, stated.unit)
