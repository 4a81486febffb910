"""The teacher and its momentum."""

from __future__ import annotations

import pytest
import torch

from eofm.method import HeadNorm, make_teacher, momentum_at, projection_head, update_teacher


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
