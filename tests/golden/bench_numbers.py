"""The numbers of `eofm bench`, frozen: run it before a change and after, and compare.

    python tests/golden/bench_numbers.py WORK >before.json
    python tests/golden/bench_numbers.py OTHER >after.json  # of the changed code
    python tests/golden/bench_numbers.py --compare before.json after.json

Real tiles (EOFM_REAL_DATA: EuroSAT, BigEarthNet, TerraMesh) and the miniature floods of the tests,
small untrained encoders, all kinds of probes; about two minutes of one core. A case holds the
records, what the predictions say, and the printed table. Left out is what tells of the run and not
of the result: time, commit, paths, and hashes that contain those of the code. `eofm bench ablate`
of 0.1 and `--normalization` of its successors are the same case, with other names of rows.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "miniatures"))

from eofm.cli import VERBS, main

DATA = Path(os.environ.get("EOFM_REAL_DATA", Path(__file__).parents[2] / "../shared/data"))
_LEFT_OUT = ("key", "made", "checksum", "predictions", "predictions_sha256")


def _named(*places: str) -> Any:
    """The first of several `module:name` that is there: modules of 0.1 had other names."""
    for place in places:
        module, _, name = place.partition(":")
        with contextlib.suppress(ImportError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(places)


def encoder(folder: Path, sensor: str, size: int) -> str:
    """Write an untrained encoder; return where."""
    statistics = _named("eofm.contract.spec:STATISTICS", "eofm.sensors:STATISTICS")
    recipe = _named("eofm.contract.recipe:Recipe", "eofm.recipe:Recipe")
    spec = "eofm.contract.spec", "eofm.spec"
    of = statistics[{"s2": "ssl4eo-s12-l1c", "s1": "ssl4eo-s12-grd"}[sensor]]
    sensors, units, norm = (
        _named(*(f"{m}:{n}" for m in spec)) for n in ("Sensor", "Unit", "Normalization")
    )
    made = recipe(
        sensors.S2_L1C if sensor == "s2" else sensors.S1_GRD,
        of.bands,
        units.DN if sensor == "s2" else units.DB,
        (size, size),
        norm.two_sigma(of.mean, of.std, of.source),
    )
    place = "eofm.weights.encoder", "eofm.models.encoder"
    random, save = (
        _named(*(f"{m}:{n}" for m in place)) for n in ("random_encoder", "save_encoder")
    )
    save(random("vit-tiny-14", made, seed=5), folder)
    return str(folder)


def masks(root: Path) -> str:
    """Arrange TerraMesh radar with its land cover as `bench masks` wants it."""
    for n, site in enumerate(sorted((DATA / "terramesh/S1RTC").glob("*.tif"))):
        split = "test" if n == 0 else "train"
        for kind, source in (("images", site), ("masks", DATA / "terramesh/LULC" / site.name)):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / split / kind / site.name)
    return str(root)


def cases(work: Path) -> dict[str, list[str]]:
    """Name -> words of the command line."""
    from dense_world import write_floods

    s2, s1 = encoder(work / "s2", "s2", 28), encoder(work / "s1", "s1", 28)
    wide, radar = encoder(work / "wide", "s2", 56), encoder(work / "radar", "s1", 56)
    floods = work / "floods"
    write_floods(floods, {"train": ["A_1", "A_2"], "valid": ["B_1"], "test": ["C_1", "C_2"]})
    tiles = ["--root", str(DATA / "eurosat_ms"), "--limit", "80", "--batch", "32"]
    tiles += ["--draws", "2", "--bootstrap", "100", "--model", f"mine={s2}"]
    ben = ["--root", str(DATA / "bigearthnet_v1"), "--version", "v1", "--bootstrap", "100"]
    ben += ["--probe", "knn,nmc", "--k", "3"]
    dense = ["--bootstrap", "50", "--patches", "2000", "--batch", "4"]
    water = ["sen1floods11", "--root", str(floods), *dense]
    ablation = ["--normalization", "own,zscore,minmax,divide10000", "--size", "42,own"]
    ablation += ["--probe", "knn", "--controls", "false"]
    old = "bench ablate" in VERBS
    codes = "1=water,2=trees,4=crops,5=built,6=bare,9=range"
    return {
        "eurosat": ["eurosat", *tiles, "--probe", "knn,knn20,nmc,linear,linear-grid,linear-c1"],
        "shares": [
            "eurosat",
            *tiles,
            "--probe",
            "knn",
            "--shares",
            "3-shot,2-shot",
            "--draws",
            "2",
        ],
        "sizes": ["eurosat", *tiles, "--probe", "nmc", "--size", "14,42"],
        "ablation": [*(["ablate"] if old else []), "eurosat", *tiles, *ablation],
        "trained": [
            *("eurosat", *tiles, "--probe", "finetune,softcon-linear", "--train.epochs", "1"),
            *("--train.factors", "0,0.1", "--controls", "false"),
        ],
        "ben-s2": ["bigearthnet", *ben, "--model", f"mine={s2}"],
        "ben-both": ["bigearthnet", *ben, "--sensor", "both", "--model", f"two={s2}+{s1}"],
        "ben-43": ["bigearthnet", *ben, "--sensor", "s1", "--classes", "43", "--model", s1],
        "floods-s2": [*water, "--sensor", "s2", "--model", f"mine={wide}"],
        "floods-both": [*water, "--sensor", "both", "--model", f"pixels,two={wide}+{radar}"],
        "masks": [
            *("masks", "--root", masks(work / "terramesh"), "--sensor", "s1-rtc", *dense),
            *("--unit", "db", "--classes", codes, "--void", "0,3,7,8"),
            *("--model", "mine=random:vit-tiny-14"),
        ],
    }


def sha256(array: np.ndarray) -> str:
    """Of type, shape and values."""
    text = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(text + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def of_record(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is kept of a record, with its predictions."""
    with np.load(folder / row["predictions"], allow_pickle=False) as kept:
        said = {name: sha256(kept[name]) for name in kept.files if name != "fit"}
    return {**{n: v for n, v in row.items() if n not in _LEFT_OUT}, "said": said}


def run(words: list[str], folder: Path, work: Path) -> dict[str, Any]:
    """One case: its records by model, probe, metric and sample; and its text."""
    out = folder / "records.jsonl"
    text = io.StringIO()
    files = ["--out", str(out), "--cache", str(work / "cache")]
    if "ablate" in words:
        files += ["--figure", ""]
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()) as errors:
        if main(["bench", *words, *files]):
            raise RuntimeError(f"{' '.join(words)}: {errors.getvalue()}")
    lines = text.getvalue().replace(str(work), "WORK").replace(str(DATA), "DATA").splitlines()
    # columns were not padded in 0.1
    lines = [re.sub("--+", "---", re.sub(" +", " ", line)) for line in lines]
    shown = [line for line in lines if not re.match(r"(- )?`eofm |\d+ new records", line)]
    rows = [of_record(json.loads(line), folder) for line in out.read_text().splitlines()]
    named = {
        f"{r['model']['name']} | {r['probe']} | {r['metric']} | {r['sample']['split']}": r
        for r in rows
    }
    return {"records": named, "text": shown}


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two outcomes differ; a field that is new and empty is no difference."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for name in dict.fromkeys([*one, *other]):
            if name not in one and not other[name]:
                continue
            if name not in one or name not in other:
                which = "second" if name in other else "first"
                found.append(f"{place}/{name}: only in the {which}")
            else:
                found += differences(one[name], other[name], f"{place}/{name}")
        return found
    return [] if one == other else [f"{place}: {one!r} != {other!r}"]


def main_(words: list[str]) -> int:
    """Freeze, or compare."""
    parser = argparse.ArgumentParser(description="The numbers of eofm bench, frozen or compared.")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="FILE", help="before and after")
    parser.add_argument("work", nargs="?", type=Path, help="a new folder outside of the checkout")
    parser.add_argument("cases", nargs="*", help="names of cases; all without any")
    options = parser.parse_args(words)
    if options.compare:
        found = differences(*(json.loads(file.read_text()) for file in options.compare))
        print("\n".join(found) or "equal")
        return int(bool(found))
    if options.work is None:
        parser.error("name a folder to work in, or --compare two files")
    work: Path = options.work
    work.mkdir(parents=True)
    every = cases(work)
    chosen = options.cases or list(every)
    print(json.dumps({n: run(every[n], work / "runs" / n, work) for n in chosen}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main_(sys.argv[1:]))
