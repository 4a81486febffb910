"""The shapes in the signatures of the method are checked while its tests run."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from eofm.method import LabelSimilarity, cosine_matrix, hard_loss, label_similarity


def test_wrong_shapes_are_noticed() -> None:
    """Embeddings of two widths, an own column too few, and labels of other classes each raise.

    Without the import hook of `pyproject.toml` nothing is checked, and torch would broadcast some
    of it without a word.
    """
    with pytest.raises(jaxtyping.TypeCheckError, match="cosine_matrix"):
        cosine_matrix(torch.rand(3, 8), torch.rand(4, 7))
    with pytest.raises(jaxtyping.TypeCheckError, match="hard_loss"):
        hard_loss(torch.rand(3, 4), torch.arange(2), 0.2)
    with pytest.raises(jaxtyping.TypeCheckError, match="label_similarity"):
        label_similarity(torch.ones(3, 9), torch.ones(3, 1), LabelSimilarity.COSINE)


def test_right_shapes_are_not() -> None:
    """The same calls with shapes that fit."""
    s = cosine_matrix(torch.rand(3, 8), torch.rand(4, 8))

    assert (3, 4) == tuple(s.shape)
    assert hard_loss(s, torch.arange(3), 0.2) > 0
    assert (3, 2) == tuple(
        label_similarity(torch.ones(3, 9), torch.ones(2, 9), LabelSimilarity.COSINE).shape
    )
