"""Foundation models: torchgeo's own numbers, bands by name, refusals where they cannot serve."""

from __future__ import annotations

import ast
import copy
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torchgeo import models as torchgeo_models

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import BANDS, Normalization, Sensor, Unit
from eofm.errors import SpecError, SpecMismatch, WeightsError
from eofm.networks import foundation
from eofm.networks.build import build
from eofm.networks.foundation import (
    COPERNICUS_NANOMETRES,
    DOFA_MICROMETRES,
    FOUNDATION,
    PANOPTICON_CHANNELS,
    FoundationTrunk,
    Size,
    build_foundation,
)
from eofm.networks.state import PositionRecipe, resample_positions
from eofm.weights.cards import find
from eofm.weights.load import load_weights

SIZES = {
    "dofa-base": Size(96, 3, 4, patch=16),
    "copernicus-fm-base": Size(96, 3, 4, patch=16),
    "croma-base-s2": Size(96, 3, 16, patch=8, positions=0),
    "croma-base-s1": Size(96, 2, 16, patch=8, positions=0),
    "panopticon-base": Size(96, 3, 4, patch=14, positions=37, channel_width=96),
}
PIXELS = {"dofa": 64, "copernicus": 96, "croma": 40, "panopticon": 70}
CASES = [
    "dofa_base_s2",
    "dofa_base_s2@copernicus-bench",
    "dofa_base_s1",
    "copernicus_fm_base_s2",
    "copernicus_fm_base_s1",
    "croma_base_s2",
    "croma_base_s1",
    "panopticon_vitb14_s2",
    "panopticon_vitb14_s1",
]


def small_vit(name: str) -> nn.Module:
    """What stands for `vit_base_patch14_dinov2` in Panopticon."""
    return timm.create_model(name, embed_dim=96, depth=3, num_heads=4)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Networks of the published kinds, a hundredth as large."""
    for name, size in SIZES.items():
        monkeypatch.setitem(FOUNDATION, name, (FOUNDATION[name][0], size))
    module = sys.modules[torchgeo_models.Panopticon.__module__]
    stand_in = type("timm", (), {"create_model": staticmethod(small_vit)})
    monkeypatch.setattr(module, "timm", stand_in)


def recipe_of(name: str) -> Recipe:
    """The recipe of a card, for smaller images."""
    recipe = find(name)[1]
    pixels = PIXELS[name.partition("_")[0]]
    return replace(recipe, size=(pixels, pixels))


def build_small(name: str, seed: int = 0) -> FoundationTrunk:
    """The network of a card, with every tensor random and of a size that shows."""
    generator = torch.Generator().manual_seed(seed)
    trunk = build_foundation(find(name)[0].architecture, recipe_of(name), generator)
    randomise(trunk, generator)
    return trunk.eval()


@torch.no_grad()
def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter."""
    for parameter in module.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


@dataclass(frozen=True)
class Oracle:
    """torchgeo's own network: its published file, its vector, its patch tokens if it gives them."""

    file: dict[str, object]
    vector: Callable[[Tensor], Tensor]
    patches: Callable[[Tensor], Tensor] | None = None


def oracle(name: str, seed: int = 1) -> Oracle:
    """Build torchgeo's network with random weights, and call it as its documentation says."""
    generator = torch.Generator().manual_seed(seed)
    family, recipe = name.partition("_")[0], recipe_of(name)
    pixels = recipe.size[0]
    if family == "dofa":
        net = torchgeo_models.DOFA(
            img_size=pixels, patch_size=16, embed_dim=96, depth=3, num_heads=4, num_classes=0
        )
        randomise(net, generator)
        as_published(net.fc_norm)
        waves = [DOFA_MICROMETRES[band] for band in recipe.bands]
        return Oracle(dict(net.eval().state_dict()), lambda x: net(x, waves))
    if family == "copernicus":
        net = torchgeo_models.CopernicusFM(
            embed_dim=96, depth=3, num_heads=4, norm_layer=partial(nn.LayerNorm, eps=1e-6)
        )
        randomise(net, generator)
        as_published(net.fc_norm)
        waves, widths = zip(*(COPERNICUS_NANOMETRES[band] for band in recipe.bands), strict=True)
        nowhere = torch.full((3, 4), float("nan"))
        return Oracle(
            dict(net.eval().state_dict()), lambda x: net(x, nowhere, waves, widths, kernel_size=16)
        )
    if family == "croma":
        net = torchgeo_models.CROMA(
            encoder_dim=96, encoder_depth=3 if name.endswith("s2") else 4, image_size=pixels
        )
        randomise(net, generator)
        encoder = net.s2_encoder if name.endswith("s2") else net.s1_encoder
        parts = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
        file = {part: dict(getattr(net, part).state_dict()) for part in parts}
        patches = partial(encoder, attn_bias=net.attn_bias)
        return Oracle(file, lambda x: patches(x).mean(dim=1), patches)
    net = torchgeo_models.Panopticon(attn_dim=96, embed_dim=96, img_size=518).model
    randomise(net, generator)
    file = {**net.state_dict(), "mask_token": torch.zeros(1, 96)}
    side = pixels // 14
    net.pos_embed = nn.Parameter(
        resample_positions(net.pos_embed, (37, 37), (side, side), PositionRecipe.DINOV2)
    )
    ids = torch.tensor([PANOPTICON_CHANNELS[band] for band in recipe.bands]).repeat(3, 1)
    net.eval()
    return Oracle(
        file,
        lambda x: net({"imgs": x, "chn_ids": ids.clone()}),
        lambda x: net.forward_features({"imgs": x, "chn_ids": ids.clone()})[:, 1:],
    )


@torch.no_grad()
def as_published(norm: nn.LayerNorm) -> None:
    """Leave a norm as it is built: no published file holds it."""
    norm.weight.fill_(1)
    norm.bias.zero_()


def images(name: str, seed: int = 2) -> Tensor:
    """Three normalised images."""
    recipe = recipe_of(name)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, len(recipe.bands), *recipe.size, generator=generator)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_published_file_gives_torchgeos_features(name, tmp_path, monkeypatch):
    """The file, written under its published name and loaded strictly, gives torchgeo's numbers."""
    reference = oracle(name)
    card, recipe = find(name)
    at_size = replace(card, recipe=recipe_of(name), alternatives={})
    monkeypatch.setattr("eofm.weights.load.find", lambda _: (at_size, at_size.recipe))
    path = tmp_path / card.url.rsplit("/", 1)[1]
    torch.save(reference.file, path)

    encoder = load_weights(path, card=name, check_hash=False)

    pixels = images(name)
    torch.testing.assert_close(reference.vector(pixels), encoder(pixels), rtol=0, atol=1e-5)
    assert encoder(pixels).std() > 0.05
    assert recipe.bands == encoder.recipe.bands
    if reference.patches is not None:
        tokens = encoder.forward_features(pixels)[:, encoder.trunk.prefix :]
        torch.testing.assert_close(reference.patches(pixels), tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_layers_tokens_and_maps_agree(name):
    """The last of the intermediate layers is the features; maps are the tokens row by row."""
    trunk, pixels = build_small(name), images(name)
    features = trunk.forward_features(pixels)
    _, columns = trunk.grid
    assert (3, trunk.prefix + trunk.tokens, 96) == tuple(features.shape)

    (last,) = trunk.get_intermediate_layers(pixels)
    first, again = trunk.get_intermediate_layers(pixels, [0, trunk.depth - 1], norm=False)
    (maps,) = trunk.get_intermediate_layers(pixels, reshape=True)

    torch.testing.assert_close(features[:, trunk.prefix :], last, rtol=0, atol=0)
    torch.testing.assert_close(last, trunk._normed(again), rtol=0, atol=1e-6)
    assert not torch.allclose(first, again)
    assert torch.equal(last[:, columns + 1], maps[:, :, 1, 1])
    if trunk.prefix:
        ((patches, cls),) = trunk.get_intermediate_layers(pixels, return_class_token=True)
        assert torch.equal(features[:, 0], cls)
        assert torch.equal(last, patches)
    else:
        with pytest.raises(SpecError, match="no CLS token"):
            trunk.get_intermediate_layers(pixels, return_class_token=True)
    with pytest.raises(SpecError, match="no such layers"):
        trunk.get_intermediate_layers(pixels, trunk.depth + 1)


@torch.no_grad()
def test_the_pooling_is_the_authors():
    """Panopticon gives its CLS token, CROMA a mean of tokens, DOFA a mean that is then normed."""
    croma, panopticon, dofa = map(build_small, ("croma_base_s2", CASES[-1], "dofa_base_s2"))
    x = images("croma_base_s2")
    torch.testing.assert_close(croma.forward_features(x).mean(dim=1), croma(x))
    x = images(CASES[-1])
    torch.testing.assert_close(panopticon.forward_features(x)[:, 0], panopticon(x))
    x = images("dofa_base_s2")
    (raw,) = dofa.get_intermediate_layers(x, norm=False)
    mean = raw.mean(dim=1)
    centred = mean - mean.mean(dim=1, keepdim=True)
    torch.testing.assert_close(
        centred / (centred.pow(2).mean(dim=1, keepdim=True) + 1e-6).sqrt(),
        dofa(x),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["dofa_base_s2", "copernicus_fm_base_s2", "panopticon_vitb14_s2"])
@torch.no_grad()
def test_bands_are_known_by_name(name):
    """The same bands in another order give the same vector: names say what is seen, not places."""
    recipe = recipe_of(name)
    turned = replace(recipe, bands=recipe.bands[::-1])
    architecture = find(name)[0].architecture
    trunk = build_small(name)
    other = build_foundation(architecture, turned, torch.Generator()).eval()
    other.load_state_dict(trunk.state_dict())
    x = images(name)

    torch.testing.assert_close(trunk(x), other(x.flip(1)), rtol=0, atol=1e-5)
    assert not torch.allclose(trunk(x), other(x), atol=1e-3)


@pytest.mark.parametrize("name", ["dofa_base_s1", "copernicus_fm_base_s1"])
@torch.no_grad()
def test_vv_and_vh_are_one_to_hypernetworks(name):
    """Two channels of one wavelength get one set of filters, as the cards say."""
    trunk, x = build_small(name), images(name)

    torch.testing.assert_close(trunk(x), trunk(x.flip(1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "nanometres"),
    [
        (DOFA_MICROMETRES, lambda micrometres: 1000 * micrometres),
        (COPERNICUS_NANOMETRES, lambda pair: pair[0]),
        (PANOPTICON_CHANNELS, lambda channel: channel),
    ],
)
def test_wavelengths_are_those_of_the_sensors(table, nanometres):
    """Each table knows all 13 + 2 bands, in its unit, within 15 nm of ESA's centres."""
    optical = [band for band in BANDS if band.startswith("B") and len(band) == 3]
    assert {*optical, "VV", "VH"} == set(table)
    for band in optical:
        assert abs(nanometres(table[band]) - BANDS[band].wavelength_nm) < 15, band


def test_every_network_follows_the_generator():
    """Equal seeds give equal networks, other seeds others, and the global state stays as it was."""
    before = torch.random.get_rng_state()
    for name in ("dofa_base_s1", "croma_base_s1", "panopticon_vitb14_s1"):
        card = find(name)[0]

        def drawn(seed: int, architecture: str = card.architecture, name: str = name) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            trunk = build(architecture, recipe_of(name), generator)
            return torch.cat([p.detach().flatten() for p in trunk.parameters()])

        assert torch.equal(drawn(3), drawn(3))
        assert not torch.equal(drawn(3), drawn(4))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_random_panopticon_is_no_identity():
    """LayerScale starts at 1: a network at random looks at the image."""
    trunk = build_foundation("panopticon-base", recipe_of(CASES[-1]), torch.Generator())

    scales = [p for name, p in trunk.named_parameters() if name.endswith(".gamma")]
    assert len(scales) == 2 * trunk.depth
    assert all(bool((scale == 1).all()) for scale in scales)


def test_parameters_are_told_apart_by_depth():
    """Blocks lie between the input, 0, and the final norm; none is empty, nothing lies beyond."""
    for name in CASES:
        trunk = build_small(name)
        layers = {key: trunk.layer_of(key) for key, _ in trunk.named_parameters()}
        last = trunk.depth + (0 if name.startswith(("dofa", "copernicus")) else 1)
        assert set(range(last + 1)) == set(layers.values()), name
        assert all(
            ("blocks." in key or ".layers." in key) or layer in (0, last)
            for key, layer in layers.items()
        )


@pytest.mark.parametrize("name", ["dofa_base_s2", "croma_base_s2", "panopticon_vitb14_s1"])
@torch.no_grad()
def test_copies_are_equal(name):
    """A network is copied and pickled as any module, and answers the same."""
    trunk, x = build_small(name), images(name)

    for other in (copy.deepcopy(trunk), pickle.loads(pickle.dumps(trunk))):
        assert torch.equal(trunk(x), other(x))


@torch.no_grad()
def test_other_sizes():
    """Panopticon and Copernicus-FM take any whole patches; DOFA and CROMA say what they take."""
    for name, pixels in (("copernicus_fm_base_s2", 48), ("panopticon_vitb14_s1", 28)):
        trunk = build_small(name)
        assert (1, 96) == tuple(trunk(torch.randn(1, trunk.channels, pixels, pixels)).shape)
        assert (1, 96) == tuple(trunk(torch.randn(1, trunk.channels, pixels, 2 * pixels)).shape)
    for name, pixels in (("dofa_base_s2", 96), ("croma_base_s1", 64)):
        trunk = build_small(name)
        with pytest.raises(SpecMismatch, match="one size"):
            trunk(torch.randn(1, trunk.channels, pixels, pixels))


def test_what_does_not_fit_is_refused():
    """Other bands, poolings and sizes, kept patches and wrong channels: each by a typed error."""
    generator = torch.Generator()
    dofa, croma = recipe_of("dofa_base_s2"), recipe_of("croma_base_s2")
    rgb = Recipe(
        Sensor.RGB,
        ("R", "G", "B"),
        Unit.UINT8,
        (64, 64),
        Normalization.divide(255, 3, "test"),
        pooling=Pooling.MEAN,
    )
    for architecture, recipe, message in (
        ("dofa-base", replace(dofa, pooling=Pooling.CLS), "another pooling"),
        ("dofa-base", replace(dofa, size=(64, 80)), "squares"),
        ("dofa-base", replace(dofa, size=(60, 60)), "squares"),
        ("dofa-base", rgb, "never seen bands"),
        ("croma-base-s2", replace(croma, bands=croma.bands[::-1]), "12 bands"),
    ):
        with pytest.raises(SpecError, match=message):
            build_foundation(architecture, recipe, generator)
    with pytest.raises(WeightsError, match="no foundation model"):
        build_foundation("dofa-huge", dofa, generator)

    trunk = build_small("dofa_base_s2")
    with pytest.raises(SpecError, match="cannot leave patches out"):
        trunk(images("dofa_base_s2"), keep=torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(SpecMismatch, match="number of bands"):
        trunk(torch.zeros(1, 13, 64, 64))


def test_without_torchgeo_the_remedy_is_named(monkeypatch):
    """Where torchgeo is absent, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    with pytest.raises(WeightsError, match=r"pip install 'eofm\[torchgeo\]'"):
        build_foundation("dofa-base", recipe_of("dofa_base_s2"), torch.Generator())


def test_torchgeo_waits_until_it_is_needed():
    """No file of the folder imports torchgeo before a function that needs it is called."""
    early = [
        f"{path.name}: {ast.unparse(node)}"
        for path in Path(foundation.__file__).parent.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "torchgeo" in ast.unparse(node)
    ]

    assert [] == early
    assert "from torchgeo import models" in Path(foundation.__file__).read_text()
