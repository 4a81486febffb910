"""The control that predicts the labels: its loss, its masks, and what it does not do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method import (
    CombinedTerms,
    LabelFacts,
    MaskForm,
    Objective,
    SoftConConfig,
    update_teacher,
)
from eofm.method.terms.multilabel import CLASSIFIER, bce_loss
from eofm.method.terms.seam import RandomMask, Side
from eofm.networks.vit import build_vit


def slow_loss(logits: Tensor, labels: Labels) -> float:
    """The oracle: one decision at a time, from the definition of cross entropy."""
    terms = []
    for i in range(len(logits)):
        if not labels.known[i] or labels.multi_hot[i].sum() == 0:
            continue
        for k in range(logits.shape[1]):
            p = 1 / (1 + math.exp(-float(logits[i, k])))
            terms.append(-math.log(p if labels.multi_hot[i, k] else 1 - p))
    return sum(terms) / len(terms) if terms else 0.0


def some_labels(generator: torch.Generator, count: int = 6, classes: int = 3) -> Labels:
    """Random sets; the first image unlabelled, the second with an empty set."""
    hot = (torch.rand(count, classes, generator=generator) < 0.6).float()
    hot[2:, 0] = 1
    hot[:2] = 0
    known = torch.ones(count, dtype=torch.bool)
    known[0] = False
    return Labels(hot, known)


def make(generator: torch.Generator, band_mean: float = 0.0, **changes: object) -> CombinedTerms:
    """A small network for images of 3 bands and 56 pixels."""
    vit = build_vit("vit-tiny-14", 3, (56, 56), generator)
    config = SoftConConfig(objective=Objective.MULTILABEL, **changes)  # type: ignore[arg-type]
    return CombinedTerms(vit, config, generator, LabelFacts(3), band_mean=band_mean)


def kept(method: CombinedTerms, images: Tensor, generator: torch.Generator) -> list[Tensor | None]:
    """What was seen of each view that was classified."""
    seen = method.see((images, images), generator)
    labels = Labels(torch.ones(len(images), 3), torch.ones(len(images), dtype=torch.bool))
    method.terms["multilabel"].loss(seen, labels, generator)
    mask = RandomMask(method.config.mask_ratio)
    return [seen.keep(view, mask) for view in (0, 1) if ("keep", view, mask) in seen._kept]


def test_the_loss_is_that_of_a_loop(generator: torch.Generator) -> None:
    """Unlabelled images and empty sets do not count, and every class weighs the same."""
    for _ in range(5):
        labels = some_labels(generator)
        logits = 2 * torch.randn(6, 3, generator=generator)

        assert slow_loss(logits, labels) == pytest.approx(float(bce_loss(logits, labels)), rel=1e-5)


def test_the_loss_has_its_known_values() -> None:
    """The logarithm of 2 where no answer is preferred; near 0 where it is right and sure."""
    hot = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = Labels(hot, torch.ones(2, dtype=torch.bool))

    assert math.log(2) == pytest.approx(float(bce_loss(torch.zeros(2, 2), labels)))
    assert float(bce_loss(40 * (2 * hot - 1), labels)) < 1e-9


def test_treating_the_unknown_as_absent_would_change_the_loss(generator: torch.Generator) -> None:
    """An unlabelled image that counted as one without classes would be another number."""
    labels, logits = some_labels(generator), torch.randn(6, 3, generator=generator)
    absent = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.multi_hot)

    assert abs(float(absent) - float(bce_loss(logits, labels))) > 1e-3


def test_without_labels_the_loss_is_zero_and_has_a_gradient(generator: torch.Generator) -> None:
    """Every parameter gets one, as distributed training needs."""
    method = make(generator, mask_ratio=0.5)
    images = torch.rand(2, 3, 56, 56, generator=generator)
    labels = Labels(torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool))

    output = method((images, images), labels, generator)
    output.loss.backward()

    assert 0 == float(output.loss.detach())
    assert all(p.grad is not None for p in method.student.parameters())


def test_views_are_masked_as_softcon_masks_them(generator: torch.Generator) -> None:
    """Both views, each with a mask of its own; one of them where SoftCon would use one."""
    images = torch.rand(2, 3, 56, 56, generator=generator)

    both = kept(make(generator, mask_ratio=0.5), images, generator)
    one = kept(make(generator, mask_ratio=0.5, symmetric=False), images, generator)

    assert [(2, 8), (2, 8)] == [tuple(keep.shape) for keep in both if keep is not None]
    assert both[0] is not None
    assert both[1] is not None
    assert not torch.equal(both[0], both[1])
    assert 1 == len(one)


@pytest.mark.parametrize("mask", list(MaskForm))
def test_hidden_patches_do_not_matter(generator: torch.Generator, mask: MaskForm) -> None:
    """What stands where the student does not look leaves the logits as they are."""
    method = make(generator, band_mean=0.5, mask_ratio=0.5, mask=mask).eval()
    images = torch.rand(1, 3, 56, 56, generator=generator)
    mask_of = RandomMask(0.5)
    seen = method.see((images, images), torch.Generator().manual_seed(1))
    logits, keep = seen.project(Side.STUDENT, 0, CLASSIFIER, mask_of), seen.keep(0, mask_of)
    assert keep is not None
    hidden = next(i for i in range(16) if i not in keep[0].tolist())
    row, column = 14 * (hidden // 4), 14 * (hidden % 4)
    images[0, :, row : row + 14, column : column + 14] = 9.0

    again = method.see((images, images), torch.Generator().manual_seed(1))

    assert torch.equal(logits, again.project(Side.STUDENT, 0, CLASSIFIER, mask_of))


def test_seasons_have_labels_of_their_own(generator: torch.Generator) -> None:
    """With two sets of labels each view is judged by its own."""
    method = make(generator, mask_ratio=0.0).eval()
    images = torch.rand(2, 3, 56, 56, generator=generator)
    known = torch.ones(2, dtype=torch.bool)
    first, second = Labels(torch.eye(3)[:2], known), Labels(torch.eye(3)[1:], known)
    logits = method.student(images).detach()

    output = method((images, images), (first, second), generator)

    expected = float(bce_loss(logits, first) + bce_loss(logits, second))
    assert expected == pytest.approx(float(output.loss.detach()))


def test_it_learns(generator: torch.Generator) -> None:
    """Labels that can be read off the pixels are learnt: the loss falls below half of ln 2."""
    method = make(generator, mask_ratio=0.5)
    hot = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    labels = Labels(hot, torch.ones(4, dtype=torch.bool))
    images = hot[:, :, None, None].expand(-1, -1, 56, 56) + 0.1 * torch.randn(
        4, 3, 56, 56, generator=generator
    )
    optimizer = torch.optim.AdamW(method.student.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        output = method((images, images), labels, generator)
        output.loss.backward()
        optimizer.step()

    assert float(output.loss.detach()) / 2 < math.log(2) / 2
    assert float(output.scalars["accuracy"]) > 0.9


def test_the_average_follows_and_looks_at_nothing(generator: torch.Generator) -> None:
    """The exported average moves towards the student; no image runs through it."""
    method = make(generator)
    before = method.teacher.classifier.weight.clone()
    with torch.no_grad():
        method.student.classifier.weight += 1

    update_teacher(method.teacher, method.student, 0.75)

    assert torch.allclose(before + 0.25, method.teacher.classifier.weight, atol=1e-6)
    method.teacher.trunk.register_forward_hook(lambda *_: pytest.fail("the average looked"))
    images = torch.zeros(2, 3, 56, 56)
    method((images, images), some_labels(generator, 2), generator)


def test_nothing_to_predict_is_refused(generator: torch.Generator) -> None:
    """A store without classes has no control of this kind."""
    vit = build_vit("vit-tiny-14", 3, (56, 56), generator)
    with pytest.raises(ConfigError, match="no classes to predict"):
        CombinedTerms(vit, SoftConConfig(objective=Objective.MULTILABEL), generator, LabelFacts(0))
