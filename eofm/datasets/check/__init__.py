"""`eofm data check`: its settings, its terms (images to read, what is wrong), and its report.

The declarations of data sets import this file, so no heavy library is loaded. The reading itself is
in `eofm.datasets.check.run`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from eofm.contract.spec import ImageSpec
from eofm.datasets.base import SensorName, UnitName, check_unit
from eofm.datasets.images import chips
from eofm.datasets.images.chips import Chip, class_counts, source_of
from eofm.datasets.images.places import check_place
from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = [
    "CheckConfig",
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


@dataclass(frozen=True)
@checked_settings
class CheckConfig:
    """Look at a data set or a packed store, and say what is wrong with it.

    Args:
        path: A packed store, or a folder of a known data set, such as SSL4EO-S12, BigEarthNet,
            EuroSAT, TerraMesh or S2-100K; for other folders of GeoTIFFs, state sensor and unit.
        sensor: Sensor and product level of a folder of GeoTIFFs.
        unit: Unit of their values; without it, what scale and offset of the files say.
        bands: Their bands, as for `eofm pack tiles`.
        unit_of: Unit of single files, by a pattern of their names, where it is not `unit`.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*. Without
            it, images whose footprints overlap are one place.
        metadata: Folder of the official lists of BigEarthNet, where it is not below `path`.
        labels: The file of SSL4EO-S12-ML, to be held against the scenes.
        limit: How many images to look into, spread evenly; 0 means all. All are counted.
        json: Print the report as JSON.
    """

    path: str = field(metadata={"positional": True})
    sensor: SensorName | None = None
    unit: UnitName | None = None
    bands: list[str] | None = None
    unit_of: dict[str, UnitName] = field(default_factory=dict)
    place: str | None = None
    metadata: str | None = None
    labels: str | None = None
    limit: int = 1000
    json: bool = field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError("limit must not be negative", found=self.limit)
        if self.sensor is None and self.unit is not None:
            raise ConfigError(
                "a unit is stated of images of which the sensor is not",
                found=f"unit={self.unit}",
                remedy="give both, as in --sensor s2-l1c --unit dn",
            )
        named = [n for n in ("bands", "unit_of", "place") if getattr(self, n)]
        if self.sensor is None and named:
            raise ConfigError(
                "a known data set states its images itself; of your own images, sensor and unit "
                "have to be stated",
                found=", ".join(f"--{name}" for name in named),
                remedy="add --sensor and --unit, as in --sensor s2-l1c --unit dn",
            )
        for unit in (self.unit, *self.unit_of.values()):
            if self.sensor is not None and unit is not None:
                check_unit(self.sensor, unit)
        check_place(self.place)


# ------------------------------------------------------------------ a data set as it is found


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
    source: Callable[[], chips.RasterSource]


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


def known_source(source: chips.RasterSource) -> Subject:
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


# ------------------------------------------------------------------------------------- report

_NAMED: Final = 5  # images named per problem


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
