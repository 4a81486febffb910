"""The 5 % of BigEarthNet v2 that Copernicus-Bench divides for itself (arXiv 2503.11849).

    <root>/[bigearthnet_s1s2/]multilabel-{train,val,test}.csv
    <root>/[bigearthnet_s1s2/]BigEarthNet-S2-5%/<tile>/<patch>/<patch>_allbands.tif   12 bands
    <root>/[bigearthnet_s1s2/]BigEarthNet-S1-5%/<scene>/<patch>/<patch>_allbands.tif  VV, VH

A line of a list is the path of S1, that of S2 and 19 columns of 0 and 1. Columns that are named
are taken by name; without names their order is that of the 19 official classes, as torchgeo's
data set documents it. All bands were resampled to 120 x 120 pixels by the benchmark's authors, who
do not say how, so band statistics are not those of the full set.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor
from eofm.datasets.bigearthnet import COUNTS_COPERNICUS, SPECS
from eofm.datasets.bigearthnet.chips import GOLDEN, GOLDEN_CLASSES
from eofm.datasets.bigearthnet.classes import CLASSES_19
from eofm.datasets.images.chips import Chip, Chips, file_pixels, unpacking_remedy
from eofm.datasets.images.groups import product_in
from eofm.errors import DataError, LabelError
from eofm.store.splits import SPLITS

_FOLDERS: Final = {Sensor.S2_L2A: "BigEarthNet-S2-5%", Sensor.S1_GRD: "BigEarthNet-S1-5%"}
_COLUMNS: Final = {Sensor.S1_GRD: 0, Sensor.S2_L2A: 1}
_DTYPES: Final = {
    Sensor.S2_L2A: frozenset({"uint16"}),
    Sensor.S1_GRD: frozenset({"float32", "float64"}),
}
_NESTED: Final = ("", "bigearthnet_s1s2")
_LIST: Final = "multilabel-{}.csv"
_ENDING: Final = "_allbands"


def open_copernicus_bigearthnet(root: Path | str, sensors: Sequence[Sensor]) -> tuple[Chips, int]:
    """Find the patches of the three lists. Pixels are not read yet.

    Args:
        root: Folder of the unpacked archive.
        sensors: One or both.

    Returns:
        The patches on disk, and how many the published lists name.

    Raises:
        DataError: If lists or images are missing.
        LabelError: If a list has other columns, or a label is neither 0 nor 1.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    top = next((root / n for n in _NESTED if (root / n / _LIST.format("train")).is_file()), None)
    if top is None:
        raise DataError(
            "this is not the BigEarthNet of Copernicus-Bench",
            found=", ".join(sorted(path.name for path in root.iterdir())[:8]) or "an empty folder",
            expected=", ".join(_LIST.format(split) for split in SPLITS),
            where=root,
            remedy=unpacking_remedy(root) or "unpack bigearthnetv2.zip of Copernicus-Bench",
        )
    splits: dict[str, tuple[Chip, ...]] = {}
    named = 0
    for split in SPLITS:
        rows = _rows(top / _LIST.format(split))
        named += len(rows)
        found = (_chip(top, row, labels, sensors) for row, labels in rows)
        splits[split] = tuple(chip for chip in found if chip is not None)
    absent = named - sum(map(len, splits.values()))
    remarks = (f"{absent} of {named} patches are not on disk",) if absent else ()
    chips = Chips(root, "copernicus-bench", CLASSES_19, splits, remarks)
    _check_golden(chips)
    return chips, sum(COUNTS_COPERNICUS.values())


def _rows(file: Path) -> list[tuple[tuple[str, str], tuple[int, ...]]]:
    """Return the two paths and the class indices of every line."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.reader(stream) if line]
    except (OSError, ValueError) as error:
        raise DataError("a list cannot be read", found=error, where=file) from error
    order = _order(lines[0] if lines else [], file)
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in line]
        if len(cells) != 2 + len(order) or not set(cells[2:]) <= {"0", "1"}:
            raise LabelError(
                "a line has no 19 labels of 0 or 1",
                found=",".join(cells)[:120],
                where=f"{file}, line {number}",
            )
        hot = (index for index, cell in zip(order, cells[2:], strict=True) if cell == "1")
        rows.append(((cells[0], cells[1]), tuple(sorted(hot))))
    return rows


def _order(header: Sequence[str], file: Path) -> list[int]:
    """Return which class each of the 19 columns is."""
    names = [name.strip() for name in header[2:]]
    if set(names) == set(CLASSES_19) and len(names) == len(CLASSES_19):
        return [CLASSES_19.index(name) for name in names]
    if len(names) == len(CLASSES_19) and all(name.isdecimal() for name in names):
        return list(range(len(CLASSES_19)))
    strange = sorted(set(names) - set(CLASSES_19))
    raise LabelError(
        "the columns of a list are not the 19 classes",
        found=", ".join(strange[:4]) or f"{len(names)} columns",
        expected="two paths, then the 19 classes by name, or numbered",
        where=file,
    )


def _chip(
    top: Path, row: tuple[str, str], labels: tuple[int, ...], sensors: Sequence[Sensor]
) -> Chip | None:
    """Return a patch; None if it is not on disk."""
    pixels = []
    for sensor in sensors:
        file = top / _FOLDERS[sensor] / row[_COLUMNS[sensor]]
        if not file.is_file():
            return None
        pixels.append(file_pixels(file, SPECS[sensor], _DTYPES[sensor]))
    name = Path(row[1]).stem.removesuffix(_ENDING)
    return Chip(name, labels, tuple(pixels), product_in(name) or "")


def _check_golden(chips: Chips) -> None:
    golden = next((chip for chip in chips.all if chip.id in GOLDEN.values()), None)
    if golden and golden.label != GOLDEN_CLASSES:
        raise DataError(
            "a patch of known labels has others: the columns are not in the official order",
            found=golden.label,
            expected=GOLDEN_CLASSES,
            where=golden.id,
        )
