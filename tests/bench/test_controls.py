"""Band statistics by hand and by numpy; the untrained twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eofm.bench.controls import ImageStatistics, image_statistics, random_control
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.eurosat import EUROSAT
from eofm.errors import PixelError
from eofm.probes.features import Scaling, scale
from eofm.probes.knn import knn_scores
from eofm.weights.encoder import Encoder


def imagery(pixels: torch.Tensor, valid: torch.Tensor | None = None) -> Imagery:
    """Radar images of two bands; any values will do."""
    size = (pixels.shape[2], pixels.shape[3])
    spec = ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, size, 10.0)
    mask = torch.ones(len(pixels), *size, dtype=torch.bool) if valid is None else valid
    return Imagery(pixels, spec, mask)


def test_statistics_by_hand() -> None:
    """Mean, unbiased deviation, maximum, minimum: of each band, in that order."""
    pixels = torch.tensor([[[[1.0, 3.0]], [[-2.0, -6.0]]]])

    found = image_statistics(imagery(pixels))

    root = 2**0.5
    assert [2, -4, root, 2 * root, 3, -2, 1, -6] == pytest.approx(found[0].tolist())


def test_statistics_equal_numpy(generator: torch.Generator) -> None:
    """On digital numbers of some thousands, to float32."""
    pixels = 3000 + 500 * torch.randn(3, 2, 16, 16, generator=generator)

    found = image_statistics(imagery(pixels)).numpy()

    flat = pixels.double().numpy().reshape(3, 2, -1)
    parts = [flat.mean(2), flat.std(2, ddof=1), flat.max(2), flat.min(2)]
    assert np.allclose(np.concatenate(parts, axis=1), found, rtol=1e-6)


def test_invalid_pixels_do_not_count(generator: torch.Generator) -> None:
    """A corner of NaN and one of -9999 change nothing, because they are masked."""
    pixels = torch.randn(1, 2, 4, 4, generator=generator)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, 0, :2] = False
    expected = image_statistics(imagery(pixels, valid))
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = torch.nan, -9999.0

    assert torch.equal(expected, image_statistics(imagery(pixels, valid)))
    with pytest.raises(PixelError, match="fewer than two valid pixels"):
        image_statistics(imagery(pixels, torch.zeros(1, 4, 4, dtype=torch.bool)))


def test_standardised_statistics_do_not_care_for_the_unit(generator: torch.Generator) -> None:
    """The features are affine in the pixels: digital numbers and z-scores give equal votes."""
    pixels = 2000 + 300 * torch.randn(60, 2, 8, 8, generator=generator)
    pixels += 200 * torch.randn(60, 2, 1, 1, generator=generator)
    labels = torch.arange(40) % 4
    votes = []
    for shifted in (pixels, (pixels - 1500) / 700):
        features = image_statistics(imagery(shifted))
        train, test = scale(features[:40], Scaling.STANDARD, features[40:])
        votes.append(knn_scores(train, labels, test))

    assert torch.equal(votes[0], votes[1])


def test_imagestats_have_no_weights_and_no_plan() -> None:
    """Their identity says so, and their probe standardises."""
    control = ImageStatistics()
    identity = control.identity(EUROSAT.spec)

    assert identity.control
    assert ("", "", "", ()) == (
        identity.weights_sha256,
        identity.recipe_sha256,
        identity.plan_sha256,
        identity.plan,
    )
    assert Scaling.STANDARD is control.scaling


def test_the_untrained_twin_differs_by_its_seed(encoder: Encoder) -> None:
    """Two seeds are two networks, one seed is one; both are controls."""
    pixels = 2000 + 300 * torch.randn(2, 13, 64, 64, generator=torch.Generator().manual_seed(1))
    images = Imagery(pixels, EUROSAT.spec, torch.ones(2, 64, 64, dtype=torch.bool))

    zero, again, one = (random_control(encoder, seed).embed(images) for seed in (0, 0, 1))

    assert torch.equal(zero, again)
    assert not torch.allclose(zero, one)
    assert random_control(encoder, 0).identity(EUROSAT.spec).control
