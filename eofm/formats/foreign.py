"""Handling of files that may be foreign, damaged or malicious.

Parsers raise many kinds: ValueError, KeyError, RecursionError, ArrowInvalid, UnpicklingError,
MemoryError. `foreign` converts all of them into one error of the package; readers run inside it.

Checksums detect damage and manual edits: of a JSON object within itself, of a file, of a line. They
are not signatures, and do not prevent forgery.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from eofm.errors import EofmError

__all__ = [
    "CHECKSUM",
    "CRC",
    "SETTLED_NS",
    "advice",
    "digest",
    "file_sha256",
    "foreign",
    "fresh_sha256",
    "in_words",
    "line_is_whole",
    "look_of",
    "mark_whole",
    "opened",
    "read_bounded",
    "sealed",
    "sealed_line",
    "seen_whole",
]

# ------------------------------------------------------------------------------------------- errors

_SHOWN: Final = 300  # characters of a parser's message


@contextlib.contextmanager
def foreign(
    kind: type[EofmError],
    problem: str,
    *,
    where: object,
    expected: object = None,
    remedy: str | None = None,
    passing: tuple[type[EofmError], ...] = (),
) -> Iterator[None]:
    """Convert every failure of the body into one error; errors of that kind pass unchanged.

    Args:
        kind: Class to raise, with the constructor of `EofmError`.
        problem: Problem, in one sentence.
        where: The file.
        expected: Expected content.
        remedy: What the user can do.
        passing: Further errors of the package that are more specific, and pass unchanged.
    """
    try:
        yield
    except (kind, *passing):
        raise
    except Exception as error:
        raise kind(
            problem,
            found=in_words(error),
            expected=expected,
            where=where,
            remedy=advice(error, remedy),
        ) from error


_Advice = TypeVar("_Advice", bound=str | None)

_PERMISSIONS: Final = "check the permissions of the file and of its folder"
_OPEN_FILES: Final = "raise the limit of open files: ulimit -n 4096"
_ADVICE: Final[Mapping[int, str]] = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "name a folder on a disk that is not read-only",
    errno.ENOSPC: "free some space",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or name a folder on another disk",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: "free memory",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def advice(error: BaseException, otherwise: _Advice) -> str | _Advice:
    """Return what the user can do about an operation that the system refused.

    A file that cannot be opened for lack of memory or handles is not damaged, and must not be
    replaced. A file may also ask for more memory than there is because it is damaged, so both are
    named.

    Args:
        error: The failure.
        otherwise: Advice if the cause is not the system.

    >>> advice(OSError(errno.EMFILE, "Too many open files"), "copy the file again")
    'raise the limit of open files: ulimit -n 4096'
    >>> advice(MemoryError(), "copy the file again")
    'free memory; if that does not help, copy the file again'
    >>> advice(ValueError("no JSON"), "copy the file again")
    'copy the file again'
    """
    if isinstance(error, MemoryError):
        return "free memory" + (f"; if that does not help, {otherwise}" if otherwise else "")
    number = error.errno if isinstance(error, OSError) else None
    return otherwise if number is None else _ADVICE.get(number, otherwise)


def in_words(error: BaseException) -> str:
    """Return the message of an exception in one line that fits a terminal."""
    match error:
        case EofmError():
            said = str(error.problem) + ("" if error.found is None else f": {error.found}")
        case FileNotFoundError():
            said = "no such file"
        case OSError(strerror=str(words)):
            said = words
        case RecursionError():
            said = "it is nested too deeply"
        case MemoryError():
            said = "it asks for more memory than there is" + (f": {error}" if str(error) else "")
        case OSError(__cause__=Exception() as cause) if "previous exception" in str(error):
            return in_words(cause)  # as rasterio refers to GDAL's message
        case KeyError():
            said = f"no {str(error)[:_SHOWN]}"
        case _:
            said = f"{type(error).__name__}: {error}"
    line = " ".join(said.split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file.

    Devices and pipes are rejected: reading /dev/zero would never end.

    Args:
        path: The file.
        limit: Maximum size in bytes.

    Raises:
        OSError: If it does not exist, or cannot be read.
        ValueError: If it is not a regular file, or is too large.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no plain file")
    if found.st_size > limit:
        raise ValueError(f"it has {found.st_size} bytes, more than the {limit} that are read")
    with path.open("rb") as file:
        return file.read(found.st_size)  # Python allocates all that may be read


# ---------------------------------------------------------------------------------------- checksums

CHECKSUM: Final = "checksum"
CRC: Final = "crc32"
"""Key of the checksum that ends a line of JSON."""
_MARK: Final = b', "%s": "' % CRC.encode()
_END: Final = b'"}\n'
_CRC_CHARACTERS: Final = 8


def digest(plain: object) -> str:
    """Return the sha256 of JSON content, independent of layout and key order.

    >>> digest({"b": 1, "a": [0.1]}) == digest({"a": [0.1], "b": 1})
    True
    """
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a checksum of its other keys, as its last key."""
    rest = {key: value for key, value in plain.items() if key != CHECKSUM}
    return {**rest, CHECKSUM: digest(rest)}


def opened(plain: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """Return a JSON object without its checksum, and whether that matches; None if it has none."""
    rest = {key: value for key, value in plain.items() if key != CHECKSUM}
    return rest, None if CHECKSUM not in plain else plain[CHECKSUM] == digest(rest)


def sealed_line(plain: Mapping[str, Any]) -> bytes:
    """Return a non-empty object as a line of JSON that ends with the crc32 of the rest."""
    text = json.dumps(plain).encode()[:-1]
    return b"%s%s%08x%s" % (text, _MARK, zlib.crc32(text), _END)


def line_is_whole(line: bytes) -> bool | None:
    """Return whether a line matches its checksum; None if it has none."""
    body, tail = line[: -_CRC_CHARACTERS - len(_END)], line[-_CRC_CHARACTERS - len(_END) :]
    if not (body.endswith(_MARK) and tail.endswith(_END)):
        return None
    text = body.removesuffix(_MARK)
    return tail.removesuffix(_END) == b"%08x" % zlib.crc32(text)


_KNOWN: Final[dict[tuple[str, str], tuple[tuple[int, ...], str]]] = {}
# A recently written file could change again within the resolution of its clock.
SETTLED_NS: int = 2_000_000_000


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, cached for files that were not modified since.

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
    """Return the sha256 of a file in its current state.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settled(status: os.stat_result) -> bool:
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) >= SETTLED_NS


def look_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return the properties that change on writing: inode, size, times of content and entry."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def seen_whole(path: Path) -> bool:
    """Return whether this process found a file intact before, and it was not modified since."""
    return _KNOWN.get((str(path), "whole"), ((), ""))[0] == look_of(path.stat())


def mark_whole(path: Path, status: os.stat_result) -> None:
    """Remember that a file was found intact.

    Args:
        path: The file.
        status: Its status before it was read.
    """
    if _settled(status):
        _KNOWN[str(path), "whole"] = look_of(status), ""
