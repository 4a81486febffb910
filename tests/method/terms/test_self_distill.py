"""The regulariser that holds a student near a first run's teacher."""

from __future__ import annotations

import pytest
import torch
from term_small import Frozen, combined, images, train

from eofm.errors import ConfigError
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


# ----------------------------------------------------------------------------- as a term


def test_a_weight_of_zero_is_the_run_without_it_bit_for_bit():
    """No teacher is opened, nothing is drawn for it, and every tensor of five steps is the same."""

    def nothing(source):
        raise AssertionError(f"{source} was opened")

    settings = {"weight": 0, "teacher": "runs/first"}
    plain, with_it = combined({"softcon": 1}), combined({"softcon": 1, "self_distill": settings})
    opened = combined({"softcon": 1, "self_distill": settings}, nothing)

    assert train(plain, 5) == train(with_it, 5) == train(opened, 5)
    states = plain.state_dict(), with_it.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())


def test_the_term_holds_the_student_near_the_teacher():
    """With it the vectors of new images end near those of the teacher, without it far away."""
    teacher = Frozen(12, seed=0)  # the student's own start
    (pixels, _), _ = images(torch.Generator().manual_seed(5), 50)
    ends = {}
    for weight in (0, 10):
        terms = {"softcon": 1, "self_distill": {"weight": weight, "teacher": "first"}}
        method = combined(terms, lambda source: teacher)
        train(method, 30)
        with torch.no_grad():
            ends[weight] = squared_distance(method.student.trunk(pixels), teacher(pixels)).item()

    assert ends[10] < 0.5 * ends[0]


def test_the_loss_is_of_whole_views_and_the_mean_of_both(generator):
    """Rebuilt from the networks: no mask, though softcon hides 70 % of the same views."""
    method = combined({"softcon": 1, "self_distill": {"teacher": "first"}}, lambda s: Frozen(12))
    views, labels = images(generator)
    output = method(views, labels, generator)
    teacher = method.frozen_of("self_distill")
    expected = [squared_distance(method.student.trunk(v), teacher(v)).item() for v in views]

    assert sum(expected) / 2 == pytest.approx(output.scalars["self_distill/loss"].item(), rel=1e-6)
    output.loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_a_teacher_of_another_width_is_refused():
    """The squared distance is of one network's vectors; another network has a term of its own."""
    with pytest.raises(ConfigError, match="same network") as caught:
        combined({"self_distill": {"teacher": "wide"}}, lambda source: Frozen(20))

    assert "20" in str(caught.value.found)
    combined({"distill": {"teacher": "wide"}}, lambda source: Frozen(20))
