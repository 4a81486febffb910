"""A landscape on one day: Sentinel-2 L1C, Sentinel-1 GRD and a Dynamic World map of it.

Shapes: H by W pixels of 10 m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eofm.world.biomes import Biome
from eofm.world.fields import Floats, fractal
from eofm.world.ground import Codes, draw_ground, map_cover
from eofm.world.landscape import Landscape
from eofm.world.optical import Digital, draw_clouds, draw_optical
from eofm.world.places import Visit, WorldPlace, day_of_year
from eofm.world.radar import draw_radar
from eofm.world.spectra import NO_COVER


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
