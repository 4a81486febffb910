"""The first steps of each term on real pixels: the study of `real_pixels.py`, more lines.

    python benchmarks/study/real_pixels_terms.py            # trains what is not recorded yet
    python benchmarks/study/real_pixels_terms.py --draw     # page and figure from the records

Tiles, folds, start, settings and rate are those of `real_pixels.py`. A run has the schedule of its
120 steps and ends after `--last` of them: the study looked at held-out tiles on the way, after the
same steps, so that its records of the hard term and of SoftCon stand beside these and are not made
again. Nothing is chosen here. The records are `study_real_pixels_terms.jsonl`, the page is
`study_real_pixels_terms.md`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from real_pixels import (
    CURVE,
    STUDY,
    Arm,
    Curve,
    Study,
    chosen_rate,
    environment,
    facts,
    fold_parser,
    objective_of,
    open_study,
    train,
)
from real_pixels_tiles import BATCH, FOLDS
from records import (
    RESULTS,
    Record,
    append_record,
    interval,
    intervals_in,
    read_records,
    signed,
    table,
)

from eofm.report import output
from eofm.train.evaluate import export_trunk
from eofm.weights.encoder import make_card

NAME: Final = "study_real_pixels_terms"
START: Final = "start"
SOFTCON: Final = "softcon, λ = 1"
HARD: Final = "hard only"
BESIDE: Final = (HARD, SOFTCON, "multi-label BCE", "shuffled labels")  # records of the study
LAST: Final = 24  # of the recorded runs
FIRST_RUN: Final = "the run of softcon with the same fold"


def _terms(name: str, terms: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Arm:
    return Arm(name, {"method.terms": terms, **(options or {})})


# Settings of a term are its defaults; queues and neighbours as small as 216 tiles ask for.
_LOOK: Final = {"neighbours": 16, "queue": 2 * BATCH}
_NESTED: Final = {"data.views": "nested"}
_PLAIN: Final = {**_NESTED, "augment.colour_probability": 0.0, "augment.blur_probability": 0.0}
# In the order in which they are trained.
TERMS: Final = (
    _terms("softcon + mim", {"softcon": 1, "mim": 1}),
    _terms("mim", {"mim": 1}),
    _terms("softcon + look", {"softcon": 1, "look": _LOOK}),
    _terms("look", {"look": _LOOK}),
    _terms("cropmae", {"cropmae": 1}, _PLAIN),
    _terms("softcon + hallucinate", {"softcon": 1, "hallucinate": 0.5}),
    _terms("softcon + self_distill", {"softcon": 1, "self_distill": {"teacher": FIRST_RUN}}),
    _terms("softcon + cropmae", {"softcon": 1, "cropmae": 1}, _NESTED),
    _terms("softcon, nested views", {"softcon": 1}, _NESTED),
    _terms("hallucinate", {"hallucinate": 1}),
    _terms("softcon + multilabel", {"softcon": 1, "multilabel": 1}),
)


def taught(arm: Arm) -> bool:
    """Return whether a line has the frozen teacher of a first run."""
    return FIRST_RUN in repr(arm.options)


def with_teacher(arm: Arm, teacher: Path) -> Arm:
    """Return a line with the folder of its teacher."""
    terms = {
        name: {**each, "teacher": str(teacher)} if FIRST_RUN in repr(each) else each
        for name, each in arm.options["method.terms"].items()
    }
    return replace(arm, options={**arm.options, "method.terms": terms})


def first_run(study: Study, fold: int, rate: float) -> Path:
    """Return the export of SoftCon's student at the end of its schedule, trained once more."""
    out = study.tiles.folder / f"first-{fold}"
    if not (out / "card.json").is_file():
        module = train(study.config(Arm(SOFTCON), 0, fold, rate), study.curve(fold))
        export_trunk(module.trunk(), make_card(module.card, module.recipe, "student"), out)
    return out


def start(study: Study, fold: int) -> None:
    """Record the network before its first step, as the curves do."""
    curve = study.curve(fold)
    curve.evaluate(0, study.untrained(Arm(START), 0, fold))
    write(study.records, START, fold, curve, environment())


def run(study: Study, arm: Arm, fold: int, rate: float, last: int) -> None:
    """Train one line in one fold, and record its curve."""
    made = with_teacher(arm, first_run(study, fold, rate)) if taught(arm) else arm
    cpu = time.process_time()
    config, curve = study.config(made, 0, fold, rate), study.curve(fold, last=last)
    train(config, curve)
    write(study.records, arm.name, fold, curve, facts(config, cpu))


def write(records: Path, name: str, fold: int, curve: Curve, more: Record) -> None:
    """Append a record."""
    append_record(records, {"arm": name, "seed": 0, "fold": fold, "curve": curve.points, **more})
    print(f"{name}, fold {fold}: {curve.points}", flush=True)


# ------------------------------------------------------------------------------------ the page

_HEAD: Final = """# The first steps of each term on real pixels

    python benchmarks/study/real_pixels_terms.py --last {steps}

Data, folds, start and settings are those of [study_real_pixels.md](study_real_pixels.md), where
they are told: the 270 real EuroSAT tiles in five folds, a ViT-S/14 of natural images cut after
seven blocks and trained further in batches of {batch} at 56 px with coarse labels. Nothing here is
synthetic. Every run has the schedule of the study's 120 steps and ends after {steps}: **the gains
of the study come later** (its SoftCon ends 4.3 points above the start), and what is seen here is
how a term begins. Lines marked * are the study's own runs, after the same steps.

Score: retrieval (mAP x 100) of each held-out tile's class among the held-out tiles of its fold,
features scaled by these tiles, and the effective rank of their features. Differences are of the
same fold and training seed, with the 95 % t interval over {folds} folds, each with a seed of its
own{missing}; **bold** where it excludes 0, of {count} differences,
so that some do by chance. Terms have their default settings and weight 1 (`hallucinate` beside
SoftCon 0.5), the rate is the one chosen for SoftCon. Steps are equal, times are not
([speed_terms.md](speed_terms.md)).

The frozen teacher of `self_distill` is SoftCon's student after the 120 steps of the same fold: what
its line gains has taken these steps as well. `cropmae` has nested views, without colours and blur
where it is alone. `croco` and `distill` are not here: the tiles have one date and one sensor, and
there is no better encoder for them at hand. [terms.md](terms.md) has both on synthetic scenes.
"""


def by_arm(records: Sequence[Record]) -> dict[str, dict[int, dict[int, tuple[float, float]]]]:
    """Return line -> fold -> step -> (retrieval x 100, rank)."""
    found: dict[str, dict[int, dict[int, tuple[float, float]]]] = {}
    for row in records:
        if row["seed"] == 0 and row["fold"] < FOLDS and row.get("curve"):
            curve = {step: (100 * score, rank) for step, score, rank in row["curve"]}
            found.setdefault(row["arm"], {})[row["fold"]] = curve
    return found


Curves = dict[int, dict[int, tuple[float, float]]]


def gaps(one: Curves, other: Curves, step: int, *, start: bool = False) -> list[float]:
    """Return the differences of the folds that both have after a step.

    Args:
        one: Of a line.
        other: Of the line it is compared with.
        step: After how many steps.
        start: The other line is the start, which has no steps.
    """
    at = 0 if start else step
    folds = [f for f in sorted(one.keys() & other.keys()) if step in one[f] and at in other[f]]
    return [one[fold][step][0] - other[fold][at][0] for fold in folds]


def page(records: Sequence[Record], last: int) -> str:
    """Return the page of the study's records and these.

    Args:
        records: Of both.
        last: The step that the table is about.
    """
    found = by_arm(records)
    steps = [step for step in CURVE if step <= last]
    base, hard, first = found.get(SOFTCON, {}), found.get(HARD, {}), found.get(START, {})
    head = ["", "folds", f"retrieval after {last}"]
    head += [f"over the start, after {step}" for step in steps[1:]]
    head += [f"over softcon, after {last}", f"over hard only, after {last}", "rank"]
    rows = []
    names = [*BESIDE, *(arm.name for arm in TERMS)]
    if first:
        score, rank = (interval([c[0][i] for c in first.values()])[0] for i in (0, 1))
        blank = [""] * (len(steps) + 1)
        cells = [START, str(len(first)), f"{score:.1f}", *blank, f"{rank:.1f}"]
        rows.append(cells)
    for name in names:
        curves = {f: c for f, c in found.get(name, {}).items() if last in c and f in first}
        if not curves:
            continue
        score, rank = (interval([c[last][i] for c in curves.values()])[0] for i in (0, 1))
        cells = [f"{name} *" if name in BESIDE else name, str(len(curves)), f"{score:.1f}"]
        cells += [signed(gaps(curves, first, step, start=True)) for step in steps[1:]]
        cells += ["" if name == SOFTCON else signed(gaps(curves, base, last))]
        cells += ["" if name == HARD else signed(gaps(curves, hard, last))]
        cells += [f"{rank:.1f}"]
        rows.append(cells)
    text = _HEAD.format(
        batch=BATCH,
        steps=last,
        folds=len(first),
        missing="" if len(first) == FOLDS else " (for the others there was no time)",
        count=intervals_in(rows),
    )
    figure = f"![difference of every line from the start]({NAME}.png)"
    return "\n".join([text, *table(head, rows), "", figure, "", _LIMITS])


_LIMITS: Final = """Not concluded: what a term is worth after long training, or for maps: the score
is of an image's vector, and `mim` and `cropmae` are about patches. A rate or a weight of its own
may make a term better than it is here. A difference that is not shown is not shown to be none; the
intervals say how large it may be.
"""


@output.styled
def figure(records: Sequence[Record], last: int) -> output.Figure:
    """Draw what every line has gained on the start and on SoftCon, with intervals over folds."""
    found = by_arm(records)
    names = [*BESIDE, *(arm.name for arm in TERMS)]
    names = [name for name in names if any(last in c for c in found.get(name, {}).values())]
    made = output.new_figure(8.4, 1.4 + 0.27 * max(len(names), 1))
    panels = made.subplots(1, 2, sharey=True)
    for number, (axes, other) in enumerate(zip(panels, (START, SOFTCON), strict=True)):
        for row, name in enumerate(names):
            if row % 2 == 0:
                axes.axhspan(row - 0.5, row + 0.5, color="#8080801f", lw=0)
            mine = {fold: curve for fold, curve in found[name].items() if fold in found[START]}
            values = gaps(mine, found.get(other, {}), last, start=other == START)
            if name == other or len(values) < 2:
                continue
            mean, half = interval(values)
            colour = output.colour(number)
            axes.hlines(row, mean - half, mean + half, color=colour, lw=1.3)
            axes.plot(values, [row] * len(values), ".", ms=3, color=output.INK, zorder=3)
            axes.plot(
                mean, row, "o", ms=5, color=colour, mfc=colour if abs(mean) > half else "white"
            )
        axes.axvline(0, color=output.INK, lw=0.8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(f"retrieval after {last} steps, over {other}")
        axes.set_xlabel("points")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    marked = [f"{name} *" if name in BESIDE else name for name in names]
    panels[0].set_yticks(range(len(names)), labels=[output.label_of(n, 44) for n in marked])
    made.supxlabel(
        "95 % t intervals over folds (dots); filled: excludes 0; *: run of the study", fontsize=7.5
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    parser = fold_parser(__doc__)
    parser.add_argument("--last", type=int, default=LAST, choices=CURVE, help="step of the end")
    parser.add_argument("--arms", nargs="*", help="names of lines; all without it")
    options = parser.parse_args(argv)
    own, beside = options.out / f"{NAME}.jsonl", read_records(RESULTS / f"{STUDY}.jsonl")
    if not options.draw:
        study = open_study(options, NAME)
        rate = chosen_rate(beside, objective_of(TERMS[0]))
        for fold in options.folds:  # so that a study that is stopped has whole folds
            if (START, 0, fold) not in study.known():
                start(study, fold)
            for arm in TERMS:
                asked = not options.arms or arm.name in options.arms
                if asked and (arm.name, 0, fold) not in study.known():
                    run(study, arm, fold, rate, options.last)
    if records := read_records(own):
        (options.out / f"{NAME}.md").write_text(
            page([*beside, *records], options.last), encoding="utf-8"
        )
        output.save(figure([*beside, *records], options.last), options.out / f"{NAME}.png")


if __name__ == "__main__":
    main()
