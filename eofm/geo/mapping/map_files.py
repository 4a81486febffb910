"""The files of a class map: rasters or polygons with their styles, training data, record, report.

map.tif             class of each patch: colours, names (map.tif.aux.xml), nodata 0
map.qml, map.sld    its style for QGIS and for OGC servers
probability.tif     of that class; second band: distance from the training vectors over its limit
map.gpkg            of chips, in place of the rasters
training.gpkg       the cells it was learnt from, and what was said of them held out
report.md, .html    accuracy, intervals, areas, what to mistrust
map.json            all numbers of the report, settings, provenance
config.yaml         the settings of `eofm map`: `eofm map --config config.yaml` does it again
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from eofm.geo.cells import GridCells
from eofm.geo.mapping.class_map import NO_CLASS, LearntMap, MappedCells, map_classes
from eofm.geo.mapping.map_report import markdown_of, page_of, summary
from eofm.geo.maps_config import MapConfig
from eofm.geo.results import (
    CONFIG,
    NO_NUMBER,
    ResultFiles,
    plane,
    write_categories,
    write_cog,
    write_frame,
    write_record,
    write_settings,
)
from eofm.geo.styles import class_colours, class_qml, class_sld, polygon_qml, score_qml
from eofm.geo.vectors.files import CHIPS, PATCHES_TIFF, PATCHES_ZARR, open_embeddings
from eofm.report import pages
from eofm.report.output import write_file
from eofm.report.plots import Estimate


def run_map(config: MapConfig) -> ResultFiles:
    """Learn a map and write all its files.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If the settings do not fit the labels.
        DataError: If embeddings or labels cannot be used, or files cannot be written.
        SpecError: If other embeddings are of another model.
    """
    embeddings = open_embeddings(config.embeddings)
    learnt = map_classes(embeddings, list(config.labels), config.field, config.method)
    others = config.also or ()
    also = [learnt.on(open_embeddings(one)) for one in others]
    done = write_map(learnt, config.out, asdict(config))
    names = _folder_names([Path(one) for one in others])
    more = [
        write_mapped(found, learnt.probe.name, done.folder / name)[0]
        for name, found in zip(names, also, strict=True)
    ]
    kept = write_settings(config, done.folder / CONFIG)
    return replace(done, files=(*done.files, *more, kept))


def _folder_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each: that of the scene's folder, numbered where two are called alike."""
    kept = {CHIPS, PATCHES_TIFF, PATCHES_ZARR}
    plain = [path.parent.name if path.name in kept else path.stem for path in paths]
    return [
        f"{name}_{number}" if plain.count(name) > 1 else name
        for number, name in enumerate(plain, 1)
    ]


def write_map(
    learnt: LearntMap, out: Path | str, settings: Mapping[str, Any] | None = None
) -> ResultFiles:
    """Write the files of a map.

    Args:
        learnt: The map.
        out: The folder; it is made.
        settings: What the record says of how it was asked for; the method alone without.

    Raises:
        DataError: If a file cannot be written.
    """
    folder = Path(out)
    names = dict(enumerate(learnt.classes, 1))
    colours = class_colours(learnt.classes)
    files = [
        *write_mapped(learnt.map, learnt.probe.name, folder),
        write_frame(learnt.training_frame(), folder / "training.gpkg"),
        write_file(
            folder / "training.qml", polygon_qml("class", learnt.classes, colours)
        ),
    ]  # fmt: skip
    record = record_of(learnt, settings or asdict(learnt.method))
    page = page_of(learnt, {code: colours[code] for code in names})
    files += [
        write_file(folder / "report.md", markdown_of(learnt).encode()),
        pages.save(page, folder / "report.html"),
        write_record(folder / "map.json", record),
    ]
    # the summary ends with a table or a list, which ends with an empty line
    return ResultFiles(folder, summary(learnt) + "\n", tuple(files))


def write_mapped(found: MappedCells, probe: str, folder: Path) -> list[Path]:
    """Write classes as rasters with their style, those of chips as polygons.

    Args:
        found: The classes.
        probe: Id of the read-out.
        folder: It is made.

    Raises:
        DataError: If a file cannot be written.
    """
    names = dict(enumerate(found.classes, 1))
    colours = class_colours(found.classes)
    if not isinstance(found.cells, GridCells):
        return [
            write_frame(found.to_frame(), folder / "map.gpkg"),
            write_file(folder / "map.qml", polygon_qml("class", found.classes, colours)),
        ]
    grid = found.cells.patches.grid
    tags = {
        "EOFM_CLASSES": json.dumps(names),
        "EOFM_PROVENANCE": found.cells.made.to_json(),
        "EOFM_PROBE": probe,
    }
    codes = plane(found.codes, grid)[None]
    scores = np.stack([plane(found.probability, grid), plane(found.novelty, grid)])
    return [
        write_cog(
            folder / "map.tif", codes, grid, ["class"], nodata=NO_CLASS, tags=tags, colours=colours
        ),
        write_categories(folder / "map.tif", {NO_CLASS: "no class", **names}),
        write_file(folder / "map.qml", class_qml(names, colours)),
        write_file(folder / "map.sld", class_sld("map", names, colours)),
        write_cog(
            folder / "probability.tif",
            np.nan_to_num(scores, nan=NO_NUMBER),
            grid,
            ["probability", "distance over limit"],
            nodata=NO_NUMBER,
            tags=tags,
        ),
        write_file(folder / "probability.qml", score_qml(0.0, 1.0, "")),
    ]


def record_of(learnt: LearntMap, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all numbers of a map in plain types: see `write_record`.

    Args:
        learnt: The map.
        settings: How it was asked for.
    """
    found, areas = learnt.assessment, learnt.areas
    record = {
        "settings": dict(settings),
        "provenance": json.loads(learnt.map.cells.made.to_json()),
        "probe": learnt.probe.name,
        "cross_validation": {
            "probes": learnt.validation.probes,
            "folds": learnt.folds.count,
            "block_metres": learnt.folds.side,
            "block_from": "stated" if learnt.variogram is None else "variogram",
            "polygons": len(learnt.training.features),
            "cells": len(learnt.training),
        },
        "overall_accuracy": _plain(found.overall),
        "confusion": {"rows": "polygons", "columns": "map", "cells": found.confusion.tolist()},
        "classes": {
            name: {
                "code": code + 1,
                "polygons": found.polygons[code],
                "scored": bool(found.scored[code]),
                "users_accuracy": _plain(found.users[code]),
                "producers_accuracy": _plain(found.producers[code]),
                "mapped_square_metres": float(learnt.map.mapped[code]),
                "beyond_training": float(learnt.map.beyond[code]),
            }
            for code, name in enumerate(learnt.classes)
        },
        "learning_curve": [
            {"polygons": point.polygons, **asdict(point.overall)} for point in learnt.curve
        ],
        "areas": None,
        "notes": list(learnt.notes),
    }
    if areas is not None:
        total = float(learnt.map.mapped.sum())
        record["areas"] = {
            name: {
                "square_metres": float(areas.area[code]) * total,
                "standard_error": float(areas.area_error[code]) * total,
            }
            for code, name in enumerate(learnt.classes)
        }
    return record


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else asdict(estimate)
