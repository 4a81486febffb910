"""Two processes with half of the batch each are one process with all of it."""

from __future__ import annotations

import pytest
import torch
from softcon_ranks import Case, batches, classify, run, work
from torch import multiprocessing

from eofm.method import (
    Diagonal,
    Exclude,
    LabelSimilarity,
    Objective,
    SoftBias,
    SoftForm,
    SoftScale,
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


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Results], list[Results]]:
    """What each of two processes made of all cases."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, args=(2, folder, list(CASES.values())), nprocs=2)
    first, second = (torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


@pytest.mark.parametrize("name", list(CASES))
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
