"""Embeddings in runs that collapse and in runs that do not: where the guard's bounds lie.

    python benchmarks/collapse.py       # about 25 minutes on one idle core; needs EOFM_REAL_DATA

Each arm is a short run from the command line. Collapses: those that went unnoticed (18 training
windows of TerraMesh, from random weights and from a pretrained transformer, and ten times the
learning rate). Healthy: the demo on small synthetic worlds, other objectives, and the pretrained
transformer at a rate that it survives. On these the bounds were chosen; the fresh ones are healthy
runs of other worlds, seeds, terms and real tiles, made when the bounds were fixed. The table has
the least rank, spread and kNN relative to the start up to step 64, and what the guard's rule makes
of the rows; `monitor.collapse_std 0` keeps the guard itself from ending the runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from eofm.train.monitor.guard import Geometry, Health

DATA: Final = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data"))
WEIGHTS: Final = Path(os.environ.get("EOFM_REAL_WEIGHTS", "../shared/weights"))
LAST: Final = 64  # the guard's first evaluations end here
START: Final = {
    "model.architecture": "vits14",
    "model.weights": str(WEIGHTS / "natural_images_vits14.safetensors"),
    "model.input_init": "rgb-nearest",
}
GENTLE: Final = {"optim.lr": "5e-4", "optim.layer_decay": "0.75"}


COLLAPSE: Final = "collapse"
HEALTHY: Final = "healthy"
FRESH: Final = "healthy, fresh"


@dataclass(frozen=True)
class Arm:
    """One run.

    Args:
        name: In the table.
        kind: Of run: `COLLAPSE`, `HEALTHY` or `FRESH`.
        store: Of real images; the demo's world of this many places if a number.
        settings: Besides those of every run.
    """

    name: str
    kind: str
    store: str | int
    settings: dict[str, str] = field(default_factory=dict)


WINDOWS: Final = {"optim.batch": "9", "optim.epochs": "10", "data.holdout": "0.34"}
LENGTH: Final = {"optim.batch": "32", "optim.epochs": "5"}
WORLD: Final = {**LENGTH, "method.soft_weight": "10", "method.soft_unit": "plain"}
HARD: Final = {"method.objective": "moco"}
SHORT: Final = {**START, **GENTLE, "optim.batch": "16", "optim.epochs": "2"}
TILES: Final = {**START, **GENTLE, **HARD, **LENGTH, "data.unlabelled": "hard-only"}
SOFTCON_LOOK: Final = '{"softcon": 1, "look": {"neighbours": 16, "queue": 512}}'
ARMS: Final = (
    Arm("18 windows, random weights", COLLAPSE, "windows", WINDOWS),
    Arm("18 windows, pretrained", COLLAPSE, "windows", {**WINDOWS, **START}),
    Arm(
        "18 windows, pretrained, lr x 10",
        COLLAPSE,
        "windows",
        {**WINDOWS, **START, "optim.lr": "4e-2"},
    ),
    Arm("demo, lr x 10", COLLAPSE, 60, {**WORLD, "optim.lr": "4e-2"}),
    Arm(
        "world, pretrained, lr x 10",
        COLLAPSE,
        60,
        {**WORLD, **START, "optim.lr": "4e-2", "optim.batch": "16", "optim.epochs": "2"},
    ),
    *(Arm(f"demo, seed {n}", HEALTHY, 60, {**WORLD, "optim.seed": str(n)}) for n in range(4)),
    Arm("demo, hard term only", HEALTHY, 60, {**WORLD, "method.objective": "moco"}),
    Arm("demo, soft term only", HEALTHY, 60, {**WORLD, "method.objective": "soft"}),
    Arm("demo, multi-label", HEALTHY, 60, {**WORLD, "method.objective": "multilabel"}),
    Arm("demo, another world", HEALTHY, 61, {**WORLD, "data.seed": "7"}),
    Arm("demo, batch 16", HEALTHY, 60, {**WORLD, "optim.batch": "16", "optim.epochs": "3"}),
    Arm(
        "demo, ResNet-18",
        HEALTHY,
        60,
        {**WORLD, "model.architecture": "timm:resnet18", "method.mask_ratio": "0"},
    ),
    Arm(
        "world, pretrained, gentle",
        HEALTHY,
        60,
        {**WORLD, **START, **GENTLE, "optim.batch": "16", "optim.epochs": "2"},
    ),
    Arm("18 windows, pretrained, gentle", HEALTHY, "windows", {**WINDOWS, **START, **GENTLE}),
    *(
        Arm(f"demo, world {n}", FRESH, n, {**WORLD, "optim.seed": str(n), "data.seed": str(n)})
        for n in (62, 63, 64)
    ),
    *(
        Arm(f"demo, world {n}, matched terms", FRESH, n, {**LENGTH, "data.seed": str(n)})
        for n in (65, 66)
    ),
    Arm("demo, softcon + mim", FRESH, 60, {**LENGTH, "method.terms": '{"softcon": 1, "mim": 1}'}),
    Arm("demo, softcon + look", FRESH, 60, {**LENGTH, "method.terms": SOFTCON_LOOK}),
    Arm("world 67, pretrained, gentle", FRESH, 67, {**SHORT, "data.seed": "67"}),
    Arm("world 68, pretrained, gentle, hard", FRESH, 68, {**SHORT, **HARD, "data.seed": "68"}),
    *(
        Arm(f"EuroSAT, pretrained, gentle, seed {n}", FRESH, "tiles", {**TILES, "optim.seed": n})
        for n in ("0", "1", "2")
    ),
)
ALL: Final = {
    "model.size": "56",
    "run.threads": "1",
    "run.figures": "false",
    "data.size": "60",
    "monitor.collapse_std": "0",
}


def eofm(*words: str) -> int:
    """Run the command line; its lines go to stderr."""
    return subprocess.run([sys.executable, "-m", "eofm", *words], stdout=subprocess.DEVNULL,
                          check=False).returncode  # fmt: skip


def pack(work: Path) -> Path:
    """Cut the three TerraMesh sites into 9 windows each."""
    store = work / "windows"
    if not (store / "spec.json").is_file():
        sites = DATA / "terramesh"
        eofm(
            *("pack", "tiles", "--images", str(sites / "S2L1C"), "--sensor", "s2-l1c"),
            *("--unit", "dn", "--unit_of", '{"609U*": "dn-offset1000"}'),
            *("--landcover", str(sites / "LULC"), "--scheme", "terramesh"),
            *("--window", "96", "--stride", "64", "--out", str(store)),
        )
    return store


def pack_tiles(work: Path) -> Path:
    """Pack the 270 EuroSAT tiles without labels."""
    store = work / "tiles"
    if not (store / "spec.json").is_file():
        eofm(
            *("pack", "tiles", "--images", str(DATA / "eurosat_ms"), "--sensor", "s2-l1c"),
            *("--unit", "dn", "--bands", "B01,B02,B03,B04,B05,B06,B07,B08,B09,B10,B11,B12,B8A"),
            *("--window", "64", "--out", str(store)),
        )
    return store


def train(arm: Arm, work: Path) -> Path:
    """Run an arm, unless it has been."""
    out = work / arm.name.replace(" ", "-").replace(",", "")
    if not out.exists():
        place = ("--data.store", str((pack if arm.store == "windows" else pack_tiles)(work)))
        if isinstance(arm.store, int):
            place = ("--data.world", str(work / f"world-{arm.store}"),
                     "--data.scenes", str(arm.store))  # fmt: skip
        settings = {**ALL, **arm.settings}
        words = [word for key, value in settings.items() for word in (f"--{key}", value)]
        eofm("pretrain", *place, *words, "--run.out", str(out))
    return out


def least(rows: list[dict[str, float]], name: str) -> tuple[float, float, int]:
    """Return the value at the start, the least share of it, and when that was."""
    curve = [(row["step"], row[name]) for row in rows if name in row]
    if not curve or curve[0][0] != 0:
        return math.nan, math.nan, 0
    first = curve[0][1]
    step, value = min(curve[1:], key=lambda point: point[1])
    return first, value / first, int(step)


def said(rows: list[dict[str, float]], *, pretrained: bool) -> str:
    """Return what the guard makes of a run: the first warning, and when two in a row stop it."""
    start, warned, first = Geometry.of(rows[0]), -1, ""
    for row in rows[1:]:
        health = Geometry.of(row).health(start, pretrained=pretrained)
        step = int(row["step"])
        if health is Health.COLLAPSED and warned >= 0:
            return f"{first}stopped at step {step}"
        if health is Health.HEALTHY:
            warned = -1
        elif warned < 0:
            warned, first = step, first or f"warned at step {step}, "
    return first.removesuffix(", ") or "silent"


def line(arm: Arm, out: Path) -> str:
    """Return the arm's line of the table."""
    text = (out / "monitor.jsonl").read_text()
    rows = [row for row in map(json.loads, text.splitlines()) if row["step"] <= LAST]
    cells = []
    for name, digits in (("effective_rank", 1), ("embedding_std", 2), ("knn", 3)):
        first, share, step = least(rows, f"monitor/{name}")
        cells.append("no labels to score" if math.isnan(first) else
                     f"{first:.{digits}f} x {share:.2f} (step {step})")  # fmt: skip
    cosine = max(row["monitor/mean_cosine"] for row in rows[1:])
    cells.append(f"{rows[0]['monitor/mean_cosine']:.3f} to {cosine:.3f}")
    guard = said(rows, pretrained="model.weights" in arm.settings)
    return f"| {' | '.join([arm.name, arm.kind, *cells, guard])} |"


HEAD: Final = """| run | kind | effective rank, start x least share | spread | kNN | mean cosine, start to most | guard |
|---|---|---|---|---|---|---|"""  # noqa: E501


def main() -> None:
    """Train what is not there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/collapse"))
    parser.add_argument("--only", help="arms whose name has this in it")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    lines = [line(arm, train(arm, asked.work)).strip() for arm in ARMS
             if asked.only is None or asked.only in arm.name]  # fmt: skip
    sys.stdout.write("\n".join([HEAD, *lines]) + "\n")


if __name__ == "__main__":
    main()
