"""The figures at the end of a run show its numbers."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA

from eofm.train.report.result import principal_plane


def test_the_principal_plane_is_scikit_learns(generator: torch.Generator) -> None:
    """Up to sign, the coordinates are those of PCA on the L2-normalised embeddings."""
    x = torch.randn(40, 12, generator=generator) * torch.arange(1, 13)

    ours = principal_plane(x)

    unit = torch.nn.functional.normalize(x.double(), dim=1).numpy()
    theirs = PCA(2).fit_transform(unit)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    assert (ours[np.abs(ours).argmax(axis=0), [0, 1]] > 0).all()
