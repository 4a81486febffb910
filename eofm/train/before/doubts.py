"""What speaks against a run before it begins: too few scenes, places or steps, rates too high.

Said before the first step, by `eofm pretrain` and by its dry run. A doubt refuses nothing.
"""

from __future__ import annotations

from typing import Final

from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.evaluate import why_no_probe
from eofm.train.module import PretrainModule
from eofm.train.monitor.collapse import GENTLE_DECAY, GENTLE_LR, is_pretrained

# 120 steps on 216 real tiles were enough for a gain outside its interval, 20 steps on 18 scenes for
# a collapse alone.
FEWEST_STEPS: Final = 100
FEWEST_SCENES: Final = 200
# Intervals come from resampling places: of fewer than this they are far too narrow.
FEWEST_PLACES: Final = 10
# Negatives per scene below which the contrast of a step says little about the other scenes.
FEWEST_NEGATIVES: Final = 15


def doubts(config: PretrainConfig, data: StoreDataModule, module: PretrainModule) -> list[str]:
    """Return what speaks against a run, a sentence each, the most serious first.

    Args:
        config: All settings.
        data: Which scenes are trained on and held out.
        module: What is trained, before the first step.
    """
    return [
        *_too_little(config, data),
        *_held_out(data),
        *_rates(config),
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
    places = len(set(store.locations[data.test_rows].tolist()))
    if places < FEWEST_PLACES:
        return [
            f"{len(data.test_rows)} held-out scenes of {places} places: differences are noise; "
            f"{FEWEST_PLACES} places or more (data.holdout) make intervals worth reading"
        ]
    return []


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


def _labels(config: PretrainConfig, module: PretrainModule) -> list[str]:
    if config.method.contrasts and module.facts.all_alike:
        return [
            "all labelled training scenes have the same labels, so every similarity is 1: the soft "
            "term calls all scenes one, and only the hard term separates them"
        ]
    return []


def steps_of(config: PretrainConfig, data: StoreDataModule) -> int:
    """Return the optimizer steps of the whole run, whatever the number of processes."""
    return len(data.batches()) // config.trainer.accumulate * config.optim.epochs
