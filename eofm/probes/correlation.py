"""Correlation of ranks, and the line through values over the logarithm of a count.

Shapes: R resamples, K classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor


def spearman(x: Float[Tensor, " k"], y: Float[Tensor, "r k"]) -> Float64[Tensor, " r"]:
    """Return Spearman's rank correlation of one variable with each row of others.

    Equal values share the mean of their ranks, as in `scipy.stats.spearmanr`. A class that is NaN
    in a row has no rank in it, nor has x there.

    Args:
        x: (K,).
        y: (R, K).

    Returns:
        (R,); NaN where a side is constant or fewer than two classes are known.
    """
    first = x.double().expand_as(y)
    known = torch.isfinite(y) & torch.isfinite(first)
    return _correlation(_ranks(first, known), _ranks(y.double(), known), known)


def decade_slope(counts: Float[Tensor, " k"], y: Float[Tensor, "r k"]) -> Float64[Tensor, " r"]:
    """Return by how much y rises when a count grows tenfold, by least squares of each row.

    Args:
        counts: (K,); those of 0 take no part.
        y: (R, K); classes that are NaN take no part.

    Returns:
        (R,); NaN where all counts are equal.
    """
    x = counts.double().log10().expand_as(y)
    known = torch.isfinite(y) & torch.isfinite(x)
    x, y = _centred(x, known), _centred(y.double(), known)
    return (x * y).sum(dim=1) / x.square().sum(dim=1)


def _ranks(values: Float64[Tensor, "r k"], known: Bool[Tensor, "r k"]) -> Float64[Tensor, "r k"]:
    """Return how many known values of the row are smaller, equal ones (and itself) by half."""
    one, other = values[:, :, None], values[:, None, :]
    above = (one > other).double() + 0.5 * (one == other).double()
    return (above * known[:, None, :]).sum(dim=2)


def _centred(values: Float64[Tensor, "r k"], known: Bool[Tensor, "r k"]) -> Float64[Tensor, "r k"]:
    kept = torch.where(known, values, 0.0)
    mean = kept.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True)
    return torch.where(known, values - mean, 0.0)


def _correlation(
    x: Float64[Tensor, "r k"], y: Float64[Tensor, "r k"], known: Bool[Tensor, "r k"]
) -> Float64[Tensor, " r"]:
    x, y = _centred(x, known), _centred(y, known)
    return (x * y).sum(dim=1) / (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
