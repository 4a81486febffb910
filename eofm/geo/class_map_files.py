"""The files of a class map: rasters or polygons with their styles, training data, record, report.

map.tif             class of each patch: colours, names (map.tif.aux.xml), nodata 0
map.qml, map.sld    its style for QGIS and for OGC servers
probability.tif     of that class; second band: distance from the training vectors over its limit
map.gpkg            of chips, instead of the rasters
training.gpkg       the training cells, and the predictions for them when held out
report.md, .html    accuracy, intervals, areas, limitations
map.json            all numbers of the report, settings, provenance
config.yaml         the settings of `eofm map`; `eofm map --config config.yaml` repeats the run
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from eofm.geo.accuracy import Z95, BlockFrom
from eofm.geo.cells import GridCells
from eofm.geo.class_map import NO_CLASS, LearntMap, MappedCells, map_classes
from eofm.geo.embedding_files import CHIPS, PATCHES_TIFF, PATCHES_ZARR, open_embeddings
from eofm.geo.maps_config import MapConfig
from eofm.geo.results import (
    CONFIG,
    NO_NUMBER,
    Colour,
    ResultFiles,
    check_folder,
    class_colours,
    class_qml,
    class_sld,
    drop_earlier,
    exclusive,
    plane,
    polygon_qml,
    score_qml,
    write_categories,
    write_cog,
    write_frame,
    write_record,
    write_settings,
)
from eofm.io import write_file
from eofm.probes.bootstrap import FEW_GROUPS, TOO_NARROW, enough_groups
from eofm.report import pages, plots, sheets
from eofm.report.plots import Estimate
from eofm.report.tables import Table, TableRow, bullets, markdown

if TYPE_CHECKING:
    from eofm.report.output import Figure

__all__ = [
    "area_table",
    "class_table",
    "map_figure",
    "markdown_of",
    "page_of",
    "percent",
    "record_of",
    "run_map",
    "summary",
    "verdict",
    "write_map",
    "write_mapped",
]


# --------------------------------------------------------------------------------------- the report

_HECTARE: Final = 1e4  # square metres
_PROBABILITY_SCALE: Final = {0.0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"}
_DISTANCE_SCALE: Final = {0.0: "0", 0.5: "1, the limit", 1.0: "2 or more"}
_SIDES: Final = {
    BlockFrom.STATED: "stated",
    BlockFrom.VARIOGRAM: "the range of the variogram of the vectors",
    BlockFrom.EXTENT: "half of the extent, because the range of the variogram is unknown",
}


def percent(estimate: Estimate | None) -> str:
    """Return a share with its interval, as in `84 % (79 to 88)`; no interval if its width is 0."""
    if estimate is None:
        return "–"
    if not estimate.has_interval:
        return f"{_whole(estimate.value)} %"
    return f"{_whole(estimate.value)} % ({_whole(estimate.low)} to {_whole(estimate.high)})"


def _whole(share: float) -> str:
    """Return whole per cent, but no 0 or 100 that rounding alone has made."""
    text = f"{100 * share:.0f}"
    if text in {"0", "100"} and 0 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f}"
    return text


def verdict(learnt: LearntMap) -> str:
    """Return the accuracy in one sentence, with the data it was measured on."""
    found = learnt.assessment
    tested = (
        f"held-out squares of {learnt.folds.side:.0f} m, {sum(found.cells)} cells of "
        f"{sum(found.tested)} polygons"
    )
    rest = f"; not scored: {', '.join(learnt.unscored)}" if learnt.unscored else ""
    if found.overall is None:
        (scored,) = set(learnt.classes).difference(learnt.unscored)
        return f"no overall accuracy: only {scored} could be scored, on {tested}{rest}"
    return f"overall accuracy {percent(found.overall)} on {tested}{rest}"


def class_table(learnt: LearntMap) -> Table:
    """Return the table of the classes."""
    found = learnt.assessment
    total = max(float(learnt.map.mapped.sum()), 1e-9)
    rows = [
        TableRow(
            (
                name,
                str(found.polygons[code]),
                str(int((learnt.training.labels == code).sum())),
                str(found.cells[code]) if found.scored[code] else "–",
                percent(found.users[code]),
                percent(found.producers[code]),
                f"{learnt.map.mapped[code] / _HECTARE:.0f}",
                f"{100 * learnt.map.mapped[code] / total:.1f} %",
                f"{100 * learnt.map.beyond[code]:.0f} %",
            ),
            faint=not found.scored[code],
        )
        for code, name in enumerate(learnt.classes)
    ]
    return Table(
        (
            *("class", "polygons", "training cells", "tested cells", "user's accuracy"),
            *("producer's accuracy", "mapped ha", "of the map", "beyond training"),
        ),
        tuple(rows),
        notes=(
            "user's accuracy: share of cells mapped as a class that belong to it; producer's: of "
            "cells of a class, the share that is mapped as it",
            "in brackets 95 % intervals, by resampling whole squares on the ground; none if all "
            "resamples score the same, which is no certainty; they say nothing of places that no "
            "polygon is like",
            "mapped ha: counted on the map, which is biased where errors do not cancel",
            "beyond training: share of the class's cells that are further from all training "
            "vectors than 99 % of these are from another polygon; 1 % is usual",
        ),
    )


def area_table(learnt: LearntMap) -> Table | None:
    """Return the table of estimated areas; None without a probability sample."""
    if learnt.areas is None:
        return None
    total = float(learnt.map.mapped.sum()) / _HECTARE
    found = learnt.areas
    rows = tuple(
        TableRow(
            (
                name,
                f"{found.area[code] * total:.0f} ± {Z95 * found.area_error[code] * total:.0f}",
                f"{found.mapped[code] * total:.0f}",
                _with_error(found.users[code], found.users_error[code]),
                _with_error(found.producers[code], found.producers_error[code]),
            )
        )
        for code, name in enumerate(learnt.classes)
    )
    overall = _with_error(found.overall, found.overall_error)
    return Table(
        ("class", "estimated ha", "mapped ha", "user's accuracy", "producer's accuracy"),
        rows,
        notes=(
            f"overall accuracy {overall}, weighted by the area of the map's classes",
            "post-stratified estimator of Olofsson et al. 2014 (doi 10.1016/j.rse.2014.02.015), "
            "± half of the 95 % interval; each point was predicted while its square was held out",
            "valid for points drawn at random with equal probability: that was stated by "
            "`--design random`",
        ),
    )


def _with_error(value: float, error: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.0f} % ± {100 * Z95 * error:.0f}"


def summary(learnt: LearntMap) -> str:
    """Return the accuracy for a terminal."""
    areas = area_table(learnt)
    parts = [verdict(learnt), "", markdown(class_table(learnt))]
    parts += [] if areas is None else ["", markdown(areas)]
    parts += ["", *bullets(learnt.notes)] if learnt.notes else []
    return "\n".join(parts)


def markdown_of(learnt: LearntMap) -> str:
    """Return the report as Markdown."""
    made = "\n".join(bullets(_how(learnt)))
    return f"# Map of {len(learnt.classes)} classes\n\n{summary(learnt)}\n\n## How\n\n{made}\n"


def _how(learnt: LearntMap) -> tuple[str, ...]:
    made, method = learnt.map.cells.made, learnt.method
    side = _SIDES[learnt.folds.source]
    if learnt.variogram is not None and learnt.folds.side < learnt.variogram.range:
        side = f"less than {side}"
    squares = learnt.assessment.all_squares
    scenes = ", ".join(f"{scene.id} {scene.date}".strip() for scene in made.scenes)
    return (
        f"vectors: {made.model or 'of an unknown model'}, {learnt.map.cells.dim} dimensions"
        + (f", of {scenes}" if scenes else ""),
        f"read-out: `{learnt.probe.name}`, chosen and fitted inside each fold",
        f"a cell belongs to a class if its polygons cover at least {method.purity:.0%} of it; at "
        f"most {method.per_polygon} cells of a polygon",
        f"{learnt.folds.count} folds of squares of {learnt.folds.side:.0f} m ({side}): a polygon "
        "is tested by a read-out that was trained without its square",
        f"intervals: whole squares are resampled, {squares} of them"
        + (f"; {TOO_NARROW}" if enough_groups(squares) and squares < FEW_GROUPS else ""),
    )


# ---------------------------------------------------------------------------------- page


def page_of(learnt: LearntMap, colours: Mapping[int, Colour]) -> pages.Page:
    """Return the report as a page with figures.

    Args:
        learnt: The map.
        colours: Colours of the classes, by code.
    """
    areas = area_table(learnt)
    pictures = _pictures(learnt, colours)
    return pages.Page(
        f"Map of {len(learnt.classes)} classes",
        (
            pages.Section("Map", (pages.Drawings(pictures),) if pictures else ()),
            pages.Section("Accuracy", (pages.TableBlock(class_table(learnt)),)),
            pages.Section("Areas", () if areas is None else (pages.TableBlock(areas),)),
            pages.Section("Figures", (pages.Drawings(_figures(learnt)),)),
            pages.Section("How it was made", (pages.Notes(_how(learnt)),)),
        ),
        lead=(pages.Notes(learnt.notes),) if learnt.notes else (),
        verdict=verdict(learnt),
        tone=pages.Tone.WARN if any("**" in note for note in learnt.notes) else pages.Tone.PLAIN,
    )


def _pictures(learnt: LearntMap, colours: Mapping[int, Colour]) -> tuple[tuple[str, Figure], ...]:
    if not isinstance(learnt.map.cells, GridCells):
        return ()
    shape = learnt.map.cells.patches.valid.shape
    probability, novelty = (
        one.reshape(shape) for one in (learnt.map.probability, learnt.map.novelty)
    )
    none = {} if learnt.map.codes.all() else {"no vector": sheets.NO_NUMBER_COLOUR}
    return (
        ("the map", map_figure(learnt, colours)),
        (
            "probability of the class",
            sheets.raster(
                "Probability of the class", sheets.grays(probability), none, _PROBABILITY_SCALE
            ),
        ),
        (
            "distance from the training vectors",
            sheets.raster(
                "Distance from the training vectors",
                sheets.grays(np.minimum(novelty / 2, 1)),
                none,
                _DISTANCE_SCALE,
            ),
        ),
    )


def map_figure(learnt: LearntMap, colours: Mapping[int, Colour]) -> Figure:
    """Draw a map of patches with the names of its classes.

    Args:
        learnt: A map of patches.
        colours: Colours of the classes, by code.
    """
    assert isinstance(learnt.map.cells, GridCells)  # noqa: S101 (chips have no picture)
    table = np.full((256, 3), 0.75)
    for code, colour in colours.items():
        table[code] = np.array(colour[:3]) / 255
    pixels = table[learnt.map.codes.reshape(learnt.map.cells.patches.valid.shape)]
    names = {
        name: (float(table[code, 0]), float(table[code, 1]), float(table[code, 2]))
        for code, name in enumerate(learnt.classes, 1)
    }
    return sheets.raster("Class", pixels, names)


def _figures(learnt: LearntMap) -> tuple[tuple[str, Figure], ...]:
    found = learnt.assessment
    counts = found.confusion.astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    figures = [
        (
            "confusion matrix",
            plots.matrix("Held-out cells", learnt.classes, shares, "is", "map says"),
        )
    ]
    if len(learnt.curve) > 1:
        series = {"accuracy": [(point.polygons, point.overall) for point in learnt.curve]}
        figures.append(
            (
                "learning curve",
                plots.curves(
                    "Accuracy with fewer polygons; shaded: lowest and highest of two draws; "
                    "all polygons are one draw",
                    series,
                    "training polygons of a fold, on average",
                    "overall accuracy",
                    log=True,
                ),
            )
        )
    if learnt.variogram is not None and len(learnt.variogram.lags) > 1:
        known = np.isfinite(learnt.variogram.semivariance)
        places = zip(
            learnt.variogram.lags[known].tolist(),
            learnt.variogram.semivariance[known].tolist(),
            strict=True,
        )
        points = [(round(lag), Estimate(share, share, share)) for lag, share in places]
        figure = plots.curves(
            "Variogram of the vectors; dashed: the side of the squares",
            {"vectors": points},
            "distance in metres",
            f"semivariance, of the {'plateau' if learnt.variogram.known else 'mean of all pairs'}",
            mark=learnt.folds.side,
        )
        figures.append(("variogram", figure))
    return tuple(figures)


# ---------------------------------------------------------------------------------- the other files


def run_map(config: MapConfig) -> ResultFiles:
    """Learn a map and write all its files.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If the settings do not match the labels, or another process or verb
            writes there.
        DataError: If embeddings or labels cannot be used, or files cannot be written.
        SpecError: If the other embeddings are of another model.
    """
    check_folder(config, Path(config.out))
    with exclusive(Path(config.out)):
        return _run(config)


def _run(config: MapConfig) -> ResultFiles:
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
    """Return a name for each path: the scene's folder, numbered if two are the same."""
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
        out: The folder, created if needed.
        settings: Settings for the record; only the method if None.

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


_OF_CHIPS: Final = ("map.gpkg", "map.qml")
_OF_PATCHES: Final = (
    *("map.tif", "map.tif.aux.xml", "map.qml", "map.sld", "probability.tif", "probability.qml"),
)


def write_mapped(found: MappedCells, probe: str, folder: Path) -> list[Path]:
    """Write classes as rasters with their style, those of chips as polygons.

    Args:
        found: The classes.
        probe: Id of the read-out.
        folder: Output folder, created if needed.

    Raises:
        DataError: If a file cannot be written.
    """
    names = dict(enumerate(found.classes, 1))
    colours = class_colours(found.classes)
    if not isinstance(found.cells, GridCells):
        files = [
            write_frame(found.to_frame(), folder / "map.gpkg"),
            write_file(folder / "map.qml", polygon_qml("class", found.classes, colours)),
        ]
        drop_earlier(folder, _OF_CHIPS + _OF_PATCHES, files)
        return files
    grid = found.cells.patches.grid
    tags = {
        "EOFM_CLASSES": json.dumps(names),
        "EOFM_PROVENANCE": found.cells.made.to_json(),
        "EOFM_PROBE": probe,
    }
    codes = plane(found.codes, grid)[None]
    scores = np.stack([plane(found.probability, grid), plane(found.novelty, grid)])
    files = [
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
    drop_earlier(folder, _OF_CHIPS + _OF_PATCHES, files)
    return files


def record_of(learnt: LearntMap, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all numbers of a map in plain types: see `write_record`.

    Args:
        learnt: The map.
        settings: Settings for the record.
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
            "block_from": learnt.folds.source.value,
            "polygons": len(learnt.training.features),
            "cells": len(learnt.training),
            "tested_polygons": sum(found.tested),
            "tested_squares": found.all_squares,
            "tested_cells": sum(found.cells),
        },
        "overall_accuracy": _plain(found.overall),
        "confusion": {"rows": "polygons", "columns": "map", "cells": found.confusion.tolist()},
        "classes": {
            name: {
                "code": code + 1,
                "polygons": found.polygons[code],
                "scored": bool(found.scored[code]),
                "tested_polygons": found.tested[code],
                "tested_squares": found.squares[code],
                "tested_cells": found.cells[code],
                "users_accuracy": _plain(found.users[code]),
                "producers_accuracy": _plain(found.producers[code]),
                "mapped_square_metres": float(learnt.map.mapped[code]),
                "beyond_training": float(learnt.map.beyond[code]),
            }
            for code, name in enumerate(learnt.classes)
        },
        "learning_curve": [
            {
                "polygons": point.polygons,
                "draws": point.draws,
                **_ends(point.overall, known=point.draws > 1),
            }
            for point in learnt.curve
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


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else _ends(estimate, known=estimate.has_interval)


def _ends(estimate: Estimate, *, known: bool) -> dict[str, float | None]:
    """Return a value with its lower and upper end; None if these are unknown."""
    low, high = (estimate.low, estimate.high) if known else (None, None)
    return {"value": estimate.value, "low": low, "high": high}
