"""Published weights made to fit: filters by band name, positions by recipe, nothing left over."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import WeightsError
from eofm.models.adapt import (
    InputInit,
    PositionRecipe,
    adapt_input,
    check_layer_scale,
    dinov2_to_vit,
    fold_affine,
    resample_positions,
    resize_position_embedding,
)
from eofm.models.state import load_strict, read_state
from eofm.models.vit import build_vit
from eofm.sensors import SENSOR_BANDS
from eofm.spec import Sensor

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


@pytest.fixture
def dinov2(generator) -> dict[str, Tensor]:
    """A state dict as Meta publishes it, on the demo network: trained scales, 37 x 37 positions."""
    state = build_vit("vit-tiny-14", 3, (518, 518), generator).state_dict()
    for key, value in state.items():
        if key.endswith("gamma"):
            value.uniform_(0.01, 0.5, generator=generator)
    return {**state, "mask_token": torch.zeros(1, 192)}


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
    for rule in (InputInit.RGB_MATCHED, InputInit.MEAN):
        a = adapt_input(rgb, L1C, rule, generator)[f"{KEY}.weight"]
        b = adapt_input(rgb, last, rule, generator)[f"{KEY}.weight"]
        assert torch.equal(a, b[:, back])
    cycle = adapt_input(rgb, L1C, InputInit.TIMM, generator)[f"{KEY}.weight"]
    cycled = adapt_input(rgb, last, InputInit.TIMM, generator)[f"{KEY}.weight"]
    assert not torch.equal(cycle, cycled[:, back])


@pytest.mark.parametrize("rule", [InputInit.RGB_MATCHED, InputInit.TIMM])
def test_rgb_stays_rgb(rgb, rule, generator):
    """For red, green, blue themselves the layer is returned unchanged."""
    out = adapt_input(rgb, ("R", "G", "B"), rule, generator)

    assert torch.equal(rgb[f"{KEY}.weight"], out[f"{KEY}.weight"])
    assert torch.equal(rgb[f"{KEY}.bias"], out[f"{KEY}.bias"])


def test_radar_has_no_colours(rgb, generator):
    """Matched falls back to the mean for Sentinel-1; timm's rule makes VV red and VH green."""
    source = rgb[f"{KEY}.weight"]
    matched = adapt_input(rgb, S1, InputInit.RGB_MATCHED, generator)[f"{KEY}.weight"]
    mean = adapt_input(rgb, S1, InputInit.MEAN, generator)[f"{KEY}.weight"]
    cycle = adapt_input(rgb, S1, InputInit.TIMM, generator)[f"{KEY}.weight"]

    assert torch.equal(matched, mean)
    torch.testing.assert_close(mean[:, 1], source.sum(1) / 2)
    torch.testing.assert_close(cycle, source[:, :2] * 1.5)


@pytest.mark.parametrize("count", [1, 2, 3, 12, 13])
def test_timm_rule_equals_timm(rgb, count, generator):
    """The rule of that name gives what timm's own function gives."""
    weight = adapt_input(rgb, L1C[:count], InputInit.TIMM, generator)[f"{KEY}.weight"]

    torch.testing.assert_close(weight, adapt_input_conv(count, rgb[f"{KEY}.weight"].clone()))


@pytest.mark.parametrize(
    ("rule", "bands", "exact"),
    [
        (InputInit.MEAN, L1C, True),
        (InputInit.MEAN, L2A, True),
        (InputInit.MEAN, S1, True),
        (InputInit.MEAN, ("B08",), True),
        (InputInit.RGB_MATCHED, L1C, True),
        (InputInit.TIMM, L2A, True),
        (InputInit.TIMM, L1C, False),
        (InputInit.TIMM, S1, False),
    ],
)
def test_response_to_gray(rgb, rule, bands, exact, generator):
    """One value in all bands gives the RGB layer's response to gray, where the rule allows."""
    out = adapt_input(rgb, bands, rule, generator)
    gray = torch.full((1, 3, 14, 14), 0.7)
    expected = functional.conv2d(gray, rgb[f"{KEY}.weight"], rgb[f"{KEY}.bias"])
    pixels = torch.full((1, len(bands), 14, 14), 0.7)
    found = functional.conv2d(pixels, out[f"{KEY}.weight"], out[f"{KEY}.bias"])

    assert exact == torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("rule", [InputInit.MEAN, InputInit.RGB_MATCHED, InputInit.TIMM])
def test_folding_takes_over_the_normalisation(rgb, rule, generator):
    """The folded layer makes of u = (z + 2) / 4 what the layer makes of z."""
    layer = adapt_input(rgb, L1C, rule, generator)
    folded = fold_affine(layer)
    z = torch.randn(2, 13, 28, 28, generator=generator)
    expected = functional.conv2d(z, layer[f"{KEY}.weight"], layer[f"{KEY}.bias"], stride=14)
    u = (z + 2) / 4
    found = functional.conv2d(u, folded[f"{KEY}.weight"], folded[f"{KEY}.bias"], stride=14)

    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_input_layers_that_cannot_be_adapted(rgb, generator):
    """A layer for 13 bands, and a state without the layer, are refused by name."""
    wide = {**rgb, f"{KEY}.weight": torch.zeros(8, 13, 14, 14)}
    with pytest.raises(WeightsError, match="13 channels"):
        adapt_input(wide, L2A, InputInit.MEAN, generator)
    with pytest.raises(WeightsError, match=r"stem\.weight and stem\.bias"):
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


def test_tables_that_are_not_square(generator):
    """A table with registers in it, and a state without one, are refused."""
    with pytest.raises(WeightsError, match="square grid"):
        resize_position_embedding(
            {"pos_embed": torch.zeros(1, 261, 4)}, (8, 8), PositionRecipe.TIMM
        )
    with pytest.raises(WeightsError, match="no position table"):
        resize_position_embedding({}, (8, 8), PositionRecipe.TIMM)


# ---------------------------------------------------------------------------- DINOv2 names


def test_dinov2_names_load_whole(dinov2, generator):
    """Map, input layer, positions: every tensor but the mask token arrives, strictly."""
    state = dinov2_to_vit(dinov2)
    assert {"mask_token"} == set(dinov2) - set(state)
    state = adapt_input(state, L1C, InputInit.RANDOM, generator)
    state = resize_position_embedding(state, (8, 8), PositionRecipe.DINOV2)
    network = build_vit("vit-tiny-14", 13, (112, 112), generator)
    load_strict(network, state, where="test")

    loaded = network.state_dict()
    assert torch.equal(dinov2["blocks.5.ls2.gamma"], loaded["blocks.5.ls2.gamma"])
    assert all(torch.equal(state[key], loaded[key]) for key in loaded)


def test_dinov2_names_are_timms(generator):
    """A state dict made by timm's DINOv2 passes the map with no tensor unknown or missing."""
    reference = timm.create_model("vit_small_patch14_dinov2", img_size=56, num_classes=0)
    state = {k: torch.ones_like(v) for k, v in reference.state_dict().items()}

    assert set(state) == set(dinov2_to_vit(state))


def test_every_foreign_or_missing_tensor_is_named(dinov2):
    """Registers, a lost scale and a training prefix are each refused, with the names."""
    with pytest.raises(WeightsError, match="unknown register_tokens"):
        dinov2_to_vit({**dinov2, "register_tokens": torch.zeros(1, 4, 192)})
    without = {k: v for k, v in dinov2.items() if k != "blocks.3.ls1.gamma"}
    with pytest.raises(WeightsError, match=r"missing blocks\.3\.ls1\.gamma"):
        dinov2_to_vit(without)
    with pytest.raises(WeightsError, match=r"unknown teacher\.backbone\.blocks"):
        dinov2_to_vit({f"teacher.backbone.{k}": v for k, v in dinov2.items()})
    with pytest.raises(WeightsError, match="missing norm"):
        dinov2_to_vit({})


def test_untrained_layer_scale_is_refused(dinov2):
    """A scale at its initial 1e-5, or NaN, makes the network an identity that still trains."""
    for value in (1e-5, float("nan")):
        state = {**dinov2, "blocks.2.ls1.gamma": torch.full((192,), value)}
        with pytest.raises(WeightsError, match=r"blocks\.2\.ls1\.gamma"):
            dinov2_to_vit(state)
    check_layer_scale(dinov2)


# ----------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_state_dicts_are_read(tmp_path, suffix, generator):
    """Both formats give back the tensors that were saved."""
    state = {"a.weight": torch.randn(3, 2, generator=generator), "b": torch.ones(2)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = read_state(path)

    assert list(state) == sorted(found)
    assert all(torch.equal(state[k], v) for k, v in found.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, suffix, share, generator):
    """A file cut short anywhere is an error that names it, never a state dict."""
    state = {"a.weight": torch.randn(300, 20, generator=generator)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(WeightsError, match=f"weights{suffix}"):
        read_state(path)


def test_code_is_not_run(tmp_path):
    """A pickle that would run code is refused, and the code does not run."""
    target = tmp_path / "touched"
    path = tmp_path / "weights.pth"

    class Evil:
        def __reduce__(self):
            return (type(target).touch, (target,))

    torch.save({"a": Evil()}, path)
    with pytest.raises(WeightsError, match="never run"):
        read_state(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_web_pages_are_recognised(tmp_path, suffix):
    """The error page of a download is called what it is."""
    path = tmp_path / f"weights{suffix}"
    path.write_text("\n<!DOCTYPE html><html>404</html>")
    with pytest.raises(WeightsError, match="web page"):
        read_state(path)


def test_other_contents_are_refused(tmp_path):
    """A missing file, a nested checkpoint, a list and an empty dict are each explained."""
    with pytest.raises(WeightsError, match="no such weights file"):
        read_state(tmp_path / "absent.pth")
    for name, content, message in (
        ("nested", {"teacher": {"a": torch.ones(1)}, "epoch": 3}, "teacher, epoch"),
        ("list", [torch.ones(1)], "list"),
        ("empty", {}, "nothing"),
    ):
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message):
            read_state(path)


def test_strict_loading_lists_every_fault():
    """Missing, foreign and misshapen tensors are all named, and nothing is loaded."""
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    state = {"weight": torch.zeros(2, 4), "gamma": torch.ones(2)}
    with pytest.raises(WeightsError) as caught:
        load_strict(layer, state, where="somewhere")

    text = str(caught.value)
    for words in ("missing bias", "foreign gamma", "(2, 4), not (2, 3)", "somewhere"):
        assert words in text
    assert torch.equal(before, layer.weight)
