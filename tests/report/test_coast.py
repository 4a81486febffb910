"""Coastlines are where the coasts are, and lie behind the places."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from eofm.report.plots import coastlines, draw_coastlines, draw_places


def nearest(longitude: float, latitude: float) -> float:
    """Degrees from a place to the nearest point of a coast."""
    points = np.concatenate(coastlines())
    return float(np.hypot(*(points - (longitude, latitude)).T).min())


@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [(-9.5, 38.78), (18.4, -34.36), (-68.0, -54.9), (31.2, 31.6), (139.8, 34.9), (153.6, -28.6)],
)
def test_known_capes_lie_on_a_coast(longitude: float, latitude: float) -> None:
    """Cabo da Roca, Cape of Good Hope, Tierra del Fuego, the Nile delta, Boso, Cape Byron."""
    assert nearest(longitude, latitude) < 0.4


@pytest.mark.parametrize(
    ("longitude", "latitude"), [(-30.0, 0.0), (-140.0, -40.0), (85.0, 45.0), (-98.0, 40.0)]
)
def test_the_middle_of_oceans_and_continents_has_no_coast(
    longitude: float, latitude: float
) -> None:
    """Neither the Atlantic and the Pacific, nor Central Asia and Kansas."""
    assert nearest(longitude, latitude) > 5


def test_the_seam_of_the_map_is_no_coast() -> None:
    """No line runs along 180 degrees, where land that crosses it is cut, nor along the pole."""
    for line in coastlines():
        steps = np.abs(np.diff(line, axis=0))
        edge = np.abs(line[:-1, 0]) >= 179.98
        assert not (edge & (steps[:, 0] < 0.005) & (steps[:, 1] > 0.5)).any()
        assert line[:, 1].min() > -89


def test_coastlines_do_not_move_the_limits() -> None:
    """A map shows the places it is about, not the whole world."""
    axes = Figure().subplots()
    axes.plot([10.0, 11.0], [50.0, 51.0])
    before = axes.get_xlim(), axes.get_ylim()

    draw_coastlines(axes)

    assert before == (axes.get_xlim(), axes.get_ylim())


def test_places_close_together_are_found_on_a_map_of_the_world() -> None:
    """The small map lies below the lowest place; places far apart have none."""
    figure = Figure()
    near, far = figure.subplots(1, 2)

    draw_places(near, np.array([11.0, 11.4]), np.array([48.0, 48.3]), "near")
    draw_places(far, np.array([-60.0, 100.0]), np.array([-10.0, 50.0]), "far")
    figure.canvas.draw()

    (world,) = near.child_axes
    assert [] == far.child_axes
    assert (11.2, 48.15) == pytest.approx((world.lines[0].get_xdata()[0], 48.15))
    top = world.get_window_extent().y1
    assert top < near.transData.transform((11.0, 48.0))[1]
