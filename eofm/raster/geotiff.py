"""One raster file: its name for GDAL, opening it, reading a window with its mask, its header.

GeoTIFF, JPEG 2000 and VRT, and pictures (JPEG, PNG), which say nothing of their place.
`AREA_OR_POINT=Point` is honoured as GDAL does: the coordinates of such a file are those of pixel
centres, and its transform is moved by half a pixel, to the corner.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.errors import RasterError
from eofm.formats.foreign import foreign
from eofm.raster.grid import Grid, Window, check_proj
from eofm.raster.metadata.tags import GeoTags, acquisition_date, read_geo_tags

# https://gdal.org/en/stable/user/virtual_file_systems.html
_SCHEMES: Final[Mapping[str, str]] = {
    "http": "/vsicurl/{whole}",
    "https": "/vsicurl/{whole}",
    "ftp": "/vsicurl/{whole}",
    "s3": "/vsis3/{rest}",
    "gs": "/vsigs/{rest}",
    "az": "/vsiaz/{rest}",
    "abfs": "/vsiadls/{rest}",
    "oss": "/vsioss/{rest}",
    "zip": "/vsizip/{rest}",  # rasterio's way to write it: zip://archive.zip!folder/file.tif
}


def gdal_name(text: str) -> str:
    """Return what GDAL opens for an address; empty for a file of this machine.

    >>> gdal_name("s3://bucket/a.tif"), gdal_name("scenes/a.tif")
    ('/vsis3/bucket/a.tif', '')

    Raises:
        RasterError: If GDAL has no way to such an address.
    """
    if text.startswith("/vsi"):
        return text
    scheme, divider, rest = text.partition("://")
    if not divider or scheme.lower() == "file":
        return ""
    if scheme.lower() not in _SCHEMES:
        raise RasterError(
            "addresses of this kind cannot be opened",
            found=f"{scheme}://",
            expected=", ".join(f"{name}://" for name in _SCHEMES) + ", or a /vsi path of GDAL",
            where=text.partition("?")[0],
        )
    if scheme.lower() == "zip":
        rest = rest.replace("!", "/", 1)
    return _SCHEMES[scheme.lower()].format(whole=text, rest=rest)


def local_path(text: str, folder: Path | None = None) -> Path:
    """Return a path for a file, or one that names an address in messages.

    Args:
        text: A path, perhaps relative, a `file://` address, or another address.
        folder: What a relative path is relative to.
    """
    if text.lower().startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    if "://" in text or text.startswith("/vsi"):
        return Path(PurePosixPath(text.partition("?")[0]).name)
    return Path(text) if folder is None else folder / text


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
_KINDS: Final = {
    ".jp2": "JPEG 2000 image",
    ".vrt": "VRT",
    ".jpg": "JPEG picture",
    ".jpeg": "JPEG picture",
    ".png": "PNG picture",
}
_DRIVERS: Final = {  # of all others: GTiff
    ".jp2": "JP2OpenJPEG",
    ".vrt": "VRT",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
}


@dataclass(frozen=True)
class Header:
    """What a file says of its bands.

    Args:
        file: Its path.
        descriptions: Of every band; empty where there is none.
        alphas: Numbers of the bands that GDAL takes for alpha, counted from 1.
    """

    file: Path
    descriptions: tuple[str, ...]
    alphas: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many bands there are."""
        return len(self.descriptions)


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
    fast = all(_is_plain(str(file)) for file in files)
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
            except (RasterioError, CPLE_BaseError) as error:
                if isinstance(file, Path) and not file.exists():
                    raise RasterError("there is no such file", where=file) from error
                raise damaged(file, error) from error
            for text in complaints:
                check_proj(text)
                if "IO error" in text:
                    raise damaged(file, EOFError(text))
        if not shared:
            with foreign(RasterError, "where a file lies cannot be read", where=files[0]):
                grids = [grid_of(dataset) for dataset in datasets]
        else:
            crs = datasets[0].crs
            grids = [
                Grid(crs, tag.transform, dataset.height, dataset.width)
                for dataset, tag in zip(datasets, tags, strict=True)
                if tag is not None
            ]
        opened.pop_all()
        return list(zip(datasets, grids, strict=True))


def _driver(file: Path | str) -> str | None:
    """Return the one driver that is asked for a suffix that says which; of an address, all are."""
    if isinstance(file, Path):
        return _DRIVERS.get(file.suffix.lower(), "GTiff")
    suffix = PurePosixPath(file.partition("?")[0]).suffix.lower()
    if suffix in {".tif", ".tiff"}:
        return _DRIVERS.get(suffix, "GTiff")
    return _DRIVERS.get(suffix)


def _keys(tags: GeoTags | None) -> tuple[bytes, ...] | None:
    return None if tags is None else tags.keys


def _is_plain(file: str) -> bool:
    """Return whether a file is a GeoTIFF with no companion that says more of it."""
    # a plain loop, and `access`, which raises nothing where there is no file: this runs for every
    # file of a data set
    stem, _, suffix = file.rpartition(".")
    if "." + suffix.lower() in _DRIVERS:
        return False
    for name in (*(file + end for end in _APPENDED), *(stem + end for end in _REPLACED)):
        if os.access(name, os.F_OK):
            return False
    return True


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
    path = Path(file)
    kind = _KINDS.get(path.suffix.lower(), "GeoTIFF")
    found, remedy = _what_it_is(path)
    return RasterError(
        f"the file cannot be read as a {kind}",
        found=found or str(cause).strip() or type(cause).__name__,
        expected=f"a complete {kind}",
        where=file,
        remedy=remedy,
    )


_HEAD: Final = 64  # bytes that tell a kind of file


def _what_it_is(path: Path) -> tuple[str, str]:
    """Return what a file that is no raster of ours is, where that can be told, and what to do."""
    again = "copy or download it again"
    if path.name.startswith("._"):
        return "", f"read {path.name[2:]}: a file that begins with ._ is written by macOS beside it"
    if path.suffix.lower() == ".vrt":
        return "", "see that the files it names are there; gdalbuildvrt writes it anew"
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return "", again
    if not head:
        return "an empty file", again
    if head.lstrip()[:1] == b"<":
        return "a web page", "download the file itself: a page that asks for a login was sent"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS", "fetch what it stands for: git lfs pull"
    scene = f"eofm.read_scene({str(path)!r}, sensor=..., unit=...)"
    if head.startswith((b"CDF", b"\x89HDF")):
        return "netCDF or HDF5", f"of netCDF: {scene}"
    if head.startswith(b"PK\3\4"):
        return "a zip archive", f"of a SAFE product: {scene}; else unpack it"
    driver = _driver_of(path)
    if driver not in {"", "GTiff"}:
        return (
            f"a raster in the format {driver}",
            f"convert it: rio convert {quote(str(path))} "
            + (f"{quote(str(path.with_suffix('.tif')))}"),
        )
    return "", again


def _driver_of(path: Path) -> str:
    """Return which of GDAL's formats a file is in; empty if in none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as dataset:
                return str(dataset.driver)
        except (RasterioError, CPLE_BaseError):
            return ""


def grid_of(dataset: DatasetReader) -> Grid:
    """Return where the pixels of a file lie."""
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def date_of(dataset: DatasetReader) -> str:
    """Return when an image was taken as its tags say it, `YYYY-MM-DDTHH:MM:SS`, or nothing."""
    return acquisition_date(dataset.tags())


def header_of(dataset: DatasetReader) -> Header:
    """Return what a file says of its bands."""
    descriptions = tuple((text or "").strip() for text in dataset.descriptions)
    alphas = [i for i, c in enumerate(dataset.colorinterp, 1) if c is ColorInterp.alpha]
    return Header(Path(dataset.name.partition("?")[0]), descriptions, tuple(alphas))


def read_stored(
    dataset: DatasetReader,
    indexes: Sequence[int],
    window: Window,
    masks: Sequence[int] = (),
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the values of some bands as stored, and where the file declares no measurement.

    Unsigned integers up to 16 bit become uint16, all else float32. Declared is nodata, a mask, NaN
    and infinity. An alpha band that GDAL takes for a mask is one only if it is among `masks`.

    Args:
        dataset: The file.
        indexes: Of its bands, counted from 1.
        window: Which pixels of the file.
        masks: Of the bands that are 0 where nothing was measured.

    Returns:
        Values (c, h, w), and flags of the same shape, or None where nothing is declared.

    Raises:
        RasterError: If the file is damaged, or its values are no real numbers.
    """
    check_memory(dataset, len(indexes) * window.height * window.width)
    place = None  # a file that is read whole is read faster without a window
    if (window.row, window.col, window.height, window.width) != (0, 0, *dataset.shape):
        place = RasterioWindow(window.col, window.row, window.width, window.height)
    try:
        stored = dataset.read(list(indexes), window=place)
        outside = _masked(dataset, indexes, masks, place)
    except (RasterioError, CPLE_BaseError) as error:
        raise damaged(dataset.name, error) from error
    values = _as_plane(stored, dataset.name)
    nodata = [(k, dataset.nodatavals[i - 1]) for k, i in enumerate(indexes)]
    nodata = [(k, v) for k, v in nodata if v is not None and _can_occur(v, stored.dtype)]
    if values.dtype == np.uint16 and outside is None and not nodata:
        return values, None  # most files of Sentinel-2 sets
    if values.dtype == np.uint16:
        declared = np.zeros(values.shape, np.bool_)
    else:
        declared = ~np.isfinite(values)
    for k, value in nodata:
        with np.errstate(over="ignore"):
            declared[k] |= stored[k] == stored.dtype.type(value)
    if outside is not None:
        declared |= outside
    return values, declared if declared.any() else None


# What is packed best, deflate of one value, packs 1032 to 1. Less than this is always read.
_RATIO: Final = 2_000
_ALWAYS: Final = 2**29


def check_memory(dataset: DatasetReader, pixels: int) -> None:
    """Refuse to make many gigabytes out of a file of a few bytes, whatever its header says.

    Args:
        dataset: The file.
        pixels: How many are to be read.

    Raises:
        RasterError: If it cannot hold so many.
    """
    asked = pixels * np.dtype(dataset.dtypes[0]).itemsize
    if asked <= _ALWAYS or dataset.driver != "GTiff":
        return
    try:
        size = os.stat(dataset.name).st_size  # noqa: PTH116 (a name of GDAL, and no path)
    except OSError:
        return  # of another machine, or in an archive
    if asked > _RATIO * size:
        raise RasterError(
            "the file asks for more memory than a file of its size can fill",
            found=f"{asked / 2**30:.1f} GiB of pixels, from {size} bytes",
            expected=f"at most {_RATIO} times its size",
            where=dataset.name,
            remedy="copy or download it again; if most of it is empty, read windows of it",
        )


def read_valid(
    dataset: DatasetReader, indexes: Sequence[int], window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of some bands, 0 where the file declares no measurement, and a mask.

    Args:
        dataset: The file.
        indexes: Of its bands, counted from 1.
        window: Which pixels of the file.

    Returns:
        Values (c, h, w) and mask (h, w), True where all bands hold a measurement.

    Raises:
        RasterError: If the file is damaged, or its values are no real numbers.
    """
    alphas = [i for i in header_of(dataset).alphas if i not in indexes]
    values, declared = read_stored(dataset, indexes, window, alphas)
    if declared is None:
        return values, np.ones(values.shape[1:], np.bool_)
    values[declared] = 0
    return values, ~np.logical_or.reduce(declared, axis=0)


def _masked(
    dataset: DatasetReader,
    indexes: Sequence[int],
    masks: Sequence[int],
    place: RasterioWindow | None,
) -> NDArray[np.bool_] | None:
    """Return where masks of the file say that nothing was measured: (h, w) or (c, h, w)."""
    every = dataset.mask_flag_enums
    flags = [every[i - 1] for i in indexes]
    found: list[NDArray[np.bool_]] = []
    if any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in flags):
        found.append(dataset.read_masks(indexes[0], window=place) == 0)
    elif not all(flags):  # a mask for each band, as a VRT can have
        found.append(dataset.read_masks(list(indexes), window=place) == 0)
    found += [dataset.read(i, window=place) == 0 for i in masks]
    return np.logical_or.reduce(np.broadcast_arrays(*found)) if found else None


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
