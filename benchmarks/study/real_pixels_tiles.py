"""The tiles of `real_pixels.py`: pixels in memory, folds, places, coarse labels, packed stores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from real_pixels_scores import Rows
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedKFold, train_test_split

from eofm.contract.imagery import Imagery
from eofm.datasets.eurosat import CLASSES, SPEC, open_eurosat
from eofm.datasets.images.chips import Chip, read_batches, source_of
from eofm.raster.source import OpenRaster
from eofm.store.format import Entry, LabelRule
from eofm.store.packing import Item, listed, make_card, pack_items

DATA: Final = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data")) / "eurosat_ms"
FOLDS: Final = 5
INNER: Final = FOLDS  # number of the inner fold, by which learning rates are chosen
BATCH: Final = 54
NEAR_KM: Final = 50.0  # half the side of a Sentinel-2 product

# No label names one of the ten classes that are tested: every set of labels is that of two or
# three of them. Sets overlap, so that tiles are more or less alike by their labels (0, 1/2 or 1).
LABELS: Final = ("vegetation", "agriculture", "natural", "built", "water")
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "AnnualCrop": ("vegetation", "agriculture"),
    "PermanentCrop": ("vegetation", "agriculture"),
    "Pasture": ("vegetation", "agriculture"),
    "Forest": ("vegetation", "natural"),
    "HerbaceousVegetation": ("vegetation", "natural"),
    "Highway": ("built",),
    "Industrial": ("built",),
    "Residential": ("built",),
    "River": ("water",),
    "SeaLake": ("water",),
}
_SETS: Final = sorted(set(GROUPS.values()))
GROUP_OF: Final = torch.tensor([_SETS.index(GROUPS[name]) for name in CLASSES])


class Tiles:
    """All tiles in memory, their folds, and a packed store of each fold's training tiles.

    Attributes:
        y: Classes, (N,).
        group: Coarse groups, (N,).
        places: Number of each tile's place, (N,): intervals draw places, not tiles.
        folds: (training rows, held-out rows) of each fold, and last of the inner one.

    Args:
        folder: For the stores.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chips: list[Chip] = sorted(open_eurosat(DATA).all, key=lambda chip: chip.id)
        self.images: list[Imagery] = list(read_batches(self.chips, BATCH))
        self.y = torch.tensor([chip.label for chip in self.chips])
        self.group = GROUP_OF[self.y]
        self.places = places_of([source_of(chip).open() for chip in self.chips])
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        self.folds: list[tuple[Rows, Rows]] = list(folds.split(self.y, self.y))
        outer = self.folds[0][0]
        inner = train_test_split(
            outer, test_size=BATCH, stratify=self.y[outer].numpy(), random_state=0
        )
        self.folds.append((np.sort(inner[0]), np.sort(inner[1])))  # `INNER`

    def labelled(self, fold: int, *, half: bool) -> Rows:
        """Return the training rows that have labels: all, or one half of each class."""
        train, _ = self.folds[fold]
        if not half:
            return train
        rows, _ = train_test_split(
            train, train_size=0.5, stratify=self.y[train].numpy(), random_state=fold
        )
        return np.sort(rows)

    def store(self, fold: int, *, half: bool) -> Path:
        """Return the store of a fold's training tiles, packed if it is not there."""
        out = self.folder / f"fold-{fold}{'-half' if half else ''}"
        train, _ = self.folds[fold]
        known = set(self.labelled(fold, half=half).tolist())
        items = [
            Item(
                self.chips[row].id,
                SPEC.unit,
                _Source(self.chips[row]),
                _Line(self.chips[row], known=row in known),
            )
            for row in train.tolist()
        ]
        rule = LabelRule("coarse-eurosat", LABELS, 0.0, 0.0)
        card = make_card(items, rule, {"verb": "study", "fold": int(fold), "half": half}, {})
        pack_items(items, card, out, strict=True, workers=1)
        return out


def places_of(tiles: Sequence[OpenRaster]) -> NDArray[np.int64]:
    """Return the number of each tile's place: those within `NEAR_KM` of one another have one.

    Args:
        tiles: Open files, which are closed.
    """
    points = []
    for tile in tiles:
        with tile:
            points.append(tile.grid.centre())
    longitude, latitude = np.radians(points).T
    flat = np.cos(latitude)
    on_sphere = np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], 1)
    far = 6371 * np.linalg.norm(on_sphere[:, None] - on_sphere[None], axis=2)
    _, number = connected_components(far < NEAR_KM)
    return np.asarray(number, np.int64)


@dataclass(frozen=True)
class _Source:
    """Finds the file of a tile."""

    chip: Chip

    def __call__(self) -> Any:
        return source_of(self.chip)


@dataclass(frozen=True)
class _Line:
    """Makes the line of a tile in the index: its coarse labels, or none."""

    chip: Chip
    known: bool

    def __call__(self, raster: OpenRaster) -> Entry:
        longitude, latitude = raster.grid.centre()
        name, unit = self.chip.id, SPEC.unit.value
        empty = Entry(name, name, "", longitude, latitude, "", name, unit, "train")
        has = GROUPS[CLASSES[self.chip.label]]
        entry = listed(empty, tuple(int(word in has) for word in LABELS))
        return entry if self.known else replace(entry, known=False, multi_hot=(0,) * len(LABELS))
