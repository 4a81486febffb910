"""Preview of a run: data, steps, negatives, memory, time from a few measured steps, and doubts.

The dry run writes nothing: if the demo's world does not exist, it is made in a temporary folder.

A doubt is a warning before a run begins: too few scenes, places or steps, or too high a learning
rate. `eofm pretrain` prints doubts before the first step as well; they never stop a run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import torch

from eofm.method import update_teacher
from eofm.method.config import Exclude
from eofm.method.masking import number_kept
from eofm.train.config import PretrainConfig, demo_path
from eofm.train.datamodule import StoreDataModule
from eofm.train.evaluate import why_no_probe, why_no_verdict
from eofm.train.module import PretrainModule
from eofm.train.monitor.guard import GENTLE_DECAY, GENTLE_LR, is_pretrained
from eofm.train.monitor.online import EARLY_STEPS, encoder_of, evaluated_scenes
from eofm.train.monitor.throughput import clock
from eofm.train.optimizer import make_optimizer, parameter_groups

__all__ = [
    "FEWEST_NEGATIVES",
    "FEWEST_SCENES",
    "FEWEST_STEPS",
    "STEPS",
    "Measured",
    "describe",
    "doubts",
    "measure",
    "steps_of",
    "world_for",
]

STEPS: Final = 5
_GIB: Final = 2**30


@dataclass(frozen=True)
class Measured:
    """Time and memory of a few measured steps.

    Args:
        step: Seconds per step, the median without the first step.
        memory: Peak bytes of the GPU, or of this process; None if they cannot be measured.
        evaluation: Seconds per evaluation of held-out scenes; 0 without evaluation.
    """

    step: float
    memory: int | None
    evaluation: float


@contextmanager
def world_for(config: PretrainConfig) -> Iterator[PretrainConfig]:
    """Yield settings whose data can be read; a temporary world is removed afterwards.

    Args:
        config: All settings.
    """
    if config.data.store is not None or demo_path(config.data).exists():
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="eofm-dry-run-") as folder:
        yield replace(config, data=replace(config.data, world=folder))


def measure(
    config: PretrainConfig,
    data: StoreDataModule,
    module: PretrainModule,
    device: torch.device,
    precision: str,
) -> Measured:
    """Take a few steps with a module that is discarded, and evaluate once.

    Args:
        config: All settings.
        data: Data to train on.
        module: Module to train; modified.
        device: Device to train on.
        precision: Lightning's name of it, as from `choose_device`.
    """
    module.to(device).train()
    groups = parameter_groups(module.method.named_parameters(), config.optim.weight_decay, 1e-6)
    optimizer = make_optimizer(groups, config)
    half = precision == "bf16-mixed"
    took: list[float] = []
    loader = data.train_dataloader()
    while len(took) < STEPS:
        for batch in loader:
            began = time.monotonic()
            images, labels = data.transfer_batch_to_device(batch, device, 0)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                _, first, second = module.two_views(images)
                output = module.outcome(images, first, second, labels)
            optimizer.zero_grad()
            output.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if module.method.teacher is not None:
                update_teacher(module.method.teacher, module.method.student, config.method.momentum)
            float(output.loss.detach())  # waits for the device
            took.append(time.monotonic() - began)
            if len(took) == STEPS:
                break
    data.close()
    step = statistics.median(took[1:]) * config.trainer.accumulate
    evaluation = _evaluation(config, data, module)  # takes memory too
    return Measured(step, _memory(device), evaluation)


def _evaluation(config: PretrainConfig, data: StoreDataModule, module: PretrainModule) -> float:
    encoder, seconds = encoder_of(module, config.monitor.branch), 0.0
    for scenes in evaluated_scenes(config, data):
        scenes.measure(encoder, config)  # the first call also reads the pixels
        began = time.monotonic()
        scenes.measure(encoder, config)
        seconds += time.monotonic() - began
    return seconds


def _memory(device: torch.device) -> int | None:
    """Return the peak memory so far, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe(
    config: PretrainConfig,
    data: StoreDataModule,
    module: PretrainModule,
    opening: str,
    measured: Measured,
) -> str:
    """Return the dry run's text.

    Args:
        config: All settings.
        data: Training and held-out scenes.
        module: The module to train.
        opening: Opening lines of a run about its data and network.
        measured: Time and memory of a few steps.
    """
    steps, optim = steps_of(config, data), config.optim
    scenes = optim.batch * config.trainer.accumulate
    memory = "unknown" if measured.memory is None else f"about {measured.memory / _GIB:.1f} GiB"
    evaluations = _evaluations(config, steps) if measured.evaluation else 0
    found = doubts(config, data, module)
    seconds = steps * measured.step + evaluations * measured.evaluation
    lines = [
        "Dry run: nothing was written.",
        "",
        opening,
        "",
        f"steps      {steps // optim.epochs} an epoch x {optim.epochs} epochs = {steps}, "
        f"of {scenes} scenes each",
        *_negatives(config),
        *_hidden(config, module),
        f"a step     {measured.step:.3g} s (median of {STEPS - 1}, the first left out): "
        f"{scenes / max(measured.step, 1e-9):.0f} scenes/s, in one process",
        f"memory     {memory}",
        f"time       {clock(seconds)} for all steps and {evaluations} evaluations of "
        f"{measured.evaluation:.2g} s",
        f"monitor    {_monitor(config, data)}",
        "doubts     " + ("" if found else "none"),
        *(f"  - {each}" for each in found),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _negatives(config: PretrainConfig) -> list[str]:
    """Return the number of negatives per image, if the objective has any."""
    if not config.method.contrasts:
        return []
    return [f"negatives  {config.negatives} for each scene in a step"]


def _hidden(config: PretrainConfig, module: PretrainModule) -> list[str]:
    """Return how many patches are hidden from the student: a whole number; two are always kept."""
    tokens, ratio = module.trunk().tokens, config.method.mask_ratio
    if ratio == 0 or not config.method.contrasts:
        return []
    hidden = tokens - number_kept(tokens, ratio)
    return [f"mask       {hidden} of {tokens} patches hidden, {hidden / tokens:.0%}"]


def _evaluations(config: PretrainConfig, steps: int) -> int:
    """Return how often held-out scenes are evaluated in full, including the start."""
    monitor = config.monitor
    by_epoch = config.optim.epochs // monitor.every_epochs if monitor.every_epochs else 0
    return 1 + by_epoch + (steps // monitor.every_steps if monitor.every_steps else 0)


def _every(count: int, what: str) -> list[str]:
    """Return an interval as text; an empty list for never.

    >>> _every(1, "epoch"), _every(5, "step"), _every(0, "step")
    (['after every epoch'], ['after every 5 steps'], [])
    """
    if not count:
        return []
    return [f"after every {what}" if count == 1 else f"after every {count} {what}s"]


def _monitor(config: PretrainConfig, data: StoreDataModule) -> str:
    monitor = config.monitor
    all_held = [scenes.held for scenes in evaluated_scenes(config, data)]
    if not all_held:
        return "evaluates nothing: a collapse of the encoder would not be seen"
    held = all_held[0]
    what = "kNN, linear probe, effective rank, spread, mean cosine"
    if held.problem is not None:
        what = f"effective rank, spread, mean cosine ({held.problem})"
    often = [*_every(monitor.every_epochs, "epoch"), *_every(monitor.every_steps, "step")]
    often.append(f"briefly after steps 1, 2, 4, ... {EARLY_STEPS}")
    if held.trained_on:
        return f"{len(held.queries)} {held.kind}: {what}; {', '.join(often)}"
    whose = "of training places" if monitor.store is None else f"of {monitor.store}"
    again = "" if len(all_held) == 1 else f", and as many of {monitor.before}"
    return (
        f"{len(held.queries)} scenes against {len(held.reference)} {whose}{again}: {what}; "
        f"{', '.join(often)}"
    )


# ------------------------------------------------------------------------------------------ doubts


# 120 steps on 216 real tiles were enough for a gain outside its interval, 20 steps on 18 scenes for
# a collapse alone.
FEWEST_STEPS: Final = 100
FEWEST_SCENES: Final = 200
# Below this number of negatives per scene, the contrastive loss of a step is a weak signal.
FEWEST_NEGATIVES: Final = 15


def doubts(config: PretrainConfig, data: StoreDataModule, module: PretrainModule) -> list[str]:
    """Return warnings about a run, one sentence each, the most serious first.

    Args:
        config: All settings.
        data: Training and held-out scenes.
        module: The module to train, before the first step.
    """
    return [
        *_too_little(config, data),
        *_held_out(data),
        *_rates(config),
        *_queue(config, data),
        *_labels(config, module),
    ]


def _too_little(config: PretrainConfig, data: StoreDataModule) -> list[str]:
    scenes, steps = len(data.train_rows), steps_of(config, data)
    what = f"{scenes} scenes, {steps} steps"
    ways = "pack smaller windows (--window, --stride) or more places, or use the start as it is"
    if scenes < FEWEST_SCENES and steps < FEWEST_STEPS:
        return [
            f"{what}: this cannot learn; what can: {FEWEST_SCENES} scenes and {FEWEST_STEPS} steps "
            f"or more ({ways})"
        ]
    if scenes < FEWEST_SCENES:
        return [f"{what}: so few scenes are learned by heart; {ways}"]
    if steps < FEWEST_STEPS:
        more = -(-FEWEST_STEPS * config.optim.epochs // max(steps, 1))
        return [f"{what}: too few steps to learn; --optim.epochs {more} or a smaller optim.batch"]
    return []


def _held_out(data: StoreDataModule) -> list[str]:
    store = data.store
    problem = why_no_probe(store, data.probe_rows.tolist(), data.test_rows.tolist())
    if problem is not None:
        return [f"nothing will tell whether it learns: {problem}"]
    untold = why_no_verdict(data)
    return [] if untold is None else [f"there will be no verdict: {untold}"]


def _rates(config: PretrainConfig) -> list[str]:
    made, optim = [], config.optim
    high = optim.optimizer == "adamw" and optim.lr > 2 * GENTLE_LR and optim.layer_decay == 1
    if is_pretrained(config) and config.model.continue_from is None and high:
        made.append(
            f"optim.lr {optim.lr:g} is far above what a pretrained network survived: --optim.lr "
            f"{GENTLE_LR:g} --optim.layer_decay {GENTLE_DECAY:g} did"
        )
    if config.method.contrasts and config.negatives < FEWEST_NEGATIVES:
        made.append(
            f"each scene has {config.negatives} negatives: a larger optim.batch, or method.queue, "
            "has more"
        )
    return made


def _queue(config: PretrainConfig, data: StoreDataModule) -> list[str]:
    """Warn if the queue holds earlier keys of a scene, which then count as its negatives."""
    method, batch = config.method, config.optim.batch
    pushed = len(data.train_rows) * (1 + method.symmetric)  # keys of an epoch
    apart = method.hard_exclude is Exclude.SAME_LOCATION
    if not method.contrasts or method.queue < pushed or apart:
        return []
    short = pushed // 4 // batch * batch  # MoCo's queue held one twentieth of its images
    return [
        f"the queue of {method.queue} keys holds those of {method.queue / pushed:.3g} epochs, so "
        f"each scene is among its own negatives: --method.queue {short}, or --method.hard_exclude "
        f"{Exclude.SAME_LOCATION}"
    ]


def _labels(config: PretrainConfig, module: PretrainModule) -> list[str]:
    if config.method.contrasts and module.facts.all_alike:
        return [
            "all labelled training scenes have the same labels, so every similarity is 1: the soft "
            "term calls all scenes one, and only the hard term separates them"
        ]
    return []


def steps_of(config: PretrainConfig, data: StoreDataModule) -> int:
    """Return the optimizer steps of the whole run, for any number of processes."""
    return len(data.batches()) // config.trainer.accumulate * config.optim.epochs
