"""`eofm pack ssl4eo` and `eofm pack bigearthnet`, of one sensor or of several.

Of several, each becomes a store of its own, OUT/SENSOR, and the table OUT/rows.parquet says which
images belong together (`eofm.store.paired`). The table comes last: a run that was interrupted goes
on with the store that it was writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eofm.contract.spec import Sensor
from eofm.datasets.bigearthnet_pack import pack_bigearthnet
from eofm.datasets.pack_config import SSL4EO_SENSORS, PackSsl4eoConfig, split_sensors
from eofm.datasets.sets_config import BIGEARTHNET_SENSORS, PackBigEarthNetConfig
from eofm.datasets.ssl4eo import FOLDERS, list_scenes
from eofm.datasets.ssl4eo_pack import pack_ssl4eo
from eofm.errors import StoreError
from eofm.store.format import JOURNAL, PAIRS, SPEC
from eofm.store.packing import ItemsReport
from eofm.store.paired import Pair, match_ids, match_stores, write_pairs


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


def pack_ssl4eo_sensors(config: PackSsl4eoConfig) -> ItemsReport | SensorsReport:
    """Pack scenes of one sensor, or of several with a table of what belongs together.

    Raises:
        EofmError: As `eofm.datasets.ssl4eo_pack.pack_ssl4eo`.
        RasterError: If a sensor has no folder: before anything is written.
        StoreError: If `out` holds a single store where several sensors are packed.
    """
    if config.sensors is None:
        return pack_ssl4eo(config)
    out, sensors = Path(config.out), split_sensors(config.sensors, SSL4EO_SENSORS)
    _check_folder(out)
    for sensor in map(Sensor, sensors):
        if not (Path(config.root) / FOLDERS[sensor]).is_dir():
            list_scenes(config.root, sensor)  # which says so now, not after the first store
    reports: dict[str, ItemsReport] = {
        sensor: pack_ssl4eo(
            replace(config, sensor=sensor, sensors=None, out=(out / sensor).as_posix())
        )
        for sensor in sensors
    }
    pairs = match_stores(out, sensors, max_gap_days=config.max_gap_days)
    return _pair(out, reports, pairs, sensors)


def pack_bigearthnet_sensors(config: PackBigEarthNetConfig) -> ItemsReport | SensorsReport:
    """Pack patches of one sensor, or of both with a table of what belongs together.

    Raises:
        EofmError: As `eofm.datasets.bigearthnet_pack.pack_bigearthnet`.
        StoreError: If `out` holds a single store where both sensors are packed.
    """
    if config.sensors is None:
        return pack_bigearthnet(config)
    out, sensors = Path(config.out), split_sensors(config.sensors, BIGEARTHNET_SENSORS)
    _check_folder(out)
    reports: dict[str, ItemsReport] = {
        sensor: pack_bigearthnet(
            replace(config, sensor=sensor, sensors=None, out=(out / sensor).as_posix())
        )
        for sensor in sensors
    }
    return _pair(out, reports, match_ids(out, sensors), sensors)


def _check_folder(out: Path) -> None:
    if (out / SPEC).exists() or (out / JOURNAL).exists():
        raise StoreError(
            "the folder holds a store of one sensor",
            where=out,
            remedy="choose another --out: several sensors go into folders of it",
        )


def _pair(
    out: Path, reports: Mapping[str, ItemsReport], pairs: Sequence[Pair], sensors: Sequence[str]
) -> SensorsReport:
    write_pairs(out, pairs, sensors)
    complete = sum(len(pair.images) == len(sensors) for pair in pairs)
    return SensorsReport(out, reports, len(pairs), complete)
