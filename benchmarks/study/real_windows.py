"""The same arms on real imagery: windows of three TerraMesh sites, scored on 270 EuroSAT tiles.

    python benchmarks/study/real_windows.py --jobs 2     # trains what is not recorded yet
    python benchmarks/study/real_windows.py --draw       # the table from the records

Three places are far too few to rank methods by: this shows what real pixels and real land-cover
labels do to the synthetic study's order, with its spread over seeds. Training starts from the same
weights as there (`runs/study/colours.pth`, made by study.py). The encoders are frozen; neighbours
and a linear layer on their features are cross-validated over all tiles, because a split of so few
tests on 54.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from study import RUNS, SEEDS, Arm, interval, make_colours

DATA: Final = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data"))
RECORDS: Final = Path(__file__).parent.parent / "results" / "study_real.jsonl"
STORE: Final = Path("runs/study-real/store")
EPOCHS: Final = 20
BATCH: Final = 49
FOLDS: Final = 5
REPEATS: Final = 10
CLASSES: Final = 10
MEASURES: Final = {"knn": "kNN-5, accuracy", "linear": "linear, accuracy"}
START: Final = "weights it starts from"

ARMS: Final = (
    Arm("objective", "softcon"),
    Arm("objective", "hard only", {"method.objective": "moco"}),
    Arm("objective", "soft only", {"method.objective": "soft"}),
    Arm("objective", "shuffled labels", {"method.objective": "shuffled"}),
    Arm("objective", "multi-label BCE", {"method.objective": "multilabel"}),
    Arm("objective", "softcon, no mask", {"method.mask_ratio": "0"}),
    Arm("objective", "softcon from scratch", {"model.weights": "null"}),
)


def pack() -> None:
    """Cut the three sites into windows of 56 pixels, every 28."""
    if (STORE / "spec.json").is_file():
        return
    sites = DATA / "terramesh"
    words = [sys.executable, "-m", "eofm.cli", "pack", "tiles", "--images", str(sites / "S2L1C")]
    words += ["--sensor", "s2-l1c", "--unit", "dn", "--unit_of", '{"609U*": "dn-offset1000"}']
    words += ["--landcover", str(sites / "LULC"), "--scheme", "terramesh"]
    words += ["--window", "56", "--stride", "28", "--out", str(STORE)]
    subprocess.run(words, check=True)


def command(arm: Arm, seed: int) -> list[str]:
    """Return the words of the run."""
    options = {
        "data.store": str(STORE),
        "data.holdout": "0",
        "model.size": "56",
        "model.weights": str(RUNS / "colours.pth"),
        "optim.epochs": str(EPOCHS),
        "optim.batch": str(BATCH),
        "run.figures": "false",
        "run.threads": "1",
        "monitor.every_epochs": "0",
        **arm.options,
        "optim.seed": str(seed),
        "run.out": str(STORE.parent / f"{arm.name}-{seed}".replace(" ", "_").replace(",", "")),
    }
    return ["eofm", "pretrain", *(word for k, v in options.items() for word in (f"--{k}", v))]


def accuracy(folder: Path) -> dict[str, float]:
    """Return the cross-validated accuracy of an export on the EuroSAT tiles, by probe."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from eofm.bench.load import load
    from eofm.datasets.eurosat import BenchEurosatConfig
    from eofm.datasets.images.chips import read_batches, targets_of
    from eofm.weights.encoder import load_encoder

    torch.set_num_threads(1)
    chips = load(BenchEurosatConfig(str(DATA / "eurosat_ms"))).chips.all
    encoder = load_encoder(folder).eval()
    x = torch.cat([encoder.embed(batch) for batch in read_batches(chips, 64, 0)]).numpy()
    y = targets_of(chips, CLASSES).numpy()
    folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    probes = {
        "knn": KNeighborsClassifier(5),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
    }
    return {name: float(cross_val_score(p, x, y, cv=folds).mean()) for name, p in probes.items()}


def run(arm: Arm, seed: int) -> None:
    """Train, score, and append the record."""
    words = command(arm, seed)
    out = Path(words[-1])
    shutil.rmtree(out, ignore_errors=True)  # of a run that was stopped
    done = subprocess.run(
        [sys.executable, "-m", "eofm.cli", *words[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{arm.name}, seed {seed} FAILED\n{done.stderr[-2000:]}")
        return
    record = {
        "arm": arm.name,
        "seed": seed,
        "scores": {part: accuracy(out / "export" / part) for part in ("init", "student")},
        "environment": json.loads((out / "environment.json").read_text()),
        "command": shlex.join(words),
    }
    with RECORDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"{arm.name}, seed {seed}: {record['scores']}", flush=True)


def records() -> list[dict[str, Any]]:
    """Return what has been recorded."""
    if not RECORDS.is_file():
        return []
    return [json.loads(line) for line in RECORDS.read_text().splitlines()]


def draw() -> None:
    """Write study_real.md from the records."""
    rows = records()

    def of(arm: str, part: str, measure: str) -> dict[int, float]:
        return {r["seed"]: 100 * r["scores"][part][measure] for r in rows if r["arm"] == arm}

    def line(label: str, arm: str, part: str) -> str:
        cells = []
        for measure in MEASURES:
            start, mine = of("softcon", "init", measure), of(arm, part, measure)
            cell = f"{interval(list(mine.values()))[0]:.1f}"
            if label != START:
                common = sorted(set(mine) & set(start))
                mean, half = interval([mine[s] - start[s] for s in common])
                text = f"{mean:+.1f} ± {half:.1f}" if len(common) > 1 else f"{mean:+.1f}, one seed"
                cell += f" (**{text}**)" if abs(mean) > half else f" ({text})"
            cells.append(cell)
        return f"| {label} | " + " | ".join(cells) + " |"

    known = [arm.name for arm in ARMS if any(r["arm"] == arm.name for r in rows)]
    text = [
        "# The arms on real imagery: three TerraMesh sites, scored on 270 EuroSAT tiles",
        "",
        f"{EPOCHS} epochs on 147 windows of 56 px (stride 28, so neighbours overlap) of three",
        "sites, Sentinel-2 L1C, labels from their land cover; vit-tiny-14 from weights pretrained",
        "on *synthetic* scenes. Frozen encoders; accuracy x 100 over all 270 tiles,",
        f"{REPEATS} x {FOLDS}-fold cross-validation with scikit-learn (kNN: 5 neighbours, L2;",
        "linear: standardised, C = 0.1). Mean over seeds, in brackets the mean difference to the",
        "starting weights with its 95 % t interval over seeds; **bold** where it excludes 0. Three",
        "places cannot rank methods: whatever is learnt here is learnt from them alone.",
        "",
        "| | " + " | ".join(MEASURES.values()) + " |",
        "|---|" + "---:|" * len(MEASURES),
        line(START, "softcon", "init"),
        *(line(name, name, "student") for name in known),
        "",
        f"First: `{rows[0]['command']}`.",
        "`python benchmarks/study/real_windows.py` makes the records in study_real.jsonl, each",
        "with its command; `--draw` this page.",
        "",
    ]
    RECORDS.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args(argv)
    if options.draw:
        draw()
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    make_colours()
    pack()
    known = {(row["arm"], row["seed"]) for row in records()}
    todo = [(arm, seed) for seed in SEEDS for arm in ARMS if (arm.name, seed) not in known]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda item: run(*item), todo))


if __name__ == "__main__":
    main()
