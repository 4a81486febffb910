"""A folder of BigEarthNet in `eofm data check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from eofm.contract.spec import Sensor
from eofm.datasets.bigearthnet import COUNTS_V1, COUNTS_V2, FOLDERS, SIZE, Version
from eofm.datasets.bigearthnet.classes import CLASSES_19
from eofm.datasets.bigearthnet.lists import Listing, read_tables
from eofm.datasets.bigearthnet.patches import BigEarthNet, open_bigearthnet
from eofm.datasets.check.options import CheckConfig
from eofm.datasets.check.report import CheckGroup, Described, Finding, Subject
from eofm.raster.source import RasterSource


def describe(root: Path, config: CheckConfig) -> Described:
    """List patches, pairs, official lists and labels; without images, the tables of version 2."""
    if not any((root / folder).is_dir() for folder in FOLDERS):
        return _tables(root)
    data = open_bigearthnet(root, config.metadata)
    pairs = data.optical.keys() & data.radar.keys()
    counts = {
        "Sentinel-2 patches": len(data.optical),
        "Sentinel-1 patches": len(data.radar),
        "pairs": len(pairs),
    }
    groups, findings, notes = [], [], []
    for name, sensor, folders in (
        ("S2", Sensor.S2_L2A, data.optical),
        ("S1", Sensor.S1_GRD, data.radar),
    ):
        subjects = [Subject(patch, _Patch(data, patch, sensor)) for patch in sorted(folders)]
        groups.append(CheckGroup(name, subjects, SIZE, prefix=f"{name} "))
        findings += [
            Finding("a patch is in none of the official lists", f"{name} {patch}", "on disk only")
            for patch in data.unknown(sensor)
        ]
    alone = len(data.optical.keys() ^ data.radar.keys())
    notes += [f"{alone} patches are of one sensor only"] if alone else []
    samples = []
    if data.listing is None:
        notes.append("the official lists are not there, so there are no splits")
    else:
        findings += _counts(data.version, data.listing, root)
    if data.listing is not None or data.version is Version.V1:
        samples = data.samples(sensor=Sensor.S2_L2A, excluded=True)
        splits = Counter(sample.split or "no split" for sample in samples)
        notes.append("splits: " + ", ".join(f"{count} {s}" for s, count in sorted(splits.items())))
    labels = Counter(label for sample in samples for label in sample.labels or ())
    return Described(
        f"BigEarthNet {data.version}",
        counts,
        groups,
        findings,
        sum(sample.labels is not None for sample in samples),
        {name: labels[name] for name in CLASSES_19},
        notes,
    )


def _counts(version: Version, listing: Listing, root: Path) -> list[Finding]:
    """Compare the official lists with their published lengths."""
    published = COUNTS_V1 if version is Version.V1 else COUNTS_V2
    found = Counter(s for name, s in listing.splits.items() if name not in listing.excluded)
    return [
        Finding(
            "an official list has another length than published",
            split,
            f"{found[split]} patches, expected {count}",
        )
        for split, count in published.items()
        if found[split] != count
    ]


def _tables(root: Path) -> Described:
    """Describe the tables of version 2 without the images."""
    listing = read_tables(root)
    kept = {name: labels for name, labels in listing.labels.items() if name not in listing.excluded}
    labels = Counter(label for names in kept.values() for label in names)
    splits = Counter(split for name, split in listing.splits.items() if name in kept)
    return Described(
        "tables of BigEarthNet v2",
        {"patches": len(listing.splits), "under snow or cloud": len(listing.excluded)},
        (),
        _counts(Version.V2, listing, root),
        len(kept),
        {name: labels[name] for name in CLASSES_19},
        ["splits: " + ", ".join(f"{count} {s}" for s, count in sorted(splits.items()))],
    )


@dataclass(frozen=True)
class _Patch:
    """Finds the files of a patch."""

    data: BigEarthNet
    name: str
    sensor: Sensor

    def __call__(self) -> RasterSource:
        return self.data.source(self.name, self.sensor)
