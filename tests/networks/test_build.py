"""From a name to a network: every kind, with the recipe's bands, size and pooling; devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import SENSOR_BANDS, Normalization, Sensor, Unit
from eofm.errors import SpecError, WeightsError
from eofm.networks.build import BUILDERS, build, default_pooling
from eofm.networks.resnet import ResNet
from eofm.networks.state import PositionRecipe
from eofm.networks.timm import TimmTrunk
from eofm.networks.vit import ARCHITECTURES, ViT, find_architecture

BANDS = SENSOR_BANDS[Sensor.S1_GRD]


def recipe(pooling: Pooling) -> Recipe:
    """Two bands, off-square."""
    return Recipe(
        sensor=Sensor.S1_GRD,
        bands=BANDS,
        unit=Unit.DB,
        size=(56, 112),
        normalization=Normalization.zscore(mean=(-12.0, -19.0), std=(4.0, 5.0), source="test"),
        pooling=pooling,
    )


@pytest.mark.parametrize(
    ("name", "kind", "pooling"),
    [
        ("vit-tiny-14", ViT, Pooling.CLS),
        ("vits14_reg4", ViT, Pooling.MEAN),
        ("resnet18", ResNet, Pooling.MEAN),
        ("timm:resnet18", TimmTrunk, Pooling.MEAN),
        ("timm:eva02_tiny_patch14_224", TimmTrunk, Pooling.CLS),
    ],
)
def test_every_kind_follows_the_recipe(name, kind, pooling):
    """Bands, pooling and size are the recipe's, and the same seed gives the same network."""
    wanted = recipe(pooling)
    one, same = (build(name, wanted, torch.Generator().manual_seed(3)) for _ in range(2))

    assert isinstance(one, kind)
    assert (2, (56, 112), pooling) == (one.channels, one.size, one.pooling)
    assert 2 == one.get_parameter(f"{one.input_layer}.weight").shape[1]
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    with torch.no_grad():
        assert (1, one.dim) == tuple(one.eval()(torch.zeros(1, 2, 56, 112)).shape)


def test_positions_reach_the_vit():
    """How positions are interpolated is the caller's choice."""
    vit = build("vit-tiny-14", recipe(Pooling.CLS), torch.Generator(), PositionRecipe.TIMM)
    assert isinstance(vit, ViT)
    assert PositionRecipe.TIMM is vit.positions


def test_a_size_the_network_does_not_take():
    """56 x 112 pixels are no whole patches of 16."""
    with pytest.raises(SpecError, match="images of this size"):
        build("timm:vit_tiny_patch16_224", recipe(Pooling.CLS), torch.Generator())


def test_unknown_names_list_what_there_is():
    """The error names every architecture, and that timm's go by a prefix."""
    with pytest.raises(WeightsError) as caught:
        build("vit-huge", recipe(Pooling.CLS), torch.Generator())
    assert {*ARCHITECTURES, "resnet18", "resnet50"} <= set(BUILDERS)
    for name in (*BUILDERS, "timm:"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("vit-small-14", "did you mean vits14?"),
        ("ViT-B/14", "did you mean vitb14?"),
        ("dinov2_vits14_reg", "did you mean vits14_reg4?"),
        ("ResNet-18", "did you mean resnet18?"),
        ("vit_tiny_patch16_224", "write timm:vit_tiny_patch16_224"),
        ("vitl16", None),
    ],
)
def test_other_names_of_an_architecture_have_a_remedy(name: str, remedy: str | None) -> None:
    """Those of papers, of torch.hub and of timm; the remedy names a network that can be built."""
    with pytest.raises(WeightsError, match="no architecture") as caught:
        build(name, recipe(Pooling.CLS), torch.Generator())

    assert remedy == caught.value.remedy
    if remedy is not None:
        named = remedy.rstrip("?").rpartition(" ")[2]
        size = (224, 224) if named.startswith("timm:") else (56, 112)
        pooling = Pooling.MEAN if named.startswith("resnet") else Pooling.CLS
        wanted = replace(recipe(pooling), size=size)
        assert named in BUILDERS or build(named, wanted, torch.Generator()) is not None


def test_a_vit_of_fewer_blocks_is_the_start_of_the_whole_one():
    """With the weights of the whole one it gives what leaves that one's block, without a norm."""
    wanted = recipe(Pooling.MEAN)
    whole = build("vit-tiny-14", wanted, torch.Generator().manual_seed(3)).eval()
    cut = build("vit-tiny-14-4blocks", wanted, torch.Generator().manual_seed(4)).eval()
    shared = {key: whole.state_dict()[key] for key in cut.state_dict()}
    cut.load_state_dict(shared)
    pixels = torch.rand(2, 2, 56, 112, generator=torch.Generator().manual_seed(5))

    with torch.no_grad():
        (expected,) = whole.get_intermediate_layers(pixels, [3], norm=False)
        assert torch.equal(expected.mean(dim=1), cut(pixels))
    assert (4, 5) == (cut.depth, cut.layer_of("blocks.3.mlp.fc1.weight") + 1)
    assert not any(key.startswith("norm.") for key in shared)
    assert Pooling.MEAN is default_pooling("vit-tiny-14-4blocks")
    assert Pooling.CLS is default_pooling("vit-tiny-14")


@pytest.mark.parametrize(
    "name", ["vits14-0blocks", "vits14-12blocks", "vits14-blocks", "resnet18-2blocks", "vits14-7"]
)
def test_no_other_number_of_blocks_is_a_network(name):
    """As many blocks as there are, or more, or none, is no cut: the name is refused."""
    assert find_architecture(name) is None
    with pytest.raises(WeightsError, match=r"no architecture.*"):
        build(name, recipe(Pooling.MEAN), torch.Generator())
