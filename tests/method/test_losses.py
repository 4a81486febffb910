"""The two terms against closed forms, slow loops and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from softcon_small import TAU, everything, hard, multi_hot, soft, some_labels
from torch import Tensor
from torch.nn import functional

from eofm.method import (
    LabelSimilarity,
    SoftForm,
    cosine_matrix,
    hard_loss,
    label_similarity,
    labelled_pairs,
    nearest_columns,
    own_probability,
    soft_floor,
    soft_loss,
)

COSINE, JACCARD = LabelSimilarity.COSINE, LabelSimilarity.JACCARD
BCE, CE, MSE, SHIFTED = SoftForm
FORMS = pytest.mark.parametrize("form", list(SoftForm))


@pytest.mark.parametrize(
    ("n", "equal", "orthogonal"),
    [
        (4, 0.554518, 0.008005),
        (64, 1.663553, 0.141526),
        (256, 2.218071, 0.39998),
        (1024, 2.772589, 0.82639),
    ],
)
def test_hard_loss_of_degenerate_batches(n, equal, orthogonal):
    """Collapsed embeddings cost 2τ ln N; orthogonal ones 2τ ln(1 + (N-1) e^(-1/τ))."""
    assert equal == pytest.approx(hard(torch.full((n, n), 0.37)), abs=2e-6)
    assert orthogonal == pytest.approx(hard(torch.eye(n)), abs=2e-5)


@pytest.mark.parametrize("value", [-0.5, 0.0, 1.0])
def test_row_cross_entropy_of_constant_cosines_is_ln_n(value, generator):
    """Under ce a collapsed batch costs ln N, whatever the labels."""
    labels = some_labels(10, generator)
    s = torch.full((10, 10), value)

    assert math.log(10) == pytest.approx(
        soft(s, label_similarity(labels, labels, COSINE), CE), abs=1e-5
    )


def test_bce_at_zero_is_ln2_and_with_the_right_bias_the_entropy_of_the_mean(generator):
    """Orthogonal embeddings cost ln 2; a bias at logit(mean S) brings that to the entropy of it."""
    labels = some_labels(10, generator)
    similarity = label_similarity(labels, labels, COSINE)
    zeros = torch.zeros(10, 10)
    p = similarity.mean().item()
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)

    assert 0.693147 == pytest.approx(soft(zeros, similarity, BCE), abs=1e-6)
    assert entropy == pytest.approx(
        soft(zeros, similarity, BCE, bias=math.log(p / (1 - p))), abs=1e-5
    )


@pytest.mark.parametrize(("p", "entropy"), [(0.6, 0.673012), (0.7, 0.610864)])
def test_bce_bias_values(p, entropy):
    """The entropies of 0.6 and 0.7 that the reference tabulates."""
    constant = torch.full((4, 4), p)
    everyone = everything(4, 4)

    bias = math.log(p / (1 - p))
    assert entropy == pytest.approx(soft(torch.zeros(4, 4), constant, BCE, bias=bias), abs=1e-6)
    assert entropy == pytest.approx(soft_floor(constant.double(), everyone, BCE).item(), abs=1e-6)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_one_hot_labels_reduce_the_soft_targets_to_the_hard_ones(n, generator):
    """With one class per image S is the identity, and ce equals hard / 2τ exactly."""
    labels = torch.eye(9)[:n]
    similarity = label_similarity(labels, labels, COSINE)
    s = cosine_matrix(
        torch.randn(n, 8, generator=generator), torch.randn(n, 8, generator=generator)
    )

    assert torch.equal(torch.eye(n), similarity)
    assert hard(s) / (2 * TAU) == pytest.approx(soft(s, similarity, CE), rel=1e-6)


def test_one_hot_values_of_the_other_forms():
    """The values of mse and bce at identity and constant cosines for four one-hot images."""
    eye, ones = torch.eye(4), torch.ones(4, 4)

    assert 0 == soft(eye, eye, MSE)
    assert 0.75 == pytest.approx(soft(ones, eye, MSE))
    assert 0.521539 == pytest.approx(soft(eye, eye, BCE), abs=1e-6)
    assert 3.756716 == pytest.approx(soft(ones, eye, BCE), abs=1e-6)


def test_images_of_one_class_share_the_row_target():
    """Two images of one class among three: under ce each is half of the other's target."""
    labels = multi_hot({1}, {1}, {2})
    similarity = label_similarity(labels, labels, COSINE)
    s = torch.tensor([[0.9, 0.1, -0.3], [0.0, 0.5, 0.2], [0.3, 0.3, 0.3]]).double()
    log_p = functional.log_softmax(s / TAU, dim=1)
    expected = -(log_p[0, :2].mean() + log_p[1, :2].mean() + log_p[2, 2]) / 3

    assert expected.item() == pytest.approx(soft(s, similarity, CE), rel=1e-6)


SETS = ({0, 1}, {1, 2}, {0, 1}, {5})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zeros", (0.554518, 0.693147, 1.386294, 0.4375)),
        ("ones", (0.554518, 2.506716, 1.386294, 0.4375)),
        ("similarity", (0.165099, 0.594671, 0.975248, 0.0)),
        ("identity", (0.008005, 0.521539, 2.145012, 0.1875)),
    ],
)
def test_the_worked_batch(name, expected):
    """Four images with labels {0,1}, {1,2}, {0,1}, {5}: all four terms, computed by hand."""
    labels = multi_hot(*SETS)
    similarity = label_similarity(labels, labels, COSINE)
    cosines = {
        "zeros": torch.zeros(4, 4),
        "ones": torch.ones(4, 4),
        "similarity": similarity,
        "identity": torch.eye(4),
    }[name]
    found = (hard(cosines), *(soft(cosines, similarity, form) for form in (BCE, CE, MSE)))

    assert [[1, 0.5, 1, 0], [0.5, 1, 0.5, 0], [1, 0.5, 1, 0], [0, 0, 0, 1]] == similarity.tolist()
    assert expected == pytest.approx(found, abs=2e-6)


def test_the_floors_of_the_worked_batch():
    """The entropy of the targets, below which no embedding can go."""
    labels = multi_hot(*SETS)
    similarity, everyone = label_similarity(labels, labels, COSINE), everything(4, 4)
    floors = [soft_floor(similarity.double(), everyone, f).item() for f in (BCE, CE, MSE)]

    assert [0.173287, 0.787390, 0.0] == pytest.approx(floors, abs=1e-6)


def slow_hard(s: Tensor, own: list[int], tau: float) -> float:
    """InfoNCE by loops."""
    total = 0.0
    for i, row in enumerate(s.tolist()):
        total += math.log(sum(math.exp(x / tau) for x in row)) - row[own[i]] / tau
    return 2 * tau * total / len(s)


def slow_soft(
    s: Tensor,
    rows: list[set[int]],
    columns: list[set[int]],
    form: SoftForm,
    *,
    tau: float,
    bias: float,
) -> tuple[float, float]:
    """The soft term and its floor from sets of classes, by loops; an empty set is unlabelled."""
    losses, floors = [], []
    for i, a in enumerate(rows):
        seen = [j for j, b in enumerate(columns) if a and b]
        similarity = {j: len(a & columns[j]) / math.sqrt(len(a) * len(columns[j])) for j in seen}
        cosines = s[i].tolist()
        if form is CE:
            mass = sum(similarity.values())
            if not mass:
                continue
            partition = sum(math.exp(cosines[j] / tau) for j in seen)
            loss = floor = 0.0
            for j in seen:
                target = similarity[j] / mass
                loss -= target * math.log(math.exp(cosines[j] / tau) / partition)
                floor -= target * math.log(target) if target else 0
            losses.append(loss)
            floors.append(floor)
            continue
        for j in seen:
            if form in (MSE, SHIFTED):
                near = cosines[j] if form is MSE else (cosines[j] + 1) / 2
                losses.append((near - similarity[j]) ** 2)
                floors.append(0.0)
                continue
            p = 1 / (1 + math.exp(-(cosines[j] / tau + bias)))
            losses.append(-similarity[j] * math.log(p) - (1 - similarity[j]) * math.log(1 - p))
            both = (similarity[j], 1 - similarity[j])
            floors.append(-sum(q * math.log(q) for q in both if q > 0))
    return sum(losses) / len(losses), sum(floors) / len(floors)


@pytest.mark.parametrize("columns", [4, 12])
@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_hard_loss_equals_a_slow_loop(batch, columns, tau, generator):
    """InfoNCE by loops over rows, also where a rank's own keys start at a later column."""
    s = cosine_matrix(
        torch.randn(batch, 6, generator=generator), torch.randn(columns, 6, generator=generator)
    )
    own = [columns - batch + i for i in range(batch)]

    expected = slow_hard(s, own, tau)
    assert expected == pytest.approx(hard_loss(s, torch.tensor(own), tau).item(), rel=1e-5)


@FORMS
@pytest.mark.parametrize("unlabelled", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(2, 2), (5, 5), (3, 9)])
@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_soft_loss_equals_a_slow_loop(form, unlabelled, shape, tau, generator):
    """Loss and floor by loops over sets of classes, with unlabelled images on both sides."""
    batch, columns = shape
    s = cosine_matrix(
        torch.randn(batch, 6, generator=generator), torch.randn(columns, 6, generator=generator)
    )
    hot = [some_labels(n, generator) for n in (batch, columns)]
    known = [torch.rand(n, generator=generator) >= unlabelled for n in (batch, columns)]
    known[0][0] = known[1][0] = True
    hot[1][0] = hot[0][0]  # at least one pair has a target
    sets = [
        [set(y.nonzero().flatten().tolist()) if v else set() for y, v in zip(h, k, strict=True)]
        for h, k in zip(hot, known, strict=True)
    ]
    similarity = label_similarity(*hot, COSINE)
    expected = slow_soft(s, *sets, form, tau=tau, bias=0.3)

    found = soft_loss(s, similarity, labelled_pairs(*known), form, tau=tau, bias=0.3)
    assert expected[0] == pytest.approx(found.item(), rel=1e-4)
    assert expected[1] == pytest.approx(
        soft_floor(similarity, labelled_pairs(*known), form).item(), rel=1e-4, abs=1e-6
    )


def test_hard_loss_equals_lightly(generator):
    """NT-Xent of lightly is the same loss over other columns: both views, itself left out."""
    ntxent = pytest.importorskip("lightly.loss.ntx_ent_loss").NTXentLoss
    first, second = torch.randn(2, 6, 10, generator=generator)
    both = torch.cat([first, second])
    s = cosine_matrix(both, both)[~torch.eye(12, dtype=torch.bool)].reshape(12, 11)
    # row i loses its own column, so the partner i + 6 (i - 6) moves to i + 5 (stays at i - 6)
    own = torch.cat([torch.arange(5, 11), torch.arange(6)])

    expected = ntxent(temperature=TAU)(first, second).item()
    assert expected == pytest.approx(hard_loss(s, own, TAU).item() / (2 * TAU), rel=1e-5)


@pytest.mark.parametrize("form", [BCE, CE])
def test_the_floor_is_attained_at_the_target(form, generator):
    """Logits that reproduce the target reach the floor: the excess is what is left to learn."""
    labels = some_labels(6, generator, share=0.5)
    similarity, everyone = label_similarity(labels, labels, COSINE), everything(6, 6)
    ideal = torch.logit(similarity, eps=1e-7) if form is BCE else (similarity + 1e-12).log()

    floor = soft_floor(similarity, everyone, form).item()
    assert floor == pytest.approx(soft(ideal, similarity, form, tau=1.0), abs=1e-4)
    assert floor < soft(torch.eye(6), similarity, form)


@FORMS
def test_gradients_have_their_closed_forms(form, generator):
    """Derivatives by s: hard 2(p-δ)/B, bce V(σ-S)/(τn), ce (p-T)/(τB), mse 2V(s-S)/n."""
    b, n, tau = 4, 7, 0.3
    s = (torch.rand(b, n, generator=generator, dtype=torch.float64) * 2 - 1).requires_grad_()
    hot = some_labels(b, generator), some_labels(n, generator)
    hot[1][:b] = hot[0]
    known = torch.tensor([True, True, True, False]), torch.arange(n) != 5
    similarity = label_similarity(*hot, COSINE).double()
    valid = (known[0][:, None] & known[1][None]).double()
    target = similarity * valid
    masked = torch.where(valid.bool(), s / tau, -torch.inf)[:3].detach()
    expected = {
        BCE: valid * (torch.sigmoid(s / tau) - similarity) / (tau * valid.sum()),
        CE: torch.zeros(b, n).double(),
        MSE: 2 * valid * (s - similarity) / valid.sum(),
        SHIFTED: valid * ((s + 1) / 2 - similarity) / valid.sum(),
    }
    rows = masked.softmax(1) - target[:3] / target[:3].sum(1, keepdim=True)
    expected[CE][:3] = rows / (tau * 3)

    loss = soft_loss(s, similarity, labelled_pairs(*known), form, tau=tau)
    torch.testing.assert_close(torch.autograd.grad(loss, s)[0], expected[form].detach())
    own = torch.arange(b)
    hard_gradient = torch.autograd.grad(hard_loss(s, own, tau), s)[0]
    delta = functional.one_hot(own, n)
    torch.testing.assert_close(hard_gradient, (2 * ((s / tau).softmax(1) - delta) / b).detach())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_permutations(seed):
    """Samples permuted together change nothing; labels permuted against images change soft only."""
    g = torch.Generator().manual_seed(seed)
    n = 7
    s = cosine_matrix(torch.randn(n, 5, generator=g), torch.randn(n, 5, generator=g))
    labels = some_labels(n, g)
    known = torch.rand(n, generator=g) < 0.8
    known[:2] = True
    order, columns = torch.randperm(n, generator=g), torch.randperm(n, generator=g)
    similarity = label_similarity(labels, labels, COSINE)

    assert hard(s) == pytest.approx(hard(s[order][:, order]), abs=1e-5)
    for form in SoftForm:
        base = soft_loss(s, similarity, labelled_pairs(known, known), form, tau=TAU).item()
        jointly = soft_loss(
            s[order][:, order],
            similarity[order][:, order],
            labelled_pairs(known[order], known[order]),
            form,
            tau=TAU,
        )
        keys = soft_loss(
            s[:, columns],
            similarity[:, columns],
            labelled_pairs(known, known[columns]),
            form,
            tau=TAU,
        )
        assert base == pytest.approx(jointly.item(), abs=1e-5)
        assert base == pytest.approx(keys.item(), abs=1e-5)


@FORMS
def test_labels_permuted_against_the_images_are_noticed(form, generator):
    """The control of every run matrix: shuffled labels must change the soft term."""
    s = cosine_matrix(
        torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)
    )
    labels = multi_hot({0}, {0, 1}, {2}, {3, 4, 5}, {6}, {0, 6})
    shuffled = labels[torch.tensor([3, 0, 5, 1, 2, 4])]

    true = soft(s, label_similarity(labels, labels, COSINE), form)
    wrong = soft(s, label_similarity(shuffled, shuffled, COSINE), form)
    assert abs(true - wrong) > 1e-3


def test_a_constant_on_a_row_of_logits(generator):
    """Both ce and hard compare columns, so a row's constant is nothing to them; to bce it is."""
    s = torch.rand(5, 5, generator=generator)
    moved = s + torch.tensor([0.0, 0.1, -0.2, 0.3, 0.0])[:, None]
    labels = some_labels(5, generator)
    similarity = label_similarity(labels, labels, COSINE)

    assert hard(s) == pytest.approx(hard(moved), abs=1e-6)
    assert soft(s, similarity, CE) == pytest.approx(soft(moved, similarity, CE), abs=1e-5)
    assert abs(soft(s, similarity, BCE) - soft(moved, similarity, BCE)) > 1e-3


def test_rows_on_two_ranks_average_to_the_loss_on_one(generator):
    """Half of the rows against all columns, twice, is the whole: what gathered keys rely on."""
    s = cosine_matrix(
        torch.randn(8, 5, generator=generator), torch.randn(8, 5, generator=generator)
    )
    labels = some_labels(8, generator)
    similarity, everyone = label_similarity(labels, labels, COSINE), everything(8, 8)
    halves = [slice(0, 4), slice(4, 8)]

    hards = [hard_loss(s[h], torch.arange(8)[h], TAU).item() for h in halves]
    assert hard(s) == pytest.approx(sum(hards) / 2, rel=1e-5)
    for form in SoftForm:
        softs = [soft_loss(s[h], similarity[h], everyone[h], form, tau=TAU) for h in halves]
        assert soft(s, similarity, form) == pytest.approx(sum(softs).item() / 2, rel=1e-5)


# ------------------------------------------------------------ excluded and nearest columns


def test_excluded_columns_leave_the_denominator(generator):
    """InfoNCE over the columns that are left, by loops; a row's own column always stays."""
    s = cosine_matrix(
        torch.randn(5, 6, generator=generator), torch.randn(9, 6, generator=generator)
    )
    own = torch.arange(2, 7)
    excluded = torch.rand(5, 9, generator=generator) < 0.5
    excluded[torch.arange(5), own] = True
    total, probability = 0.0, 0.0
    for i, row in enumerate(s.tolist()):
        left = [j for j in range(9) if j == own[i] or not excluded[i, j]]
        partition = sum(math.exp(row[j] / TAU) for j in left)
        total += math.log(partition) - row[own[i]] / TAU
        probability += math.exp(row[own[i]] / TAU) / partition

    assert 2 * TAU * total / 5 == pytest.approx(hard_loss(s, own, TAU, excluded).item(), rel=1e-5)
    found = own_probability(s, own, TAU, excluded).item()
    assert probability / 5 == pytest.approx(found, rel=1e-5)
    nothing = torch.zeros_like(excluded)
    assert hard_loss(s, own, TAU).equal(hard_loss(s, own, TAU, nothing))


def test_a_row_that_excludes_all_others_costs_nothing(generator):
    """Nothing is left to be told apart from: loss 0 and gradient 0, not NaN."""
    s = torch.rand(3, 3, generator=generator).requires_grad_()
    loss = hard_loss(s, torch.arange(3), TAU, torch.ones(3, 3, dtype=torch.bool))
    loss.backward()

    assert 0 == loss.item()
    assert 0 == s.grad.abs().max()


@FORMS
@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_the_local_form_equals_a_slow_loop(form, neighbours, generator):
    """Only the k columns of largest s among the labelled ones of a row enter the soft term."""
    s = torch.rand(6, 9, generator=generator) * 2 - 1
    hot = some_labels(6, generator), some_labels(9, generator)
    known = torch.arange(6) != 2, torch.arange(9) % 4 != 1
    similarity = label_similarity(*hot, COSINE)
    pairs = labelled_pairs(*known)
    chosen = torch.zeros(6, 9, dtype=torch.bool)
    for i in range(6):
        best = sorted((j for j in range(9) if pairs[i, j]), key=lambda j, i=i: -s[i, j].item())
        chosen[i, best[:neighbours]] = True

    near = nearest_columns(s, pairs, neighbours)
    assert chosen.equal(near)
    if neighbours >= 9:
        assert pairs.equal(near)
    elif form is not CE or neighbours > 1:  # one column has all of the softmax
        everywhere = soft_loss(s, similarity, pairs, form, tau=TAU).item()
        assert abs(soft_loss(s, similarity, near, form, tau=TAU).item() - everywhere) > 1e-3


def test_the_shifted_mean_squared_error_of_the_worked_batch():
    """(s + 1) / 2 against S: by hand, and 0 at s = 2 S - 1."""
    similarity = label_similarity(*[multi_hot(*SETS)] * 2, COSINE)

    # S of the worked batch: 6 ones, 4 halves, 6 zeros
    expected = {0.0: 12 * 0.25 / 16, 1.0: (4 * 0.25 + 6) / 16, -1.0: (4 * 0.25 + 6) / 16}
    for value, loss in expected.items():
        assert loss == pytest.approx(soft(torch.full((4, 4), value), similarity, SHIFTED))
    assert 0 == pytest.approx(soft(2 * similarity - 1, similarity, SHIFTED), abs=1e-7)
    everyone = everything(4, 4)
    assert 0 == soft_floor(similarity, everyone, SHIFTED).item()
