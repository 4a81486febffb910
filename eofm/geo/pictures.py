"""The picture of a scene on another grid: what lies under vectors."""

from __future__ import annotations

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
from eofm.report.sheets import Composite, composite_for, to_rgb

_PIXELS: Final = 1 << 22  # of the scene, read at once
_SIDE: Final = 96  # pixels of the picture of one cell
_AROUND: Final = 3.0  # sides of the cell that its picture shows
_BLANK: Final = 0.5


def scene_picture(scene: Scene, grid: Grid) -> NDArray[np.float32]:
    """Return a scene in its true colours on a grid, (H, W, 3) in [0, 1]; mid gray outside.

    Each pixel is that of the scene under its centre; the stretch is the sensor's.

    Args:
        scene: The scene.
        grid: Where the picture lies, in any CRS.

    Raises:
        RasterError: If the scene lies nowhere, or a file is damaged.
    """
    composite = composite_for(scene.spec)
    with _shown(scene, composite).open() as opened:
        return _sampled(opened, composite, grid)


def _shown(scene: Scene, composite: Composite) -> Scene:
    """Return a scene with the bands that a composite shows."""
    wanted = {part for name in composite.bands for part in name.split("-")}
    return scene.select([band for band in scene.bands if band in wanted])


def _sampled(opened: OpenScene, composite: Composite, grid: Grid) -> NDArray[np.float32]:
    scene = opened.scene
    rows, cols = np.indices((grid.height, grid.width), np.float64).reshape(2, -1)
    xy = np.stack(_placed(grid, cols + 0.5, rows + 0.5), axis=1)
    at = pixels_of(xy, grid.require_crs(), scene.grid)
    there = np.asarray(np.isfinite(at).all(axis=1), np.bool_)
    col, row = np.floor(np.where(there[:, None], at, -1)).astype(np.int64).T
    there &= (row >= 0) & (col >= 0) & (row < scene.grid.height) & (col < scene.grid.width)
    picture = np.full((grid.height * grid.width, 3), _BLANK, np.float32)
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
            rgb = to_rgb(opened.read(window), composite=composite)[0].numpy()
            picture[mine] = rgb[row[mine] - top, col[mine] - left]
    return picture.reshape(grid.height, grid.width, 3)


def _placed(
    grid: Grid, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t = grid.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def _whole(end: int, step: int, length: int) -> int:
    return min(-(-end // step) * step, length)


def cell_pictures(scene: Scene, cells: Cells, which: Index) -> list[Tensor]:
    """Return a small picture around each of some cells, (96, 96, 3) in [0, 1].

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
        return [
            torch.from_numpy(_sampled(opened, composite, _around(box, cells.crs)))
            for box in bounds.tolist()
        ]


def _around(box: tuple[float, float, float, float], crs: CRS) -> Grid:
    left, bottom, right, top = box
    width, height = (right - left) * _AROUND, (top - bottom) * _AROUND
    x, y = (left + right) / 2 - width / 2, (bottom + top) / 2 + height / 2
    return Grid(crs, Affine(width / _SIDE, 0, x, 0, -height / _SIDE, y), _SIDE, _SIDE)
