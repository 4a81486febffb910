"""Published weights made to fit: filters by band name, positions by recipe, nothing left over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models._manipulate import adapt_input_conv
from torch import Tensor
from torch.nn import functional

from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor
from eofm.errors import WeightsError
from eofm.loading.views import colours_alone
from eofm.networks.state import (
    InputInit,
    PositionRecipe,
    adapt_input,
    colour_bands,
    colour_shares,
    fold_affine,
    resample_positions,
    resize_position_embedding,
    select_input_bands,
)

L1C, L2A, S1 = (SENSOR_BANDS[s] for s in (Sensor.S2_L1C, Sensor.S2_L2A, Sensor.S1_GRD))
KEY = "patch_embed.proj"


@pytest.fixture
def rgb(generator) -> dict[str, Tensor]:
    """An input layer for red, green, blue, and a tensor that has nothing to do with it."""
    return {
        f"{KEY}.weight": torch.randn(8, 3, 14, 14, generator=generator),
        f"{KEY}.bias": torch.randn(8, generator=generator),
        "norm.weight": torch.ones(8),
    }


# ----------------------------------------------------------------------------- input layer


@pytest.mark.parametrize(
    ("bands", "bound"), [(L1C, 0.01981), (L2A, 0.02062), (S1, 0.05051), (("B08",), 0.07143)]
)
def test_random_input_is_drawn_as_a_convolution_is(rgb, bands, bound, generator):
    """U(±1/sqrt(C·k²)) for weight and bias; the rest of the state and the input are left alone."""
    before = {k: v.clone() for k, v in rgb.items()}
    out = adapt_input(rgb, bands, InputInit.RANDOM, generator)
    weight, bias = out[f"{KEY}.weight"], out[f"{KEY}.bias"]

    assert (8, len(bands), 14, 14) == tuple(weight.shape)
    assert bound == pytest.approx(weight.abs().max().item(), rel=0.01)
    assert bound / 3**0.5 == pytest.approx(weight.std().item(), rel=0.05)
    assert 0 < bias.abs().max().item() <= bound
    assert not torch.equal(bias, rgb[f"{KEY}.bias"])
    assert out["norm.weight"] is rgb["norm.weight"]
    assert all(torch.equal(before[k], v) for k, v in rgb.items())
    again = adapt_input(rgb, bands, InputInit.RANDOM, torch.Generator().manual_seed(5))
    twin = adapt_input(rgb, bands, InputInit.RANDOM, torch.Generator().manual_seed(5))
    assert torch.equal(again[f"{KEY}.weight"], twin[f"{KEY}.weight"])


@pytest.mark.parametrize("bands", [L1C, L2A, ("B12", "B04", "B03", "B8A", "B02")])
def test_matched_input_follows_names_not_places(rgb, bands, generator):
    """Red goes to B04, green to B03, blue to B02, wherever they are; all others get zeros."""
    source = rgb[f"{KEY}.weight"]
    weight = adapt_input(rgb, bands, InputInit.RGB_MATCHED, generator)[f"{KEY}.weight"]

    for channel, band in enumerate(bands):
        colour = {"B04": 0, "B03": 1, "B02": 2}.get(band)
        expected = torch.zeros(8, 14, 14) if colour is None else source[:, colour]
        assert torch.equal(expected, weight[:, channel]), band


def test_permuting_bands_permutes_the_filters(rgb, generator):
    """A file that stores B8A last gets the same filter for each band (not so for timm's cycle)."""
    last = (*(b for b in L1C if b != "B8A"), "B8A")
    back = [last.index(b) for b in L1C]
    for rule in (InputInit.RGB_MATCHED, InputInit.RGB_NEAREST, InputInit.MEAN):
        a = adapt_input(rgb, L1C, rule, generator)[f"{KEY}.weight"]
        b = adapt_input(rgb, last, rule, generator)[f"{KEY}.weight"]
        assert torch.equal(a, b[:, back])
    cycle = adapt_input(rgb, L1C, InputInit.TIMM, generator)[f"{KEY}.weight"]
    cycled = adapt_input(rgb, last, InputInit.TIMM, generator)[f"{KEY}.weight"]
    assert not torch.equal(cycle, cycled[:, back])


@pytest.mark.parametrize("rule", [InputInit.RGB_MATCHED, InputInit.RGB_NEAREST, InputInit.TIMM])
def test_rgb_stays_rgb(rgb, rule, generator):
    """For red, green, blue themselves the layer is returned unchanged."""
    out = adapt_input(rgb, ("R", "G", "B"), rule, generator)

    assert torch.equal(rgb[f"{KEY}.weight"], out[f"{KEY}.weight"])
    assert torch.equal(rgb[f"{KEY}.bias"], out[f"{KEY}.bias"])


def test_radar_has_no_colours(rgb, generator):
    """Both rgb rules become the mean for Sentinel-1; timm's rule makes VV red and VH green."""
    source = rgb[f"{KEY}.weight"]
    matched = adapt_input(rgb, S1, InputInit.RGB_MATCHED, generator)[f"{KEY}.weight"]
    nearest = adapt_input(rgb, S1, InputInit.RGB_NEAREST, generator)[f"{KEY}.weight"]
    mean = adapt_input(rgb, S1, InputInit.MEAN, generator)[f"{KEY}.weight"]
    cycle = adapt_input(rgb, S1, InputInit.TIMM, generator)[f"{KEY}.weight"]

    assert torch.equal(matched, mean)
    assert torch.equal(nearest, mean)
    torch.testing.assert_close(mean[:, 1], source.sum(1) / 2)
    torch.testing.assert_close(cycle, source[:, :2] * 1.5)


@pytest.mark.parametrize("count", [1, 2, 3, 12, 13])
def test_timm_rule_equals_timm(rgb, count, generator):
    """The rule of that name gives what timm's own function gives."""
    weight = adapt_input(rgb, L1C[:count], InputInit.TIMM, generator)[f"{KEY}.weight"]

    torch.testing.assert_close(weight, adapt_input_conv(count, rgb[f"{KEY}.weight"].clone()))


def nearest_by_hand(bands: Sequence[str]) -> dict[str, dict[str, float]]:
    """Colour -> band -> share, by a loop over names: the slow reading of the rule."""
    nm = {"R": 664.6, "G": 559.8, "B": 492.4}
    at = {band: BANDS[band].wavelength_nm for band in bands}
    choice = {band: min(nm, key=lambda c: abs(nm[c] - at[band])) for band in bands}
    shares: dict[str, dict[str, float]] = {}
    for colour, wavelength in nm.items():
        sharing = [band for band in bands if choice[band] == colour]
        sharing = sharing or [min(bands, key=lambda b: abs(wavelength - at[b]))]
        shares[colour] = {band: 1 / len(sharing) for band in sharing}
    return shares


def test_nearest_input_of_sentinel_2(rgb, generator):
    """B01 and B02 share blue, B03 has green, and the ten from B04 to B12 share red."""
    source = rgb[f"{KEY}.weight"]
    weight = adapt_input(rgb, L1C, InputInit.RGB_NEAREST, generator)[f"{KEY}.weight"]

    torch.testing.assert_close(weight[:, 0], source[:, 2] / 2)
    torch.testing.assert_close(weight[:, 1], source[:, 2] / 2)
    assert torch.equal(weight[:, 2], source[:, 1])
    for channel in range(3, 13):
        torch.testing.assert_close(weight[:, channel], source[:, 0] / 10)


def test_an_image_in_colours_alone_is_what_the_rgb_layer_saw(rgb, generator):
    """Every band with the value of the colour nearest to it: the very answer to that colour image.

    For bands in any order, by a layer that was adapted by `rgb-nearest`.
    """
    bands = ["B8A", "B03", "B12", "B04", "B01", "B02", "B10"]
    layer = adapt_input(rgb, bands, InputInit.RGB_NEAREST, generator)
    images = torch.randn(3, len(bands), 14, 14, generator=generator)
    colours = images[:, [3, 1, 5]]

    shown = colours_alone(images, bands, torch.tensor([True, False, True]))

    assert torch.equal(images[1], shown[1])
    after = torch.nn.functional.conv2d(shown, layer[f"{KEY}.weight"], stride=14)
    before = torch.nn.functional.conv2d(colours, rgb[f"{KEY}.weight"], stride=14)
    torch.testing.assert_close(after[::2], before[::2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after[1], before[1], atol=1e-2)


def test_colours_that_are_not_there() -> None:
    """Red, green and blue have their positions, and none where one is missing."""
    assert (2, 0, 1) == colour_bands(["B03", "B02", "B04", "B08"])
    assert colour_bands(["B02", "B03", "B08"]) is None
    assert colour_bands(S1) is None


some_bands = st.lists(st.sampled_from(L1C), min_size=1, max_size=13, unique=True)


@given(bands=some_bands)
@settings(deadline=None, max_examples=60)
def test_nearest_shares_equal_a_slow_reading(bands):
    """For any bands in any order: names, a loop, and a colour without a band to its nearest."""
    shares = colour_shares(bands, InputInit.RGB_NEAREST)
    slow = nearest_by_hand(bands)

    for row, colour in enumerate(("R", "G", "B")):
        expected = torch.tensor([slow[colour].get(band, 0.0) for band in bands])
        torch.testing.assert_close(shares[row], expected)


def keeps_gray(rule: InputInit, bands: Sequence[str]) -> bool:
    """What the documentation of the rules promises."""
    if rule is InputInit.RGB_MATCHED and set(bands) & {"B02", "B03", "B04"}:
        return {"B02", "B03", "B04"} <= set(bands)
    return rule is not InputInit.TIMM or len(bands) % 3 == 0 or len(bands) == 1


@given(
    bands=st.one_of(some_bands, st.sampled_from([L1C, L2A, S1, ("VH",)])),
    rule=st.sampled_from([rule for rule in InputInit if rule is not InputInit.RANDOM]),
    level=st.floats(-3, 3).filter(lambda v: abs(v) > 0.1),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_response_to_gray(bands, rule, level, bias):
    """One value in all bands gives the RGB layer's response to gray, just where it is promised."""
    generator = torch.Generator().manual_seed(3)
    layer = {"conv.weight": torch.randn(8, 3, 5, 5, generator=generator)}
    if bias:
        layer["conv.bias"] = torch.randn(8, generator=generator)
    out = adapt_input(layer, bands, rule, generator, key="conv")
    gray = torch.full((1, 3, 5, 5), level)
    expected = functional.conv2d(gray, layer["conv.weight"], layer.get("conv.bias"))
    pixels = torch.full((1, len(bands), 5, 5), level)
    found = functional.conv2d(pixels, out["conv.weight"], out.get("conv.bias"))

    assert set(layer) == set(out)
    assert keeps_gray(rule, bands) == torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_random_has_no_shares(rgb):
    """Asking for the shares of a rule that copies nothing is an error."""
    with pytest.raises(WeightsError, match="no share"):
        colour_shares(L1C, InputInit.RANDOM)


@pytest.mark.parametrize("bands", [L1C, L2A, S1, ("B12", "B02")])
@pytest.mark.parametrize("rule", list(InputInit))
def test_a_layer_without_bias_gets_none(rule, bands, generator):
    """A ResNet's conv1 is adapted under its own name, to any bands; nothing else appears."""
    state = {"conv1.weight": torch.randn(8, 3, 7, 7, generator=generator)}
    out = adapt_input(state, bands, rule, generator, key="conv1")

    assert {"conv1.weight"} == set(out)
    assert (8, len(bands), 7, 7) == tuple(out["conv1.weight"].shape)
    if rule is InputInit.RANDOM:
        bound = (len(bands) * 49) ** -0.5
        assert bound == pytest.approx(out["conv1.weight"].abs().max().item(), rel=0.02)


@pytest.mark.parametrize("rule", [rule for rule in InputInit if rule is not InputInit.RANDOM])
def test_folding_takes_over_the_normalisation(rgb, rule, generator):
    """The folded layer makes of u = (z + 2) / 4 what the layer makes of z."""
    layer = adapt_input(rgb, L1C, rule, generator)
    folded = fold_affine(layer)
    z = torch.randn(2, 13, 28, 28, generator=generator)
    expected = functional.conv2d(z, layer[f"{KEY}.weight"], layer[f"{KEY}.bias"], stride=14)
    u = (z + 2) / 4
    found = functional.conv2d(u, folded[f"{KEY}.weight"], folded[f"{KEY}.bias"], stride=14)

    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def stem(generator: torch.Generator, channels: int) -> dict[str, Tensor]:
    """A ResNet's first two layers: a convolution without bias and a batch norm that was trained."""
    return {
        "conv1.weight": torch.randn(8, channels, 7, 7, generator=generator),
        "bn1.weight": torch.rand(8, generator=generator) + 0.5,
        "bn1.bias": torch.randn(8, generator=generator),
        "bn1.running_mean": torch.randn(8, generator=generator),
        "bn1.running_var": torch.rand(8, generator=generator) + 0.5,
    }


def through(state: dict[str, Tensor], pixels: Tensor, *, training: bool) -> Tensor:
    """What the stem answers where nothing is padded."""
    out = functional.conv2d(pixels, state["conv1.weight"], stride=2)
    mean, var = state["bn1.running_mean"].clone(), state["bn1.running_var"].clone()
    return functional.batch_norm(out, mean, var, state["bn1.weight"], state["bn1.bias"], training)


def test_folding_without_a_bias_is_left_to_the_norm(generator):
    """Exact in training without more; exact in evaluation once the norm's running mean is moved."""
    layer = stem(generator, 13)
    z = torch.randn(2, 13, 32, 32, generator=generator)
    u = (z + 2) / 4
    scaled = fold_affine(layer, key="conv1")
    moved = fold_affine(layer, key="conv1", norm="bn1")

    assert layer.keys() == scaled.keys() == moved.keys()
    assert scaled["bn1.running_mean"] is layer["bn1.running_mean"]
    in_training = through(layer, z, training=True)
    torch.testing.assert_close(through(scaled, u, training=True), in_training, atol=1e-3, rtol=1e-3)
    expected = through(layer, z, training=False)
    torch.testing.assert_close(through(moved, u, training=False), expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(through(scaled, u, training=False), expected, atol=0.1)


# ------------------------------------------------------------------------- other bands


def test_13_bands_become_12(generator):
    """B10 at its mean (0.5) in every pixel: the layer for 12 bands answers the same."""
    weight = torch.randn(8, 13, 14, 14, generator=generator)
    state = {f"{KEY}.weight": weight, f"{KEY}.bias": torch.randn(8, generator=generator)}
    pixels = torch.rand(2, 13, 28, 28, generator=generator)
    pixels[:, 10] = 0.5
    without = torch.cat([pixels[:, :10], pixels[:, 11:]], dim=1)
    out = select_input_bands(state, L1C, L2A, held={"B10": 0.5})
    expected = functional.conv2d(pixels, weight, state[f"{KEY}.bias"], stride=14)

    found = functional.conv2d(without, out[f"{KEY}.weight"], out[f"{KEY}.bias"], stride=14)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    at_zero = select_input_bands(state, L1C, L2A)
    torch.testing.assert_close(at_zero[f"{KEY}.bias"], state[f"{KEY}.bias"])
    torch.testing.assert_close(
        out[f"{KEY}.bias"], state[f"{KEY}.bias"] + 0.5 * weight[:, 10].sum(dim=(1, 2))
    )


def test_12_bands_become_13_and_back(generator):
    """The new band is ignored, whatever is in it; taking it away again gives the first layer."""
    weight = torch.randn(8, 12, 14, 14, generator=generator)
    state = {f"{KEY}.weight": weight, f"{KEY}.bias": torch.randn(8, generator=generator)}
    wide = select_input_bands(state, L2A, L1C)

    assert wide[f"{KEY}.bias"] is state[f"{KEY}.bias"]
    assert 0 == wide[f"{KEY}.weight"][:, 10].abs().max()
    back = select_input_bands(wide, L1C, L2A, held={"B10": 0.5})
    assert torch.equal(weight, back[f"{KEY}.weight"])
    assert torch.equal(state[f"{KEY}.bias"], back[f"{KEY}.bias"])


@given(have=some_bands, want=some_bands)
@settings(deadline=None, max_examples=60)
def test_bands_keep_their_filters(have, want):
    """By name, for any two lists with a band in common; the rest is zeros."""
    generator = torch.Generator().manual_seed(4)
    state = {"conv1.weight": torch.randn(4, len(have), 3, 3, generator=generator)}
    if not set(have) & set(want):
        with pytest.raises(WeightsError, match="cannot be brought"):
            select_input_bands(state, have, want, key="conv1")
        return
    weight = select_input_bands(state, have, want, key="conv1")["conv1.weight"]

    for channel, band in enumerate(want):
        kept = state["conv1.weight"][:, have.index(band)] if band in have else torch.zeros(4, 3, 3)
        assert torch.equal(kept, weight[:, channel])


def test_a_band_that_goes_is_kept_in_the_norm(generator):
    """Without a bias, the running mean of the norm takes what the constant band contributed."""
    layer = stem(generator, 13)
    pixels = torch.rand(2, 13, 32, 32, generator=generator)
    pixels[:, 10] = 0.5
    without = torch.cat([pixels[:, :10], pixels[:, 11:]], dim=1)
    out = select_input_bands(layer, L1C, L2A, "conv1", "bn1", {"B10": 0.5})

    expected = through(layer, pixels, training=False)
    found = through(out, without, training=False)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_layer_for_other_bands_is_refused(rgb):
    """Three channels are not the 13 they are said to be."""
    with pytest.raises(WeightsError, match="3 channels, said to be B01"):
        select_input_bands(rgb, L1C, L2A)


def test_input_layers_that_cannot_be_adapted(rgb, generator):
    """A layer for 13 bands, and a state without the layer, are refused by name."""
    wide = {**rgb, f"{KEY}.weight": torch.zeros(8, 13, 14, 14)}
    with pytest.raises(WeightsError, match="13 channels"):
        adapt_input(wide, L2A, InputInit.MEAN, generator)
    with pytest.raises(WeightsError, match=r"stem\.weight"):
        adapt_input(rgb, L1C, InputInit.MEAN, generator, key="stem")
    with pytest.raises(WeightsError, match=r"stem\.weight"):
        fold_affine(rgb, key="stem")


# ------------------------------------------------------------------------------- positions


def ramp(side: int) -> Tensor:
    """A table whose entry is its column, CLS first with the value 99."""
    columns = torch.arange(side, dtype=torch.float32).expand(side, side).flatten()
    return torch.cat([torch.tensor([99.0]), columns])[None, :, None]


@pytest.mark.parametrize("recipe", list(PositionRecipe))
def test_a_constant_table_stays_constant(recipe, generator):
    """Interpolation neither adds nor loses weight; the CLS entry is kept as it is."""
    table = torch.full((1, 1 + 37 * 37, 4), 0.3)
    table[:, 0] = torch.randn(4, generator=generator)
    out = resize_position_embedding({"pos_embed": table}, (16, 16), recipe)["pos_embed"]

    assert (1, 257, 4) == tuple(out.shape)
    assert torch.equal(table[:, 0], out[:, 0])
    torch.testing.assert_close(out[:, 1:], torch.full((1, 256, 4), 0.3))


def test_a_ramp_keeps_its_mirror_symmetry_only_by_size():
    """By size out[j] + out[15 - j] = 36; the offset of 0.1 breaks it (first + last = 35.73)."""
    by_size = resample_positions(ramp(37), (37, 37), (16, 16), PositionRecipe.TIMM)
    by_scale = resample_positions(ramp(37), (37, 37), (16, 16), PositionRecipe.DINOV2)
    row, shifted = by_size[0, 1:17, 0], by_scale[0, 1:17, 0]

    torch.testing.assert_close(row + row.flip(0), torch.full((16,), 36.0), atol=1e-4, rtol=0)
    assert 35.73 == pytest.approx((shifted[0] + shifted[-1]).item(), abs=0.01)
    assert 99 == by_scale[0, 0, 0] == by_size[0, 0, 0]


def cubic(x: float, a: float = -0.75) -> float:
    """The bicubic kernel of torch without antialiasing."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def test_dinov2_recipe_equals_a_slow_interpolation(generator):
    """By loops: source at (i + 0.5) / ((n + 0.1) / N) - 0.5, sixteen cubic taps, edges held."""
    table = torch.randn(1, 1 + 7 * 7, 2, generator=generator)
    field = table[0, 1:].reshape(7, 7, 2)
    expected = torch.zeros(3, 4, 2)
    for i in range(3):
        for j in range(4):
            y, x = (i + 0.5) / (3.1 / 7) - 0.5, (j + 0.5) / (4.1 / 7) - 0.5
            for r in range(int(y // 1) - 1, int(y // 1) + 3):
                for c in range(int(x // 1) - 1, int(x // 1) + 3):
                    weight = cubic(y - r) * cubic(x - c)
                    expected[i, j] += weight * field[min(max(r, 0), 6), min(max(c, 0), 6)]
    found = resample_positions(table, (7, 7), (3, 4), PositionRecipe.DINOV2)

    torch.testing.assert_close(found[0, 1:].reshape(3, 4, 2), expected, atol=1e-5, rtol=0)


def test_timm_recipe_equals_timm(generator):
    """The recipe of that name gives what timm's own function gives, upwards and downwards."""
    table = torch.randn(1, 1 + 37 * 37, 6, generator=generator)
    for grid in ((16, 16), (8, 20), (40, 40)):
        found = resample_positions(table, (37, 37), grid, PositionRecipe.TIMM)
        expected = resample_abs_pos_embed(table, list(grid), [37, 37], num_prefix_tokens=1)
        torch.testing.assert_close(found, expected)


def test_recipes_are_not_equal(generator):
    """The two differ on the same table: which one was used has to be on record."""
    table = torch.randn(1, 1 + 37 * 37, 6, generator=generator)
    a, b = (resample_positions(table, (37, 37), (16, 16), r) for r in PositionRecipe)

    assert (a - b).norm() / b.norm() > 0.3


def test_the_same_grid_is_left_alone(generator):
    """No interpolation where none is needed, so a round trip costs nothing."""
    table = torch.randn(1, 257, 4, generator=generator)
    for recipe in PositionRecipe:
        out = resize_position_embedding({"pos_embed": table}, (16, 16), recipe)["pos_embed"]
        assert torch.equal(table, out)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_what_stands_before_the_patches_is_kept(prefix, generator):
    """Tables with no CLS entry (timm's with registers) or with several: only patches move."""
    table = torch.randn(1, prefix + 49, 3, generator=generator)
    out = resize_position_embedding(
        {"pos_embed": table}, (5, 4), PositionRecipe.TIMM, prefix=prefix
    )["pos_embed"]
    expected = resample_abs_pos_embed(table, [5, 4], [7, 7], num_prefix_tokens=prefix)

    assert torch.equal(table[:, :prefix], out[:, :prefix])
    torch.testing.assert_close(out, expected)


def test_dinov2_with_registers_goes_by_size(generator):
    """Its own models with registers antialias and have no offset: as timm's recipe."""
    table = torch.randn(1, 1 + 37 * 37, 3, generator=generator)
    found, plain = (
        resample_positions(table, (37, 37), (16, 16), PositionRecipe.DINOV2, registers=registers)
        for registers in (True, False)
    )

    expected = resample_positions(table, (37, 37), (16, 16), PositionRecipe.TIMM)
    assert torch.equal(expected, found)
    assert not torch.allclose(expected, plain)


def test_tables_that_are_not_square(generator):
    """A table with registers in it, and a state without one, are refused."""
    with pytest.raises(WeightsError, match="square grid"):
        resize_position_embedding(
            {"pos_embed": torch.zeros(1, 261, 4)}, (8, 8), PositionRecipe.TIMM
        )
    with pytest.raises(WeightsError, match="no position table"):
        resize_position_embedding({}, (8, 8), PositionRecipe.TIMM)
