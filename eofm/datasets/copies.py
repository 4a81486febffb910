"""Images that hold the same pixels: a leak where one is in test and the other in train or val.

Content decides, not names and not files: the sha256 of the values as they are read, in the unit
they are stored in. A copy that was renamed, compressed otherwise or given other tags is a copy; two
files of one name are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from eofm.datasets.chips import Pixels, Place, Stored
from eofm.store.splits import SPLITS

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


@dataclass(frozen=True)
class Content:
    """The pixels of one image, told by their values.

    Args:
        pixels: Where they are.
    """

    pixels: Pixels

    @property
    def place(self) -> Place:
        """Where the image is: as long as its files stay, so does the digest."""
        return self.pixels.place

    def digest(self) -> str:
        """Return the sha256 of the values as read, and of which of them are measured.

        Raises:
            RasterError: If a file is damaged, or the image is not of the stated kind.
        """
        imagery = self.pixels.read()
        digest = hashlib.sha256(f"{imagery.spec.bands} {tuple(imagery.pixels.shape)}".encode())
        digest.update(np.ascontiguousarray(imagery.pixels.numpy()).data)
        digest.update(np.ascontiguousarray(imagery.valid.numpy()).data)
        return digest.hexdigest()


def contents(images: Sequence[Image]) -> dict[str, tuple[Stored, ...]]:
    """Return what has to be hashed to compare the contents of images, by name.

    The names differ from those under which the same images are hashed as files.
    """
    return {_key(one): tuple(Content(pixels) for pixels in one.pixels) for one in images}


def _key(image: Image) -> str:
    return f"{image.id} values"


def copies_in_test(splits: Splits, digests: Mapping[str, str]) -> dict[str, str]:
    """Return test images that hold the pixels of one of train or val: name -> its name.

    Args:
        splits: The images.
        digests: The hashes of their `contents`.
    """
    seen = {digests[_key(c)]: c.id for name in ("train", "val") for c in splits[name]}
    test = [(one.id, digests[_key(one)]) for one in splits["test"]]
    return {name: seen[digest] for name, digest in test if digest in seen}


def copy_remarks(splits: Splits, digests: Mapping[str, str], root: Path) -> tuple[str, ...]:
    """Return remarks that name the files of copies: of test in train or val, and within a split.

    Args:
        splits: The images.
        digests: The hashes of their `contents`.
        root: The folder that file names are relative to.
    """
    by_id = {one.id: one for name in SPLITS for one in splits[name]}
    across = copies_in_test(splits, digests)
    within: dict[str, str] = {}
    for name in SPLITS:
        seen: dict[str, str] = {}
        for one in splits[name]:
            first = seen.setdefault(digests[_key(one)], one.id)
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
