"""Preprocessing of images to network input: `plan()` and `Preprocess`.

This is the only code that selects bands, converts units, resizes or normalises. `plan(spec,
recipe)` is a pure function: it returns the only valid list of steps, or raises `SpecMismatch`.
`Preprocess` applies the steps to a batch, on the device of the batch.

A wrong size, normalisation, band order or unit changes scores more than a typical published
improvement (arXiv 2305.13456), so each is an error here. An exception is a `Waiver`, which has a
reason, is printed with every result, and is itself an error if it is not needed.

Shapes: B images, C bands, H by W pixels.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor, nn

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.recipe import (
    AcceptPixels,
    AcceptScale,
    AcceptSensor,
    AcceptSize,
    FillBand,
    Kernel,
    Recipe,
    ResizeOrder,
    Waiver,
)
from eofm.contract.shapes import Bool, Float
from eofm.contract.spec import BANDS, ImageSpec, Normalization, Sensor, Unit
from eofm.contract.validity import check_finite
from eofm.errors import MismatchKind, PixelError, SpecError, SpecMismatch

__all__ = [
    "ConvertUnit",
    "FillInvalid",
    "InsertBands",
    "Normalize",
    "Plan",
    "Preprocess",
    "Resize",
    "SelectBands",
    "Step",
    "convert_unit",
    "normalize",
    "plan",
    "resize",
    "to_grid",
]

# ------------------------------------------------------------------------------ steps


@dataclass(frozen=True)
class SelectBands:
    """Select bands by name; `indices` are their positions in the source."""

    bands: tuple[str, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FillInvalid:
    """Replace invalid pixels by the band's mean over the valid pixels of the same image.

    A constant such as DN 0 would be an extreme value after normalisation (0.38 of [0, 1] in
    B10), and resizing would smear it over its neighbours.
    """


@dataclass(frozen=True)
class ConvertUnit:
    """Convert between units of the same sensor."""

    source: Unit
    target: Unit


@dataclass(frozen=True)
class Resize:
    """Resample to `size`."""

    size: tuple[int, int]
    kernel: Kernel
    antialias: bool


@dataclass(frozen=True)
class Normalize:
    """Shift, scale, clip and round according to the normalization."""

    normalization: Normalization


@dataclass(frozen=True)
class InsertBands:
    """Insert constant channels, so that the output has all `bands` of the recipe, in order."""

    bands: tuple[str, ...]
    fills: tuple[tuple[str, float], ...]


Step = SelectBands | FillInvalid | ConvertUnit | Resize | Normalize | InsertBands

_VERBS: Final[Mapping[type[Step], str]] = {
    SelectBands: "select bands",
    FillInvalid: "fill invalid",
    ConvertUnit: "convert unit",
    Resize: "resize",
    Normalize: "normalise",
    InsertBands: "insert bands",
}


@dataclass(frozen=True)
class Plan:
    """The only valid preprocessing from a spec to a recipe.

    Args:
        source: Specification of the input.
        target: Specification of the output (`unit=model`).
        steps: Steps in order of execution.
        waivers: Exceptions that the plan uses.
    """

    source: ImageSpec
    target: ImageSpec
    steps: tuple[Step, ...]
    waivers: tuple[Waiver, ...] = ()

    @cached_property
    def hash(self) -> str:
        """sha256 over source, target, steps and waivers."""
        content = {
            "source": asdict(self.source),
            "target": asdict(self.target),
            "steps": [[type(s).__name__, asdict(s)] for s in self.steps],
            "waivers": [[type(w).__name__, asdict(w)] for w in self.waivers],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        steps = ", ".join(_VERBS[type(step)] for step in self.steps)
        source, target = _spec_line(self.source), _spec_line(self.target)
        waived = f"; {len(self.waivers)} waivers" if self.waivers else ""
        return f"Plan({source} -> {target}: {steps}{waived})"

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        """Return the steps as a numbered list, for Jupyter."""
        steps = "".join(f"<li>{html.escape(_step_line(step))}</li>" for step in self.steps)
        waivers = "".join(f"<br>waiver: {html.escape(str(one))}" for one in self.waivers)
        return (
            f"<div>from {html.escape(_spec_line(self.source))}<ol>{steps}</ol>"
            f"to {html.escape(_spec_line(self.target))}{waivers}</div>"
        )

    def describe(self) -> str:
        """Return the steps as numbered lines, with the waivers as footnotes."""
        lines = [
            f"from  {_spec_line(self.source)}",
            *(f"  {i}. {_step_line(step)}" for i, step in enumerate(self.steps, 1)),
            f"to    {_spec_line(self.target)}",
            *(f"waiver: {waiver}" for waiver in self.waivers),
            f"plan  {self.hash[:16]}",
        ]
        return "\n".join(lines)


def _spec_line(spec: ImageSpec) -> str:
    size = f"{spec.size[0]} x {spec.size[1]} px" if spec.size else "any size"
    return f"{spec.sensor}, {len(spec.bands)} bands, {spec.unit}, {size} at {spec.gsd:g} m"


def _step_line(step: Step) -> str:
    match step:
        case SelectBands(bands, _):
            return f"select bands {' '.join(bands)}"
        case FillInvalid():
            return "fill invalid pixels with the band mean of the valid ones of the same image"
        case ConvertUnit(source, target):
            return f"convert {source} -> {target}: {_CONVERSIONS[source, target][0]}"
        case Resize(size, kernel, antialias):
            return f"resize to {size[0]} x {size[1]}, {kernel}, antialias={antialias}"
        case Normalize(n):
            tail = f", clip to {list(n.clip)}" if n.clip else ""
            tail += f", truncate to {n.levels} levels" if n.levels else ""
            return f"normalise (x - shift) / scale{tail}; constants: {n.source}"
        case InsertBands(_, fills):
            return "insert " + ", ".join(f"{b} = {v:g} (normalised)" for b, v in fills)


# -------------------------------------------------------------------- unit conversions


def _power_to_db(power: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    if (power <= 0).any():
        raise PixelError(
            "backscatter power must be positive to be expressed in dB",
            found=f"minimum {power.min().item():g}",
            remedy="mark these pixels invalid, or state the actual unit of the pixels",
        )
    return 10 * torch.log10(power)


# Subtracting the offset can leave small negative numbers (noise over water and shadow),
# which are clipped at 0, as in ESA's own L1C without the offset.
_CONVERSIONS: Final[Mapping[tuple[Unit, Unit], tuple[str, Callable[[Tensor], Tensor]]]] = {
    (Unit.DN, Unit.REFLECTANCE): ("x / 10000", lambda x: x / 10000),
    (Unit.REFLECTANCE, Unit.DN): ("x * 10000", lambda x: x * 10000),
    (Unit.DN_OFFSET1000, Unit.DN): ("max(x - 1000, 0)", lambda x: (x - 1000).clamp_min(0)),
    (Unit.DN_OFFSET1000, Unit.REFLECTANCE): (
        "max(x - 1000, 0) / 10000",
        lambda x: (x - 1000).clamp_min(0) / 10000,
    ),
    (Unit.POWER, Unit.DB): ("10 log10(x)", _power_to_db),
    (Unit.DB, Unit.POWER): ("10 ** (x / 10)", lambda x: torch.pow(10.0, x / 10)),
}


def convert_unit(pixels: Float[Tensor, "*s"], source: Unit, target: Unit) -> Float[Tensor, "*s"]:
    """Convert values between units; the same unit returns the input unchanged.

    Raises:
        SpecMismatch: If no exact conversion is known.
        PixelError: If power that is not positive is to be expressed in dB.
    """
    if source is target:
        return pixels
    if (source, target) not in _CONVERSIONS:
        raise SpecMismatch(
            MismatchKind.UNIT,
            f"there is no conversion from {source} to {target}",
            found=source,
            expected=" | ".join(sorted({a for a, b in _CONVERSIONS if b is target} | {target})),
            remedy="state the actual unit of the pixels; it is never inferred from their values",
        )
    return _CONVERSIONS[source, target][1](pixels)


# -------------------------------------------------------------------------------- plan


def plan(spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver] = ()) -> Plan:
    """Find the only valid preprocessing from a spec to a recipe.

    Args:
        spec: Specification of the images. The size must be known.
        recipe: Recipe of the network.
        waivers: Named exceptions, each with a reason.

    Raises:
        SpecMismatch: If spec and recipe do not match (`kind` states the difference), or a waiver
            is not needed.
        SpecError: If a waiver has no reason.
    """
    for waiver in waivers:
        if not waiver.why.strip():
            raise SpecError("a waiver needs a reason", found=waiver)
    used: list[Waiver] = []
    _check_not_normalised(spec)
    used += _match_sensor(spec, recipe, waivers)
    fills = _match_bands(spec, recipe, waivers)
    used += fills
    convert_unit(torch.empty(0), spec.unit, recipe.unit)  # raises if there is no conversion
    size, size_waivers = _match_size(spec, recipe, waivers)
    used += size_waivers
    used += _match_scale(spec, recipe, size, waivers)
    unused = [w for w in waivers if w not in used and not isinstance(w, AcceptPixels)]
    if unused:
        raise SpecMismatch(
            MismatchKind.UNUSED_WAIVER,
            "a waiver is not needed",
            found="; ".join(map(str, unused)),
            remedy="remove it: a result must not list an exception that was not made",
        )

    filled = {w.band for w in fills}
    present = [i for i, band in enumerate(recipe.bands) if band not in filled]
    names = tuple(recipe.bands[i] for i in present)
    steps: list[Step] = [SelectBands(names, tuple(spec.bands.index(b) for b in names))]
    steps.append(FillInvalid())
    if spec.unit is not recipe.unit:
        steps.append(ConvertUnit(spec.unit, recipe.unit))
    normalize = Normalize(recipe.normalization.select(present))
    if spec.size == size:
        steps.append(normalize)
    else:
        rule = recipe.resize
        resize_step = Resize(size, rule.kernel, rule.antialias)
        before = rule.order is ResizeOrder.BEFORE_NORMALIZATION
        steps += [resize_step, normalize] if before else [normalize, resize_step]
    if fills:
        steps.append(InsertBands(recipe.bands, tuple((w.band, w.value) for w in fills)))
    assert spec.size is not None  # noqa: S101 (_match_size has raised otherwise)
    target = ImageSpec(
        recipe.sensor,
        recipe.bands,
        Unit.MODEL,
        size,
        spec.gsd * spec.size[0] / size[0],
        recipe.normalization,
    )
    return Plan(spec, target, tuple(steps), tuple(used))


def _check_not_normalised(spec: ImageSpec) -> None:
    if spec.unit is Unit.MODEL:
        raise SpecMismatch(
            MismatchKind.NORMALIZATION,
            "the pixels are already normalised",
            found="unit=model",
            expected="physical units",
            remedy="apply Preprocess once, to the data set's own pixels",
        )


def _match_sensor(spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver]) -> list[Waiver]:
    if spec.sensor is recipe.sensor:
        return []
    accepted: list[Waiver] = [
        w for w in waivers if isinstance(w, AcceptSensor) and w.sensor is spec.sensor
    ]
    if not accepted:
        raise SpecMismatch(
            MismatchKind.SENSOR,
            "the network was trained on another sensor or product level",
            found=spec.sensor,
            expected=recipe.sensor,
            remedy=f"use {recipe.sensor} imagery, or waive it: "
            f'AcceptSensor("{spec.sensor}", "why") in Python, --force sensor in a command',
        )
    return accepted


def _match_bands(spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver]) -> list[FillBand]:
    missing = [b for b in recipe.bands if b not in spec.bands]
    fills = [w for w in waivers if isinstance(w, FillBand) and w.band in missing]
    unfilled = [b for b in missing if b not in {w.band for w in fills}]
    if unfilled or len(missing) == len(recipe.bands):
        raise SpecMismatch(
            MismatchKind.BANDS,
            f"the network needs bands that the imagery lacks: {', '.join(missing)}",
            found=", ".join(spec.bands),
            expected=", ".join(recipe.bands),
            remedy="supply the bands, or waive each one, as in Python: "
            f'FillBand("{missing[0]}", 0.0, "why"), and --force missing-band in a command',
        )
    return fills


def _match_size(
    spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver]
) -> tuple[tuple[int, int], list[Waiver]]:
    if spec.size is None:
        raise SpecMismatch(
            MismatchKind.SIZE,
            "the size of the imagery must be known to plan its preprocessing",
            found="size=None",
            expected="(height, width)",
            remedy="use the spec of a batch, not of the whole data set",
        )
    accepted = [w for w in waivers if isinstance(w, AcceptSize)]
    if len(accepted) > 1:
        raise SpecMismatch(MismatchKind.SIZE, "only one size can be accepted", found=accepted)
    size = accepted[0].size if accepted else recipe.size
    if size == recipe.size:
        accepted = []  # the waiver states the recipe's own size: it is unused, hence an error
    if spec.size[0] * size[1] != spec.size[1] * size[0]:
        raise SpecMismatch(
            MismatchKind.SIZE,
            "resizing would distort the image",
            found=f"{spec.size[0]} x {spec.size[1]}",
            expected=f"the aspect ratio of {size[0]} x {size[1]}",
            remedy="cut windows of that ratio first",
        )
    return size, list(accepted)


# Sentinel-1 and Sentinel-2 have 10 m pixels (some bands 20 or 60 m). Resampled to 20 m, or to 5 m
# in Web Mercator at 60 degrees north, they still resemble the training data of a network.
_GROUND: Final = (0.2, 2.5)
# In pretraining, crops of 20 to 100 % of 264 px are resized to 224 px, and scenes of SSL4EO-S12 are
# downsampled 4.7 times at 56 px. An image that needs more downsampling is a scene, not a window.
_SHRINK: Final = 5.0
_SCALED: Final = frozenset({Sensor.S1_GRD, Sensor.S1_RTC, Sensor.S2_L1C, Sensor.S2_L2A})


def _match_scale(
    spec: ImageSpec, recipe: Recipe, size: tuple[int, int], waivers: Sequence[Waiver]
) -> list[AcceptScale]:
    """Compare the ground size of pixels with the sensor's, before and after resizing."""
    if recipe.sensor not in _SCALED or spec.size is None:
        return []
    accepted = [w for w in waivers if isinstance(w, AcceptScale)]
    own = min(BANDS[band].gsd for band in spec.bands if band in BANDS)  # the recipe's are all known
    shrink = spec.size[0] / size[0]
    low, high = _GROUND
    if low <= spec.gsd / own <= high and shrink <= _SHRINK:
        return []
    if accepted:
        return accepted
    if shrink > _SHRINK:
        raise SpecMismatch(
            MismatchKind.SCALE,
            "the image would be downsampled to a single network input and lose most of its detail",
            found=f"{spec.size[0]} x {spec.size[1]} px at {spec.gsd:g} m, as {size[0]} x {size[1]} "
            f"px at {spec.gsd * shrink:.4g} m",
            expected=f"windows of at most {int(size[0] * _SHRINK)} px",
            remedy="read windows (window=(row, column, height, width) of read_geotiff), or waive "
            'it: AcceptScale("why") in Python, --force scale of eofm embed',
        )
    raise SpecMismatch(
        MismatchKind.SCALE,
        "the ground size of the pixels differs from the sensor's",
        found=f"{spec.gsd:g} m",
        expected=f"{own * low:g} to {own * high:g} m, as the bands {' '.join(spec.bands[:3])}"
        f"{' ...' if spec.bands[3:] else ''} of {spec.sensor} have {own:g} m",
        remedy="resample to the pixel size of the sensor, or waive it: "
        'AcceptScale("why") in Python, --force scale of eofm embed',
    )


# -------------------------------------------------------------------------- execution


def resize(
    pixels: Float[Tensor, "b c _ _"], size: tuple[int, int], kernel: Kernel, *, antialias: bool
) -> Float[Tensor, "b c _ _"]:
    """Resample (B, C, H, W) float pixels to `size`. The only resize of eofm.

    Half-pixel centres; edge pixels are repeated. Nearest uses the pixel under the centre.
    """
    if tuple(pixels.shape[2:]) == size:
        return pixels
    if kernel is Kernel.NEAREST:
        return nn.functional.interpolate(pixels, size=size, mode="nearest-exact")
    return nn.functional.interpolate(
        pixels, size=size, mode=kernel.value, align_corners=False, antialias=antialias
    )


def to_grid(native: NativeImagery) -> Imagery:
    """Resample bands at 10, 20 and 60 m bilinearly to the grid of the spec, in float32.

    Bilinear with half-pixel centres is what SSL4EO-S12's own loaders do (OpenCV
    `INTER_LINEAR_EXACT`).
    """
    size = native.spec.size or (int(native.valid.shape[1]), int(native.valid.shape[2]))
    spec = native.spec if native.spec.size else replace(native.spec, size=size)
    if [tuple(plane.shape[2:]) for plane in native.planes.values()] == [size]:
        ((gsd, plane),) = native.planes.items()
        if native.bands[gsd] == spec.bands:  # one resolution, in order: most files
            pixels = plane.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            return Imagery(pixels, spec, native.valid)
    pixels = native.valid.new_empty((len(native), len(spec.bands), *size), dtype=torch.float32)
    for gsd, plane in native.planes.items():
        fits = tuple(plane.shape[2:]) == size  # one copy converts it
        fine = plane if fits else resize(plane.float(), size, Kernel.BILINEAR, antialias=False)
        for band, values in zip(native.bands[gsd], fine.unbind(dim=1), strict=True):
            pixels[:, spec.bands.index(band)] = values
    return Imagery(pixels, spec, native.valid)


def _fill_invalid(
    pixels: Float[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:
    mask = valid[:, None]
    count = mask.sum(dim=(2, 3), keepdim=True)
    if (count == 0).any():
        empty = torch.nonzero(count.flatten() == 0).flatten().tolist()
        raise PixelError(
            "an image has no valid pixel",
            where=f"images {empty} of the batch",
            remedy="leave these windows out",
            images=empty,
        )
    kept = torch.where(mask, pixels, 0)
    mean = kept.sum(dim=(2, 3), keepdim=True, dtype=torch.float64) / count
    return torch.where(mask, pixels, mean.to(pixels.dtype))


def normalize(
    pixels: Float[Tensor, "b c h w"], normalization: Normalization
) -> Float[Tensor, "b c h w"]:
    """Shift, scale, clip and round (B, C, H, W) pixels. The only normalisation of eofm."""
    shape = (1, -1, 1, 1)
    shift = pixels.new_tensor(normalization.shift).view(shape)
    scale = pixels.new_tensor(normalization.scale).view(shape)
    out = (pixels - shift).div_(scale)  # the difference is a new tensor, which is reused
    if normalization.clip:
        out.clamp_(*normalization.clip)
    if normalization.levels:
        out.mul_(normalization.levels).floor_().div_(normalization.levels)
    return out


class Preprocess(nn.Module):
    """Applies a `Plan` to batches, on their device.

    The input is not modified. Applying it twice is an error, because the unit of the output is
    `model`.

    Args:
        plan: Plan to apply.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def __repr__(self) -> str:
        return f"Preprocess({self.plan!r})"

    def forward(self, imagery: Imagery) -> Imagery:
        """Return the batch as the network expects it.

        Raises:
            SpecMismatch: If the batch does not have the source spec of the plan.
            PixelError: If a valid pixel is not finite, or an image has no valid pixel.
        """
        if imagery.spec.unit is Unit.MODEL:
            _check_not_normalised(imagery.spec)
        if imagery.spec != self.plan.source:
            raise SpecMismatch(
                _difference(imagery.spec, self.plan.source),
                "the spec of this batch is not the one the plan was made for",
                found=imagery.spec,
                expected=self.plan.source,
                remedy="make a new plan: plan(imagery.spec, recipe)",
            )
        check_finite(imagery)
        pixels, valid = imagery.pixels, imagery.valid
        for step in self.plan.steps:
            pixels, valid = self._take(step, pixels, valid)
        return Imagery(pixels, self.plan.target, valid)

    def _take(
        self, step: Step, pixels: Float[Tensor, "b _ h w"], valid: Bool[Tensor, "b h w"]
    ) -> tuple[Float[Tensor, "b _ _ _"], Bool[Tensor, "b _ _"]]:
        match step:
            case SelectBands(_, indices):
                return pixels[:, list(indices)], valid
            case FillInvalid():
                if not valid.all():
                    pixels = _fill_invalid(pixels, valid)
                return pixels, valid
            case ConvertUnit(source, target):
                return convert_unit(pixels, source, target), valid
            case Resize(size, kernel, antialias):
                mask = resize(valid[:, None].float(), size, Kernel.NEAREST, antialias=False)
                return resize(pixels, size, kernel, antialias=antialias), mask[:, 0] > 0.5
            case Normalize(normalization):
                return normalize(pixels, normalization), valid
            case InsertBands(bands, fills):
                return _insert(pixels, bands, dict(fills)), valid


def _insert(
    pixels: Float[Tensor, "b _ h w"], bands: tuple[str, ...], fills: Mapping[str, float]
) -> Float[Tensor, "b _ h w"]:
    present = iter(pixels.unbind(dim=1))
    channels = [
        torch.full_like(pixels[:, 0], fills[band]) if band in fills else next(present)
        for band in bands
    ]
    return torch.stack(channels, dim=1)


def _difference(found: ImageSpec, expected: ImageSpec) -> MismatchKind:
    if found.sensor is not expected.sensor:
        return MismatchKind.SENSOR
    if found.bands != expected.bands:
        return MismatchKind.BANDS
    if found.unit is not expected.unit:
        return MismatchKind.UNIT
    return MismatchKind.SIZE
