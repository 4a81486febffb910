"""A real pretrained transformer on real ground: where seams are, and where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import eofm
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import DEFAULT_STATISTICS, SENSOR_BANDS, STATISTICS, Normalization, Sensor
from eofm.geo.embedding.embed import embed_patches
from eofm.networks.state import InputInit, PositionRecipe
from eofm.weights.encoder import Encoder, random_encoder
from eofm.weights.start import start_from

SIZE = 112


@pytest.fixture(scope="module")
def encoder(real_weights: Path) -> Encoder:
    """The real transformer with the red, green and blue of its input layer spread over 13 bands."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    stats = STATISTICS[DEFAULT_STATISTICS[Sensor.S2_L1C]].select(bands)
    norm = Normalization.two_sigma(stats.mean, stats.std, stats.source, quantise=True)
    recipe = Recipe(Sensor.S2_L1C, bands, stats.unit, (SIZE, SIZE), norm, pooling=Pooling.MEAN)
    trunk, _ = start_from(
        str(real_weights), "vits14", recipe, torch.Generator().manual_seed(0),
        input_init=InputInit.RGB_NEAREST, positions=PositionRecipe.DINOV2,
    )  # fmt: skip
    card = random_encoder("vits14", recipe, 0).card
    return Encoder(trunk, replace(card, name="natural-images", sha256=""))


@pytest.mark.slow
@pytest.mark.parametrize("site", ["38D", "637U"])
def test_seams_of_a_real_network_vanish(encoder: Encoder, real_data: Path, site: str) -> None:
    """Neighbours across a border of windows differ no more than neighbours inside of one, where
    they differ more than twice as much without blending.
    """
    file = next((real_data / "terramesh/S2L1C").glob(f"{site}*.tif"))
    scene = eofm.open_scene(file, sensor="s2-l1c", unit="dn")

    ratios = {}
    for overlap, borders in ((0, [7]), (None, [5, 7, 13])):
        vectors = embed_patches(scene, encoder, overlap=overlap).rows(slice(None))
        steps = np.linalg.norm(np.diff(vectors, axis=1), axis=-1).mean(axis=0)
        inside = np.delete(steps, borders)
        ratios[overlap] = steps[borders].mean() / inside.mean()
        if overlap is None:
            assert steps[borders].max() <= inside.max()

    assert ratios[0] > 2
    assert ratios[None] < 1.1
