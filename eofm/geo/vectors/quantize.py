"""Whether vectors become int8, and what is lost by it.

Each dimension is cut into 254 steps between its lowest and its highest value. What that loses is
measured on vectors of the job itself: of the ten nearest neighbours by cosine of a vector in
float32, the share that is among the ten nearest in int8 (recall@10).

Shapes: N vectors, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eofm.geo.vectors.embeddings import Codes, Provenance, Quantization

# From so many vectors on, int8: 384 dimensions take 154 MB in float32, and 38 MB so.
QUANTIZE_FROM: Final = 100_000
NEIGHBOURS: Final = 10
_QUERIES: Final = 200
_AMONG: Final = 10_000  # vectors among which neighbours are looked for


def wants_codes(setting: str, count: int) -> bool:
    """Return whether so many vectors become int8.

    Args:
        setting: auto, none or int8.
        count: Number of vectors.
    """
    return setting == "int8" or (setting == "auto" and count >= QUANTIZE_FROM)


def quantized(
    setting: str,
    count: int,
    parts: Callable[[], Iterable[NDArray[np.float32]]],
    made: Provenance,
) -> tuple[Codes | None, float | None, Provenance]:
    """Return the codes of vectors, their recall@10, and a provenance that says both.

    Args:
        setting: auto, none or int8.
        count: Number of vectors, at least one.
        parts: Yields them all, (n, D), finite; called once for the range and once for the recall.
        made: How they were made; returned as it is where they do not become int8.
    """
    if not wants_codes(setting, count):
        return None, None, made
    codes, step = codes_of(parts()), sample_step(count)
    sample = np.concatenate([part[::step] for part in parts()])
    found = recall(sample, codes) if count > 1 else 1.0
    settings = {**made.settings, "recall_at_10": round(found, 4)}
    return codes, found, replace(made, quantization=Quantization.INT8, settings=settings)


def codes_of(parts: Iterable[NDArray[np.float32]]) -> Codes:
    """Return the codes that span vectors.

    Args:
        parts: (n, D), finite; together at least one vector.
    """
    low: NDArray[np.float32] | None = None
    high: NDArray[np.float32] | None = None
    for part in parts:
        if len(part):
            least, most = part.min(axis=0), part.max(axis=0)
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
    assert low is not None  # noqa: S101 (a job without vectors has ended before)
    assert high is not None  # noqa: S101
    return Codes.between(low, high)


def sample_step(count: int) -> int:
    """Return every how many-th vector is looked at for `recall`."""
    return -(-count // _AMONG)


def recall(vectors: NDArray[np.float32], codes: Codes) -> float:
    """Return recall@10 of the codes against float32: 1 if no neighbour changes.

    Args:
        vectors: (N, D), N at least 2.
        codes: Of int8.
    """
    queries = np.arange(0, len(vectors), -(-len(vectors) // _QUERIES))
    nearest = [_nearest(found, queries) for found in (vectors, codes.decode(codes.encode(vectors)))]
    kept = [len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]
    return float(np.mean(kept))


def _nearest(vectors: NDArray[np.float32], queries: NDArray[np.int64]) -> list[list[int]]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness = unit[queries] @ unit.T
    likeness[np.arange(len(queries)), queries] = -np.inf
    count = min(NEIGHBOURS, len(vectors) - 1)
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    found: list[list[int]] = order.tolist()
    return found
