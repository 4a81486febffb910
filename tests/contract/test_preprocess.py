"""plan() finds the one legal path or says why there is none; Preprocess carries it out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.preprocess import (
    InsertBands,
    Plan,
    Preprocess,
    Resize,
    SelectBands,
    convert_unit,
    plan,
    resize,
    to_grid,
)
from eofm.contract.recipe import (
    AcceptSensor,
    AcceptSize,
    FillBand,
    Kernel,
    Recipe,
    ResizeOrder,
    ResizeRule,
)
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import MismatchKind, PixelError, SpecError, SpecMismatch

S2 = SENSOR_BANDS[Sensor.S2_L1C]
STATS = STATISTICS["ssl4eo-s12-l1c"]
TWO_SIGMA = Normalization.two_sigma(STATS.mean, STATS.std, STATS.source)
RECIPE = Recipe(Sensor.S2_L1C, S2, Unit.DN, (8, 8), TWO_SIGMA)
SPEC = ImageSpec(Sensor.S2_L1C, S2, Unit.DN, (8, 8), 10.0)


def image(spec: ImageSpec, value: float | torch.Tensor) -> Imagery:
    """One image of `spec`, filled with `value` (a number, or one per band)."""
    size = spec.size or (8, 8)
    pixels = torch.zeros(1, len(spec.bands), *size)
    pixels += torch.as_tensor(value, dtype=torch.float32).view(1, -1, 1, 1)
    return Imagery(pixels, spec, torch.ones(1, *size, dtype=torch.bool))


def run(imagery: Imagery, recipe: Recipe, *waivers: object) -> torch.Tensor:
    """The pixels after the plan from the imagery's spec to the recipe."""
    return Preprocess(plan(imagery.spec, recipe, waivers))(imagery).pixels  # type: ignore[arg-type]


# ------------------------------------------------------------------------ golden pixels


def test_golden_pixels_of_two_sigma() -> None:
    """DN 0 maps to 0.20 in B04, 0.09 in B02, 0.38 in B10; B04 saturates at DN 3663, B02 at 3106."""
    zero = run(image(SPEC, 0.0), RECIPE)[0, :, 0, 0]
    full = run(image(SPEC, 3663.0), RECIPE)[0, :, 0, 0]
    almost = run(image(SPEC, 3650.0), RECIPE)[0, :, 0, 0]

    by_name = {band: i for i, band in enumerate(S2)}
    assert [0.200, 0.090, 0.383] == [
        pytest.approx(zero[by_name[b]].item(), abs=1 / 255) for b in ("B04", "B02", "B10")
    ]
    assert 1.0 == full[by_name["B04"]].item()
    assert 254 / 255 == pytest.approx(almost[by_name["B04"]].item())
    assert 1.0 == run(image(SPEC, 6000.0), RECIPE)[0, by_name["B10"], 0, 0].item()


def readme_normalise(dn: np.ndarray, mean: float, std: float) -> np.ndarray:
    """The law of the SoftCon README in numpy: mean ± 2 std to 0..255, clip, cast, divide by 255."""
    low, high = mean - 2 * std, mean + 2 * std
    scaled = (dn - low) / (high - low) * 255.0
    return np.clip(scaled, 0, 255).astype(np.uint8) / 255.0


def test_two_sigma_is_the_readme_to_the_level() -> None:
    """Over every DN up to 6000 and every band, at most rounding at a level's edge differs."""
    dn = torch.arange(0, 6000, dtype=torch.float32)
    spec = replace(SPEC, size=(1, 6000))
    pixels = dn.expand(1, 13, 1, 6000).clone()
    imagery = Imagery(pixels, spec, torch.ones(1, 1, 6000, dtype=torch.bool))

    ours = run(imagery, replace(RECIPE, size=(1, 6000)))[0, :, 0].numpy()

    theirs = np.stack(
        [
            readme_normalise(dn.numpy().astype(np.float64), m, s)
            for m, s in zip(STATS.mean, STATS.std, strict=True)
        ]
    )
    assert np.abs(ours - theirs).max() <= 1 / 255 + 1e-6
    assert (np.abs(ours - theirs) > 1e-6).mean() < 1e-3


def test_zscore_is_the_named_alternative() -> None:
    """The z-score of DN 6000 in B02 is +5.4 and in B10 +126, unbounded."""
    recipe = replace(
        RECIPE, normalization=Normalization.zscore(STATS.mean, STATS.std, STATS.source)
    )

    out = run(image(SPEC, 6000.0), recipe)[0, :, 0, 0]

    assert [5.4, 125.9] == [pytest.approx(out[i].item(), abs=0.1) for i in (1, 10)]


def test_golden_pixels_of_resizing() -> None:
    """A 4 x 4 ramp shrinks to values worked out by hand (antialiased: weights 3:3:1)."""
    ramp = torch.arange(16.0).view(1, 1, 4, 4)

    plain = resize(ramp, (2, 2), Kernel.BILINEAR, antialias=False)
    smooth = resize(ramp, (2, 2), Kernel.BILINEAR, antialias=True)
    nearest = resize(ramp, (2, 2), Kernel.NEAREST, antialias=False)

    assert [[2.5, 4.5], [10.5, 12.5]] == plain[0, 0].tolist()
    assert pytest.approx([3.571, 5.143, 9.857, 11.429], abs=1e-3) == smooth.flatten().tolist()
    assert [[5.0, 7.0], [13.0, 15.0]] == nearest[0, 0].tolist()


def test_resize_order_matters_and_is_obeyed() -> None:
    """Clipping does not commute with resizing: the recipe's order decides the result."""
    spec = ImageSpec(Sensor.RGB, ("R",), Unit.UINT8, (1, 2), 10)
    norm = Normalization((0.0,), (100.0,), "test", clip=(0.0, 1.0))
    pixels = torch.tensor([0.0, 200.0]).view(1, 1, 1, 2)
    imagery = Imagery(pixels, spec, torch.ones(1, 1, 2, dtype=torch.bool))

    def out(order: ResizeOrder) -> float:
        recipe = Recipe(
            Sensor.RGB, ("R",), Unit.UINT8, (2, 4), norm, ResizeRule(Kernel.BILINEAR, True, order)
        )
        return run(imagery, recipe)[0, 0, 0, 1].item()

    assert 0.5 == out(ResizeOrder.BEFORE_NORMALIZATION)  # 50 -> 0.5
    assert 0.25 == out(ResizeOrder.AFTER_NORMALIZATION)  # (0, 1) -> 0.25


# -------------------------------------------------------------------------- properties


@given(st.permutations(list(range(13))), st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_stored_order_never_matters(order: list[int], seed: int) -> None:
    """However a file orders its bands, the network receives the same pixels."""
    values = torch.rand(13, generator=torch.Generator().manual_seed(seed)) * 4000
    shuffled = replace(SPEC, bands=tuple(S2[i] for i in order))

    expected = run(image(SPEC, values), RECIPE)

    assert expected.equal(run(image(shuffled, values[order]), RECIPE))


@given(st.integers(1, 64), st.integers(1, 64), st.permutations(list(S2)), st.integers(1, 13))
@settings(max_examples=50, deadline=None)
def test_a_plan_ends_at_the_recipe(source: int, target: int, bands: list[str], count: int) -> None:
    """Every legal plan ends with the recipe's bands, size and unit, and is a pure function.

    A scene that would be shrunk more than five times has none.
    """
    spec = replace(SPEC, size=(source, source))
    stats = STATS.select(bands[:count])
    norm = Normalization.two_sigma(stats.mean, stats.std, stats.source)
    recipe = Recipe(Sensor.S2_L1C, tuple(bands[:count]), Unit.DN, (target, target), norm)

    if source > 5 * target:
        assert MismatchKind.SCALE == kind_of(spec, recipe)
        return
    made = plan(spec, recipe)

    assert (recipe.bands, recipe.size, Unit.MODEL) == (
        made.target.bands,
        made.target.size,
        made.target.unit,
    )
    assert made == plan(spec, recipe)
    assert made.hash == plan(spec, recipe).hash
    assert (source == target) == (not any(isinstance(s, Resize) for s in made.steps))
    assert tuple(spec.bands[i] for i in made.steps[0].indices) == made.steps[0].bands  # type: ignore[union-attr]


@given(st.floats(0, 1.6), st.sampled_from([Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE]))
@settings(max_examples=50, deadline=None)
def test_one_scene_in_any_unit_gives_one_result(reflectance: float, unit: Unit) -> None:
    """The same reflectance stored as DN, as DN with the +1000 offset, or as itself is the same."""
    stored = {
        Unit.DN: reflectance * 10000,
        Unit.DN_OFFSET1000: reflectance * 10000 + 1000,
        Unit.REFLECTANCE: reflectance,
    }[unit]
    smooth = replace(RECIPE, normalization=replace(TWO_SIGMA, levels=None))

    expected = run(image(SPEC, reflectance * 10000), smooth)
    found = run(image(replace(SPEC, unit=unit), stored), smooth)

    assert torch.allclose(expected, found, atol=5e-4)


@given(st.floats(-50, 30))
@settings(max_examples=25, deadline=None)
def test_decibels_and_power_are_inverse(decibel: float) -> None:
    """From dB to power and back returns to where it started."""
    there = convert_unit(torch.tensor([decibel]), Unit.DB, Unit.POWER)

    assert pytest.approx(decibel, abs=1e-4) == convert_unit(there, Unit.POWER, Unit.DB).item()


def test_the_input_is_left_unchanged() -> None:
    """Preprocessing twice from the same batch gives the same result, as nothing is in place."""
    imagery = image(replace(SPEC, unit=Unit.DN_OFFSET1000), 2000.0)
    before = imagery.pixels.clone()

    run(imagery, RECIPE)

    assert before.equal(imagery.pixels)


# ----------------------------------------------------------------------------- refusals


def kind_of(spec: ImageSpec, recipe: Recipe, *waivers: object) -> MismatchKind:
    """In what the two disagree."""
    with pytest.raises(SpecMismatch) as caught:
        plan(spec, recipe, waivers)  # type: ignore[arg-type]
    assert caught.value.remedy or caught.value.expected or caught.value.found
    return caught.value.kind


L2A = ImageSpec(Sensor.S2_L2A, SENSOR_BANDS[Sensor.S2_L2A], Unit.DN, (8, 8), 10)
S1 = ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (8, 8), 10)


def test_each_mismatch_has_its_kind() -> None:
    """Sensor, band, size, second normalisation: each refused under its own name."""
    model = replace(SPEC, unit=Unit.MODEL, normalization=TWO_SIGMA)

    assert MismatchKind.SENSOR == kind_of(L2A, RECIPE)
    assert MismatchKind.BANDS == kind_of(replace(SPEC, bands=S2[:-1]), RECIPE)
    assert MismatchKind.BANDS == kind_of(L2A, RECIPE, AcceptSensor(Sensor.S2_L2A, "test"))
    assert MismatchKind.SIZE == kind_of(replace(SPEC, size=None), RECIPE)
    assert MismatchKind.SIZE == kind_of(replace(SPEC, size=(8, 9)), RECIPE)
    assert MismatchKind.NORMALIZATION == kind_of(model, RECIPE)
    assert MismatchKind.SENSOR == kind_of(S1, RECIPE)


def test_a_unit_without_conversion_is_refused() -> None:
    """8-bit RGB cannot become reflectance: the stretch that made it is unknown."""
    spec = ImageSpec(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (8, 8), 10)
    recipe = Recipe(
        Sensor.RGB, ("R", "G", "B"), Unit.REFLECTANCE, (8, 8), Normalization.divide(1, 3, "test")
    )

    assert MismatchKind.UNIT == kind_of(spec, recipe)


def test_waivers_are_named_reasoned_used_and_printed() -> None:
    """A waiver opens its door, shows in the plan, needs a reason, and must be needed."""
    sensor, band = AcceptSensor(Sensor.S2_L2A, "BigEarthNet is L2A"), FillBand("B10", 0.5, "no B10")

    made = plan(L2A, RECIPE, (sensor, band))

    assert {sensor, band} == set(made.waivers)
    assert "BigEarthNet is L2A" in made.describe()
    assert made.hash != plan(L2A, RECIPE, (sensor, replace(band, value=0.0))).hash
    assert MismatchKind.UNUSED_WAIVER == kind_of(SPEC, RECIPE, band)
    assert MismatchKind.UNUSED_WAIVER == kind_of(SPEC, RECIPE, AcceptSize((8, 8), "same"))
    with pytest.raises(SpecError, match="needs a reason"):
        plan(L2A, RECIPE, (sensor, replace(band, why=" ")))


def test_a_filled_band_goes_where_its_name_belongs() -> None:
    """B10 is inserted at index 10 with its normalised value; its neighbours are untouched."""
    waivers = (AcceptSensor(Sensor.S2_L2A, "test"), FillBand("B10", 0.5, "test"))
    values = torch.arange(12.0) * 100 + 500

    out = run(image(L2A, values), RECIPE, *waivers)[0, :, 0, 0]

    full = torch.cat([values[:10], torch.zeros(1), values[10:]])
    expected = run(image(SPEC, full), RECIPE)[0, :, 0, 0]
    expected[10] = 0.5
    assert expected.equal(out)
    assert isinstance(plan(L2A, RECIPE, waivers).steps[-1], InsertBands)


def test_another_size_needs_a_waiver_and_keeps_it() -> None:
    """AcceptSize feeds the network the size it names instead of the recipe's."""
    made = plan(replace(SPEC, size=(16, 16)), RECIPE, (AcceptSize((16, 16), "ablation"),))

    assert (16, 16) == made.target.size
    assert not any(isinstance(step, Resize) for step in made.steps)


def test_a_second_application_is_an_error() -> None:
    """Pixels that are normalised already are refused, and so is a batch of another kind."""
    first = Preprocess(plan(SPEC, RECIPE))
    done = first(image(SPEC, 100.0))

    with pytest.raises(SpecMismatch, match="already normalised"):
        first(done)
    with pytest.raises(SpecMismatch, match="spec of this batch") as caught:
        first(image(replace(SPEC, unit=Unit.DN_OFFSET1000), 100.0))
    assert MismatchKind.UNIT == caught.value.kind


# ------------------------------------------------------------------------ invalid pixels


def test_nodata_does_not_smear_into_its_neighbours() -> None:
    """Invalid pixels take the mean of the valid ones, so resizing sees no false edge."""
    imagery = image(replace(SPEC, size=(4, 4)), 1500.0)
    imagery.pixels[:, :, 0, 0] = torch.nan
    imagery.valid[:, 0, 0] = False

    out = run(imagery, RECIPE)

    assert out.equal(run(image(replace(SPEC, size=(4, 4)), 1500.0), RECIPE))


def test_the_mask_follows_the_resize() -> None:
    """An invalid quarter of the image stays an invalid quarter."""
    imagery = image(replace(SPEC, size=(4, 4)), 1500.0)
    imagery.valid[:, :2, :2] = False

    valid = Preprocess(plan(imagery.spec, RECIPE))(imagery).valid

    assert not valid[0, :4, :4].any()
    assert 48 == valid.sum().item()


def test_unmarked_nan_and_empty_images_are_refused() -> None:
    """NaN that nobody marked, and an image without any valid pixel, are errors that say where."""
    hidden, empty = image(SPEC, 1.0), image(SPEC, 1.0)
    hidden.pixels[0, 3, 2, 2] = torch.nan
    empty.valid[:] = False

    with pytest.raises(PixelError, match="B04"):
        run(hidden, RECIPE)
    with pytest.raises(PixelError, match="no valid pixel"):
        run(empty, RECIPE)
    with pytest.raises(PixelError, match="must be positive"):
        convert_unit(torch.tensor([0.0]), Unit.POWER, Unit.DB)


# ------------------------------------------------------------------------------ to_grid


def test_native_bands_meet_on_one_grid_by_name() -> None:
    """Constants of 10, 20 and 60 m bands arrive in the spec's order, whatever their group."""
    bands = ("B01", "B02", "B05", "B08")
    planes = {
        10: torch.tensor([2.0, 8.0]).view(1, 2, 1, 1).expand(1, 2, 12, 12).to(torch.uint16),
        20: torch.full((1, 1, 6, 6), 5).to(torch.uint16),
        60: torch.full((1, 1, 2, 2), 1).to(torch.uint16),
    }
    native = NativeImagery(
        planes,
        {10: ("B02", "B08"), 20: ("B05",), 60: ("B01",)},
        ImageSpec(Sensor.S2_L1C, bands, Unit.DN, (12, 12), 10),
        torch.ones(1, 12, 12, dtype=torch.bool),
    )

    out = to_grid(native)

    assert [1.0, 2.0, 5.0, 8.0] == out.pixels[0].mean(dim=(1, 2)).tolist()
    assert bands == out.spec.bands


def test_upsampling_is_bilinear_at_half_pixel_centres() -> None:
    """20 m to 10 m agrees with an interpolation written out by hand."""
    plane = torch.tensor([[0.0, 40.0]]).view(1, 1, 1, 2)
    native = NativeImagery(
        {20: plane},
        {20: ("B05",)},
        ImageSpec(Sensor.S2_L1C, ("B05",), Unit.DN, (2, 4), 10),
        torch.ones(1, 2, 4, dtype=torch.bool),
    )

    assert [0.0, 10.0, 30.0, 40.0] == to_grid(native).pixels[0, 0, 0].tolist()


def test_a_plan_says_what_it_does() -> None:
    """describe() numbers the steps and names units, sizes and the source of the constants."""
    text = plan(replace(SPEC, size=(32, 32), unit=Unit.DN_OFFSET1000), RECIPE).describe()

    for words in ("max(x - 1000, 0)", "resize to 8 x 8", "SSL4EO-S12", "255 levels"):
        assert words in text
    assert isinstance(plan(SPEC, RECIPE), Plan)
    assert isinstance(plan(SPEC, RECIPE).steps[0], SelectBands)
