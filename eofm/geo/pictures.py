"""The picture of a scene on another grid: what lies under vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from torch import Tensor

from eofm.geo.cells import Cells, Index
from eofm.landcover.polygons import pixels_of
from eofm.raster.grid import Grid, Window
from eofm.raster.scene import OpenScene, Scene
from eofm.report.sheets import Composite, composite_for, shares_of, stretch_of

_PIXELS: Final = 1 << 22  # of the scene, read at once
_SIDE: Final = 96  # pixels of the picture of one cell
_AROUND: Final = 3.0  # sides of the cell that its picture shows
_BLANK: Final = 0.5


@dataclass(frozen=True, eq=False)
class ScenePicture:
    """Colours of a scene.

    Args:
        pixels: (H, W, 3) in [0, 1]; mid gray where nothing was measured, and outside.
        stretch: The stretch in words where it is not the sensor's, else empty.
    """

    pixels: NDArray[np.float32]
    stretch: str


def scene_picture(scene: Scene, grid: Grid) -> ScenePicture:
    """Return a scene in its true colours on a grid.

    Each pixel is that of the scene under its centre. The stretch is the sensor's; where that
    leaves the picture blank (snow), it is the picture's own.

    Args:
        scene: The scene.
        grid: Where the picture lies, in any CRS.

    Raises:
        RasterError: If the scene lies nowhere, or a file is damaged.
    """
    composite = composite_for(scene.spec)
    with _shown(scene, composite).open() as opened:
        shares = _sampled(opened, composite, grid)
    ((pixels,), stretch) = _coloured([shares], composite)
    return ScenePicture(pixels, stretch)


def _coloured(
    shares: Sequence[NDArray[np.float32]], composite: Composite
) -> tuple[list[NDArray[np.float32]], str]:
    """Return pictures of shares of a composite's range, with one stretch for all, in words."""
    flat = np.concatenate([each.reshape(-1, 3) for each in shares])
    own = stretch_of(torch.from_numpy(flat[np.isfinite(flat).all(axis=1)]))
    low = np.array(own.low, np.float32)
    span = np.array(own.high, np.float32) - low
    pictures = [((each - low) / span).clip(0, 1) for each in shares]
    return [np.where(np.isfinite(p), p, np.float32(_BLANK)) for p in pictures], own.words(composite)


def _shown(scene: Scene, composite: Composite) -> Scene:
    """Return a scene with the bands that a composite shows."""
    wanted = {part for name in composite.bands for part in name.split("-")}
    return scene.select([band for band in scene.bands if band in wanted])


def _sampled(opened: OpenScene, composite: Composite, grid: Grid) -> NDArray[np.float32]:
    """Return shares of the composite's range on a grid, (H, W, 3), NaN where nothing was seen."""
    scene = opened.scene
    rows, cols = np.indices((grid.height, grid.width), np.float64).reshape(2, -1)
    xy = np.stack(_placed(grid, cols + 0.5, rows + 0.5), axis=1)
    at = pixels_of(xy, grid.require_crs(), scene.grid)
    there = np.asarray(np.isfinite(at).all(axis=1), np.bool_)
    col, row = np.floor(np.where(there[:, None], at, -1)).astype(np.int64).T
    there &= (row >= 0) & (col >= 0) & (row < scene.grid.height) & (col < scene.grid.width)
    picture = np.full((grid.height * grid.width, 3), np.nan, np.float32)
    if not there.any():
        return picture.reshape(grid.height, grid.width, 3)
    step = scene.step
    left = int(col[there].min()) // step * step
    width = _whole(int(col[there].max()) + 1, step, scene.grid.width) - left
    height = max(_PIXELS // max(width, 1) // step, 1) * step
    first, last = int(row[there].min()) // step * step, int(row[there].max())
    for top in range(first, last + 1, height):
        mine = there & (row >= top) & (row < top + height)
        if mine.any():
            window = Window(top, left, min(height, scene.grid.height - top), width)
            imagery = opened.read(window)
            seen = imagery.valid[..., None]
            shares = torch.where(seen, shares_of(imagery, None, composite), torch.nan)[0].numpy()
            picture[mine] = shares[row[mine] - top, col[mine] - left]
    return picture.reshape(grid.height, grid.width, 3)


def _placed(
    grid: Grid, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t = grid.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def _whole(end: int, step: int, length: int) -> int:
    return min(-(-end // step) * step, length)


def cell_pictures(scene: Scene, cells: Cells, which: Index) -> tuple[list[Tensor], str]:
    """Return a small picture around each of some cells, (96, 96, 3) in [0, 1], and their stretch.

    All have one stretch, so that they can be compared: the sensor's, or where that leaves them
    blank one of their own, in words; they are empty for the sensor's.

    Args:
        scene: The scene under the cells.
        cells: Chips or patches.
        which: Their numbers.

    Raises:
        RasterError: If the scene lies nowhere, or a file is damaged.
    """
    import shapely

    bounds = shapely.bounds(cells.outlines(which))
    composite = composite_for(scene.spec)
    with _shown(scene, composite).open() as opened:
        shares = [_sampled(opened, composite, _around(box, cells.crs)) for box in bounds.tolist()]
    pictures, stretch = _coloured(shares, composite)
    return [torch.from_numpy(picture) for picture in pictures], stretch


def _around(box: tuple[float, float, float, float], crs: CRS) -> Grid:
    left, bottom, right, top = box
    width, height = (right - left) * _AROUND, (top - bottom) * _AROUND
    x, y = (left + right) / 2 - width / 2, (bottom + top) / 2 + height / 2
    return Grid(crs, Affine(width / _SIDE, 0, x, 0, -height / _SIDE, y), _SIDE, _SIDE)
