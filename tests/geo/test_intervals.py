"""How often the intervals of a map's accuracy hold the true one, where polygons lie in clusters."""

from __future__ import annotations

import numpy as np
import pytest

from eofm.geo.accuracy import CrossValidation, assess
from eofm.geo.training import TrainingCells

SQUARES, EACH, CELLS = 25, 8, 12


def held_out(
    random: np.random.Generator, of_square: float, of_polygon: float
) -> tuple[TrainingCells, CrossValidation]:
    """Two classes; how well a polygon is said depends on its square, and on itself."""
    count = SQUARES * EACH
    logit = 1.5 + of_square * np.repeat(random.normal(size=SQUARES), EACH)
    share = 1 / (1 + np.exp(-logit - of_polygon * random.normal(size=count)))
    polygon = np.repeat(np.arange(count), CELLS)
    labels = (np.arange(count) % 2)[polygon]
    said = np.where(random.random(len(polygon)) < share[polygon], labels, 1 - labels)
    training = TrainingCells(
        np.arange(len(polygon)), labels, np.ones(len(polygon)), polygon, polygon,
        np.stack([np.zeros(count, int), np.arange(count)], axis=1), ("a", "b"),
    )  # fmt: skip
    every = np.ones(len(polygon), np.bool_)
    probability = np.zeros((len(polygon), 2), np.float32)
    return training, CrossValidation(said, probability, (), (), np.ones(2, np.bool_), every)


@pytest.mark.parametrize(("of_square", "of_polygon"), [(1.0, 0.5), (0.7, 0.7), (0.0, 1.0)])
def test_intervals_hold_the_true_accuracy(of_square: float, of_polygon: float) -> None:
    """Of 100, about 95 do; resampling polygons one by one, 55 to 81 did where squares differ."""
    random = np.random.default_rng(0)
    logit = 1.5 + np.hypot(of_square, of_polygon) * random.normal(size=200_000)
    true = float((1 / (1 + np.exp(-logit))).mean())
    squares = np.repeat(np.arange(SQUARES), EACH)

    found = [assess(*held_out(random, of_square, of_polygon), squares) for _ in range(100)]

    assert {(SQUARES, (SQUARES, SQUARES))} == {(one.all_squares, one.squares) for one in found}
    overall = [one.overall for one in found]
    assert sum(one is not None and one.low <= true <= one.high for one in overall) >= 86


def test_a_square_counts_once_for_a_class() -> None:
    """Of five squares there is no interval, however many polygons they hold."""
    training, found = held_out(np.random.default_rng(0), 1.0, 0.5)
    few = assess(training, found, np.repeat(np.arange(5), len(training.features) // 5))

    assert 5 == few.all_squares
    assert few.overall is not None
    assert few.overall.low == few.overall.value == few.overall.high
