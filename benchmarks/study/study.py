"""What each part of the method is worth: every arm of a table, three seeds, one script.

    python benchmarks/study/study.py --jobs 2        # trains what is not recorded yet
    python benchmarks/study/study.py --draw          # tables and figures from the records

All imagery is SYNTHETIC (`eofm/world`): it tells what the code does, and which choice is
better where labels are exact; it says nothing about the Earth. Training continues from a network
that has seen other synthetic places, in three bands and without labels: the stand-in for DINOv2,
whose weights this script does not need. Every run is `eofm pretrain` in a process of its own;
its command stands in its record. A run that is recorded is not made again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from records import (
    Record,
    append_record,
    interval,
    read_records,
    recorded,
    signed,
    study_parser,
    table,
)

NAME: Final = "study"
RUNS: Final = Path("runs/study")
SEEDS: Final = (0, 1, 2)
EPOCHS: Final = 3
SIZE: Final = 56
# The bands a colour picture is made of, in the order red, green, blue.
COLOURS: Final = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Arm:
    """One line of a table.

    Args:
        table: Of the table.
        name: Of the line.
        options: What differs from the base: option of `eofm pretrain` -> value.
    """

    table: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)


def arms() -> list[Arm]:
    """Return all lines; the base stands in the first table as "softcon"."""
    out = [
        Arm("objective", "softcon"),
        Arm("objective", "hard only", {"method.objective": "moco"}),
        Arm("objective", "soft only", {"method.objective": "soft"}),
        Arm("objective", "shuffled labels", {"method.objective": "shuffled"}),
        Arm("objective", "multi-label BCE", {"method.objective": "multilabel"}),
        Arm("objective", "softcon from scratch", {"model.weights": "null"}),
    ]
    for form in ("bce", "ce", "mse"):
        for weight in ("1", "10", "100"):
            if (form, weight) != ("bce", "10"):
                options = {"method.soft_form": form, "method.soft_weight": weight}
                out.append(Arm("soft form and weight", f"{form}, λ = {weight}", options))
    for ratio in ("0", "0.25", "0.75"):
        out.append(Arm("mask ratio", ratio, {"method.mask_ratio": ratio}))
    for rule in ("rgb-matched", "mean", "timm"):
        out.append(Arm("input layer", rule, {"model.input_init": rule}))
    out.append(Arm("views", "two seasons", {"data.views": "seasons"}))
    out.append(Arm("precision", "bf16-mixed", {"trainer.precision": "bf16-mixed"}))
    return out


BASE: Final = {
    "model.size": str(SIZE),
    "method.soft_weight": "10",
    "method.soft_unit": "plain",
    "optim.epochs": str(EPOCHS),
    "run.figures": "false",
    "run.threads": "1",
    "monitor.every_epochs": "0",
}


def command(arm: Arm, seed: int) -> list[str]:
    """Return the words of the run."""
    out = str(RUNS / f"{arm.table}-{arm.name}-{seed}".replace(" ", "_").replace(",", ""))
    options = {
        **BASE,
        "model.weights": str(RUNS / "colours.pth"),
        **arm.options,
        "optim.seed": str(seed),
        "run.out": out,
    }
    words = ["eofm", "pretrain"]
    for name, value in options.items():
        words += [f"--{name}", value]
    return words


def run(arm: Arm, seed: int, records: Path) -> None:
    """Train, and append the record."""
    words = command(arm, seed)
    began = time.monotonic()
    out = Path(words[-1])
    shutil.rmtree(out, ignore_errors=True)  # of a run that was stopped
    done = subprocess.run(
        [sys.executable, "-m", "eofm", *words[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{arm.table}, {arm.name}, seed {seed} FAILED\n{done.stderr[-2000:]}")
        return
    results = json.loads((out / "results.json").read_text())
    record = {
        "table": arm.table,
        "arm": arm.name,
        "seed": seed,
        "scores": results["scores"],
        "train_seconds": results["train_seconds"],
        "synthetic": True,
        "environment": json.loads((out / "environment.json").read_text()),
        "command": " ".join(words),
    }
    append_record(records, record)
    print(f"{arm.table}, {arm.name}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


# --------------------------------------------------------------- what training starts from


def make_colours() -> None:
    """Pretrain in three bands, without labels, on other places; write a file in DINOv2's layout."""
    target = RUNS / "colours.pth"
    if target.is_file():
        return
    store = RUNS / "colours"
    colour_store(store)
    out = RUNS / "colours-run"
    words = [sys.executable, "-m", "eofm", "pretrain", "--data.store", str(store)]
    options = {
        **BASE,
        "method.soft_weight": "0",
        "method.mask_ratio": "0",
        "optim.epochs": "8",
        "model.normalization": "zscore",  # what a vision file is taken to expect
        "data.unlabelled": "hard-only",
        "run.out": str(out),
    }
    for name, value in options.items():
        words += [f"--{name}", value]
    subprocess.run(words, check=True)

    from safetensors.torch import load_file

    state = load_file(out / "export" / "student" / "weights.safetensors")
    state["mask_token"] = torch.zeros(1, state["cls_token"].shape[-1])
    torch.save(state, target)


def colour_store(path: Path) -> None:
    """Write a store of the three colours of a world of other places."""
    from dataclasses import replace

    from eofm.store.format import Entry, StoreCard
    from eofm.store.reader import Store
    from eofm.store.writer import StoreWriter
    from eofm.train.config import DataConfig, demo_path, make_demo

    world = DataConfig(world=str(RUNS / "other-places"), scenes=300, seed=1)
    make_demo(world)
    store = Store(demo_path(world))
    spec = replace(store.spec, bands=COLOURS)
    groups = store.images([0], COLOURS).bands
    card = StoreCard(
        spec=spec, groups=groups, labels=None,
        settings={"verb": "study", "bands": ",".join(COLOURS), "synthetic": True},
    )  # fmt: skip
    with StoreWriter(path, card) as writer:
        for row in range(len(store)):
            native = store.images([row], COLOURS)
            entry = Entry(
                id=str(store.ids[row]), location=str(store.locations[row]), season=str(row),
                longitude=0.0, latitude=0.0, date="", source="study", source_unit=str(spec.unit),
            )  # fmt: skip
            if entry.id not in writer.ids:
                writer.append(entry, native)
        writer.finish()


# ------------------------------------------------------------------------------- drawing

MEASURES: Final = {
    "ap_macro": "linear, AP macro",
    "ap_micro": "linear, AP micro",
    "knn_macro": "kNN-20, AP macro",
    "knn_micro": "kNN-20, AP micro",
}


def scores(rows: Sequence[Record], arm: str, encoder: str, measure: str) -> dict[int, float]:
    """Return seed -> score x 100 of the lines of one table."""
    return {
        row["seed"]: 100 * score[measure]
        for row in rows
        if row["arm"] == arm
        for score in row["scores"]
        if score["name"] == encoder
    }


def lines_of(rows: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return (table, arm, encoder) of every line that has records; first the starting weights."""
    seen = dict.fromkeys((row["table"], row["arm"]) for row in rows)
    out = [("objective", "softcon", "initialisation")]
    for arm in arms():
        if (arm.table, arm.name) in seen:
            out.append((arm.table, arm.name, "student"))
    return out


def draw(records: Sequence[Record], out: Path) -> None:
    """Write page and figure."""
    base = [row for row in records if (row["table"], row["arm"]) == ("objective", "softcon")]
    tables: dict[str, list[list[str]]] = {}
    points = []
    for name, arm, encoder in lines_of(records):
        own = [row for row in records if row["table"] == name]
        rows = tables.setdefault(name, [])
        if not rows and name != "objective":
            rows.append(line_of("softcon (base)", base, "softcon", "student", base))
        label = "weights it starts from" if encoder == "initialisation" else arm
        rows.append(line_of(label, own, arm, encoder, base))
        points.append((name, label, own, arm, encoder))
    head = ["", *MEASURES.values()]
    text = [
        line
        for name, rows in tables.items()
        for line in ("", f"## {name.capitalize()}", "", *table(head, rows))
    ]
    environment = records[-1]["environment"]
    intro = INTRO.format(
        seeds=len({row["seed"] for row in records}),
        epochs=EPOCHS,
        size=SIZE,
        where=f"torch {environment['versions']['torch']}, one thread",
        base=base[0]["command"],
    )
    (out / f"{NAME}.md").write_text(intro + "\n".join(text) + "\n", encoding="utf-8")
    figure(points, base, out / f"{NAME}.png")


INTRO: Final = """# What each part of the method is worth: SYNTHETIC scenes

Up to {seeds} seeds, {epochs} epochs at {size} px, vit-tiny-14 on 13 bands, continued from a network
pretrained without labels on three bands of other synthetic places. Frozen student, probes on
held-out places, average precision x 100: mean over seeds, and in brackets the mean difference to
the base with its 95 % t interval over seeds (paired; three seeds make it wide). **Bold**: the
interval excludes 0. Which choice is better on made-up scenes with exact labels is no proof for
real ones.

Base: `{base}`, {where}. Every record in study.jsonl holds its
command and the seconds of a shared machine, which say nothing (speed_step.md has the times);
`python benchmarks/study/study.py` makes them, `--draw` this page.

![Differences to the base](study.png)
"""


def line_of(
    label: str, rows: Sequence[Record], arm: str, encoder: str, base: Sequence[Record]
) -> list[str]:
    """Return the cells of a line of a table."""
    cells = [label]
    for measure in MEASURES:
        mine = scores(rows, arm, encoder, measure)
        reference = scores(base, "softcon", "student", measure)
        cell = f"{interval(list(mine.values()))[0]:.1f}"
        common = sorted(set(mine) & set(reference))
        if common and (arm, encoder) != ("softcon", "student"):
            gap = signed([mine[s] - reference[s] for s in common])
            cell += f" ({gap}, one seed)" if len(common) == 1 else f" ({gap})"
        cells.append(cell)
    return cells


def figure(
    points: Sequence[tuple[str, str, Sequence[Record], str, str]],
    base: Sequence[Record],
    path: Path,
) -> None:
    """Draw the differences to the base, one panel per measure, seeds as dots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kept = [p for p in points if (p[3], p[4]) != ("softcon", "student")]
    panels, axes = pyplot.subplots(
        1, 2, figsize=(10, 0.28 * len(kept) + 1.4), sharey=True, layout="constrained"
    )
    for axis, measure in zip(axes, ("ap_macro", "knn_macro"), strict=True):
        reference = scores(base, "softcon", "student", measure)
        axis.axvline(0, color="0.6", lw=0.8)
        for y, (_, _, rows, arm, encoder) in enumerate(kept):
            mine = scores(rows, arm, encoder, measure)
            gaps = [mine[s] - reference[s] for s in sorted(set(mine) & set(reference))]
            axis.plot(gaps, [y] * len(gaps), "o", ms=3, color="0.55")
            axis.plot(sum(gaps) / len(gaps), y, "D", ms=5, color="C0")
        axis.set_title(f"{MEASURES[measure]}: difference to the base, points", fontsize=9)
        axis.grid(axis="x", lw=0.3)
    axes[0].set_yticks(range(len(kept)), [f"{p[0]}: {p[1]}" for p in kept], fontsize=8)
    axes[0].invert_yaxis()
    panels.suptitle("SYNTHETIC scenes; dots: seeds, diamonds: means", fontsize=10)
    panels.savefig(path, dpi=130)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    parser = study_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="tables, comma separated")
    options = parser.parse_args(argv)
    records = options.out / f"{NAME}.jsonl"
    if not options.draw:
        train(records, options.only, options.jobs)
    if found := read_records(records):
        draw(found, options.out)


def train(records: Path, only: str, jobs: int) -> None:
    """Train what is not recorded.

    Args:
        records: Their file.
        only: Tables, separated by commas; empty for all.
        jobs: Runs at a time.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    records.parent.mkdir(parents=True, exist_ok=True)
    make_colours()
    known = recorded(records, "table", "arm", "seed")
    tables = set(only.split(",")) - {""}
    todo = [
        (arm, seed)
        for seed in SEEDS
        for arm in arms()
        if (arm.table, arm.name, seed) not in known and (not tables or arm.table in tables)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda item: run(*item, records), todo))


if __name__ == "__main__":
    main()
