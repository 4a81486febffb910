"""Scores of segmentations: scikit-learn on all pixels at once, and what void and absence mean."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from eofm.bench.segmentation import (
    class_iou,
    confusions,
    grouped,
    mean_iou,
    pixel_accuracy,
    resampled_iou,
    resampled_segmentation,
)
from eofm.datasets.images.dense import VOID
from eofm.errors import LabelError
from eofm.probes.bootstrap import bootstrap_interval, once
from eofm.probes.metrics import Metric


@pytest.fixture
def maps(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and masks of six images: some pixels void, class 3 in no mask."""
    said = torch.randint(0, 4, (6, 8, 9), generator=generator)
    true = torch.randint(0, 3, (6, 8, 9), generator=generator)
    agree = torch.rand(6, 8, 9, generator=generator) < 0.6
    true = torch.where(agree & (said < 3), said, true)
    true[torch.rand(6, 8, 9, generator=generator) < 0.2] = VOID
    return said, true


def test_scores_are_those_of_all_labelled_pixels(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Equal to scikit-learn on the concatenated pixels, void ones left out."""
    said, true = maps
    y, z = true[true != VOID].numpy(), said[true != VOID].numpy()
    matrices = confusions(said, true, 4)
    total = matrices.sum(dim=0)

    assert confusion_matrix(y, z, labels=range(4)).tolist() == total.tolist()
    expected = jaccard_score(y, z, labels=[0, 1, 2], average=None)
    assert expected.tolist() == pytest.approx(class_iou(total)[:3].tolist(), abs=1e-12)
    assert expected.mean() == pytest.approx(float(mean_iou(total)), abs=1e-12)
    assert accuracy_score(y, z) == pytest.approx(float(pixel_accuracy(total)), abs=1e-12)


def test_a_class_in_no_mask_is_not_averaged(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    """It has no score, though pixels wrongly called it cost the others."""
    said, true = maps
    iou = class_iou(confusions(said, true, 4).sum(dim=0))

    assert iou[3].isnan()
    assert (said[true != VOID] == 3).any()
    assert float(iou[:3].mean()) == pytest.approx(
        float(mean_iou(confusions(said, true, 4).sum(dim=0)))
    )


def test_void_pixels_count_nowhere(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Whatever is said of them."""
    said, true = maps
    other = torch.where(true == VOID, 3 - said, said)

    assert torch.equal(confusions(said, true, 4), confusions(other, true, 4))


def test_images_are_resampled_not_pixels(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    """A resample's score is that of the images drawn, each as often as it was."""
    said, true = maps
    matrices = confusions(said, true, 4)
    counts = torch.tensor([[2.0, 0, 1, 0, 0, 3]], dtype=torch.float64)
    drawn = [0, 0, 2, 5, 5, 5]
    again = confusions(said[drawn], true[drawn], 4).sum(dim=0)

    for metric, score in ((Metric.MIOU, mean_iou), (Metric.PIXEL_OA, pixel_accuracy)):
        found = resampled_segmentation(matrices, metric)
        assert float(score(again)) == pytest.approx(float(found(counts)), abs=1e-12)
        assert float(score(matrices.sum(dim=0))) == pytest.approx(float(found(once(6))), abs=1e-12)
        interval = bootstrap_interval(found, 6, repeats=100)
        assert interval.low < float(found(once(6))) < interval.high
    assert torch.allclose(class_iou(again)[None], resampled_iou(matrices)(counts), equal_nan=True)


def test_windows_of_one_scene_are_one_sample(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Their matrices are summed; the whole does not change."""
    said, true = maps
    matrices = confusions(said, true, 4)

    found, names = grouped(matrices, ["b", "b", "a", "b", "a", "c"])

    assert ("b", "a", "c") == names
    assert torch.equal(matrices[[0, 1, 3]].sum(dim=0), found[0])
    assert torch.equal(matrices.sum(dim=0), found.sum(dim=0))


def test_what_has_no_score_is_refused() -> None:
    """Other shapes, a class that is none, no labelled pixel at all."""
    mask = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(LabelError, match="size from its mask"):
        confusions(mask[:, :1], mask, 2)
    with pytest.raises(LabelError, match="out of range"):
        confusions(mask + 2, mask, 2)
    with pytest.raises(LabelError, match="no pixel"):
        resampled_segmentation(confusions(mask, mask + VOID, 2), Metric.MIOU)
