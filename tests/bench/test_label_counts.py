"""How often train holds each class: images, and pixels of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from dense_world import write_floods

from eofm.bench import samples as module
from eofm.bench.features import FeatureCache, digests_of
from eofm.bench.samples import label_counts, load, pixel_counts
from eofm.datasets.sen1floods11 import BenchSen1Floods11Config


def test_images_of_one_and_of_several_classes_are_counted() -> None:
    """A class that no image has counts 0."""
    assert (1, 0, 2) == label_counts(torch.tensor([2, 0, 2]), 3)
    assert (2, 0, 1) == label_counts(torch.tensor([[1, 0, 1], [1, 0, 0]]), 3)


def test_pixels_are_counted_once_and_remembered(tmp_path: Path, monkeypatch) -> None:
    """As numpy counts the masks; void pixels are no class; a second look reads no mask."""
    write_floods(tmp_path / "set", {"train": ["A_1", "A_2"], "valid": ["B_1"], "test": ["C_1"]})
    chips = load(BenchSen1Floods11Config(str(tmp_path / "set"))).chips
    train = chips.splits["train"]
    digests = digests_of(chips.root, {c.id: (*c.pixels, c.mask) for c in train})
    cache = FeatureCache(tmp_path / "cache")

    found = pixel_counts(train, 2, digests, cache)
    every = np.concatenate([chip.mask.read().numpy().ravel() for chip in train])
    monkeypatch.setattr(module, "track", None)  # a second pass over the masks would call it
    again = pixel_counts(train, 2, digests, cache)

    assert [int((every == k).sum()) for k in range(2)] == list(found)
    assert sum(found) < every.size
    assert found == again
