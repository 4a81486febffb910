"""What each term of an objective is worth: one table, its own start and controls, several seeds.

    python benchmarks/terms/terms.py                        # trains what is not recorded; hours
    python benchmarks/terms/terms.py --arms mim cropmae     # some of it
    python benchmarks/terms/terms.py --draw                 # the table from the records

All imagery is SYNTHETIC (`eofm/world`). Every run is `eofm pretrain` in a process of its own, for
the same number of steps from random weights. Then, on held-out places:

- the frozen student: a linear probe and the nearest neighbours of its vector, as in every run, and
  a linear layer from its patches to the classes of the land-cover map (mean IoU);
- the term itself: error of hidden pixels before and after training, as a share of the error of the
  patch mean (1 is the floor of knowing nothing), and with another place's view in the partner's
  place: a term that looks at its partner is worse with a wrong one.

A term is one line of `ARMS`. A run that is recorded is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import torch
from torch import Tensor

from eofm.bench.segmentation import class_shares, evaluate, fit_head, mean_iou
from eofm.datasets.images.dense import VOID
from eofm.formats.text import read_yaml
from eofm.landcover.schemes import SCHEMES
from eofm.method.terms import term_names
from eofm.store.reader import Store
from eofm.train.build import build_module, make_recipe, open_data
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule, iterate_rows
from eofm.train.module import PretrainModule
from eofm.train.run_folder import RunFolder, from_dict
from eofm.weights.encoder import Encoder, load_encoder

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE.parent / "results"
sys.path.insert(0, str(HERE.parent / "study"))

from study import interval  # noqa: E402 (the t interval over seeds, from the study's folder)

Record = dict[str, Any]
BASE: Final = "softcon"
CODES: Final = len(SCHEMES["dynamic-world"].classes)


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Args:
        name: Of the line.
        terms: Of the objective, with weights or settings.
        options: What else differs: option of `eofm pretrain` -> value.
        partner: Which view is exchanged between places as the control; None where the term looks
            at one view alone.
        pixels: Name of the term whose error of pixels is measured; "" for none.
    """

    name: str
    terms: Mapping[str, object]
    options: Mapping[str, str] = field(default_factory=dict)
    partner: int | None = None
    pixels: str = ""


_SEASONS: Final = {"data.views": "seasons", "augment.season_pair": "same"}
_SENSORS: Final = {"data.views": "sensors"}
# in proportion to a vit-tiny: the decoders of the papers have more weights than it
_SMALL: Final = {
    "decoder_width": 128, "decoder_depth": 2, "decoder_heads": 4, "decoder_hidden": 512,
}  # fmt: skip
_MIM: Final = {"cls_weight": 0.0, **_SMALL}
_RADAR: Final = {"pair": "sensors", "completed": "second", **_SMALL}
_PLAIN: Final = {"augment.colour_probability": "0", "augment.blur_probability": "0"}
ARMS: Final = (
    Arm("moco-v3, dense", {"softcon": 1}, {"method.objective": "moco", "method.mask_ratio": "0"}),
    Arm(BASE, {"softcon": 1}),
    Arm("softcon + mim", {"softcon": 1, "mim": _MIM}, pixels="mim"),
    Arm("softcon + mim + vector", {"softcon": 1, "mim": {**_MIM, "cls_weight": 0.1}}, pixels="mim"),
    Arm(
        "softcon + mim, one mask",
        {"softcon": 1, "mim": {**_MIM, "mask": "method"}},
        pixels="mim",
    ),
    Arm("mim", {"mim": _MIM}, pixels="mim"),
    Arm("cropmae", {"cropmae": _SMALL}, {"data.views": "nested", **_PLAIN}, 0, "cropmae"),
    Arm(
        "softcon + cropmae",
        {"softcon": 1, "cropmae": _SMALL},
        {"data.views": "nested"},
        0,
        "cropmae",
    ),
    Arm("softcon + hallucinate", {"softcon": 1, "hallucinate": 0.5}),
    Arm("look", {"look": {"neighbours": 16, "queue": 512}}),
    Arm("softcon + look", {"softcon": 1, "look": {"neighbours": 16, "queue": 512}}),
    Arm("softcon, seasons", {"softcon": 1}, {"data.views": "seasons"}),
    Arm("croco, seasons", {"croco": _SMALL}, _SEASONS, 1, "croco"),
    Arm("softcon + croco, seasons", {"softcon": 1, "croco": _SMALL}, _SEASONS, 1, "croco"),
    Arm(
        "croco, optical from radar", {"croco": {"pair": "sensors", **_SMALL}}, _SENSORS, 1, "croco"
    ),
    Arm("croco, radar from optical", {"croco": _RADAR}, _SENSORS, 0, "croco"),
)


@dataclass(frozen=True)
class Size:
    """How large the runs are.

    Args:
        world: Folder of the synthetic world.
        scenes: Places in it.
        window: Side of its scenes in pixels.
        image: Side of a view in pixels.
        epochs: Passes over the places.
        batch: Scenes of a step.
        work: Folder of the runs.
    """

    world: Path
    scenes: int
    window: int
    image: int
    epochs: int
    batch: int
    work: Path

    def folder(self, arm: Arm, seed: int) -> Path:
        """Return the folder of a run."""
        return self.work / f"{arm.name}-{seed}".replace(" ", "_").replace(",", "")


def command(arm: Arm, seed: int, size: Size) -> list[str]:
    """Return the words of a run."""
    seasons = arm.options.get("data.views", "").startswith("seasons")
    options = {
        "data.world": str(size.world),
        "data.scenes": str(size.scenes),
        "data.size": str(size.window),
        "model.architecture": "vit-tiny-14",
        "model.size": str(size.image),
        "optim.batch": str(size.batch),
        # a place with two seasons counts once in an epoch: of four seasons a quarter of the steps
        "optim.epochs": str(size.epochs * (4 if seasons else 1)),
        "optim.seed": str(seed),
        "monitor.every_epochs": "0",
        "run.figures": "false",
        "run.threads": "1",
        **arm.options,
        "method.terms": json.dumps(dict(arm.terms)),
        "run.out": str(size.folder(arm, seed)),
    }
    return [
        "eofm",
        "pretrain",
        *(w for name, value in options.items() for w in (f"--{name}", value)),
    ]


# --------------------------------------------------------------------------- what a run is worth


def reopened(folder: Path) -> tuple[PretrainModule, StoreDataModule]:
    """Return the data of a run, and its module before the first step."""
    config: PretrainConfig = from_dict(read_yaml(folder / "config.yaml"), folder)
    store, second = open_data(config.data)
    data = StoreDataModule(
        store, config.data, config.optim.batch, config.optim.seed, second_store=second
    )
    recipe = make_recipe(store, data.train_rows.tolist(), config.model)
    return build_module(config, data, recipe)[0].eval(), data


def held_out(data: StoreDataModule, batch: int) -> Iterator[list[int]]:
    """Yield rows of held-out scenes in batches; of seasons, two of each place in two halves."""
    rows = [*data.val_rows.tolist(), *data.test_rows.tolist()]
    if data.second_store is not None:
        rows = [row for row in rows if data.second_store.row_of[row] >= 0]
    if data.config.views == "seasons":
        places: dict[str, list[int]] = {}
        for row in rows:
            places.setdefault(str(data.store.locations[row]), []).append(row)
        pairs = [found[:2] for found in places.values() if len(found) > 1]
        for at in range(0, len(pairs), batch):
            part = pairs[at : at + batch]
            yield [one for one, _ in part] + [other for _, other in part]
        return
    for at in range(0, len(rows), batch):
        yield rows[at : at + batch]


@torch.no_grad()
def pixel_error(
    module: PretrainModule, data: StoreDataModule, term: str, exchanged: int | None
) -> float:
    """Return the error of hidden pixels as a share of that of the patch mean.

    The same views and masks at every call.

    Args:
        module: Of a run.
        data: Of the run.
        term: Whose error.
        exchanged: Which view is another place's; None for neither.
    """
    torch.manual_seed(0)
    masks = torch.Generator().manual_seed(0)
    error = floor = 0.0
    for rows in held_out(data, 64):
        native = data.images(rows)
        _, *views = module.two_views(native)
        count = len(views[0].pixels)
        if count < 2:
            continue
        pixels = [view.pixels for view in views]
        if exchanged is not None:
            pixels[exchanged] = pixels[exchanged].roll(1, 0)
        labels = data.labels[torch.tensor(rows)]
        scalars = module.method(
            (pixels[0], pixels[1]),
            module.of_views(labels),
            masks,
            lambda view, views=views: views[view].measured(),
        ).scalars
        error += count * float(scalars[f"{term}/error"])
        floor += count * float(scalars[f"{term}/floor"])
    return error / floor


def cover(world: Path, store: Store, rows: Sequence[int]) -> Tensor:
    """Return the land-cover maps of some scenes, int64 (N, H, W), `VOID` where nothing is known."""
    maps = []
    for row in rows:
        with rasterio.open(world / "scenes" / "dw" / f"{store.ids[row]}.tif") as file:
            codes = torch.from_numpy(file.read(1).astype(np.int64))
        maps.append(torch.where(codes < CODES, codes, VOID))
    return torch.stack(maps)


def patch_iou(encoder: Encoder, world: Path, data: StoreDataModule) -> float:
    """Return the mean IoU of a linear layer on the frozen patches of held-out scenes."""
    grid = encoder.trunk.grid

    def read(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        tokens = [encoder.features(imagery) for imagery in iterate_rows(data.store, rows)]
        return torch.cat(tokens), cover(world, data.store, rows)

    def opened(rows: Sequence[int]) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
        return lambda: iter([read(rows)])

    tokens, masks = read(data.probe_rows.tolist())
    shares, known = class_shares(masks, grid, CODES)
    use = known >= 0.5
    fit = fit_head(tokens[use], shares[use], opened(data.val_rows.tolist()), grid, standard=True)
    (matrices,) = evaluate([fit.head], opened(data.test_rows.tolist()), grid, CODES)
    return float(mean_iou(matrices.sum(dim=0)))


def measure(arm: Arm, folder: Path, world: Path) -> Record:
    """Return what a run, and its own start, are worth on held-out places."""
    module, data = reopened(folder)
    out: Record = {"patch_iou": {}, "pixels": {}}
    if data.store.spec.sensor == "s2-l1c":
        for name, encoder in (("initialisation", "init"), ("student", "student")):
            path = folder / "export" / encoder
            out["patch_iou"][name] = patch_iou(load_encoder(path), world, data)
    if arm.pixels:
        out["pixels"]["before"] = pixel_error(module, data, arm.pixels, None)
        saved = torch.load(RunFolder(folder).checkpoint, weights_only=True, map_location="cpu")
        module.load_state_dict(saved["state_dict"])
        out["pixels"]["after"] = pixel_error(module, data, arm.pixels, None)
        if arm.partner is not None:
            out["pixels"]["other place"] = pixel_error(module, data, arm.pixels, arm.partner)
    return out


def run(arm: Arm, seed: int, size: Size, records: Path) -> None:
    """Train, measure, and append the record."""
    folder, words = size.folder(arm, seed), command(arm, seed, size)
    began = time.monotonic()
    if not (folder / "DONE").is_file():
        done = subprocess.run(
            [sys.executable, "-m", "eofm.cli", *words[1:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{arm.name}, seed {seed} failed\n{done.stderr[-3000:]}")
    results = json.loads((folder / "results.json").read_text())
    steps = len((folder / "metrics.jsonl").read_text().splitlines())
    record = {
        "arm": arm.name,
        "seed": seed,
        "scores": results["scores"],
        **measure(arm, folder, size.world),
        "steps": steps,
        "step_seconds": results["train_seconds"] / max(steps, 1),
        "synthetic": True,
        "environment": json.loads((folder / "environment.json").read_text()),
        "command": " ".join(words),
    }
    with records.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    sys.stderr.write(f"{arm.name}, seed {seed}: {time.monotonic() - began:.0f} s\n")


# ------------------------------------------------------------------------------------ the table


def value(record: Record, measure: str, encoder: str) -> float:
    """Return a score x 100 of an encoder of a run; NaN where there is none."""
    if measure == "patch_iou":
        return 100 * float(record["patch_iou"].get(encoder, float("nan")))
    found = [s[measure] for s in record["scores"] if s["name"] == encoder]
    return 100 * float(found[0]) if found else float("nan")


def cell(rows: Mapping[int, Record], base: Mapping[int, Record], measure: str) -> str:
    """Return mean of the student, and what it gained on its own start and on the base."""
    student = {seed: value(row, measure, "student") for seed, row in rows.items()}
    if any(math.isnan(each) for each in student.values()):
        return "–"
    gain = [student[s] - value(row, measure, "initialisation") for s, row in rows.items()]
    text = f"{interval(list(student.values()))[0]:.1f}, start {signed(gain)}"
    common = sorted(rows.keys() & base.keys())
    if rows is not base and common:
        text += (
            f", softcon {signed([student[s] - value(base[s], measure, 'student') for s in common])}"
        )
    return text


def signed(values: Sequence[float]) -> str:
    """Return a mean difference with its 95 % t interval over seeds, bold where it excludes 0."""
    mean, half = interval(values)
    if len(values) == 1:
        return f"{mean:+.1f} (one seed)"
    text = f"{mean:+.1f} ± {half:.1f}"
    return f"**{text}**" if abs(mean) > half else text


def share(rows: Mapping[int, Record], when: str) -> str:
    """Return the mean error of pixels as a share of the floor; a dash where it is not measured."""
    found = [row["pixels"][when] for row in rows.values() if when in row["pixels"]]
    return f"{interval(found)[0]:.3f}" if found else "–"


HEAD: Final = """# Terms of an objective: SYNTHETIC scenes

{seeds} seed(s), vit-tiny-14 from random weights, {steps} steps. Frozen student on held-out places,
x 100: mean, gain on its own start and on `softcon` of the same seeds, with the 95 % t interval over
seeds. Error of hidden pixels as a share of the patch mean's: below 1 something is known. Seconds
are of a shared machine. Which term is better on made-up scenes is no proof for real ones. Made by
`python benchmarks/terms/terms.py`; every record in terms.jsonl has its command.

| terms | linear AP | kNN AP | patches, mIoU | pixels before | after | other place | s per step |
|---|---|---|---|---:|---:|---:|---:|
"""


def table(records: Sequence[Record]) -> str:
    """Return the page of all records."""
    by_arm: dict[str, dict[int, Record]] = {}
    for record in records:
        by_arm.setdefault(record["arm"], {})[record["seed"]] = record
    base, lines = by_arm.get(BASE, {}), []
    for arm in ARMS:
        if rows := by_arm.get(arm.name):
            seconds = interval([row["step_seconds"] for row in rows.values()])[0]
            cells = [
                arm.name,
                *(cell(rows, base, name) for name in ("ap_macro", "knn_macro", "patch_iou")),
                *(share(rows, when) for when in ("before", "after", "other place")),
                f"{seconds:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    steps = sorted({record["steps"] for record in records})
    head = HEAD.format(seeds=len({r["seed"] for r in records}), steps=" to ".join(map(str, steps)))
    return head + "\n".join(lines) + "\n"


def read(records: Path) -> list[Record]:
    """Return the records that there are."""
    return (
        [json.loads(line) for line in records.read_text().splitlines()] if records.is_file() else []
    )


def main(words: Sequence[str] | None = None) -> None:
    """Train what is not recorded, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="*", help="names of lines; all without it")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--world", type=Path, default=Path("worlds/terms"))
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--window", type=int, default=120)
    parser.add_argument("--image", type=int, default=112)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path("runs/terms"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of records and table")
    parser.add_argument("--draw", action="store_true", help="only write the table")
    asked = parser.parse_args(words)
    size = Size(
        asked.world, asked.scenes, asked.window, asked.image, asked.epochs, asked.batch, asked.work
    )
    records = asked.out / "terms.jsonl"
    known = {(row["arm"], row["seed"]) for row in read(records)}
    arms = [arm for arm in ARMS if set(arm.terms) <= set(term_names())]
    for seed in () if asked.draw else asked.seeds:
        for arm in arms:
            if (not asked.arms or arm.name in asked.arms) and (arm.name, seed) not in known:
                run(arm, seed, size, records)
    if found := read(records):
        (asked.out / "terms.md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
