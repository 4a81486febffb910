"""Places of several stores that are the same ground."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eofm.raster.grid import Grid
from eofm.raster.ground import Square, same_ground
from eofm.store.packing.grids import known_grids
from eofm.store.reader import Store

Place = tuple[int, str]
"""Number of a store and the name of a place in it."""


def join_places(stores: Sequence[Store]) -> dict[Place, str]:
    """Find the places of different stores that overlap, or have one name.

    The ground of an image is its grid. Of stores of 0.1, which kept only the centre, it is taken to
    be a rectangle of the size of the store that faces north. Places within one store are what they
    were stated to be when it was packed: they become one only where a place of another store
    overlaps both.

    Args:
        stores: In the order in which they are merged.

    Returns:
        The name of each such place in the first store that has it; only of places that hold
        several images.

    Raises:
        StoreError: If a CRS or a transform of an index cannot be read.
    """
    images: list[Grid | Square | None] = []
    keys: list[Place] = []
    sources: dict[Place, set[str]] = {}
    for number, store in enumerate(stores):
        places, names = (store.table[name].to_pylist() for name in ("location", "source"))
        for location, source in zip(places, names, strict=True):
            keys.append((number, location))
            sources.setdefault((number, location), set()).add(source)
        images += _grounds(store)
    groups = same_ground(images, [number for number, _ in keys])
    return {
        place: members[0][1]
        for members in _joined(keys, groups)
        if len({number for number, _ in members}) > 1
        and len(set().union(*(sources[place] for place in members))) > 1
        for place in members
    }


def _grounds(store: Store) -> list[Grid | Square | None]:
    """Return the ground of every image, None where its place is not known."""
    (height, width), gsd = store.card.size, store.spec.gsd
    centres = (store.table[name].to_pylist() for name in ("longitude", "latitude"))
    found: list[Grid | Square | None] = []
    for grid, east, north in zip(known_grids(store), *centres, strict=True):
        around = Square(east, north, height * gsd, width * gsd, gsd)
        found.append(grid or (around if math.isfinite(east + north) else None))
    return found


def _joined(keys: Sequence[Place], groups: Sequence[int]) -> list[list[Place]]:
    """Return places that share a group of images, or a name, in the order of the stores."""
    parent: dict[Place | str | int, Place | str | int] = {}

    def top(key: Place | str | int) -> Place | str | int:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for key, group in zip(keys, groups, strict=True):
        parent[top(group)] = top(key)
        parent[top(key[1])] = top(key)  # stores of several sensors call one place alike
    members: dict[Place | str | int, dict[Place, None]] = {}
    for key in keys:
        members.setdefault(top(key), {})[key] = None
    return [list(places) for places in members.values()]
