"""The windows or scenes to be labelled, divided into jobs that can run in any process.

WindowJob   a rectangle of windows of one map's own grid, read piece by piece
SceneJob    some scenes, each on its own grid

Scenes are the images of a packed store, GeoTIFFs of a folder, or footprints. A store holds the grid
and the mask of every image. For a folder they are read from the files, by the rule of
`eofm.contract.validity`. A footprint has no image; all of it is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.warp import transform as warp_points

from eofm.contract.spec import Unit
from eofm.errors import ConfigError, LabelError, RasterError
from eofm.formats.arrays import map_npy
from eofm.formats.foreign import foreign
from eofm.formats.parquet import read_schema, read_table
from eofm.landcover.maps import Catalogue, DatePattern, LandCover, MapFile, Period
from eofm.landcover.multilabel import (
    ClassMap,
    GridCounter,
    Reason,
    Seen,
    choose_kernel,
    strange_codes,
    unknown_codes,
)
from eofm.landcover.multilabel import Seen as Mask
from eofm.landcover.table import PresenceRule, Rows, TableBatch
from eofm.landcover.warp import (
    CACHE_BYTES,
    Pieces,
    SymbolReader,
    columns_per_strip,
    opened,
    piece_shape,
    to_degrees,
)
from eofm.raster.folder import find_files, group_files, image_name
from eofm.raster.geotiff import date_of, grid_of, header_of, open_geotiff, read_stored
from eofm.raster.grid import Grid, Window, name_file, read_crs
from eofm.raster.tags import declares_measured, is_beside
from eofm.store.format import PAIRS, SPEC, VALID
from eofm.terminal import track

if TYPE_CHECKING:
    from eofm.store.reader import Store

__all__ = [
    "THREADS",
    "UTM",
    "FileMask",
    "LabelJob",
    "LabelScene",
    "MeasuredPixels",
    "SceneJob",
    "SceneOptions",
    "StoredMask",
    "WindowJob",
    "find_scenes",
    "run_job",
    "scene_jobs",
    "window_jobs",
]


# ----------------------------------------------------------------------------------- pieces of work

# A scene is read in pieces of at most so many pixels: their codes are held as int32.
_SCENE_PIXELS: Final = 4 * 1024**2
# Threads of a process, each with its own file handle.
THREADS: Final = 2


class LabelJob(Protocol):
    """A piece of work."""

    @property
    def size(self) -> int:
        """How many windows or scenes."""

    def run(self) -> TableBatch:
        """Count them."""


def run_job(job: LabelJob) -> TableBatch:
    """Run a job, in this or another process.

    Raises:
        LabelError: If a map holds codes that the scheme does not know.
        RasterError: If a map cannot be read.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        return job.run()


# ----------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class WindowJob:
    """A rectangle of windows of a map.

    Args:
        map: The map.
        tops: First lines of the windows.
        lefts: First columns of the windows.
        window: Side of the windows.
        rule: How counts become labels.
        pixels: Approximate number in the whole run: loading the compiled loop pays off for many.
    """

    map: MapFile
    tops: range
    lefts: range
    window: int
    rule: PresenceRule
    pixels: int = 0

    @property
    def size(self) -> int:
        """How many windows."""
        return len(self.tops) * len(self.lefts)

    def run(self) -> TableBatch:
        """Count the windows."""
        rows = Rows()
        with ExitStack() as stack:
            readers = self._readers(stack)
            counts = self._count(readers, rows)
            for top, line in zip(self.tops, counts, strict=True):
                self._check(line, top, readers[0], rows)
        rows.counts = [counts.reshape(len(rows.ids), -1)]
        self._name_sources(rows)
        return rows.finish(self.rule)

    def _readers(self, stack: ExitStack) -> list[SymbolReader]:
        """Open the map once for each thread."""
        datasets = [stack.enter_context(opened(self.map.file)) for _ in range(THREADS)]
        return [SymbolReader(dataset, self.rule.scheme) for dataset in datasets]

    def _count(self, readers: Sequence[SymbolReader], rows: Rows) -> NDArray[np.int64]:
        """Count the windows in as many threads as there are readers, and add their locations.

        A thread counts a piece right after reading it, while the piece is in the cache of its core.

        Returns:
            Pixels of each class, of nodata and of cloud, (T, L, K + 2).
        """
        tops, lefts, side = self.tops, self.lefts, self.window
        area = Window(tops[0], lefts[0], tops[-1] + side - tops[0], lefts[-1] + side - lefts[0])
        shape = piece_shape(readers[0].dataset)
        pieces = Pieces(area, *shape, len(readers))
        kernel = choose_kernel(self.pixels)
        counters = [GridCounter(tops, lefts, side, r.legend, kernel) for r in readers]

        def work(thread: int) -> None:
            scratch = np.empty(shape[0] * shape[1], np.uint8)
            try:
                for piece in pieces.of(thread):
                    size = piece.height, piece.width
                    symbols = scratch[: size[0] * size[1]].reshape(size)
                    readers[thread].read(piece, symbols)
                    counters[thread].add(piece.row, piece.col, symbols)
            except BaseException:
                pieces.drop()
                raise

        with ThreadPoolExecutor(len(readers)) as pool:
            others = [pool.submit(work, thread) for thread in range(1, len(readers))]
            self._describe(rows)
            work(0)
        for other, counter in zip(others, counters[1:], strict=True):
            other.result()
            counters[0].include(counter)
        return counters[0].counts()

    def _check(self, counts: NDArray[np.int64], top: int, reader: SymbolReader, rows: Rows) -> None:
        """Refuse, or tally, pixels of codes that the scheme does not know."""
        pixels = self.window * self.window
        for number in np.flatnonzero(counts.sum(axis=1) != pixels).tolist():
            window = Window(top, self.lefts[number], self.window, self.window)
            where = f"{self.map.file}, window {window.row}, {window.col}"
            _judge(reader.codes(window), self.rule, where, rows)

    def _describe(self, rows: Rows) -> None:
        """Add the locations of the windows."""
        crs, transform, side = self.map.crs, self.map.require_grid().transform, self.window
        rows.ids = [f"{self.map.name}_{top}_{left}" for top in self.tops for left in self.lefts]
        top, left = (e.ravel() for e in np.meshgrid(self.tops, self.lefts, indexing="ij"))
        xs, ys = (v.tolist() for v in _points(transform, left + side / 2, top + side / 2))
        centres = np.array(to_degrees(crs, xs, ys, self.map.file))
        rows.centres = [centres.round(7).T]
        corners = [_points(transform, left + x, top + y) for x in (0, side) for y in (0, side)]
        xs, ys = (np.stack(axis) for axis in zip(*corners, strict=True))
        rows.boxes = [np.stack([xs.min(0), ys.min(0), xs.max(0), ys.max(0)], axis=1)]
        n = len(rows.ids)
        rows.crs, rows.dates = [crs.to_string()] * n, [""] * n
        rows.sizes, rows.reasons = [self.window**2] * n, [Reason.KNOWN] * n

    def _name_sources(self, rows: Rows) -> None:
        """Name the map as the source of the windows that it gave pixels."""
        k = len(self.rule.scheme.names)
        counts = np.concatenate(rows.counts)
        gave = (counts[:, :k].any(axis=1) | (counts[:, k + 1] > 0)).tolist()
        nothing: list[str] = []
        file, date = [self.map.file.as_posix()], [self.map.date]
        rows.sources = [file if given else nothing for given in gave]
        rows.map_dates = [date if given else nothing for given in gave]


def window_jobs(
    maps: Catalogue, window: int, stride: int, rule: PresenceRule, batch: int
) -> list[WindowJob]:
    """Cut all windows of all maps into jobs, in the order of the table.

    A wide map is divided into panels, so that a strip of it is small.

    Args:
        maps: The maps.
        window: Side of the windows.
        stride: Step from window to window.
        rule: How counts become labels.
        batch: Approximate number of windows of a job.
    """
    jobs = []
    grids = [entry.require_grid() for entry in maps.maps]
    pixels = sum(grid.height * grid.width for grid in grids)
    for entry, grid in zip(maps.maps, grids, strict=True):
        lefts = range(0, grid.width - window + 1, stride)
        tops = range(0, grid.height - window + 1, stride)
        with opened(entry.file) as dataset:
            columns = max((columns_per_strip(dataset) - window) // stride + 1, 1)
        for first in range(0, len(lefts), columns):
            panel = lefts[first : first + columns]
            step = max(batch // len(panel), 1)
            jobs += [
                WindowJob(entry, tops[t : t + step], panel, window, rule, pixels)
                for t in range(0, len(tops), step)
            ]
    return jobs


# ------------------------------------------------------------------------------------ scenes


class MeasuredPixels(Protocol):
    """Valid pixels of the image of a scene. Instances are sent to other processes."""

    def read(self, window: Window) -> Mask:
        """Return the mask of a window of the scene, (h, w)."""


@dataclass(frozen=True)
class LabelScene:
    """An image to be labelled.

    Args:
        id: Unique in the table.
        grid: Its pixels.
        date: When it was taken, in ISO 8601; empty where unknown.
        name: Name of the image it was cut from: a map in a folder may have it.
        seen: Its valid pixels; None counts all of them.
    """

    id: str
    grid: Grid
    date: str = ""
    name: str = ""
    seen: MeasuredPixels | None = None


@dataclass(frozen=True)
class SceneJob:
    """Some scenes.

    Args:
        scenes: The scenes.
        cover: All maps.
        rule: How counts become labels.
    """

    scenes: Sequence[LabelScene]
    cover: LandCover
    rule: PresenceRule

    @property
    def size(self) -> int:
        """How many scenes."""
        return len(self.scenes)

    def run(self) -> TableBatch:
        """Count the scenes."""
        rows = Rows()
        rows.centres = [_centres(self.scenes)]
        for scene in self.scenes:
            self._add(scene, rows)
        return rows.finish(self.rule)

    def _add(self, scene: LabelScene, rows: Rows) -> None:
        grid = scene.grid
        counts, size = np.zeros(len(self.rule.scheme.names) + 2, np.int64), 0
        with self.cover.on(grid, scene.name, scene.date) as view:
            for window in _pieces(grid):
                seen = None if scene.seen is None else scene.seen.read(window)
                size += window.height * window.width if seen is None else int(seen.sum())
                if view.readers:
                    counts += view.count(window, seen, f"scene {scene.id}")
            rows.ignore(view.ignored)
            taken = view.used
            reason = view.reason if size or view.reason else Reason.UNSEEN
        rows.ids.append(scene.id)
        rows.boxes.append(np.array([grid.bounds]))
        rows.crs.append(grid.require_crs().to_string())
        rows.dates.append(scene.date)
        rows.counts.append(counts[None])
        rows.sizes.append(size)
        rows.reasons.append(reason)
        rows.sources.append([entry.file.as_posix() for entry in taken])
        rows.map_dates.append([entry.date for entry in taken])


def scene_jobs(
    scenes: Sequence[LabelScene], cover: LandCover, rule: PresenceRule, batch: int
) -> list[SceneJob]:
    """Cut scenes into jobs, in the order of the table."""
    return [SceneJob(scenes[i : i + batch], cover, rule) for i in range(0, len(scenes), batch)]


def _pieces(grid: Grid) -> Iterator[Window]:
    """Cut a scene into windows of whole lines, small enough to hold."""
    lines = max(_SCENE_PIXELS // grid.width, 1)
    for top in range(0, grid.height, lines):
        yield Window(top, 0, min(lines, grid.height - top), grid.width)


# ------------------------------------------------------------------------------------- both


def _judge(codes: ClassMap, rule: PresenceRule, where: str, rows: Rows) -> None:
    strange = strange_codes(codes, rule.scheme)
    if not rule.scheme.ignore_unknown:
        raise unknown_codes(strange, rule.scheme, where)
    rows.ignore(strange)


def _centres(scenes: Sequence[LabelScene]) -> NDArray[np.float64]:
    """Return longitude and latitude of each centre (N, 2), one CRS after the other."""
    of_crs: dict[CRS, list[int]] = {}
    for number, scene in enumerate(scenes):
        of_crs.setdefault(scene.grid.require_crs(), []).append(number)
    degrees = np.empty((len(scenes), 2))
    for crs, numbers in of_crs.items():
        grids = [scenes[n].grid for n in numbers]
        xs, ys = zip(*(grid.point(grid.width / 2, grid.height / 2) for grid in grids), strict=True)
        for axis, values in enumerate(to_degrees(crs, xs, ys, f"scene {scenes[numbers[0]].id}")):
            degrees[numbers, axis] = [round(value, 7) for value in values]  # as Grid.centre
    return degrees


def _points(
    transform: Affine, cols: NDArray[np.floating], rows: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the coordinates of places given in pixels."""
    return (
        transform.a * cols + transform.b * rows + transform.c,
        transform.d * cols + transform.e * rows + transform.f,
    )


# ----------------------------------------------------------------------------------- finding scenes

UTM: Final = "utm"
_METRES_PER_DEGREE: Final = 111_320.0
_FOOTPRINT: Final = ("id", "minx", "miny", "maxx", "maxy", "crs")
_SHOWN: Final = 5


@dataclass(frozen=True)
class SceneOptions:
    """Options for scenes without this metadata.

    Args:
        gsd: Metres per pixel of the grid laid over a footprint.
        crs: CRS of images of a packed store that holds only their centres; `utm` is the UTM zone of
            each centre.
        dates: Position of the date in file names; None reads the tags of the files.
    """

    gsd: float = 10.0
    crs: str | None = None
    dates: DatePattern | None = None


def find_scenes(path: str | Path, options: SceneOptions) -> list[LabelScene]:
    """Find scenes.

    Args:
        path: A packed store, a folder of GeoTIFFs, or a .parquet of footprints.
        options: For scenes without this metadata.

    Raises:
        LabelError: If there are no scenes, two have the same id, or a footprint or date is invalid.
        RasterError: If a GeoTIFF cannot be read or has no georeference.
        ConfigError: If a CRS is stated for a store that holds the grids.
        StoreError: If the store is damaged, or has no georeference of its images.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        scenes = _of_table(path, options.gsd)
    elif (path / SPEC).is_file() or (path / PAIRS).is_file():
        scenes = _of_store(path, options.crs)
    elif path.is_dir():
        scenes = _of_folder(path, options.dates)
    else:
        raise LabelError(
            "there are no such scenes",
            expected="a packed store, a folder of GeoTIFFs, or a .parquet of footprints",
            where=path,
        )
    _check(scenes, path)
    return scenes


def _check(scenes: Sequence[LabelScene], path: Path) -> None:
    if not scenes:
        raise LabelError("there are no scenes to label", found="none", where=path)
    counted = Counter(scene.id for scene in scenes)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise LabelError(
            "scenes share an id",
            found=_some(twice),
            expected="one scene per id",
            where=path,
            remedy="make the ids unique: labels are joined by them",
        )
    for scene in scenes:
        if scene.date:
            try:
                Period.parse(scene.date)
            except ValueError as error:
                raise LabelError(
                    "a scene has a date that is none",
                    found=scene.date,
                    expected="YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS",
                    where=f"{path}, scene {scene.id}",
                ) from error


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# ------------------------------------------------------------------------------------ footprints


def _of_table(file: Path, gsd: float) -> list[LabelScene]:
    table = _read_footprints(file)
    crs_of: dict[str, CRS] = {}
    scenes, bad = [], []
    for row in table.to_pylist():
        name = str(row["id"])
        box = [row[key] for key in _FOOTPRINT[1:5]]
        if None in box or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
            bad.append(name)
            continue
        text = str(row["crs"])
        if text not in crs_of:
            crs_of[text] = _crs(text, f"{file}, {name}")
        scenes.append(LabelScene(name, _over(box, crs_of[text], gsd), _text(row.get("date"))))
    if bad:
        raise LabelError(
            "footprints that are no rectangles",
            found=f"{len(bad)} of {table.num_rows}: {_some(bad)}",
            expected="finite minx < maxx and miny < maxy",
            where=file,
        )
    return scenes


def _read_footprints(file: Path) -> pa.Table:
    if not file.is_file():
        raise LabelError("there is no such table of footprints", where=file)
    with foreign(LabelError, "the table cannot be read", where=file):
        have = read_schema(file).names
        missing = [name for name in _FOOTPRINT if name not in have]
        if missing:
            raise LabelError(
                "the table of footprints lacks columns",
                found=", ".join(have),
                expected=", ".join(_FOOTPRINT),
                where=file,
            )
        table = read_table(file, [*_FOOTPRINT, *(["date"] if "date" in have else [])])
        for name in _FOOTPRINT[1:5]:
            if not pa.types.is_floating(table[name].type) and not pa.types.is_integer(
                table[name].type
            ):
                raise TypeError(f"{name} holds {table[name].type}, no numbers")
        return table


def _over(box: Sequence[float], crs: CRS, gsd: float) -> Grid:
    """Lay a grid of whole pixels over a box, as close to the ground sample distance as it can."""
    step = _in_units(crs, gsd)
    width, height = (max(round((box[i + 2] - box[i]) / step), 1) for i in (0, 1))
    x, y = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    return Grid(crs, Affine(x, 0, box[0], 0, -y, box[3]), height, width)


def _in_units(crs: CRS, metres: float) -> float:
    if crs.is_geographic:
        return metres / _METRES_PER_DEGREE
    return metres / float(crs.linear_units_factor[1])


def _crs(text: str, where: str) -> CRS:
    try:
        return read_crs(text)
    except RasterError as error:
        raise LabelError(
            error.problem, found=error.found, expected=error.expected, where=where
        ) from error


def _text(date: Any) -> str:  # noqa: ANN401 (text, a date, a moment or nothing)
    if date is None:
        return ""
    return date if isinstance(date, str) else str(date.isoformat())


# ---------------------------------------------------------------------------------------- store


def _of_store(path: Path, crs: str | None) -> list[LabelScene]:
    """Return the images of a store on the grids that it holds, or on those that are stated."""
    from eofm.store.grids import known_grids, unknown_grid
    from eofm.store.reader import Store  # brings torch, which nothing else here needs

    store = Store(path)
    grids = known_grids(store)
    ids: list[str] = store.table["id"].to_pylist()
    unknown = [name for name, grid in zip(ids, grids, strict=True) if grid is None]
    if crs is None and unknown:
        error = unknown_grid(store, unknown)
        error.remedy = f"{error.remedy}; or state their CRS, as in --scene_crs EPSG:4326 or utm"
        raise error
    if crs is not None and not unknown:
        raise ConfigError(
            "the store keeps where its images lie",
            found=f"--scene_crs {crs}",
            where=path,
            remedy="leave --scene_crs out",
        )
    own = None if crs in {None, UTM} else _crs(str(crs), "scene_crs")
    height, width = store.card.size
    columns = [store.table[key].to_pylist() for key in ("longitude", "latitude", "date", "source")]
    masks = _stored_masks(store)
    scenes = []
    for name, known, mask, x, y, date, source in zip(ids, grids, masks, *columns, strict=True):
        grid = known or _around((x, y), own, store.spec.gsd, height, width)
        scenes.append(LabelScene(name, grid, date, source, mask))
    return scenes


@dataclass(frozen=True)
class StoredMask:
    """The mask of one image of a store.

    Args:
        file: The masks of its shard.
        row: Its row in the shard.
        size: Height and width of the image.
    """

    file: Path
    row: int
    size: tuple[int, int]

    def read(self, window: Window) -> Seen:
        """Return which pixels of a window are measured, (h, w)."""
        height, width = self.size
        packed = _masks(self.file, self.file.stat().st_mtime_ns)[self.row]
        bits = np.unpackbits(packed, count=height * width).view(np.bool_)
        return bits.reshape(height, width)[window.slices]


@lru_cache(maxsize=64)
def _masks(file: Path, changed: int) -> NDArray[np.uint8]:  # a store may be packed again
    with foreign(LabelError, "the masks of a store cannot be read", where=file):
        return map_npy(file)


def _stored_masks(store: Store) -> list[StoredMask]:
    files = [store.piece(shard, VALID).resolve() for shard in range(store.shards)]
    places = store.places(range(len(store)))
    return [StoredMask(files[shard], row, store.card.size) for shard, row in places]


def _around(
    centre: tuple[float, float], crs: CRS | None, gsd: float, height: int, width: int
) -> Grid:
    longitude, latitude = centre
    if crs is None:
        zone = min(int((longitude + 180) // 6) + 1, 60)
        crs = _of_code((32600 if latitude >= 0 else 32700) + zone)
    (x,), (y,) = warp_points(_of_code(4326), crs, [longitude], [latitude])
    step = _in_units(crs, gsd)
    left, top = x - width / 2 * step, y + height / 2 * step
    return Grid(crs, Affine(step, 0, left, 0, -step, top), height, width)


@lru_cache(maxsize=128)
def _of_code(epsg: int) -> CRS:
    return CRS.from_epsg(epsg)


# --------------------------------------------------------------------------------------- folder


def _of_folder(root: Path, dates: DatePattern | None) -> list[LabelScene]:
    """Take one scene per multi-band file, and one per set of files named after bands."""
    sets, single = group_files(find_files(root))
    named = {
        image_name(root, image.folder, image.beginning): tuple(image.files.values())
        for image in sets
    }
    named |= {file.relative_to(root).with_suffix("").as_posix(): (file,) for file in single}
    scenes = []
    for name, members in track(sorted(named.items()), "reading footprints"):
        finest, date = _finest(members)
        if dates is not None:
            date = str(dates.find(name)).partition("/")[0]
        scenes.append(LabelScene(name, finest, date, name, FileMask(members, finest)))
    return scenes


def _finest(files: Sequence[Path]) -> tuple[Grid, str]:
    grids = []
    for file in files:
        with open_geotiff(file) as dataset:
            grid = grid_of(dataset)
            try:
                grid.require_crs()
            except RasterError as error:
                name_file(error, file)
                raise
            grids.append((grid, date_of(dataset)))
    return max(grids, key=lambda found: found[0].height * found[0].width)


def _bands_of(dataset: DatasetReader) -> tuple[list[int], list[int]]:
    """Return the bands that measure, and those that are 0 where nothing was measured.

    `dataMask` is such a one, as alpha is; `QA60` and the angle of radar measure nothing, and are
    not 0 in a margin.
    """
    header = header_of(dataset)
    names = dict(enumerate(header.descriptions, 1))
    masks = {*header.alphas, *(i for i, name in names.items() if declares_measured(name))}
    bands = [i for i in names if i not in masks]
    measuring = [i for i in bands if not is_beside(names[i])]
    return measuring or bands, sorted(masks)


@dataclass(frozen=True)
class FileMask:
    """The mask of an image whose bands are in one file or in several.

    Args:
        files: The bands.
        grid: Grid of the finest.
    """

    files: tuple[Path, ...]
    grid: Grid

    def read(self, window: Window) -> Seen:
        """Return which pixels of a window are measured, (h, w): `eofm.contract.validity.measured`.

        The unit of the files is not stated here. What is 0 in all bands was not measured in any
        unit but 8-bit colour.

        Raises:
            RasterError: If a file is damaged.
            PixelError: If a value that no measurement takes is not declared to be nodata.
        """
        import torch  # heavy, and a store's masks need none of it

        from eofm.contract.validity import check_of_any_unit, coarse_mask, measured

        with ExitStack() as stack:
            opened = [stack.enter_context(open_geotiff(file)) for file in self.files]
            ratios = [self.grid.height // dataset.height for dataset in opened]
            outer = self._around(window, max(ratios))
            planes: dict[int, list[NDArray[Any]]] = {}
            declared: dict[int, list[NDArray[np.bool_]]] = {}
            for dataset, r in zip(opened, ratios, strict=True):
                place = Window(outer.row // r, outer.col // r, outer.height // r, outer.width // r)
                bands, masks = _bands_of(dataset)
                values, flags = read_stored(dataset, bands, place, masks)
                planes.setdefault(r, []).append(values)
                declared.setdefault(r, []).append(
                    np.zeros(values.shape, np.bool_) if flags is None else flags
                )
            colour = all(dtype == "uint8" for dataset in opened for dtype in dataset.dtypes)
        mask = measured(
            {r: torch.from_numpy(np.concatenate(p))[None] for r, p in planes.items()},
            {r: torch.from_numpy(np.concatenate(d))[None] for r, d in declared.items()},
            {r: ("",) * sum(len(values) for values in p) for r, p in planes.items()},
            Unit.UINT8 if colour else Unit.DN,
            (outer.height, outer.width),
        )
        name = ", ".join(file.name for file in self.files[:1])
        for r, parts in planes.items():
            size = (outer.height // r, outer.width // r)
            coarse = coarse_mask(mask, size)[0]
            check_of_any_unit(torch.from_numpy(np.concatenate(parts)), coarse, name)
        row, col = window.row - outer.row, window.col - outer.col
        return np.asarray(mask[0, row : row + window.height, col : col + window.width].numpy())

    def _around(self, window: Window, step: int) -> Window:
        """Return whole coarse pixels around a window, and one more: upsampling draws from them."""
        top = max(window.row // step - 1, 0) * step
        left = max(window.col // step - 1, 0) * step
        bottom = min((-(-(window.row + window.height) // step) + 1) * step, self.grid.height)
        right = min((-(-(window.col + window.width) // step) + 1) * step, self.grid.width)
        return Window(top, left, bottom - top, right - left)
