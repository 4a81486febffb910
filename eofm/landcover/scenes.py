"""What is to be labelled: the images of a packed store, GeoTIFFs of a folder, or footprints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform as warp_points

from eofm.contract.sensors import canonical_band
from eofm.errors import LabelError, SpecError
from eofm.landcover.dates import DatePattern, Period
from eofm.landcover.jobs import Scene
from eofm.progress import track
from eofm.raster.geotiff import date_of, grid_of, open_geotiff
from eofm.raster.grid import Grid
from eofm.store.format import PAIRS, SPEC

_METRES_PER_DEGREE: Final = 111_320.0
_FOOTPRINT: Final = ("id", "minx", "miny", "maxx", "maxy", "crs")
_SHOWN: Final = 5


@dataclass(frozen=True)
class SceneOptions:
    """What scenes do not say themselves.

    Args:
        gsd: Metres per pixel of the grid laid over a footprint.
        crs: Of a packed store's images; None takes the UTM zone of each centre.
        dates: Where the names of files tell the date; None reads their tags.
    """

    gsd: float = 10.0
    crs: str | None = None
    dates: DatePattern | None = None


def find_scenes(path: str | Path, options: SceneOptions) -> list[Scene]:
    """Find scenes.

    Args:
        path: A packed store, a folder of GeoTIFFs, or a .parquet of footprints.
        options: What they do not say themselves.

    Raises:
        LabelError: If there are none, two have one id, or a footprint or date is none.
        RasterError: If a GeoTIFF cannot be read or lies nowhere.
        StoreError: If the store is damaged.
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


def _check(scenes: Sequence[Scene], path: Path) -> None:
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


def _of_table(file: Path, gsd: float) -> list[Scene]:
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
        scenes.append(Scene(name, _over(box, crs_of[text], gsd), _text(row.get("date"))))
    if bad:
        raise LabelError(
            "footprints that are no rectangles",
            found=f"{len(bad)} of {table.num_rows}: {_some(bad)}",
            expected="finite minx < maxx and miny < maxy",
            where=file,
        )
    return scenes


def _read_footprints(file: Path) -> pa.Table:
    try:
        have = pq.read_schema(file).names
        missing = [name for name in _FOOTPRINT if name not in have]
        if missing:
            raise LabelError(
                "the table of footprints lacks columns",
                found=", ".join(have),
                expected=", ".join(_FOOTPRINT),
                where=file,
            )
        return pq.read_table(file, columns=[*_FOOTPRINT, *(["date"] if "date" in have else [])])
    except FileNotFoundError as error:
        raise LabelError("there is no such table of footprints", where=file) from error
    except (OSError, pa.ArrowException) as error:
        raise LabelError("the table cannot be read", found=error, where=file) from error


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
        return CRS.from_user_input(text)
    except CRSError as error:
        raise LabelError(
            "this is no coordinate reference system",
            found=text,
            expected="a name such as EPSG:32632, or WKT",
            where=where,
        ) from error


def _text(date: Any) -> str:  # noqa: ANN401 (text, a date, a moment or nothing)
    if date is None:
        return ""
    return date if isinstance(date, str) else str(date.isoformat())


# ---------------------------------------------------------------------------------------- store


def _of_store(path: Path, crs: str | None) -> list[Scene]:
    """Lay a square over each centre: a store keeps neither corners nor CRS of its images."""
    from eofm.store.reader import Store  # brings torch, which nothing else here needs

    store = Store(path)
    height, width = store.card.size
    gsd = store.spec.gsd
    own = None if crs is None else _crs(crs, "scene_crs")
    columns = store.table.select(["id", "longitude", "latitude", "date"]).to_pylist()
    return [
        Scene(
            row["id"],
            _around((row["longitude"], row["latitude"]), own, gsd, height, width),
            row["date"],
        )
        for row in columns
    ]


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


def _of_folder(root: Path, dates: DatePattern | None) -> list[Scene]:
    """Take one scene per multi-band file, and one per set of files named after bands."""
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in {".tif", ".tiff"})
    sets: dict[str, list[Path]] = {}
    for file in files:
        sets.setdefault(_scene_name(file, root), []).append(file)
    scenes = []
    for name, members in track(list(sets.items()), "reading footprints"):
        finest, date = _finest(members)
        if dates is not None:
            date = str(dates.find(name)).partition("/")[0]
        scenes.append(Scene(name, finest, date))
    return scenes


def _finest(files: Sequence[Path]) -> tuple[Grid, str]:
    grids = []
    for file in files:
        with open_geotiff(file) as dataset:
            grid = grid_of(dataset)
            grid.require_crs()
            grids.append((grid, date_of(dataset)))
    return max(grids, key=lambda found: found[0].height * found[0].width)


def _scene_name(file: Path, root: Path) -> str:
    """Return what `eofm pack tiles` calls the image that a file belongs to."""
    beginning, _, end = file.stem.rpartition("_")
    try:
        canonical_band(end)
    except SpecError:
        return file.relative_to(root).with_suffix("").as_posix()
    folder = file.parent.relative_to(root).as_posix()
    if folder == ".":
        return beginning or root.name
    return folder if beginning in {"", file.parent.name} else f"{folder}/{beginning}"
