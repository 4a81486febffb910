"""S2-100K: 100,000 unlabelled Sentinel-2 L2A patches, with an index of where they lie.

<root>/index.csv            column fn: the name of an image
<root>/images/patch_*.tif
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.base import Dataset, FolderLayout
from eofm.datasets.check import CheckConfig, CheckGroup, Described, Finding, known_source

__all__ = ["DATASET"]


def _is_s2_100k(root: Path) -> bool:
    return (root / "index.csv").is_file() and any((root / "images").glob("patch_*.tif"))


def _describe(root: Path, config: CheckConfig) -> Described:
    from eofm.raster.folder import list_sources

    sources = list_sources(root / "images", Sensor.S2_L2A, Unit.DN)
    here = {source.files[0].name for source in sources}
    with (root / "index.csv").open(encoding="utf-8", newline="") as stream:
        rows = Counter(row.get("fn", "") for row in csv.DictReader(stream))
    findings = [
        *(
            Finding("the index names an image twice", n, f"{c} rows")
            for n, c in rows.items()
            if c > 1
        ),
        *(
            Finding("the index does not name an image", n, "no row")
            for n in sorted(here - set(rows))
        ),
        *(
            Finding("an image of the index is not there", n, "no file")
            for n in sorted(set(rows) - here)
        ),
    ]
    groups = [CheckGroup("images", [known_source(s) for s in sources])]
    counts = {"images": len(here), "rows of the index": sum(rows.values())}
    return Described("S2-100K", counts, groups, findings, notes=["without labels"])


DATASET: Final = Dataset(
    name="s2-100k",
    title="S2-100K",
    layout=FolderLayout(_is_s2_100k, _describe),
    cards=("s2-100k",),
)
