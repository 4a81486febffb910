"""The benchmark and pretraining sets that `eofm data check` knows: what is in a folder of theirs.

A layout states sensor and unit of its images, as the data set's authors do. Nothing is read here
but lists, labels and names.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from eofm.contract.spec import Sensor
from eofm.datasets import bigearthnet, eurosat, ssl4eo
from eofm.datasets.bigearthnet_classes import CLASSES_19
from eofm.datasets.bigearthnet_lists import COUNTS_V1, COUNTS_V2, METADATA, Listing, read_tables
from eofm.datasets.check_types import CheckGroup, DataSet, Finding, Subject
from eofm.datasets.sets_config import CheckConfig
from eofm.datasets.ssl4eo_ml import read_multilabels
from eofm.raster.source import RasterSource

# ------------------------------------------------------------------------------- SSL4EO


def is_ssl4eo(root: Path) -> bool:
    """Whether a folder has the layout of SSL4EO-S12 v1."""
    return any((root / folder).is_dir() for folder in ssl4eo.FOLDERS.values())


def ssl4eo_set(root: Path, config: CheckConfig) -> DataSet:
    """Describe a folder of SSL4EO-S12."""
    counts: dict[str, int] = {}
    groups, notes, optical = [], [], []
    places: dict[str, set[str]] = {}
    for sensor, folder in ssl4eo.FOLDERS.items():
        if not (root / folder).is_dir():
            continue
        scenes = ssl4eo.list_scenes(root, sensor)
        seasons = Counter(scene.location for scene in scenes)
        places[folder] = set(seasons)
        counts |= {f"{folder} scenes": len(scenes), f"{folder} places": len(seasons)}
        other = sum(count != ssl4eo.SEASONS for count in seasons.values())
        if other:
            notes.append(f"{folder}: {other} places have not {ssl4eo.SEASONS} seasons")
        subjects = [Subject(scene.name, scene.source) for scene in scenes]
        groups.append(CheckGroup(folder, subjects, prefix=f"{folder}/"))
        optical += scenes if sensor is Sensor.S2_L1C else []
    every = set().union(*places.values())
    notes += [
        f"{len(every - there)} places are not in {folder}"
        for folder, there in places.items()
        if every - there
    ]
    findings, labelled, classes = [], 0, {}
    if config.labels is not None:
        labels = read_multilabels(config.labels)
        joined = [labels.multi_hot(scene.location, scene.season) for scene in optical]
        labelled = sum(hot is not None for hot in joined)
        rows = [hot for hot in joined if hot is not None]
        classes = {name: sum(hot[k] for hot in rows) for k, name in enumerate(labels.frequencies)}
        here = {(scene.location, scene.season) for scene in optical}
        findings = [
            Finding("labels of a season that is not there", f"{place}/{season}", "in the labels")
            for place in {scene.location for scene in optical}
            for season in labels.seasons.get(place, ())
            if (place, season) not in here
        ]
        notes.append(labels.describe())
    return DataSet("SSL4EO-S12 v1", counts, groups, findings, labelled, classes, notes)


# -------------------------------------------------------------------------- BigEarthNet


_FOLDERS = ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0", "BigEarthNet-S2", "BigEarthNet-S1")


def is_bigearthnet(root: Path) -> bool:
    """Whether a folder has the layout of BigEarthNet, or holds the tables of version 2."""
    return any((root / name).is_dir() for name in _FOLDERS) or (root / METADATA).is_file()


def bigearthnet_set(root: Path, config: CheckConfig) -> DataSet:
    """Describe a folder of BigEarthNet."""
    if not any((root / folder).is_dir() for folder in _FOLDERS):
        return _tables(root)
    data = bigearthnet.open_bigearthnet(root, config.metadata)
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
        groups.append(CheckGroup(name, subjects, bigearthnet.SIZE, prefix=f"{name} "))
        findings += [
            Finding("a patch is in none of the official lists", f"{name} {patch}", "on disk only")
            for patch in data.unknown(sensor)
        ]
    alone = len(data.optical.keys() ^ data.radar.keys())
    notes += [f"{alone} patches have no partner"] if alone else []
    samples = []
    if data.listing is None:
        notes.append("the official lists are not there, so there are no splits")
    else:
        findings += _counts(data.version, data.listing, root)
    if data.listing is not None or data.version is bigearthnet.Version.V1:
        samples = data.samples(sensor=Sensor.S2_L2A, excluded=True)
        splits = Counter(sample.split or "no split" for sample in samples)
        notes.append("splits: " + ", ".join(f"{count} {s}" for s, count in sorted(splits.items())))
    labels = Counter(label for sample in samples for label in sample.labels or ())
    return DataSet(
        f"BigEarthNet {data.version}",
        counts,
        groups,
        findings,
        sum(sample.labels is not None for sample in samples),
        {name: labels[name] for name in CLASSES_19},
        notes,
    )


def _counts(version: bigearthnet.Version, listing: Listing, root: Path) -> list[Finding]:
    """Compare the official lists with their published lengths."""
    published = COUNTS_V1 if version is bigearthnet.Version.V1 else COUNTS_V2
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


def _tables(root: Path) -> DataSet:
    """Describe the tables of version 2 without the images."""
    listing = read_tables(root)
    kept = {name: labels for name, labels in listing.labels.items() if name not in listing.excluded}
    labels = Counter(label for names in kept.values() for label in names)
    splits = Counter(split for name, split in listing.splits.items() if name in kept)
    return DataSet(
        "tables of BigEarthNet v2",
        {"patches": len(listing.splits), "under snow or cloud": len(listing.excluded)},
        (),
        _counts(bigearthnet.Version.V2, listing, root),
        len(kept),
        {name: labels[name] for name in CLASSES_19},
        ["splits: " + ", ".join(f"{count} {s}" for s, count in sorted(splits.items()))],
    )


@dataclass(frozen=True)
class _Patch:
    """Finds the files of a patch."""

    data: bigearthnet.BigEarthNet
    name: str
    sensor: Sensor

    def __call__(self) -> RasterSource:
        return self.data.source(self.name, self.sensor)


# ------------------------------------------------------------------------------ EuroSAT


def is_eurosat(root: Path) -> bool:
    """Whether a folder has the layout of EuroSAT."""
    tops = (root, root / "train", *(root / nested for nested in eurosat.NESTED))
    return any((top / name).is_dir() for top in tops for name in eurosat.CLASSES)


def eurosat_set(root: Path, config: CheckConfig) -> DataSet:
    """Describe a folder of EuroSAT MS."""
    given = (root / "train").is_dir()
    rule = None if given else eurosat.SplitRule.STRATIFIED  # needs no file to be opened
    data = eurosat.open_eurosat(root, rule)
    tiles = sorted((t for part in data.splits.values() for t in part), key=lambda t: t.id)
    subjects = [Subject(tile.id, _Tile(tile)) for tile in tiles]
    classes = Counter(eurosat.CLASSES[tile.label] for tile in tiles)
    notes = [f"{split}: {len(part)} tiles" for split, part in data.splits.items()] if given else []
    if len(tiles) != eurosat.TILES:
        notes.append(f"a part of EuroSAT: the published set has {eurosat.TILES} tiles")
    return DataSet(
        "EuroSAT MS",
        {"tiles": len(tiles)},
        [CheckGroup("tiles", subjects, eurosat.SPEC.size)],
        labelled=len(tiles),
        classes={name: classes[name] for name in eurosat.CLASSES},
        notes=notes,
    )


@dataclass(frozen=True)
class _Tile:
    """Finds the file of a tile."""

    tile: eurosat.Tile

    def __call__(self) -> RasterSource:
        return eurosat.source_of(self.tile)
