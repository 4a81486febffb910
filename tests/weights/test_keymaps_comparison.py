"""Weights to compare with: the names of their files, at full size, become ours; no other passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import pytest
import timm
import torch
from torch import Tensor, nn
from torchgeo import models as torchgeo_models

from eofm.errors import WeightsError
from eofm.networks.foundation import FOUNDATION
from eofm.networks.state import read_state
from eofm.weights.cards.card import StateLayout, WeightCard
from eofm.weights.cards.foundation import CARDS as FOUNDATION_CARDS
from eofm.weights.cards.ssl4eo import CARDS as SSL4EO_CARDS
from eofm.weights.keymaps import KEY_MAPS
from eofm.weights.load import load_weights

CARDS = {card.name: card for card in (*SSL4EO_CARDS, *FOUNDATION_CARDS)}
# one card of each kind: MoCo and DINO, MAE and FG-MAE have the same tensors
VITS = {
    (card.architecture, card.recipe.bands, card.layout): card.name
    for card in SSL4EO_CARDS
    if card.architecture.startswith("timm:")
}


def on_meta(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Names and shapes of a network of any size, without its memory."""
    with torch.device("meta"):
        return dict(make().state_dict())


def croma(width: int, depth: int) -> dict[str, Tensor]:
    """What CROMA's file holds, as five state dicts read as one."""
    make = partial(torchgeo_models.CROMA, encoder_dim=width, encoder_depth=depth, image_size=8)
    state = on_meta(make)  # one patch: no tensor of the file depends on the size
    del state["attn_bias"]
    return state


@dataclass(frozen=True)
class Published:
    """A file: its tensors, and of them those that the network does not use."""

    state: dict[str, Tensor]
    unused: str = "$^"


@cache
def published(of: str) -> Published:
    """The file of a card, derived from the code that reads it; nobody changes it."""
    card = CARDS[of]
    match card.layout:
        case StateLayout.DOFA:
            make = getattr(torchgeo_models, f"{card.architecture.replace('-', '_')}_patch16_224")
            return Published(on_meta(lambda: make(num_classes=45)), r"(fc_norm|head)\..*")
        case StateLayout.COPERNICUS_FM:
            state = on_meta(torchgeo_models.copernicusfm_base)
            return Published(state, r"fc_norm\..*|patch_embed_variable\..*")
        case StateLayout.PANOPTICON:
            state = on_meta(lambda: torchgeo_models.Panopticon(img_size=518).model)
            return Published({**state, "mask_token": torch.empty(1, 768)}, "mask_token")
        case StateLayout.CROMA_S2 | StateLayout.CROMA_S1:
            size = (768, 12) if "base" in card.architecture else (1024, 24)
            mine = "s2" if card.layout is StateLayout.CROMA_S2 else "s1"
            return Published(croma(*size), rf"(?!{mine}_encoder\.).*")
    name = card.architecture.removeprefix("timm:")
    bands = len(card.recipe.bands)
    return Published(on_meta(lambda: timm.create_model(name, in_chans=bands, num_classes=0)))


def ours(card: WeightCard) -> dict[str, Tensor]:
    """The tensors of the network that a card describes."""
    if card.architecture in FOUNDATION:
        make, size = FOUNDATION[card.architecture]
        small = "croma" in card.architecture
        recipe = replace(card.recipe, size=(8, 8)) if small else card.recipe
        return on_meta(lambda: make(size, recipe))
    name, bands = card.architecture.removeprefix("timm:"), len(card.recipe.bands)
    state = on_meta(lambda: timm.create_model(name, in_chans=bands, num_classes=0))
    return {f"model.{key}": value for key, value in state.items()}


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape by name."""
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("name", [*VITS.values(), *(card.name for card in FOUNDATION_CARDS)])
def test_published_names_become_ours(name):
    """Every tensor of the file, at full size, fits the network or is named as left out."""
    card = CARDS[name]
    file = published(name)
    before = shapes(file.state)

    mapped = KEY_MAPS[card.layout](file.state)

    assert shapes(ours(card)) == shapes(mapped.state)
    assert sorted(key for key in before if re.fullmatch(file.unused, key)) == sorted(mapped.dropped)
    assert before == shapes(file.state)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ssl4eo_mae_vits16_s1", "vit_small_patch16_224"),
        pytest.param("ssl4eo_moco_rn18_rgb", "resnet18", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_a_published_file_gives_torchgeos_features(name, model, tmp_path):
    """The file, under its published name and recognised by it, gives torchgeo's vector."""
    card = CARDS[name]
    bands = len(card.recipe.bands)
    net = getattr(torchgeo_models, model)(in_chans=bands, num_classes=0).eval()
    generator = torch.Generator().manual_seed(0)
    for key, value in net.state_dict().items():
        if value.is_floating_point() and "running" not in key:
            value.add_(0.02 * torch.randn(value.shape, generator=generator))
    path = tmp_path / card.filename
    torch.save(net.state_dict(), path)

    encoder = load_weights(path, check_hash=False)

    pixels = torch.rand(2, bands, 224, 224, generator=generator)
    assert card.name == encoder.card.name
    torch.testing.assert_close(net(pixels), encoder(pixels), rtol=0, atol=1e-5)
    assert (encoder(pixels)[0] - encoder(pixels)[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "ssl4eo_moco_vits16_s2",
        "ssl4eo_mae_vits16_s1",
        "dofa_base_s2",
        "copernicus_fm_base_s2",
        "panopticon_vitb14_s2",
        "croma_base_s2",
        "croma_base_s1",
    ],
)
def test_other_tensors_are_listed(name):
    """A tensor that is foreign, missing or of a block that is not whole is named in the error."""
    card = CARDS[name]
    whole = published(name).state
    key_map = KEY_MAPS[card.layout]
    used = [key for key in whole if key not in key_map(whole).dropped]
    for missing in (used[0], used[-1], next(key for key in used if ".1." in key)):
        with pytest.raises(WeightsError, match=re.escape(f"missing {missing}")):
            key_map({key: value for key, value in whole.items() if key != missing})

    for foreign in ("decoder_embed.weight", "module.cls_token", f"{used[-1]}.extra"):
        with pytest.raises(WeightsError, match=re.escape(f"unknown {foreign}")):
            key_map({**whole, foreign: torch.empty(1)})


@pytest.mark.parametrize("layout", [StateLayout.MOCO_V3_VIT, StateLayout.DOFA])
def test_a_damaged_block_number_is_an_error_not_a_wait(layout):
    """A block number in the billions makes one unknown name, not billions of missing ones."""
    with pytest.raises(WeightsError, match=r"unknown blocks\.4000000000\.norm1\.extra"):
        KEY_MAPS[layout]({"blocks.4000000000.norm1.extra": torch.zeros(1)})


@pytest.mark.parametrize("layout", [StateLayout.MOCO_V3_VIT, StateLayout.MAE_ENCODER])
def test_a_classifier_is_left_out(layout):
    """A head, which torchgeo tolerates in these files, is left out by name; nothing else is."""
    state = on_meta(lambda: timm.create_model("vit_small_patch16_224", num_classes=5))

    mapped = KEY_MAPS[layout](state)

    assert {"head.weight", "head.bias"} == set(mapped.dropped)
    assert len(state) == len(mapped.state) + 2
    with pytest.raises(WeightsError, match=r"unknown fc_norm\.weight"):
        KEY_MAPS[layout]({**state, "fc_norm.weight": torch.empty(1)})


def test_the_authors_own_file_of_dofa_is_understood():
    """What the README of DOFA lists beyond the encoder is left out by name."""
    state = on_meta(lambda: torchgeo_models.dofa_base_patch16_224(num_classes=0))
    state = {key: value for key, value in state.items() if not key.startswith("fc_norm")}
    more = ["mask_token", "norm.weight", "norm.bias", "projector.weight", "projector.bias"]

    mapped = KEY_MAPS[StateLayout.DOFA]({**state, **dict.fromkeys(more, torch.empty(1))})

    assert more == list(mapped.dropped)
    assert set(state) == set(mapped.state)


def test_a_file_of_state_dicts_is_read_as_one(tmp_path):
    """CROMA's five state dicts in one file come with their names in front, to the bit."""
    generator = torch.Generator().manual_seed(0)
    parts = {
        part: {"weight": torch.randn(3, generator=generator), "a.bias": torch.ones(1)}
        for part in ("s1_encoder", "s2_encoder")
    }
    path = tmp_path / "CROMA_base.pt"
    torch.save(parts, path)

    state = read_state(path)

    assert {f"{part}.{key}" for part in parts for key in parts[part]} == set(state)
    assert torch.equal(parts["s2_encoder"]["weight"], state["s2_encoder.weight"])


def test_a_checkpoint_is_not_a_file_of_state_dicts(tmp_path):
    """One number beside the state dicts, as in a training checkpoint, and the file is refused."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"weight": torch.ones(1)}, "epoch": 3}, path)
    with pytest.raises(WeightsError, match="model, epoch"):
        read_state(path)
