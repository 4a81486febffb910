"""Several sensors of a data set, each packed into a store of its own.

The stores lie in OUT/SENSOR, and the table OUT/rows.parquet says which images belong together
(`eofm.store.paired`). The table comes last: a run that was interrupted goes on with the store that
it was writing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eofm.errors import StoreError
from eofm.store.format import JOURNAL, PAIRS, SPEC
from eofm.store.packing import ItemsReport
from eofm.store.paired import Pair, write_pairs


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
