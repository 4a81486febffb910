"""Numbers by which an embedding is judged without a fit, and how deep a score falls at first.

Shapes: N images, D width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

# the factor of the Gaussian potential in arXiv 2005.10242
_POTENTIAL: Final = 2.0


def spread(embedding: Tensor) -> float:
    """Return the mean standard deviation of the unit vectors' coordinates, times sqrt(D).

    1 where they fill the sphere, 0 where they are one point (SimSiam, arXiv 2011.10566).

    Args:
        embedding: (N, D), N > 1.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean() * math.sqrt(unit.shape[1]))


def mean_cosine(embedding: Tensor) -> float:
    """Return the mean cosine over pairs of images: 1 where all are embedded as one.

    Args:
        embedding: (N, D), N > 1.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    return float(_pairs(unit @ unit.T).mean())


def alignment(one: Tensor, other: Tensor) -> float:
    """Return the mean squared distance of the unit vectors of two views: 0 is best, 2 is chance.

    Eq. 1 of arXiv 2005.10242, α = 2.

    Args:
        one: (N, D).
        other: (N, D), the same images in another view.
    """
    unit = functional.normalize(one.double(), dim=1)
    return float((unit - functional.normalize(other.double(), dim=1)).square().sum(dim=1).mean())


def uniformity(embedding: Tensor) -> float:
    """Return log mean exp(-2 d²) over pairs of unit vectors: 0 is one point, -4 is a wide sphere.

    Eq. 2 of arXiv 2005.10242, t = 2.

    Args:
        embedding: (N, D), N > 1.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    potential = -_POTENTIAL * (2 - 2 * _pairs(unit @ unit.T))
    return float(torch.logsumexp(potential, dim=0) - math.log(len(potential)))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's correlation of two lists; equal values share their mean rank.

    NaN where a list is constant.

    Args:
        one: (N,).
        other: (N,).
    """
    first, second = (r - r.mean() for r in (_ranks(one), _ranks(other)))
    scale = (first.square().sum() * second.square().sum()).sqrt()
    return float((first * second).sum() / scale) if scale > 0 else math.nan


def label_correlation(embedding: Tensor, similarity: Tensor) -> float:
    """Return Spearman's correlation of cosines and label similarities over pairs of images.

    Args:
        embedding: (N, D).
        similarity: (N, N); NaN where it is not known: such pairs do not count.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    cosine, label = _pairs(unit @ unit.T), _pairs(similarity.double())
    known = ~label.isnan()
    return rank_correlation(cosine[known], label[known]) if known.any() else math.nan


def _pairs(matrix: Tensor) -> Tensor:
    """Return what stands above the diagonal, each pair once."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1)
    return matrix[rows, columns]


def _ranks(values: Tensor) -> Tensor:
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Tensor = count.cumsum(0).double() - (count - 1) / 2
    return mean_rank[place]


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
    """Return the gap of a score over the steps, or None if step 0 was not evaluated.

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
