"""What `eofm pack` does of a set whose images are single files, and of a set of several sensors.

Images of one class each go into one packed store with their splits. Several sensors are packed each
into a store of its own, OUT/SENSOR, and the table OUT/rows.parquet says which images belong
together (`eofm.store.paired`). The table comes last: a run that was interrupted resumes with the
store that it was writing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eofm.contract.spec import ImageSpec
from eofm.datasets.images.chips import Chip, source_of
from eofm.errors import RasterError, StoreError
from eofm.raster.source import OpenRaster, RasterSource
from eofm.store.format import JOURNAL, PAIRS, SPEC, Entry, LabelRule, Plain
from eofm.store.packing import Item, ItemsReport, listed, make_card, pack_items
from eofm.store.paired import Pair, write_pairs
from eofm.store.splits import SPLITS

__all__ = ["SensorsReport", "pack_chips", "pack_sensors"]

_LOOKED_AT: Final = 32  # images, before packing begins


def pack_chips(
    splits: Mapping[str, Sequence[Chip]],
    spec: ImageSpec,
    rule: LabelRule,
    out: str,
    *,
    title: str,
    settings: Mapping[str, Plain],
    split: str = "all",
    strict: bool = False,
    workers: int = 1,
    verify: bool = False,
    stats: bool = False,
) -> ItemsReport:
    """Pack the images of a split, or of all, in the order of their names.

    Args:
        splits: Split -> the images: one class and one file each.
        spec: What they are.
        rule: Name of the labels, and class names in the order of the label indices.
        out: Folder of the packed store.
        title: What the report calls them, and how they were divided.
        settings: What decides which images the store holds; `verb` is the command.
        split: `train`, `val`, `test` or `all`.
        strict: Whether every image must be readable; else those that are not are passed over and
            listed in the store with the reason.
        workers: How many processes read and write.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count the statistics of its bands.

    Raises:
        RasterError: If no image says where it lies: a store keeps the place of every image.
        DataError: If an image cannot be read where all are required.
        PixelError: If the pixels cannot be what is stated of them.
        StoreError: If `out` holds something else, or cannot be written.
    """
    wanted = SPLITS if split == "all" else (split,)
    lines = [_ChipLine(chip, spec, name, rule.classes) for name in wanted for chip in splits[name]]
    lines.sort(key=lambda line: line.chip.id)
    _check_located([line.source() for line in lines])
    items = [Item(line.chip.id, spec.unit, line.source, line.entry) for line in lines]
    card = make_card(items, rule, dict(settings), {})
    packed = pack_items(items, card, out, strict=strict, workers=workers)
    packed = packed.then(verify=verify, stats=stats, workers=workers)
    counts = ", ".join(f"{sum(line.split == name for line in lines)} {name}" for name in wanted)
    return ItemsReport(packed, (f"{title}: {counts}",))


def _check_located(sources: Sequence[RasterSource]) -> None:
    """Refuse a data set of which no image can be located; single ones are passed over later."""
    first: RasterError | None = None
    for source in sources[:: max(1, len(sources) // _LOOKED_AT)]:
        try:
            with source.open() as raster:
                raster.grid.centre()
        except RasterError as error:
            error.where = source.files[0]
            first = first or error
        else:
            return
    if first is not None:
        raise first


@dataclass(frozen=True)
class _ChipLine:
    """Makes the line of an image in the index."""

    chip: Chip
    spec: ImageSpec
    split: str
    classes: tuple[str, ...]

    def source(self) -> RasterSource:
        """Return the file of the chip."""
        return source_of(self.chip)

    def entry(self, raster: OpenRaster) -> Entry:
        """Return the line, with what the opened file says of its place."""
        longitude, latitude = raster.grid.centre()
        name = self.chip.id
        entry = Entry(
            id=name,
            location=name,
            season="",
            longitude=longitude,
            latitude=latitude,
            date="",
            source=name,
            source_unit=self.spec.unit.value,
            split=self.split,
        )
        return listed(entry, tuple(int(k == self.chip.label) for k in range(len(self.classes))))


# --------------------------------------------------------------------------------- several sensors


@dataclass(frozen=True)
class SensorsReport:
    """What became of the images of several sensors.

    Args:
        out: The folder of the stores.
        stores: Sensor -> what became of its images; the one that leads the table comes first.
        pairs: How many lines the table has.
        complete: How many of them have an image of every sensor.
    """

    out: Path
    stores: Mapping[str, ItemsReport]
    pairs: int
    complete: int

    def describe(self) -> str:
        """Return some lines for the terminal."""
        leader, *others = self.stores
        joined = (
            f"; {self.complete} of them have {' and '.join(others)} beside them" if others else ""
        )
        return "\n".join(
            [
                *(report.describe() for report in self.stores.values()),
                f"{self.out / PAIRS}: {self.pairs} images of {leader}{joined}",
            ]
        )


def pack_sensors(
    out: Path,
    sensors: Sequence[str],
    pack: Callable[[str, Path], ItemsReport],
    match: Callable[[Path, Sequence[str]], Sequence[Pair]],
) -> SensorsReport:
    """Pack each sensor into a store of its own, and write which images belong together.

    Args:
        out: The folder of the stores.
        sensors: The sensors; the first one leads the table.
        pack: Packs one sensor into a folder.
        match: Finds which images of the stores in a folder belong together.

    Raises:
        StoreError: If `out` holds a single store.
        EofmError: As `pack`.
    """
    _check_folder(out)
    reports = {sensor: pack(sensor, out / sensor) for sensor in sensors}
    pairs = match(out, sensors)
    write_pairs(out, pairs, sensors)
    complete = sum(len(pair.images) == len(sensors) for pair in pairs)
    return SensorsReport(out, reports, len(pairs), complete)


def _check_folder(out: Path) -> None:
    if (out / SPEC).exists() or (out / JOURNAL).exists():
        raise StoreError(
            "the folder holds a store of one sensor",
            where=out,
            remedy="choose another --out: several sensors go into folders of it",
        )
