# ruff: noqa: E501 (tables of constants)
"""Surfaces of the synthetic world: spectra, backscatter, seasons; and its atmosphere.

Where the numbers come from (`benchmarks/derive_world_spectra.py` prints them again):

* **Spectra** are surface reflectances x 10000. Most are means of Sentinel-2 L1C pixels of EuroSAT
  MS (arXiv 1709.00029, training half), chosen by NDVI or redness and turned into surface
  reflectance by `PATH` and `TRANSMITTANCE`. Deserts, dry scrub, woodland and the ice sheet are
  means of L2A patches of S2-100K; old snow is TerraMesh L2A (arXiv 2504.11172).
  No available image shows leafless trees, rock, dunes, marsh or flooded rice: they are
  interpolated or scaled, as noted in their line. Marsh is short grass, and a flooded field turbid water.
* **Backscatter** (dB): trees, crops, grass, savanna, villages and snow are rounded from TerraMesh
  (gamma0, less 1 dB to come near the sigma0 of GRD products) and BigEarthNet v1; water from
  one BigEarthNet lake; bare and green crops also from a year of a WorldCereal site in Flanders.
  Sand, rock, marsh, rainforest and large cities are assumed, in the ranges radar textbooks give.
* **Growth curves**: maize and pasture follow the NDVI of that site. The others are assumed from
  crop calendars.
* **Air**: path radiance from dark EuroSAT pixels, transmittance from a TerraMesh L1C and L2A pair.
  Haze and clouds are assumed.
* **Texture**: contrasts and exponents are rounded from the spread within EuroSAT tiles and from
  the slopes of their power spectra (1.2 in residential areas, 1.8 in forest, 3.2 over fields).

B09 takes the ground of B8A (TerraMesh L2A: within 2 %); B10 sees the ground faintly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from eofm.contract.spec import SENSOR_BANDS, Sensor

__all__ = [
    "AIR_MASS",
    "BANDS",
    "CURVES",
    "FLOODING",
    "HAZE",
    "ICE_CLOUD",
    "NO_COVER",
    "PATH",
    "RIPENESS",
    "SURFACES",
    "SURFACE_INDEX",
    "TRANSMITTANCE",
    "WATER_CLOUD",
    "Floats",
    "GroundCover",
    "SpectralCurve",
    "Surface",
    "material",
]

Floats = npt.NDArray[np.float32]

BANDS: Final = SENSOR_BANDS[Sensor.S2_L1C]


class GroundCover(IntEnum):
    """Class codes of Dynamic World (doi 10.1038/s41597-022-01307-4)."""

    WATER = 0
    TREES = 1
    GRASS = 2
    FLOODED_VEGETATION = 3
    CROPS = 4
    SHRUB_AND_SCRUB = 5
    BUILT = 6
    BARE = 7
    SNOW_AND_ICE = 8


NO_COVER: Final = 255  # cloud, shadow: the land cover is unknown

# fmt: off
# Surface reflectance x 10000: B01 B02 B03 B04 B05 B06 B07 B08 B8A B11 B12. "Highest NDVI" is the
# mean over the tenth of the class's pixels with the highest NDVI, and so on.
_MATERIALS: Final[Mapping[str, tuple[int, ...]]] = {
    # EuroSAT SeaLake: mean of all and its darkest tenth in red (deep), all; River: lowest NDVI
    "deep water": (230, 220, 205, 145, 175, 120, 125, 115, 105, 45, 35),
    "clear water": (345, 350, 425, 290, 345, 230, 240, 215, 195, 75, 55),
    "turbid water": (760, 770, 895, 760, 745, 555, 585, 485, 455, 140, 95),
    # EuroSAT Forest: lowest NDVI, all; leafless is halfway from it to straw (interpolated)
    "conifer": (290, 280, 385, 300, 715, 1765, 2085, 2080, 2305, 1265, 645),
    "leafy": (190, 190, 335, 200, 705, 2390, 2970, 3045, 3265, 1465, 640),
    "leafless": (570, 675, 920, 1035, 1420, 2360, 2735, 2810, 3005, 2450, 1550),
    # S2-100K, open woodland, 13S 25E
    "woodland": (255, 265, 445, 355, 780, 1640, 1900, 2005, 2180, 1525, 755),
    # EuroSAT Pasture: highest NDVI, all; HerbaceousVegetation: lowest NDVI
    "lush grass": (225, 230, 495, 220, 1005, 3745, 4670, 4845, 4985, 1995, 890),
    "short grass": (600, 525, 705, 520, 1235, 3000, 3520, 3610, 3830, 2145, 1140),
    "straw": (950, 1155, 1505, 1865, 2130, 2330, 2500, 2580, 2750, 3440, 2460),
    # EuroSAT AnnualCrop: highest NDVI, lowest NDVI, brightest 2 % in red (ripe cereals)
    "green crop": (155, 185, 445, 230, 875, 3680, 4820, 4910, 5030, 1615, 745),
    "ploughed": (1075, 1260, 1670, 2130, 2430, 2580, 2740, 2740, 2940, 3740, 3050),
    "ripe crop": (1240, 1685, 2330, 3500, 4140, 4525, 4975, 5260, 5735, 4805, 2805),
    # EuroSAT PermanentCrop: highest NDVI, all
    "orchard": (470, 370, 595, 490, 1150, 2650, 3145, 3255, 3395, 2025, 1220),
    "dry orchard": (820, 880, 1205, 1395, 1865, 2675, 2980, 3020, 3215, 3045, 2245),
    # EuroSAT HerbaceousVegetation: highest NDVI; S2-100K, semi-arid, 33S 145E
    "scrub": (410, 355, 470, 450, 990, 1955, 2190, 2340, 2425, 1785, 1065),
    "dry scrub": (375, 645, 990, 1510, 1865, 2300, 2500, 2775, 2755, 3710, 2940),
    # EuroSAT Residential: lowest NDVI; mean of that and the brightest 2 % in red; all; highest NDVI
    "asphalt": (1240, 1405, 1610, 1810, 1865, 2010, 2070, 2000, 2090, 2275, 2040),
    "roofs": (1405, 1850, 2135, 2350, 2250, 2435, 2515, 2645, 2560, 2700, 2370),
    "suburb": (855, 830, 990, 1080, 1405, 2065, 2305, 2270, 2445, 2170, 1695),
    "garden": (515, 370, 550, 420, 1020, 2465, 2960, 3205, 3210, 1915, 1145),
    # EuroSAT Industrial: lowest NDVI
    "halls": (1605, 2150, 2360, 2435, 2355, 2430, 2470, 2480, 2485, 2610, 2310),
    # S2-100K, deserts, 42N 67E and 30S 119E; dunes: pale sand x 1.7 (assumed)
    "pale sand": (440, 905, 1360, 1890, 2010, 2090, 2200, 2475, 2335, 3200, 2920),
    "red sand": (230, 380, 630, 1210, 1505, 1740, 1860, 1865, 1925, 2995, 2485),
    "dunes": (750, 1540, 2310, 3215, 3415, 3555, 3735, 4210, 3965, 5445, 4960),
    # between asphalt and pale sand, x 0.85 (interpolated)
    "rock": (715, 985, 1260, 1575, 1645, 1745, 1815, 1900, 1880, 2330, 2105),
    # S2-100K, 74N 51W; TerraMesh, 55N 84W
    "ice sheet": (9800, 9540, 9400, 9080, 9370, 8825, 8100, 7610, 7455, 185, 210),
    "old snow": (6350, 6285, 5625, 5760, 5950, 5970, 5815, 6245, 5690, 955, 1015),
}
# Air at a total air mass of AIR_MASS: L1C = PATH + TRANSMITTANCE x ground
PATH: Final = np.array((985, 665, 450, 230, 195, 165, 150, 115, 105, 50, 4, 17, 5), np.float32)
TRANSMITTANCE: Final = np.array(
    (.60, .73, .74, .87, .82, .88, .92, .90, .955, .24, .003, .92, .85), np.float32)
AIR_MASS: Final = 2.3  # sun at 40° from the zenith, down and up again
# Continental aerosol, (wavelength / 492 nm)^-1.3; hardly any of it is above the water vapour that B10 sees
HAZE: Final = np.array(
    (1.15, 1, .85, .68, .63, .59, .55, .50, .48, .25, .01, .21, .14), np.float32)
# Top-of-atmosphere DN (assumed, in the range textbooks give)
WATER_CLOUD: Final = np.array(
    (5600, 5500, 5400, 5600, 5750, 5900, 6000, 5900, 6100, 3100, 60, 4300, 3100), np.float32)
ICE_CLOUD: Final = np.array(
    (4600, 4500, 4400, 4500, 4600, 4700, 4800, 4750, 4850, 3300, 2400, 2900, 2100), np.float32)
# fmt: on


def material(name: str) -> Floats:
    """Return the surface reflectance x 10000 of a material in 13 bands, (13,)."""
    b01_to_b8a, swir = _MATERIALS[name][:9], _MATERIALS[name][9:]
    return np.array((*b01_to_b8a, b01_to_b8a[8], (b01_to_b8a[8] + swir[0]) / 2, *swir), np.float32)


@dataclass(frozen=True)
class SpectralCurve:
    """Greenness over the year, from 0 (dormant) to 1 (fully grown).

    Args:
        base: Greenness that never goes.
        cycles: Of each growth: day of half rise, day of half fall, days of transition, amplitude.
            Days count from 1 January of the northern year; a fall after 365 is in the next year.
        delay: Days by which the rise comes later per degree of latitude beyond 47°.
    """

    base: float
    cycles: tuple[tuple[float, float, float, float], ...] = ()
    delay: float = 0.0

    def __call__(self, day: Floats, latitude: float) -> Floats:
        """Return the greenness on `day`, already turned to the northern year."""
        late = self.delay * (abs(latitude) - 47.0)
        total = np.full_like(day, self.base)
        for rise, fall, width, amplitude in self.cycles:
            for year in (-365.0, 0.0, 365.0):
                up = _step((day + year - rise - late) / width)
                down = _step((day + year - fall + late) / width)
                total += amplitude * np.clip(up - down, 0, 1)
        return np.clip(total, 0, 1)


def _step(x: Floats) -> Floats:
    return (1 / (1 + np.exp(-np.clip(x, -30, 30)))).astype(np.float32)


# fmt: off
CURVES: Final[Mapping[str, SpectralCurve]] = {
    "constant": SpectralCurve(1.0),
    "pasture": SpectralCurve(.55, ((75, 330, 14, .40),), .8),  # Flanders: .9 in winter, dips in summer
    "maize": SpectralCurve(.02, ((156, 255, 9, .85),), 1),  # Flanders: NDVI .23 May, .78 July, .34 Sept.
    "maize, catch crop": SpectralCurve(.02, ((156, 250, 9, .85), (300, 480, 10, .80)), 1),
    "cereal": SpectralCurve(.02, ((70, 178, 10, .95), (305, 440, 12, .28)), 1),  # assumed
    "leaves": SpectralCurve(.04, ((120, 292, 9, .94),), 1.5),  # assumed
    "rains": SpectralCurve(.08, ((185, 310, 16, .80),)),  # assumed, tropics with a summer rain
    "winter rains": SpectralCurve(.15, ((-30, 140, 20, .80),)),  # assumed, Mediterranean
    "desert rains": SpectralCurve(.04, ((-20, 80, 20, .25),)),  # assumed
    "rice": SpectralCurve(.02, ((45, 125, 9, .92), (190, 285, 9, .95))),  # assumed, two crops
    "irrigated": SpectralCurve(.05, ((25, 120, 10, .90), (165, 270, 10, .85))),  # assumed
    "marsh": SpectralCurve(.25, ((115, 285, 14, .65),), 1),  # assumed
}
# Days on which rice fields are flooded, and on which cereals are ripe (assumed)
FLOODING: Final = SpectralCurve(0, ((18, 52, 5, 1), (163, 197, 5, 1)))
RIPENESS: Final = SpectralCurve(0, ((182, 208, 5, 1),), 1.2)
# fmt: on


@dataclass(frozen=True)
class Surface:
    """One kind of ground.

    Args:
        name: Its name in the biome tables.
        cover: Dynamic World class a mapper would give it in summer.
        green: Material when fully grown.
        dormant: Material when not.
        curve: Name of its growth curve.
        radar: VV and VH in dB when fully grown.
        radar_dormant: VV and VH in dB when not.
        contrast: Standard deviation of brightness within one patch of it, as a share.
        grain: Exponent of the power spectrum of that texture: 1 rough, 2 medium, 3 smooth.
        rough: How strongly it shades itself under a low sun, 0 to 1.
        holds_snow: Share of lying snow that stays visible from above.
        facets: Standard deviation of radar brightness in dB (walls, trunks) before speckle.
    """

    name: str
    cover: GroundCover
    green: str
    dormant: str
    curve: str
    radar: tuple[float, float]
    radar_dormant: tuple[float, float]
    contrast: float = 0.1
    grain: int = 2
    rough: float = 0.0
    holds_snow: float = 1.0
    facets: float = 0.8


_W, _T, _G, _F, _C, _S, _B, _N = (GroundCover(i) for i in range(8))
# fmt: off
_SURFACES = (
    Surface("deep water", _W, "deep water", "deep water", "constant", (-19.5, -25.5), (-19.5, -25.5), .04, 3, 0, 0, .5),
    Surface("clear water", _W, "clear water", "clear water", "constant", (-18.5, -25), (-18.5, -25), .08, 3, 0, 0, .5),
    Surface("turbid water", _W, "turbid water", "turbid water", "constant", (-18.5, -25), (-18.5, -25), .08, 3, 0, 0, .5),
    Surface("conifers", _T, "conifer", "conifer", "constant", (-10.0, -15.6), (-10.0, -15.6), .13, 2, 1, .22, 1),
    Surface("broadleaf", _T, "leafy", "leafless", "leaves", (-9.2, -14.6), (-9.6, -15.8), .10, 2, .8, .45, 1),
    Surface("rainforest", _T, "leafy", "woodland", "constant", (-8.3, -13.8), (-8.3, -13.8), .09, 1, .6, .3, .7),
    Surface("savanna trees", _T, "woodland", "dry scrub", "rains", (-11.0, -16.5), (-12.5, -18.0), .14, 1, .5, .5, 1.2),
    Surface("pasture", _G, "short grass", "straw", "pasture", (-11.0, -17.6), (-11.6, -18.8), .08, 3),
    Surface("meadow", _G, "lush grass", "straw", "pasture", (-10.8, -17.2), (-11.6, -18.8), .08, 3),
    Surface("lawn", _G, "short grass", "straw", "pasture", (-11.2, -18.0), (-11.6, -18.8), .08, 2),
    Surface("savanna grass", _G, "short grass", "straw", "rains", (-12.0, -18.2), (-13.5, -19.5), .12, 2),
    Surface("alpine grass", _G, "short grass", "straw", "leaves", (-11.8, -17.8), (-12.8, -19.3), .12, 2),
    Surface("marsh", _F, "short grass", "straw", "marsh", (-8.5, -15.5), (-11.5, -19.0), .16, 2),
    Surface("rice", _C, "green crop", "straw", "rice", (-10.3, -16.8), (-11.8, -19.8), .06, 3),
    Surface("cereal", _C, "green crop", "ploughed", "cereal", (-12.8, -18.6), (-11.0, -19.6), .07, 3),
    Surface("maize", _C, "green crop", "ploughed", "maize", (-9.8, -16.4), (-11.2, -20.0), .07, 3),
    Surface("maize, catch crop", _C, "green crop", "ploughed", "maize, catch crop", (-9.6, -16.5), (-11.2, -20.0), .07, 3),
    Surface("dry farming", _C, "green crop", "ploughed", "rains", (-11.3, -17.3), (-13.7, -20.3), .10, 2),
    Surface("winter crop", _C, "green crop", "straw", "winter rains", (-11.3, -17.8), (-12.3, -19.8), .07, 3),
    Surface("irrigated", _C, "green crop", "pale sand", "irrigated", (-10.8, -17.3), (-13.8, -21.8), .06, 3),
    Surface("orchard", _C, "orchard", "dry orchard", "winter rains", (-10.6, -16.8), (-11.0, -17.6), .16, 1, .4, .6, 1),
    Surface("scrub", _S, "scrub", "dry scrub", "winter rains", (-11.6, -17.6), (-12.3, -18.8), .17, 1, .4, .6, 1),
    Surface("heath", _S, "scrub", "leafless", "leaves", (-11.6, -17.4), (-12.4, -19.0), .17, 1, .4, .6, 1),
    Surface("dry scrub", _S, "scrub", "dry scrub", "rains", (-12.2, -18.0), (-13.6, -19.4), .17, 1, .3, .8, 1),
    Surface("desert scrub", _S, "scrub", "dry scrub", "desert rains", (-12.0, -18.5), (-13.0, -20.0), .15, 1, .2, .8, 1),
    Surface("street", _B, "asphalt", "asphalt", "constant", (-11.3, -18.8), (-11.3, -18.8), .10, 1, .3, .2, 3),
    Surface("houses", _B, "roofs", "roofs", "constant", (-6.3, -13.3), (-6.3, -13.3), .12, 1, .6, .25, 4),
    Surface("detached", _B, "suburb", "asphalt", "leaves", (-7.8, -14.3), (-7.8, -14.5), .14, 1, .6, .25, 4),
    Surface("halls", _B, "halls", "halls", "constant", (-4.8, -12.8), (-4.8, -12.8), .06, 2, .4, .25, 4.5),
    Surface("towers", _B, "asphalt", "asphalt", "constant", (-3.3, -10.8), (-3.3, -10.8), .15, 1, 1, .25, 4.5),
    Surface("garden", _B, "garden", "leafless", "leaves", (-9.3, -15.3), (-9.6, -16.0), .12, 1, .6, .35, 3),
    Surface("pale sand", _N, "pale sand", "pale sand", "constant", (-15.5, -24.0), (-15.5, -24.0), .08, 3),
    Surface("red sand", _N, "red sand", "red sand", "constant", (-15.0, -23.5), (-15.0, -23.5), .09, 3),
    Surface("dunes", _N, "dunes", "dunes", "constant", (-16.0, -25.0), (-16.0, -25.0), .08, 3),
    Surface("rock", _N, "rock", "rock", "constant", (-11.8, -19.3), (-11.8, -19.3), .18, 1, .4, .7, 1.5),
    Surface("open soil", _N, "ploughed", "ploughed", "constant", (-11.6, -19.8), (-11.6, -19.8), .12, 2),
    Surface("ice", GroundCover.SNOW_AND_ICE, "old snow", "ice sheet", "leaves", (-16.5, -23.5), (-15.3, -22.7), .05, 3),
)
# fmt: on
SURFACES: Final[Mapping[str, Surface]] = {s.name: s for s in _SURFACES}
SURFACE_INDEX: Final[Mapping[str, int]] = {s.name: i for i, s in enumerate(_SURFACES)}
