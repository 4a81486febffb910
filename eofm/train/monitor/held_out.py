"""Which scenes are evaluated during a run, and what is measured of their embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eofm.errors import ConfigError
from eofm.method import LabelSimilarity, label_similarity
from eofm.probes.metrics import average_precision
from eofm.probes.spectrum import effective_rank, within_class_rank
from eofm.store.choice import held_out
from eofm.store.reader import Store
from eofm.train.datamodule import StoreDataModule
from eofm.train.evaluate import knn_votes, quick_linear, why_no_probe
from eofm.train.monitor import measures

_FEWEST: Final = 4


@dataclass(frozen=True)
class HeldOutScenes:
    """Scenes to evaluate.

    Args:
        prefix: Of the names of what is measured.
        store: Where they are.
        reference: Rows whose scenes vote, and to which a linear probe is fitted.
        queries: Rows of other places.
        problem: Why labels cannot be used, or None.
    """

    prefix: str
    store: Store
    reference: NDArray[np.int64]
    queries: NDArray[np.int64]
    problem: str | None

    def measure(
        self, queries: Tensor, reference: Tensor, kind: LabelSimilarity, *, brief: bool = False
    ) -> dict[str, float]:
        """Return what an encoder makes of the scenes, by name.

        Args:
            queries: Embeddings of these rows.
            reference: Embeddings of those.
            kind: Similarity of label sets.
            brief: Only what tells a collapse: no linear probe, no rank correlation.

        Returns:
            Values by name; none where an embedding is not finite.
        """
        if not all(torch.isfinite(x).all() for x in (reference, queries)):
            return {}  # the loss of the next step says where it came from
        values = {
            "embedding_std": measures.spread(queries),
            "mean_cosine": measures.mean_cosine(queries),
            "uniformity": measures.uniformity(queries),
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
            return {}  # a dead embedding is for the guard to report
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
        return measures.label_correlation(queries, similarity)


def held_out_of_run(data: StoreDataModule, count: int, seed: int) -> HeldOutScenes | None:
    """Return scenes of the run's own held-out locations, or None if there are too few.

    Without labels there are no held-out scenes: then training scenes are evaluated, and no score
    is made of them.

    Args:
        data: Of the run.
        count: At most so many scenes of either kind.
        seed: Of the choice.
    """
    if len(data.val_rows) < _FEWEST:
        rows = some_rows(data.train_rows, count, seed)
        empty = rows[:0]
        held = HeldOutScenes("monitor", data.store, empty, rows, "no labelled scene is held out")
        return held if len(rows) >= _FEWEST else None
    reference = some_rows(data.probe_rows, count, seed)
    queries = some_rows(data.val_rows, count, seed + 1)
    problem = why_no_probe(data.store, reference.tolist(), queries.tolist())
    return HeldOutScenes("monitor", data.store, reference, queries, problem)


def held_out_of_store(path: str, prefix: str, count: int, seed: int) -> HeldOutScenes:
    """Return scenes of a labelled store, one half of its locations against the other.

    Args:
        path: Of the store.
        prefix: Of the names of what is measured.
        count: At most so many scenes of either kind.
        seed: Of the choice.

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
    """Return at most so many of some rows, drawn at random and in rising order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


@contextmanager
def preserving_state(module: nn.Module) -> Iterator[None]:
    """Leave the modes of a module's parts and all random numbers of torch as they were."""
    training = [part for part in module.modules() if part.training]
    weight = next(module.parameters())
    devices = [weight.device] if weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for part in training:
                part.training = True
