"""Numbers by which an embedding is judged without a fit.

Shapes: N images, D width, K classes.
"""

from __future__ import annotations

import math
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
