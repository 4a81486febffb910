"""Held-out scenes and the encoders of a run, brought together for pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import to_grid
from eofm.contract.recipe import CHECKED
from eofm.errors import EofmError, WeightsError
from eofm.loading.pair_feed import open_pair
from eofm.method import LabelSimilarity, label_similarity
from eofm.report.figures import to_rgb
from eofm.store.choice import held_out
from eofm.store.reader import Store
from eofm.train.page.record import Record
from eofm.train.probes import embed_rows
from eofm.weights.checkpoint import from_checkpoint
from eofm.weights.encoder import Encoder, load_encoder

_SHORT: Final = {"init": "initialisation"}
# A grid of fewer cells a side than this shows nothing: then an earlier layer is drawn.
_FEWEST_CELLS: Final = 6


@dataclass(frozen=True)
class Scenes:
    """Scenes of a store as the pictures need them.

    Args:
        store: Where they are.
        queries: Rows of held-out locations.
        reference: Rows of training locations.
    """

    store: Store
    queries: NDArray[np.int64]
    reference: NDArray[np.int64]

    def rgb(self, rows: NDArray[np.int64]) -> list[Tensor]:
        """Return (H, W, 3) pictures of rows."""
        return list(to_rgb(self.imagery(rows)))

    def imagery(self, rows: NDArray[np.int64]) -> Imagery:
        """Return rows on one grid, in physical units."""
        return to_grid(self.store.images(rows.tolist()))

    def words(self, row: int) -> str:
        """Return the labels of a row."""
        labels = self.store.labels([row])
        if not self.store.classes or not labels.known[0]:
            return "unlabelled"
        hot = labels.multi_hot[0].tolist()
        return ", ".join(c for c, on in zip(self.store.classes, hot, strict=True) if on)

    def varied(self, count: int) -> NDArray[np.int64]:
        """Return some held-out rows whose largest classes differ, each from a place of its own."""
        rows = self.queries
        if not self.store.classes:
            return np.asarray(
                rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
            )
        owner = self.store.fractions(rows.tolist()).numpy().argmax(axis=1)
        order = sorted(range(len(rows)), key=lambda i: (int((owner[:i] == owner[i]).sum()), i))
        chosen: list[int] = []
        places: set[str] = set()
        for i in order:
            place = str(self.store.locations[rows[i]])
            if place not in places and len(chosen) < count:
                places.add(place)
                chosen.append(i)
        chosen.sort(key=lambda i: (int(owner[i]), i))
        return np.asarray(rows[chosen])


def find_scenes(record: Record, store: str | None, count: int) -> Scenes | str:
    """Return held-out and training scenes of a run, or why there are none.

    Args:
        record: Of the run.
        store: Where its store is now, if not where it was.
        count: At most so many of either.
    """
    path = Path(store) if store is not None else _store_of(record)
    paired = record.setting("data", "views") == "sensors"
    try:
        found = open_pair(path)[0] if paired else Store(path)
        known = found.labels(range(len(found))).known.numpy()
    except EofmError as error:
        return f"the store is not there: {error.problem} ({path}); --store says where it is"
    share, seed = float(record.setting("data", "holdout")), int(record.setting("data", "seed"))
    outside = held_out(found.locations.tolist(), share, seed)
    usable = known if found.classes else np.ones_like(known)
    queries = _some(np.flatnonzero(outside & usable), count, seed)
    reference = _some(np.flatnonzero(~outside & usable), count, seed + 1)
    if min(len(queries), len(reference)) < 4:
        return "there are too few held-out scenes to show"
    return Scenes(found, queries, reference)


def _store_of(record: Record) -> Path:
    said = record.setting("data", "store")
    if said is not None:
        return Path(said)
    world = Path(record.setting("data", "world"))
    if record.setting("data", "views") == "sensors":
        return world / "stores"
    return world / f"store-{record.setting('data', 'sensor')}"


def _some(rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def find_encoders(record: Record) -> dict[str, Encoder]:
    """Return the encoders a run has so far: of its exports, or of its last checkpoint."""
    made: dict[str, Encoder] = {}
    for name in ("init", "student", "teacher"):
        try:
            made[_SHORT.get(name, name)] = load_encoder(record.folder.export / name)
        except WeightsError:
            continue
    if "student" not in made and record.folder.checkpoint.is_file():
        try:
            for name in ("student", "teacher"):
                made[f"{name}, last checkpoint"] = from_checkpoint(record.folder.checkpoint, name)
        except WeightsError:
            return made
    return made


# ------------------------------------------------------------------------------ what is seen


def patch_colours(encoder: Encoder, imagery: Imagery) -> Tensor:
    """Return the three principal components of all patches as colours, (B, rows, columns, 3).

    The components are those of all images together, so that a colour means the same in each; each
    is stretched between its 2nd and 98th percentile.

    Args:
        encoder: Its last layer; of a network whose last map is tiny, the last stage that is not.
        imagery: B scenes.
    """
    tokens, grid = _patches(encoder, imagery)
    flat = tokens.flatten(0, 1).double()
    flat = flat - flat.mean(dim=0)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    parts = flat @ directions[:3].T
    if parts.shape[1] < 3:
        parts = functional.pad(parts, (0, 3 - parts.shape[1]))
    low, high = torch.quantile(parts, parts.new_tensor([0.02, 0.98]), dim=0)
    colours: Tensor = ((parts - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return colours.view(len(tokens), *grid, 3)


def _patches(encoder: Encoder, imagery: Imagery) -> tuple[Tensor, tuple[int, int]]:
    """Return (B, P, D) and the rows and columns of P."""
    trunk = encoder.trunk
    if min(trunk.grid) >= _FEWEST_CELLS or trunk.prefix or trunk.depth < 2:
        return encoder.features(imagery, (CHECKED,)), trunk.grid
    pixels = encoder.preprocess(imagery, waivers=(CHECKED,))
    with torch.no_grad():
        layers = trunk.get_intermediate_layers(pixels, range(trunk.depth), reshape=True)
    maps: list[Tensor] = [layer for layer in layers if isinstance(layer, Tensor)]
    fine = [each for each in maps if min(each.shape[2:]) >= _FEWEST_CELLS]
    deepest = (fine or maps)[-1]
    return deepest.flatten(2).transpose(1, 2), (deepest.shape[2], deepest.shape[3])


def nearest(
    encoder: Encoder, scenes: Scenes, rows: NDArray[np.int64], count: int
) -> list[list[int]]:
    """Return the rows of the training scenes nearest to each of some rows, by cosine.

    Args:
        encoder: Embeds.
        scenes: Has the training scenes.
        rows: To look up.
        count: Neighbours of each.
    """
    queries = functional.normalize(embed_rows(encoder, scenes.store, rows.tolist()), dim=1)
    others = functional.normalize(
        embed_rows(encoder, scenes.store, scenes.reference.tolist()), dim=1
    )
    index = (queries @ others.T).topk(min(count, len(others)), dim=1).indices
    return [scenes.reference[row].tolist() for row in index.numpy()]


def by_labels(scenes: Scenes, count: int) -> NDArray[np.int64]:
    """Return held-out rows in the order of their label sets: alike scenes become neighbours."""
    rows = scenes.queries[:count]
    hot = scenes.store.labels(rows.tolist()).multi_hot.numpy().astype(int)
    often = np.argsort(-np.abs(hot.mean(axis=0) - 0.5), kind="stable")  # dividing classes last
    keys = [hot[:, c] for c in often]
    return rows[np.lexsort(keys)]


def similarities(
    encoders: Mapping[str, Encoder], scenes: Scenes, rows: NDArray[np.int64], kind: LabelSimilarity
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the label similarity (N, N) of rows, and the cosines of each encoder.

    Args:
        encoders: By name.
        scenes: Has the labels.
        rows: N of them.
        kind: Similarity of label sets.
    """
    labels = scenes.store.labels(rows.tolist())
    truth = label_similarity(labels.multi_hot, labels.multi_hot, kind)
    made = {}
    for name, encoder in encoders.items():
        unit = functional.normalize(embed_rows(encoder, scenes.store, rows.tolist()), dim=1)
        made[name] = unit @ unit.T
    return truth, made
