"""Projector and predictor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eofm.method import HeadNorm, prediction_head, projection_head


def test_heads_have_the_published_sizes():
    """19.4 M and 2.1 M weights for ViT-S, no biases, and a last norm without scale and shift."""
    g = torch.Generator()
    projector = projection_head(384, 4096, 256, HeadNorm.BN, g)
    predictor = prediction_head(256, 4096, HeadNorm.BN, g)
    linear = sum(p.numel() for p in projector.parameters() if p.ndim == 2)

    assert 384 * 4096 + 4096 * 4096 + 4096 * 256 == linear
    assert 19.4 == pytest.approx(linear / 1e6, abs=0.05)
    assert 2.1 == pytest.approx(sum(p.numel() for p in predictor.parameters()) / 1e6, abs=0.05)
    assert all(m.bias is None for m in projector if isinstance(m, nn.Linear))
    assert projector[-1].weight is None
    kinds = ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert kinds == [type(m).__name__ for m in projector]


def test_heads_are_drawn_from_their_generator_alone():
    """The seed decides every weight, the range is torch's, the global state is untouched."""
    before = torch.get_rng_state()
    first, again = (
        projection_head(16, 8, 4, HeadNorm.BN, torch.Generator().manual_seed(3)) for _ in range(2)
    )

    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert 0.25 == pytest.approx(first[0].weight.abs().max().item(), abs=0.02)
    assert not torch.equal(first[0].weight[0], first[0].weight[1])


@pytest.mark.parametrize("norm", list(HeadNorm))
def test_head_norms(norm, generator):
    """Outputs have the asked width; bn centres each of them over the batch, ln each image."""
    out = projection_head(6, 8, 5, norm, generator)(torch.randn(32, 6, generator=generator))

    assert (32, 5) == tuple(out.shape)
    if norm is HeadNorm.BN:
        torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    elif norm is HeadNorm.LN:
        torch.testing.assert_close(out.mean(1), torch.zeros(32), atol=1e-5, rtol=0)
