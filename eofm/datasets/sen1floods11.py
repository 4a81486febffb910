"""Sen1Floods11: floods in Sentinel-1 and Sentinel-2, 446 hand-labelled chips of 512 x 512 pixels.

Bonafilia et al. 2020 (CVPR Workshops), version 1.1:

    <root>/[v1.1/]data/flood_events/HandLabeled/{S1Hand,S2Hand,LabelHand}/<event>_<n>_S1Hand.tif
    <root>/[v1.1/]splits/flood_handlabeled/flood_{train,valid,test,bolivia}_data.csv

A mask says 1 where water is, 0 where none is, -1 where nobody can tell. Chips are cut into four
windows of 256 pixels, for a network sees them near their own resolution then; the windows of a
chip count as one image in the intervals.

Faults that are met with: `S2Hand` is int16 with 0 as nodata, not uint16 as documented; `S1Hand`
has NaN where there is no measurement; five chips of Ghana are void altogether and the radar of
Paraguay_34417 is missing, so they contribute nothing. Pixels are 8.98e-5 degrees: 10 m high, but
narrower than that away from the equator.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from eofm.contract.sensors import SENSOR_BANDS
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.chips import FilePixels, unpacking_remedy
from eofm.datasets.dense_chips import Coding, DenseChip, DenseChips, Mask, WindowPixels
from eofm.errors import DataError
from eofm.raster.grid import Window
from eofm.raster.source import RasterSource

CLASSES: Final = ("No water", "Water")
CODING: Final = Coding(
    codes={0: 0, 1: 1},
    void=frozenset({-1}),
    hint="take the folder LabelHand: -1 is void, 0 no water, 1 water",
)
CHIP: Final = 512
WINDOW: Final = 256
COUNTS: Final = {"train": 252, "val": 89, "test": 90}
BOLIVIA: Final = 15
SPECS: Final[Mapping[Sensor, ImageSpec]] = {
    Sensor.S2_L1C: ImageSpec(
        Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, (WINDOW, WINDOW), 10.0
    ),
    Sensor.S1_GRD: ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (WINDOW, WINDOW), 10.0),
}
WINDOWS: Final = tuple(
    Window(row, col, WINDOW, WINDOW)
    for row in range(0, CHIP, WINDOW)
    for col in range(0, CHIP, WINDOW)
)
_NESTED: Final = ("", "v1.1")
_LISTS: Final = "splits/flood_handlabeled"
_HAND: Final = "data/flood_events/HandLabeled"
_FILES: Final = {"train": "flood_train_data.csv", "val": "flood_valid_data.csv"}
_FOLDERS: Final = {Sensor.S2_L1C: "S2Hand", Sensor.S1_GRD: "S1Hand"}
_DTYPES: Final = {
    Sensor.S2_L1C: frozenset({"int16", "uint16"}),
    Sensor.S1_GRD: frozenset({"float32"}),
}


def open_sen1floods11(
    root: Path | str, sensors: Sequence[Sensor], *, bolivia: bool = False
) -> tuple[DenseChips, int]:
    """Find the hand-labelled chips of the official lists, cut into windows. No pixel is read yet.

    Args:
        root: Folder of the download, or of its v1.1.
        sensors: One or both.
        bolivia: Score on the 15 chips of Bolivia, an event that is in no other list.

    Returns:
        The windows on disk, and how many chips there are to be.

    Raises:
        DataError: If a list or a file is missing, or a line of a list names no chip.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    top = next((root / n for n in _NESTED if (root / n / _LISTS).is_dir()), None)
    if top is None:
        there = sorted(path.name for path in root.iterdir())[:8]
        raise DataError(
            "this is no folder of Sen1Floods11",
            found=", ".join(there) or "an empty folder",
            expected=f"{_LISTS} and {_HAND}",
            where=root,
            remedy=unpacking_remedy(root) or "copy v1.1 of the bucket as it is",
        )
    test = "flood_bolivia_data.csv" if bolivia else "flood_test_data.csv"
    named = {n: _listed(top / _LISTS / f) for n, f in {**_FILES, "test": test}.items()}
    splits = {
        split: tuple(w for name in names for w in _windows(top, name, sensors))
        for split, names in named.items()
    }
    rule = "official, Bolivia" if bolivia else "official"
    count = sum(COUNTS.values()) + (BOLIVIA - COUNTS["test"] if bolivia else 0)
    return DenseChips(root, rule, CLASSES, splits), count


def _listed(file: Path) -> list[str]:
    """Return the names of chips, `Ghana_103272`, of lines `..._S1Hand.tif,..._LabelHand.tif`."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, ValueError) as error:
        raise DataError("a list of Sen1Floods11 is not there", found=error, where=file) from error
    names = [row[0].strip().removesuffix("_S1Hand.tif") for row in rows]
    wrong = [row for row in rows if not row[0].strip().endswith("_S1Hand.tif")]
    if wrong or not names:
        raise DataError(
            "this is no list of hand-labelled chips",
            found=", ".join(wrong[0]) if wrong else "an empty file",
            expected="<event>_<n>_S1Hand.tif,<event>_<n>_LabelHand.tif",
            where=file,
        )
    return names


def _windows(top: Path, name: str, sensors: Sequence[Sensor]) -> list[DenseChip]:
    hand = top / _HAND
    label = hand / "LabelHand" / f"{name}_LabelHand.tif"
    images = {s: hand / _FOLDERS[s] / f"{name}_{_FOLDERS[s]}.tif" for s in sensors}
    for file in (label, *images.values()):
        if not file.is_file():
            raise DataError(
                "a chip of the lists is not there",
                found=f"no {file.name}",
                where=file.parent,
                remedy="complete the download: 446 files in each folder",
            )
    whole = [_whole(images[sensor], sensor) for sensor in sensors]
    return [
        DenseChip(
            f"{name}_{window.row}_{window.col}",
            name,
            tuple(WindowPixels(pixels, window) for pixels in whole),
            Mask(label, CODING, (CHIP, CHIP), window),
        )
        for window in WINDOWS
    ]


def _whole(file: Path, sensor: Sensor) -> FilePixels:
    spec = SPECS[sensor]
    source = RasterSource(file.stem, (file,), sensor, spec.unit, spec.bands, spec.gsd)
    full = ImageSpec(sensor, spec.bands, spec.unit, (CHIP, CHIP), spec.gsd)
    return FilePixels(source, full, _DTYPES[sensor])
