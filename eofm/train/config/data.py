"""Settings of `eofm pretrain`: what to train on. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
        unlabelled: Leave unlabelled scenes out (`drop`), keep them in the hard term only, or give
            them the labels of the season of their place that is nearest in time (`inherit`; those
            without one are left out).
        views: The two views of a scene are two crops, or crops of two different seasons of its
            place (`seasons`: drawn anew in every epoch; `fixed-seasons`: the same two;
            `independent-seasons`: each drawn on its own, so that they may be the same); a place
            seen once gives two crops. An epoch then has a step for every `optim.batch` places.
            The soft term compares the labels of the two seasons at hand. With `sensors` they are
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
    views: Literal["crops", "seasons", "fixed-seasons", "independent-seasons", "sensors"] = "crops"
    balance: Literal["none", "rarity"] = "none"
    replay: str | None = None
    replay_share: float = 0.0
