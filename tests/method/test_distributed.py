"""Two processes with half of the batch each are one with all of it; the queue of earlier keys."""

from __future__ import annotations

import copy

import pytest
import torch
from softcon_ranks import Case, batches, classify, run, work
from softcon_small import TAU, batch, everything, model, some_labels
from torch import multiprocessing
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, TrainingError
from eofm.method import (
    Diagonal,
    Exclude,
    HeadNorm,
    LabelFacts,
    LabelSimilarity,
    Objective,
    SoftBias,
    SoftForm,
    SoftScale,
    cosine_matrix,
    hard_loss,
    label_similarity,
    labelled_pairs,
    soft_loss,
)

CASES: dict[str, Case] = {
    **{form.value: {"soft_form": form} for form in SoftForm},
    "one direction": {"symmetric": False, "objective": Objective.SOFT},
    "queue": {"queue": 16, "hard_exclude": Exclude.SAME_LOCATION},
    "queue of ce": {
        "queue": 8,
        "soft_form": SoftForm.CE,
        "similarity": LabelSimilarity.FRACTION,
        "soft_diagonal": Diagonal.ONE,
    },
    "idf, local": {
        "similarity": LabelSimilarity.IDF,
        "soft_neighbours": 3,
        "hard_exclude": Exclude.SAME_LABELS,
        "soft_scale": SoftScale.LEARNED,
        "soft_bias": SoftBias.FIXED,
    },
}

Results = dict[str, list[torch.Tensor]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Results], list[Results]]:
    """What each of two processes made of all cases."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, args=(2, folder, list(CASES.values())), nprocs=2)
    first, second = (torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.slow
def test_two_processes_are_one(name, two):
    """Loss, terms, every gradient of three steps, and the queue, to 1e-5, unlabelled unevenly."""
    alone = run(CASES[name], 0, 1)
    for rank in two:
        found = rank[list(CASES).index(name)]
        for key, values in alone.items():
            for one, other in zip(values, found[key], strict=True):
                torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5, msg=f"{name}: {key}")
    assert max(g.abs().max().item() for g in alone["gradients"]) > 1e-2
    assert ("queue" in name) == bool(alone["queue"])


@pytest.mark.slow
def test_two_processes_predict_labels_as_one(two):
    """The control: loss and gradients, where one process has more labelled images."""
    alone = classify(0, 1)
    for rank in two:
        for key, values in alone.items():
            for one, other in zip(values, rank[-1][key], strict=True):
                torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5, msg=key)
    assert min(g.abs().max().item() for g in alone["gradients"]) > 1e-2


def test_the_unlabelled_images_are_spread_unevenly():
    """A mean of the two processes' means would be another number: the first case can fail."""
    (_, (labels, _)), *_ = batches()
    counts = [int(labels.known[half].sum()) for half in (slice(0, 4), slice(4, 8))]

    assert [1, 4] == counts


FACTS = LabelFacts(9)


def with_queue(size: int = 12, **changes: object):
    """The method with a queue, without masks and batch statistics."""
    plain = {"mask_ratio": 0.0, "head_norm": HeadNorm.LN}
    return model(facts=FACTS, queue=size, **plain, **changes)


def test_keys_of_both_directions_enter_in_order_and_the_oldest_leave(generator):
    """After three steps of 2 x 6 keys a queue of 18 holds the last 18, normalised, with labels."""
    softcon = with_queue(18)
    keys, hot, known = [], [], []
    for _ in range(3):
        views, labels = batch(generator)
        softcon(views, labels, generator)
        for view in (views[1], views[0]):
            keys.append(functional.normalize(softcon.teacher(view), dim=1))
            hot.append(labels.multi_hot)
            known.append(labels.known)
    queue = softcon.queue
    # 36 keys have come: places 0 to 17 were filled twice
    assert 0 == queue.next
    assert queue.filled.all()
    torch.testing.assert_close(queue.keys, torch.cat(keys)[18:])
    assert torch.cat(hot)[18:].equal(queue.vectors)
    assert torch.cat(known)[18:].equal(queue.known)


@pytest.mark.parametrize("form", list(SoftForm))
def test_earlier_keys_are_further_columns(form, generator):
    """Both terms over batch and queue, rebuilt from the functions; places not yet filled are not.

    The first step is that of a method without a queue, but for rounding: sums over 18 columns
    instead of 6 in float32, below 18 · 1.2e-7 = 2e-6.
    """
    softcon = with_queue(12, soft_form=form, symmetric=False)
    plain = model(mask_ratio=0.0, head_norm=HeadNorm.LN, soft_form=form, symmetric=False)
    views, labels = batch(generator)
    first, same = softcon(views, labels, generator), plain(views, labels, generator)

    assert same.hard.item() == pytest.approx(first.hard.item(), rel=1e-5)
    assert same.soft.item() == pytest.approx(first.soft.item(), rel=1e-5)
    assert same.own_probability.item() == pytest.approx(first.own_probability.item(), rel=1e-5)
    assert same.labelled_pairs.equal(first.labelled_pairs)
    views2, labels2 = batch(generator)
    out = softcon(views2, labels2, generator)
    keys = torch.cat([softcon.teacher(views2[1]), softcon.teacher(views[1])])
    s = cosine_matrix(softcon.predictor(softcon.student(views2[0])), keys)
    hot = torch.cat([labels2.multi_hot, labels.multi_hot])
    similarity = label_similarity(labels2.multi_hot, hot, LabelSimilarity.COSINE)
    pairs = labelled_pairs(labels2.known, torch.cat([labels2.known, labels.known]))
    soft = soft_loss(s, similarity, pairs, form, tau=TAU).item()
    assert hard_loss(s, torch.arange(6), TAU).item() == pytest.approx(out.hard.item(), rel=1e-5)
    assert soft == pytest.approx(out.soft.item(), rel=1e-5)


def test_the_queue_is_in_the_state_and_goes_on_from_there(generator):
    """A fresh module with the saved state gives the same loss and gradients, bit for bit."""
    softcon = with_queue(hard_exclude=Exclude.SAME_LOCATION)
    views, labels = batch(generator)
    labels = Labels(labels.multi_hot, labels.known, places=torch.arange(6) % 4)
    softcon(views, labels, generator)
    state = copy.deepcopy(softcon.state_dict())
    again = model(9, FACTS, queue=12, mask_ratio=0.0, head_norm=HeadNorm.LN)
    with pytest.raises(RuntimeError, match="size mismatch"):
        again.load_state_dict(state)
    again = with_queue(hard_exclude=Exclude.SAME_LOCATION)
    again.load_state_dict(state)
    for module in (softcon, again):
        module.zero_grad()
        module(views, labels, generator).loss.backward()

    for one, other in zip(softcon.student.parameters(), again.student.parameters(), strict=True):
        assert one.grad.equal(other.grad)
    for one, other in zip(softcon.queue.buffers(), again.queue.buffers(), strict=True):
        assert one.equal(other)
    assert {"queue.keys", "queue.next", "queue.places"} < set(state)


def test_the_queue_only_takes_keys_in_training(generator):
    """A loss in evaluation looks at the queue and leaves it as it is."""
    softcon = with_queue()
    views, labels = batch(generator)
    softcon.eval()
    softcon(views, labels, generator)

    assert not softcon.queue.filled.any()


def test_places_keep_earlier_seasons_out_of_the_negatives(generator):
    """With one place everywhere nothing is left to tell apart, in the batch and in the queue."""
    softcon = with_queue(hard_exclude=Exclude.SAME_LOCATION)
    views, labels = batch(generator)
    here = Labels(labels.multi_hot, labels.known, places=torch.full((6,), 7))
    there = Labels(labels.multi_hot, labels.known, places=torch.arange(10, 16))

    assert 0 == pytest.approx(softcon(views, here, generator).hard.item(), abs=1e-6)
    assert 0 == pytest.approx(softcon(views, here, generator).hard.item(), abs=1e-6)
    assert softcon(views, there, generator).hard.item() > 0.1
    with pytest.raises(TrainingError, match="one place"):
        softcon(views, labels, generator)


def test_a_queue_that_does_not_fit_is_refused(generator):
    """Not a whole number of batches, or other classes than the labels have."""
    views, labels = batch(generator)
    with pytest.raises(ConfigError, match="multiple of the batch"):
        with_queue(10)(views, labels, generator)
    few = Labels(some_labels(6, generator)[:, :4], everything(6))
    with pytest.raises(ConfigError, match="with 4"):
        with_queue()(views, few, generator)
