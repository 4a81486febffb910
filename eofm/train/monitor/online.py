"""Evaluation of held-out scenes at intervals during training, without any effect on it.

The module defines measures of an embedding that need no fit, the depth of an initial drop in score,
the scenes to evaluate with the measurements of their embeddings, and the evaluation schedule.

Shapes: N scenes, C bands, S by S pixels, D width, K classes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess
from eofm.contract.recipe import CHECKED
from eofm.errors import ConfigError
from eofm.loading.views import views_for
from eofm.method import LabelSimilarity, label_similarity
from eofm.probes.features import effective_rank, within_class_rank
from eofm.probes.metrics import average_precision
from eofm.store.choice import held_out
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule, iterate_rows, training_plan
from eofm.train.evaluate import knn_votes, quick_linear, why_no_probe
from eofm.train.module import PretrainModule
from eofm.train.monitor.run_log import RunLog
from eofm.train.monitor.throughput import Throughput
from eofm.weights.encoder import Encoder, make_card

__all__ = [
    "EARLY_STEPS",
    "KEPT_BYTES",
    "EvaluatedScenes",
    "Gap",
    "HeldOutScenes",
    "OnlineMonitor",
    "PreparedScenes",
    "alignment",
    "dense_steps",
    "encoder_of",
    "evaluated_scenes",
    "held_out_of_run",
    "held_out_of_store",
    "label_correlation",
    "mean_cosine",
    "preserving_state",
    "random_view",
    "rank_correlation",
    "some_rows",
    "spread",
    "stability_gap",
    "uniformity",
]

# ------------------------------------------------------------------------- measures of an embedding

# the factor of the Gaussian potential in arXiv 2005.10242
_POTENTIAL: Final = 2.0


def spread(embedding: Tensor) -> float:
    """Return the mean standard deviation of the unit vectors' coordinates, times sqrt(D).

    1 if they fill the sphere, 0 if they are one point (SimSiam, arXiv 2011.10566).

    Args:
        embedding: (N, D), N > 1.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean() * math.sqrt(unit.shape[1]))


def mean_cosine(embedding: Tensor) -> float:
    """Return the mean cosine similarity over pairs of images; 1 if all embeddings are equal.

    Args:
        embedding: (N, D), N > 1.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    return float(_pairs(unit @ unit.T).mean())


def alignment(one: Tensor, other: Tensor) -> float:
    """Return the mean squared distance of two views' unit vectors: 0 is best, 2 is chance.

    Eq. 1 of arXiv 2005.10242, α = 2.

    Args:
        one: (N, D).
        other: (N, D), the same images in another view.
    """
    unit = functional.normalize(one.double(), dim=1)
    return float((unit - functional.normalize(other.double(), dim=1)).square().sum(dim=1).mean())


def uniformity(embedding: Tensor) -> float:
    """Return log mean exp(-2 d²) over pairs of unit vectors: 0 is one point, -4 is a wide sphere.

    Eq. 2 of arXiv 2005.10242, t = 2.

    Args:
        embedding: (N, D), N > 1.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    potential = -_POTENTIAL * (2 - 2 * _pairs(unit @ unit.T))
    return float(torch.logsumexp(potential, dim=0) - math.log(len(potential)))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's correlation of two lists; equal values share their mean rank.

    NaN if a list is constant.

    Args:
        one: (N,).
        other: (N,).
    """
    first, second = (r - r.mean() for r in (_ranks(one), _ranks(other)))
    scale = (first.square().sum() * second.square().sum()).sqrt()
    return float((first * second).sum() / scale) if scale > 0 else math.nan


def label_correlation(embedding: Tensor, similarity: Tensor) -> float:
    """Return Spearman's correlation of cosines and label similarities over pairs of images.

    Args:
        embedding: (N, D).
        similarity: (N, N); pairs with NaN (unknown) are ignored.
    """
    unit = functional.normalize(embedding.double(), dim=1)
    cosine, label = _pairs(unit @ unit.T), _pairs(similarity.double())
    known = ~label.isnan()
    return rank_correlation(cosine[known], label[known]) if known.any() else math.nan


def _pairs(matrix: Tensor) -> Tensor:
    """Return the entries above the diagonal, each pair once."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1)
    return matrix[rows, columns]


def _ranks(values: Tensor) -> Tensor:
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Tensor = count.cumsum(0).double() - (count - 1) / 2
    return mean_rank[place]


def dense_steps(last: int) -> tuple[int, ...]:
    """Return 1, 2, 4, 8, ... up to `last`.

    >>> dense_steps(10)
    (1, 2, 4, 8)
    """
    return tuple(1 << i for i in range(last.bit_length()) if 1 << i <= last)


@dataclass(frozen=True)
class Gap:
    """Depth and duration of a score's drop below its value at the start.

    Args:
        start: Score before the first step, s0.
        lowest: The lowest score.
        lowest_step: The first step with the lowest score.
        back: First step after the lowest one with a score of s0 or more; None if there is none
            yet, 0 where the score never fell below s0.
    """

    start: float
    lowest: float
    lowest_step: int
    back: int | None

    @property
    def depth(self) -> float:
        """s0 minus the lowest score."""
        return self.start - self.lowest

    def describe(self) -> str:
        """Return one sentence."""
        if self.depth == 0:
            return f"no gap: never below {100 * self.start:.1f}, where it started"
        end = "not back yet" if self.back is None else f"back at step {self.back}"
        return (
            f"{100 * self.depth:.1f} points deep at step {self.lowest_step} "
            f"(from {100 * self.start:.1f} to {100 * self.lowest:.1f}), {end}"
        )


def stability_gap(steps: Sequence[int], scores: Sequence[float]) -> Gap | None:
    """Return the gap of a score over the steps, or None if step 0 was not evaluated.

    Args:
        steps: Ascending, beginning with 0.
        scores: One per step.
    """
    if len(steps) < 2 or steps[0] != 0:
        return None
    lowest = min(range(len(scores)), key=scores.__getitem__)
    later = (
        step
        for step, score in zip(steps[lowest:], scores[lowest:], strict=True)
        if score >= scores[0]
    )
    return Gap(scores[0], scores[lowest], steps[lowest], next(later, None))


# ---------------------------------------------------------------------------------- held-out scenes

_FEWEST: Final = 4


@dataclass(frozen=True)
class HeldOutScenes:
    """Scenes to evaluate.

    Args:
        prefix: Prefix of the names of the measurements.
        store: Store of the scenes.
        reference: Rows for the kNN votes and for fitting a linear probe.
        queries: Rows of other places, to be scored.
        problem: Why labels cannot be used, or None.
        trained_on: The queries are training scenes: nothing is held out.
    """

    prefix: str
    store: Store
    reference: NDArray[np.int64]
    queries: NDArray[np.int64]
    problem: str | None
    trained_on: bool = False

    @property
    def kind(self) -> str:
        """Name of the queries in a log."""
        return "training scenes (none are held out)" if self.trained_on else "held-out scenes"

    def measure(
        self, queries: Tensor, reference: Tensor, kind: LabelSimilarity, *, brief: bool = False
    ) -> dict[str, float]:
        """Return the measurements of an encoder's embeddings, by name.

        Args:
            queries: Embeddings of the query rows.
            reference: Embeddings of the reference rows.
            kind: Similarity of label sets.
            brief: Only the measures that detect a collapse: no linear probe, no rank correlation.

        Returns:
            Values by name; empty if an embedding is not finite.
        """
        if not all(torch.isfinite(x).all() for x in (reference, queries)):
            return {}  # the loss of the next step reports the cause
        values = {
            "embedding_std": spread(queries),
            "mean_cosine": mean_cosine(queries),
            "uniformity": uniformity(queries),
        }
        if self.problem is None:
            values |= self._scores(reference, queries, brief=brief)
        values["effective_rank"] = effective_rank(torch.cat([reference, queries]))
        if self.store.classes and not brief:
            values["label_correlation"] = self._correlation(queries, kind)
        return {f"{self.prefix}/{name}": value for name, value in values.items()}

    def _scores(self, reference: Tensor, queries: Tensor, *, brief: bool) -> dict[str, float]:
        labels = self.store.labels(self.reference.tolist()).multi_hot.long()
        target = self.store.labels(self.queries.tolist()).multi_hot.long()
        dead = any(bool((x == 0).all(dim=1).any()) for x in (reference, queries))
        if dead:
            return {}  # the guard reports a dead embedding
        scores = {"knn": average_precision(knn_votes(reference, labels, queries), target).macro}
        if not brief:
            places = self.store.locations[self.reference].tolist()
            logits = quick_linear(reference, labels, places, queries)
            scores["linear"] = average_precision(logits, target).macro
            scores["within_class_rank"] = within_class_rank(reference, labels)
        return scores

    def _correlation(self, queries: Tensor, kind: LabelSimilarity) -> float:
        labels = self.store.labels(self.queries.tolist())
        similarity = label_similarity(labels.multi_hot, labels.multi_hot, kind)
        similarity[~labels.known] = torch.nan
        similarity[:, ~labels.known] = torch.nan
        return label_correlation(queries, similarity)


def held_out_of_run(data: StoreDataModule, count: int, seed: int) -> HeldOutScenes | None:
    """Return scenes of the run's own held-out locations, or None if there are too few.

    Without labels they are not scored. If no scenes are held out, training scenes are evaluated,
    and the log says so (`HeldOutScenes.kind`).

    Args:
        data: Data of the run.
        count: Maximum number of scenes of each kind.
        seed: Seed for choosing the scenes.
    """
    if len(data.val_rows) < _FEWEST:
        apart = len(data.outside_rows) >= _FEWEST
        rows = some_rows(data.outside_rows if apart else data.train_rows, count, seed)
        why = "no labelled scene is held out"
        held = HeldOutScenes("monitor", data.store, rows[:0], rows, why, trained_on=not apart)
        return held if len(rows) >= _FEWEST else None
    reference = some_rows(data.probe_rows, count, seed)
    queries = some_rows(data.val_rows, count, seed + 1)
    problem = why_no_probe(data.store, reference.tolist(), queries.tolist())
    return HeldOutScenes("monitor", data.store, reference, queries, problem)


def held_out_of_store(path: str, prefix: str, count: int, seed: int) -> HeldOutScenes:
    """Return scenes of a labelled store, with half of its locations as reference for the others.

    Args:
        path: Path of the store.
        prefix: Prefix of the names of the measurements.
        count: Maximum number of scenes of each kind.
        seed: Seed for choosing the scenes.

    Raises:
        ConfigError: If too few scenes are labelled.
    """
    store = Store(path)
    known = store.labels(range(len(store))).known.numpy()
    apart = held_out(store.locations.tolist(), 0.5, seed)
    reference = some_rows(np.flatnonzero(known & ~apart), count, seed)
    queries = some_rows(np.flatnonzero(known & apart), count, seed + 1)
    if min(len(reference), len(queries)) < _FEWEST:
        raise ConfigError(
            "too few labelled scenes to evaluate",
            found=f"{int(known.sum())} labelled scenes of {len(set(store.locations))} locations",
            where=path,
            remedy="name a labelled store of several locations",
        )
    problem = why_no_probe(store, reference.tolist(), queries.tolist())
    return HeldOutScenes(prefix, store, reference, queries, problem)


def some_rows(rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return up to `count` of the rows, drawn at random, in ascending order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


@contextmanager
def preserving_state(module: nn.Module) -> Iterator[None]:
    """Preserve the train/eval modes of a module's parts and all random states of torch."""
    training = [part for part in module.modules() if part.training]
    weight = next(module.parameters())
    devices = [weight.device] if weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for part in training:
                part.training = True


# -------------------------------------------------------------------------- evaluation during a run

_VIEWS: Final = 32  # scenes of which two views are compared
# A collapse happens in the first steps: brief evaluations after steps 1, 2, 4, ... detect it.
EARLY_STEPS: Final = 64


class OnlineMonitor(L.Callback):
    """Embeds held-out scenes, measures the embeddings, and writes a row.

    All processes evaluate, as they would wait for the first one anyway and must agree on the
    results; only the first one writes.

    Args:
        config: All settings.
        data: Data with the held-out scenes.
        run_log: Log for the rows.
        throughput: Gets the duration of each evaluation.

    Attributes:
        latest: The step of the latest evaluation, and its measurements.

    Raises:
        ConfigError: If a store named in the settings has too few labelled scenes.
    """

    def __init__(
        self, config: PretrainConfig, data: StoreDataModule, run_log: RunLog, throughput: Throughput
    ) -> None:
        self.config, self.data, self.run_log, self.throughput = config, data, run_log, throughput
        self.latest: tuple[int, dict[str, float]] = (-1, {})
        self._evaluated = evaluated_scenes(config, data)
        self._dense = frozenset(dense_steps(config.monitor.dense))
        self._early = frozenset(dense_steps(EARLY_STEPS))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate before the first step, as the reference."""
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        else:  # within an accumulated gradient, before the next step
            self.latest = (trainer.global_step, {})

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Evaluate if an evaluation is due."""
        step = trainer.global_step
        if step == self.latest[0]:
            return  # within an accumulated gradient
        if self._due(step, trainer.current_epoch + 1, ends=trainer.is_last_batch):
            self._evaluate(trainer, pl_module)
        elif step in self._early:
            self._evaluate(trainer, pl_module, brief=True)

    def _due(self, step: int, epoch: int, *, ends: bool) -> bool:
        monitor = self.config.monitor
        by_epoch = monitor.every_epochs > 0 and ends and epoch % monitor.every_epochs == 0
        by_step = monitor.every_steps > 0 and step % monitor.every_steps == 0
        return by_epoch or by_step or step in self._dense

    def _evaluate(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *, brief: bool = False
    ) -> None:
        if not isinstance(pl_module, PretrainModule):
            return
        began = time.monotonic()
        values: dict[str, float] = {}
        with preserving_state(pl_module):
            encoder = encoder_of(pl_module, self.config.monitor.branch)
            for scenes in self._evaluated:
                values |= scenes.measure(encoder, self.config, brief=brief)
        self.latest = (trainer.global_step, values)
        # other callbacks read them here, such as the one that keeps the best checkpoint
        trainer.callback_metrics.update({name: torch.tensor(v) for name, v in values.items()})
        self.throughput.evaluating += time.monotonic() - began
        if trainer.is_global_zero:
            row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values}
            self.run_log.write(self.run_log.evaluations, row)
            if not brief:
                kind = self._evaluated[0].held.kind if self._evaluated else ""
                line = _line(trainer.global_step, values, kind)
                print(line, file=sys.stderr, flush=True)  # noqa: T201


class EvaluatedScenes:
    """Scenes that are evaluated repeatedly; their pixels are preprocessed once.

    Args:
        held: The scenes.
        paired: Compare two random views of some of them.
    """

    def __init__(self, held: HeldOutScenes, *, paired: bool) -> None:
        self.held, self.paired = held, paired
        self._prepared: tuple[PreparedScenes, ...] = ()

    def measure(
        self, encoder: Encoder, config: PretrainConfig, *, brief: bool = False
    ) -> dict[str, float]:
        """Return the measurements of the scenes.

        Args:
            encoder: Encoder to embed with.
            config: All settings.
            brief: Only the measures that detect a collapse.
        """
        if not self._prepared:
            self._prepared = self._prepare(encoder, config)
        parts = self._prepared[:2] if brief else self._prepared
        queries, reference, *views = (each.embed(encoder) for each in parts)
        values = self.held.measure(queries, reference, config.method.similarity, brief=brief)
        if self.paired and not brief:
            values[f"{self.held.prefix}/alignment"] = alignment(views[0], views[1])
        return values

    def _prepare(self, encoder: Encoder, config: PretrainConfig) -> tuple[PreparedScenes, ...]:
        held = self.held
        prepare = partial(encoder.preprocess, waivers=(CHECKED,))
        parts = [(held.queries, prepare), (held.reference, prepare)]
        if self.paired:  # the same two views every time: only the network changes
            draw = partial(random_view, encoder, config)
            rows = held.queries[:_VIEWS]
            parts += [(rows, partial(draw, seed)) for seed in (0, 1)]
        share = KEPT_BYTES // max(sum(len(rows) for rows, _ in parts), 1)
        return tuple(
            PreparedScenes(held.store, rows.tolist(), make, share * len(rows))
            for rows, make in parts
        )


def evaluated_scenes(config: PretrainConfig, data: StoreDataModule) -> list[EvaluatedScenes]:
    """Return all scenes to evaluate: the run's held-out ones or a store's, and `monitor.before`.

    Args:
        config: All settings.
        data: Data with the held-out scenes.

    Raises:
        ConfigError: If a store named in the settings has too few labelled scenes, or other bands.
    """
    monitor, seed = config.monitor, config.data.seed
    if not monitor.evaluates:
        return []
    own = (
        held_out_of_run(data, monitor.scenes, seed)
        if monitor.store is None
        else held_out_of_store(monitor.store, "monitor", monitor.scenes, seed)
    )
    made = [] if own is None else [EvaluatedScenes(own, paired=True)]
    if monitor.before is not None:
        before = held_out_of_store(monitor.before, "monitor/before", monitor.scenes, seed)
        made.append(EvaluatedScenes(before, paired=False))
    for scenes in made:
        _check_bands(scenes.held.store, data.store)
    return made


def _check_bands(store: Store, trained: Store) -> None:
    """Refuse scenes that the network cannot process.

    Raises:
        ConfigError: If they are of another sensor, or lack a band.
    """
    have, want = store.spec, trained.spec
    if have.sensor != want.sensor or not set(want.bands) <= set(have.bands):
        raise ConfigError(
            "the store to evaluate has other bands than the one to train on",
            found=f"{have.sensor}, {' '.join(have.bands)}",
            expected=f"{want.sensor}, {' '.join(want.bands)}",
            where=store.path,
            remedy="name a store of the same sensor in monitor.store and monitor.before, or none",
        )


def random_view(encoder: Encoder, config: PretrainConfig, seed: int, imagery: Imagery) -> Tensor:
    """Return a random view of each scene, (B, C, S, S), as training draws it.

    It draws from torch's global random state, which the caller restores.

    Args:
        encoder: Encoder with the recipe of a view.
        config: All settings.
        seed: Seed of the view.
        imagery: Imagery in the store's unit and size.
    """
    recipe = encoder.recipe
    torch.manual_seed(seed)
    pixels: Tensor = Preprocess(training_plan(imagery.spec, recipe))(imagery).pixels
    view: Tensor = views_for(recipe, config.augment)(pixels)
    return view


def encoder_of(module: PretrainModule, branch: str) -> Encoder:
    """Return one of the two networks as an encoder in evaluation mode; tensors are shared."""
    return Encoder(module.trunk(branch), make_card(module.card, module.recipe, branch))


def _line(step: int, values: dict[str, float], kind: str) -> str:
    """Return one line of a log.

    >>> _line(45, {"monitor/knn": 0.734, "monitor/effective_rank": 21.3}, "held-out scenes")
    'step 45: held-out scenes: kNN 73.4, effective rank 21.3'
    """
    words = []
    for name, label, factor, digits in (
        ("knn", "kNN", 100, 1),
        ("linear", "linear", 100, 1),
        ("effective_rank", "effective rank", 1, 1),
        ("embedding_std", "spread", 1, 2),
    ):
        value = values.get(f"monitor/{name}")
        if value is not None:
            words.append(f"{label} {factor * value:.{digits}f}")
    return f"step {step}: {kind}: {', '.join(words)}"


# Normalised pixels beyond this many bytes are computed again for every evaluation.
KEPT_BYTES: Final = 256 * 2**20


class PreparedScenes:
    """Scenes as input of a network.

    Args:
        store: Store of the scenes.
        rows: Rows of the scenes.
        make: Imagery of the store -> normalised pixels (B, C, S, S).
        limit: Maximum number of bytes to cache.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int],
        make: Callable[[Imagery], Tensor],
        limit: int = KEPT_BYTES,
    ) -> None:
        self._store, self._rows, self._make = store, list(rows), make
        self._limit = limit
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def embed(self, encoder: Encoder) -> Tensor:
        """Return the embeddings, float32 (N, D), on the CPU."""
        weight = next(encoder.parameters())
        parts = [encoder(pixels.to(weight)).float().cpu() for pixels in self._batches()]
        return torch.cat(parts) if parts else torch.empty(0, encoder.dim)

    @property
    def kept_bytes(self) -> int:
        """Bytes of cached pixels."""
        return sum(pixels.nbytes for pixels in self._kept)

    def _batches(self) -> Iterator[Tensor]:
        if self._kept:
            yield from self._kept
            return
        kept: list[Tensor] = []
        for imagery in iterate_rows(self._store, self._rows):
            pixels = self._make(imagery).cpu()
            size = pixels[0].nbytes * len(self._rows)
            if size <= self._limit:
                kept.append(pixels)
            yield pixels
        self._kept = kept
