"""Open one raster file through GDAL, and read its header and windows with their mask.

Supported are GeoTIFF, JPEG 2000 and VRT, and pictures without georeference (JPEG, PNG). Other files
are identified by their first bytes and name, so that the error can name a remedy.

`AREA_OR_POINT=Point` is honoured as GDAL does: the coordinates of such a file refer to pixel
centres, and its transform is shifted by half a pixel to the corner. TIFFTAG_DATETIME, the time of
writing, is not used as acquisition date.

GDAL builds a CRS for every file it opens, which is slow for an image of one file per band. The
georeference is therefore parsed from the bytes of the files, at a tenth of the cost: if the bytes
that define the CRS are equal, one file is opened in full and the others without a CRS. Only the
common case is parsed here (little-endian, not BigTIFF, one tie point, pixels as areas); any other
is left to GDAL. Tags and keys: OGC GeoTIFF 1.1 (19-008r4), sections 7 and 8.
"""

from __future__ import annotations

import html
import logging
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.errors import RasterError
from eofm.formats.foreign import foreign
from eofm.raster.grid import Grid, Window, check_proj

__all__ = [
    "PAGE",
    "SENTINEL_1",
    "GeoTags",
    "Header",
    "acquisition_date",
    "as_delivered",
    "bytes_of",
    "check_memory",
    "copy_command",
    "damaged",
    "date_of",
    "delivered_kind",
    "gdal_name",
    "grid_of",
    "header_of",
    "local_path",
    "open_geotiff",
    "open_geotiffs",
    "pages_of",
    "read_geo_tags",
    "read_stored",
    "read_valid",
    "without_place",
]

# --------------------------------------------------------------------------------------------- tags

# In order of preference, compared in upper case as HLS, Landsat and SNAP write them. Of start and
# end, the start is used.
_TAGS: Final = (
    "DATETIME",  # STAC, and xarray's name of it
    "START_DATETIME",  # STAC
    "SENSING_TIME",  # HLS v2.0
    "ACQUISITION_DATETIME",
    "ACQUISITIONDATETIME",  # GDAL's IMAGERY domain
    "ACQUISITION_START_TIME",  # GDAL's reader of Sentinel-1 SAFE
    "DATATAKE_1_DATATAKE_SENSING_START",  # GDAL's reader of Sentinel-2 SAFE
    "DATATAKE_SENSING_START",
    "PRODUCT_START_TIME",  # Sentinel-2 XML, through GDAL
    "FIRST_LINE_TIME",  # SNAP
    "SYSTEM:TIME_START",  # Earth Engine: milliseconds since 1970
    "ACQUISITION_DATE",
    "DATE_ACQUIRED",  # Landsat and HLS L30
    "SENSING_DATE",
)
_FORMS: Final = ("%d-%b-%Y %H:%M:%S", "%d-%b-%Y", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d", "%Y:%m:%d")
_FRACTION: Final = re.compile(r"[.,]\d+")
_MILLISECONDS: Final = re.compile(r"\d{11,14}(\.0*)?")


def acquisition_date(tags: Mapping[str, str]) -> str:
    """Return the first acquisition date of some tags, `YYYY-MM-DDTHH:MM:SS` in UTC, or nothing."""
    upper = {name.upper(): text for name, text in tags.items()}
    for name in _TAGS:
        if name in upper:
            moment = _moment(upper[name].split(";")[0].strip())
            if moment is not None:
                return moment.isoformat(timespec="seconds")
    return ""


def _moment(text: str) -> datetime | None:
    """Return the time in a text, as a naive datetime in UTC, or None."""
    if _MILLISECONDS.fullmatch(text):
        return datetime.fromtimestamp(float(text) / 1000, UTC).replace(tzinfo=None, microsecond=0)
    plain = _FRACTION.sub("", text)
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        for form in _FORMS:
            try:
                return datetime.strptime(plain, form)
            except ValueError:
                continue
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


# ------------------------------------------------------------------------------------ georeference


_DIRECTORY_BYTES: Final = 8192  # bytes; contains the directory of nearly every file
_SCALE, _TIE, _MATRIX, _KEYS, _DOUBLES, _TEXT = 33550, 33922, 34264, 34735, 34736, 34737
_WIDTHS: Final = {2: 1, 3: 2, 12: 8}  # bytes of the types of these tags: text, short, double
_RASTER_TYPE: Final = 1025
_PIXEL_IS_AREA: Final = 1


@dataclass(frozen=True)
class GeoTags:
    """The georeference of a file.

    Args:
        transform: From (column, row) of a pixel corner to coordinates.
        keys: The bytes of the file that define its CRS.
    """

    transform: Affine
    keys: tuple[bytes, ...]


def read_geo_tags(file: Path) -> GeoTags | None:
    """Return the georeference of a file, or None if it is not the common case or unreadable."""
    try:
        with file.open("rb", buffering=0) as stream:
            head = stream.read(_DIRECTORY_BYTES)
    except OSError:
        return None
    if head[:4] != b"II*\0" or len(head) < 8:
        return None
    try:
        return _parse(head)
    except (struct.error, KeyError):
        return None  # another type, or outside the bytes that were read


def _parse(head: bytes) -> GeoTags | None:
    (start,) = struct.unpack_from("<I", head, 4)
    (count,) = struct.unpack_from("<H", head, start)
    found: dict[int, bytes] = {}
    for tag, kind, length, value in struct.iter_unpack("<HHII", _cut(head, start + 2, 12 * count)):
        if tag == _MATRIX:
            return None
        if tag in {_SCALE, _TIE, _KEYS, _DOUBLES, _TEXT}:
            size = _WIDTHS[kind] * length
            if size <= 4:
                return None  # stored in the directory itself, which none of these tags should be
            found[tag] = _cut(head, value, size)
    if not {_SCALE, _TIE, _KEYS} <= found.keys() or len(found[_TIE]) != 48:
        return None
    if not _is_area(found[_KEYS]):
        return None
    wide, high, _ = struct.unpack("<3d", found[_SCALE])
    col, row, _, x, y, _ = struct.unpack("<6d", found[_TIE])
    if not wide or not high:
        return None
    transform = Affine(wide, 0.0, x - col * wide, 0.0, -abs(high), y + row * abs(high))
    return GeoTags(transform, tuple(found.get(tag, b"") for tag in (_KEYS, _DOUBLES, _TEXT)))


def _cut(head: bytes, start: int, size: int) -> bytes:
    part = head[start : start + size]
    if len(part) != size:
        raise struct.error
    return part


def _is_area(keys: bytes) -> bool:
    entries = struct.iter_unpack("<4H", keys[: len(keys) // 8 * 8])
    next(entries)  # version and number of keys
    return any(
        key == _RASTER_TYPE and where == 0 and value == _PIXEL_IS_AREA
        for key, where, _, value in entries
    )


# ----------------------------------------------------------------------------------------- the file

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
    "zip": "/vsizip/{rest}",  # rasterio's syntax: zip://archive.zip!folder/file.tif
}


PAGE: Final = "GTIFF_DIR:"
"""Prefix of GDAL's name for one image of a multi-page TIFF: `GTIFF_DIR:2:a.tif`."""


def gdal_name(text: str) -> str:
    """Return the GDAL name of a URL or of one page of a file; empty for a plain file.

    >>> gdal_name("s3://bucket/a.tif"), gdal_name("scenes/a.tif")
    ('/vsis3/bucket/a.tif', '')

    Raises:
        RasterError: If the scheme of the URL is not supported.
    """
    if text.startswith(("/vsi", PAGE)):
        return text
    scheme, divider, rest = text.partition("://")
    if not divider or scheme.lower() == "file":
        return ""
    if scheme.lower() not in _SCHEMES:
        raise RasterError(
            "URLs of this kind cannot be opened",
            found=f"{scheme}://",
            expected=", ".join(f"{name}://" for name in _SCHEMES) + ", or a /vsi path of GDAL",
            where=text.partition("?")[0],
        )
    if scheme.lower() == "zip":
        rest = rest.replace("!", "/", 1)
    return _SCHEMES[scheme.lower()].format(whole=text, rest=rest)


def local_path(text: str, folder: Path | None = None) -> Path:
    """Return the path of a file, or a path that represents a URL in messages.

    Args:
        text: A path (relative, absolute or starting with `~`), a `file://` URL, or another URL.
        folder: Base folder of a relative path.
    """
    if text.lower().startswith("file:/"):
        return Path(unquote(urlsplit(text).path))
    if "://" in text or text.startswith("/vsi"):
        return Path(PurePosixPath(text.partition("?")[0]).name)
    if text.startswith("~/"):  # which a shell expands, and Python does not
        return Path(text).expanduser()
    return Path(text) if folder is None else folder / text


# For every file it opens, GDAL lists the folder and looks for an .aux.xml: a third of the time for
# the 13 files of an SSL4EO patch. A file with such a companion is opened with GDAL's defaults,
# because the companion may hold its CRS, nodata or mask.
_FAST: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
# Half of the remaining time goes into building the CRS from the EPSG registry. For an image of one
# file per band, opened thirteen times, the CRS is built from the keys in the file, which compares
# equal (benchmarks/speed/geotiff.py). For a single file the registry is used, which decides if the
# keys contradict the EPSG code.
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
_DRIVERS: Final = {  # all others: GTiff
    ".jp2": "JP2OpenJPEG",
    ".vrt": "VRT",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
}


@dataclass(frozen=True)
class Header:
    """Metadata of the bands of a file.

    Args:
        file: Its path.
        descriptions: Description of every band; empty if it has none.
        alphas: Numbers of the bands that GDAL reports as alpha, counted from 1.
        colours: Colour interpretation of each band: `red`, `gray`, `palette`, `undefined`.
        pages: GDAL names of the images in a multi-page file.
        sources: Stem of the one file that each band of a VRT is read from, as by `gdalbuildvrt
            -separate`; empty for other files.
    """

    file: Path
    descriptions: tuple[str, ...]
    alphas: tuple[int, ...] = ()
    colours: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.descriptions)


def open_geotiff(file: Path | str) -> DatasetReader:
    """Open a GeoTIFF for reading.

    Raises:
        RasterError: If it is missing or not readable.
    """
    ((dataset, _),) = open_geotiffs([file])
    return dataset


def open_geotiffs(files: Sequence[Path | str]) -> list[tuple[DatasetReader, Grid]]:
    """Open the GeoTIFFs of one image for reading, faster than one by one.

    If their tags define the same CRS, it is built from one file only, or taken from an earlier
    image. The other datasets then report no georeference; use the returned grids.

    Returns:
        Each file with its grid.

    Raises:
        RasterError: If one is missing or not readable; the others are closed again.
    """
    fast = all(_is_plain(str(file)) for file in files)
    local = [file for file in files if isinstance(file, Path)]
    plain = fast and len(local) == len(files) > 1
    tags = [read_geo_tags(file) for file in local] if plain else []
    shared = bool(tags) and all(tag is not None and tag.keys == _keys(tags[0]) for tag in tags)
    crs = _known_crs().get(_keys(tags[0])) if shared else None
    with (
        rasterio.Env(**((_FAST if len(files) == 1 else _MANY) if fast else {})),
        without_place(),
        _collect_warnings() as messages,
        ExitStack() as opened,
    ):
        datasets: list[DatasetReader] = []
        for file in files:
            skip_crs = shared and (datasets or crs is not None)
            options = {"GEOREF_SOURCES": "NONE"} if skip_crs else {}
            try:
                # called by rasterio.open, which would create an environment for each file
                driver = "GTiff" if plain else _driver(file)
                datasets.append(DatasetReader(str(file), driver=driver, **options))
                opened.callback(datasets[-1].close)  # `with` would create another environment
            except (RasterioError, CPLE_BaseError) as error:
                page = str(file).startswith(PAGE)
                if isinstance(file, Path) and not page and not file.exists():
                    raise RasterError("there is no such file", where=file) from error
                raise damaged(file, error) from error
            for text in messages:
                check_proj(text)
                if "IO error" in text:
                    raise damaged(file, EOFError(text))
        if not shared:
            with foreign(RasterError, "the georeference of a file cannot be read", where=files[0]):
                grids = [grid_of(dataset) for dataset in datasets]
        else:
            crs = crs or _cache_crs(tags[0], datasets[0].crs)
            grids = [
                Grid(crs, tag.transform, dataset.height, dataset.width)
                for dataset, tag in zip(datasets, tags, strict=True)
                if tag is not None
            ]
        opened.pop_all()
        return list(zip(datasets, grids, strict=True))


def _driver(file: Path | str) -> str | None:
    """Return the driver for a suffix; None, for a URL without a known suffix, tries all."""
    if isinstance(file, Path):
        return _DRIVERS.get(file.suffix.lower(), "GTiff")
    suffix = PurePosixPath(file.partition("?")[0]).suffix.lower()
    if suffix in {".tif", ".tiff"}:
        return _DRIVERS.get(suffix, "GTiff")
    return _DRIVERS.get(suffix)


# CRS by its defining tags; one cache per thread, since PROJ objects belong to a thread.
_crs_of_keys: Final = threading.local()
_MOST_CRS: Final = 256  # there are 120 zones of UTM


def _known_crs() -> dict[tuple[bytes, ...] | None, CRS]:
    known: dict[tuple[bytes, ...] | None, CRS] = _crs_of_keys.__dict__.setdefault("known", {})
    return known


def _cache_crs(tags: GeoTags | None, crs: CRS | None) -> CRS | None:
    """Cache the CRS that GDAL built from some tags, if any."""
    known = _known_crs()
    if crs is not None and len(known) < _MOST_CRS:
        known[_keys(tags)] = crs
    return crs


def _keys(tags: GeoTags | None) -> tuple[bytes, ...] | None:
    return None if tags is None else tags.keys


def _is_plain(file: str) -> bool:
    """Return whether a file is a GeoTIFF without companion files that add metadata."""
    # a plain loop and `access`, which does not raise for a missing file: this runs for every file
    # of a data set
    stem, _, suffix = file.rpartition(".")
    if "." + suffix.lower() in _DRIVERS:
        return False
    for name in (*(file + end for end in _APPENDED), *(stem + end for end in _REPLACED)):
        if os.access(name, os.F_OK):
            return False
    return True


class _Listener(logging.Handler):
    """Collects log messages of the thread that created it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


class _WithoutPlace:
    """Suppresses the warning of a missing georeference, an error only if the location is needed.

    Warning filters belong to the whole process. If threads open files concurrently, the first to
    finish would restore the filters for the others, which would then warn; so the last one does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Suppress the warning while at least one thread is inside."""
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._before.__exit__(None, None, None)


without_place: Final = _WithoutPlace()


@contextmanager
def _collect_warnings() -> Iterator[list[str]]:
    """Collect the warnings of GDAL.

    GDAL opens a truncated file without the tags in its missing part, among them CRS and nodata, and
    reports that only in the log.
    """
    logger, listener = logging.getLogger("rasterio._env"), _Listener()
    logger.addHandler(listener)
    try:
        yield listener.messages
    finally:
        logger.removeHandler(listener)


def damaged(file: str | Path, error: Exception) -> RasterError:
    """Return the error to raise for a file that GDAL cannot read."""
    cause = error.__cause__ or error  # rasterio itself says "see previous exception"
    path = Path(file)
    kind = _KINDS.get(path.suffix.lower(), "GeoTIFF")
    found, remedy = _identify(path)
    return RasterError(
        f"the file cannot be read as a {kind}",
        found=found or str(cause).strip() or type(cause).__name__,
        expected=f"a complete {kind}",
        where=file,
        remedy=remedy,
    )


_KIND_BYTES: Final = 512  # bytes; enough to identify a file format
_TAR: Final = slice(257, 262)  # of the first block of a tar archive, which begins with a file name


def _identify(path: Path) -> tuple[str, str]:
    """Return the kind of an unreadable file, empty if unknown, and the remedy."""
    again = "copy or download it again"
    if str(path).startswith(PAGE):
        whole = str(path).removeprefix(PAGE).partition(":")[2]
        return "", f"list the available pages: rio info --subdatasets {quote(whole)}"
    if path.name.startswith("._"):
        return "", f"read {path.name[2:]}: macOS writes the file that begins with ._ beside it"
    if path.suffix.lower() == ".vrt":
        return "", "check that the files it refers to exist; gdalbuildvrt rebuilds it"
    try:
        with path.open("rb") as stream:
            head = stream.read(_KIND_BYTES)
    except OSError:
        return "", again
    if not head:
        return "an empty file", again
    if head.lstrip()[:1] == b"<":
        return _identify_markup(path)
    if head.startswith(b"ENVI"):
        data = (path.with_suffix(suffix) for suffix in ("", ".img", ".dat", ".bsq", ".bil", ".bip"))
        image = next((file for file in data if file.is_file()), None)
        remedy = "copy the image beside it too" if image is None else copy_command(image)
        return "the header of an ENVI image", f"convert the image: {remedy}"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "fetch the file itself: git lfs pull"
    if head.startswith((b"CDF", b"\x89HDF")):
        return "netCDF or HDF5", f"for netCDF: {_read_as(path, '.nc', '.nc4')}"
    if head.lstrip()[:1] == b"{":
        return "JSON", f"for STAC items: {_read_as(path, '.json', '.geojson')}"
    if head.startswith(b"PK\3\4"):
        if _DELIVERED.match(path.name.upper()):
            return "a zip of a Sentinel-1 product", SENTINEL_1
        return "a zip archive", f"for a SAFE product: {_read_as(path, '.zip')}{_UNPACK}"
    if head.startswith(b"\x1f\x8b"):
        return "gzip", f"for one raster: {_read_call(f'/vsigzip/{path}')}{_UNPACK}"
    if head.startswith(_PACKED) or head[_TAR] == b"ustar":
        return "an archive", "unpack it"
    return _identify_format(path, again)


def _read_call(name: Path | str) -> str:
    return f"eofm.read_scene({str(name)!r}, sensor=..., unit=...)"


def _read_as(path: Path, *suffixes: str) -> str:
    """Return the remedy for a file whose suffix does not match its format."""
    if path.suffix.lower() in suffixes:
        return _read_call(path)
    right = path.with_suffix(suffixes[0])
    return f"rename it, mv {quote(str(path))} {quote(str(right))}, and {_read_call(right)}"


_PACKED: Final = (b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
_UNPACK: Final = "; otherwise unpack it"
_SUFFIXES: Final = {"GTiff": ".tif", "JP2OpenJPEG": ".jp2", "PNG": ".png", "JPEG": ".jpg"}


def _identify_format(path: Path, again: str) -> tuple[str, str]:
    """Return the GDAL format of a file, if it differs from its suffix, and the remedy."""
    driver = _driver_of(path)
    if driver in {"", _DRIVERS.get(path.suffix.lower(), "GTiff")}:
        return "", again
    found = f"a raster in the format {driver}"
    if driver in _SUFFIXES:
        right = path.with_suffix(_SUFFIXES[driver])
        return found, f"rename it to match its format: mv {quote(str(path))} {quote(str(right))}"
    return found, f"convert it: {copy_command(path)}"


_MARKUP_BYTES: Final = 4096


def _identify_markup(path: Path) -> tuple[str, str]:
    """Return the kind of a file that starts with `<`, such as a web page, and the remedy.

    The document element of XML identifies the product it describes.
    """
    with path.open("rb") as stream:
        head = stream.read(_MARKUP_BYTES).decode("utf-8", "replace").casefold()
    if "<html" in head or "<!doctype html" in head:
        return (
            "a web page",
            "download the file itself: the server sent a page, often a login form, instead",
        )
    if "dimap_document" in head:
        return (
            "a BEAM-DIMAP header, which describes the images in the folder beside it",
            "export the product as GeoTIFF from SNAP, and read that file",
        )
    if "sentinel-1" in head:
        return "the manifest of a Sentinel-1 product", SENTINEL_1
    if "_tile_id" in head and "sentinel" in head:
        return (
            "the metadata of a tile of a Sentinel-2 product",
            "name its .SAFE folder",
        )
    if "gdaltileindexdataset" in head:
        return "a GDAL tile index", "name one of the rasters that it lists"
    return "XML, which holds no pixels", "name the raster that it describes"


# Remedy for a Sentinel-1 product as delivered by ESA.
SENTINEL_1: Final = (
    "calibrate it to sigma0 or gamma0 and geocode it, for example in SNAP, then read the resulting "
    'GeoTIFF, as in eofm.read_geotiff("VV_VH.tif", sensor="s1-grd", unit="power")'
)
_DELIVERED: Final = re.compile(r"S1[A-D][-_](?:IW|EW|WV|SM|S\d)\d?[-_](GRD|SLC|RAW|OCN)")
_KINDS_OF_RADAR: Final[Mapping[str, str]] = {
    "GRD": "GRD: digital numbers in radar geometry, not sigma0 or gamma0",
    "SLC": "SLC: complex numbers in radar geometry, not sigma0 or gamma0",
}


def delivered_kind(name: str) -> str | None:
    """Return the Sentinel-1 product type in an ESA file name, such as `GRD`, or None.

    >>> delivered_kind("s1a-iw-grd-vv-20210704t054123-20210704t054148-038632-048ef1-001.tiff")
    'GRD'
    >>> delivered_kind("S1A_IW_GRDH_1SDV_20210704T054123_Sigma0_VV.tif")  # made from one
    """
    if name[3:4] != "-":
        return None
    found = _DELIVERED.match(name.upper())
    return None if found is None else found[1]


def as_delivered(where: Path, name: str = "") -> RasterError:
    """Return the error for an unprocessed Sentinel-1 product, or a file of one.

    Args:
        where: Its path.
        name: ESA name of the product or of one of its files; by default taken from the path.
    """
    matches = (_DELIVERED.match(part.upper()) for part in (name, *reversed(where.parts)))
    kind = next((found[1] for found in matches if found is not None), "")
    return RasterError(
        "a Sentinel-1 product must be calibrated and geocoded before it is read",
        found=_KINDS_OF_RADAR.get(kind, "an uncalibrated product in radar geometry"),
        expected="sigma0 or gamma0 on a grid, in power or dB, as a GeoTIFF",
        where=where,
        remedy=SENTINEL_1,
    )


def copy_command(path: Path | str, out: Path | None = None) -> str:
    """Return a command that converts a raster to GeoTIFF and keeps its band names.

    Args:
        path: Path or GDAL name of the raster.
        out: Path of the GeoTIFF; by default `path` with the suffix `.tif`.
    """
    out = Path(path).with_suffix(".tif") if out is None else out
    return (
        'python -c "import rasterio.shutil, sys; '
        "rasterio.shutil.copy(sys.argv[1], sys.argv[2], driver='GTiff')\" "
        f"{quote(str(path))} {quote(str(out))}"
    )


def _driver_of(path: Path) -> str:
    """Return the GDAL driver of a file, or an empty string."""
    with without_place():
        try:  # with companion files, without which ENVI is not recognised
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE"), rasterio.open(path) as dataset:
                return str(dataset.driver)
        except (RasterioError, CPLE_BaseError):
            return ""


def grid_of(dataset: DatasetReader) -> Grid:
    """Return the grid of a file."""
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def date_of(dataset: DatasetReader) -> str:
    """Return the acquisition time in the tags, `YYYY-MM-DDTHH:MM:SS`, or an empty string."""
    return acquisition_date(dataset.tags())


_SOURCE: Final = re.compile(r"<SourceFilename[^>]*>([^<]*)</SourceFilename>")


def header_of(dataset: DatasetReader) -> Header:
    """Return the metadata of the bands of a file."""
    descriptions = [(text or "").strip() for text in dataset.descriptions]
    if not any(descriptions):  # the tag written by GDAL's Sentinel-2 driver
        descriptions = [dataset.tags(i).get("BANDNAME", "").strip() for i in dataset.indexes]
    found = dataset.colorinterp
    return Header(
        Path(dataset.name.partition("?")[0]),
        tuple(descriptions),
        _alphas(dataset),
        tuple(colour.name for colour in found),
        pages_of(dataset),
        _sources(dataset),
    )


def _alphas(dataset: DatasetReader) -> tuple[int, ...]:
    """Return the numbers of the bands that GDAL reports as alpha, counted from 1."""
    found = enumerate(dataset.colorinterp, 1)
    return tuple(number for number, colour in found if colour is ColorInterp.alpha)


def _sources(dataset: DatasetReader) -> tuple[str, ...]:
    """Return the stem of the file behind each band of a VRT; none if a band has several files."""
    if dataset.driver != "VRT":
        return ()
    stems = []
    for number in dataset.indexes:
        texts = dataset.tags(number, ns="vrt_sources").values()
        files = {name for text in texts for name in _SOURCE.findall(text)}
        if len(files) != 1:
            return ()
        stems.append(Path(html.unescape(files.pop()).partition("?")[0]).stem)
    return tuple(stems)


def pages_of(dataset: DatasetReader) -> tuple[str, ...]:
    """Return the GDAL names of the pages of a multi-page TIFF, in order; else none."""
    if dataset.driver != "GTiff" or dataset.name.startswith(PAGE):
        return ()
    return tuple(sorted(dataset.subdatasets, key=lambda name: int(name.split(":")[1])))


def read_stored(
    dataset: DatasetReader,
    indexes: Sequence[int],
    window: Window,
    masks: Sequence[int] = (),
    beside: Sequence[float | None] = (),
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the stored values of some bands, and where the file declares them unmeasured.

    Unsigned integers of up to 16 bits become uint16, other types float32. Declared unmeasured are
    nodata, masked pixels, NaN and infinities. An alpha band counts as a mask only if it is in
    `masks`.

    Args:
        dataset: The file.
        indexes: Band numbers, counted from 1.
        window: Window in pixels of the file.
        masks: Numbers of bands that are 0 where nothing was measured.
        beside: Nodata value of each band from outside the file, for example from STAC.

    Returns:
        Values (c, h, w), and flags of the same shape, or None if nothing is declared.

    Raises:
        RasterError: If the file is damaged, or its values are not real numbers.
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
    every = dataset.nodatavals
    nodata = [(k, every[i - 1]) for k, i in enumerate(indexes)] + list(enumerate(beside))
    nodata = [(k, v) for k, v in nodata if v is not None and _can_occur(v, stored.dtype)]
    if values.dtype == np.uint16 and outside is None and not nodata:
        return values, None  # the usual case for Sentinel-2
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


# The best compression, deflate of a constant, is 1032 : 1. Reads below `_ALWAYS` are not checked.
_RATIO: Final = 2_000
_ALWAYS: Final = 2**29
_WIDEST: Final = 16  # bytes of complex128


def bytes_of(dtype: str) -> int:
    """Return the size of a number in bytes, also for GDAL's complex integers, unknown to numpy.

    Args:
        dtype: Name in rasterio, such as `uint16` or `complex_int16`.
    """
    return 8 if dtype.startswith("complex_int") else int(np.dtype(dtype).itemsize)


def check_memory(dataset: DatasetReader, pixels: int) -> None:
    """Refuse a read whose size in memory is implausible for the size of the file.

    Args:
        dataset: The file.
        pixels: Number of pixels to read.

    Raises:
        RasterError: If the file cannot hold that many.
    """
    if pixels * _WIDEST <= _ALWAYS:
        return  # the usual case; this runs for every read
    asked = pixels * bytes_of(dataset.dtypes[0])
    if asked <= _ALWAYS or dataset.driver != "GTiff":
        return
    try:
        size = os.stat(dataset.name).st_size  # noqa: PTH116 (a GDAL name, not a path)
    except OSError:
        return  # remote, or in an archive
    if asked > _RATIO * size:
        raise RasterError(
            "the image is implausibly large for the size of its file",
            found=f"{asked / 2**30:.1f} GiB of pixels, from {size} bytes",
            expected=f"at most {_RATIO} times its size",
            where=dataset.name,
            remedy="copy or download it again; if most of it is empty, read windows of it",
        )


def read_valid(
    dataset: DatasetReader, indexes: Sequence[int], window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of some bands, 0 where declared unmeasured, and a mask.

    Args:
        dataset: The file.
        indexes: Band numbers, counted from 1.
        window: Window in pixels of the file.

    Returns:
        Values (c, h, w) and mask (h, w), True where all bands hold a measurement.

    Raises:
        RasterError: If the file is damaged, or its values are not real numbers.
    """
    alphas = [i for i in _alphas(dataset) if i not in indexes]
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
    """Return where masks of the file exclude pixels: (h, w) or (c, h, w)."""
    every = dataset.mask_flag_enums
    flags = [every[i - 1] for i in indexes]
    found: list[NDArray[np.bool_]] = []
    if any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in flags):
        found.append(dataset.read_masks(indexes[0], window=place) == 0)
    elif not all(flags):  # a mask for each band, possible in a VRT
        found.append(dataset.read_masks(list(indexes), window=place) == 0)
    found += [dataset.read(i, window=place) == 0 for i in masks]
    return np.logical_or.reduce(np.broadcast_arrays(*found)) if found else None


def _as_plane(stored: NDArray[Any], where: str) -> NDArray[Any]:
    if stored.dtype in (np.uint8, np.uint16):
        return stored.astype(np.uint16, copy=False)
    if stored.dtype.kind not in "iuf":
        raise RasterError(
            "pixels must be real numbers",
            found=stored.dtype,
            where=where,
            remedy="calibrate the product first, for example with SNAP or pyroSAR: of complex "
            "radar data (SLC), only the backscatter can be read"
            if stored.dtype.kind == "c"
            else None,
        )
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and so invalid
        return stored.astype(np.float32, copy=False)


def _can_occur(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a nodata value can occur in the data type (-9999 cannot in uint16)."""
    if dtype.kind == "f" or not math.isfinite(nodata):
        return math.isfinite(nodata)  # NaN and infinity are invalid in any case
    limits = np.iinfo(dtype)
    return nodata == int(nodata) and limits.min <= nodata <= limits.max
