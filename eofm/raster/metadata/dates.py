"""When an image was taken, as the metadata of its product say it.

TIFFTAG_DATETIME is not among them: it is the time at which the file was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

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
