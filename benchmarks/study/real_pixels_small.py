"""A small training set, with and without self-distillation: does the score rise and then fall?

    python benchmarks/study/real_pixels_small.py            # trains what is not recorded yet
    python benchmarks/study/real_pixels_small.py --draw     # page and figure from the records

Folds, start and network are those of `real_pixels.py`, but only `SMALL` of a fold's training tiles
are trained on, many times over and without labels. The first run is MoCo-v3's hard term; the second
starts again from the same weights with `self_distill` beside it, whose teacher is the student of
the first run (arXiv 2210.02871). The probe has the labels of all training tiles of the fold.
Rate, batch and number of steps were fixed after one run on the inner fold. The records are
`study_real_pixels_small.jsonl`, the page is `study_real_pixels_small.md`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from fitting import fit
from real_pixels import (
    Arm,
    Measure,
    Study,
    configure,
    embed,
    facts,
    fold_parser,
    open_study,
    prepared,
    retrieval,
    run_seed,
)
from real_pixels_scores import neighbours, standardised
from real_pixels_tiles import Tiles
from records import Record, append_record, intervals_in, read_records, recorded, signed, table
from sklearn.model_selection import train_test_split
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.report import output
from eofm.train.config import PretrainConfig
from eofm.train.evaluate import export_trunk
from eofm.train.module import PretrainModule
from eofm.weights.encoder import make_card

NAME: Final = "study_real_pixels_small"
SMALL: Final = 54  # tiles of a fold that are trained on
BATCH: Final = 27
STEPS: Final = 240
RATE: Final = 1.5e-3  # per 256
CURVE: Final = (6, 12, 24, 48, 96, 144, 192, 240)
SHOWN: Final = (6, 24, 96, 240)
FIRST: Final = "hard only"
SECOND: Final = "hard + self_distill"
MEASURES: Final = ("retrieval, mAP", "kNN accuracy")


def few(tiles: Tiles) -> Tiles:
    """Return the tiles with folds of which only a few are trained on, the same share of a class."""
    found = copy.copy(tiles)
    found.folder = tiles.folder / f"few-{SMALL}"
    found.folds = []
    for fold, (train, test) in enumerate(tiles.folds):
        rows, _ = train_test_split(
            train, train_size=SMALL, stratify=tiles.y[train].numpy(), random_state=fold
        )
        found.folds.append((np.sort(rows), test))
    return found


def measure_of(tiles: Tiles, fold: int) -> Measure:
    """Return what is measured on the way: retrieval among the held-out tiles, and kNN accuracy.

    Args:
        tiles: With whole folds: the neighbours are all training tiles of the fold.
        fold: Number.
    """
    train, test = tiles.folds[fold]

    def measure(module: PretrainModule, images: Sequence[Imagery], y: Tensor) -> tuple[float, ...]:
        x = embed(module, tiles.images)
        right = neighbours(standardised(x.double(), train), tiles.y, train, test)
        return retrieval(x[test], tiles.y[test]), round(float(right.mean()), 4)

    return measure


def settings_of(fold: int, store: Path, seed: int, teacher: Path | None) -> PretrainConfig:
    """Return the settings of a run.

    Args:
        fold: Number.
        store: Of its few tiles.
        seed: Of the study; each fold has a seed of its own.
        teacher: Folder of the first run's student; None for the first run.
    """
    options: dict[str, object] = {"method.objective": "moco"}
    if teacher is not None:
        options["method.terms"] = {"softcon": 1, "self_distill": {"teacher": str(teacher)}}
    made = configure(Arm("", options), run_seed(seed, fold), store, RATE, STEPS * BATCH // SMALL)
    return replace(made, optim=replace(made.optim, batch=BATCH))


def run(study: Study, name: str, fold: int, whole: Tiles) -> None:
    """Train one line in one fold, and record its curve; the first run leaves its student.

    Args:
        study: With few tiles.
        name: Of the line.
        fold: Number.
        whole: The tiles with whole folds.
    """
    cpu, teacher = time.process_time(), study.tiles.folder / f"teacher-{fold}"
    store = study.tiles.store(fold, half=False)
    config = settings_of(fold, store, 0, None if name == FIRST else teacher)
    curve = study.curve(fold, measure_of(whole, fold), steps=CURVE)
    data, module = prepared(config)
    curve.evaluate(0, module)
    fit(config, data, module, precision=config.trainer.precision, callbacks=[curve])
    if name == FIRST:
        export_trunk(module.trunk(), make_card(module.card, module.recipe, "student"), teacher)
    record = {"arm": name, "fold": fold, "curve": curve.points, **facts(config, cpu)}
    append_record(study.records, record)
    print(f"{name}, fold {fold}: {curve.points}", flush=True)


# ------------------------------------------------------------------------------------ the page

_HEAD: Final = f"""# A small training set, with and without self-distillation

    python benchmarks/study/real_pixels_small.py

Tiles, folds, start and network are those of [study_real_pixels.md](study_real_pixels.md): real
EuroSAT tiles in five folds, a ViT-S/14 of natural images cut after seven blocks, 56 px. Nothing
here is synthetic. Only {SMALL} tiles of a fold are trained on, without labels, {STEPS} steps of
batch {BATCH}: {STEPS * BATCH // SMALL} times each. `{FIRST}` is MoCo-v3's term, the first run;
`{SECOND}` starts again from the same weights with the same term and `self_distill` beside it,
whose teacher is the student of the first run after its last step (arXiv 2210.02871; weight 1).
Rate {RATE:g} per 256, batch and steps were fixed after one run of the first line on the study's
inner fold, whose score rose until step 6 and then fell.

Scores x 100: retrieval among the 54 held-out tiles of the fold; accuracy of the nearest neighbours
among its 216 training tiles (k chosen among these). Differences are of the same fold, with the
95 % t interval over {{folds}} folds; **bold** where it excludes 0, of {{count}} differences.
"""
_LIMITS: Final = """Not concluded: one start, one seed for each fold, one rate. A step of the second
line takes about twice the time of one of the first, and its first run comes in addition.
"""

Curves = dict[int, dict[int, tuple[float, ...]]]


def curves(records: Sequence[Record]) -> dict[str, Curves]:
    """Return line -> fold -> step -> both measures x 100."""
    found: dict[str, Curves] = {}
    for row in records:
        curve = {step: tuple(100 * value for value in values) for step, *values in row["curve"]}
        found.setdefault(row["arm"], {})[row["fold"]] = curve
    return found


def page(records: Sequence[Record]) -> str:
    """Return the page."""
    found = curves(records)
    plain = found[FIRST]
    rows = []
    for number, measure in enumerate(MEASURES):
        for name, folds in found.items():
            scores = [np.mean([c[step][number] for c in folds.values()]) for step in (0, *SHOWN)]
            cells = [measure, name, *(f"{score:.1f}" for score in scores)]
            for step in SHOWN:
                cells.append(signed([c[step][number] - c[0][number] for c in folds.values()]))
            gaps = [
                c[STEPS][number] - plain[f][STEPS][number] for f, c in folds.items() if f in plain
            ]
            cells.append("" if name == FIRST else signed(gaps))
            rows.append(cells)
    head = ["measure", "line", "start", *(f"after {step}" for step in SHOWN)]
    head += [f"after {step}, over its start" for step in SHOWN]
    head += [f"after {STEPS}, over {FIRST}"]
    text = _HEAD.format(count=intervals_in(rows), folds=len(plain))
    figure = f"![both measures on the way]({NAME}.png)"
    return "\n".join([text, *table(head, rows, names=2), "", figure, "", _LIMITS])


@output.styled
def figure(records: Sequence[Record]) -> output.Figure:
    """Draw both measures over the steps: means over folds, and the folds."""
    made = output.new_figure(8.4, 3.0)
    panels = made.subplots(1, 2)
    for measure, axes in enumerate(panels):
        for number, (name, folds) in enumerate(curves(records).items()):
            steps = sorted(next(iter(folds.values())))
            style = {"color": output.colour(number)}
            for curve in folds.values():
                axes.plot(steps, [curve[s][measure] for s in steps], lw=0.6, alpha=0.4, **style)
            means = [float(np.mean([c[s][measure] for c in folds.values()])) for s in steps]
            axes.plot(steps, means, marker=output.marker(number), ms=4, lw=1.6, label=name, **style)
        axes.set_title(f"{MEASURES[measure]} x 100")
        axes.set_xlabel("optimiser steps")
        axes.grid(axis="y")
    panels[0].legend(fontsize=8)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    options = fold_parser(__doc__).parse_args(argv)
    own = options.out / f"{NAME}.jsonl"
    if not options.draw:
        opened = open_study(options, NAME)
        study = replace(opened, tiles=few(opened.tiles))
        for fold in options.folds:  # so that a study that is stopped has whole folds
            for name in (FIRST, SECOND):
                if (name, fold) not in recorded(own, "arm", "fold"):
                    run(study, name, fold, opened.tiles)
    if records := read_records(own):
        (options.out / f"{NAME}.md").write_text(page(records), encoding="utf-8")
        output.save(figure(records), options.out / f"{NAME}.png")


if __name__ == "__main__":
    main()
