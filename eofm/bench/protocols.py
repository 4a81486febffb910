"""Probes by name, and the recipes of papers as declarations. Standard library only.

A published score belongs to a recipe: split, subset, augmentation, optimiser, definition of the
metric, and its faults. Here each is written down. `--probe <recipe>` runs what of it can be run, on
frozen features or on augmented images (`eofm.bench.finetune.trainings`); what nobody published is
named as missing, in the record too, instead of being imitated. `--train.faults true` repeats those
faults that are part of a paper's numbers.

`--recipe` is something else: the file that says what a network of timm expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eofm.errors import ConfigError
from eofm.io import names_own

# What `eofm.bench.probes.KINDS`, `eofm.bench.zero_shot.texts.TEXT_KINDS` and
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
