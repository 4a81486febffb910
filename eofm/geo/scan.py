"""A score for every cell by one product with its vector: exact, at the speed of the memory.

int8 codes are not decoded. With value = code x scale + offset, for a direction w,

    w · value  = (w scale) · code + w · offset
    |value|²   = scale² · code² + 2 (scale offset) · code + |offset|²

so that a block of codes becomes float32 once, in the cache, and two products do the rest.

Shapes: N cells, D dimensions.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eofm.geo.cells import Cells, ChipCells, Floats
from eofm.geo.vectors.embeddings import Codes

_ROWS: Final = 1024  # of codes at once: 1.5 MB of 384 dimensions as float32, what a cache holds
_LEAST: Final = 1e-30  # of a squared length


def scan(cells: Cells, direction: Floats, bias: float = 0.0, *, cosine: bool) -> Floats:
    """Return the score of every cell, (N,): NaN without a vector.

    Args:
        cells: Chips or patches.
        direction: (D,).
        bias: Added to the product.
        cosine: Whether the product is divided by the lengths of both vectors first.
    """
    if cosine:
        direction = direction / np.linalg.norm(direction)
    scores = np.empty(len(cells.valid), np.float32)
    if isinstance(cells, ChipCells) and cells.chips.codes is not None:
        stored = np.asarray(cells.chips.stored)
        scores[:] = scan_codes(stored, cells.chips.codes, direction, cosine=cosine)
    else:
        for rows, vectors in cells.blocks():
            with np.errstate(invalid="ignore"):
                part = vectors @ direction
                if cosine:
                    squares = np.einsum("nd,nd->n", vectors, vectors)
                    part = part / np.sqrt(np.maximum(squares, _LEAST))
            scores[rows] = part
    scores += bias
    scores[~cells.valid] = np.nan
    return scores


def scan_codes(
    stored: NDArray[np.int8], codes: Codes, direction: Floats, *, cosine: bool
) -> Floats:
    """Return the product of a direction with each decoded row of int8 codes, (N,).

    Args:
        stored: (N, D), also memory-mapped.
        codes: Scale and offset.
        direction: (D,).
        cosine: Whether the product is divided by the length of the row's vector.
    """
    scale, offset = codes.scale.astype(np.float64), codes.offset.astype(np.float64)
    pair = np.stack([direction * scale, 2 * scale * offset], axis=1).astype(np.float32)
    squares = (scale**2).astype(np.float32)
    constant, length = float(direction @ offset), float(offset @ offset)
    out = np.empty(len(stored), np.float32)

    def score(part: slice) -> None:
        buffer = np.empty((_ROWS, stored.shape[1]), np.float32)
        for first in range(part.start, part.stop, _ROWS):
            rows = slice(first, min(first + _ROWS, part.stop))
            block = buffer[: rows.stop - rows.start]
            np.copyto(block, stored[rows])
            products = block @ pair
            products[:, 0] += constant
            if cosine:
                np.multiply(block, block, out=block)
                found = block @ squares + products[:, 1] + length
                products[:, 0] /= np.sqrt(np.maximum(found, _LEAST))
            out[rows] = products[:, 0]

    threads = _threads()
    step = max(_ROWS, -(-len(stored) // threads))
    parts = [slice(a, min(a + step, len(stored))) for a in range(0, len(stored), step)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, parts))
    return out


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 8)
    return min(os.cpu_count() or 1, 8)


def best(scores: Floats, top: int, without: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells of the highest scores, best first; of equals the first cell.

    Args:
        scores: (N,), NaN where there is none.
        top: How many, at most.
        without: Cells that are left out.
    """
    ranked = np.where(np.isfinite(scores), scores, -np.inf)
    ranked[without] = -np.inf
    count = min(top, int(np.isfinite(ranked).sum()))
    if not count:
        return np.zeros(0, np.int64)
    # all that tie with the last one, so that order does not depend on the partition
    least = np.partition(ranked, len(ranked) - count)[len(ranked) - count]
    found = np.flatnonzero(ranked >= least)
    order = np.lexsort((found, -ranked[found]))
    return np.asarray(found[order][:count], np.int64)
