"""Areas on the ground in any CRS: their pixel windows, and the images that overlap on the ground.

A box selects a window. Polygons do too, and exclude the pixels whose centre is outside of them.

To find overlapping footprints in any mixture of CRSs, the outline of every image is transformed to
the unit sphere, where UTM zones, the antimeridian and the poles have no effect. Candidates are
found in a hash grid with cells as large as the images (one grid per power of two of their size), so
the time grows with the number of images and neighbours, not of all pairs. A candidate pair is
compared in the equal-area projection centred between the two.

An overlap is more than `TOLERANCE_PX` pixels in both directions. Neighbours whose edges touch do
not overlap, nor do neighbours that share a row of pixels because their corners were rounded to a
grid: rounding moves each of two corners by up to half a pixel, together one pixel, and bilinear
resampling reaches half a pixel further.

Shapes: N images, P points of an outline, 3 coordinates on the unit sphere.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import geometry_mask
from rasterio.warp import transform as warp_points

from eofm.errors import RasterError, SpecError
from eofm.raster.grid import Grid, Window, corners, crs_text, read_crs, to_wgs84

__all__ = [
    "LONGITUDE_LATITUDE",
    "TOLERANCE_PX",
    "Area",
    "Box",
    "Cut",
    "HasGeometry",
    "Ring",
    "Square",
    "cut_out",
    "same_ground",
]

# ------------------------------------------------------------------------------ an area in an image

LONGITUDE_LATITUDE: Final = "EPSG:4326"
_EDGE_POINTS: Final = 21  # per edge: a straight line in one CRS is curved in another
_ROUNDING: Final = 1e-6  # pixels, tolerance of an edge between two pixels

Box = tuple[float, float, float, float]
Ring = list[tuple[float, float]]


@runtime_checkable
class HasGeometry(Protocol):
    """An object with a GeoJSON-like mapping, as in shapely and geopandas."""

    @property
    def __geo_interface__(self) -> Mapping[str, object]: ...


Area = Sequence[float] | Mapping[str, object] | HasGeometry


@dataclass(frozen=True)
class Cut:
    """The pixels of an area.

    Args:
        window: The smallest window around it that is aligned to the pixels of the coarsest band.
        inside: True for pixels of the window inside the polygons, (h, w). None for a box.
    """

    window: Window
    inside: NDArray[np.bool_] | None


def cut_out(grid: Grid, step: int, area: Area, crs: str = LONGITUDE_LATITUDE) -> Cut:
    """Find the pixels of an area.

    Args:
        grid: Grid of the image.
        step: Windows start and end at multiples of it.
        area: West, south, east and north; or GeoJSON (geometry, Feature or FeatureCollection of
            polygons), as a mapping or as an object with `__geo_interface__`.
        crs: CRS of the area; that of a GeoDataFrame takes precedence over the default.

    Raises:
        SpecError: If it is neither a box nor polygons, has another CRS than stated, or is a box at
            both ends of the image.
        RasterError: If the image has no georeference, or the area is outside the image.
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
    if grid.require_crs().is_geographic:
        there = _round_the_earth(there, grid, divided=shape is not None)
    window = _window(grid, step, there)
    return Cut(window, None if shape is None else _covered_pixels(grid.at(window), there))


def _own_crs(area: Area, stated: str) -> str:
    """Return the CRS of an area: its own (GeoDataFrame), otherwise the stated one."""
    attached = getattr(area, "crs", None)
    if attached is None:
        return stated
    own = read_crs(attached.to_wkt())
    if stated != LONGITUDE_LATITUDE and own != read_crs(stated):
        raise SpecError(
            "the area has another CRS than stated",
            found=crs_text(own),
            expected=stated,
            remedy="omit where_crs (--where_crs): the CRS of the area is used",
        )
    return crs_text(own)


def _no_area(found: object) -> SpecError:
    return SpecError(
        "an area must be a box or polygons",
        found=found,
        expected="(west, south, east, north), or GeoJSON with polygons",
        remedy="where=(11.30, 48.05, 11.40, 48.10), or --where 11.30,48.05,11.40,48.10",
    )


def _box_ring(area: object, crs: str) -> Ring:
    try:
        west, south, east, north = (float(edge) for edge in area)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise _no_area(area) from None
    if not all(map(math.isfinite, (west, south, east, north))) or north <= south or east <= west:
        raise SpecError(
            "a box must run from west to east and from south to north",
            found=(west, south, east, north),
            expected="(west, south, east, north)",
            remedy="split a box that crosses 180 degrees into two",
        )
    if crs == LONGITUDE_LATITUDE and (abs(south) > 90 or abs(north) > 90 or abs(west) > 360):
        raise SpecError(
            "a box must be in degrees of longitude and latitude",
            found=(west, south, east, north),
            remedy='state the CRS of other coordinates, as in where_crs="EPSG:32632" '
            "(--where_crs EPSG:32632)",
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
            yield [_checked_ring(ring) for ring in coordinates]  # type: ignore[attr-defined]
        elif kind == "MultiPolygon":
            for polygon in coordinates:  # type: ignore[attr-defined]
                yield [_checked_ring(ring) for ring in polygon]
        else:
            raise _no_area(f"GeoJSON of type {kind!r}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _no_area(f"broken GeoJSON: {error}") from error


def _checked_ring(points: Sequence[Sequence[float]]) -> Ring:
    ring = [(float(point[0]), float(point[1])) for point in points]
    if len(ring) < 4 or not all(math.isfinite(x) and math.isfinite(y) for x, y in ring):
        raise _no_area(f"a ring of {len(ring)} points")
    return ring


def _to_grid(ring: Ring, crs: str, grid: Grid) -> Ring:
    """Transform a ring to the CRS of the grid."""
    xs, ys = (list(axis) for axis in zip(*ring, strict=True))
    try:
        found = warp_points(read_crs(crs), grid.require_crs(), xs, ys)
    except (CRSError, CPLE_BaseError) as error:
        raise _elsewhere(grid, str(error)) from error
    if not np.isfinite(found[:2]).all():
        raise _elsewhere(grid, "an area beyond the projection of the image")
    first = np.asarray(found[0])
    if grid.require_crs().is_geographic and not read_crs(crs).is_geographic:
        first = np.unwrap(first, period=360.0)  # a projection can cross 180 degrees
    return list(zip(first.tolist(), found[1], strict=True))


def _round_the_earth(polygons: list[list[Ring]], grid: Grid, *, divided: bool) -> list[list[Ring]]:
    """Shift polygons to the longitudes of an image, which can exceed 180 or run from 0 to 360.

    Args:
        polygons: Polygons in degrees.
        grid: Grid of the image in degrees.
        divided: Whether a polygon may be at both ends of the image; a box may not.

    Raises:
        SpecError: If a box does.
    """
    left, _, right, _ = grid.bounds
    slack = _ROUNDING * abs(grid.transform.a)
    found = []
    for polygon in polygons:
        longitudes = [x for x, _ in polygon[0]]
        west, east = min(longitudes), max(longitudes)
        turns = [
            turn
            for turn in (-360.0, 0.0, 360.0)
            if west + turn < right - slack and east + turn > left + slack
        ]
        if len(turns) > 1 and not divided:
            ends = (right + turn for turn in (-360.0, 0.0, 360.0))
            edge = next((end for end in ends if west < end < east), right)
            raise SpecError(
                "the box is at both ends of the image",
                found=f"longitudes {west:g} to {east:g}, of an image from {left:g} to {right:g}",
                expected="a box on one side",
                remedy=f"split it into two at longitude {edge:g}",
            )
        for turn in turns or [0.0]:
            found.append([[(x + turn, y) for x, y in ring] for ring in polygon])
    return found


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
            raise _elsewhere(grid, "an area outside the image")
        spans.append((first, last - first))
    return Window(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _covered_pixels(grid: Grid, polygons: list[list[Ring]]) -> NDArray[np.bool_]:
    shapes = [{"type": "Polygon", "coordinates": polygon} for polygon in polygons]
    t = grid.transform
    inside: NDArray[np.bool_] = geometry_mask(
        shapes, (grid.height, grid.width), Affine(t.a, t.b, t.c, t.d, t.e, t.f), invert=True
    )
    if not inside.any():
        raise _elsewhere(grid, "polygons that contain no pixel centre")
    return inside


def _elsewhere(grid: Grid, found: str) -> RasterError:
    left, bottom, right, top = grid.bounds
    remedy, ring = None, corners(grid)
    if ring:
        (west, south), (east, north) = np.min(ring, axis=0), np.max(ring, axis=0)
        box = f"{west:.5f},{south:.5f},{east:.5f},{north:.5f}"
        remedy = f"choose an area within {box} in longitude and latitude"
    return RasterError(
        "the area is outside the image",
        found=found,
        expected=f"{left:.10g}, {bottom:.10g}, {right:.10g}, {top:.10g} in {grid.crs}",
        remedy=remedy,
    )


# ------------------------------------------------------------------------ images of the same ground

TOLERANCE_PX: Final = 1.5
# Points per side, connected by straight lines: at 60 degrees north the error is 7 m for a whole
# Sentinel-2 tile in degrees, and less than 0.1 m for a chip of 2.56 km.
_PER_SIDE: Final = 8
_RADIUS_M: Final = 6_371_008.8  # mean radius of the Earth (IUGG)
_CHUNK: Final = 1024  # pairs compared at once
_BLOCK: Final = 32 * _CHUNK  # candidates kept at once
_AROUND: Final = tuple(product((-1, 0, 1), repeat=3))  # a cell and its neighbours

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Square:
    """The footprint of a north-up image of which only the centre is known.

    Args:
        longitude: Longitude of the centre, degrees east.
        latitude: Latitude of the centre, degrees north.
        height: Extent from north to south, metres.
        width: Extent from west to east, metres.
        pixel: Pixel size, metres.
    """

    longitude: float
    latitude: float
    height: float
    width: float
    pixel: float


def same_ground(
    images: Sequence[Grid | Square | None], kinds: Sequence[int] | None = None
) -> list[int]:
    """Group images whose footprints overlap, directly or through others.

    Args:
        images: Footprint of each image; None if unknown. An image that cannot be located (no CRS,
            or one that is not on the Earth) overlaps no other.
        kinds: Kind of each image; images of the same kind are not compared. None compares all.

    Returns:
        For each image, the index of the first image of its group.
    """
    kinds = [0] * len(images) if kinds is None else kinds
    apart = len(set(kinds)) > 1
    first: dict[tuple[int, Grid | Square], int] = {}
    groups = _Groups(len(images))
    for index, image in enumerate(images):  # repeated acquisitions of one grid cost nothing
        if image is None or (isinstance(image, Grid) and not _is_located(image)):
            continue  # two images without georeference are not known to overlap
        if apart:
            first[index, image] = index
        else:
            groups.join(first.setdefault((0, image), index), index)
    located = list(_outlines([(image, index) for (_, image), index in first.items()]))
    if located:
        numbers, points = [i for i, _ in located], np.stack([outline for _, outline in located])
        pairs = _candidates(points)
        if apart:
            pairs = ((a, b) for a, b in pairs if kinds[numbers[a]] != kinds[numbers[b]])
        while block := list(islice(pairs, _BLOCK)):
            _join_block(block, numbers, points, groups)
    return [groups.of(i) for i in range(len(images))]


def _join_block(
    pairs: list[tuple[int, int]], index: Sequence[int], points: _Floats, groups: _Groups
) -> None:
    """Compare candidate pairs of outlines, and join the images of those that overlap.

    For any two groups, one pair is compared first, then twice as many, until the groups are joined:
    in a stack of acquisitions, nearly all comparisons are avoided.
    """
    at_once = 1
    while pairs:
        chosen: list[tuple[int, int]] = []
        left: list[tuple[int, int]] = []
        taken: Counter[tuple[int, int]] = Counter()
        for a, b in pairs:
            key = groups.of(index[a]), groups.of(index[b])
            if key[0] != key[1]:
                taken[key] += 1
                (chosen if taken[key] <= at_once else left).append((a, b))
        for start in range(0, len(chosen), _CHUNK):
            part = np.array(chosen[start : start + _CHUNK])
            for a, b in part[_overlap(points[part[:, 0]], points[part[:, 1]])].tolist():
                groups.join(index[a], index[b])
        pairs, at_once = left, 2 * at_once


class _Groups:
    """Disjoint sets of indices, each represented by its smallest index."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def of(self, index: int) -> int:
        """Return the smallest index of a set."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, a: int, b: int) -> None:
        """Make two sets one."""
        low, high = sorted((self.of(a), self.of(b)))
        self._parent[high] = low


# ----------------------------------------------------------------------------- outlines


def _outlines(images: Iterable[tuple[Grid | Square, int]]) -> Iterator[tuple[int, _Floats]]:
    """Yield the outline of each image, shrunk by half the tolerance, (P, 3).

    The last point is the centre. Images that cannot be located are left out.
    """
    by_crs: dict[CRS, list[tuple[int, _Floats]]] = defaultdict(list)
    for image, index in images:
        if isinstance(image, Square):
            yield index, _square(image)
        elif image.crs is not None and _is_located(image):
            by_crs[image.crs].append((index, _outline(image)))
    for crs, rings in by_crs.items():
        together = _locate(crs, np.concatenate([ring for _, ring in rings]))
        if together is not None:
            numbers = [index for index, _ in rings]
            yield from zip(numbers, np.split(together, len(rings)), strict=True)
            continue
        for index, ring in rings:  # one of them is outside the domain of its CRS
            points = _locate(crs, ring)
            if points is not None:
                yield index, points


def _is_located(grid: Grid) -> bool:
    return grid.crs is not None and not grid.transform.is_identity


def _locate(crs: CRS, points: _Floats) -> _Floats | None:
    """Return points (P, 2) on the unit sphere (P, 3); None if they are not on the Earth."""
    try:
        longitude, latitude = to_wgs84(crs, *points.T.tolist())
    except RasterError:
        return None  # a site plan, another planet, a corner outside the projection
    return _on_sphere(np.array(longitude), np.array(latitude))


def _outline(grid: Grid) -> _Floats:
    """Return the outline in the coordinates of the grid, and its centre: (P, 2)."""
    t = grid.transform
    cols, rows = _corners(grid.width, grid.height, TOLERANCE_PX / 2)
    return np.stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f], axis=1)


def _square(image: Square) -> _Floats:
    inset = TOLERANCE_PX / 2 * image.pixel
    east, south = _corners(image.width, image.height, inset)
    latitude = math.radians(image.latitude)
    x = (east - image.width / 2) / _RADIUS_M
    y = (image.height / 2 - south) / _RADIUS_M
    lon, lat = math.radians(image.longitude), latitude
    centre = np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])
    eastward = np.array([-math.sin(lon), math.cos(lon), 0.0])
    northward = np.cross(centre, eastward)
    points = centre + x[:, None] * eastward + y[:, None] * northward
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), np.float64)


def _corners(width: float, height: float, inset: float) -> tuple[_Floats, _Floats]:
    """Return points along the sides of a shrunk rectangle, and its centre."""
    dx, dy = min(inset, width / 4), min(inset, height / 4)
    along = np.arange(_PER_SIDE) / _PER_SIDE
    x = dx + (width - 2 * dx) * np.concatenate([along, np.ones(_PER_SIDE), 1 - along, 0 * along])
    y = dy + (height - 2 * dy) * np.concatenate([0 * along, along, np.ones(_PER_SIDE), 1 - along])
    return np.append(x, width / 2), np.append(y, height / 2)


def _on_sphere(longitude: _Floats, latitude: _Floats) -> _Floats:
    lon, lat = np.radians(longitude), np.radians(latitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


# --------------------------------------------------------------------------- candidates


def _candidates(points: _Floats) -> Iterator[tuple[int, int]]:
    """Yield pairs of images whose bounding spheres intersect, each pair once.

    Every image is in the cell of its centre, in the grid of its size. The smaller of two images
    finds the larger one: it searches 27 cells of every grid that is at least as coarse as its own.
    """
    centres = points[:, -1]
    radii = np.linalg.norm(points - centres[:, None], axis=2).max(axis=1)
    levels = np.ceil(np.log2(np.maximum(radii, 1e-9))).astype(int)
    where, reach = centres.tolist(), radii.tolist()
    grids: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for level in sorted(set(levels.tolist()), reverse=True):
        grids[level] = defaultdict(list)
        own = np.flatnonzero(levels == level)
        # a side is at least the sum of two radii of this level or below
        bases = {lv: np.floor(centres[own] / 2.0 ** (lv + 1)).astype(int).tolist() for lv in grids}
        for k, index in enumerate(own.tolist()):
            for coarser, grid in grids.items():
                i, j, n = bases[coarser][k]
                for di, dj, dn in _AROUND:
                    for other in grid.get((i + di, j + dj, n + dn), ()):
                        if math.dist(where[index], where[other]) <= reach[index] + reach[other]:
                            yield other, index
            grids[level][tuple(bases[level][k])].append(index)


def _overlap(first: _Floats, second: _Floats) -> NDArray[np.bool_]:
    """Return which pairs of outlines (N, P, 3) overlap."""
    a, b = _project(first, second)
    meet = np.flatnonzero(~(_apart(a, b) | _apart(b, a)))
    inside = _point_inside(b[meet], a[meet, :-1]) | _point_inside(a[meet], b[meet, :-1])
    open_ = meet[~inside]
    found = np.zeros(len(a), np.bool_)
    found[meet[inside]] = True
    found[open_] = _cross(a[open_, :-1], b[open_, :-1])
    return found


def _apart(a: _Floats, b: _Floats) -> NDArray[np.bool_]:
    """Return whether a line along a side of the first outline separates the two (N, P, 2).

    This is the case of neighbours whose edges touch, and far cheaper to detect than an overlap.
    """
    separate = np.zeros(len(a), np.bool_)
    for corner in (_PER_SIDE, 3 * _PER_SIDE):  # the ends of the two sides at the first point
        side = a[:, corner] - a[:, 0]
        here, there = (np.einsum("npk,nk->np", points, side) for points in (a, b))
        separate |= here.max(axis=1) <= there.min(axis=1)
        separate |= there.max(axis=1) <= here.min(axis=1)
    return separate


def _project(*outlines: _Floats) -> list[_Floats]:
    """Project to the Lambert azimuthal equal-area plane between two centres: (N, P, 2)."""
    middle = sum(points[:, -1] for points in outlines)
    middle = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    away = np.eye(3)[np.abs(middle).argmin(axis=1)]  # the axis that is least along the middle
    east = np.cross(away, middle)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    north = np.cross(middle, east)
    planes = []
    for points in outlines:
        up, x, y = (np.einsum("npk,nk->np", points, axis) for axis in (middle, east, north))
        scale = np.sqrt(2 / np.maximum(1 + up, 1e-9))
        planes.append(np.stack([scale * x, scale * y], axis=2))
    return planes


def _point_inside(points: _Floats, ring: _Floats) -> NDArray[np.bool_]:
    """Return whether any of the points (N, P, 2) is inside a ring (N, R, 2)."""
    x, y = points[:, :, None, 0], points[:, :, None, 1]
    x0, y0 = ring[:, None, :, 0], ring[:, None, :, 1]
    x1, y1 = (np.roll(part, -1, axis=2) for part in (x0, y0))
    spans = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):  # horizontal edges span nothing
        right = x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return np.asarray(((spans & right).sum(axis=2) % 2 == 1).any(axis=1))


def _cross(a: _Floats, b: _Floats) -> NDArray[np.bool_]:
    """Return whether any edge of a ring (N, R, 2) crosses one of another."""
    a1, b1 = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)

    def side(start: _Floats, end: _Floats, point: _Floats) -> NDArray[Any]:
        s, e = start[:, :, None], end[:, :, None]
        p = point[:, None]
        along, to = e - s, p - s
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    apart = side(a, a1, b) * side(a, a1, b1) < 0
    across = (side(b, b1, a) * side(b, b1, a1) < 0).transpose(0, 2, 1)
    return np.asarray((apart & across).any(axis=(1, 2)))
