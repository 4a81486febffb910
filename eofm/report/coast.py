"""Coastlines behind places on a map.

`coastline.npz` is Natural Earth's land at 1:50 million (naturalearthdata.com, public domain),
thinned to 0.05 degrees; `docs/images/coastline.py` makes it. It tells where on Earth a place is,
and is off by some kilometres.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from eofm.formats.arrays import read_npz

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE: Final = "coastlines: Natural Earth"
_UNIT: Final = 0.01  # degrees: coordinates are whole numbers of it
_COLOUR: Final = "#8a8a8a"


@lru_cache(maxsize=1)
def coastlines() -> tuple[NDArray[np.float64], ...]:
    """Return the lines of all coasts, each (N, 2): longitude and latitude in degrees."""
    stored = read_npz(files("eofm.report").joinpath("coastline.npz").read_bytes())
    points = stored["points"].astype(np.float64) * _UNIT
    return tuple(np.split(points, stored["starts"][1:]))


def draw_coastlines(axes: Axes, width: float = 0.6) -> None:
    """Draw all coastlines under what is there, without a change of the limits.

    Args:
        axes: Of longitude and latitude in degrees.
        width: Of the lines, in points.
    """
    from matplotlib.collections import LineCollection

    lines = LineCollection([*coastlines()], colors=_COLOUR, linewidths=width, zorder=0.5)
    axes.add_collection(lines, autolim=False)
