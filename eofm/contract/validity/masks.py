"""Which pixels hold a measurement, on the grid of any band: the first question of the package.

Shapes: B images, C bands, H by W pixels; c bands of one native resolution, h by w of its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.shapes import Bool, Float, Shaped
from eofm.contract.spec import Unit
from eofm.errors import PixelError

# Sentinel-2 numbers with and without offset, and reflectance, on the scale of digital numbers.
PER_DN: Final[Mapping[Unit, float]] = {
    Unit.DN: 1.0,
    Unit.DN_OFFSET1000: 1.0,
    Unit.REFLECTANCE: 1e-4,
}
NO_POWER: Final = -1.0
_ZERO_IS_UNMEASURED: Final = frozenset({*PER_DN, Unit.POWER, Unit.DB})


def measured(
    planes: Mapping[int, Shaped[Tensor, "b _ _ _"]],
    declared: Mapping[int, Bool[Tensor, "b _ _ _"]],
    bands: Mapping[int, tuple[str, ...]],
    unit: Unit,
    size: tuple[int, int],
) -> Bool[Tensor, "b h w"]:
    """Return which pixels of the finest grid hold a measurement: bool (B, H, W).

    Args:
        planes: Native ground sampling distance -> (B, c, h, w), values as stored.
        declared: The same keys, or some of them -> bool (B, c, h, w) or (B, 1, h, w), True where
            the file declares that there is no measurement.
        bands: The same keys -> the names of the c bands.
        unit: Unit of the values.
        size: H and W.
    """
    if not declared and unit is not Unit.POWER and all(map(_is_full, planes.values())):
        first = next(iter(planes.values()))
        return torch.ones(len(first), *size, dtype=torch.bool, device=first.device)  # most images
    valid, empty = {}, {}
    for gsd, plane in planes.items():
        valid[gsd], empty[gsd] = _measured_plane(plane, declared.get(gsd), unit)
    telling = [gsd for gsd in planes if len(bands[gsd]) > 1]
    if telling or len(planes) == 1:
        empty = {gsd: empty[gsd] for gsd in telling or planes}
    else:
        empty = _empty_together(empty, size)
    masks = []
    for gsd, mask in valid.items():
        own = mask & ~empty[gsd] if gsd in empty else mask
        masks.append(own if tuple(own.shape[1:]) == size else fine_mask(own, size))
    return torch.stack(masks).all(dim=0)


def _measured_plane(
    plane: Shaped[Tensor, "b c h w"], declared: Bool[Tensor, "b _ h w"] | None, unit: Unit
) -> tuple[Bool[Tensor, "b h w"], Bool[Tensor, "b h w"]]:
    """Look at the bands of one resolution, value by value.

    Returns:
        Where no band is without measurement, and where all bands are empty: bool (B, h, w) both.
    """
    values = comparable(plane)
    counts = values != 0
    empty = ~counts if unit in _ZERO_IS_UNMEASURED else torch.zeros_like(counts)
    valid = torch.ones_like(counts[:, 0])
    if declared is not None:
        valid = ~(declared & counts).any(dim=1)
        empty = empty | declared
    if plane.is_floating_point():
        valid = valid & torch.isfinite(plane).all(dim=1)
    if unit is Unit.POWER:
        # what is far below 0 is no power at all, and stays for `find_doubts` to see
        valid = valid & ~((values <= 0) & (values > NO_POWER)).any(dim=1)
    return valid, empty.all(dim=1)


def _empty_together(
    empty: Mapping[int, Bool[Tensor, "b _ _"]], size: tuple[int, int]
) -> dict[int, Bool[Tensor, "b _ _"]]:
    """Return the empty pixels of each resolution on ground where those of all others are empty."""
    fine = [
        nn.functional.interpolate(mask.float()[:, None], size=size, mode="nearest-exact")
        for mask in empty.values()
    ]
    share = torch.stack(fine).amin(dim=0)
    return {
        gsd: mask & (nn.functional.adaptive_max_pool2d(share, list(mask.shape[1:]))[:, 0] > 0)
        for gsd, mask in empty.items()
    }


# Of a neighbour at the same place float32 makes 3e-8 where the ratio is odd; a sixth of 60 m draws
# at least (1/12)^2 = 7e-3 of it.
_ROUNDING: Final = 1e-4


def comparable(stored: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
    """Return a view that torch can compare, as it cannot uint16: 65535 is -1, and 0 stays 0."""
    return stored.view(torch.int16) if stored.dtype == torch.uint16 else stored


def _is_full(plane: Shaped[Tensor, "b c h w"]) -> bool:
    """Return whether no value is 0, NaN or infinite; a sum is finite only if all of it is."""
    values = comparable(plane)
    if int(torch.count_nonzero(values)) != values.numel():
        return False
    return not values.is_floating_point() or sum_is_finite(values)


def sum_is_finite(values: Float[Tensor, "*s"]) -> bool:
    """Return whether a sum is finite: then all of it is, which is found in a fifth of the time.

    Args:
        values: Of any shape. A sum that overflows tells nothing.
    """
    return bool(torch.isfinite(values.sum()))


def fine_mask(valid: Bool[Tensor, "b _ _"], size: tuple[int, int]) -> Bool[Tensor, "b _ _"]:
    """Bring a mask (B, h, w) to the finest grid (B, H, W).

    A fine pixel is valid if bilinear upsampling draws nothing from an invalid coarse one.
    """
    if bool(valid.all()):
        return valid.new_ones((valid.shape[0], *size))
    weight = nn.functional.interpolate(
        (~valid).float()[:, None], size=size, mode="bilinear", align_corners=False
    )
    return weight[:, 0] < _ROUNDING


def measured_of(native: NativeImagery, gsd: int) -> Bool[Tensor, "b h w"]:
    """Return which pixels of one native resolution hold a measurement: bool (B, h, w)."""
    height, width = native.planes[gsd].shape[2:]
    return coarse_mask(native.valid, (height, width))


def coarse_mask(valid: Bool[Tensor, "b _ _"], size: tuple[int, int]) -> Bool[Tensor, "b _ _"]:
    """Bring a mask (B, H, W) to a coarser grid (B, h, w): valid where all of its pixels are."""
    step = int(valid.shape[1]) // size[0]
    if step <= 1:
        return valid
    return nn.functional.avg_pool2d(valid.float()[:, None], step)[:, 0] == 1


def check_finite(imagery: Imagery) -> None:
    """Raise if a pixel that is marked valid is NaN or infinite.

    Raises:
        PixelError: With the first band of the first image, and the numbers of all such images.
    """
    if sum_is_finite(imagery.pixels):
        return
    bad = ~torch.isfinite(imagery.pixels)
    if not bool(bad.any()):
        return
    places = torch.nonzero((bad & imagery.valid[:, None]).flatten(2).any(dim=2)).tolist()
    if not places:
        return
    image, band = places[0]
    raise PixelError(
        "pixels marked valid are not finite",
        found=f"NaN or infinity in band {imagery.spec.bands[band]}",
        where=f"image {image} of the batch",
        remedy="mark them in the valid mask",
        images=sorted({number for number, _ in places}),
    )
