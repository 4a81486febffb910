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
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from eofm.bench.cache import not_kept
from eofm.data.chips import Chip, Chips
from eofm.durable import replacing
from eofm.progress import track

_VERSION: Final = 1
_SETTLED_NS: Final = 2_000_000_000

# id -> (how its files looked, sha256 of the image)
_Known = Mapping[str, tuple[str, str]]


def digests_of(chips: Chips, cache: Path | None = None) -> dict[str, str]:
    """Return the sha256 of every image as stored, by id.

    Args:
        chips: The images.
        cache: Folder in which they are remembered; None hashes all of them.

    Raises:
        RasterError: If an image cannot be read.
        DataError: If the folder cannot be written.
    """
    name = hashlib.sha256(str(chips.root.resolve()).encode()).hexdigest()[:16]
    file = None if cache is None else cache / f"digests-{name}.json"
    known = {} if file is None else _read(file)
    looks: dict[Path, str] = {}
    seen: dict[str, tuple[str, str]] = {}
    for chip in track(chips.all, "hashing images"):
        look = "" if file is None else _look_of(chip, looks)  # before it is read
        before, digest = known.get(chip.id, ("", ""))
        if not look or before != look:
            digest = _digest(chip)
        seen[chip.id] = look, digest
    fresh = {image: pair for image, pair in seen.items() if pair[0] and known.get(image) != pair}
    if file is not None and fresh:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                content = {"version": _VERSION, "images": {**known, **fresh}}
                temporary.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            raise not_kept(error, file.parent) from error
    return {image: digest for image, (_, digest) in seen.items()}


def _digest(chip: Chip) -> str:
    parts = [pixels.digest() for pixels in chip.pixels]
    return parts[0] if len(parts) == 1 else hashlib.sha256("+".join(parts).encode()).hexdigest()


def _read(file: Path) -> dict[str, tuple[str, str]]:
    """Return what is remembered; nothing where the file is not whole."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            return {}
        return {str(image): (str(a), str(b)) for image, (a, b) in content["images"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _look_of(chip: Chip, looks: dict[Path, str]) -> str:
    """Return how the files of an image look from outside; empty if that may not be trusted."""
    parts = []
    for file in (file for pixels in chip.pixels for file in pixels.files):
        if file not in looks:
            looks[file] = _look(file)
        if not looks[file]:
            return ""
        parts.append(looks[file])
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32] if parts else ""


def _look(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return ""  # reading it will say what is wrong
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED_NS:
        return ""
    return f"{file} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
