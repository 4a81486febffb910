"""From an area on the ground to a window of pixels: a box or polygons, in any CRS.

A box cuts out a window. Polygons do as well, and hide what lies outside of them: a pixel belongs to
a polygon if its centre does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what the warper raises is no RasterioError
from rasterio.errors import CRSError
from rasterio.features import geometry_mask
from rasterio.warp import transform as warp_points

from eofm.errors import RasterError, SpecError
from eofm.raster.grid import Grid, Window, crs_text, read_crs

LONGITUDE_LATITUDE: Final = "EPSG:4326"
_EDGE_POINTS: Final = 21  # of each edge: a straight line in one CRS is bent in another
_ROUNDING: Final = 1e-6  # of a pixel, by which an edge that lies between two pixels may be off

Box = tuple[float, float, float, float]
Ring = list[tuple[float, float]]


@runtime_checkable
class HasGeometry(Protocol):
    """What shapely, geopandas and others offer: a GeoJSON-like mapping."""

    @property
    def __geo_interface__(self) -> Mapping[str, object]: ...


Area = Sequence[float] | Mapping[str, object] | HasGeometry


@dataclass(frozen=True)
class Cut:
    """The pixels of an area.

    Args:
        window: The smallest one around it, between pixels of the coarsest band.
        inside: Which of its pixels belong to the polygons, (h, w). None for a box.
    """

    window: Window
    inside: NDArray[np.bool_] | None


def cut_out(grid: Grid, step: int, area: Area, crs: str = LONGITUDE_LATITUDE) -> Cut:
    """Find the pixels of an area.

    Args:
        grid: Of the image.
        step: Windows start and end at multiples of it.
        area: West, south, east and north; or GeoJSON (geometry, Feature or FeatureCollection of
            polygons), as a mapping or as an object that has it (`__geo_interface__`).
        crs: Of the area, unless it says it itself, as a GeoDataFrame does: longitude and latitude
            where neither states it.

    Raises:
        SpecError: If it is neither a box nor polygons, or says another CRS than stated.
        RasterError: If the image lies nowhere, or not there.
    """
    crs = _own_crs(area, crs)
    shape = area if isinstance(area, Mapping) else None
    if shape is None and isinstance(area, HasGeometry):
        shape = area.__geo_interface__
    if shape is None:
        rings = [[_box_ring(area, crs)]]
    else:
        rings = list(_polygons(shape))
        if not rings:
            raise _no_area("GeoJSON without a polygon")
    there = [[_to_grid(ring, crs, grid) for ring in polygon] for polygon in rings]
    window = _window(grid, step, there)
    return Cut(window, None if shape is None else _inside(grid.at(window), there))


def _own_crs(area: Area, stated: str) -> str:
    """Return the CRS of an area: that of a GeoDataFrame is its own."""
    said = getattr(area, "crs", None)
    if said is None:
        return stated
    own = read_crs(said.to_wkt())
    if stated != LONGITUDE_LATITUDE and own != read_crs(stated):
        raise SpecError(
            "the area itself says another CRS than stated",
            found=crs_text(own),
            expected=stated,
            remedy="leave where_crs out: what the area says is taken",
        )
    return crs_text(own)


def _no_area(found: object) -> SpecError:
    return SpecError(
        "an area is a box or polygons",
        found=found,
        expected="(west, south, east, north), or GeoJSON with polygons",
        remedy="where=(11.30, 48.05, 11.40, 48.10)",
    )


def _box_ring(area: object, crs: str) -> Ring:
    try:
        west, south, east, north = (float(edge) for edge in area)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise _no_area(area) from None
    if not all(map(math.isfinite, (west, south, east, north))) or north <= south or east <= west:
        raise SpecError(
            "a box runs from west to east and from south to north",
            found=(west, south, east, north),
            expected="(west, south, east, north)",
            remedy="cut a box that crosses 180 degrees into two",
        )
    if crs == LONGITUDE_LATITUDE and (abs(south) > 90 or abs(north) > 90 or abs(west) > 360):
        raise SpecError(
            "a box is stated in degrees of longitude and latitude",
            found=(west, south, east, north),
            remedy='state the CRS of other coordinates, as in where_crs="EPSG:32632"',
        )
    part = np.linspace(0, 1, _EDGE_POINTS)[:-1]
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    ring = [
        (x + (u - x) * t, y + (v - y) * t)
        for (x, y), (u, v) in itertools.pairwise(corners)
        for t in part
    ]
    return [*ring, ring[0]]


def _polygons(shape: Mapping[str, object]) -> Iterator[list[Ring]]:
    """Yield the polygons of GeoJSON, each a list of rings."""
    kind, coordinates = shape.get("type"), shape.get("coordinates")
    try:
        if kind == "FeatureCollection":
            for feature in shape["features"]:  # type: ignore[attr-defined]
                yield from _polygons(feature)
        elif kind == "Feature":
            yield from _polygons(shape["geometry"])  # type: ignore[arg-type]
        elif kind == "GeometryCollection":
            for geometry in shape["geometries"]:  # type: ignore[attr-defined]
                yield from _polygons(geometry)
        elif kind == "Polygon":
            yield [_ring(ring) for ring in coordinates]  # type: ignore[attr-defined]
        elif kind == "MultiPolygon":
            for polygon in coordinates:  # type: ignore[attr-defined]
                yield [_ring(ring) for ring in polygon]
        else:
            raise _no_area(f"GeoJSON of type {kind!r}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _no_area(f"broken GeoJSON: {error}") from error


def _ring(points: Sequence[Sequence[float]]) -> Ring:
    ring = [(float(point[0]), float(point[1])) for point in points]
    if len(ring) < 4 or not all(math.isfinite(x) and math.isfinite(y) for x, y in ring):
        raise _no_area(f"a ring of {len(ring)} points")
    return ring


def _to_grid(ring: Ring, crs: str, grid: Grid) -> Ring:
    """Bring a ring to the CRS of the grid."""
    xs, ys = (list(axis) for axis in zip(*ring, strict=True))
    try:
        found = warp_points(read_crs(crs), grid.require_crs(), xs, ys)
    except (CRSError, CPLE_BaseError) as error:
        raise _elsewhere(grid, str(error)) from error
    if not np.isfinite(found[:2]).all():
        raise _elsewhere(grid, "an area beyond the projection of the image")
    return list(zip(found[0], found[1], strict=True))


def _window(grid: Grid, step: int, polygons: list[list[Ring]]) -> Window:
    points = np.array([point for polygon in polygons for point in polygon[0]])
    inverse = ~grid.transform
    cols = inverse.a * points[:, 0] + inverse.b * points[:, 1] + inverse.c
    rows = inverse.d * points[:, 0] + inverse.e * points[:, 1] + inverse.f
    spans = []
    for places, length in ((rows, grid.height), (cols, grid.width)):
        first = max(0, math.floor((places.min() + _ROUNDING) / step) * step)
        last = min(length, math.ceil((places.max() - _ROUNDING) / step) * step)
        if last <= first:
            raise _elsewhere(grid, "an area beside the image")
        spans.append((first, last - first))
    return Window(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _inside(grid: Grid, polygons: list[list[Ring]]) -> NDArray[np.bool_]:
    shapes = [{"type": "Polygon", "coordinates": polygon} for polygon in polygons]
    t = grid.transform
    inside: NDArray[np.bool_] = geometry_mask(
        shapes, (grid.height, grid.width), Affine(t.a, t.b, t.c, t.d, t.e, t.f), invert=True
    )
    if not inside.any():
        raise _elsewhere(grid, "polygons that hold the centre of no pixel")
    return inside


def _elsewhere(grid: Grid, found: str) -> RasterError:
    left, bottom, right, top = grid.bounds
    return RasterError(
        "the area does not lie in the image",
        found=found,
        expected=f"{left:.10g}, {bottom:.10g}, {right:.10g}, {top:.10g} in {grid.crs}",
        remedy="look at scene.footprint, in longitude and latitude",
    )
