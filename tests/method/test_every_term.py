"""What has to hold of every term, whatever it is: a new file is tested here as it is."""

from __future__ import annotations

import pytest
import torch
from every_term import Results, Training, alone, batch_of, measured, run, work
from torch import multiprocessing

from eofm.errors import ConfigError
from eofm.method.terms import term_names
from eofm.method.terms.seam import TeacherKind, find_term

EVERY = pytest.mark.parametrize("name", term_names())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Results], ...]:
    """What each of two processes made of all terms; torch stops them if a parameter is unused."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, args=(2, folder, term_names()), nprocs=2)
    return tuple(torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2))


@pytest.mark.slow
@EVERY
def test_two_processes_are_one(name: str, two: tuple[dict[str, Results], ...]) -> None:
    """With half of the batch each, and most unlabelled or unmeasured in one: the same steps."""
    whole = run(name)

    for part in two:
        for key, values in whole.items():
            for one, other in zip(values, part[name][key], strict=True):
                # sums in another order are 1e-7 apart at first, and steps on them drift further
                scale = float(one.abs().max()) if one.numel() else 0.0
                assert torch.allclose(one, other, rtol=1e-3, atol=2e-4 * max(scale, 1e-3)), key


@EVERY
def test_a_resumed_run_is_the_run(name: str) -> None:
    """From what a checkpoint holds, in networks that began otherwise: bit for bit."""
    whole = Training(name)
    for number in range(2):
        whole.step(number)
    saved = whole.save()
    expected = [whole.step(number) for number in (2, 3)]

    again = Training(name, seed=1)
    again.load(saved)
    found = [again.step(number) for number in (2, 3)]

    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert expected[0] != expected[1]
    for key, tensor in whole.method.state_dict().items():
        assert torch.equal(tensor, again.method.state_dict()[key]), key


@EVERY
def test_every_parameter_is_reached(name: str) -> None:
    """By a gradient that is finite and, in all but a few scalars, not zero."""
    method = alone(name)
    views, labels = batch_of(name, 0)
    method(views, labels, torch.Generator().manual_seed(0), lambda _: measured(0)).loss.backward()

    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
    assert any(p.grad.abs().max() > 0 for p in method.student.trunk.parameters())  # type: ignore[attr-defined,union-attr]


@EVERY
def test_it_draws_from_its_generator_alone(name: str) -> None:
    """Torch's own random state neither changes a step nor is changed by it."""
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append(Training(name).step(0))
        assert torch.equal(before, torch.get_rng_state())

    assert torch.equal(*losses)


@EVERY
def test_what_it_says_it_needs_is_what_there_is(name: str) -> None:
    """A teacher for those that ask for one, and for no others; numbers to log without gradient."""
    kind, method = find_term(name), alone(name)
    views, labels = batch_of(name, 0)
    output = method(views, labels, torch.Generator().manual_seed(0), lambda _: measured(0))

    needs = kind.needs_of(method.terms[name].chosen)  # type: ignore[union-attr,arg-type]
    assert (needs.teacher is TeacherKind.EMA) == (method.teacher is not None)
    assert kind.about
    assert not any(value.requires_grad for value in output.logged().values())
    assert all(value.ndim == 0 for value in output.logged().values())


def test_a_frozen_teacher_has_to_be_made() -> None:
    """A term without a source of weights is refused when it asks, in one error of eofm."""
    method = alone("softcon")

    with pytest.raises(ConfigError, match="no frozen teacher"):
        method.see(batch_of("softcon", 0)[0], torch.Generator()).frozen(0)
