"""What a user writes for a raster, and what GDAL opens: paths, addresses on the net, archives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from eofm.errors import RasterError

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
