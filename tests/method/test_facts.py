"""What the objective takes from the labels of all training images before its first step."""

from __future__ import annotations

import math

import pytest
import torch
from softcon_small import everything, multi_hot, some_labels

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, TrainingError
from eofm.method import (
    LabelFacts,
    LabelSimilarity,
    Objective,
    SoftBias,
    SoftConConfig,
    SoftForm,
    SoftUnit,
    hard_loss,
    label_facts,
    label_similarity,
    mean_label_similarity,
    soft_loss,
)

COSINE = LabelSimilarity.COSINE


def labels_of(hot: torch.Tensor) -> Labels:
    """Labels that are all known."""
    return Labels(hot, everything(len(hot)))


def test_the_bias_starts_at_the_logit_of_the_mean_similarity():
    """0.5 gives 0, 0.6 its logit, and 0 and 1 a finite bound."""
    starts = [LabelFacts(mean_similarity=m).bias for m in (0.5, 0.6, 0.0, 1.0)]

    assert [0.0, math.log(1.5), -5.0, 5.0] == pytest.approx(starts, rel=1e-6)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        LabelFacts(mean_similarity=1.2)


def test_facts_of_a_label_table(generator):
    """Classes, mean similarity and idf weights are those of the labels; plain λ is not changed."""
    labels = Labels(some_labels(40, generator), torch.arange(40) != 3)
    facts = label_facts(labels, SoftConConfig(soft_unit=SoftUnit.PLAIN), 8)
    idf = label_facts(labels, SoftConConfig(similarity=LabelSimilarity.IDF), 8)
    used = labels.multi_hot[labels.known]

    assert (9, ()) == (facts.classes, facts.class_weights)
    assert mean_label_similarity(labels, COSINE) == facts.mean_similarity
    assert 1.0 == facts.soft_unit
    assert (39 / used.sum(0)).log().tolist() == pytest.approx(idf.class_weights, rel=1e-5)
    assert idf.mean_similarity < facts.mean_similarity


def test_a_run_without_a_soft_term_needs_no_label():
    """The hard term alone asks nothing of the labels; with a soft term that is an error."""
    nothing = Labels(torch.zeros(5, 9), torch.zeros(5, dtype=torch.bool))

    assert LabelFacts(9) == label_facts(nothing, SoftConConfig(soft_weight=0.0), 4)
    with pytest.raises(TrainingError, match="no image is labelled") as caught:
        label_facts(nothing, SoftConConfig(), 4)
    assert "soft_weight" in str(caught.value)


def test_one_class_everywhere():
    """All similarities 1: said so, allowed beside the hard term, and refused without it."""
    labels = labels_of(multi_hot(*[{2, 3}] * 6))
    facts = label_facts(labels, SoftConConfig(), 4)

    assert facts.all_alike
    assert 5.0 == facts.bias
    assert not label_facts(labels_of(multi_hot({1}, {2})), SoftConConfig(), 4).all_alike
    with pytest.raises(TrainingError, match="nothing would keep them apart"):
        label_facts(labels, SoftConConfig(objective=Objective.SOFT), 4)
    for form in SoftForm:  # matching gradients would amplify a term that says nothing
        assert 1.0 == label_facts(labels, SoftConConfig(soft_form=form), 4).soft_unit


@pytest.mark.parametrize(
    ("form", "bias"),
    [(SoftForm.BCE, SoftBias.ZERO), *((form, SoftBias.LEARNED) for form in SoftForm)],
)
def test_the_unit_makes_the_gradients_of_both_terms_equal(form, bias, generator):
    """λ = 1 in units of gradients: mean row sums of |dL/ds| agree by autograd at constant s."""
    hot = some_labels(64, generator)
    settings = SoftConConfig(soft_unit=SoftUnit.GRADIENT, soft_form=form, soft_bias=bias)
    facts = label_facts(labels_of(hot), settings, len(hot))
    s = torch.zeros(64, 64, requires_grad=True)
    similarity = label_similarity(hot, hot, COSINE)
    start = facts.bias if bias is SoftBias.LEARNED else 0.0
    soft = soft_loss(s, similarity, everything(64, 64), form, tau=settings.soft_tau, bias=start)
    sizes = [
        torch.autograd.grad(term, s)[0].abs().sum()
        for term in (hard_loss(s, torch.arange(64), settings.tau), facts.soft_unit * soft)
    ]

    torch.testing.assert_close(*sizes, rtol=2e-4, atol=0)
    assert 4 * 63 / 64 == pytest.approx(sizes[0].item(), rel=1e-5)
    assert facts.soft_unit > 1.5


def test_the_shipped_weight_is_that_of_equal_gradients(generator):
    """By default λ = 1 counts gradients: with nine frequent classes several times the plain term.

    In plain units, as version 0.1 shipped it, the bce term had a few per cent of the gradient.
    """
    labels = labels_of(some_labels(256, generator, share=0.7))
    shipped = label_facts(labels, SoftConConfig(), 256)

    assert (1.0, SoftUnit.GRADIENT) == (SoftConConfig().soft_weight, SoftConConfig().soft_unit)
    assert 3 < shipped.soft_unit < 12
