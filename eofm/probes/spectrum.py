"""Spectrum of features: the singular values of a split, summarised in three numbers.

They are computed from the features that a probe uses, without labels. A spectrum concentrated in a
few directions indicates a collapsed encoder, a flat one features without structure. arXiv
2309.17002 measures the damage of noisy pretraining labels with the same values.

Shapes: N samples, D features, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

__all__ = [
    "Spectrum",
    "decay_exponent",
    "effective_rank",
    "singular_values",
    "spectrum_of",
    "within_class_rank",
]

# The first directions follow no power law, and the last ones are noise of the finite sample.
_FIRST: Final = 11
_LAST: Final = 500
_FEWEST: Final = 10


@dataclass(frozen=True)
class Spectrum:
    """Singular values σ of centred features, largest first, in three numbers.

    Args:
        rank: exp of the entropy of σ / Σσ: number of directions used (RankMe, arXiv 2210.02885).
        lead: σ_1 / Σσ, the share of the first direction; 1 if it is the only one.
        alpha: Exponent of the decay of the eigenvalues, σ_j² ~ j^-α; near 1 in networks that
            generalise (arXiv 2202.05808). None if there are too few directions for the fit.
    """

    rank: float
    lead: float | None = None
    alpha: float | None = None


def spectrum_of(x: Float[Tensor, "n d"]) -> Spectrum:
    """Return the spectrum of features.

    Args:
        x: (N, D).
    """
    singular = singular_values(x)
    total = float(singular.sum())
    if total == 0:
        return Spectrum(0.0, 0.0)
    return Spectrum(_rank(singular), float(singular[-1]) / total, decay_exponent(singular))


def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """Return exp(entropy) of the centred features' singular values: the directions in use.

    Degenerate features (RankMe, arXiv 2210.02885) use only a few, whatever their width.

    Args:
        x: (N, D).
    """
    return _rank(singular_values(x))


def singular_values(x: Float[Tensor, "n d"]) -> Float[Tensor, " r"]:
    """Return the singular values of the centred features, float64, ascending.

    Args:
        x: (N, D).
    """
    centred = x.double() - x.double().mean(dim=0)
    small = centred.T @ centred if len(x) >= x.shape[1] else centred @ centred.T
    values: Tensor = torch.linalg.eigvalsh(small).clamp_min(0).sqrt()
    return values


def _rank(singular: Float[Tensor, " r"]) -> float:
    if float(singular.sum()) == 0:
        return 0.0
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def decay_exponent(singular: Float[Tensor, " r"]) -> float | None:
    """Return α of σ_j² ~ j^-α, or None if there are fewer than ten directions to fit.

    The fit is that of Stringer et al. 2019 (doi 10.1038/s41586-019-1346-5), as in arXiv 2202.05808:
    a line through (ln j, ln σ_j²) by least squares with weights 1 / j, from the eleventh direction
    to half of the directions, at most the 500th.

    Args:
        singular: Singular values, ascending.
    """
    eigen = singular.double().square().flip(0)
    there = int((eigen > eigen[0] * torch.finfo(torch.float64).eps * len(eigen)).sum())
    last = min(_LAST, there // 2)
    if last - _FIRST + 1 < _FEWEST:
        return None
    place = torch.arange(_FIRST, last + 1, dtype=torch.float64)
    x, y, weight = place.log(), eigen[_FIRST - 1 : last].log(), 1 / place
    x = x - (weight * x).sum() / weight.sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())


def within_class_rank(x: Float[Tensor, "n d"], y: Shaped[Tensor, " ..."]) -> float:
    """Return the effective rank of the features within a class, averaged over classes.

    Supervised contrastive learning pulls a class to one point; another task can use only the
    remaining differences within classes (LOOK, arXiv 2110.06014).

    Args:
        x: (N, D).
        y: (N,) class indices, or (N, K) with 1 where a class is present; a sample of several
            classes counts in each of them.

    Returns:
        NaN if no class has two samples.
    """
    if y.ndim == 1:
        y = torch.nn.functional.one_hot(y)
    ranks = [effective_rank(x[members]) for members in (y > 0).T if int(members.sum()) > 1]
    return sum(ranks) / len(ranks) if ranks else math.nan
