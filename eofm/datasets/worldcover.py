"""ESA WorldCover: maps of land cover at 10 m, as files ESA_WorldCover_10m_*_Map.tif of 3 degrees.

Its codes are those of the scheme `worldcover` (`eofm.landcover.schemes`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from eofm.datasets.base import Dataset, FolderLayout
from eofm.datasets.check import CheckConfig, Described

__all__ = ["DATASET"]

_MAPS: Final = "ESA_WorldCover_10m_*_Map.tif"


def _is_worldcover(root: Path) -> bool:
    return any(root.glob(_MAPS))


def _describe(root: Path, config: CheckConfig) -> Described:
    from eofm.datasets.check.run import MAP_WINDOW, count_maps

    files = sorted(root.glob(_MAPS))
    findings, classes = count_maps(files, "worldcover", config.limit)
    note = f"looked at in windows of {MAP_WINDOW} pixels, spread evenly"
    counts = {"maps": len(files)}
    return Described("ESA WorldCover", counts, (), findings, len(files), classes, [note])


DATASET: Final = Dataset(
    name="worldcover",
    title="ESA WorldCover",
    layout=FolderLayout(_is_worldcover, _describe),
    cards=("worldcover",),
)
