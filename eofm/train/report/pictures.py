"""Held-out scenes as the encoders of a run embed them: patches, neighbours, similarities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from eofm.loading.pairs import open_pair
from eofm.method import LabelSimilarity, label_similarity
from eofm.report.pages import Block, Gallery, Paragraph, Picture, Sheet
from eofm.report.sheets import FIXED, composite_for, heat, stretches, to_rgb
from eofm.store.choice import held_out
from eofm.store.reader import Store
from eofm.train.before.demo import demo_path
from eofm.train.config import DataConfig
from eofm.train.evaluate import embed_rows
from eofm.train.monitor.held_out import some_rows
from eofm.train.monitor.measures import label_correlation
from eofm.train.report.curves import RunRecord
from eofm.weights.checkpoint import from_checkpoint
from eofm.weights.encoder import Encoder, load_encoder

_SHORT: Final = {"init": "initialisation"}
_ROWS: Final = 6
_NEIGHBOURS: Final = 6
_MATRIX: Final = 96
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

    def pictures(self, rows: Sequence[int], words: str, like: str = "") -> list[Picture]:
        """Return pictures of rows, with their labels below; one with its own stretch says so.

        Args:
            rows: Of the store.
            words: What they are.
            like: Labels that give a picture a frame, if they are exactly its own.
        """
        imagery = self.imagery(rows)
        composite = composite_for(imagery.spec)
        stretch = stretches(imagery, composite=composite)
        rgb = to_rgb(imagery, composite=composite, stretch=stretch)
        made = []
        for row, pixels, one in zip(rows, rgb, stretch, strict=True):
            labels = label_words(self.store, row)
            own = "" if one == FIXED else f" ({one.words(composite)})"
            framed = labels == like and labels != "unlabelled"
            made.append(Picture(pixels.numpy(), words, labels + own, framed))
        return made

    def imagery(self, rows: Sequence[int]) -> Imagery:
        """Return rows on one grid, in physical units."""
        return to_grid(self.store.images(list(rows)))

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


def label_words(store: Store, row: int) -> str:
    """Return the labels of a row of a store."""
    labels = store.labels([row])
    if not store.classes or not labels.known[0]:
        return "unlabelled"
    hot = labels.multi_hot[0].tolist()
    return ", ".join(c for c, on in zip(store.classes, hot, strict=True) if on)


def find_scenes(record: RunRecord, store: str | None, count: int) -> Scenes | str:
    """Return held-out and training scenes of a run, or why there are none.

    Args:
        record: Of the run.
        store: Where its store is now, if not where it was.
        count: At most so many of either.
    """
    share, seed = record.setting("data", "holdout"), record.setting("data", "seed")
    path = Path(store) if store is not None else _store_of(record)
    if path is None or share is None or seed is None:
        return "the settings do not say where the store is, or which scenes were held out"
    paired = record.setting("data", "views") == "sensors"
    try:
        found = open_pair(path)[0] if paired else Store(path)
        known = found.labels(range(len(found))).known.numpy()
    except EofmError as error:
        return f"the store is not there: {error.problem} ({path}); --store says where it is"
    outside = held_out(found.locations.tolist(), float(share), int(seed))
    usable = known if found.classes else np.ones_like(known)
    queries = some_rows(np.flatnonzero(outside & usable), count, int(seed))
    reference = some_rows(np.flatnonzero(~outside & usable), count, int(seed) + 1)
    if min(len(queries), len(reference)) < 4:
        return "there are too few held-out scenes to show"
    return Scenes(found, queries, reference)


def _store_of(record: RunRecord) -> Path | None:
    """Return where the settings say the store is; None if they do not."""
    said, made = record.setting("data", "store"), record.setting("data", "world")
    if said is not None:
        return Path(said)
    if made is None:
        return None
    views, sensor = record.setting("data", "views"), record.setting("data", "sensor")
    return demo_path(DataConfig(world=made, views=views, sensor=sensor))


def find_encoders(record: RunRecord) -> dict[str, Encoder]:
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


# ----------------------------------------------------------------------------------- as blocks


def patches(encoders: Mapping[str, Encoder], scenes: Scenes) -> tuple[Block, ...]:
    """Return pixels beside the patch tokens of each encoder.

    Args:
        encoders: By name.
        scenes: To show.
    """
    rows = scenes.varied(_ROWS).tolist()
    imagery = scenes.imagery(rows)
    colours = {name: patch_colours(encoder, imagery) for name, encoder in encoders.items()}
    lines = tuple(
        (pixels, *(Picture(c[i].numpy(), f"patches, {name}") for name, c in colours.items()))
        for i, pixels in enumerate(scenes.pictures(rows, "pixels"))
    )
    sizes = ", ".join(f"{name} {c.shape[1]} x {c.shape[2]}" for name, c in colours.items())
    text = (
        f"Pixels: {composite_for(imagery.spec).caption}. Beside them the patch tokens ({sizes}): "
        "their first three principal components, of all scenes shown together, as red, green and "
        "blue. Patches of one colour are alike to the encoder; colours of two encoders cannot be "
        "compared."
    )
    return Paragraph(text), Sheet(("pixels", *colours), lines)


def neighbours(name: str, encoder: Encoder, scenes: Scenes) -> tuple[Block, ...]:
    """Return held-out scenes, and the training scenes that are nearest to them.

    Args:
        name: Of the encoder.
        encoder: Embeds.
        scenes: To show.
    """
    rows = scenes.varied(_ROWS)
    lines = tuple(
        (
            *scenes.pictures([row], "query"),
            *scenes.pictures(near, "neighbour", like=label_words(scenes.store, row)),
        )
        for row, near in zip(
            rows.tolist(), nearest(encoder, scenes, rows, _NEIGHBOURS), strict=True
        )
    )
    text = (
        f"Left: held-out scenes. Beside each the nearest of {len(scenes.reference)} training "
        f"scenes, by the cosine of the {name}'s embeddings, nearest first; all of other places. "
    )
    if scenes.store.classes:
        text += "A green frame: exactly the same classes."
    heads = ("held-out scene", *(f"nearest {i + 1}" for i in range(_NEIGHBOURS)))
    return Paragraph(text), Sheet(heads, lines)


def matrices(
    encoders: Mapping[str, Encoder], scenes: Scenes, kind: LabelSimilarity
) -> tuple[Block, ...]:
    """Return the similarity of labels beside that of embeddings; nothing without labels.

    Args:
        encoders: By name.
        scenes: To show.
        kind: Similarity of label sets.
    """
    if not scenes.store.classes:
        return ()
    rows = by_labels(scenes, _MATRIX)
    truth, cosines = similarities(encoders, scenes, rows, kind)
    made = [_matrix(f"labels ({kind})", truth, "0 dark, 1 light")]
    for name, cosine in cosines.items():
        off = cosine[~torch.eye(len(cosine), dtype=torch.bool)]
        low, high = (float(v) for v in torch.quantile(off, off.new_tensor([0.02, 0.98])))
        shown = (cosine - low) / max(high - low, 1e-9)
        order = _correlation(cosine, truth)
        made.append(_matrix(name, shown, f"cosine {low:.2f} to {high:.2f}; {order}"))
    text = (
        f"{len(rows)} held-out scenes in rows and columns, ordered by their classes. Where the "
        "embedding follows the labels, its pattern is that of the first square."
    )
    return Paragraph(text), Gallery(tuple(made))


def _matrix(name: str, values: Tensor, words: str) -> Picture:
    return Picture(heat(values), f"similarity, {name}", f"{name}: {words}")


def _correlation(cosine: Tensor, truth: Tensor) -> str:
    # unit vectors with these cosines: the measure takes embeddings
    values, vectors = torch.linalg.eigh(cosine.double())
    embedding = vectors * values.clamp_min(0).sqrt()
    return f"Spearman {label_correlation(embedding, truth):.2f}"
