"""What a ViT teaches a ResNet on real pixels, beside the same ResNet by MoCo and by SoftCon.

    python benchmarks/study/real_pixels_distill.py            # trains what is not recorded yet
    python benchmarks/study/real_pixels_distill.py --draw     # the page from the records

Tiles, folds, batch, steps and scores are those of `real_pixels.py`. The teacher is its start,
frozen: a ViT-S/14 of natural images cut after 7 blocks. The student is a ResNet-18 of random
weights. Every objective has the rate that is best on the inner fold. The records are
`study_real_pixels_distill.jsonl`, the page is `study_real_pixels_distill.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from real_pixels import (
    STEPS,
    STUDY,
    Arm,
    Study,
    embed,
    fold_parser,
    inner_name,
    inner_score,
    open_study,
)
from real_pixels_tiles import BATCH, FOLDS, INNER
from records import RESULTS, Record, intervals_in, read_records, signed, table

from eofm.train.evaluate import export_trunk
from eofm.weights.encoder import make_card

NAME: Final = "study_real_pixels_distill"
TEACHER: Final = "start"  # its line in the study
START: Final = "ResNet-18, random weights"
# Peak rates per 256: a random start survives more than a pretrained one.
RATES: Final = (5e-4, 1.5e-3, 4.5e-3, 1.35e-2)
_RESNET: Final = {
    "model.architecture": "resnet18",
    "model.weights": None,
    "model.input_init": "random",
    "model.pooling": "mean",
    "method.mask_ratio": 0.0,
    "optim.layer_decay": 1.0,
}
_QUEUE: Final = 4 * BATCH  # all training tiles


def _arm(name: str, options: Mapping[str, Any]) -> Arm:
    return Arm(name, {**_RESNET, **options}, start=START)


def arms(teacher: Path) -> tuple[Arm, ...]:
    """Return the trained lines; of `distill` the teacher is this export."""

    def taught(form: str) -> dict[str, Any]:
        term = {"teacher": str(teacher), "form": form, "queue": _QUEUE if form == "js" else 0}
        return {"method.terms": {"distill": term}}

    return (
        _arm("hard only (MoCo-v3)", {"method.objective": "moco"}),
        _arm("distill, js", taught("js")),
        _arm("softcon, λ = 1", {}),
        _arm("distill, cosine", taught("cosine")),
    )


def export_teacher(study: Study) -> Path:
    """Return the folder of the teacher: the start of the study, before any step."""
    out = study.tiles.folder / "teacher"
    if not (out / "card.json").is_file():
        module = study.untrained(Arm(TEACHER), 0, 0)
        export_trunk(module.trunk(), make_card(module.card, module.recipe, "student"), out)
    return out


def start(study: Study, fold: int) -> None:
    """Record the student before its first step."""
    module = study.untrained(Arm(START, _RESNET), 0, fold)
    study.write(START, 0, fold, embed(module, study.tiles.images))


def best_rate(records: Sequence[Record], arm: Arm) -> float:
    """Return the rate with the best score on the inner fold."""
    return max(RATES, key=lambda rate: inner_score(records, arm.name, rate))


# ------------------------------------------------------------------------------------ the page

_HEAD: Final = f"""# What a ViT teaches a ResNet on real pixels

    python benchmarks/study/real_pixels_distill.py

Tiles, folds and scores are those of [study_real_pixels.md](study_real_pixels.md): the 270 real
EuroSAT tiles in five folds (retrieval is mean average precision, the others are
accuracies). Nothing here is synthetic. The teacher of `distill` is the start of that study,
frozen: a ViT-S/14 of natural images cut after seven blocks, input layer by `rgb-nearest`, 56 px.
Every student is a ResNet-18 of random weights, trained for {STEPS} steps of
batch {BATCH} at 56 px, and is scored as it is: a linear layer and k nearest neighbours with C and k
chosen by division of the training tiles. Each objective has the best of {len(RATES)} rates on an
inner fold (below). SoftCon has the study's coarse labels; MoCo and `distill` have none.

Scores are x 100, means of five folds. Differences are of the same fold and seed, with the 95 % t
interval over folds; **bold** where it excludes 0, of {{count}} differences.
"""
_LIMITS: Final = """Not concluded: one teacher, one student, 216 training tiles, one seed for each
fold. The teacher has seen a great number of photographs, of which the student learns through 216
tiles only; MoCo and SoftCon had these tiles alone. A difference that is not shown is not shown to
be none; the intervals say how large it may be.
"""


def means(records: Sequence[Record]) -> dict[str, dict[int, dict[str, float]]]:
    """Return line -> fold -> measure -> score x 100; without the inner fold."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in records:
        if row["fold"] < FOLDS and row["seed"] == 0:
            scores = {name: 100 * float(np.mean(v)) for name, v in row["scores"].items()}
            found.setdefault(row["arm"], {})[row["fold"]] = scores
    return found


def _gap(one: Mapping[int, Any], other: Mapping[int, Any], measure: str) -> str:
    folds = sorted(one.keys() & other.keys())
    return signed([one[fold][measure] - other[fold][measure] for fold in folds])


def page(records: Sequence[Record], teacher: Sequence[Record]) -> str:
    """Return the page.

    Args:
        records: Of the students.
        teacher: Of the study, with the line of the teacher.
    """
    found = means(records)
    lines = arms(Path("teacher"))
    hard = found.get(lines[0].name, {})
    kept = {TEACHER: "the teacher itself", START: START, **{arm.name: arm.name for arm in lines}}
    rows = []
    for name, label in kept.items():
        folds = means(teacher).get(name, {}) if name == TEACHER else found.get(name, {})
        if not folds:
            continue
        cells = [label, str(len(folds))]
        for measure in ("retrieval", "two_shot", "knn", "linear"):
            cells.append(f"{np.mean([scores[measure] for scores in folds.values()]):.1f}")
            if measure in ("retrieval", "linear"):
                own = name not in (TEACHER, START)
                cells.append(_gap(folds, found.get(START, {}), measure) if own else "")
                cells.append(_gap(folds, hard, measure) if own and folds is not hard else "")
        rows.append(cells)
    beside = ["over its start", "over MoCo"]
    head = ["", "folds", "retrieval", *beside, "2-shot", "kNN", "linear", *beside]
    rates = []
    for arm in lines:
        scores = [inner_score(records, arm.name, rate) for rate in RATES]
        if np.isnan(scores).any():
            continue  # not trained yet
        rates.append(
            [arm.name, *(f"{100 * s:.1f}" for s in scores), f"{best_rate(records, arm):g}"]
        )
    rate_head = ["peak rate per 256", *(f"{rate:g}" for rate in RATES), "taken"]
    text = _HEAD.format(count=intervals_in(rows))
    choice = "Mean of retrieval and 2-shot accuracy on the inner fold:"
    tables = table(head, rows), table(rate_head, rates)
    return "\n".join([text, *tables[0], "", _LIMITS, choice, "", *tables[1], ""])


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    options = fold_parser(__doc__).parse_args(argv)
    own = options.out / f"{NAME}.jsonl"
    if not options.draw:
        study = open_study(options, NAME)
        known = study.known()
        for fold in options.folds:
            if (START, 0, fold) not in known:
                start(study, fold)
        for arm in arms(export_teacher(study)):  # a study that is stopped has whole lines
            for rate in RATES:
                name = inner_name(arm.name, rate)
                if (name, 0, INNER) not in known:
                    study.run(replace(arm, name=name), 0, INNER, rate)
            for fold in options.folds:
                if (arm.name, 0, fold) not in known:
                    study.run(arm, 0, fold, best_rate(read_records(own), arm))
    if records := read_records(own):
        text = page(records, read_records(RESULTS / f"{STUDY}.jsonl"))
        (options.out / f"{NAME}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
