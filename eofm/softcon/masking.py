"""What the student sees of an image: the teacher sees all of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eofm.errors import ConfigError


def keep_tokens(batch: int, tokens: int, ratio: float, generator: torch.Generator) -> Tensor | None:
    """Draw which patches the student sees, uniformly and for each image on its own.

    Dropped, not replaced; the same number K for the whole batch (as in MAE, arXiv 2111.06377).

    Args:
        batch: Number of images, B.
        tokens: Number of patches, P.
        ratio: Share to drop, 0 to below 1.
        generator: Source of randomness; the result is on its device.

    Returns:
        int64 (B, K), K = max(2, floor(P (1 - ratio))), or None if nothing is dropped.

    Raises:
        ConfigError: If the ratio is out of range, or fewer than two patches are there to keep.
    """
    if not 0 <= ratio < 1 or (ratio > 0 and tokens < 2):
        raise ConfigError(
            "the student must drop less than all of at least two patches",
            found=f"mask ratio {ratio} of {tokens} patches",
            expected="0 <= ratio < 1, 2 patches or more",
        )
    if ratio == 0:
        return None
    # 100 (1 - 0.9) is 9.999...98 in binary, and ten patches are meant
    kept = max(2, math.floor(tokens * (1 - ratio) + 1e-9))
    noise = torch.rand(batch, tokens, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :kept]
