"""Sentinel-1 IW GRD of the ground on one day: backscatter, slopes, speckle, noise floor.

Shapes: H by W pixels of 10 m; U units of the landscape; two polarisations, VV and VH.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from eofm.world.fields import Floats, smooth
from eofm.world.ground import WorldGround
from eofm.world.landscape import PIXEL, Landscape
from eofm.world.places import Visit
from eofm.world.spectra import SURFACE_INDEX, SURFACES, GroundCover

LOOKS: Final = 4.4  # equivalent number of looks of IW GRD at high resolution
# [1, 2, 1] / 4 along both axes: neighbours correlate 0.67, next ones 0.17. TerraMesh and
# BigEarthNet show 0.65 to 0.73 and 0.12 to 0.27.
_SIDE = 0.25
_ENERGY = (6 / 16) ** 2  # sum of the squared weights of that kernel
_NOISE_FLOOR_DB = (-29.0, -31.0)  # VV, VH; what is left after thermal noise removal (assumed)
_INCIDENCE = np.deg2rad(38.0)
_DECIBEL = np.array([(s.radar, s.radar_dormant) for s in SURFACES.values()], np.float32)
_COVER = np.array([s.cover for s in SURFACES.values()], np.uint8)
_FACETS = np.array([s.facets for s in SURFACES.values()], np.float32)


def draw_radar(
    rng: np.random.Generator, land: Landscape, visit: Visit, ground: WorldGround
) -> dict[str, Floats]:
    """Return VV and VH in dB: backscatter of the units, slopes, facets, speckle, noise floor."""
    decibel = _DECIBEL[land.surface]  # (U, grown or dormant, polarisation)
    power = 10 ** (decibel / 10)
    mixed = power[:, 1] + ground.green[:, None] * (power[:, 0] - power[:, 1])
    mixed *= 10 ** (_moods(rng, land, ground) / 10)
    field = np.take(np.ascontiguousarray(mixed.T, np.float32), land.unit, axis=1)
    spread = _FACETS[land.surface][land.unit]
    field *= np.exp(0.23 * spread * land.facets) * _slope_echo(land, ascending=visit.ascending)
    field = smooth(field, _SIDE)
    # a sum of gammas over the kernel has exactly the wanted mean and number of looks
    shape = LOOKS * _ENERGY
    speckle = rng.standard_gamma(shape, field.shape, dtype=np.float32) / np.float32(shape)
    echo = field * smooth(speckle, _SIDE)
    floor = 10 ** (np.array(_NOISE_FLOOR_DB, np.float32) / 10)
    result = 10 * np.log10(echo + floor[:, None, None])
    return {"VV": result[0].astype(np.float32), "VH": result[1].astype(np.float32)}


def _moods(rng: np.random.Generator, land: Landscape, ground: WorldGround) -> Floats:
    """Return what the day changes in each unit, (U, 2) dB: wind, soil moisture, ice, water."""
    wind, rain, calibration = rng.normal(0, (3.0, 1.3, 0.5))
    units = np.zeros((len(land.surface), 2), np.float32)
    cover = _COVER[land.surface]
    water = cover == GroundCover.WATER
    units[water] += (wind, 0.7 * wind)
    if ground.frozen:
        units[water] += (3.0, 3.5)
    open_land = (land.surface != SURFACE_INDEX["street"]) & ~water & (cover != GroundCover.BUILT)
    units[open_land] += (rain * (1 - 0.6 * ground.green[open_land]))[:, None]
    units[:, 0] -= 7.0 * ground.flooded  # standing water mirrors the beam away
    units[:, 1] -= 4.0 * ground.flooded
    single = 4.34 * np.log(land.tone) * np.where(cover == GroundCover.BUILT, 2.5, 1.5)
    units += single[:, None] + calibration
    return units


def _slope_echo(land: Landscape, *, ascending: bool) -> Floats:
    """Return how slopes towards the sensor brighten: ascending passes look east, (H, W)."""
    _, right = np.gradient(land.height, PIXEL)
    towards = np.arctan(-right if not ascending else right)  # rising to the east faces the west
    echo = np.sin(_INCIDENCE) / np.maximum(np.sin(_INCIDENCE - towards), 0.15)
    clipped: Floats = np.clip(echo, 0.3, 4).astype(np.float32)
    return clipped
