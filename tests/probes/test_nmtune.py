"""NMTune: its terms against slow sums, its training, and what is chosen on validation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eofm.bench.probes import Splits, choice_of, run_probe
from eofm.errors import ConfigError, LabelError
from eofm.probes.features import Labelled, Scaling
from eofm.probes.linear import linear_probe
from eofm.probes.metrics import Metric, overall_accuracy
from eofm.probes.nmtune import STRENGTHS, Tuner, fit_tuner, nmtune_probe, regulariser


def split(count: int, seed: int, classes: int = 3, width: int = 12) -> Labelled:
    """Samples on rings: what a linear layer cannot tell apart, a perceptron can."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=generator)
    turn = 2 * math.pi * torch.rand(count, generator=generator)
    x = 0.1 * torch.randn(count, width, generator=generator)
    x[:, :2] += (0.3 + y[:, None]) * torch.stack([turn.cos(), turn.sin()], dim=1)
    return Labelled(x, y, classes)


def test_the_terms_are_those_of_the_paper() -> None:
    """Consistency of unit vectors, covariances off the diagonal, and five leading directions."""
    generator = torch.Generator().manual_seed(1)
    t = torch.randn(20, 7, generator=generator, dtype=torch.float64)
    f = torch.randn(20, 7, generator=generator, dtype=torch.float64)

    close = sum(
        (float(t[n, d] / t[n].norm()) - float(f[n, d] / f[n].norm())) ** 2
        for n in range(20)
        for d in range(7)
    ) / (20 * 7)
    mean = t.mean(dim=0)
    apart = 0.0
    for i in range(7):
        for j in range(7):
            if i != j:
                product = sum(float((t[n, i] - mean[i]) * (t[n, j] - mean[j])) for n in range(20))
                apart += (product / 19) ** 2
    singular = sorted(torch.linalg.eigvalsh(t.T @ t).sqrt().tolist(), reverse=True)
    leading = sum(singular[:5]) / sum(singular) / 5

    expected = close + 0.04 * apart / 7 - 0.001 * leading
    assert expected == pytest.approx(float(regulariser(t, f)))


def test_features_are_kept_close_where_the_terms_are_strong() -> None:
    """The stronger the terms, the nearer tuned directions to those of the features."""
    train = split(120, 0)

    def turned(strength: float) -> float:
        model = fit_tuner(train, train.x, strength)
        with torch.no_grad():
            tuned = model.tune(train.x)
        return float(torch.nn.functional.cosine_similarity(tuned, train.x).mean())

    assert turned(100.0) > turned(0.0) + 0.1


@pytest.mark.slow
def test_a_perceptron_tells_what_no_layer_can() -> None:
    """Rings round the origin: above the linear probe by far, at a strength chosen on val."""
    train, val, test = split(900, 0), split(200, 1), split(200, 2)
    choice = choice_of(False)

    found = nmtune_probe(train, val, test.x, choice=choice)
    linear = linear_probe(train, val, test.x, choice=choice)

    one, other = (overall_accuracy(p.scores.argmax(dim=1), test.y) for p in (found, linear))
    assert one > 0.8
    assert one > other + 0.3
    reached = dict(found.validation)
    assert set(STRENGTHS) == set(reached)
    best = max(reached.values())
    smallest = min(s for s, value in reached.items() if value == best)
    assert f"regularisation {smallest:g}" == found.chosen
    assert found.probability is not None
    assert torch.allclose(found.probability.sum(dim=1), torch.ones(200).double())


def test_the_same_again_whatever_was_drawn_before() -> None:
    """Nothing depends on the global random state, and it is left as it was."""
    train, val, test = split(70, 0), split(30, 1), split(30, 2)

    def scores(seed: int) -> Tensor:
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        found = nmtune_probe(train, val, test.x, choice=choice_of(False)).scores
        assert torch.equal(state, torch.random.get_rng_state())
        return found

    assert torch.equal(scores(1), scores(2))


def test_several_classes_are_independent() -> None:
    """Logits of a multi-label task are sigmoids; the probe runs by its name."""
    one = split(65, 0)  # a last batch of one sample
    hot = torch.stack([one.y > 0, one.y > 1, one.y < 2], dim=1).long()
    train = Labelled(one.x, hot, 3)
    splits = Splits(train, train, one.x, hot, torch.arange(65))

    scored = run_probe("nmtune", splits, Scaling.STANDARD, 5)

    probe = scored.probe
    assert probe.probability is not None
    assert torch.allclose(probe.probability, probe.scores.sigmoid())
    assert scored.value(Metric.AP_MACRO) > 0.7
    assert "standard]" in probe.probe


def test_there_must_be_something_to_choose_on() -> None:
    """Without val, and with one sample; what the first remedy names runs."""
    train = split(40, 0)
    with pytest.raises(ConfigError, match="chosen on a validation split") as caught:
        nmtune_probe(train, None, train.x, choice=choice_of(False))
    assert "--probe linear-c1" in str(caught.value)
    splits = Splits(train, None, train.x, train.y, torch.arange(40))
    assert 0 <= run_probe("linear-c1", splits, Scaling.NONE, 5).value(Metric.OA) <= 1
    lonely = Labelled(train.x[:1], train.y[:1], 3)
    with pytest.raises(LabelError, match="two training samples"):
        fit_tuner(lonely, lonely.x, 0.0)


def test_a_tuner_is_of_the_papers_size() -> None:
    """D -> 4 D -> D with batch statistics between, and a linear head."""
    shapes = {name: tuple(p.shape) for name, p in Tuner(8, 3).named_parameters() if p.ndim == 2}

    assert {"tune.0.weight": (32, 8), "tune.3.weight": (8, 32), "head.weight": (3, 8)} == shapes
    assert math.isclose(0.0, STRENGTHS[0])
