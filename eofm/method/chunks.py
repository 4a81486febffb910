"""A large batch in the memory of a small one: the trunk sees it chunk by chunk.

The loss needs the embeddings of the whole batch at once, but not the activations behind them. Each
chunk's are thrown away and computed again when its gradient is due (GradCache, arXiv 2101.06983, in
one backward pass): exact, for one more forward pass through the trunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from eofm.errors import ConfigError


def in_chunks(
    look: Callable[[Tensor, Tensor | None], Tensor], pixels: Tensor, keep: Tensor | None, size: int
) -> Tensor:
    """Return what a trunk makes of a batch, (B, D), run `size` images at a time.

    Args:
        look: The trunk; it treats every image on its own (`check_chunks`).
        pixels: (B, C, H, W).
        keep: The patches it sees, (B, K), or None.
        size: Images at a time; 0 for all at once.
    """
    if size == 0 or size >= len(pixels):
        return look(pixels, keep)
    parts = torch.split(pixels, size)
    keeps = [None] * len(parts) if keep is None else torch.split(keep, size)
    return torch.cat([_run(look, *each) for each in zip(parts, keeps, strict=True)])


def _run(
    look: Callable[[Tensor, Tensor | None], Tensor], pixels: Tensor, keep: Tensor | None
) -> Tensor:
    if not torch.is_grad_enabled():
        return look(pixels, keep)
    made: Tensor = checkpoint(look, pixels, keep, use_reentrant=False)
    return made


def check_chunks(trunk: nn.Module, size: int) -> None:
    """Refuse chunks where they would change the result.

    Raises:
        ConfigError: If the trunk has batch norms: they would see one chunk instead of the batch,
            and count it twice.
    """
    if size and any(isinstance(module, _BatchNorm) for module in trunk.modules()):
        raise ConfigError(
            "a network with batch norms cannot see a batch in chunks",
            found=f"trainer.chunk={size} and {type(trunk).__name__}",
            expected="trainer.chunk=0, or a vision transformer",
            where="trainer.chunk",
            remedy="use more devices, a smaller optim.batch, or trainer.accumulate",
        )
