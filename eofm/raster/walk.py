"""The files of a folder and its subfolders, for every list of images.

Hidden files and folders are left out (unpacking on a Mac leaves `._a.tif` beside `a.tif`), and so
are folders whose names look like those of images. Links to folders are followed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from eofm.errors import DataError


def walk_files(folder: Path, endings: Collection[str]) -> list[Path]:
    """Return the files below a folder that have one of some endings, in order of their paths.

    Args:
        folder: Where to look.
        endings: In small letters, with their point.

    Raises:
        DataError: If a link leads back to a folder above it, or a folder cannot be listed.
    """
    found: list[Path] = []
    _walk(folder, frozenset(endings), (), found)
    return sorted(found)


def _walk(
    folder: Path, endings: frozenset[str], above: tuple[tuple[int, int], ...], found: list[Path]
) -> None:
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError("a folder cannot be listed", found=error, where=folder) from error
    own = (status.st_dev, status.st_ino)
    if own in above:
        raise DataError(
            "a link leads back to a folder above it",
            found=folder.resolve(),
            where=folder,
            remedy="remove the link",
        )
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            _walk(folder / entry.name, endings, (*above, own), found)
        elif Path(entry.name).suffix.lower() in endings:
            found.append(folder / entry.name)


def names_of(files: Iterable[Path], folder: Path) -> dict[Path, str]:
    """Return a name for each file, no two alike: its path in the folder, without its ending.

    Files that differ in their ending only, such as `a.tif` and `a.tiff`, keep it.
    """
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return {
        file: name if len(same) == 1 else file.relative_to(folder).as_posix()
        for name, same in by_name.items()
        for file in same
    }
