"""Writing files so that a crash leaves the old or the new, never a mixture; listing folders."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from eofm.errors import DataError

if sys.platform == "win32":
    BINARY: Final = os.O_BINARY  # or line ends are translated
else:
    BINARY: Final = 0


def unfinished(file: Path) -> Path:
    """Return the name a file has while it is being written."""
    return file.with_name(file.name + ".tmp")


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Let the body write a temporary file; then sync it and put it in the place of `file`."""
    temporary = unfinished(file)
    yield temporary
    handle = os.open(temporary, os.O_RDWR | BINARY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a loss of power."""
    if sys.platform != "win32":  # where folders cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_all(handle: int, data: memoryview) -> None:
    """Write all of `data`: one call may write less, as when the disk is nearly full."""
    while data:
        data = data[os.write(handle, data) :]


def walk(root: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the files of a folder and its subfolders that end in one of some suffixes, sorted.

    Symlinked folders are followed. Hidden files, as macOS writes them (`._a.tif`), are left out.

    Args:
        root: The folder.
        suffixes: Endings in lower case, with their dot.

    Raises:
        DataError: If a symlink leads back to a folder above it.
    """
    wanted, found = frozenset(suffixes), []
    waiting: list[tuple[str, tuple[str, ...]]] = [(str(root), (os.path.realpath(root),))]
    while waiting:
        folder, above = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real in above:
                        raise DataError(
                            "a symlink in the folder leads back to a folder above it",
                            found=f"{entry.path} -> {real}",
                            where=root,
                            remedy=f"remove the link: rm {entry.path}",
                        )
                    waiting.append((entry.path, (*above, real)))
                elif Path(entry.name).suffix.lower() in wanted and entry.name[0] != ".":
                    found.append(Path(entry.path))
    return sorted(found)
