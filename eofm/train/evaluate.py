"""Probe the encoders of a run on held-out scenes, and export them.

A linear layer and the nearest neighbours are fitted on labelled scenes of the training locations
and scored on labelled scenes of held-out locations, through the same `Encoder.embed` that users
call.

The initialisation, the student and the teacher are exported as separate encoders. With two sensors
each is exported twice: under the plain name for the first sensor, and with the sensor's name
appended for the second, as in `student-s1-grd`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import CHECKED, Recipe
from eofm.errors import PixelError
from eofm.networks.state import has_batch_norm, load_strict, refresh_batch_norms
from eofm.networks.trunk import Trunk
from eofm.probes.bootstrap import (
    FEWEST_GROUPS,
    Interval,
    Resampled,
    bootstrap_interval,
    enough_groups,
    group_numbers,
    resampled_ap,
    resampled_difference,
)
from eofm.probes.features import Labelled, Scaling
from eofm.probes.knn import Distance, knn_probe
from eofm.probes.linear import C11, StrengthGrid, linear_probe
from eofm.probes.metrics import Metric, average_precision
from eofm.store.choice import held_out
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import ROWS_AT_ONCE, StoreDataModule, iterate_rows, name_scenes
from eofm.train.module import PretrainModule, fresh_norms_needed
from eofm.train.run_folder import RunFolder
from eofm.weights.encoder import Card, Encoder, build_trunk, load_encoder, make_card, save_encoder

__all__ = [
    "FEW_PLACES",
    "INIT",
    "MEASURE",
    "NEIGHBOURS",
    "NORM_IMAGES",
    "ProbeOutputs",
    "ProbeScore",
    "ScoreIntervals",
    "embed_rows",
    "export_branches",
    "export_init",
    "export_trunk",
    "intervals",
    "knn_votes",
    "own_starts",
    "probe",
    "quick_linear",
    "set_aside",
    "whole_images",
    "why_no_probe",
    "why_no_verdict",
]

# ------------------------------------------------------------------------------------------- probes

NEIGHBOURS: Final = 20
# Metric of gains: the primary metric of benchmark tasks with several classes. The mean over classes
# depends on the rarest ones, of which a few held-out places have hardly any example.
MEASURE: Final = Metric.AP_MICRO
# Name of the encoder before training, in tables and records.
INIT: Final = "initialisation"
# With fewer training locations than this, none can be spared for validation.
FEW_PLACES: Final = 5
_QUICK_GRID: Final = StrengthGrid.log10(-3, 1, 5)


def embed_rows(encoder: Encoder, store: Store, rows: Sequence[int]) -> Tensor:
    """Return the embeddings of `rows`, float32 (N, D), on the CPU.

    Raises:
        PixelError: If a scene has no valid pixel, or a NaN; the message names the scene.
    """
    made = []
    for start, imagery in zip(count(0, ROWS_AT_ONCE), iterate_rows(store, rows), strict=False):
        try:
            made.append(encoder.embed(imagery, (CHECKED,)).cpu())
        except PixelError as error:
            raise name_scenes(error, (store,), rows[start:]) from None
    return torch.cat(made)


@dataclass(frozen=True)
class ProbeScore:
    """Scores of probes of frozen embeddings on held-out scenes.

    Args:
        name: Name of the encoder.
        ap_macro: Average precision of a linear probe, mean over the classes that occur.
        ap_micro: Average precision of the linear probe over all scene-class pairs.
        knn_macro: Average precision of the kNN votes, mean over classes.
        knn_micro: Average precision of the kNN votes over all scene-class pairs.
        per_class: Average precision of the linear probe by class; None for absent classes.
        dim: Width of the embedding.
    """

    name: str
    ap_macro: float
    ap_micro: float
    knn_macro: float
    knn_micro: float
    per_class: tuple[float | None, ...]
    dim: int


@dataclass(frozen=True)
class ProbeOutputs:
    """Outputs of the two probes of one encoder for the held-out scenes.

    Args:
        name: Name of the encoder.
        linear: (N, K), logits of the linear probe.
        knn: (N, K), votes of the nearest neighbours.
        dim: Width of the embedding.
    """

    name: str
    linear: Tensor
    knn: Tensor
    dim: int

    def score(self, target: Tensor) -> ProbeScore:
        """Return the scores of the outputs.

        Args:
            target: (N, K), 1 where a class is present.
        """
        ap, knn = average_precision(self.linear, target), average_precision(self.knn, target)
        return ProbeScore(
            self.name, ap.macro, ap.micro, knn.macro, knn.micro, ap.per_class, self.dim
        )


def probe(
    name: str, train: Tensor, test: Tensor, store: Store, data: StoreDataModule, seed: int
) -> ProbeOutputs:
    """Fit probes on training locations and apply them to held-out locations.

    The regularisation of the linear probe is chosen on a fifth of the training locations (of the
    training scenes if there are few locations), never on the held-out ones.

    Args:
        name: Name of the encoder.
        train: Embeddings of `data.probe_rows`.
        test: Embeddings of `data.test_rows`.
        store: Store with the labels.
        data: Data module with the rows.
        seed: Seed for choosing the validation locations.
    """
    labels = store.labels(data.probe_rows.tolist()).multi_hot.long()
    places = store.locations[data.probe_rows].tolist()
    linear = _fit_linear(train, labels, places, test, seed + 1)
    return ProbeOutputs(name, linear, knn_votes(train, labels, test), train.shape[1])


def _fit_linear(
    train: Tensor,
    labels: Tensor,
    places: Sequence[str],
    test: Tensor,
    seed: int,
    *,
    grid: StrengthGrid = C11,
    refit: bool = False,
) -> Tensor:
    """Return the logits of a linear probe, its regularisation chosen on `set_aside` scenes."""
    aside, count = set_aside(places, seed), labels.shape[1]
    fitted = linear_probe(
        Labelled(train[~aside], labels[~aside], count),
        Labelled(train[aside], labels[aside], count),
        test,
        choice=lambda logits, y: average_precision(logits, y).macro,
        grid=grid,
        scaling=Scaling.STANDARD,
        refit=refit,
    )
    return fitted.scores


def knn_votes(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """Return the votes of the nearest training scenes by cosine similarity, (N, K).

    Args:
        train: (M, D).
        labels: (M, K).
        test: (N, D).
    """
    k = min(NEIGHBOURS, len(train))
    reference = Labelled(train, labels, labels.shape[1])
    return knn_probe(reference, test, k=k, metric=Distance.COSINE).scores


def set_aside(places: Sequence[str], seed: int) -> Tensor:
    """Return the mask of training scenes for choosing a probe's regularisation, bool (M,).

    They belong to a fifth of the locations; every fifth scene if no location can be spared.

    Args:
        places: The location of each scene.
        seed: Seed for choosing locations.
    """
    if len(set(places)) < FEW_PLACES:
        return torch.arange(len(places)) % 5 == 0
    return torch.from_numpy(held_out(places, 0.2, seed))


def quick_linear(
    train: Tensor, labels: Tensor, places: Sequence[str], test: Tensor, seed: int = 1
) -> Tensor:
    """Return the logits of a linear probe, (N, K): an estimate during training, not a result.

    C is chosen from a coarse grid on a fifth of the training locations, and the probe is fitted
    again to all of them. A fixed C would penalise features with few directions more, and training
    changes their number.

    Args:
        train: (M, D).
        labels: (M, K).
        places: The location of each training scene.
        test: (N, D).
        seed: Seed for choosing locations.
    """
    return _fit_linear(train, labels, places, test, seed, grid=_QUICK_GRID, refit=True)


def why_no_probe(store: Store, train: Sequence[int], test: Sequence[int]) -> str | None:
    """Return why held-out scenes cannot be probed, or None if they can.

    Args:
        store: Store with the labels.
        train: Labelled rows to fit on.
        test: Labelled rows to score on.
    """
    if not store.classes:
        return "the store has no labels"
    if len(train) < 4 or not len(test):
        return (
            f"{len(train)} labelled training scenes and {len(test)} labelled "
            "held-out scenes are too few"
        )
    one, other = (store.labels(rows).multi_hot.mean(dim=0) for rows in (train, test))
    # for a class that all or no scenes have, the score would be its frequency with any encoder
    if not ((one > 0) & (one < 1) & (other > 0) & (other < 1)).any():
        return (
            "there is no class that is both present and absent among the training scenes and among "
            "the held-out scenes"
        )
    return None


def why_no_verdict(data: StoreDataModule) -> str | None:
    """Return why held-out scores have no intervals, and the remedy; None if they have.

    Args:
        data: Scored scenes.
    """
    places = data.scored_places
    if enough_groups(places):
        return None
    share = data.holdout_for(FEWEST_GROUPS)
    remedy = (
        f"pack scenes of {4 * FEWEST_GROUPS} places or more, and hold out half of them "
        "(`--data.holdout 0.5`)"
        if share is None
        else f"hold out more places: `--data.holdout {share:g}`"
    )
    return (
        f"the scored scenes are of {places} held-out location{'s' * (places != 1)}, and fewer than "
        f"{FEWEST_GROUPS} cannot tell a gain from chance; {remedy}"
    )


# -------------------------------------------------------------------------------- intervals


@dataclass(frozen=True)
class ScoreIntervals:
    """95 % intervals of an encoder's scores over held-out locations.

    Args:
        linear: Interval of the linear probe's `MEASURE`.
        knn: Interval of the kNN `MEASURE`.
        linear_gain: Interval of the linear probe's gain over the encoder's initialisation; None for
            an initialisation.
        knn_gain: Interval of the kNN gain over it; None for an initialisation.
    """

    linear: Interval
    knn: Interval
    linear_gain: Interval | None
    knn_gain: Interval | None


def own_starts(names: Sequence[str]) -> list[int]:
    """Return the index of each encoder's start: the last initialisation before it.

    >>> own_starts(["initialisation", "student", "initialisation s1-grd", "student s1-grd"])
    [0, 0, 2, 2]
    """
    found, last = [], 0
    for i, name in enumerate(names):
        last = i if name.startswith(INIT) else last
        found.append(last)
    return found


def intervals(
    votes: Sequence[ProbeOutputs], target: Tensor, places: Sequence[str]
) -> list[ScoreIntervals]:
    """Return intervals from resampling whole locations, as seasons of a place are dependent.

    The list is empty if there are too few locations (`why_no_verdict`).

    Args:
        votes: Outputs of each encoder; those after an initialisation are compared with it.
        target: (N, K), 1 where a class is present.
        places: The location of each scene.
    """
    groups = group_numbers(places)
    if not enough_groups(len(set(places))):
        return []

    def metric_of(scores: Tensor) -> Resampled:
        return resampled_ap(scores, target, MEASURE)

    def interval(metric: Resampled) -> Interval:
        return bootstrap_interval(metric, len(places), groups=groups)

    linear, knn = [metric_of(v.linear) for v in votes], [metric_of(v.knn) for v in votes]
    return [
        ScoreIntervals(
            interval(linear[i]),
            interval(knn[i]),
            interval(resampled_difference(linear[i], linear[start])) if i != start else None,
            interval(resampled_difference(knn[i], knn[start])) if i != start else None,
        )
        for i, start in enumerate(own_starts([each.name for each in votes]))
    ]


# ------------------------------------------------------------------------------------------ exports

# Number of images for recomputing batch norm statistics; more make little difference.
NORM_IMAGES: Final = 1024


def export_init(module: PretrainModule, folder: RunFolder, line: str) -> None:
    """Export the network before training.

    Args:
        module: The module before its first step.
        folder: Folder of the run.
        line: Origin of its weights.
    """
    for suffix, recipe in _sensors(module):
        card = make_card(module.card, recipe, f"{INIT}: {line}")
        export_trunk(module.trunk("student", recipe.sensor), card, folder.export / f"init{suffix}")


def export_branches(
    module: PretrainModule, data: StoreDataModule, folder: RunFolder, config: PretrainConfig
) -> dict[str, Encoder]:
    """Export student and teacher; return them and the initialisation, by name.

    If the batch norm statistics of a branch are of other images than its future input, they are
    first recomputed on whole training scenes.

    Args:
        module: The module after training.
        data: Training scenes.
        folder: Folder of the run, with the exported initialisation.
        config: All settings.
    """
    encoders = {}
    for suffix, recipe in _sensors(module):
        mark = suffix.replace("-", " ", 1)
        encoders[f"{INIT}{mark}"] = load_encoder(folder.export / f"init{suffix}")
        for branch in module.branches:
            trunk = module.trunk(branch, recipe.sensor)
            source = f"{branch} after {config.optim.epochs} epochs"
            if fresh_norms_needed(config, branch) and has_batch_norm(trunk):
                store, rows = data.seen_by(recipe.sensor, data.train_rows)
                count = refresh_batch_norms(trunk, whole_images(store, rows, recipe))
                source += f"; batch norms refreshed on {count} batches of whole images"
            card = make_card(module.card, recipe, source)
            encoders[f"{branch}{mark}"] = export_trunk(
                trunk, card, folder.export / f"{branch}{suffix}"
            )
    return encoders


def whole_images(store: Store, rows: Sequence[int], recipe: Recipe) -> Iterator[Tensor]:
    """Yield normalised scenes as encoder input, (B, C, H, W), in batches of one size.

    Args:
        store: Store of the scenes.
        rows: Rows to read; an evenly spread subset if there are many.
        recipe: Input that the encoder expects.
    """
    count = min(len(rows), NORM_IMAGES)
    count = count // ROWS_AT_ONCE * ROWS_AT_ONCE or count
    chosen = np.asarray(rows)[np.linspace(0, len(rows) - 1, count).astype(int)]
    for imagery in iterate_rows(store, chosen.tolist()):
        yield preprocess_for(imagery.spec, recipe)(imagery).pixels


def _sensors(module: PretrainModule) -> list[tuple[str, Recipe]]:
    """Return the name suffix and the recipe of each sensor's exports."""
    made = [("", module.recipe)]
    if module.second_sensor is not None:
        made.append((f"-{module.second_sensor.name}", module.second_sensor.recipe))
    return made


def export_trunk(trunk: Trunk, card: Card, directory: Path) -> Encoder:
    """Export a trunk with its card, and return a copy of it as an encoder."""
    copy = build_trunk(card)
    load_strict(
        copy, {k: v.detach().cpu().clone() for k, v in trunk.state_dict().items()}, card.name
    )
    encoder = Encoder(copy, card)
    save_encoder(encoder, directory)
    return encoder
