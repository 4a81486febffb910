"""Settings of all verbs of `eofm bench`, and the probes and recipes of papers they name.

Standard library only.

A published score belongs to a recipe: split, subset, augmentation, optimiser, definition of the
metric, and its faults. Here each is written down. `--probe <recipe>` runs what of it can be run, on
frozen features or on augmented images (`eofm.bench.finetune.trainings`); what nobody published is
named as missing, in the record too, instead of being imitated. `--train.faults true` repeats those
faults that are part of a paper's numbers.

`--recipe` is something else: the file that says what a network of timm expects.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Final, Literal

from eofm.errors import ConfigError
from eofm.io import names_own
from eofm.settings import checked_settings

__all__ = [
    "AUTO",
    "DENSE_PROBES",
    "FORCE",
    "NORMALIZATIONS",
    "OWN",
    "PROBES",
    "PROBE_KINDS",
    "RECIPES",
    "AggregateConfig",
    "BenchConfig",
    "CompareConfig",
    "PaperRecipe",
    "PlanConfig",
    "RecordsExportConfig",
    "ScoringConfig",
    "SegmentationConfig",
    "TableConfig",
    "TrainingConfig",
    "ValidateConfig",
    "check_force",
    "check_seed",
    "check_shares",
    "expand_probes",
    "listed",
    "pixel_sizes",
    "said_of",
    "stated",
]

# ------------------------------------------------------------------------------- probes and recipes

# What `eofm.bench.probes.KINDS`, `eofm.bench.texts.TEXT_KINDS` and
# `eofm.bench.finetune.trainings.TRAININGS` can run.
PROBE_KINDS: Final[Mapping[str, str]] = {
    "knn": "k nearest neighbours, Euclidean, majority",
    "knn20": "20 nearest neighbours by cosine, weight exp(cosine / 0.07)",
    "nmc": "nearest class mean of unit vectors",
    "linear": "logistic regression, C of 40 chosen on val, no refit",
    "linear-refit": "the same, refitted on train + val with the chosen C",
    "linear-c45-refit": "logistic regression, C of 45 chosen on val, refitted on train + val",
    "linear-c1": "logistic regression, C = 1, nothing chosen",
    "linear-grid": "logistic regression on 1 or 4 layers, CLS or CLS + patch mean, and C, by val",
    "nmtune": "a perceptron on features, with NMTune's terms; their strength by val",
    "text": "no fit: cosine of images with the mean of a class's texts (openclip: models)",
    "text-unit": "the same, every text of unit length before the mean",
    "finetune": "the network with its head, AdamW; the network's rate by val",
    "slca": "the network with its head, SGD; the network at a hundredth of the head's rate",
    "dinov2-heads": "52 heads by SGD on augmented images: layers, pooling and rate by val",
    "ssl4eo-moco": "one head by SGD on augmented images, as for the MoCo networks of SSL4EO-S12",
    "ssl4eo-dino": "the same as for its DINO networks: four layers",
    "ssl4eo-mae": "the same as for its MAE networks: batch statistics before the head",
    "softcon-linear": "a head by SGD on augmented images; rate by val",
    "softcon-dino4": "the same on four layers, the starred rows",
    "softcon-dino4-mean": "the same with the patch mean beside them",
}


# What a segmentation is scored by: the word of `--probe` -> what it is.
DENSE_PROBES: Final[Mapping[str, str]] = {
    "linear": "a linear layer on patch tokens",
    "prompt": "patches that resemble a prompt patch, nothing fitted (MMC, arXiv 2308.11448)",
}


@dataclass(frozen=True)
class PaperRecipe:
    """How a paper or a harness scores.

    Args:
        source: Where it is described.
        split: On what it is scored.
        subset: Which part of the training split it uses.
        images: Size, normalisation, augmentation.
        optimiser: How the read-out is fitted.
        metric: What its numbers are.
        faults: What is known to be wrong with them.
        probes: What of it runs, as keys of `PROBE_KINDS`.
        missing: What of it does not run, and why.
    """

    source: str
    split: str
    subset: str
    images: str
    optimiser: str
    metric: str
    faults: tuple[str, ...]
    probes: tuple[str, ...]
    missing: tuple[str, ...]


RECIPES: Final[Mapping[str, PaperRecipe]] = {
    "corley2023": PaperRecipe(
        source="arXiv 2305.13456 and its result files",
        split="BigEarthNet v1 official test; EuroSAT random lists; So2Sat v3 and culture-10",
        subset="all of train; val unused",
        images="bilinear with aligned corners, no antialiasing; 64, 120 or 224 pixels; no "
        "augmentation",
        optimiser="kNN-5, Euclidean, and scikit-learn's LogisticRegression with C = 1, 3000 steps",
        metric="ap_micro, ap_macro, ap_weighted of the whole set; oa for one class per sample",
        faults=(
            "the zero band stands at index 8 of the stack instead of 10 (B10)",
            "B8A is last in the stack of EuroSAT and is read as if it were in order",
            "the better normalisation and scaler are picked on test",
            "untrained networks are not seeded",
        ),
        probes=("knn", "linear-c1"),
        missing=("its interpolation and its mis-ordered stacks: a plan has neither",),
    ),
    "torchgeo-bench": PaperRecipe(
        source="github.com/torchgeo/torchgeo-bench, version 0.4",
        split="GEO-Bench v1 and v2 as shipped",
        subset="all of train",
        images="z-score by the data set's own statistics, 224 pixels, bilinear without "
        "antialiasing; no augmentation",
        optimiser="kNN-5; logistic regression, C of 10^linspace(-6, 4, 40) chosen on val, "
        "refitted on train + val",
        metric="ap_micro or oa, 200 bootstrap resamples",
        faults=(
            "the normalisation a network was trained with is replaced by the data set's",
            "TF32 products",
            "155 of 1,222 configurations had bands of zeros; 12 rows contradict themselves",
        ),
        probes=("knn", "linear-refit"),
        missing=("its normalisation: run it as an explicit waiver, `--normalization zscore`",),
    ),
    "dinov2": PaperRecipe(
        source="github.com/facebookresearch/dinov2 (arXiv 2304.07193)",
        split="the task's own",
        subset="all of train",
        images="random crops and flips for its SGD heads; none for kNN and logistic regression",
        optimiser="kNN of k in {10, 20, 100, 200} by cosine at T = 0.07; logistic regression, C "
        "of 10^linspace(-6, 5, 45), refitted on train + val; 52 SGD heads over layers, pooling "
        "and rates",
        metric="oa; mean recall where a data set asks for it",
        faults=("without a test set the best head is picked on the set it is reported on",),
        probes=("knn20", "linear-c45-refit", "dinov2-heads"),
        missing=(
            "its crops are of pixels of a photograph; here of the normalised image, bilinear",
            "kNN of k = 10, 100 and 200, and its softmax over 200 neighbours before the cut to k",
            "logistic regression to a tolerance of 1e-12: here the gradient norm is below 1e-8",
        ),
    ),
    "ssl4eo": PaperRecipe(
        source="github.com/zhu-xlab/SSL4EO-S12 (arXiv 2211.07044)",
        split="BigEarthNet: lists of arXiv 1911.06721 without snow and cloud, scored on val",
        subset="10 %: default_rng(42).choice with replacement, 9.54 % distinct patches",
        images="128 pixels bicubic, /10000 or mean ± 2 sd in 8 bits, B10 of zeros; random resized "
        "crops of 224, flips; centre crop 224 of 256 to evaluate",
        optimiser="SGD, momentum 0.9; ResNet-50 rate 8.0 at batch 256 x 4, 100 epochs; ViT-S 0.1",
        metric="mean over batches of ap_micro, last batch dropped",
        faults=(
            "the metric is a mean over batches, not of the set",
            "the subset draws with replacement and depends on the order of a database",
            "ResNet-50 is in train mode: the statistics of its frozen batch norm drift",
            "the split that is watched is the split that is reported",
        ),
        probes=("ssl4eo-moco",),
        missing=(
            "the lists of arXiv 1911.06721: the task's own split stands for them, and the subset "
            "is drawn from ids in order, not from a database",
            "resizing to 128 and 256 pixels, 8 bits and the centre crop: images come by the "
            "network's own plan, and crops are of the normalised image, bilinear",
            "four processes: one makes steps of the same batch",
            "EuroSAT's split, 80/20 as scikit-learn draws it, without --train.faults true",
        ),
    ),
    "softcon": PaperRecipe(
        source="github.com/zhu-xlab/softcon (arXiv 2405.20462)",
        split="as ssl4eo (inferred)",
        subset="as ssl4eo (inferred)",
        images="mean ± 2 sd in 8 bits, 224 pixels; augmentation as ssl4eo (inferred)",
        optimiser="linear; starred rows: a DINOv2 head on four layers. Rates are not published",
        metric="mean over batches of ap_micro (inferred)",
        faults=("rates, epochs and the head's pooling are not published",),
        probes=("softcon-linear", "softcon-dino4", "softcon-dino4-mean"),
        missing=(
            "rates, epochs, batch and schedule: SGD with momentum 0.9 over seven rates is ours",
            "whether the starred head reads the patch mean: both are run",
            "split, subset and images: as ssl4eo",
        ),
    ),
    "georsclip": PaperRecipe(
        source="github.com/om-ai-lab/RS5M (arXiv 2306.11300)",
        split="EuroSAT, RESISC45 and AID, all of their images",
        subset="none: nothing is fitted",
        images="224 pixels bicubic, centre crop, CLIP's mean and deviation",
        optimiser="none; 105 templates, mean of their vectors, then unit length; 100 x cosine",
        metric="oa",
        faults=("names of several words are written as one (annualcrop)",),
        probes=("text",),
        missing=(
            "all images: here those of the test split",
            "its class names: here they are split into words",
            "resizing in 8 bits: here of float pixels, also bicubic with antialiasing",
        ),
    ),
    "slca": PaperRecipe(
        source="github.com/GengDavid/SLCA (arXiv 2303.05118)",
        split="CIFAR-100, ImageNet-R, CUB-200 and Cars-196, their classes in ten tasks",
        subset="all of train, task by task",
        images="224 pixels; random resized crops and flips",
        optimiser="SGD, momentum 0.9, decay 5e-4, batch 128, 20 epochs (CIFAR-100), a tenth of the "
        "rate after the 18th: head 0.01, network 0.0001; then a classifier aligned on features "
        "drawn of each class",
        metric="oa after the last task, and its mean over the tasks",
        faults=("its scripts have no validation split",),
        probes=("slca",),
        missing=(
            "alignment of the classifier, which begins with the second task: here there is one",
            "decay of norms, biases and tables of tokens",
            "its crops are of pixels of a photograph; here of the normalised image, bilinear",
        ),
    ),
}


def said_of(protocol: str) -> dict[str, str]:
    """Return what a record says of a protocol: its source, its gaps here, and its faults.

    Args:
        protocol: A key of `RECIPES`.
    """
    recipe = RECIPES[protocol]
    return {
        f"{protocol}: source": recipe.source,
        f"{protocol}: not reproduced": "; ".join(recipe.missing),
        f"{protocol}: faults of the paper": "; ".join(recipe.faults),
    }


def stated(words: Sequence[str], kind: str) -> dict[str, str]:
    """Return what a record says of the protocols for which a probe was run.

    Args:
        words: As in `--probe`.
        kind: A key of `PROBE_KINDS`.
    """
    found: dict[str, str] = {}
    for word in words:
        if word in RECIPES and kind in RECIPES[word].probes:
            found |= said_of(word)
    return found


def expand_probes(words: Sequence[str]) -> tuple[str, ...]:
    """Return the probes that words name: kinds as they are, recipes by what they run.

    Args:
        words: Keys of `PROBE_KINDS` or `RECIPES`, or `module:function` of one's own.

    Raises:
        ConfigError: If there is no such probe.
    """
    found: list[str] = []
    for word in words:
        if word in PROBE_KINDS or names_own(word):
            found.append(word)
        elif word in RECIPES:
            found += RECIPES[word].probes
        else:
            raise ConfigError(
                "there is no such probe",
                found=word,
                expected=", ".join([*PROBE_KINDS, *RECIPES, "module:function"]),
                where="--probe",
            )
    return tuple(dict.fromkeys(found))


# --------------------------------------------------------------------------------------------- runs

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
    """Training of networks and heads by `--probe finetune` and by the protocols of papers.

    Args:
        epochs: Passes over the training split; 0 is 20 for finetune, else the protocol's value.
        batch: Images per step; 0 is 32 for finetune, else the protocol's value.
        rate: Learning rate of finetune's head (AdamW).
        factors: Learning rates of finetune's network relative to its head, separated by commas; the
            best on the validation split is used. 0 freezes the network in evaluation mode; 0.01 is
            SLCA's slow learner.
        weight_decay: Weight decay of finetune; norms, biases and token and position embeddings are
            exempt.
        layer_decay: Layer-wise decay of finetune's learning rate: the factor from each layer to the
            one below it; 1 turns it off.
        warmup: Share of finetune's steps with a linear warm-up.
        crop: Smallest share of the area kept by finetune's random crops; 1 turns cropping off.
        flips: Flip finetune's images at random, horizontally and vertically.
        faults: Reproduce known faults of a paper's protocol that its published numbers depend on.
            Such rows are marked and left out of tables.
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
    """Options of every benchmark run, whatever the kind of its task.

    Args:
        root: Folder of the data set.
        model: Models to score, separated by commas. Encoders: folders of exports, published names
            (softcon_vits14_s2, softcon_vits14_s2@torchgeo-zscore), torchgeo:ENUM.MEMBER, timm:NAME
            with --recipe, or module:function of your own; image-text models as
            openclip:ARCHITECTURE@WEIGHTS, with #CORPUS appended to name their training data.
            Controls: imagestats, rcf and rcf-zca (whole images), pixels and patchstats
            (segmentation), random, random:ARCHITECTURE, random:FOLDER. NAME=... sets the name in
            tables. Tasks with two sensors take ENCODER+ENCODER.
        controls: Score the controls of the task too.
        out: File to which results are appended, one JSON record per line; predictions are kept in a
            folder beside it. A name without a suffix is a folder, in which `results.jsonl` is
            written.
        cache: Folder of cached features; an empty name turns the cache off.
        bootstrap: Bootstrap resamples for the intervals.
        seed: Seed of random encoders and filters, and of the resampling.
        limit: Largest number of images per split, chosen by hash; it is recorded in the result.
        batch: Images per forward pass.
        device: Device of the networks; `auto` uses a GPU if there is one.
        recipe: YAML file with the input that timm: networks expect.
        force: Mismatches with the recipe to accept, separated by commas: sensor, missing-band. Such
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
    """Options of benchmark runs on labels of whole images.

    Args:
        probe: Probes, separated by commas. On frozen features: knn, knn20 (cosine, weighted), nmc
            (nearest class mean), linear, linear-refit, linear-c45-refit, linear-c1, linear-grid
            (layers, pooling and C), nmtune (a perceptron on features, for noisy pretraining
            labels). For openclip: models: text, text-unit (zero-shot by class names). Trained on
            augmented images: finetune, slca (finetune with the learning rates of that paper),
            dinov2-heads, ssl4eo-moco, ssl4eo-dino, ssl4eo-mae, softcon-linear, softcon-dino4,
            softcon-dino4-mean. Protocols of papers, as far as they can be run: corley2023,
            torchgeo-bench, dinov2, ssl4eo, softcon, slca, georsclip. Or a function of your own,
            `module:function` or `file.py:function` (`docs/contributing.md`).
        k: Number of neighbours of the kNN probe.
        shares: Label shares to score as well, separated by commas: `10` is the first 10 percent of
            the training labels by hash, `5-shot` the first 5 images per class, `100` all. The
            validation split stays whole, and features are computed once.
        draws: Number of subsets per label share; in each draw, smaller subsets are contained in
            larger ones.
        size: Other input sizes in pixels to score encoders at, separated by commas, or 32..256
            (steps of 32) or 32..256:16; rounded to whole patches. Such rows are marked and left out
            of tables of results; `bench plot` draws the curve.
        normalization: Other normalisations to score encoders with, separated by commas: zscore,
            two-sigma or minmax by statistics of the training split; divide10000 for Sentinel-2,
            divide255 for 8-bit images; `auto`: all that suit the images; `own`. Every size is
            combined with every normalisation, and such rows are marked as well.
        train: Settings of probes that train on images.
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
    """Options of benchmark runs on segmentation.

    Args:
        probe: Probes, separated by commas: linear (a linear layer on patch tokens), prompt
            (similarity to a prompt patch, within its image and across images; nothing is fitted).
        figure: PNG of the linear layer's scores per class; an empty name draws none.
        patches: Approximate number of training patches of the linear layer, spread evenly over
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
        """The entries of `probe`, each once: keys of `eofm.bench.config.DENSE_PROBES`."""
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


# ----------------------------------------------------------------- verbs that read records or plans


def _check_resampling(resamples: int, seed: int) -> None:
    if resamples < 1:
        raise ConfigError("bootstrap must be positive", found=resamples, where="--bootstrap")
    check_seed(seed)


@dataclass(frozen=True)
@checked_settings
class TableConfig:
    """Print the records of a file as tables.

    Args:
        results: File of records, or their folder, as `--out` of a benchmark run names it.
        task: Show this task only: a family (bigearthnet) or a full name (bigearthnet-v1-s1-43).
        probe: Show this probe only: knn, linear, ...
        nonstandard: Also show rows whose input was forced or varied; they are marked.
        slice: Score the test samples of each season, year or country separately, from the
            predictions beside the records. Dates are those in the product names.
        classes: Score each class separately, beside its frequency in the training split, with the
            rank correlation of the two and the rise of the score per tenfold frequency.
    """

    results: str = field(metadata={"positional": True})
    task: str = ""
    probe: str = ""
    nonstandard: bool = False
    slice: Literal["season", "year", "country"] | None = None
    classes: bool = False

    def __post_init__(self) -> None:
        if self.classes and self.slice is not None:
            raise ConfigError(
                "a table is of classes or of slices, not of both",
                found=f"--classes and --slice {self.slice}",
                remedy="leave one of them out",
            )


@dataclass(frozen=True)
@checked_settings
class RecordsExportConfig:
    """Write the records of a file as Markdown, CSV and one HTML page with figures.

    Args:
        results: File of records.
        out: Output folder. By default the name of the file without its suffix, or with `-report`
            appended if it has none.
        task: Export this task only: a family (bigearthnet) or a full name (bigearthnet-v1-s1-43).
        probe: Export this probe only: knn, linear, ...
        nonstandard: Also export rows whose input was forced or varied; they are marked.
        bootstrap: Number of resamples for the intervals of the classes.
        seed: Seed of the resampling.
    """

    results: str = field(metadata={"positional": True})
    out: str = ""
    task: str = ""
    probe: str = ""
    nonstandard: bool = False
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_resampling(self.bootstrap, self.seed)


@dataclass(frozen=True)
@checked_settings
class CompareConfig:
    """Compare two models on the same test samples, by paired bootstrap.

    Args:
        one: Name of a model in the records.
        other: Name of the model it is compared with.
        results: File of records.
        task: Compare on this task only: a family (bigearthnet) or a full name
            (bigearthnet-v1-s1-43).
        probe: Compare with this probe only: knn, linear, ...
        bootstrap: Number of resamples.
        seed: Seed of the resampling.
    """

    one: str = field(metadata={"positional": True})
    other: str = field(metadata={"positional": True})
    results: str = "runs/bench/results.jsonl"
    task: str = ""
    probe: str = ""
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_resampling(self.bootstrap, self.seed)
        if self.one == self.other:
            raise ConfigError("a model is compared with another one", found=self.one)


@dataclass(frozen=True)
@checked_settings
class AggregateConfig:
    """Aggregate scores over tasks: interquartile mean of normalised scores, with intervals.

    Args:
        results: Files of records, separated by commas, with two or more tasks in all.
        tasks: Tasks to aggregate, separated by commas, as families or full names; by default all.
        probe: Probe whose scores are aggregated: knn, linear, ...
        low: Score that is normalised to 0: the name of a model in the records, or the number 0.
        high: Score that is normalised to 1: the name of a model, or the number 1.
        bootstrap: Number of resamples.
        seed: Seed of the resampling.
    """

    results: str = field(metadata={"positional": True})
    tasks: str = ""
    probe: str = "knn"
    low: str = "imagestats"
    high: str = "1"
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_resampling(self.bootstrap, self.seed)


@dataclass(frozen=True)
@checked_settings
class ValidateConfig:
    """Check records against their predictions and declarations; status 1 if one fails.

    Args:
        results: File of records; predictions are in a folder beside it.
        task: Check the records of this task only: a family or a full name.
    """

    results: str = field(metadata={"positional": True})
    task: str = ""


@dataclass(frozen=True)
@checked_settings
class PlanConfig:
    """Show the steps from a task's images to a model's input, or why there are none.

    Args:
        task: Name of a task: a family (bigearthnet: what `eofm bench bigearthnet` runs) or a full
            name (bigearthnet-v1-s1-43).
        model: One encoder, as in `eofm bench eurosat --model`.
        recipe: YAML file with the input that a timm: network expects.
        force: Mismatches to accept, separated by commas: sensor, missing-band.
    """

    task: str = field(metadata={"positional": True})
    model: str = field(metadata={"positional": True})
    recipe: str | None = None
    force: str = ""

    def __post_init__(self) -> None:
        check_force(self.force)
