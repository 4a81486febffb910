"""Scenes made ready for a network once, where they fit into memory, and embedded many times.

Shapes: N scenes, C bands, S by S pixels, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.store.reader import Store
from eofm.train.datamodule import walk
from eofm.weights.encoder import Encoder

# More than this many bytes of normalised pixels are made anew for every look.
KEPT_BYTES: Final = 256 * 2**20


class Prepared:
    """Scenes as a network takes them.

    Args:
        store: Where they are.
        rows: Which.
        make: Imagery of the store -> normalised pixels (B, C, S, S).
        room: Bytes that may be kept.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int],
        make: Callable[[Imagery], Tensor],
        room: int = KEPT_BYTES,
    ) -> None:
        self._store, self._rows, self._make = store, list(rows), make
        self._room = room
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def embed(self, encoder: Encoder) -> Tensor:
        """Return the embeddings, float32 (N, D), on the CPU."""
        weight = next(encoder.parameters())
        parts = [encoder(pixels.to(weight)).float().cpu() for pixels in self._batches()]
        return torch.cat(parts) if parts else torch.empty(0, encoder.dim)

    @property
    def kept_bytes(self) -> int:
        """Bytes of pixels that are kept."""
        return sum(pixels.nbytes for pixels in self._kept)

    def _batches(self) -> Iterator[Tensor]:
        if self._kept:
            yield from self._kept
            return
        kept: list[Tensor] = []
        for imagery in walk(self._store, self._rows):
            pixels = self._make(imagery).cpu()
            size = pixels[0].nbytes * len(self._rows)
            if size <= self._room:
                kept.append(pixels)
            yield pixels
        self._kept = kept
