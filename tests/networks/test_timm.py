"""timm's networks as trunks: the same features by name, tokens dropped with their positions."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.errors import SpecError, SpecMismatch, WeightsError
from eofm.networks.timm import TimmTrunk, build_timm, default_pooling, layout_of

DINOV3 = "timm:vit_tiny_patch16_dinov3_qkvb"  # the smallest with DINOv3's rotary positions
SIZE = (64, 96)


def trunk(name: str = DINOV3, channels: int = 3, pooling: Pooling = Pooling.CLS) -> TimmTrunk:
    """A network in evaluation mode whose every weight matters."""
    generator = torch.Generator().manual_seed(0)
    network = build_timm(name, channels, SIZE, generator, pooling=pooling).eval()
    with torch.no_grad():  # scales and positions at their start would hide what is done with them
        for key, parameter in network.named_parameters():
            if key.endswith((".gamma", ".gamma_1", ".gamma_2")):
                parameter.uniform_(0.2, 1, generator=generator)
            if "token" in key or "pos_embed" in key:
                parameter.normal_(0, 1, generator=generator)
    return network


def pixels(generator: torch.Generator, channels: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    """Two random images."""
    return torch.randn(2, channels, *size, generator=generator)


@pytest.mark.parametrize(
    ("name", "options", "prefix", "grid"),
    [
        ("vit_tiny_patch16_dinov3_qkvb", {"img_size": SIZE}, 5, (4, 6)),
        ("vit_tiny_patch16_224", {"img_size": SIZE}, 1, (4, 6)),
        ("deit_tiny_distilled_patch16_224", {"img_size": SIZE}, 2, (4, 6)),
        ("eva02_tiny_patch14_224", {"img_size": (56, 84)}, 1, (4, 6)),
        ("resnet18", {}, 0, (2, 3)),
        ("convnext_atto", {}, 0, (2, 3)),
        ("swin_tiny_patch4_window7_224", {"img_size": SIZE}, 0, (2, 3)),
    ],
)
def test_features_equal_timm(name, options, prefix, grid, generator):
    """The network's own tensors load into timm strictly and give the same tokens and vector."""
    size = options.get("img_size", SIZE)
    size = (size, size) if isinstance(size, int) else size
    pooling = default_pooling(name)
    network = build_timm(f"timm:{name}", 4, size, generator, pooling=pooling).eval()
    reference = timm.create_model(
        name,
        in_chans=4,
        num_classes=0,
        **options,
        **({"global_pool": "token"} if "dinov3" in name else {}),
    ).eval()
    theirs = {k.removeprefix("model."): v for k, v in network.state_dict().items()}
    reference.load_state_dict(theirs, strict=True)
    images = pixels(generator, 4, size)

    with torch.no_grad():
        features = reference.forward_features(images)
        if features.ndim == 4:  # (B, D, rows, columns), or (B, rows, columns, D)
            last = features.shape[-1] == network.dim
            features = features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
        torch.testing.assert_close(network.forward_features(images), features, atol=1e-5, rtol=0)
        pooled = features[:, 0] if pooling is Pooling.CLS else None
        if pooled is not None and "eva" not in name:  # eva02 normalises after pooling
            torch.testing.assert_close(network(images), pooled, atol=1e-5, rtol=0)
        if "eva" not in name and "distilled" not in name:
            torch.testing.assert_close(network(images), reference(images), atol=1e-5, rtol=0)
    assert (prefix, grid) == (network.prefix, network.grid)
    assert (2, prefix + grid[0] * grid[1], network.dim) == tuple(features.shape)
    assert 4 == network.get_parameter(f"{network.input_layer}.weight").shape[1]


def test_norm_after_pooling_is_timms(generator):
    """Where timm normalises after pooling (EVA-02), so does the vector; CLS and mean differ."""
    images = pixels(generator, 3, (56, 84))
    for pooling, name in ((Pooling.CLS, "token"), (Pooling.MEAN, "avg")):
        network = build_timm(
            "timm:eva02_tiny_patch14_224", 3, (56, 84), generator, pooling=pooling
        ).eval()
        model = network.model
        with torch.no_grad():
            tokens = model.forward_features(images)
            pooled = tokens[:, 0] if name == "token" else tokens[:, 1:].mean(1)
            torch.testing.assert_close(network(images), model.fc_norm(pooled), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name",
    [DINOV3, "timm:vit_tiny_patch16_224", "timm:vit_small_patch16_rope_mixed_224"],
)
def test_keeping_everything_in_any_order_equals_not_dropping(name, generator):
    """All patches, permuted, give the dense CLS and the dense tokens permuted: rotary too."""
    network = trunk(name)
    images = pixels(generator)
    order = torch.rand(2, network.tokens, generator=generator).argsort(1)
    identity = torch.arange(network.tokens).expand(2, -1)

    with torch.no_grad():
        dense = network.forward_features(images)
        torch.testing.assert_close(
            network.forward_features(images, identity), dense, atol=1e-5, rtol=0
        )
        kept = network.forward_features(images, order)
        torch.testing.assert_close(network(images, order), network(images), atol=1e-5, rtol=0)
    p = network.prefix
    torch.testing.assert_close(kept[:, :p], dense[:, :p], atol=1e-5, rtol=0)
    expected = torch.stack([dense[i, p:][order[i]] for i in range(2)])
    torch.testing.assert_close(kept[:, p:], expected, atol=1e-5, rtol=0)
    assert (dense[:, p:] - kept[:, p:]).abs().max() > 0.1


def test_kept_tokens_keep_their_rotary_positions(generator):
    """Kept patches give the same as a mask that hides the others from every attention."""
    network = trunk()
    images = pixels(generator)
    keep = torch.tensor([[0, 7, 13, 22], [5, 3, 20, 1]])
    hidden = torch.ones(2, network.prefix + network.tokens, dtype=torch.bool)
    for i in range(2):
        hidden[i, network.prefix + keep[i]] = False
    hidden[:, : network.prefix] = False
    mask = torch.zeros(2, 1, 1, hidden.shape[1]).masked_fill(hidden[:, None, None], -torch.inf)

    with torch.no_grad():
        model = network.model
        tokens, rope = model._pos_embed(model.patch_embed(images))
        for block in model.blocks:
            tokens = block(tokens, rope=rope, attn_mask=mask)
        tokens = model.norm(tokens)
        found = network.forward_features(images, keep)
    p = network.prefix
    expected = torch.stack([tokens[i, p:][keep[i]] for i in range(2)])
    torch.testing.assert_close(found[:, p:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, :p], tokens[:, :p], atol=1e-5, rtol=0)


def test_dropped_patches_do_not_matter(generator):
    """Pixels under dropped patches have no influence on the vector; those kept have."""
    network = trunk()
    images = pixels(generator).requires_grad_()
    keep = torch.tensor([[0, 5], [23, 4]])
    network(images, keep).square().sum().backward()
    seen = images.grad.abs().amax(1).reshape(2, 4, 16, 6, 16).amax((2, 4)).flatten(1) > 0

    expected = torch.zeros(2, 24, dtype=torch.bool).scatter(1, keep, True)
    assert torch.equal(expected, seen)


@pytest.mark.parametrize("name", [DINOV3, "timm:vit_tiny_patch16_224", "timm:convnext_atto"])
def test_other_sizes(name, generator):
    """Images of another size give what a network built for it gives with the same tensors."""
    network = trunk(name, pooling=default_pooling(name))
    if "vit_tiny_patch16_224" in name:
        with pytest.raises(SpecMismatch, match="whole patches"):
            network(pixels(generator, 3, (64, 100)))
    if "dinov3" in name or "convnext" in name:  # no table of positions: nothing to interpolate
        twin = build_timm(name, 3, (96, 64), generator, pooling=network.pooling).eval()
        twin.load_state_dict(network.state_dict())
        images = pixels(generator, 3, (96, 64))
        with torch.no_grad():
            torch.testing.assert_close(network(images), twin(images), atol=1e-5, rtol=0)
    with torch.no_grad():
        tokens = network.forward_features(pixels(generator, 3, (128, 96)))
    side = SIZE[0] // network.grid[0]
    assert network.prefix + 128 * 96 // side**2 == tokens.shape[1]


def test_intermediate_layers_equal_timm(generator):
    """Blocks by number or from the end, as tokens or maps, with CLS, normalised or not."""
    network = trunk()
    images = pixels(generator)
    options = {"indices": [2, 11], "intermediates_only": True, "return_prefix_tokens": True}

    with torch.no_grad():
        for norm in (True, False):
            theirs = network.model.forward_intermediates(images, norm=norm, **options)
            ours = network.get_intermediate_layers(
                images, [11, 2], reshape=True, return_class_token=True, norm=norm
            )
            for (maps, cls), (expected, prefix) in zip(ours, theirs, strict=True):
                assert torch.equal(expected, maps)
                assert torch.equal(prefix[:, 0], cls)
        last = network.get_intermediate_layers(images, 2)
        dense = network.forward_features(images)
    assert 2 == len(last)
    torch.testing.assert_close(last[1], dense[:, network.prefix :], atol=1e-5, rtol=0)


def test_intermediate_layers_of_a_convolutional_network(generator):
    """Stem and stages of a ResNet as maps or row by row; no CLS token, no sixth layer."""
    network = trunk("timm:resnet18", pooling=Pooling.MEAN)
    images = pixels(generator)
    with torch.no_grad():
        maps = network.get_intermediate_layers(images, 5, reshape=True)
        rows = network.get_intermediate_layers(images, [4])
    assert [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)] == [tuple(m.shape[2:]) for m in maps]
    assert torch.equal(maps[4][:, :, 1, 2], rows[0][:, 5])
    with pytest.raises(SpecError, match="no CLS token"):
        network.get_intermediate_layers(images, 1, return_class_token=True)
    with pytest.raises(SpecError, match="no such layers"):
        network.get_intermediate_layers(images, 6)


@pytest.mark.parametrize(
    ("name", "depth", "first", "last"),
    [
        (DINOV3, 12, "model.cls_token", "model.norm.weight"),
        ("timm:vit_small_patch16_rope_mixed_224", 12, "model.rope.freqs", "model.norm.bias"),
    ],
)
def test_layers_are_numbered_by_depth(name, depth, first, last):
    """0 before the blocks, block k at k + 1, the final norm behind them, nothing unnumbered."""
    network = trunk(name)
    numbers = {key: network.layer_of(key) for key, _ in network.named_parameters()}

    assert depth == network.depth
    assert (0, depth + 1) == (numbers[first], numbers[last])
    assert 0 == numbers["model.patch_embed.proj.weight"]
    for key, number in numbers.items():
        if key.startswith("model.blocks."):
            assert number == int(key.split(".")[2]) + 1, key


def test_the_seed_decides_the_weights_and_nothing_else_moves():
    """Same seed, same weights; another seed, others; the global random state is left alone."""
    before = torch.get_rng_state()
    one, again, other = (
        build_timm("timm:resnet18", 2, SIZE, torch.Generator().manual_seed(s), pooling=Pooling.MEAN)
        for s in (1, 1, 2)
    )

    assert torch.equal(before, torch.get_rng_state())
    for key, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(one.model.conv1.weight, other.model.conv1.weight)


def test_a_random_dinov3_depends_on_its_image(generator):
    """LayerScale starts at 1 here: at timm's 1e-5 the untrained CLS is the same for all images."""
    network = build_timm(DINOV3, 3, SIZE, generator).eval()
    starved = copy.deepcopy(network)
    with torch.no_grad():
        for key, parameter in starved.named_parameters():
            if key.endswith(("gamma_1", "gamma_2")):
                parameter.fill_(1e-5)
        images = pixels(generator)
        spread, none = network(images).std(0).mean(), starved(images).std(0).mean()
    assert spread > 0.05
    assert none < 0.005


def test_copies_and_training_mode(generator):
    """A pickled twin is equal; building leaves a network in training mode as torch does."""
    network = build_timm("timm:resnet18", 3, SIZE, generator, pooling=Pooling.MEAN)
    assert network.training
    assert network.model.bn1.training
    assert 0 == network.model.bn1.num_batches_tracked
    twin = pickle.loads(pickle.dumps(network.eval()))
    images = pixels(generator)
    with torch.no_grad():
        assert torch.equal(network(images), twin(images))


def test_refusals(generator):
    """Unknown names with the nearest ones, CLS where there is none, sizes, bands, dropping."""
    with pytest.raises(WeightsError, match="vit_small_patch16_dinov3"):
        build_timm("timm:vit_small_patch16_dinov33", 3, SIZE, generator)
    with pytest.raises(WeightsError, match="has no network 'hf-hub:a/b'"):
        build_timm("timm:hf-hub:a/b", 3, SIZE, generator)
    with pytest.raises(SpecError, match="no CLS token"):
        build_timm("timm:resnet18", 3, SIZE, generator)
    with pytest.raises(SpecError, match="images of this size"):
        build_timm("timm:vit_tiny_patch16_224", 3, (60, 60), generator)
    with pytest.raises(WeightsError, match="differ in width"):
        build_timm("timm:mobilenetv3_small_100", 3, SIZE, generator, pooling=Pooling.MEAN)
    resnet = trunk("timm:resnet18", pooling=Pooling.MEAN)
    assert not resnet.drops_tokens
    with pytest.raises(SpecError, match="cannot leave patches out"):
        resnet(pixels(generator), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(SpecMismatch, match="another number of bands"):
        resnet(pixels(generator, 4))
    swin = trunk("timm:swin_tiny_patch4_window7_224", pooling=Pooling.MEAN)
    with pytest.raises(SpecMismatch, match="one size"):
        swin(torch.zeros(1, 3, 256, 256))


def test_features_of_no_known_shape(generator):
    """Features that are neither tokens of a grid nor a map are not guessed at."""
    model = trunk("timm:vit_tiny_patch16_224").model
    with pytest.raises(WeightsError, match="neither tokens nor a map"):
        layout_of(model, "odd", torch.zeros(1, 24, 192), (64, 96))
    with pytest.raises(WeightsError, match="neither tokens nor a map"):
        layout_of(model, "odd", torch.zeros(1, 192), (64, 96))
