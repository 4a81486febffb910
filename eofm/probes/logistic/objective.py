"""The two losses over a linear model, and either of them along a line.

Shapes: N samples, R directions, K classes, G groups: K for BINARY, 1 for SOFTMAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from jaxtyping import Float64
from torch import Tensor

_LEAST_WEIGHT: Final = 1e-4  # of p (1 - p) in the preconditioner: nearly separable classes


class Loss(StrEnum):
    """Independent classes (multi-label), or one class per sample."""

    BINARY = "bce"
    SOFTMAX = "ce"


@dataclass(frozen=True)
class Point:
    """The objective at one place of a line: value and slope along it, and probabilities.

    `value` and `slope` are (G, 1), one entry per group: G = K classes for BINARY, one for SOFTMAX.
    """

    value: Float64[Tensor, "g 1"]
    slope: Float64[Tensor, "g 1"]
    p: Float64[Tensor, "k n"]


@dataclass(frozen=True)
class LogisticObjective:
    """One problem per class (BINARY) or one for all (SOFTMAX)."""

    z: Float64[Tensor, "n r1"]
    y: Float64[Tensor, "k n"]
    loss: Loss
    penalty: Float64[Tensor, " r1"]
    energy: Float64[Tensor, " r1"]

    def total(self, per_class: Float64[Tensor, "k _"]) -> Float64[Tensor, "g 1"]:
        """Sum (K, anything) over each group: (K, 1) for BINARY, (1, 1) for SOFTMAX."""
        if self.loss is Loss.BINARY:
            return per_class.sum(dim=1, keepdim=True)
        return per_class.sum().view(1, 1)

    def dot(self, a: Float64[Tensor, "k c"], b: Float64[Tensor, "k c"]) -> Float64[Tensor, "g 1"]:
        """Return the inner product of each group, in one pass over (K, anything)."""
        return self.total(torch.bmm(a[:, None], b[:, :, None])[:, 0])

    def gradient(
        self, theta: Float64[Tensor, "k r1"], p: Float64[Tensor, "k n"]
    ) -> Float64[Tensor, "k r1"]:
        """Return the gradient (K, R + 1)."""
        return (p - self.y) @ self.z / len(self.z) + self.penalty * theta

    def inverse_diagonal(self, p: Float64[Tensor, "k n"]) -> Float64[Tensor, "k r1"]:
        """Return the preconditioner (K, R + 1): the inverse of the Hessian's diagonal, nearly."""
        weight = (p * (1 - p)).mean(dim=1, keepdim=True).clamp_min(_LEAST_WEIGHT)
        return 1 / (weight * self.energy + self.penalty)


class Line:
    """The objective along a direction.

    The labels and the penalty are a line and a parabola in the step, known beforehand; a step
    costs little more than one sigmoid and one softplus per margin.

    Args:
        objective: Which.
        theta: (K, R + 1), where the line starts.
        margins: (K, N), `theta @ z'`.
        direction: (K, R + 1).
        ahead: (K, N), `direction @ z'`.
    """

    def __init__(
        self,
        objective: LogisticObjective,
        theta: Float64[Tensor, "k r1"],
        margins: Float64[Tensor, "k n"],
        direction: Float64[Tensor, "k r1"],
        ahead: Float64[Tensor, "k n"],
    ) -> None:
        self._objective, self._margins, self._ahead = objective, margins, ahead
        shrink = objective.penalty * direction
        dot = objective.dot
        self._label = dot(objective.y, margins), dot(objective.y, ahead)
        self._penalty = (
            dot(objective.penalty * theta, theta) / 2,
            dot(shrink, theta),
            dot(shrink, direction),
        )

    def at(self, step: Float64[Tensor, "g 1"]) -> Point:
        """Evaluate at a step (G, 1)."""
        objective, n = self._objective, len(self._objective.z)
        margins = torch.addcmul(self._margins, step, self._ahead)
        if objective.loss is Loss.BINARY:
            p = torch.sigmoid(margins)
            partition = objective.total(torch.nn.functional.softplus(margins))
        else:
            per_sample = torch.logsumexp(margins, dim=0)
            p = torch.exp(margins - per_sample)
            partition = per_sample.sum().view(1, 1)
        constant, slope, bend = self._penalty
        labels, rise = self._label
        return Point(
            (partition - labels - step * rise) / n + constant + step * (slope + step * bend / 2),
            (objective.dot(p, self._ahead) - rise) / n + slope + step * bend,
            p,
        )

    def curvature(self, p: Float64[Tensor, "k n"]) -> Float64[Tensor, "g 1"]:
        """Return the second derivative (G, 1) where probabilities are `p`."""
        objective, ahead = self._objective, self._ahead
        if objective.loss is Loss.BINARY:
            spread = objective.dot(p * (1 - p), ahead.square())
        else:
            drift = (p * ahead).sum(dim=0)
            spread = objective.dot(p, (ahead - drift).square())
        return spread / len(objective.z) + self._penalty[2]
