"""Continual pretraining on scenes of other places: what it adds on the tiles of the study.

    python benchmarks/study/real_pixels_scenes.py            # trains what is not recorded yet
    python benchmarks/study/real_pixels_scenes.py --draw     # the page from the records

The start of `real_pixels.py` is trained further on windows of the three TerraMesh sites, labelled
by their land-cover maps, and of the twelve S2-100K scenes, which have no labels (EOFM_REAL_DATA):
packed by `eofm pack tiles`, with that study's settings and rates. No EuroSAT tile is trained on;
all of them are scored, in the folds and by the measures of that study. The records are
`study_real_pixels_scenes.jsonl`, the page is `study_real_pixels_scenes.md`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from fitting import fit
from real_pixels import (
    SEEDS,
    STUDY,
    Arm,
    Study,
    add_stores,
    chosen_rate,
    configure,
    embed,
    facts,
    objective_of,
    open_study,
    prepared,
)
from real_pixels_page import Scores
from real_pixels_scores import MEASURES, PRIMARY
from real_pixels_tiles import BATCH
from records import RESULTS, Record, read_records, study_parser, table

import eofm
from eofm.cli import main as run_eofm
from eofm.contract.recipe import AcceptSensor
from eofm.contract.spec import Sensor

REAL: Final = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data"))
NAME: Final = "study_real_pixels_scenes"
# Packing refuses these two as `dn`: by their darkest pixels they have the offset of baseline 04.00.
WITH_OFFSET: Final = ("patch_252161", "patch_57755")
PACK: Final = (
    "pack tiles --sensor s2-l2a --unit dn --window 56 --stride 28 --scheme terramesh "
    "--allow_unlabelled true"
)
_KEEP: Final = {"data.unlabelled": "hard-only"}
START: Final = "start"
ARMS: Final = (
    Arm("hard only", {**_KEEP, "method.objective": "moco"}),
    Arm("softcon, λ = 1", _KEEP),
    Arm("shuffled labels", {**_KEEP, "method.objective": "shuffled"}),
)
# Differences of the family: each arm from its start, and what the labels add.
FAMILY: Final = (
    *((arm.name, START) for arm in ARMS),
    (ARMS[1].name, ARMS[0].name),
    (ARMS[1].name, ARMS[2].name),
)
# EuroSAT is Level-1C: the network of twelve bands of Level-2A sees it without B10.
LEVEL: Final = (AcceptSensor(Sensor.S2_L1C, "the start and every arm are scored the same way"),)


def pack(folder: Path) -> Path:
    """Return the store of windows of all scenes, packed if it is not there."""
    out, images = folder / "scenes", folder / "scenes-images"
    if out.is_dir():
        return out
    images.mkdir(parents=True, exist_ok=True)
    for file in (*(REAL / "terramesh/S2L2A").glob("*.tif"), *(REAL / "s2_100k").rglob("*.tif")):
        (images / file.name).unlink(missing_ok=True)
        (images / file.name).symlink_to(file.resolve())
    words = [*PACK.split(), "--unit_of", json.dumps(dict.fromkeys(WITH_OFFSET, "dn-offset1000"))]
    words += ["--images", str(images), "--landcover", str(REAL / "terramesh/LULC")]
    if run_eofm([*words, "--out", str(out)]) != 0:
        raise SystemExit("the scenes could not be packed")
    return out


def write(study: Study, arm: str, seed: int, x: torch.Tensor, more: Record) -> None:
    """Record the scores of all folds: the network is the same in all of them."""
    for fold in study.folds:
        study.write(arm, seed, fold, x, **(more if fold == 0 else {}))


def train(study: Study, arm: Arm, seed: int, store: Path, rate: float) -> None:
    """Train one arm, and record it; and before the first one, the start."""
    cpu, wall = time.process_time(), time.monotonic()
    windows = len(eofm.Store(store))
    epochs = math.ceil(study.steps / (windows // BATCH))
    config = configure(arm, seed, store, rate, epochs)
    data, module = prepared(config)
    if (START, 0, 0) not in study.known():
        write(study, START, 0, embed(module, study.tiles.images, waivers=LEVEL), {})
    steps = fit(config, data, module, precision=config.trainer.precision)
    seconds = round(time.monotonic() - wall, 1)
    more: dict[str, Any] = {"steps": steps, "windows": windows, "wall_seconds": seconds}
    x = embed(module, study.tiles.images, waivers=LEVEL)
    write(study, arm.name, seed, x, {**more, **facts(config, cpu)})


# ------------------------------------------------------------------------------------ the page

_HEAD: Final = f"""# Continual pretraining on scenes of other places

    python benchmarks/study/real_pixels_scenes.py

**Data.** Real Sentinel-2 L2A: the three TerraMesh sites (224 px, each with a land-cover map) and
the twelve S2-100K scenes (256 px, without labels), cut into windows of 56 px at 10 m every 28 px by
`eofm pack tiles`: {{windows}} windows, of which 147 have labels (the classes of their land cover).

**Start, settings, rates** are those of [study_real_pixels.md](study_real_pixels.md), where the
rates were chosen: a ViT-S/14 of natural images cut after seven blocks, input layer by
`rgb-nearest` (here twelve bands), {{steps}} optimiser steps of batch {BATCH}. Windows without
labels are in the hard term alone (`data.unlabelled: hard-only`).

**Scored** are the 270 EuroSAT tiles, of which none was trained on, in the folds and by the
measures of that study. They are Level-1C; the network sees their twelve bands of Level-2A without
B10 (`AcceptSensor`), before training and after. Measures, arms and family were fixed before an arm
was trained.

**Intervals.** 95 %, paired bootstrap over {{places}} places and over seeds. **Bold**: below 5 %
after Holm's correction over {{family}} comparisons: each arm from its start, and what the labels
add, in both primary measures. All x 100.
"""
_LIMITS: Final = """Not concluded: one start, fifteen scenes, three of them labelled, and a short
run. That a difference is not shown is not evidence that there is none; the intervals say how large
it may be.
"""


def page(records: Sequence[Record]) -> str:
    """Return the page."""
    scores = Scores(records)
    pairs = [pair for pair in FAMILY if all(map(scores.has, pair))]
    found = scores.corrected(pairs)
    rows = []
    for name in (START, *(arm.name for arm in ARMS)):
        if not scores.has(name):
            continue
        cells = [name, str(len(scores.seeds(name)))]
        for measure in MEASURES:
            cells.append(f"{scores.mean(name, measure):.1f}")
            if measure in PRIMARY:
                cells.append("" if name == START else found[name, START, measure].words())
        rows.append([*cells, f"{scores.ranks[name]:.1f}"])
    head = ["", "seeds"]
    for measure, words in MEASURES.items():
        head += [words, "over the start"] if measure in PRIMARY else [words]
    labels = [
        [f"{name} over {other}", *(found[name, other, measure].words() for measure in PRIMARY)]
        for name, other in pairs
        if other != START
    ]
    trained = [row for row in records if "steps" in row]
    text = _HEAD.format(
        windows="/".join(sorted({str(row["windows"]) for row in trained})),
        steps="/".join(sorted({str(row["steps"]) for row in trained})),
        places=int(scores.places.max()) + 1,
        family=len(found),
    )
    lines = [text, *table([*head, "rank"], rows), ""]
    lines += table(["what the labels add", *(MEASURES[name] for name in PRIMARY)], labels)
    return "\n".join([*lines, "", _LIMITS])


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    parser = study_parser(__doc__)
    add_stores(parser)
    options = parser.parse_args(argv)
    own = options.out / f"{NAME}.jsonl"
    if not options.draw:
        study = open_study(options, NAME)
        store = pack(options.stores)
        rates = read_records(RESULTS / f"{STUDY}.jsonl")
        for seed, arm in itertools.product(SEEDS, ARMS):
            if (arm.name, seed, study.folds[-1]) not in study.known():
                train(study, arm, seed, store, chosen_rate(rates, objective_of(arm)))
    if records := read_records(own):
        (options.out / f"{NAME}.md").write_text(page(records), encoding="utf-8")


if __name__ == "__main__":
    main()
