"""The ResNet against torchvision and timm: names, features, stages."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.errors import SpecError, SpecMismatch, WeightsError
from eofm.networks.resnet import ResNet, build_resnet

SIZE = (64, 96)


def resnet(name: str = "resnet18", channels: int = 3, seed: int = 0) -> ResNet:
    """A network in evaluation mode whose running statistics are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    network = build_resnet(name, channels, SIZE, generator).eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1, generator=generator)
        if key.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
    return network


def pixels(generator: torch.Generator, channels: int = 3) -> Tensor:
    """Two random images."""
    return torch.randn(2, channels, *SIZE, generator=generator)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_features_equal_torchvision(name, generator):
    """The same tensors load into torchvision strictly but for fc, and give the same vector."""
    network = resnet(name)
    reference = getattr(torchvision.models, name)(weights=None).eval()
    reference.fc = torch.nn.Identity()
    reference.load_state_dict(network.state_dict(), strict=True)
    images = pixels(generator)

    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images), atol=1e-5, rtol=1e-5)
    assert network(images).std() > 0.01


@pytest.mark.parametrize(
    ("channels", "total"), [(13, 23_539_392), pytest.param(2, 23_504_896, marks=pytest.mark.slow)]
)
def test_resnet50_for_other_bands(channels, total, generator):
    """conv1 takes C bands, and the rest is timm's: same names, same features, no classifier."""
    network = resnet("resnet50", channels)
    reference = timm.create_model("resnet50", in_chans=channels, num_classes=0).eval()
    reference.load_state_dict(network.state_dict(), strict=True)
    images = pixels(generator, channels)

    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images), atol=1e-5, rtol=1e-5)
    state = network.state_dict()
    assert 318 == len(state)
    assert (64, channels, 7, 7) == tuple(state[f"{network.input_layer}.weight"].shape)
    assert total == sum(p.numel() for p in network.parameters())
    assert 2048 == network.dim


def test_tokens_are_the_last_map_row_by_row(generator):
    """Tokens are cells of the last map in reading order, and their mean is the vector."""
    network = resnet()
    images = pixels(generator)
    with torch.no_grad():
        tokens, vector = network.forward_features(images), network(images)
        (last,) = network.get_intermediate_layers(images, 1, reshape=True)
    assert (2, 6, 512) == tuple(tokens.shape)
    assert ((2, 3), 6, 0) == (network.grid, network.tokens, network.prefix)
    for row in range(2):
        for column in range(3):
            assert torch.equal(last[:, :, row, column], tokens[:, row * 3 + column])
    torch.testing.assert_close(tokens.mean(1), vector)


@pytest.mark.parametrize("size", [(33, 64), (120, 120), (224, 200), (31, 97)])
def test_any_size_has_the_stated_grid(size):
    """The grid is the size over 32, rounded up, as padding makes it: for odd sizes too."""
    network = build_resnet("resnet18", 2, size, torch.Generator()).eval()
    with torch.no_grad():
        (last,) = network.get_intermediate_layers(torch.zeros(1, 2, *size), 1, reshape=True)
    assert network.grid == tuple(last.shape[2:])


def test_intermediate_layers_are_the_stages_of_timm(generator):
    """Stages 0 to 3 at strides 4 to 32, by number or from the end, equal timm's intermediates."""
    network = resnet()
    reference = timm.create_model("resnet18", num_classes=0).eval()
    reference.load_state_dict(network.state_dict())
    images = pixels(generator)

    with torch.no_grad():
        theirs = reference.forward_intermediates(images, indices=4, intermediates_only=True)
        ours = network.get_intermediate_layers(images, range(4), reshape=True)
        two = network.get_intermediate_layers(images, 2)
    assert [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)] == [
        tuple(m.shape[1:]) for m in ours
    ]
    for expected, found in zip(theirs, ours, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(ours[2].flatten(2).transpose(1, 2), two[0])


def test_layers_are_numbered_by_stage():
    """The stem is 0, stage k is k + 1; there is nothing behind the last stage."""
    network = resnet()
    numbers = {key: network.layer_of(key) for key, _ in network.named_parameters()}
    assert 4 == network.depth
    assert (0, 0) == (numbers["conv1.weight"], numbers["bn1.bias"])
    assert {1, 2, 3, 4} == {v for k, v in numbers.items() if k.startswith("layer")}
    assert 3 == numbers["layer3.1.conv2.weight"]


def test_the_seed_decides_the_weights_and_nothing_else_moves():
    """Same seed, same weights; another seed, others; the global random state is left alone."""
    before = torch.get_rng_state()
    one, again, other = (build_resnet("resnet18", 3, SIZE, seeded(s)) for s in (1, 1, 2))

    assert torch.equal(before, torch.get_rng_state())
    for key, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


def seeded(seed: int) -> torch.Generator:
    """A source of randomness of its own."""
    return torch.Generator().manual_seed(seed)


def test_no_branch_starts_at_zero():
    """Every scale of a batch norm starts at 1: a random control uses all of its convolutions."""
    network = build_resnet("resnet50", 3, SIZE, seeded(0))
    scales = [m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert 53 == len(scales)
    assert all(bool((s == 1).all()) for s in scales)


def test_copies_are_equal(generator):
    """Deep copy and pickle give the same features."""
    network = resnet()
    images = pixels(generator)
    with torch.no_grad():
        expected = network(images)
        assert torch.equal(expected, copy.deepcopy(network)(images))
        assert torch.equal(expected, pickle.loads(pickle.dumps(network))(images))


def test_refusals(generator):
    """An unknown name, CLS pooling, dropping tokens, other bands, absent layers: each explained."""
    network = resnet()
    with pytest.raises(WeightsError, match="resnet18, resnet50"):
        build_resnet("resnet34", 3, SIZE, generator)
    with pytest.raises(SpecError, match="no CLS token"):
        build_resnet("resnet50", 3, SIZE, generator, pooling=Pooling.CLS)
    assert not network.drops_tokens
    keep = torch.zeros(2, 1, dtype=torch.int64)
    for call in (network, network.forward_features):
        with pytest.raises(SpecError, match="cannot leave patches out"):
            call(pixels(generator), keep)
    with pytest.raises(SpecMismatch, match="another number of bands"):
        network(pixels(generator, 4))
    with pytest.raises(SpecError, match="no CLS token"):
        network.get_intermediate_layers(pixels(generator), 1, return_class_token=True)
    for n in (0, 5, [-1], [4], [1, 1], []):
        with pytest.raises(SpecError, match="no such layers"):
            network.get_intermediate_layers(pixels(generator), n)
