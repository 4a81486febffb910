"""Sentinel-2 L1C of the ground on one day: sunlight, clouds, air, sensor.

Shapes: H by W pixels of 10 m; U units of the landscape; 13 bands in the order of `BANDS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eofm.contract.sensors import BANDS as BAND_TABLE
from eofm.contract.sensors import resolution_groups
from eofm.world.biomes import Biome
from eofm.world.fields import Bools, Floats, coarsen, fractal, smooth
from eofm.world.ground import WorldGround
from eofm.world.landscape import PIXEL, Landscape
from eofm.world.places import Visit
from eofm.world.spectra import (
    AIR_MASS,
    BANDS,
    HAZE,
    ICE_CLOUD,
    PATH,
    SURFACES,
    TRANSMITTANCE,
    WATER_CLOUD,
    material,
)

Digital = npt.NDArray[np.uint16]

_LIST = tuple(SURFACES.values())
_GREEN = np.stack([material(s.green) for s in _LIST])
_DORMANT = np.stack([material(s.dormant) for s in _LIST])
_CONTRAST = np.array([s.contrast for s in _LIST], np.float32)
_GRAIN = np.array([s.grain - 1 for s in _LIST])
_ROUGH = np.array([s.rough for s in _LIST], np.float32)
_FRESH_SNOW, _OLD_SNOW = material("ice sheet"), material("old snow")
_WAVELENGTH = np.array([BAND_TABLE[b].wavelength_nm for b in BANDS], np.float32)
# spectral tilt of a place: -1 at 440 nm, +1 at 2200 nm, straight in the logarithm
_TILT = 2 * np.log(_WAVELENGTH / 440) / np.log(2200 / 440) - 1
_LOWEST_SUN = 78.0  # zenith angle; Sentinel-2 images hardly anything under a lower sun
_SUN_OF_SPECTRA = 40.0  # zenith angle at which the materials were seen
_LONGEST_SHADOW = 60  # pixels
_CLOUD_SEEN, _SHADOW_SEEN = 0.25, 0.3  # opacity and depth above which a mapper sees no ground


@dataclass(frozen=True)
class CloudField:
    """What hangs over a scene; all (H, W), 0 to 1.

    Args:
        water: Opacity of low, thick cloud.
        ice: Opacity of thin, high cloud.
        shadow: Depth of the shadow of the low cloud.
    """

    water: Floats
    ice: Floats
    shadow: Floats

    @property
    def hidden(self) -> Bools:
        """Where a mapper does not see the ground well enough, (H, W)."""
        opaque = np.maximum(self.water, 0.7 * self.ice) > _CLOUD_SEEN
        hidden: Bools = opaque | (self.shadow > _SHADOW_SEEN)
        return hidden


def draw_clouds(rng: np.random.Generator, biome: Biome, visit: Visit, size: int) -> CloudField:
    """Draw the clouds of a day: none, a veil of cirrus, or low clouds with shadows."""
    clear = np.zeros((size, size), np.float32)
    if rng.random() > biome.cloudy:
        return CloudField(clear, clear, clear)
    if rng.random() < 0.4:  # cirrus veils much and hides little
        veil = np.clip(fractal(rng, size, (3.2,))[0] * 0.5 + float(rng.uniform(0.2, 1.2)), 0, None)
        return CloudField(clear, 1 - np.exp(-float(rng.uniform(0.02, 0.15)) * veil), clear)
    margin = min(_LONGEST_SHADOW, size // 2)  # clouds beyond the edge throw shadows into the scene
    field = fractal(rng, size + 2 * margin, (2.9,))[0]
    level = float(np.quantile(field, 1 - rng.uniform(0.01, 0.2)))
    opacity: Floats = 1 - np.exp(-np.clip(field - level, 0, None) * float(rng.uniform(1, 4)))
    zenith, azimuth = np.deg2rad(min(visit.sun_zenith, 70.0)), np.deg2rad(visit.sun_azimuth)
    reach = min(float(rng.uniform(300, 1200)) * np.tan(zenith) / PIXEL, margin)
    # the shadow falls away from the sun: from a southern sun to the north, to lower rows
    row, column = round(reach * np.cos(azimuth)), round(-reach * np.sin(azimuth))
    shadow = opacity[margin - row :, margin - column :][:size, :size]
    inside = slice(margin, margin + size)
    return CloudField(opacity[inside, inside], clear, 0.9 * smooth(shadow, 0.25))


def draw_optical(
    rng: np.random.Generator,
    land: Landscape,
    visit: Visit,
    ground: WorldGround,
    clouds: CloudField,
    haze_field: Floats,
) -> dict[str, Digital]:
    """Mix the ground, light it, put air, clouds and noise over it.

    Returns:
        Band name -> digital numbers at native resolution, (h, w).
    """
    scene = _reflectance(rng, land, visit, ground)
    # in the shadow of a cloud the blue sky still lights the ground
    sky = 0.35 * (_WAVELENGTH / 450) ** -1.0
    scene *= 1 - clouds.shadow * (1 - sky[:, None, None])
    _add_air(rng, scene, visit, haze_field)
    for opacity, colour in ((clouds.water, WATER_CLOUD), (clouds.ice, ICE_CLOUD)):
        if opacity.any():
            scene += opacity * (colour[:, None, None] - scene)
    result: dict[str, Digital] = {}
    for gsd, names in resolution_groups(BANDS).items():
        index = [BANDS.index(b) for b in names]
        group = smooth(scene[index], 0.12) if gsd == 10 else coarsen(scene[index], gsd // 10)
        noise = rng.standard_normal(group.shape, dtype=np.float32)
        # instrument noise: a floor of a few counts, a little more on bright ground (assumed)
        group = group + noise * (3 + 0.004 * group)
        digital = np.clip(np.rint(group), 1, 28_000).astype(np.uint16)
        result |= dict(zip(names, digital, strict=True))
    return result


def _reflectance(
    rng: np.random.Generator, land: Landscape, visit: Visit, ground: WorldGround
) -> Floats:
    """Return surface reflectance x 10000 as lit by the sun, (13, H, W)."""
    place_tint = np.exp(land.tint[:, :1] + land.tint[:, 1:] * _TILT)
    growth = (_GREEN - _DORMANT)[land.surface] * ground.green[:, None]
    colour = _DORMANT[land.surface] + growth
    colour += ground.ripe[:, None] * (material("ripe crop") - colour)
    colour += 0.8 * ground.flooded[:, None] * (material("turbid water") - colour)
    low_sun = np.tan(np.deg2rad(min(visit.sun_zenith, _LOWEST_SUN)))
    low_sun -= np.tan(np.deg2rad(_SUN_OF_SPECTRA))
    shade = np.clip(1 - (0.06 + 0.16 * _ROUGH[land.surface]) * low_sun, 0.5, 1.15)
    colour *= place_tint[land.surface] * (land.tone * shade)[:, None]
    scene = np.take(np.ascontiguousarray(colour.T), land.unit, axis=1)
    changes = np.ascontiguousarray((growth * (ground.green < 0.97)[:, None]).T)
    patchy = 0.22 * (0.6 * land.texture[1] + 0.4 * land.texture[2])  # growth is never even
    scene += np.take(changes, land.unit, axis=1) * patchy
    scene *= _brightness(land, visit)
    if ground.snow.any():
        age = float(rng.uniform(0, 0.9))
        snow = (_FRESH_SNOW + age * (_OLD_SNOW - _FRESH_SNOW))[:, None, None] * _slope_light(
            land, visit
        )
        scene += ground.snow * (snow * (1 + 0.05 * land.texture[2]) - scene)
    scene.clip(1, out=scene)
    return scene


def _brightness(land: Landscape, visit: Visit) -> Floats:
    """Return texture times slope light, (H, W)."""
    grain = _GRAIN[land.surface][land.unit]
    texture = np.take_along_axis(land.texture, grain[None], axis=0)[0]
    spread = _CONTRAST[land.surface][land.unit]
    light = _slope_light(land, visit)
    brightness: Floats = np.clip(1 + spread * texture, 0.3, 2.5) * light
    return brightness


def _slope_light(land: Landscape, visit: Visit) -> Floats:
    """Return sunlight on the slope over sunlight on the plain, softened by the sky, (H, W)."""
    zenith = np.deg2rad(min(visit.sun_zenith, 70.0))
    azimuth = np.deg2rad(visit.sun_azimuth)
    down, right = np.gradient(land.height, PIXEL)
    # the normal is (-dz/dx, -dz/dy, 1) with x east and y north, and rows go south
    facing = -right * np.sin(azimuth) + down * np.cos(azimuth)
    cosine = (np.cos(zenith) + np.sin(zenith) * facing) / np.sqrt(1 + down**2 + right**2)
    light: Floats = 0.2 + 0.8 * np.maximum(cosine, 0) / np.float32(np.cos(zenith))
    return np.clip(light, 0.2, 1.8)


def _add_air(rng: np.random.Generator, scene: Floats, visit: Visit, haze_field: Floats) -> None:
    """Turn ground into top-of-atmosphere digital numbers, in place."""
    zenith = np.deg2rad(min(visit.sun_zenith, _LOWEST_SUN))
    mass = float(1 / np.cos(zenith) + 1) / AIR_MASS
    haze = 50 * float(rng.lognormal(0, 0.75)) * mass
    vapour = float(rng.lognormal(0, 0.3))
    gas = np.ones(len(BANDS), np.float32)
    gas[BANDS.index("B09")] = vapour
    through = TRANSMITTANCE ** (0.5 * (1 + mass) * gas) * (1 - haze * HAZE / 8000)
    scene *= through[:, None, None]
    path = PATH * mass ** np.where(np.array(BANDS) == "B10", 0, 0.9)
    scene += path[:, None, None]
    scene += (haze * HAZE)[:, None, None] * np.clip(1 + 0.15 * haze_field, 0.4, None)
    scene[BANDS.index("B10")] += float(rng.gamma(1.5, 4))  # thin ice too faint to see elsewhere
