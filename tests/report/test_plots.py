"""Figures show what they were given, at any number of classes and models, under any name."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from eofm.errors import DataError
from eofm.report import output, plots
from eofm.report.output import colour, marker
from eofm.report.plots import ClassCounts, Estimate, LinePanel, smooth

HALF = Estimate(0.5, 0.4, 0.7)
HOSTILE = (
    "_hidden",
    "$\\frac$ 5",
    "<script>alert(1)</script>",
    "a\u2028b",
    "x" * 300,
    "سماء",
    "日本",
)


def estimates(count: int, seed: int = 0) -> list[Estimate | None]:
    """Values with intervals, made up."""
    values = np.random.default_rng(seed).random(count)
    return [Estimate(v, max(v - 0.1, 0), min(v + 0.1, 1)) for v in values.tolist()]


# ------------------------------------------------------------------------------------ dots


def test_dots_stand_at_the_values_between_the_ends_of_their_intervals() -> None:
    """One dot per class and model with its own interval; a class without value has none."""
    series = {"one": [HALF, None], "other": [HALF, Estimate(0.2, 0.1, 0.3)]}

    figure = plots.dots("t", ["a", "b"], series, "x")

    (axes,) = figure.axes
    assert [[0.5], [0.5, 0.2]] == [list(line.get_xdata()) for line in axes.lines]
    spans = [s for c in axes.collections if isinstance(c, LineCollection) for s in c.get_segments()]
    assert [[0.4, 0.7], [0.4, 0.7], [0.1, 0.3]] == [s[:, 0].tolist() for s in spans]
    assert ["a", "b"] == [label.get_text() for label in axes.get_yticklabels()]


def test_models_of_one_class_stand_on_lines_of_their_own() -> None:
    """No two dots share a height, and none leaves the band of its class."""
    figure = plots.dots("t", ["a", "b"], {str(n): estimates(2, n) for n in range(12)}, "x")

    heights = [y for line in figure.axes[0].lines for y in line.get_ydata()]
    assert 24 == len({round(float(y), 6) for y in heights})
    assert all(abs(y - round(y)) < 0.5 for y in heights)


def test_a_class_that_no_model_has_is_said() -> None:
    """An empty row is no score of nothing."""
    figure = plots.dots("t", ["a", "b"], {"m": [HALF, None], "n": [HALF, None]}, "x")

    assert ["does not occur"] == [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("classes", [1, 19, pytest.param(130, marks=pytest.mark.slow)])
def test_every_class_is_drawn_and_no_two_names_overlap(classes: int) -> None:
    """Up to three columns; names of neighbouring rows keep clear of one another and of the data."""
    names = [f"class number {i}, with a long name" for i in range(classes)]
    figure = plots.dots("t", names, {str(n): estimates(classes, n) for n in range(4)}, "x")

    output.png(figure)
    boxes, drawn = [], 0
    for axes in figure.axes:
        labels = [label for label in axes.get_yticklabels() if label.get_text()]
        own = [label.get_window_extent() for label in labels]
        assert all(axes.bbox.x0 >= box.x1 for box in own)
        boxes += own
        drawn += sum(len(line.get_xdata()) for line in axes.lines)
    assert classes == len(boxes)
    assert 4 * classes == drawn
    assert not any(Bbox.intersection(a, b) for a, b in pairwise(boxes))


def test_the_legend_stands_beside_the_data() -> None:
    """It overlaps no panel, however long the names of the models are."""
    series = {f"{'model ' * 9}{n}": estimates(3, n) for n in range(5)}
    figure = plots.dots("t", ["a", "b", "c"], series, "x")

    output.png(figure)

    assert figure.legends[0].get_window_extent().x0 >= figure.axes[0].get_window_extent().x1


# ---------------------------------------------------------------------------------- matrix


def test_a_matrix_writes_its_shares() -> None:
    """In per cent; what is nothing is left empty, and a row of nothing is gray."""
    figure = plots.matrix("t", ["a", "b"], np.array([[0.25, 0.75], [np.nan, 0.0]]), "true", "said")

    assert ["25", "75"] == [text.get_text() for text in figure.axes[0].texts]
    (image,) = figure.axes[0].images
    assert [[False, False], [True, False]] == np.ma.getmaskarray(image.get_array()).tolist()


def test_a_large_matrix_has_a_scale_in_place_of_numbers() -> None:
    """Sixty classes: numbers would be smaller than can be read."""
    figure = plots.matrix("t", [str(i) for i in range(60)], np.eye(60), "true", "said")

    assert [] == list(figure.axes[0].texts)
    assert 2 == len(figure.axes)


# ---------------------------------------------------------------------------------- curves


def test_curves_are_sorted_by_their_number() -> None:
    """Points may come in any order; the interval is a band; the mark is a line."""
    figure = plots.curves("t", {"m": [(224, HALF), (32, HALF)]}, "size", "oa", mark=224)

    (axes,) = figure.axes
    assert [32, 224] == list(axes.lines[0].get_xdata())
    assert 2 == len(axes.lines)
    assert 1 == len(axes.collections)


def test_a_value_without_an_interval_has_no_band() -> None:
    """The band ends where the interval does, and one interval alone is a bar."""
    sure = Estimate(0.5, 0.5, 0.5)
    some, alone = (
        plots.curves("t", {"m": points}, "x", "y").axes[0].collections
        for points in ([(1, HALF), (2, HALF), (4, sure)], [(1, sure), (2, HALF), (4, sure)])
    )

    (band,) = some
    assert 2 == max(path.vertices[:, 0].max() for path in band.get_paths())
    empty, bar = alone
    assert {2} == {x for path in empty.get_paths() for x in path.vertices[:, 0]}
    assert [[[2, HALF.low], [2, HALF.high]]] == np.array(bar.get_segments()).tolist()


def test_many_curves_have_a_panel_each_and_gray_company() -> None:
    """Every series is drawn in colour once, with its band, before all the others in gray."""
    series = {str(n): [(1, HALF), (2, HALF)] for n in range(5)}

    figure = plots.curves("t", series, "x", "y", own={"3": 2}, levels={"control": 0.3})

    panels = [axes for axes in figure.axes if axes.axison]
    assert list(series) == [axes.get_title("left") for axes in panels]
    assert [1] * 5 == [len(axes.collections) for axes in panels]
    rings = [sum(line.get_markerfacecolor() == "none" for line in axes.lines) for axes in panels]
    assert [0, 0, 0, 1, 0] == rings
    assert 5 == len({axes.lines[5].get_color() for axes in panels})
    assert ["control"] == [text.get_text() for text in figure.legends[0].get_texts()]


def test_no_two_series_look_alike() -> None:
    """A colour that comes again comes with another marker."""
    looks = {(colour(n), marker(n)) for n in range(64)}

    assert 64 == len(looks)
    assert len(output.PALETTE) == len({colour(number) for number in range(len(output.PALETTE))})
    assert colour(0) == colour(len(output.PALETTE))


def test_colours_differ_for_the_colour_blind() -> None:
    """Also as seen without red or green cones (Viénot 1999), no two of the palette are close."""
    rgb = (
        np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in output.PALETTE]) ** 2.2
    )
    protan = np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.0040, -0.0040, 1]])
    deutan = np.array([[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.0223, 0.0223, 1]])

    for seen in (rgb, rgb @ protan.T, rgb @ deutan.T):
        shown = seen.clip(0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(shown[:, None] - shown[None], axis=2)
        assert gaps[~np.eye(len(rgb), dtype=bool)].min() > 0.12


# ----------------------------------------------------------------------------------- lines


def test_lines_are_the_values_and_marks_their_lines() -> None:
    """Short runs point by point; a mark is a dashed line with its name."""
    steps = np.arange(5.0)

    figure = plots.lines([LinePanel("Loss", {"a": (steps, steps**2)}, marks={"floor": 2.0})], "t")

    (axes,) = figure.axes
    assert [0, 1, 4, 9, 16] == list(axes.lines[0].get_ydata())
    assert [2.0, 2.0] == list(axes.lines[1].get_ydata())
    assert ["floor"] == [text.get_text() for text in axes.texts]


def test_panels_that_are_not_needed_are_empty() -> None:
    """Three panels on a grid of four; each has its own curves."""
    steps = np.arange(5.0)
    panels = [LinePanel(str(n), {"a": (steps, steps + n)}) for n in range(3)]

    figure = plots.lines(panels)

    assert [True, True, True, False] == [axes.axison for axes in figure.axes]
    assert [0, 1, 2] == [int(axes.lines[0].get_ydata()[0]) for axes in figure.axes[:3]]


def test_smoothing_keeps_lines_and_short_runs() -> None:
    """A straight line stays itself, and a run of a few steps is drawn as it is."""
    steps = np.arange(400.0)

    x, y = smooth(steps, 3 * steps + 1)

    assert np.allclose(3 * x + 1, y)
    assert [0.0, 1.0, 5.0] == smooth(np.arange(3.0), np.array([0.0, 1.0, 5.0]))[1].tolist()


def test_a_scatter_has_its_groups_in_their_customary_colours() -> None:
    """Groups without samples are left out of the legend; others have the palette's colours."""
    plane = np.arange(12.0).reshape(6, 2)

    figure = plots.scatter(
        {"a": plane, "b": -plane}, [0, 0, 1, 1, 3, 3], ["water", "trees", "none", "else"],
        {"water": "#419BDF"}, title="t", legend_title="class", axis_labels=("x", "y"),
    )  # fmt: skip

    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ["water (2)", "trees (2)", "else (2)"] == texts
    first = figure.axes[0].collections[0]
    assert pytest.approx([0x41 / 255, 0x9B / 255, 0xDF / 255]) == first.get_facecolor()[0][:3]
    assert plane[:2].tolist() == first.get_offsets().tolist()


# --------------------------------------------------------------------------------- classes


def test_shares_of_classes_are_those_of_the_samples() -> None:
    """By plain counting on a small table; rows of classes that never occur are NaN."""
    hot = np.array([[1, 1, 0], [1, 0, 0]])

    counts = ClassCounts(("a", "b", "c"), hot.T @ hot, known=2)

    assert [1.0, 0.5, 0.0] == counts.share.tolist()
    assert [[1.0, 0.5, 0.0], [1.0, 1.0, 0.0]] == counts.beside[:2].tolist()
    assert np.isnan(counts.beside[2]).all()


def test_frequencies_stand_in_falling_order_with_their_cover() -> None:
    """Bars, names and per cent belong to the same class."""
    together = np.diag([1, 4, 2])

    figure = plots.class_summary(
        "t", ClassCounts(("a", "b", "c"), together, 4, cover=np.array([0.1, 0.2, 0.3]))
    )

    left = figure.axes[0]
    assert ["b", "c", "a"] == [label.get_text() for label in left.get_yticklabels()]
    widths = [bar.get_width() for bar in left.patches]
    assert [1.0, 0.5, 0.25, 0.2, 0.3, 0.1] == pytest.approx(widths)
    assert [" 100.0%", " 50.0%", " 25.0%"] == [text.get_text() for text in left.texts]


# ---------------------------------------------------------------------------------- output


def test_a_png_is_an_image_and_repeats() -> None:
    """The same figure is the same bytes."""
    made = [output.png(plots.curves("t", {"m": [(1, HALF), (10, HALF)]}, "x", "y", log=True))
            for _ in "ab"]  # fmt: skip

    assert made[0] == made[1]
    assert 3 == imread(io.BytesIO(made[0])).ndim


def test_an_svg_takes_the_colours_of_the_page() -> None:
    """Letters stay text, ink is the page's own, it has no size, and the same figure repeats."""
    curve = (np.arange(500.0), np.sin(np.arange(500.0)))
    panel = LinePanel("one", {"a": curve, "b": curve}, marks={"chance": 0.5})

    text = output.svg(plots.lines([panel]))

    assert text.startswith("<svg")
    assert "currentColor" in text
    assert output.INK not in text
    assert ">chance</text>" in text
    assert not re.match(r"<svg[^>]* (width|height)=", text)
    assert text == output.svg(plots.lines([panel]))


def test_two_figures_on_one_page_have_no_name_in_common_but_for_equal_things() -> None:
    """A name inside one figure never means something else in another."""
    steps = np.arange(5.0)
    made = [output.svg(plots.lines([LinePanel(t, {"a": (steps, steps)}, zero=z)]))
            for t, z in (("one", False), ("two", True))]  # fmt: skip

    named = [dict(re.findall(r'<(?:path|clipPath) id="([^"]+)"(.*?)</', text, re.DOTALL))
             for text in made]  # fmt: skip
    both = set(named[0]) & set(named[1])
    assert both <= {name for name in both if named[0][name] == named[1][name]}
    assert not re.search(r'id="\w+_\d+"', made[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_can_be_drawn(name: str) -> None:
    """As class, model, title and mark: no formula, no element, no warning, no lost legend."""
    dots = plots.dots(name, [name, "b"], {name: [HALF, HALF]}, "x")
    steps = np.arange(5.0)
    curves = {name: (steps, steps), "b": (steps, steps)}
    lines = plots.lines([LinePanel(name, curves, marks={name: 1.0})])
    matrix = plots.matrix(name, [name, "b"], np.eye(2), "true", "said")

    for figure in (dots, lines, matrix):
        assert "<script" not in output.svg(figure)
    assert output.png(dots).startswith(b"\x89PNG")
    assert [output.label_of(name)] == [text.get_text() for text in dots.legends[0].get_texts()]


def test_a_figure_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A folder in the place of the file ends in one clear error with a remedy."""
    with pytest.raises(DataError, match="cannot be written") as caught:
        output.save(plots.lines([LinePanel("t", {})]), tmp_path)

    assert "name another --out" in str(caught.value)
