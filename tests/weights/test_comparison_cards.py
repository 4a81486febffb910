"""The cards of the weights to compare with: addresses, and what reaches each network."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchgeo import models as torchgeo_models

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Pooling, ResizeOrder
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.networks.build import BUILDERS
from eofm.weights.cards import WEIGHTS, find, foundation, ssl4eo
from eofm.weights.cards.card import StateLayout
from eofm.weights.keymaps import KEY_MAPS

CARDS = {card.name: card for card in (*ssl4eo.CARDS, *foundation.CARDS)}

# ------------------------------------------------------------------ the authors' formulas

# S1_MEAN ... of zhu-xlab/SSL4EO-S12, ssl4eo_dataset.py, rounded by hand
S1_50K = ((-12.54847273, 5.25697717), (-20.19237134, 5.91150917))
S2_50K_B01_B10 = ((1605.57504906, 786.78685367), (22.10351321, 51.15431158))


def divided(x: float) -> float:
    """`uint8(x / 10000 * 255)`, clipped as the README says, then ToTensor."""
    return float(np.uint8(min(max(x / 10000.0, 0.0), 1.0) * 255.0)) / 255


def sigmas(x: float, mean: float, std: float) -> float:
    """`normalize` of the authors' loaders, then ToTensor."""
    low, high = mean - 2 * std, mean + 2 * std
    return float(np.clip((x - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)) / 255


def zscore(x: float, mean: float, std: float) -> float:
    """`(x - mean) / std`."""
    return (x - mean) / std


# what each band of a constant image should become: band -> (digital number or dB, formula)
S2_LEVELS = {band: 437.0 + 611.3 * i for i, band in enumerate(SENSOR_BANDS[Sensor.S2_L1C])}
S2_LEVELS |= {"B04": 12345.6, "B10": 31.7}  # one band beyond the clip
S1_LEVELS = {"VV": -9.43, "VH": -27.18}

GOLDEN = {
    "ssl4eo_moco_rn50_s2": {band: divided(x) for band, x in S2_LEVELS.items()},
    "ssl4eo_moco_rn50_rgb": {band: divided(S2_LEVELS[band]) for band in ("B04", "B03", "B02")},
    "ssl4eo_fgmae_vitb16_s2": {band: divided(x) for band, x in S2_LEVELS.items()},
    "ssl4eo_mae_vits16_s1": {
        "VV": sigmas(S1_LEVELS["VV"], *S1_50K[0]),
        "VH": sigmas(S1_LEVELS["VH"], *S1_50K[1]),
    },
    "ssl4eo_decur_rn50_s2": {
        "B01": sigmas(S2_LEVELS["B01"], *S2_50K_B01_B10[0]),
        "B10": sigmas(S2_LEVELS["B10"], *S2_50K_B01_B10[1]),
    },
    "ssl4eo_decur_rn50_s2@torchgeo": {band: x / 10000 for band, x in S2_LEVELS.items()},
    "ssl4eo_moco_rn50_s1@torchgeo": {
        "VV": zscore(S1_LEVELS["VV"], -12.59, 5.26),
        "VH": zscore(S1_LEVELS["VH"], -20.26, 5.91),
    },
    # 8-bit steps: a true-colour step is 3558 / 255 digital numbers, any other 32
    "dofa_base_s2": {
        "B04": zscore(S2_LEVELS["B04"] * 255 / 3558, 114.1099739, 77.84352553),
        "B02": zscore(S2_LEVELS["B02"] * 255 / 3558, 126.63977424, 67.42465279),
        "B08": zscore(S2_LEVELS["B08"] / 32, 101.435633, 60.29744676),
        "B12": zscore(S2_LEVELS["B12"] / 32, 56.66528851, 42.55886798),
    },
    "dofa_base_s1": {
        "VV": zscore(S1_LEVELS["VV"], -12.548, 5.257),
        "VH": zscore(S1_LEVELS["VH"], -20.192, 5.912),
    },
    "croma_base_s2": {
        "B01": sigmas(S2_LEVELS["B01"], 756.4, 1111.4),
        "B04": sigmas(S2_LEVELS["B04"], 1307.6, 1375.2),
        "B12": sigmas(S2_LEVELS["B12"], 1821.5, 1352.2),
    },
    "croma_base_s1": {
        "VV": sigmas(S1_LEVELS["VV"], -12.59, 5.26),
        "VH": sigmas(S1_LEVELS["VH"], -20.26, 5.91),
    },
    "croma_base_s2@copernicus-bench": {
        "B09": zscore(S2_LEVELS["B09"], 732.1, 475.1),
        "B11": zscore(S2_LEVELS["B11"], 1820.6, 1216.5),
    },
    "panopticon_vitb14_s2": {
        "B8A": zscore(S2_LEVELS["B8A"], 2262.4558, 1278.2103),
        "B10": zscore(S2_LEVELS["B10"], 16.7465, 15.1294),
    },
    "panopticon_vitb14_s1": {"VH": zscore(S1_LEVELS["VH"], -18.4975, 6.1924)},
    "copernicus_fm_base_s2": {
        "B08": zscore(S2_LEVELS["B08"], 2318.7, 1249.5),
        "B10": zscore(S2_LEVELS["B10"], 22.0, 47.5),
    },
    "copernicus_fm_base_s1": {"VV": zscore(S1_LEVELS["VV"], -12.59, 5.26)},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_reaches_the_network_is_the_authors_formula(name):
    """A constant per band, stored in another order and size, arrives as the authors make it."""
    recipe = find(name)[1]
    levels = S1_LEVELS if recipe.sensor is Sensor.S1_GRD else S2_LEVELS
    bands = tuple(sorted(b for b in SENSOR_BANDS[recipe.sensor]))[::-1]
    unit = Unit.DB if recipe.sensor is Sensor.S1_GRD else Unit.DN
    spec = ImageSpec(recipe.sensor, bands, unit, (20, 20), 10.0)
    pixels = torch.tensor([levels[band] for band in bands])[None, :, None, None].expand(
        1, -1, 20, 20
    )

    out = Preprocess(plan(spec, recipe))(
        Imagery(pixels.contiguous(), spec, torch.ones(1, 20, 20, dtype=torch.bool))
    ).pixels

    assert (1, len(recipe.bands), *recipe.size) == tuple(out.shape)
    for band, expected in GOLDEN[name].items():
        plane = out[0, recipe.bands.index(band)]
        torch.testing.assert_close(
            plane, torch.full_like(plane, expected), rtol=1e-5, atol=2e-5, msg=f"{name} {band}"
        )


def test_the_8_bit_weights_see_quantised_pixels_that_are_resized_after():
    """The SSL4EO family resizes what is cast already, as its loaders do: order is part of it."""
    for card in ssl4eo.CARDS:
        assert (0.0, 1.0) == card.recipe.normalization.clip
        assert 255 == card.recipe.normalization.levels
        assert ResizeOrder.AFTER_NORMALIZATION is card.recipe.resize.order
        assert not card.recipe.resize.antialias
        assert card.alternatives["torchgeo"].normalization.clip is None


# ------------------------------------------------------------------------------ the files

TORCHGEO = {
    "ssl4eo_moco_rn18_s2": "ResNet18_Weights.SENTINEL2_ALL_MOCO",
    "ssl4eo_moco_rn50_s2": "ResNet50_Weights.SENTINEL2_ALL_MOCO",
    "ssl4eo_moco_rn18_rgb": "ResNet18_Weights.SENTINEL2_RGB_MOCO",
    "ssl4eo_moco_rn50_rgb": "ResNet50_Weights.SENTINEL2_RGB_MOCO",
    "ssl4eo_moco_rn50_s1": "ResNet50_Weights.SENTINEL1_GRD_MOCO",
    "ssl4eo_moco_vits16_s2": "ViTSmall16_Weights.SENTINEL2_ALL_MOCO",
    "ssl4eo_dino_rn50_s2": "ResNet50_Weights.SENTINEL2_ALL_DINO",
    "ssl4eo_dino_vits16_s2": "ViTSmall16_Weights.SENTINEL2_ALL_DINO",
    "ssl4eo_decur_rn50_s2": "ResNet50_Weights.SENTINEL2_ALL_DECUR",
    "ssl4eo_decur_rn50_s1": "ResNet50_Weights.SENTINEL1_GRD_DECUR",
    **{
        f"ssl4eo_{method}_{model}_{modality}": f"{enum}_Weights.{sensor}_{method.upper()}"
        for method in ("mae", "fgmae")
        for model, enum in (
            ("vits16", "ViTSmall16"),
            ("vitb16", "ViTBase16"),
            ("vitl16", "ViTLarge16"),
            ("vith14", "ViTHuge14"),
        )
        for modality, sensor in (("s2", "SENTINEL2_ALL"), ("s1", "SENTINEL1_GRD"))
    },
    **{
        f"{name}_{modality}": enum
        for name, enum in (
            ("dofa_base", "DOFABase16_Weights.DOFA_MAE"),
            ("dofa_large", "DOFALarge16_Weights.DOFA_MAE"),
            ("croma_base", "CROMABase_Weights.CROMA_VIT"),
            ("croma_large", "CROMALarge_Weights.CROMA_VIT"),
            ("panopticon_vitb14", "Panopticon_Weights.VIT_BASE14"),
            ("copernicus_fm_base", "CopernicusFM_Base_Weights.CopernicusFM_ViT"),
        )
        for modality in ("s2", "s1")
    },
}


def test_every_file_is_the_one_torchgeo_fetches():
    """Each card has the address, channels and bands of torchgeo's own entry; none is left out."""
    assert set(CARDS) == set(TORCHGEO)
    for name, entry in TORCHGEO.items():
        enum, member = entry.split(".")
        weights = getattr(torchgeo_models, enum)[member]
        card = CARDS[name]
        assert weights.url == card.url, name
        assert f"-{card.sha256}." in card.filename or not card.sha256, name
        if "in_chans" in weights.meta:
            assert weights.meta["in_chans"] == len(card.recipe.bands), name
            theirs = [band.upper() for band in weights.meta["bands"]]
            ours = [re.sub(r"^B0", "B", band) for band in card.recipe.bands]
            assert theirs == ours, name


def test_torchgeos_claim_is_torchgeos():
    """On images of 224 px, @torchgeo gives what the Normalize of torchgeo's transform gives."""
    for name in ("ssl4eo_moco_rn50_s2", "ssl4eo_moco_rn50_s1", "ssl4eo_moco_rn50_rgb"):
        enum, member = TORCHGEO[name].split(".")
        *_, normalize = getattr(torchgeo_models, enum)[member].transforms
        recipe = find(f"{name}@torchgeo")[1]
        generator = torch.Generator().manual_seed(0)
        pixels = 3000 * torch.rand(1, len(recipe.bands), 224, 224, generator=generator) - 20
        spec = ImageSpec(recipe.sensor, recipe.bands, recipe.unit, (224, 224), 10.0)
        batch = Imagery(pixels, spec, torch.ones(1, 224, 224, dtype=torch.bool))

        out = Preprocess(plan(spec, recipe))(batch).pixels

        torch.testing.assert_close(normalize(pixels.clone()), out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_whole(name):
    """A card names its sources, pins its file, has a network and a key map, and is in the list."""
    card = CARDS[name]

    assert card is WEIGHTS[name]
    assert re.search(r"/resolve/[0-9a-f]{40}/", card.url)
    assert card.architecture in BUILDERS or card.architecture.startswith("timm:vit_")
    assert card.layout in KEY_MAPS
    assert min(map(len, (card.recipe_source, card.objective, card.training_data, card.note))) > 20
    assert re.fullmatch(r"\d{4}\.\d{5}", card.paper)
    assert card.licence in {"CC-BY-4.0", "MIT"}
    assert re.fullmatch(r"([0-9a-f]{8})?", card.sha256)
    for recipe in card.alternatives.values():
        assert recipe != card.recipe
        assert recipe.pooling is card.recipe.pooling
    for score in card.scores:
        assert 0 < score.value < 100
        assert score.source
    assert (name.split("_")[0] != "ssl4eo") == card.layout.needs_torchgeo
    assert ("s1" in name.split("_")) == (card.recipe.sensor is Sensor.S1_GRD)


def test_vectors_are_pooled_as_their_authors_do():
    """A ViT of SSL4EO-S12 and Panopticon give the CLS token, all the others a mean."""
    for card in CARDS.values():
        cls = card.architecture.startswith("timm:") or card.layout is StateLayout.PANOPTICON
        assert (Pooling.CLS if cls else Pooling.MEAN) is card.recipe.pooling, card.name


def test_sentinel_1_and_2_share_a_file():
    """The two cards of one file differ in what they expect and say so by their names."""
    for card in foundation.CARDS:
        other = CARDS[card.name[:-1] + ("1" if card.name.endswith("2") else "2")]
        assert card.url == other.url
        assert card.recipe != other.recipe
        assert replace(card, name="") != replace(other, name="")
