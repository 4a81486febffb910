"""From a list of images to a packed store: one image, one row.

`eofm pack ssl4eo`, `bigearthnet` and `eurosat` share this code. Before anything is written, some
images are checked: their pixels must be consistent with what the data set states
(`eofm.contract.validity`). Then every image is read at native resolution, converted to the unit,
data type and band order of the store, and committed. An image that cannot be read is skipped and
listed in the store with the reason, or stops the run if all are required. An interrupted run
resumes where it stopped, provided that the images have not changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

import eofm
from eofm.contract.imagery import NativeImagery
from eofm.contract.preprocess import convert_unit
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import check_sentinels
from eofm.errors import DataError, PixelError, RasterError, StoreError
from eofm.raster.source import OpenRaster, RasterSource, find_doubt
from eofm.store.describe import PackReport
from eofm.store.format import Entry, LabelRule, Plain, StoreCard
from eofm.store.grids import located
from eofm.store.parts import write_parts
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

__all__ = [
    "Item",
    "ItemsReport",
    "check_sources",
    "listed",
    "make_card",
    "pack_items",
    "stored_spec",
    "stored_unit",
    "to_stored",
]

# ------------------------------------------------------------------------------------------ pixels


# One unit per sensor in a store. The two units of RGB cannot be converted: the stated one stays.
_STORED: Final[Mapping[Unit, Unit]] = {
    Unit.DN: Unit.DN,
    Unit.DN_OFFSET1000: Unit.DN,
    Unit.REFLECTANCE: Unit.DN,
    Unit.DB: Unit.DB,
    Unit.POWER: Unit.DB,
    Unit.UINT8: Unit.UINT8,
}
_INTEGER: Final = frozenset({Unit.DN, Unit.UINT8})


def stored_unit(sensor: Sensor, unit: Unit) -> Unit:
    """Return the unit in which a store holds images of a sensor stated to be in `unit`."""
    return unit if sensor in {Sensor.RGB, Sensor.NAIP} else _STORED[unit]


def stored_spec(raster: OpenRaster, size: tuple[int, int]) -> ImageSpec:
    """Return the spec of windows of an image in a store: bands in the order of the sensor."""
    spec = raster.spec()
    bands = tuple(band for band in SENSOR_BANDS[spec.sensor] if band in raster.bands)
    return replace(spec, bands=bands, size=size, unit=stored_unit(spec.sensor, spec.unit))


def to_stored(native: NativeImagery, spec: ImageSpec, where: str) -> NativeImagery:
    """Bring an image to the unit, dtype and band order of a store.

    Digital numbers are rounded and clipped at 0: subtracting the offset of baseline 04.00 leaves
    small negative numbers over water and shadow.

    Args:
        native: As read, with the pixels that hold no measurement marked.
        spec: Of the store.
        where: Name of the image, for the message of an error.

    Raises:
        PixelError: If there is a value that can only be nodata, though none is declared.
        RasterError: If it has other bands or another GSD than the store.
    """
    found = native.spec
    if set(found.bands) != set(spec.bands) or abs(found.gsd / spec.gsd - 1) > 0.02:
        raise RasterError(
            "an image differs from the first one of its folder",
            found=f"{' '.join(found.bands)} at {found.gsd:g} m",
            expected=f"{' '.join(spec.bands)} at {spec.gsd:g} m",
            where=where,
            remedy="pack different kinds of images into different stores",
        )
    check_sentinels(native, where)
    planes, bands = {}, {}
    for gsd, plane in native.planes.items():
        order = [band for band in spec.bands if band in native.bands[gsd]]
        index = [native.bands[gsd].index(band) for band in order]
        bands[gsd] = tuple(order)
        planes[gsd] = _convert(plane[:, index], found.unit, spec.unit)
    return NativeImagery(planes, bands, spec, native.valid)


def _convert(plane: torch.Tensor, unit: Unit, target: Unit) -> torch.Tensor:
    integer = target in _INTEGER
    if unit is target and (plane.dtype == torch.uint16) == integer:
        return plane
    values = plane.float()
    if unit is Unit.POWER:
        values = torch.where(values > 0, values, 1.0)  # 0 dB, under an invalid pixel
    values = convert_unit(values, unit, target)
    return values.round().clamp(0, 65_535).to(torch.uint16) if integer else values


# ------------------------------------------------------------------------------------------- items


_LOOKED_AT: Final = 32  # images, before packing begins


@dataclass(frozen=True)
class Item:
    """One image that will be one row.

    Args:
        name: Of the image and its row, unique.
        unit: Of the values in its files.
        source: Finds its files; an image that lacks some raises a `RasterError` here.
        entry: Makes its row of the index, from the open image.
        label: Gives that row the labels of a map, counted where the mask (H, W) says that the image
            is measured; None where `entry` knows them.
    """

    name: str
    unit: Unit
    source: Callable[[], RasterSource]
    entry: Callable[[OpenRaster], Entry]
    label: Callable[[Entry, OpenRaster, NDArray[np.bool_]], Entry] | None = None


def listed(entry: Entry, multi_hot: tuple[int, ...]) -> Entry:
    """Return the entry of an image whose classes are known, but not their covered shares."""
    nothing = (float("nan"),) * len(multi_hot)
    return replace(entry, fraction=nothing, multi_hot=multi_hot, known=True, valid_share=nothing[0])


@dataclass(frozen=True)
class ItemsReport:
    """What became of the images.

    Args:
        store: Description of the store.
        notes: Further lines for the user: missing and skipped images, with the reason.
    """

    store: PackReport
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return some lines for the terminal."""
        lines = [self.store.describe(), *(f"  {note}" for note in self.notes)]
        if self.store.quarantined:
            lines.append("  repair those images and pack into a new folder, or go without them")
        return "\n".join(lines)


def make_card(
    items: Sequence[Item],
    labels: LabelRule | None,
    settings: Mapping[str, Plain],
    provenance: Mapping[str, Plain],
) -> StoreCard:
    """Check some images, evenly spaced, and return the card of the store to be written.

    The size most of them have is the size of the store. Images that cannot be opened are passed
    over here: packing will meet them.

    Args:
        items: All images.
        labels: How the rows are labelled.
        settings: Everything that determines the rows and their content.
        provenance: Origin of the data, in addition to the version of eofm.

    Raises:
        PixelError: If the pixels contradict what is stated of them.
        RasterError: If none of the checked images can be read.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], RasterSource] = {}
    error: RasterError | None = None
    for item in items[:: max(1, -(-len(items) // _LOOKED_AT))]:
        try:
            source = item.source()
            with source.open() as raster:
                doubt = find_doubt(raster)
                size = (raster.grid.height, raster.grid.width)
        except RasterError as caught:
            error = error or caught
            continue
        if doubt is not None:
            raise PixelError(
                doubt.problem,
                found=doubt.found,
                expected=doubt.expected,
                where=source.files[0].parent,
                remedy="pack images of another unit with `eofm pack tiles`, where it can be stated",
            )
        sizes[size] += 1
        first.setdefault(size, source)
    if not sizes:
        raise error or RasterError("there are no images to pack")
    size = sizes.most_common(1)[0][0]
    with first[size].open() as raster, first[size].naming():
        spec = stored_spec(raster, size)
        groups = dict(to_stored(raster.read_native(), spec, first[size].name).bands)
    return StoreCard(
        spec=spec,
        groups=groups,
        labels=labels,
        settings=settings,
        provenance={"eofm": eofm.__version__, **provenance},
    )


def pack_items(
    items: Sequence[Item], card: StoreCard, out: str | Path, *, strict: bool, workers: int
) -> PackReport:
    """Write every image into a store, or resume one.

    Args:
        items: In the order of the rows.
        card: From `make_card`.
        out: Folder of the store.
        strict: Stop at an image that cannot be read, rather than pass over it.
        workers: How many processes read and write. Their number changes no byte.

    Raises:
        RasterError: If an image cannot be read and `strict` is set.
        LabelError: If a map holds unknown codes.
        StoreError: If `out` holds something else, or cannot be written; if nothing can be packed.
    """
    by_name = {item.name: item for item in items}
    if len(by_name) != len(items):
        twice = [name for name, count in Counter(i.name for i in items).items() if count > 1]
        raise DataError("images have the same name", found=", ".join(twice[:5]), where=out)
    new = write_parts(out, card, by_name, _Fill(strict), workers=workers)
    return PackReport.of(Path(out), already=not new)


@dataclass(frozen=True)
class _Fill:
    """Writes the rows of some images.

    Args:
        strict: Stop at an image that cannot be read.
    """

    strict: bool

    def __call__(self, writer: StoreWriter, items: Mapping[str, Item]) -> None:
        for name, item in items.items():
            if name in writer.skipped:
                continue
            try:
                written = name in writer.ids or _commit(writer, item)
            except (RasterError, PixelError) as error:
                if self.strict:
                    raise
                writer.quarantine(name, _reason(error))
            else:
                writer.source_done(name, int(not written))


def _reason(error: RasterError | PixelError) -> str:
    found = "" if error.found is None else f" (found {error.found})"
    where = "" if error.where is None else f": {error.where}"
    return f"{error.problem}{found}{where}"


def _commit(writer: StoreWriter, item: Item) -> bool:
    """Append an image; return False if it has no valid pixel, as the void ones of SSL4EO-S12."""
    card = writer.card
    with item.source().open() as raster, raster.source.naming():
        _check_size(raster, card)
        imagery = to_stored(raster.read_native(), card.spec, item.name)
        if not bool(imagery.valid.any()):
            return False
        entry = located(item.entry(raster), raster.grid)
        if item.label is not None:
            entry = item.label(entry, raster, imagery.valid[0].numpy())
    writer.append(entry, imagery)
    return True


def _check_size(raster: OpenRaster, card: StoreCard) -> None:
    size = (raster.grid.height, raster.grid.width)
    if size != card.size:
        raise RasterError(
            "an image has another size than the store",
            found=f"{size[0]} x {size[1]} pixels",
            expected=f"{card.size[0]} x {card.size[1]} pixels",
            where=raster.source.name,
            remedy="pack images of another size into another store",
        )


# ---------------------------------------------------------------------------------------- resuming


def check_sources(writer: StoreWriter, units: Mapping[str, Unit]) -> None:
    """Check that images with committed rows are still there, in the unit they were packed from.

    Others may have been repaired, removed or added meanwhile, unless the store is complete.

    Args:
        writer: The store.
        units: Name -> stated unit of the images there are now.

    Raises:
        StoreError: If one is gone, is stated otherwise, or is missing in a complete store.
    """
    store = Store(writer.path) if writer.complete else None
    before = writer.source_units if store is None else _source_units(store)
    found = [f"{name} is gone" for name in before if name not in units]
    found += [
        f"{name} was in {unit}, now in {units[name].value}"
        for name, unit in before.items()
        if name in units and units[name].value != unit
    ]
    if found:
        raise StoreError(
            "images that are in the store already are not what they were",
            found="; ".join(found[:5]) + ("; ..." if found[5:] else ""),
            where=writer.path,
            remedy="restore them, or choose another --out",
        )
    if store is not None and len(units) != store.card.sources:
        raise StoreError(
            "the store is complete, but there are other images now",
            found=f"{len(units)} images",
            expected=f"the {store.card.sources} it was packed from",
            where=writer.path,
            remedy="choose another --out",
        )


def _source_units(store: Store) -> dict[str, str]:
    columns = [store.table[name].to_pylist() for name in ("source", "source_unit")]
    return dict(zip(*columns, strict=True))
