"""Plausible pixels: band means of real imagery, for images that are to pass every test of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

EUROSAT: Final[Mapping[str, float]] = {
    **{"B01": 1361, "B02": 1129, "B03": 1061, "B04": 968, "B05": 1219, "B06": 2010, "B07": 2377},
    **{"B08": 2302, "B8A": 2596, "B09": 729, "B10": 12, "B11": 1848, "B12": 1152},
}
"""Mean digital numbers of EuroSAT (Level-1C) by band, rounded."""

BIGEARTHNET: Final[Mapping[str, float]] = {"VV": -12.6, "VH": -19.3}
"""Mean backscatter of BigEarthNet in dB."""


def levels(bands: Sequence[str]) -> Tensor:
    """Return (C, 1, 1) means in digital numbers or dB."""
    means = {**EUROSAT, **BIGEARTHNET}
    return torch.tensor([means[band] for band in bands]).view(-1, 1, 1)


def surface(bands: Sequence[str], size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return (C, H, W) digital numbers of Level-2A, float64: water, forest and bare soil.

    Below the water vapour B09 is as bright as B8A, and the darkest pixels are near 0.
    """
    rng = np.random.default_rng(seed)
    means = {**EUROSAT, "B01": 500, "B02": 520, "B03": 700, "B09": 2600}
    level = np.array([means[band] for band in bands], float)[:, None, None]
    light = rng.choice([0.05, 0.7, 1.0, 1.5], (1, *size)) * rng.uniform(0.8, 1.2, (1, *size))
    return level * light * rng.uniform(0.95, 1.05, (len(bands), *size)) + 1
