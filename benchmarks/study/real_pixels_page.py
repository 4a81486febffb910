"""The page and the figures of `real_pixels.py`, from its records alone.

Every interval and every p value is of a paired bootstrap: places are drawn again with all of their
tiles, and of arms with several seeds also seeds; both sides of a difference see the same draw.
Shapes: S seeds, N tiles, K places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from real_pixels import (
    ARMS,
    CONVOLUTIONS,
    CURVE,
    LDA,
    RATES,
    SEEDS,
    STARTS,
    STATISTICS,
    STEPS,
    STUDY,
    VARIANTS,
    Arm,
    chosen_rate,
    inner_name,
    inner_score,
    plan,
)
from real_pixels_scores import MEASURES, PRIMARY
from real_pixels_tiles import BATCH, FOLDS, GROUPS, NEAR_KM
from records import Record, table

from eofm.report import output

Values = NDArray[np.float64]

REPEATS: Final = 10_000
AT_ONCE: Final = 1000
LEVEL: Final = 0.05

# The family that Holm's correction is over: each pair, in both primary measures.
_ALL: Final = (*ARMS, *VARIANTS)
_FAMILY: Final = (
    *((arm.name, arm.start) for arm in _ALL),
    ("softcon, λ = 1", "hard only"),
    ("softcon, λ = 1", "shuffled labels"),
    ("softcon, λ = 1", "multi-label BCE"),
    ("softcon, λ = 1", "soft only"),
    ("softcon, λ = 1", "start + LDA"),
    ("softcon, λ = 1", "hard only + LDA"),
    ("softcon, λ = 3", "softcon, λ = 1"),
    ("softcon, λ = 1/3", "softcon, λ = 1"),
    ("multi-label BCE", "hard only"),
    ("multi-label BCE", "start + LDA"),
    ("softcon, half labelled", "hard only"),
    ("softcon, half labelled", "multi-label BCE, half labelled"),
    ("softcon, half labelled", "start + LDA, half labelled"),
    *((arm.name, "softcon, λ = 1") for arm in VARIANTS if arm.name.startswith("softcon")),
    ("hard only, mask 0", "hard only"),
    ("softcon, mask 0", "hard only, mask 0"),
)
FAMILY: Final = tuple(dict.fromkeys(_FAMILY))


@dataclass(frozen=True)
class Difference:
    """How much better one arm is than another, in points.

    Args:
        mean: Of all tiles and seeds.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided, of the bootstrap.
        seeds: How many seeds both have.
        holds: Whether p stays below 5 % after Holm's correction; None outside the family.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    holds: bool | None = None

    def words(self) -> str:
        """Return mean and interval; bold where it holds after the correction."""
        text = f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"
        return f"**{text}**" if self.holds else text


class Scores:
    """The value of every arm, seed and tile.

    Args:
        records: Of all runs; arms of which a fold is missing are left out, seed by seed.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        rows = [row for row in records if row["fold"] < FOLDS]
        folds = {row["fold"]: row for row in rows}.values()
        self.tiles = sum(len(row["tiles"]) for row in folds)
        places = np.empty(self.tiles, np.int64)
        for row in folds:
            places[self._place(row["tiles"])] = row["places"]
        self.places = np.unique(places, return_inverse=True)[1]
        ranks: dict[str, list[float]] = {}
        self._values: dict[tuple[str, str], dict[int, Values]] = {}
        for name in dict.fromkeys(row["arm"] for row in rows):
            mine = [row for row in rows if row["arm"] == name]
            for seed in sorted({row["seed"] for row in mine}):
                folds = [row for row in mine if row["seed"] == seed]
                if sum(len(row["tiles"]) for row in folds) == self.tiles:
                    self._add(name, seed, folds)
                    ranks.setdefault(name, []).extend(row["rank"] for row in folds)
        self.ranks = {name: float(np.mean(found)) for name, found in ranks.items()}

    def _add(self, name: str, seed: int, folds: Sequence[Record]) -> None:
        for measure in MEASURES:
            values = np.full(self.tiles, np.nan)
            for row in folds:
                values[self._place(row["tiles"])] = row["scores"][measure]
            self._values.setdefault((name, measure), {})[seed] = 100 * values

    def _place(self, tiles: Sequence[int]) -> NDArray[np.int64]:
        """Return the columns of tiles; of a miniature with one fold they are counted anew."""
        whole = np.asarray(tiles)
        return whole if whole.max() < self.tiles else np.argsort(np.argsort(whole))

    def has(self, name: str) -> bool:
        """Whether an arm is complete for a seed."""
        return (name, PRIMARY[0]) in self._values

    def seeds(self, name: str) -> list[int]:
        """Return the seeds that are complete."""
        return sorted(self._values[name, PRIMARY[0]])

    def mean(self, name: str, measure: str) -> float:
        """Return the score of an arm."""
        return float(np.mean(list(self._values[name, measure].values())))

    def pairs(self, name: str, other: str, measure: str) -> Values:
        """Return the differences of two arms, (S, N); what has no seed counts for all of them."""
        one, two = self._values[name, measure], self._values[other, measure]
        if len(two) == 1 and not set(one) <= set(two):
            two = dict.fromkeys(one, next(iter(two.values())))
        return np.stack([one[seed] - two[seed] for seed in sorted(set(one) & set(two))])

    def difference(self, name: str, other: str, measure: str) -> Difference:
        """Return how much better one arm is, with its interval."""
        pairs = self.pairs(name, other, measure)
        seeds, places = len(pairs), int(self.places.max()) + 1
        random = np.random.default_rng(0)
        parts = []
        for _ in range(REPEATS // AT_ONCE):
            some = pairs[random.integers(seeds, size=(AT_ONCE, seeds))].mean(axis=1)
            times = random.multinomial(places, np.full(places, 1 / places), size=AT_ONCE)
            weight = times[:, self.places]
            parts.append((some * weight).sum(axis=1) / weight.sum(axis=1))
        drawn = np.concatenate(parts)
        low, high = np.quantile(drawn, [0.025, 0.975])
        side = min((drawn <= 0).sum(), (drawn >= 0).sum())
        return Difference(
            float(pairs.mean()), float(low), float(high), min(1, 2 * (side + 1) / REPEATS), seeds
        )

    def corrected(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str, str], Difference]:
        """Return differences in both primary measures, with Holm's correction over all of them."""
        found = {
            (name, other, measure): self.difference(name, other, measure)
            for name, other in pairs
            for measure in PRIMARY
        }
        ordered = sorted(found, key=lambda key: found[key].p)
        holds, made = True, {}
        for number, key in enumerate(ordered):
            holds = holds and found[key].p * (len(ordered) - number) < LEVEL
            made[key] = Difference(**{**vars(found[key]), "holds": holds})
        return {key: made[key] for key in found}


def family(scores: Scores) -> dict[tuple[str, str, str], Difference]:
    """Return the comparisons of the family that can be made, with Holm's correction."""
    return scores.corrected([pair for pair in FAMILY if all(map(scores.has, pair))])


# ------------------------------------------------------------------------------------ page


def draw(records: Sequence[Record], out: Path) -> None:
    """Write page and figures."""
    scores = Scores(records)
    found = family(scores)
    arms = [arm for arm in _ALL if scores.has(arm.name)]
    output.save(_gains(arms, scores, found), out / f"{STUDY}_gains.png")
    output.save(_curves(records, arms), out / f"{STUDY}_curves.png")
    text = "\n".join(
        [
            *_head(records, scores),
            *_table(arms, scores, found),
            *_comparisons(found),
            *_reading(found),
            *_choices(records),
            *_cost(records),
        ]
    )
    (out / f"{STUDY}.md").write_text(text, encoding="utf-8")


def _head(records: Sequence[Record], scores: Scores) -> list[str]:
    trained = [row for row in records if "lr" in row]
    precision = " and ".join(sorted({row["precision"] for row in trained}))
    sets = {names: [c for c, own in GROUPS.items() if own == names] for names in GROUPS.values()}
    groups = "; ".join(f"{', '.join(c)}: {' + '.join(names)}" for names, c in sets.items())
    return [
        "# What continual pretraining adds on real pixels",
        "",
        "    python benchmarks/study/real_pixels.py",
        "",
        "**Data.** The 270 EuroSAT tiles of the real sample (Sentinel-2 L1C, 13 bands, 27 tiles of",
        "each of ten classes; a subset, so scores are not comparable with published ones), in five",
        "folds: pretrained on four fifths, probes fitted on the same four fifths, asked for the",
        "last fifth. Nothing here is synthetic.",
        "",
        "**Start.** A real transformer, a ViT-S/14 of natural images (a DINOv2 that was tuned for",
        "saliency; not Meta's file), cut after 7 blocks, no final norm, mean of the patch tokens,",
        "input layer by `rgb-nearest`, 56 px. Every arm is compared with its own start: what its",
        "network scores before the first step.",
        "",
        f"**Training.** eofm's own modules; {STEPS} optimiser steps of batch {BATCH} with AdamW,",
        "layer decay 0.75 (the copied input layer follows it), cosine schedule, one direction",
        "(student of view 1, teacher of view 2), mask 0.7, heads of 512 and 128, bce with both",
        f"terms' gradients matched at λ = 1, {precision}, unfused attention. The student is",
        "scored. Batch, steps and size are those of an earlier pilot; the learning rate was chosen",
        "inside (below).",
        "",
        f"**Labels.** Sets that name no tested class: {groups}. Half labelled: so for one half of",
        "the training tiles of each class; softcon keeps the others in its hard term, BCE takes as",
        "many steps on the labelled ones alone.",
        "",
        "**Measures,** fixed before training. Primary: *retrieval*, mean average precision of each",
        "held-out tile's search for its class among the held-out tiles of its fold; *2-shot*,",
        "nearest mean of two training tiles per class, over 100 draws. Beside them: retrieval",
        "*within* a coarse group, where the labels say nothing; kNN and a linear layer with k and",
        "C chosen by four-fold division of the training tiles. Features are standardised by the",
        "training tiles. All x 100.",
        "",
        f"**Intervals.** 95 %, paired bootstrap over {scores.places.max() + 1} places (tiles",
        f"within {NEAR_KM:g} km of one another are drawn together) and, where there are several,",
        "over seeds; every fold has a training seed of its own, the same for all arms.",
        f"**Bold**: below {LEVEL:.0%} after Holm's correction over the family of comparisons",
        "listed below, in both primary measures. Other columns are outside of it. Measures, arms",
        "and family were fixed before an arm was trained, with three exceptions: the lowest",
        "learning rate was added when all objectives had chosen the lowest of three; intervals",
        "over places took the place of those over tiles when six arms were done; `hard only,",
        "mask 0` was added when three folds of softcon without a mask had been seen. Before any",
        "training, with the features of the start alone: among which tiles retrieval searches was",
        "settled, and LDA beside the features, the stronger use, was put beside LDA alone. The",
        "line `rcf` was added after all others; nothing is compared with it.",
        "",
    ]


def _table(
    arms: Sequence[Arm], scores: Scores, found: Mapping[tuple[str, str, str], Difference]
) -> list[str]:
    head = ["", "seeds", "retrieval", "over its start", "2-shot", "over its start"]
    head += ["within a group", "over its start", "kNN", "linear", "over its start", "rank"]
    rows = []
    trained = {arm.name for arm in _ALL}
    others = [*STARTS, STATISTICS, CONVOLUTIONS]
    others += [n for n in scores.ranks if n not in trained | set(others) and scores.has(n)]
    for name in [n for n in others if scores.has(n)]:
        start = next((n for n in LDA if name.startswith(n) and "LDA" in name), None)
        rows.append(_row(name, start, scores, found))
    rows += [_row(arm.name, arm.start, scores, found) for arm in arms]
    return [
        "## The arms",
        "",
        *table(head, rows),
        "",
        "Rank: effective rank of the held-out tiles' features. `+ LDA`: no further training, the",
        "axes of a shrinkage LDA of the same coarse labels beside the features, their weight",
        "chosen inside; compared with the features without them. `hard only + LDA` is the hard",
        "arm's features with the labels used afterwards.",
        "",
        f"![gain of every arm over its own start]({STUDY}_gains.png)",
        "",
        f"![on the way]({STUDY}_curves.png)",
        "",
    ]


def _row(
    name: str,
    start: str | None,
    scores: Scores,
    found: Mapping[tuple[str, str, str], Difference],
) -> list[str]:
    cells = [name, str(len(scores.seeds(name)))]
    for measure in ("retrieval", "two_shot", "within", "knn", "linear"):
        cells.append(f"{scores.mean(name, measure):.1f}")
        if measure == "knn":
            continue
        if start is None or not scores.has(start):
            cells.append("")
            continue
        known = found.get((name, start, measure))
        cells.append((known or scores.difference(name, start, measure)).words())
    return [*cells, f"{scores.ranks[name]:.1f}"]


def _comparisons(found: Mapping[tuple[str, str, str], Difference]) -> list[str]:
    pairs = list(dict.fromkeys((name, other) for name, other, _ in found))
    rows = []
    for name, other in pairs:
        of_pair = [found[name, other, measure] for measure in PRIMARY]
        cells = [cell for one in of_pair for cell in (one.words(), f"{one.p:.4f}")]
        rows.append([name, other, *cells])
    return [
        "## The family of comparisons",
        "",
        f"{len(found)} of them: {len(pairs)} pairs in two measures. p is before the correction.",
        "",
        *table(["", "against", "retrieval", "p", "2-shot", "p"], rows, names=2),
        "",
    ]


_LIMITS: Final = """Not concluded:

- One start, 270 tiles, 120 steps at 56 px: nothing about long training, other sizes or full data. A
  difference that is not shown is not shown to be none; the intervals say how large it may be.
- The coarse labels are merged from the tested classes. They name none of them, but they are exact;
  labels from a land-cover map are not.
- The 54 tiles of a fold share one trained network for each seed, which the bootstrap does not
  know. An arm with one seed has five training seeds all the same, one for each fold. Folds divide
  classes, not places: a held-out tile may have a training tile near it, for every arm alike.
- BCE reaches the features through one linear layer, softcon through a projector, which may take the
  damage upon itself: how much of their difference is the projector's was not asked.
- Rates were chosen for three objectives; the parts of softcon and the variants have softcon's rate.
"""


def _reading(found: Mapping[tuple[str, str, str], Difference]) -> list[str]:
    """Return what holds after the correction, and what must not be concluded."""
    lines = ["## What is concluded, and what is not", "", "Holds after the correction:", ""]
    for (name, other, measure), one in found.items():
        if one.holds:
            words = "above" if one.mean > 0 else "below"
            against = "its own start" if other.startswith(("start", "random")) else other
            against = other if "LDA" in other else against
            points = f"{one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"
            lines.append(f"- {name} is {words} {against}: {MEASURES[measure]} {points}")
    return [*lines, "", _LIMITS]


def _choices(records: Sequence[Record]) -> list[str]:
    known = {row["arm"] for row in records}
    objectives = {"moco": "hard only", "softcon": "softcon and its parts", "multilabel": "BCE"}
    if inner_name("moco", RATES[0]) not in known:
        return []
    lines = [
        "## The learning rate",
        "",
        "Mean of both primary measures on an inner fold: trained on three quarters of the training",
        "tiles of fold 0, scored on the last. These tiles are held out in the other folds, so the",
        "choice among four rates, one for each row, is not entirely inside there.",
        "",
    ]
    head, rows = ["peak rate per 256", *(f"{rate:g}" for rate in RATES), "taken"], []
    for objective, words in objectives.items():
        cells = [f"{100 * inner_score(records, objective, rate):.1f}" for rate in RATES]
        taken = f"{chosen_rate(records, objective):g}"
        rows.append([words, *cells, taken])
    return [*lines, *table(head, rows), ""]


def _cost(records: Sequence[Record]) -> list[str]:
    trained = [row for row in records if "cpu_seconds" in row]
    if not trained:
        return []
    cpu = sum(row["cpu_seconds"] for row in trained)
    wall = sum(row["wall_seconds"] for row in trained)
    inner = 3 * len(RATES)
    runs = {seeds: inner + FOLDS * len(list(plan(SEEDS[:seeds]))) for seeds in (1, len(SEEDS))}
    hours = {seeds: 1.15 * count * cpu / len(trained) / 3600 for seeds, count in runs.items()}
    versions = trained[-1]["versions"]
    return [
        "## Cost",
        "",
        f"{len(trained)} runs are recorded, each of {cpu / len(trained):.0f} s of processor time",
        f"on average, in {wall / 3600:.1f} h on one thread of a busy machine",
        f"({trained[-1]['machine']}). On an idle one of the kind, one thread would take about",
        f"{hours[1]:.1f} h for one seed of every arm ({runs[1]} runs, `--seeds 1`) and",
        f"{hours[len(SEEDS)]:.1f} h for {len(SEEDS)} ({runs[len(SEEDS)]} runs), with scoring: an",
        "estimate from the processor time, not a measurement. What is not recorded yet a rerun",
        "adds: seeds of arms that the table shows with fewer. `--draw` makes this page from the",
        f"records in `{STUDY}.jsonl`, `--quick` runs a miniature. eofm {versions['eofm']},",
        f"torch {versions['torch']}.",
        "",
    ]


# --------------------------------------------------------------------------------- figures


@output.styled
def _gains(
    arms: Sequence[Arm], scores: Scores, found: Mapping[tuple[str, str, str], Difference]
) -> output.Figure:
    """Draw the gain of every arm over its own start: filled where it holds after correction."""
    figure = output.new_figure(8.4, 1.3 + 0.26 * max(len(arms), 1))
    panels = figure.subplots(1, len(PRIMARY), sharey=True, squeeze=False)[0]
    for number, (axes, measure) in enumerate(zip(panels, PRIMARY, strict=True)):
        for row, arm in enumerate(arms):
            if row % 2 == 0:
                axes.axhspan(row - 0.5, row + 0.5, color="#8080801f", lw=0)
            one = found.get((arm.name, arm.start, measure))
            if one is None:
                continue
            axes.hlines(row, one.low, one.high, color=output.colour(number), lw=1.3)
            face = output.colour(number) if one.holds else "white"
            axes.plot(
                one.mean, row, output.marker(number), ms=5, color=output.colour(number), mfc=face
            )
        axes.axvline(0, color=output.INK, lw=0.8)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_title(MEASURES[measure])
        axes.set_xlabel("points over its own start")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    names = [f"{a.name} ({len(scores.seeds(a.name))})" for a in arms]
    panels[0].set_yticks(range(len(arms)), labels=[output.label_of(n, 44) for n in names])
    figure.supxlabel(
        "95 % intervals over places and seeds (number in brackets); filled: holds after Holm's "
        "correction",
        fontsize=7.5,
    )
    return figure


_SHOWN: Final = ("hard only", "softcon, λ = 1", "multi-label BCE", "soft only", "shuffled labels")


@output.styled
def _curves(records: Sequence[Record], arms: Sequence[Arm]) -> output.Figure:
    """Draw retrieval and effective rank of held-out tiles over the steps, mean of the folds."""
    figure = output.new_figure(8.4, 3.1)
    panels = figure.subplots(1, 2)
    handles = {}
    start = [row for row in records if row["arm"] == "start"]
    before = (
        0.0,
        100 * float(np.mean([np.mean(row["scores"]["retrieval"]) for row in start])),
        float(np.mean([row["rank"] for row in start])),
    )
    shown = [arm.name for arm in arms if arm.name in _SHOWN]
    for number, name in enumerate(shown):
        mine = [row for row in records if row["arm"] == name and row["seed"] == 0]
        points = [before]
        for place in range(min(len(row["curve"]) for row in mine)):
            step, found, rank = np.mean([row["curve"][place] for row in mine], axis=0)
            points.append((float(step), 100 * float(found), float(rank)))
        last = (
            100 * float(np.mean([np.mean(row["scores"]["retrieval"]) for row in mine])),
            float(np.mean([row["rank"] for row in mine])),
        )
        points.append((float(STEPS), *last))
        steps, found, ranks = zip(*points, strict=True)
        for axes, values in zip(panels, (found, ranks), strict=True):
            (handles[name],) = axes.plot(
                steps, values, marker=output.marker(number), ms=4, color=output.colour(number)
            )
    for axes, title in zip(panels, ("retrieval, mAP x 100", "effective rank"), strict=True):
        axes.set_title(f"{title}, held-out tiles")
        axes.set_xlabel("optimiser steps")
        axes.set_xticks([0, *CURVE[2:], STEPS])
        axes.grid(axis="y")
    output.legend(figure, handles)
    return figure
