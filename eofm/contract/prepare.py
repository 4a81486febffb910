"""From what a user holds, imagery or a bare array, to what a network takes.

An array does not say what it is; the `ImageSpec` beside it does. What an array without a mask
says about missing pixels is read as `eofm.datasets` reads it from files.

Shapes: B images, C bands, H by W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Recipe, Waiver
from eofm.contract.spec import ImageSpec, Unit
from eofm.errors import SpecError

Pixels = Imagery | Tensor | np.ndarray

# A program meets few kinds of imagery; one that walks through scenes of many sizes meets many.
_KINDS: Final = 64


@lru_cache(maxsize=_KINDS)
def _preprocess(spec: ImageSpec, recipe: Recipe, waivers: tuple[Waiver, ...]) -> Preprocess:
    return Preprocess(plan(spec, recipe, waivers))


def preprocess_for(spec: ImageSpec, recipe: Recipe, waivers: Sequence[Waiver] = ()) -> Preprocess:
    """Return what carries out the way from `spec` to `recipe`, made once for each kind.

    Raises:
        SpecMismatch: If there is no such way.
    """
    return _preprocess(spec, recipe, tuple(waivers))


def as_imagery(pixels: Pixels, spec: ImageSpec | None = None) -> Imagery:
    """Return imagery as it is, and an array as the imagery its spec says it is.

    A pixel of an array is invalid where a band is NaN or infinite (dB of no backscatter), where
    backscatter power is not positive, and where every band has the digital number 0, which is the
    nodata of Sentinel-2 products.

    Args:
        pixels: `Imagery`; or numbers, (C, H, W) or (B, C, H, W).
        spec: What the numbers are. Its size may be None; imagery brings its own spec.

    Raises:
        SpecError: If an array comes without a spec, imagery with another one, the numbers are not
            real, or shape and spec disagree.
    """
    if isinstance(pixels, Imagery):
        if spec is not None and spec != pixels.spec:
            raise SpecError(
                "imagery says itself what it is",
                found=spec,
                expected=f"no spec, or {pixels.spec}",
            )
        return pixels
    if spec is None:
        raise SpecError(
            "an array does not say what it is",
            found=f"shape {tuple(pixels.shape)} and no spec",
            expected="an ImageSpec beside it",
            remedy="ImageSpec(sensor, bands, unit, size=None, gsd=10.0), as for a data set",
        )
    numbers = _numbers(pixels)
    batch = numbers[None] if numbers.ndim == 3 else numbers
    if batch.ndim == 4 and spec.size is None:
        spec = replace(spec, size=(batch.shape[2], batch.shape[3]))
    valid = _measured(batch, spec.unit) if batch.ndim == 4 else torch.ones(())
    return Imagery(batch, spec, valid)


def _numbers(pixels: Tensor | np.ndarray) -> Tensor:
    tensor = pixels
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.kind not in "uif":
            raise _not_real(tensor.dtype)
        tensor = torch.from_numpy(tensor.astype(np.float32))  # a copy: the caller's stays alone
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise _not_real(tensor.dtype)
    return tensor.to(torch.float32)


def _not_real(dtype: object) -> SpecError:
    return SpecError(
        "pixels are real numbers", found=dtype, expected="integers or floating-point numbers"
    )


def _measured(pixels: Tensor, unit: Unit) -> Tensor:
    valid = torch.isfinite(pixels).all(dim=1)
    if unit in {Unit.DN, Unit.DN_OFFSET1000}:
        return valid & (pixels != 0).any(dim=1)
    if unit is Unit.POWER:
        return valid & (pixels > 0).all(dim=1)
    return valid
