"""Checksums of what is true: of a JSON object inside itself, of a file, of a line.

A checksum finds damage and edits by hand; it is no signature, and keeps nobody from making another.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

CHECKSUM: Final = "checksum"
_MARK: Final = b', "crc32": "'
_END: Final = b'"}\n'
_CRC_CHARACTERS: Final = 8


def digest(plain: object) -> str:
    """Return the sha256 of what JSON holds, whatever its layout and the order of its keys.

    >>> digest({"b": 1, "a": [0.1]}) == digest({"a": [0.1], "b": 1})
    True
    """
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the checksum of the rest of it, as its last key."""
    rest = {key: value for key, value in plain.items() if key != CHECKSUM}
    return {**rest, CHECKSUM: digest(rest)}


def opened(plain: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """Return a JSON object without its checksum, and whether that is right; None: it has none."""
    rest = {key: value for key, value in plain.items() if key != CHECKSUM}
    return rest, None if CHECKSUM not in plain else plain[CHECKSUM] == digest(rest)


def sealed_line(plain: Mapping[str, Any]) -> bytes:
    """Return an object that is not empty as a line of JSON that ends in the crc32 of the rest."""
    text = json.dumps(plain).encode()[:-1]
    return b"%s%s%08x%s" % (text, _MARK, zlib.crc32(text), _END)


def line_is_whole(line: bytes) -> bool | None:
    """Return whether a line is the one that was written; None: it has no checksum."""
    body, tail = line[: -_CRC_CHARACTERS - len(_END)], line[-_CRC_CHARACTERS - len(_END) :]
    if not (body.endswith(_MARK) and tail.endswith(_END)):
        return None
    text = body.removesuffix(_MARK)
    return tail.removesuffix(_END) == b"%08x" % zlib.crc32(text)


_KNOWN: Final[dict[tuple[str, str], tuple[tuple[int, ...], str]]] = {}
# A file that was written moments ago could change once more within a tick of its clock.
SETTLED_NS: int = 2_000_000_000


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file; of one that was not touched since, as remembered.

    Raises:
        OSError: If it cannot be read.
    """
    key, status = (str(path), "sha256"), path.stat()
    if _KNOWN.get(key, ((), ""))[0] == look_of(status):
        return _KNOWN[key][1]
    found = fresh_sha256(path)
    if _settled(status):
        _KNOWN[key] = look_of(status), found
    return found


def fresh_sha256(path: Path) -> str:
    """Return the sha256 of a file as it is now.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settled(status: os.stat_result) -> bool:
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) >= SETTLED_NS


def look_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what changes when a file is written: inode, size, times of content and entry."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def seen_whole(path: Path) -> bool:
    """Return whether a file was found whole before by this process, and not touched since."""
    return _KNOWN.get((str(path), "whole"), ((), ""))[0] == look_of(path.stat())


def mark_whole(path: Path, status: os.stat_result) -> None:
    """Remember that a file was found whole.

    Args:
        path: The file.
        status: As it was before it was read.
    """
    if _settled(status):
        _KNOWN[str(path), "whole"] = look_of(status), ""
