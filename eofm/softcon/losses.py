"""The hard term, the soft term, and the least value the soft term can take.

Shapes: B student images (rows), N teacher images (columns).
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional


def hard_loss(cosines: Tensor, own: Tensor, tau: float) -> Tensor:
    """InfoNCE: each row's own column against all others, times 2τ as in MoCo-v3.

    H = mean_i 2τ · [logsumexp_j(s_ij / τ) - s_i,own / τ]

    Args:
        cosines: s, (B, N).
        own: int64 (B,), the column of each row's own image.
        tau: Temperature τ.
    """
    return 2 * tau * functional.cross_entropy(cosines / tau, own)


class SoftForm(StrEnum):
    """How s is made to follow S.

    Binary cross entropy of each pair, with a bias; cross entropy of each row against S as a
    distribution; mean squared error.
    """

    BCE = "bce"
    CE = "ce"
    MSE = "mse"


def soft_loss(
    cosines: Tensor,
    similarity: Tensor,
    known_rows: Tensor,
    known_columns: Tensor,
    form: SoftForm,
    *,
    tau: float,
    bias: Tensor | float = 0.0,
) -> Tensor:
    """Distance of embedding similarity s from label similarity S, over labelled pairs only.

    bce: mean over pairs of softplus(l) - S·l, with l = s/τ + bias
    ce:  mean over rows of -Σ_j T_ij · log softmax_j(s_ij / τ), with T_i = S_i / Σ_j S_ij
    mse: mean over pairs of (s - S)²

    A pair counts if both its images are labelled. Under ce unlabelled columns leave the softmax,
    and so does a row that shares no class with any column: it has no target. Where nothing
    counts the loss is 0, still connected to s, so that every parameter gets a gradient.

    Args:
        cosines: s, (B, N).
        similarity: S, (B, N); its values are not looked at where a pair does not count.
        known_rows: bool (B,).
        known_columns: bool (N,).
        form: Which distance.
        tau: Temperature of the soft term; not used by mse.
        bias: Added to the logits of bce; the other forms do not see it.
    """
    valid = known_rows[:, None] & known_columns[None, :]
    similarity = torch.where(valid, similarity, 0)
    if form is SoftForm.CE:
        return _row_cross_entropy(cosines / tau, similarity, valid)
    if form is SoftForm.BCE:
        logits = cosines / tau + bias
        distance = functional.softplus(logits) - similarity * logits
    else:
        distance = (cosines - similarity) ** 2
    return (distance * valid).sum() / valid.sum().clamp(min=1)


def _row_cross_entropy(logits: Tensor, similarity: Tensor, valid: Tensor) -> Tensor:
    target, rows = _row_targets(similarity)
    # the lowest finite number, not -inf: a row without any valid column must not become NaN
    logits = torch.where(valid, logits, torch.finfo(logits.dtype).min)
    per_row = -(target * functional.log_softmax(logits, dim=1)).sum(1)
    return (per_row * rows).sum() / rows.sum().clamp(min=1)


def _row_targets(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Return T (B, N) and which rows have one, bool (B,)."""
    mass = similarity.sum(1)
    return similarity / torch.where(mass > 0, mass, 1)[:, None], mass > 0


def soft_floor(
    similarity: Tensor, known_rows: Tensor, known_columns: Tensor, form: SoftForm
) -> Tensor:
    """Return the least value `soft_loss` can take for these labels: the entropy of its target.

    Args:
        similarity: S, (B, N).
        known_rows: bool (B,).
        known_columns: bool (N,).
        form: As given to `soft_loss`.
    """
    valid = known_rows[:, None] & known_columns[None, :]
    similarity = torch.where(valid, similarity, 0)
    if form is SoftForm.MSE:
        return similarity.new_zeros(())
    if form is SoftForm.CE:
        target, rows = _row_targets(similarity)
        return _entropy(target).sum() / rows.sum().clamp(min=1)
    pairs = _entropy(similarity) + _entropy(1 - similarity)
    return pairs.sum() / valid.sum().clamp(min=1)


def _entropy(share: Tensor) -> Tensor:
    """Return -p ln p, 0 at p = 0."""
    return -torch.xlogy(share, share)
