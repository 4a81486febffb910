"""The ground on one day: what is green, ripe, flooded, frozen or under snow, and the map of it.

Shapes: H by W pixels of 10 m; U units of the landscape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from eofm.world.biomes import Biome
from eofm.world.fields import Floats, smooth
from eofm.world.landscape import Landscape
from eofm.world.places import WorldPlace
from eofm.world.spectra import (
    CURVES,
    FLOODING,
    RIPENESS,
    SURFACE_INDEX,
    SURFACES,
    GroundCover,
)

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
