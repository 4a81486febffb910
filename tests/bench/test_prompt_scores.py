"""What a prompt patch finds: against slow loops, scikit-learn, and tokens that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from eofm.bench.segmentation import (
    BINS,
    NO_CLASS,
    PROMPT_METRICS,
    WIDTH,
    Calibration,
    Contrast,
    add_across,
    add_within,
    calibrate,
    classes_of_patches,
    prompt_metrics,
    prompts_of,
    quantiles,
    resampled_prompt,
)
from eofm.datasets.images.dense import VOID
from eofm.probes.bootstrap import once
from eofm.probes.metrics import Metric


def image(seed: int, noise: float, patches: int = 60, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Unit tokens (P, D) round one direction per class, and the class of each patch."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(NO_CLASS, classes, (patches,), generator=generator)
    centres = torch.eye(8)[:classes]
    tokens = centres[owner.clamp_min(0)] + noise * torch.randn(patches, 8, generator=generator)
    return torch.nn.functional.normalize(tokens, dim=1), owner


def loops(tokens: Tensor, owner: Tensor, prompts: Tensor, label: int) -> list[tuple]:
    """Of each prompt: the similarities with patches of its class, but itself, and of others."""
    found = []
    for p in prompts.tolist():
        s = [float(tokens[p] @ tokens[j]) for j in range(len(tokens))]
        same = [s[j] for j in range(len(s)) if owner[j] == label and j != p]
        other = [s[j] for j in range(len(s)) if owner[j] not in (label, NO_CLASS)]
        found.append((np.array(same), np.array(other)))
    return found


def iou(same: np.ndarray, other: np.ndarray, threshold: float) -> float:
    """Intersection over union of patches at or above a threshold with those of the class."""
    hits, wrong = (same >= threshold).sum(), (other >= threshold).sum()
    return hits / (len(same) + wrong)


@pytest.mark.parametrize("noise", [0.1, 0.6, 3.0])
def test_a_prompt_is_scored_as_a_loop_would(noise: float) -> None:
    """AUROC is scikit-learn's; IoU at a threshold and at the best one is counted by patches."""
    tokens, owner = image(1, noise)
    prompts = prompts_of(owner, "a", 1)

    found = Contrast.within(tokens, owner, prompts, 1)
    assert found is not None
    slow = loops(tokens, owner, prompts, 1)
    auroc = [roc_auc_score([1] * len(s) + [0] * len(o), [*s, *o]) for s, o in slow]
    best = [max(iou(s, o, t - 1e-7) for t in s) for s, o in slow]
    fixed = [iou(s, o, 0.55) for s, o in slow]

    assert 5 == len(prompts)
    assert float(np.mean(auroc)) == pytest.approx(found.auroc(), abs=1e-6)
    assert float(np.mean(best)) == pytest.approx(found.best_iou(), abs=1e-6)
    assert [float(np.mean(fixed))] == pytest.approx(found.iou(torch.tensor([0.55])).tolist())


def test_a_prompt_across_images_sees_no_patch_of_its_own() -> None:
    """All patches of the others count, those of no class aside."""
    tokens, owner = image(1, 0.4)
    others, there = image(2, 0.4)
    prompts = prompts_of(owner, "a", 2)

    found = Contrast.across(tokens[prompts], others, there, 2)

    assert found is not None
    assert (5, int((there == 2).sum())) == found.same.shape
    assert (5, int(((there != 2) & (there != NO_CLASS)).sum())) == found.other.shape
    slow = [
        roc_auc_score((there[there != NO_CLASS] == 2).int(), (others @ tokens[p])[there >= 0])
        for p in prompts
    ]
    assert float(np.mean(slow)) == pytest.approx(found.auroc(), abs=1e-6)
    assert Contrast.across(tokens[prompts], others, torch.where(there == 2, 0, there), 2) is None


def scored(images: list[tuple[Tensor, Tensor]], chosen: Calibration) -> Tensor:
    """Sums of images, one unit each, every one held against the next."""
    sums = torch.zeros(len(images), 3, WIDTH, dtype=torch.float64)
    for n, (tokens, owner) in enumerate(images):
        others, there = images[(n + 1) % len(images)]
        for label in range(3):
            prompts = prompts_of(owner, str(n), label)
            own = Contrast.within(tokens, owner, prompts, label)
            apart = Contrast.across(tokens[prompts], others, there, label)
            if own is not None:
                add_within(sums[n], label, own, chosen)
            if apart is not None:
                add_across(sums[n], label, apart, chosen)
    return sums


def chosen_on(images: list[tuple[Tensor, Tensor]]) -> Calibration:
    """Threshold and bins by some images."""
    pairs = [
        (label, Contrast.within(tokens, owner, prompts_of(owner, "v", label), label))
        for tokens, owner in images
        for label in range(3)
    ]
    known = [(label, one) for label, one in pairs if one is not None]
    return calibrate(known, known, 3)


def values(sums: Tensor) -> dict[Metric, float]:
    """All scores."""
    return {m: float(of(once(len(sums)))) for m, of in prompt_metrics(sums, PROMPT_METRICS).items()}


def test_tokens_of_classes_are_told_apart_and_random_ones_are_not() -> None:
    """Clean tokens: everything is found. Noise: AUROC near one half, histograms nearly the same."""
    clean = values(scored([image(n, 0.02) for n in range(30)], chosen_on([image(99, 0.02)] * 2)))
    calibration = chosen_on([image(n, 1e6, patches=400) for n in range(900, 930)])
    noise = values(scored([image(n, 1e6, patches=400) for n in range(30)], calibration))

    assert 1 == clean[Metric.PROMPT_AUROC] == clean[Metric.ACROSS_AUROC]
    assert clean[Metric.PROMPT_IOU] > 0.99
    assert 1 == clean[Metric.PROMPT_BEST_IOU]
    assert clean[Metric.PROMPT_OVERLAP] < 0.05
    assert 0.5 == pytest.approx(noise[Metric.PROMPT_AUROC], abs=0.02)
    assert 0.5 == pytest.approx(noise[Metric.ACROSS_AUROC], abs=0.02)
    assert noise[Metric.PROMPT_OVERLAP] > 0.93
    assert noise[Metric.ACROSS_OVERLAP] > 0.93


def test_the_order_of_patches_has_no_say() -> None:
    """With every patch of a class a prompt, permuting the grid changes no score."""
    images = [image(n, 0.5, patches=14) for n in range(6)]  # at most five of each class
    images = [one for one in images if torch.bincount(one[1] + 1, minlength=4)[1:].max() <= 5]
    calibration = chosen_on(images)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(3))

    one = values(scored(images, calibration))
    other = values(scored([(t[order], o[order]) for t, o in images], calibration))

    assert len(images) > 1
    assert one == pytest.approx(other)


def test_the_threshold_is_the_best_of_those_tried_on_val() -> None:
    """By the mean over classes of the mean over pairs, as a loop finds it."""
    images = [image(n, 0.5) for n in range(5)]
    known = [
        (label, Contrast.within(tokens, owner, prompts_of(owner, "v", label), label))
        for tokens, owner in images
        for label in range(3)
    ]

    chosen = calibrate(known, [], 3)

    def reached(threshold: float) -> float:
        at = torch.tensor([threshold])
        per_class = [
            np.mean([float(one.iou(at)) for label, one in known if label == k]) for k in range(3)
        ]
        return float(np.mean(per_class))

    scores = dict(chosen.validation)
    assert max(scores.values()) == scores[chosen.threshold]
    for threshold in list(scores)[::40]:
        assert reached(threshold) == pytest.approx(scores[threshold])
    assert torch.equal(chosen.within, chosen.across)


def test_ragged_histograms_of_rare_classes_are_averaged_first() -> None:
    """Noise has an overlap near 1 also where a class has two patches in an image."""
    images = []
    for n in range(40):
        tokens, owner = image(n, 1e6, patches=60)
        (twos,) = torch.nonzero(owner == 2, as_tuple=True)
        owner[twos[2:]] = NO_CLASS
        images.append((tokens, owner))

    found = values(scored(images, chosen_on(images)))

    assert found[Metric.PROMPT_OVERLAP] > 0.88
    assert chosen_on(images).takes_all


def test_bins_hold_equal_masses_of_both_sides() -> None:
    """However many dissimilar patches there are, half of the mass is that of similar ones."""
    generator = torch.Generator().manual_seed(0)
    one = Contrast(
        torch.rand(5, 40, generator=generator).sort(1).values + 1,
        torch.rand(5, 4000, generator=generator).sort(1).values,
    )

    edges = quantiles([one], BINS)
    same, other = one.histograms(edges)

    assert BINS - 1 == len(edges)
    assert same[: BINS // 2].sum() <= 1 / 200  # one of 200 may lie on the edge
    assert 1 / BINS == pytest.approx(((same + other) / 2).mean().item())
    assert ((same + other) / 2).max() < 1.3 / BINS
    assert torch.minimum(same, other).sum() <= 1 / 200


def test_a_patch_belongs_to_a_class_if_it_is_pure_and_labelled() -> None:
    """Three quarters of what is labelled, and at least half of it labelled."""
    mask = torch.zeros(1, 4, 16, dtype=torch.int16)
    mask[0, :, 4:8] = torch.tensor([1, 1, 1, 0], dtype=torch.int16)  # three quarters
    mask[0, :, 8:12] = torch.tensor([1, 1, 0, 0], dtype=torch.int16)  # mixed
    mask[0, :, 12:] = VOID
    mask[0, 0, 12:] = 1  # a quarter is labelled

    assert [[0, 1, NO_CLASS, NO_CLASS]] == classes_of_patches(mask, (1, 4), 2).tolist()


def test_scores_are_means_over_images_then_classes() -> None:
    """A class in one image weighs as much as one in nine; a class without a pair not at all."""
    sums = torch.zeros(10, 3, WIDTH)
    sums[:9, 0, 0] = 1
    sums[:9, 0, 1] = 0.9
    sums[9, 1, 0] = 1
    sums[9, 1, 1] = 0.5

    metric = resampled_prompt(sums, Metric.PROMPT_AUROC)

    assert 0.7 == pytest.approx(float(metric(once(10))))
    without = torch.ones(1, 10, dtype=torch.float64)
    without[0, 9] = 0
    assert 0.9 == pytest.approx(float(metric(without)))
    assert set(PROMPT_METRICS[:4]) == set(prompt_metrics(sums, PROMPT_METRICS))
