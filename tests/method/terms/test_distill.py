"""Distillation of a frozen teacher: the divergence, what it is of, and that it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from eofm.method.terms.distill import cosine_loss, js_divergence, js_loss, log_distribution


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
