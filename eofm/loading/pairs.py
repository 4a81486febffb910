"""Two sensors as two views of one place: the optical store leads, the radar store is the second.

    optical, second = open_pair("stores/both")          # eofm pack ssl4eo --sensors s2c,s1
    feeder = PairFeeder(Feeder(optical, 64), Feeder(second.store, 64), second)
    for (images, radar), labels in feeder.feed(rows): ...

Which images belong together says the table of `eofm.store.paired`. Shapes: B places, C bands, S by
S pixels of a view.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from eofm.contract.imagery import Imagery, Labels, NativeImagery
from eofm.contract.preprocess import Plan, Preprocess, to_grid
from eofm.contract.recipe import Recipe
from eofm.errors import StoreError
from eofm.loading.config import AugmentConfig
from eofm.loading.feeder import Feeder
from eofm.loading.views import RADAR, View, Views, view_of, views_for, with_geometry_of
from eofm.store.paired import PairedStore
from eofm.store.reader import Store

PairBatch = tuple[tuple[NativeImagery, NativeImagery], Labels]


@dataclass(frozen=True)
class SecondStore:
    """The store of a second sensor, whose images are the second views.

    Args:
        store: The store.
        row_of: int64, one for each row of the store that leads: the row of the image that belongs
            to it, or -1 where there is none.
    """

    store: Store
    row_of: NDArray[np.int64]


def open_pair(path: str | Path) -> tuple[Store, SecondStore]:
    """Return the optical store of a folder of several sensors, and its radar store as the second.

    Raises:
        StoreError: If there is not one of each, no image has a counterpart, or their windows
            differ in size or resolution.
    """
    paired = PairedStore(path)
    radar = [name for name, store in paired.stores.items() if store.spec.sensor in RADAR]
    optical = [name for name in paired.stores if name not in radar]
    if len(radar) != 1 or len(optical) != 1:
        raise StoreError(
            "two views of a place need one optical store and one radar store",
            found=", ".join(paired.stores),
            expected="two stores, such as s2-l1c and s1-grd",
            where=paired.path,
            remedy="pair two of them (eofm pack ssl4eo --sensors s2c,s1)",
        )
    first, second = paired.stores[optical[0]], paired.stores[radar[0]]
    if (first.spec.size, first.spec.gsd) != (second.spec.size, second.spec.gsd):
        raise StoreError(
            "the images of the two sensors show windows of different size",
            found=f"{second.spec.size} at {second.spec.gsd:g} m in {radar[0]}",
            expected=f"{first.spec.size} at {first.spec.gsd:g} m, as in {optical[0]}",
            where=paired.path,
            remedy="cut both with the same window",
        )
    row_of = np.full(len(first), -1, np.int64)
    lines = paired.complete()
    row_of[paired.rows(optical[0])[lines]] = paired.rows(radar[0])[lines]
    if not (row_of >= 0).any():
        raise StoreError(
            "no image has a counterpart of the other sensor",
            found=f"{len(paired)} lines, none of them complete",
            where=paired.path,
            remedy="pair the stores again with a larger max_gap_days",
        )
    return first, SecondStore(second, row_of)


class PairFeeder:
    """Feeds the images of two stores side by side, with the labels of the first.

    Attributes:
        first: Of the store that leads.
        second: Of the second store.

    Args:
        first: Reads the store that leads.
        second: Reads the second store.
        second_store: Says which images belong together.
    """

    def __init__(self, first: Feeder, second: Feeder, second_store: SecondStore) -> None:
        self.first, self.second = first, second
        self._row_of = second_store.row_of

    def feed(self, batches: Iterable[ArrayLike]) -> Iterator[PairBatch]:
        """Yield the images of both and the labels of each list of rows of the first store.

        Args:
            batches: Lists of rows that have a counterpart.

        Raises:
            IndexError: If a row has none.
        """
        mine, theirs = tee(batches)
        first = self.first.feed(mine)
        second = self.second.feed(self._counterparts(rows) for rows in theirs)
        try:
            for (images, labels), (others, _) in zip(first, second, strict=True):
                yield (images, others), labels
        finally:
            for feed in (first, second):
                feed.close()  # type: ignore[attr-defined]  # a generator

    def _counterparts(self, rows: ArrayLike) -> NDArray[np.int64]:
        found = self._row_of[np.asarray(rows, np.int64)]
        if (found < 0).any():
            missing = np.asarray(rows)[found < 0].tolist()
            raise IndexError(f"rows {missing[:5]} have no image of the other sensor")
        return found

    def close(self) -> None:
        """Close the files of both."""
        self.first.close()
        self.second.close()


@dataclass(frozen=True)
class SecondSensor:
    """What a run knows of its second sensor.

    Args:
        name: Of its store and of its trunk.
        plan: From its imagery to normalised pixels.
        recipe: What its input layer expects.
        new_input: Its input layer was drawn at random.
    """

    name: str
    plan: Plan
    recipe: Recipe
    new_input: bool


@final
class PairedViews(nn.Module):
    """One random view of each of two images of a place, by two sensors.

    Args:
        first: Makes views of the first sensor.
        second: Facts about the second.
        config: Ranges, probabilities, and whether both views show the same crop.
    """

    def __init__(self, first: Views, second: SecondSensor, config: AugmentConfig) -> None:
        super().__init__()
        self.first, self.second = first, views_for(second.recipe, config)
        self.preprocess = Preprocess(second.plan)
        self.same_crop = config.pair == "same"

    def forward(self, imagery: Imagery, native: NativeImagery) -> tuple[View, View]:
        """Return a view of each, (B, C, S, S) with its own C.

        Args:
            imagery: Of the first sensor, normalised.
            native: Of the second, as stored, of the same places in the same order.
        """
        others = self.preprocess(to_grid(native))
        draw, other = self.first.draw(imagery.pixels.shape), self.second.draw(others.pixels.shape)
        if self.same_crop:
            other = with_geometry_of(draw, other)
        return (
            view_of(self.first, imagery.pixels, imagery.valid, draw),
            view_of(self.second, others.pixels, others.valid, other),
        )
