"""The method (arXiv 2405.20462) against slow loops, closed forms and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import ConfigError, TrainingError
from eofm.imagery import Labels
from eofm.softcon import (
    HeadNorm,
    LabelSimilarity,
    SoftCon,
    SoftConSettings,
    SoftForm,
    cosine_matrix,
    hard_loss,
    keep_tokens,
    label_similarity,
    make_teacher,
    mean_label_similarity,
    momentum_at,
    prediction_head,
    projection_head,
    soft_floor,
    soft_loss,
    update_teacher,
)

COSINE, JACCARD = LabelSimilarity.COSINE, LabelSimilarity.JACCARD
BCE, CE, MSE = SoftForm.BCE, SoftForm.CE, SoftForm.MSE
FORMS = pytest.mark.parametrize("form", list(SoftForm))
TAU = 0.2


def multi_hot(*sets: set[int], classes: int = 9) -> Tensor:
    """Label sets as rows of zeros and ones."""
    out = torch.zeros(len(sets), classes)
    for row, members in enumerate(sets):
        out[row, list(members)] = 1
    return out


def some_labels(count: int, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Random label sets, none of them empty."""
    labels = (torch.rand(count, 9, generator=generator) < share).float()
    labels[torch.arange(count), torch.randint(9, (count,), generator=generator)] = 1
    return labels


def everything(count: int) -> Tensor:
    """All images are labelled."""
    return torch.ones(count, dtype=torch.bool)


def soft(
    s: Tensor, similarity: Tensor, form: SoftForm, tau: float = TAU, bias: float = 0.0
) -> float:
    """The soft term where every image is labelled."""
    rows, columns = everything(s.shape[0]), everything(s.shape[1])
    return soft_loss(s, similarity, rows, columns, form, tau=tau, bias=bias).item()


def hard(s: Tensor, tau: float = TAU) -> float:
    """The hard term of a square matrix whose diagonal is each row's own image."""
    return hard_loss(s, torch.arange(len(s)), tau).item()


# ---------------------------------------------------------------------- label similarity


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


@pytest.mark.parametrize("kind", list(LabelSimilarity))
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


# ------------------------------------------------------------------------- cosine matrix


def test_cosines_ignore_length_and_stay_float32_under_autocast(generator):
    """Scaling embeddings changes nothing, and bfloat16 autocast does not reach the product."""
    student = torch.randn(5, 16, generator=generator)
    teacher = torch.randn(7, 16, generator=generator)
    exact = cosine_matrix(student.double() * 1e3, teacher.double() / 1e3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = cosine_matrix(student, teacher)

    assert torch.float32 == s.dtype
    torch.testing.assert_close(s, exact)
    assert (5, 7) == tuple(s.shape)


# ------------------------------------------------------------------------ analytic values


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
    everyone = everything(4)

    bias = math.log(p / (1 - p))
    assert entropy == pytest.approx(soft(torch.zeros(4, 4), constant, BCE, bias=bias), abs=1e-6)
    assert entropy == pytest.approx(soft_floor(constant, everyone, everyone, BCE).item(), abs=1e-6)


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
    s = torch.tensor([[0.9, 0.1, -0.3], [0.0, 0.5, 0.2], [0.3, 0.3, 0.3]])
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
    similarity, everyone = label_similarity(labels, labels, COSINE), everything(4)
    floors = [soft_floor(similarity, everyone, everyone, f).item() for f in (BCE, CE, MSE)]

    assert [0.173287, 0.787390, 0.0] == pytest.approx(floors, abs=1e-6)


# --------------------------------------------------------------------------- slow oracles


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
            if form is MSE:
                losses.append((cosines[j] - similarity[j]) ** 2)
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

    found = soft_loss(s, similarity, *known, form, tau=tau, bias=0.3)
    assert expected[0] == pytest.approx(found.item(), rel=1e-4)
    assert expected[1] == pytest.approx(
        soft_floor(similarity, *known, form).item(), rel=1e-4, abs=1e-6
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


# ---------------------------------------------------------------------- floors, gradients


@pytest.mark.parametrize("form", [BCE, CE])
def test_the_floor_is_attained_at_the_target(form, generator):
    """Logits that reproduce the target reach the floor: the excess is what is left to learn."""
    labels = some_labels(6, generator, share=0.5)
    similarity, everyone = label_similarity(labels, labels, COSINE), everything(6)
    ideal = torch.logit(similarity, eps=1e-7) if form is BCE else (similarity + 1e-12).log()

    floor = soft_floor(similarity, everyone, everyone, form).item()
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
    }
    rows = masked.softmax(1) - target[:3] / target[:3].sum(1, keepdim=True)
    expected[CE][:3] = rows / (tau * 3)

    loss = soft_loss(s, similarity, *known, form, tau=tau)
    torch.testing.assert_close(torch.autograd.grad(loss, s)[0], expected[form].detach())
    own = torch.arange(b)
    hard_gradient = torch.autograd.grad(hard_loss(s, own, tau), s)[0]
    delta = functional.one_hot(own, n)
    torch.testing.assert_close(hard_gradient, (2 * ((s / tau).softmax(1) - delta) / b).detach())


# --------------------------------------------------------------------------- invariances


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
        base = soft_loss(s, similarity, known, known, form, tau=TAU).item()
        jointly = soft_loss(
            s[order][:, order],
            similarity[order][:, order],
            known[order],
            known[order],
            form,
            tau=TAU,
        )
        keys = soft_loss(
            s[:, columns], similarity[:, columns], known, known[columns], form, tau=TAU
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
    similarity, everyone = label_similarity(labels, labels, COSINE), everything(8)
    halves = [slice(0, 4), slice(4, 8)]

    hards = [hard_loss(s[h], torch.arange(8)[h], TAU).item() for h in halves]
    assert hard(s) == pytest.approx(sum(hards) / 2, rel=1e-5)
    for form in SoftForm:
        softs = [
            soft_loss(s[h], similarity[h], everyone[h], everyone, form, tau=TAU) for h in halves
        ]
        assert soft(s, similarity, form) == pytest.approx(sum(softs).item() / 2, rel=1e-5)


# ----------------------------------------------------------------------------- unlabelled


@FORMS
@pytest.mark.parametrize("kind", list(LabelSimilarity))
def test_unlabelled_images_change_nothing(form, kind, generator):
    """Appending unlabelled images to a batch leaves soft term, floor and gradients as they were."""
    s = (torch.rand(7, 7, generator=generator) * 2 - 1).requires_grad_()
    labels = some_labels(7, generator)
    labels[4:] = 0
    known = torch.arange(7) < 4
    similarity = label_similarity(labels, labels, kind)
    loss = soft_loss(s, similarity, known, known, form, tau=TAU)
    gradient = torch.autograd.grad(loss, s)[0]
    floor = soft_floor(similarity, known, known, form)

    small, everyone = similarity[:4, :4], everything(4)
    assert soft(s[:4, :4], small, form) == pytest.approx(loss.item(), abs=1e-6)
    assert soft_floor(small, everyone, everyone, form).item() == pytest.approx(
        floor.item(), abs=1e-6
    )
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
    right = soft_loss(s, similarity, known, known, form, tau=TAU).item()
    as_zeros = soft(s, similarity.nan_to_num(0), form)

    assert abs(right - as_zeros) > 1e-3
    assert math.isnan(soft(s, similarity, form))


@FORMS
def test_a_batch_without_labels_costs_nothing_and_still_reaches_every_parameter(form, generator):
    """With no labelled pair the loss is 0, finite, and connected: its gradient is 0, not None."""
    z = torch.randn(3, 4, generator=generator, requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    nothing = torch.zeros(3, dtype=torch.bool)
    s = cosine_matrix(z, torch.randn(3, 4, generator=generator))
    similarity = torch.full((3, 3), torch.nan)
    loss = soft_loss(s, similarity, nothing, nothing, form, tau=TAU, bias=bias)
    loss.backward()

    assert 0 == loss.item()
    assert 0 == z.grad.abs().max()
    assert 0 == soft_floor(similarity, nothing, nothing, form).item()
    if form is BCE:
        assert 0 == bias.grad.item()


def test_a_row_that_shares_no_class_with_any_column_has_no_ce_target(generator):
    """Two seasons may share no class: such a row leaves the mean of ce, without a NaN."""
    rows, columns = multi_hot({0}, {1}), multi_hot({0}, {2})
    s = torch.rand(2, 2, generator=generator)
    similarity = label_similarity(rows, columns, COSINE)
    alone = soft_loss(s[:1], similarity[:1], everything(1), everything(2), CE, tau=TAU).item()

    assert alone == pytest.approx(soft(s, similarity, CE), rel=1e-6)


# -------------------------------------------------------------------------------- masking


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    [
        (256, 0.5, 128),
        (256, 0.7, 76),
        (256, 0.75, 64),
        (196, 0.7, 58),
        (64, 0.7, 19),
        (4, 0.9, 2),
        (2, 0.5, 2),
        (100, 0.9, 10),
        (49, 0.985, 2),
    ],
)
def test_how_many_tokens_are_kept(tokens, ratio, kept, generator):
    """max(2, floor(P (1 - r))): never none, also on the grids where a small share rounds to 0."""
    assert (3, kept) == tuple(keep_tokens(3, tokens, ratio, generator).shape)


@given(seed=st.integers(0, 10_000), tokens=st.integers(2, 80), ratio=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_masks_are_valid_and_repeatable(seed, tokens, ratio):
    """Kept patches are distinct, in range, at least two, and the seed decides them alone."""
    keep = keep_tokens(4, tokens, ratio, torch.Generator().manual_seed(seed))
    again = keep_tokens(4, tokens, ratio, torch.Generator().manual_seed(seed))

    assert torch.equal(keep, again)
    assert keep.shape[1] >= 2
    assert all(len(set(row.tolist())) == keep.shape[1] for row in keep)
    assert keep.min() >= 0
    assert keep.max() < tokens


def test_masks_are_uniform_and_differ_between_images(generator):
    """Every patch is kept equally often, and no two images of a batch see the same patches."""
    keep = keep_tokens(4000, 20, 0.75, generator)
    frequency = torch.bincount(keep.flatten(), minlength=20) / 4000

    # standard deviation 0.007 at a share of 0.25: five of them
    assert (frequency - 0.25).abs().max() < 0.035
    sets = {tuple(sorted(row.tolist())) for row in keep_tokens(8, 64, 0.7, generator)}
    assert len(sets) == 8


def test_no_masking_and_impossible_masking(generator):
    """Ratio 0 keeps all and says so; a ratio of 1, or one single patch, is refused."""
    assert keep_tokens(3, 64, 0.0, generator) is None
    assert keep_tokens(3, 1, 0.0, generator) is None
    for tokens, ratio in ((64, 1.0), (64, -0.1), (1, 0.5)):
        with pytest.raises(ConfigError, match="two patches"):
            keep_tokens(3, tokens, ratio, generator)


# -------------------------------------------------------------------------- heads, teacher


def test_heads_have_the_published_sizes():
    """19.4 M and 2.1 M weights for ViT-S, no biases, and a last norm without scale and shift."""
    g = torch.Generator()
    projector = projection_head(384, 4096, 256, HeadNorm.BN, g)
    predictor = prediction_head(256, 4096, HeadNorm.BN, g)
    linear = sum(p.numel() for p in projector.parameters() if p.ndim == 2)

    assert 384 * 4096 + 4096 * 4096 + 4096 * 256 == linear
    assert 19.4 == pytest.approx(linear / 1e6, abs=0.05)
    assert 2.1 == pytest.approx(sum(p.numel() for p in predictor.parameters()) / 1e6, abs=0.05)
    assert all(m.bias is None for m in projector if isinstance(m, nn.Linear))
    assert projector[-1].weight is None
    kinds = ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert kinds == [type(m).__name__ for m in projector]


def test_heads_are_drawn_from_their_generator_alone():
    """The seed decides every weight, the range is torch's, the global state is untouched."""
    before = torch.get_rng_state()
    first, again = (
        projection_head(16, 8, 4, HeadNorm.BN, torch.Generator().manual_seed(3)) for _ in range(2)
    )

    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert 0.25 == pytest.approx(first[0].weight.abs().max().item(), abs=0.02)
    assert not torch.equal(first[0].weight[0], first[0].weight[1])


@pytest.mark.parametrize("norm", list(HeadNorm))
def test_head_norms(norm, generator):
    """Outputs have the asked width; bn centres each of them over the batch, ln each image."""
    out = projection_head(6, 8, 5, norm, generator)(torch.randn(32, 6, generator=generator))

    assert (32, 5) == tuple(out.shape)
    if norm is HeadNorm.BN:
        torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    elif norm is HeadNorm.LN:
        torch.testing.assert_close(out.mean(1), torch.zeros(32), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("base", "values"),
    [
        (0.99, (0.99, 0.991464, 0.995, 0.998536, 1.0)),
        (0.996, (0.996, 0.996586, 0.998, 0.999414, 1.0)),
    ],
)
def test_momentum_schedule(base, values):
    """A cosine from the base to 1, and 1 beyond the end."""
    found = [momentum_at(step, 200, base) for step in (0, 50, 100, 150, 200)]

    assert values == pytest.approx(found, abs=1e-6)
    assert 1.0 == momentum_at(300, 200, base)


def test_teacher_update_is_the_moving_average_of_parameters_only(generator):
    """Parameters follow θ' ← m θ' + (1-m) θ, m = 1 changes no bit, buffers are left alone."""
    student = projection_head(4, 6, 3, HeadNorm.BN, generator)
    teacher = make_teacher(student)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn(p.shape, generator=generator))
        student[1].running_mean.add_(7.0)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    update_teacher(teacher, student, 1.0)

    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    update_teacher(teacher, student, 0.9)
    for name, p in teacher.named_parameters():
        expected = 0.9 * before[name] + 0.1 * dict(student.named_parameters())[name]
        torch.testing.assert_close(p, expected.detach())
    assert torch.equal(teacher[1].running_mean, before["1.running_mean"])


# ------------------------------------------------------------------------------ the module


class Patches(nn.Module):
    """A trunk of one linear layer: the mean embedding of the patches it is let to see."""

    def __init__(self, dim: int = 12, grid: int = 4, side: int = 2, channels: int = 3) -> None:
        super().__init__()
        self.dim, self.tokens, self.side = dim, grid * grid, side
        self.proj = nn.Conv2d(channels, dim, side, side)

    def forward(self, pixels, keep=None):
        tokens = self.proj(pixels).flatten(2).transpose(1, 2).tanh()
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, self.dim))
        return tokens.mean(1)


def small(**changes: object) -> SoftConSettings:
    """Settings with heads of a size for tests."""
    return SoftConSettings(**{"hidden": 16, "out": 8, **changes})


def model(seed: int = 0, mean_similarity: float = 0.5, **changes: object) -> SoftCon:
    """The method on a trunk of one layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = Patches()
    return SoftCon(trunk, small(**changes), torch.Generator().manual_seed(seed), mean_similarity)


def batch(generator: torch.Generator, n: int = 6) -> tuple[tuple[Tensor, Tensor], Labels]:
    """Two views of random images; the last image is unlabelled."""
    views = torch.rand(2, n, 3, 8, 8, generator=generator)
    labels = some_labels(n, generator)
    labels[-1] = 0
    return (views[0], views[1]), Labels(labels, torch.arange(n) < n - 1)


def test_teacher_starts_as_the_student_and_gets_no_gradient(generator):
    """They agree bit for bit at step 0; gradients reach all of the student, none of the teacher."""
    softcon = model()
    for a, b in zip(softcon.student.parameters(), softcon.teacher.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not b.requires_grad
    before = {k: v.clone() for k, v in softcon.teacher.named_parameters()}
    out = softcon(*batch(generator), generator)
    out.loss.backward()
    torch.optim.SGD([p for p in softcon.parameters() if p.requires_grad], lr=1.0).step()

    assert all(p.grad is not None for p in softcon.parameters() if p.requires_grad)
    assert all(p.grad is None for p in softcon.teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in softcon.teacher.named_parameters())
    assert any(
        not torch.equal(a, b)
        for a, b in zip(softcon.student.parameters(), softcon.teacher.parameters(), strict=True)
    )


@FORMS
def test_a_step_is_the_sum_of_its_parts(form, generator):
    """Both directions of hard + λ soft, rebuilt from the functions and the masks it reports."""
    softcon = model(soft_form=form, soft_weight=0.7, mean_similarity=0.6)
    views, labels = batch(generator)
    out = softcon(views, labels, generator)
    similarity = label_similarity(labels.multi_hot, labels.multi_hot, COSINE)
    bias = math.log(0.6 / 0.4)
    hards, softs, floors = [], [], []
    for a, b in ((0, 1), (1, 0)):
        z = softcon.predictor(softcon.student(views[a], out.keep[a]))
        s = cosine_matrix(z, softcon.teacher(views[b]))
        hards.append(hard(s))
        softs.append(
            soft_loss(s, similarity, labels.known, labels.known, form, tau=TAU, bias=bias).item()
        )
        floors.append(soft_floor(similarity, labels.known, labels.known, form).item())

    assert sum(hards) == pytest.approx(out.hard.item(), rel=1e-5)
    assert sum(softs) == pytest.approx(out.soft.item(), rel=1e-5)
    assert sum(softs) - sum(floors) == pytest.approx(out.soft_excess.item(), rel=1e-4)
    assert out.hard.item() + 0.7 * out.soft.item() == pytest.approx(out.loss.item(), rel=1e-5)
    assert 25 / 36 == pytest.approx(out.labelled_pairs.item())
    assert 0 < out.own_probability.item() < 1
    assert not torch.equal(out.keep[0], out.keep[1])


def test_one_direction_and_no_mask(generator):
    """Not symmetric: one student view, one mask; ratio 0: the student sees everything."""
    views, labels = batch(generator)
    one = model(symmetric=False)(views, labels, generator)
    whole = model(mask_ratio=0.0)(views, labels, generator)

    assert 1 == len(one.keep)
    assert (6, 4) == tuple(one.keep[0].shape)
    assert (None, None) == whole.keep


def test_labels_of_two_seasons_are_used_each_with_its_view(generator):
    """Rows take the labels of the student's view, columns those of the teacher's."""
    views, labels = batch(generator)
    other = Labels(labels.multi_hot.roll(1, 0), labels.known.roll(1, 0))
    softcon = model(mask_ratio=0.0, symmetric=False)
    s = cosine_matrix(softcon.predictor(softcon.student(views[0])), softcon.teacher(views[1]))
    similarity = label_similarity(labels.multi_hot, other.multi_hot, COSINE)
    expected = soft_loss(s, similarity, labels.known, other.known, BCE, tau=TAU).item()

    assert expected == pytest.approx(
        softcon(views, (labels, other), generator).soft.item(), rel=1e-5
    )
    swapped = softcon(views, (other, labels), generator).soft.item()
    shared = softcon(views, labels, generator).soft.item()
    assert min(abs(expected - swapped), abs(expected - shared)) > 1e-4
    assert shared == pytest.approx(softcon(views, (labels, labels), generator).soft.item())


def test_no_gradient_flows_through_the_teacher(generator):
    """The teacher's view is a target: its pixels get no gradient, those of the student's do."""
    views, labels = batch(generator)
    for view in views:
        view.requires_grad_()
    model(symmetric=False)(views, labels, generator).loss.backward()

    assert views[0].grad.abs().max() > 0
    assert views[1].grad is None


def test_known_but_empty_counts_as_unlabelled(generator):
    """An image "known" to hold no class has no similarity either; it must not make the loss NaN."""
    views, labels = batch(generator)
    softcon = model(mask_ratio=0.0)
    right = softcon(views, labels, generator)
    careless = softcon(views, Labels(labels.multi_hot, everything(6)), generator)

    assert right.soft.item() == pytest.approx(careless.soft.item(), rel=1e-6)


def test_no_soft_weight_leaves_the_hard_term_and_its_gradients(generator):
    """λ = 0 is MoCo-v3: labels have no say in the loss or in any gradient."""
    views, labels = batch(generator)
    shuffled = Labels(labels.multi_hot.flip(0), labels.known.flip(0))
    gradients = []
    for given_labels in (labels, shuffled):
        softcon = model(soft_weight=0.0, mask_ratio=0.0)
        out = softcon(views, given_labels, generator)
        out.loss.backward()
        gradients.append([p.grad for p in softcon.student.parameters()])
        assert out.loss.item() == pytest.approx(out.hard.item())

    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bias_belongs_to_bce_and_starts_at_the_logit_of_the_mean():
    """Only bce has a bias; 0.5 starts it at 0, 0.6 at logit(0.6), and 0 or 1 at a finite bound."""
    assert 0.0 == model().bias.item()
    assert math.log(1.5) == pytest.approx(model(mean_similarity=0.6).bias.item(), rel=1e-5)
    assert 5.0 == model(mean_similarity=1.0).bias.item()
    for form in (CE, MSE):
        assert model(soft_form=form).bias is None
        assert not any("bias" in k.split(".")[0] for k in model(soft_form=form).state_dict())


def test_monitors_of_collapse(generator):
    """A collapsed teacher has spread 0 and an own probability of 1/N; a random one spreads wide."""
    views, labels = batch(generator, n=32)
    alive = model(mask_ratio=0.0, head_norm=HeadNorm.NONE)
    dead = model(mask_ratio=0.0, head_norm=HeadNorm.NONE)
    with torch.no_grad():
        dead.teacher.trunk.proj.weight.zero_()
    spread = alive(views, labels, generator).spread.item()
    out = dead(views, labels, generator)

    assert 0 == pytest.approx(out.spread.item(), abs=1e-5)
    assert 1 / 32 == pytest.approx(out.own_probability.item(), rel=1e-4)
    assert spread > 0.05
    assert model()(views, labels, generator).spread.item() == pytest.approx(1, abs=0.2)


def test_it_learns(generator):
    """Sixty steps on images that follow their labels bring the loss well below its start."""
    labels = torch.eye(9)[torch.arange(24) % 4]
    pattern = torch.rand(24, 3, 8, 8, generator=generator) + labels[:, :3, None, None]
    softcon = model(mask_ratio=0.5, tau=0.2)
    optimiser = torch.optim.AdamW([p for p in softcon.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(60):
        noise = torch.randn(2, 24, 3, 8, 8, generator=generator) * 0.1
        out = softcon(
            (pattern + noise[0], pattern + noise[1]), Labels(labels, everything(24)), generator
        )
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        update_teacher(softcon.teacher, softcon.student, momentum_at(step, 60, 0.9))
        losses.append(out.loss.item())

    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
    assert out.own_probability.item() > 3 / 24


def test_settings_out_of_range():
    """Each impossible setting is refused by name."""
    for name, value in (
        ("tau", 0.0),
        ("soft_tau", -1.0),
        ("soft_weight", -0.1),
        ("mask_ratio", 1.0),
        ("hidden", 0),
        ("out", 0),
    ):
        with pytest.raises(ConfigError, match=f"SoftConSettings.{name}"):
            SoftConSettings(**{name: value})


def test_what_cannot_be_trained_is_refused(generator):
    """A batch of one, a trunk that is no module, and a mean similarity above 1 each raise."""
    views, labels = batch(generator, n=2)
    with pytest.raises(TrainingError, match="no negatives"):
        model()((views[0][:1], views[1][:1]), labels, generator)
    with pytest.raises(ConfigError, match=r"nn\.Module"):
        SoftCon(lambda pixels, keep=None: pixels, small(), generator)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        SoftCon(Patches(), small(), generator, mean_similarity=1.2)
