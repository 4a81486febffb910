"""kNN and linear read-outs: against scikit-learn, at ties, at absent classes, at bad features."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eofm.errors import ConfigError, LabelError, PixelError
from eofm.metrics import average_precision, overall_accuracy
from eofm.probe import (
    C11,
    C40,
    Distance,
    Grid,
    Labelled,
    Scaling,
    check_features,
    knn_probe,
    knn_scores,
    linear_probe,
    scale,
)


def accuracy(scores: Tensor, target: Tensor) -> float:
    """Overall accuracy of the highest score."""
    return overall_accuracy(scores.argmax(dim=1), target)


def macro(scores: Tensor, target: Tensor) -> float:
    """Macro average precision."""
    return average_precision(scores, target).macro


def blobs(generator: torch.Generator, samples: int, dims: int, classes: int) -> Labelled:
    """Overlapping clouds, one per class."""
    y = torch.arange(samples) % classes
    centres = 1.5 * torch.randn(classes, dims, generator=torch.Generator().manual_seed(99))
    return Labelled(centres[y] + torch.randn(samples, dims, generator=generator), y, classes)


# --------------------------------------------------------------------------------- kNN


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


# ------------------------------------------------------------------------------ features


def test_a_constant_feature_is_only_centred() -> None:
    """It has no deviation to divide by, also where rounding leaves it one."""
    train = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])

    scaled, test = scale(train, Scaling.STANDARD, torch.tensor([[1.1, 2.0]]))

    assert torch.allclose(scaled[:, 0], torch.zeros(3).double(), atol=1e-9)
    assert [1.0, 0.0] == pytest.approx(test[0].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("value", "problem"), [(torch.nan, "not finite"), (torch.inf, "not finite"), (0.0, "all zero")]
)
def test_broken_features_are_named(value: float, problem: str) -> None:
    """A sample of NaN or of zeros is refused, with its row, before it can be a neighbour."""
    x = torch.ones(6, 3)
    x[4] = value

    with pytest.raises(PixelError, match=problem) as caught:
        knn_scores(x, torch.arange(6), torch.ones(1, 3))

    assert "[4] of 6" in str(caught.value)


def test_features_have_two_dimensions_and_are_float() -> None:
    """Tokens, integers and empty sets are no features."""
    for wrong in (torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.long), torch.ones(0, 3)):
        with pytest.raises(PixelError, match="samples, dimensions"):
            check_features(wrong)


def test_labels_must_fit_the_features() -> None:
    """A label too many, or of a class there is not, is refused."""
    with pytest.raises(LabelError, match="do not fit"):
        Labelled(torch.ones(3, 2), torch.zeros(4, dtype=torch.long), 2)
    with pytest.raises(LabelError, match="do not fit"):
        Labelled(torch.ones(3, 2), torch.zeros(3, 5), 2)
    with pytest.raises(LabelError, match="out of range"):
        Labelled(torch.ones(3, 2), torch.tensor([0, 1, 2]), 2)


# -------------------------------------------------------------------------------- linear


def test_grids_are_those_of_the_protocol() -> None:
    """C40 runs from 1e-6 to 1e4 evenly in log10, as in torchgeo-bench."""
    assert 40 == len(C40.values)
    assert (1e-6, 1e4) == pytest.approx((C40.values[0], C40.values[-1]))
    assert [10.0**e for e in range(-6, 5)] == pytest.approx(C11.values)
    assert [1e5, 1e6] == pytest.approx(C11.extended(upwards=True))
    assert [1e-7, 1e-8] == pytest.approx(C11.extended(upwards=False))


def test_linear_probe_chooses_on_validation(generator: torch.Generator) -> None:
    """The C with the best validation score is taken, the smaller one of equals, and said."""
    train, val, test = (blobs(generator, n, 20, 4) for n in (80, 60, 400))

    result = linear_probe(train, val, test.x, choice=accuracy)

    best = max(score for _, score in result.validation)
    assert min(c for c, score in result.validation if score == best) == result.strength
    assert "linear[lbfgs,C11,val,norefit,none]" == result.probe
    assert accuracy(result.scores, test.y) > 0.9
    assert result.gradient_norm is not None
    assert result.gradient_norm <= 1e-8


def test_validation_does_not_depend_on_the_warm_start(generator: torch.Generator) -> None:
    """Each strength of the sweep scores as it does on its own."""
    train, val = blobs(generator, 60, 10, 3), blobs(generator, 90, 10, 3)
    swept = dict(linear_probe(train, val, val.x, choice=accuracy).validation)

    for strength in (1e-2, 1e2):
        alone = linear_probe(train, None, val.x, choice=accuracy, grid=Grid.single(strength))
        near = min(swept, key=lambda c: abs(math.log(c / strength)))
        assert swept[near] == pytest.approx(accuracy(alone.scores, val.y), abs=1 / 90)


def test_the_test_split_has_no_say(generator: torch.Generator) -> None:
    """The fit is the same whatever is scored with it."""
    train, val = blobs(generator, 60, 10, 3), blobs(generator, 60, 10, 3)
    one = linear_probe(train, val, val.x[:1], choice=accuracy)
    all_of_it = linear_probe(train, val, val.x, choice=accuracy)

    assert one.strength == all_of_it.strength
    assert torch.allclose(one.scores[0], all_of_it.scores[0])


@pytest.mark.parametrize("upwards", [True, False])
def test_a_choice_at_the_edge_extends_the_grid_once(
    generator: torch.Generator, upwards: bool
) -> None:
    """If the end is best, two more decades are tried; if that end is best again, it is flagged."""
    data = blobs(generator, 40, 6, 3)
    grid = Grid("C3", (0.1, 1.0, 10.0))
    sign = 1 if upwards else -1

    def growth(scores: Tensor, _: Tensor) -> float:
        return sign * float(scores.abs().mean())  # larger C, larger logits

    result = linear_probe(data, data, data.x, choice=growth, grid=grid)

    expected = [0.1, 1, 10, 100, 1000] if upwards else [0.001, 0.01, 0.1, 1, 10]
    assert expected == pytest.approx([c for c, _ in result.validation])
    assert (expected[-1] if upwards else expected[0]) == pytest.approx(result.strength)
    assert result.on_edge


def test_a_choice_inside_the_grid_is_not_flagged(generator: torch.Generator) -> None:
    """A best C with neighbours on both sides needs no extension."""
    data = blobs(generator, 40, 6, 3)
    middle = {0.1: 0.0, 1.0: 1.0, 10.0: 0.5}
    calls = iter(middle.values())

    result = linear_probe(
        data, data, data.x, choice=lambda *_: next(calls), grid=Grid("C3", tuple(middle))
    )

    assert 1.0 == result.strength
    assert not result.on_edge
    assert 3 == len(result.validation)


def test_a_multi_label_class_without_positives_gets_its_odds(generator: torch.Generator) -> None:
    """It cannot be fitted: its logit is one number, below those of classes that occur."""
    x = torch.randn(50, 8, generator=generator)
    hot = torch.stack([x[:, 0] > 0, torch.zeros(50).bool(), torch.ones(50).bool()], dim=1).long()
    data = Labelled(x, hot, 3)

    result = linear_probe(data, data, x, choice=macro)

    assert [math.log(0.5 / 50.5)] * 50 == pytest.approx(result.scores[:, 1].tolist())
    assert [math.log(50.5 / 0.5)] * 50 == pytest.approx(result.scores[:, 2].tolist())
    assert 1.0 == average_precision(result.scores, hot).per_class[0]


def test_a_single_label_class_without_samples_is_never_chosen(generator: torch.Generator) -> None:
    """Its logit is minus infinity, and the others are fitted as if it were not there."""
    data = blobs(generator, 60, 6, 3)
    wider = Labelled(data.x, data.y * 2, 6)

    result = linear_probe(wider, wider, data.x, choice=accuracy)

    plain = linear_probe(data, data, data.x, choice=accuracy)
    assert (result.scores[:, [1, 3, 5]] == -torch.inf).all()
    assert torch.allclose(plain.scores, result.scores[:, [0, 2, 4]])


def test_a_few_samples_with_many_features_are_enough(generator: torch.Generator) -> None:
    """Twelve samples of 384 features give finite scores and a converged fit."""
    train, val = blobs(generator, 12, 384, 3), blobs(generator, 30, 384, 3)

    result = linear_probe(train, val, val.x, choice=accuracy)

    assert result.scores.isfinite().all()
    assert result.gradient_norm is not None
    assert result.gradient_norm <= 1e-8


def test_one_class_alone_cannot_be_learnt() -> None:
    """There is nothing to tell apart, and the error says so."""
    x = torch.arange(1.0, 7).view(3, 2)
    for y in (torch.zeros(3, dtype=torch.long), torch.ones(3, 1, dtype=torch.long)):
        data = Labelled(x, y, 1 if y.ndim == 2 else 4)
        with pytest.raises(LabelError, match="no class can be learnt"):
            linear_probe(data, data, x, choice=accuracy)


def test_a_grid_needs_a_validation_split(generator: torch.Generator) -> None:
    """Nothing is chosen on train or test; one fixed C needs no choice."""
    data = blobs(generator, 30, 4, 3)

    with pytest.raises(ConfigError, match="validation split"):
        linear_probe(data, None, data.x, choice=accuracy)
    fixed = linear_probe(data, None, data.x, choice=accuracy, grid=Grid.single(1.0))

    assert "linear[lbfgs,C=1,fixed,none]" == fixed.probe
    assert 1.0 == fixed.strength


def test_train_and_validation_must_have_the_same_classes(generator: torch.Generator) -> None:
    """Three classes in train and four in val are two tasks."""
    train, val = blobs(generator, 30, 4, 3), blobs(generator, 30, 4, 4)

    with pytest.raises(LabelError, match="other labels"):
        linear_probe(train, val, val.x, choice=accuracy)
