"""Scores of frozen features in one fold: what `real_pixels.py` compares, fixed before it ran.

Features are standardised by the training tiles first (mean and deviation of each), so that a
network's vector and image statistics in mixed units are treated alike; nothing else is fitted to
the held-out tiles. Every score is one number per held-out tile, whose mean is the score: intervals
then resample tiles.

Shapes: N tiles, D features.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from eofm.probes.features import Labelled, effective_rank
from eofm.probes.knn import Distance, knn_scores
from eofm.probes.linear import StrengthGrid, fit_linear
from eofm.probes.metrics import overall_accuracy

Rows = NDArray[np.int64]

# The first two were fixed as the measures of the study: on these tiles they tell 3 points apart.
# `within` is the first one among tiles of one coarse group: the labels say nothing of that.
PRIMARY: Final = ("retrieval", "two_shot")
MEASURES: Final = {
    "retrieval": "retrieval, mAP",
    "two_shot": "2-shot accuracy",
    "within": "retrieval within a group, mAP",
    "knn": "kNN accuracy, k chosen inside",
    "linear": "linear accuracy, C chosen inside",
}

DRAWS: Final = 100  # of two tiles per class
SHOTS: Final = 2
NEIGHBOURS: Final = (1, 3, 5, 9, 15)
STRENGTHS: Final = StrengthGrid.log10(-4, 2, 7)
WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of LDA axes beside features
_SEED: Final = 0  # of the draws and of the splits inside: the same for all arms


def standardised(x: Tensor, train: Rows) -> Tensor:
    """Return the features with mean 0 and deviation 1 over the training tiles, (N, D)."""
    mean, std = x[train].mean(dim=0), x[train].std(dim=0)
    return (x - mean) / torch.where(std > 0, std, torch.ones_like(std))


def score(x: Tensor, y: Tensor, group: Tensor, train: Rows, test: Rows) -> dict[str, list[float]]:
    """Return each measure's value of each held-out tile.

    Args:
        x: Features, (N, D).
        y: Classes, (N,).
        group: Coarse group of each tile, (N,).
        train: Rows of the training tiles: probes are fitted on them.
        test: Rows of the held-out tiles.
    """
    z = standardised(x.double(), train)
    values = {
        "retrieval": average_precision(z[test], y[test]),
        "two_shot": few_shots(z, y, train, test),
        "within": average_precision(z[test], y[test], group[test]),
        "knn": neighbours(z, y, train, test),
        "linear": _linear(z, y, train, test),
    }
    return {name: [round(float(v), 4) for v in value] for name, value in values.items()}


def average_precision(z: Tensor, y: Tensor, group: Tensor | None = None) -> Tensor:
    """Return the average precision of each tile's search for its class among all others, (N,).

    Args:
        z: Features, (N, D); compared by cosine.
        y: Classes, (N,).
        group: Search only among tiles of the same group; None for all.
    """
    unit = torch.nn.functional.normalize(z, dim=1)
    near = unit @ unit.T
    found = []
    for row in range(len(z)):
        others = torch.arange(len(z)) != row
        if group is not None:
            others &= group == group[row]
        order = near[row, others].argsort(descending=True, stable=True)
        right = (y[others] == y[row])[order].double()
        rank = torch.arange(1, len(right) + 1)
        found.append((right.cumsum(0) / rank * right).sum() / right.sum())
    return torch.stack(found)


def few_shots(z: Tensor, y: Tensor, train: Rows, test: Rows) -> Tensor:
    """Return how often each held-out tile is nearest to the mean of two tiles of its class, (M,).

    Over draws of two training tiles per class; features have unit length.
    """
    unit = torch.nn.functional.normalize(z, dim=1)
    random = np.random.default_rng(_SEED)
    classes = y.unique()
    by_class = [train[(y[train] == k).numpy()] for k in classes]
    right = torch.zeros(len(test), dtype=torch.float64)
    for _ in range(DRAWS):
        shots = [random.choice(rows, SHOTS, replace=False) for rows in by_class]
        means = torch.stack([unit[rows].mean(dim=0) for rows in shots])
        said = classes[torch.cdist(unit[test], means).argmin(dim=1)]
        right += (said == y[test]).double()
    return right / DRAWS


def neighbours(z: Tensor, y: Tensor, train: Rows, test: Rows) -> Tensor:
    """Return whether the nearest neighbours say the class; k has the best accuracy inside."""
    parts = _inside(y, train)

    def right(k: int, fitted: Rows, asked: Rows) -> Tensor:
        votes = knn_scores(z[fitted], y[fitted], z[asked], k, Distance.COSINE, classes=10)
        return (votes.argmax(dim=1) == y[asked]).double()

    accuracy = {k: torch.cat([right(k, a, b) for a, b in parts]).mean() for k in NEIGHBOURS}
    return right(max(accuracy, key=lambda k: float(accuracy[k])), train, test)


def _linear(z: Tensor, y: Tensor, train: Rows, test: Rows) -> Tensor:
    """Return whether a linear layer says the class; C has the best accuracy inside."""

    def accuracy(scores: Tensor, target: Tensor) -> float:
        return overall_accuracy(scores.argmax(dim=1), target)

    found = dict.fromkeys(STRENGTHS.values, 0.0)
    for a, b in _inside(y, train):
        fit = fit_linear(
            Labelled(z[a], y[a], 10), Labelled(z[b], y[b], 10), choice=accuracy, grid=STRENGTHS
        )
        for strength, value in fit.validation:
            if strength in found:  # a grid whose end is best has grown
                found[strength] += value * len(b)
    best = StrengthGrid.single(max(found, key=found.__getitem__))
    fit = fit_linear(Labelled(z[train], y[train], 10), None, choice=accuracy, grid=best)
    return (fit.scores(z[test]).argmax(dim=1) == y[test]).double()


def _inside(y: Tensor, train: Rows) -> list[tuple[Rows, Rows]]:
    """Return four divisions of the training tiles, by which settings of a probe are chosen."""
    parts = StratifiedKFold(4, shuffle=True, random_state=_SEED)
    return [(train[a], train[b]) for a, b in parts.split(train, y[train])]


def rank(x: Tensor, test: Rows) -> float:
    """Return the effective rank of the held-out tiles' features."""
    return effective_rank(x[test])


# --------------------------------------------------------------- labels used without training


def discriminant(x: Tensor, group: Tensor, labelled: Rows) -> Tensor:
    """Return the features on the axes of a shrinkage LDA of the coarse groups, (N, groups - 1).

    Ledoit-Wolf shrinkage; what a user of frozen features would do with the same labels.

    Args:
        x: Features, (N, D).
        group: Coarse group of each tile, (N,).
        labelled: Rows of the training tiles whose group is known.
    """
    z = standardised(x.double(), labelled).numpy()
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    lda.fit(z[labelled], group[labelled].numpy())
    return torch.from_numpy(lda.transform(z))


def with_discriminant(x: Tensor, y: Tensor, group: Tensor, train: Rows, labelled: Rows) -> Tensor:
    """Return the features with the axes of the LDA beside them, (N, D + groups - 1).

    The stronger use of the same labels: LDA alone forgets what varies within a group. Both parts
    have unit length; the weight of the axes is the one by which training tiles that the LDA has
    not seen find their class best, so that here, as in a probe, the classes of the training tiles
    are used.

    Args:
        x: Features, (N, D).
        y: Classes, (N,).
        group: Coarse group of each tile, (N,).
        train: Rows of the training tiles.
        labelled: Rows of the training tiles whose group is known.
    """
    unit = torch.nn.functional.normalize(standardised(x.double(), train), dim=1)

    def joined(axes: Tensor, weight: float) -> Tensor:
        return torch.cat([unit, weight * torch.nn.functional.normalize(axes, dim=1)], dim=1)

    found = dict.fromkeys(WEIGHTS, 0.0)
    for _, asked in _inside(y, train):
        axes = discriminant(x, group, np.setdiff1d(labelled, asked))
        for weight in WEIGHTS:
            found[weight] += float(average_precision(joined(axes, weight)[asked], y[asked]).mean())
    return joined(discriminant(x, group, labelled), max(found, key=found.__getitem__))
