"""How far cells lie from what a map was trained on.

A read-out gives a class to any vector, also to one like none it has seen. The distance to the
nearest training vector says where that happens. Its limit is the distance that all but one in a
hundred training vectors keep to the nearest vector of another polygon.

Shapes: M training cells, N cells, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.geo.cells import Floats, Index
from eofm.probes.linear import Scaler, Scaling
from eofm.probes.logistic import Eigenbasis

_REFERENCES: Final = 512  # training vectors that are compared with
_DIMENSIONS: Final = 32
_QUANTILE: Final = 0.99
_ROWS: Final = 1 << 12


@dataclass(frozen=True, eq=False)
class Novelty:
    """Training vectors in their principal components.

    Args:
        references: float32 (R, d).
        shift: float32 (D,), subtracted first.
        rotation: float32 (D, d): of standardised vectors on their first components.
        limit: The distance that counts as 1.
    """

    references: Tensor
    shift: Tensor
    rotation: Tensor
    limit: float

    @classmethod
    def of(cls, x: Floats, polygons: Index) -> Novelty:
        """Return the distances from training vectors.

        Args:
            x: (M, D).
            polygons: Of each, (M,); two at least.
        """
        step = max(1, -(-len(x) // _REFERENCES))
        part = torch.from_numpy(np.ascontiguousarray(x[::step]))
        own = torch.from_numpy(np.ascontiguousarray(polygons[::step]))
        scaler = Scaler.of(part, Scaling.STANDARD)
        assert scaler.mean is not None  # noqa: S101 (of STANDARD it is there)
        assert scaler.std is not None  # noqa: S101
        basis = Eigenbasis.of(scaler(part))
        order = basis.energy[:-1].argsort(descending=True)[:_DIMENSIONS]
        rotation = basis.directions[:, order] / scaler.std[:, None]
        references = (part.double() - scaler.mean) @ rotation
        distance = torch.cdist(references, references)
        distance[own[:, None] == own] = torch.inf
        nearest = distance.min(dim=1).values
        nearest = nearest[nearest.isfinite()]
        limit = float(torch.quantile(nearest, _QUANTILE)) if len(nearest) else 0.0
        return cls(references.float(), scaler.mean.float(), rotation.float(), max(limit, 1e-12))

    def __call__(self, vectors: Floats) -> Floats:
        """Return the distance to the nearest training vector over the limit, (N,)."""
        out: NDArray[np.float32] = np.empty(len(vectors), np.float32)
        squares = self.references.square().sum(dim=1)
        for first in range(0, len(vectors), _ROWS):
            part = torch.from_numpy(np.ascontiguousarray(vectors[first : first + _ROWS]))
            z = (part - self.shift) @ self.rotation
            found = torch.addmm(squares, z, self.references.T, alpha=-2).min(dim=1).values
            nearest = (found + z.square().sum(dim=1)).clamp_min(0).sqrt()
            out[first : first + _ROWS] = (nearest / self.limit).numpy()
        return out
