"""Settings of `eofm pretrain`, grouped by what they may change, and the demo's own defaults.

`data`, `model`, `method`, `augment` and `optim` change the result; `run` and `monitor` do not, and
`trainer` only by the batches per step and by rounding. `method` has the defaults of the paper's
authors; the other groups suit a small network from random weights, minutes on two CPU cores.
`configs/pretrain/` has the paper's setting. Choices that the SoftCon paper (arXiv 2405.20462)
leaves open stay selectable.

Without a store the command line trains the demo, whose settings are `DEMO`: a small network on the
embedded synthetic world, written and packed once, trains in minutes on two CPU cores. Heads of 4096
would cost more than that network. λ and size were chosen on the world of seed 1, epochs by the time
they take. `configs/pretrain/default.yaml` is that demo in full, with its scores.

Imported by the command line: standard library and YAML only, until the demo's world is made.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from eofm.errors import DataError, require
from eofm.formats.text import read_yaml, settings_files
from eofm.loading.config import AugmentConfig
from eofm.method.config import SoftConConfig
from eofm.settings import checked_settings

__all__ = [
    "DEMO",
    "LOGGERS",
    "MIN_SHARE",
    "AugmentConfig",
    "DataConfig",
    "ModelConfig",
    "MonitorConfig",
    "OptimConfig",
    "PretrainConfig",
    "ReportConfig",
    "RunConfig",
    "SoftConConfig",
    "TrainerConfig",
    "demo_defaults",
    "demo_path",
    "make_demo",
]


@dataclass(frozen=True)
@checked_settings
class DataConfig:
    """What to train on.

    Args:
        store: Packed store (`eofm pack ...`). Without one, a synthetic world is written and packed.
        world: Folder of the synthetic world and its store; made once, then used again.
        scenes: Locations in the synthetic world, four seasons each.
        size: Window size of the synthetic world in pixels at 10 m; a multiple of 12.
        sensor: Sensor of the synthetic world to train on.
        seed: Seed of the synthetic world and of the held-out split.
        holdout: Share of the locations kept out of training. One half of them is evaluated while it
            trains and chooses best.ckpt; the other is scored at the end. Of fewer than four all are
            used for both, and best.ckpt has the least loss.
        unlabelled: Leave unlabelled scenes out (`drop`), keep them in the hard term only, or give
            them the labels of the season of their place that is nearest in time (`inherit`; those
            without one are left out).
        views: The two views of a scene are two crops, or crops of two different seasons of its
            place (`seasons`: drawn again in every epoch; `fixed-seasons`: the same two;
            `independent-seasons`: each drawn on its own, so that they may be the same); a place
            seen once gives two crops. An epoch then has a step for every `optim.batch` places.
            The soft term compares the labels of the two seasons at hand. `nested`: the second view
            is a crop of the first, of a share `augment.nested_scale` of it. With `sensors` they are
            the optical and the radar image of a place, through two input layers and a shared trunk,
            in both directions: `store` is then the folder of `eofm pack ... --sensors`, with one
            store of each kind; labels and held-out places are those of the optical one.
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
    unlabelled: Literal["drop", "hard-only", "inherit"] = "drop"
    views: Literal[
        "crops", "nested", "seasons", "fixed-seasons", "independent-seasons", "sensors"
    ] = "crops"
    balance: Literal["none", "rarity"] = "none"
    replay: str | None = None
    replay_share: float = 0.0


@dataclass(frozen=True)
@checked_settings
class ModelConfig:
    """What to train, and what it expects.

    Args:
        architecture: `vits14`, `vitb14`, `resnet50`, ..., or `timm:` and the name of one of timm's
            networks. All but the ViTs need `method.mask_ratio` 0. `vits14-7blocks` is a ViT-S/14
            cut after its first 7 blocks, without a final norm.
        weights: Where training starts: a file (DINOv2, DINO, torchvision, timm; .pth or
            .safetensors), the folder of an earlier export, an address, or a name of `eofm models
            list`, such as dinov2_vits14. Without it, from random weights. Of two sensors
            (`data.views=sensors`) either weights for both or, joined by `+`, those of each:
            softcon_vits14_s2+softcon_vits14_s1; the second gives its input layer.
        continue_from: Checkpoint of an earlier stage, such as runs/first/checkpoints/constant.ckpt:
            student, teacher, heads and the optimizer's moments continue from there, with new data
            and a new schedule. The networks must be alike, and so must the bands.
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
    continue_from: str | None = None
    input_init: Literal["random", "rgb-matched", "rgb-nearest", "mean", "timm"] = "random"
    position: Literal["dinov2", "timm"] = "dinov2"
    size: int = 112
    pooling: Literal["auto", "cls", "mean"] = "auto"
    normalization: Literal["two-sigma", "zscore"] = "two-sigma"
    quantise: bool = True
    statistics: Literal["published", "store"] = "published"


@dataclass(frozen=True)
@checked_settings
class OptimConfig:
    """Optimisation.

    Args:
        epochs: Passes over the training scenes.
        batch: Scenes per step; every other scene of the batch is a negative.
        optimizer: `adamw`, or `sgd` with momentum 0.9, which ResNets are usually pretrained with.
        lr: Peak learning rate per 256 scenes: the rate used is lr * batch / 256.
        weight_decay: Not applied to what `decay` exempts.
        decay: What weight decay acts on: `matrices` exempts biases, norms, LayerScale, and CLS,
            register and position parameters; `dinov2` lets the last three decay.
        schedule: Course of the learning rate. `cosine` to `floor`; `rewarm`: the same, and a stage
            that continues another warms up from `floor` (arXiv 2308.04014); `infinite`: cools down
            to `constant`, stays, and anneals to `floor` at the end, and a stage that continues
            begins in the constant phase (arXiv 2503.02844); `wsd`: stays at the peak until the
            anneal (arXiv 2404.06395). With the last two a checkpoint constant.ckpt is kept from
            before the anneal, for `model.continue_from`, and the teacher's momentum rises from
            there on only.
        warmup: Share of the steps with a linear warm-up.
        floor: Last learning rate, as a share of the peak. More than 0 for an exponential anneal,
            and for `rewarm` to begin anywhere but at 0.
        cooldown: Share of the steps after which `infinite` has cooled down.
        constant: Constant rate of `infinite`, as a share of the peak.
        cooldown_shape: Way from the peak to the constant rate.
        anneal: Share of the steps, at the end, in which `infinite` and `wsd` anneal.
        anneal_shape: Way to the floor; `auto` is exponential for `infinite`, linear for `wsd`.
        clip: Largest gradient norm; 0 for any.
        freeze_epochs: Train only the input layer and the heads for so many epochs first.
        layer_decay: Factor on the learning rate from a layer to the one before it: 1 for none, 0.65
            to 0.9 to protect the early layers. An input layer that is drawn at random (input_init
            `random`, or no weights) is not slowed down; one with copied filters is.
        input_lr: Factor on the learning rate of the input layer, in place of that rule: 1 for full
            rate. Without it, the rule.
        seed: Of weights, order, views and masks.
    """

    epochs: int = 8
    batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.1
    decay: Literal["matrices", "dinov2"] = "matrices"
    schedule: Literal["cosine", "rewarm", "infinite", "wsd"] = "cosine"
    warmup: float = 0.1
    floor: float = 0.0
    cooldown: float = 0.3
    constant: float = 0.25
    cooldown_shape: Literal["cosine", "linear", "inverse-sqrt"] = "cosine"
    anneal: float = 0.2
    anneal_shape: Literal["auto", "exponential", "linear", "one-minus-sqrt", "cosine"] = "auto"
    clip: float = 3.0
    freeze_epochs: int = 0
    layer_decay: float = 1.0
    input_lr: float | None = None
    seed: int = 0


@dataclass(frozen=True)
@checked_settings
class TrainerConfig:
    """Processes, number format and memory. Only `accumulate` changes the objective.

    Args:
        devices: GPUs, or processes on CPUs, per machine. 0: as many as torchrun or srun started,
            else one. `optim.batch` is shared out among all processes: every scene of it is a
            negative, batch norms see all of it, and the scenes of a step are the same however many
            processes there are.
        num_nodes: Machines. More than one need torchrun or srun on each. 0: as many as those
            started.
        strategy: `ddp` keeps the whole network on each device; `fsdp` shards weights, gradients and
            the optimizer's moments, for networks that do not fit (FSDP2). `auto` is ddp.
        accelerator: `auto`, `cpu` or `gpu`.
        precision: Number format; `auto` is bf16-mixed on a GPU that has it and float32 elsewhere,
            but for a ViT of width 384 or more on a CPU with bfloat16 arithmetic: there the faster
            one is measured before the first step, and config.yaml keeps the choice. 16-mixed scales
            the loss, and needs a GPU.
        attention: `fused` computes it in one kernel, `plain` in two matrix products, which is
            faster on some CPUs at few tokens; they agree up to rounding. `auto` is measured where
            the precision is, and timm's choice elsewhere.
        tf32: Let a GPU round the factors of float32 matrix products to 10 bits. Those of the loss
            are rounded too.
        accumulate: Batches per optimizer step: gradients are averaged over so many, and the
            teacher moves once. Negatives stay within one batch, and batch norms too; see `chunk`
            for a large batch in little memory. The learning rate counts all of them.
        chunk: Images that run through the trunk at a time, with gradients recomputed chunk by
            chunk (as in GradCache, arXiv 2101.06983): the memory of one chunk's activations for
            the result of the whole batch, and a forward pass more. 0 for all at once.
    """

    devices: int = 0
    num_nodes: int = 0
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    attention: Literal["auto", "fused", "plain"] = "auto"
    tf32: bool = False
    accumulate: int = 1
    chunk: int = 0

    def __post_init__(self) -> None:
        for name, value, low in (
            ("devices", self.devices, 0),
            ("num_nodes", self.num_nodes, 0),
            ("accumulate", self.accumulate, 1),
            ("chunk", self.chunk, 0),
        ):
            require(value >= low, f"trainer.{name}", value, f"{low} or more")


@dataclass(frozen=True)
@checked_settings
class RunConfig:
    """How and where to run. Nothing here changes the result.

    Args:
        out: Run folder. Default: runs/pretrain-<date>-<time>.
        resume: Continue the run in `out` from its last checkpoint. `auto` continues it if it has
            begun, and starts it otherwise: one command for a job that is put back into the queue.
        threads: CPU threads; 0 leaves the choice to torch.
        readers: Threads that read batches ahead, each one batch.
        checkpoint_steps: Save a checkpoint after so many steps; 0 for never. There is one at the
            end of every epoch, and when the process is asked to stop (SIGTERM), in any case.
        checkpoint_minutes: Save one when so many minutes have passed since the last; 0 for never.
        checkpoint_keep: Keep the checkpoints of the last so many epochs; last.ckpt and best.ckpt
            are kept in any case. The best is by kNN on held-out scenes that are not scored at the
            end, else by the mean loss.
        figures: Draw figures at the end.
        dry_run: Train nothing and write nothing (`--dry-run`): say what would be trained on, steps,
            negatives, memory and time from a few measured steps, what is evaluated, and doubts.
        licence: Of the exported weights, an SPDX identifier; without it that of the data, where
            their data card states one, and otherwise none is stated.
    """

    out: str | None = None
    resume: bool | Literal["auto"] = False
    threads: int = 0
    readers: int = 2
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    checkpoint_keep: int = 0
    figures: bool = True
    dry_run: bool = False
    licence: str | None = None


LOGGERS: Final = ("tensorboard", "wandb")


@dataclass(frozen=True)
@checked_settings
class MonitorConfig:
    """What is measured on held-out scenes while it trains. Nothing here changes the result.

    Args:
        every_epochs: Evaluate the embeddings of held-out scenes after so many epochs (and before
            the first step); 0 for never.
        every_steps: Also after so many steps; 0 for never.
        dense: Also after steps 1, 2, 4, 8, ... up to this one, to see a stability gap.
        scenes: Held-out scenes to evaluate, and as many labelled training scenes beside them, whose
            nearest ones vote and to which the linear probe is fitted.
        branch: Which of the two networks is evaluated.
        store: A labelled store to evaluate instead of the held-out locations.
        before: A second labelled store, of what the start was good at: is it forgotten?
        loggers: Comma-separated, besides the files of the run: `tensorboard`, `wandb` (each needs
            the extra of its name).
        collapse_std: Stop if the spread of the embedding (1 fills the sphere, 0 is one point) stays
            below this; that of held-out scenes also at a tenth or less of what it was before the
            first step. 0 for never.
        collapse_steps: How many steps in a row, after the warm-up, count as staying.
    """

    every_epochs: int = 1
    every_steps: int = 0
    dense: int = 0
    scenes: int = 128
    branch: Literal["student", "teacher"] = "student"
    store: str | None = None
    before: str | None = None
    loggers: str = ""
    collapse_std: float = 0.02
    collapse_steps: int = 100

    def __post_init__(self) -> None:
        for name, value, low in (
            ("every_epochs", self.every_epochs, 0),
            ("every_steps", self.every_steps, 0),
            ("dense", self.dense, 0),
            ("scenes", self.scenes, 8),
            ("collapse_steps", self.collapse_steps, 1),
        ):
            require(value >= low, f"monitor.{name}", value, f"{low} or more")
        low_std, high_std = 0.0, 1.0
        require(
            low_std <= self.collapse_std < high_std,
            "monitor.collapse_std",
            self.collapse_std,
            "0 to below 1",
        )
        unknown = [word for word in self.writers if word not in LOGGERS]
        require(not unknown, "monitor.loggers", self.loggers, ", ".join(LOGGERS))

    @property
    def writers(self) -> tuple[str, ...]:
        """The loggers asked for, each once."""
        words = [word.strip() for word in self.loggers.split(",")]
        return tuple(dict.fromkeys(word for word in words if word))

    @property
    def evaluates(self) -> bool:
        """Whether embeddings are evaluated at all."""
        return bool(self.every_epochs or self.every_steps or self.dense)


# What numpy takes.
_LARGEST_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
@checked_settings
class PretrainConfig:
    """Continual pretraining by soft contrastive learning (SoftCon, arXiv 2405.20462)."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: SoftConConfig = field(default_factory=SoftConConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    @property
    def peak_lr(self) -> float:
        """The peak learning rate itself: `optim.lr` is that of 256 scenes per step."""
        return self.optim.lr * self.optim.batch * self.trainer.accumulate / 256

    @property
    def columns(self) -> int:
        """Images among which the own one is found: those of a batch and of the queue."""
        return self.optim.batch + self.method.queue

    @property
    def negatives(self) -> int:
        """Images from which a scene is told apart: all columns but its own."""
        return self.columns - 1

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("data.holdout", self.data.holdout, 0.0, 0.9),
            ("data.replay_share", self.data.replay_share, 0.0, 0.99),
            ("optim.warmup", self.optim.warmup, 0.0, 1.0),
            ("optim.floor", self.optim.floor, 0.0, 1.0),
            ("optim.constant", self.optim.constant, 0.0, 1.0),
            ("optim.cooldown", self.optim.cooldown, 0.0, 1.0),
            ("optim.anneal", self.optim.anneal, 0.001, 1.0),
            ("optim.layer_decay", self.optim.layer_decay, 0.01, 1.0),
            ("augment.brightness", self.augment.brightness, 0.0, 1.0),
            ("augment.contrast", self.augment.contrast, 0.0, 1.0),
            ("augment.colour_probability", self.augment.colour_probability, 0.0, 1.0),
            ("augment.gray_probability", self.augment.gray_probability, 0.0, 1.0),
            ("augment.rgb_probability", self.augment.rgb_probability, 0.0, 1.0),
            ("augment.blur_probability", self.augment.blur_probability, 0.0, 1.0),
        ):
            require(low <= value <= high, name, value, f"{low:g} to {high:g}")
        for name, value in (
            ("optim.epochs", self.optim.epochs),
            ("optim.lr", self.optim.lr),
            ("data.scenes", self.data.scenes),
            ("data.size", self.data.size),
            ("model.size", self.model.size),
            ("run.readers", self.run.readers),
        ):
            require(value > 0, name, value, "a positive number")
        self._check_schedule()
        require(
            self.optim.input_lr is None or self.optim.input_lr > 0,
            "optim.input_lr",
            self.optim.input_lr,
            "more than 0, or nothing",
        )
        require(
            0 <= self.optim.freeze_epochs < self.optim.epochs,
            "optim.freeze_epochs",
            self.optim.freeze_epochs,
            f"0 to {self.optim.epochs - 1}: fewer than optim.epochs",
        )
        require(
            (self.data.replay is None) == (self.data.replay_share == 0),
            "data.replay_share",
            self.data.replay_share,
            "more than 0 with a store in data.replay, and 0 without one",
        )
        for name, value in (
            ("run.checkpoint_steps", self.run.checkpoint_steps),
            ("run.checkpoint_minutes", self.run.checkpoint_minutes),
            ("run.checkpoint_keep", self.run.checkpoint_keep),
            ("optim.clip", self.optim.clip),
            ("optim.weight_decay", self.optim.weight_decay),
            ("run.threads", self.run.threads),
        ):
            require(value >= 0, name, value, ">= 0")
        for name, value in (("data.seed", self.data.seed), ("optim.seed", self.optim.seed)):
            require(0 <= value <= _LARGEST_SEED, name, value, f"0 to {_LARGEST_SEED}")
        require(self.optim.batch > 1, "optim.batch", self.optim.batch, "2 or more: negatives")
        self._check_objective()
        for name, (low, high) in (
            ("augment.scale", self.augment.scale),
            ("augment.nested_scale", self.augment.nested_scale),
        ):
            require(0 < low <= high <= 1, name, (low, high), "0 < low <= high <= 1")
        low, high = self.augment.blur_sigma
        require(0 <= low <= high, "augment.blur_sigma", (low, high), "0 <= low <= high")

    def _check_objective(self) -> None:
        method, sensors, batch = self.method, self.data.views == "sensors", self.optim.batch
        require(
            method.queue % batch == 0,
            "method.queue",
            method.queue,
            f"0, or a multiple of optim.batch ({batch})",
        )
        require(
            method.symmetric or not sensors,
            "method.symmetric",
            method.symmetric,
            "true with data.views=sensors: one direction would train one sensor's input layer only",
        )
        require(
            self.data.replay is None or not sensors,
            "data.replay",
            self.data.replay,
            "nothing with data.views=sensors",
        )
        require(
            self.augment.rgb_probability == 0 or not sensors,
            "augment.rgb_probability",
            self.augment.rgb_probability,
            "0 with data.views=sensors",
        )

    def _check_schedule(self) -> None:
        optim = self.optim
        require(
            optim.schedule not in ("infinite", "wsd")
            or optim.floor > 0
            or optim.anneal_shape not in ("auto", "exponential")
            or (optim.schedule, optim.anneal_shape) == ("wsd", "auto"),
            "optim.floor",
            optim.floor,
            "more than 0: an exponential never gets to 0 (0.1 is usual)",
        )
        require(
            optim.schedule != "infinite"
            or optim.warmup < optim.cooldown <= 1 - optim.anneal + 1e-9,
            "optim.cooldown",
            optim.cooldown,
            f"after the warm-up ({optim.warmup:g}) and before the anneal ({1 - optim.anneal:g})",
        )
        require(
            optim.schedule != "wsd" or optim.warmup <= 1 - optim.anneal + 1e-9,
            "optim.warmup",
            optim.warmup,
            f"before the anneal ({1 - optim.anneal:g})",
        )
        require(
            self.model.continue_from is None or self.model.weights is None,
            "model.continue_from",
            self.model.continue_from,
            "nothing where model.weights is given: one or the other says where training starts",
        )


@dataclass(frozen=True)
@checked_settings
class ReportConfig:
    """One page about a run, or about several beside one another.

    Args:
        runs: Folders of runs: finished, in progress, or dead.
        out: HTML file to write; without it, report.html in the folder of the first run, or
            comparison.html where there are several.
        store: Where the packed store is now, if not where the run found it.
        scenes: Held-out scenes to show, and as many training scenes as neighbours.
    """

    runs: list[str] = field(metadata={"positional": "+"})
    out: str | None = None
    store: str | None = None
    scenes: int = 256

    def __post_init__(self) -> None:
        require(self.scenes >= 16, "scenes", self.scenes, "16 or more")


# --------------------------------------------------------------------------------------------- demo

# A class counts as present from 1 % of the map on: any single pixel would make "trees" a label of
# nearly every scene.
MIN_SHARE: Final = 0.01


def demo_path(config: DataConfig) -> Path:
    """Return where the packed store of the synthetic world lies, once it is made."""
    return Path(config.world) / (
        "stores" if config.views == "sensors" else f"store-{config.sensor}"
    )


def make_demo(config: DataConfig) -> None:
    """Write and pack the synthetic world if it is not there: one sensor, or both beside another.

    Writing and packing both resume where a killed run left off, and an existing world with other
    settings is an error.

    Raises:
        ConfigError: If the folder holds another world.
        StoreError: If the store cannot be written or read.
    """
    from eofm.datasets.ssl4eo import PackSsl4eoConfig
    from eofm.datasets.ssl4eo.pack import pack_ssl4eo
    from eofm.world.config import WorldConfig
    from eofm.world.files import write_world

    root = Path(config.world)
    scenes = root / "scenes"
    print(f"synthetic world in {root}: made once, used again", file=sys.stderr)  # noqa: T201
    write_world(
        WorldConfig(out=str(scenes), scenes=config.scenes, seed=config.seed, size=config.size)
    )
    both = config.views == "sensors"
    pack_ssl4eo(
        PackSsl4eoConfig(
            root=str(scenes),
            sensor=None if both else config.sensor,
            sensors="s2-l1c,s1-grd" if both else None,
            landcover=str(scenes / "dw"),
            scheme="dynamic-world",
            threshold=MIN_SHARE,
            out=str(demo_path(config)),
        )
    )


# Of so few labelled places the soft term has more to say than the hard one: λ 4 in units of equal
# gradients. 16 patches instead of 64 give twice as many steps in the same time.
DEMO: Final = PretrainConfig(
    model=ModelConfig(size=56),
    method=SoftConConfig(soft_weight=4.0, mask_ratio=0.5, hidden=512, dim=128),
    optim=OptimConfig(epochs=18),
)


def demo_defaults(words: Sequence[str]) -> Mapping[str, object]:
    """Return by option what the demo has instead of the defaults; nothing where a store is named.

    Args:
        words: Words of the command line after the verb.
    """
    if any(word.startswith(("--data.store", "--data=")) or word == "--data" for word in words):
        return {}
    if any(_names_a_store(Path(file)) for file in settings_files(words)):
        return {}
    usual, demo = asdict(PretrainConfig()), asdict(DEMO)
    return {
        f"{group}.{key}": value.value if isinstance(value, StrEnum) else value
        for group, values in demo.items()
        for key, value in values.items()
        if value != usual[group][key]
    }


def _names_a_store(file: Path) -> bool:
    """Whether a settings file says what to train on; the parser tells what is wrong with it."""
    try:
        content = read_yaml(file)
    except DataError:
        return False
    data = content.get("data") if isinstance(content, dict) else None
    return isinstance(data, dict) and data.get("store") is not None
