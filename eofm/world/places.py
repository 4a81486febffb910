"""Where and when: coordinates, UTM tiles, acquisition dates, the sun, product names.

Dates follow SSL4EO-S12 (arXiv 2211.07044): four windows of 30 days around 22 September, 21 June,
20 March 2021 and 21 December 2020, moved together by 0 to 364 days into the past per place.
Sentinel-2 passes at about 10:30 local solar time, Sentinel-1 at about 6 and 18 hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from eofm.world.biomes import Box

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
        shift_days: How far the year of this place lies back, 0 to 364.
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
