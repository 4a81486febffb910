"""The border to files that something else may have written, damaged or made up.

Parsers raise what they like: ValueError, KeyError, RecursionError, ArrowInvalid, UnpicklingError,
MemoryError. `foreign` turns all of it into one error of the package; a reader is the body of it.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from eofm.errors import EofmError

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
