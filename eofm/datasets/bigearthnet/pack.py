"""`eofm pack bigearthnet`: patches with labels and splits, into a packed store per sensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from eofm.contract.spec import Sensor
from eofm.datasets.base import split_sensors
from eofm.datasets.bigearthnet import SENSOR_NAMES, UNITS, PackBigEarthNetConfig
from eofm.datasets.bigearthnet.patches import BigEarthNet, PatchSample, open_bigearthnet
from eofm.datasets.images.packing import SensorsReport, pack_sensors
from eofm.errors import DataError
from eofm.raster.source import OpenRaster, RasterSource
from eofm.store.format import Entry, LabelRule
from eofm.store.packing import Item, ItemsReport, listed, make_card, pack_items
from eofm.store.paired import match_ids

__all__ = ["pack_bigearthnet"]


def pack_bigearthnet(config: PackBigEarthNetConfig) -> ItemsReport | SensorsReport:
    """Pack the patches of a split, each band at its native resolution.

    A run that was interrupted resumes where it stopped when it is called again.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds, and what was left out; of both sensors, that of each.

    Raises:
        DataError: If the folder or the lists are not those of BigEarthNet, there is no patch of
            the split, or one is missing where all are required.
        LabelError: If a label is not one of the classes.
        PixelError: If the pixels cannot be those of BigEarthNet.
        StoreError: If `out` holds something else, or cannot be written.
    """
    if config.sensors is None:
        return _pack_sensor(config)
    sensors = split_sensors(config.sensors, SENSOR_NAMES)
    return pack_sensors(Path(config.out), sensors, partial(_pack_one_of, config), match_ids)


def _pack_one_of(config: PackBigEarthNetConfig, sensor: str, out: Path) -> ItemsReport:
    word = SENSOR_NAMES[sensor]
    return _pack_sensor(replace(config, sensor=word, sensors=None, out=out.as_posix()))


def _pack_sensor(config: PackBigEarthNetConfig) -> ItemsReport:
    data = open_bigearthnet(config.root, config.metadata)
    sensor = Sensor(config.sensor or "s2-l2a")
    samples = data.samples(config.split, config.classes, sensor, excluded=config.excluded)
    missing = data.missing(config.split, sensor, excluded=config.excluded)
    if not samples or (missing and config.require == "all"):
        raise DataError(
            "patches are missing" if samples else "there is no patch of this split",
            found=f"{len(missing)} that the lists name, such as {', '.join(missing[:3])}"
            if missing
            else "no patch",
            where=data.root,
            remedy="download them, or leave --require out" if samples else "name another --split",
        )
    classes = data.names_of(config.classes)
    rule = LabelRule(f"bigearthnet-{config.classes}", classes, 0.0, 0.0)
    items = [_item(data, sample, sensor, rule, config.classes) for sample in samples]
    card = make_card(
        items,
        rule,
        {
            "verb": "pack bigearthnet",
            "root": data.root.as_posix(),
            "version": data.version.value,
            "classes": config.classes,
            "split": config.split,
            "excluded": config.excluded,
        },
        {"metadata": config.metadata and Path(config.metadata).as_posix()},
    )
    strict = config.require == "all"
    packed = pack_items(items, card, config.out, strict=strict, workers=config.workers)
    packed = packed.then(verify=config.verify, stats=config.stats, workers=config.workers)
    return ItemsReport(packed, tuple(_notes(data, samples, missing, sensor)))


def _item(
    data: BigEarthNet, sample: PatchSample, sensor: Sensor, rule: LabelRule, classes: int
) -> Item:
    line = _PatchLine(sample, rule, data.multi_hot(sample, classes))
    return Item(sample.id, UNITS[sensor], line.source, line.entry)


@dataclass(frozen=True)
class _PatchLine:
    """Makes the line of a patch in the index."""

    sample: PatchSample
    rule: LabelRule
    multi_hot: tuple[int, ...] | None

    def source(self) -> RasterSource:
        """Return the files of the patch."""
        return self.sample.source

    def entry(self, raster: OpenRaster) -> Entry:
        """Return the line, with what the opened files say of place and unit."""
        sample = self.sample
        longitude, latitude = raster.grid.centre()
        entry = Entry(
            id=sample.id,
            location=sample.place,
            season=sample.source.files[0].parent.name,
            longitude=longitude,
            latitude=latitude,
            date=sample.date,
            source=sample.id,
            source_unit=raster.unit.value,
            split=sample.split,
        )
        if self.multi_hot is None:
            return entry.unlabelled(self.rule)
        return listed(entry, self.multi_hot)


def _notes(
    data: BigEarthNet, samples: list[PatchSample], missing: list[str], sensor: Sensor
) -> list[str]:
    """Say what the user should know of the patches."""
    counts = {split or "no split": 0 for split in sorted({s.split for s in samples})}
    for sample in samples:
        counts[sample.split or "no split"] += 1
    said = [f"BigEarthNet {data.version}: " + ", ".join(f"{n} {s}" for s, n in counts.items())]
    if missing:
        said.append(f"{len(missing)} patches that the lists name are not there")
    unknown = data.unknown(sensor)
    if unknown:
        said.append(f"{len(unknown)} patches are in no list: {', '.join(unknown[:3])}")
    none = sum(sample.labels is None for sample in samples)
    if none:
        said.append(f"{none} patches have none of the classes and are unlabelled")
    return said
