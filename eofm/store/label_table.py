"""The labels of all images of some stores in one table, as training is told them.

A packed store knows the labels of its images; a run may want to be told something else or more: an
unlabelled season inherits the labels of another one of its place, covered shares and places come
along, or the labels are exchanged for a control. `eofm.loading.feeder.Feeder` hands such a table
out in place of the stores' own labels.

    table = label_table((store,), inherit=True, places=True)
    feeder = Feeder(store, 64, labels=table)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import Labels
from eofm.store.reader import Store


def label_table(
    stores: Sequence[Store], *, inherit: bool = False, shares: bool = False, places: bool = False
) -> Labels:
    """Return the labels of the rows of some stores, one store behind the other.

    Args:
        stores: Of the same classes as the first, or without labels.
        inherit: Give an unlabelled image the labels of the labelled image of its place that is
            nearest in time; they count as known.
        shares: Say how much of an image each class covers.
        places: Number the places.
    """
    classes = len(stores[0].classes)
    own = [store.labels(range(len(store))) for store in stores]
    hot = torch.cat([_classes(labels.multi_hot, classes) for labels in own])
    known = torch.cat([labels.known for labels in own])
    cover = None
    if shares:
        parts = [_classes(store.fractions(range(len(store))), classes) for store in stores]
        cover = torch.cat(parts)
    number = None
    if places or inherit:
        names = np.concatenate([store.locations for store in stores])
        number = torch.from_numpy(np.unique(names, return_inverse=True)[1].astype(np.int64))
    table = Labels(hot, known, cover, number if places else None)
    if inherit and number is not None:
        times = np.concatenate([_days(store) for store in stores])
        labelled = known & (hot.sum(1) > 0)
        source = torch.from_numpy(inherited_from(number.numpy(), times, labelled.numpy()))
        came = source >= 0
        source = torch.where(came, source, 0)
        table = Labels(
            torch.where(came[:, None], hot[source], hot),
            known | came,
            None if cover is None else torch.where(came[:, None], cover[source], cover),
            table.places,
        )
    return table


_EXCHANGE: Final = 5  # tells this draw from those of eofm.loading.sampler


def exchanged(labels: Labels, rows: NDArray[np.int64], seed: int) -> Labels:
    """Return the labels with those of some images exchanged at random among them.

    Every label set stays as frequent as it was, and every image keeps one for good; but it is that
    of a random image. What training gains from such labels it does not gain from what they mean.
    Images that are unlabelled stay so, and places stay where they are.

    Args:
        labels: Of all images.
        rows: Those that exchange theirs, such as the training images.
        seed: Of the exchange.
    """
    labelled = (labels.known & (labels.multi_hot.sum(1) > 0)).numpy()
    among = rows[labelled[rows]]
    source = np.arange(len(labels))
    source[among] = np.random.default_rng([seed, _EXCHANGE]).permutation(among)
    return replace(labels[torch.from_numpy(source)], places=labels.places)


def inherited_from(
    places: NDArray[np.int64], times: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the image that each unlabelled one inherits its labels from.

    Args:
        places: Number of the place of each image.
        times: When it was taken, in any unit.
        labelled: Whether it has labels.

    Returns:
        For an unlabelled image the labelled one of its place that is nearest in time, the earlier
        of two that are as near; -1 if there is none. -1 for labelled images.
    """
    order = np.lexsort((times, places))
    sure, place, time = labelled[order], places[order], times[order]
    index = np.arange(len(order))
    before = np.maximum.accumulate(np.where(sure, index, -1))
    after = np.minimum.accumulate(np.where(sure, index, len(order))[::-1])[::-1]
    gaps = []
    for other, there in ((before, before >= 0), (after, after < len(order))):
        at = np.where(there, other, 0)
        same = there & (place[at] == place)
        gaps.append(np.where(same, np.abs(time - time[at]), np.inf))
    nearest = np.where(gaps[0] <= gaps[1], before, after)
    found = np.isfinite(np.minimum(*gaps)) & ~sure
    source = np.full(len(order), -1, np.int64)
    source[order[found]] = order[nearest[found]]
    return source


def _days(store: Store) -> NDArray[np.float64]:
    """Return the day of each image; 0 where it is not known."""
    dates: list[Any] = store.table["date"].to_pylist()
    days = [np.datetime64(date[:10], "D").astype(np.float64) if date else 0.0 for date in dates]
    return np.array(days, np.float64)


def _classes(values: torch.Tensor, classes: int) -> torch.Tensor:
    """Return (B, K) values; of a store without labels, zeros of the width of the others."""
    return values if values.shape[1] == classes else values.new_zeros(len(values), classes)
