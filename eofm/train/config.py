"""Settings of `eofm pretrain`, grouped by what they may change. Standard library only.

`data`, `model`, `method`, `augment` and `optim` change the result; `run` does not. The defaults are
those of the demo: a small network from random weights, minutes on two CPU cores. They were chosen
by the linear probe on held-out synthetic scenes; `configs/pretrain/` has the paper's setting.
Choices and defaults that the SoftCon paper (arXiv 2405.20462) leaves open stay selectable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from eofm.errors import ConfigError


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Args:
        store: Packed store (`eofm pack ...`). Without one, a synthetic world is written and packed.
        world: Folder of the synthetic world and its store; made once, then used again.
        scenes: Locations in the synthetic world, four seasons each.
        size: Window size of the synthetic world in pixels at 10 m; a multiple of 12.
        sensor: Sensor of the synthetic world to train on.
        seed: Seed of the synthetic world and of the held-out split.
        holdout: Share of the locations kept out of training for the linear probe.
        unlabelled: Leave unlabelled scenes out (`drop`), or keep them in the hard term only.
        views: The two views of a scene are two crops, or crops of two different seasons of its
            place (`seasons`: drawn anew in every epoch; `fixed-seasons`: the same two); a place
            seen once gives two crops. An epoch then has a step for every `optim.batch` places.
            The soft term compares the labels of the two seasons at hand.
        balance: `rarity` takes scenes with rare classes more often, and the others less, in
            proportion to the largest max(1, sqrt(0.1 / f)) of a scene's classes, f being the share
            of the labelled scenes that show a class (LVIS, arXiv 1908.03195). Epochs stay as long.
        replay: A second store of the same kind of pixel, seen before, to be seen again: with the
            same classes, or without labels. Its scenes at held-out places are left out.
        replay_share: Share of every batch that comes from `replay`.
    """

    store: str | None = None
    world: str = "worlds/demo"
    scenes: int = 500
    size: int = 120
    sensor: Literal["s2-l1c", "s1-grd"] = "s2-l1c"
    seed: int = 0
    holdout: float = 0.2
    unlabelled: Literal["drop", "hard-only"] = "drop"
    views: Literal["crops", "seasons", "fixed-seasons"] = "crops"
    balance: Literal["none", "rarity"] = "none"
    replay: str | None = None
    replay_share: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """What to train, and what it eats.

    Args:
        architecture: `vits14`, `vitb14`, `resnet50`, ..., or `timm:` and the name of one of timm's
            networks. All but the ViTs need `method.mask_ratio` 0.
        weights: Where training starts: a file (DINOv2, DINO, torchvision, timm; .pth or
            .safetensors), the folder of an earlier export, an address, or a name of `eofm models
            list`, such as dinov2_vits14. Without it, from random weights.
        input_init: How the input layer is made from RGB weights. `random` is the paper's choice;
            `rgb-matched` copies the colours to their bands and `rgb-nearest` also to the bands next
            to them; `mean` copies gray to all; `timm` cycles the colours.
        position: How the position embedding of DINOv2's ViTs is interpolated to the working grid.
        size: Input size in pixels; a multiple of the patch size.
        pooling: Which output becomes the embedding. `auto` is the CLS token, or the mean where
            there is none, as in a ResNet.
        normalization: `two-sigma` maps mean ± 2 std to [0, 1] as SoftCon's README does.
        quantise: Keep the 8-bit rounding of that README.
        statistics: `published` constants of the sensor, or those of the `store`'s training split.
    """

    architecture: str = "vit-tiny-14"
    weights: str | None = None
    input_init: Literal["random", "rgb-matched", "rgb-nearest", "mean", "timm"] = "random"
    position: Literal["dinov2", "timm"] = "dinov2"
    size: int = 112
    pooling: Literal["auto", "cls", "mean"] = "auto"
    normalization: Literal["two-sigma", "zscore"] = "two-sigma"
    quantise: bool = True
    statistics: Literal["published", "store"] = "published"


@dataclass(frozen=True)
class MethodConfig:
    """The SoftCon objective: hard InfoNCE term plus soft multi-label term.

    Args:
        tau: Temperature of the hard term.
        soft_tau: Temperature of the soft term.
        soft_weight: Weight λ of the soft term; 0 leaves MoCo-v3.
        soft_form: Binary cross entropy, cross entropy, or mean squared error.
        similarity: Similarity of two multi-label vectors.
        mask_ratio: Share of the student's tokens that are dropped; 0 for networks without tokens.
        symmetric: Use both directions (student of view 1 with teacher of view 2, and back).
        momentum: Teacher momentum at the start; a cosine takes it to 1.
        hidden: Hidden width of projector and predictor.
        dim: Width of the contrastive embedding.
        head_norm: Normalisation inside the heads.
    """

    tau: float = 0.2
    soft_tau: float = 0.2
    soft_weight: float = 10.0
    soft_form: Literal["bce", "ce", "mse"] = "bce"
    similarity: Literal["cosine", "jaccard"] = "cosine"
    mask_ratio: float = 0.5
    symmetric: bool = True
    momentum: float = 0.99
    hidden: int = 512
    dim: int = 128
    head_norm: Literal["bn", "ln", "none"] = "bn"


@dataclass(frozen=True)
class AugmentConfig:
    """The two random views of a scene; parameters are drawn per sample.

    Args:
        scale: Smallest and largest share of the area a random resized crop keeps.
        flips: Horizontal and vertical flips. For Sentinel-1 they alter the look direction.
        brightness: Largest additive change, in normalised units.
        contrast: Largest relative change.
        colour_probability: Probability of brightness and of contrast. Not used for Sentinel-1.
        gray_probability: Probability that all bands become their mean. Not used for Sentinel-1.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur in pixels.
        engine: `fused` makes kornia's draws by two matrix products per sample; `kornia` is the
            slower reference it agrees with.
    """

    scale: tuple[float, float] = (0.4, 1.0)
    flips: bool = True
    brightness: float = 0.1
    contrast: float = 0.2
    colour_probability: float = 0.8
    gray_probability: float = 0.0
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    engine: Literal["fused", "kornia"] = "fused"


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation.

    Args:
        epochs: Passes over the training scenes.
        batch: Scenes per step; every other scene of the batch is a negative.
        optimizer: `adamw`, or `sgd` with momentum 0.9, which ResNets are usually pretrained with.
        lr: Peak learning rate per 256 scenes: the rate used is lr * batch / 256.
        weight_decay: Not applied to biases, norms, LayerScale, CLS and position parameters.
        warmup: Share of the steps with a linear warm-up.
        clip: Largest gradient norm; 0 for any.
        freeze_epochs: Train only the input layer and the heads for so many epochs first.
        layer_decay: Factor on the learning rate from a layer to the one before it: 1 for none, 0.65
            to 0.9 to protect the early layers. An input layer that is new is not slowed down.
        seed: Of weights, order, views and masks.
    """

    epochs: int = 8
    batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip: float = 3.0
    freeze_epochs: int = 0
    layer_decay: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class RunConfig:
    """How and where to run. Nothing here changes the result.

    Args:
        out: Run folder. Default: runs/pretrain-<date>-<time>.
        resume: Continue the run in `out` from its last checkpoint.
        precision: Number format; `auto` is bf16-mixed on a GPU that has it and float32 elsewhere.
        accelerator: `auto`, `cpu` or `gpu`.
        threads: CPU threads; 0 leaves the choice to torch.
        readers: Threads that read batches ahead, each one batch.
        checkpoint_steps: Save a checkpoint after so many steps; 0 for never. There is one at the
            end of every epoch, and when the process is asked to stop (SIGTERM), in any case.
        checkpoint_minutes: Save one when so many minutes have passed since the last; 0 for never.
        figures: Draw figures at the end.
    """

    out: str | None = None
    resume: bool = False
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    threads: int = 0
    readers: int = 2
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    figures: bool = True


@dataclass(frozen=True)
class PretrainConfig:
    """Continual pretraining by soft contrastive learning (SoftCon, arXiv 2405.20462)."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("data.holdout", self.data.holdout, 0.0, 0.9),
            ("data.replay_share", self.data.replay_share, 0.0, 0.99),
            ("method.mask_ratio", self.method.mask_ratio, 0.0, 0.99),
            ("method.momentum", self.method.momentum, 0.0, 1.0),
            ("optim.warmup", self.optim.warmup, 0.0, 1.0),
            ("optim.layer_decay", self.optim.layer_decay, 0.01, 1.0),
            ("augment.colour_probability", self.augment.colour_probability, 0.0, 1.0),
            ("augment.gray_probability", self.augment.gray_probability, 0.0, 1.0),
            ("augment.blur_probability", self.augment.blur_probability, 0.0, 1.0),
        ):
            _require(low <= value <= high, name, value, f"{low:g} to {high:g}")
        for name, value in (
            ("optim.epochs", self.optim.epochs),
            ("optim.lr", self.optim.lr),
            ("method.tau", self.method.tau),
            ("method.soft_tau", self.method.soft_tau),
            ("data.scenes", self.data.scenes),
            ("model.size", self.model.size),
            ("run.readers", self.run.readers),
        ):
            _require(value > 0, name, value, "a positive number")
        _require(
            0 <= self.optim.freeze_epochs < self.optim.epochs,
            "optim.freeze_epochs",
            self.optim.freeze_epochs,
            f"0 to {self.optim.epochs - 1}: fewer than optim.epochs",
        )
        _require(
            (self.data.replay is None) == (self.data.replay_share == 0),
            "data.replay_share",
            self.data.replay_share,
            "more than 0 with a store in data.replay, and 0 without one",
        )
        for name, value in (
            ("run.checkpoint_steps", self.run.checkpoint_steps),
            ("run.checkpoint_minutes", self.run.checkpoint_minutes),
        ):
            _require(value >= 0, name, value, ">= 0")
        _require(self.optim.clip >= 0, "optim.clip", self.optim.clip, ">= 0")
        _require(self.optim.batch > 1, "optim.batch", self.optim.batch, "2 or more: negatives")
        _require(
            self.method.soft_weight >= 0, "method.soft_weight", self.method.soft_weight, ">= 0"
        )
        low, high = self.augment.scale
        _require(0 < low <= high <= 1, "augment.scale", self.augment.scale, "0 < low <= high <= 1")


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is out of range", found=found, expected=expected, where=name)


FORMATS: Final = ("safetensors", "pt2", "onnx")


@dataclass(frozen=True)
class ExportConfig:
    """Something that holds an encoder becomes a folder that `eofm.load_encoder` reads.

    Args:
        source: Checkpoint of a run, such as runs/mine/checkpoints/last.ckpt; the folder of an
            export; or the name of published weights (`eofm models list`).
        to: Folder to write weights.safetensors, card.json, preprocess.json and README.md into.
        branch: Of a checkpoint, which of the two networks; the student if not said. After a short
            run the student is ahead (measured on the demo); after a long one the teacher, a moving
            average, may be: both can be had.
        formats: Comma-separated. `safetensors` is always written; `pt2` (torch.export) and `onnx`
            (needs the extra `onnx`) add programs that run without eofm, compared with the network.
        takes: What the programs take: `normalised` pixels, or `physical` ones in the recipe's
            unit, at its size, with the normalisation inside the program.
    """

    source: str = field(metadata={"positional": True})
    to: str
    branch: Literal["student", "teacher"] | None = None
    formats: str = "safetensors"
    takes: Literal["normalised", "physical"] = "normalised"

    def __post_init__(self) -> None:
        unknown = [word for word in self.formats.split(",") if word.strip() not in FORMATS]
        _require(not unknown, "formats", self.formats, ", ".join(FORMATS))
        _require(
            self.branch is None or self.source.endswith(".ckpt"),
            "branch",
            self.branch,
            "nothing: only the checkpoint of a run has two networks",
        )

    @property
    def programs(self) -> tuple[str, ...]:
        """The formats that are programs, each once."""
        words = [word.strip() for word in self.formats.split(",")]
        return tuple(dict.fromkeys(word for word in words if word != "safetensors"))
