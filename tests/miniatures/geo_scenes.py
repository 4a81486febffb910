"""Small scenes and a small encoder, for the tests of embedding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from eofm.contract.recipe import Pooling, default_recipe
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.geo.embedding.config import EmbedConfig
from eofm.weights.encoder import Encoder, random_encoder, save_encoder

BANDS = ("B02", "B03", "B04")
GRIDS = {
    "utm": ("EPSG:32632", Affine(10, 0, 500_000, 0, -10, 5_400_000)),
    "degrees": ("EPSG:4326", Affine(0.0001, 0, 9, 0, -0.0001, 48)),
    "south-up": ("EPSG:32632", Affine(10, 0, 500_000, 0, 10, 5_400_000)),
    "rotated": ("EPSG:32632", Affine(9.9, 1.2, 500_000, 1.2, -9.9, 5_400_000)),
}


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Digital numbers as of vegetation, (3, height, width) uint16."""
    draw = np.random.default_rng(seed)
    return draw.integers(400, 2_000, (3, height, width)).astype(np.uint16)


def write_scene(path: Path, pixels: np.ndarray, place: str = "utm", **profile: object) -> Path:
    """Write a GeoTIFF of Level-2A with named bands."""
    crs, transform = GRIDS[place]
    settings = {"crs": crs, "transform": transform, "tiled": True, "blockxsize": 64} | profile
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, blockysize=64, **settings,
    ) as target:  # fmt: skip
        target.write(pixels)
        target.descriptions = BANDS
    return path


def small_encoder(size: int = 28, pooling: Pooling = Pooling.CLS) -> Encoder:
    """An untrained transformer for three bands of Level-2A."""
    spec = ImageSpec(Sensor.S2_L2A, BANDS, Unit.DN, None, 10.0)
    return random_encoder("vit-tiny-14-2blocks", default_recipe(spec, (size, size), pooling), 0)


def sloping_encoder(size: int) -> Encoder:
    """One whose tokens drift from the left of a window to its right, and say nothing else."""
    encoder = small_encoder(size)
    side = size // 14
    table = encoder.trunk.get_parameter("pos_embed")
    with torch.no_grad():
        table.zero_()
        ramp = torch.arange(side).float().repeat(side)
        table[0, -side * side :, 0] = ramp
    return encoder


def export(folder: Path, encoder: Encoder) -> str:
    """Write an encoder, and return its folder as text."""
    save_encoder(encoder, folder)
    return str(folder)


def config(scene: Path, model: str, out: Path, **changes: object) -> EmbedConfig:
    """Settings for one scene of these."""
    plain = EmbedConfig([str(scene)], model, str(out), sensor="s2-l2a", unit="dn")
    return replace(plain, **changes) if changes else plain
