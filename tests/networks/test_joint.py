"""One trunk for two sensors: what is shared, what is not, and that each leaves by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from eofm.errors import ConfigError, SpecMismatch
from eofm.method.masking import TokenTrunk
from eofm.networks.joint import JointTrunk, share_trunk
from eofm.networks.resnet import build_resnet
from eofm.networks.trunk import Trunk
from eofm.networks.vit import build_vit

SIZE = (56, 56)


def optical(generator: torch.Generator) -> Trunk:
    """A trunk for 13 bands."""
    return build_vit("vit-tiny-14", 13, SIZE, generator)


def radar(generator: torch.Generator) -> Trunk:
    """A trunk for 2 bands."""
    return build_vit("vit-tiny-14", 2, SIZE, generator)


@pytest.fixture
def joint(generator: torch.Generator) -> JointTrunk:
    """Both of them, sharing."""
    return share_trunk({"s2-l1c": optical(generator), "s1-grd": radar(generator)})


def test_all_but_the_input_layers_is_one(joint: JointTrunk, generator: torch.Generator) -> None:
    """The same tensors in memory; as many parameters as one trunk and one input layer."""
    first, second = joint.of("s2-l1c"), joint.of("s1-grd")
    theirs = dict(second.named_parameters())
    own = {n for n, p in first.named_parameters() if p is not theirs[n]}
    layer = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    count = sum(p.numel() for p in joint.parameters())
    alone = sum(p.numel() for p in optical(generator).parameters())
    extra = sum(p.numel() for p in radar(generator).patch_embed.proj.parameters())  # type: ignore[union-attr]

    assert layer == own
    assert alone + extra == count


def test_pixels_find_their_input_layer(joint: JointTrunk, generator: torch.Generator) -> None:
    """Thirteen bands and two give what the trunks give alone, with dropped tokens too."""
    many = torch.rand(2, 13, *SIZE, generator=generator)
    few = torch.rand(2, 2, *SIZE, generator=generator)
    keep = torch.tensor([[0, 3], [5, 8]])

    assert torch.equal(joint.of("s2-l1c")(many, keep), joint(many, keep))
    assert torch.equal(joint.of("s1-grd")(few), joint(few))


def test_each_teaches_the_other(joint: JointTrunk, generator: torch.Generator) -> None:
    """A step on radar moves the optical trunk's blocks, and leaves its input layer alone."""
    first = joint.of("s2-l1c")
    before = {name: p.clone() for name, p in first.named_parameters()}
    optimizer = torch.optim.SGD(joint.parameters(), 0.1)

    joint(torch.rand(2, 2, *SIZE, generator=generator)).square().mean().backward()
    optimizer.step()

    moved = {n for n, p in first.named_parameters() if not torch.equal(p, before[n])}
    assert "blocks.0.attn.qkv.weight" in moved
    assert "pos_embed" in moved
    assert not {n for n in moved if n.startswith("patch_embed")}


def test_a_copy_shares_within_itself(joint: JointTrunk) -> None:
    """The teacher is a copy: its two trunks share with one another, and not with the student."""
    other = copy.deepcopy(joint)
    block = other.of("s2-l1c").get_parameter("blocks.0.attn.qkv.weight")

    assert block is other.of("s1-grd").get_parameter("blocks.0.attn.qkv.weight")
    assert block is not joint.of("s2-l1c").get_parameter("blocks.0.attn.qkv.weight")


def test_a_trunk_leaves_whole(joint: JointTrunk, generator: torch.Generator) -> None:
    """What one sensor's trunk saves is a plain trunk, which gives the same vectors."""
    alone = radar(torch.Generator().manual_seed(9))
    alone.load_state_dict(joint.of("s1-grd").state_dict())
    few = torch.rand(2, 2, *SIZE, generator=generator)

    assert torch.equal(alone(few), joint(few))


def test_a_checkpoint_of_both_loads_and_still_shares(joint: JointTrunk) -> None:
    """Saving and loading keeps the values, and the sharing of what they are loaded into."""
    twin = share_trunk(
        {
            "s2-l1c": optical(torch.Generator().manual_seed(5)),
            "s1-grd": radar(torch.Generator().manual_seed(6)),
        }
    )

    twin.load_state_dict(joint.state_dict())

    state, mine = twin.state_dict(), joint.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in state.items())
    assert twin.of("s2-l1c").get_submodule("blocks") is twin.of("s1-grd").get_submodule("blocks")


def test_a_resnet_shares_all_but_its_first_convolution(generator: torch.Generator) -> None:
    """The same for a network whose input layer stands at the top."""
    both = share_trunk(
        {
            "s2-l1c": build_resnet("resnet18", 13, (64, 64), generator),
            "s1-grd": build_resnet("resnet18", 2, (64, 64), generator),
        }
    )
    first, second = both.of("s2-l1c"), both.of("s1-grd")

    assert first.get_submodule("bn1") is second.get_submodule("bn1")
    assert first.get_submodule("layer4") is second.get_submodule("layer4")
    assert first.get_submodule("conv1") is not second.get_submodule("conv1")
    assert 32 == both.block
    assert not both.drops_tokens


def test_equal_band_counts_are_refused(generator: torch.Generator) -> None:
    """Pixels could not find their way."""
    with pytest.raises(ConfigError, match="a: 2, b: 2"):
        share_trunk({"a": radar(generator), "b": radar(generator)})
    with pytest.raises(ConfigError, match="two sensors or more"):
        share_trunk({"a": radar(generator)})


def test_trunks_of_different_kinds_are_refused(generator: torch.Generator) -> None:
    """A transformer and a ResNet have nothing to share."""
    resnet = build_resnet("resnet18", 2, (64, 64), generator)
    with pytest.raises(ConfigError, match="of one kind"):
        share_trunk({"a": optical(generator), "b": resnet})


def test_foreign_pixels_are_refused(joint: JointTrunk) -> None:
    """A third number of bands belongs to no sensor, and an unknown name to none either."""
    with pytest.raises(SpecMismatch, match=r"13 \(s2-l1c\), 2 \(s1-grd\)"):
        joint(torch.zeros(1, 3, *SIZE))
    with pytest.raises(ConfigError, match="no input layer for this sensor"):
        joint.of("s2-l2a")


def test_it_is_a_module_the_method_takes(joint: JointTrunk) -> None:
    """Width, patches and their side are those of its trunks."""
    assert isinstance(joint, nn.Module)
    assert (192, 16, 14, True) == (joint.dim, joint.tokens, joint.block, joint.drops_tokens)


def test_tokens_are_those_of_the_sensor(joint: JointTrunk, generator: torch.Generator) -> None:
    """What a term of reconstruction asks of a trunk, for either sensor: tokens, bands and grid."""
    keep = torch.tensor([[3, 0, 7]])
    for trunk in (joint.of("s2-l1c"), joint.of("s1-grd")):
        pixels = torch.rand(1, trunk.channels, *SIZE, generator=generator)
        for kept in (None, keep):
            expected = trunk.forward_features(pixels, kept)
            assert expected.equal(joint.forward_features(pixels, kept))

    assert (13, 2) == joint.channels
    assert isinstance(joint, TokenTrunk)
    first = joint.of("s2-l1c")
    assert (first.grid, first.prefix, first.pooling) == (joint.grid, joint.prefix, joint.pooling)
    with pytest.raises(SpecMismatch, match="this number of bands"):
        joint.forward_features(torch.rand(1, 5, *SIZE))
