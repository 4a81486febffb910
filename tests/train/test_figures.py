"""Panels hold the numbers a run logged, each once, under titles."""

from __future__ import annotations

import numpy as np

from eofm.train import figures

STEPS = np.arange(4.0)


def curve(*values: float) -> tuple[np.ndarray, np.ndarray]:
    """Values at the steps 0, 1, ..."""
    return STEPS[: len(values)], np.array(values)


def test_everything_that_changed_is_drawn_once() -> None:
    """Loss, terms, spread and schedules have panels; the rest a panel each; constants are words."""
    steps = {
        "loss": curve(3, 2, 1, 0), "hard": curve(1, 1, 1, 1), "embedding_std": curve(1, 1, 1, 0.5),
        "lr": curve(0, 2, 1, 0), "momentum": curve(0.9, 0.95, 1, 1), "extra": curve(1, 2, 3, 4),
        "fixed": curve(7, 7, 7, 7), "own_probability": curve(0.1, 0.2, 0.3, 0.4),
    }  # fmt: skip

    made = figures.training_panels(steps, columns=8, collapse=0.02)

    drawn = {name: values for panel in made for name, (_, values) in panel.curves.items()}
    assert {"loss", "hard term", "own_probability", "embedding_std", "extra"} <= set(drawn)
    assert [0, 1, 0.5, 0] == drawn["learning rate, at most 2"].tolist()
    assert [1, 0.5, 0, 0] == np.round(drawn["1 - momentum, at most 0.1"], 9).tolist()
    assert {"1 / 8, by chance": 0.125} == made[2].marks
    assert {"collapse": 0.02} == made[3].marks
    assert "fixed" not in drawn
    assert "fixed 7" == figures.constants(steps)


def test_a_collapse_shows_in_the_encoders_embedding() -> None:
    """Its spread and effective rank come from the evaluations and begin at 0 on the axis."""
    looks = {
        "monitor/embedding_std": curve(0.5, 0.1), "monitor/effective_rank": curve(9, 1),
        "monitor/knn": curve(0.5, 0.6), "monitor/before/knn": curve(0.4, 0.3),
        "monitor/linear": curve(float("nan"), float("nan")),
    }  # fmt: skip

    spread, rank = figures.collapse_panels(looks)
    scores, *measures = figures.evaluation_panels(looks)

    assert spread.zero
    assert rank.zero
    assert [9, 1] == rank.curves["effective_rank"][1].tolist()
    assert [50, 60] == scores.curves["kNN"][1].tolist()
    assert {"kNN", "kNN, the data before"} == set(scores.curves)
    assert 2 == len(measures)
    assert [] == figures.collapse_panels({})


def test_a_run_without_a_number_is_left_out_of_its_panel() -> None:
    """Runs of several versions are compared in what they both logged."""
    made = figures.overlaid(["a", "b"], [{"loss": curve(1)}, {"loss": curve(2), "lr": curve(3)}])

    assert ["Loss", "Learning rate"] == [panel.title for panel in made]
    assert [["a", "b"], ["b"]] == [list(panel.curves) for panel in made]
    assert "kNN, average precision, macro: the data of the stage before" == figures.title_of(
        "monitor/before/knn"
    )


def test_pace_is_a_rate_and_shares() -> None:
    """Of the same steps; nothing without seconds."""
    pace = {
        "pace/seconds": curve(2, 4), "pace/scenes": curve(10, 10),
        "pace/waited": curve(1, 1), "pace/watching": curve(0, 2),
    }  # fmt: skip

    rate, shares = figures.throughput_panels(pace)

    assert [5, 2.5] == rate.curves["rate"][1].tolist()
    assert [0.5, 0.25] == shares.curves["waiting for data"][1].tolist()
    assert [0, 0.5] == shares.curves["evaluating held-out scenes"][1].tolist()
    assert [] == figures.throughput_panels({})
