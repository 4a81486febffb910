"""Areas of a map with their intervals, against the published example and a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from eofm.errors import LabelError
from eofm.geo.accuracy import Z95, estimate_areas

# Olofsson et al. 2014, table 8: rows are classes of the map, columns of the reference:
# deforestation, forest gain, stable forest, stable non-forest; pixels of 30 m
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = PIXELS.sum() * 0.09


def test_the_worked_example_of_the_paper() -> None:
    """Areas, accuracies and their intervals are those printed in the paper."""
    found = estimate_areas(COUNTS, PIXELS.astype(float))

    assert np.allclose([21_158, 11_686, 285_770, 581_386], found.area * HECTARES, atol=1)
    assert np.allclose([6_158, 3_756, 15_510, 16_282], Z95 * found.area_error * HECTARES, atol=5)
    assert (0.95, 0.02) == (round(found.overall, 2), round(Z95 * found.overall_error, 2))
    assert [0.88, 0.73, 0.93, 0.96] == found.users.round(2).tolist()
    assert [0.07, 0.10, 0.04, 0.02] == (Z95 * found.users_error).round(2).tolist()
    assert [0.75, 0.85, 0.93, 0.96] == found.producers.round(2).tolist()
    # of 10 million pixels; the paper computes on with rounded numbers
    pixels = found.area[0] * PIXELS.sum(), Z95 * found.area_error[0] * PIXELS.sum()
    assert np.allclose([235_086, 68_418], pixels, atol=2)


def test_intervals_of_the_producers_accuracy_are_those_of_other_programs() -> None:
    """Equation 7 on the same example, as the package PyMapAccuracy has it, to eight digits.

    Its `tests/test_olofsson.py` (agcopenhaver/PyMapAccuracy, `test_olofsson_table8_2014`) follows
    the example of the R package mapaccuracy (`?olofsson`), which is compared with page 54 of the
    paper. With the class itself in the sum over the others, the intervals would be wider.
    """
    found = estimate_areas(COUNTS, PIXELS.astype(float))

    half_widths = [0.21330593, 0.25440369, 0.03432379, 0.01836120]
    assert np.allclose(half_widths, Z95 * found.producers_error, rtol=0, atol=1e-8)
    assert np.allclose([0.7486614, 0.8471564, 0.9345089, 0.9616090], found.producers, atol=1e-7)


def test_against_the_formulas_written_out() -> None:
    """Equations 2, 3, 7, 9 and 10, written as loops over any matrix, give the same."""
    random = np.random.default_rng(0)
    for _ in range(20):
        counts = random.integers(0, 40, (5, 5)) + 20 * np.eye(5, dtype=int)
        mapped = random.uniform(0.1, 5, 5)
        found = estimate_areas(counts, mapped)
        w, n = mapped / mapped.sum(), counts.sum(axis=1)
        for k in range(5):
            area = sum(w[i] * counts[i, k] / n[i] for i in range(5))
            variance = sum(
                (w[i] * (w[i] * counts[i, k] / n[i]) - (w[i] * counts[i, k] / n[i]) ** 2)
                / (n[i] - 1)
                for i in range(5)
            )
            u = counts[k, k] / n[k]
            p = w[k] * u / area
            rest = sum(
                w[i] ** 2 * counts[i, k] / n[i] * (1 - counts[i, k] / n[i]) / (n[i] - 1)
                for i in range(5)
                if i != k
            )
            own = w[k] ** 2 * (1 - p) ** 2 * u * (1 - u) / (n[k] - 1)
            error = np.sqrt((own + p**2 * rest) / area**2)

            assert np.isclose(area, found.area[k])
            assert np.isclose(np.sqrt(variance), found.area_error[k])
            assert np.isclose(p, found.producers[k])
            assert np.isclose(error, found.producers_error[k])


def test_intervals_hold_in_a_simulation() -> None:
    """Of samples drawn from a known map, about 95 % of the intervals hold the true area."""
    random = np.random.default_rng(1)
    mapped = random.integers(0, 3, 200_000)
    truth = np.where(random.random(200_000) < 0.85, mapped, random.integers(0, 3, 200_000))
    true = np.bincount(truth) / len(truth)
    held = []
    for _ in range(400):
        sample = random.choice(200_000, 300, replace=False)
        counts = np.zeros((3, 3), int)
        np.add.at(counts, (mapped[sample], truth[sample]), 1)
        found = estimate_areas(counts, np.bincount(mapped).astype(float))
        held.append(np.abs(found.area - true) <= Z95 * found.area_error)

    # 1200 intervals: three standard errors are 1.9 %
    assert 0.925 < np.mean(held) < 0.975


def test_errors_are_the_spread_of_repeated_samples() -> None:
    """Stratified samples drawn again and again from the example spread as the errors say."""
    random = np.random.default_rng(2)
    first = estimate_areas(COUNTS, PIXELS.astype(float))
    n = COUNTS.sum(axis=1)
    drawn = [
        np.stack([random.multinomial(m, row / m) for m, row in zip(n, COUNTS, strict=True)])
        for _ in range(2000)
    ]
    again = [estimate_areas(counts, PIXELS.astype(float)) for counts in drawn]

    # the producer's accuracy is a ratio, whose error is one of first order
    spread = np.std([one.producers for one in again], axis=0)
    assert np.allclose(spread, first.producers_error, rtol=0.15)
    assert np.allclose(np.std([one.area for one in again], axis=0), first.area_error, rtol=0.05)
    assert np.allclose(np.std([one.users for one in again], axis=0), first.users_error, rtol=0.05)


def test_a_class_of_the_map_without_samples() -> None:
    """One sample has no error: it is refused; a class that the map lacks is none."""
    counts = COUNTS.copy()
    counts[0] = [1, 0, 0, 0]
    with pytest.raises(LabelError, match="two samples or more"):
        estimate_areas(counts, PIXELS.astype(float))

    counts[0] = 0
    found = estimate_areas(counts, np.array([0.0, 1, 2, 3]))
    assert np.isnan(found.users[0])
    assert np.isfinite(found.area).all()
