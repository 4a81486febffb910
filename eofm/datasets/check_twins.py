"""Level-1C and Level-2A images of one acquisition, held against each other.

In the short-wave infrared the atmosphere is nearly clear: Level-2A is Level-1C divided by the
transmission of the way down and up. Over the pixels of one image the two lie on a line with a slope
of 1.1 to 1.2 that misses the origin by less than 100 (three TerraMesh sites, correlation 0.996 to
0.999). Where only one of them carries the offset of 1000 of processing baseline 04.00, the line
misses the origin by about 1000 times that slope (-1260 at the TerraMesh site whose Level-1C carries
it). This tells the offset of a Level-2A image, in which no band is always dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eofm.contract.spec import Unit
from eofm.datasets.check_types import Finding, spread
from eofm.errors import EofmError
from eofm.progress import track
from eofm.raster.quality import find_doubt
from eofm.raster.source import RasterSource

_BANDS: Final = ("B11", "B12")
_MISSES: Final = 600.0  # the origin, where one carries the offset; the same state misses it by 300
_CORRELATED: Final = 0.9  # below it, clouds or another date: nothing can be said


def compare_twins(
    top: Sequence[RasterSource], bottom: Sequence[RasterSource], limit: int
) -> list[Finding]:
    """Return which images carry or lack the offset otherwise than their twins are stated to.

    Args:
        top: Level-1C images.
        bottom: Level-2A images; twins have the same name.
        limit: How many pairs to read, spread evenly; 0 means all.
    """
    others = {source.name: source for source in bottom}
    pairs = [(source, others[source.name]) for source in top if source.name in others]
    chosen = [pairs[i] for i in spread(len(pairs), limit)]
    found = []
    for one, other in track(chosen, "comparing Level-1C with Level-2A"):
        try:
            finding = _compare(one, other)
        except EofmError:
            continue  # what cannot be read is named where every image is
        if finding is not None:
            found.append(finding)
    return found


def _compare(top: RasterSource, bottom: RasterSource) -> Finding | None:
    misses = _misses(top, bottom)
    if misses is None:
        return None
    stated = (bottom.unit is Unit.DN_OFFSET1000) - (top.unit is Unit.DN_OFFSET1000)
    shown = " and ".join(f"{value:.0f}" for value in misses)
    line = f"lines of Level-2A over Level-1C miss the origin by {shown}"
    pair = f"S2L1C/{top.name} and S2L2A/{bottom.name}"
    bands = ", ".join(_BANDS)
    one = 0 if max(map(abs, misses)) < _MISSES else 1 if min(misses) > 0 else -1
    if one != stated:
        who = {1: "Level-2A alone", -1: "Level-1C alone", 0: "both or none"}[one]
        return Finding(
            "the offset of processing baseline 04.00 is stated otherwise than twins show it",
            pair,
            f"{line}: {who} seems to carry it, stated are {top.unit} and {bottom.unit}",
            bands,
        )
    with top.open() as raster:
        doubt = find_doubt(raster)
    if doubt is not None and doubt.instead is not None:
        return Finding(
            "Level-2A shares the offset of its Level-1C twin, and both are stated without it",
            pair,
            f"{line}; {doubt.found} in Level-1C, stated to be in {top.unit}",
            bands,
        )
    return None


def _misses(top: RasterSource, bottom: RasterSource) -> tuple[float, ...] | None:
    """Return by how much each band's line misses the origin; None where that cannot be said."""
    found = []
    ours, theirs = _values(top), _values(bottom)
    for band in _BANDS:
        if band not in ours or band not in theirs or ours[band].shape != theirs[band].shape:
            return None
        x, y = ours[band].ravel(), theirs[band].ravel()
        valid = np.isfinite(x) & np.isfinite(y)
        x, y = x[valid], y[valid]
        if x.size < 100 or x.std() == 0 or y.std() == 0:
            return None
        correlation = float(np.corrcoef(x, y)[0, 1])
        if correlation < _CORRELATED:
            return None
        slope = correlation * float(y.std() / x.std())
        found.append(float(y.mean() - slope * x.mean()))
    inside = all(abs(value) < _MISSES for value in found)
    beyond = all(abs(v) >= _MISSES and v * found[0] > 0 for v in found)
    return tuple(found) if inside or beyond else None


def _values(source: RasterSource) -> dict[str, NDArray[np.float64]]:
    """Return the short-wave infrared bands at their own resolution, NaN where not measured."""
    with source.open() as raster:
        imagery = raster.read()
    valid = imagery.valid[0].numpy()
    return {
        band: np.where(valid, imagery.pixels[0, index].numpy(), np.nan).astype(np.float64)
        for index, band in enumerate(imagery.spec.bands)
        if band in _BANDS
    }
