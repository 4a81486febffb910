"""Settings of `eofm bench`. Standard library only."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, fields
from typing import ClassVar, Final, Literal

from eofm.bench.recipes import PROBE_KINDS, RECIPES, expand_probes
from eofm.bench.training_config import TrainingConfig
from eofm.errors import ConfigError

# the keys of eofm.bench.score.KINDS and eofm.bench.trainings.TRAININGS
PROBES: Final = tuple(PROBE_KINDS)
FORCE: Final = ("sensor", "missing-band")
_LARGEST_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class BenchConfig:
    """What every benchmark run is told.

    Args:
        root: Folder of the data set.
        model: What to score, comma separated. Encoders: folders written by an export, published
            names (softcon_vits14_s2, softcon_vits14_s2@torchgeo-zscore), torchgeo:ENUM.MEMBER,
            timm:NAME with --recipe, module:function of your own. Controls: imagestats, rcf,
            rcf-zca, random, random:ARCHITECTURE, random:FOLDER. NAME=... chooses the name in the
            table. Tasks of two sensors take ENCODER+ENCODER.
        probe: Which probes, comma separated: knn, knn20 (cosine, weighted), nmc (nearest mean),
            linear, linear-refit, linear-c45-refit, linear-c1, linear-grid (layers, pooling and C).
            Trained on augmented images: finetune, dinov2-heads, ssl4eo-moco, ssl4eo-dino,
            ssl4eo-mae, softcon-linear, softcon-dino4, softcon-dino4-mean. What of the protocol of a
            paper can be run: corley2023, torchgeo-bench, dinov2, ssl4eo, softcon.
        controls: Add imagestats, rcf, rcf-zca and random to the models, if they are not among
            them.
        out: Results are appended to this file, one JSON record per line.
        cache: Folder of computed features; empty computes them anew.
        k: Number of neighbours of the kNN probe.
        bootstrap: Resamples of the test images behind an interval.
        seed: Of random encoders and filters, and of the resampling.
        limit: At most so many images of each split, chosen by hash. The result says so.
        shares: Score also with fewer training labels, comma separated: `10` is the first 10 percent
            by hash, `5-shot` the first 5 images of each class; `100` is all. Val stays whole.
            Features are computed once.
        draws: How many such subsets of each kind; in each, fewer labels lie within more.
        size: Score encoders also at other sizes in pixels than their own, comma separated, or
            32..256 (steps of 32) or 32..256:16; rounded to whole patches. Such rows are marked
            and left out of tables; `bench plot` draws the curve.
        batch: Images embedded at once.
        device: Where networks run; `auto` takes a GPU if there is one.
        recipe: YAML file that says what timm: networks eat.
        force: Mismatches to accept against the recipe, comma separated: sensor, missing-band. Such
            rows are marked and left out of tables.
        train: Of what is trained on images.
    """

    verb: ClassVar[str] = ""

    root: str
    model: str = "imagestats"
    probe: str = "knn,linear"
    controls: bool = True
    out: str = "runs/bench/results.jsonl"
    cache: str = "runs/bench/features"
    k: int = 5
    bootstrap: int = 1000
    seed: int = 0
    limit: int | None = None
    shares: str = ""
    draws: int = 5
    size: str = ""
    batch: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    recipe: str | None = None
    force: str = ""
    train: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        counts = {"k": self.k, "bootstrap": self.bootstrap, "batch": self.batch}
        for name, value in {**counts, "draws": self.draws}.items():
            if value < 1:
                raise ConfigError(f"{name} must be positive", found=value, where=f"--{name}")
        check_seed(self.seed)
        if self.limit is not None and self.limit < 1:
            raise ConfigError("limit must be positive", found=self.limit, where="--limit")
        if not self.out.strip():
            raise ConfigError(
                "the results need a file",
                found="nothing",
                remedy="--out FOLDER/results.jsonl",
                where="--out",
            )
        if not self.probes:
            raise ConfigError(
                "there is no such probe",
                found="nothing",
                expected=", ".join(PROBES),
                where="--probe",
            )
        fives = [word for word in listed(self.probe) if word in ("corley2023", "torchgeo-bench")]
        if fives and self.k != 5:
            raise ConfigError(
                "this protocol asks five neighbours",
                found=f"--k {self.k}",
                expected="--k 5",
                where=f"--probe {', '.join(fives)}",
            )
        if self.recipe in RECIPES:
            raise ConfigError(
                "a protocol is a probe; --recipe is the file that says what a timm: network eats",
                found=f"--recipe {self.recipe}",
                remedy=f"--probe {self.recipe}",
            )
        if not self.models:
            raise ConfigError("there is nothing to score", where="--model")
        check_force(self.force)
        check_shares(self.shares)
        if self.size:
            pixel_sizes(self.size)
        if self.size and self.shares:
            raise ConfigError(
                "these are two curves",
                found="--shares and --size",
                remedy="run one after the other: the second finds its features in the cache",
            )

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes in pixels that `size` names, each once."""
        return pixel_sizes(self.size) if self.size else ()

    @property
    def models(self) -> tuple[str, ...]:
        """The entries of `model`, each once."""
        return listed(self.model)

    @property
    def probes(self) -> tuple[str, ...]:
        """The probes that `probe` names, each once; a protocol stands for its probes."""
        return expand_probes(listed(self.probe))

    def command(self) -> str:
        """Return the command line that does the same."""
        words = ["eofm", "bench", *self.verb.split()]
        plain = {one.name: (vars(self)[one.name], one.default) for one in fields(self)}
        del plain["train"]
        for one in fields(self.train):
            plain[f"train.{one.name}"] = vars(self.train)[one.name], one.default
        for name, (value, default) in plain.items():
            if value != default:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                words += [f"--{name}", text]
        return shlex.join(words)


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

    sensor: Literal["ms", "rgb", "sar"] = "ms"
    split: Literal["auto", "spatial", "stratified", "given", "lists", "spatial-lists"] = "auto"
    out: str = "runs/bench/eurosat.jsonl"


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


@dataclass(frozen=True)
class BenchFolderConfig(BenchConfig):
    """Score encoders and controls on your own labelled images.

    Args:
        root: Folder of train/<class>/*.tif and test/<class>/*.tif, or of images and a table
            labels.csv or labels.parquet with columns file, split, and label or labels.
        sensor: What the images are.
        unit: Unit of the values in the files.
        bands: In stored order, comma separated; without it as the files say, else all of the
            sensor.
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

    version: Literal["v2", "v3-random", "v3-block", "v3-culture-10"] = "v3-culture-10"
    sensor: Literal["s2", "s1"] = "s2"
    out: str = "runs/bench/so2sat.jsonl"


@dataclass(frozen=True)
class BenchTreeSatAIConfig(BenchConfig):
    """Score encoders and controls on the Sentinel-2 images of TreeSatAI.

    Args:
        root: Folder of s2, labels, train_filenames.lst and test_filenames.lst.
        metres: Which cut: 60 (6 pixels) or 200 (20 pixels). The labels are those of 60 m.
        percent: A genus is present where its share of the area is above so many percent.
    """

    verb: ClassVar[str] = "treesatai"

    metres: Literal[60, 200] = 60
    percent: Literal[0, 7] = 7
    out: str = "runs/bench/treesatai.jsonl"


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
class PlanConfig:
    """Show the steps from a task's images to a model's input, or why there are none.

    Args:
        task: Name of a task: eurosat, bigearthnet-v2-s2, so2sat-v3-culture-10-s2, ...
        model: One encoder, as in `eofm bench eurosat --model`.
        recipe: YAML file that says what a timm: network eats.
        force: Mismatches to accept, comma separated: sensor, missing-band.
    """

    task: str = field(metadata={"positional": True})
    model: str = field(metadata={"positional": True})
    recipe: str | None = None
    force: str = ""

    def __post_init__(self) -> None:
        check_force(self.force)


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: If it is below 0 or above 2^32 - 1.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        expected = f"0 to {_LARGEST_SEED}"
        raise ConfigError("seed is out of range", found=seed, expected=expected, where="--seed")


def check_force(text: str) -> None:
    """Refuse what cannot be forced.

    Raises:
        ConfigError: If it names anything but a sensor or a missing band.
    """
    unknown = [word for word in listed(text) if word not in FORCE]
    if unknown:
        raise ConfigError(
            "this cannot be forced",
            found=", ".join(unknown),
            expected=", ".join(FORCE),
            where="--force",
            remedy="a wrong unit, size or normalisation gives no number worth having: state what "
            "the images are, or give the network a recipe",
        )


_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)%?|(\d+)-shot")


def check_shares(text: str) -> None:
    """Refuse what is no share of the labels.

    Raises:
        ConfigError: If a word is neither a percentage above 0 and up to 100 nor `N-shot`.
    """
    for word in listed(text):
        found = _SHARE.fullmatch(word)
        percent, shots = found.groups() if found else (None, None)
        if not (0 < float(percent) <= 100 if percent else int(shots or 0) > 0):
            raise ConfigError(
                "this is no share of the labels",
                found=word,
                expected="a percentage up to 100, or N-shot",
                where="--shares",
            )


def pixel_sizes(text: str) -> tuple[str, ...]:
    """Return the sizes that words name, each once: numbers, `own`, ranges A..B and A..B:STEP.

    Raises:
        ConfigError: If a word is none of these.
    """
    sizes: list[str] = []
    for word in listed(text):
        found = re.fullmatch(r"(\d+)\.\.(\d+)(?::(\d+))?", word)
        low, high, step = (int(n or 32) for n in found.groups()) if found else (0, 0, 1)
        spread = [str(n) for n in range(low, high + 1, step)] if step else []
        single = [word] if word == "own" or word.isdecimal() else []
        sizes += spread if found else single
        if not (spread if found else single) or "0" in sizes:
            raise ConfigError(
                "a size is a number of pixels, a range A..B or A..B:STEP, or `own`",
                found=word,
                where="--size",
            )
    if not sizes:
        raise ConfigError("there is no size", found="nothing", where="--size")
    return tuple(dict.fromkeys(sizes))


def listed(text: str) -> tuple[str, ...]:
    """Return the words between commas, each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
