"""TerraMesh: co-registered Sentinel-1, Sentinel-2, land cover and elevation, one site per name.

A site has Level-1C and Level-2A images of one acquisition, and `eofm data check` holds them against
each other. In the short-wave infrared the atmosphere is nearly clear: Level-2A is Level-1C divided
by the transmission of the way down and up. Over the pixels of one image the two lie on a line with
a slope of 1.1 to 1.2 that misses the origin by less than 100 (three TerraMesh sites, correlation
0.996 to 0.999). Where only one of them carries the offset of 1000 of processing baseline 04.00, the
line misses the origin by about 1000 times that slope (-1260 at the TerraMesh site whose Level-1C
carries it). This tells the offset of a Level-2A image, in which no band is always dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.base import Dataset, FolderLayout
from eofm.datasets.check import CheckConfig, CheckGroup, Described, Finding, known_source, spread
from eofm.errors import EofmError
from eofm.terminal import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eofm.raster.source import RasterSource

__all__ = ["DATASET", "MODALITIES", "compare_twins"]

MODALITIES: Final[Mapping[str, tuple[Sensor, Unit]]] = {
    "S2L1C": (Sensor.S2_L1C, Unit.DN),
    "S2L2A": (Sensor.S2_L2A, Unit.DN),
    "S1GRD": (Sensor.S1_GRD, Unit.DB),
    "S1RTC": (Sensor.S1_RTC, Unit.DB),
}


def _is_terramesh(root: Path) -> bool:
    return any((root / name).is_dir() and any((root / name).glob("*.tif")) for name in MODALITIES)


def _terramesh(root: Path, config: CheckConfig) -> Described:
    from eofm.datasets.check.run import count_maps
    from eofm.raster.folder import list_sources

    groups = []
    listed: dict[str, list[RasterSource]] = {}
    keys = {
        folder.name: {file.stem for file in folder.glob("*.tif")}
        for folder in sorted(root.iterdir())
        if folder.name in {*MODALITIES, "LULC", "DEM", "NDVI"}
    }
    for name, (sensor, unit) in MODALITIES.items():
        if keys.get(name):
            listed[name] = list_sources(root / name, sensor, unit)
            subjects = [known_source(source) for source in listed[name]]
            groups.append(CheckGroup(name, subjects, prefix=f"{name}/"))
    every = set().union(*keys.values())
    findings = [
        Finding("a site lacks a modality", key, f"not in {name}")
        for name, there in keys.items()
        for key in sorted(every - there)
    ]
    findings += compare_twins(listed.get("S2L1C", ()), listed.get("S2L2A", ()), config.limit)
    counts = {f"{name} files": len(there) for name, there in keys.items()}
    if "LULC" not in keys:
        return Described("TerraMesh", counts, groups, findings)
    maps, classes = count_maps(sorted((root / "LULC").glob("*.tif")), "terramesh", config.limit)
    return Described("TerraMesh", counts, groups, [*findings, *maps], len(keys["LULC"]), classes)


# --------------------------------------------------- Level-1C and Level-2A of one acquisition

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
    from eofm.raster.source import find_doubt

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
    import numpy as np

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
    import numpy as np

    with source.open() as raster:
        imagery = raster.read()
    valid = imagery.valid[0].numpy()
    return {
        band: np.where(valid, imagery.pixels[0, index].numpy(), np.nan).astype(np.float64)
        for index, band in enumerate(imagery.spec.bands)
        if band in _BANDS
    }


DATASET: Final = Dataset(
    name="terramesh",
    title="TerraMesh",
    layout=FolderLayout(_is_terramesh, _terramesh),
    cards=("terramesh",),
)
