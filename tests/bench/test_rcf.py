"""Random convolutional features agree with torchgeo's on the same patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eofm.bench.controls import (
    RandomConvolutions,
    drawn_patches,
    gaussian_control,
    gaussian_filters,
    zca_filters,
)
from eofm.contract.imagery import Imagery
from eofm.datasets.registry import TASKS

rcf = pytest.importorskip("torchgeo.models", reason="torchgeo is an extra")


class Pictures(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Normalised images, as torchgeo's data sets give them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index]}


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    """Forty images of five correlated bands."""
    shared = torch.randn(40, 1, 20, 20, generator=generator)
    return shared + 0.5 * torch.randn(40, 5, 20, 20, generator=generator)


def test_gaussian_features_equal_torchgeo(images: Tensor) -> None:
    """Same seed, same filters, same features."""
    theirs = rcf.RCF(5, features=512, kernel_size=3, bias=-1.0, seed=7, mode="gaussian")

    ours = RandomConvolutions(gaussian_filters(5, seed=7))

    assert torch.equal(theirs.weights, ours.filters)
    assert torch.allclose(theirs(images), ours(images), atol=1e-4)


def test_zca_features_equal_torchgeo(images: Tensor) -> None:
    """Same patches are drawn, whitened alike, and give the same features.

    Filters agree to 1e-3 only: the inverse root of a covariance with eigenvalues down to 1e-3
    amplifies float32 rounding. A feature is the mean over pixels of their response, in which those
    errors average out; given the same filters it agrees to 1e-4.
    """
    theirs = rcf.RCF(
        5,
        features=512,
        kernel_size=3,
        bias=-1.0,
        seed=7,
        mode="empirical",
        dataset=Pictures(images),
    )

    filters = zca_filters(drawn_patches(lambda i: images[i], len(images), seed=7))

    assert torch.allclose(theirs.weights, filters, atol=1e-3, rtol=1e-3)
    given = RandomConvolutions(theirs.weights)
    assert torch.allclose(theirs(images), given(images), atol=1e-4)
    assert torch.allclose(theirs(images), RandomConvolutions(filters)(images), atol=1e-3)


def test_whitening_by_numpy(generator: torch.Generator) -> None:
    """The formula written out: centre, unit norm, covariance, inverse root twice."""
    patches = torch.randn(64, 2, 3, 3, generator=generator)

    found = zca_filters(patches).flatten(1).numpy()

    rows = patches.flatten(1).double().numpy()
    rows = rows - rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    inverse = np.linalg.inv(rows.T @ rows / 64 + 1e-3 * np.eye(18))
    assert np.allclose(rows @ inverse, found, atol=1e-5)


def test_a_flat_patch_gives_no_nan() -> None:
    """A patch of open water has norm 0."""
    patches = torch.zeros(8, 2, 3, 3)
    patches[1:] = torch.randn(7, 2, 3, 3, generator=torch.Generator().manual_seed(1))

    assert torch.isfinite(zca_filters(patches)).all()


def test_seed_zero_is_a_seed() -> None:
    """With torchgeo 0 means "no seed"; here two networks of seed 0 are one."""
    assert torch.equal(gaussian_filters(3, seed=0), gaussian_filters(3, seed=0))
    assert not torch.equal(gaussian_filters(3, seed=0), gaussian_filters(3, seed=1))


def test_the_control_sees_z_scores(generator: torch.Generator) -> None:
    """Its plan ends in z-scores at the images' own size, and its features are 512."""
    spec = TASKS["eurosat"].spec
    control = gaussian_control("rcf", spec, 0, torch.device("cpu"))
    pixels = 2000 + 300 * torch.randn(2, 13, 64, 64, generator=generator)

    features = control.embed(Imagery(pixels, spec, torch.ones(2, 64, 64, dtype=torch.bool)))

    assert (2, 512) == tuple(features.shape)
    identity = control.identity(spec)
    assert identity.control
    assert not any("resize" in line for line in identity.plan)
