"""Settings of `eofm bench TASK`, one class per data set. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Final, Literal, get_args, get_type_hints

from eofm.bench.config import BenchConfig, ScoringConfig, SegmentationConfig, listed
from eofm.errors import ConfigError


@dataclass(frozen=True)
class BenchEurosatConfig(BenchConfig):
    """Score encoders and controls on EuroSAT.

    Args:
        root: Folder of EuroSAT as published (class folders, or the archive's folder above
            them), or, for MS, with train/<class> and test/<class>.
        sensor: `ms` (13 bands), `rgb` (JPEG) or `sar` (EuroSAT-SAR).
        split: How tiles are divided. `spatial` (by longitude, MS) or `stratified` (by hash) for
            the published layout; `given` for train and test folders; `lists` and `spatial-lists`:
            the published lists eurosat-train.txt and so on, or eurosat-spatial-train.txt and so
            on, which must lie in the folder. `auto`: given folders, else lists, else spatial.
    """

    verb: ClassVar[str] = "eurosat"
    named_by: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Literal["ms", "rgb", "sar"] = "ms"
    split: Literal["auto", "spatial", "stratified", "given", "lists", "spatial-lists"] = "auto"
    out: str = "runs/bench/eurosat.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return "eurosat" if self.sensor == "ms" else f"eurosat-{self.sensor}"


@dataclass(frozen=True)
class BenchBigEarthNetConfig(BenchConfig):
    """Score encoders and controls on BigEarthNet, official splits.

    Args:
        root: The folder that holds BigEarthNet-v1.0 and BigEarthNet-S1-v1.0, or BigEarthNet-S2 and
            BigEarthNet-S1; for copernicus-bench that of multilabel-train.csv.
        version: Which BigEarthNet. Their scores are never compared. `copernicus-bench` is 5 % of v2
            in the division of that benchmark.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, features side by side.
        classes: 19, or the 43 of version 1.
        metadata: Folder of the official lists (train.csv and so on, or metadata.parquet). Without
            it they are looked for in root, root/splits and root/metadata.
        excluded: Keep patches under snow, cloud or cloud shadow, which the authors leave out
            (version 2).
        percent: Percent of the training patches: the first of them in the order of
            sha256("bigearthnet-<version>|0|<patch>").
    """

    verb: ClassVar[str] = "bigearthnet"
    named_by: ClassVar[tuple[str, ...]] = ("version", "sensor", "classes")

    version: Literal["v1", "v2", "copernicus-bench"] = "v2"
    sensor: Literal["s2", "s1", "both"] = "s2"
    classes: Literal[19, 43] = 19
    metadata: str | None = None
    excluded: bool = False
    percent: Literal[1, 10, 100] = 100
    out: str = "runs/bench/bigearthnet.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version != "v1" and self.classes == 43:
            raise ConfigError(
                "version 2 has 19 classes", found="--classes 43", remedy="say --version v1"
            )
        if self.version == "copernicus-bench" and (
            self.excluded or self.percent != 100 or self.metadata
        ):
            raise ConfigError(
                "the lists of Copernicus-Bench are taken as they are",
                found="--excluded, --percent or --metadata",
                remedy="leave them out, or take --version v2",
            )

    @property
    def task(self) -> str:
        """Full name of the task."""
        return bigearthnet_name(self.version, self.sensor, self.classes)


@dataclass(frozen=True)
class BenchFolderConfig(BenchConfig):
    """Score encoders and controls on your own labelled images.

    Args:
        root: Folder of train/<class>/*.tif and test/<class>/*.tif, or of images and a table
            labels.csv or labels.parquet with columns file, split, and label or labels.
        sensor: What the images are.
        unit: Unit of the values in the files.
        bands: Bands in stored order, comma separated; without it as the files say, else all of
            the sensor.
        labels: A table of labels that lies elsewhere.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*. Without
            it, images whose footprints overlap are one place. Val is taken from train by place.
    """

    verb: ClassVar[str] = "folder"

    sensor: Literal["s2-l1c", "s2-l2a", "s1-grd", "s1-rtc", "rgb"] = "s2-l1c"
    unit: Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"] = "dn"
    bands: str | None = None
    labels: str | None = None
    place: str | None = None
    out: str = "runs/bench/folder.jsonl"


@dataclass(frozen=True)
class BenchSo2SatConfig(BenchConfig):
    """Score encoders and controls on So2Sat LCZ42. Needs h5py.

    Args:
        root: Folder of training.h5 and so on (v2), or of random, block and culture_10 (v3).
        version: `v3-culture-10` holds back whole cities; random and block let neighbours of
            training patches into test.
        sensor: Sentinel-2 (10 bands, reflectance) or Sentinel-1 (Lee-filtered VV and VH power).
    """

    verb: ClassVar[str] = "so2sat"
    named_by: ClassVar[tuple[str, ...]] = ("version", "sensor")

    version: Literal["v2", "v3-random", "v3-block", "v3-culture-10"] = "v3-culture-10"
    sensor: Literal["s2", "s1"] = "s2"
    out: str = "runs/bench/so2sat.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"so2sat-{self.version}-{self.sensor}"


@dataclass(frozen=True)
class BenchTreeSatAIConfig(BenchConfig):
    """Score encoders and controls on the Sentinel-2 images of TreeSatAI.

    Args:
        root: Folder of s2, labels, train_filenames.lst and test_filenames.lst.
        metres: Which cut: 60 (6 pixels) or 200 (20 pixels). The labels are those of 60 m.
        percent: A genus is present where its share of the area is above so many percent.
    """

    verb: ClassVar[str] = "treesatai"
    named_by: ClassVar[tuple[str, ...]] = ("metres", "percent")

    metres: Literal[60, 200] = 60
    percent: Literal[0, 7] = 7
    out: str = "runs/bench/treesatai.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"treesatai-{self.metres}m-over{self.percent}"


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


@dataclass(frozen=True)
class BenchSat6Config(BenchConfig):
    """Score encoders and controls on SAT-6. Needs SciPy.

    Args:
        root: Folder of sat-6-full.mat.
    """

    verb: ClassVar[str] = "sat6"

    out: str = "runs/bench/sat6.jsonl"


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

    sensor: Literal["s2", "s1", "both"] = "s2"
    out: str = "runs/bench/dfc2020.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"dfc2020-{self.sensor}"


@dataclass(frozen=True)
class BenchSen1Floods11Config(SegmentationConfig):
    """Score encoders on Sen1Floods11: water and none, by a linear layer on patches.

    Args:
        root: Folder of the download: v1.1, or data and splits.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, patches side by side.
        test: `official`, or `bolivia`: 15 chips of an event that is in no other list.
    """

    verb: ClassVar[str] = "sen1floods11"
    named_by: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Literal["s2", "s1", "both"] = "s1"
    test: Literal["official", "bolivia"] = "official"
    out: str = "runs/bench/sen1floods11.jsonl"

    @property
    def task(self) -> str:
        """Full name of the task."""
        return f"sen1floods11-{self.sensor}"


@dataclass(frozen=True)
class BenchMasksConfig(SegmentationConfig):
    """Score encoders on your own images with masks, by a linear layer on patches.

    Args:
        root: Folder of train/images, train/masks, test/images and test/masks; val is taken from
            train by place if there is none.
        classes: Code in the masks and its class, comma separated: 1=water,2=forest,3=forest.
        void: Codes that say nothing, comma separated.
        sensor: What the images are.
        unit: Unit of the values in the files.
        bands: Bands in stored order, comma separated; without it as the files say, else all of
            the sensor.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*. Without
            it, images whose footprints overlap are one place.
    """

    verb: ClassVar[str] = "masks"

    classes: str = ""
    void: str = ""
    sensor: Literal["s2-l1c", "s2-l2a", "s1-grd", "s1-rtc", "rgb", "naip"] = "s2-l1c"
    unit: Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"] = "dn"
    bands: str | None = None
    place: str | None = None
    out: str = "runs/bench/masks.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.names) < 2:
            raise ConfigError(
                "a segmentation needs two classes or more",
                found=self.classes or "nothing",
                expected="1=water,2=forest",
                where="--classes",
            )
        if not all(_is_code(word) for word in listed(self.void)):
            raise ConfigError("a void code is a whole number", found=self.void, where="--void")

    @property
    def names(self) -> dict[int, str]:
        """Code -> class.

        Raises:
            ConfigError: If an entry is no code and name.
        """
        found: dict[int, str] = {}
        for word in listed(self.classes):
            code, _, name = word.partition("=")
            if not _is_code(code.strip()) or not name.strip() or int(code) in found:
                raise ConfigError(
                    "a class is a code and a name, each code once",
                    found=word,
                    expected="1=water,2=forest",
                    where="--classes",
                )
            found[int(code)] = name.strip()
        return found

    @property
    def voids(self) -> tuple[int, ...]:
        """The codes that say nothing."""
        return tuple(int(word) for word in listed(self.void))


def _is_code(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def bigearthnet_name(version: str, sensor: str, classes: int) -> str:
    """Return the name of a BigEarthNet task: `bigearthnet-v2-s2`, `bigearthnet-v1-s1-43`.

    Args:
        version: `v1`, `v2` or `copernicus-bench`.
        sensor: `s2`, `s1` or `both`.
        classes: 19 or 43.
    """
    return f"bigearthnet-{version}-{sensor}" + ("" if classes == 19 else f"-{classes}")


# Family of tasks, as in `eofm bench FAMILY`, -> its settings. A full name begins with its family.
FAMILIES: Final[Mapping[str, type[ScoringConfig]]] = {
    settings.verb: settings
    for settings in (
        BenchEurosatConfig,
        BenchBigEarthNetConfig,
        BenchSo2SatConfig,
        BenchTreeSatAIConfig,
        BenchUCMercedConfig,
        BenchResisc45Config,
        BenchSat6Config,
        BenchFolderConfig,
        BenchDfc2020Config,
        BenchSen1Floods11Config,
        BenchMasksConfig,
    )
}
# Families whose tasks are named after the user's folder.
OWN_IMAGES: Final = ("folder", "masks")


def family_of(task: str) -> str:
    """Return the family of a task's full name; empty if it has none."""
    return next((name for name in FAMILIES if f"{task}-".startswith(f"{name}-")), "")


def options_of(task: str) -> Mapping[str, str] | None:
    """Return the options of `eofm bench FAMILY` that name a task; None if there is no such task.

    Args:
        task: Full name.
    """
    family = family_of(task)
    if not family or family in OWN_IMAGES:
        return None
    settings = FAMILIES[family]
    choices = [get_args(get_type_hints(settings)[name]) for name in settings.named_by]
    for values in product(*choices):
        options = dict(zip(settings.named_by, values, strict=True))
        with suppress(ConfigError):  # a combination that does not exist
            if settings("", **options).task == task:
                return {name: str(value) for name, value in options.items()}
    return None
