"""The sha256 of every image as stored, remembered as long as its files stay as they are.

A whole data set is read again to hash it, which takes longer than a probe on cached features.
So what was hashed is kept with the size, inode and times of its files, as version control does. A
file that was written moments ago is hashed every time: it could change once more within the tick
of the file system's clock.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from eofm.bench.cache import keep_json
from eofm.datasets.chips import Stored
from eofm.progress import track

_VERSION: Final = 1
_SETTLED_NS: Final = 2_000_000_000


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def content_sha256(images: Iterable[_Named], digests: Mapping[str, str]) -> str:
    """Return the sha256 of ids and images as stored, in order.

    Args:
        images: Of which the ids count.
        digests: `digests_of` them.
    """
    text = "\n".join(f"{image.id} {digests[image.id]}" for image in images)
    return hashlib.sha256(text.encode()).hexdigest()


def digests_of(
    root: Path, images: Mapping[str, Sequence[Stored]], cache: Path | None = None
) -> dict[str, str]:
    """Return the sha256 of every image as stored, by id.

    Args:
        root: Folder of the data set.
        images: Id -> what belongs to the image: pixels of one sensor or of two, a mask.
        cache: Folder in which they are remembered; None hashes all of them.

    Raises:
        RasterError: If an image cannot be read.
        DataError: If the folder cannot be written.
    """
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    file = None if cache is None else cache / f"digests-{name}.json"
    known = {} if file is None else _read(file)
    looks: dict[Path, str] = {}
    digests: dict[str, str] = {}
    fresh: dict[str, tuple[str, str]] = {}
    for image, parts in track(images.items(), "hashing images", len(images)):
        look = "" if file is None else _look_of(parts, looks)  # before it is read
        before, digest = known.get(image, ("", ""))
        if not look or before != look:
            digest = _digest(parts)
            if look:
                fresh[image] = look, digest
        digests[image] = digest
    if file is not None and fresh:
        keep_json(file, {"version": _VERSION, "images": {**known, **fresh}})
    return digests


def _digest(parts: Sequence[Stored]) -> str:
    found = [part.digest() for part in parts]
    return found[0] if len(found) == 1 else hashlib.sha256("+".join(found).encode()).hexdigest()


def _read(file: Path) -> dict[str, tuple[str, str]]:
    """Return what is remembered; nothing where the file is not whole."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            return {}
        return {str(image): (str(a), str(b)) for image, (a, b) in content["images"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _look_of(parts: Sequence[Stored], looks: dict[Path, str]) -> str:
    """Return where an image is and how its files look; empty if that may not be trusted."""
    places = [part.place for part in parts]
    files = [file for place in places for file in place.files]
    for file in files:
        if file not in looks:
            looks[file] = _look(file)
    found = [looks[file] for file in files]
    if not found or not all(found):
        return ""
    said = "|".join([*found, *(place.part for place in places)])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _look(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return ""  # reading it will say what is wrong
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED_NS:
        return ""
    return f"{file} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
