"""Key maps on state dicts with the published names, shapes and dtypes: whole, strict, pure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from eofm.contract.recipe import Pooling
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.errors import WeightsError
from eofm.networks.resnet import RESNETS, ResNet
from eofm.networks.state import (
    InputInit,
    PositionRecipe,
    adapt_input,
    load_strict,
    resize_position_embedding,
)
from eofm.networks.timm import build_timm
from eofm.networks.vit import ARCHITECTURES, Architecture, FeedForward, ViT
from eofm.weights.cards.card import StateLayout
from eofm.weights.keymaps import (
    KEY_MAPS,
    check_layer_scale,
    detect_layout,
    dinov2,
    dinov2_to_vit,
    resnet,
    timm_dinov2,
    transformers_dinov2,
    vit_to_dinov2,
)
from eofm.weights.keymaps import timm as timm_map

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]

SMALL = Architecture(96, 2, 3, 14)
SMALL_REG = Architecture(96, 2, 3, 14, registers=4)
SMALL_GATED = Architecture(96, 2, 3, 14, feed_forward=FeedForward.SWIGLU)
SMALL_ALL = Architecture(96, 2, 3, 14, 4, FeedForward.SWIGLU)
KINDS = [SMALL, SMALL_REG, SMALL_GATED, SMALL_ALL]


# ------------------------------------------------------- what is published, name by name


def affine(name: str, *shape: int) -> Shapes:
    """A weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def meta_shapes(kind: Architecture, channels: int = 3, positions: int = 1370) -> Shapes:
    """Meta's files, and SoftCon's, which have the same names."""
    d = kind.width
    shapes: Shapes = {"cls_token": (1, 1, d), "pos_embed": (1, positions, d), "mask_token": (1, d)}
    if kind.registers:
        shapes["register_tokens"] = (1, 4, d)
    shapes |= affine("patch_embed.proj", d, channels, 14, 14)
    for i in range(kind.depth):
        block = f"blocks.{i}"
        shapes |= affine(f"{block}.norm1", d) | affine(f"{block}.norm2", d)
        shapes |= affine(f"{block}.attn.qkv", 3 * d, d) | affine(f"{block}.attn.proj", d, d)
        shapes |= {f"{block}.ls1.gamma": (d,), f"{block}.ls2.gamma": (d,)}
        if kind.feed_forward is FeedForward.SWIGLU:
            h = 8 * d // 3
            shapes |= affine(f"{block}.mlp.w12", 2 * h, d) | affine(f"{block}.mlp.w3", d, h)
        else:
            shapes |= affine(f"{block}.mlp.fc1", 4 * d, d) | affine(f"{block}.mlp.fc2", d, 4 * d)
    return shapes | affine("norm", d)


def timm_shapes(kind: Architecture, channels: int = 3, positions: int = 1370) -> Shapes:
    """As timm, and torchgeo in its `_enc` files, names them: registers stand apart."""
    shapes = meta_shapes(kind, channels, positions)
    del shapes["mask_token"]
    if kind.registers:
        shapes["reg_token"] = shapes.pop("register_tokens")
        shapes["pos_embed"] = (1, positions - 1, kind.width)
    gated = {"mlp.w12": "mlp.fc1", "mlp.w3": "mlp.fc2"}
    return {renamed(key, gated): shape for key, shape in shapes.items()}


def renamed(key: str, names: dict[str, str]) -> str:
    """Replace parts of a name."""
    for old, new in names.items():
        key = key.replace(old, new)
    return key


def transformers_state(state: State) -> State:
    """Hugging Face's files, made from Meta's tensors: query, key and value stand alone."""
    out: State = {}
    names = {
        "blocks.": "encoder.layer.",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.weights_out",
    }
    for key, value in state.items():
        if key in ("cls_token", "mask_token", "register_tokens"):
            out[f"embeddings.{key}"] = value
        elif key == "pos_embed":
            out["embeddings.position_embeddings"] = value
        elif key.startswith("patch_embed.proj."):
            out["embeddings.patch_embeddings.projection." + key.rpartition(".")[2]] = value
        elif key.startswith("norm."):
            out[f"layer{key}"] = value
        elif ".attn.qkv." in key:
            _, block, *_, kind = key.split(".")
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[f"encoder.layer.{block}.attention.attention.{part}.{kind}"] = third
        else:
            out[renamed(key, names)] = value
    return out


def filled(shapes: Shapes) -> State:
    """Tensors of any size in no memory: one number seen from everywhere."""
    return {key: torch.tensor(0.3).expand(shape) for key, shape in shapes.items()}


def random(shapes: Shapes, seed: int = 0) -> State:
    """Random float32 tensors, LayerScale and norms away from 0."""
    generator = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(s, generator=generator) * 0.1 for key, s in shapes.items()}
    for key, value in state.items():
        if "gamma" in key or "norm" in key:
            value.uniform_(0.3, 1.2, generator=generator)
    return state


def shapes_of(module: torch.nn.Module) -> Shapes:
    """Names and shapes that a network has."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def vit(kind: Architecture, side: int = 518, channels: int = 3) -> ViT:
    """A network for square images, to be loaded."""
    return ViT(kind, channels, (side, side)).eval()


# --------------------------------------------------------------------- published, whole

RELEASES = {
    "vits14": 175,
    "vitb14": 175,
    "vitl14": 343,
    "vitg14": 567,
    "vits14_reg4": 176,
    "vitb14_reg4": 176,
    "vitl14_reg4": 344,
    "vitg14_reg4": 568,
}


@pytest.mark.parametrize(("name", "count"), RELEASES.items())
def test_every_release_maps_onto_its_architecture(name, count):
    """Meta's and timm's S, B, L and g: each tensor is used or named, and has the right shape."""
    kind = ARCHITECTURES[name]
    with torch.device("meta"):
        expected = shapes_of(ViT(kind, 3, (518, 518)))
    metas, timms = filled(meta_shapes(kind)), filled(timm_shapes(kind))
    assert (count, count - 1) == (len(metas), len(timms))
    assert (StateLayout.DINOV2, StateLayout.TIMM_DINOV2) == (
        detect_layout(metas),
        detect_layout(timms),
    )

    from_meta, from_timm = dinov2(metas), timm_dinov2(timms)
    assert expected == {key: tuple(value.shape) for key, value in from_meta.state.items()}
    assert expected == {key: tuple(value.shape) for key, value in from_timm.state.items()}
    assert (("mask_token",), ()) == (from_meta.dropped, from_timm.dropped)
    assert set(metas) == set(from_meta.state) | set(from_meta.dropped)


@pytest.mark.parametrize(("channels", "name"), [(13, "vits14"), (2, "vits14"), (13, "vitb14")])
def test_softcon_files_map_onto_their_architecture(channels, name):
    """SoftCon's files (257 positions, 13 or 2 bands) and torchgeo's `_enc` files give the same."""
    kind = ARCHITECTURES[name]
    with torch.device("meta"):
        expected = shapes_of(ViT(kind, channels, (224, 224)))
    file = filled(meta_shapes(kind, channels, positions=257))
    encoder = {key: value for key, value in file.items() if key != "mask_token"}

    assert (StateLayout.DINOV2, StateLayout.TIMM_DINOV2) == (
        detect_layout(file),
        detect_layout(encoder),
    )
    for mapped in (dinov2(file), timm_dinov2(encoder)):
        assert expected == {key: tuple(value.shape) for key, value in mapped.state.items()}


def test_the_published_names_are_timms():
    """The tables above hold the names and shapes of timm's own networks, giant included."""
    for ours, theirs in (
        ("vits14", "vit_small_patch14_dinov2"),
        ("vitb14_reg4", "vit_base_patch14_reg4_dinov2"),
        ("vitl14", "vit_large_patch14_dinov2"),
        ("vitg14", "vit_giant_patch14_dinov2"),
        ("vitg14_reg4", "vit_giant_patch14_reg4_dinov2"),
    ):
        with torch.device("meta"):
            reference = timm.create_model(theirs, num_classes=0)
        assert shapes_of(reference) == timm_shapes(ARCHITECTURES[ours]), theirs


@pytest.mark.parametrize("kind", KINDS)
def test_values_arrive_where_they_belong(kind):
    """From Meta's and from Hugging Face's names the very same tensors come out, qkv in order."""
    state = random(meta_shapes(kind))
    hugging = transformers_state(state)
    assert StateLayout.TRANSFORMERS_DINOV2 is detect_layout(hugging)
    direct, other = dinov2(state), transformers_dinov2(hugging)

    assert ("embeddings.mask_token",) == other.dropped
    assert set(state) - {"mask_token"} == set(direct.state) == set(other.state)
    for key, value in direct.state.items():
        assert torch.equal(value, state[key])
        assert torch.equal(value, other.state[key]), key
    load_strict(vit(kind), other.state, where="test")


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        (ARCHITECTURES["vits14"], "vit_small_patch14_dinov2", {}),
        (ARCHITECTURES["vits14_reg4"], "vit_small_patch14_reg4_dinov2", {}),
        (SMALL_GATED, "vit_giant_patch14_dinov2", {"embed_dim": 96, "depth": 2, "num_heads": 3}),
        (SMALL_ALL, "vit_giant_patch14_reg4_dinov2", {"embed_dim": 96, "depth": 2, "num_heads": 3}),
    ],
)
def test_features_equal_timms(kind, name, options, generator):
    """The tensors of timm, mapped and loaded, give timm's tokens: registers, gates, merged CLS."""
    reference = timm.create_model(
        name, img_size=112, num_classes=0, weight_init="skip", **options
    ).eval()
    reference.load_state_dict(random(timm_shapes(kind, positions=65)), strict=True)
    network = vit(kind, side=112)
    load_strict(network, timm_dinov2(reference.state_dict()).state, where="test")
    pixels = torch.randn(1, 3, 112, 112, generator=generator)

    with torch.no_grad():
        expected = reference.forward_features(pixels)
        torch.testing.assert_close(network.forward_features(pixels), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_back_to_dinov2(kind):
    """The inverse gives Meta's names and a mask token of zeros, and maps back onto the same."""
    state = random(meta_shapes(kind))
    back = vit_to_dinov2(dinov2_to_vit(state))

    assert set(state) == set(back)
    assert (1, 96) == tuple(back["mask_token"].shape)
    assert 0 == back["mask_token"].abs().max()
    assert all(torch.equal(state[key], back[key]) for key in state if key != "mask_token")
    assert all(torch.equal(v, back[k]) for k, v in dinov2_to_vit(back).items())


def test_dinov2_names_load_whole(generator):
    """Map, input layer, positions: every tensor but the mask token arrives, strictly."""
    file = random(meta_shapes(SMALL))
    state = dinov2_to_vit(file)
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    state = adapt_input(state, bands, InputInit.RANDOM, generator)
    state = resize_position_embedding(state, (8, 8), PositionRecipe.DINOV2)
    network = vit(SMALL, side=112, channels=13)
    load_strict(network, state, where="test")

    loaded = network.state_dict()
    assert torch.equal(file["blocks.1.ls2.gamma"], loaded["blocks.1.ls2.gamma"])
    assert all(torch.equal(state[key], loaded[key]) for key in loaded)


# ------------------------------------------------------------------------------ strictness


def meta_file(kind: Architecture) -> State:
    """As Meta publishes it."""
    return random(meta_shapes(kind))


def timm_file(kind: Architecture) -> State:
    """As timm publishes it."""
    return random(timm_shapes(kind))


def transformers_file(kind: Architecture) -> State:
    """As Hugging Face publishes it."""
    return transformers_state(random(meta_shapes(kind)))


FILES = [
    (dinov2, meta_file, "blocks.1.ls1.gamma", "norm.bias"),
    (timm_dinov2, timm_file, "blocks.1.mlp.fc2.weight", "norm.bias"),
    (
        transformers_dinov2,
        transformers_file,
        "encoder.layer.1.attention.attention.key.bias",
        "layernorm.bias",
    ),
]


@pytest.mark.parametrize(("key_map", "file", "lost", "wrong"), FILES)
@pytest.mark.parametrize("kind", [SMALL, SMALL_REG])
def test_each_fault_is_named(key_map: Callable, file: Callable, lost: str, wrong: str, kind):
    """One tensor more, one fewer, both, and one of another shape: each is refused by its name."""
    state = file(kind)
    without = {key: value for key, value in state.items() if key != lost}
    with pytest.raises(WeightsError, match=r"unknown head\.weight"):
        key_map({**state, "head.weight": torch.zeros(4, 96)})
    with pytest.raises(WeightsError, match=f"missing {lost}"):
        key_map(without)
    with pytest.raises(WeightsError) as caught:
        key_map({**without, "head.weight": torch.zeros(4, 96)})
    assert f"unknown head.weight; missing {lost}" in str(caught.value)
    misshapen = key_map({**state, wrong: torch.zeros(95)}).state
    with pytest.raises(WeightsError, match=r"norm\.bias has shape \(95,\), not \(96,\)"):
        load_strict(vit(kind), misshapen, where="test")


def test_only_so_many_faults_are_listed():
    """An empty state dict is missing everything: the first twelve are named, the rest counted."""
    with pytest.raises(WeightsError, match=r"missing blocks\.0\.attn\.proj\.bias.* and 8 more"):
        dinov2_to_vit({})


def test_a_third_of_another_shape_is_refused():
    """Query, key and value that differ in shape are not put together."""
    state = transformers_file(SMALL)
    state["encoder.layer.0.attention.attention.key.weight"] = torch.zeros(90, 96)
    with pytest.raises(WeightsError, match="differ in shape"):
        transformers_dinov2(state)


def test_a_damaged_block_number_is_an_error_not_a_wait():
    """A block number in the billions makes one unknown name, not billions of missing ones."""
    state = {**meta_file(SMALL), "blocks.4000000000.norm1.bias": torch.zeros(96)}
    with pytest.raises(WeightsError, match=r"unknown blocks\.4000000000\.norm1\.bias"):
        dinov2_to_vit(state)


@pytest.mark.parametrize("prefix", ["teacher.backbone.", "module.", "student.", "backbone."])
def test_training_checkpoints_are_refused_with_the_remedy(prefix):
    """Tensors of a larger model are not stripped of its name: the user says which network."""
    state = {f"{prefix}{key}": value for key, value in meta_file(SMALL).items()}
    for refuse in (dinov2_to_vit, detect_layout, resnet, timm_map, timm_dinov2):
        with pytest.raises(WeightsError, match=f"under '{prefix}'"):
            refuse(state)


def test_chunked_blocks_are_refused_with_the_remedy():
    """Blocks as DINOv2's training saves them, `blocks.CHUNK.BLOCK.`, are told apart."""
    state = meta_file(SMALL)
    chunked = {key.replace("blocks.", "blocks.0."): value for key, value in state.items()}
    for refuse in (dinov2_to_vit, detect_layout):
        with pytest.raises(WeightsError, match="blocks come in chunks"):
            refuse(chunked)


@pytest.mark.parametrize(("key_map", "file"), [row[:2] for row in FILES])
@pytest.mark.parametrize("value", [1e-5, 0.0, float("nan")])
def test_untrained_layer_scale_is_refused(key_map, file, value):
    """A scale at its initial 1e-5, or NaN, makes the network an identity that still trains."""
    state = file(SMALL)
    gamma = next(key for key in state if key.endswith(("1.ls1.gamma", "1.layer_scale1.lambda1")))
    key_map(state)
    with pytest.raises(WeightsError, match=r"blocks\.1\.ls1\.gamma"):
        key_map({**state, gamma: torch.full((96,), value)})


def test_layer_scale_by_any_name():
    """DINOv3's scales are checked too; ConvNeXt's, trained from 1e-6, may stay small."""
    low = torch.full((4,), 1e-5)
    for key in ("blocks.0.gamma_1", "model.blocks.3.gamma_2", "blocks.0.ls2.gamma"):
        with pytest.raises(WeightsError, match=key):
            check_layer_scale({key: low, "norm.weight": low})
        check_layer_scale({key: -20 * low, "stages.0.blocks.0.gamma": low})


@pytest.mark.parametrize(("key_map", "file"), [row[:2] for row in FILES])
def test_maps_are_pure(key_map, file):
    """The state that is given keeps its names and values, also where CLS's position is added."""
    state = file(SMALL_REG)
    before = {key: value.clone() for key, value in state.items()}
    key_map(state)
    assert list(before) == list(state)
    assert all(torch.equal(before[key], state[key]) for key in before)


# -------------------------------------------------------------------------------- ResNets


def torchvision_file(name: str, classifier: bool = True) -> State:
    """As torchvision publishes it; DINO's and SoftCon's have no classifier."""
    generator = torch.Generator().manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None)
    if not classifier:
        network.fc = torch.nn.Identity()
    state = dict(network.state_dict())
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
    return state


@pytest.mark.parametrize(("name", "count"), [("resnet50", 320), ("resnet18", 122)])
def test_resnet_files_load_whole(name, count, generator):
    """A file of torchvision, its classifier left out by name, gives torchvision's features."""
    state = torchvision_file(name)
    mapped = resnet(state)
    assert (count, StateLayout.RESNET) == (len(state), detect_layout(state))
    assert ("fc.weight", "fc.bias") == mapped.dropped
    assert set(state) == set(mapped.state) | set(mapped.dropped)
    assert torch.int64 == mapped.state["bn1.num_batches_tracked"].dtype

    network = ResNet(name, 3, (64, 64)).eval()
    load_strict(network, mapped.state, where="test")
    reference = getattr(torchvision.models, name)(weights=None).eval()
    reference.load_state_dict(state)
    reference.fc = torch.nn.Identity()
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), reference(pixels), atol=1e-5, rtol=1e-5)


def test_dino_and_softcon_resnets(generator):
    """Without a classifier, with 13 bands, or without counters of batches: all load strictly."""
    dino = torchvision_file("resnet50", classifier=False)
    assert 318 == len(dino)
    assert () == resnet(dino).dropped
    softcon = {**dino, "conv1.weight": torch.randn(64, 13, 7, 7, generator=generator)}
    load_strict(ResNet("resnet50", 13, (224, 224)), resnet(softcon).state, where="test")
    old = {key: value for key, value in dino.items() if not key.endswith("num_batches_tracked")}
    assert 265 == len(old)
    network = ResNet("resnet50", 3, (224, 224))
    load_strict(network, resnet(old).state, where="test")
    assert 0 == network.bn1.num_batches_tracked


def test_resnet_faults_are_named():
    """A stray tensor, a lost one, a deeper ResNet, and a statistic that is missing."""
    state = torchvision_file("resnet18")
    with pytest.raises(WeightsError, match=r"unknown layer5\.0\.conv1\.weight"):
        resnet({**state, "layer5.0.conv1.weight": torch.zeros(1)})
    for lost in ("layer2.0.downsample.0.weight", "bn1.running_var"):
        with pytest.raises(WeightsError, match=f"missing {lost}"):
            resnet({key: value for key, value in state.items() if key != lost})
    with torch.device("meta"):
        deeper = torchvision.models.resnet101(weights=None).state_dict()
    with pytest.raises(WeightsError, match=r"unknown layer3\.10\.bn1\.bias"):
        resnet(deeper)
    misshapen = resnet({**state, "bn1.bias": torch.zeros(3)}).state
    with pytest.raises(WeightsError, match=r"bn1\.bias has shape \(3,\), not \(64,\)"):
        load_strict(ResNet("resnet18", 3, (64, 64)), misshapen, where="test")


@pytest.mark.parametrize("name", RESNETS)
def test_timms_resnets_have_torchvisions_names(name):
    """A file of timm for the same network maps too, and its classifier is left out by name."""
    with torch.device("meta"):
        state = dict(timm.create_model(name).state_dict())
    mapped = resnet(state)
    assert set(torchvision_file(name)) == set(state)
    assert ("fc.weight", "fc.bias") == mapped.dropped


# ----------------------------------------------------------------------------------- timm


@pytest.mark.parametrize(
    ("name", "pooling", "dropped"),
    [
        ("vit_tiny_patch16_224", Pooling.CLS, {"head.weight", "head.bias"}),
        ("vit_tiny_patch16_dinov3_qkvb", Pooling.CLS, {"head.weight", "head.bias"}),
        ("convnext_atto", Pooling.MEAN, {"head.fc.weight", "head.fc.bias"}),
        ("resnet18", Pooling.MEAN, {"fc.weight", "fc.bias"}),
        (
            "deit_tiny_distilled_patch16_224",
            Pooling.CLS,
            {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"},
        ),
    ],
)
def test_timm_files_load_into_the_network_of_that_name(name, pooling, dropped, generator):
    """Every tensor but those of a classifier arrives; one too many or too few is listed."""
    size = {"img_size": 64} if "patch16" in name else {}
    file = dict(timm.create_model(name, num_classes=7, **size).state_dict())
    for key, value in file.items():
        if key.endswith(("gamma_1", "gamma_2")):
            value.uniform_(0.1, 1, generator=generator)
    mapped = timm_map(file)
    network = build_timm(f"timm:{name}", 3, (64, 64), generator, pooling=pooling)
    load_strict(network, mapped.state, where="test")

    assert dropped == set(mapped.dropped)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in mapped.state.items())
    with pytest.raises(WeightsError, match=r"foreign model\.extra"):
        load_strict(network, timm_map({**file, "extra": torch.ones(1)}).state, where="test")
    lost = next(iter(mapped.state)).removeprefix("model.")
    fewer = {key: value for key, value in file.items() if key != lost}
    with pytest.raises(WeightsError, match=f"missing model.{lost}"):
        load_strict(network, timm_map(fewer).state, where="test")


# ------------------------------------------------------------------------------ detection


def test_detection_by_characteristic_names():
    """Each kind is told from the others: registers, gates, DINOv3, ViT, ConvNeXt, ResNet."""
    for kind in KINDS:
        assert StateLayout.DINOV2 is detect_layout(filled(meta_shapes(kind)))
        assert StateLayout.TIMM_DINOV2 is detect_layout(filled(timm_shapes(kind)))
    for name in ("vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb", "convnext_atto"):
        with torch.device("meta"):
            state = timm.create_model(name).state_dict()
        assert StateLayout.TIMM is detect_layout(state), name
    for kind in (SMALL, SMALL_REG, SMALL_GATED):  # our own: without a mask token
        state = dinov2_to_vit(meta_file(kind))
        assert set(state) == set(KEY_MAPS[detect_layout(state)](state).state)


def test_detection_does_not_loosen(generator):
    """A state dict that looks like a kind is still refused by its map for one tensor too many."""
    for _, file, _, _ in FILES:
        state = {**file(SMALL), "stray.weight": torch.zeros(1)}
        with pytest.raises(WeightsError, match=r"unknown stray\.weight"):
            KEY_MAPS[detect_layout(state)](state)


def test_what_fits_no_layout_is_shown():
    """The first names of something else are listed, an empty file and Meta's DINOv3 are named."""
    with pytest.raises(WeightsError, match="use timm's copy"):
        detect_layout({"storage_tokens": torch.ones(1), "blocks.0.norm1.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"encoder\.0\.weight, decoder\.bias"):
        detect_layout({"encoder.0.weight": torch.ones(1), "decoder.bias": torch.ones(1)})
    with pytest.raises(WeightsError, match="no tensors"):
        detect_layout({})


def test_every_layout_has_a_map():
    """No card can name a layout that nothing reads."""
    assert set(StateLayout) == set(KEY_MAPS)
