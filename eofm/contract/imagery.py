"""Batches of images with their specification, and of labels that can be unknown.

Shapes: B images, C bands, H by W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from eofm.contract.shapes import Bool, Float, Float32, Int64, Real, Shaped
from eofm.contract.spec import ImageSpec, canonical_band, stated_names
from eofm.environment import device_of
from eofm.errors import SpecError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["Georeference", "Imagery", "Labels", "NativeImagery", "collate"]


@dataclass(frozen=True)
class Georeference:
    """The georeference of one image in plain numbers, without a raster library.

    Args:
        crs: Coordinate reference system as an authority's code (`EPSG:32632`) or as WKT; None if
            unknown.
        transform: a, b, c, d, e, f: the outer corner of the pixel in column x and row y is at
            (a x + b y + c, d x + e y + f). The order is that of `affine.Affine`.

    Raises:
        SpecError: If the transform is not six finite numbers that span an area.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]

    def __post_init__(self) -> None:
        numbers = tuple(map(float, self.transform))
        if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
            raise SpecError("a transform is six finite numbers", found=self.transform)
        a, b, _, d, e, _ = numbers
        if a * e == b * d:
            raise SpecError("the pixels of a transform must cover an area", found=numbers)
        object.__setattr__(self, "transform", numbers)

    def point(self, col: float, row: float) -> tuple[float, float]:
        """Return the coordinates of a pixel position; (0, 0) is the outer corner."""
        a, b, c, d, e, f = self.transform
        return a * col + b * row + c, d * col + e * row + f

    def at(self, row: int, col: int) -> Georeference:
        """Return the georeference of a window that begins at a row and column."""
        a, b, _, d, e, _ = self.transform
        x, y = self.point(col, row)
        return Georeference(self.crs, (a, b, x, d, e, y))


@dataclass(frozen=True, repr=False)
class Imagery:
    """A batch of images of one size.

    Args:
        pixels: float32, (B, C, H, W), in the spec's unit and band order. Values of invalid
            pixels are undefined.
        spec: Specification of the pixels.
        valid: bool, (B, H, W). False where a band is nodata, NaN or without backscatter.
        grids: Georeference of each image, None where it is unknown; None if it is unknown for the
            whole batch.
        names: Name of each image, for messages; empty for a batch without names.

    Raises:
        SpecError: If pixels, spec, mask, grids and names disagree in shape, dtype or number.
    """

    pixels: Float32[Tensor, "b c h w"]
    spec: ImageSpec
    valid: Bool[Tensor, "b h w"]
    grids: tuple[Georeference | None, ...] | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.float32:
            raise SpecError(
                "imagery is a batch of float32 images",
                found=f"{tuple(self.pixels.shape)} {self.pixels.dtype}",
                expected="(B, C, H, W) torch.float32",
            )
        if self.pixels.shape[1] != len(self.spec.bands):
            raise SpecError(
                "the pixels have a different number of bands than their spec",
                found=f"{self.pixels.shape[1]} bands",
                expected=f"{len(self.spec.bands)}: {', '.join(self.spec.bands)}",
            )
        if self.spec.size is not None and tuple(self.pixels.shape[2:]) != self.spec.size:
            raise SpecError(
                "the pixels have a different size than their spec",
                found=tuple(self.pixels.shape[2:]),
                expected=self.spec.size,
            )
        expected = (self.pixels.shape[0], *self.pixels.shape[2:])
        if tuple(self.valid.shape) != expected or self.valid.dtype != torch.bool:
            raise SpecError(
                "the valid mask does not match the pixels",
                found=f"{tuple(self.valid.shape)} {self.valid.dtype}",
                expected=f"{expected} torch.bool",
            )
        if self.grids is not None and len(self.grids) != self.pixels.shape[0]:
            raise SpecError(
                "a batch needs one georeference per image",
                found=f"{len(self.grids)} for {self.pixels.shape[0]} images",
            )
        if self.names and len(self.names) != self.pixels.shape[0]:
            raise SpecError(
                "a batch needs one name per image",
                found=f"{len(self.names)} for {self.pixels.shape[0]} images",
            )

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __iter__(self) -> Iterator[Self]:
        """Iterate over the images, each as a batch of one."""
        return (self[number] for number in range(len(self)))

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> Self:
        """Return some images: one by its number, several by a slice, numbers or a mask.

        Raises:
            SpecError: If there is no such image.
        """
        if isinstance(rows, str):
            raise SpecError(
                "images of a batch are indexed by number",
                found=rows,
                remedy=f'for a band of all images, imagery.select(["{rows}"])',
            )
        if not isinstance(rows, (slice, Tensor)):
            try:
                rows = index(rows)  # type: ignore[arg-type]
            except TypeError:
                rows = torch.as_tensor(rows)
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise SpecError(
                    "the batch has no such image", found=rows, expected=f"below {len(self)}"
                )
            rows = slice(rows % len(self), rows % len(self) + 1)
        grids, names = self.grids, self.names
        if grids is not None or names:
            order = torch.arange(len(self))[rows if isinstance(rows, slice) else rows.cpu()]
            kept: list[int] = order.tolist()
            grids = None if grids is None else tuple(grids[i] for i in kept)
            names = tuple(names[i] for i in kept) if names else ()
        pixels, valid = self.pixels[rows], self.valid[rows]
        return replace(self, pixels=pixels, valid=valid, grids=grids, names=names)

    @property
    def grid(self) -> Georeference | None:
        """The georeference of a batch of one image.

        Raises:
            SpecError: If there are several images.
        """
        if len(self) != 1:
            raise SpecError(
                "a batch of several images has several grids",
                found=f"{len(self)} images",
                remedy="imagery[0].grid, or imagery.grids for all of them",
            )
        return self.grids[0] if self.grids else None

    def select(self, bands: Sequence[str]) -> Self:
        """Return the images with the given bands, in the given order.

        Args:
            bands: Band names, in any spelling.

        Raises:
            SpecError: If a band is missing or unknown.
        """
        bands = [
            name if name in self.spec.bands else canonical_band(name, self.spec.sensor)
            for name in stated_names(bands)
        ]
        missing = [band for band in bands if band not in self.spec.bands]
        if missing:
            raise SpecError(
                f"the imagery lacks {', '.join(missing)}",
                found=", ".join(self.spec.bands),
                expected=", ".join(bands),
            )
        places = [self.spec.bands.index(band) for band in bands]
        rule = self.spec.normalization
        spec = replace(
            self.spec,
            bands=tuple(bands),
            normalization=None if rule is None else rule.select(places),
        )
        return replace(self, pixels=self.pixels[:, places], spec=spec)

    def __repr__(self) -> str:
        return f"Imagery({', '.join(f'{name} {value}' for name, value in self.facts().items())})"

    def facts(self) -> dict[str, str]:
        """Return a summary of the images as short texts by name, as shown by `repr`."""
        images, _, height, width = self.pixels.shape
        share = float(self.valid.float().mean()) if self.valid.numel() else 0.0
        grids = self.grids or ()
        crs = sorted({grid.crs or "none" for grid in grids if grid is not None})
        named = [code.split('"')[1] if '"' in code else code for code in crs if code]
        return {
            "images": str(images),
            "sensor": str(self.spec.sensor),
            "bands": " ".join(self.spec.bands),
            "unit": str(self.spec.unit),
            "size": f"{height} x {width}",
            "gsd": f"{self.spec.gsd:g} m",
            "valid": f"{share:.1%}" if 0 < share < 1 else f"{share:.0%}",
            "crs": ", ".join(named) if named else "unknown",
        }

    # Plotting and xarray belong to layers above this one; these methods make them easy to find in a
    # notebook. `tests/test_layers.py` lists the two exceptions.

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw one image in true or false colours, in its coordinates: `eofm.report.sheets`.

        Args:
            ax: Axes to draw on; None creates a figure.

        Raises:
            SpecError: If the batch is not a single image.
        """
        from eofm.report.sheets import plot

        return plot(self, ax)

    def to_xarray(self) -> xr.DataArray:
        """Return one image with band names and georeference: `eofm.raster.cube.to_xarray`."""
        from eofm.raster.cube import to_xarray

        return to_xarray(self)

    def _repr_html_(self) -> str:
        from eofm.report.sheets import to_html

        return to_html(self)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on another device.

        Raises:
            ConfigError: If there is no such device here.
        """
        device = device_of(device)
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

    Upsampling to one grid takes nine times as long as reading, so it is deferred until the batch is
    on its device: `eofm.contract.preprocess.to_grid`.

    Args:
        planes: Native GSD in metres -> (B, c, h, w), uint16 digital numbers or float32.
        bands: Native GSD in metres -> names of the c bands.
        spec: Specification after `to_grid`: band order, unit, size and GSD of the common grid.
        valid: bool, (B, H, W), on the grid of the spec.
    """

    planes: Mapping[int, Shaped[Tensor, "b _ _ _"]]
    bands: Mapping[int, tuple[str, ...]]
    spec: ImageSpec
    valid: Bool[Tensor, "b h w"]

    def __post_init__(self) -> None:
        stored = sorted(b for group in self.bands.values() for b in group)
        if stored != sorted(self.spec.bands) or set(self.bands) != set(self.planes):
            raise SpecError(
                "the planes do not contain the bands of the spec",
                found=", ".join(stored),
                expected=", ".join(sorted(self.spec.bands)),
            )

    def __len__(self) -> int:
        return self.valid.shape[0]

    def __repr__(self) -> str:
        gsds = ", ".join(f"{gsd} m" for gsd in sorted(self.planes))
        return f"NativeImagery({len(self)} images in planes of {gsds}; on one grid: {self.spec})"

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on another device, still in its native dtype.

        Raises:
            ConfigError: If there is no such device here.
        """
        device = device_of(device)
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
    """Multi-labels of a batch, which distinguish "unlabelled" from "no class".

    Args:
        multi_hot: float32, (B, K): 1 where the class is present. Zeros where unknown.
        known: bool, (B,). False if the labels are unknown, as opposed to "no class is present".
        shares: float32, (B, K): share of the image that each class covers; None if not requested.
        places: int64, (B,): location index, shared by images of one location such as its seasons;
            None if not requested.

    Raises:
        SpecError: If shapes disagree.
    """

    multi_hot: Real[Tensor, "b k"]
    known: Bool[Tensor, " b"]
    shares: Float[Tensor, "b k"] | None = None
    places: Int64[Tensor, " b"] | None = None

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
                "shares must be (B, K) like the classes, and places (B,)",
                found=" and ".join(str(tuple(x.shape)) for x in (shares, places) if x is not None),
                expected=f"{tuple(self.multi_hot.shape)} and {tuple(self.known.shape)}",
            )

    def __len__(self) -> int:
        return self.multi_hot.shape[0]

    def __repr__(self) -> str:
        count = self.known.shape[0]
        known, classes = int(self.known.sum()), self.multi_hot.shape[1]
        extra = ", with covered shares" * (self.shares is not None)
        extra += ", with places" * (self.places is not None)
        return f"Labels({count} images, {known} of them labelled, {classes} classes{extra})"

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """Return the labels of some images, by an index tensor, a mask or a slice."""
        return self._each(lambda values: values[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the labels on another device.

        Raises:
            ConfigError: If there is no such device here.
        """
        device = device_of(device)
        return self._each(lambda values: values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the labels in page-locked memory."""
        return self._each(lambda values: values.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the labels with a function applied to every tensor that is not None."""
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
        SpecError: If there are no images, or their specs differ.
    """
    if not images:
        raise SpecError("there is nothing to collate", found="an empty list")
    spec = images[0].spec
    for other in images[1:]:
        if other.spec != spec:
            raise SpecError(
                "images with different specs cannot share a batch",
                found=other.spec,
                expected=spec,
                remedy="batch each data set separately; plan() converts both to one recipe",
            )
    pixels = torch.cat([image.pixels for image in images])
    grids: tuple[Georeference | None, ...] | None = None
    if any(image.grids is not None for image in images):
        grids = tuple(grid for image in images for grid in image.grids or (None,) * len(image))
    named = all(image.names for image in images)
    names = tuple(name for image in images for name in image.names) if named else ()
    return Imagery(pixels, spec, torch.cat([image.valid for image in images]), grids, names)
