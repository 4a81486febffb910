"""Which patches the student sees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.errors import ConfigError
from eofm.method import keep_tokens


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    [
        (256, 0.5, 128),
        (256, 0.7, 76),
        (256, 0.75, 64),
        (196, 0.7, 58),
        (64, 0.7, 19),
        (4, 0.9, 2),
        (2, 0.5, 2),
        (100, 0.9, 10),
        (49, 0.985, 2),
    ],
)
def test_how_many_tokens_are_kept(tokens, ratio, kept, generator):
    """max(2, floor(P (1 - r))): never none, also on the grids where a small share rounds to 0."""
    assert (3, kept) == tuple(keep_tokens(3, tokens, ratio, generator).shape)


@given(seed=st.integers(0, 10_000), tokens=st.integers(2, 80), ratio=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_masks_are_valid_and_repeatable(seed, tokens, ratio):
    """Kept patches are distinct, in range, at least two, and the seed decides them alone."""
    keep = keep_tokens(4, tokens, ratio, torch.Generator().manual_seed(seed))
    again = keep_tokens(4, tokens, ratio, torch.Generator().manual_seed(seed))

    assert torch.equal(keep, again)
    assert keep.shape[1] >= 2
    assert all(len(set(row.tolist())) == keep.shape[1] for row in keep)
    assert keep.min() >= 0
    assert keep.max() < tokens


def test_masks_are_uniform_and_differ_between_images(generator):
    """Every patch is kept equally often, and no two images of a batch see the same patches."""
    keep = keep_tokens(4000, 20, 0.75, generator)
    frequency = torch.bincount(keep.flatten(), minlength=20) / 4000

    # standard deviation 0.007 at a share of 0.25: five of them
    assert (frequency - 0.25).abs().max() < 0.035
    sets = {tuple(sorted(row.tolist())) for row in keep_tokens(8, 64, 0.7, generator)}
    assert len(sets) == 8


def test_no_masking_and_impossible_masking(generator):
    """Ratio 0 keeps all and says so; a ratio of 1, or one single patch, is refused."""
    assert keep_tokens(3, 64, 0.0, generator) is None
    assert keep_tokens(3, 1, 0.0, generator) is None
    for tokens, ratio in ((64, 1.0), (64, -0.1), (1, 0.5)):
        with pytest.raises(ConfigError, match="two patches"):
            keep_tokens(3, tokens, ratio, generator)
