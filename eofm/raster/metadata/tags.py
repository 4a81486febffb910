"""What the tags of a file say: when the image was taken, and where it lies.

TIFFTAG_DATETIME is no date of acquisition: it is the time at which the file was written.

The georeference comes from the bytes of the file, at a tenth of the cost of opening it for that.
GDAL builds a CRS for every file it opens. The bands of one image have the same CRS: where the bytes
that define it are equal, one file is opened in full and the others without. Only the plain case is
read here (little-endian, not BigTIFF, one tie point, pixels as areas); for any other the answer
is None, and GDAL is asked. Tags and keys: OGC GeoTIFF 1.1 (19-008r4), sections 7 and 8.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from affine import Affine

# In order of preference; names are compared in upper case, in which HLS, Landsat and SNAP write
# theirs. The start counts where a product states start and end.
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
    """Return the time that a text states, in UTC without saying so, or None."""
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


_HEAD: Final = 8192  # bytes that hold the directory of nearly every file
_SCALE, _TIE, _MATRIX, _KEYS, _DOUBLES, _TEXT = 33550, 33922, 34264, 34735, 34736, 34737
_WIDTHS: Final = {2: 1, 3: 2, 12: 8}  # bytes of the types of these tags: text, short, double
_RASTER_TYPE: Final = 1025
_PIXEL_IS_AREA: Final = 1


@dataclass(frozen=True)
class GeoTags:
    """Where a file lies.

    Args:
        transform: From (column, row) of a pixel's corner to coordinates.
        keys: What defines its CRS, as it stands in the file.
    """

    transform: Affine
    keys: tuple[bytes, ...]


def read_geo_tags(file: Path) -> GeoTags | None:
    """Return where a file lies, or None where it is not the plain case or cannot be read."""
    try:
        with file.open("rb", buffering=0) as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    if head[:4] != b"II*\0" or len(head) < 8:
        return None
    try:
        return _parse(head)
    except (struct.error, KeyError):
        return None  # another type, or beyond the bytes that were read


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
                return None  # stands in the directory itself: none of these does
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
