"""Linear read-outs: how C is chosen, absent classes, bad features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eofm.errors import ConfigError, LabelError, PixelError
from eofm.probes.features import (
    Labelled,
    Scaling,
    check_features,
    scale,
)
from eofm.probes.linear import (
    C11,
    C40,
    StrengthGrid,
    linear_probe,
)
from eofm.probes.metrics import average_precision, overall_accuracy


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
        check_features(x)

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
        alone = linear_probe(
            train, None, val.x, choice=accuracy, grid=StrengthGrid.single(strength)
        )
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
    grid = StrengthGrid("C3", (0.1, 1.0, 10.0))
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
        data, data, data.x, choice=lambda *_: next(calls), grid=StrengthGrid("C3", tuple(middle))
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
    fixed = linear_probe(data, None, data.x, choice=accuracy, grid=StrengthGrid.single(1.0))

    assert "linear[lbfgs,C=1,fixed,none]" == fixed.probe
    assert 1.0 == fixed.strength


def test_train_and_validation_must_have_the_same_classes(generator: torch.Generator) -> None:
    """Three classes in train and four in val are two tasks."""
    train, val = blobs(generator, 30, 4, 3), blobs(generator, 30, 4, 4)

    with pytest.raises(LabelError, match="other labels"):
        linear_probe(train, val, val.x, choice=accuracy)


def test_refit_uses_train_and_validation(generator: torch.Generator) -> None:
    """The chosen C is fitted once more on both splits, and the id says so."""
    train, val = blobs(generator, 60, 6, 3), blobs(generator, 40, 6, 3)
    test = blobs(generator, 30, 6, 3).x

    refit = linear_probe(train, val, test, choice=accuracy, refit=True)

    assert refit.strength is not None
    both = Labelled(torch.cat([train.x, val.x]), torch.cat([train.y, val.y]), 3)
    plain = linear_probe(
        both, None, test, choice=accuracy, grid=StrengthGrid.single(refit.strength)
    )
    assert torch.allclose(plain.scores, refit.scores, atol=1e-5)
    assert "linear[lbfgs,C11,val,refit,none]" == refit.probe


def test_probabilities_are_those_of_the_loss(generator: torch.Generator) -> None:
    """Softmax for one class per sample, a sigmoid per class for several."""
    train, test = blobs(generator, 60, 6, 3), blobs(generator, 10, 6, 3).x
    single = linear_probe(train, None, test, choice=accuracy, grid=StrengthGrid.single(1))
    several = Labelled(train.x, train.multi_hot().long(), 3)
    multi = linear_probe(several, None, test, choice=macro, grid=StrengthGrid.single(1))

    assert single.probability is not None
    assert multi.probability is not None
    assert torch.allclose(single.probability.sum(dim=1), torch.ones(10).double())
    assert torch.equal(multi.scores.sigmoid(), multi.probability)


def test_unit_scaling_leaves_directions_only(generator: torch.Generator) -> None:
    """Every row gets length 1, whatever the training split."""
    x, y = torch.randn(2, 5, 4, generator=generator)

    (a, b) = scale(x, Scaling.UNIT, y)

    assert torch.allclose(torch.ones(5).double(), a.norm(dim=1))
    assert torch.allclose(y.double() / y.double().norm(dim=1, keepdim=True), b)
