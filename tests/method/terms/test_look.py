"""LOOK against loops, closed forms and controls."""

from __future__ import annotations

import math

import pytest
import torch
from softcon_small import everything, multi_hot, some_labels
from term_small import combined, images
from torch import Tensor

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method import (
    LabelSimilarity,
    cosine_matrix,
    label_similarity,
    labelled_pairs,
    update_teacher,
)
from eofm.method.terms.look import Look, neighbour_floor, neighbour_loss, neighbours_of
from eofm.method.terms.seam import Needs, TeacherKind

COSINE = LabelSimilarity.COSINE


def slow_look(
    s: Tensor, rows: list[set[int]], columns: list[set[int]], own: list[int], k: int, tau: float
) -> tuple[float, float]:
    """Loss and floor from sets of classes, by loops; an empty set is unlabelled."""
    losses, floors = [], []
    for i, mine in enumerate(rows):
        if not mine:
            continue
        others = [j for j, theirs in enumerate(columns) if theirs and j != own[i]]
        alike = {j: len(mine & columns[j]) / math.sqrt(len(mine) * len(columns[j])) for j in others}
        if not any(alike.values()):
            continue
        near = sorted(others, key=lambda j: -s[i, j].item())
        voters = near[:k]
        if not any(alike[j] for j in voters):
            voters.append(next(j for j in near if alike[j]))
        votes = {j: math.exp(s[i, j].item() / tau) for j in voters}
        losses.append(-math.log(sum(alike[j] * v for j, v in votes.items()) / sum(votes.values())))
        floors.append(-math.log(max(alike.values())))
    return sum(losses) / len(losses), sum(floors) / len(floors)


def others_only(known: Tensor, columns: Tensor) -> Tensor:
    """All labelled pairs but each row's own column, the first ones."""
    allowed = labelled_pairs(known, columns)
    return allowed & ~torch.eye(*allowed.shape, dtype=torch.bool)


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("shape", [(4, 4), (5, 12)])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_loss_equals_a_slow_loop(k, tau, shape, share, generator):
    """Loss and floor by loops over sets, with unlabelled images, rare classes and few voters."""
    s = cosine_matrix(*(torch.randn(n, 6, generator=generator) for n in shape))
    hot = [some_labels(n, generator, share) for n in shape]
    hot[1][-1] = hot[0][0]  # at least one row has a like
    known = [torch.rand(n, generator=generator) >= 0.2 for n in shape]
    known[0][0] = known[1][-1] = True
    sets = [
        [set(y.nonzero().flatten().tolist()) if v else set() for y, v in zip(h, v_, strict=True)]
        for h, v_ in zip(hot, known, strict=True)
    ]
    similarity, allowed = label_similarity(*hot, COSINE), others_only(*known)

    expected = slow_look(s, *sets, own=list(range(shape[0])), k=k, tau=tau)
    assert expected[0] == pytest.approx(
        neighbour_loss(s, similarity, allowed, k, tau).item(), rel=1e-4, abs=1e-6
    )
    assert expected[1] == pytest.approx(
        neighbour_floor(similarity, allowed).item(), rel=1e-4, abs=1e-6
    )


def test_equal_cosines_cost_the_mean_similarity_and_equal_labels_nothing(generator):
    """A collapsed batch costs -ln mean S; where all labels are equal every embedding is perfect."""
    labels = some_labels(10, generator, share=0.8)
    labels[:, 0] = 1
    similarity, flat = label_similarity(labels, labels, COSINE), torch.full((10, 10), 0.3)
    allowed = others_only(everything(10), everything(10))
    expected = -torch.stack([similarity[i][allowed[i]].mean().log() for i in range(10)]).mean()

    assert expected.item() == pytest.approx(
        neighbour_loss(flat, similarity, allowed, 10, 0.2).item(), rel=1e-5
    )
    noise = torch.rand(10, 10, generator=generator)
    assert 0 == pytest.approx(
        neighbour_loss(noise, torch.ones(10, 10), allowed, 3, 0.2).item(), abs=1e-6
    )


def test_the_floor_is_reached_when_the_most_similar_image_is_nearest():
    """Where cosines order the images as their labels do, little is left above the floor."""
    labels = multi_hot({0, 1}, {0, 1, 2}, {0}, {3}, {3, 4}, {4})
    similarity = label_similarity(labels, labels, COSINE)
    allowed = others_only(everything(6), everything(6))
    floor = neighbour_floor(similarity, allowed).item()

    good = neighbour_loss(similarity, similarity, allowed, 5, 0.02).item()
    assert floor <= good < floor + 0.05
    shuffled = neighbour_loss(similarity[[3, 4, 5, 0, 1, 2]], similarity, allowed, 5, 0.02).item()
    assert shuffled > good + 1


def test_the_nearest_like_is_added_only_where_no_neighbour_is_alike():
    """One voter of another class: the nearest of the own class becomes a second one."""
    s = torch.tensor([[0.9, 0.8, 0.1, 0.5], [0.1, 0.9, 0.2, 0.3]])
    similarity = torch.tensor([[0.0, 0.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    voters = neighbours_of(s, similarity, everything(2, 4), 1)

    assert [[True, False, False, True], [False, True, False, False]] == voters.tolist()


def test_the_image_itself_never_votes(generator):
    """Left out: whatever the cosine with itself, the loss and its gradient do not move."""
    s = torch.rand(5, 5, generator=generator)
    labels = some_labels(5, generator)
    labels[:, 0] = 1
    similarity = label_similarity(labels, labels, COSINE)
    allowed = others_only(everything(5), everything(5))
    moved = (s + 3 * torch.eye(5)).requires_grad_()
    loss = neighbour_loss(moved, similarity, allowed, 2, 0.2)
    loss.backward()

    assert neighbour_loss(s, similarity, allowed, 2, 0.2).item() == loss.item()
    assert torch.equal(torch.zeros(5), moved.grad.diagonal())
    assert moved.grad.abs().sum() > 0


def test_without_a_labelled_pair_the_loss_is_zero_and_connected(generator):
    """No row counts: 0, with a gradient of zeros that is no NaN, though the similarity is one."""
    s = torch.rand(3, 4, generator=generator).requires_grad_()
    similarity = torch.full((3, 4), torch.nan)
    loss = neighbour_loss(s, similarity, torch.zeros(3, 4, dtype=torch.bool), 2, 0.2)
    loss.backward()

    assert 0 == loss.item()
    assert torch.equal(torch.zeros(3, 4), s.grad)


def test_only_voters_get_a_gradient(generator):
    """Of sixteen columns the three nearest move, and no other."""
    s = torch.rand(4, 16, generator=generator).requires_grad_()
    labels = some_labels(16, generator)
    labels[:, 0] = 1
    similarity = label_similarity(labels[:4], labels, COSINE)
    allowed = others_only(everything(4), everything(16))
    neighbour_loss(s, similarity, allowed, 3, 0.2).backward()

    assert not s.grad[~neighbours_of(s, similarity, allowed, 3)].any()
    assert 3 == (s.grad[0] != 0).sum()


# ----------------------------------------------------------------------------- as a term


def test_a_step_is_the_mean_of_both_directions(generator):
    """Rebuilt from the networks: the own column left out, labels of each view with its view."""
    terms = {"look": {"neighbours": 5, "queue": 0}}
    method = combined(terms, mask_ratio=0.0)
    views, labels = images(generator)
    output = method(views, labels, generator)
    similarity = label_similarity(labels.multi_hot, labels.multi_hot, COSINE)
    allowed = others_only(labels.known, labels.known)
    losses = [
        neighbour_loss(
            cosine_matrix(method.student(views[a]), method.teacher(views[b])),
            similarity,
            allowed,
            5,
            0.2,
        ).item()
        for a, b in ((0, 1), (1, 0))
    ]

    assert sum(losses) / 2 == pytest.approx(output.loss.item(), rel=1e-5)
    floor = neighbour_floor(similarity, allowed).item()
    assert output.loss.item() - floor == pytest.approx(
        output.scalars["look/excess"].item(), rel=1e-4
    )
    output.loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_an_image_of_the_same_place_never_votes(generator):
    """In a queue longer than an epoch an image would find itself: places leave it out."""
    method = combined({"look": {"neighbours": 3, "queue": 64}}, mask_ratio=0.0)
    views, labels = images(generator)
    whole = Labels(labels.multi_hot, torch.ones(16, dtype=torch.bool), places=labels.places)
    first = method(views, whole, generator)
    again = method(views, whole, generator)  # the queue now holds the very same images
    elsewhere = Labels(whole.multi_hot, whole.known, places=whole.places + 10**6)
    found = method(views, elsewhere, generator)

    assert first.loss.item() == pytest.approx(again.loss.item(), abs=0.3)
    assert found.loss < again.loss - 0.3  # of "another place", the image itself votes


@pytest.mark.slow
def test_it_learns_labels_and_shuffled_ones_teach_nothing():
    """A class is the brightest band: the excess over the floor falls, and not with mixed labels."""

    def excess(shuffled: bool) -> tuple[float, float]:
        method = combined({"look": {"neighbours": 8, "queue": 64}})
        generator = torch.Generator().manual_seed(3)
        optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-2)
        seen = []
        for _ in range(60):
            (one, _), _ = images(generator)
            bands = torch.randint(3, (16,), generator=generator)
            one = 0.3 * one
            one[torch.arange(16), bands] += 1
            hot = torch.nn.functional.one_hot(bands, 9).float()
            hot = hot[torch.randperm(16, generator=generator)] if shuffled else hot
            labels = Labels(hot, torch.ones(16, dtype=torch.bool), places=torch.arange(16))
            output = method((one, one), labels, generator)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            update_teacher(method.teacher, method.student, 0.9)
            seen.append(output.scalars["look/excess"].item())
        return sum(seen[:10]) / 10, sum(seen[-10:]) / 10

    start, end = excess(shuffled=False)
    mixed_start, mixed_end = excess(shuffled=True)
    assert end < 0.5 * start
    assert mixed_end > 0.7 * mixed_start


def test_its_needs_are_labels_places_and_an_average():
    """What the data have to bring, and the network that follows."""
    assert Needs(labels=True, places=True, teacher=TeacherKind.EMA) == Look.needs
    assert combined({"look": 1}).teacher is not None


@pytest.mark.parametrize(("name", "value"), [("neighbours", 0), ("tau", 0.0), ("queue", -1)])
def test_settings_out_of_range_are_refused(name, value):
    """Each is named with its place."""
    with pytest.raises(ConfigError, match=f"look.{name}"):
        combined({"look": {name: value}})
