"""The stability gap: after a change of domain, scores fall before they rise (arXiv 2406.14833)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def dense_steps(last: int) -> tuple[int, ...]:
    """Return 1, 2, 4, 8, ... up to `last`.

    >>> dense_steps(10)
    (1, 2, 4, 8)
    """
    return tuple(1 << i for i in range(last.bit_length()) if 1 << i <= last)


@dataclass(frozen=True)
class Gap:
    """How deep a score fell below where it started, and for how long.

    Args:
        start: Score before the first step, s0.
        lowest: The least score.
        lowest_step: When it was first seen.
        back: First step after the lowest one with a score of s0 or more; None if there is none
            yet, 0 where the score never fell below s0.
    """

    start: float
    lowest: float
    lowest_step: int
    back: int | None

    @property
    def depth(self) -> float:
        """s0 minus the least score."""
        return self.start - self.lowest

    def describe(self) -> str:
        """Return one sentence."""
        if self.depth == 0:
            return f"no gap: never below {100 * self.start:.1f}, where it started"
        end = "not back yet" if self.back is None else f"back at step {self.back}"
        return (
            f"{100 * self.depth:.1f} points deep at step {self.lowest_step} "
            f"(from {100 * self.start:.1f} to {100 * self.lowest:.1f}), {end}"
        )


def stability_gap(steps: Sequence[int], scores: Sequence[float]) -> Gap | None:
    """Return the gap of a score over the steps, or None if step 0 was not looked at.

    Args:
        steps: Ascending, beginning with 0.
        scores: One per step.
    """
    if len(steps) < 2 or steps[0] != 0:
        return None
    lowest = min(range(len(scores)), key=scores.__getitem__)
    later = (
        step
        for step, score in zip(steps[lowest:], scores[lowest:], strict=True)
        if score >= scores[0]
    )
    return Gap(scores[0], scores[lowest], steps[lowest], next(later, None))
