"""Images that hold the same pixels: a leak where one is in test and the other in train or val.

Content decides, not names and not files: the sha256 of the values as they are read, in the unit
they are stored in. A copy that was renamed, compressed otherwise or given other tags is a copy; two
files of one name are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from eofm.datasets.images.chips import Pixels
from eofm.store.splits import SPLITS

__all__ = ["Image", "Splits", "copies_in_test", "copy_remarks", "values_sha256"]

_NAMED: Final = 5


class Image(Protocol):
    """One image of a task."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def pixels(self) -> tuple[Pixels, ...]:
        """One entry per sensor."""
        ...


Splits = Mapping[str, Sequence[Image]]


def values_sha256(image: Image) -> str:
    """Return the sha256 of the values of an image as read, and of which of them are measured.

    Raises:
        RasterError: If a file is damaged, or the image is not of the stated kind.
    """
    digest = hashlib.sha256()
    for pixels in image.pixels:
        imagery = pixels.read()
        digest.update(f"{imagery.spec.bands} {tuple(imagery.pixels.shape)}".encode())
        digest.update(np.ascontiguousarray(imagery.pixels.numpy()).data)
        digest.update(np.ascontiguousarray(imagery.valid.numpy()).data)
    return digest.hexdigest()


def copies_in_test(splits: Splits, digests: Mapping[str, str]) -> dict[str, str]:
    """Return test images that hold the pixels of one of train or val: name -> its name.

    Args:
        splits: The images.
        digests: The `values_sha256` of each, by name.
    """
    seen = {digests[c.id]: c.id for name in ("train", "val") for c in splits[name]}
    test = [(one.id, digests[one.id]) for one in splits["test"]]
    return {name: seen[digest] for name, digest in test if digest in seen}


def copy_remarks(splits: Splits, digests: Mapping[str, str], root: Path) -> tuple[str, ...]:
    """Return remarks that name the files of copies: of test in train or val, and within a split.

    Args:
        splits: The images.
        digests: The `values_sha256` of each, by name.
        root: The folder that file names are relative to.
    """
    by_id = {one.id: one for name in SPLITS for one in splits[name]}
    across = copies_in_test(splits, digests)
    within: dict[str, str] = {}
    for name in SPLITS:
        seen: dict[str, str] = {}
        for one in splits[name]:
            first = seen.setdefault(digests[one.id], one.id)
            if first != one.id:
                within[one.id] = first
    said = []
    for what, found in (
        ("Leak: copies of training images in test", across),
        ("Images that are there twice within a split", within),
    ):
        if found:
            pairs = [
                f"{_file(by_id[a], root)} is {_file(by_id[b], root)}" for a, b in found.items()
            ]
            more = f" and {len(pairs) - _NAMED} more" if pairs[_NAMED:] else ""
            said.append(f"{what}: {', '.join(pairs[:_NAMED])}{more}. Remove one of each two files.")
    return tuple(said)


def _file(image: Image, root: Path) -> str:
    """Return the first file of an image, and which part of it; its name tells no more."""
    place = image.pixels[0].place
    file = place.files[0]
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return f"{shown} ({place.part})" if place.part else str(shown)
