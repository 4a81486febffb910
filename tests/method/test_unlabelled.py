"""Unlabelled images: nothing is known of them, and nothing is made up."""

from __future__ import annotations

import math

import pytest
import torch
from softcon_small import TAU, everything, multi_hot, soft, some_labels

from eofm.method import (
    LabelSimilarity,
    SoftForm,
    cosine_matrix,
    label_similarity,
    labelled_pairs,
    soft_floor,
    soft_loss,
)

COSINE, JACCARD = LabelSimilarity.COSINE, LabelSimilarity.JACCARD
BCE, CE, MSE = SoftForm.BCE, SoftForm.CE, SoftForm.MSE
FORMS = pytest.mark.parametrize("form", list(SoftForm))


@FORMS
@pytest.mark.parametrize("kind", list(LabelSimilarity))
def test_unlabelled_images_change_nothing(form, kind, generator):
    """Appending unlabelled images to a batch leaves soft term, floor and gradients as they were."""
    s = (torch.rand(7, 7, generator=generator) * 2 - 1).double().requires_grad_()
    labels = some_labels(7, generator)
    labels[4:] = 0
    known = torch.arange(7) < 4
    similarity = label_similarity(labels, labels, kind).double()
    loss = soft_loss(s, similarity, labelled_pairs(known, known), form, tau=TAU)
    gradient = torch.autograd.grad(loss, s)[0]
    floor = soft_floor(similarity, labelled_pairs(known, known), form)

    small, everyone = similarity[:4, :4], everything(4, 4)
    assert soft(s[:4, :4], small, form) == pytest.approx(loss.item(), abs=1e-12)
    assert soft_floor(small, everyone, form).item() == pytest.approx(floor.item(), abs=1e-12)
    assert gradient[4:].abs().max() == 0
    assert gradient[:, 4:].abs().max() == 0
    assert gradient[:4, :4].abs().max() > 0


@FORMS
def test_unlabelled_is_not_the_empty_label_set(form, generator):
    """To state "no class at all" of an unlabelled image gives another loss: it is never done."""
    s = torch.rand(5, 5, generator=generator)
    labels = some_labels(5, generator)
    labels[4] = 0
    similarity = label_similarity(labels, labels, COSINE)
    known = torch.arange(5) < 4
    right = soft_loss(s, similarity, labelled_pairs(known, known), form, tau=TAU).item()
    as_zeros = soft(s, similarity.nan_to_num(0), form)

    assert abs(right - as_zeros) > 1e-3
    assert math.isnan(soft(s, similarity, form))


@FORMS
def test_a_batch_without_labels_costs_nothing_and_still_reaches_every_parameter(form, generator):
    """With no labelled pair the loss is 0, finite, and connected: its gradient is 0, not None."""
    z = torch.randn(3, 4, generator=generator, requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    s = cosine_matrix(z, torch.randn(3, 4, generator=generator))
    similarity = torch.full((3, 3), torch.nan)
    loss = soft_loss(s, similarity, nothing, form, tau=TAU, bias=bias)
    loss.backward()

    assert 0 == loss.item()
    assert 0 == z.grad.abs().max()
    assert 0 == soft_floor(similarity, nothing, form).item()
    if form is BCE:
        assert 0 == bias.grad.item()


def test_a_row_that_shares_no_class_with_any_column_has_no_ce_target(generator):
    """Two seasons may share no class: such a row leaves the mean of ce, without a NaN."""
    rows, columns = multi_hot({0}, {1}), multi_hot({0}, {2})
    s = torch.rand(2, 2, generator=generator).double()
    similarity = label_similarity(rows, columns, COSINE).double()
    alone = soft_loss(s[:1], similarity[:1], everything(1, 2), CE, tau=TAU).item()

    assert alone == pytest.approx(soft(s, similarity, CE), rel=1e-12)
