"""The regulariser that holds a student near a first run's teacher."""

from __future__ import annotations

import pytest
import torch

from eofm.method.terms.self_distill import squared_distance


def test_the_distance_equals_a_slow_loop(generator):
    """Summed over the width, and a mean over images: not a mean over both."""
    f, t = torch.randn(2, 5, 7, generator=generator)
    each = [sum((float(f[i, d]) - float(t[i, d])) ** 2 for d in range(7)) for i in range(5)]

    assert sum(each) / 5 == pytest.approx(squared_distance(f, t).item(), rel=1e-5)
    assert 7 == pytest.approx(squared_distance(torch.ones(3, 7), torch.zeros(3, 7)).item())
    assert 0 == squared_distance(f, f).item()


def test_another_images_target_is_further_away(generator):
    """Control: with the targets of other images a good student is no longer good."""
    t = torch.randn(6, 7, generator=generator)
    near = t + 0.01 * torch.randn(6, 7, generator=generator)

    assert squared_distance(near, t) < 0.01
    assert squared_distance(near, t.roll(1, 0)) > 1


def test_the_gradient_is_the_students_alone(generator):
    """2 (f - t) / B at the student, nothing at the teacher."""
    f, t = (torch.randn(5, 7, generator=generator).requires_grad_() for _ in range(2))
    squared_distance(f, t).backward()

    torch.testing.assert_close(f.grad, 2 * (f - t).detach() / 5)
    assert t.grad is None


def test_half_precision_is_not_summed_in_half_precision():
    """A difference that bfloat16 cannot hold is computed in single precision."""
    f = torch.full((1, 4096), 0.1, dtype=torch.bfloat16)
    found = squared_distance(f, torch.zeros(1, 4096, dtype=torch.bfloat16))

    assert torch.float32 is found.dtype
    assert 4096 * float(f[0, 0]) ** 2 == pytest.approx(found.item(), rel=1e-5)
