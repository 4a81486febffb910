"""Figures of a run: its numbers as curves, and held-out scenes as its encoders embed them.

A run can be read while it trains, after it failed, or if another version wrote it. Only the
settings are required; anything else that is missing is omitted from the page.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import to_grid
from eofm.contract.recipe import CHECKED
from eofm.errors import DataError, EofmError, WeightsError
from eofm.formats.foreign import opened
from eofm.formats.text import read_json, read_yaml
from eofm.loading.feeder import open_pair
from eofm.method import LabelSimilarity, label_similarity
from eofm.report.pages import Block, Gallery, Paragraph, Picture, Sheet
from eofm.report.plots import LinePanel, StepCurve
from eofm.report.sheets import FIXED, composite_for, heat, stretches, to_rgb
from eofm.store.choice import held_out
from eofm.store.reader import Store
from eofm.train.config import DataConfig, demo_path
from eofm.train.evaluate import embed_rows
from eofm.train.monitor.online import label_correlation, some_rows
from eofm.train.monitor.run_log import (
    EVALUATIONS,
    FAILURE,
    MONITOR_PREFIX,
    NOT_A_VALUE,
    STEPS,
    THROUGHPUT,
    read_rows,
)
from eofm.train.run_folder import RunFolder
from eofm.weights.encoder import Encoder, load_encoder
from eofm.weights.load import from_checkpoint

__all__ = [
    "DAMAGED",
    "TITLES",
    "Curves",
    "RunRecord",
    "Scenes",
    "by_labels",
    "collapse_panels",
    "constants",
    "evaluation_panels",
    "find_encoders",
    "find_scenes",
    "label_words",
    "matrices",
    "nearest",
    "neighbours",
    "overlaid",
    "patch_colours",
    "patches",
    "read_curves",
    "read_record",
    "similarities",
    "throughput_panels",
    "title_of",
    "training_panels",
]

# ------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class RunRecord:
    """Everything read from the folder of a run.

    Args:
        folder: Folder of the run.
        config: Settings by group and key.
        environment: Versions, command, machine; empty if they were not written yet.
        steps: Values logged by the method, by name: steps and values.
        evaluations: Measurements on held-out scenes, likewise.
        throughput: Time spent by activity, likewise.
        results: Final results; empty before the end.
        failure: Why the run failed; empty if it did not.
        finished: The run is complete.
        quiet: Seconds since the last step was written.
    """

    folder: RunFolder
    config: dict[str, dict[str, Any]]
    environment: dict[str, Any]
    steps: dict[str, StepCurve]
    evaluations: dict[str, StepCurve]
    throughput: dict[str, StepCurve]
    results: dict[str, Any]
    failure: dict[str, Any]
    finished: bool
    quiet: float

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.path.resolve().name

    @property
    def last_step(self) -> int:
        """Last step logged."""
        return int(self.steps["loss"][0][-1]) if "loss" in self.steps else 0

    @property
    def state(self) -> str:
        """State of the run, as text."""
        if self.finished:
            return f"finished, {self.last_step} steps"
        if self.failure:
            return f"ended at step {self.failure.get('step')}: {self.failure.get('problem')}"
        if not self.last_step:
            return "has not taken a step yet"
        return f"not finished; step {self.last_step} was written {_ago(self.quiet)} ago"

    def setting(self, group: str, key: str, default: object = None) -> Any:  # noqa: ANN401
        """Return a setting, or the default if a run of another version lacks it."""
        return self.config.get(group, {}).get(key, default)

    def text(self, name: str) -> str:
        """Return the content of a text file of the run, empty if it does not exist."""
        file = self.folder.path / name
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def read_record(path: Path) -> RunRecord:
    """Read the folder of a run.

    Raises:
        DataError: If the folder is not that of a run.
    """
    folder = RunFolder(path)
    config = read_yaml(
        folder.config,
        DataError,
        "this is not the folder of a run",
        remedy="name what `eofm pretrain` wrote: runs/<name>",
    )
    if not isinstance(config, dict) or not all(isinstance(v, dict) for v in config.values()):
        raise DataError("these are not the settings of a run", where=folder.config)
    steps, quiet = path / STEPS, 0.0
    if steps.is_file():
        quiet = max(time.time() - steps.stat().st_mtime, 0.0)
    return RunRecord(
        folder=folder,
        config=config,
        environment=_json(path / "environment.json"),
        steps=read_curves(steps),
        evaluations=read_curves(path / EVALUATIONS),
        throughput=read_curves(path / THROUGHPUT),
        results=_results(path / "results.json"),
        failure=_json(path / FAILURE),
        finished=folder.done.is_file(),
        quiet=quiet,
    )


# Stands for results of a run that were edited or damaged.
DAMAGED: Final = "damaged"


def _results(path: Path) -> dict[str, Any]:
    """Return the results of a run; only `DAMAGED` if the checksum of the file differs."""
    content, right = opened(_json(path))
    if right is None and path.is_file():  # version 0.1 wrote scores without checksum and verdict
        right = "scores" in content and "verdict" not in content
    return {DAMAGED: True} if right is False else content


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def read_curves(path: Path) -> dict[str, StepCurve]:
    """Return each logged number of a file as steps and values; none if there is no such file.

    Args:
        path: metrics.jsonl, monitor.jsonl or pace.jsonl.
    """
    columns: dict[str, list[tuple[float, float]]] = {}
    for row in read_rows(path):
        for name, value in row.items():
            if name not in NOT_A_VALUE:
                columns.setdefault(name, []).append((float(row["step"]), float(value)))
    return {name: _curve(points) for name, points in columns.items()}


def _curve(points: list[tuple[float, float]]) -> StepCurve:
    steps, values = np.array(points, dtype=np.float64).T
    return steps, values


def _ago(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} seconds"


Curves = Mapping[str, StepCurve]

# Titles of logged measures; a measure has the same title before and after training.
TITLES: Final[Mapping[str, str]] = {
    "loss": "Loss",
    "own_probability": "Probability of the own image",
    "lr": "Learning rate",
    "momentum": "Momentum of the teacher",
    "knn": "kNN, average precision, macro",
    "linear": "Linear probe, average precision, macro",
    "effective_rank": "Effective rank: directions in use (arXiv 2210.02885)",
    "within_class_rank": "Effective rank within a class, mean over classes",
    "embedding_std": "Spread (1 fills the sphere, 0 is one point)",
    "alignment": "Alignment: distance of two views (arXiv 2005.10242)",
    "uniformity": "Uniformity: lower is more even (arXiv 2005.10242)",
    "label_correlation": "Rank correlation of cosine and label similarity",
}
_TERMS: Final[Mapping[str, str]] = {
    "hard": "hard term",
    "soft": "soft term",
    "soft_excess": "soft term above its floor",
}
_FIRST: Final = frozenset({"loss", *_TERMS, "own_probability", "embedding_std", "lr", "momentum"})
_SCORES: Final[Mapping[str, str]] = {"knn": "kNN", "linear": "linear probe"}
_MEASURES: Final = (
    *("embedding_std", "effective_rank", "within_class_rank"),
    *("alignment", "uniformity", "label_correlation"),
)


def title_of(name: str) -> str:
    """Return the title of a logged measure, or its name if it has no title.

    Args:
        name: As in metrics.csv or monitor.csv: `loss`, `monitor/knn`, `monitor/before/knn`.
    """
    rest = name.removeprefix(MONITOR_PREFIX)
    plain = rest.removeprefix("before/")
    title = TITLES.get(plain, plain)
    return title if plain == rest else f"{title}: the data of the stage before"


def training_panels(steps: Curves, *, columns: int | None, collapse: float) -> list[LinePanel]:
    """Return panels of the values that the method logged at every step.

    Args:
        steps: Curves by name.
        columns: Number of candidate images (batch and queue); None if unknown.
        collapse: Spread below which the run counts as collapsed.
    """
    made = [LinePanel("Loss", _chosen(steps, ["loss"]))]
    if any(name in steps for name in _TERMS):
        terms = {words: steps[name] for name, words in _TERMS.items() if name in steps}
        made.append(LinePanel("Terms of the loss", terms))
    if "own_probability" in steps:
        chance = {f"1 / {columns}, by chance": 1 / columns} if columns else {}
        own = _chosen(steps, ["own_probability"])
        made.append(LinePanel("Probability of the own image", own, marks=chance))
    if "embedding_std" in steps:
        spread = _chosen(steps, ["embedding_std"])
        title = "Spread of the projected embedding (1 fills the sphere)"
        made.append(LinePanel(title, spread, marks={"collapse": collapse}, zero=True))
    schedules = _schedules(steps)
    if schedules:
        made.append(LinePanel("Schedules, over their largest value", schedules))
    return made + [LinePanel(title_of(name), _chosen(steps, [name])) for name in _others(steps)]


def constants(steps: Curves) -> str:
    """Return a sentence about logged values that never changed; empty if there are none."""
    same = [n for n, (_, y) in steps.items() if n not in _FIRST and np.ptp(y) == 0]
    return ", ".join(f"{name} {steps[name][1][0]:.4g}" for name in same)


def _others(steps: Curves) -> list[str]:
    return [name for name, (_, y) in steps.items() if name not in _FIRST and np.ptp(y) > 0]


def _chosen(curves: Curves, names: Sequence[str]) -> dict[str, StepCurve]:
    return {name: curves[name] for name in names if name in curves}


def _schedules(steps: Curves) -> dict[str, StepCurve]:
    shown = {}
    if "lr" in steps:
        shown["learning rate"] = steps["lr"]
    if "momentum" in steps:
        shown["1 - momentum"] = (steps["momentum"][0], 1 - steps["momentum"][1])
    return {
        f"{name}, at most {np.abs(y).max():.3g}": (x, y / (np.abs(y).max() or 1))
        for name, (x, y) in shown.items()
    }


def evaluation_panels(evaluations: Curves) -> list[LinePanel]:
    """Return panels of measurements on held-out scenes during training.

    Args:
        evaluations: Curves by name, as in monitor.csv.
    """
    known = {name.removeprefix(MONITOR_PREFIX): curve for name, curve in evaluations.items()}
    known = {name: curve for name, curve in known.items() if np.isfinite(curve[1]).any()}
    scores = {
        words + suffix: (known[prefix + name][0], 100 * known[prefix + name][1])
        for prefix, suffix in (("", ""), ("before/", ", the data before"))
        for name, words in _SCORES.items()
        if prefix + name in known
    }
    made = [LinePanel("Average precision x 100, macro", scores)] if scores else []
    for name in _MEASURES:
        same = _chosen(known, [name, f"before/{name}"])
        if same:
            made.append(
                LinePanel(TITLES[name], same, zero=name in {"effective_rank", "embedding_std"})
            )
    return made


def collapse_panels(evaluations: Curves) -> list[LinePanel]:
    """Return the panels that show a collapse: spread and effective rank of the encoder.

    Args:
        evaluations: Curves by name, as in monitor.csv.
    """
    made = []
    for name, title in (
        ("embedding_std", "Spread of the encoder's embedding, held-out scenes (0 is collapse)"),
        ("effective_rank", "Effective rank of the encoder's embedding, held-out scenes"),
    ):
        curve = evaluations.get(f"{MONITOR_PREFIX}{name}")
        if curve is not None and np.isfinite(curve[1]).any():
            made.append(LinePanel(title, {name: curve}, zero=True))
    return made


def throughput_panels(throughput: Curves) -> list[LinePanel]:
    """Return panels of the time spent by activity.

    Args:
        throughput: Curves by name, as in pace.csv.
    """
    if "pace/seconds" not in throughput:
        return []
    steps, seconds = throughput["pace/seconds"]
    rate = (steps, throughput["pace/scenes"][1] / seconds)
    shares = {
        "waiting for data": (steps, throughput["pace/waited"][1] / seconds),
        "evaluating held-out scenes": (steps, throughput["pace/watching"][1] / seconds),
    }
    return [
        LinePanel("Scenes per second", {"rate": rate}, zero=True),
        LinePanel("Share of the time", shares, zero=True),
    ]


def overlaid(names: Sequence[str], tables: Sequence[Curves]) -> list[LinePanel]:
    """Return a panel per logged measure with the curves of several runs.

    Args:
        names: Names of the runs, all different.
        tables: Curves of each run, by name.
    """
    columns = dict.fromkeys(name for table in tables for name in table)
    return [
        LinePanel(
            title_of(column),
            {n: table[column] for n, table in zip(names, tables, strict=True) if column in table},
        )
        for column in columns
    ]


# ---------------------------------------------------------------- patches, neighbours, similarities

_SHORT: Final = {"init": "initialisation"}
_ROWS: Final = 6
_NEIGHBOURS: Final = 6
_MATRIX: Final = 96
# Smallest useful grid, in cells per side; for smaller ones an earlier layer is drawn.
_FEWEST_CELLS: Final = 6


@dataclass(frozen=True)
class Scenes:
    """Scenes of a store for the pictures.

    Args:
        store: Store of the scenes.
        queries: Rows of held-out locations.
        reference: Rows of training locations.
    """

    store: Store
    queries: NDArray[np.int64]
    reference: NDArray[np.int64]

    def pictures(self, rows: Sequence[int], words: str, like: str = "") -> list[Picture]:
        """Return pictures of rows, captioned with labels and, if separate, the contrast stretch.

        Args:
            rows: Rows of the store.
            words: Description of the pictures.
            like: Labels; a picture with exactly these labels gets a frame.
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
        """Return held-out rows with different largest classes, each from a different place."""
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
        record: Record of the run.
        store: Present path of its store, if it was moved.
        count: Maximum number of each.
    """
    share, seed = record.setting("data", "holdout"), record.setting("data", "seed")
    path = Path(store) if store is not None else _store_of(record)
    if path is None or share is None or seed is None:
        return "the settings do not state where the store is, or which scenes were held out"
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
    """Return the path of the store in the settings; None if they have none."""
    said, made = record.setting("data", "store"), record.setting("data", "world")
    if said is not None:
        return Path(said)
    if made is None:
        return None
    views, sensor = record.setting("data", "views"), record.setting("data", "sensor")
    return demo_path(DataConfig(world=made, views=views, sensor=sensor))


def find_encoders(record: RunRecord) -> dict[str, Encoder]:
    """Return the encoders of a run so far, from its exports or its last checkpoint."""
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


# ------------------------------------------------------------------- patches and neighbours


def patch_colours(encoder: Encoder, imagery: Imagery) -> Tensor:
    """Return the three principal components of all patches as colours, (B, rows, columns, 3).

    The components are computed over all images, so that a colour has the same meaning in each. Each
    component is stretched between its 2nd and 98th percentile.

    Args:
        encoder: Encoder; its last layer is used, or the last stage whose map is not tiny.
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
    """Return patch tokens (B, P, D) and the rows and columns of the P patches."""
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
    """Return the rows of the training scenes nearest to each query row, by cosine similarity.

    Args:
        encoder: Encoder to embed with.
        scenes: Training scenes.
        rows: Query rows.
        count: Neighbours per row.
    """
    queries = functional.normalize(embed_rows(encoder, scenes.store, rows.tolist()), dim=1)
    others = functional.normalize(
        embed_rows(encoder, scenes.store, scenes.reference.tolist()), dim=1
    )
    index = (queries @ others.T).topk(min(count, len(others)), dim=1).indices
    return [scenes.reference[row].tolist() for row in index.numpy()]


def by_labels(scenes: Scenes, count: int) -> NDArray[np.int64]:
    """Return held-out rows sorted by label set, so that similar scenes are adjacent."""
    rows = scenes.queries[:count]
    hot = scenes.store.labels(rows.tolist()).multi_hot.numpy().astype(int)
    often = np.argsort(-np.abs(hot.mean(axis=0) - 0.5), kind="stable")  # dividing classes last
    keys = [hot[:, c] for c in often]
    return rows[np.lexsort(keys)]


def similarities(
    encoders: Mapping[str, Encoder], scenes: Scenes, rows: NDArray[np.int64], kind: LabelSimilarity
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the label similarity (N, N) of rows, and the cosine similarities of each encoder.

    Args:
        encoders: By name.
        scenes: Scenes with labels.
        rows: N rows of the store.
        kind: Similarity of label sets.
    """
    labels = scenes.store.labels(rows.tolist())
    truth = label_similarity(labels.multi_hot, labels.multi_hot, kind)
    made = {}
    for name, encoder in encoders.items():
        unit = functional.normalize(embed_rows(encoder, scenes.store, rows.tolist()), dim=1)
        made[name] = unit @ unit.T
    return truth, made


# ------------------------------------------------------------------------------- page blocks


def patches(encoders: Mapping[str, Encoder], scenes: Scenes) -> tuple[Block, ...]:
    """Return pixels next to the patch tokens of each encoder.

    Args:
        encoders: By name.
        scenes: Scenes to show.
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
    """Return held-out scenes with their nearest training scenes.

    Args:
        name: Name of the encoder.
        encoder: Encoder to embed with.
        scenes: Scenes to show.
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
    """Return label similarities next to embedding similarities; nothing without labels.

    Args:
        encoders: By name.
        scenes: Scenes to show.
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
    # the measure takes embeddings: unit vectors with these cosines
    values, vectors = torch.linalg.eigh(cosine.double())
    embedding = vectors * values.clamp_min(0).sqrt()
    return f"Spearman {label_correlation(embedding, truth):.2f}"
