"""The terms of `eofm data check`: images to read, what is wrong, and the report.

No heavy library is loaded: the declarations of data sets import this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from eofm.contract.spec import ImageSpec
from eofm.datasets.images.chips import Chip, class_counts, source_of

if TYPE_CHECKING:
    from eofm.raster.source import RasterSource

__all__ = [
    "CheckGroup",
    "CheckReport",
    "Described",
    "Finding",
    "Subject",
    "counted_only",
    "described_chips",
    "known_source",
    "spread",
]

_NAMED: Final = 5  # images named per problem


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        problem: One sentence, the same for every image with this fault.
        name: Which image, file or row.
        found: What was found.
        band: Which band, where it is one.
    """

    problem: str
    name: str
    found: str
    band: str = ""

    def describe(self) -> str:
        """Return image, band and what was found, in one line."""
        return f"{self.name}{self.band and f', {self.band}'}: {self.found}"


@dataclass(frozen=True)
class Subject:
    """An image to look at: its name, and what finds its files."""

    name: str
    source: Callable[[], RasterSource]


@dataclass(frozen=True)
class CheckGroup:
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
class Described:
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
    groups: Sequence[CheckGroup]
    findings: Sequence[Finding] = ()
    labelled: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def known_source(source: RasterSource) -> Subject:
    """Return an image to look at whose files are known."""
    return Subject(source.name, lambda: source)


def described_chips(
    kind: str,
    splits: Mapping[str, Sequence[Chip]],
    classes: Sequence[str],
    spec: ImageSpec,
    size: int,
    *,
    divided: bool = True,
    what: str = "images",
) -> Described:
    """Describe a data set whose images are single files with labels.

    Args:
        kind: What it is.
        splits: Split -> the images.
        classes: Class names in the order of the label indices.
        spec: What the images are.
        size: Number of images of the whole set.
        divided: Whether the division is one of the data set, and to be told.
        what: What its images are called.
    """
    every = sorted((c for part in splits.values() for c in part), key=lambda chip: chip.id)
    notes = [f"{name}: {len(part)} {what}" for name, part in splits.items()] if divided else []
    if len(every) != size:
        notes.append(f"a part of {kind}: the published set has {size} {what}")
    subjects = [Subject(chip.id, partial(source_of, chip)) for chip in every]
    return Described(
        kind,
        {what: len(every)},
        [CheckGroup(what, subjects, spec.size)],
        labelled=len(every),
        classes=class_counts(every, classes),
        notes=notes,
    )


def counted_only(total: int, looked_at: int) -> list[str]:
    """Return a note if not all images were read."""
    left = total - looked_at
    return [f"{left} images were counted only; --limit 0 reads all"] if left else []


def spread(count: int, limit: int) -> list[int]:
    """Return up to `limit` of the numbers below `count`, spread evenly; all where limit is 0."""
    if not limit or count <= limit:
        return list(range(count))
    return [k * (count - 1) // max(limit - 1, 1) for k in range(limit)]


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Args:
        path: What was looked at.
        kind: What it is.
        counts: What was counted -> how many.
        looked_at: How many images were read whole.
        findings: What is wrong, image by image.
        labelled: How many images have labels.
        classes: Class -> images it is present in.
        notes: What the user should know and is not wrong.
        as_json: Whether `describe` returns JSON.
    """

    path: str
    kind: str
    counts: Mapping[str, int]
    looked_at: int
    findings: tuple[Finding, ...]
    labelled: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    as_json: bool = False

    @property
    def status(self) -> int:
        """Exit status: 1 if anything is wrong."""
        return int(bool(self.findings))

    @property
    def by_problem(self) -> dict[str, list[Finding]]:
        """Problem -> findings, the most frequent first."""
        problems: dict[str, list[Finding]] = {}
        for finding in self.findings:
            problems.setdefault(finding.problem, []).append(finding)
        return dict(sorted(problems.items(), key=lambda item: -len(item[1])))

    def describe(self) -> str:
        """Return the report for the terminal, or as JSON."""
        return self._json() if self.as_json else "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.path}: {self.kind}"
        yield from (f"  {count:8d} {what}" for what, count in self.counts.items())
        yield f"  {self.looked_at:8d} images read whole"
        yield from (f"  note: {note}" for note in self.notes)
        if self.classes:
            yield f"  labels of {self.labelled} images"
            width = max(map(len, self.classes))
            for name, count in self.classes.items():
                share = count / max(self.labelled, 1)
                yield f"    {name:{width}} {count:8d} {share:6.1%}"
        if not self.findings:
            yield "  nothing is wrong"
        for problem, found in self.by_problem.items():
            yield f"  WRONG ({len(found)}): {problem}"
            yield from (f"    {f.describe()}" for f in found[:_NAMED])
            if found[_NAMED:]:
                yield f"    and {len(found) - _NAMED} more"

    def _json(self) -> str:
        wrong = [
            {
                "problem": problem,
                "images": [
                    {"name": f.name, "found": f.found} | ({"band": f.band} if f.band else {})
                    for f in found
                ],
            }
            for problem, found in self.by_problem.items()
        ]
        plain = {
            "path": self.path,
            "kind": self.kind,
            "counts": dict(self.counts),
            "looked_at": self.looked_at,
            "labels": {"images": self.labelled, "classes": dict(self.classes)},
            "notes": list(self.notes),
            "wrong": wrong,
        }
        return json.dumps(plain, indent=2, ensure_ascii=False)
