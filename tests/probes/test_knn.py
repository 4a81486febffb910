"""kNN and nearest mean: against scikit-learn, at ties, and at absent classes.

The exact search against brute force in float64, where float32 alone fails, and at ties.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

from eofm.errors import ConfigError, LabelError
from eofm.probes import knn
from eofm.probes.features import Labelled, Scaling
from eofm.probes.knn import Distance, Neighbours, knn_probe, knn_scores, nearest_mean_probe


def blobs(generator: torch.Generator, samples: int, dims: int, classes: int) -> Labelled:
    """Overlapping clouds, one per class."""
    y = torch.arange(samples) % classes
    centres = 1.5 * torch.randn(classes, dims, generator=torch.Generator().manual_seed(99))
    return Labelled(centres[y] + torch.randn(samples, dims, generator=generator), y, classes)


@pytest.mark.parametrize("metric", list(Distance))
@pytest.mark.parametrize("k", [1, 4, 5])
def test_knn_equals_scikit_learn(generator: torch.Generator, metric: Distance, k: int) -> None:
    """Shares of votes and majority decisions, tied ones included, are scikit-learn's."""
    train, test = blobs(generator, 300, 16, 6), blobs(generator, 120, 16, 6)
    reference = KNeighborsClassifier(
        k, algorithm="brute", metric={"l2": "euclidean"}.get(metric, metric.value)
    )
    reference.fit(train.x.double().numpy(), train.y.numpy())

    scores = knn_scores(train.x, train.y, test.x, k, metric)

    assert (reference.predict_proba(test.x.double().numpy()) == scores.numpy()).all()
    assert (reference.predict(test.x.double().numpy()) == scores.argmax(dim=1).numpy()).all()


def test_a_tied_vote_goes_to_the_smallest_class() -> None:
    """Two votes for class 2 and two for class 1: class 1."""
    train = torch.tensor([[1.0], [1.1], [1.2], [1.3], [9.0]])

    scores = knn_scores(train, torch.tensor([2, 1, 1, 2, 0]), torch.tensor([[1.15]]), k=4)

    assert [[0.0, 0.5, 0.5]] == scores.tolist()
    assert 1 == int(scores.argmax())


def test_equal_distances_go_by_the_given_order() -> None:
    """Of two copies the one of lower rank counts, whatever place it has in the file."""
    train, test = torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0]])

    first = knn_scores(train, torch.tensor([0, 1]), test, k=1, order=torch.tensor([7, 3]))
    swapped = knn_scores(train, torch.tensor([1, 0]), test, k=1, order=torch.tensor([3, 7]))

    assert [[0.0, 1.0]] == first.tolist() == swapped.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_shuffled_training_samples_give_the_same_votes(seed: int) -> None:
    """With ranks that travel along, the order of training samples has no say, not even at ties."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 4, (40, 2), generator=generator).float()
    y = torch.randint(3, (40,), generator=generator)
    test = torch.randint(1, 4, (10, 2), generator=generator).float()
    rank, shuffle = torch.randperm(40, generator=generator), torch.randperm(40, generator=generator)

    scores = knn_scores(x, y, test, classes=3, order=rank)

    shuffled = knn_scores(x[shuffle], y[shuffle], test, classes=3, order=rank[shuffle])
    assert torch.equal(scores, shuffled)


def test_multi_label_votes_are_shares() -> None:
    """Each class's score is the share of neighbours that have it."""
    train = torch.tensor([[1.0], [2.0], [3.0], [50.0]])
    hot = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 1]])

    scores = knn_scores(train, hot, torch.tensor([[2.0]]), k=3)

    assert [[2 / 3, 1 / 3]] == scores.tolist()


def test_knn_probe_scales_as_asked(generator: torch.Generator) -> None:
    """`standard` is scikit-learn's scaler fitted on train, and stands in the id."""
    train, test = blobs(generator, 90, 5, 3), blobs(generator, 30, 5, 3)
    stretched = Labelled(train.x * torch.tensor([1, 10, 100, 1, 1]) + 7, train.y, 3)
    test_x = test.x * torch.tensor([1, 10, 100, 1, 1]) + 7
    scaler = StandardScaler().fit(stretched.x.double().numpy())
    reference = KNeighborsClassifier(5, algorithm="brute").fit(
        scaler.transform(stretched.x.double().numpy()), train.y.numpy()
    )

    result = knn_probe(stretched, test_x, scaling=Scaling.STANDARD)

    expected = reference.predict_proba(scaler.transform(test_x.double().numpy()))
    assert (expected == result.scores.numpy()).all()
    assert "knn[k=5,l2,uniform,standard]" == result.probe


def test_k_must_lie_within_the_training_samples() -> None:
    """Six neighbours of five samples do not exist."""
    with pytest.raises(ConfigError, match="k must lie within"):
        knn_scores(torch.ones(5, 2), torch.arange(5), torch.ones(1, 2), k=6)


def test_temperature_weights_are_those_of_dino(generator: torch.Generator) -> None:
    """On unit vectors a neighbour weighs exp(cosine / T), as DINO's kNN has it."""
    train, test = blobs(generator, 80, 6, 4), blobs(generator, 20, 6, 4)

    result = knn_probe(train, test.x, k=7, metric=Distance.COSINE, temperature=0.07)

    a, b = (normalize(part.x.double().numpy()) for part in (test, train))
    for row, similarity in enumerate(a @ b.T):
        chosen = np.argsort(-similarity)[:7]
        weight = np.exp(similarity[chosen] / 0.07)
        votes = np.bincount(train.y.numpy()[chosen], weight, 4) / weight.sum()
        assert votes == pytest.approx(result.scores[row].numpy(), abs=1e-10)
    assert "knn[k=7,cosine,T=0.07,none]" == result.probe


def test_a_temperature_must_be_positive() -> None:
    """Zero would divide by nothing."""
    with pytest.raises(ConfigError, match="temperature"):
        knn_scores(torch.ones(5, 2), torch.arange(5), torch.ones(1, 2), k=2, temperature=0.0)


# ---------------------------------------------------------------------------- nearest mean


def test_nearest_mean_equals_scikit_learn(generator: torch.Generator) -> None:
    """Decisions are those of NearestCentroid on unit vectors."""
    train, test = blobs(generator, 90, 8, 5), blobs(generator, 60, 8, 5)
    reference = NearestCentroid().fit(normalize(train.x.double().numpy()), train.y.numpy())

    result = nearest_mean_probe(train, test.x)

    expected = reference.predict(normalize(test.x.double().numpy()))
    assert (expected == result.scores.argmax(dim=1).numpy()).all()
    assert "nmc[none]" == result.probe


def test_nearest_mean_does_not_depend_on_order(generator: torch.Generator) -> None:
    """Shuffled training samples have the same means."""
    train, test = blobs(generator, 40, 5, 3), blobs(generator, 9, 5, 3).x
    shuffle = torch.randperm(40, generator=generator)

    shuffled = nearest_mean_probe(Labelled(train.x[shuffle], train.y[shuffle], 3), test)

    assert torch.allclose(nearest_mean_probe(train, test).scores, shuffled.scores)


def test_multi_label_means_tell_with_from_without() -> None:
    """A sample like those that have the class scores above 0, one like the others below."""
    x = torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    hot = torch.tensor([[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]])

    scores = nearest_mean_probe(Labelled(x, hot, 3), torch.tensor([[1.0, 0.0], [0.0, 1.0]])).scores

    assert scores[0, 0] > 0 > scores[1, 0]
    assert [-torch.inf, -torch.inf] == scores[:, 1].tolist(), "nobody has it"
    assert [0.0, 0.0] == scores[:, 2].tolist(), "everybody has it"


def test_a_class_without_samples_is_not_chosen() -> None:
    """It has no mean to be near to."""
    train = Labelled(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 2]), 3)

    assert [0] == nearest_mean_probe(train, torch.ones(1, 2)).scores.argmax(dim=1).tolist()


def test_nearest_mean_needs_labels() -> None:
    """Without a single label there is no mean at all."""
    with pytest.raises(LabelError, match="nearest mean"):
        nearest_mean_probe(
            Labelled(torch.ones(2, 2), torch.zeros(2, 3).long(), 3), torch.ones(1, 2)
        )


# ------------------------------------------------------------------------------------------ search


def brute(rows: Tensor, points: Tensor, k: int) -> list[list[int]]:
    """The k nearest rows of each point by a plain loop; ties go to the earlier row."""
    found = []
    for point in points:
        distance = ((rows - point) ** 2).sum(dim=1).tolist()
        found.append(sorted(range(len(rows)), key=lambda j: (distance[j], j))[:k])
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 12), st.integers(1, 7))
def test_search_equals_brute_force(seed: int, rows: int, dims: int, k: int) -> None:
    """Random rows on a coarse lattice, where many distances are equal, come in the right order."""
    generator = torch.Generator().manual_seed(seed)
    train = torch.randint(-2, 3, (rows, dims), generator=generator).double()
    test = torch.randint(-2, 3, (9, dims), generator=generator).double()
    k = min(k, rows)

    assert brute(train, test, k) == Neighbours(train).nearest(test, k).tolist()


def test_search_is_exact_where_the_float32_product_is_not(generator: torch.Generator) -> None:
    """Rows that differ in the seventh digit: the expanded form cannot rank them, we can."""
    base = 100 * torch.randn(1, 64, generator=generator, dtype=torch.float64)
    far = base + 1e3 * torch.randn(20, 64, generator=generator, dtype=torch.float64)
    near = base + 1e-5 * torch.randn(300, 64, generator=generator, dtype=torch.float64)
    train, test = torch.cat([far, near]), base + torch.zeros(3, 64)
    test[1:] += 1e-5 * torch.randn(2, 64, generator=generator, dtype=torch.float64)
    a, b = test.float(), train.float()
    expanded = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T

    found = Neighbours(train).nearest(test, 5).tolist()

    assert brute(train, test, 5) == found
    assert expanded.topk(5, largest=False).indices.tolist() != found


def test_chunks_do_not_change_the_result(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows at a time give what all at once give."""
    train = torch.randn(100, 8, generator=generator, dtype=torch.float64)
    test = torch.randn(37, 8, generator=generator, dtype=torch.float64)
    whole = Neighbours(train).nearest(test, 3)

    monkeypatch.setattr(knn, "_CHUNK_CELLS", 500)

    assert torch.equal(whole, Neighbours(train).nearest(test, 3))


def test_values_beyond_float32_are_still_ranked() -> None:
    """Squares that overflow float32 send the search to the float64 path, not to wrong rows."""
    train = torch.tensor([[1e25], [3e25], [2e25]], dtype=torch.float64)

    assert [[1, 2, 0]] == Neighbours(train).nearest(torch.full((1, 1), 4e25).double(), 3).tolist()
