"""Divisions that papers draw by a generator: made again draw for draw, to be compared with them.

The harness itself divides by hashes (`eofm.store.splits`). These depend on the order of the images
and on a library's generator; they serve `--train.faults true` only.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

SEED: Final = 42

_Ints = NDArray[np.int64]


def with_replacement(count: int, share: int) -> list[int]:
    """Return the places that SSL4EO-S12 draws for a share of BigEarthNet: some of them twice.

    Args:
        count: Number of images, N.
        share: Percent.
    """
    drawn = np.random.default_rng(SEED).choice(count, count * share // 100)
    places: list[int] = drawn.tolist()
    return places


def stratified(labels: list[int], test_share: float = 0.2) -> tuple[list[int], list[int]]:
    """Return the places of train and test as scikit-learn's stratified `train_test_split` does.

    With `random_state=42`, for images in the order given: EuroSAT in the scripts of SSL4EO-S12.

    Args:
        labels: Class of each image.
        test_share: Share of test, rounded up to whole images.
    """
    y = np.unique(np.asarray(labels), return_inverse=True)[1]
    counts: _Ints = np.bincount(y)
    n_test = math.ceil(test_share * len(y))
    generator = np.random.RandomState(SEED)
    kept = _shared_out(counts, len(y) - n_test, generator)
    held = _shared_out(counts - kept, n_test, generator)
    parts: tuple[list[_Ints], list[_Ints]] = ([], [])
    for label, (train, test) in enumerate(zip(kept, held, strict=True)):
        order = np.flatnonzero(y == label)[generator.permutation(counts[label])]
        parts[0].append(order[:train])
        parts[1].append(order[train : train + test])
    train_places, test_places = (generator.permutation(np.concatenate(p)) for p in parts)
    return train_places.tolist(), test_places.tolist()


def _shared_out(counts: _Ints, total: int, generator: np.random.RandomState) -> _Ints:
    """Share `total` out over the classes by their counts; what is left goes by the remainders."""
    exact = counts / counts.sum() * total
    whole = np.floor(exact)
    left, rest = int(total - whole.sum()), exact - whole
    for value in np.unique(rest)[::-1]:
        if not left:
            break
        (equal,) = np.where(rest == value)
        chosen = generator.choice(equal, size=min(len(equal), left), replace=False)
        whole[chosen] += 1
        left -= len(chosen)
    shares: _Ints = whole.astype(np.int64)
    return shares
