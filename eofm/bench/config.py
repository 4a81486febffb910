"""Settings that all runs of `eofm bench` share. Standard library only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import ClassVar, Final, Literal

from eofm.bench.protocols import DENSE_PROBES, PROBE_KINDS, RECIPES, expand_probes
from eofm.errors import ConfigError
from eofm.settings import checked_settings

# the keys of eofm.bench.probes.KINDS and eofm.bench.finetune.trainings.TRAININGS
PROBES: Final = tuple(PROBE_KINDS)

FORCE: Final = ("sensor", "missing-band")
AUTO: Final = "auto"
OWN: Final = "own"
NORMALIZATIONS: Final = (OWN, "zscore", "two-sigma", "minmax", "divide10000", "divide255")

_LARGEST_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
@checked_settings
class TrainingConfig:
    """How networks are trained, by `--probe finetune` and by the protocols of papers.

    Args:
        epochs: Passes over train; 0 takes 20 for finetune, else what the protocol says.
        batch: Images of a step; 0 takes 32 for finetune, else what the protocol says.
        rate: Learning rate of finetune's head, AdamW.
        factors: Rates of finetune's network over that of its head, comma separated: the best on
            val is taken. 0 keeps the network frozen and in evaluation mode; 0.01 is SLCA's slow
            learner.
        weight_decay: Of finetune; norms, biases and tables of tokens never decay.
        layer_decay: Of finetune: factor on the rate from one layer to the one before it; 1 is
            none.
        warmup: Share of finetune's steps in which the rate rises.
        crop: Smallest share of the area of finetune's random crops; 1 crops nothing.
        flips: Mirror finetune's images at random, in both directions.
        faults: Repeat those faults of a paper's protocol that are part of its numbers. Such rows
            are marked and left out of tables.
    """

    epochs: int = 0
    batch: int = 0
    rate: float = 5e-3
    factors: str = "0.01,0.1,1"
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    warmup: float = 0.05
    crop: float = 0.8
    flips: bool = True
    faults: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "weight_decay"):
            self._check(name, vars(self)[name] >= 0, "0 or more")
        self._check("rate", self.rate > 0, "above 0")
        for name in ("layer_decay", "crop"):
            self._check(name, 0 < vars(self)[name] <= 1, "above 0, at most 1")
        self._check("warmup", 0 <= self.warmup < 1, "0 or more, below 1")
        self._check("factors", bool(self.tried) and min(self.tried) >= 0, "numbers, 0 or more")

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(
                "this setting of the training is out of range",
                found=vars(self)[name],
                expected=expected,
                where=f"--train.{name}",
            )

    @property
    def tried(self) -> tuple[float, ...]:
        """The entries of `factors`, each once; none if one is no number."""
        try:
            words = [word for word in self.factors.split(",") if word.strip()]
            return tuple(dict.fromkeys(float(word) for word in words))
        except ValueError:
            return ()


@dataclass(frozen=True)
@checked_settings
class ScoringConfig:
    """What every benchmark run is told, whatever the kind of its task.

    Args:
        root: Folder of the data set.
        model: What to score, comma separated. Encoders: folders written by an export, published
            names (softcon_vits14_s2, softcon_vits14_s2@torchgeo-zscore), torchgeo:ENUM.MEMBER,
            timm:NAME with --recipe, module:function of your own; of images and texts
            openclip:ARCHITECTURE@WEIGHTS, where #CORPUS behind it says what they saw. Controls:
            imagestats, rcf, rcf-zca (of whole images), pixels, patchstats (of segmentation),
            random, random:ARCHITECTURE, random:FOLDER. NAME=... chooses the name in the table.
            Tasks of two sensors take ENCODER+ENCODER.
        controls: Add the controls of the task to the models, if they are not among them.
        out: Results are appended to this file, one JSON record per line; predictions are kept in
            a folder beside it.
        cache: Folder of computed features; empty computes them again.
        bootstrap: Resamples of the test images behind an interval.
        seed: Seed of random encoders and filters, and of the resampling.
        limit: Largest number of images of each split, chosen by hash. The result says so.
        batch: Number of images embedded at once.
        device: Where networks run; `auto` takes a GPU if there is one.
        recipe: YAML file that says what timm: networks expect.
        force: Mismatches to accept against the recipe, comma separated: sensor, missing-band. Such
            rows are marked and left out of tables.
    """

    verb: ClassVar[str] = ""
    # options that make the full name of the task
    named_by: ClassVar[tuple[str, ...]] = ()

    root: str
    model: str = "imagestats"
    controls: bool = True
    out: str = "runs/bench/results.jsonl"
    cache: str = "runs/bench/features"
    bootstrap: int = 1000
    seed: int = 0
    limit: int | None = None
    batch: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    recipe: str | None = None
    force: str = ""

    def __post_init__(self) -> None:
        limit = 1 if self.limit is None else self.limit
        self._check_positive(bootstrap=self.bootstrap, batch=self.batch, limit=limit)
        check_seed(self.seed)
        if not self.out.strip():
            raise ConfigError(
                "the results need a file",
                found="nothing",
                remedy="--out FOLDER/results.jsonl",
                where="--out",
            )
        if self.recipe in RECIPES:
            raise ConfigError(
                "a protocol is a probe; --recipe is the file of what a timm: network expects",
                found=f"--recipe {self.recipe}",
                remedy=f"--probe {self.recipe}",
            )
        if not self.models:
            raise ConfigError("there is nothing to score", where="--model")
        check_force(self.force)

    @staticmethod
    def _check_positive(**counts: int) -> None:
        for name, value in counts.items():
            if value < 1:
                raise ConfigError(f"{name} must be positive", found=value, where=f"--{name}")

    @property
    def task(self) -> str:
        """Full name of the task; of one's own images, its beginning."""
        return self.verb

    @property
    def models(self) -> tuple[str, ...]:
        """The entries of `model`, each once."""
        return listed(self.model)

    def command(self) -> str:
        """Return the command line that does the same.

        Defaults are left out, but for what is stated of images of the user's own.
        """
        words = ["eofm", "bench", *self.verb.split()]
        stated = {"sensor", "unit"} if "unit" in vars(self) else set()
        for name, value, default in _options(self):
            if value != default or name in stated:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                words += [f"--{name}", text]
        return shlex.join(words)


def _options(settings: ScoringConfig | TrainingConfig) -> Iterator[tuple[str, object, object]]:
    """Yield name, value and default of every option, nested ones by their full name."""
    for one in fields(settings):
        value = vars(settings)[one.name]
        if isinstance(value, TrainingConfig):
            for name, inner, default in _options(value):
                yield f"{one.name}.{name}", inner, default
        else:
            yield one.name, value, one.default


@dataclass(frozen=True)
class BenchConfig(ScoringConfig):
    """What every run is told that scores labels of whole images.

    Args:
        probe: Which probes, comma separated: knn, knn20 (cosine, weighted), nmc (nearest mean),
            linear, linear-refit, linear-c45-refit, linear-c1, linear-grid (layers, pooling and C),
            nmtune (a perceptron that reshapes features, for noisy pretraining labels). Of openclip:
            models: text, text-unit (zero-shot by class names).
            Trained on augmented images: finetune, slca (finetune by the rates of that paper),
            dinov2-heads, ssl4eo-moco, ssl4eo-dino, ssl4eo-mae, softcon-linear, softcon-dino4,
            softcon-dino4-mean. What of the protocol of a paper can be run: corley2023,
            torchgeo-bench, dinov2, ssl4eo, softcon, slca, georsclip. Or a function of your own,
            `module:function` or `file.py:function` (`docs/contributing.md`).
        k: Number of neighbours of the kNN probe.
        shares: Shares of the training labels to score with as well, comma separated: `10` is the
            first 10 percent by hash, `5-shot` the first 5 images of each class; `100` is all. Val
            stays whole. Features are computed once.
        draws: Number of such subsets of each kind; in each, fewer labels lie within more.
        size: Other sizes in pixels than their own to score encoders at, comma separated, or
            32..256 (steps of 32) or 32..256:16; rounded to whole patches. Such rows are marked
            and left out of tables of results; `bench plot` draws the curve.
        normalization: Other normalisations than their own to score encoders with, comma separated:
            zscore, two-sigma or minmax by statistics of the training split; divide10000 for
            Sentinel-2, divide255 for 8-bit images; `auto`: all that suit the images; `own`. Every
            size is combined with every normalisation, and such rows are marked as well.
        train: Settings of what is trained on images.
    """

    probe: str = "knn,linear"
    k: int = 5
    shares: str = ""
    draws: int = 5
    size: str = ""
    normalization: str = ""
    train: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive(k=self.k, draws=self.draws)
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
        check_shares(self.shares)
        if self.size:
            pixel_sizes(self.size)
        self._check_normalization()
        if self.shares and (self.size or self.normalization):
            raise ConfigError(
                "a run varies the labels or the input, not both",
                found="--shares and --size" if self.size else "--shares and --normalization",
                remedy="run one after the other: the second finds its features in the cache",
            )

    def _check_normalization(self) -> None:
        known = (AUTO, *NORMALIZATIONS)
        unknown = [word for word in self.normalizations if word not in known]
        if unknown:
            raise ConfigError(
                "there is no such normalisation",
                found=", ".join(unknown),
                expected=", ".join(known),
                where="--normalization",
            )

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes in pixels that `size` names, each once."""
        return pixel_sizes(self.size) if self.size else ()

    @property
    def normalizations(self) -> tuple[str, ...]:
        """The entries of `normalization`, each once."""
        return listed(self.normalization)

    @property
    def probes(self) -> tuple[str, ...]:
        """The probes that `probe` names, each once; a protocol stands for its probes."""
        return expand_probes(listed(self.probe))


@dataclass(frozen=True)
class SegmentationConfig(ScoringConfig):
    """What every run is told that scores a class per pixel.

    Args:
        probe: Which probes, comma separated: linear (a linear layer on patch tokens), prompt (what
            resembles a patch of a class, in its image and across images; nothing is fitted).
        figure: PNG of the classes' scores under the linear layer; empty draws none.
        patches: About how many training patches the linear layer is fitted on, spread evenly over
            images and places.
    """

    model: str = "pixels"
    batch: int = 16
    probe: str = "linear"
    figure: str = ""
    patches: int = 50_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive(patches=self.patches)
        unknown = [word for word in self.probes if word not in DENSE_PROBES]
        if unknown or not self.probes:
            raise ConfigError(
                "there is no such probe of a segmentation",
                found=", ".join(unknown) or "nothing",
                expected=", ".join(DENSE_PROBES),
                where="--probe",
            )
        if self.figure and "linear" not in self.probes:
            raise ConfigError(
                "the figure shows the classes under the linear layer, which is not asked for",
                found=f"--probe {self.probe} --figure {self.figure}",
                remedy="--probe linear,prompt, or leave --figure out",
            )

    @property
    def probes(self) -> tuple[str, ...]:
        """The entries of `probe`, each once: keys of `eofm.bench.protocols.DENSE_PROBES`."""
        return listed(self.probe)


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
