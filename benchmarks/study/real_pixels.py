"""What continual pretraining adds on real pixels, over its own start and over controls.

    python benchmarks/study/real_pixels.py            # trains what is not recorded yet, arm by arm
    python benchmarks/study/real_pixels.py --draw     # page and figures from the records
    python benchmarks/study/real_pixels.py --quick --out DIR     # a miniature: two arms, one fold

A real transformer (EOFM_REAL_WEIGHTS, its first 7 blocks, mean of the patch tokens) is pretrained
further on the 270 EuroSAT tiles of EOFM_REAL_DATA in five folds: on four fifths without their
classes, of which labels tell a coarse group at most; then probes on those four fifths are asked
for the classes of the last fifth. Training is eofm's own: its `prepare`, its `PretrainModule`. A
run that is recorded is not made again. The records are `study_real_pixels.jsonl`, the page is
`study_real_pixels.md` (`real_pixels_page.py`), scores are made by `real_pixels_scores.py`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import lightning as L
import numpy as np
import torch
from fitting import fit
from real_pixels_scores import (
    PRIMARY,
    Rows,
    average_precision,
    discriminant,
    rank,
    score,
    standardised,
    with_discriminant,
)
from real_pixels_tiles import BATCH, FOLDS, INNER, Tiles
from records import append_record, read_records, recorded, study_parser
from torch import Tensor

import eofm
from eofm.bench.controls import gaussian_control, image_statistics
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import Waiver
from eofm.datasets.eurosat import SPEC
from eofm.datasets.images.chips import read_batches
from eofm.method.config import SoftConConfig
from eofm.train.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
    TrainerConfig,
)
from eofm.train.datamodule import StoreDataModule
from eofm.train.distributed import ProcessPlace
from eofm.train.module import PretrainModule
from eofm.train.run import prepare
from eofm.train.trainer import cpu_has_bf16, use_attention

WEIGHTS: Final = (
    Path(os.environ.get("EOFM_REAL_WEIGHTS", "../shared/weights"))
    / "natural_images_vits14.safetensors"
)
STUDY: Final = "study_real_pixels"  # of records, page and figures
SEEDS: Final = (0, 1, 2)
STEPS: Final = 120  # optimiser steps: 30 passes over 216 tiles, 60 over the labelled half
# Peak rates per 256 to choose from, by objective, on an inner fold: the training tiles of fold 0,
# three quarters of them to train on. The second one a pretrained ViT-S/14 survived (collapse.md).
RATES: Final = (1.5e-4, 5e-4, 1.5e-3, 4.5e-3)
CURVE: Final = (4, 12, 24, 48, 84)  # steps after which held-out tiles are evaluated


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Args:
        name: Of the line.
        options: What differs from `BASE`: option of `eofm pretrain` -> value; of epochs there are
            as many as `STEPS` need.
        half: Only half of the training tiles have labels.
        start: The line it is compared with: what its network scores before the first step.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    half: bool = False
    start: str = "start"


# One direction, as in the paper's figure: half the time of both. The layer decay is the one that a
# pretrained ViT-S/14 kept its rank with (collapse.md). Heads are small, as the data are; what is
# not named is the default of `SoftConConfig`: bce, gradients of both terms matched, mask 0.7.
BASE: Final = PretrainConfig(
    data=DataConfig(holdout=0.0),
    model=ModelConfig(
        architecture="vits14-7blocks",
        weights=str(WEIGHTS),
        input_init="rgb-nearest",
        size=56,
        pooling="mean",
    ),
    method=SoftConConfig(hidden=512, dim=128, symmetric=False),
    optim=OptimConfig(batch=BATCH, layer_decay=0.75),
    trainer=TrainerConfig(
        accelerator="cpu",
        precision="bf16-mixed" if cpu_has_bf16() else "32-true",
        attention="plain",  # at 5 to 17 tokens
    ),
    run=RunConfig(readers=1),
)

_HARD: Final = {"method.objective": "moco"}
_BCE: Final = {"method.objective": "multilabel"}
_KEEP: Final = {"data.unlabelled": "hard-only"}
_RANDOM_INPUT: Final = {"model.input_init": "random"}
_SCRATCH: Final = {"model.weights": None}

# With a line for the same labels and steps, and one that sees no labels at all.
ARMS: Final = (
    Arm("hard only", _HARD),
    Arm("softcon, λ = 1"),
    Arm("multi-label BCE", _BCE),
    Arm("shuffled labels", {"method.objective": "shuffled"}),
    Arm("soft only", {"method.objective": "soft"}),
    Arm("softcon, λ = 3", {"method.soft_weight": 3.0}),
    Arm("softcon, λ = 1/3", {"method.soft_weight": 1 / 3}),
    Arm("softcon, half labelled", _KEEP, half=True),
    Arm("multi-label BCE, half labelled", _BCE, half=True),
)
VARIANTS: Final = (
    Arm("softcon, mask 0", {"method.mask_ratio": 0.0}),
    Arm("softcon, random input layer", _RANDOM_INPUT, start="start, random input layer"),
    Arm("softcon, input layer at full rate", {"optim.input_lr": 1.0}),
    Arm("softcon, no layer decay", {"optim.layer_decay": 1.0}),
    Arm("softcon, frozen for 24 steps", {"optim.freeze_epochs": 6}),
    Arm("hard only, mask 0", {**_HARD, "method.mask_ratio": 0.0}),
    Arm("softcon from random weights", _SCRATCH, start="random weights"),
)
# Not trained: option of the network, or statistics; and labels used on frozen features.
STARTS: Final = {
    "start": {},
    "start, random input layer": _RANDOM_INPUT,
    "random weights": _SCRATCH,
}
STATISTICS: Final = "52 image statistics"
CONVOLUTIONS: Final = "rcf, 256 random convolutions"
LDA: Final = ("start", "hard only")  # whose features get the axes of an LDA of the same labels
LDA_FORMS: Final = ("{}, LDA alone", "{} + LDA", "{} + LDA, half labelled")


def chosen_rate(records: Sequence[Mapping[str, Any]], objective: str) -> float:
    """Return the rate with the best mean of both primary measures on the inner fold."""
    found = {rate: inner_score(records, objective, rate) for rate in RATES}
    return max(found, key=found.__getitem__)


def inner_score(records: Sequence[Mapping[str, Any]], objective: str, rate: float) -> float:
    """Return the mean of both primary measures on the inner fold; NaN where it was not run."""
    for row in records:
        if row["arm"] == inner_name(objective, rate):
            return float(np.mean([np.mean(row["scores"][name]) for name in PRIMARY]))
    return float("nan")


def inner_name(objective: str, rate: float) -> str:
    """Return the name of the record of one choice."""
    return f"inner: {objective}, lr {rate:g}"


def objective_of(arm: Arm) -> str:
    """Return the objective whose learning rate an arm has; that of softcon for its parts."""
    named = str(arm.options.get("method.objective", "softcon"))
    return named if named in ("moco", "multilabel") else "softcon"


def configure(arm: Arm, seed: int, store: Path, rate: float, epochs: int) -> PretrainConfig:
    """Return the settings of one run."""
    optim = replace(BASE.optim, seed=seed, lr=rate, epochs=epochs)
    made = replace(BASE, data=replace(BASE.data, store=str(store)), optim=optim)
    for name, value in arm.options.items():
        group, _, option = name.partition(".")
        made = replace(made, **{group: replace(getattr(made, group), **{option: value})})
    return made


def run_seed(seed: int, fold: int) -> int:
    """Return the seed of a run: every fold has its own, and all arms have the same."""
    return FOLDS * seed + fold


# ------------------------------------------------------------------------------- training


@torch.no_grad()
def embed(
    module: PretrainModule,
    images: Sequence[Imagery],
    change: Callable[[Tensor], Tensor] | None = None,
    waivers: Sequence[Waiver] = (),
) -> Tensor:
    """Return the student's vectors of images as an export of it would, (N, D).

    Args:
        module: Has the student.
        images: In batches.
        change: Of the prepared pixels, (B, C, S, S), before the network sees them.
        waivers: For images of another sensor than the network's.
    """
    trunk = module.trunk()
    training, parts = trunk.training, []
    trunk.eval()
    for image in images:
        pixels = preprocess_for(image.spec, module.recipe, waivers)(image).pixels
        parts.append(trunk(pixels if change is None else change(pixels)))
    trunk.train(training)
    return torch.cat(parts)


def prepared(config: PretrainConfig) -> tuple[StoreDataModule, PretrainModule]:
    """Return data and network of a run as `eofm pretrain` makes them."""
    data, module, _ = prepare(config, ProcessPlace())
    use_attention(module, config.trainer.attention)
    return data, module


Measure = Callable[[PretrainModule, Sequence[Imagery], Tensor], tuple[float, ...]]


def retrieval(x: Tensor, y: Tensor) -> float:
    """Return how well held-out tiles find their class among each other, by their own scale."""
    found = average_precision(standardised(x.double(), np.arange(len(x))), y)
    return round(float(found.mean()), 4)


def retrieval_and_rank(
    module: PretrainModule, images: Sequence[Imagery], y: Tensor
) -> tuple[float, ...]:
    """Return retrieval and effective rank of the student's vectors."""
    x = embed(module, images)
    return retrieval(x, y), round(rank(x, np.arange(len(x))), 2)


class Curve(L.Callback):
    """Evaluates held-out tiles during training.

    Args:
        tiles: All tiles.
        test: Rows of the held-out ones.
        measure: What is noted: of the network, its images and their classes.
        steps: After which steps.
        last: Training ends after this step of its schedule; 0 for the end of it.
    """

    def __init__(
        self,
        tiles: Tiles,
        test: Rows,
        measure: Measure = retrieval_and_rank,
        *,
        steps: Sequence[int] = CURVE,
        last: int = 0,
    ) -> None:
        chips = [tiles.chips[row] for row in test]
        self.images, self.y = list(read_batches(chips, BATCH)), tiles.y[test]
        self.measure, self.steps, self.last = measure, steps, last
        self.points: list[tuple[float, ...]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        """Evaluate after some of the steps."""
        if trainer.global_step in self.steps and isinstance(pl_module, PretrainModule):
            self.evaluate(trainer.global_step, pl_module)
        trainer.should_stop = trainer.global_step == self.last

    def evaluate(self, step: int, module: PretrainModule) -> None:
        """Note the step and what is measured."""
        self.points.append((step, *self.measure(module, self.images, self.y)))


def train(config: PretrainConfig, curve: Curve) -> PretrainModule:
    """Train as `eofm pretrain` does, without its folder: no checkpoints, no report."""
    data, module = prepared(config)
    fit(config, data, module, precision=config.trainer.precision, callbacks=[curve])
    return module


# -------------------------------------------------------------------------------- records


@dataclass(frozen=True)
class Study:
    """Trains, scores and records; what is recorded is not made again.

    Args:
        tiles: What it is about.
        records: File of one line per arm, seed and fold.
        folds: Which folds.
        steps: Optimiser steps of a run.
    """

    tiles: Tiles
    records: Path
    folds: tuple[int, ...] = tuple(range(FOLDS))
    steps: int = STEPS

    def known(self) -> set[tuple[Any, ...]]:
        """Return arm, seed and fold of the recorded runs."""
        return recorded(self.records, "arm", "seed", "fold")

    def config(self, arm: Arm, seed: int, fold: int, rate: float) -> PretrainConfig:
        """Return the settings of an arm in one fold: as many epochs as make the steps."""
        drops = arm.half and "data.unlabelled" not in arm.options
        # passes over the tiles, or over the labelled half
        epochs = math.ceil(self.steps / (len(self.tiles.labelled(fold, half=drops)) // BATCH))
        store = self.tiles.store(fold, half=arm.half)
        return configure(arm, run_seed(seed, fold), store, rate, epochs)

    def untrained(self, arm: Arm, seed: int, fold: int) -> PretrainModule:
        """Return the network of an arm before its first step."""
        return prepared(self.config(arm, seed, fold, RATES[0]))[1]

    def curve(self, fold: int, *measure: Measure, **when: Any) -> Curve:
        """Return what evaluates the held-out tiles of a fold; arguments are those of `Curve`."""
        return Curve(self.tiles, self.tiles.folds[fold][1], *measure, **when)

    def write(self, name: str, seed: int, fold: int, x: Tensor, **more: object) -> None:
        """Score the features of all tiles in one fold, and append the record."""
        tiles = self.tiles
        train_rows, test = tiles.folds[fold]
        tiles.folder.mkdir(parents=True, exist_ok=True)
        np.save(tiles.folder / f"{name}-{seed}-{fold}.npy".replace("/", "_"), x.half().numpy())
        record = {
            "arm": name,
            "seed": seed,
            "fold": fold,
            "tiles": test.tolist(),
            "places": tiles.places[test].tolist(),
            "rank": round(rank(x, test), 2),
            "scores": score(x, tiles.y, tiles.group, train_rows, test),
            **more,
        }
        append_record(self.records, record)
        mean = {k: round(100 * float(np.mean(v)), 1) for k, v in record["scores"].items()}
        print(f"{name}, seed {seed}, fold {fold}: {mean}", flush=True)

    def with_labels(self, name: str, seed: int, fold: int, x: Tensor) -> None:
        """Record what the same labels are worth on frozen features, by LDA."""
        tiles = self.tiles
        train_rows, _ = tiles.folds[fold]
        whole, half = (tiles.labelled(fold, half=half) for half in (False, True))
        alone, beside, beside_half = (form.format(name) for form in LDA_FORMS)
        if name == "start":
            self.write(alone, seed, fold, discriminant(x, tiles.group, whole))
        for label, rows in ((beside, whole), (beside_half, half)):
            made = with_discriminant(x, tiles.y, tiles.group, train_rows, rows)
            self.write(label, seed, fold, made)

    def controls(self, seeds: Sequence[int]) -> None:
        """Record what needs no training."""
        statistics = torch.cat([image_statistics(image) for image in self.tiles.images])
        known = self.known()
        for name, options in STARTS.items():
            for seed, fold in itertools.product(seeds if options else seeds[:1], self.folds):
                if (name, seed, fold) in known:
                    continue
                x = embed(self.untrained(Arm(name, options), seed, fold), self.tiles.images)
                self.write(name, seed, fold, x)
                if name in LDA:
                    self.with_labels(name, seed, fold, x)
        for fold in self.folds:
            if (STATISTICS, 0, fold) not in known:
                self.write(STATISTICS, 0, fold, statistics)
        for seed, fold in itertools.product(seeds, self.folds):
            if (CONVOLUTIONS, seed, fold) not in known:
                self.write(CONVOLUTIONS, seed, fold, self.convolutions(run_seed(seed, fold)))

    def convolutions(self, seed: int) -> Tensor:
        """Return the features of random convolutions, a control of `eofm bench`."""
        source = gaussian_control(CONVOLUTIONS, SPEC, seed, torch.device("cpu"))
        return torch.cat([source.embed(image) for image in self.tiles.images])

    def choose(self) -> None:
        """Record what each rate gives on the inner fold."""
        known = self.known()
        for arm, rate in itertools.product(ARMS[:3], RATES):
            name = inner_name(objective_of(arm), rate)
            if (name, 0, INNER) not in known:
                self.run(replace(arm, name=name), 0, INNER, rate)

    def run(self, arm: Arm, seed: int, fold: int, rate: float) -> None:
        """Train one arm in one fold, and record it."""
        wall, cpu = time.monotonic(), time.process_time()
        config, curve = self.config(arm, seed, fold, rate), self.curve(fold)
        x = embed(train(config, curve), self.tiles.images)
        more = {"curve": curve.points, "wall_seconds": round(time.monotonic() - wall, 1)}
        self.write(arm.name, seed, fold, x, **more, **facts(config, cpu))
        if arm.name in LDA:
            self.with_labels(arm.name, seed, fold, x)


def facts(config: PretrainConfig, cpu: float) -> dict[str, object]:
    """Return what a record says of the run beside its scores.

    Args:
        config: Of the run.
        cpu: Processor time of this process when it began, in seconds.
    """
    spent = {"cpu_seconds": round(time.process_time() - cpu, 1)}
    return {
        "lr": config.optim.lr,
        "precision": config.trainer.precision,
        **spent,
        **environment(),
    }


def environment() -> dict[str, object]:
    """Return what a record says of the machine and the software."""
    return {
        "threads": torch.get_num_threads(),
        "versions": {"eofm": eofm.__version__, "torch": torch.__version__},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def plan(seeds: Sequence[int]) -> Iterator[tuple[int, Arm]]:
    """Yield seeds and arms in the order in which they are worth their time."""
    yield from ((seeds[0], arm) for arm in (*ARMS, *VARIANTS[:-1]))
    yield from ((seed, arm) for seed in seeds[1:] for arm in ARMS[:3])
    yield (seeds[0], VARIANTS[-1])
    yield from ((seed, arm) for seed in seeds[1:] for arm in ARMS[3:])


def fold_parser(about: str | None) -> argparse.ArgumentParser:
    """Return the options of a study on these tiles that trains fold by fold."""
    parser = study_parser(about)
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(FOLDS)))
    add_stores(parser)
    return parser


def add_stores(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the packed folds are."""
    parser.add_argument(
        "--stores", type=Path, default=Path("runs/study-real-pixels"), help="folder of packed folds"
    )


def open_study(options: argparse.Namespace, name: str, *, threads: int = 1, **size: Any) -> Study:
    """Return the study whose records are `<out>/<name>.jsonl`, ready to train.

    Args:
        options: `--out` and `--stores`.
        name: Of the study.
        threads: Of torch.
        size: Folds and steps, as `Study` takes them.
    """
    torch.set_num_threads(threads)
    options.out.mkdir(parents=True, exist_ok=True)
    return Study(Tiles(options.stores), options.out / f"{name}.jsonl", **size)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    parser = study_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="two arms, one fold, eight steps")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    add_stores(parser)
    options = parser.parse_args(argv)
    records = options.out / f"{STUDY}.jsonl"
    if not options.draw:
        size = {"folds": (0,), "steps": 8} if options.quick else {}
        study = open_study(options, STUDY, threads=options.threads, **size)
        study.controls(SEEDS[: 1 if options.quick else options.seeds])
        if not options.quick:
            study.choose()
        todo = [(0, arm) for arm in ARMS[:2]] if options.quick else plan(SEEDS[: options.seeds])
        for seed, arm in todo:
            rate = chosen_rate(read_records(records), objective_of(arm))
            for fold in study.folds:
                if (arm.name, seed, fold) not in study.known():
                    study.run(arm, seed, fold, rate)
    from real_pixels_page import draw

    draw(read_records(records), options.out)


if __name__ == "__main__":
    main()
