"""The files of a comparison of two dates.

change.tif, change.qml   of a patch grid: score (above 1: a change), p, cosine distance
change.gpkg              changed cells that touch, as polygons
change.json              threshold, rate, null, settings, provenance of both dates
config.yaml              the settings: `eofm change --config config.yaml` does it again
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from eofm.geo.cells import GridCells
from eofm.geo.change import ChangeResult, NullKind, detect_change
from eofm.geo.maps_config import ChangeConfig
from eofm.geo.results import (
    CONFIG,
    NO_NUMBER,
    ResultFiles,
    plane,
    write_cog,
    write_frame,
    write_record,
    write_settings,
)
from eofm.geo.styles import score_qml
from eofm.geo.vectors.files import open_embeddings
from eofm.report.output import write_file

_WHITE: Final = 2.0  # score that the style shows lightest


def run_change(config: ChangeConfig) -> ResultFiles:
    """Compare two dates and write all files.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If embeddings cannot be used or do not lie on one grid, or files cannot be
            written.
        SpecError: If vectors of two models are compared.
        ConfigError: If there are too few unchanged cells for the rate.
    """
    before, after = open_embeddings(config.before), open_embeddings(config.after)
    null = [open_embeddings(one) for one in config.null or ()]
    found = detect_change(before, after, null, rate=config.rate, window=config.window)
    folder, polygons = Path(config.out), found.polygons(config.smallest)
    record: dict[str, Any] = {
        "settings": asdict(config),
        "null": found.null,
        "null_distances": found.samples,
        "rate": found.rate,
        "rate_is": "at most, if null dates are as far apart in the season as the two compared"
        if found.null is NullKind.DATES
        else "nominal: most neighbours unchanged, logarithms of distances symmetrical",
        "cells": int(np.isfinite(found.score).sum()),
        "changed": int(found.changed.sum()),
        "polygons": len(polygons),
        "before": json.loads(before.provenance.to_json()),
        "after": json.loads(after.provenance.to_json()),
    }
    files = [
        *_raster(found, folder),
        write_frame(polygons, folder / "change.gpkg"),
        write_record(folder / "change.json", record),
        write_settings(config, folder / CONFIG),
    ]
    return ResultFiles(folder, _words(found, len(polygons), config.smallest), tuple(files))


def _words(found: ChangeResult, polygons: int, smallest: int) -> str:
    cells, changed = int(np.isfinite(found.score).sum()), int(found.changed.sum())
    expected = found.rate * cells
    sure = (
        "of unchanged cells at most this share is reported, where null dates are as far apart in "
        "the season as the two compared"
        if found.null is NullKind.DATES
        else "a nominal rate: name dates without a change (--null) for one that holds"
    )
    return (
        f"{changed} of {cells} cells changed, in {polygons} polygons of {smallest} or more cells\n"
        f"  false alarms: rate {found.rate:g}, about {expected:.0f} cells if nothing had changed; "
        f"{sure}\n  null: {found.null}, {found.samples} distances"
    )


def _raster(found: ChangeResult, folder: Path) -> list[Path]:
    if not isinstance(found.cells, GridCells):
        return []
    grid = found.cells.patches.grid
    planes = np.stack([plane(v, grid) for v in (found.score, found.p, found.distance)])
    return [
        write_cog(
            folder / "change.tif",
            np.nan_to_num(planes, nan=NO_NUMBER),
            grid,
            ["score", "p", "cosine distance"],
            nodata=NO_NUMBER,
            tags={
                "EOFM_NULL": found.null,
                "EOFM_FALSE_ALARM_RATE": repr(found.rate),
                "EOFM_PROVENANCE": found.cells.made.to_json(),
            },
        ),
        write_file(folder / "change.qml", score_qml(0.0, _WHITE, "")),
    ]
