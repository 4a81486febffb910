"""Held-out scenes are evaluated now and then, while training continues as if nothing happened.

Shapes: N scenes, C bands, S by S pixels, D width.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import lightning as L
import torch
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Preprocess
from eofm.contract.recipe import CHECKED
from eofm.loading.views import views_for
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule, iterate_rows, training_plan
from eofm.train.module import PretrainModule
from eofm.train.monitor import measures
from eofm.train.monitor.held_out import (
    HeldOutScenes,
    held_out_of_run,
    held_out_of_store,
    preserving_state,
)
from eofm.train.monitor.measures import dense_steps
from eofm.train.monitor.run_log import RunLog
from eofm.train.monitor.throughput import Throughput
from eofm.weights.checkpoint import make_card
from eofm.weights.encoder import Encoder

_VIEWS: Final = 32  # scenes of which two views are compared
# A collapse happens in the first steps: it is looked for after 1, 2, 4, ... of them, briefly.
EARLY_STEPS: Final = 64


class OnlineMonitor(L.Callback):
    """Embeds held-out scenes, measures the embeddings, and writes a row.

    All processes evaluate, for they would wait for the first one anyway, and must agree on what
    they see; the first one writes.

    Args:
        config: All settings.
        data: Says which scenes are held out.
        run_log: Gets the rows.
        throughput: Is told how long it took.

    Attributes:
        latest: The step of the latest evaluation and what was measured.

    Raises:
        ConfigError: If a store named in the settings has too few labelled scenes.
    """

    def __init__(
        self, config: PretrainConfig, data: StoreDataModule, run_log: RunLog, throughput: Throughput
    ) -> None:
        self.config, self.data, self.run_log, self.throughput = config, data, run_log, throughput
        self.latest: tuple[int, dict[str, float]] = (-1, {})
        monitor, seed = config.monitor, config.data.seed
        own = (
            held_out_of_run(data, monitor.scenes, seed)
            if monitor.store is None
            else held_out_of_store(monitor.store, "monitor", monitor.scenes, seed)
        )
        self._evaluated = [] if own is None else [EvaluatedScenes(own, paired=True)]
        if monitor.before is not None:
            before = held_out_of_store(monitor.before, "monitor/before", monitor.scenes, seed)
            self._evaluated.append(EvaluatedScenes(before, paired=False))
        self._dense = frozenset(dense_steps(monitor.dense))
        self._early = frozenset(dense_steps(EARLY_STEPS))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate before the first step: what has training to start from?"""
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        else:  # parts of an accumulated gradient come before the next step
            self.latest = (trainer.global_step, {})

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Evaluate if it is time to."""
        step = trainer.global_step
        if step == self.latest[0]:
            return  # between two parts of an accumulated gradient
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
        # here other callbacks find them, such as the one that keeps the best checkpoint
        trainer.callback_metrics.update({name: torch.tensor(v) for name, v in values.items()})
        self.throughput.evaluating += time.monotonic() - began
        if trainer.is_global_zero:
            row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values}
            self.run_log.write(self.run_log.evaluations, row)
            if not brief:
                print(_line(trainer.global_step, values), file=sys.stderr, flush=True)  # noqa: T201


class EvaluatedScenes:
    """Scenes that are evaluated again and again: the pixels are preprocessed once.

    Args:
        held: Which scenes.
        paired: Compare two random views of some of them.
    """

    def __init__(self, held: HeldOutScenes, *, paired: bool) -> None:
        self.held, self.paired = held, paired
        self._prepared: tuple[PreparedScenes, ...] = ()

    def measure(
        self, encoder: Encoder, config: PretrainConfig, *, brief: bool = False
    ) -> dict[str, float]:
        """Return what is measured of the scenes.

        Args:
            encoder: Embeds them.
            config: All settings.
            brief: Only what tells a collapse.
        """
        if not self._prepared:
            self._prepared = self._prepare(encoder, config)
        parts = self._prepared[:2] if brief else self._prepared
        queries, reference, *views = (each.embed(encoder) for each in parts)
        values = self.held.measure(queries, reference, config.method.similarity, brief=brief)
        if self.paired and not brief:
            values[f"{self.held.prefix}/alignment"] = measures.alignment(views[0], views[1])
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


def random_view(encoder: Encoder, config: PretrainConfig, seed: int, imagery: Imagery) -> Tensor:
    """Return a random view of each scene, (B, C, S, S), as training draws it.

    It draws from torch's global random state, which the caller puts back.

    Args:
        encoder: Whose recipe says what a view is.
        config: All settings.
        seed: Of the draw.
        imagery: In the store's unit and size.
    """
    recipe = encoder.recipe
    torch.manual_seed(seed)
    pixels: Tensor = Preprocess(training_plan(imagery.spec, recipe))(imagery).pixels
    view: Tensor = views_for(recipe, config.augment)(pixels)
    return view


def encoder_of(module: PretrainModule, branch: str) -> Encoder:
    """Return one of the two networks as an encoder in evaluation mode, the same tensors."""
    return Encoder(module.trunk(branch), make_card(module.card, module.recipe, branch))


def _line(step: int, values: dict[str, float]) -> str:
    """Return one line of a log.

    >>> _line(45, {"monitor/knn": 0.734, "monitor/effective_rank": 21.3})
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
    return f"step {step}: held-out scenes: {', '.join(words)}"


# More than this many bytes of normalised pixels are made again for every evaluation.
KEPT_BYTES: Final = 256 * 2**20


class PreparedScenes:
    """Scenes as a network takes them.

    Args:
        store: Where they are.
        rows: Which.
        make: Imagery of the store -> normalised pixels (B, C, S, S).
        limit: Bytes that may be kept.
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
        """Bytes of pixels that are kept."""
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
