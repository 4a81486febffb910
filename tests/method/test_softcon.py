"""One step of the method: its parts, its gradients, its settings."""

from __future__ import annotations

import math

import pytest
import torch
from softcon_small import TAU, Patches, batch, everything, hard, model, multi_hot, small

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, TrainingError
from eofm.method import (
    CombinedTerms,
    Diagonal,
    Exclude,
    HeadNorm,
    LabelFacts,
    LabelSimilarity,
    Objective,
    SoftBias,
    SoftCon,
    SoftConConfig,
    SoftForm,
    SoftScale,
    cosine_matrix,
    hard_loss,
    label_similarity,
    labelled_pairs,
    momentum_at,
    nearest_columns,
    soft_floor,
    soft_loss,
    update_teacher,
)

COSINE, JACCARD = LabelSimilarity.COSINE, LabelSimilarity.JACCARD
BCE, CE, MSE = SoftForm.BCE, SoftForm.CE, SoftForm.MSE
FORMS = pytest.mark.parametrize("form", list(SoftForm))


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
    softcon = model(soft_form=form, soft_weight=0.7, facts=LabelFacts(mean_similarity=0.6))
    views, labels = batch(generator)
    out = softcon(views, labels, generator)
    similarity = label_similarity(labels.multi_hot, labels.multi_hot, COSINE)
    pairs = labelled_pairs(labels.known, labels.known)
    bias = math.log(0.6 / 0.4)
    hards, softs, floors = [], [], []
    for a, b in ((0, 1), (1, 0)):
        z = softcon.predictor(softcon.student(views[a], out.keep[a]))
        s = cosine_matrix(z, softcon.teacher(views[b]))
        hards.append(hard(s))
        softs.append(soft_loss(s, similarity, pairs, form, tau=TAU, bias=bias).item())
        floors.append(soft_floor(similarity, pairs, form).item())

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
    expected = soft_loss(
        s, similarity, labelled_pairs(labels.known, other.known), BCE, tau=TAU
    ).item()

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

    assert right.soft.item() == careless.soft.item()  # the same numbers enter the same sums


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
    assert math.log(1.5) == pytest.approx(
        model(facts=LabelFacts(mean_similarity=0.6)).bias.item(), rel=1e-5
    )
    assert 5.0 == model(facts=LabelFacts(mean_similarity=1.0)).bias.item()
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


@pytest.mark.slow
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
        ("dim", 0),
    ):
        with pytest.raises(ConfigError, match=f"method.{name}"):
            SoftConConfig(**{name: value})


class NoModule:
    """Looks like a trunk, and has no parameters to train."""

    dim, tokens, block, drops_tokens = 3, 4, 2, True

    def __call__(self, pixels, keep=None):
        return pixels.mean(dim=(2, 3))


def test_what_cannot_be_trained_is_refused(generator):
    """A batch of one, a trunk that is no module, another control, a mean above 1 each raise."""
    views, labels = batch(generator, n=2)
    with pytest.raises(TrainingError, match="no negatives"):
        model()((views[0][:1], views[1][:1]), labels, generator)
    with pytest.raises(ConfigError, match=r"nn\.Module"):
        SoftCon(NoModule(), small(), generator)
    labels_alone = small(objective=Objective.MULTILABEL)
    with pytest.raises(ConfigError, match="CombinedTerms for other terms"):
        SoftCon(Patches(), labels_alone, generator)
    assert CombinedTerms(Patches(), labels_alone, generator, LabelFacts(9))  # what it names
    with pytest.raises(ConfigError, match="from 0 to 1"):
        LabelFacts(mean_similarity=1.2)


# -------------------------------------------------------------------------------- settings


def test_the_soft_term_alone(generator):
    """Weight 0 of the hard term leaves λ times the soft term, and a gradient for every weight."""
    views, labels = batch(generator)
    softcon = model(objective=Objective.SOFT, soft_weight=2.0, facts=LabelFacts(soft_unit=3.0))
    out = softcon(views, labels, generator)
    out.loss.backward()

    assert 6 * out.soft.item() == pytest.approx(out.loss.item(), rel=1e-5)
    assert out.hard.item() > 0
    assert all(p.grad is not None for p in softcon.parameters() if p.requires_grad)


def test_images_with_the_same_labels_are_no_negatives(generator):
    """same-labels leaves out what has the same known set; unlabelled images stay negatives."""
    views, _ = batch(generator)
    labels = Labels(
        multi_hot({1}, {1}, {1, 2}, {3}, {3}, set()), torch.tensor([True] * 5 + [False])
    )
    softcon = model(mask_ratio=0.0, symmetric=False, hard_exclude=Exclude.SAME_LABELS)
    s = cosine_matrix(softcon.predictor(softcon.student(views[0])), softcon.teacher(views[1]))
    excluded = torch.zeros(6, 6, dtype=torch.bool)
    excluded[[0, 1, 3, 4], [1, 0, 4, 3]] = True
    expected = hard_loss(s, torch.arange(6), TAU, excluded).item()

    assert expected == pytest.approx(softcon(views, labels, generator).hard.item(), rel=1e-5)
    assert expected < hard(s)


def test_places_are_left_out_in_the_hard_term_only(generator):
    """same-location removes the other season of a place from the denominator, no pair of S."""
    views, labels = batch(generator)
    placed = Labels(labels.multi_hot, labels.known, places=torch.tensor([0, 1, 0, 2, 3, 4]))
    settings = {"mask_ratio": 0.0, "symmetric": False}
    softcon = model(hard_exclude=Exclude.SAME_LOCATION, **settings)
    s = cosine_matrix(softcon.predictor(softcon.student(views[0])), softcon.teacher(views[1]))
    excluded = torch.zeros(6, 6, dtype=torch.bool)
    excluded[[0, 2], [2, 0]] = True
    out, plain = softcon(views, placed, generator), model(**settings)(views, labels, generator)

    expected = hard_loss(s, torch.arange(6), TAU, excluded).item()
    assert expected == pytest.approx(out.hard.item(), rel=1e-5)
    assert plain.soft.item() == pytest.approx(out.soft.item(), rel=1e-5)


def test_an_image_is_one_with_itself_if_it_is_said_so(generator):
    """Two seasons of other labels: the diagonal of S is theirs, or 1 where both are labelled."""
    views, first = batch(generator)
    second = Labels(first.multi_hot.roll(2, 0), first.known.roll(2, 0))
    settings = {"mask_ratio": 0.0, "symmetric": False, "soft_form": MSE}
    softcon = model(soft_diagonal=Diagonal.ONE, **settings)
    s = cosine_matrix(softcon.predictor(softcon.student(views[0])), softcon.teacher(views[1]))
    similarity = label_similarity(first.multi_hot, second.multi_hot, COSINE).fill_diagonal_(1)
    pairs = labelled_pairs(first.known, second.known)
    expected = soft_loss(s, similarity, pairs, MSE, tau=TAU).item()

    found = softcon(views, (first, second), generator).soft.item()
    assert expected == pytest.approx(found, rel=1e-5)
    assert abs(model(**settings)(views, (first, second), generator).soft.item() - found) > 1e-3


def test_the_local_form_looks_at_near_columns_only(generator):
    """soft_neighbours is the soft term over `nearest_columns`, with its own floor."""
    views, labels = batch(generator)
    softcon = model(mask_ratio=0.0, symmetric=False, soft_neighbours=2)
    s = cosine_matrix(softcon.predictor(softcon.student(views[0])), softcon.teacher(views[1]))
    similarity = label_similarity(labels.multi_hot, labels.multi_hot, COSINE)
    pairs = nearest_columns(s, labelled_pairs(labels.known, labels.known), 2)
    expected = soft_loss(s, similarity, pairs, BCE, tau=TAU).item()
    out = softcon(views, labels, generator)

    assert expected == pytest.approx(out.soft.item(), rel=1e-5)
    floor = soft_floor(similarity, pairs, BCE).item()
    assert expected - floor == pytest.approx(out.soft_excess.item(), rel=1e-4)


def test_bias_and_scale_of_bce(generator):
    """The bias is a parameter, a constant or nothing; the scale starts at 1/τ, learns, ends at 100.

    Neither is decayed: both are single numbers.
    """
    views, labels = batch(generator)
    facts = LabelFacts(mean_similarity=0.6)
    fixed, zero = (model(facts=facts, soft_bias=b) for b in (SoftBias.FIXED, SoftBias.ZERO))
    assert math.log(1.5) == pytest.approx(fixed.bias.item(), rel=1e-5)
    assert zero.bias is None
    assert not any("bias" == name for name, _ in fixed.named_parameters())
    assert "bias" in fixed.state_dict()

    softcon = model(facts=facts, soft_scale=SoftScale.LEARNED, soft_tau=0.25, mask_ratio=0.0)
    plain = model(facts=facts, soft_tau=0.25, mask_ratio=0.0)
    out = softcon(views, labels, generator)
    out.loss.backward()
    assert plain(views, labels, generator).soft.item() == pytest.approx(out.soft.item(), rel=1e-5)
    assert softcon.log_scale.grad.abs() > 0
    assert 0 == softcon.log_scale.ndim == softcon.bias.ndim
    with torch.no_grad():
        softcon.log_scale.fill_(9.0)
    softcon(views, labels, generator)
    assert math.log(100) == pytest.approx(softcon.log_scale.item())


def test_every_similarity_takes_a_step(generator):
    """Each kind of label similarity reaches the loss: four different soft terms, none NaN."""
    views, labels = batch(generator)
    cover = labels.multi_hot * torch.rand(6, 9, generator=generator)
    labels = Labels(labels.multi_hot, labels.known, shares=cover)
    facts = LabelFacts(9, class_weights=tuple(0.2 * c + 0.1 for c in range(9)))
    losses = [
        model(facts=facts, similarity=kind, mask_ratio=0.0)(views, labels, generator).soft.item()
        for kind in LabelSimilarity
    ]

    assert all(math.isfinite(loss) for loss in losses)
    assert 4 == len({round(loss, 4) for loss in losses})
    bare = Labels(labels.multi_hot, labels.known)
    with pytest.raises(TrainingError, match="how much of an image"):
        model(similarity=LabelSimilarity.FRACTION)(views, bare, generator)


def test_settings_that_have_no_use_are_refused():
    """A scale or a bias where the form has none, and two weights of 0."""
    for changes in (
        {"soft_form": CE, "soft_scale": SoftScale.LEARNED},
        {"soft_form": MSE, "soft_bias": SoftBias.ZERO},
        {"objective": Objective.SOFT, "soft_weight": 0.0},
        {"queue": -1},
        {"soft_neighbours": -1},
    ):
        with pytest.raises(ConfigError, match="out of range"):
            SoftConConfig(**changes)
