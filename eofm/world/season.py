"""A landscape on one day: the ground, Sentinel-2 L1C, Sentinel-1 GRD and a Dynamic World map of it.

The ground: what is green, ripe, flooded, frozen or under snow. Sentinel-2: sunlight, clouds, air,
sensor. Sentinel-1 IW GRD: backscatter, slopes, speckle, noise floor.

Shapes: H by W pixels of 10 m; U units of the landscape; 13 bands in the order of `BANDS`; two
polarisations, VV and VH.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from eofm.contract.spec import BANDS as BAND_TABLE
from eofm.contract.spec import resolution_groups
from eofm.world.landscape import PIXEL, Bools, Floats, Landscape, coarsen, fractal, smooth
from eofm.world.places import Biome, Visit, WorldPlace, day_of_year
from eofm.world.spectra import (
    AIR_MASS,
    BANDS,
    CURVES,
    FLOODING,
    HAZE,
    ICE_CLOUD,
    NO_COVER,
    PATH,
    RIPENESS,
    SURFACE_INDEX,
    SURFACES,
    TRANSMITTANCE,
    WATER_CLOUD,
    GroundCover,
    material,
)

__all__ = [
    "LOOKS",
    "SNOW_SEEN",
    "CloudField",
    "Codes",
    "Digital",
    "WorldGround",
    "WorldScene",
    "draw_clouds",
    "draw_ground",
    "draw_optical",
    "draw_radar",
    "draw_scene",
    "map_cover",
    "temperature",
]


@dataclass(frozen=True)
class WorldScene:
    """One season of a location.

    Args:
        optical: Band name -> digital numbers at native resolution.
        radar: "VV", "VH" -> dB, (H, W) float32.
        cover: Dynamic World codes, 255 where unknown, (H, W).
        clouded: Share of pixels under cloud or shadow.
    """

    optical: Mapping[str, Digital]
    radar: Mapping[str, Floats]
    cover: Codes
    clouded: float


def draw_scene(
    rng: np.random.Generator, land: Landscape, biome: Biome, place: WorldPlace, visit: Visit
) -> WorldScene:
    """Draw the season of a location that belongs to a visit."""
    size = land.height.shape[0]
    weather, haze_field = fractal(rng, size, (2.4, 3.2))
    warmth = float(rng.normal(0, 2.5))
    ground = draw_ground(land, biome, place, day_of_year(visit.optical), warmth, weather)
    clouds = draw_clouds(rng, biome, visit, size)
    optical = draw_optical(rng, land, visit, ground, clouds, haze_field)
    later = draw_ground(land, biome, place, day_of_year(visit.radar), warmth, weather)
    radar = draw_radar(rng, land, visit, later)
    cover = map_cover(land, ground)
    cover[clouds.hidden] = NO_COVER
    return WorldScene(optical, radar, cover, float(clouds.hidden.mean()))


# ------------------------------------------------------------------------------------------ ground


Codes = npt.NDArray[np.uint8]

SNOW_SEEN: Final = 0.5  # share of a pixel above which a mapper says snow
_COVER = np.array([s.cover for s in SURFACES.values()], np.uint8)
_CURVE_OF = np.array([s.curve for s in SURFACES.values()])
_HOLDS_SNOW = np.array([s.holds_snow for s in SURFACES.values()], np.float32)


@dataclass(frozen=True)
class WorldGround:
    """The ground on one day.

    Args:
        green: Greenness of each unit, (U,).
        ripe: Share of ripe straw of each unit, (U,).
        flooded: Share of standing water of each unit, (U,).
        snow: Share of each pixel that is visibly under snow, (H, W).
        frozen: Whether water carries ice.
    """

    green: Floats
    ripe: Floats
    flooded: Floats
    snow: Floats
    frozen: bool


def draw_ground(
    land: Landscape, biome: Biome, place: WorldPlace, day: float, warmth: float, weather: Floats
) -> WorldGround:
    """Let things grow, ripen and freeze.

    Args:
        land: The location.
        biome: Its climate.
        place: Where it is.
        day: Day of the calendar year.
        warmth: Degrees by which these weeks are warmer than usual.
        weather: Where it is a little warmer, zero mean and unit variance, (H, W).
    """
    northern = day if place.latitude >= 0 else (day + 182.5) % 365
    unit_day = northern - land.delay
    curve_of = _CURVE_OF[land.surface]
    green = np.zeros(len(unit_day), np.float32)
    for name in np.unique(curve_of):
        chosen = curve_of == name
        green[chosen] = CURVES[str(name)](unit_day[chosen], place.latitude)
    growing = curve_of != "constant"
    green = np.where(growing, green * land.vigour, green).astype(np.float32)
    ripe = RIPENESS(unit_day, place.latitude) * (land.surface == SURFACE_INDEX["cereal"])
    flooded = FLOODING(unit_day, place.latitude) * (land.surface == SURFACE_INDEX["rice"])
    degrees = temperature(biome, place.latitude, northern) + warmth
    local = degrees - 0.0065 * (land.base_height - 100 + land.height) + 0.8 * weather
    lying = 1 / (1 + np.exp(np.clip((local + 2.5) / 0.7, -30, 30)))
    frozen = bool(local.mean() < -6)
    holds = _HOLDS_SNOW[land.surface]
    holds = np.where(_COVER[land.surface] == GroundCover.WATER, float(frozen), holds)
    return WorldGround(green, ripe, flooded, (lying * holds[land.unit]).astype(np.float32), frozen)


def temperature(biome: Biome, latitude: float, northern_day: float) -> float:
    """Return degrees Celsius at sea level: a parabola in latitude and a cosine over the year.

    Rough fits to climate normals: 9 °C in Berlin and 0 °C at 54° N in Canada, with amplitudes of
    10 and 17 °C.
    """
    mean = 27.5 - 0.0085 * latitude**2 + biome.warmth
    return float(mean - biome.swing * abs(latitude) * np.cos(2 * np.pi * (northern_day - 18) / 365))


def map_cover(land: Landscape, ground: WorldGround) -> Codes:
    """Return the map a mapper would draw that day: snow where it shows, rice under water as marsh.

    A majority of 3 x 3 pixels takes the single pixels out, as the networks that draw such maps do.
    """
    code = _COVER[land.surface].copy()
    code[ground.flooded > 0.5] = GroundCover.FLOODED_VEGETATION
    drawn = code[land.unit]
    drawn[ground.snow > SNOW_SEEN] = GroundCover.SNOW_AND_ICE
    votes = np.stack([smooth((drawn == c).astype(np.float32), 1 / 3) for c in GroundCover])
    votes += 1e-3 * (drawn[None] == np.arange(len(votes))[:, None, None])  # ties stay as they are
    majority: Codes = votes.argmax(0).astype(np.uint8)
    return majority


# -------------------------------------------------------------------------------------- Sentinel-2


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
    """Clouds, shadows and haze of a scene; all (H, W), 0 to 1.

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


# -------------------------------------------------------------------------------------- Sentinel-1


LOOKS: Final = 4.4  # equivalent number of looks of IW GRD at high resolution
# [1, 2, 1] / 4 along both axes: neighbours correlate 0.67, next ones 0.17. TerraMesh and
# BigEarthNet show 0.65 to 0.73 and 0.12 to 0.27.
_SIDE = 0.25
_ENERGY = (6 / 16) ** 2  # sum of the squared weights of that kernel
_NOISE_FLOOR_DB = (-29.0, -31.0)  # VV, VH; residual after thermal noise removal (assumed)
_INCIDENCE = np.deg2rad(38.0)
_DECIBEL = np.array([(s.radar, s.radar_dormant) for s in SURFACES.values()], np.float32)
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
    """Return the change of each unit on a day, (U, 2) dB: wind, soil moisture, ice, water."""
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
