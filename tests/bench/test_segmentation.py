"""The linear layer on patches: against a fit of every pixel, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eofm.bench.segmentation import (
    PatchHead,
    class_shares,
    evaluate,
    fit_head,
    mean_iou,
    picked,
    segment,
)
from eofm.datasets.images.dense import VOID
from eofm.errors import LabelError, PixelError

GRID = (4, 4)


def scenes(count: int, seed: int, noise: float = 0.6) -> tuple[Tensor, Tensor]:
    """Tokens (N, 16, 5) that speak of masks (N, 16, 16) of three classes, with noise."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, 4, 4), generator=generator)
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    flip = torch.rand(masks.shape, generator=generator) < 0.15
    masks = torch.where(flip, torch.randint(0, 3, masks.shape, generator=generator), masks)
    shares, _ = class_shares(masks, GRID, 3)
    basis = torch.randn(3, 5, generator=generator)
    tokens = shares @ basis + noise * torch.randn(count, 16, 5, generator=generator)
    return tokens * 3 + 1, masks


def test_shares_are_those_of_the_labelled_pixels() -> None:
    """Void pixels do not dilute a class; patches without a labelled pixel have none."""
    mask = torch.full((1, 4, 6), VOID)
    mask[0, :2, :3] = torch.tensor([[0, 0, 1], [1, 1, VOID]])
    mask[0, 2:, 3:] = 2

    shares, known = class_shares(mask, (2, 2), 3)

    assert [2 / 5, 3 / 5, 0] == pytest.approx(shares[0, 0].tolist())
    assert [5 / 6, 0, 0, 1] == pytest.approx(known[0].tolist())
    assert [0, 0, 1] == shares[0, 3].tolist()
    assert 0 == float(shares[0, 1].sum())


def test_training_patches_are_spread_and_always_the_same() -> None:
    """At most as many as asked for, of labelled ones, another choice in another image."""
    known = torch.ones(256)
    known[:64] = 0.4

    found = picked("a", known, 48)

    assert 48 == len(found) == len(found.unique())
    assert found.min() >= 64
    assert torch.equal(found, picked("a", known, 48))
    assert not torch.equal(found, picked("b", known, 48))
    per_quarter = torch.histc(found.float(), 3, 64, 256)
    assert per_quarter.min() >= 12  # an even share would be 16
    assert 192 == len(picked("a", known, 10_000))


def test_shares_fit_what_single_pixels_would() -> None:
    """The optimum is that of scikit-learn on every pixel with its patch's token."""
    tokens, masks = scenes(12, seed=1)
    val_tokens, val_masks = scenes(4, seed=1)
    shares, _ = class_shares(masks, GRID, 3)
    x, y = tokens.flatten(0, 1), shares.flatten(0, 1)

    fit = fit_head(x, y, lambda: [(val_tokens, val_masks)], GRID, standard=False)

    pixels = x.repeat_interleave(16, 0).double().numpy()
    cells = masks.unflatten(1, (4, 4)).unflatten(3, (4, 4)).permute(0, 1, 3, 2, 4)
    labels = cells.reshape(-1).numpy()
    # C of the mean loss over patches is that of the sum over pixels, 16 of them to a patch
    slow = LogisticRegression(C=fit.strength / 16, tol=1e-10, max_iter=10_000).fit(pixels, labels)
    difference = fit.head.weight - fit.head.weight.mean(dim=1, keepdim=True)
    expected = slow.coef_ - slow.coef_.mean(axis=0)
    assert np.allclose(difference.numpy(), expected.T, atol=2e-3)
    assert fit.gradient_norm < 1e-6
    assert "dense-linear[lbfgs,C11,val,norefit,none,192 patches]" == fit.probe
    assert not fit.on_edge


def test_the_strength_is_chosen_by_pixels_of_val() -> None:
    """The best of the grid by mean IoU; the smaller of equal ones."""
    tokens, masks = scenes(12, seed=2)
    val = scenes(6, seed=2, noise=2)
    shares, _ = class_shares(masks, GRID, 3)

    fit = fit_head(tokens.flatten(0, 1), shares.flatten(0, 1), lambda: [val], GRID, standard=True)

    scores = dict(fit.validation)
    assert max(scores.values()) == scores[fit.strength]
    assert fit.strength == min(c for c, score in scores.items() if score == scores[fit.strength])
    (matrices,) = evaluate([fit.head], lambda: [val], GRID, 3)
    assert float(mean_iou(matrices.sum(dim=0))) == pytest.approx(scores[fit.strength], abs=0.01)


def test_standardising_changes_nothing_but_the_penalty() -> None:
    """Tokens in another unit give the same segmentation: the head takes them unscaled."""
    tokens, masks = scenes(12, seed=3)
    shares, _ = class_shares(masks, GRID, 3)
    unit = torch.tensor([1.0, 1e3, 1e-3, 7, 0.1])

    def fitted(factor: Tensor) -> tuple[PatchHead, Tensor]:
        x = tokens * factor
        val = [(x[:3], masks[:3])]
        fit = fit_head(x.flatten(0, 1), shares.flatten(0, 1), lambda: val, GRID, standard=True)
        return fit.head, segment(fit.head, x, GRID, masks)

    (_, plain), (_, scaled) = fitted(torch.ones(5)), fitted(unit)

    assert (plain == scaled).float().mean() > 0.999


def test_logits_are_interpolated_before_the_largest_wins() -> None:
    """Between two patches the border lies where their logits cross, not where a patch ends."""
    head = PatchHead(torch.tensor([[1.0, -1.0]]), torch.zeros(2), torch.tensor([0, 1]))
    tokens = torch.tensor([[[3.0], [-1.0]]])  # centres at columns 1.5 and 5.5 of 8

    found = segment(head, tokens, (1, 2), torch.zeros(1, 4, 8))

    # 3 - (x - 1.5) = 0 at x = 4.5: columns 0..4 are class 0
    assert [0, 0, 0, 0, 0, 1, 1, 1] == found[0, 0].tolist()
    assert (1, 4, 8) == tuple(found.shape)


def test_classes_that_no_patch_has_are_never_said() -> None:
    """A class absent from train has no weights; the others keep their names."""
    tokens, masks = scenes(12, seed=4)
    masks = torch.where(masks == 1, VOID, masks)
    shares, known = class_shares(masks, GRID, 3)
    there = known.flatten() >= 0.5
    x, y = tokens.flatten(0, 1)[there], shares.flatten(0, 1)[there]

    fit = fit_head(x, y, lambda: [(tokens, masks)], GRID, standard=False)

    assert [0, 2] == fit.head.classes.tolist()
    assert {0, 2} == set(segment(fit.head, tokens, GRID, masks).unique().tolist())


def test_what_cannot_be_fitted_is_refused() -> None:
    """One class alone; tokens that are no numbers."""
    tokens, masks = scenes(4, seed=5)
    shares, _ = class_shares(torch.zeros_like(masks), GRID, 3)
    with pytest.raises(LabelError, match="fewer than two"):
        fit_head(tokens.flatten(0, 1), shares.flatten(0, 1), list, GRID, standard=False)
    shares, _ = class_shares(masks, GRID, 3)
    with pytest.raises(PixelError, match="not finite"):
        fit_head(tokens.flatten(0, 1) * torch.inf, shares.flatten(0, 1), list, GRID, standard=False)
