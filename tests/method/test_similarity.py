"""How alike embeddings and label sets are, and what is taken from the labels beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from softcon_small import everything, multi_hot, some_labels
from torch.nn import functional

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
    cosine_matrix,
    hard_loss,
    inverse_frequencies,
    label_facts,
    label_population,
    label_similarity,
    label_vectors,
    labelled,
    mean_label_similarity,
    soft_loss,
)

COSINE, JACCARD, IDF, FRACTION = LabelSimilarity


@pytest.mark.parametrize(
    ("a", "b", "cosine", "jaccard"),
    [
        ({0, 1, 2, 4, 5, 6, 8}, {1, 2, 4, 5, 6, 8}, 0.92582, 0.85714),
        ({0, 1, 2, 4, 5, 6, 8}, {4, 5, 7}, 0.43644, 0.25),
        ({4, 5, 7}, {0, 1, 4, 5, 6, 7}, 0.70711, 0.5),
        ({4, 5, 7}, {1, 4, 5, 7}, 0.86603, 0.75),
        ({3}, {3}, 1.0, 1.0),
        ({3}, {4}, 0.0, 0.0),
    ],
)
def test_similarity_of_known_pairs(a, b, cosine, jaccard):
    """Label sets of the published example have the similarities computed by hand."""
    pair = multi_hot(a), multi_hot(b)

    assert cosine == pytest.approx(label_similarity(*pair, COSINE).item(), abs=1e-5)
    assert jaccard == pytest.approx(label_similarity(*pair, JACCARD).item(), abs=1e-5)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_similarity_properties(seed):
    """S is symmetric, within [0, 1], 1 for equal sets alone, and Jaccard is never above cosine."""
    labels = some_labels(12, torch.Generator().manual_seed(seed))
    cosine = label_similarity(labels, labels, COSINE)
    jaccard = label_similarity(labels, labels, JACCARD)

    assert torch.equal(cosine, cosine.T)
    assert cosine.min() >= 0
    assert cosine.max() <= 1
    assert (jaccard <= cosine + 1e-6).all()
    for s in (cosine, jaccard):
        same = (labels[:, None] == labels[None]).all(dim=2)
        assert torch.equal(s == 1, same)


def test_an_unlabelled_image_has_no_similarity():
    """An empty set is not unlike everything: its row and column are NaN, which cannot be missed."""
    labels = multi_hot({1}, set(), {1, 2})
    for kind in LabelSimilarity:
        s = label_similarity(labels, labels, kind)

        assert s[1].isnan().all()
        assert s[:, 1].isnan().all()
        assert not s[[0, 0, 2, 2], [0, 2, 0, 2]].isnan().any()


@pytest.mark.parametrize("kind", [COSINE, JACCARD])
def test_mean_similarity_is_the_mean_over_all_labelled_pairs(kind, generator):
    """Counting distinct sets gives the mean over all pairs; unlabelled images are left out."""
    labels = some_labels(60, generator, share=0.2)
    known = torch.rand(60, generator=generator) < 0.7
    labels[0] = 0  # known, and yet empty

    used = known.clone()
    used[0] = False
    expected = label_similarity(labels[used], labels[used], kind).double().mean().item()

    assert expected == pytest.approx(mean_label_similarity(Labels(labels, known), kind), abs=1e-6)


def test_mean_similarity_needs_a_label():
    """A store without labels is refused with a remedy, not given a made-up mean."""
    with pytest.raises(TrainingError, match="land-cover map"):
        mean_label_similarity(Labels(torch.zeros(3, 9), torch.zeros(3, dtype=torch.bool)), COSINE)


def test_cosines_ignore_length_and_stay_float32_under_autocast(generator):
    """Scaling embeddings changes nothing, and bfloat16 autocast does not reach the product."""
    student = torch.randn(5, 16, generator=generator)
    teacher = torch.randn(7, 16, generator=generator)
    exact = cosine_matrix(student.double() * 1e3, teacher.double() / 1e3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = cosine_matrix(student, teacher)

    assert torch.float32 == s.dtype
    assert torch.float64 == exact.dtype  # what comes in exact stays so
    torch.testing.assert_close(s, exact.float())
    assert (5, 7) == tuple(s.shape)


# ------------------------------------------------------------- rare classes, covered shares


def labels_with_shares(generator: torch.Generator, count: int = 30) -> Labels:
    """Random covered shares that sum to 1, and the classes that cover something."""
    cover = torch.rand(count, 9, generator=generator) * some_labels(count, generator)
    cover = cover / cover.sum(1, keepdim=True)
    return Labels((cover > 0).float(), everything(count), shares=cover)


@pytest.mark.parametrize("kind", [IDF, FRACTION])
def test_weighted_similarities_equal_a_slow_loop(kind, generator):
    """Cosines of weighted sets and of covered shares, by loops; 1 on the diagonal, never above."""
    labels = labels_with_shares(generator)
    weights = inverse_frequencies(labels)
    vectors = label_vectors(labels, kind, weights)
    found = label_similarity(vectors, vectors, kind)
    frequency = [sum(row[c] for row in labels.multi_hot.tolist()) / 30 for c in range(9)]
    for i in range(30):
        for j in range(30):
            a, b = (
                [w * math.log(1 / f) for w, f in zip(labels.multi_hot[k], frequency, strict=True)]
                if kind is IDF
                else labels.shares[k].tolist()
                for k in (i, j)
            )
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            length = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
            assert dot / length == pytest.approx(found[i, j].item(), abs=1e-5)

    assert found.max() <= 1
    torch.testing.assert_close(found.diagonal(), torch.ones(30))


def test_rare_classes_weigh_more_and_a_class_of_all_images_nothing():
    """ln(1/f): two images that share the rare class are more alike than two that share the common.

    An image of nothing but a class that all have cannot be compared; a class nobody has weighs as
    if one had it.
    """
    hot = multi_hot({0, 1}, {0, 1}, {0, 2}, {0, 2}, {0, 2}, {0, 2, 1}, {0}, {0, 2})
    labels = Labels(hot, everything(8))
    weights = inverse_frequencies(labels)
    vectors = label_vectors(labels, IDF, weights)

    assert [0, math.log(8 / 3), math.log(8 / 5), math.log(8)] == pytest.approx(weights[:4].tolist())
    s = label_similarity(vectors, vectors, IDF)
    assert s[0, 5] > s[2, 5]
    assert s[6].isnan().all()
    assert [i != 6 for i in range(8)] == labelled(labels, vectors).tolist()


def test_covered_shares_are_asked_for_by_name():
    """Without shares their similarity is refused; the other kinds do not look at them."""
    labels = Labels(multi_hot({1}, {2}), everything(2))

    with pytest.raises(TrainingError, match="how much of an image"):
        label_vectors(labels, FRACTION)
    assert labels.multi_hot.equal(label_vectors(labels, COSINE))


@pytest.mark.parametrize("kind", list(LabelSimilarity))
def test_the_mean_similarity_of_every_kind(kind, generator):
    """The mean over all pairs of labelled images, whatever the similarity."""
    labels = labels_with_shares(generator)
    known = torch.rand(30, generator=generator) < 0.7
    labels = Labels(labels.multi_hot, known, labels.shares)
    weights = inverse_frequencies(labels)
    vectors = label_vectors(labels, kind, weights)[known]
    expected = label_similarity(vectors, vectors, kind).double().mean().item()

    assert expected == pytest.approx(mean_label_similarity(labels, kind, weights), abs=1e-6)


def test_many_covered_shares_are_sampled(generator):
    """Of more than 2048 distinct vectors as many are taken: the mean is near that of all."""
    labels = labels_with_shares(generator, 5000)
    vectors, share = label_population(labels, FRACTION)
    unit = functional.normalize(labels.shares, dim=1).double().mean(0)

    assert 2000 < len(vectors) == len(share) <= 2048
    assert pytest.approx(1) == share.sum().item()
    mean = mean_label_similarity(labels, FRACTION)
    assert pytest.approx((unit @ unit).item(), abs=0.01) == mean


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
