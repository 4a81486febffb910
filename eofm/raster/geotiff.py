"""One GeoTIFF: opening it, reading a window with its mask, and what its header says."""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.errors import RasterError
from eofm.raster.grid import Grid, Window
from eofm.raster.tiff_tags import GeoTags, read_geo_tags

# GDAL looks through the folder of every file it opens and asks for an .aux.xml: over the 13 files
# of an SSL4EO patch that is a third of the time. A file that has such a companion is opened with
# GDAL's defaults, because its CRS, nodata or mask may be written there.
_FAST: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
# Half of what then remains of opening a file goes into building its CRS from the EPSG registry. For
# an image of one file per band, thirteen times over, the keys in the file do: they are what the
# registry was copied from, and the CRS compares equal (benchmarks/speed/geotiff.py). A single file
# is opened once, and the registry decides where its keys contradict its code.
_MANY: Final = {**_FAST, "GTIFF_SRS_SOURCE": "GEOKEYS"}
_APPENDED: Final = (".aux.xml", ".msk")
_REPLACED: Final = (".tfw", ".tifw", ".wld")


def open_geotiff(file: Path | str) -> DatasetReader:
    """Open a GeoTIFF for reading.

    Raises:
        RasterError: If it is missing or no GeoTIFF.
    """
    ((dataset, _),) = open_geotiffs([file])
    return dataset


def open_geotiffs(files: Sequence[Path | str]) -> list[tuple[DatasetReader, Grid]]:
    """Open the GeoTIFFs of one image for reading, cheaper than one after the other.

    Where their tags say that they share a CRS, only one file is asked for it: all but that one say
    themselves that they lie nowhere, and their grid is what counts.

    Returns:
        Each file with its grid.

    Raises:
        RasterError: If one is missing or no GeoTIFF; the others are closed again.
    """
    fast = not any(_has_companion(str(file)) for file in files)
    local = [file for file in files if isinstance(file, Path)]
    plain = fast and len(local) == len(files) > 1
    tags = [read_geo_tags(file) for file in local] if plain else []
    shared = bool(tags) and all(tag is not None and tag.keys == _keys(tags[0]) for tag in tags)
    with (
        rasterio.Env(**((_FAST if len(files) == 1 else _MANY) if fast else {})),
        warnings.catch_warnings(),
        _listening() as complaints,
        ExitStack() as opened,
    ):
        # a file without georeference is an error only where somebody needs to know its place
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        datasets: list[DatasetReader] = []
        for file in files:
            options = {"GEOREF_SOURCES": "NONE"} if shared and datasets else {}
            try:
                # what rasterio.open ends in; on the way it would make an environment per file
                datasets.append(DatasetReader(str(file), driver=_driver(file), **options))
                opened.callback(datasets[-1].close)  # `with` would make one more environment
            except RasterioError as error:
                if isinstance(file, Path) and not file.exists():
                    raise RasterError("there is no such file", where=file) from error
                raise damaged(file, error) from error
            unread = [text for text in complaints if "IO error" in text]
            if unread:
                raise damaged(file, EOFError(unread[0]))
        grids = [grid_of(dataset) for dataset in datasets]
        if shared:
            crs = datasets[0].crs
            grids = [
                Grid(crs, tag.transform, dataset.height, dataset.width)
                for dataset, tag in zip(datasets, tags, strict=True)
                if tag is not None
            ]
        opened.pop_all()
        return list(zip(datasets, grids, strict=True))


def _driver(file: Path | str) -> str | None:
    """Return the one driver that is asked, for a suffix that says which; else all are."""
    return "GTiff" if str(file).lower().endswith((".tif", ".tiff")) else None


def _keys(tags: GeoTags | None) -> tuple[bytes, ...] | None:
    return None if tags is None else tags.keys


def _has_companion(file: str) -> bool:
    # os.path and a plain loop: this runs for every file of a data set
    stem = file.rpartition(".")[0]
    for name in (*(file + end for end in _APPENDED), *(stem + end for end in _REPLACED)):
        if os.path.exists(name):  # noqa: PTH110
            return True
    return False


class _Listener(logging.Handler):
    """Keeps what is logged in the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        if record.thread == self._thread:
            self.said.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect what GDAL complains of.

    Where the end of a file is missing, GDAL opens it without the tags that stood there, among them
    CRS and nodata, and only says so in the log.
    """
    logger, listener = logging.getLogger("rasterio._env"), _Listener()
    logger.addHandler(listener)
    try:
        yield listener.said
    finally:
        logger.removeHandler(listener)


def damaged(file: str | Path, error: Exception) -> RasterError:
    """Return the error to raise for a file that GDAL cannot read."""
    cause = error.__cause__ or error  # rasterio itself says "see previous exception"
    return RasterError(
        "the file cannot be read as a GeoTIFF",
        found=str(cause).strip() or type(cause).__name__,
        expected="a complete GeoTIFF",
        where=file,
        remedy="copy or download it again",
    )


def grid_of(dataset: DatasetReader) -> Grid:
    """Return where the pixels of a file lie."""
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def date_of(dataset: DatasetReader) -> str:
    """Return when an image was taken as its tags say it, `YYYY-MM-DDTHH:MM:SS`, or nothing."""
    tags: Mapping[str, str] = dataset.tags()
    for tag, form in (("datetime", None), ("TIFFTAG_DATETIME", "%Y:%m:%d %H:%M:%S")):
        text = tags.get(tag, "").strip()
        try:
            moment = datetime.strptime(text, form) if form else datetime.fromisoformat(text[:19])
        except ValueError:
            continue
        return moment.isoformat(timespec="seconds")
    return ""


def read_valid(
    dataset: DatasetReader, indexes: Sequence[int], window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of some bands and which pixels hold a measurement in all of them.

    Unsigned integers up to 16 bit become uint16, all else float32. Invalid is what is declared
    nodata or masked in the file, NaN and infinity; such values are 0.

    Args:
        dataset: The file.
        indexes: Of its bands, counted from 1.
        window: Which pixels of the file.

    Returns:
        Values (c, h, w) and mask (h, w).

    Raises:
        RasterError: If the file is damaged, or its values are no real numbers.
    """
    place = None  # a file that is read whole is read faster without a window
    if (window.row, window.col, window.height, window.width) != (0, 0, *dataset.shape):
        place = RasterioWindow(window.col, window.row, window.width, window.height)
    try:
        stored = dataset.read(list(indexes), window=place)
        flags = [dataset.mask_flag_enums[i - 1] for i in indexes]
        masked = any(MaskFlags.per_dataset in flag for flag in flags)
        inside = dataset.dataset_mask(window=place) > 0 if masked else None
    except RasterioError as error:
        raise damaged(dataset.name, error) from error
    values = _as_plane(stored, dataset.name)
    nodata = [dataset.nodatavals[i - 1] for i in indexes]
    if values.dtype == np.uint16 and inside is None and not any(n is not None for n in nodata):
        return values, np.ones(values.shape[1:], np.bool_)  # most files of Sentinel-2 sets
    invalid = (
        np.zeros(values.shape, np.bool_) if values.dtype == np.uint16 else ~np.isfinite(values)
    )
    for k, value in enumerate(nodata):
        if value is not None and _can_occur(value, stored.dtype):
            with np.errstate(over="ignore"):
                invalid[k] |= stored[k] == stored.dtype.type(value)
    if inside is not None:
        invalid |= ~inside
    if invalid.any():
        values[invalid] = 0
    return values, ~np.logical_or.reduce(invalid, axis=0)


def _as_plane(stored: NDArray[Any], where: str) -> NDArray[Any]:
    if stored.dtype in (np.uint8, np.uint16):
        return stored.astype(np.uint16, copy=False)
    if stored.dtype.kind not in "iuf":
        raise RasterError("pixels must be real numbers", found=stored.dtype, where=where)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and so invalid
        return stored.astype(np.float32, copy=False)


def _can_occur(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a declared nodata value can be among the pixels: files of uint16 say -9999."""
    if dtype.kind == "f" or not math.isfinite(nodata):
        return math.isfinite(nodata)  # NaN and infinity are invalid in any case
    limits = np.iinfo(dtype)
    return nodata == int(nodata) and limits.min <= nodata <= limits.max
