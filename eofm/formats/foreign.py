"""The border to files that something else may have written, damaged or made up.

Parsers raise what they like: ValueError, KeyError, RecursionError, ArrowInvalid, UnpicklingError,
MemoryError. `foreign` turns all of it into one error of the package; a reader is the body of it.

Checksums find damage and edits by hand: of a JSON object inside itself, of a file, of a line. They
are no signature, and keep nobody from making another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from eofm.errors import EofmError

__all__ = [
    "CHECKSUM",
    "SETTLED_NS",
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

_SHOWN: Final = 300  # characters of a parser's words


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
    """Turn every failure of the body into one error; one of that kind passes as it is.

    Args:
        kind: What is raised: a class whose constructor is that of `EofmError`.
        problem: What went wrong, in one sentence.
        where: The file.
        expected: What should have been there.
        remedy: What the user can do.
        passing: Further errors of the package that say better what is wrong, and pass.
    """
    try:
        yield
    except (kind, *passing):
        raise
    except Exception as error:
        raise kind(
            problem, found=in_words(error), expected=expected, where=where, remedy=remedy
        ) from error


def in_words(error: Exception) -> str:
    """Return what an exception says, in one line that fits a terminal."""
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
            said = f"it asks for more memory than there is: {error}"
        case KeyError():
            said = f"no {str(error)[:_SHOWN]}"
        case _:
            said = f"{type(error).__name__}: {error}"
    line = " ".join(said.split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of a plain file.

    A device or a pipe is no file: /dev/zero would be read for ever.

    Args:
        path: The file.
        limit: How many bytes it may have.

    Raises:
        OSError: If there is none, or it cannot be read.
        ValueError: If it is no plain file, or longer.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no plain file")
    if found.st_size > limit:
        raise ValueError(f"it has {found.st_size} bytes, more than the {limit} that are read")
    with path.open("rb") as file:
        return file.read(limit)


# ---------------------------------------------------------------------------------------- checksums

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
