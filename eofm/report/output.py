"""What every figure and page has in common: names that can be shown, and files that are written."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Final

from eofm.errors import DataError
from eofm.io import replacing

# Direction overrides and isolates: they would turn round the text that follows a name.
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
# Control characters, halves of surrogate pairs (from file names), line and paragraph separators.
_UNSEEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def printable(text: object) -> str:
    r"""Return a text of which every character can be shown; others stand as their escapes.

    Line ends and tabs stay.

    >>> printable("a\x00b\udcffc"), printable("one\ntwo")
    ('a\\x00b\\udcffc', 'one\ntwo')
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _TURNING
        or (unicodedata.category(character) in _UNSEEN and character not in "\n\t")
        else character
        for character in str(text)
    )


def shorten(name: str, length: int = 36, *, keep_end: bool = False) -> str:
    """Return a name on one line that leaves room for the figure: long ones are cut, and say so.

    Args:
        name: Of a class, a model or an image.
        length: Largest number of characters.
        keep_end: Whether the end is what tells the name from others, as in an identifier.

    >>> shorten("land principally occupied by agriculture", 20)
    'land principally oc…'
    """
    line = " ".join(printable(name).split())
    if len(line) <= length:
        return line
    return f"…{line[1 - length :]}" if keep_end else f"{line[: length - 1].rstrip(' ,')}…"


def write_file(path: Path, content: bytes, remedy: str = "name another --out") -> Path:
    """Write a file, with the folders above it, so that a crash leaves the old one or the new one.

    Args:
        path: The file.
        content: All of it.
        remedy: What helps where it cannot be written.

    Returns:
        The path.

    Raises:
        DataError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(
            "the file cannot be written",
            found=error.strerror or error,
            where=path,
            remedy=remedy,
        ) from error
    return path
