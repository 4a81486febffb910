"""A EuroSAT in miniature whose classes differ a little, and an untrained encoder for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.contract.recipe import Recipe
from eofm.contract.spec import STATISTICS, Normalization, Sensor, Unit
from eofm.datasets.eurosat import CLASSES, FILE_ORDER
from eofm.weights.encoder import Encoder, random_encoder, save_encoder

# mean digital numbers of EuroSAT by band, rounded
LEVELS = {
    **{"B01": 1361, "B02": 1129, "B03": 1061, "B04": 968, "B05": 1219, "B06": 2010, "B07": 2377},
    **{"B08": 2302, "B8A": 2596, "B09": 729, "B10": 12, "B11": 1848, "B12": 1152},
}


def write_tile(path: Path, label: int, rng: np.random.Generator) -> None:
    """One tile: EuroSAT's band means, tinted by its class, with noise."""
    tint = np.random.default_rng(label).uniform(0.9, 1.1, 13)
    level = np.array([LEVELS[band] for band in FILE_ORDER]) * tint * rng.uniform(0.93, 1.07)
    pixels = level[:, None, None] * rng.uniform(0.6, 1.4, (13, 64, 64))
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=13,
        height=64,
        width=64,
        crs="EPSG:32631",
        transform=Affine(10.007, 0, 462_581.6, 0, -10.02, 5_426_721.9),
    ) as file:
        file.write(pixels.astype(np.uint16))


@pytest.fixture(scope="session")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/<class> with six tiles each, test/<class> with two."""
    root = tmp_path_factory.mktemp("eurosat")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for number in range(8):
            split = "train" if number < 6 else "test"
            write_tile(root / split / name / f"{name}_{number}.tif", label, rng)
    return root


def recipe_of(sensor: Sensor, size: int = 28) -> Recipe:
    """The recipe of a small encoder."""
    statistics = STATISTICS["ssl4eo-s12-l1c" if sensor is Sensor.S2_L1C else "ssl4eo-s12-grd"]
    return Recipe(
        sensor,
        statistics.bands,
        Unit.DN if sensor is Sensor.S2_L1C else Unit.DB,
        (size, size),
        Normalization.two_sigma(statistics.mean, statistics.std, statistics.source),
    )


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """An untrained encoder of Level-1C images, of two blocks."""
    return random_encoder("vit-tiny-14-2blocks", recipe_of(Sensor.S2_L1C), seed=5)


@pytest.fixture(scope="session")
def whole_encoder() -> Encoder:
    """One with six blocks and a final norm, for what reads or trains layer by layer."""
    return random_encoder("vit-tiny-14", recipe_of(Sensor.S2_L1C), seed=5)


@pytest.fixture(scope="session")
def whole_folder(whole_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk."""
    folder = tmp_path_factory.mktemp("encoders") / "mine"
    save_encoder(whole_encoder, folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of two blocks on disk."""
    folder = tmp_path_factory.mktemp("encoders") / "mine"
    save_encoder(encoder, folder)
    return folder


@pytest.fixture(scope="session")
def radar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of Sentinel-1 on disk."""
    folder = tmp_path_factory.mktemp("encoders") / "radar"
    save_encoder(random_encoder("vit-tiny-14-2blocks", recipe_of(Sensor.S1_GRD), seed=5), folder)
    return folder
