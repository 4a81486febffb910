"""Whether pixels can be what is stated of them: the second question of the package.

Values that no measurement takes are looked for here, and what many images have in common; what a
sample of the values of one image tells is in `eofm.contract.validity.traces`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.shapes import Bool, Float, Shaped
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity.masks import (
    NO_POWER,
    PER_DN,
    check_finite,
    comparable,
    measured_of,
)
from eofm.contract.validity.traces import Doubt, Values, contradiction
from eofm.errors import PixelError

# Values that no measurement takes, in the unit itself. Level-2A goes down to -1000 where the offset
# was subtracted; Sentinel-2 products mark saturation by 65535 in single bands. Calm water and radar
# shadow reach -40 dB (-37.3 in BigEarthNet).
_IMPOSSIBLE: Final[Mapping[Unit, tuple[float, float]]] = {
    Unit.DN: (-1_001.0, 65_535.0),
    Unit.DN_OFFSET1000: (-1.0, 65_535.0),
    Unit.REFLECTANCE: (-0.2, 100.0),
    Unit.UINT8: (0.0, 255.0),
    Unit.POWER: (NO_POWER, 1e6),
    Unit.DB: (-80.0, 100.0),
}
_FILLS_DN: Final = (65_535.0, 32_767.0)  # in every band: the largest of uint16 and of int16

_ONE_VALUE: Final = 0.9  # share of the impossible values of a band that a nodata value makes up
# Where so many bands of a pixel hold one value, in a share of the pixels between these two, it is
# no measurement; an image that is so nearly everywhere has another fault. In no 32 x 32 window of
# the real optical imagery at hand do four bands agree in one pixel, and VV and VH of backscatter
# agree in one of a thousand. Clouds clipped to a reflectance of 1 do agree, and are no nodata.
_BANDS_OF_ONE_VALUE: Final[Mapping[Unit, int]] = {
    **dict.fromkeys(PER_DN, 4),
    Unit.DB: 2,
    Unit.POWER: 2,
}
_SAME_SHARES: Final = (0.01, 0.9)
_CLIPPED: Final = (10_000.0, 11_000.0)  # DN, without and with the offset
_CONSTANT_FROM: Final = 10_000  # pixels; 60 m bands of a 64 x 64 tile of sea can be constant
_LOOKED_AT: Final = 1 << 22  # pixels of an image; a larger one is thinned
# Values per band that are sorted: of a single image, and of each of many.
_SAMPLE: Final = 1 << 16
_SAMPLE_OF_MANY: Final = 1 << 10


def doubt_of_type(dtype: str, unit: Unit) -> Doubt | None:
    """Return why numbers of a type cannot be in a unit, if so.

    Args:
        dtype: Name of the number type as stored, such as `uint8`.
        unit: What they are stated to be in.
    """
    if unit not in {Unit.DN, Unit.DN_OFFSET1000} or dtype not in {"uint8", "int8"}:
        return None
    return Doubt(
        "8-bit files cannot hold the digital numbers of Sentinel-2",
        f"number type {dtype}",
        "16 bit",
        "use the original product, not a preview rendered from it",
    )


# Digital numbers are whole, and no image has but the smallest (`_RANGE` of traces); reflectance is
# no whole number, and at most 3.
_SCALED_BELOW: Final = 30.0
_STORED_ABOVE: Final = 3.0


def check_scale(imagery: Imagery) -> Imagery:
    """Return imagery as it is, if its values can be numbers of the kind that its unit is.

    This is what reading asks, of a window too: fractions of 1 that are stated to be digital numbers
    were scaled already, and whole numbers that are stated to be reflectance were not. All else
    needs scenery to tell, and is asked by `check_plausible`.

    Args:
        imagery: In physical units, as read.

    Raises:
        PixelError: If they cannot.
    """
    unit = imagery.spec.unit
    if unit not in PER_DN or not len(imagery):
        return imagery
    step = math.isqrt(max(1, imagery.valid[0].numel() // _LOOKED_AT))
    valid = imagery.valid[:, ::step, ::step]
    values = imagery.pixels[:, :, ::step, ::step]
    values = values if bool(valid.all()) else values.movedim(1, 0)[:, valid]
    most = _largest(values)
    if not math.isfinite(most):
        values = values[values.isfinite()]
        most = _largest(values)
    if not values.numel():
        return imagery
    if unit is Unit.REFLECTANCE:
        suspect, wrong, instead = most > _STORED_ABOVE, "whole numbers", "dn"
        expected = "fractions, of a surface that reflects all light 1"
    else:
        suspect, wrong, instead = most < _SCALED_BELOW, "fractions", "reflectance"
        expected = "whole numbers, 10,000 of a surface that reflects all light"
    # the size tells of most images, and every value is looked at where it does not
    if suspect and bool((values == values.round()).all()) == (wrong == "whole numbers"):
        raise PixelError(
            f"the values are not of the size that unit {unit} has",
            found=f"{wrong} up to {most:.4g}",
            expected=expected,
            where=", ".join(imagery.names) or None,
            remedy=f'state the unit the values are in, as in: unit="{instead}"',
        )
    return imagery


def _largest(values: Shaped[Tensor, "*s"]) -> float:
    """Return the largest absolute value; NaN where there is one, or nothing at all."""
    if not values.numel():
        return math.nan
    least, most = (float(end) for end in values.aminmax())
    return max(abs(least), abs(most))


def check_sentinels(native: NativeImagery, name: str) -> None:
    """Raise if a measured pixel holds a value that no measurement takes.

    `find_doubts` looks at a sample of a large image; this looks at every pixel.

    Args:
        native: In its native dtype.
        name: What the image is called, for the message.

    Raises:
        PixelError: With the value and the band.
    """
    for gsd, stored in native.planes.items():
        if _is_possible(stored, native.spec.unit):
            continue
        bands, plane = native.bands[gsd], stored.float()
        valid = measured_of(native, gsd)
        for image in range(len(native)):
            values = plane[image][:, valid[image]]
            doubt = _sentinel(values, replace(native.spec, bands=bands)) if values.numel() else None
            if doubt is not None:
                raise refusal([doubt], [name])


def _is_possible(plane: Shaped[Tensor, "b c h w"], unit: Unit) -> bool:
    """Return whether no value of (B, c, h, w) is suspect, without regard to the mask: most are."""
    values = comparable(plane)
    if plane.shape[1] >= _BANDS_OF_ONE_VALUE.get(unit, plane.shape[1] + 1):
        same = (values[:, 0] == values[:, 1]) & (values[:, 0] != 0)
        if float(same.float().flatten(1).mean(dim=1).max()) > _SAME_SHARES[0]:
            return False  # two bands: whether all are the same is looked at further
    if plane.dtype == torch.uint16:  # of all that the type can hold, only fills in all bands are
        fills = (values == -1) | (values == 32_767)
        return plane.shape[1] == 1 or not bool(fills.all(dim=1).any())
    low, high = _IMPOSSIBLE[unit]
    least, most = (float(value) for value in plane.aminmax())
    return low <= least and most <= high and most < min(_FILLS_DN)  # NaN is looked at further


def find_doubts(imagery: Imagery) -> list[Doubt]:
    """Return what contradicts the statement about each image of a batch, image by image.

    At most one doubt per image: the first in the order of the package's table, since a later test
    presumes that the earlier ones hold (an offset can only be seen in bands in the right order).

    Args:
        imagery: In physical units, as read.

    Raises:
        PixelError: If a pixel that is marked valid is not finite.
    """
    check_finite(imagery)
    spec, found = imagery.spec, []
    step = math.isqrt(max(1, imagery.valid[0].numel() // _LOOKED_AT)) if len(imagery) else 1
    sample = _SAMPLE if len(imagery) == 1 else _SAMPLE_OF_MANY
    for image in range(len(imagery)):
        valid = imagery.valid[image, ::step, ::step]
        pixels = imagery.pixels[image, :, ::step, ::step]
        values = pixels.flatten(1) if bool(valid.all()) else pixels[:, valid]
        if not values.shape[1]:
            continue
        doubt = _sentinel(values, spec) or _dead(values, spec)
        if doubt is None:
            some = values[:, :: -(-values.shape[1] // sample)].cpu()
            doubt = contradiction(dict(zip(spec.bands, some, strict=True)), spec)
        if doubt is not None:
            found.append(replace(doubt, image=image))
    return found


def doubt_of(values: Values, spec: ImageSpec) -> Doubt | None:
    """Return why a sample of the measured values of one image cannot be what is stated, if so.

    Args:
        values: Of every band, from everywhere in the image. As many values are of the same pixels;
            bands of several resolutions differ in their number.
        spec: What they are stated to be; the size does not count.
    """
    groups: dict[int, dict[str, Tensor]] = {}
    for band, some in values.items():
        if some.numel():
            groups.setdefault(some.numel(), {})[band] = some.flatten().float()
    if not groups:
        return None
    for group in groups.values():
        pixels, own = torch.stack(list(group.values())), replace(spec, bands=tuple(group))
        doubt = _sentinel(pixels, own) or _dead(pixels, own)
        if doubt is not None:
            return doubt
    return contradiction({b: v for group in groups.values() for b, v in group.items()}, spec)


def _sentinel(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Look at all measured values (C, n) of an image for some that no measurement takes."""
    low, high = _IMPOSSIBLE[spec.unit]
    bad = (values < low) | (values > high)
    if spec.unit in {Unit.DN, Unit.DN_OFFSET1000} and len(values) > 1:
        for fill in _FILLS_DN:
            bad = bad | (values == fill).all(dim=0)
    same = _same_in_all(values, spec.unit)
    bad = bad if same is None else bad | same
    if not bool(bad.any()):
        return None
    band = int(bad.any(dim=1).nonzero()[0])
    value = float(values[band][bad[band]].mode().values)
    if float((values[band] == value).sum()) < _ONE_VALUE * float(bad[band].sum()):
        return None  # many values: it is the unit that is wrong
    return Doubt(
        "a value that no measurement takes marks pixels as nodata, and is not declared",
        f"{_written(value)} in {_part(bad.any(dim=0))} of the pixels, first in band "
        f"{spec.bands[band]}",
        f"{low:g} to {high:g} in unit {spec.unit}, and not the same in all bands",
        f"declare it in the file, as in: rio edit-info --nodata {_written(value)} FILE; in an "
        "array, replace it by NaN",
        band=spec.bands[band],
    )


def _same_in_all(values: Float[Tensor, "c n"], unit: Unit) -> Bool[Tensor, " n"] | None:
    """Return which pixels of (C, n) hold one value other than 0 in all bands, if they are many."""
    if len(values) < _BANDS_OF_ONE_VALUE.get(unit, len(values) + 1):
        return None
    same = (values[0] != 0) & (values == values[:1]).all(dim=0)
    if unit in PER_DN:
        for clipped in _CLIPPED:
            same = same & (values[0] != clipped * PER_DN[unit])
    least, most = _SAME_SHARES
    return same if least < float(same.float().mean()) < most else None


def _written(value: float) -> str:
    """Return a float32 number so that reading it gives the same number: `rio` is handed it."""
    texts = (f"{value:.{digits}g}" for digits in (7, 8))
    same = (t for t in texts if float(torch.tensor(float(t), dtype=torch.float32)) == value)
    return next(same, f"{value:.9g}")


def _part(flags: Bool[Tensor, " n"]) -> str:
    """Return a share in percent, never 0 % of some."""
    share = float(flags.float().mean())
    return f"{share:.0%}" if share >= 0.005 else f"{100 * share:.2g}%"


DEAD_BAND: Final = "a band holds no measurement"
"""The problem of a band with one value, for those who look for it otherwise."""


def _dead(values: Float[Tensor, "c n"], spec: ImageSpec) -> Doubt | None:
    """Look for a band with one value in all measured pixels (C, n) of an image."""
    low, high = values.amin(dim=1), values.amax(dim=1)
    enough = values.shape[1] >= _CONSTANT_FROM
    for index, band in enumerate(spec.bands):
        value = float(low[index])
        if value != float(high[index]) or (value != 0 and not enough):
            continue
        return Doubt(
            DEAD_BAND,
            f"{band} is {value:g} in every pixel",
            "values that differ",
            f"leave the image out of the data, or {band} out of the bands, which files have to "
            "describe for that",
            band=band,
        )
    return None


# --------------------------------------------------------------------------- many images

# A ratio of band means says something of the sensor only when the images are many and mixed: over
# one lake B10 is as bright as B8A. EuroSAT, 64 tiles at a time: B10/B8A .004-.006, B09/B8A .24-.32;
# single BigEarthNet patches (L2A): B09/B8A .98-1.00.
ENOUGH_IMAGES: Final = 64


def check_plausible(imagery: Imagery, names: Sequence[str] = ()) -> None:
    """Raise if the pixels of a batch contradict what is stated of them.

    Every image is judged by itself (`find_doubts`); from 64 images on, so are the ratios of band
    means over all of them, which tell Level-1C from Level-2A and a right band order from a wrong
    one, and for Sentinel-1 the distance of VV and VH.

    Args:
        imagery: In physical units, as read.
        names: What the images are called, for the message, where they do not say it themselves.

    Raises:
        PixelError: With what was found, in which band of which images.
    """
    if not bool(imagery.valid.any()):
        raise PixelError(
            "not one pixel of these images is valid",
            where=", ".join(names[:_NAMED]) or f"{len(imagery)} images of {imagery.spec.sensor}",
            remedy="leave such images out",
            images=range(len(imagery)),
        )
    doubts = find_doubts(imagery)
    if doubts:
        raise refusal(doubts, names or imagery.names or _numbered(len(imagery)))
    _check_means(imagery)


_NAMED: Final = 5


def _numbered(count: int) -> list[str]:
    return ["the image"] if count == 1 else [f"image {i} of the batch" for i in range(count)]


def refusal(doubts: Sequence[Doubt], names: Sequence[str]) -> PixelError:
    """Return one error that names every image with the first of the faults.

    Args:
        doubts: At least one; `image` of each is a place in `names`.
        names: What the images are called.
    """
    first = doubts[0]
    same = [doubt for doubt in doubts if doubt.problem == first.problem]
    shown = "; ".join(f"{names[doubt.image]}: {doubt.found}" for doubt in same[:_NAMED])
    remedy = first.remedy
    if first.instead is not None:
        remedy += f": unit {first.instead}"
    return PixelError(
        first.problem,
        found=shown + (f"; and {len(same) - _NAMED} more" if same[_NAMED:] else ""),
        expected=first.expected,
        remedy=remedy,
        images=[doubt.image for doubt in same],
    )


def _check_means(imagery: Imagery) -> None:
    """Compare the mean of each band with that of others, over all images that were measured."""
    spec, seen = imagery.spec, imagery.valid.flatten(1).any(dim=1)
    valid = imagery.valid[seen, None]
    if len(valid) < ENOUGH_IMAGES:
        return
    total = torch.where(valid, imagery.pixels[seen], 0).sum(dim=(2, 3), dtype=torch.float64)
    means = (total / valid.sum(dim=(2, 3))).mean(dim=0)
    shift = 1000.0 if spec.unit is Unit.DN_OFFSET1000 else 0.0
    level = dict(zip(spec.bands, (means - shift).tolist(), strict=True))
    if spec.unit is Unit.DB and {"VV", "VH"} <= set(level):
        apart = level["VV"] - level["VH"]
        if not 3 <= apart <= 12:  # 4.9 to 7.9 dB in BigEarthNet
            raise PixelError(
                "VV and VH are not those of Sentinel-1",
                found=f"mean VV {level['VV']:.1f} dB, mean VH {level['VH']:.1f} dB",
                expected="VV above VH by 3 to 12 dB",
                where=f"{len(imagery)} images",
                remedy="check the order of the bands and whether the values are decibels",
            )
    if spec.sensor not in {Sensor.S2_L1C, Sensor.S2_L2A}:
        return
    # between .6 and .85 a mean of B09 says nothing of the product level
    bounds = {
        ("B08", "B8A"): (0.8, 1.1),
        ("B10", "B8A"): (0.0, 0.05),
        ("B09", "B8A"): (0.0, 0.85) if spec.sensor is Sensor.S2_L1C else (0.6, 2.0),
    }
    for (band, other), (low, high) in bounds.items():
        if band not in level or other not in level:
            continue
        ratio = level[band] / level[other] if level[other] > 0 else float("inf")
        if not low <= ratio <= high:
            raise PixelError(
                f"these bands are not those of {spec.sensor} in the stated order",
                found=f"mean {band} / mean {other} = {ratio:.3g}",
                expected=f"{low:g} to {high:g}",
                where=f"{len(imagery)} images, bands {' '.join(spec.bands)}",
                remedy="check the stored order of the bands and the product level",
            )
