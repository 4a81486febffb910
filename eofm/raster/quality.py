"""A look at an image in files: can its pixels be what is stated of them?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from eofm.contract.imagery import NativeImagery
from eofm.contract.validity import Doubt, doubt_of, doubt_of_type, measured_of
from eofm.raster.grid import Window
from eofm.raster.source import OpenRaster

_SAMPLE: Final = 64  # side of the nine windows that are looked at


def find_doubt(raster: OpenRaster, whole: NativeImagery | None = None) -> Doubt | None:
    """Look at nine small windows of an image, and return why its unit cannot be the stated one.

    Args:
        raster: The image.
        whole: What `raster.read_native()` has read, where it has: nothing is read again.

    Raises:
        RasterError: If a file is damaged.
    """
    unit = raster.unit
    for dtype in raster.dtypes:
        doubt = doubt_of_type(dtype, unit)
        if doubt is not None:
            return doubt
    return doubt_of(_sample(raster, whole), raster.spec())


def _sample(raster: OpenRaster, whole: NativeImagery | None) -> dict[str, Tensor]:
    """Return measured values of each band at its own resolution."""
    step, grid = raster.coarsest, raster.grid
    side = max(step, _SAMPLE // step * step)
    found: dict[str, list[Tensor]] = {band: [] for band in raster.bands}
    for row in _starts(grid.height, side, step):
        for col in _starts(grid.width, side, step):
            window = Window(row, col, min(side, grid.height), min(side, grid.width))
            native = raster.read_native(window) if whole is None else _cut(whole, window)
            for gsd, plane in native.planes.items():
                values = plane[0].float()[:, measured_of(native, gsd)[0]]
                for band, some in zip(native.bands[gsd], values, strict=True):
                    found[band].append(some)
    return {band: torch.cat(parts) for band, parts in found.items()}


def _cut(native: NativeImagery, window: Window) -> NativeImagery:
    """Return a part of an image that starts and ends between pixels of its coarsest band."""
    rows, cols = (
        slice(start, start + length)
        for start, length in ((window.row, window.height), (window.col, window.width))
    )
    planes = {}
    for gsd, plane in native.planes.items():
        step = native.valid.shape[1] // plane.shape[2]
        coarse = (slice(one.start // step, one.stop // step) for one in (rows, cols))
        planes[gsd] = plane[:, :, *coarse]
    spec = replace(native.spec, size=(window.height, window.width))
    return NativeImagery(planes, native.bands, spec, native.valid[:, rows, cols])


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return sorted({start // step * step for start in (0, last // 2, last)})
