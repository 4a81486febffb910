"""The report of a class map: a page, Markdown, and some lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from eofm.geo.cells import GridCells
from eofm.geo.mapping.areas import Z95
from eofm.geo.mapping.class_map import LearntMap
from eofm.geo.styles import Colour
from eofm.report import display, pages, plots
from eofm.report.plots import Estimate
from eofm.report.tables import Table, TableRow, bullets, markdown

if TYPE_CHECKING:
    from eofm.report.output import Figure

_HECTARE: Final = 1e4  # square metres


def percent(estimate: Estimate | None) -> str:
    """Return a share with its interval, as in `84 % (79 to 88)`."""
    if estimate is None:
        return "–"
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:.0f} % ({low:.0f} to {high:.0f})"


def verdict(learnt: LearntMap) -> str:
    """Return the accuracy in one sentence, with what it was measured on."""
    return (
        f"overall accuracy {percent(learnt.assessment.overall)} on held-out squares of "
        f"{learnt.folds.side:.0f} m, {len(learnt.training)} cells of "
        f"{len(learnt.training.features)} polygons"
    )


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
            *("class", "polygons", "training cells", "user's accuracy", "producer's accuracy"),
            *("mapped ha", "of the map", "beyond training"),
        ),
        tuple(rows),
        notes=(
            "user's accuracy: of what the map calls so, the share that is; producer's: of what is "
            "so, the share that the map calls so",
            "in brackets 95 % intervals, by resampling whole polygons; they say nothing of places "
            "that no polygon is like",
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
            "± half of the 95 % interval; each point was said while its square was held out",
            "it holds for points that were drawn by chance, all with the same: that was stated by "
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
    side = "stated" if learnt.variogram is None else "the range of the variogram of the vectors"
    scenes = ", ".join(f"{scene.id} {scene.date}".strip() for scene in made.scenes)
    return (
        f"vectors: {made.model or 'of an unknown model'}, {learnt.map.cells.dim} dimensions"
        + (f", of {scenes}" if scenes else ""),
        f"read-out: `{learnt.probe.name}`, chosen and fitted inside each fold",
        f"cells count as a class where its polygons cover {method.purity:.0%} of them or more; at "
        f"most {method.per_polygon} cells of a polygon",
        f"{learnt.folds.count} folds of squares of {learnt.folds.side:.0f} m ({side}): a polygon "
        "is tested by a read-out that saw none of its square",
    )


# ---------------------------------------------------------------------------------- page


def page_of(learnt: LearntMap, colours: Mapping[int, Colour]) -> pages.Page:
    """Return the report as a page with pictures.

    Args:
        learnt: The map.
        colours: Of the classes, by code.
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
    half_novelty = np.minimum(learnt.map.novelty.reshape(shape) / 2, 1)
    return (
        ("the map", map_figure(learnt, colours)),
        (
            "probability of the class",
            display.raster("Probability", display.grays(learnt.map.probability.reshape(shape))),
        ),
        (
            "distance from the training vectors",
            display.raster(
                "Distance from training; white: twice the limit", display.grays(half_novelty)
            ),
        ),
    )


def map_figure(learnt: LearntMap, colours: Mapping[int, Colour]) -> Figure:
    """Draw a map of patches with the names of its classes.

    Args:
        learnt: A map of patches.
        colours: Of the classes, by code.
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
    return display.raster("Class", pixels, names)


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
                    "Accuracy with fewer polygons; bars: lowest and highest of the draws",
                    series,
                    "training polygons",
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
        points = [(lag, Estimate(share, share, share)) for lag, share in places]
        figure = plots.curves(
            "Variogram of the vectors; dashed: the side of the squares",
            {"vectors": points},
            "distance in metres",
            "semivariance, of the plateau",
            mark=learnt.folds.side,
        )
        figures.append(("variogram", figure))
    return tuple(figures)
