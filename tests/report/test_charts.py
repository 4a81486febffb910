"""Figures of scores show what they were given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from eofm.report.charts import PALETTE, Point, bars, colour, curves, matrix, png

HALF = Point(0.5, 0.4, 0.7)


def test_bars_have_the_values_and_intervals_given() -> None:
    """One bar per class and model; a class without value leaves a gap; zero is in the picture."""
    figure = bars(
        "t", ["a", "b"], {"one": [HALF, None], "other": [HALF, Point(0.2, 0.1, 0.3)]}, "x"
    )

    (axes,) = figure.axes
    assert [0.5, 0.5, 0.2] == [patch.get_width() for patch in axes.patches]
    assert (0.0, 1.0) == axes.get_xlim()
    assert ["a", "b"] == [label.get_text() for label in axes.get_yticklabels()]
    ends = [line.get_segments()[0][:, 0].tolist() for line in axes.collections]
    assert [0.4, 0.7] == pytest.approx(ends[0])


def test_a_matrix_writes_its_shares() -> None:
    """In per cent; what is nothing is left empty."""
    figure = matrix("t", ["a", "b"], np.array([[0.25, 0.75], [np.nan, 0.0]]), "true", "said")

    assert ["25", "75"] == [text.get_text() for text in figure.axes[0].texts]


def test_curves_are_sorted_by_their_number() -> None:
    """Points may come in any order; intervals are drawn as a band; the mark is a line."""
    figure = curves("t", {"m": [(224, HALF), (32, HALF)]}, "size", "oa", mark=224)

    (axes,) = figure.axes
    assert [32, 224] == list(axes.lines[0].get_xdata())
    assert 2 == len(axes.lines)
    assert 1 == len(axes.collections)


def test_a_png_is_an_image_and_repeats() -> None:
    """The same figure is the same bytes."""
    pictures = [png(curves("t", {"m": [(1, HALF), (10, HALF)]}, "x", "y", log=True)) for _ in "ab"]

    assert pictures[0] == pictures[1]
    assert 3 == imread(io.BytesIO(pictures[0])).ndim


def test_colours_repeat_only_when_they_must() -> None:
    """The first eight models differ."""
    assert len(PALETTE) == len({colour(number) for number in range(len(PALETTE))})
    assert colour(0) == colour(len(PALETTE))


def test_no_two_curves_look_alike() -> None:
    """A colour that comes again comes with another dash."""
    figure = curves("t", {str(n): [(1, HALF), (2, HALF)] for n in range(20)}, "x", "y")

    lines = figure.axes[0].lines
    assert 20 == len({(line.get_color(), line.get_linestyle()) for line in lines})
