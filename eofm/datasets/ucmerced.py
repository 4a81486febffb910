"""UC Merced Land Use: 2,100 aerial pictures of 256 x 256 pixels in 21 classes (Yang, Newsam 2010).

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

__all__ = ["DATASET", "TASK", "UCMERCED", "BenchUCMercedConfig"]

UCMERCED: Final = ClassFolders(
    "ucmerced",
    (
        *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral"),
        *("denseresidential", "forest", "freeway", "golfcourse", "harbor", "intersection"),
        *("mediumresidential", "mobilehomepark", "overpass", "parkinglot", "river", "runway"),
        *("sparseresidential", "storagetanks", "tenniscourt"),
    ),
    ("", "UCMerced_LandUse/Images", "Images"),
    (".tif",),
    ImageSpec(Sensor.RGB, RGB, Unit.UINT8, (256, 256), 0.3048),
    2_100,
    {
        FolderSplit.LISTS: list_files(
            "uc_merced-{}.txt",
            "f2fb12eb2210cfb53f93f063a35ff374",
            "11ecabfc52782e5ea6a9c7c0d263aca0",
            "046aff88472d8fc07c4678d03749e28d",
        )
    },
    varying=True,
)
TASK: Final = Task(
    name="ucmerced",
    dataset="UC Merced Land Use (Yang and Newsam 2010)",
    specs=(UCMERCED.spec,),
    classes=UCMERCED.classes,
    size=UCMERCED.size,
    splits=(SplitList("lists", {"train": 1_260, "val": 420, "test": 420}),),
    grouping=Grouping("pictures", "UC Merced does not say where a picture was taken", known=False),
)


@dataclass(frozen=True)
class BenchUCMercedConfig(BenchConfig):
    """Score encoders and controls on UC Merced Land Use.

    Args:
        root: Folder of UCMerced_LandUse, or of the class folders.
        split: `lists`: uc_merced-train.txt and so on, which must lie in the folder. `stratified`:
            by hash.
    """

    verb: ClassVar[str] = "ucmerced"

    split: Literal["auto", "lists", "stratified"] = "auto"
    out: str = "runs/bench/ucmerced.jsonl"


def _open(config: BenchUCMercedConfig) -> Loaded:
    return load_class_folders(TASK, UCMERCED, config.root, config.split)


DATASET: Final = Dataset(
    name="ucmerced",
    title="UC Merced Land Use",
    benchmark=Benchmark(
        "score encoders and controls on UC Merced Land Use",
        BenchUCMercedConfig,
        _open,
        ("eofm bench ucmerced --root DIR --model dinov2_vits14",),
        (TASK,),
    ),
)
