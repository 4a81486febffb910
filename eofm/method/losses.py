"""The hard term, the soft term, and the minimum of the soft term.

Shapes: B student images (rows), N teacher images (columns).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from eofm.method.config import SoftForm
from eofm.method.distributed import mean_over_ranks

__all__ = [
    "hard_loss",
    "labelled_pairs",
    "nearest_columns",
    "own_probability",
    "soft_floor",
    "soft_loss",
]


def hard_loss(
    cosines: Float[Tensor, "b n"],
    own: Int64[Tensor, " b"],
    tau: float,
    excluded: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Return InfoNCE: each row's own column against all others, times 2τ as in MoCo-v3.

    H = mean_i 2τ · [logsumexp_j(s_ij / τ) - s_i,own / τ]

    Args:
        cosines: s, (B, N).
        own: int64 (B,), the column of each row's own image.
        tau: Temperature τ.
        excluded: bool (B, N), columns to exclude from the sum over j; a row's own column is always
            included. None excludes nothing.
    """
    return 2 * tau * functional.cross_entropy(_hard_logits(cosines, own, tau, excluded), own)


def own_probability(
    cosines: Float[Tensor, "b n"],
    own: Int64[Tensor, " b"],
    tau: float,
    excluded: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean softmax probability of each row's own column, arguments as in `hard_loss`."""
    logits = _hard_logits(cosines.detach(), own, tau, excluded)
    return functional.softmax(logits, dim=1).gather(1, own[:, None]).mean()


def _hard_logits(
    cosines: Float[Tensor, "b n"],
    own: Int64[Tensor, " b"],
    tau: float,
    excluded: Bool[Tensor, "b n"] | None,
) -> Float[Tensor, "b n"]:
    logits = cosines / tau
    if excluded is None:
        return logits
    return logits.masked_fill(excluded.scatter(1, own[:, None], False), -torch.inf)


def labelled_pairs(
    known_rows: Bool[Tensor, " b"], known_columns: Bool[Tensor, " n"]
) -> Bool[Tensor, "b n"]:
    """Return the mask of pairs of labelled images, bool (B, N), from bool (B,) and (N,)."""
    return known_rows[:, None] & known_columns[None, :]


def nearest_columns(
    cosines: Float[Tensor, "b n"], pairs: Bool[Tensor, "b n"], neighbours: int
) -> Bool[Tensor, "b n"]:
    """Return the mask of the most similar pairs of each row (LOOK, arXiv 2110.06014).

    Args:
        cosines: s, (B, N).
        pairs: bool (B, N), the pairs to choose from.
        neighbours: Number of pairs to keep in each row.

    Returns:
        bool (B, N), at most `neighbours` per row.
    """
    near = torch.where(pairs, cosines.detach(), -torch.inf)
    best = near.topk(min(neighbours, near.shape[1]), dim=1).indices
    return pairs & torch.zeros_like(pairs).scatter_(1, best, True)


def soft_loss(
    cosines: Float[Tensor, "b n"],
    similarity: Float[Tensor, "b n"],
    pairs: Bool[Tensor, "b n"],
    form: SoftForm,
    *,
    tau: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float = 0.0,
) -> Float[Tensor, ""]:
    """Return the distance of embedding similarity s from label similarity S over some pairs.

    bce: mean over pairs of softplus(l) - S·l, with l = s/τ + bias
    ce:  mean over rows of -Σ_j T_ij · log softmax_j(s_ij / τ), with T_i = S_i / Σ_j S_ij
    mse: mean over pairs of (s - S)², or ((s + 1) / 2 - S)²

    With ce, other columns are excluded from the softmax, and so is a row that shares no class with
    any column, as it has no target. If there are no pairs the loss is 0, still connected to s, so
    that every parameter gets a gradient. Means are over the pairs or rows of all ranks
    (`eofm.method.distributed.mean_over_ranks`).

    Args:
        cosines: s, (B, N).
        similarity: S, (B, N); values of other pairs are ignored.
        pairs: bool (B, N), the pairs to compare (`labelled_pairs`).
        form: Kind of distance.
        tau: Temperature of the soft term; not used by mse.
        bias: Bias of the logits of bce; the other forms ignore it.
    """
    similarity = torch.where(pairs, similarity, 0)
    match form:
        case SoftForm.CE:
            return _row_cross_entropy(cosines / tau, similarity, pairs)
        case SoftForm.BCE:
            logits = cosines / tau + bias
            distance = functional.softplus(logits) - similarity * logits
        case SoftForm.MSE:
            distance = (cosines - similarity) ** 2
        case SoftForm.MSE_SHIFTED:
            distance = ((cosines + 1) / 2 - similarity) ** 2
    return mean_over_ranks((distance * pairs).sum(), pairs.sum())


def _row_cross_entropy(
    logits: Float[Tensor, "b n"], similarity: Float[Tensor, "b n"], pairs: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    target, rows = _row_targets(similarity)
    # the lowest finite number, not -inf: a row without any valid column must not become NaN
    logits = torch.where(pairs, logits, torch.finfo(logits.dtype).min)
    per_row = -(target * functional.log_softmax(logits, dim=1)).sum(1)
    return mean_over_ranks((per_row * rows).sum(), rows.sum())


def _row_targets(
    similarity: Float[Tensor, "b n"],
) -> tuple[Float[Tensor, "b n"], Bool[Tensor, " b"]]:
    """Return targets T (B, N), and the mask of rows with a target, bool (B,)."""
    mass = similarity.sum(1)
    return similarity / torch.where(mass > 0, mass, 1)[:, None], mass > 0


def soft_floor(
    similarity: Float[Tensor, "b n"], pairs: Bool[Tensor, "b n"], form: SoftForm
) -> Float[Tensor, ""]:
    """Return the minimum of `soft_loss` for these labels: the entropy of its target.

    Args:
        similarity: S, (B, N).
        pairs: As given to `soft_loss`.
        form: As given to `soft_loss`.
    """
    similarity = torch.where(pairs, similarity, 0)
    if form in (SoftForm.MSE, SoftForm.MSE_SHIFTED):
        return similarity.new_zeros(())
    if form is SoftForm.CE:
        target, rows = _row_targets(similarity)
        return mean_over_ranks(_entropy(target).sum(), rows.sum())
    entropy = _entropy(similarity) + _entropy(1 - similarity)
    return mean_over_ranks(entropy.sum(), pairs.sum())


def _entropy(share: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Return -p ln p, 0 at p = 0."""
    return -torch.xlogy(share, share)
