"""Which maps there are, where they lie, and when they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

import numpy as np
from rasterio.crs import CRS

from eofm.errors import LabelError
from eofm.landcover.dates import DatePattern, Period
from eofm.landcover.on_grid import box_in
from eofm.landcover.strips import opened
from eofm.progress import track
from eofm.raster.geotiff import grid_of
from eofm.raster.grid import Grid

_TIFS: Final = {".tif", ".tiff"}
_LISTS: Final = {".json", ".geojson"}


@dataclass(frozen=True)
class MapFile:
    """One map.

    Args:
        file: Where it is.
        name: What it is called in the ids of its windows.
        grid: Where its pixels lie.
        period: When it is of; None where nothing says so.
    """

    file: Path
    name: str
    grid: Grid
    period: Period | None = None

    @property
    def date(self) -> str:
        """When it is of, as text; empty where nothing says so."""
        return "" if self.period is None else str(self.period)


@dataclass(frozen=True)
class Catalogue:
    """Maps in order of precedence."""

    maps: tuple[MapFile, ...]

    def over(self, grid: Grid) -> list[MapFile]:
        """Return the maps whose bounding boxes share an area with an image's."""
        found: list[int] = []
        for crs, (numbers, boxes) in self._extents.items():
            box = box_in(grid, crs)
            if box is None:
                continue
            left, bottom, right, top = box
            # a box over the 180th meridian has its left edge right of its right one
            spans = [(left, right)] if left <= right else [(left, np.inf), (-np.inf, right)]
            for first, last in spans:
                hit = (first < boxes[:, 2]) & (boxes[:, 0] < last)
                hit &= (bottom < boxes[:, 3]) & (boxes[:, 1] < top)
                found += numbers[hit].tolist()
        return [self.maps[number] for number in sorted(set(found))]

    @cached_property
    def _extents(self) -> Mapping[CRS, tuple[np.ndarray, np.ndarray]]:
        numbers: dict[CRS, list[int]] = {}
        for number, entry in enumerate(self.maps):
            numbers.setdefault(entry.grid.require_crs(), []).append(number)
        return {
            crs: (np.array(own), np.array([self.maps[i].grid.bounds for i in own]))
            for crs, own in numbers.items()
        }

    @property
    def stamp(self) -> list[list[str | int]]:
        """What changes when a map does: path, size, time of change, and date."""
        stamps: list[list[str | int]] = []
        for entry in self.maps:
            state = entry.file.stat()
            stamps.append([entry.file.as_posix(), state.st_size, state.st_mtime_ns, entry.date])
        return stamps


def find_maps(
    paths: Sequence[str], dates: DatePattern | None = None, asset: str | None = None
) -> Catalogue:
    """Find maps and read their headers.

    Args:
        paths: Rasters, folders of GeoTIFFs, or STAC item lists.
        dates: Where file names tell the date; None where they do not.
        asset: Which asset of a STAC item is the map.

    Raises:
        LabelError: If there is no map, one lies nowhere, or its name does not tell its date.
        RasterError: If a map cannot be read.
    """
    listed = [entry for path in paths for entry in _list(Path(path), asset)]
    maps = []
    for file, name, period in track(listed, "reading map headers"):
        with opened(file) as dataset:
            grid = grid_of(dataset)
        if period is None and dates is not None:
            period = dates.find(file.name)  # noqa: PLW2901 (what is known of it so far)
        maps.append(MapFile(file, name, grid, period))
    return Catalogue(tuple(_distinct(maps)))


def _distinct(maps: Sequence[MapFile]) -> list[MapFile]:
    """Number maps of one name, so that the ids of their windows differ."""
    seen: dict[str, int] = {}
    out = []
    for entry in maps:
        seen[entry.name] = seen.get(entry.name, 0) + 1
        again = seen[entry.name] > 1
        out.append(replace(entry, name=f"{entry.name}~{seen[entry.name]}") if again else entry)
    return out


def _list(path: Path, asset: str | None) -> list[tuple[Path, str, Period | None]]:
    if not path.exists():
        raise LabelError("there is no such land-cover map", where=path)
    if path.is_file():
        if path.suffix.lower() in _LISTS:
            return _stac_maps(path, asset)
        return [(path, path.stem, None)]
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _TIFS)
    if not files:
        raise LabelError("the folder holds no land-cover maps", found="no .tif", where=path)
    return [(f, f.relative_to(path).with_suffix("").as_posix(), None) for f in files]


# ------------------------------------------------------------------------------------- STAC


def _stac_maps(file: Path, asset: str | None) -> list[tuple[Path, str, Period | None]]:
    """Read an ItemCollection, a list of items, or one item."""
    try:
        plain = json.loads(file.read_text("utf-8"))
        items = plain.get("features", [plain]) if isinstance(plain, dict) else plain
        found = [_stac_map(item, asset, file) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelError(
            "this is no list of STAC items",
            found=repr(error),
            expected="an ItemCollection, or a list of items with assets",
            where=file,
        ) from error
    if not found:
        raise LabelError("the list holds no STAC items", where=file)
    return found


def _stac_map(
    item: Mapping[str, Any], asset: str | None, file: Path
) -> tuple[Path, str, Period | None]:
    assets: Mapping[str, Mapping[str, Any]] = item["assets"]
    where = f"{file}, item {item['id']}"
    rasters = [key for key, value in assets.items() if _is_raster(value)]
    chosen = [key for key in assets if key == asset] if asset is not None else rasters
    if len(chosen) != 1:
        raise LabelError(
            "which asset of the STAC item is the map?",
            found=", ".join(assets) or "no asset",
            expected=asset or "one GeoTIFF",
            where=where,
            remedy="name it: --asset " + (rasters or ["KEY"])[0],
        )
    properties = item["properties"]
    moment = properties.get("datetime")
    if moment is None and properties.get("start_datetime"):
        moment = f"{properties['start_datetime']}/{properties['end_datetime']}"
    period = None if moment is None else Period.parse(moment)
    return _local(assets[chosen[0]]["href"], file, where), str(item["id"]), period


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type", ""))
    suffix = Path(urlparse(asset["href"]).path).suffix.lower()
    roles = asset.get("roles", [])
    raster = kind.startswith("image/tiff") if kind else suffix in {*_TIFS, ".vrt"}
    return raster and not {"thumbnail", "overview"} & set(roles)


def _local(href: str, file: Path, where: str) -> Path:
    parts = urlparse(href)
    if parts.scheme not in {"", "file"}:
        raise LabelError(
            "the asset is not on this machine",
            found=href,
            expected="a local path, absolute or relative to the list",
            where=where,
            remedy="download the maps, and let the list point to the files",
        )
    return file.parent / (unquote(parts.path) if parts.scheme else href)
