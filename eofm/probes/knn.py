"""Probes without a fit: k nearest neighbours, and the nearest class mean.

Results do not depend on the order of files; `order` breaks ties. Ids state every choice:
`knn[k=20,cosine,T=0.07,none]`, `nmc[none]`.

The search is exact at the speed of a float32 product. The expanded form |a|² + |b|² - 2ab is one
matrix product, but it loses precision: on features of two published encoders it returned 348 zeros
in 10,000 nearest distances. So it only selects candidates, by a lower bound that is valid for any
rounding. float64 differences rank them, and candidates are added until no other row can be nearer.

Shapes: N training samples (rows to search), M test samples (queries), D features, K
classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from jaxtyping import Float, Float32, Float64, Int64, Real, Shaped
from torch import Tensor, nn

from eofm.errors import ConfigError, LabelError
from eofm.probes.features import (
    Labelled,
    ProbeResult,
    Scaling,
    check_features,
    scale,
    unit_length,
)

__all__ = ["Distance", "Neighbours", "knn_probe", "knn_scores", "nearest_mean_probe"]

# Unit roundoff of a float32 product, by `torch.get_float32_matmul_precision()`.
_ROUNDOFF: Final = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}
_CHUNK_CELLS: Final = 1 << 23  # maximum distances in memory: 32 MB of float32


class Neighbours:
    """Rows to search.

    Args:
        rows: float64, (N, D). Of two rows at the same distance the earlier one is taken first.
    """

    def __init__(self, rows: Float64[Tensor, "n d"]) -> None:
        self.rows = rows
        # centring preserves distances, and reduces the loss of precision in the product
        self._centre = rows.mean(dim=0)
        centred = rows - self._centre
        self._squares = centred.square().sum(dim=1).float()
        self._centred = centred.float()
        # |error| of a squared distance <= loss (|a| + |b|)²: a dot product of D terms, the
        # rounding of its factors, and the sums
        self._loss = (rows.shape[1] + 8) * _ROUNDOFF[torch.get_float32_matmul_precision()]

    def nearest(self, points: Float64[Tensor, "m d"], k: int) -> Int64[Tensor, "m k"]:
        """Return the indices (M, k) of the k nearest rows of each point, nearest first.

        Args:
            points: float64, (M, D).
            k: 1..N.
        """
        chunk = max(1, _CHUNK_CELLS // len(self.rows))
        return torch.cat([self._nearest(part, k) for part in torch.split(points, chunk)])

    def _nearest(self, points: Float64[Tensor, "m d"], k: int) -> Int64[Tensor, "m k"]:
        low = self._lower_bounds(points)
        found = torch.empty(len(points), k, dtype=torch.long, device=points.device)
        unsure = torch.arange(len(points), device=points.device)
        count = min(4 * k, len(self.rows))
        while len(unsure):
            bounds, candidates = low[unsure].topk(count, dim=1, largest=False)
            ranked, distance = self._rank(points[unsure], candidates)
            found[unsure] = ranked[:, :k]
            if count == len(self.rows):
                break
            # all other rows are at or beyond the largest bound
            sure = distance[:, k - 1] < bounds.max(dim=1).values.double()
            unsure, count = unsure[~sure], min(4 * count, len(self.rows))
        return found

    def _lower_bounds(self, points: Float64[Tensor, "m d"]) -> Float32[Tensor, "m n"]:
        """Return lower bounds of the squared distances, (M, N)."""
        a = (points - self._centre).float()
        norm_a, norm_b = a.norm(dim=1, keepdim=True), self._squares.sqrt()
        low = self._squares + a.square().sum(dim=1, keepdim=True) - 2 * (a @ self._centred.T)
        return low.sub_(self._loss * (norm_a + norm_b).square())

    def _rank(
        self, points: Float64[Tensor, "m d"], candidates: Int64[Tensor, "m c"]
    ) -> tuple[Int64[Tensor, "m c"], Float64[Tensor, "m c"]]:
        """Sort candidates by squared distance, ties by row."""
        candidates = candidates.sort(dim=1).values
        distance = torch.stack(
            [
                (self.rows[index] - point).square().sum(dim=1)
                for point, index in zip(points, candidates, strict=True)
            ]
        )
        distance, place = distance.sort(dim=1, stable=True)
        return candidates.gather(1, place), distance


# ------------------------------------------------------------------------------------------ probes


class Distance(StrEnum):
    """Distance of two feature vectors."""

    L2 = "l2"
    COSINE = "cosine"


def knn_scores(
    train_x: Float[Tensor, "n d"],
    train_y: Shaped[Tensor, " n *k"],
    test_x: Float[Tensor, "m d"],
    k: int = 5,
    metric: Distance = Distance.L2,
    *,
    temperature: float | None = None,
    classes: int | None = None,
    order: Int64[Tensor, " n"] | None = None,
) -> Float64[Tensor, "m c"]:
    """Return each class's share of the k nearest training samples.

    Exact (`eofm.probes.knn`). `scores.argmax(dim=1)` is the majority vote; the
    smallest class index wins a tie, as in scikit-learn.

    Args:
        train_x: (N, D).
        train_y: (N,) class indices or (N, K) multi-hot.
        test_x: (M, D).
        k: Number of neighbours.
        metric: Euclidean or cosine.
        temperature: Weight a neighbour by exp(-distance² / (2 T)), which for unit vectors is
            exp(cosine / T) up to a factor; the k weights of a sample sum to 1. If None, all
            neighbours have the same weight.
        classes: K for class indices; if None, the largest index + 1.
        order: (N,), distinct ranks; of two training samples at the same distance the one of
            lower rank is taken; if None, the earlier row.

    Returns:
        (M, K), float64; without temperature, multiples of 1/k.

    Raises:
        ConfigError: If k is not within 1..N, or the temperature is not positive.
        PixelError: If a feature is not finite or a row is all zero.
    """
    check_features(train_x)
    check_features(test_x)
    if train_y.ndim == 1:
        train_y = nn.functional.one_hot(train_y, classes or int(train_y.max()) + 1)
    neighbourhood = _Neighbourhood(k, metric, temperature)
    return neighbourhood.scores(train_x.double(), train_y, test_x.double(), order)


@dataclass(frozen=True)
class _Neighbourhood:
    """Settings of the vote: number of neighbours, distance and weights."""

    k: int
    metric: Distance
    temperature: float | None

    def scores(
        self,
        x: Float64[Tensor, "n d"],
        hot: Real[Tensor, "n k"],
        test: Float64[Tensor, "m d"],
        order: Int64[Tensor, " n"] | None,
    ) -> Float64[Tensor, "m k"]:
        """Return each class's share of the votes, (M, K).

        Args:
            x: Training vectors, (N, D).
            hot: Their classes, (N, K).
            test: Test vectors, (M, D).
            order: Rank of each training vector, (N,): the lower wins a tie; None for their order.

        Raises:
            ConfigError: If there are fewer than k training vectors, or the temperature is not
                positive.
        """
        self._check(len(x))
        if self.metric is Distance.COSINE:
            # on the unit sphere the nearer vector is the one of larger cosine
            x, test = unit_length(x), unit_length(test)
        if order is not None:  # in order of rank, the earlier row wins a tie
            by_rank = torch.argsort(order)
            x, hot = x[by_rank], hot[by_rank]
        nearest = Neighbours(x).nearest(test, self.k)
        parts = zip(torch.split(test, 1024), torch.split(nearest, 1024), strict=True)
        return torch.cat([self._vote(x, hot, points, part) for points, part in parts])

    def _check(self, samples: int) -> None:
        if not 1 <= self.k <= samples:
            raise ConfigError(
                "k must lie within the number of training samples",
                found=self.k,
                expected=f"1..{samples}",
            )
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError(
                "the temperature of neighbours must be positive", found=self.temperature
            )

    def _vote(
        self,
        x: Float64[Tensor, "n d"],
        hot: Real[Tensor, "n k"],
        points: Float64[Tensor, "p d"],
        nearest: Int64[Tensor, "p j"],
    ) -> Float64[Tensor, "p k"]:
        if self.temperature is None:
            return hot[nearest].sum(dim=1).double() / self.k
        square = torch.stack([(points - x[one]).square().sum(dim=1) for one in nearest.T], dim=1)
        weight = torch.softmax(-square / (2 * self.temperature), dim=1)
        return torch.einsum("mk,mkc->mc", weight, hot[nearest].double())


def knn_probe(
    train: Labelled,
    test_x: Float[Tensor, "m d"],
    *,
    k: int = 5,
    metric: Distance = Distance.L2,
    temperature: float | None = None,
    scaling: Scaling = Scaling.NONE,
    order: Int64[Tensor, " n"] | None = None,
) -> ProbeResult:
    """Return kNN scores of the test samples: `knn_scores` on scaled features.

    Args:
        train: Training split.
        test_x: (M, D).
        k: Number of neighbours.
        metric: Euclidean or cosine.
        temperature: Temperature of the weights; None for equal weights.
        scaling: Scaling of the features.
        order: (N,) ranks that break ties of distance.

    Raises:
        ConfigError: If k is not within 1..N, or the temperature is not positive.
        PixelError: If a feature is not finite or a row is all zero.
    """
    check_features(test_x)
    x, test = scale(train.x, scaling, test_x)
    scores = _Neighbourhood(k, metric, temperature).scores(x, train.multi_hot(), test, order)
    weights = "uniform" if temperature is None else f"T={temperature:g}"
    # the sum of k weights may exceed 1 by a rounding
    probability = scores.clamp(0, 1)
    return ProbeResult(f"knn[k={k},{metric},{weights},{scaling}]", scores, probability)


def nearest_mean_probe(
    train: Labelled, test_x: Float[Tensor, "m d"], *, scaling: Scaling = Scaling.NONE
) -> ProbeResult:
    """Return scores of the nearest class mean (NMC), which has no parameters to choose or fit.

    Features are scaled to unit length, class means are not. One class per sample: the score is
    minus the squared distance to the class mean, as in scikit-learn's NearestCentroid.
    Multi-label: the cosine with the mean of the positives minus that with the mean of the
    negatives. A class that no training sample has (or lacks) is unknown and scores -inf (or 0).

    Args:
        train: Training split.
        test_x: (M, D).
        scaling: Scaling of the features.

    Raises:
        LabelError: If the training split has no labels.
        PixelError: If a feature is not finite or a row is all zero.
    """
    check_features(test_x)
    x, test = (unit_length(part) for part in scale(train.x, scaling, test_x))
    hot = train.multi_hot()
    count = hot.sum(dim=0)
    if not count.any():
        raise LabelError("nearest mean needs a class that a training sample has")
    means = hot.T @ x / count.clamp_min(1)[:, None]
    if not train.multi_label:
        square = test.square().sum(dim=1, keepdim=True) - 2 * test @ means.T
        scores = -(square + means.square().sum(dim=1))
        scores[:, count == 0] = -torch.inf
        return ProbeResult(f"nmc[{scaling}]", scores)
    rest = len(hot) - count
    others = (1 - hot).T @ x / rest.clamp_min(1)[:, None]
    scores = test @ unit_length(means).T - test @ unit_length(others).T
    scores[:, count == 0] = -torch.inf
    scores[:, rest == 0] = 0.0
    return ProbeResult(f"nmc[{scaling}]", scores)
