"""Images as pictures that can be compared: in a notebook, on sheets, as figures with a legend.

The stretch is that of the sensor, never of the image, so two pictures, and sheets of two data sets,
can be compared. The exception is said wherever it is made: where the fixed stretch leaves an image
blank (snow, glare), the image is stretched between its own percentiles. Where no pixel is valid,
the background of a notebook shows through.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import convert_unit
from eofm.contract.spec import DEFAULT_STATISTICS, STATISTICS, ImageSpec, Sensor, Unit
from eofm.errors import SpecError
from eofm.report.output import label_of, new_figure, styled
from eofm.report.plots import ClassCounts, Floats, draw_frequencies, draw_matrix, draw_places
from eofm.report.tables import fact_rows, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "COMPOSITES",
    "FIXED",
    "NO_NUMBER_COLOUR",
    "Composite",
    "Stretch",
    "Thumb",
    "composite_for",
    "composite_of",
    "contact_sheet",
    "draw_mask",
    "grays",
    "heat",
    "overview",
    "plot",
    "raster",
    "shares_of",
    "stretch_of",
    "stretches",
    "to_html",
    "to_rgb",
    "to_rgba",
]


@dataclass(frozen=True)
class Composite:
    """Three bands as red, green and blue, each stretched between two fixed values.

    Args:
        bands: Red, green, blue. For SAR the third may be `VV-VH`, the ratio in dB.
        low: Values shown as black, in `unit`.
        high: Values shown as white, in `unit`.
        unit: Of the bounds.
    """

    bands: tuple[str, str, str]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    unit: Unit

    @property
    def caption(self) -> str:
        """Bands and stretch in one line."""
        if len(set(self.high)) == 1:
            stretch = f"{self.low[0]:g}..{self.high[0]:g}"
        else:
            stretch = ", ".join(f"{a:g}..{b:g}" for a, b in zip(self.low, self.high, strict=True))
        return f"{' '.join(dict.fromkeys(self.bands))}, {stretch} {self.unit}"


@dataclass(frozen=True)
class Stretch:
    """Part of a composite's range that is shown from black to white.

    Args:
        low: Shown as black in each channel, as shares of the fixed range: 0 is its lower end.
        high: Shown as white, likewise: 1 is its upper end.
    """

    low: tuple[float, float, float] = (0.0, 0.0, 0.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def words(self, composite: Composite) -> str:
        """Return the bounds of the first band in the composite's unit; empty if it is fixed."""
        if self == FIXED:
            return ""
        first, span = composite.low[0], composite.high[0] - composite.low[0]
        low, high = (first + span * shares[0] for shares in (self.low, self.high))
        return f"own stretch: {composite.bands[0]} {low:.4g}..{high:.4g} {composite.unit}"


FIXED: Final = Stretch()
# An image of which more than this share is clipped at one end is blank under the fixed stretch.
_BLANK: Final = 0.5
# Contrast, as a share of the fixed range, below which an image is one tone.
_FLAT: Final = 1e-6
# Side in inches of the matrix on a store's sheet, about.
_MATRIX: Final = 3.1
_SAR: Final = Composite(("VV", "VH", "VV-VH"), (-22.0, -28.0, 0.0), (0.0, -6.0, 16.0), Unit.DB)
_EIGHT_BIT: Final = Composite(("R", "G", "B"), (0, 0, 0), (255, 255, 255), Unit.UINT8)

COMPOSITES: Final[Mapping[Sensor, Composite]] = {
    Sensor.S2_L1C: Composite(("B04", "B03", "B02"), (300, 300, 700), (2800, 2300, 2300), Unit.DN),
    Sensor.S2_L2A: Composite(("B04", "B03", "B02"), (0, 0, 0), (2500, 2500, 2500), Unit.DN),
    Sensor.S1_GRD: _SAR,
    Sensor.S1_RTC: _SAR,
    Sensor.RGB: _EIGHT_BIT,
    Sensor.NAIP: _EIGHT_BIT,
}


def composite_of(sensor: Sensor) -> Composite:
    """Return the sensor's composite."""
    return COMPOSITES[sensor]


# Red, green and blue of a false colour picture, in the order of preference: vegetation is red in
# the first two, soil and water part in the others.
_FALSE: Final = (("B08", "B04", "B03"), ("B8A", "B04", "B03"), ("B12", "B8A", "B04"))


def composite_for(spec: ImageSpec) -> Composite:
    """Return true colours where the bands are there, else false ones, else one band as gray.

    Bands without a defined stretch are shown from mean - 2 std to mean + 2 std of the
    sensor's statistics (`eofm.contract.spec.STATISTICS`).

    Args:
        spec: Of the image.
    """
    true = COMPOSITES[spec.sensor]
    if set(true.bands[0:2]) <= set(spec.bands) and _third_is_there(true, spec.bands):
        if (spec.sensor, spec.unit) == (Sensor.RGB, Unit.REFLECTANCE):
            return Composite(true.bands, (0, 0, 0), (0.25, 0.25, 0.25), Unit.REFLECTANCE)
        return true
    for bands in _FALSE:
        if set(bands) <= set(spec.bands):
            return _by_statistics(spec.sensor, bands)
    return _by_statistics(spec.sensor, (spec.bands[0],) * 3)


def _third_is_there(composite: Composite, bands: tuple[str, ...]) -> bool:
    return set(composite.bands[2].split("-")) <= set(bands)


def _by_statistics(sensor: Sensor, bands: tuple[str, str, str]) -> Composite:
    statistics = STATISTICS[DEFAULT_STATISTICS[sensor]].select(bands)
    pairs = list(zip(statistics.mean, statistics.std, strict=True))
    floor = 0.0 if statistics.unit is not Unit.DB else -np.inf
    low = [max(float(f"{mean - 2 * std:.2g}"), floor) for mean, std in pairs]
    high = [float(f"{mean + 2 * std:.2g}") for mean, std in pairs]
    return Composite(bands, (low[0], low[1], low[2]), (high[0], high[1], high[2]), statistics.unit)


# --------------------------------------------------------------------------- pixels as colours


def to_rgb(
    imagery: Imagery,
    unit: Unit | None = None,
    composite: Composite | None = None,
    stretch: Sequence[Stretch] | None = None,
) -> Tensor:
    """Return (B, H, W, 3) in [0, 1]; invalid pixels are mid gray.

    Args:
        imagery: In physical units, or normalised: then its normalisation is undone first.
        unit: The physical unit under a normalisation; needed with `unit=model` alone.
        composite: Other colours than the sensor's.
        stretch: One per image, of `stretches`; the fixed one of the composite without.

    Raises:
        SpecError: If a band of the composite is missing.
    """
    shares = shares_of(imagery, unit, composite or COMPOSITES[imagery.spec.sensor])
    if stretch is not None:
        low = shares.new_tensor([one.low for one in stretch]).view(-1, 1, 1, 3)
        high = shares.new_tensor([one.high for one in stretch]).view(-1, 1, 1, 3)
        shares = (shares - low) / (high - low)
    rgb = shares.clamp(0, 1)
    return torch.where(imagery.valid[..., None], rgb, torch.full_like(rgb, 0.5))


def stretches(
    imagery: Imagery, unit: Unit | None = None, composite: Composite | None = None
) -> tuple[Stretch, ...]:
    """Return the stretch of each image: the fixed one, or its own where that leaves it blank.

    An image is blank where more than half of its valid pixels are clipped to white in all three
    channels, or to black. In its own stretch each channel runs from its 2nd to its 98th percentile,
    so that snow is white, whatever tint sun and air give it.

    Args:
        imagery: As for `to_rgb`.
        unit: As for `to_rgb`.
        composite: As for `to_rgb`.

    Raises:
        SpecError: If a band of the composite is missing.
    """
    shares = shares_of(imagery, unit, composite or COMPOSITES[imagery.spec.sensor])
    return tuple(
        stretch_of(image[valid]) for image, valid in zip(shares, imagery.valid, strict=True)
    )


def stretch_of(pixels: Tensor) -> Stretch:
    """Return the stretch of valid pixels: see `stretches`.

    Args:
        pixels: (N, 3) in shares of the fixed ranges.
    """
    if not len(pixels):
        return FIXED
    white, black = (pixels >= 1).all(dim=1), (pixels <= 0).all(dim=1)
    if max(float(white.double().mean()), float(black.double().mean())) <= _BLANK:
        return FIXED
    low, high = np.percentile(pixels.cpu().numpy(), [2, 98], axis=0).astype(np.float64)
    if float((high - low).max()) < _FLAT:
        return FIXED  # one tone: no stretch would show more
    high = np.maximum(high, low + _FLAT)
    return Stretch(_three(low), _three(high))


def _three(values: Floats) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue


def shares_of(imagery: Imagery, unit: Unit | None, composite: Composite) -> Tensor:
    """Return (B, H, W, 3): the composite's bands as shares of its range, not clipped.

    Args:
        imagery: As for `to_rgb`.
        unit: As for `to_rgb`.
        composite: Whose bands and bounds.

    Raises:
        SpecError: If a band of the composite is missing.
    """
    spec, pixels = imagery.spec, imagery.pixels
    if spec.normalization is not None:
        shape = (1, -1, 1, 1)
        scale = pixels.new_tensor(spec.normalization.scale).view(shape)
        pixels = pixels * scale + pixels.new_tensor(spec.normalization.shift).view(shape)
        pixels = convert_unit(pixels, unit or composite.unit, composite.unit)
    else:
        pixels = convert_unit(pixels, spec.unit, composite.unit)
    planes = [_plane(pixels, spec.bands, band) for band in composite.bands]
    low, high = pixels.new_tensor(composite.low), pixels.new_tensor(composite.high)
    return (torch.stack(planes, dim=-1) - low) / (high - low)


def _plane(pixels: Tensor, bands: tuple[str, ...], name: str) -> Tensor:
    parts = name.split("-")
    missing = [part for part in parts if part not in bands]
    if missing:
        raise SpecError(
            "a band of the composite is missing",
            found=", ".join(bands),
            expected=name,
            remedy="`composite_for` names a composite that these bands can show",
        )
    first = pixels[:, bands.index(parts[0])]
    return first - pixels[:, bands.index(parts[1])] if len(parts) == 2 else first


def heat(values: Tensor) -> Floats:
    """Return (H, W, 3): values in [0, 1] as colours from dark to light, for any colour vision.

    Args:
        values: (H, W); values that are not finite are dark.
    """
    import matplotlib as mpl

    colours = mpl.colormaps["magma"](values.clamp(0, 1).nan_to_num().numpy())
    return np.asarray(colours[..., :3], np.float64)


def draw_mask(rgb: Tensor, kept: Tensor | None, patch: int) -> Tensor:
    """Return (H, W, 3) with the patches that the student is not given faded to a dark gray.

    Args:
        rgb: (H, W, 3).
        kept: Indices of the kept patches, row by row, or None where all are.
        patch: Side of a patch in pixels; at a border that cuts through some, their rest is one.
    """
    if kept is None:
        return rgb
    height, width = rgb.shape[:2]
    rows, columns = -(-height // patch), -(-width // patch)
    seen = torch.zeros(rows * columns, dtype=torch.bool)
    seen[kept] = True
    cells = seen.view(rows, columns).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    return torch.where(cells[:height, :width, None], rgb, 0.12 * rgb + 0.05)


# ------------------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Thumb:
    """A small picture with two lines above it.

    Args:
        pixels: (H, W, 3), 0 to 1.
        name: Of the image; of a long one the end is shown.
        caption: Its labels, say.
        stretch: Its own stretch in words; empty under the fixed one.
    """

    pixels: Floats
    name: str
    caption: str
    stretch: str = ""


@styled
def contact_sheet(
    columns: Mapping[str, Sequence[Tensor]], captions: Sequence[str], title: str
) -> Figure:
    """Draw one row per image: the image, its views, and the input of the network.

    Args:
        columns: Heading -> one (H, W, 3) picture per row.
        captions: One line per row.
        title: Above the figure.
    """
    width = 2.3
    figure = new_figure(width * len(columns) + 0.4, 2.45 * len(captions) + 0.9)
    axes = figure.subplots(len(captions), len(columns), squeeze=False)
    for column, (heading, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image.numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if row == 0:
                axis.set_title(_wrapped(heading, int(13 * width)), fontsize=8.5)
            if column == 0:
                caption = shorten(captions[row], int(16 * width * len(columns)))
                axis.set_xlabel(caption.replace("$", r"\$"), fontsize=7, loc="left")
    figure.suptitle(label_of(title, int(11 * width * len(columns))), fontsize=9.5)
    return figure


def _wrapped(text: str, length: int) -> str:
    """Break a heading into lines of at most so many characters."""
    lines: list[str] = []
    for word in label_of(text, 4 * length).split():
        if lines and len(lines[-1]) + len(word) < length:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


@styled
def overview(
    title: str,
    places: tuple[Floats, Floats, str],
    counts: ClassCounts | None,
    thumbs: Sequence[Thumb],
    caption: str,
) -> Figure:
    """Draw the contents of a store: locations of its images, their classes, and samples.

    Args:
        title: Above the figure.
        places: Longitudes, latitudes, and a title.
        counts: Of the classes; None without labels.
        thumbs: Some images.
        caption: Above them: bands and stretch.
    """
    per_line = 7
    lines = max(math.ceil(len(thumbs) / per_line), 1)
    classes = 0 if counts is None else len(counts.classes)
    heights = [max(4.4, 2.4 + 0.2 * classes), 0.35 + 2.15 * lines]
    figure = new_figure(13.5, 0.4 + sum(heights))
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=heights)).tolist()
    _draw_upper(upper, places, counts)
    _draw_thumbs(lower, thumbs, lines, per_line)
    own = sum(bool(thumb.stretch) for thumb in thumbs)
    if own:
        caption += (
            f"; * the fixed stretch leaves {own} blank: shown from their own 2nd to 98th percentile"
        )
    lower.suptitle(label_of(caption, 170), fontsize=9, x=0.01, ha="left")
    figure.suptitle(label_of(title, 120), fontsize=12)
    return figure


def _draw_upper(
    part: SubFigure, places: tuple[Floats, Floats, str], counts: ClassCounts | None
) -> None:
    if counts is None or not counts.known:
        draw_places(part.subplots(1, 1), *places)
        return
    where, often, beside = part.subplots(1, 3, width_ratios=[1.2, 1.0, 1.2])
    draw_places(where, *places)
    draw_frequencies(often, counts)
    draw_matrix(beside, counts.classes, counts.beside, _MATRIX / len(counts.classes))
    beside.set_title(
        f"of the {counts.samples} with the row's class,\n% with the column's (gray: none)"
    )


def _draw_thumbs(part: SubFigure, thumbs: Sequence[Thumb], lines: int, per_line: int) -> None:
    axes = list(part.subplots(lines, per_line, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, thumb in zip(axes, thumbs, strict=False):
        axis.set_axis_on()
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.5)
        axis.imshow(thumb.pixels)
        star = "* " if thumb.stretch else ""
        name = shorten(thumb.name, 24, keep_end=True).replace("$", r"\$")
        axis.set_title(f"{star}{name}\n{label_of(thumb.caption)}", fontsize=6.5, loc="center")


# ----------------------------------------------------------------------- in a notebook, and rasters

_SIDE: Final = 256  # pixels of the picture in a notebook


def to_rgba(imagery: Imagery) -> tuple[NDArray[np.uint8], str]:
    """Return one image as (H, W, 4), transparent where pixels are invalid, and its caption.

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
    if imagery.spec.unit is Unit.POWER:  # a power of 0 has no dB
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
    """Draw one image in true or false colours; hatched where pixels are invalid.

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
    """Return a picture of the first image and a table of the batch's properties, for Jupyter."""
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
_BAR: Final = 0.6  # inches of a gray scale with its labels
NO_NUMBER_COLOUR: Final = (0.55, 0.6, 0.75)  # bluish, as no gray is


@styled
def raster(
    title: str,
    pixels: NDArray[np.float64],
    names: Mapping[str, tuple[float, float, float]] | None = None,
    scale: Mapping[float, str] | None = None,
) -> Figure:
    """Draw a picture as large as the others, whatever its size in pixels.

    Args:
        title: Above it.
        pixels: (H, W, 3) in [0, 1]; more than 900 pixels at a side are thinned.
        names: Meaning of each colour, (3,) in [0, 1].
        scale: Labels of the gray scale at 0, black, and 1, white.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Patch

    step = max(1, -(-max(pixels.shape[:2]) // _LONGEST))
    shown = pixels[::step, ::step]
    height, width = shown.shape[:2]
    inches = _INCHES / max(height, width)
    lines = 0 if not names else -(-len(names) // 3)
    figure = new_figure(
        max(width * inches, 2.2) + 0.2,
        max(height * inches, 0.5) + 0.5 + _LINE * lines + (_BAR if scale else 0),
    )
    axes = figure.subplots()
    axes.imshow(shown, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(label_of(title, 60))
    if scale:
        bar = figure.colorbar(
            ScalarMappable(cmap="gray"), ax=axes, location="bottom", shrink=0.8, aspect=30
        )
        bar.set_ticks(list(scale), labels=list(scale.values()))
        bar.outline.set_linewidth(0.4)
    if names:
        patches = [
            Patch(facecolor=colour, label=label_of(name, 24)) for name, colour in names.items()
        ]
        figure.legend(handles=patches, loc="outside lower left", ncols=3, fontsize=7.5)
    return figure


def grays(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return values in [0, 1] as grays (H, W, 3); values that are not finite are bluish.

    Args:
        values: (H, W).
    """
    gray = np.repeat(values[..., None], 3, axis=2).astype(np.float64).clip(0, 1)
    return np.where(np.isfinite(gray), gray, np.array(NO_NUMBER_COLOUR))
