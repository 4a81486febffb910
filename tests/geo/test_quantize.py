"""What int8 loses is measured, not claimed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from eofm.geo.embeddings import (
    HIDDEN,
    QUANTIZE_FROM,
    Codes,
    codes_of,
    recall,
    sample_step,
    wants_codes,
)


def some(count: int = 400, dim: int = 8) -> np.ndarray:
    """Vectors drawn at random, of which one dimension is a hundred times as wide as the others."""
    vectors = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    vectors[:, 3] *= 100
    return vectors


def neighbours(vectors: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """The ten nearest by cosine, as scikit-learn finds them."""
    found = NearestNeighbors(n_neighbors=11, metric="cosine").fit(vectors)
    near = found.kneighbors(vectors[queries], return_distance=False)
    return [{*map(int, row)} - {int(q)} for row, q in zip(near, queries, strict=True)]


def test_recall_is_that_of_a_plain_search() -> None:
    """recall@10 is the share of scikit-learn's neighbours that the codes keep."""
    vectors = some()
    codes = Codes(np.full(8, 0.5, np.float32), np.zeros(8, np.float32))  # coarse, to lose some
    queries = np.arange(0, 400, 2)

    before = neighbours(vectors, queries)
    after = neighbours(codes.decode(codes.encode(vectors)), queries)
    expected = np.mean([len(a & b) / 10 for a, b in zip(before, after, strict=True)])

    assert 0.1 < expected < 0.99
    assert recall(vectors, codes) == pytest.approx(expected, abs=0.01)


def test_codes_span_each_dimension_by_itself() -> None:
    """The lowest value of each is -127 and the highest 127, from however many parts."""
    vectors = some()

    codes = codes_of([vectors[:100], vectors[100:100], vectors[100:]])
    encoded = codes.encode(vectors)

    assert encoded.min(axis=0).tolist() == [-127] * 8
    assert encoded.max(axis=0).tolist() == [127] * 8
    assert recall(vectors, codes) > 0.9


def test_a_constant_dimension_and_a_hole() -> None:
    """One value in all vectors comes back as it was; where there is no vector, there is none."""
    vectors = np.array([[1.0, 5.0], [2.0, 5.0], [np.nan, 5.0]], np.float32)

    codes = codes_of([vectors[:2]])
    encoded = codes.encode(vectors)

    assert encoded[2].tolist() == [HIDDEN, HIDDEN]
    back = codes.decode(encoded)
    assert np.allclose(back[:2], vectors[:2])
    assert np.isnan(back[2]).all()


def test_when_vectors_become_codes() -> None:
    """From the stated number on, or when asked; a sample of ten thousand is looked at."""
    assert wants_codes("auto", QUANTIZE_FROM)
    assert not wants_codes("auto", QUANTIZE_FROM - 1)
    assert not wants_codes("none", QUANTIZE_FROM)
    assert wants_codes("int8", 1)
    assert (sample_step(10), sample_step(10_000), sample_step(25_000)) == (1, 1, 3)
