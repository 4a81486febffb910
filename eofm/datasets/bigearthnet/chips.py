"""BigEarthNet as benchmark tasks: official splits, label fractions, one sensor or both.

The 5 % of version 2 that Copernicus-Bench divides for itself (arXiv 2503.11849):

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
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from eofm.contract.spec import Sensor
from eofm.datasets.bigearthnet import CLASSES_19, COUNTS_COPERNICUS, SPECS, Version
from eofm.datasets.bigearthnet.patches import BigEarthNet, open_bigearthnet
from eofm.datasets.images.chips import (
    Chip,
    Chips,
    FilePixels,
    file_pixels,
    product_in,
    unpacking_remedy,
)
from eofm.errors import ConfigError, DataError, LabelError
from eofm.store.splits import SPLITS, hash_order

__all__ = [
    "GOLDEN",
    "GOLDEN_CLASSES",
    "BigEarthNetChoice",
    "first_share",
    "open_bigearthnet_chips",
    "open_copernicus_bigearthnet",
]

# --------------------------------------------------------------------------------- versions 1 and 2

_DTYPES: Final = {Sensor.S2_L2A: frozenset({"uint16"}), Sensor.S1_GRD: frozenset({"float32"})}
# One patch with known labels: a wrong mapping of names to indices once gave {10, 17}.
GOLDEN: Final = {
    Version.V1: "S2B_MSIL2A_20180502T093039_42_25",
    Version.V2: "S2B_MSIL2A_20180502T093039_N9999_R136_T34TEP_42_25",
}
GOLDEN_CLASSES: Final = (8, 11, 13)


@dataclass(frozen=True)
class BigEarthNetChoice:
    """Which BigEarthNet.

    Args:
        version: v1 or v2.
        sensors: One, or both of a pair.
        classes: 19, or the 43 of version 1.
        excluded: Keep patches under snow, cloud and cloud shadow (version 2).
        percent: How many of the training patches, in percent.
    """

    version: Version
    sensors: tuple[Sensor, ...]
    classes: int = 19
    excluded: bool = False
    percent: int = 100

    @property
    def rule(self) -> str:
        """How the patches are divided, in words."""
        words = ["official"]
        if self.excluded:
            words.append("with snow and cloud")
        if self.percent != 100:
            words.append(f"{self.percent} % of train")
        return ", ".join(words)


def first_share(ids: Sequence[str], dataset: str, percent: int, seed: int = 0) -> list[str]:
    """Return the first `percent` % of ids, rounded up, in the order of `splits.hash_order`.

    Nested: the first 1 % lie within the first 10 %.
    """
    return hash_order(ids, dataset, seed)[: math.ceil(Fraction(percent, 100) * len(ids))]


def open_bigearthnet_chips(
    root: Path | str, choice: BigEarthNetChoice, metadata: Path | str | None = None
) -> tuple[Chips, int]:
    """Find the patches of the official splits. Pixels are not read yet.

    A label fraction is taken of the official list, not of what is on disk, so a part of the data
    set never changes which patches it holds.

    Args:
        root: Folder of BigEarthNet v1 or v2.
        choice: Which BigEarthNet.
        metadata: Folder of the official lists; None looks in `root`.

    Returns:
        The patches on disk, and how many the lists name.

    Raises:
        DataError: If the folder is not that version, or the lists are not there.
        ConfigError: If the version has no such classes or patches.
        LabelError: If a label is not one of the classes.
        RasterError: If a patch lacks a band.
    """
    try:
        data = open_bigearthnet(root, metadata)
    except DataError as error:
        error.remedy = unpacking_remedy(Path(root)) or error.remedy
        raise
    _check_choice(data, choice)
    assert data.listing is not None  # noqa: S101 (_check has raised otherwise)
    wanted = {name: data.listing.patches(name, excluded=choice.excluded) for name in SPLITS}
    if choice.percent != 100:
        wanted["train"] = first_share(
            wanted["train"], f"bigearthnet-{data.version}", choice.percent
        )
    splits = {}
    for name in SPLITS:
        kept = frozenset(wanted[name])
        splits[name] = tuple(c for c in _split(data, choice, name) if c.id in kept)
    count = sum(map(len, wanted.values()))
    there = sum(map(len, splits.values()))
    remarks = () if there == count else (f"{count - there} of {count} patches are not on disk",)
    chips = Chips(data.root, choice.rule, data.names_of(choice.classes), splits, remarks)
    _check_golden(chips, choice)
    return chips, count


def _check_choice(data: BigEarthNet, choice: BigEarthNetChoice) -> None:
    if data.version is not choice.version:
        raise DataError(
            "this is another version of BigEarthNet",
            found=data.version,
            expected=choice.version,
            where=data.root,
            remedy=f"say --version {data.version}: half of the test patches of v2 were training "
            "patches of v1, so their scores are never compared",
        )
    if choice.excluded and data.version is Version.V1:
        raise ConfigError(
            "the official splits of version 1 hold no patch under snow or cloud",
            found="excluded=true",
            remedy="leave --excluded out, or use version 2",
        )
    if data.listing is None:
        data.samples("train")  # raises, and says which lists are missing


def _split(data: BigEarthNet, choice: BigEarthNetChoice, split: str) -> list[Chip]:
    """Return the patches that every sensor has and that have a label."""
    per_sensor = [
        {s.id: s for s in data.samples(split, choice.classes, sensor, excluded=choice.excluded)}
        for sensor in choice.sensors
    ]
    countries = {} if data.listing is None else data.listing.countries
    chips = []
    for name, sample in per_sensor[0].items():
        hot = data.multi_hot(sample, choice.classes)
        if hot is None or not all(name in samples for samples in per_sensor):
            continue
        pixels = tuple(
            FilePixels(samples[name].source, SPECS[sensor], _DTYPES[sensor])
            for sensor, samples in zip(choice.sensors, per_sensor, strict=True)
        )
        label = tuple(k for k, one in enumerate(hot) if one)
        group, country = product_in(name) or "", countries.get(name, "")
        chips.append(Chip(name, label, pixels, group, country))
    return chips


def _check_golden(chips: Chips, choice: BigEarthNetChoice) -> None:
    golden = next((c for c in chips.all if c.id == GOLDEN[choice.version]), None)
    if choice.classes == len(CLASSES_19) and golden and golden.label != GOLDEN_CLASSES:
        raise DataError(
            "a patch of known labels has others: names and indices are mixed up",
            found=golden.label,
            expected=GOLDEN_CLASSES,
            where=golden.id,
        )


# ---------------------------------------------------------------------- the 5 % of Copernicus-Bench

_COPERNICUS_FOLDERS: Final = {
    Sensor.S2_L2A: "BigEarthNet-S2-5%",
    Sensor.S1_GRD: "BigEarthNet-S1-5%",
}
_COPERNICUS_COLUMNS: Final = {Sensor.S1_GRD: 0, Sensor.S2_L2A: 1}
_COPERNICUS_DTYPES: Final = {
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
        rows = _copernicus_rows(top / _LIST.format(split))
        named += len(rows)
        found = (_copernicus_chip(top, row, labels, sensors) for row, labels in rows)
        splits[split] = tuple(chip for chip in found if chip is not None)
    absent = named - sum(map(len, splits.values()))
    remarks = (f"{absent} of {named} patches are not on disk",) if absent else ()
    chips = Chips(root, "copernicus-bench", CLASSES_19, splits, remarks)
    _check_copernicus(chips)
    return chips, sum(COUNTS_COPERNICUS.values())


def _copernicus_rows(file: Path) -> list[tuple[tuple[str, str], tuple[int, ...]]]:
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


def _copernicus_chip(
    top: Path, row: tuple[str, str], labels: tuple[int, ...], sensors: Sequence[Sensor]
) -> Chip | None:
    """Return a patch; None if it is not on disk."""
    pixels = []
    for sensor in sensors:
        file = top / _COPERNICUS_FOLDERS[sensor] / row[_COPERNICUS_COLUMNS[sensor]]
        if not file.is_file():
            return None
        pixels.append(file_pixels(file, SPECS[sensor], _COPERNICUS_DTYPES[sensor]))
    name = Path(row[1]).stem.removesuffix(_ENDING)
    return Chip(name, labels, tuple(pixels), product_in(name) or "")


def _check_copernicus(chips: Chips) -> None:
    golden = next((chip for chip in chips.all if chip.id in GOLDEN.values()), None)
    if golden and golden.label != GOLDEN_CLASSES:
        raise DataError(
            "a patch of known labels has others: the columns are not in the official order",
            found=golden.label,
            expected=GOLDEN_CLASSES,
            where=golden.id,
        )
