"""The learning rate follows the published tables, whatever the schedule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eofm.method import momentum_at
from eofm.train.optimizer import (
    DecayShape,
    ParameterRate,
    RateSchedule,
    ScheduleKind,
    cosine,
    decay,
    momentum_over_steps,
    parameter_groups,
    rate_over_steps,
)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0), (25, 7.5), (50, 15), (175, 14.431), (300, 12.822), (550, 7.693), (800, 2.923),
     (900, 1.866), (1000, 1.5), (5000, 1.5)],
)  # fmt: skip
def test_cosine_follows_the_table(step: int, rate: float) -> None:
    """Peak 15, floor 1.5, 50 of 1000 steps warm-up: the values computed for the method's notes."""
    assert pytest.approx(rate, abs=6e-4) == cosine(step, 1000, 50, 15.0, 1.5)


def test_without_warmup_the_first_step_is_the_peak() -> None:
    """No warm-up, no division by zero, and no step above the peak."""
    rates = [cosine(step, 10, 0, 1.0) for step in range(11)]

    assert 1.0 == rates[0] == max(rates)
    assert pytest.approx(0.0) == rates[-1]
    assert rates == sorted(rates, reverse=True)


PEAK, CONSTANT, FLOOR = 15.0, 3.75, 1.5
INFINITE = RateSchedule(ScheduleKind.INFINITE, floor=FLOOR / PEAK, constant=CONSTANT / PEAK)
TABLE = (0, 25, 50, 100, 175, 237, 300, 550, 800, 850, 900, 950, 1000)


def rates(schedule: RateSchedule, warmup: int = 50) -> list[float]:
    """The rates at the steps of the table, of 1000, at a peak of 15."""
    return [PEAK * schedule.rate(step, 1000, warmup) for step in TABLE]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (INFINITE, (0, 7.5, 15, 13.926, 9.375, 5.423, 3.75, 3.75, 3.75, 2.982, 2.372, 1.886, 1.5)),
        (
            RateSchedule(ScheduleKind.INFINITE, floor=0.1, constant=0.25, continued=True),
            (3.75,) * 9 + (2.982, 2.372, 1.886, 1.5),
        ),
        (
            RateSchedule(ScheduleKind.WSD, floor=0.1, anneal_shape=DecayShape.LINEAR),
            (0, 7.5) + (15,) * 7 + (11.625, 8.25, 4.875, 1.5),
        ),
        (
            RateSchedule(
                ScheduleKind.WSD, floor=0.1, anneal_shape=DecayShape.ONE_MINUS_SQRT, continued=True
            ),
            (15,) * 9 + (8.25, 5.454, 3.309, 1.5),
        ),
    ],
    ids=("infinite", "infinite-later", "wsd-linear", "wsd-later-sqrt"),
)  # fmt: skip
def test_every_schedule_follows_its_table(
    schedule: RateSchedule, expected: tuple[float, ...]
) -> None:
    """ArXiv 2503.02844 and 2404.06395: boundaries and phases at 1000 steps, peak 15, floor 1.5."""
    assert pytest.approx(expected, abs=6e-4) == rates(schedule)


def test_a_later_stage_rewarms_from_the_floor() -> None:
    """ArXiv 2308.04014: stage 1 warms up from 0, a later one from where the first one ended."""
    first = rates(RateSchedule(ScheduleKind.REWARM, floor=0.1))
    later = rates(RateSchedule(ScheduleKind.REWARM, floor=0.1, continued=True))

    assert pytest.approx((0, 7.5, 15)) == first[:3]
    assert pytest.approx((1.5, 8.25, 15)) == later[:3]
    assert first[3:] == later[3:]


COURSES = st.builds(
    RateSchedule,
    kind=st.sampled_from(ScheduleKind),
    floor=st.floats(0.01, 0.25),
    cooldown=st.floats(0.3, 0.6),
    constant=st.floats(0.25, 0.9),
    cooldown_shape=st.sampled_from([DecayShape.COSINE, DecayShape.LINEAR, DecayShape.INVERSE_SQRT]),
    anneal=st.floats(0.1, 0.4),
    anneal_shape=st.sampled_from(DecayShape),
    continued=st.booleans(),
)


@given(COURSES)
def test_no_course_jumps(schedule: RateSchedule) -> None:
    """Between neighbouring of 2,000 steps no rate moves by more than a step of its phase can."""
    total, warmup = 2_000, 200
    line = [schedule.rate(step, total, warmup) for step in range(total + 1)]

    steps = [abs(a - b) for a, b in itertools.pairwise(line)]
    # 1 - sqrt(u) falls vertically at u = 0: in its first step by sqrt(1 / steps of the anneal)
    assert max(steps) < 1.1 * math.sqrt(1 / (schedule.anneal * total))
    assert pytest.approx(schedule.floor) == line[-1]
    assert 0 <= min(line)
    assert max(line) <= 1 + 1e-12


@given(COURSES, st.integers(0, 1000))
def test_a_later_infinite_stage_raises_no_rate(schedule: RateSchedule, step: int) -> None:
    """It begins at the constant rate and never exceeds it."""
    later = RateSchedule(
        ScheduleKind.INFINITE,
        floor=schedule.floor,
        constant=schedule.constant,
        anneal=schedule.anneal,
        continued=True,
    )  # fmt: skip

    assert later.rate(step, 1000, 50) <= schedule.constant + 1e-12
    assert later.rate(step + 1, 1000, 50) <= later.rate(step, 1000, 50) + 1e-12


@pytest.mark.parametrize("shape", list(DecayShape))
def test_every_way_down_ends_where_it_should(shape: DecayShape) -> None:
    """From high at 0 to low at 1, never rising."""
    line = [decay(u / 50, 3.0, 0.5, shape) for u in range(51)]

    assert pytest.approx(3.0) == line[0]
    assert pytest.approx(0.5) == line[-1]
    assert line == sorted(line, reverse=True)


def test_the_teacher_follows_until_the_anneal() -> None:
    """An open-ended schedule holds the momentum, and raises it to 1 over the anneal; a cosine does
    not wait.
    """
    schedule = RateSchedule(ScheduleKind.WSD, floor=0.1, anneal=0.2)

    assert 800 == schedule.anneal_step(1000)
    assert {0.99} == {momentum_over_steps(step, 1000, 0.99, schedule) for step in (0, 400, 800)}
    assert pytest.approx(0.995) == momentum_over_steps(900, 1000, 0.99, schedule)
    assert 1 == momentum_over_steps(1000, 1000, 0.99, schedule)
    for step in (0, 250, 1000):
        assert momentum_at(step, 1000, 0.99) == momentum_over_steps(
            step, 1000, 0.99, RateSchedule()
        )


def test_waiting_does_not_shift_the_schedule() -> None:
    """0 while it is frozen, then exactly the rate of those that did not wait."""
    plain, waiting = rate_over_steps(20, 4, 0), rate_over_steps(20, 4, 5)

    assert [0.0] * 5 == [waiting(step) for step in range(5)]
    assert [plain(step) for step in range(5, 20)] == [waiting(step) for step in range(5, 20)]
    assert all(plain(step) > 0 for step in range(20))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_at_rate_zero_nothing_moves_or_decays(kind: str) -> None:
    """Gradient, weight decay and momentum leave a waiting parameter as it is, bit for bit."""
    waiting = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    before = waiting.detach().clone()
    groups = parameter_groups([("w", waiting)], 0.5, 0.1, {"w": ParameterRate(1.0, True)})
    optimizer: torch.optim.Optimizer
    if kind == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [rate_over_steps(10, 0, 3)])
    moved = []
    for _ in range(5):
        waiting.grad = torch.ones_like(waiting)
        optimizer.step()
        schedule.step()
        moved.append(not torch.equal(before, waiting))

    assert [False, False, False, True, True] == moved
