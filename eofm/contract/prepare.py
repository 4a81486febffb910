"""Conversion of user input, `Imagery` or a plain array, to network input.

A plain array has no metadata and needs an `ImageSpec`. Its missing pixels are determined by the
same rule as those of files (`eofm.contract.validity`).

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
# Most programs use few kinds of imagery; a loop over scenes of different sizes uses many.
_KINDS: Final = 64


@lru_cache(maxsize=_KINDS)
def _preprocess(spec: ImageSpec, recipe: Recipe, waivers: tuple[Waiver, ...]) -> Preprocess:
    return Preprocess(plan(spec, recipe, waivers))


def preprocess_for(spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver] = ()) -> Preprocess:
    """Return the preprocessing from `spec` to `recipe`, cached for each combination.

    Raises:
        SpecMismatch: If there is no valid preprocessing.
        SpecError: If a band of the spec is not a band of its sensor.
    """
    return _preprocess(_named(spec), recipe, read_waivers(waivers))


def _named(spec: ImageSpec) -> ImageSpec:
    """Return a spec with canonical band names; the input may use `red` or `B4`.

    Raises:
        SpecError: If it is not a spec, or a name is not that of a band of the sensor.
    """
    if not isinstance(spec, ImageSpec):
        raise SpecError(
            "a spec is an ImageSpec",
            found=type(spec).__name__,
            expected="sensor, bands, unit, size and GSD of the pixels",
            remedy="for imagery, imagery.spec; for an array, " + _EXAMPLE,
        )
    if set(spec.bands) <= set(SENSOR_BANDS[spec.sensor]):
        return spec
    return replace(spec, bands=canonical_bands(spec.bands, spec.sensor))


def read_waivers(waivers: Sequence[Waiver]) -> tuple[Waiver, ...]:
    """Return waivers as a tuple.

    Raises:
        SpecError: If it is not a list of waivers, such as a spec passed by position.
    """
    if isinstance(waivers, ImageSpec):
        raise SpecError(
            "a spec was passed as the waivers",
            found=waivers,
            expected="waivers as the second argument, and spec as a keyword",
            remedy="encoder.embed(array, spec=spec)",
        )
    if not isinstance(waivers, Sequence) or not all(isinstance(w, Waiver) for w in waivers):
        raise SpecError(
            "waivers must be a list of Waiver objects",
            found=waivers,
            expected="a list, empty or of FillBand, AcceptSensor, AcceptSize, ...",
            remedy='encoder.embed(image, [AcceptScale("why")])',
        )
    return tuple(waivers)


def as_imagery(pixels: Pixels, spec: ImageSpec | None = None) -> Imagery:
    """Return imagery unchanged, and an array as imagery with the given spec.

    `eofm.contract.validity.measured` determines which pixels of an array are valid; the mask of a
    masked array counts as declared nodata.

    Args:
        pixels: `Imagery`; or an array (C, H, W) or (B, C, H, W), masked or not; or an xarray image
            (`eofm.raster.cube.from_xarray`), whose georeference, names and nodata are kept.
        spec: Specification of the array. Its size may be None; imagery has its own spec.

    Raises:
        SpecError: If an array has no spec, imagery has a different one, the values are not real,
            or shape and spec disagree.
        PixelError: If 8-bit values are stated as digital numbers of Sentinel-2.
    """
    if spec is not None:
        spec = _named(spec)
    if isinstance(pixels, Imagery):
        named = _named(pixels.spec)
        if spec is not None and (spec if spec.size else replace(spec, size=named.size)) != named:
            raise SpecError(
                "imagery already has a spec",
                found=spec,
                expected=f"no spec, or {named}",
            )
        return pixels if named is pixels.spec else replace(pixels, spec=named)
    if not isinstance(pixels, (np.ndarray, Tensor)):
        # xarray data have bands and a georeference; contract itself needs no raster library
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
    valid = torch.ones(())  # a shape that `Imagery` rejects
    if numbers.ndim == 4 and numbers.shape[1] == len(spec.bands):
        size = (int(numbers.shape[2]), int(numbers.shape[3]))
        declared = {} if masked is None else {0: masked}
        valid = measured({0: numbers}, declared, {0: spec.bands}, spec.unit, size)
    return Imagery(numbers, spec, valid)


def undescribed(found: str) -> SpecError:
    """Return the error for an array without a spec.

    Args:
        found: Known properties of the array.
    """
    return SpecError(
        "an array needs a spec",
        found=found,
        expected="an ImageSpec with the array",
        remedy=_EXAMPLE,
    )


def _check_order(pixels: Tensor | np.ndarray, spec: ImageSpec) -> None:
    """Check that the band dimension of an array exists and comes first.

    Raises:
        SpecError: If the bands are last, or missing; the remedy is the conversion.
    """
    shape, count = tuple(pixels.shape), len(spec.bands)
    remedy = None
    if len(shape) in {3, 4} and shape[-3] != count and shape[-1] == count:
        remedy = "bands come first: numpy.moveaxis(array, -1, -3), or tensor.movedim(-1, -3)"
    elif len(shape) == 2 and count == 1:
        remedy = "a single band needs a dimension too: array[None]"
    if remedy is not None:
        raise SpecError(
            "the dimensions of the array are in a different order",
            found=shape,
            expected=f"({count}, H, W) or (B, {count}, H, W)",
            remedy=remedy,
        )


def _masked(pixels: Tensor | np.ndarray) -> Tensor | None:
    """Return the mask of a masked array in its shape; None for a plain array."""
    if not isinstance(pixels, np.ma.MaskedArray):
        return None
    return torch.from_numpy(np.ma.getmaskarray(pixels))


def _numbers(pixels: Tensor | np.ndarray) -> Tensor:
    tensor = pixels
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.kind not in "uif":
            raise _not_real(tensor.dtype)
        tensor = np.ma.getdata(tensor)
        tensor = torch.from_numpy(
            tensor.astype(np.float32)
        )  # a copy, so that the caller's array is unchanged
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise _not_real(tensor.dtype)
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise SpecError(
            "pixels must be a dense tensor in memory",
            found=f"a tensor of layout {tensor.layout} on {tensor.device}",
            remedy="tensor.to_dense(), for a sparse tensor",
        )
    return tensor.to(torch.float32)


def _not_real(dtype: object) -> SpecError:
    return SpecError(
        "pixels are real numbers", found=dtype, expected="integers or floating-point numbers"
    )
