"""`--where`: numbers between commas, or a file of polygons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eofm.errors import DataError, SpecError
from eofm.extras import geo_library
from eofm.raster.where import LONGITUDE_LATITUDE, Area

_JSON: Final = frozenset({".json", ".geojson"})


def read_area(text: str, crs: str) -> tuple[Area, str]:
    """Return an area and its CRS.

    Args:
        text: west,south,east,north, or the name of a file of polygons.
        crs: Of west,south,east,north. Polygons bring theirs; GeoJSON is in WGS 84.

    Raises:
        SpecError: If it is neither.
        DataError: If the file cannot be read.
        ConfigError: If the library that reads it is missing.
    """
    path = Path(text)
    if path.suffix.lower() in _JSON:
        return _geojson(path), LONGITUDE_LATITUDE
    if path.exists():
        return _polygons(path), LONGITUDE_LATITUDE
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        raise SpecError(
            "an area is four numbers, or a file of polygons",
            found=text,
            expected="west,south,east,north, or a GeoJSON, GeoPackage or Shapefile that is there",
            where="--where",
            remedy="--where 11.30,48.05,11.40,48.10",
        ) from None
    return (west, south, east, north), crs


def _geojson(path: Path) -> Mapping[str, Any]:
    try:
        shape = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("the area cannot be read", found=error, where=path) from error
    if not isinstance(shape, Mapping):
        raise DataError("this is no GeoJSON", where=path)
    return shape


def _polygons(path: Path) -> Mapping[str, Any]:
    geopandas = geo_library("geopandas", "polygons need a library that is not installed")
    try:
        table = geopandas.read_file(path)
    except Exception as error:  # pyogrio raises kinds of its own
        raise DataError("the area cannot be read", found=error, where=path) from error
    if table.crs is None:
        raise DataError("the polygons say nothing about where they lie", where=path)
    shape: Mapping[str, Any] = json.loads(table[["geometry"]].to_crs(4326).to_json())
    return shape
