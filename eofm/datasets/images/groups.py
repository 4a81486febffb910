"""Which images belong together: intervals draw groups of test images, never the images alone.

Images cut from one product resemble one another: one sky, one season, one day. A hundred patches
of one product are far less than a hundred independent images, and a bootstrap that draws them one
by one is far too sure of itself. A group is the first of these that the data says: the product
(or event) that an image was cut from, the place that it shows, the scene of which it is a window.
Where the data says none of them, every image is a group of its own, and tables say so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

# Sentinel-2 and Sentinel-1 as their products are called; patches are called like them with
# something behind. Version 1 of BigEarthNet names no tile, and writes 09:30:20 as T93020.
_PRODUCTS: Final = (
    re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{5,6}(?:_N\d{4}_R\d{3}_T\d{2}[A-Z]{3})?(?![^_./-])"),
    re.compile(
        r"S1[A-D]_(?:IW|EW|S\d|WV)_(?:GRD[FHM]|SLC_)_1S[DSHV][HV]_\d{8}T\d{6}(?:_\d{8}T\d{6})?"
        r"(?:_\d{6}_[0-9A-F]{6})?(?![^_./-])"
    ),
)


@dataclass(frozen=True)
class Grouping:
    """Which images of a task belong together, in words.

    Args:
        what: What a group is, in the plural: `Sentinel-2 products`, `places`. Where nothing is
            known, what the images are: `tiles`.
        why: How the group of an image is known, or why none is.
        known: Whether it is. Otherwise every image is a group of its own.
    """

    what: str
    why: str
    known: bool = True


NO_GROUPS: Final = Grouping(
    "test images", "the data set does not say which of them belong together", known=False
)
PRODUCTS: Final = Grouping("products", "the names of the images say which one")
PLACES: Final = Grouping(
    "places",
    "images whose footprints overlap show one place; an image that does not say where it lies is "
    "a place of its own",
)
STATED_PLACES: Final = Grouping("places", "--place states them by the names of the images")


def product_in(name: str) -> str | None:
    """Return the product of Sentinel-1 or Sentinel-2 that a name holds, None if it holds none.

    Args:
        name: Of an image, with or without folders and ending.

    >>> product_in("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57")
    'S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP'
    """
    found = (pattern.search(name) for pattern in _PRODUCTS)
    return next((one.group() for one in found if one), None)


def taken_in(name: str) -> date | None:
    """Return the day on which the product that a name holds was taken; None if it holds none.

    Args:
        name: As of `product_in`.

    >>> taken_in("S2A_MSIL2A_20170613T101031_0_45").isoformat()
    '2017-06-13'
    """
    product = product_in(name)
    day = None if product is None else re.search(r"_(\d{8})T", product)
    try:
        return None if day is None else datetime.strptime(day[1], "%Y%m%d").date()
    except ValueError:  # eight digits that are no day
        return None


def groups_sha256(ids: Sequence[str], groups: Sequence[str]) -> str:
    """Return the sha256 of which sample is in which group; empty where every one is a group.

    Args:
        ids: Of the samples.
        groups: The group of each of them.
    """
    if len(set(groups)) == len(groups):
        return ""
    content = sorted(zip(ids, groups, strict=True))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def products_of(names: Iterable[str]) -> dict[str, str]:
    """Return the product of every image; nothing if one of the names holds none.

    Args:
        names: Of all images that are to be grouped by one rule.
    """
    found = {name: product_in(name) for name in names}
    known = {name: product for name, product in found.items() if product is not None}
    return known if len(known) == len(found) else {}
