"""Agreement with scikit-learn on the same real tiles: band statistics of a EuroSAT subset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from eofm.bench.controls import image_statistics
from eofm.datasets.eurosat import EUROSAT_MS
from eofm.datasets.images.chips import read_batches, targets_of
from eofm.datasets.images.class_folders import open_class_folders
from eofm.probes.features import Labelled, Scaling, scale
from eofm.probes.knn import knn_probe
from eofm.probes.linear import StrengthGrid, linear_probe
from eofm.probes.metrics import average_precision

# features and labels of train and test
Tiles = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def tiles(real_data: Path) -> Tiles:
    """Standardised statistics, 52 numbers per tile."""
    chips = open_class_folders(EUROSAT_MS, real_data / "eurosat_ms", None)
    found = []
    for split in "train", "test":
        part = chips.splits[split]
        found.append(torch.cat([image_statistics(batch) for batch in read_batches(part, 64)]))
        found.append(targets_of(part, 10))
    train, test = scale(found[0], Scaling.STANDARD, found[2])
    return train, found[1], test, found[3]


def test_knn_equals_scikit_learn(tiles: Tiles) -> None:
    """Every share of votes of every test tile."""
    train, train_y, test, _ = tiles
    reference = KNeighborsClassifier(5, algorithm="brute").fit(train.numpy(), train_y.numpy())

    votes = knn_probe(Labelled(train, train_y, 10), test).scores

    assert (reference.predict_proba(test.numpy()) == votes.numpy()).all()


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_average_precision_equals_scikit_learn(tiles: Tiles, average: str) -> None:
    """Of kNN votes, which tie, with ten classes as labels."""
    train, train_y, test, test_y = tiles
    votes = knn_probe(Labelled(train, train_y, 10), test).scores
    hot = torch.nn.functional.one_hot(test_y, 10)

    ours = vars(average_precision(votes, hot))[average]

    assert average_precision_score(hot.numpy(), votes.numpy(), average=average) == pytest.approx(
        ours, abs=1e-8
    )


def test_the_linear_probe_equals_scikit_learns_optimum(tiles: Tiles) -> None:
    """Probabilities agree to 1e-5 and decisions are the same, at a fixed C."""
    train, train_y, test, _ = tiles
    reference = LogisticRegression(C=0.5, tol=1e-9, max_iter=1000, solver="newton-cg")
    reference.fit(train.numpy(), train_y.numpy())

    outcome = linear_probe(
        Labelled(train, train_y, 10),
        None,
        test,
        choice=lambda _scores, _target: 0.0,
        grid=StrengthGrid.single(0.5),
    )

    assert outcome.probability is not None
    expected = reference.predict_proba(test.numpy())
    assert np.abs(expected - outcome.probability.numpy()).max() < 1e-5
    assert (expected.argmax(axis=1) == outcome.scores.argmax(dim=1).numpy()).all()
