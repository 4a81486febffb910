"""Divisions that papers draw: equal to those of the libraries they used."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from eofm.bench.finetune.trainings import stratified, with_replacement


@pytest.mark.parametrize("classes", [2, 7, 10])
@pytest.mark.parametrize("count", [64, 270, 1001])
def test_stratified_is_scikit_learns(classes: int, count: int) -> None:
    """Image by image and in the same order, also where shares leave a remainder."""
    labels = np.random.default_rng(count).integers(classes, size=count).tolist()

    expected = train_test_split(range(count), test_size=0.2, stratify=labels, random_state=42)

    assert tuple(expected) == stratified(labels)


def test_eurosat_is_divided_as_published() -> None:
    """21,600 and 5,400 of its 27,000 images, a fifth of every class."""
    sizes = [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]
    labels = np.repeat(np.arange(10), sizes).tolist()

    train, test = stratified(labels)

    assert (21_600, 5_400) == (len(train), len(test))
    assert [size // 5 for size in sizes] == np.bincount(np.array(labels)[test]).tolist()
    assert set(range(27_000)) == {*train, *test}


def test_a_tenth_of_bigearthnet_is_less_than_a_tenth() -> None:
    """31,166 draws of 311,667 hit 29,721 different patches: 9.54 %."""
    drawn = with_replacement(311_667, 10)

    assert (31_166, 29_721) == (len(drawn), len(set(drawn)))
