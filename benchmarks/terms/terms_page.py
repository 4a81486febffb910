"""The page and the figure of `terms.py`, from its records alone.

Intervals are 95 % t intervals over training seeds; both sides of a difference have the same seeds.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from terms import ARMS, BASE, NAME, STATISTICS, Arm, Record, interval, intervals_in, signed, table

from eofm.report import output
from eofm.train.evaluate import INIT

Rows = Mapping[int, Record]

MEASURES: Final = {
    "ap_macro": "linear AP",
    "knn_macro": "kNN AP",
    "patch_iou": "patches, mIoU",
    "prompts": "prompts, AUROC",
}
RANK: Final = "within_rank"
RADAR: Final = " s1-grd"  # behind the names of the encoders of the second sensor
_OF_PAIRS: Final = "moco, both sensors"  # what the other runs on two sensors are compared with


def value(record: Record, measure: str, encoder: str) -> float:
    """Return a score of an encoder of a run, x 100 unless it is a rank; NaN where there is none."""
    if measure in ("patch_iou", "prompts", RANK):
        unit = 1 if measure == RANK else 100
        return unit * float(record.get(measure, {}).get(encoder, math.nan))
    found = [s[measure] for s in record["scores"] if s["name"] == encoder]
    return 100 * float(found[0]) if found else math.nan


def values(rows: Rows, measure: str, encoder: str) -> dict[int, float]:
    """Return the score of each seed that has one."""
    found = {seed: value(row, measure, encoder) for seed, row in rows.items()}
    return {seed: each for seed, each in found.items() if not math.isnan(each)}


def differences(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Return the differences of the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def cells(rows: Rows, base: Rows, measure: str, sensor: str = "") -> list[str]:
    """Return a score, what it gained on its own start, and its difference from the line beside."""
    student, start = (values(rows, measure, f"{name}{sensor}") for name in ("student", INIT))
    other = values(base, measure, f"student{sensor}")
    if not student:
        return ["–", "", ""]
    return [
        f"{interval(list(student.values()))[0]:.1f}",
        signed(differences(student, start)),
        "" if rows is base else signed(differences(student, other)),
    ]


def share(rows: Rows, when: str) -> str:
    """Return the mean error of pixels as a share of the floor, with its interval over seeds."""
    found = [row["pixels"][when] for row in rows.values() if when in row.get("pixels", {})]
    if not found:
        return "–"
    mean, half = interval(found)
    return f"{mean:.4f}" if math.isnan(half) else f"{mean:.4f} ± {half:.4f}"


def by_arm(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    """Return the records of each line by seed, in the order of the table."""
    found: dict[str, dict[int, Record]] = {arm.name: {} for arm in ARMS} | {STATISTICS: {}}
    for record in records:
        found[record["arm"]][record["seed"]] = record
    return {name: rows for name, rows in found.items() if rows}


# ------------------------------------------------------------------------------------ the page

HEAD: Final = """# What each term is worth: SYNTHETIC scenes

A short run of a small network: {architecture} from random weights, {image} px, {steps} steps of
batch {batch}, {scenes} scenes to train on, {held_out} of other places that are scored; {seeds}
seeds of each line, all other settings alike (one direction; with two sensors both).
`{longer}` has the time of a second term with passes of its own.
**Which term is better on made-up scenes is no proof for real ones**: real tiles are in
[study_real_pixels_terms.md](study_real_pixels_terms.md). Nothing was tuned on what is scored: rate
and weights were fixed before the first run, the size by the time that a trial with another seed
took.

Frozen student: a linear probe and 20 nearest neighbours of its vector (average precision, mean over
classes, x 100); a linear layer from its patches to the land-cover map (mean IoU, x 100); patches of
a class that find the others of their image without a fit (prompts, AUROC, x 100: 50 is chance);
effective rank of its vectors within a class. *start*: gain on its own start, the same network at
random; *against*: difference from the line named, which has the same views (but for two sensors).
95 % t intervals over training seeds, none of one seed; **bold** where one excludes 0, of {count}
intervals: some do by chance. Which scenes are scored is the same for all seeds, and in no interval.

*step* is the processor time of a training step over that of dense MoCo-v3, on a busy machine; times
and memory side by side are in [speed_terms.md](speed_terms.md). Every record in `terms.jsonl` has
the command of its run; `--draw` makes this page, and the runs:

    {command}
"""


def page(records: Sequence[Record]) -> str:
    """Return the page of all records."""
    found = by_arm(records)
    scores = _scores(found)
    trained = [row for name, rows in found.items() if name != STATISTICS for row in rows.values()]
    steps = {row["steps"] for row in trained if not _arm(row["arm"]).longer > 1}
    scenes = [row["scenes"] for row in sorted(trained, key=lambda row: row["arm"] != BASE)]
    said = _said(trained)
    head = HEAD.format(
        architecture=said.get("--model.architecture"),
        image=said.get("--model.size"),
        batch=said.get("--optim.batch"),
        seeds=_span([len(rows) for name, rows in found.items() if name != STATISTICS]),
        steps=_span(steps),
        longer=next(arm.name for arm in ARMS if arm.longer > 1),
        scenes=scenes[0].get("train"),
        held_out=scenes[0].get("held_out"),
        count=intervals_in(scores),
        command=_command(said),
    )
    figure = f"![difference of each line from the one beside it]({NAME}.png)"
    parts = [head, figure, "", *table(_score_head(), scores, names=2), ""]
    return "\n".join([*parts, *_pixels(found), *_radar(found)]) + "\n"


def _arm(name: str) -> Arm:
    return next(arm for arm in ARMS if arm.name == name)


def _span(numbers: Sequence[int] | set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _said(trained: Sequence[Record]) -> dict[str, str]:
    """Return the options of a run, of the line that the others are compared with if it is there."""
    first = sorted(trained, key=lambda row: row["arm"] != BASE)[0]
    words = shlex.split(first["command"])
    return dict(zip(words[2::2], words[3::2], strict=True))


def _command(said: Mapping[str, str]) -> str:
    """Return the call of the script that makes runs of this size."""
    names = {
        "--data.scenes": "--scenes", "--data.size": "--window", "--model.size": "--image",
        "--model.architecture": "--architecture", "--optim.epochs": "--epochs",
        "--optim.batch": "--batch", "--optim.lr": "--lr",
    }  # fmt: skip
    size = [f"{short} {said[long]}" for long, short in names.items() if long in said]
    return " ".join(["python benchmarks/terms/terms.py", *size])


def _score_head() -> list[str]:
    head = ["terms", "against", "seeds"]
    for name in MEASURES.values():
        head += [name, "start", "against"]
    return [*head, "rank within a class", "start", "against", "step"]


def _scores(found: Mapping[str, Rows]) -> list[list[str]]:
    made, dense = [], _seconds(found.get(ARMS[0].name, {}))
    if first := found.get(BASE, {}):
        start = [[*values(first, m, INIT).values()] for m in (*MEASURES, RANK)]
        cell = [c for each in start for c in (f"{interval(each)[0]:.1f}" if each else "–", "", "")]
        made.append(["start (random weights)", "", str(len(first)), *cell, ""])
    if STATISTICS in found:
        cell = [c for m in (*MEASURES, RANK) for c in cells(found[STATISTICS], {}, m)]
        made.append([STATISTICS, "", "", *cell, ""])
    for arm in ARMS:
        if rows := found.get(arm.name):
            base = found.get(arm.against, {})
            against = "" if arm.name == arm.against else arm.against
            cell = [c for m in (*MEASURES, RANK) for c in cells(rows, base, m)]
            step = f"{_seconds(rows) / dense:.2f}" if dense else ""
            made.append([arm.name, against, str(len(rows)), *cell, step])
    return made


def _seconds(rows: Rows) -> float:
    """Return the mean processor time of a training step; 0 of no runs."""
    found = [row["train_cpu_seconds"] / row["steps"] for row in rows.values()]
    return sum(found) / len(found) if found else 0.0


def _pixels(found: Mapping[str, Rows]) -> list[str]:
    made = [
        [arm.name, arm.pixels, *(share(rows, when) for when in ("before", "after", "other place"))]
        for arm in ARMS
        if arm.pixels and (rows := found.get(arm.name))
    ]
    if not made:
        return []
    head = ["terms", "error of", "before training", "after", "with another place's view"]
    words = (
        "## Hidden pixels of held-out places\n\nError as a share of that of the patch mean: 1 is "
        "the floor of knowing nothing, below it something is known. A term that looks at the other "
        "view is worse with another place's in its stead. Mean and interval over seeds.\n"
    )
    return [words, *table(head, made, names=2), ""]


def _radar(found: Mapping[str, Rows]) -> list[str]:
    rows = [
        (arm, found[arm.name])
        for arm in ARMS
        if arm.options.get("data.views") == "sensors" and arm.name in found
    ]
    if not rows:
        return []
    head = ["terms", "against", "seeds"]
    for measure in ("ap_macro", "knn_macro"):
        head += [MEASURES[measure], "start", "against"]
    made = [
        [
            arm.name,
            "" if arm.name == _OF_PAIRS else arm.against,
            str(len(own)),
            *(
                cell
                for measure in ("ap_macro", "knn_macro")
                for cell in cells(own, found.get(_OF_PAIRS, {}), measure, RADAR)
            ),
        ]
        for arm, own in rows
    ]
    words = (
        "## The radar image alone\n\nThe runs on pairs of an optical and a radar image, asked with "
        "the radar image of held-out places.\n"
    )
    return [words, *table(head, made, names=2), ""]


# ---------------------------------------------------------------------------------- the figure


@output.styled
def figure(records: Sequence[Record]) -> output.Figure:
    """Draw the difference of every line from the one it is compared with, and that of its start."""
    found = by_arm(records)
    arms = [arm for arm in ARMS if arm.name in found and arm.against in found]
    arms = [arm for arm in arms if arm.name != arm.against]
    made = output.new_figure(12.4, 1.5 + 0.25 * max(len(arms), 1))
    panels = made.subplots(1, len(MEASURES), sharey=True, squeeze=False)[0]
    for number, (axes, (measure, title)) in enumerate(zip(panels, MEASURES.items(), strict=True)):
        for row, arm in enumerate(arms):
            if row % 2 == 0:
                axes.axhspan(row - 0.5, row + 0.5, color="#8080801f", lw=0)
            base = values(found[arm.against], measure, "student")
            start = differences(values(found[arm.name], measure, INIT), base)
            gaps = differences(values(found[arm.name], measure, "student"), base)
            if not gaps:
                continue
            mean, half = interval(gaps)
            colour = output.colour(number)
            if start:
                axes.plot(interval(start)[0], row, "|", ms=9, mew=1.6, color="0.5")
            if len(gaps) > 2:  # that of two seeds is as wide as the panel
                axes.hlines(row, mean - half, mean + half, color=colour, lw=1.3)
            axes.plot(gaps, [row] * len(gaps), ".", ms=3, color=output.INK, zorder=3)
            holds = abs(mean) > half
            axes.plot(mean, row, "o", ms=5, color=colour, mfc=colour if holds else "white")
        axes.axvline(0, color=output.INK, lw=0.8)
        axes.set_ylim(max(len(arms), 1) - 0.5, -0.5)
        axes.set_title(f"{title} x 100")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    names = [a.name if a.against == BASE else f"{a.name}  [{a.against}]" for a in arms]
    panels[0].set_yticks(range(len(arms)), labels=[output.label_of(n, 60) for n in names])
    made.supxlabel(
        "points over softcon of the same seeds, or over the line in brackets, with the 95 % t "
        "interval over seeds (dots); filled: it excludes 0; gray bar: the start.  "
        "SYNTHETIC scenes",
        fontsize=7.5,
    )
    return made


def draw(records: Sequence[Record], out: Path) -> None:
    """Write page and figure."""
    (out / f"{NAME}.md").write_text(page(records), encoding="utf-8")
    output.save(figure(records), out / f"{NAME}.png")
