"""A folder of SSL4EO-S12 v1 in `eofm data check`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from eofm.contract.spec import Sensor
from eofm.datasets.check.options import CheckConfig
from eofm.datasets.check.report import CheckGroup, Described, Finding, Subject
from eofm.datasets.ssl4eo import FOLDERS, SEASONS
from eofm.datasets.ssl4eo.folders import list_scenes
from eofm.datasets.ssl4eo.multilabels import read_multilabels


def describe(root: Path, config: CheckConfig) -> Described:
    """List scenes, places and labels; seasons that are missing are notes, no faults."""
    counts: dict[str, int] = {}
    groups, notes, optical = [], [], []
    places: dict[str, set[str]] = {}
    for sensor, folder in FOLDERS.items():
        if not (root / folder).is_dir():
            continue
        scenes = list_scenes(root, sensor)
        seasons = Counter(scene.location for scene in scenes)
        places[folder] = set(seasons)
        counts |= {f"{folder} scenes": len(scenes), f"{folder} places": len(seasons)}
        other = sum(count != SEASONS for count in seasons.values())
        if other:
            notes.append(f"{folder}: {other} places have not {SEASONS} seasons")
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
    return Described("SSL4EO-S12 v1", counts, groups, findings, labelled, classes, notes)
