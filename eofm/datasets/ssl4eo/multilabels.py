"""SSL4EO-S12-ML: nine-class multi-labels for the scenes of SSL4EO-S12 (arXiv 2405.20462).

    {"0000002": {"20200718T102559_20200718T103605_T31TFJ": [],
                 "20210402T104021_20210402T104258_T31TFJ": ["1", "2", "4"]}, ...}

One file, place -> season -> ids of Dynamic World classes, as text. An empty list, a season that is
not there and a place that is not there mean the same: unlabelled. It never means "no class".
Seasons are named after Level-1C products and joined by that name. A Level-2A product of the same
overpass differs in its second time, when it was made; those are joined by first time and tile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor
from eofm.errors import LabelError
from eofm.landcover.schemes import SCHEMES

CLASSES: Final = SCHEMES["dynamic-world"].names
IMAGES: Final = 780_371  # with labels, in the full file (zhu-xlab/softcon, README)
SCENES: Final = 247_377  # with at least one such image, in the full file

# A file that names so many places is the full one, and its counts must be right.
_FULL_FROM: Final = 200_000
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
        return len(self.seasons) >= _FULL_FROM

    @cached_property
    def frequencies(self) -> dict[str, int]:
        """Class name -> images it is present in."""
        counts = [0] * len(CLASSES)
        for place in self.seasons.values():
            for mask in place.values():
                for k in range(len(CLASSES)):
                    counts[k] += mask >> k & 1
        return dict(zip(CLASSES, counts, strict=True))

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
        return tuple(mask >> k & 1 for k in range(len(CLASSES))) if mask else None

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
        if not isinstance(name, str) or name not in _IDS:
            raise LabelError(
                "a label is not an id of Dynamic World",
                found=f"{name!r} in {season}",
                expected='"0" to "8", as text',
            )
        if mask >> _IDS[name] & 1:
            raise LabelError("a label is there twice", found=f"{name!r} in {season}")
        mask |= 1 << _IDS[name]
    return mask


_IDS: Final = {str(k): k for k in range(len(CLASSES))}


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
    if (labels.images, labels.scenes) != (IMAGES, SCENES):
        raise LabelError(
            "the full label file holds other counts than were published",
            found=f"{labels.images} labelled images in {labels.scenes} places",
            expected=f"{IMAGES} labelled images in {SCENES} places",
            where=labels.path,
            remedy="download it again; for a part of it that is meant to be one: "
            "--labels_partial true",
        )
