"""From what a user holds, imagery or a bare array, to what a network takes.

An array does not say what it is; the `ImageSpec` beside it does. What an array without a mask
says about missing pixels is read as it is from files (`eofm.contract.validity`).

Shapes: B images, C bands, H by W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Recipe, Waiver
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, canonical_bands
from eofm.contract.validity import doubt_of_type, measured, refusal
from eofm.errors import SpecError

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

__all__ = ["Pixels", "as_imagery", "preprocess_for", "read_waivers", "undescribed"]

Pixels: TypeAlias = "Imagery | Tensor | np.ndarray | DataArray | Dataset"

_EXAMPLE: Final = (
    'state it, as in spec=eofm.ImageSpec("s2-l2a", ("B02", "B03", "B04", "B08"), "dn", None, 10.0)'
)
# A program meets few kinds of imagery; one that iterates over scenes of many sizes meets many.
_KINDS: Final = 64


@lru_cache(maxsize=_KINDS)
def _preprocess(spec: ImageSpec, recipe: Recipe, waivers: tuple[Waiver, ...]) -> Preprocess:
    return Preprocess(plan(spec, recipe, waivers))


def preprocess_for(spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver] = ()) -> Preprocess:
    """Return what carries out the way from `spec` to `recipe`, made once for each kind.

    Raises:
        SpecMismatch: If there is no such way.
        SpecError: If a band of the spec is none of its sensor.
    """
    return _preprocess(_named(spec), recipe, read_waivers(waivers))


def _named(spec: ImageSpec) -> ImageSpec:
    """Return a spec whose bands may be called `red`, or `B4`, under their canonical names.

    Raises:
        SpecError: If it is no spec, or a name is none of a band of the sensor.
    """
    if not isinstance(spec, ImageSpec):
        raise SpecError(
            "a spec is an ImageSpec",
            found=type(spec).__name__,
            expected="sensor, bands, unit, size and GSD of the pixels",
            remedy="of imagery it is imagery.spec; of an array, " + _EXAMPLE,
        )
    if set(spec.bands) <= set(SENSOR_BANDS[spec.sensor]):
        return spec
    return replace(spec, bands=canonical_bands(spec.bands, spec.sensor))


def read_waivers(waivers: Sequence[Waiver]) -> tuple[Waiver, ...]:
    """Return waivers as they are given.

    Raises:
        SpecError: If they are no list of them: a spec that was meant to go by name, say.
    """
    if isinstance(waivers, ImageSpec):
        raise SpecError(
            "a spec stands where waivers go",
            found=waivers,
            expected="waivers second, and the spec by its name",
            remedy="encoder.embed(array, spec=spec)",
        )
    if not isinstance(waivers, Sequence) or not all(isinstance(w, Waiver) for w in waivers):
        raise SpecError(
            "waivers are a list of named exceptions",
            found=waivers,
            expected="a list, empty or of FillBand, AcceptSensor, AcceptSize, ...",
            remedy='encoder.embed(image, [AcceptScale("why")])',
        )
    return tuple(waivers)


def as_imagery(pixels: Pixels, spec: ImageSpec | None = None) -> Imagery:
    """Return imagery as it is, and an array as the imagery its spec says it is.

    Which pixels of an array are measured is the rule of `eofm.contract.validity.measured`; what a
    masked array masks counts as declared.

    Args:
        pixels: `Imagery`; or numbers, (C, H, W) or (B, C, H, W), masked or not; or an image of
            xarray (`eofm.raster.cube.from_xarray`), whose place, names and nodata are kept.
        spec: What the numbers are. Its size may be None; imagery brings its own spec.

    Raises:
        SpecError: If an array comes without a spec, imagery with another one, the numbers are not
            real, or shape and spec disagree.
        PixelError: If 8-bit numbers are stated to be digital numbers of Sentinel-2.
    """
    if spec is not None:
        spec = _named(spec)
    if isinstance(pixels, Imagery):
        named = _named(pixels.spec)
        if spec is not None and (spec if spec.size else replace(spec, size=named.size)) != named:
            raise SpecError(
                "imagery says itself what it is",
                found=spec,
                expected=f"no spec, or {named}",
            )
        return pixels if named is pixels.spec else replace(pixels, spec=named)
    if not isinstance(pixels, (np.ndarray, Tensor)):
        # an array of xarray knows its bands and its place; contract itself needs no raster library
        from eofm.raster.cube import imagery_of

        return imagery_of(pixels, spec)
    if spec is None:
        raise undescribed(f"shape {tuple(pixels.shape)} and no spec")
    numbers, masked = _numbers(pixels), _masked(pixels)
    doubt = doubt_of_type(str(pixels.dtype).removeprefix("torch."), spec.unit)
    if doubt is not None:
        raise refusal([doubt], ["the array"])
    if numbers.ndim == 3:
        numbers, masked = numbers[None], None if masked is None else masked[None]
    _check_order(pixels, spec)
    if numbers.ndim == 4 and spec.size is None:
        spec = replace(spec, size=(numbers.shape[2], numbers.shape[3]))
    valid = torch.ones(())  # of another shape, which `Imagery` refuses
    if numbers.ndim == 4 and numbers.shape[1] == len(spec.bands):
        size = (int(numbers.shape[2]), int(numbers.shape[3]))
        declared = {} if masked is None else {0: masked}
        valid = measured({0: numbers}, declared, {0: spec.bands}, spec.unit, size)
    return Imagery(numbers, spec, valid)


def undescribed(found: str) -> SpecError:
    """Return the error of an array that does not say what it is.

    Args:
        found: What is known of it.
    """
    return SpecError(
        "an array does not say what it is",
        found=found,
        expected="an ImageSpec beside it",
        remedy=_EXAMPLE,
    )


def _check_order(pixels: Tensor | np.ndarray, spec: ImageSpec) -> None:
    """Say how an array is turned that has its bands last, or none of them.

    Raises:
        SpecError: If it has.
    """
    shape, count = tuple(pixels.shape), len(spec.bands)
    remedy = None
    if len(shape) in {3, 4} and shape[-3] != count and shape[-1] == count:
        remedy = "bands come first: numpy.moveaxis(array, -1, -3), or tensor.movedim(-1, -3)"
    elif len(shape) == 2 and count == 1:
        remedy = "one band is a dimension too: array[None]"
    if remedy is not None:
        raise SpecError(
            "the array has its dimensions in another order",
            found=shape,
            expected=f"({count}, H, W) or (B, {count}, H, W)",
            remedy=remedy,
        )


def _masked(pixels: Tensor | np.ndarray) -> Tensor | None:
    """Return what a masked array masks, of the shape of its numbers; None for a plain array."""
    if not isinstance(pixels, np.ma.MaskedArray):
        return None
    return torch.from_numpy(np.ma.getmaskarray(pixels))


def _numbers(pixels: Tensor | np.ndarray) -> Tensor:
    tensor = pixels
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.kind not in "uif":
            raise _not_real(tensor.dtype)
        tensor = np.ma.getdata(tensor)
        tensor = torch.from_numpy(tensor.astype(np.float32))  # a copy: the caller's stays alone
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise _not_real(tensor.dtype)
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise SpecError(
            "pixels are numbers in memory, one for each pixel",
            found=f"a tensor of layout {tensor.layout} on {tensor.device}",
            remedy="tensor.to_dense(), of a sparse one",
        )
    return tensor.to(torch.float32)


def _not_real(dtype: object) -> SpecError:
    return SpecError(
        "pixels are real numbers", found=dtype, expected="integers or floating-point numbers"
    )
