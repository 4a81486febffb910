"""Networks in timm's registry: timm's own classes, with the weights and vectors of eofm's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec
from eofm.errors import WeightsError
from eofm.weights import timm_models
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import Encoder, random_encoder

SIX = [f"softcon_{net}_{s}" for net in ("rn50", "vits14", "vitb14") for s in ("s2", "s1")]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Encoder]:
    """Random weights stand in for the files; returns the encoder `load_weights` gives."""
    made: dict[str, Encoder] = {}

    def load(weights: str, card: str | None = None) -> Encoder:
        name = card or weights
        if name not in made:
            described = WEIGHTS[name]
            made[name] = random_encoder(described.architecture, described.recipe, seed=8)
        return made[name]

    monkeypatch.setattr(timm_models, "load_weights", load)
    return load


def noise(name: str, size: int = 224) -> torch.Tensor:
    """One normalised image."""
    shape = (1, len(WEIGHTS[name].recipe.bands), size, size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SIX)
def test_all_six_are_the_networks_timm_knows(name):
    """Tensor names and shapes are those of timm's own DINOv2 ViT or ResNet-50, for our bands."""
    twin = {
        "rn50": ("resnet50", {}),
        "vits14": ("vit_small_patch14_dinov2", {"img_size": 224}),
        "vitb14": ("vit_base_patch14_dinov2", {"img_size": 224}),
    }
    known, options = twin[name.split("_")[1]]
    bands = len(WEIGHTS[name].recipe.bands)
    with torch.device("meta"):
        model = timm.create_model(f"eofm_{name}")
        like = timm.create_model(known, in_chans=bands, num_classes=0, **options)

    assert f"eofm_{name}" in timm.list_models("eofm_*", pretrained=True)
    assert type(model) is (ResNet if "rn50" in name else VisionTransformer)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in like.state_dict().items()
    }


@pytest.mark.parametrize("name", ["softcon_vits14_s2", "softcon_rn50_s2"])
@torch.no_grad()
def test_the_vectors_are_those_of_the_encoder(name, published):
    """With weights, each gives the encoder's vectors to 1e-5."""
    model = timm.create_model(f"eofm_{name}", pretrained=True).eval()
    expected = published(name)(noise(name))

    torch.testing.assert_close(model(noise(name)), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softcon_vits14_s1", "softcon_rn50_s1"])
@torch.no_grad()
def test_heads_and_maps(name, published):
    """`num_classes` adds a head on the same features; `features_only` gives the encoder's maps."""
    encoder, image = published(name), noise(name)
    model = timm.create_model(f"eofm_{name}", pretrained=True, num_classes=19).eval()
    maps = timm.create_model(f"eofm_{name}", pretrained=True, features_only=True).eval()

    assert (1, 19) == tuple(model(image).shape)
    features = model.forward_head(model.forward_features(image), pre_logits=True)
    torch.testing.assert_close(features, encoder(image), atol=1e-5, rtol=1e-5)
    (last,) = encoder.get_intermediate_layers(image, reshape=True, norm=False)
    torch.testing.assert_close(maps(image)[-1], last, atol=1e-5, rtol=1e-5)
    assert maps.feature_info.channels()[-1] == encoder.dim


@torch.no_grad()
def test_another_image_size_is_interpolated_as_dinov2_does(published):
    """A ViT built for 112 px gives what the encoder gives for 112 px."""
    name = "softcon_vits14_s1"
    model = timm.create_model(f"eofm_{name}", pretrained=True, img_size=112).eval()
    image = noise(name, 112)

    torch.testing.assert_close(model(image), published(name)(image), atol=1e-5, rtol=1e-5)


def test_other_bands_are_refused_before_anything_is_loaded(monkeypatch):
    """Filters are neither repeated nor dropped, as timm would; random ones may have any bands."""
    monkeypatch.setattr(timm_models, "load_weights", None)
    with pytest.raises(WeightsError, match="other bands"):
        timm.create_model("eofm_softcon_vits14_s1", pretrained=True, in_chans=3)
    model = timm.create_model("eofm_softcon_vits14_s1", in_chans=3)

    assert 3 == model.patch_embed.proj.in_channels


def test_a_local_file_is_checked(tmp_path):
    """The overlay of timm names a file; eofm reads it: one with another hash is refused."""
    card = WEIGHTS["softcon_vits14_s1"]
    path = Path(tmp_path) / card.filename
    state = random_encoder(card.architecture, card.recipe, 1).trunk.state_dict()
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, path)
    with pytest.raises(WeightsError, match=r"hash|sha256"):
        timm.create_model(
            "eofm_softcon_vits14_s1", pretrained=True, pretrained_cfg_overlay={"file": str(path)}
        )


@pytest.mark.parametrize("name", ["softcon_vits14_s2", "softcon_rn50_s1"])
def test_the_cfg_says_what_mean_and_std_can_say(name):
    """(x - mean) / std agrees with the recipe inside the clip to one level of 255, and says so."""
    recipe = WEIGHTS[name].recipe
    model = timm.create_model(f"eofm_{name}")
    cfg = model.pretrained_cfg
    data = timm.data.resolve_model_data_config(model)
    column = (1, -1, 1, 1)
    mean, std = (torch.tensor(cfg[key]).view(column) for key in ("mean", "std"))
    pixels = mean + std * torch.rand(1, len(recipe.bands), 224, 224)
    spec = ImageSpec(recipe.sensor, recipe.bands, recipe.unit, (224, 224), 10.0)
    valid = torch.ones(1, 224, 224, dtype=torch.bool)
    encoder = random_encoder("resnet18" if "rn" in name else "vit-tiny-14", recipe, 0)
    eaten = encoder.preprocess(Imagery(pixels, spec, valid))

    assert (len(recipe.bands), 224, 224) == data["input_size"]
    assert 1.0 == data["crop_pct"]
    difference = (pixels - mean) / std - eaten
    assert -1e-4 < difference.min()
    assert difference.max() < 1 / 255 + 1e-4
    notes = " ".join(cfg["notes"])
    for word in (
        recipe.bands[0],
        str(recipe.unit),
        "clip",
        "255 levels",
        "eofm.contract.preprocess",
    ):
        assert word in notes
    assert ("cc-by-4.0", 0) == (cfg["license"], cfg["num_classes"])
