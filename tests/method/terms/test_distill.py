"""Distillation of a frozen teacher: the divergence, what it is of, and that it teaches."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from term_small import Frozen, combined, images, train
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import ConfigError
from eofm.method.objectives import CombinedTerms
from eofm.method.terms.distill import (
    DistillForm,
    DistillSettings,
    cosine_loss,
    js_divergence,
    js_loss,
    log_distribution,
)


def slow_js(p: list[float], q: list[float]) -> float:
    """Half of KL(p | m) and half of KL(q | m), by loops, where 0 ln 0 is 0."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        m = (a + b) / 2
        total += (a * math.log(a / m) if a else 0) / 2 + (b * math.log(b / m) if b else 0) / 2
    return total


def slow_loss(z: Tensor, t: Tensor, columns: Tensor, tau_s: float, tau_t: float) -> float:
    """The loss from vectors, by loops."""

    def shares(vector: Tensor, tau: float) -> list[float]:
        votes = [
            math.exp(float(functional.cosine_similarity(vector, c, dim=0)) / tau) for c in columns
        ]
        return [vote / sum(votes) for vote in votes]

    each = [slow_js(shares(b, tau_t), shares(a, tau_s)) for a, b in zip(z, t, strict=True)]
    return sum(each) / len(each)


def test_the_divergence_is_symmetric_zero_at_equality_and_at_most_ln_2(generator):
    """JS(p, q) = JS(q, p); 0 at p = q; ln 2 where they share nothing."""
    p, q = (torch.randn(2, 5, 8, generator=generator, dtype=torch.float64) * 3).log_softmax(2)
    loops = [slow_js(a, b) for a, b in zip(p.exp().tolist(), q.exp().tolist(), strict=True)]

    assert loops == pytest.approx(js_divergence(p, q).tolist(), rel=1e-9)
    assert torch.equal(js_divergence(p, q), js_divergence(q, p))
    assert js_divergence(p, p).abs().max() < 1e-12
    apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).clamp(min=1e-30).log()
    assert math.log(2) == pytest.approx(js_divergence(apart[:1], apart[1:]).item(), rel=1e-6)


@pytest.mark.parametrize(("tau_s", "tau_t"), [(0.1, 0.04), (0.2, 0.2), (1.0, 0.5)])
def test_the_loss_equals_a_slow_loop(tau_s, tau_t, generator):
    """Distributions over a queue and their divergence, by loops over vectors."""
    z, t, columns = (torch.randn(n, 6, generator=generator) for n in (4, 4, 9))
    found = js_loss(z, t, columns, student_tau=tau_s, teacher_tau=tau_t)

    assert slow_loss(z, t, columns, tau_s, tau_t) == pytest.approx(found.item(), rel=1e-4)


def test_a_student_that_is_the_teacher_loses_nothing(generator):
    """The floor is 0, and it is reached at equal temperatures; another image's vector costs."""
    t, columns = torch.randn(4, 6, generator=generator), torch.randn(9, 6, generator=generator)

    same = js_loss(3 * t, t, columns, student_tau=0.1, teacher_tau=0.1)
    other = js_loss(t.roll(1, 0), t, columns, student_tau=0.1, teacher_tau=0.1)
    assert 0 == pytest.approx(same.item(), abs=1e-6)
    assert other.item() > 0.1
    assert 0 == pytest.approx(cosine_loss(3 * t, t).item(), abs=1e-6)
    assert 2 == pytest.approx(cosine_loss(-t, t).item(), rel=1e-6)


def test_empty_places_of_the_queue_do_not_count(generator):
    """Columns that hold nothing yet are as if they were not there, and leave no NaN behind."""
    z, t, columns = (torch.randn(n, 6, generator=generator) for n in (4, 4, 9))
    missing = torch.arange(12) >= 9
    z.requires_grad_()
    with_empty = js_loss(
        z,
        t,
        torch.cat([columns, torch.zeros(3, 6)]),
        student_tau=0.1,
        teacher_tau=0.04,
        missing=missing,
    )
    with_empty.backward()
    plain = js_loss(z, t, columns, student_tau=0.1, teacher_tau=0.04)

    assert plain.item() == pytest.approx(with_empty.item(), rel=1e-6)
    assert torch.isfinite(z.grad).all()
    shares = log_distribution(torch.rand(2, 12, generator=generator), 0.1, missing).exp()
    assert not shares[:, 9:].any()
    assert [1.0, 1.0] == pytest.approx(shares.sum(1).tolist())


def test_only_the_student_gets_a_gradient(generator):
    """Teacher and queue are targets."""
    z, t, columns = (torch.randn(n, 6, generator=generator).requires_grad_() for n in (4, 4, 9))
    loss = js_loss(z, t, columns, student_tau=0.1, teacher_tau=0.04) + cosine_loss(z, t)
    loss.backward()

    assert z.grad.abs().sum() > 0
    assert t.grad is None
    assert columns.grad is None


# ----------------------------------------------------------------------------- as a term


@torch.no_grad()
def same_neighbour(student: nn.Module, teacher: nn.Module) -> float:
    """Share of new images of which both networks find the same nearest other one."""
    (pixels, _), _ = images(torch.Generator().manual_seed(99), 200)
    nearest = []
    for network in (student, teacher):
        unit = functional.normalize(network(pixels), dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-2).argmax(dim=1))
    return float((nearest[0] == nearest[1]).float().mean())


class Elsewhere(Frozen):
    """A teacher that sees other images than the student."""

    def forward(self, pixels):
        return super().forward(pixels.roll(1, 0))


def nearly_blind(teacher: nn.Module, form: str) -> CombinedTerms:
    """A student that sees two of its twelve channels at first, and learns from a teacher."""
    terms = {"distill": {"teacher": "any", "form": form, "queue": 64}}
    method = combined(terms, lambda source: teacher)
    with torch.no_grad():
        method.student.trunk.proj.weight[2:] *= 0.01
    return method


@pytest.mark.parametrize("form", [pytest.param("js", marks=pytest.mark.slow), "cosine"])
def test_a_student_learns_from_a_wider_frozen_teacher(form):
    """Tiny problem: it beats its start, and the same student whose teacher sees other images."""
    teacher = Frozen(20)
    method, control = nearly_blind(teacher, form), nearly_blind(Elsewhere(20), form)
    start = same_neighbour(method.student.trunk, teacher)
    losses = train(method, 60)
    train(control, 60)
    taught = same_neighbour(method.student.trunk, teacher)

    assert method.teacher is None  # no term needs an average: none is made
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert taught > start + 0.2
    assert taught > same_neighbour(control.student.trunk, teacher) + 0.1


def test_every_trained_tensor_gets_a_gradient_and_the_teacher_none(generator):
    """DDP stops at a parameter without one; a frozen teacher stays as it is, to the bit."""
    method = combined({"softcon": 1, "distill": {"teacher": "any", "queue": 32}})
    teacher = method.frozen_of("distill")
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    views, labels = images(generator)
    method(views, labels, generator).loss.backward()

    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    train(method, 2)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_the_queue_holds_the_teachers_vectors_and_only_while_training(generator):
    """Both views of a step are pushed; a checkpoint holds them, and no weight of the teacher."""
    method = combined({"distill": {"teacher": "any", "queue": 64}})
    views, labels = images(generator)
    method.eval()
    method(views, labels, generator)
    queue = method.terms["distill"].queue
    assert not queue.filled.any()
    method.train()
    method(views, labels, generator)

    assert 32 == queue.filled.sum()
    expected = functional.normalize(method.frozen_of("distill")(views[0]), dim=1)
    torch.testing.assert_close(expected, queue.keys[:16])
    state = method.state_dict()
    assert "terms.distill.queue.keys" in state
    assert not any(name.startswith("frozen") for name in state)
    method.load_state_dict(state)


def test_one_view_is_enough_where_the_method_has_one_direction(generator):
    """`symmetric false`: the student sees the first view alone."""
    method = combined({"distill": {"teacher": "any", "queue": 0}}, symmetric=False)
    (one, other), labels = images(generator)

    first = method((one, other), labels, generator).loss
    assert first.item() == method((one, torch.zeros_like(other)), labels, generator).loss.item()


def test_a_term_without_a_named_teacher_says_how_one_is_named():
    """The remedy is run: with the weights named the term is made."""
    with pytest.raises(ConfigError) as caught:
        combined({"distill": 1})

    assert "--method.terms" in caught.value.remedy
    words = caught.value.remedy.split('"')[1]
    made = combined(yaml.safe_load(words))
    assert made.frozen_of("distill") is not None


@pytest.mark.parametrize(
    ("name", "value"), [("teacher_tau", 0.0), ("student_tau", -1.0), ("queue", -1)]
)
def test_settings_out_of_range_are_refused(name, value):
    """Temperatures of 0 and queues below it are named with their place."""
    with pytest.raises(ConfigError, match=f"distill.{name}"):
        combined({"distill": {"teacher": "any", name: value}})


def test_settings_of_a_file_may_be_words():
    """YAML gives text and whole numbers: they become members and floats."""
    method = combined({"distill": {"teacher": "any", "form": "cosine", "student_tau": 1}})

    assert method.terms["distill"].chosen == DistillSettings(
        "any", DistillForm.COSINE, student_tau=1.0
    )
