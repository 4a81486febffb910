"""The folders of SSL4EO-S12 v1 (arXiv 2211.07044), and their labels, SSL4EO-S12-ML.

    ROOT/s2c/0000001/20210117T104259_20210117T104300_T31TFJ/B1.tif ... B12.tif     L1C
    ROOT/s2a/0000001/20210117T104259_20210117T105030_T31TFJ/B1.tif ... B12.tif     L2A, no B10
    ROOT/s1/0000001/S1A_IW_GRDH_1SDV_20210115T054321_.../VV.tif VH.tif             GRD in dB

One file per band, 264, 132 or 44 pixels wide. The georeference of the published files is
approximate: it is in degrees, and shifted by half a pixel of each band, so that the bands of one
scene seem to lie up to 25 m apart. They do not; they were cut to one centre.

Version 1.1 (arXiv 2503.00168) is another data set: other projections, other values, Zarr archives
whose digital numbers carry the offset of 1000 in one published description and not in another. It
is recognised and not read.

The nine-class multi-labels (arXiv 2405.20462) are one file, place -> season -> ids of Dynamic World
classes, as text:

    {"0000002": {"20200718T102559_20200718T103605_T31TFJ": [],
                 "20210402T104021_20210402T104258_T31TFJ": ["1", "2", "4"]}, ...}

An empty list, a season that is not there and a place that is not there mean the same: unlabelled.
It never means "no class". Seasons are named after Level-1C products and joined by that name. A
Level-2A product of the same overpass differs in its second time, when it was made; those are joined
by first time and tile.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor
from eofm.datasets.check import CheckConfig, CheckGroup, Described, Finding, Subject
from eofm.datasets.ssl4eo import FOLDERS, SEASONS, UNITS
from eofm.errors import LabelError, RasterError
from eofm.landcover.schemes import SCHEMES
from eofm.raster.folder import band_of, choose_bands
from eofm.raster.source import RasterSource

__all__ = [
    "LABELLED_IMAGES",
    "LABELLED_SCENES",
    "LABEL_CLASSES",
    "MultiLabels",
    "Ssl4eoScene",
    "describe",
    "list_scenes",
    "missing_places",
    "nearest_season",
    "pair_scenes",
    "read_ids",
    "read_multilabels",
    "season_date",
    "season_names",
]

# ---------------------------------------------------------------------------- labels: SSL4EO-S12-ML

LABEL_CLASSES: Final = SCHEMES["dynamic-world"].names
LABELLED_IMAGES: Final = 780_371  # with labels, in the full file (zhu-xlab/softcon, README)
LABELLED_SCENES: Final = 247_377  # with at least one such image, in the full file

# A file that names so many places is the full one, and its counts must be right.
_FULL_LABELS_FROM: Final = 200_000
_OVERPASS: Final = re.compile(r"(\d{8}T\d{6})_\d{8}T\d{6}_(T\w{5})")


@dataclass(frozen=True)
class MultiLabels:
    """The labels of a file.

    Args:
        path: The file.
        seasons: Place -> season -> classes, bit k for class k; 0 is unlabelled.
    """

    path: Path
    seasons: Mapping[str, Mapping[str, int]]

    @property
    def images(self) -> int:
        """How many images have labels."""
        return sum(1 for place in self.seasons.values() for mask in place.values() if mask)

    @property
    def scenes(self) -> int:
        """How many places have at least one such image."""
        return sum(1 for place in self.seasons.values() if any(place.values()))

    @property
    def full(self) -> bool:
        """Whether the file is the whole data set, by the number of places it names."""
        return len(self.seasons) >= _FULL_LABELS_FROM

    @cached_property
    def frequencies(self) -> dict[str, int]:
        """Class name -> images it is present in."""
        counts = [0] * len(LABEL_CLASSES)
        for place in self.seasons.values():
            for mask in place.values():
                for k in range(len(LABEL_CLASSES)):
                    counts[k] += mask >> k & 1
        return dict(zip(LABEL_CLASSES, counts, strict=True))

    @cached_property
    def per_image(self) -> dict[int, int]:
        """Number of classes -> labelled images with so many."""
        counts: dict[int, int] = {}
        for place in self.seasons.values():
            for mask in place.values():
                if mask:
                    counts[mask.bit_count()] = counts.get(mask.bit_count(), 0) + 1
        return dict(sorted(counts.items()))

    def season_of(self, place: str, season: str, sensor: Sensor) -> str | None:
        """Return the season of the file that a Sentinel-2 scene is, or None if it is not there.

        Args:
            place: Seven digits.
            season: Name of the product.
            sensor: Level-1C is joined by name, Level-2A by first time and tile.

        Raises:
            LabelError: If a Level-2A product fits two seasons.
        """
        there = self.seasons.get(place, {})
        if sensor is not Sensor.S2_L2A or season in there:
            return season if season in there else None
        mine = _OVERPASS.match(season)
        if mine is None:
            return None
        same = [name for name in there if (m := _OVERPASS.match(name)) and _same(m, mine)]
        if len(same) > 1:
            raise LabelError(
                "a Level-2A scene fits two seasons of the labels",
                found=", ".join(same),
                expected="one with the same first time and tile",
                where=f"{place}/{season}",
            )
        return same[0] if same else None

    def multi_hot(self, place: str, season: str | None) -> tuple[int, ...] | None:
        """Return the nine labels of a season of the file, or None where it is unlabelled."""
        mask = self.seasons.get(place, {}).get(season, 0) if season is not None else 0
        return tuple(mask >> k & 1 for k in range(len(LABEL_CLASSES))) if mask else None

    def describe(self) -> str:
        """Return one line for the terminal."""
        kind = "the full file" if self.full else "a part of SSL4EO-S12-ML"
        return f"labels of {self.images} images in {self.scenes} places ({kind}: {self.path.name})"


def _same(one: re.Match[str], other: re.Match[str]) -> bool:
    return one.groups() == other.groups()


def read_multilabels(path: str | Path, *, partial: bool = False) -> MultiLabels:
    """Read a label file.

    Args:
        path: `ssl4eo_multilabel.json`, or a part of it.
        partial: Do not compare the counts of a large file with the published ones.

    Raises:
        LabelError: If it cannot be read, an id is not one of "0" to "8", a place or season is
            there twice, or it is the full file and holds other counts than published.
    """
    path = Path(path)
    try:
        seasons = json.loads(path.read_text("utf-8"), object_pairs_hook=_pairs)
    except LabelError as error:
        error.where = path
        raise
    except (OSError, ValueError) as error:
        raise LabelError(
            "the label file cannot be read",
            found=str(error),
            expected="JSON of {place: {season: [ids]}}, complete",
            where=path,
            remedy="download ssl4eo-s12-ml/ssl4eo_multilabel.json again",
        ) from error
    if not isinstance(seasons, dict) or not all(isinstance(s, dict) for s in seasons.values()):
        raise _foreign("places that do not hold seasons", path)
    _check_places(seasons, path)
    labels = MultiLabels(path, seasons)
    if labels.full and not partial:
        _check_counts(labels)
    return labels


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Turn lists of ids into bits as soon as they are read: the full file has a million of them.

    Python's own reader keeps the last of two equal keys and says nothing.
    """
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise LabelError("a place or season is there twice", found=key)
        result[key] = value if isinstance(value, dict) else _mask(key, value)
    return result


def _mask(season: str, ids: object) -> int:
    mask = 0
    for name in ids if isinstance(ids, list) else [ids]:
        if not isinstance(name, str) or name not in _LABEL_IDS:
            raise LabelError(
                "a label is not an id of Dynamic World",
                found=f"{name!r} in {season}",
                expected='"0" to "8", as text',
            )
        if mask >> _LABEL_IDS[name] & 1:
            raise LabelError("a label is there twice", found=f"{name!r} in {season}")
        mask |= 1 << _LABEL_IDS[name]
    return mask


_LABEL_IDS: Final = {str(k): k for k in range(len(LABEL_CLASSES))}


def _check_places(seasons: Mapping[str, Mapping[str, object]], path: Path) -> None:
    deeper = [
        place
        for place, there in seasons.items()
        if any(isinstance(m, dict) for m in there.values())
    ]
    if deeper:
        raise _foreign(f"more than two levels at {deeper[0]}", path)
    wrong = [place for place in seasons if len(place) != 7 or not place.isdecimal()]
    if wrong:
        raise LabelError(
            "a place is not named as in SSL4EO-S12",
            found=", ".join(wrong[:5]),
            expected="seven digits",
            where=path,
        )


def _foreign(found: str, path: Path) -> LabelError:
    return LabelError(
        "this is not the layout of SSL4EO-S12-ML",
        found=found,
        expected="{place: {season: [ids]}}",
        where=path,
    )


def _check_counts(labels: MultiLabels) -> None:
    if (labels.images, labels.scenes) != (LABELLED_IMAGES, LABELLED_SCENES):
        raise LabelError(
            "the full label file holds other counts than were published",
            found=f"{labels.images} labelled images in {labels.scenes} places",
            expected=f"{LABELLED_IMAGES} labelled images in {LABELLED_SCENES} places",
            where=labels.path,
            remedy="download it again; for a part of it that is meant to be one: "
            "--labels_partial true",
        )


# ------------------------------------------------------------------------------------------- scenes

_TIME: Final = re.compile(r"(?<!\d)\d{8}T\d{6}(?!\d)")
_HALF_A_PIXEL: Final = 0.51  # see the module's docstring: half of a 60 m pixel, less half of 10 m
_V11: Final = ("S1GRD", "S2L1C", "S2L2A", "S2RGB")


@dataclass(frozen=True)
class Ssl4eoScene:
    """One season of one place.

    Args:
        location: The place, seven digits.
        season: Name of the product it was cut from.
        folder: Where its bands are.
        sensor: Sensor and product level.
    """

    location: str
    season: str
    folder: Path
    sensor: Sensor

    @property
    def name(self) -> str:
        """Place and season."""
        return f"{self.location}/{self.season}"

    @property
    def date(self) -> datetime | None:
        """When it was taken, from the name of the product; None where that holds no time."""
        return season_date(self.season)

    def require_date(self) -> datetime:
        """Return when it was taken.

        Raises:
            LabelError: If the name of the product holds no time.
        """
        if self.date is None:
            raise LabelError(
                "a scene cannot be paired by time: its name holds none",
                found=self.season,
                expected="YYYYMMDDTHHMMSS in the name of its folder",
                where=self.folder,
            )
        return self.date

    def source(self) -> RasterSource:
        """Return where its pixels are.

        Raises:
            RasterError: If a band is missing.
        """
        found = {}
        for file in sorted(self.folder.glob("*.tif")):
            band, _ = band_of(file.stem, self.sensor)
            if band:
                found[band] = file
        chosen = choose_bands(found, self.sensor, None, self.folder)
        return RasterSource(
            self.name,
            tuple(chosen.values()),
            self.sensor,
            UNITS[self.sensor],
            tuple(chosen),
            gsd=10.0,
            slack=_HALF_A_PIXEL,
        )


def season_date(season: str) -> datetime | None:
    """Return the first time in a product's name: when sensing began."""
    match = _TIME.search(season)
    if match is None:
        return None
    try:
        return datetime.strptime(match.group(), "%Y%m%dT%H%M%S")
    except ValueError:
        return None


def list_scenes(
    root: str | Path, sensor: Sensor, ids: Collection[str] | None = None
) -> list[Ssl4eoScene]:
    """Return all scenes of a sensor, ordered by place and name.

    Args:
        root: The folder that holds s1, s2c or s2a.
        sensor: Which of the three.
        ids: Places wanted, seven digits each; None means all. Those without a folder are passed
            over: `missing_places` names them.

    Raises:
        RasterError: If there are none.
    """
    folder = Path(root) / FOLDERS[sensor]
    if ids is None:
        places = sorted(folder.glob("*"))
    else:
        places = [folder / place for place in sorted(set(ids))]
    seasons = [p for place in places if place.is_dir() for p in sorted(place.iterdir())]
    scenes = [Ssl4eoScene(p.parent.name, p.name, p, sensor) for p in seasons if p.is_dir()]
    if scenes:
        return scenes
    if any((Path(root) / name).is_dir() for name in _V11):
        raise RasterError(
            "this is SSL4EO-S12 v1.1, which eofm does not read",
            found=", ".join(name for name in _V11 if (Path(root) / name).is_dir()),
            expected="version 1: s1, s2c or s2a with one folder per place",
            where=root,
            remedy="download version 1, or write the scenes as GeoTIFFs and state their unit: "
            "eofm pack tiles",
        )
    raise RasterError(
        f"there are no {sensor} scenes in the layout of SSL4EO-S12",
        found="no such folder" if not folder.is_dir() else "no folders of wanted places in it",
        expected=f"{FOLDERS[sensor]}/0000001/SEASON/{'VV' if sensor is Sensor.S1_GRD else 'B1'}"
        ".tif and so on",
        where=folder,
        remedy="give the folder that holds s1, s2c or s2a",
    )


def read_ids(file: str | Path) -> list[str]:
    """Return the places of a list such as `void_ids.csv` or `50k_ids_random.csv`, seven digits.

    Each once, in order: the published list of 50,000 names four places twice.

    Raises:
        RasterError: If it cannot be read, or a line is no place.
    """
    file = Path(file)
    try:
        lines = file.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise RasterError("the list of places cannot be read", found=error, where=file) from error
    wrong = [line for line in lines if not line.isdecimal() or len(line.lstrip("0")) > 7]
    if wrong or not lines:
        raise RasterError(
            "this is no list of places",
            found=", ".join(wrong[:5]) or "an empty file",
            expected="one number per line, as in 7 or 0000007",
            where=file,
        )
    return list(dict.fromkeys(f"{int(line):07d}" for line in lines))


def missing_places(root: str | Path, sensor: Sensor, ids: Iterable[str]) -> list[str]:
    """Return the places that have no folder of a sensor."""
    folder = Path(root) / FOLDERS[sensor]
    return [place for place in ids if not (folder / place).is_dir()]


def season_names(root: str | Path, location: str) -> list[str]:
    """Return the names of the Sentinel-2 seasons of a place, Level-1C where there are any."""
    for sensor in (Sensor.S2_L1C, Sensor.S2_L2A):
        folder = Path(root) / FOLDERS[sensor] / location
        names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if names:
            return names
    return []


# ------------------------------------------------------------------------------- pairing


def nearest_season(date: datetime, seasons: Sequence[str], max_gap_days: float) -> str | None:
    """Return the season nearest in time, or None if all are farther away than the gap.

    Sentinel-1 products sort by platform before date, so seasons cannot be paired by their rank.

    Args:
        date: Of the scene that is paired.
        seasons: Names of Sentinel-2 products; those without a time are passed over.
        max_gap_days: The greatest distance that counts.
    """
    gaps = []
    for season in sorted(seasons):
        other = season_date(season)
        if other is not None:
            gaps.append((abs((date - other).total_seconds()) / 86_400, season))
    gap, season = min(gaps, default=(float("inf"), ""))
    return season if gap <= max_gap_days else None


def pair_scenes(
    scenes: Sequence[Ssl4eoScene], others: Sequence[Ssl4eoScene], max_gap_days: float = 30.0
) -> dict[str, Ssl4eoScene | None]:
    """Pair each scene with the one of another sensor at its place that is nearest in time.

    Args:
        scenes: As of Sentinel-1.
        others: As of Sentinel-2.
        max_gap_days: The greatest distance that counts; 30 days is how far apart the two can be
            within a season of SSL4EO-S12.

    Returns:
        Name of a scene -> the one it belongs with, or None where none is near enough.

    Raises:
        LabelError: If the name of one of `scenes` holds no time.
    """
    there: dict[str, dict[str, Ssl4eoScene]] = {}
    for other in others:
        there.setdefault(other.location, {})[other.season] = other
    pairs = {}
    for scene in scenes:
        candidates = there.get(scene.location, {})
        season = nearest_season(scene.require_date(), list(candidates), max_gap_days)
        pairs[scene.name] = None if season is None else candidates[season]
    return pairs


# ------------------------------------------------------------------------------- `eofm data check`


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
