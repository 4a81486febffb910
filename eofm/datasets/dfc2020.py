"""DFC2020: Sentinel-1 and Sentinel-2 of 256 x 256 pixels with land cover at 10 m.

IEEE GRSS Data Fusion Contest 2020 (doi 10.21227/rha7-m332), in the layout of SEN12MS or as
Copernicus-Bench (arXiv 2503.11849) divides it:

    <root>/ROIs0000_test/{s1_0,s2_0,dfc_0}/ROIs0000_test_{s1,s2,dfc}_0_p<n>.tif
    <root>/ROIs0000_validation/{s1,s2,dfc}_validation/ROIs0000_validation_{s1,s2,dfc}_0_p<n>.tif
    <root>/{s1,s2,dfc}/ROIs0000_..._p<n>.tif and dfc-{train,val,test}-new.csv

The masks are coded 1..10 in the contest's scheme, a simplified IGBP, and 0 where nothing is
known. Savanna and snow/ice, 3 and 8, do not occur in these maps and are not scored, as in
Copernicus-Bench: eight classes are left.

Faults that are met with: the folder `lc` beside it holds the MODIS map of 500 m in IGBP codes up
to 17, four bands to a file, and repackaged sets pass it off as the target; the lists of
Copernicus-Bench number patches otherwise than the contest does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from eofm.bench.config import SegmentationConfig
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.datasets.base import (
    Benchmark,
    Dataset,
    Loaded,
    SplitList,
    Task,
    TaskKind,
    sensors_of,
    short_sensor,
)
from eofm.datasets.images.chips import PLACES, file_pixels, hold_out_val, unpacking_remedy
from eofm.datasets.images.dense import Coding, DenseChip, DenseChips, Mask
from eofm.datasets.images.places import by_ground
from eofm.errors import DataError

__all__ = [
    "CLASSES",
    "CODING",
    "COUNTS",
    "COUNTS_LISTS",
    "DATASET",
    "LISTS",
    "SIZE",
    "SPECS",
    "BenchDfc2020Config",
    "open_dfc2020",
]

CLASSES: Final = (
    *("Forest", "Shrubland", "Grassland", "Wetland"),
    *("Cropland", "Urban/Built-up", "Barren", "Water"),
)
CODING: Final = Coding(
    codes={1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5, 9: 6, 10: 7},
    void=frozenset({0, 3, 8}),
    hint="codes above 10 are IGBP's: take the folders dfc, not the MODIS maps of the folders lc",
)
SIZE: Final = (256, 256)
SPECS: Final[Mapping[Sensor, ImageSpec]] = {
    Sensor.S2_L1C: ImageSpec(Sensor.S2_L1C, SENSOR_BANDS[Sensor.S2_L1C], Unit.DN, SIZE, 10.0),
    Sensor.S1_GRD: ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, SIZE, 10.0),
}
COUNTS: Final = {"train": 5_128, "test": 986}
COUNTS_LISTS: Final = {"train": 3_156, "val": 986, "test": 986}
LISTS: Final = {split: f"dfc-{split}-new.csv" for split in COUNTS_LISTS}
_FOLDERS: Final = {"train": "ROIs0000_test", "test": "ROIs0000_validation"}
_WORDS: Final = {Sensor.S2_L1C: "s2", Sensor.S1_GRD: "s1"}
_DTYPES: Final = {
    Sensor.S2_L1C: frozenset({"uint16"}),
    Sensor.S1_GRD: frozenset({"float32", "float64"}),
}


def open_dfc2020(root: Path | str, sensors: Sequence[Sensor]) -> tuple[DenseChips, int]:
    """Find the images and their masks. Pixels are not read yet.

    With the lists of Copernicus-Bench these divide. Else the contest's test patches train, a
    tenth of them by hash held out as val, and its validation patches test, as SSL4EO-S12 does.

    Args:
        root: Folder of the unpacked archive.
        sensors: One or both.

    Returns:
        The images on disk, and how many there are to be.

    Raises:
        DataError: If the layout is another, or an image lacks its mask or a sensor.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    for folder in (root, root / "dfc2020_s1s2"):
        if any((folder / name).is_file() for name in LISTS.values()):
            return _by_lists(folder, sensors)
    return _by_contest(root, sensors)


def _by_lists(root: Path, sensors: Sequence[Sensor]) -> tuple[DenseChips, int]:
    splits: dict[str, tuple[DenseChip, ...]] = {}
    named = 0
    for split, name in LISTS.items():
        try:
            lines = (root / name).read_text("utf-8").split()
        except OSError as error:
            raise DataError(
                "a list of Copernicus-Bench is not there", found=error, where=root
            ) from error
        masks = [root / "dfc" / line for line in lines]
        named += len(masks)
        chips = tuple(_chip(m, sensors) for m in masks if m.is_file())
        splits[split] = by_ground(chips) if split == "test" else chips
    absent = named - sum(map(len, splits.values()))
    remarks = (f"{absent} of {named} masks of the lists are not on disk",) if absent else ()
    return DenseChips(root, "copernicus-bench", CLASSES, splits, remarks), named


def _by_contest(root: Path, sensors: Sequence[Sensor]) -> tuple[DenseChips, int]:
    found: dict[str, list[DenseChip]] = {}
    for split, name in _FOLDERS.items():
        masks = sorted((root / name).glob("dfc_*/*_dfc_*.tif"))
        if not masks:
            there = sorted(path.name for path in root.iterdir())[:8]
            raise DataError(
                "this is no folder of DFC2020",
                found=", ".join(there) or "an empty folder",
                expected=f"{_FOLDERS['train']}/dfc_0 and {_FOLDERS['test']}/dfc_validation with "
                f"*.tif, or {LISTS['train']} with dfc, s1 and s2",
                where=root / name if (root / name).is_dir() else root,
                remedy=unpacking_remedy(root),
            )
        found[split] = [_chip(mask, sensors) for mask in masks]
    splits = {**hold_out_val(found["train"], "dfc2020"), "test": by_ground(found["test"])}
    return DenseChips(root, "contest, val held out", CLASSES, splits), sum(COUNTS.values())


def _chip(mask: Path, sensors: Sequence[Sensor]) -> DenseChip:
    pixels = []
    for sensor in sensors:
        word = _WORDS[sensor]
        folder = mask.parent.with_name(mask.parent.name.replace("dfc", word))
        file = folder / mask.name.replace("_dfc_", f"_{word}_")
        if not file.is_file():
            raise DataError(
                "an image is missing beside its mask",
                found=f"no {file.name}",
                where=folder,
                remedy=unpacking_remedy(mask.parent.parent) or "complete the download",
            )
        pixels.append(file_pixels(file, SPECS[sensor], _DTYPES[sensor]))
    name = mask.stem.replace("_dfc_", "_")
    return DenseChip(name, name, tuple(pixels), Mask(mask, CODING, SIZE))


# --------------------------------------------------------------------------------- tasks


def _task(sensor: str) -> Task:
    return Task(
        name=f"dfc2020-{sensor}",
        dataset="DFC2020, IEEE GRSS Data Fusion Contest 2020 (doi 10.21227/rha7-m332)",
        specs=tuple(SPECS[s] for s in sensors_of(sensor, Sensor.S2_L1C)),
        classes=CLASSES,
        size=sum(COUNTS_LISTS.values()),
        kind=TaskKind.SEGMENTATION,
        splits=(
            SplitList("copernicus-bench", COUNTS_LISTS),
            SplitList("contest, val held out", {"train": 4_615, "val": 513, "test": 986}),
        ),
        notes=("Savanna and snow do not occur in these masks: eight classes of ten are scored.",),
        grouping=PLACES,
    )


_TASKS: Final = {task.name: task for task in map(_task, ("s2", "s1", "both"))}


@dataclass(frozen=True)
class BenchDfc2020Config(SegmentationConfig):
    """Score encoders on DFC2020: eight classes of land cover, by a linear layer on patches.

    Args:
        root: Folder of the contest (ROIs0000_test, ROIs0000_validation), or of Copernicus-Bench
            (dfc, s1, s2 and dfc-train-new.csv), whose lists divide where they lie.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, patches side by side.
    """

    verb: ClassVar[str] = "dfc2020"
    named_by: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Literal["s2", "s1", "both", "s2-l1c", "s1-grd"] = "s2"
    out: str = "runs/bench/dfc2020.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sensor", short_sensor(self.sensor))

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"dfc2020-{self.sensor}"


def _load(config: BenchDfc2020Config) -> Loaded:
    sensors = sensors_of(config.sensor, Sensor.S2_L1C)
    return Loaded(_TASKS[config.task], *open_dfc2020(config.root, sensors))


DATASET: Final = Dataset(
    name="dfc2020",
    title="DFC2020",
    benchmark=Benchmark(
        "segment land cover on DFC2020 by a linear layer on patch tokens",
        BenchDfc2020Config,
        _load,
        (
            "eofm bench dfc2020 --root DIR --model softcon_vits14_s2 --figure classes.png",
            "eofm bench dfc2020 --root DIR --sensor both --model A_OF_S2+B_OF_S1",
        ),
        tuple(_TASKS.values()),
    ),
    cards=("dfc2020",),
)
