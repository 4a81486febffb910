"""Pictures: imagery in a notebook, in fixed colours, and rasters as figures with a legend.

The colours of imagery are those of `eofm.report.sheets`: the stretch is the sensor's, so that two
pictures can be compared; where it leaves the image blank (snow), the image has its own, and the
caption says so. Where nothing was measured, the background shows through.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import Imagery
from eofm.contract.spec import Unit
from eofm.errors import SpecError
from eofm.report.output import label_of, new_figure, styled
from eofm.report.sheets import FIXED, composite_for, stretches, to_rgb
from eofm.report.tables import fact_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_SIDE: Final = 256  # pixels of the picture in a notebook


def to_rgba(imagery: Imagery) -> tuple[NDArray[np.uint8], str]:
    """Return one image as (H, W, 4), transparent where nothing was measured, and its caption.

    Raises:
        SpecError: If it is not one image.
    """
    if len(imagery) != 1:
        raise SpecError(
            "a picture shows one image",
            found=f"{len(imagery)} images",
            remedy="imagery[0] is the first image of a batch",
        )
    shown, composite = imagery, composite_for(imagery.spec)
    if imagery.spec.unit is Unit.POWER:  # there is no dB of no power
        valid = imagery.valid & (imagery.pixels > 0).all(dim=1)
        pixels = torch.where(valid[:, None], imagery.pixels, 1.0)
        shown = Imagery(pixels, imagery.spec, valid, imagery.grids)
    (stretch,) = stretches(shown, composite=composite)
    rgb = to_rgb(shown, composite=composite, stretch=[stretch])[0].cpu()
    alpha = shown.valid[0].cpu()[..., None].to(rgb.dtype)
    colours = (torch.cat([rgb, alpha], dim=-1) * 255).round().to(torch.uint8).numpy()
    share = 1 - float(shown.valid.float().mean())
    own = "" if stretch == FIXED else f"; {stretch.words(composite)}"
    unseen = f"; {share:.1%} not measured" if share else ""
    return colours, f"{composite.caption}{own}{unseen}"


def plot(imagery: Imagery, ax: Axes | None = None) -> Axes:
    """Draw one image in true or false colours; hatched where nothing was measured.

    The axes are the coordinates of its CRS; pixels where it has none, or is rotated.

    Args:
        imagery: B = 1.
        ax: Where to draw it. None makes a figure.

    Raises:
        SpecError: If it is not one image.
    """
    colours, caption = to_rgba(imagery)
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    height, width = colours.shape[:2]
    extent, labels = (0.0, float(width), float(height), 0.0), ("column", "row")
    place = imagery.grid
    if place is not None and place.transform[1] == place.transform[3] == 0:
        (left, top), (right, bottom) = place.point(0, 0), place.point(width, height)
        extent, labels = (left, right, bottom, top), ("x", "y")
    ax.patch.set(facecolor="0.85", hatch="////", edgecolor="0.6")
    ax.imshow(colours, extent=extent, interpolation="nearest")
    ax.set(xlim=extent[:2], ylim=extent[2:], xlabel=labels[0], ylabel=labels[1])
    ax.set_title(caption, fontsize="small")
    ax.ticklabel_format(useOffset=False, style="plain")
    return ax


def to_html(imagery: Imagery) -> str:
    """Return a small picture of the first image and a table of what the batch is, for Jupyter."""
    picture = ""
    if len(imagery):
        data, caption = _png(imagery[0])
        picture = f"<img alt='{html.escape(caption)}' title='{html.escape(caption)}' src='{data}'>"
    return f"<div>{picture}{fact_rows(imagery.facts())}</div>"


def _png(imagery: Imagery) -> tuple[str, str]:
    from matplotlib.image import imsave

    step = max(1, -(-max(imagery.pixels.shape[2:]) // _SIDE))
    small = imagery
    if step > 1:
        pixels = imagery.pixels[:, :, ::step, ::step]
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        spec = replace(imagery.spec, size=size, gsd=imagery.spec.gsd * step)
        small = Imagery(pixels, spec, imagery.valid[:, ::step, ::step])
    colours, caption = to_rgba(small)
    buffer = io.BytesIO()
    imsave(buffer, colours, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), caption


# ------------------------------------------------------------------------------ rasters as figures


_LONGEST: Final = 900  # pixels of a picture at its longer side, at most
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

    step = max(1, -(-max(pixels.shape[:2]) // _LONGEST))
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
