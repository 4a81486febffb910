"""Pixels that know what they are, and labels that know when they are unknown.

Shapes: B images, C bands, H by W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from eofm.contract.spec import ImageSpec
from eofm.errors import SpecError


@dataclass(frozen=True)
class Imagery:
    """A batch of images on one grid.

    Args:
        pixels: float32, (B, C, H, W), in the spec's unit and band order. Values under an
            invalid pixel mean nothing.
        spec: What the pixels are.
        valid: bool, (B, H, W). False where a band is nodata, NaN or without backscatter.

    Raises:
        SpecError: If pixels, spec and mask disagree in shape or type.
    """

    pixels: Tensor
    spec: ImageSpec
    valid: Tensor

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.float32:
            raise SpecError(
                "imagery holds a batch of float32 images",
                found=f"{tuple(self.pixels.shape)} {self.pixels.dtype}",
                expected="(B, C, H, W) torch.float32",
            )
        if self.pixels.shape[1] != len(self.spec.bands):
            raise SpecError(
                "the pixels have another number of bands than their spec",
                found=f"{self.pixels.shape[1]} bands",
                expected=f"{len(self.spec.bands)}: {', '.join(self.spec.bands)}",
            )
        if self.spec.size is not None and tuple(self.pixels.shape[2:]) != self.spec.size:
            raise SpecError(
                "the pixels have another size than their spec",
                found=tuple(self.pixels.shape[2:]),
                expected=self.spec.size,
            )
        expected = (self.pixels.shape[0], *self.pixels.shape[2:])
        if tuple(self.valid.shape) != expected or self.valid.dtype != torch.bool:
            raise SpecError(
                "the valid mask does not fit the pixels",
                found=f"{tuple(self.valid.shape)} {self.valid.dtype}",
                expected=f"{expected} torch.bool",
            )

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=non_blocking),
            valid=self.valid.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return replace(self, pixels=self.pixels.pin_memory(), valid=self.valid.pin_memory())


@dataclass(frozen=True)
class NativeImagery:
    """A batch as stored: each band at its native resolution and in its native dtype.

    Upsampling to one grid costs nine times the read, so it waits until the batch is on its
    device: `eofm.contract.preprocess.to_grid`.

    Args:
        planes: Native GSD in metres -> (B, c, h, w), uint16 digital numbers or float32.
        bands: Native GSD in metres -> the names of those c bands.
        spec: What `to_grid` will make of it: band order, unit, size and GSD of the one grid.
        valid: bool, (B, H, W), on the grid of the spec.
    """

    planes: Mapping[int, Tensor]
    bands: Mapping[int, tuple[str, ...]]
    spec: ImageSpec
    valid: Tensor

    def __post_init__(self) -> None:
        stored = sorted(b for group in self.bands.values() for b in group)
        if stored != sorted(self.spec.bands) or set(self.bands) != set(self.planes):
            raise SpecError(
                "the planes do not hold the bands of the spec",
                found=", ".join(stored),
                expected=", ".join(sorted(self.spec.bands)),
            )

    def __len__(self) -> int:
        return self.valid.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on another device, still in its native dtype."""
        return replace(
            self,
            planes={g: p.to(device, non_blocking=non_blocking) for g, p in self.planes.items()},
            valid=self.valid.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return replace(
            self,
            planes={g: p.pin_memory() for g, p in self.planes.items()},
            valid=self.valid.pin_memory(),
        )


@dataclass(frozen=True)
class Labels:
    """Multi-labels of a batch, with "unlabelled" as a state of its own.

    Args:
        multi_hot: float32, (B, K): 1 where the class is present. Zeros where unknown.
        known: bool, (B,). False: nothing is known, which is not "no class is present".
        shares: float32, (B, K): the share of the image that each class covers; None where nobody
            asked for it.
        places: int64, (B,): images of one place, such as its seasons, have the same number; None
            where nobody asked for it.

    Raises:
        SpecError: If shapes disagree.
    """

    multi_hot: Tensor
    known: Tensor
    shares: Tensor | None = None
    places: Tensor | None = None

    def __post_init__(self) -> None:
        if self.multi_hot.ndim != 2 or self.known.shape != self.multi_hot.shape[:1]:
            raise SpecError(
                "labels need (B, K) classes and (B,) known",
                found=f"{tuple(self.multi_hot.shape)}, {tuple(self.known.shape)}",
            )
        shares, places = self.shares, self.places
        if (shares is not None and shares.shape != self.multi_hot.shape) or (
            places is not None and places.shape != self.known.shape
        ):
            raise SpecError(
                "covered shares are (B, K) like the classes, and places (B,)",
                found=" and ".join(str(tuple(x.shape)) for x in (shares, places) if x is not None),
                expected=f"{tuple(self.multi_hot.shape)} and {tuple(self.known.shape)}",
            )

    def __len__(self) -> int:
        return self.multi_hot.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """Return the labels of some images, by an index tensor, a mask or a slice."""
        return self._each(lambda values: values[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the labels on another device."""
        return self._each(lambda values: values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the labels in page-locked memory."""
        return self._each(lambda values: values.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return labels of which every tensor that is there has been changed."""
        return replace(
            self,
            multi_hot=change(self.multi_hot),
            known=change(self.known),
            shares=None if self.shares is None else change(self.shares),
            places=None if self.places is None else change(self.places),
        )


def collate(images: Sequence[Imagery]) -> Imagery:
    """Stack batches of the same kind of pixel into one.

    Raises:
        SpecError: If there is none, or two of them differ in their spec.
    """
    if not images:
        raise SpecError("there is nothing to collate", found="an empty list")
    spec = images[0].spec
    for other in images[1:]:
        if other.spec != spec:
            raise SpecError(
                "two kinds of pixel cannot share a batch",
                found=other.spec,
                expected=spec,
                remedy="batch each data set on its own; plan() makes them equal",
            )
    pixels = torch.cat([image.pixels for image in images])
    return Imagery(pixels, spec, torch.cat([image.valid for image in images]))
