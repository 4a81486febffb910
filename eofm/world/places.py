"""Which places there are: biomes and how often they occur, coordinates, dates, sun, product names.

The biomes are a table to read and to extend. SSL4EO-S12 samples round the 10,000 largest cities, so
cities, suburbs and farmland are frequent. Shares, sizes and frequencies are judgement, not
measurement.

Dates follow SSL4EO-S12 (arXiv 2211.07044): four windows of 30 days around 22 September, 21 June,
20 March 2021 and 21 December 2020, moved together by 0 to 364 days into the past per place.
Sentinel-2 passes at about 10:30 local solar time, Sentinel-1 at about 6 and 18 hours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

__all__ = [
    "BIOMES",
    "PLATFORM_PASS_HOUR",
    "RADAR_GAP_DAYS",
    "SEASON_CENTRES",
    "Biome",
    "Box",
    "Span",
    "Visit",
    "WorldPlace",
    "day_of_year",
    "draw_place",
    "draw_visit",
    "mgrs_tile",
    "place_at",
    "sun_position",
]

# ------------------------------------------------------------------------------------------- biomes

Box = tuple[float, float, float, float]  # west, south, east, north in degrees
Span = tuple[float, float]


@dataclass(frozen=True)
class Biome:
    """One kind of landscape. Sizes are in pixels of 10 m, shares are of the scene.

    Args:
        weight: How often a location is of this kind, relative to the others.
        boxes: Regions of the Earth where it occurs.
        nature: Land cover outside farmed and built-up land: surface -> share.
        crops: Land cover of parcels: surface -> share.
        farmed: Share in parcels.
        parcel: Width and length of a parcel.
        hedges: Probability that parcels are parted by hedges.
        towns: Share inside town limits.
        centres: Number of towns.
        block: Width and length of a street block.
        dense: Share of blocks with towers and halls.
        river: Probability of a river, and its half width.
        lakes: Probability of lakes, and their share.
        sea: Probability of a shore.
        marsh: Width of the marsh along water; 0 for none.
        slope: Root mean square of the slope, rise over run.
        by_height: `nature` lists belts from the valley to the top.
        warmth: Degrees by which the year is warmer than the latitude suggests.
        swing: Amplitude of temperature over the year, per degree of latitude.
        pivots: Probability that fields are irrigated circles.
        ribs: Probability that fields follow parallel tracks into the forest.
        cloudy: Probability that a season has clouds.
    """

    weight: float
    boxes: tuple[Box, ...]
    nature: Mapping[str, float]
    crops: Mapping[str, float]
    farmed: Span = (0.0, 0.0)
    parcel: tuple[float, float] = (14.0, 26.0)
    hedges: float = 0.0
    towns: Span = (0.0, 0.0)
    centres: int = 1
    block: tuple[float, float] = (9.0, 14.0)
    dense: float = 0.1
    river: tuple[float, Span] = (0.2, (1.0, 5.0))
    lakes: tuple[float, Span] = (0.0, (0.0, 0.0))
    sea: float = 0.0
    marsh: float = 0.0
    slope: float = 0.02
    by_height: bool = False
    warmth: float = 0.0
    swing: float = 0.25
    pivots: float = 0.0
    ribs: float = 0.0
    cloudy: float = 0.22


_EUROPE = ((-1.0, 45.0, 6.0, 49.5), (8.0, 48.0, 16.0, 53.0), (18.0, 49.0, 24.0, 53.0))
_CITIES = (
    (2.0, 48.6, 2.6, 49.0), (11.3, 47.9, 11.8, 48.3), (-88.1, 41.6, -87.7, 42.1),
    (-46.9, -23.8, -46.3, -23.4), (77.0, 28.4, 77.4, 28.8), (116.1, 39.7, 116.7, 40.1),
    (139.4, 35.5, 139.9, 35.9), (-99.3, 19.2, -98.9, 19.6), (27.9, -26.3, 28.4, -25.9),
    (37.3, 55.5, 37.9, 55.9), (30.9, 29.9, 31.4, 30.2), (144.8, -37.9, 145.2, -37.6),
)  # fmt: skip

BIOMES: Final[Mapping[str, Biome]] = {
    "mixed farmland": Biome(
        weight=12,
        boxes=_EUROPE,
        nature={"broadleaf": 0.40, "conifers": 0.22, "pasture": 0.28, "heath": 0.10},
        crops={
            "cereal": 0.36, "maize": 0.14, "maize, catch crop": 0.12, "pasture": 0.18,
            "meadow": 0.12, "orchard": 0.04, "broadleaf": 0.04,
        },
        farmed=(0.45, 0.9),
        parcel=(13, 26),
        hedges=0.35,
        towns=(-0.06, 0.10),
        centres=2,
        slope=0.05,
        warmth=5,
        swing=0.18,
        river=(0.3, (1, 5)),
        lakes=(0.2, (0.01, 0.12)),
    ),
    "prairie": Biome(
        weight=7,
        boxes=((-99.0, 40.0, -86.0, 45.0), (30.0, 47.0, 38.0, 50.0), (-63.0, -36.5, -59.0, -32.0)),
        nature={"pasture": 0.55, "broadleaf": 0.30, "heath": 0.15},
        crops={"maize": 0.50, "cereal": 0.38, "pasture": 0.12},
        farmed=(0.75, 0.97),
        parcel=(40, 44),
        towns=(-0.04, 0.04),
        slope=0.015,
        warmth=0,
        swing=0.32,
        river=(0.3, (1, 4)),
        lakes=(0.12, (0.005, 0.03)),
    ),
    "smallholder plain": Biome(
        weight=8,
        boxes=((114.0, 33.5, 118.0, 37.0), (75.0, 26.0, 82.0, 29.5), (36.0, -1.2, 37.6, -0.3)),
        nature={"pasture": 0.35, "scrub": 0.30, "broadleaf": 0.35},
        crops={"cereal": 0.45, "maize": 0.25, "orchard": 0.16, "winter crop": 0.14},
        farmed=(0.6, 0.92),
        parcel=(4, 11),
        towns=(0.04, 0.20),
        centres=4,
        block=(5, 8),
        slope=0.005,
        warmth=4,
        swing=0.36,
        river=(0.3, (1, 6)),
    ),
    "rice plain": Biome(
        weight=6,
        boxes=((88.5, 23.0, 90.5, 25.0), (105.0, 9.6, 106.5, 11.0), (99.8, 14.0, 100.6, 15.8)),
        nature={"broadleaf": 0.30, "rainforest": 0.30, "lawn": 0.2, "marsh": 0.2},
        crops={"rice": 0.84, "orchard": 0.12, "pasture": 0.04},
        farmed=(0.6, 0.92),
        parcel=(5, 12),
        towns=(0.02, 0.14),
        centres=4,
        block=(4, 7),
        river=(0.65, (1.5, 12)),
        lakes=(0.25, (0.01, 0.06)),
        marsh=2,
        slope=0.005,
        cloudy=0.4,
    ),
    "boreal forest": Biome(
        weight=8,
        boxes=((23.0, 59.0, 30.0, 62.0), (-110.0, 52.0, -86.0, 56.0), (60.0, 56.0, 90.0, 59.5)),
        nature={"conifers": 0.52, "broadleaf": 0.18, "heath": 0.14, "marsh": 0.16},
        crops={"conifers": 0.45, "broadleaf": 0.15, "heath": 0.25, "pasture": 0.10, "cereal": 0.05},
        farmed=(0.1, 0.5),
        parcel=(22, 34),
        towns=(-0.05, 0.03),
        river=(0.25, (1, 6)),
        lakes=(0.65, (0.04, 0.5)),
        marsh=3,
        slope=0.03,
        warmth=1,
        swing=0.30,
        cloudy=0.35,
    ),
    "city": Biome(
        weight=13,
        boxes=_CITIES,
        nature={"broadleaf": 0.5, "lawn": 0.35, "heath": 0.15},
        crops={"pasture": 0.5, "cereal": 0.3, "broadleaf": 0.2},
        farmed=(0.0, 0.25),
        towns=(0.6, 0.98),
        centres=3,
        block=(9, 14),
        dense=0.4,
        river=(0.3, (2, 9)),
        lakes=(0.2, (0.005, 0.08)),
        slope=0.02,
        warmth=4,
        swing=0.25,
    ),
    "suburb": Biome(
        weight=9,
        boxes=(*_CITIES, *_EUROPE),
        nature={"broadleaf": 0.42, "lawn": 0.30, "conifers": 0.1, "heath": 0.18},
        crops={"pasture": 0.35, "cereal": 0.35, "maize": 0.2, "orchard": 0.1},
        farmed=(0.1, 0.55),
        towns=(0.15, 0.5),
        centres=4,
        block=(8, 13),
        dense=0.15,
        river=(0.25, (1, 5)),
        lakes=(0.12, (0.005, 0.03)),
        slope=0.03,
        warmth=4,
        swing=0.22,
    ),
    "mediterranean": Biome(
        weight=7,
        boxes=((-6.0, 37.2, -2.0, 40.5), (14.0, 40.5, 17.5, 41.8), (-122.0, 36.5, -119.5, 39.0),
               (-71.5, -35.0, -70.8, -33.0)),
        nature={"scrub": 0.48, "savanna grass": 0.22, "conifers": 0.18, "rock": 0.12},
        crops={"orchard": 0.46, "winter crop": 0.34, "open soil": 0.12, "pasture": 0.08},
        farmed=(0.25, 0.75),
        parcel=(10, 18),
        towns=(-0.05, 0.1),
        centres=2,
        block=(6, 9),
        slope=0.16,
        warmth=3,
        swing=0.2,
        river=(0.2, (0.6, 2.5)),
        lakes=(0.1, (0.01, 0.05)),
        cloudy=0.2,
    ),
    "coast": Biome(
        weight=10,
        boxes=((-1.5, 44.0, -1.0, 47.0), (8.1, 54.5, 12.5, 57.0), (-80.5, 26.0, -80.0, 32.0),
               (13.0, 37.5, 18.0, 41.0), (151.0, -34.0, 153.0, -29.0)),
        nature={"scrub": 0.30, "pasture": 0.25, "conifers": 0.20, "broadleaf": 0.25},
        crops={"pasture": 0.4, "cereal": 0.35, "maize": 0.15, "orchard": 0.10},
        farmed=(0.0, 0.6),
        towns=(-0.1, 0.3),
        centres=2,
        river=(0.15, (1, 5)),
        sea=1.0,
        marsh=2,
        slope=0.03,
        warmth=5,
        swing=0.17,
        cloudy=0.3,
    ),
    "desert": Biome(
        weight=7,
        boxes=((43.0, 20.0, 50.0, 27.0), (24.0, 23.0, 30.0, 29.0), (123.0, -28.0, 136.0, -22.0)),
        nature={"pale sand": 0.30, "dunes": 0.16, "red sand": 0.20, "rock": 0.14,
                "desert scrub": 0.20},
        crops={"irrigated": 0.75, "open soil": 0.25},
        farmed=(-0.3, 0.4),
        parcel=(12, 16),
        towns=(-0.05, 0.05),
        river=(0.3, (1, 3)),
        slope=0.06,
        warmth=4,
        swing=0.3,
        pivots=0.6,
        cloudy=0.1,
    ),
    "savanna": Biome(
        weight=6,
        boxes=((31.0, -7.5, 37.0, -2.0), (-4.0, 10.0, 8.0, 13.5), (24.0, -21.0, 29.0, -16.0)),
        nature={"savanna grass": 0.36, "dry scrub": 0.34, "savanna trees": 0.22, "open soil": 0.08},
        crops={"dry farming": 0.7, "savanna grass": 0.2, "open soil": 0.1},
        farmed=(0.0, 0.6),
        parcel=(6, 10),
        towns=(-0.05, 0.05),
        centres=3,
        block=(4, 6),
        river=(0.3, (0.8, 3)),
        slope=0.04,
        cloudy=0.3,
    ),
    "rainforest": Biome(
        weight=6,
        boxes=((-68.0, -11.0, -52.0, -3.0), (17.0, -2.0, 25.0, 2.5), (111.0, -1.5, 115.5, 2.0)),
        nature={"rainforest": 0.90, "scrub": 0.07, "marsh": 0.03},
        crops={"savanna grass": 0.5, "pasture": 0.2, "scrub": 0.12, "dry farming": 0.1,
               "open soil": 0.08},
        farmed=(-0.1, 0.55),
        parcel=(9, 22),
        towns=(-0.06, 0.04),
        river=(0.45, (2, 16)),
        marsh=2,
        slope=0.03,
        ribs=0.7,
        cloudy=0.45,
    ),
    "mountain": Biome(
        weight=6,
        boxes=((7.0, 46.0, 12.5, 47.2), (78.0, 30.2, 84.0, 32.0), (-117.0, 44.0, -107.0, 49.5),
               (-70.3, -35.0, -69.8, -31.0)),
        nature={"conifers": 0.40, "alpine grass": 0.24, "heath": 0.12, "rock": 0.18, "ice": 0.06},
        crops={"pasture": 0.7, "heath": 0.2, "cereal": 0.1},
        farmed=(0.0, 0.15),
        parcel=(8, 14),
        towns=(-0.05, 0.04),
        river=(0.3, (0.6, 2)),
        lakes=(0.15, (0.01, 0.05)),
        slope=0.5,
        by_height=True,
        warmth=1,
        swing=0.22,
        cloudy=0.3,
    ),
    "wetland": Biome(
        weight=4,
        boxes=((-81.2, 25.4, -80.7, 26.2), (28.8, 44.8, 29.6, 45.3), (-58.0, -18.5, -56.5, -16.5)),
        nature={"marsh": 0.48, "lawn": 0.16, "broadleaf": 0.2, "scrub": 0.16},
        crops={"pasture": 0.6, "rice": 0.25, "maize": 0.15},
        farmed=(0.0, 0.4),
        towns=(-0.08, 0.05),
        river=(0.6, (1.5, 10)),
        lakes=(0.8, (0.06, 0.45)),
        marsh=5,
        slope=0.003,
        warmth=3,
        cloudy=0.35,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------- places

SEASON_CENTRES: Final = (
    datetime(2021, 9, 22),
    datetime(2021, 6, 21),
    datetime(2021, 3, 20),
    datetime(2020, 12, 21),
)
PLATFORM_PASS_HOUR: Final = 10.5
RADAR_GAP_DAYS: Final = 14.0  # SSL4EO-S12 allows 30

_LATITUDE_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"


@dataclass(frozen=True)
class WorldPlace:
    """One location.

    Args:
        longitude: Degrees east.
        latitude: Degrees north.
        epsg: UTM zone, 32601 to 32660 or 32701 to 32760.
        left: Easting of the left edge in metres, a multiple of 60.
        top: Northing of the upper edge in metres, a multiple of 60.
        tile: Name of the 100 km MGRS square, as in T31TFJ.
    """

    longitude: float
    latitude: float
    epsg: int
    left: float
    top: float
    tile: str


@dataclass(frozen=True)
class Visit:
    """One season of a place: two acquisitions and the sun over the optical one.

    Args:
        optical: When Sentinel-2 passed, UTC.
        radar: When Sentinel-1 passed, UTC.
        ascending: Whether Sentinel-1 flew north, looking east.
        sun_zenith: Degrees.
        sun_azimuth: Degrees clockwise from north.
        optical_id: Season folder of Sentinel-2 and of the map.
        radar_id: Season folder of Sentinel-1.
    """

    optical: datetime
    radar: datetime
    ascending: bool
    sun_zenith: float
    sun_azimuth: float
    optical_id: str
    radar_id: str


def draw_place(rng: np.random.Generator, boxes: tuple[Box, ...]) -> WorldPlace:
    """Draw a place in one of the boxes (west, south, east, north in degrees)."""
    west, south, east, north = boxes[int(rng.integers(len(boxes)))]
    return place_at(float(rng.uniform(west, east)), float(rng.uniform(south, north)))


def place_at(longitude: float, latitude: float) -> WorldPlace:
    """Return the place whose upper left corner is the 60 m grid point next to the coordinates.

    >>> place_at(2.35, 48.85).tile, place_at(2.35, 48.85).epsg
    ('T31UDQ', 32631)
    """
    zone = int((longitude + 180) // 6) + 1
    epsg = (32600 if latitude >= 0 else 32700) + zone
    (east,), (north,) = warp_points(
        CRS.from_epsg(4326), CRS.from_epsg(epsg), [longitude], [latitude]
    )
    left, top = round(east / 60) * 60.0, round(north / 60) * 60.0
    return WorldPlace(longitude, latitude, epsg, left, top, mgrs_tile(zone, latitude, left, top))


def mgrs_tile(zone: int, latitude: float, easting: float, northing: float) -> str:
    """Return the name of the 100 km square, `T` first as in product names."""
    band = _LATITUDE_BANDS[min(int((latitude + 80) // 8), len(_LATITUDE_BANDS) - 1)]
    column = _COLUMNS[(zone - 1) % 3][int(easting // 100_000) - 1]
    shift = 0 if zone % 2 else 5
    row = _ROWS[(int(northing // 100_000) + shift) % len(_ROWS)]
    return f"T{zone:02d}{band}{column}{row}"


def draw_visit(rng: np.random.Generator, place: WorldPlace, season: int, shift_days: int) -> Visit:
    """Draw the dates of a season and name the products.

    Args:
        rng: Source of randomness of this season.
        place: Where.
        season: 0 to 3, in the order of `SEASON_CENTRES`.
        shift_days: Delay of the seasons of this place in days, 0 to 364.
    """
    centre = SEASON_CENTRES[season] - timedelta(days=shift_days)
    optical = _solar_time(centre, float(rng.uniform(-15, 15)), PLATFORM_PASS_HOUR, place)
    ascending = bool(rng.random() < 0.5)
    hour = 18.0 if ascending else 6.0
    gap = float(rng.uniform(-RADAR_GAP_DAYS, RADAR_GAP_DAYS))
    radar = _solar_time(optical.replace(hour=0, minute=0, second=0), gap, hour, place)
    jitter = timedelta(seconds=int(rng.integers(0, 900)))
    optical, radar = optical + jitter, radar + jitter
    zenith, azimuth = sun_position(day_of_year(optical), place.latitude, PLATFORM_PASS_HOUR)
    second = optical + timedelta(seconds=int(rng.integers(1, 20)))
    return Visit(
        optical,
        radar,
        ascending,
        zenith,
        azimuth,
        f"{_stamp(optical)}_{_stamp(second)}_{place.tile}",
        _radar_name(rng, radar),
    )


def _solar_time(day: datetime, plus_days: float, hour: float, place: WorldPlace) -> datetime:
    """Return `hour` of local solar time on the day `plus_days` later, in UTC."""
    midnight = (day + timedelta(days=round(plus_days))).replace(hour=0, minute=0, second=0)
    return midnight + timedelta(hours=hour - place.longitude / 15)


def _stamp(when: datetime) -> str:
    return when.strftime("%Y%m%dT%H%M%S")


def _radar_name(rng: np.random.Generator, start: datetime) -> str:
    platform = "S1A" if rng.random() < 0.5 else "S1B"
    orbit, take, check = (int(n) for n in rng.integers((20_000, 0, 0), (40_000, 0x50000, 0x10000)))
    stop = start + timedelta(seconds=25)
    return (
        f"{platform}_IW_GRDH_1SDV_{_stamp(start)}_{_stamp(stop)}_{orbit:06d}_{take:06X}_{check:04X}"
    )


def day_of_year(when: datetime) -> float:
    """Return the day of the year, 1 on 1 January."""
    return float(when.timetuple().tm_yday)


def sun_position(day: float, latitude: float, solar_hour: float) -> tuple[float, float]:
    """Return zenith and azimuth of the sun in degrees (Cooper's declination, good to 1°).

    >>> round(sun_position(172, 23.45, 12)[0], 1)
    0.0
    """
    declination = math.radians(23.45 * math.sin(2 * math.pi * (284 + day) / 365))
    phi, hour = math.radians(latitude), math.radians(15 * (solar_hour - 12))
    up = math.sin(phi) * math.sin(declination)
    up += math.cos(phi) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(phi) * math.sin(declination)
    north -= math.sin(phi) * math.cos(declination) * math.cos(hour)
    zenith = math.degrees(math.acos(min(max(up, -1.0), 1.0)))
    return zenith, math.degrees(math.atan2(east, north)) % 360
