"""The vision transformer against timm and a reference of DINOv2, token dropping against loops."""

from __future__ import annotations

import copy
import math
import pickle
from functools import cache

import pytest
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.errors import SpecError, SpecMismatch, WeightsError
from eofm.networks.state import PositionRecipe, load_strict, resize_position_embedding
from eofm.networks.vit import (
    ARCHITECTURES,
    Architecture,
    FeedForward,
    SwiGLU,
    ViT,
    blank_vit,
    build_vit,
)

TINY = "vit-tiny-14"
# Two ways through the same network differ by float32 rounding: 6e-8 of values up to 10, in sums of
# some hundred terms and a dozen blocks, 1e-5 to 3e-5 by the processor's kernels. Any token in
# another place, or a wrong position, is 1e-2 or more.
FLOAT32 = 5e-5


def vit(channels: int = 3, size: tuple[int, int] = (56, 56), seed: int = 0, **options) -> ViT:
    """A demo network in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    return build_vit(TINY, channels, size, generator, **options).eval()


def images(
    generator: torch.Generator, channels: int = 3, size: tuple[int, int] = (56, 56)
) -> Tensor:
    """Three random images."""
    return torch.randn(3, channels, *size, generator=generator)


@pytest.mark.parametrize(
    ("ours", "theirs", "channels"),
    [
        ("vits14", "vit_small_patch14_dinov2", 3),
        ("vits14", "vit_small_patch14_dinov2", 13),
        pytest.param("vitb14", "vit_base_patch14_dinov2", 2, marks=pytest.mark.slow),
    ],
)
def test_features_equal_timm(ours, theirs, channels, generator):
    """The same weights load into timm by name, strictly, and give the same tokens and CLS."""
    size = (112, 112)
    network = ViT(ARCHITECTURES[ours], channels, size).eval()
    with torch.no_grad():  # LayerScale at its start is 1 everywhere, which would hide it
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.1, 2, generator=generator)
            if "token" in name or "pos_embed" in name:
                parameter.normal_(0, 0.5, generator=generator)
    reference = timm.create_model(
        theirs, img_size=112, in_chans=channels, num_classes=0, weight_init="skip"
    ).eval()
    reference.load_state_dict(network.state_dict(), strict=True)
    pixels = torch.randn(2, channels, *size, generator=generator)

    with torch.no_grad():
        tokens, expected = network.forward_features(pixels), reference.forward_features(pixels)
        torch.testing.assert_close(tokens, expected, atol=FLOAT32, rtol=0)
        torch.testing.assert_close(network(pixels), reference(pixels), atol=FLOAT32, rtol=0)
    assert tokens.std() > 0.1


def test_state_dict_has_the_names_of_dinov2():
    """174 tensors for ViT-S, 257 positions at 224 px, 22.38 M parameters for 13 bands."""
    network = build_vit("vits14", 13, (224, 224), torch.Generator())
    state = network.state_dict()

    assert 174 == len(state)
    assert (1, 257, 384) == tuple(state["pos_embed"].shape)
    assert (384, 13, 14, 14) == tuple(state["patch_embed.proj.weight"].shape)
    assert 22.38 == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, abs=0.005)
    assert (256, (16, 16), 384) == (network.tokens, network.grid, network.dim)


def test_positions_of_another_size_equal_timm(generator):
    """With timm's recipe an image of another size gives the features timm's dynamic size gives."""
    network = build_vit("vits14", 3, (56, 56), generator, positions=PositionRecipe.TIMM).eval()
    reference = timm.create_model(
        "vit_small_patch14_dinov2",
        img_size=56,
        num_classes=0,
        dynamic_img_size=True,
        weight_init="skip",
    ).eval()
    reference.load_state_dict(network.state_dict())
    pixels = torch.randn(1, 3, 84, 42, generator=generator)

    with torch.no_grad():
        expected = reference.forward_features(pixels)
        torch.testing.assert_close(network.forward_features(pixels), expected, atol=FLOAT32, rtol=0)


# ------------------------------------------------------------------- a reference of DINOv2


def cubic(x: float, a: float) -> float:
    """Keys' cubic kernel."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def by_scale(source: int, target: int) -> Tensor:
    """DINOv2 without registers: four taps (a = -3/4) at the scale (target + 0.1) / source."""
    weights = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        at = (i + 0.5) / ((target + 0.1) / source) - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[i, min(max(tap, 0), source - 1)] += cubic(at - tap, -0.75)
    return weights


def by_size(source: int, target: int) -> Tensor:
    """DINOv2 with registers: the kernel (a = -1/2) is widened when shrinking, and normalised."""
    ratio = source / target
    stretch = max(ratio, 1.0)
    weights = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        centre = (i + 0.5) * ratio
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), source)
        for tap in range(first, last):
            weights[i, tap] = cubic((tap - centre + 0.5) / stretch, -0.5)
        weights[i] /= weights[i].sum()
    return weights


def reference_positions(table: Tensor, grid: tuple[int, int], registers: bool) -> Tensor:
    """Interpolate rows and columns of the patches' positions one after the other."""
    side = math.isqrt(table.shape[1] - 1)
    field = table[0, 1:].double().reshape(side, side, -1)
    if grid != (side, side):
        resample = by_size if registers else by_scale
        rows, columns = resample(side, grid[0]), resample(side, grid[1])
        field = torch.einsum("ir,jc,rcd->ijd", rows, columns, field)
    return torch.cat([table[0, :1].double(), field.reshape(grid[0] * grid[1], -1)])


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Normalise each token to mean 0 and variance 1 (epsilon 1e-6), then scale and shift."""
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Apply a linear layer."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attend(x: Tensor, state: dict[str, Tensor], name: str, heads: int) -> Tensor:
    """Multi-head attention, head by head."""
    q, k, v = linear(x, state, f"{name}.qkv").chunk(3, dim=-1)
    width = x.shape[-1] // heads
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        out.append(scores.softmax(dim=-1) @ v[:, part])
    return linear(torch.cat(out, dim=-1), state, f"{name}.proj")


def feed_forward(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Two layers with GELU, or gate and value (giant)."""
    if f"{name}.w12.weight" in state:
        gate, value = linear(x, state, f"{name}.w12").chunk(2, dim=-1)
        return linear(gate * torch.sigmoid(gate) * value, state, f"{name}.w3")
    hidden = linear(x, state, f"{name}.fc1")
    return linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, state, f"{name}.fc2")


def reference_dinov2(state: dict[str, Tensor], image: Tensor, heads: int) -> Tensor:
    """DINOv2 from its paper (arXiv 2304.07193, 2309.16588), one image, float64: all tokens.

    Patches of 14 pixels are flattened by channel, row, column; CLS comes first with a position,
    registers follow without; each branch of a pre-norm block is scaled by LayerScale.
    """
    state = {key: value.double() for key, value in state.items()}
    grid = image.shape[1] // 14, image.shape[2] // 14
    weight = state["patch_embed.proj.weight"].flatten(1)
    tokens = [state["cls_token"][0, 0]]
    for row in range(grid[0]):
        for column in range(grid[1]):
            patch = image[:, row * 14 : row * 14 + 14, column * 14 : column * 14 + 14].double()
            tokens.append(weight @ patch.flatten() + state["patch_embed.proj.bias"])
    registers = state.get("register_tokens")
    x = torch.stack(tokens) + reference_positions(state["pos_embed"], grid, registers is not None)
    if registers is not None:
        x = torch.cat([x[:1], registers[0], x[1:]])
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))):
        name = f"blocks.{i}"
        normed = layer_norm(x, state, f"{name}.norm1")
        x = x + state[f"{name}.ls1.gamma"] * attend(normed, state, f"{name}.attn", heads)
        normed = layer_norm(x, state, f"{name}.norm2")
        x = x + state[f"{name}.ls2.gamma"] * feed_forward(normed, state, f"{name}.mlp")
    return layer_norm(x, state, "norm")


@cache
def released(architecture: Architecture) -> dict[str, Tensor]:
    """Random weights on a table of 37 x 37 positions, as released; nothing is near 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    state = ViT(architecture, 3, (518, 518)).state_dict()
    for key, value in state.items():
        if key.endswith(".weight") and value.ndim > 1:
            value.normal_(0, 1.5 / math.sqrt(value[0].numel()), generator=generator)
        elif key.endswith("gamma") or "norm" in key:
            value.uniform_(0.3, 1.2, generator=generator)
        else:
            value.normal_(0, 0.5, generator=generator)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (98, 140)])
@pytest.mark.parametrize("name", ["vits14", "vits14_reg4"])
def test_features_equal_a_reference_of_dinov2(name, size, generator):
    """S/14 from its 37 x 37 table, interpolated at run time or at loading, off-square too."""
    state = released(ARCHITECTURES[name])
    image = torch.randn(3, *size, generator=generator)
    at_run_time = ViT(ARCHITECTURES[name], 3, (518, 518)).eval()
    load_strict(at_run_time, state, where="test")
    at_loading = ViT(ARCHITECTURES[name], 3, size).eval()
    resized = resize_position_embedding(
        state, at_loading.grid, PositionRecipe.DINOV2, registers=at_loading.prefix > 1
    )
    load_strict(at_loading, resized, where="test")

    with torch.no_grad():
        expected = reference_dinov2(state, image, heads=6).float()[None]
        for network in (at_run_time, at_loading):
            found = network.forward_features(image[None])
            torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=0)
            torch.testing.assert_close(network(image[None]), expected[:, 0], atol=FLOAT32, rtol=0)
    assert expected.std() > 0.3


@pytest.mark.parametrize("registers", [0, 4])
def test_gated_feed_forward_equals_the_reference(registers, generator):
    """A small giant, three blocks with gates: the same tokens."""
    small = Architecture(96, 3, 3, 14, registers, FeedForward.SWIGLU)
    state = released(small)
    network = ViT(small, 3, (518, 518)).eval()
    load_strict(network, state, where="test")
    image = torch.randn(3, 84, 126, generator=generator)

    with torch.no_grad():
        expected = reference_dinov2(state, image, heads=3).float()
        found = network.forward_features(image[None])[0]
    torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=0)


# ------------------------------------------------------------------------ all the sizes

# Embedding, blocks, parameters in millions (DINOv2's model card), width of a gated hidden layer.
SIZES = {
    "vits14": (384, 12, 22.06, 0),
    "vitb14": (768, 12, 86.58, 0),
    "vitl14": (1024, 24, 304.37, 0),
    "vitg14": (1536, 40, 1136.48, 4096),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("registers", ["", "_reg4"])
def test_architectures_have_the_shapes_of_dinov2(name, registers):
    """On no device: tensors, parameters and hidden width of S, B, L and g, and 4 registers."""
    width, depth, millions, hidden = SIZES[name]
    with torch.device("meta"):
        network = ViT(ARCHITECTURES[name + registers], 3, (518, 518))
    state = network.state_dict()

    assert depth * 14 + 6 + bool(registers) == len(state)
    assert (1, 1370, width) == tuple(state["pos_embed"].shape)
    assert millions == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, abs=0.02)
    if registers:
        assert (1, 4, width) == tuple(state["register_tokens"].shape)
        assert 5 == network.prefix
    if hidden:
        assert (2 * hidden, width) == tuple(state["blocks.39.mlp.w12.weight"].shape)
        assert (width, hidden) == tuple(state["blocks.39.mlp.w3.weight"].shape)


@pytest.mark.parametrize(("width", "hidden"), [(1536, 4096), (384, 1024), (96, 256), (40, 112)])
def test_gated_hidden_width(width, hidden):
    """Two thirds of 4 D, to the next multiple of 8: 106.67 becomes 112."""
    with torch.device("meta"):
        assert (width, hidden) == tuple(SwiGLU(width).w3.weight.shape)


def test_other_patch_sizes(generator):
    """The patch size is a plain field: 16 pixels cut 64 x 48 into 4 x 3."""
    network = ViT(Architecture(96, 2, 3, 16), 2, (64, 48)).eval()
    with torch.no_grad():
        tokens = network.forward_features(torch.randn(1, 2, 64, 48, generator=generator))
    assert ((4, 3), (1, 13, 96)) == (network.grid, tuple(tokens.shape))
    with pytest.raises(SpecMismatch, match="multiples of 16"):
        network(torch.zeros(1, 2, 56, 56))


# --------------------------------------------------------------------------- registers

WITH_REGISTERS = Architecture(96, 3, 3, 14, registers=4)


def with_registers(**options: object) -> ViT:
    """A small network with registers, every weight of which matters."""
    network = ViT(WITH_REGISTERS, 3, (56, 70), **options).eval()
    state = released(WITH_REGISTERS)
    load_strict(network, {**state, "pos_embed": state["pos_embed"][:, :21]}, where="test")
    return network


def test_registers_come_after_cls_and_are_never_dropped(generator):
    """All patches in any order give the dense CLS and registers; fewer leave both in place."""
    network = with_registers()
    pixels = images(generator, 3, (56, 70))
    order = torch.rand(3, 20, generator=generator).argsort(1)

    with torch.no_grad():
        dense, kept = network.forward_features(pixels), network.forward_features(pixels, order)
        few = network.forward_features(pixels, order[:, :6])
    torch.testing.assert_close(kept[:, :5], dense[:, :5], atol=FLOAT32, rtol=0)
    for i in range(3):
        torch.testing.assert_close(kept[i, 5:], dense[i, 5:][order[i]], atol=FLOAT32, rtol=0)
    assert ((3, 25, 96), (3, 11, 96)) == (tuple(dense.shape), tuple(few.shape))


def test_registers_are_in_neither_pooling_but_matter(generator):
    """CLS is the first token, the mean is over patches alone; both change with the registers."""
    pixels = images(generator, 3, (56, 70))
    for pooling in Pooling:
        network = with_registers(pooling=pooling)
        with torch.no_grad():
            tokens, vector = network.forward_features(pixels), network(pixels)
            expected = tokens[:, 0] if pooling is Pooling.CLS else tokens[:, 5:].mean(1)
            torch.testing.assert_close(vector, expected)
            network.register_tokens.normal_(0, 1, generator=generator)
            assert (network(pixels) - vector).abs().max() > 0.01


def test_registers_equal_timm(generator):
    """The same tokens as timm's S/14 with registers, which has CLS's position added to CLS."""
    network = ViT(ARCHITECTURES["vits14_reg4"], 3, (112, 112)).eval()
    state = released(ARCHITECTURES["vits14_reg4"])
    load_strict(network, {**state, "pos_embed": state["pos_embed"][:, :65]}, where="test")
    state = network.state_dict()
    theirs = {k: v for k, v in state.items() if k != "register_tokens"}
    theirs["reg_token"] = state["register_tokens"]
    theirs["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    theirs["pos_embed"] = state["pos_embed"][:, 1:]
    reference = timm.create_model(
        "vit_small_patch14_reg4_dinov2",
        img_size=112,
        num_classes=0,
        dynamic_img_size=True,
        weight_init="skip",
    ).eval()
    reference.load_state_dict(theirs, strict=True)

    with torch.no_grad():
        for size in ((112, 112), (70, 140)):  # also interpolated: by size in both
            pixels = torch.randn(2, 3, *size, generator=generator)
            expected = reference.forward_features(pixels)
            found = network.forward_features(pixels)
            torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=0)


# ------------------------------------------------------------------- intermediate layers


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("n", [1, 3, [0, 2], (2, 0)])
def test_intermediate_layers_equal_timm(n, norm, generator):
    """Patches and CLS of chosen blocks, normalised or not, as tokens or maps, in block order."""
    network = vit(size=(42, 70))
    pixels = images(generator, 3, (42, 70))
    reference = timm.create_model(
        "vit_tiny_patch16_224", img_size=(42, 70), patch_size=14, depth=6, num_classes=0,
        init_values=1.0,
    ).eval()  # fmt: skip
    reference.load_state_dict(network.state_dict(), strict=True)
    wanted = n if isinstance(n, int) else sorted(n)
    options = {"indices": wanted, "norm": norm, "intermediates_only": True}

    with torch.no_grad():
        theirs = reference.forward_intermediates(pixels, return_prefix_tokens=True, **options)
        maps = network.get_intermediate_layers(pixels, n, reshape=True, norm=norm)
        pairs = network.get_intermediate_layers(pixels, n, return_class_token=True, norm=norm)
    assert len(theirs) == len(maps) == len(pairs)
    for (expected, prefix), found, (patches, cls) in zip(theirs, maps, pairs, strict=True):
        torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=0)
        assert torch.equal(found.flatten(2).transpose(1, 2), patches)
        torch.testing.assert_close(cls, prefix[:, 0], atol=FLOAT32, rtol=0)


def test_the_last_intermediate_layer_is_the_features(generator):
    """With the final norm the last block gives the patch tokens, and no registers among them."""
    network = with_registers()
    pixels = images(generator, 3, (56, 70))
    with torch.no_grad():
        tokens = network.forward_features(pixels)
        ((patches, cls),) = network.get_intermediate_layers(pixels, 1, return_class_token=True)
        (maps,) = network.get_intermediate_layers(pixels, 1, reshape=True)
    assert torch.equal(tokens[:, 5:], patches)
    assert torch.equal(tokens[:, 0], cls)
    assert torch.equal(maps[:, :, 1, 3], tokens[:, 5 + 1 * 5 + 3])
    assert maps.is_contiguous()


@pytest.mark.parametrize("n", [0, 7, [], [6], [-1], [2, 2]])
def test_absent_layers_are_refused(n, generator):
    """As DINOv2 does: no blocks beyond the last, none counted from the end, none twice."""
    with pytest.raises(SpecError, match="indices from 0 to 5"):
        vit().get_intermediate_layers(images(generator), n)


# --------------------------------------------------------------------------- dropping


def slow_features(network: ViT, pixels: Tensor, keep: Tensor) -> Tensor:
    """Embed everything, add positions, pick the kept tokens image by image, run the blocks."""
    out = []
    for image, kept in zip(pixels, keep.tolist(), strict=True):
        grid = network.patch_embed.proj(image[None])[0]
        position = resample_abs_pos_embed(
            network.pos_embed, list(grid.shape[1:]), list(network.grid), num_prefix_tokens=1
        )[0]
        tokens = [network.cls_token[0, 0] + position[0]]
        for index in kept:
            row, column = divmod(index, grid.shape[2])
            tokens.append(grid[:, row, column] + position[1 + index])
        sequence = torch.stack(tokens)[None]
        for block in network.blocks:
            sequence = block(sequence)
        out.append(network.norm(sequence)[0])
    return torch.stack(out)


@pytest.mark.parametrize("size", [(56, 56), (42, 84)])
def test_dropping_tokens_equals_a_slow_version(size, generator):
    """Gathered patches, positions added before dropping, CLS always there: also off-square."""
    network = vit(channels=5, size=size)
    pixels = images(generator, 5, size)
    keep = torch.rand(3, network.tokens, generator=generator).argsort(1)[:, :7]

    with torch.no_grad():
        expected = slow_features(network, pixels, keep)
        torch.testing.assert_close(
            network.forward_features(pixels, keep), expected, atol=FLOAT32, rtol=0
        )
        torch.testing.assert_close(network(pixels, keep), expected[:, 0], atol=FLOAT32, rtol=0)
    assert (3, 8, 192) == tuple(expected.shape)


def test_dropping_tokens_at_another_size(generator):
    """Indices of a larger grid pick patches and interpolated positions of that grid."""
    network = vit(positions=PositionRecipe.TIMM)
    pixels = images(generator, 3, (84, 70))
    keep = torch.tensor([[29, 3], [0, 5], [17, 11]])

    with torch.no_grad():
        expected = slow_features(network, pixels, keep)
        torch.testing.assert_close(
            network.forward_features(pixels, keep), expected, atol=FLOAT32, rtol=0
        )


def test_keeping_everything_equals_not_dropping(generator):
    """Any order of all patches gives the dense CLS, and the dense tokens in that order."""
    network = vit()
    pixels = images(generator)
    order = torch.rand(3, 16, generator=generator).argsort(1)

    with torch.no_grad():
        dense, kept = network.forward_features(pixels), network.forward_features(pixels, order)
    torch.testing.assert_close(kept[:, 0], dense[:, 0], atol=FLOAT32, rtol=0)
    for i in range(3):
        torch.testing.assert_close(kept[i, 1:], dense[i, 1:][order[i]], atol=FLOAT32, rtol=0)


def test_dropped_patches_do_not_matter(generator):
    """Pixels under dropped patches have no influence and get no gradient; those kept have both."""
    network = vit()
    pixels = images(generator).requires_grad_()
    keep = torch.tensor([[0, 5], [3, 4], [15, 1]])
    network(pixels, keep).square().sum().backward()
    touched = pixels.grad.abs().amax(1).reshape(3, 4, 14, 4, 14).amax((2, 4)).flatten(1) > 0

    expected = torch.zeros(3, 16, dtype=torch.bool).scatter(1, keep, True)
    assert torch.equal(expected, touched)


def test_mean_pooling(generator):
    """With mean pooling the vector is the mean of the patch tokens seen, without CLS."""
    network = vit(pooling=Pooling.MEAN)
    pixels = images(generator)
    keep = torch.arange(6).expand(3, 6)

    with torch.no_grad():
        tokens = network.forward_features(pixels, keep)
        torch.testing.assert_close(network(pixels, keep), tokens[:, 1:].mean(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, generator):
    """Cast or under autocast, dense and dropped features stay near those of float32."""
    network = vit()
    pixels = images(generator)
    keep = torch.arange(6).expand(3, 6)
    cast = copy.deepcopy(network).to(dtype)

    with torch.no_grad():
        for kept in (None, keep):
            exact = network(pixels, kept)
            half = cast(pixels.to(dtype), kept)
            assert dtype == half.dtype
            torch.testing.assert_close(half.float(), exact, atol=0.1, rtol=0)
            with torch.autocast("cpu", dtype=dtype):
                torch.testing.assert_close(network(pixels, kept).float(), exact, atol=0.1, rtol=0)


def test_copies_are_equal_and_independent(generator):
    """Deep copy and pickle give the same features; changing the copy leaves the original."""
    network = vit()
    pixels = images(generator)
    twin = copy.deepcopy(network)
    thawed = pickle.loads(pickle.dumps(network))

    with torch.no_grad():
        expected = network(pixels)
        assert torch.equal(expected, twin(pixels))
        assert torch.equal(expected, thawed(pixels))
        twin.cls_token.add_(1)
        assert torch.equal(expected, network(pixels))


def test_the_seed_decides_the_weights_and_nothing_else_moves():
    """Same seed, same weights; another seed, others; the global random state is left alone."""
    before = torch.get_rng_state()
    one, again, other = vit(seed=1), vit(seed=1), vit(seed=2)

    assert torch.equal(before, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.pos_embed, other.pos_embed)
    assert not torch.equal(one.blocks[0].mlp.fc1.weight, other.blocks[0].mlp.fc1.weight)


def test_a_random_network_depends_on_its_image(generator):
    """Untrained CLS tokens differ between images: LayerScale at 1e-5 would make them all equal."""
    network = vit()
    starved = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in starved.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(1e-5)
        pixels = images(generator)
        spread, none = network(pixels).std(0).mean(), starved(pixels).std(0).mean()

    assert spread > 0.02
    assert none < 1e-3


def test_initial_weights_have_the_stated_distribution():
    """Linear maps have σ 0.02 and no bias; the input layer is uniform to ±1/sqrt(13·14²)."""
    network = vit(channels=13)
    conv = network.patch_embed.proj

    assert 0.02 == pytest.approx(network.blocks[3].mlp.fc2.weight.std().item(), rel=0.02)
    assert 0 == network.blocks[3].attn.qkv.bias.abs().max()
    assert 0.01981 == pytest.approx(conv.weight.abs().max().item(), abs=1e-5)
    assert 0.01981 == pytest.approx(conv.bias.abs().max().item(), rel=0.05)
    assert 0.02 == pytest.approx(network.pos_embed.std().item(), rel=0.05)


def test_refusals(generator):
    """An unknown name, a size of broken patches, and pixels of another shape are each explained."""
    with pytest.raises(WeightsError, match="vit-tiny-14, vits14, vitb14, vitl14, vitg14"):
        build_vit("vith14", 3, (56, 56), generator)
    with pytest.raises(SpecError, match="multiples of 14"):
        build_vit(TINY, 3, (64, 64), generator)
    with pytest.raises(SpecMismatch, match="another number of bands"):
        vit()(images(generator, 4))
    with pytest.raises(SpecMismatch, match="whole patches"):
        vit()(images(generator, 3, (56, 60)))


def test_a_blank_network_is_loaded_like_any_other() -> None:
    """Every tensor is there, of the right shape and kind, and NaN until it is filled."""
    drawn = vit(13, (28, 42))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    blank = blank_vit(TINY, 13, (28, 42))

    assert torch.equal(before, torch.get_rng_state())
    assert all(bool(p.isnan().all()) for p in blank.parameters())
    load_strict(blank, drawn.state_dict(), where="a test")
    pixels = torch.randn(2, 13, 28, 42)
    assert torch.equal(drawn(pixels), blank.eval()(pixels))
    with pytest.raises(WeightsError, match="vith14"):
        blank_vit("vith14", 3, (56, 56))
