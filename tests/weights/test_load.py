"""Published weights load strictly from files in their true layout, and give the published features.

The files hold random values under exactly the published names, shapes and dtypes, so their hashes
are not the published ones: where the hash is not the point, `check_hash=False`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import eofm
from eofm import hub
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import SpecMismatch, WeightsError
from eofm.weights.cards import WEIGHTS
from eofm.weights.download import file_name
from eofm.weights.load import load_weights
from eofm.weights.start import open_source

State = dict[str, Tensor]

# The sizes in bytes of the published files (their LFS pointers, commits ed1ab3a and 62ff465).
PUBLISHED_BYTES = {
    "B13_rn50_softcon.pth": 94_472_581,
    "B13_vits14_softcon.pth": 89_589_310,
    "B13_vitb14_softcon.pth": 348_985_918,
    "B2_rn50_softcon.pth": 94_334_277,
    "B2_vits14_softcon.pth": 86_277_517,
    "B2_vitb14_softcon.pth": 342_362_509,
}
# zhu-xlab/FGMAE and torchgeo, in the order of the bands; typed in again, not imported.
S2_MEAN = (1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7, 2318.7, 2581.0, 837.7, 22.0)
S2_MEAN += (2195.2, 1537.4)
S2_STD = (791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0, 1249.5, 1345.9, 577.5, 47.5)
S2_STD += (1340.0, 1142.9)
STATISTICS = {"s2": (S2_MEAN, S2_STD), "s1": ((-12.59, -20.26), (5.26, 5.91))}
BANDS = {
    "s2": [*(f"B{i:02}" for i in range(1, 9)), "B8A", "B09", "B10", "B11", "B12"],
    "s1": ["VV", "VH"],
}


# ------------------------------------------------------------------- files in the true layout


def vit_state(width: int, bands: int, positions: int = 257, registers: int = 0) -> State:
    """A state dict with the names and shapes of DINOv2's and SoftCon's ViT files, 12 blocks."""
    g = torch.Generator().manual_seed(width + bands)

    def draw(*shape: int, scale: float = 0.03, around: float = 0.0) -> Tensor:
        return torch.empty(shape).normal_(around, scale, generator=g)

    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, positions, width, scale=0.3),
        "mask_token": draw(1, width),
    }
    if registers:
        state["register_tokens"] = draw(1, registers, width)
    state["patch_embed.proj.weight"] = draw(width, bands, 14, 14)
    state["patch_embed.proj.bias"] = draw(width)
    layers = (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4))
    for block in (f"blocks.{i}" for i in range(12)):
        for norm in ("norm1", "norm2"):
            state[f"{block}.{norm}.weight"] = draw(width, around=1.0)
            state[f"{block}.{norm}.bias"] = draw(width)
        for name, out, into in layers:
            state[f"{block}.{name}.weight"] = draw(out * width, into * width)
            state[f"{block}.{name}.bias"] = draw(out * width)
        for scale in ("ls1", "ls2"):
            state[f"{block}.{scale}.gamma"] = draw(width, scale=0.1, around=0.5)
    state["norm.weight"], state["norm.bias"] = draw(width, around=1.0), draw(width)
    return state


def published_resnet(bands: int) -> nn.Module:
    """The network of the README of zhu-xlab/softcon, with batch statistics of some training."""
    net = torchvision.models.resnet50(weights=None)
    net.conv1 = nn.Conv2d(bands, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)
    net.fc = nn.Identity()
    g = torch.Generator().manual_seed(bands)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=g)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(1234)
            elif tensor.ndim == 1:
                tensor.normal_(0.5 if name.endswith("weight") else 0.0, 0.1, generator=g)
            else:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=g)
    return net.eval()


@torch.no_grad()
def published_vit(state: Mapping[str, Tensor], pixels: Tensor, heads: int) -> Tensor:
    """DINOv2's forward at the native size, by hand: the CLS token after the last norm."""
    weight = state["patch_embed.proj.weight"]
    b, _, h, w = pixels.shape
    cut = pixels.reshape(b, -1, h // 14, 14, w // 14, 14).permute(0, 2, 4, 1, 3, 5).flatten(3)
    tokens = (cut @ weight.flatten(1).T + state["patch_embed.proj.bias"]).flatten(1, 2)
    x = torch.cat([state["cls_token"].expand(b, -1, -1), tokens], dim=1) + state["pos_embed"]
    if "register_tokens" in state:
        x = torch.cat([x[:, :1], state["register_tokens"].expand(b, -1, -1), x[:, 1:]], dim=1)

    def norm(y: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            y, y.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6
        )

    def linear(y: Tensor, name: str) -> Tensor:
        return y @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for block in (f"blocks.{i}" for i in range(12)):
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        x = x + state[f"{block}.ls1.gamma"] * linear(mixed, f"{block}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + state[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def normalised(bands: int) -> Tensor:
    """Pixels as a recipe of two sigma gives them: (1, bands, 224, 224) in [0, 1]."""
    return torch.rand((1, bands, 224, 224), generator=torch.Generator().manual_seed(7))


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


# -------------------------------------------------------------------------- SoftCon's six


@pytest.mark.parametrize("modality", ["s2", "s1"])
@pytest.mark.parametrize(
    ("model", "width", "heads"),
    [("vits14", 384, 6), pytest.param("vitb14", 768, 12, marks=pytest.mark.slow)],  # 350 MB
)
def test_softcon_vit_gives_the_published_features(
    tmp_path: Path, modality: str, model: str, width: int, heads: int
) -> None:
    """The published layout loads strictly, and gives the features of the published code."""
    bands = BANDS[modality]
    path = tmp_path / f"B{len(bands)}_{model}_softcon.pth"
    state = vit_state(width, len(bands))
    torch.save(state, path)

    encoder = load_weights(path, check_hash=False)

    assert 175 == len(state)
    assert abs(path.stat().st_size / PUBLISHED_BYTES[path.name] - 1) < 1e-3
    pixels = normalised(len(bands))
    expected = published_vit(state, pixels, heads)
    with torch.no_grad():
        assert relative(encoder(pixels), expected) < 1e-5
    assert torch.equal(state["pos_embed"], encoder.trunk.state_dict()["pos_embed"])
    assert f"softcon_{model}_{modality}" == encoder.card.name
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("modality", ["s2", pytest.param("s1", marks=pytest.mark.slow)])
def test_softcon_resnet_gives_the_published_features(tmp_path: Path, modality: str) -> None:
    """The ResNet-50 that the README builds from torchvision, and ours, agree on a file."""
    bands = BANDS[modality]
    path = tmp_path / f"B{len(bands)}_rn50_softcon.pth"
    published = published_resnet(len(bands))
    torch.save(published.state_dict(), path)

    encoder = load_weights(path, check_hash=False)

    assert 318 == len(published.state_dict())
    assert abs(path.stat().st_size / PUBLISHED_BYTES[path.name] - 1) < 1e-3
    pixels = normalised(len(bands))
    with torch.no_grad():
        assert relative(encoder(pixels), published(pixels)) < 1e-5
    assert (f"softcon_rn50_{modality}", 2048) == (encoder.card.name, encoder.dim)


@pytest.mark.parametrize("modality", ["s2", pytest.param("s1", marks=pytest.mark.slow)])
def test_softcon_enc_is_the_same_network(tmp_path: Path, modality: str) -> None:
    """The file torchgeo fetches, which timm's network loads, gives the features of the plain."""
    bands = len(BANDS[modality])
    path = tmp_path / f"B{bands}_vits14_softcon_enc.pth"
    state = vit_state(384, bands)
    enc = {key: value for key, value in state.items() if key != "mask_token"}
    torch.save(enc, path)
    theirs = timm.create_model(
        "vit_small_patch14_dinov2", img_size=224, in_chans=bands, num_classes=0
    ).eval()
    theirs.load_state_dict(enc, strict=True)

    encoder = load_weights(path)  # no hash of it is published

    pixels = normalised(bands)
    with torch.no_grad():
        assert relative(encoder(pixels), theirs(pixels)) < 1e-5
    assert f"softcon_vits14_{modality}_enc" == encoder.card.name


# ------------------------------------------------------------------------------- recipes


def imagery(modality: str) -> Imagery:
    """One image of 224 px: a constant per band, and a ramp that leaves the range on both sides."""
    mean, std = (torch.tensor(values) for values in STATISTICS[modality])
    ramp = torch.linspace(-3, 3, 224 * 224).reshape(224, 224)
    pixels = mean[:, None, None] + std[:, None, None] * ramp
    sensor, unit = (Sensor.S2_L1C, Unit.DN) if modality == "s2" else (Sensor.S1_GRD, Unit.DB)
    pixels = pixels.clamp(min=-1000) if modality == "s2" else pixels  # no digital number is less
    spec = ImageSpec(sensor, tuple(BANDS[modality]), unit, (224, 224), 10.0)
    return Imagery(pixels[None].float(), spec, torch.ones((1, 224, 224), dtype=torch.bool))


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A ViT-S file per modality."""
    folder = tmp_path_factory.mktemp("published")
    paths = {}
    for modality, bands in BANDS.items():
        paths[modality] = folder / f"B{len(bands)}_vits14_softcon.pth"
        torch.save(vit_state(384, len(bands)), paths[modality])
    return paths


@pytest.mark.parametrize("modality", ["s2", "s1"])
def test_the_recipe_is_the_readmes_mapping(small_files: Mapping[str, Path], modality: str) -> None:
    """Golden pixels: u = trunc(255 clip((x - (mu - 2 sd)) / (4 sd), 0, 1)) / 255, band by band."""
    encoder = load_weights(small_files[modality], check_hash=False)
    image = imagery(modality)

    found = encoder.preprocess(image)[0].numpy()

    mean, std = (np.asarray(v)[:, None, None] for v in STATISTICS[modality])
    low, high = mean - 2 * std, mean + 2 * std
    scaled = (image.pixels[0].numpy().astype(np.float64) - low) / (high - low) * 255.0
    expected = np.clip(scaled, 0, 255).astype(np.uint8) / 255
    # float32 and float64 may fall on two sides of a step, on few pixels and by one step
    assert np.abs(found - expected).max() <= 1.001 / 255
    assert np.mean(np.abs(found - expected) > 1e-6) < 1e-3
    assert (0.0, 1.0) == (found.min(), found.max())
    levels = found * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


def test_golden_values_of_a_pixel(small_files: Mapping[str, Path]) -> None:
    """By hand: DN 0, 1000, 3000 and 6000 in B02, B04 and B10."""
    encoder = load_weights(small_files["s2"], check_hash=False)
    image = imagery("s2")
    image.pixels[:] = torch.tensor([0.0, 1000.0, 3000.0, 6000.0]).repeat_interleave(56)[:, None]

    found = encoder.preprocess(image)[0, :, ::56, 0] * 255

    # B02: (x + 311) / 3417.2; B04: (x + 916.7) / 4579.6; B10: (x + 73) / 190; times 255, truncated
    np.testing.assert_allclose(found[1], [23, 97, 247, 255], atol=1e-4)
    np.testing.assert_allclose(found[3], [51, 106, 218, 255], atol=1e-4)
    np.testing.assert_allclose(found[10], [97, 255, 255, 255], atol=1e-4)


@pytest.mark.parametrize("modality", ["s2", "s1"])
def test_the_alternative_is_torchgeos_zscore(
    small_files: Mapping[str, Path], modality: str
) -> None:
    """`@torchgeo-zscore` feeds the same network an unbounded z-score."""
    name = f"softcon_vits14_{modality}@torchgeo-zscore"
    other = load_weights(small_files[modality], card=name, check_hash=False)
    image = imagery(modality)

    found = other.preprocess(image)[0]

    mean, std = (torch.tensor(v)[:, None, None] for v in STATISTICS[modality])
    torch.testing.assert_close(found, (image.pixels[0] - mean) / std, atol=1e-5, rtol=1e-5)
    assert name == other.card.name


def test_imagery_of_another_kind_is_refused(small_files: Mapping[str, Path]) -> None:
    """Sentinel-1 imagery cannot enter an encoder for Sentinel-2."""
    with pytest.raises(SpecMismatch):
        load_weights(small_files["s2"], check_hash=False).embed(imagery("s1"))


# ------------------------------------------------------------------- by name, address, file


def test_by_name_offline(
    small_files: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file put into `EOFM_WEIGHTS` is loaded by name without network, `@alternative` included."""
    shutil.copy(small_files["s1"], tmp_path)
    monkeypatch.setenv("EOFM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("EOFM_OFFLINE", "1")

    encoder = eofm.load_weights("softcon_vits14_s1@torchgeo-zscore", check_hash=False)

    assert "softcon_vits14_s1@torchgeo-zscore" == encoder.card.name
    assert hashlib.sha256(small_files["s1"].read_bytes()).hexdigest() == encoder.card.sha256
    assert WEIGHTS["softcon_vits14_s1"].url == encoder.card.url
    assert "2405.20462" == encoder.card.paper
    with pytest.raises(WeightsError, match="hash differs"):
        load_weights("softcon_vits14_s1")
    with pytest.raises(WeightsError, match="network is disabled"):
        load_weights("softcon_vits14_s2")


def test_by_address(small_files: Mapping[str, Path], host, tmp_path: Path) -> None:
    """An address is recognised by its file name, fetched once, and a file:// one read in place."""
    url = host.put("mirror/B2_vits14_softcon.pth", small_files["s1"].read_bytes())
    for _ in range(2):
        encoder = load_weights(url, directory=tmp_path, check_hash=False, progress=False)
    local = load_weights(small_files["s1"].as_uri(), check_hash=False)

    assert 1 == len(host.asked)
    assert encoder.card.sha256 == local.card.sha256
    with pytest.raises(WeightsError, match="hash differs"):
        load_weights(url, directory=tmp_path)


def test_an_export_and_a_file_like_another(small_files: Mapping[str, Path], tmp_path: Path) -> None:
    """An export loads with its own card; a file of an unknown name needs a card to describe it."""
    unknown = shutil.copy(small_files["s1"], tmp_path / "mine.pth")
    encoder = load_weights(unknown, card="softcon_vits14_s1", check_hash=False)
    eofm.save_encoder(encoder, tmp_path / "export")

    again = load_weights(tmp_path / "export")

    own = again.trunk.state_dict()
    assert all(torch.equal(own[k], v) for k, v in encoder.trunk.state_dict().items())
    with pytest.raises(WeightsError, match="have a card already"):
        load_weights(tmp_path / "export", card="softcon_vits14_s1")
    with pytest.raises(WeightsError, match="are unknown") as caught:
        load_weights(unknown)
    assert f"as in softcon_vits14_s2@{unknown}" in str(caught.value.remedy)
    assert str(unknown) == str(caught.value.where)


def test_a_file_that_a_card_describes(
    small_files: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CARD@FILE`, as the remedy says: network and input are the card's, the source is the file."""
    mine = shutil.copy(small_files["s1"], tmp_path / "mine.pth")
    encoder = load_weights(f"softcon_vits14_s1@{mine}")
    same = load_weights(small_files["s1"], card="softcon_vits14_s1", check_hash=False)

    assert encoder.recipe == same.recipe
    state = same.trunk.state_dict()
    assert all(torch.equal(state[k], v) for k, v in encoder.trunk.state_dict().items())
    assert ("softcon_vits14_s1@mine.pth", "mine.pth, not the published file") == (
        encoder.card.name,
        encoder.card.source,
    )
    with pytest.raises(WeightsError, match="have a card already"):
        load_weights(f"softcon_vits14_s1@{mine}", card="softcon_vits14_s1")
    with pytest.raises(WeightsError, match="there is no such weights file"):
        load_weights("softcon_vits14_s1@other.pth")
    monkeypatch.chdir(tmp_path)
    assert encoder.card.sha256 == hub.eofm(weights="softcon_vits14_s1@mine.pth").card.sha256
    start = open_source("softcon_vits14_s1@mine.pth", "vits14")
    assert (encoder.recipe, encoder.card.sha256) == (start.recipe, start.sha256)


def test_names_go_before_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called like published weights is meant by ./NAME, or as a Path."""
    (tmp_path / "softcon_vits14_s1").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EOFM_OFFLINE", "1")
    monkeypatch.setenv("EOFM_WEIGHTS", str(tmp_path))

    with pytest.raises(WeightsError, match="network is disabled"):
        load_weights("softcon_vits14_s1")
    for path in ("./softcon_vits14_s1", Path("softcon_vits14_s1")):
        with pytest.raises(WeightsError, match="no encoder here"):
            load_weights(path)
    with pytest.raises(WeightsError) as caught:
        load_weights("softcon_vits14_s3")
    assert "softcon_vits14_s" in str(caught.value.remedy)


# --------------------------------------------------------------------------- what is refused


def _wrong_bands(state: State) -> State:
    return {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].repeat(1, 2, 1, 1)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "blocks.3.norm1.bias"}, "blocks.3.norm1"),
        (lambda s: {**s, "head.weight": torch.zeros(2)}, "head.weight"),
        (_wrong_bands, "patch_embed.proj.weight"),
        (lambda s: {**s, "pos_embed": s["pos_embed"][:, :250]}, "square grid"),
    ],
)
def test_a_file_that_does_not_fit_is_named_by_its_tensors(
    small_files: Mapping[str, Path],
    tmp_path: Path,
    damage: Callable[[State], State],
    words: str,
) -> None:
    """A tensor missing, foreign or of another shape is an error that lists it."""
    path = tmp_path / "B2_vits14_softcon.pth"
    torch.save(damage(torch.load(small_files["s1"], weights_only=True)), path)

    with pytest.raises(WeightsError, match=words):
        load_weights(path, check_hash=False)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code in a weights file was run')",))


@pytest.mark.parametrize("content", ["pickle", "torch", "cut", "page", "empty"])
def test_a_foreign_file_is_one_error(
    small_files: Mapping[str, Path], tmp_path: Path, content: str
) -> None:
    """Pickled code, a truncated file, a web page and an empty file are refused, none is run."""
    path = tmp_path / "B2_vits14_softcon.pth"
    good = small_files["s1"].read_bytes()
    evil = io.BytesIO()
    torch.save({"cls_token": Evil()}, evil)
    path.write_bytes(
        {
            "pickle": pickle.dumps({"cls_token": Evil()}, protocol=2),
            "torch": evil.getvalue(),
            "cut": good[: len(good) // 2],
            "page": b"<!DOCTYPE html><title>404</title>",
            "empty": b"",
        }[content]
    )

    with pytest.raises(WeightsError) as caught:
        load_weights(path, check_hash=False)
    assert "found" in str(caught.value)


# ----------------------------------------------------------------------------- vision models


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_at_two_sizes(tmp_path: Path, registers: int) -> None:
    """The table of 518 px is whole in @native-518, and interpolated at 224 px as Meta does."""
    name = f"dinov2_vits14{'_reg' if registers else ''}"
    path = tmp_path / WEIGHTS[name].filename
    state = vit_state(384, 3, positions=1 + 37**2, registers=registers)
    torch.save(state, path)

    native = load_weights(path, card=f"{name}@native-518")
    small = load_weights(path)

    assert torch.equal(state["pos_embed"], native.trunk.state_dict()["pos_embed"])
    table = state["pos_embed"][:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    how = {"size": (16, 16), "antialias": True} if registers else {"scale_factor": 16.1 / 37}
    patches = functional.interpolate(table, mode="bicubic", **how).flatten(2).transpose(1, 2)
    expected = torch.cat([state["pos_embed"][:, :1], patches], dim=1)
    pixels = normalised(3)
    features = published_vit({**state, "pos_embed": expected}, pixels, 6)
    with torch.no_grad():
        assert relative(small(pixels), features) < 1e-5


def test_resnets_of_photographs_lose_their_classifier(tmp_path: Path) -> None:
    """A file of torchvision has fc and a hash in its name, DINO's has neither; both load."""
    published = published_resnet(3)
    state = published.state_dict()
    fc = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save({**state, **fc}, tmp_path / "resnet50-11ad3fa6.pth")
    torch.save(state, tmp_path / "dino_resnet50_pretrain.pth")

    supervised = load_weights(tmp_path / "resnet50-11ad3fa6.pth", check_hash=False)
    dino = load_weights(tmp_path / "dino_resnet50_pretrain.pth")

    pixels = normalised(3)
    with torch.no_grad():
        assert relative(supervised(pixels), published(pixels)) < 1e-5
    own = dino.trunk.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in state.items())
    assert ("resnet50_imagenet_v2", "dino_rn50") == (supervised.card.name, dino.card.name)
    with pytest.raises(WeightsError, match="hash differs"):
        load_weights(tmp_path / "resnet50-11ad3fa6.pth")


def test_dinov3_through_timm(tmp_path: Path) -> None:
    """Safetensors of timm load into its network; `model.safetensors` alone tells nothing."""
    theirs = timm.create_model("vit_small_patch16_dinov3", num_classes=0, global_pool="token")
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(0.1 if "gamma" in name else 0.0, 0.05, generator=g)
    path = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), path)
    kept = shutil.copy(path, tmp_path / file_name(WEIGHTS["dinov3_vits16"].url))

    encoder = load_weights(kept)

    pixels = torch.rand((1, 3, 256, 256), generator=g)
    with torch.no_grad():
        assert relative(encoder(pixels), theirs.eval()(pixels)) < 1e-5
    with pytest.raises(WeightsError, match="are unknown"):
        load_weights(path)
