"""Find land-cover maps, and choose those that label an image: by place, name and date.

`find_maps` lists them, `LandCover` chooses. Over an image, an earlier map has precedence and a
later one fills its nodata. A map with the name of the image takes the place of its whole folder.

When a map or a scene is of is a period, from a file name, a STAC item or a table.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from eofm.errors import ConfigError, LabelError, RasterError
from eofm.landcover.multilabel import (
    ClassMap,
    Cover,
    Reason,
    Seen,
    count_codes,
    strange_codes,
    unknown_codes,
)
from eofm.landcover.polygons import VECTORS, PolygonReader, of_layer, read_layer
from eofm.landcover.schemes import Scheme
from eofm.landcover.warp import Bounds, MapReader, box_in, fill, opened, overlapping
from eofm.raster.folder import walk_files
from eofm.raster.geotiff import gdal_name, grid_of, local_path
from eofm.raster.grid import Grid, Window
from eofm.raster.stac import read_items, roles_of
from eofm.terminal import track

__all__ = [
    "TIFS",
    "Catalogue",
    "DatePattern",
    "LandCover",
    "MapFile",
    "MapsOnGrid",
    "Period",
    "find_maps",
]

# -------------------------------------------------------------------------------------------- dates

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Period:
    """A span of time in UTC: an instant, a day, a month or a year.

    Args:
        start: Its beginning.
        end: Its end, not before the beginning.
    """

    start: datetime
    end: datetime

    def gap_days(self, other: Period) -> float:
        """Return the days between two periods; 0 if they overlap."""
        apart = max(self.start - other.end, other.start - self.end, timedelta(0))
        return apart / _DAY

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read a day, an instant or an interval `start/end`, as ISO 8601 and STAC write them.

        Raises:
            ValueError: If it is none.
        """
        if "/" in text:
            first, _, last = text.partition("/")
            return cls(cls.parse(first).start, cls.parse(last).end)
        if len(text) == 10:
            return cls.days(date.fromisoformat(text), 1)
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return cls(moment, moment)

    @classmethod
    def days(cls, first: date, days: int) -> Period:
        """Return a period of `count` whole days from `first`."""
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        return cls(start, start + days * _DAY)

    def __str__(self) -> str:
        midnight = self.start.time() == self.end.time() == datetime.min.time()
        if midnight and self.end > self.start:
            last = (self.end - _DAY).date()
            first = self.start.date()
            return str(first) if first == last else f"{first}/{last}"
        first_moment, last_moment = (
            t.replace(tzinfo=None).isoformat(timespec="seconds") for t in (self.start, self.end)
        )
        return first_moment if self.start == self.end else f"{first_moment}/{last_moment}"


_PARTS: Final = {
    "%Y": r"(?P<Y>\d{4})",
    "%m": r"(?P<m>\d{2})",
    "%d": r"(?P<d>\d{2})",
    "%j": r"(?P<j>\d{3})",
    "%H": r"(?P<H>\d{2})",
    "%M": r"(?P<M>\d{2})",
    "%S": r"(?P<S>\d{2})",
}
_COMPLETE: Final = ("Y", "Ym", "Ymd", "Yj", "YmdH", "YmdHM", "YmdHMS", "YjHMS")


class DatePattern:
    """Position of a date in a file name: text with %Y, %m, %d (or %j) and perhaps %H, %M, %S.

    Args:
        text: As in `%Y%m%d`, `_%Y_` for a year, `%Y-%m` for a month. Digits directly before or
            after it are not a match.

    Raises:
        ConfigError: If it holds no year, or another directive.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = re.split(r"(%.)", text)
        named = [part for part in parts if part in _PARTS]
        fields = "".join(sorted((p[1] for p in named), key="YjmdHMS".index))
        strange = [part for part in parts if part.startswith("%") and part not in _PARTS]
        if strange or fields not in _COMPLETE:
            raise ConfigError(
                "this is no pattern of a date",
                found=text,
                expected="%Y, perhaps with %m and %d, or %j, and %H%M%S",
                remedy="write it as the file names do, as in _%Y%m%d or _%Y_",
            )
        regex = "".join(_PARTS.get(part, re.escape(part)) for part in parts)
        before, after = r"(?<!\d)" * (not parts[0]), r"(?!\d)" * (not parts[-1])
        self._regex = re.compile(before + regex + after)

    def find(self, name: str) -> Period:
        """Return the period that a file name states.

        Raises:
            LabelError: If it states none, or several.
        """
        found = {period for match in self._regex.finditer(name) if (period := _period(match))}
        if len(found) != 1:
            raise LabelError(
                "the file name does not tell one date",
                found=", ".join(sorted(map(str, found))) or "none",
                expected=f"one match of {self.text}",
                where=name,
                remedy="write the pattern as the names do, with the characters around the date",
            )
        return found.pop()


def _period(match: re.Match[str]) -> Period | None:
    """Return the period of a match, or None if it is not a date, such as month 13."""
    part = {name: int(value) for name, value in match.groupdict().items()}
    try:
        if "j" in part:
            first = date(part["Y"], 1, 1) + timedelta(days=part["j"] - 1)
        else:
            first = date(part["Y"], part.get("m", 1), part.get("d", 1))
        if "H" in part:
            clock = (part["H"], part.get("M", 0), part.get("S", 0))
            moment = datetime(first.year, first.month, first.day, *clock, tzinfo=UTC)
            return Period(moment, moment)
    except ValueError:
        return None
    if "d" in part or "j" in part:
        days = 1
    elif "m" in part:
        days = monthrange(first.year, first.month)[1]
    else:
        days = (date(first.year + 1, 1, 1) - first).days
    return Period.days(first, days)


# ----------------------------------------------------------------------------------------- the maps

TIFS: Final = frozenset({".tif", ".tiff"})
_LISTS: Final = frozenset({".json", ".geojson"})
# Companion files of a map in products, by the last word of the file name.
_COMPANIONS: Final = frozenset(
    {
        *("inputquality", "quality", "qa", "mask", "msk", "cloudmask", "datamask", "nodata"),
        *("preview", "thumbnail", "thumb", "quicklook", "browse", "overview"),
        *("proba", "probability", "probabilities", "confidence", "uncertainty"),
    }
)
_SHOWN: Final = 5


@dataclass(frozen=True)
class MapFile:
    """One map.

    Args:
        file: Where it is.
        name: Name in the ids of its windows.
        crs: CRS of its pixels or polygons.
        bounds: Left, bottom, right, top of them all.
        grid: Pixels of a raster; None for polygons.
        period: Its date; None if unknown.
        folder: The folder it was found in; None where it was named itself.
        field: Field of the polygons that holds their class.
    """

    file: Path
    name: str
    crs: CRS
    bounds: Bounds
    grid: Grid | None = None
    period: Period | None = None
    folder: Path | None = None
    field: str | None = None

    @property
    def date(self) -> str:
        """Its date as text; empty if unknown."""
        return "" if self.period is None else str(self.period)

    def require_grid(self) -> Grid:
        """Return the pixels of a raster.

        Raises:
            ConfigError: If the map is polygons.
        """
        if self.grid is None:
            raise ConfigError(
                "polygons have no pixels of their own that could be labelled in windows",
                found=f"--window, and {self.file.name}",
                where=self.file,
                remedy="label images from them: --scenes STORE|FOLDER|FOOTPRINTS.parquet",
            )
        return self.grid


@dataclass(frozen=True)
class Catalogue:
    """Maps in order of precedence.

    Args:
        maps: The maps.
        left_out: Files of the folders that accompany maps.
    """

    maps: tuple[MapFile, ...]
    left_out: tuple[Path, ...] = ()

    def over(self, grid: Grid, name: str = "") -> list[MapFile]:
        """Return the maps whose bounding boxes share an area with an image's.

        Args:
            grid: The image.
            name: Its name: if a folder holds a map of this name, its other maps are not used.

        Raises:
            LabelError: If a folder holds several maps of the image's name over it.
        """
        found: list[int] = []
        for crs, (numbers, boxes) in self._extents.items():
            box = box_in(grid, crs)
            if box is not None:
                found += numbers[overlapping(box, crs, boxes)].tolist()
        maps = [self.maps[number] for number in sorted(found)]
        own = {entry.folder: entry for entry in _named(maps, name)}
        return [entry for entry in maps if own.get(entry.folder, entry) is entry]

    @cached_property
    def _extents(self) -> Mapping[CRS, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        numbers: dict[CRS, list[int]] = {}
        for number, entry in enumerate(self.maps):
            numbers.setdefault(entry.crs, []).append(number)
        return {
            crs: (np.array(own), np.array([self.maps[i].bounds for i in own]))
            for crs, own in numbers.items()
        }

    @property
    def stamp(self) -> list[list[str | int]]:
        """Identity of the file: path, size, modification time, and date."""
        stamps: list[list[str | int]] = []
        for entry in self.maps:
            state = entry.file.stat()
            stamps.append([entry.file.as_posix(), state.st_size, state.st_mtime_ns, entry.date])
        return stamps

    def notes(self) -> tuple[str, ...]:
        """Return notes on the listing for the user, in lines for the terminal."""
        if not self.left_out:
            return ()
        names = ", ".join(file.name for file in self.left_out[:_SHOWN])
        more = f", and {len(self.left_out) - _SHOWN} more" * (len(self.left_out) > _SHOWN)
        return (f"left out beside the maps: {names}{more}",)

    def check_dates(self, max_gap_days: float | None) -> None:
        """Refuse dates that are needed but missing, or present but not used.

        Args:
            max_gap_days: Maximum time between map and image; None if dates do not matter.

        Raises:
            ConfigError: If the maps are of several dates and none is to be preferred.
            LabelError: If a map has no date and needs one.
        """
        if max_gap_days is None:
            dated = {entry.date for entry in self.maps if entry.period is not None}
            if len(dated) > 1:
                raise ConfigError(
                    "the maps are of several dates; which one shall label a scene?",
                    found=", ".join(sorted(dated)[:_SHOWN]),
                    remedy="--max_gap_days 30 takes the nearest; or give maps of one date",
                )
            return
        undated = [entry.file.name for entry in self.maps if entry.period is None]
        if undated:
            raise LabelError(
                "a map has no date, and --max_gap_days needs one",
                found=f"{len(undated)} of {len(self.maps)} without: {', '.join(undated[:_SHOWN])}",
                remedy="--dates says where file names tell it, as in --dates _%Y%m%d; or give a "
                "list of STAC items",
            )


def _named(maps: Sequence[MapFile], name: str) -> list[MapFile]:
    """Return the map of an image's own name in each folder that has one."""
    stem = PurePosixPath(name).name
    same: dict[Path, list[MapFile]] = {}
    for entry in maps:
        if entry.folder is not None and PurePosixPath(entry.name).name == stem:
            same.setdefault(entry.folder, []).append(entry)
    chosen = []
    for folder, entries in same.items():
        exact = [entry for entry in entries if entry.name == name]
        if len(exact or entries) > 1:
            raise LabelError(
                "several land-cover maps have the image's name",
                found=", ".join(str(entry.file.relative_to(folder)) for entry in entries),
                where=name,
                remedy="give maps and images the same folders and names",
            )
        chosen += exact or entries
    return chosen


# ---------------------------------------------------------------------------------- choosing


class _Reader(Protocol):
    """A map on the grid of an image."""

    def read(self, window: Window, scheme: Scheme) -> ClassMap:
        """Return the class codes of a window of the image."""


@dataclass(frozen=True)
class LandCover:
    """Maps with the meaning of their codes, from which images are labelled.

    Args:
        maps: The maps.
        scheme: Meaning of their codes.
        max_gap_days: Maximum time between map and image; None if dates do not matter.
    """

    maps: Catalogue
    scheme: Scheme
    max_gap_days: float | None = None

    @contextmanager
    def on(self, grid: Grid, name: str = "", date: str = "") -> Iterator[MapsOnGrid]:
        """Open the maps of an image.

        Args:
            grid: The image.
            name: Its name.
            date: When it was taken, in ISO 8601; empty where unknown.

        Raises:
            LabelError: If a map cannot be used.
            RasterError: If the image has no CRS, or a map cannot be read.
        """
        chosen, reason = self._choose(grid, name, date)
        with ExitStack() as stack:
            readers: list[_Reader] = []
            for entry in chosen:
                if entry.grid is None:
                    readers.append(PolygonReader(read_layer(entry.file, entry.field), grid))
                else:
                    dataset = stack.enter_context(opened(entry.file))
                    readers.append(MapReader(dataset, grid, stack))
            yield MapsOnGrid(chosen, readers, self.scheme, reason)

    def _choose(self, grid: Grid, name: str, date: str) -> tuple[list[MapFile], Reason]:
        """Return the maps of an image in order of precedence, or why there are none."""
        grid.require_crs()
        over = self.maps.over(grid, name)
        if not over:
            return [], Reason.NO_MAP
        if self.max_gap_days is None:
            return over, Reason.KNOWN
        if not date:
            return [], Reason.NO_DATE
        taken = Period.parse(date)
        gaps = [(entry.period.gap_days(taken), n) for n, entry in enumerate(over) if entry.period]
        near = [over[n] for gap, n in sorted(gaps) if gap <= self.max_gap_days]
        return near, Reason.KNOWN if near else Reason.NOT_IN_TIME


@dataclass
class MapsOnGrid:
    """Open maps on the grid of an image.

    Args:
        maps: The maps, in order of precedence.
        readers: A reader for each.
        scheme: Meaning of their codes.
        reason: Why there are no maps; `KNOWN` if there are.
        ignored: Codes that the scheme ignores -> counted pixels that had them.
    """

    maps: Sequence[MapFile]
    readers: Sequence[_Reader]
    scheme: Scheme
    reason: Reason
    ignored: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._gave = [False] * len(self.maps)

    @property
    def used(self) -> list[MapFile]:
        """The maps that gave a code to a pixel that was read."""
        return [entry for entry, gave in zip(self.maps, self._gave, strict=True) if gave]

    def read(self, window: Window) -> ClassMap:
        """Return the code of the first map that has one, pixel by pixel, int32 (h, w).

        Pixels outside all maps, or declared nodata, have the first nodata code of the scheme.

        Raises:
            LabelError: If a map declares a class nodata, or its values are not whole numbers.
            RasterError: If a map is damaged.
        """
        codes = np.full((window.height, window.width), self.scheme.nodata[0], np.int32)
        for number, reader in enumerate(self.readers):
            if number and not np.isin(codes, self.scheme.nodata).any():
                break
            self._gave[number] |= fill(codes, reader.read(window, self.scheme), self.scheme)
        return codes

    def count(self, window: Window, seen: Seen | None, where: object) -> NDArray[np.int64]:
        """Return the seen pixels of each class, of nodata and of cloud, (K + 2,).

        Args:
            window: Of the image.
            seen: Pixels of it that are measured, (h, w); None counts all.
            where: Image and window, for the message of an error.

        Raises:
            LabelError: If seen pixels have codes that the scheme does not know; as `read`.
        """
        codes = self.read(window)
        counts = count_codes(codes, self.scheme, seen)
        if counts.sum() != (codes.size if seen is None else np.count_nonzero(seen)):
            strange = strange_codes(codes, self.scheme, seen)
            if not self.scheme.ignore_unknown:
                raise unknown_codes(strange, self.scheme, where)
            for code, pixels in strange.items():
                self.ignored[code] = self.ignored.get(code, 0) + pixels
        return counts

    def cover(self, window: Window, seen: Seen, where: object) -> Cover:
        """Return how much of the seen ground of a window each class covers: see `count`."""
        return Cover.of(self.count(window, seen, where), int(np.count_nonzero(seen)))


# ------------------------------------------------------------------------------------ listing


@dataclass(frozen=True)
class _ListedMap:
    """A map whose header has not been read."""

    file: Path
    name: str
    period: Period | None = None
    folder: Path | None = None


def find_maps(
    paths: Sequence[str],
    dates: DatePattern | None = None,
    asset: str | None = None,
    field: str | None = None,
) -> Catalogue:
    """Find maps and read their headers.

    Args:
        paths: Rasters, folders of GeoTIFFs, STAC item lists, or files of polygons.
        dates: Position of the date in file names; None if they have none.
        asset: Which asset of a STAC item is the map.
        field: Field of the polygons that holds their class.

    Raises:
        ConfigError: If there are polygons and no field.
        LabelError: If there is no map, one has no georeference, or its name states no date.
        RasterError: If a map cannot be read, or a list holds no STAC items.
    """
    listed: list[_ListedMap] = []
    # a shell may have named what accompanies the maps too: DIR/*.tif
    _, left_out = _split_companions([Path(path) for path in paths])
    for path in map(Path, paths):
        if path in left_out:
            continue
        if path.is_dir():
            files, companions = _split_companions(walk_files(path, TIFS))
            if not files:
                raise LabelError("the folder holds no land-cover maps", found="no .tif", where=path)
            left_out += companions
            listed += [
                _ListedMap(f, f.relative_to(path).with_suffix("").as_posix(), folder=path)
                for f in files
            ]
        elif not of_layer(path)[0].exists():
            raise LabelError("there is no such land-cover map", where=path)
        elif path.suffix.lower() in _LISTS and not (path.suffix == ".geojson" and field):
            listed += _stac_maps(path, asset)
        else:
            listed.append(_ListedMap(path, path.stem))
    maps = [_described(entry, dates, field) for entry in track(listed, "reading map headers")]
    return Catalogue(tuple(_distinct(maps)), tuple(left_out))


def _described(listed: _ListedMap, dates: DatePattern | None, field: str | None) -> MapFile:
    """Read the header of a map."""
    file, period = listed.file, listed.period
    if period is None and dates is not None:
        period = dates.find(file.name)
    if of_layer(file)[0].suffix.lower() in VECTORS:
        layer = read_layer(file, field)
        return MapFile(file, listed.name, layer.crs, layer.bounds, None, period, None, field)
    with opened(file) as dataset:
        grid = grid_of(dataset)
    return MapFile(file, listed.name, grid.require_crs(), grid.bounds, grid, period, listed.folder)


def _distinct(maps: Sequence[MapFile]) -> list[MapFile]:
    """Number maps of one name, so that the ids of their windows differ."""
    seen: dict[str, int] = {}
    out = []
    for entry in maps:
        seen[entry.name] = seen.get(entry.name, 0) + 1
        again = seen[entry.name] > 1
        out.append(replace(entry, name=f"{entry.name}~{seen[entry.name]}") if again else entry)
    return out


def _split_companions(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Separate maps from their companion files, by the last word of the file name.

    A companion shares the rest of its name with a map in the same folder: `A_InputQuality.tif` with
    `A_Map.tif` or `A.tif`. A file without such a map is taken as a map.
    """
    parts = {file: _parts(file.stem) for file in files}
    mains = {
        (file.parent, text)
        for file, (beginning, last) in parts.items()
        if last.lower() not in _COMPANIONS
        for text in (beginning, file.stem)
    }
    beside = {
        file
        for file, (beginning, last) in parts.items()
        if last.lower() in _COMPANIONS and (file.parent, beginning) in mains
    }
    return [f for f in files if f not in beside], [f for f in files if f in beside]


def _parts(stem: str) -> tuple[str, str]:
    """Return a file's name without its last word, and that word."""
    at = max(stem.rfind(sign) for sign in "_-.")
    return (stem[:at], stem[at + 1 :]) if at > 0 else ("", stem)


# ------------------------------------------------------------------------------------- STAC


def _stac_maps(file: Path, asset: str | None) -> list[_ListedMap]:
    """List the maps of STAC items (`eofm.raster.stac.read_items`)."""
    try:
        items = read_items(file)
    except RasterError as error:
        if file.suffix.lower() == ".geojson":
            error.remedy = "of polygons, name the field that holds their class: --field NAME"
        raise
    return [_stac_map(item, asset, file) for item in items]


def _stac_map(item: Mapping[str, Any], asset: str | None, file: Path) -> _ListedMap:
    assets: Mapping[str, Mapping[str, Any]] = {
        key: value
        for key, value in item["assets"].items()
        if isinstance(value, dict) and isinstance(value.get("href"), str)
    }
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
    return _ListedMap(
        _local(assets[chosen[0]]["href"], file, where), item["id"], _period_of(item, where)
    )


def _period_of(item: Mapping[str, Any], where: str) -> Period | None:
    """Return the date of an item; None if it has none."""
    properties = item.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    moment = properties.get("datetime")
    if moment is None and properties.get("start_datetime"):
        moment = f"{properties['start_datetime']}/{properties.get('end_datetime')}"
    if moment is None:
        return None
    try:
        return Period.parse(str(moment))
    except ValueError as error:
        raise LabelError(
            "the date of a STAC item cannot be read",
            found=moment,
            expected="ISO 8601, as in 2021-06-01T10:00:00Z",
            where=where,
        ) from error


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type") or "")
    suffix = Path(urlparse(asset["href"]).path).suffix.lower()
    raster = kind.startswith("image/tiff") if kind else suffix in {*TIFS, ".vrt"}
    return raster and not roles_of(asset) & {"thumbnail", "overview"}


def _local(href: str, file: Path, where: str) -> Path:
    if "\0" in href:
        raise LabelError("the asset has no path", found=repr(href)[:200], where=where)
    if gdal_name(href):
        raise LabelError(
            "the asset is not on this machine",
            found=href,
            expected="a local path, absolute or relative to the list",
            where=where,
            remedy="download the maps, and let the list point to the files",
        )
    return local_path(href, file.parent)
