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
    """Training data.

    Args:
        store: Packed store (`eofm pack ...`). Without one, a synthetic world is written and packed.
        world: Folder of the synthetic world and its store; written once and reused.
        scenes: Locations in the synthetic world, four seasons each.
        size: Window size of the synthetic world in pixels at 10 m; a multiple of 12.
        sensor: Sensor of the synthetic world to train on.
        seed: Seed of the synthetic world and of the held-out split.
        holdout: Share of the locations kept out of training. Half of them are evaluated during
            training and select best.ckpt; the other half is scored at the end. With fewer than four
            held-out locations, all of them serve both purposes, and best.ckpt is the checkpoint
            with the lowest loss.
        unlabelled: What happens to unlabelled scenes: `drop` leaves them out; `hard-only` uses them
            in the hard term only; `inherit` gives them the labels of the nearest date at the same
            place, and leaves out scenes without one.
        views: Where the two views of a scene come from. `crops`: two random crops. `seasons`: crops
            of two different dates of its place, drawn anew in every epoch; `fixed-seasons`: always
            the same two dates; `independent-seasons`: two independent draws, which may coincide. A
            place with one date gives two crops, an epoch covers every place once, and the soft term
            compares the labels of the two dates. `nested`: the second view is a crop of the first
            (`augment.nested_scale`). `sensors`: the optical and the radar image of a place, with
            an input layer for each and a shared trunk, in both directions; `store` is then the
            folder written by `eofm pack ... --sensors`, and labels and held-out places are those of
            the optical store.
        balance: `rarity` samples scenes with rare classes more often, in proportion to the largest
            max(1, sqrt(0.1 / f)) over a scene's classes, where f is the share of labelled scenes
            with that class (LVIS, arXiv 1908.03195). The length of an epoch does not change.
        replay: Store of earlier training data to mix in: the same sensor, bands and unit, with the
            same classes or without labels. Scenes at held-out places are left out.
        replay_share: Share of every batch taken from `replay`.
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
    """The network to train, and the input it expects.

    Args:
        architecture: `vits14`, `vitb14`, `resnet50`, ..., or `timm:NAME` for a network of timm.
            Only ViTs can be masked; others need `method.mask_ratio` 0. `vits14-7blocks` is the
            first 7 blocks of a ViT-S/14, without a final norm.
        weights: Initial weights: a file (DINOv2, DINO, torchvision, timm; .pth or .safetensors),
            the folder of an export, a URL, or a name from `eofm models list`, such as
            dinov2_vits14. Without it, the network is initialised at random. For two sensors
            (`data.views=sensors`): weights for both, or those of each joined by `+`
            (softcon_vits14_s2+softcon_vits14_s1; of the second only the input layer is used).
        continue_from: Checkpoint of an earlier stage, such as runs/first/checkpoints/constant.ckpt.
            Student, teacher, heads and optimizer moments continue from it, with new data and a new
            schedule. Architecture and bands must be the same.
        input_init: How the input layer is derived from RGB weights. `rgb-nearest` copies each
            colour filter to the bands nearest in wavelength, `rgb-matched` to B04, B03 and B02
            only (other bands start at zero), `mean` copies their mean to every band (as the first
            two do for radar), `timm` repeats them in turn. `random` draws a new layer, the paper's
            choice for long runs; after 120 steps on real tiles it retrieved 18 points worse.
        position: How the position embeddings of DINOv2's ViTs are interpolated to the token grid.
        size: Input size in pixels; a multiple of the patch size.
        pooling: Which output is the embedding. `auto`: the CLS token, or the mean of all positions
            for networks without one, such as ResNets.
        normalization: `two-sigma` maps mean ± 2 std to [0, 1], as in SoftCon's README; `zscore`
            subtracts the mean and divides by the standard deviation.
        quantise: Round normalised values to 8 bits, as that README does.
        statistics: Constants for normalisation: `published` for the sensor, or computed from the
            training split of the `store`.
    """

    architecture: str = "vit-tiny-14"
    weights: str | None = None
    continue_from: str | None = None
    input_init: Literal["random", "rgb-matched", "rgb-nearest", "mean", "timm"] = "rgb-nearest"
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
        lr: Peak learning rate for a batch of 256; it is scaled linearly to lr * batch / 256.
        weight_decay: Weight decay of the parameters that `decay` does not exempt.
        decay: Which parameters weight decay applies to: `matrices` exempts biases, norms,
            LayerScale, and the CLS, register and position embeddings; `dinov2` does not exempt the
            last three.
        schedule: Learning-rate schedule. `cosine`: cosine decay to `floor`. `rewarm`: the same, and
            a stage that continues another warms up from `floor` (arXiv 2308.04014). `infinite`:
            cool down to `constant`, hold, and anneal to `floor` at the end; a stage that continues
            another starts in the constant phase (arXiv 2503.02844). `wsd`: hold the peak until the
            anneal (arXiv 2404.06395). The last two keep a checkpoint constant.ckpt from before the
            anneal, for `model.continue_from`, and raise the teacher's momentum during the anneal
            only.
        warmup: Share of the steps with a linear warm-up.
        floor: Final learning rate as a share of the peak. An exponential anneal needs a value above
            0; with `rewarm`, a later stage warms up from it.
        cooldown: Share of the steps at which the cooldown of `infinite` ends.
        constant: Constant learning rate of `infinite`, as a share of the peak.
        cooldown_shape: Shape of the decay from the peak to the constant rate.
        anneal: Share of the steps, at the end, over which `infinite` and `wsd` anneal.
        anneal_shape: Shape of the anneal; `auto` is exponential for `infinite`, linear for `wsd`.
        clip: Gradients are clipped to this norm; 0 turns clipping off.
        freeze_epochs: Epochs at the start in which only the input layer and the heads are trained.
        layer_decay: Layer-wise decay of the learning rate: the factor from each layer to the one
            below it. 1 turns it off; 0.65 to 0.9 protects early layers. It applies to an input
            layer with copied filters, not to one drawn at random.
        input_lr: Learning rate of the input layer as a share of `lr`, instead of the factor that
            `layer_decay` gives it.
        seed: Seed of weights, sampling order, views and masks.
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
        devices: GPUs (or CPU processes) per machine; 0 takes the number started by torchrun or
            srun, else one. `optim.batch` is the global batch: it is split among all processes,
            negatives and batch-norm statistics come from all of it, and its scenes do not depend on
            the number of processes.
        num_nodes: Machines. More than one requires torchrun or srun on each; 0 takes the number
            they started.
        strategy: `ddp` replicates the network on every device; `fsdp` (FSDP2) shards weights,
            gradients and optimizer state, for networks that do not fit. `auto` is ddp.
        accelerator: `auto`, `cpu` or `gpu`.
        precision: Number format. `auto`: bf16-mixed on a GPU that supports it, else float32; for a
            ViT of width 384 or more on a CPU with bfloat16 arithmetic, the faster of the two as
            measured before the first step (recorded in config.yaml). 16-mixed scales the loss and
            needs a GPU.
        attention: `fused` uses one kernel, `plain` two matrix products, which is faster on some
            CPUs with few tokens; results agree up to rounding. `auto` measures whenever precision
            is measured, and otherwise follows timm.
        tf32: Allow TF32 matrix products on a GPU, in the loss too.
        accumulate: Batches per optimizer step. Gradients are averaged over them and the teacher is
            updated once; negatives and batch-norm statistics stay within a batch (see `chunk` for
            a large batch in little memory). The learning rate is scaled by the total batch.
        chunk: Images passed through the trunk at a time, with gradients recomputed chunk by chunk
            (GradCache, arXiv 2101.06983): the result of the whole batch with the activation memory
            of one chunk, for one more forward pass. 0 processes the batch at once.
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
    """How and where to run. None of these settings changes the result.

    Args:
        out: Run folder; by default runs/pretrain-<date>-<time>.
        resume: Resume the run in `out` from its last checkpoint. `auto` resumes it if it exists and
            starts it otherwise, which suits jobs that are requeued.
        threads: CPU threads; 0 leaves the choice to torch.
        readers: Threads that prefetch batches, one batch each.
        checkpoint_steps: Steps between checkpoints; 0 for none. A checkpoint is always written at
            the end of an epoch and when the process is told to stop (SIGTERM, Ctrl-C).
        checkpoint_minutes: Minutes between checkpoints; 0 for none.
        checkpoint_keep: Number of epochs whose checkpoints are kept, besides last.ckpt and
            best.ckpt. The best has the highest kNN score on the held-out scenes that are not scored
            at the end, or the lowest mean loss if there are none.
        figures: Draw figures at the end.
        dry_run: Train and write nothing (`--dry-run`). Report the training data, steps, negatives,
            memory and time (from a few measured steps), what is evaluated, and warnings.
        licence: Licence of the exported weights (SPDX identifier). By default that of the training
            data, if their data card states one.
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
    """Evaluation on held-out scenes during training. None of these settings changes the result.

    Args:
        every_epochs: Epochs between evaluations of the held-out scenes' embeddings, which are also
            evaluated before the first step; 0 turns evaluation off.
        every_steps: Steps between further evaluations; 0 for none.
        dense: Evaluate also after steps 1, 2, 4, 8, ... up to this one, to show a stability gap.
        scenes: Number of held-out scenes to evaluate. As many labelled training scenes are the
            neighbours of the kNN probe and the training set of the linear probe.
        branch: Network to evaluate, student or teacher.
        store: Labelled store to evaluate instead of the held-out locations.
        before: Second labelled store, of an earlier domain, to measure forgetting.
        loggers: Loggers besides the files of the run, separated by commas: `tensorboard`, `wandb`
            (each needs the extra of that name).
        collapse_std: Stop if the spread of the embeddings (1 covers the sphere, 0 is one point)
            stays below this value; for held-out scenes, also if it stays at a tenth or less of its
            value before the first step. 0 turns this off.
        collapse_steps: Consecutive steps below that value, after the warm-up, that stop the run.
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
    def colour_note(self) -> str:
        """A note on the share of scenes that are seen in RGB only; empty if it is 0."""
        share = self.augment.rgb_probability
        return f", {share:.3g} of the scenes seen in red, green and blue alone" if share else ""

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
