"""Read-outs without a fit: k nearest neighbours, and the nearest class mean.

Exact, and independent of the order of files: see `eofm.probes.neighbours` for distances, and
`order` for ties. Ids spell every choice: `knn[k=20,cosine,T=0.07,none]`, `nmc[none]`.

Shapes: N training samples, M test samples, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Float64, Int64, Real, Shaped
from torch import Tensor, nn

from eofm.errors import ConfigError, LabelError
from eofm.probes.linear import Labelled, ProbeResult, Scaling, check_features, scale, unit_length
from eofm.probes.neighbours import Neighbours


class Distance(StrEnum):
    """How near two feature vectors are."""

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

    Exact (`eofm.probes.neighbours`). `scores.argmax(dim=1)` is the majority vote; the
    smallest class index wins a tie, as in scikit-learn.

    Args:
        train_x: (N, D).
        train_y: (N,) class indices or (N, K) multi-hot.
        test_x: (M, D).
        k: Number of neighbours.
        metric: Euclidean or cosine.
        temperature: Weight a neighbour by exp(-distance² / (2 T)), which for unit vectors is
            exp(cosine / T) but for a factor; the k weights of a sample sum to 1. Without it, all
            neighbours weigh the same.
        classes: K for class indices; the largest index + 1 without it.
        order: (N,), distinct ranks; of two training samples at the same distance the one of
            lower rank is taken. Without it, the earlier row.

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
    """Who votes, and with what weight."""

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
        """Return the share of the votes of each class, (M, K).

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
    """Return the kNN read-out of the test samples: `knn_scores` on scaled features.

    Args:
        train: Training split.
        test_x: (M, D).
        k: Number of neighbours.
        metric: Euclidean or cosine.
        temperature: Of the weights; None weighs all neighbours the same.
        scaling: What is done to the features first.
        order: (N,) ranks that settle equal distances.

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
    """Return the nearest-class-mean read-out (NMC): no parameter to choose, nothing to fit.

    Features are brought to length 1, class means are not. One class per sample: the score is minus
    the squared distance to the class's mean, as in scikit-learn's NearestCentroid. Multi-label:
    the cosine with the mean of the positives minus that with the mean of the negatives. A class
    that no training sample has (or lacks) scores -inf (or 0): nothing is known of it.

    Args:
        train: Training split.
        test_x: (M, D).
        scaling: What is done to the features first.

    Raises:
        LabelError: If training has no label at all.
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
