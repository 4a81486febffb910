"""The vision transformer against timm, and its token dropping against a slow version."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from eofm.errors import SpecError, SpecMismatch, WeightsError
from eofm.models.adapt import PositionRecipe
from eofm.models.vit import ARCHITECTURES, ViT, build_vit
from eofm.recipe import Pooling

TINY = "vit-tiny-14"


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
        ("vitb14", "vit_base_patch14_dinov2", 2),
    ],
)
def test_features_equal_timm(ours, theirs, channels, generator):
    """The same weights load into timm by name, strictly, and give the same tokens and CLS."""
    size = (112, 112)
    network = build_vit(ours, channels, size, generator).eval()
    with torch.no_grad():  # LayerScale at its start is 1 everywhere, which would hide it
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.1, 2, generator=generator)
    reference = timm.create_model(theirs, img_size=112, in_chans=channels, num_classes=0).eval()
    reference.load_state_dict(network.state_dict(), strict=True)
    pixels = torch.randn(2, channels, *size, generator=generator)

    with torch.no_grad():
        tokens, expected = network.forward_features(pixels), reference.forward_features(pixels)
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(network(pixels), reference(pixels), atol=1e-5, rtol=0)
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
        "vit_small_patch14_dinov2", img_size=56, num_classes=0, dynamic_img_size=True
    ).eval()
    reference.load_state_dict(network.state_dict())
    pixels = torch.randn(1, 3, 84, 42, generator=generator)

    with torch.no_grad():
        expected = reference.forward_features(pixels)
        torch.testing.assert_close(network.forward_features(pixels), expected, atol=1e-5, rtol=0)


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
            network.forward_features(pixels, keep), expected, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(network(pixels, keep), expected[:, 0], atol=1e-5, rtol=0)
    assert (3, 8, 192) == tuple(expected.shape)


def test_dropping_tokens_at_another_size(generator):
    """Indices of a larger grid pick patches and interpolated positions of that grid."""
    network = vit(positions=PositionRecipe.TIMM)
    pixels = images(generator, 3, (84, 70))
    keep = torch.tensor([[29, 3], [0, 5], [17, 11]])

    with torch.no_grad():
        expected = slow_features(network, pixels, keep)
        torch.testing.assert_close(
            network.forward_features(pixels, keep), expected, atol=1e-5, rtol=0
        )


def test_keeping_everything_equals_not_dropping(generator):
    """Any order of all patches gives the dense CLS, and the dense tokens in that order."""
    network = vit()
    pixels = images(generator)
    order = torch.rand(3, 16, generator=generator).argsort(1)

    with torch.no_grad():
        dense, kept = network.forward_features(pixels), network.forward_features(pixels, order)
    torch.testing.assert_close(kept[:, 0], dense[:, 0], atol=1e-5, rtol=0)
    for i in range(3):
        torch.testing.assert_close(kept[i, 1:], dense[i, 1:][order[i]], atol=1e-5, rtol=0)


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
    with pytest.raises(WeightsError, match=", ".join(ARCHITECTURES)):
        build_vit("vitl14", 3, (56, 56), generator)
    with pytest.raises(SpecError, match="multiples of 14"):
        build_vit(TINY, 3, (64, 64), generator)
    with pytest.raises(SpecMismatch, match="another number of bands"):
        vit()(images(generator, 4))
    with pytest.raises(SpecMismatch, match="whole patches"):
        vit()(images(generator, 3, (56, 60)))
