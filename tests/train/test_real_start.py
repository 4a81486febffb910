"""A real pretrained transformer, continued on real tiles: what it knew survives the first steps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

import eofm
from eofm.contract.imagery import Labels
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import DEFAULT_STATISTICS, SENSOR_BANDS, STATISTICS, Normalization, Sensor
from eofm.loading.views import Views
from eofm.method import Objective, SoftCon, SoftConConfig, update_teacher
from eofm.networks.state import InputInit, PositionRecipe
from eofm.probes.features import effective_rank
from eofm.train.config import AugmentConfig
from eofm.train.optimizer import parameter_groups, parameter_rates
from eofm.weights.start import start_from

# In the tiles, B8A comes last.
IN_FILE = (*(band for band in SENSOR_BANDS[Sensor.S2_L1C] if band != "B8A"), "B8A")
STEPS, TILES, SIZE = 10, 54, 56


def recipe() -> Recipe:
    """Sentinel-2 L1C at 56 pixels, the mean of the patch tokens."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    stats = STATISTICS[DEFAULT_STATISTICS[Sensor.S2_L1C]].select(bands)
    norm = Normalization.two_sigma(stats.mean, stats.std, stats.source, quantise=True)
    return Recipe(Sensor.S2_L1C, bands, stats.unit, (SIZE, SIZE), norm, pooling=Pooling.MEAN)


def tiles(root: Path) -> Tensor:
    """EuroSAT tiles, normalised and resized."""
    files = sorted((root / "eurosat_ms" / "test").rglob("*.tif"))[:TILES]
    images = [eofm.read_geotiff(f, sensor="s2-l1c", unit="dn", bands=IN_FILE) for f in files]
    step = Preprocess(plan(images[0].spec, recipe()))
    return torch.cat([step(image).pixels for image in images])


@pytest.mark.slow
def test_copied_filters_at_the_decayed_rate_keep_the_rank(
    real_weights: Path, real_data: Path
) -> None:
    """Ten steps of the hard term: embeddings keep most of their directions, where at full pace of
    the input layer, which version 0.1 gave to copied filters as well, they lose most of them.
    """
    pixels = tiles(real_data)
    ranks = {}
    for name, rate in (("rule", None), ("full", 1.0)):
        generator = torch.Generator().manual_seed(0)
        trunk, origin = start_from(
            str(real_weights),
            "vits14",
            recipe(),
            generator,
            input_init=InputInit.RGB_NEAREST,
            positions=PositionRecipe.DINOV2,
        )
        start = copy.deepcopy(trunk).eval()
        config = SoftConConfig(objective=Objective.MOCO, mask_ratio=0.5, hidden=512, dim=128)
        method = SoftCon(trunk, config, generator)
        pace = parameter_rates(
            trunk, 0.75, freeze=False, new_input=origin.new_input, input_rate=rate
        )
        named = {f"student.trunk.{key}": value for key, value in pace.items()}
        lr = 2e-3 * TILES / 256
        optimizer = AdamW(parameter_groups(method.named_parameters(), 0.1, lr, named))
        views = Views(SIZE, AugmentConfig(), clip=(0.0, 1.0), colour=True)
        labels = Labels(torch.zeros(TILES, 1), torch.zeros(TILES, dtype=torch.bool))
        torch.manual_seed(0)
        for _ in range(STEPS):
            optimizer.zero_grad()
            method((views(pixels), views(pixels)), labels, generator).loss.backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), 3.0)
            optimizer.step()
            update_teacher(method.teacher, method.student, 0.99)
        with torch.no_grad():
            ranks["start"] = effective_rank(start(pixels))
            ranks[name] = effective_rank(method.student.trunk.eval()(pixels))

    assert not origin.new_input
    assert ranks["rule"] > 0.6 * ranks["start"]
    assert ranks["full"] < 0.4 * ranks["start"]
