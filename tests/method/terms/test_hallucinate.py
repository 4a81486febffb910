"""Positives that no augmentation made."""

from __future__ import annotations

import pytest
import torch
from term_small import combined, images, train

from eofm.errors import ConfigError
from eofm.method import cosine_matrix, hard_loss
from eofm.method.terms.hallucinate import extrapolated


def test_vectors_lie_beyond_the_first_view_and_away_from_the_second(generator):
    """z_1 + a (z_1 - z_2) with one a from 0 to a_max for each image, by loops."""
    first, second = torch.randn(2, 50, 6, generator=generator)
    made = extrapolated(first, second, 0.5, generator)
    steps = (made - first) / (first - second)

    assert 0 <= steps.min()
    assert steps.max() <= 0.5 + 1e-5
    assert torch.allclose(steps, steps[:, :1].expand(-1, 6), atol=1e-3)
    assert 0.25 == pytest.approx(steps[:, 0].mean().item(), abs=0.08)
    assert steps[:, 0].std() > 0.1


def test_without_a_distance_to_go_nothing_is_made(generator):
    """At a_max 0 it is the first view; where both views agree there is nowhere to go."""
    first, second = torch.randn(2, 5, 6, generator=generator)

    assert torch.equal(first, extrapolated(first, second, 0.0, generator))
    assert torch.equal(first, extrapolated(first, first, 1.0, generator))


def test_the_same_source_makes_the_same_vectors(generator):
    """What is drawn comes from the generator alone."""
    first, second = torch.randn(2, 5, 6, generator=generator)
    one, other = (
        extrapolated(first, second, 1.0, torch.Generator().manual_seed(3)) for _ in range(2)
    )

    assert torch.equal(one, other)


# ----------------------------------------------------------------------------- as a term


def test_a_step_is_the_contrast_of_what_was_made(generator):
    """Rebuilt from the networks and the same draws, without a mask and in one direction."""
    terms = {"hallucinate": 1}
    method = combined(terms, mask_ratio=0.0, symmetric=False)
    views, labels = images(generator)
    output = method(views, labels, torch.Generator().manual_seed(4))
    term = method.terms["hallucinate"]
    real = [method.student(view) for view in views]
    made = extrapolated(real[0], real[1], 0.5, torch.Generator().manual_seed(4))
    cosines = cosine_matrix(term.hallucinator(made), method.teacher(views[1]))

    assert hard_loss(cosines, torch.arange(16), 0.2).item() == pytest.approx(
        output.loss.item(), rel=1e-5
    )


def test_it_learns_and_finds_its_own_image():
    """The loss falls, and the own image's probability rises above that of chance, 1 / 16."""
    method = combined({"hallucinate": 1})
    losses = train(method, 40)
    generator = torch.Generator().manual_seed(8)
    views, labels = images(generator)
    output = method(views, labels, generator)

    assert sum(losses[-5:]) < sum(losses[:5])
    assert output.scalars["hallucinate/own_probability"] > 1.5 / 16
    shuffled = method((views[0], views[1].roll(1, 0)), labels, generator)
    assert shuffled.loss > output.loss


def test_every_trained_tensor_gets_a_gradient(generator):
    """Beside softcon, whose masks and forward passes it shares: two student passes, not four."""
    method = combined({"softcon": 1, "hallucinate": 0.5})
    views, labels = images(generator)
    passes = []
    method.student.trunk.register_forward_hook(lambda *_: passes.append(1))
    method(views, labels, generator).loss.backward()

    assert 2 == len(passes)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_no_step_is_no_setting():
    """With a_max 0 there would be no hallucination: refused."""
    with pytest.raises(ConfigError, match="furthest"):
        combined({"hallucinate": {"furthest": 0}})
