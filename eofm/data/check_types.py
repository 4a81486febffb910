"""What `eofm data check` talks about: images to look at, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eofm.data.raster import RasterSource


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        problem: In one sentence, the same for every image with this fault.
        name: Which image, file or row.
        found: What was found.
    """

    problem: str
    name: str
    found: str


@dataclass(frozen=True)
class Subject:
    """An image to look at: its name, and what finds its files."""

    name: str
    source: Callable[[], RasterSource]


@dataclass(frozen=True)
class Group:
    """Images of one kind.

    Args:
        name: What they are called.
        subjects: The images.
        size: The size they must have; None: that of most of them.
        any_size: Whether images may differ in size.
        prefix: Goes before the name of an image.
    """

    name: str
    subjects: Sequence[Subject]
    size: tuple[int, int] | None = None
    any_size: bool = False
    prefix: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set as its folders and lists describe it.

    Args:
        kind: What it is.
        counts: What was counted -> how many.
        groups: The images.
        findings: What is wrong already.
        labelled: How many images have labels.
        classes: Class -> images it is present in.
        notes: What the user should know and is not wrong.
    """

    kind: str
    counts: Mapping[str, int]
    groups: Sequence[Group]
    findings: Sequence[Finding] = ()
    labelled: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Fixed:
    """An image whose files are known."""

    image: RasterSource

    def __call__(self) -> RasterSource:
        """Return where its pixels are."""
        return self.image


def spread(count: int, limit: int) -> list[int]:
    """Return up to `limit` of the numbers below `count`, spread evenly; all where limit is 0."""
    if not limit or count <= limit:
        return list(range(count))
    return [k * (count - 1) // max(limit - 1, 1) for k in range(limit)]
