"""Some bands of a store: which planes of which files hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import ImageSpec
from eofm.errors import SpecError
from eofm.store.format import StoreCard


@dataclass(frozen=True)
class Selection:
    """Bands to read.

    The grid stays that of the store, also where no band of the finest resolution is asked for:
    the valid mask lies on it.

    Args:
        spec: The store's, with these bands in the order asked for.
        groups: Native GSD in metres -> the bands read, in the order in which they are stored.
        runs: GSD -> ranges of adjacent planes, in rising order: one read each.
    """

    spec: ImageSpec
    groups: Mapping[int, tuple[str, ...]]
    runs: Mapping[int, tuple[slice, ...]]


def select_bands(card: StoreCard, bands: Sequence[str] | None = None) -> Selection:
    """Find bands in a store.

    Args:
        card: The store's.
        bands: Their names, in the order wanted; None means all.

    Raises:
        SpecError: If a name is unknown, repeated, or not in the store.
    """
    if bands is None:
        whole = {gsd: (slice(0, len(names)),) for gsd, names in card.groups.items()}
        return Selection(card.spec, dict(card.groups), whole)
    wanted = canonical_bands(bands, card.spec.sensor)
    missing = [band for band in wanted if band not in card.spec.bands]
    if missing or not wanted:
        raise SpecError(
            "the store does not hold these bands",
            found=", ".join(card.spec.bands),
            expected=", ".join(missing) or "at least one band",
            remedy="ask for bands that are there, or pack the missing ones",
        )
    groups, runs = {}, {}
    for gsd, names in card.groups.items():
        planes = [i for i, name in enumerate(names) if name in wanted]
        if planes:
            groups[gsd] = tuple(names[i] for i in planes)
            runs[gsd] = _runs(planes)
    return Selection(replace(card.spec, bands=wanted), groups, runs)


def _runs(planes: Sequence[int]) -> tuple[slice, ...]:
    """Return rising numbers as ranges.

    >>> _runs([0, 1, 2, 5])
    (slice(0, 3, None), slice(5, 6, None))
    """
    breaks = np.flatnonzero(np.diff(planes) > 1) + 1
    parts = np.split(np.asarray(planes), breaks)
    return tuple(slice(int(part[0]), int(part[-1]) + 1) for part in parts)
