"""Rasters as figures: a picture with the names of its colours beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from eofm.report.output import label_of, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE: Final = 900  # pixels of a picture at its longer side, at most
_INCHES: Final = 4.2
_LINE: Final = 0.2  # inches of a line of the legend


@styled
def raster(
    title: str,
    pixels: NDArray[np.float64],
    names: Mapping[str, tuple[float, float, float]] | None = None,
) -> Figure:
    """Draw a picture as large as the others, whatever its size in pixels.

    Args:
        title: Above it.
        pixels: (H, W, 3) in [0, 1]; more than 900 pixels at a side are thinned.
        names: What a colour, (3,) in [0, 1], stands for.
    """
    from matplotlib.patches import Patch

    step = max(1, -(-max(pixels.shape[:2]) // _SIDE))
    shown = pixels[::step, ::step]
    height, width = shown.shape[:2]
    scale = _INCHES / max(height, width)
    lines = 0 if not names else -(-len(names) // 3)
    figure = new_figure(
        max(width * scale, 2.2) + 0.2, max(height * scale, 0.5) + 0.5 + _LINE * lines
    )
    axes = figure.subplots()
    axes.imshow(shown, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(label_of(title, 60))
    if names:
        patches = [
            Patch(facecolor=colour, label=label_of(name, 24)) for name, colour in names.items()
        ]
        figure.legend(handles=patches, loc="outside lower left", ncols=3, fontsize=7.5)
    return figure


def grays(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return values in [0, 1] as grays (H, W, 3); what is not finite is bluish.

    Args:
        values: (H, W).
    """
    gray = np.repeat(values[..., None], 3, axis=2).astype(np.float64).clip(0, 1)
    return np.where(np.isfinite(gray), gray, np.array([0.55, 0.6, 0.75]))
