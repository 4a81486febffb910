"""Final results of a run: a table, figures and a machine-readable record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Unit
from eofm.errors import LabelError
from eofm.formats.foreign import sealed
from eofm.method import keep_tokens
from eofm.probes.bootstrap import FEW_GROUPS, TOO_NARROW, Interval, enough_groups
from eofm.report import output, plots, sheets
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.evaluate import (
    MEASURE,
    NEIGHBOURS,
    ProbeScore,
    ScoreIntervals,
    embed_rows,
    intervals,
    own_starts,
    probe,
    why_no_probe,
    why_no_verdict,
)
from eofm.train.figures import collapse_panels, label_words, read_curves, training_panels
from eofm.train.module import PretrainModule
from eofm.train.monitor.run_log import EVALUATIONS, STEPS, THROUGHPUT
from eofm.train.run_folder import RunFolder
from eofm.weights.encoder import Encoder

if TYPE_CHECKING:
    from eofm.report.output import Figure

__all__ = [
    "CLASS_COLOURS",
    "SHEET_ROWS",
    "Report",
    "principal_plane",
    "verdict_of",
    "write_report",
]


SHEET_ROWS: Final = 5


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Args:
        text: The table, as printed.
        scores: One per encoder, the initialisation first; empty if probing was impossible.
        seconds: Duration of training.
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
        folder: Folder of the run.
        store: Store used for training.
        data: Data with the held-out scenes.
        module: The trained module, for the sheet of views.
        encoders: Name -> encoder, the initialisation first.
        config: All settings.
        seconds: Duration of training in this process.
    """
    past = read_curves(folder.path / THROUGHPUT).get("pace/seconds")
    if past is not None:  # this process may have trained only the last part
        seconds = max(seconds, float(past[1].sum()))
    features = {name: _features(encoder, data) for name, encoder in encoders.items()}
    problem = why_no_probe(store, data.probe_rows.tolist(), data.test_rows.tolist())
    untold = why_no_verdict(data)
    scores: tuple[ProbeScore, ...] = ()
    sure: list[ScoreIntervals] = []
    if problem is None:
        try:
            votes = [
                probe(name, train, test, store, data, config.data.seed)
                for name, (train, test) in features.items()
            ]
        except LabelError as error:  # too few labels or classes to probe: the run is still valid
            problem = error.problem
        else:
            target = store.labels(data.test_rows.tolist()).multi_hot.long()
            scores = tuple(each.score(target) for each in votes)
            sure = intervals(votes, target, store.locations[data.test_rows].tolist())
    verdict = f"No verdict: {problem or untold}."
    if problem is None and untold is None:
        verdict = verdict_of(scores, sure)
    text = "\n\n".join([_table(scores, problem, store, data, config, seconds), verdict])
    folder.write("report.md", text + "\n")
    record = {
        "synthetic": store.synthetic,
        "sensor": store.spec.sensor,
        "classes": store.classes,
        "train_scenes": len(data.train_rows),
        "held_out_scenes": len(data.test_rows),
        "held_out_locations": data.scored_places,
        "probe_failed": problem,
        "scores": [asdict(score) for score in scores],
        "intervals": [asdict(each) for each in sure],
        "intervals_of": MEASURE,
        "verdict": verdict,
        "train_seconds": round(seconds, 1),
    }
    folder.write("results.json", json.dumps(sealed(record), indent=2) + "\n")
    if config.run.figures:
        _draw(folder, store, data, module, features, config)
    return Report(text, scores, seconds)


# ---------------------------------------------------------------------------------- probe


def _features(encoder: Encoder, data: StoreDataModule) -> tuple[Tensor, Tensor]:
    made = []
    for rows in (data.probe_rows, data.test_rows):
        seen, its_rows = data.seen_by(encoder.recipe.sensor, rows)
        empty = torch.empty(0, encoder.dim)
        made.append(embed_rows(encoder, seen, its_rows) if len(rows) else empty)
    return made[0], made[1]


# -------------------------------------------------------------------------------- verdict


def verdict_of(scores: Sequence[ProbeScore], sure: Sequence[ScoreIntervals]) -> str:
    """Return a sentence on whether each student is better than its start, and by how much.

    Args:
        scores: One per encoder, each initialisation before the encoders trained from it.
        sure: Intervals of the scores.
    """
    words = []
    for score, own, start in zip(scores, sure, own_starts([s.name for s in scores]), strict=True):
        if score.name.startswith("student") and own.linear_gain and own.knn_gain:
            gains = {
                "linear probe": (score.ap_micro - scores[start].ap_micro, own.linear_gain),
                "nearest neighbours": (score.knn_micro - scores[start].knn_micro, own.knn_gain),
            }
            words.append(f"The {score.name} {_judgement(gains)}: {_gains(gains)}.")
    where = "95 % intervals over held-out locations; they know nothing of other training seeds."
    return " ".join([*words, f"Points of average precision (micro), {where}"])


def _judgement(gains: Mapping[str, tuple[float, Interval]]) -> str:
    up = [name for name, (_, interval) in gains.items() if interval.low > 0]
    down = [name for name, (_, interval) in gains.items() if interval.high < 0]
    if not up + down:
        return "is not shown to be better than its start"
    if not down and len(up) == len(gains):
        return "is better than its start"
    if not up and len(down) == len(gains):
        return "is worse than its start"
    found = {name: "better" if name in up else "worse" for name in up + down}
    parts = [f"{found.get(name, 'not shown to differ')} by {name}" for name in gains]
    return f"is, compared with its start, {' and '.join(parts)}"


def _gains(gains: Mapping[str, tuple[float, Interval]]) -> str:
    return ", ".join(
        f"{name} {100 * gain:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        for name, (gain, interval) in gains.items()
    )


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
        f"{config.optim.epochs} epochs in {seconds:.0f} s{config.colour_note}.",
        "",
    ]
    if problem is not None:
        return "\n".join([*lines, f"No linear probe: {problem}."])
    lines += [
        f"Frozen embeddings, {len(data.test_rows)} held-out {kind} of "
        f"{data.scored_places} locations. Average precision, "
        f"x 100, of a linear probe and of the {NEIGHBOURS} nearest neighbours (cosine):",
        "",
        "| encoder | linear, micro | linear, macro | kNN, micro | kNN, macro |",
        "|---|---:|---:|---:|---:|",
    ]
    for score in scores:
        values = (score.ap_micro, score.ap_macro, score.knn_micro, score.knn_macro)
        lines.append(f"| {score.name} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |")
    lines += ["", "| linear, by class | " + " | ".join(s.name for s in scores) + " |"]
    lines += ["|---|" + "---:|" * len(scores)]
    for i, name in enumerate(store.classes):
        cells = [_percent(score.per_class[i]) for score in scores]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if enough_groups(data.scored_places) and data.scored_places < FEW_GROUPS:
        lines += ["", f"{data.scored_places} held-out locations are few: {TOO_NARROW}."]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "does not occur" if value is None else f"{100 * value:.1f}"


# -------------------------------------------------------------------------------- figures

# Published palette of Dynamic World (doi 10.1038/s41597-022-01307-4), which users know.
CLASS_COLOURS: Final[Mapping[str, str]] = {
    "water": "#419BDF",
    "trees": "#397D49",
    "grass": "#88B053",
    "flooded vegetation": "#7A87C6",
    "crops": "#E49635",
    "shrub and scrub": "#DFC35A",
    "built": "#C4281B",
    "bare": "#A59B8F",
    "snow and ice": "#B39FE1",
}


def _draw(
    folder: RunFolder,
    store: Store,
    data: StoreDataModule,
    module: PretrainModule,
    features: Mapping[str, tuple[Tensor, Tensor]],
    config: PretrainConfig,
) -> None:
    made_up = "synthetic scenes, " if store.synthetic else ""
    remedy = "check free space and permissions; the run itself is complete"
    steps = read_curves(folder.path / STEPS)
    panels = training_panels(
        steps,
        columns=config.columns,
        collapse=config.monitor.collapse_std,
    )
    # spread and rank of the encoder are plotted side by side
    last = panels[len(panels) // 2 * 2 :]
    encoder = collapse_panels(read_curves(folder.path / EVALUATIONS))
    panels = [*panels[: len(panels) - len(last)], *encoder, *last]
    figure = plots.lines(panels, f"Pretraining, {made_up}{store.spec.sensor}")
    output.save(figure, folder.figures / "loss.png", remedy)
    if len(data.test_rows) >= 3 and store.classes:
        owner = store.fractions(data.test_rows.tolist()).numpy().argmax(axis=1)
        figure = plots.scatter(
            {
                name: principal_plane(test)
                for name, (_, test) in features.items()
                if "teacher" not in name
            },
            owner.tolist(),
            store.classes,
            CLASS_COLOURS,
            title=f"Embeddings of {len(owner)} held-out {made_up or 'scenes, '}first two principal "
            "components",
            legend_title="largest class",
            axis_labels=("first principal component", "second principal component"),
        )
        output.save(figure, folder.figures / "embedding.png", remedy)
    output.save(_sheet(store, data, module, made_up), folder.figures / "views.png", remedy)


def principal_plane(embedding: Tensor) -> NDArray[np.float64]:
    """Return (N, 2): L2-normalised embeddings on their first two principal components.

    Signs are fixed (the largest coordinate of each axis is positive), so figures are reproducible.

    Args:
        embedding: (N, D).
    """
    x = torch.nn.functional.normalize(embedding.double(), dim=1)
    x = x - x.mean(dim=0)
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    plane = (left * values)[:, :2]
    if plane.shape[1] < 2:
        plane = torch.nn.functional.pad(plane, (0, 2 - plane.shape[1]))
    sign = torch.sign(plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)))
    signed: NDArray[np.float64] = (
        plane * torch.where(sign == 0, torch.ones_like(sign), sign)
    ).numpy()
    return signed


def _sheet(store: Store, data: StoreDataModule, module: PretrainModule, made_up: str) -> Figure:
    """Draw the inputs of both networks for a few training scenes, or places in two seasons."""
    items = data.batches().pool.items(0, data.seed)
    items = items[np.unique(np.linspace(0, len(items) - 1, SHEET_ROWS).astype(int))]
    rows, seasons = items[:, 0], items.T.ravel()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        imagery, first, second = module.two_views(data.images(seasons.tolist()))
    trunk, second_sensor = module.trunk(), module.second_sensor
    ratio, masks = module.config.method.mask_ratio, torch.Generator().manual_seed(0)
    method = module.config.method
    shown_mask = method.terms is None or method.contrasts  # other terms have separate masks
    keep = keep_tokens(len(rows), trunk.tokens, ratio, masks) if shown_mask else None
    mine = module.preprocess.plan.target, module.recipe.unit
    theirs = (
        mine if second_sensor is None else (second_sensor.plan.target, second_sensor.recipe.unit)
    )
    composite = sheets.composite_for(mine[0])

    def view_of(pixels: Tensor, valid: Tensor, target: ImageSpec) -> Imagery:
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        return Imagery(pixels, replace(target, size=size), valid)

    scenes = view_of(imagery.pixels, imagery.valid, mine[0])
    stretch = sheets.stretches(scenes, mine[1], composite)

    def pictures(
        view: Imagery, what: tuple[ImageSpec, Unit], like: Sequence[sheets.Stretch]
    ) -> list[Tensor]:
        # views get the contrast stretch of their scene, so that colours are comparable
        own = like if what == mine else None
        return list(sheets.to_rgb(view, what[1], sheets.composite_for(what[0]), own))

    full = torch.ones(len(rows), *first.pixels.shape[2:], dtype=torch.bool)
    one = pictures(view_of(first.pixels, full, mine[0]), mine, stretch[: len(rows)])
    two = pictures(view_of(second.pixels, full, theirs[0]), theirs, stretch[-len(rows) :])
    shown = pictures(scenes, mine, stretch)
    columns = {"scene, normalised": shown[: len(rows)]}
    if len(seasons) > len(rows):
        columns["another season of the place"] = shown[len(rows) :]
    columns["view 1"] = one
    if keep is not None:
        hidden = 1 - keep.shape[1] / trunk.tokens  # whole patches; two are always kept
        columns[f"view 1 as the student sees it ({hidden:.0%} hidden)"] = [
            sheets.draw_mask(image, kept, trunk.block)
            for image, kept in zip(one, keep, strict=True)
        ]
    by = (
        ""
        if second_sensor is None
        else f", {sheets.composite_of(second_sensor.recipe.sensor).caption}"
    )
    teacher = "" if module.method.teacher is None else ", whole, for the teacher"
    own_words = [each.words(composite) for each in stretch[: len(rows)]]
    return sheets.contact_sheet(
        {**columns, f"view 2{teacher}{by}": two},
        [
            label_words(store, int(row)) + (f" ({words})" if words else "")
            for row, words in zip(rows, own_words, strict=True)
        ],
        f"{made_up.capitalize()}{store.spec.sensor}: {composite.caption}",
    )
