"""Settings of the dense tasks of `eofm bench`: a class per pixel. Standard library only."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from eofm.bench.config import check_force, check_seed, listed
from eofm.errors import ConfigError


@dataclass(frozen=True)
class DenseConfig:
    """What every run of a dense task is told.

    Args:
        root: Folder of the data set.
        model: Encoders to score, comma separated: folders written by an export, published names,
            torchgeo:ENUM.MEMBER, timm:NAME with --recipe, module:function of your own that returns
            an Encoder. Controls: pixels (a linear layer on the bands of each pixel), random,
            random:ARCHITECTURE. NAME=... chooses the name in the table. Tasks of two sensors take
            ENCODER+ENCODER.
        controls: Add pixels and random to the models, if they are not among them.
        out: Results are appended to this file, one JSON record per line. What they rest on, a
            confusion matrix per test image, is kept in the folder predictions beside it.
        cache: Folder of computed features; empty computes them anew.
        figure: PNG of the classes' scores; empty draws none.
        patches: About how many training patches the linear layer is fitted on, spread evenly over
            images and places.
        bootstrap: Resamples of the test images behind an interval.
        seed: Of random encoders, and of the resampling.
        limit: At most so many images of each split, chosen by hash. The result says so.
        batch: Images embedded at once.
        device: Where networks run; `auto` takes a GPU if there is one.
        recipe: YAML file that says what timm: networks eat.
        force: Mismatches to accept against the recipe, comma separated: sensor, missing-band. Such
            rows are marked and left out of tables.
    """

    verb: ClassVar[str] = ""

    root: str
    model: str = "pixels"
    controls: bool = True
    out: str = "runs/bench/dense.jsonl"
    cache: str = "runs/bench/features"
    figure: str = ""
    patches: int = 50_000
    bootstrap: int = 1000
    seed: int = 0
    limit: int | None = None
    batch: int = 16
    device: Literal["auto", "cpu", "cuda"] = "auto"
    recipe: str | None = None
    force: str = ""

    def __post_init__(self) -> None:
        counts = {"patches": self.patches, "bootstrap": self.bootstrap, "batch": self.batch}
        for name, value in {**counts, "limit": 1 if self.limit is None else self.limit}.items():
            if value < 1:
                raise ConfigError(f"{name} must be positive", found=value, where=f"--{name}")
        if not self.models:
            raise ConfigError("there is nothing to score", where="--model")
        check_force(self.force)
        check_seed(self.seed)

    @property
    def models(self) -> tuple[str, ...]:
        """The entries of `model`, each once."""
        return listed(self.model)

    def command(self) -> str:
        """Return the command line that does the same."""
        words = ["eofm", "bench", self.verb]
        for one in fields(self):
            value = vars(self)[one.name]
            if value != one.default:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                words += [f"--{one.name}", text]
        return shlex.join(words)


@dataclass(frozen=True)
class BenchDfc2020Config(DenseConfig):
    """Score encoders on DFC2020: eight classes of land cover, by a linear layer on patches.

    Args:
        root: Folder of the contest (ROIs0000_test, ROIs0000_validation), or of Copernicus-Bench
            (dfc, s1, s2 and dfc-train-new.csv), whose lists divide where they lie.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, patches side by side.
    """

    verb: ClassVar[str] = "dfc2020"

    sensor: Literal["s2", "s1", "both"] = "s2"
    out: str = "runs/bench/dfc2020.jsonl"


@dataclass(frozen=True)
class BenchSen1Floods11Config(DenseConfig):
    """Score encoders on Sen1Floods11: water and none, by a linear layer on patches.

    Args:
        root: Folder of the download: v1.1, or data and splits.
        sensor: Sentinel-2, Sentinel-1, or both: an encoder for each, patches side by side.
        test: `official`, or `bolivia`: 15 chips of an event that is in no other list.
    """

    verb: ClassVar[str] = "sen1floods11"

    sensor: Literal["s2", "s1", "both"] = "s1"
    test: Literal["official", "bolivia"] = "official"
    out: str = "runs/bench/sen1floods11.jsonl"


@dataclass(frozen=True)
class BenchMasksConfig(DenseConfig):
    """Score encoders on your own images with masks, by a linear layer on patches.

    Args:
        root: Folder of train/images, train/masks, test/images and test/masks; val is taken from
            train by place if there is none.
        classes: Code in the masks and its class, comma separated: 1=water,2=forest,3=forest.
        void: Codes that say nothing, comma separated.
        sensor: What the images are.
        unit: Unit of the values in the files.
        bands: In stored order, comma separated; without it as the files say, else all of the
            sensor.
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
