"""What a run ends with: a table, the figures and a machine-readable record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from eofm.data.epochs import held_out
from eofm.data.pack import Store
from eofm.errors import LabelError
from eofm.figures import composite_of, to_rgb
from eofm.imagery import Imagery
from eofm.metrics import average_precision
from eofm.models.encoder import Encoder
from eofm.nearest import Distance, knn_probe
from eofm.probe import Labelled, Scaling, linear_probe
from eofm.softcon import keep_tokens
from eofm.train import figures
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.folder import RunFolder
from eofm.train.module import PretrainModule
from eofm.train.monitor import ProbeScore, dominant_class, embed_rows

SHEET_ROWS: Final = 5
NEIGHBOURS: Final = 20
# With fewer training locations than this, one of them is too much to set aside for validation.
FEW_PLACES: Final = 5
# Fewer held-out scenes than this say little; the table admits it.
FEW_SCENES: Final = 50


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Args:
        text: The table, as printed.
        scores: One per encoder, the initialisation first; empty where nothing could be probed.
        seconds: Of training.
    """

    text: str
    scores: tuple[ProbeScore, ...]
    seconds: float

    def describe(self) -> str:
        """Return the table."""
        return self.text


def write_report(
    folder: RunFolder,
    store: Store,
    data: StoreDataModule,
    module: PretrainModule,
    encoders: Mapping[str, Encoder],
    config: PretrainConfig,
    seconds: float,
) -> Report:
    """Probe the encoders, draw the figures, and write report.md and results.json.

    Args:
        folder: Of the run.
        store: What it trained on.
        data: Which scenes are held out.
        module: The trained module, for the sheet of views.
        encoders: Name -> encoder, the initialisation first.
        config: All settings.
        seconds: Of training.
    """
    features = {name: _features(encoder, store, data) for name, encoder in encoders.items()}
    problem = _why_no_probe(store, data)
    scores: tuple[ProbeScore, ...] = ()
    if problem is None:
        try:
            scores = tuple(
                probe(name, train, test, store, data, config.data.seed)
                for name, (train, test) in features.items()
            )
        except LabelError as error:  # labels too few or too equal to probe: the run is not lost
            problem = error.problem
    text = _table(scores, problem, store, data, config, seconds)
    folder.write("report.md", text + "\n")
    record = {
        "synthetic": store.synthetic,
        "sensor": store.spec.sensor,
        "classes": store.classes,
        "train_scenes": len(data.train_rows),
        "held_out_scenes": len(data.test_rows),
        "probe_failed": problem,
        "scores": [asdict(score) for score in scores],
        "train_seconds": round(seconds, 1),
    }
    folder.write("results.json", json.dumps(record, indent=2) + "\n")
    if config.run.figures:
        _draw(folder, store, data, module, features)
    return Report(text, scores, seconds)


# ---------------------------------------------------------------------------------- probe


def _features(encoder: Encoder, store: Store, data: StoreDataModule) -> tuple[Tensor, Tensor]:
    empty = torch.empty(0, encoder.dim)
    rows = (data.probe_rows, data.test_rows)
    train, test = (embed_rows(encoder, store, r.tolist()) if len(r) else empty for r in rows)
    return train, test


def _why_no_probe(store: Store, data: StoreDataModule) -> str | None:
    """Return why the held-out scenes cannot be probed, or None if they can."""
    if not store.classes:
        return "the store has no labels"
    if len(data.probe_rows) < 4 or not len(data.test_rows):
        return (
            f"{len(data.probe_rows)} labelled training scenes and {len(data.test_rows)} labelled "
            "held-out scenes are too few"
        )
    train, test = (
        store.labels(rows.tolist()).multi_hot.mean(dim=0)
        for rows in (data.probe_rows, data.test_rows)
    )
    # any score of a class that all or none of the scenes have would be its frequency, whatever
    # the encoder is
    if not ((train > 0) & (train < 1) & (test > 0) & (test < 1)).any():
        return (
            "there is no class that some training scenes and some held-out scenes have, and some "
            "of each have not"
        )
    return None


def probe(
    name: str, train: Tensor, test: Tensor, store: Store, data: StoreDataModule, seed: int
) -> ProbeScore:
    """Fit probes on training locations, score them on held-out locations.

    The linear probe's strength is chosen on a fifth of the training locations (of the training
    scenes where there are few locations), never on the held-out ones.

    Args:
        name: Of the encoder.
        train: Embeddings of `data.probe_rows`.
        test: Embeddings of `data.test_rows`.
        store: Has the labels.
        data: Has the rows.
        seed: Of the choice of validation locations.
    """
    labels = store.labels(data.probe_rows.tolist()).multi_hot.long()
    target = store.labels(data.test_rows.tolist()).multi_hot.long()
    places = store.locations[data.probe_rows].tolist()
    aside = torch.from_numpy(held_out(places, 0.2, seed + 1))
    if len(set(places)) < FEW_PLACES:  # no location can be spared: spare every fifth scene
        aside = torch.arange(len(labels)) % 5 == 0
    count = len(store.classes)
    fitted = linear_probe(
        Labelled(train[~aside], labels[~aside], count),
        Labelled(train[aside], labels[aside], count),
        test,
        choice=lambda logits, y: average_precision(logits, y).macro,
        scaling=Scaling.STANDARD,
    )
    ap = average_precision(fitted.scores, target)
    k = min(NEIGHBOURS, len(train))
    votes = knn_probe(Labelled(train, labels, count), test, k=k, metric=Distance.COSINE)
    knn = average_precision(votes.scores, target)
    return ProbeScore(name, ap.macro, ap.micro, knn.macro, knn.micro, ap.per_class, train.shape[1])


# ---------------------------------------------------------------------------------- table


def _table(
    scores: Sequence[ProbeScore],
    problem: str | None,
    store: Store,
    data: StoreDataModule,
    config: PretrainConfig,
    seconds: float,
) -> str:
    kind = "synthetic scenes (not observed)" if store.synthetic else "scenes"
    lines = [
        f"# {config.run.out}",
        "",
        f"{config.model.architecture} on {store.spec.sensor}, {len(data.train_rows)} {kind}, "
        f"{config.optim.epochs} epochs in {seconds:.0f} s.",
        "",
    ]
    if problem is not None:
        return "\n".join([*lines, f"No linear probe: {problem}."])
    lines += [
        f"Frozen embeddings, {len(data.test_rows)} held-out {kind} of "
        f"{len(set(store.locations[data.test_rows].tolist()))} locations. Average precision (mAP), "
        f"x 100, of a linear probe and of the {NEIGHBOURS} nearest neighbours (cosine):",
        "",
        "| encoder | linear, macro | linear, micro | kNN, macro | kNN, micro |",
        "|---|---:|---:|---:|---:|",
    ]
    for score in scores:
        values = (score.ap_macro, score.ap_micro, score.knn_macro, score.knn_micro)
        lines.append(f"| {score.name} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |")
    lines += ["", "| linear, by class | " + " | ".join(s.name for s in scores) + " |"]
    lines += ["|---|" + "---:|" * len(scores)]
    for i, name in enumerate(store.classes):
        cells = [_percent(score.per_class[i]) for score in scores]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if len(data.test_rows) < FEW_SCENES:
        lines += ["", f"{len(data.test_rows)} held-out scenes are few: differences are noise."]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "does not occur" if value is None else f"{100 * value:.1f}"


# -------------------------------------------------------------------------------- figures


def _draw(
    folder: RunFolder,
    store: Store,
    data: StoreDataModule,
    module: PretrainModule,
    features: Mapping[str, tuple[Tensor, Tensor]],
) -> None:
    made_up = "synthetic scenes, " if store.synthetic else ""
    curves = figures.loss_curves(
        figures.read_metrics(folder.metrics), f"SoftCon pretraining, {made_up}{store.spec.sensor}"
    )
    figures.save(curves, folder.figures / "loss.png")
    if len(data.test_rows) >= 3 and store.classes:
        owner = dominant_class(store.fractions(data.test_rows.tolist()).numpy())
        figure = figures.embedding_map(
            {name: test for name, (_, test) in features.items() if name != "teacher"},
            owner.tolist(),
            store.classes,
            f"Embeddings of {len(owner)} held-out {made_up or 'scenes, '}first two principal "
            "components",
        )
        figures.save(figure, folder.figures / "embedding.png")
    figures.save(_sheet(store, data, module, made_up), folder.figures / "views.png")


def _sheet(store: Store, data: StoreDataModule, module: PretrainModule, made_up: str) -> Figure:
    """Draw a few training scenes, or places in two seasons, as the two networks see them."""
    items = data.batches().pool.items(0, data.seed)
    items = items[np.unique(np.linspace(0, len(items) - 1, SHEET_ROWS).astype(int))]
    rows, seasons = items[:, 0], items.T.ravel()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        imagery, first, second = module.two_views(store.images(seasons.tolist()))
    trunk = module.method.student.trunk
    ratio, masks = module.config.method.mask_ratio, torch.Generator().manual_seed(0)
    keep = keep_tokens(len(rows), trunk.tokens, ratio, masks)
    unit = module.recipe.unit

    def pictures(pixels: Tensor, valid: Tensor) -> list[Tensor]:
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        spec = module.preprocess.plan.target
        view = Imagery(pixels, replace(spec, size=size), valid)
        return list(to_rgb(view, unit))

    full = torch.ones(len(rows), *first.shape[2:], dtype=torch.bool)
    one, two = pictures(first, full), pictures(second, full)
    scenes = pictures(imagery.pixels, imagery.valid)
    columns = {"scene, normalised": scenes[: len(rows)]}
    if len(seasons) > len(rows):
        columns["another season of the place"] = scenes[len(rows) :]
    columns["view 1"] = one
    if keep is not None:
        patch = first.shape[2] // trunk.grid[0]  # type: ignore[attr-defined]
        columns[f"view 1 as the student sees it ({ratio:.0%} dropped)"] = [
            figures.draw_mask(image, kept, patch) for image, kept in zip(one, keep, strict=True)
        ]
    composite = composite_of(store.spec.sensor)
    return figures.view_sheet(
        {**columns, "view 2, whole, for the teacher": two},
        [_caption(store, int(row)) for row in rows],
        f"{made_up.capitalize()}{store.spec.sensor}: {composite.caption}",
    )


def _caption(store: Store, row: int) -> str:
    labels = store.labels([row])
    present = [c for c, on in zip(store.classes, labels.multi_hot[0].tolist(), strict=True) if on]
    return ", ".join(present) if labels.known[0] else "unlabelled"
