"""Polygons of known ground beside a product of the synthetic world, as somebody might draw them.

They are GeoJSON (RFC 7946) in longitude and latitude: pieces of one land cover, taken from the
Dynamic World map of that day, which knows the truth of the world.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.warp import transform_geom

from eofm.io import replacing
from eofm.world.landscape import PIXEL
from eofm.world.places import WorldPlace
from eofm.world.spectra import GroundCover

SQUARE: Final = 48  # pixels at a side of the squares that polygons are cut at
LEAST: Final = 100  # pixels of a polygon: a hectare
_EACH: Final = 40  # polygons of a class, at most
_CODES: Final = 256


def write_polygons(
    path: Path, cover: npt.NDArray[np.uint8], place: WorldPlace, rng: np.random.Generator
) -> None:
    """Write some pieces of a land-cover map, each with its `class`.

    The map is cut into squares of 480 m; of the pieces of one class in a square that have a hectare
    or more, up to forty of each class are drawn.

    Args:
        path: GeoJSON.
        cover: Codes of `GroundCover`, (H, W); others have no polygons.
        place: Where the upper left corner is.
        rng: Draws which pieces.
    """
    rows, columns = (np.arange(length) // SQUARE for length in cover.shape)
    squares = rows[:, None] * (columns[-1] + 1) + columns
    transform = Affine(PIXEL, 0, place.left, 0, -PIXEL, place.top)
    pieces: dict[GroundCover, list[dict[str, object]]] = {code: [] for code in GroundCover}
    names = squares * _CODES + cover
    for shape, name in shapes(names.astype(np.int32), cover < len(GroundCover), 4, transform):
        if _area(shape["coordinates"]) >= LEAST * PIXEL**2:
            pieces[GroundCover(int(name) % _CODES)].append(shape)
    features = []
    for code, found in pieces.items():
        kept = np.sort(rng.permutation(len(found))[:_EACH])
        features += [_feature(code, found[number], place) for number in kept]
    content = {"type": "FeatureCollection", "synthetic": True, "features": features}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _area(rings: list[list[tuple[float, float]]]) -> float:
    """Return the area of an outline less that of its holes, by the shoelace formula."""
    sizes = []
    for ring in rings:
        x, y = np.array(ring).T
        sizes.append(abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2)
    return sizes[0] - sum(sizes[1:])


def _feature(code: GroundCover, shape: dict[str, object], place: WorldPlace) -> dict[str, object]:
    degrees = transform_geom(CRS.from_epsg(place.epsg), CRS.from_epsg(4326), shape, precision=7)
    name = code.name.lower().replace("_", " ")
    return {"type": "Feature", "properties": {"class": name}, "geometry": degrees}
