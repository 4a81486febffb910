"""Polygons and points with information on places: training labels, examples of a search.

The source is any file that geopandas reads, or a GeoDataFrame, in any CRS. Multi-part features are
split, so that a layer dissolved by class still has as many polygons as were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from eofm.errors import LabelError
from eofm.formats.foreign import foreign
from eofm.geo.maps_config import HIGHEST_LATITUDE, HIGHEST_LONGITUDE
from eofm.landcover.polygons import (
    AREAS,
    VectorLayer,
    check_filled,
    check_shapes,
    layer_of_frame,
    of_layer,
    polygon_library,
    read_vectors,
)
from eofm.raster.grid import crs_text, read_crs

if TYPE_CHECKING:
    from types import ModuleType
    from typing import TypeAlias

    from geopandas import GeoDataFrame, GeoSeries

    # sources of features: a file, a table or GeoJSON
    PlacesLike: TypeAlias = str | Path | GeoDataFrame | GeoSeries | Mapping[str, Any]

__all__ = [
    "MOST_CLASSES",
    "LabelledPlaces",
    "as_layers",
    "classes_of",
    "crs_of_frame",
    "geo_frame",
    "read_labels",
    "read_places",
]

_SLACK: Final = 1e-9  # a pole, with rounding errors of other programs
_KINDS: Final = AREAS | {"Point", "MultiPoint"}
MOST_CLASSES: Final = 254  # of an 8-bit class map, whose 0 is "no class"


@dataclass(frozen=True, eq=False)
class LabelledPlaces:
    """Polygons and points in one CRS, with their values.

    Args:
        shapes: shapely's Polygon and Point, (N,).
        crs: Their CRS.
        values: Value of each: the name of its class; empty without a field.
        source: Their origin, for messages.
        features: Feature of the source that each was part of, (N,).
    """

    shapes: NDArray[np.object_]
    crs: CRS
    values: tuple[str, ...]
    source: str
    features: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def points(self) -> NDArray[np.bool_]:
        """Mask of points, (N,)."""
        return np.array([shape.geom_type == "Point" for shape in self.shapes], np.bool_)


def as_layers(given: PlacesLike | Sequence[PlacesLike]) -> list[PlacesLike]:
    """Return one or several layers as a list.

    Raises:
        LabelError: If the list is empty.
    """
    layers = list(given) if isinstance(given, list | tuple) else [given]
    if not layers:
        raise LabelError(
            "there are no polygons or points",
            found=f"an empty {type(given).__name__}",
            expected="one layer or more",
        )
    return layers


def read_places(given: PlacesLike) -> LabelledPlaces:
    """Return the polygons and points of a file or a GeoDataFrame, without a class.

    Args:
        given: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet of one layer; or a
            GeoDataFrame, a GeoSeries, or a GeoJSON mapping of features.

    Raises:
        ConfigError: If the libraries that read them are not installed.
        LabelError: If there are none, they cannot be read, have no georeference, are invalid, or
            are neither polygons nor points.
    """
    layer = _layer(given)
    _check(layer)
    return _apart(layer, ())


def read_labels(given: PlacesLike, field: str | None) -> LabelledPlaces:
    """Return the polygons and points of a file or a GeoDataFrame with their classes.

    Args:
        given: As for `read_places`.
        field: The field that holds the class.

    Raises:
        ConfigError: If the libraries that read them are not installed, or no field is stated.
        LabelError: As for `read_places`, and if there is no such field or a value is missing.
    """
    layer = _layer(given)
    _check(layer)
    values = layer.field(None if field is None else str(field))
    names = [_named(value) for value in values]
    check_filled(layer.file, str(field), names)
    return _apart(layer, names)


def _named(value: object) -> str | None:
    """Return the name of a class: numbers of a field are names too, 3.0 as 3."""
    if value is None or value != value:  # noqa: PLR0124 (NaN)
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None  # shapefiles pad texts with blanks


def _layer(given: PlacesLike) -> VectorLayer:
    if not isinstance(given, str | Path):
        return layer_of_frame(_as_frame(given), Path(type(given).__name__))
    file = Path(given)
    try:
        there = of_layer(file)[0].exists()
    except OSError:  # text that is too long for a name, such as GeoJSON
        there = False
    if not there:
        shown = str(given)
        raise LabelError(
            "there is no such file of polygons or points",
            where=shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}...",
        )
    return read_vectors(file)


_LONGEST_NAME: Final = 255
_OF_POINTS: Final = (
    "geopandas.GeoDataFrame(table, geometry=geopandas.points_from_xy(table.x, table.y), "
    'crs="EPSG:4326")'
)


def _as_frame(given: object) -> GeoDataFrame:
    """Return a GeoDataFrame, a GeoSeries or a GeoJSON mapping as a GeoDataFrame.

    Raises:
        LabelError: If it is none of them, or has no geometry.
    """
    geopandas = polygon_library("geopandas", Path(type(given).__name__))
    if isinstance(given, geopandas.GeoSeries):
        return geopandas.GeoDataFrame(geometry=given)
    if isinstance(given, Mapping) and "type" in given:
        with foreign(LabelError, "the GeoJSON cannot be read", where="GeoJSON"):
            return _of_geojson(geopandas, given)
    remedy = 'geopandas.read_file("FILE")'
    if hasattr(given, "columns"):
        if hasattr(given, "geometry") and hasattr(given, "crs"):
            return given
        remedy = _with_geometry(given) or _OF_POINTS
    elif hasattr(given, "geom_type"):
        remedy = 'geopandas.GeoSeries([shape], crs="EPSG:4326")'
    elif isinstance(given, list | tuple) and given and hasattr(given[0], "geom_type"):
        remedy = 'geopandas.GeoSeries(shapes, crs="EPSG:4326")'
    raise LabelError(
        "these are not polygons or points with a CRS",
        found=f"an object of type {type(given).__name__}",
        expected="a file, a GeoDataFrame or GeoSeries, or features of GeoJSON",
        remedy=remedy,
    )


def _of_geojson(geopandas: ModuleType, given: Mapping[str, Any]) -> GeoDataFrame:
    """Return GeoJSON as a table, in WGS 84 (RFC 7946) unless it has the older member `crs`."""
    kind = given["type"]
    features: list[Any] = [{"type": "Feature", "properties": {}, "geometry": given}]
    if kind in {"Feature", "FeatureCollection"}:
        features = given["features"] if kind == "FeatureCollection" else [given]
    stated = given.get("crs", _LONGITUDE_LATITUDE)
    crs = stated and stated["properties"]["name"]
    if not features:
        return geopandas.GeoDataFrame(geometry=[], crs=crs)
    return geopandas.GeoDataFrame.from_features(features, crs=crs)


_LONGITUDE_LATITUDE: Final = {"type": "name", "properties": {"name": "EPSG:4326"}}


def _with_geometry(table: Any) -> str | None:  # noqa: ANN401 (of pandas or geopandas)
    """Return the expression that makes one of the columns the geometry; None without geometries."""
    for name in table.columns:
        column = table[name]
        if len(table) and hasattr(column.iloc[0], "geom_type"):
            crs = "" if getattr(column, "crs", None) else ', crs="EPSG:4326"'
            return f"geopandas.GeoDataFrame(table, geometry={str(name)!r}{crs})"
    return None


def _check(layer: VectorLayer) -> None:
    """Raise an error for invalid shapes or coordinates outside the earth.

    Raises:
        LabelError: If a shape is neither polygon nor point, is invalid, or its coordinates are not
            finite, or not angles although the CRS is geographic.
    """
    import shapely

    check_shapes(layer.file, layer.shapes, _KINDS)
    bounds = shapely.bounds(layer.shapes)
    lost = ~np.isfinite(bounds).all(axis=1)
    if layer.crs.is_geographic:
        unit = layer.crs.units_factor[1]  # radians
        limits = np.radians([HIGHEST_LONGITUDE, HIGHEST_LATITUDE] * 2) / unit * (1 + _SLACK)
        lost |= ~(np.abs(bounds) <= limits).all(axis=1)
    where = np.flatnonzero(lost & ~shapely.is_empty(layer.shapes))
    if len(where):
        box = ", ".join(f"{edge:.8g}" for edge in bounds[where[0]])
        raise LabelError(
            "the layer has coordinates outside the earth",
            found=f"feature {where[0]}: {box} (lowest x and y, highest x and y)",
            expected=f"numbers of {crs_text(layer.crs)[:60]}",
            where=layer.file,
            remedy="leave such features out; or state the CRS that the coordinates are of, as in "
            'geopandas: layer = layer.set_crs("EPSG:32632", allow_override=True)',
        )


def _apart(layer: VectorLayer, values: Sequence[str | None]) -> LabelledPlaces:
    import shapely

    parts, origin = shapely.get_parts(layer.shapes, return_index=True)
    full = ~shapely.is_empty(parts)
    names = tuple(str(values[i]) for i in origin[full]) if values else ()
    return LabelledPlaces(
        parts[full], layer.crs, names, str(layer.file), np.asarray(origin[full], np.int64)
    )


def classes_of(layers: Sequence[LabelledPlaces]) -> tuple[str, ...]:
    """Return the names of all classes: numbers in numerical order, others alphabetically.

    Raises:
        LabelError: If there is only one class, or more than a map can hold.
    """
    names = sorted({name for layer in layers for name in layer.values}, key=_order)
    where = ", ".join(layer.source for layer in layers)
    if len(names) < 2:
        raise LabelError(
            "a map of classes needs two classes or more",
            found=f"one class: {', '.join(names)}",
            where=where,
            remedy="draw polygons of what is not that class, and give them their own class "
            f"(as in: not {names[0]})",
        )
    if len(names) > MOST_CLASSES:
        raise LabelError(
            "a class map holds at most 254 classes",
            found=f"{len(names)} values of the field: {', '.join(names[:5])}, ...",
            where=where,
            remedy="name the field that holds the class: --field NAME",
        )
    return tuple(names)


def _order(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def geo_frame(shapes: NDArray[Any], crs: CRS, columns: dict[str, Any]) -> GeoDataFrame:
    """Return shapes with columns as a GeoDataFrame.

    Args:
        shapes: (N,) shapely geometries.
        crs: Their CRS.
        columns: Name -> (N,) values.
    """
    import geopandas

    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs_text(crs))


def crs_of_frame(frame: GeoDataFrame) -> CRS:
    """Return the CRS of a GeoDataFrame.

    Raises:
        LabelError: If it has none.
    """
    if frame.crs is None:
        raise LabelError(
            "the chips have no georeference",
            found="no coordinate reference system",
            remedy="state it, as in geopandas: table.set_crs('EPSG:4326')",
        )
    return read_crs(frame.crs.to_wkt())
