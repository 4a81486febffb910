"""NWPU-RESISC45: 31,500 pictures of 256 x 256 pixels in 45 classes (Cheng et al. 2017).

The layout and the published lists are those of `eofm.datasets.images.class_folders`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from eofm.bench.config import BenchConfig
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.base import Benchmark, Dataset, Loaded, SplitList, Task
from eofm.datasets.images.chips import Grouping
from eofm.datasets.images.class_folders import (
    RGB,
    ClassFolders,
    FolderSplit,
    list_files,
    load_class_folders,
)

__all__ = ["DATASET", "RESISC45", "TASK", "BenchResisc45Config"]

RESISC45: Final = ClassFolders(
    "resisc45",
    (
        *("airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge"),
        *("chaparral", "church", "circular_farmland", "cloud", "commercial_area"),
        *("dense_residential", "desert", "forest", "freeway", "golf_course"),
        *("ground_track_field", "harbor", "industrial_area", "intersection", "island", "lake"),
        *("meadow", "medium_residential", "mobile_home_park", "mountain", "overpass", "palace"),
        *("parking_lot", "railway", "railway_station", "rectangular_farmland", "river"),
        *("roundabout", "runway", "sea_ice", "ship", "snowberg", "sparse_residential"),
        *("stadium", "storage_tank", "tennis_court", "terrace", "thermal_power_station"),
        "wetland",
    ),
    ("", "NWPU-RESISC45"),
    (".jpg", ".jpeg"),
    # 0.2 to 30 m: no pixel size holds for all, and nothing here depends on it
    ImageSpec(Sensor.RGB, RGB, Unit.UINT8, (256, 256), 1.0),
    31_500,
    {
        FolderSplit.LISTS: list_files(
            "resisc45-{}.txt",
            "b5a4c05a37de15e4ca886696a85c403e",
            "a0770cee4c5ca20b8c32bbd61e114805",
            "3dda9e4988b47eb1de9f07993653eb08",
        )
    },
)
TASK: Final = Task(
    name="resisc45",
    dataset="NWPU-RESISC45 (Cheng et al. 2017)",
    specs=(RESISC45.spec,),
    classes=RESISC45.classes,
    size=RESISC45.size,
    splits=(SplitList("lists", {"train": 18_900, "val": 6_300, "test": 6_300}),),
    grouping=Grouping("pictures", "RESISC45 does not say where a picture was taken", known=False),
)


@dataclass(frozen=True)
class BenchResisc45Config(BenchConfig):
    """Score encoders and controls on NWPU-RESISC45.

    Args:
        root: Folder of NWPU-RESISC45, or of the class folders.
        split: `lists`: resisc45-train.txt and so on, which must lie in the folder. `stratified`:
            by hash.
    """

    verb: ClassVar[str] = "resisc45"

    split: Literal["auto", "lists", "stratified"] = "auto"
    out: str = "runs/bench/resisc45.jsonl"


def _open(config: BenchResisc45Config) -> Loaded:
    return load_class_folders(TASK, RESISC45, config.root, config.split)


DATASET: Final = Dataset(
    name="resisc45",
    title="NWPU-RESISC45",
    benchmark=Benchmark(
        "score encoders and controls on NWPU-RESISC45",
        BenchResisc45Config,
        _open,
        ("eofm bench resisc45 --root DIR --model dinov2_vits14",),
        (TASK,),
    ),
)
