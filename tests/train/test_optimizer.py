"""Each layer has its pace, and decay spares what has a meaning of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from eofm.networks.resnet import build_resnet
from eofm.networks.trunk import Trunk
from eofm.networks.vit import build_vit
from eofm.train.optimizer import ParameterRate, parameter_groups, parameter_rates


def test_decay_spares_biases_norms_and_tables() -> None:
    """Only matrices decay: no bias, norm, LayerScale, CLS or position; frozen ones are left out."""
    vit = build_vit("vit-tiny-14", 2, (28, 28), torch.Generator().manual_seed(0))
    frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    named = dict(vit.named_parameters())

    decayed, exempt = parameter_groups([*named.items(), ("frozen", frozen)], 0.1)

    def names(group: dict) -> set[str]:
        return {name for name, p in named.items() if any(p is q for q in group["params"])}

    assert (0.1, 0.0) == (decayed["weight_decay"], exempt["weight_decay"])
    assert {"cls_token", "pos_embed", "blocks.0.ls1.gamma", "norm.weight"} <= names(exempt)
    assert {"blocks.0.attn.qkv.weight", "patch_embed.proj.weight"} <= names(decayed)
    assert set(named) == names(decayed) | names(exempt)
    assert not names(decayed) & names(exempt)
    assert all(named[name].ndim > 1 for name in names(decayed))


def test_dinov2_lets_the_tables_decay() -> None:
    """With `tables_decay` CLS and position decay; biases, norms and LayerScale still do not."""
    vit = build_vit("vit-tiny-14", 2, (28, 28), torch.Generator().manual_seed(0))
    named = dict(vit.named_parameters())

    decayed, exempt = parameter_groups(named.items(), 0.1, tables_decay=True)

    inside = {n for n, p in named.items() if any(p is q for q in decayed["params"])}
    assert {"cls_token", "pos_embed"} <= inside
    assert all(named[name].ndim == 1 for name in set(named) - inside)
    assert len(named) == len(decayed["params"]) + len(exempt["params"])


def vits14() -> Trunk:
    """Twelve blocks, never run."""
    return build_vit("vits14", 13, (28, 28), torch.Generator().manual_seed(0))


def resnet() -> Trunk:
    """Four stages, never run."""
    return build_resnet("resnet18", 13, (64, 64), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("decay", "first"), [(0.9, 0.254187), (0.75, 0.0237573), (0.65, 0.00369720)]
)
def test_the_pace_falls_towards_the_input(decay: float, first: float) -> None:
    """12 blocks: 1 for the final norm, decay for the last block, decay^13 for what makes tokens."""
    made = parameter_rates(vits14(), decay, freeze=False, new_input=False)

    assert pytest.approx(first, rel=1e-5) == made["patch_embed.proj.weight"].factor
    assert pytest.approx(first, rel=1e-5) == made["pos_embed"].factor == made["cls_token"].factor
    for block in range(12):
        name = f"blocks.{block}.attn.qkv.weight"
        assert pytest.approx(decay ** (12 - block), rel=1e-6) == made[name].factor
    assert 1 == made["norm.weight"].factor
    assert not any(pace.frozen for pace in made.values())


def test_the_pace_of_a_resnet_goes_by_stage() -> None:
    """The stem is layer 0, the stages are 1 to 4; the heads behind them are 5."""
    made = parameter_rates(resnet(), 0.5, freeze=False, new_input=False)

    for name, power in (
        ("conv1.weight", 5), ("bn1.bias", 5), ("layer1.0.conv1.weight", 4),
        ("layer2.0.downsample.0.weight", 3), ("layer4.1.bn2.weight", 1),
    ):  # fmt: skip
        assert 0.5**power == made[name].factor, name


@pytest.mark.parametrize("make", [vits14, resnet])
def test_a_new_input_layer_is_not_starved(make: Callable[[], Trunk]) -> None:
    """It learns at full pace under any decay, and only it does; all parameters have a pace."""
    trunk = make()
    kept = parameter_rates(trunk, 0.65, freeze=False, new_input=False)
    new = parameter_rates(trunk, 0.65, freeze=False, new_input=True)

    inputs = {name for name in new if name.startswith(f"{trunk.input_layer}.")}
    assert 1 <= len(inputs) <= 2
    assert {1.0} == {new[name].factor for name in inputs}
    assert all(kept[name].factor < 0.2 for name in inputs)
    assert {n: p for n, p in kept.items() if n not in inputs} == {
        n: p for n, p in new.items() if n not in inputs
    }
    assert {name for name, _ in trunk.named_parameters()} == set(new)


@pytest.mark.parametrize("new", [False, True])
def test_a_stated_rate_of_the_input_layer_replaces_the_rule(new: bool) -> None:
    """`optim.input_lr` holds for that layer whatever its filters come from, and for no other."""
    made = parameter_rates(vits14(), 0.65, freeze=False, new_input=new, input_rate=0.3)

    assert 0.3 == made["patch_embed.proj.weight"].factor == made["patch_embed.proj.bias"].factor
    assert [0.3, 0.3] == [pace.factor for pace in made.values() if pace.factor == 0.3]


@pytest.mark.parametrize("make", [vits14, resnet])
@pytest.mark.parametrize("new_input", [False, True])
def test_all_but_the_input_layer_waits(make: Callable[[], Trunk], new_input: bool) -> None:
    """Freezing holds the whole trunk but its input layer."""
    trunk = make()
    made = parameter_rates(trunk, 1.0, freeze=True, new_input=new_input)

    for name, pace in made.items():
        assert pace == ParameterRate(1.0, not name.startswith(f"{trunk.input_layer}.")), name


def test_groups_have_the_pace_of_their_parameters() -> None:
    """One group per pace and decay; the learning rate of each is the factor's; full pace first."""
    named = {f"layer{i}.weight": nn.Parameter(torch.zeros(2, 2)) for i in range(3)}
    named |= {f"layer{i}.bias": nn.Parameter(torch.zeros(2)) for i in range(3)}
    pace = {"layer0.weight": ParameterRate(0.25, True), "layer0.bias": ParameterRate(0.25, True)}
    pace |= {"layer1.weight": ParameterRate(0.5), "layer1.bias": ParameterRate(0.5)}

    groups = parameter_groups(named.items(), 0.1, 0.02, pace)

    found = {
        name: (group["lr"], group["frozen"], group["weight_decay"])
        for group in groups
        for name, parameter in named.items()
        if any(parameter is p for p in group["params"])
    }
    for index, (rate, frozen) in enumerate(((0.005, True), (0.01, False), (0.02, False))):
        assert (rate, frozen, 0.1) == found[f"layer{index}.weight"]
        assert (rate, frozen, 0.0) == found[f"layer{index}.bias"]
    assert 6 == len(groups) == sum(len(group["params"]) for group in groups)
    assert (0.02, False) == (groups[0]["lr"], groups[0]["frozen"])


def test_without_paces_there_are_two_groups() -> None:
    """As before there were paces: those that decay, those that do not, at the given rate."""
    vit = build_vit("vit-tiny-14", 2, (28, 28), torch.Generator().manual_seed(0))
    made = parameter_rates(vit, 1.0, freeze=False, new_input=True)

    groups = parameter_groups(vit.named_parameters(), 0.1, 0.3, made)

    assert [(0.1, 0.3, False), (0.0, 0.3, False)] == [
        (group["weight_decay"], group["lr"], group["frozen"]) for group in groups
    ]
