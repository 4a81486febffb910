"""The control of the prompt probe: mean and deviation of the bands in each patch.

Shapes: B images, C bands, H by W pixels, P patches.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from eofm.bench.models.sources import Identity
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec
from eofm.probes.linear import Scaling

PATCH_STATISTICS: Final = "patchstats"
# Side in pixels of a patch where no encoder says what a patch is.
PATCH_SIDE: Final = 16


@final
class PatchStatistics:
    """Band statistics per patch, in the declared unit, over valid pixels.

    Args:
        name: Name in tables.
        grid: Rows and columns of patches.
    """

    scaling = Scaling.STANDARD
    network = None

    def __init__(self, name: str, grid: tuple[int, int]) -> None:
        self.name, self.grid = name, grid

    def identity(self, spec: ImageSpec) -> Identity:
        """Return that it has neither weights nor a plan: it takes images as they are."""
        rows, columns = self.grid
        about = (
            f"mean and sd of the {len(spec.bands)} bands in {spec.unit}, in {rows} x {columns} "
            "patches"
        )
        return Identity(self.name, True, about, "", "", "", (), ())

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return float32 (B, P, 2 C): means, then deviations.

        A patch without a valid pixel has the mean of those that have one, and no deviation.
        Patches that do not end between pixels share the pixels that they touch, as those of masks
        do.
        """
        valid = imagery.valid[:, None].double()
        kept = torch.where(imagery.valid[:, None], imagery.pixels, 0).double()
        share = adaptive_avg_pool2d(valid, self.grid)
        mean = adaptive_avg_pool2d(kept, self.grid) / share.clamp_min(1e-12)
        square = adaptive_avg_pool2d(kept.square(), self.grid) / share.clamp_min(1e-12)
        there = share > 0
        count = there.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        fill = torch.where(there, mean, 0).sum(dim=(2, 3), keepdim=True) / count
        mean = torch.where(there, mean, fill)
        deviation = torch.where(there, square - mean.square(), 0).clamp_min(0).sqrt()
        return torch.cat([mean, deviation], dim=1).flatten(2).movedim(1, 2).float()

    def embed(self, imagery: Imagery) -> Tensor:
        """Return the mean of the tokens, (B, 2 C)."""
        return self.tokens(imagery).mean(dim=1)

    def check_frozen(self) -> None:
        """Have nothing to check: there is no state."""
