"""The solver against scikit-learn, against its own definition, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eofm.probes.logistic import Eigenbasis, Loss, fit_logistic


def features(generator: torch.Generator, samples: int, dims: int) -> Tensor:
    """Ill-conditioned features with an offset, as networks make them."""
    x = torch.randn(samples, dims, generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(dims, dims, generator=generator, dtype=torch.float64))
    return (x * torch.logspace(0.5, -1.5, dims)) @ turn + 3


def classes(generator: torch.Generator, x: Tensor, count: int) -> Tensor:
    """Noisy linear labels."""
    clean = (x - x.mean(0)) @ torch.randn(x.shape[1], count, generator=generator).double()
    noise = torch.randn(len(x), count, generator=generator).double()
    return (clean + noise).argmax(dim=1)


def reference(x: Tensor, y: Tensor, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's coefficients (D, K) and intercepts.

    By its Newton solver: its L-BFGS stops, whatever `tol` says, when the objective changes by
    less than 1e-14, which leaves errors of 5e-5 in the coefficients.
    """
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=1000, solver="newton-cg")
    model.fit(x.numpy(), y.numpy())
    return model.coef_.T, model.intercept_


@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(("samples", "dims"), [(120, 10), (30, 50)])
def test_softmax_equals_scikit_learn(
    generator: torch.Generator, strength: float, samples: int, dims: int
) -> None:
    """Coefficients agree to 1e-5 relative, with more samples than features and with fewer."""
    x = features(generator, samples, dims)
    y = classes(generator, x, 4)
    hot = torch.nn.functional.one_hot(y, 4)

    fit = fit_logistic(Eigenbasis.of(x), hot, Loss.SOFTMAX, strength, tolerance=1e-11)

    coefficients, intercepts = reference(x, y, strength)
    assert np.abs(coefficients - fit.weight.numpy()).max() < 1e-5 * np.abs(coefficients).max()
    # softmax leaves a common constant free
    centred = fit.bias - fit.bias.mean()
    assert np.abs(intercepts - intercepts.mean() - centred.numpy()).max() < 1e-4
    assert fit.gradient_norm <= 1e-11


@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_binary_equals_scikit_learn_class_by_class(
    generator: torch.Generator, strength: float
) -> None:
    """Multi-label fits are as many independent problems with the same C."""
    x = features(generator, 150, 12)
    y = torch.stack([classes(generator, x, 2) for _ in range(3)], dim=1)

    fit = fit_logistic(Eigenbasis.of(x), y, Loss.BINARY, strength, tolerance=1e-11)

    for k in range(3):
        coefficients, intercept = reference(x, y[:, k], strength)
        error = np.abs(coefficients[:, 0] - fit.weight[:, k].numpy()).max()
        assert error < 1e-5 * np.abs(coefficients).max()
        assert intercept[0] == pytest.approx(float(fit.bias[k]), abs=1e-4)


@pytest.mark.parametrize("loss", list(Loss))
def test_the_objective_is_the_one_stated(generator: torch.Generator, loss: Loss) -> None:
    """At the solution, autograd finds no slope in the formula of the module's docstring."""
    x = features(generator, 40, 5)
    y = torch.nn.functional.one_hot(classes(generator, x, 3), 3).double()
    fit = fit_logistic(Eigenbasis.of(x), y, loss, 2.0, tolerance=1e-10)
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()

    logits = x @ weight + bias
    if loss is Loss.BINARY:
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        nll = bce(logits, y, reduction="none").mean(dim=0).sum()
    else:
        nll = torch.nn.functional.cross_entropy(logits, y)
    (nll + weight.square().sum() / (2 * 2.0 * len(x))).backward()

    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 1e-9
    assert float(bias.grad.abs().max()) < 1e-9


def test_the_start_does_not_change_the_end(generator: torch.Generator) -> None:
    """The problem is convex: from zero or from another strength, the solution is one."""
    x = features(generator, 80, 9)
    y = torch.stack([classes(generator, x, 2) for _ in range(4)], dim=1)
    basis = Eigenbasis.of(x)
    other = fit_logistic(basis, y, Loss.BINARY, 100.0)

    cold = fit_logistic(basis, y, Loss.BINARY, 0.5, tolerance=1e-11)
    warm = fit_logistic(basis, y, Loss.BINARY, 0.5, start=other.theta, tolerance=1e-11)

    assert torch.allclose(cold.weight, warm.weight, atol=1e-8)


def test_no_worse_than_scikit_learn_on_separable_data(generator: torch.Generator) -> None:
    """With more features than samples and hardly a penalty, our objective is not above theirs."""
    x = features(generator, 40, 60)
    y = classes(generator, x, 3)
    hot = torch.nn.functional.one_hot(y, 3).double()

    fit = fit_logistic(Eigenbasis.of(x), hot, Loss.SOFTMAX, 1e3, tolerance=1e-9, steps=4000)

    def objective(weight: Tensor, bias: Tensor) -> float:
        nll = torch.nn.functional.cross_entropy(x @ weight + bias, y)
        return float(nll + weight.square().sum() / (2 * 1e3 * len(x)))

    theirs = objective(*(torch.from_numpy(part) for part in reference(x, y, 1e3)))
    assert objective(fit.weight, fit.bias) <= theirs * (1 + 1e-6)


def test_out_of_steps_it_says_how_far_it_is(generator: torch.Generator) -> None:
    """Too few steps give the last iterate with a gradient norm that admits it."""
    x = features(generator, 80, 9)
    y = torch.nn.functional.one_hot(classes(generator, x, 3), 3)

    fit = fit_logistic(Eigenbasis.of(x), y, Loss.SOFTMAX, 1e3, tolerance=1e-12, steps=3)

    assert 3 == fit.steps
    assert fit.gradient_norm > 1e-12


def test_threads_are_left_as_they_were(generator: torch.Generator) -> None:
    """Small fits run on one thread; afterwards the setting is the caller's again."""
    before = torch.get_num_threads()
    x = features(generator, 20, 3)

    fit_logistic(Eigenbasis.of(x), torch.arange(20)[:, None] % 2, Loss.BINARY, 1.0)

    assert before == torch.get_num_threads()
