"""Freeze the numbers of training, labels and stores, exactly, and compare two versions of eofm.

    PYTHONPATH=<old checkout> python tests/golden/training_numbers.py --out old.json
    python tests/golden/training_numbers.py --against old.json

Everything goes through the command line and the files it writes, so that one script reads versions
whose modules have other names. Numbers are exact: losses as hexadecimal floats, tensors as hashes
of their bytes, both on one thread. They hold for one machine and one version of torch only, so the
JSON is not part of the repository. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import eofm
from eofm.cli import main

# What every run of this script states, whatever the defaults of a version are: all that is small.
SMALL = [
    "--data.scenes",
    "12",
    "--data.size",
    "60",
    "--model.size",
    "56",
    "--optim.batch",
    "8",
    "--run.threads",
    "1",
    "--run.figures",
    "false",
    "--monitor.every_epochs",
    "0",
]
STEPS = ["--optim.epochs", "5"]  # 38 training scenes: four batches an epoch, 20 steps

# The method as 0.1 had it by default, in full.
PLAIN = {
    "objective": "softcon",
    "tau": 0.2,
    "hard_exclude": "none",
    "queue": 0,
    "soft_tau": 0.2,
    "soft_weight": 10.0,
    "soft_unit": "plain",
    "soft_form": "bce",
    "soft_bias": "learned",
    "soft_scale": "fixed",
    "soft_neighbours": 0,
    "soft_diagonal": "labels",
    "similarity": "cosine",
    "mask_ratio": 0.5,
    "mask": "tokens",
    "mask_fill": "mean",
    "symmetric": "true",
    "momentum": 0.99,
    "head": "auto",
    "hidden": 64,
    "dim": 32,
    "head_norm": "bn",
}
RUNS: dict[str, dict[str, object]] = {
    "softcon": {},
    "moco": {"objective": "moco"},
    "soft": {"objective": "soft"},
    "shuffled": {"objective": "shuffled"},
    "multilabel": {"objective": "multilabel"},
    "gradient": {"soft_unit": "gradient", "soft_weight": 1.0, "soft_scale": "learned"},
    "ce": {"soft_form": "ce", "similarity": "jaccard", "soft_neighbours": 3, "head_norm": "ln"},
    "mse": {"soft_form": "mse-shifted", "similarity": "idf", "head": "moco2", "mask": "pixels"},
    "queue": {"queue": 16, "hard_exclude": "same-location", "similarity": "fraction"},
    "one way": {"symmetric": "false", "hard_exclude": "same-labels", "soft_bias": "zero"},
}


def run(*words: str) -> None:
    """Run one command of eofm, quietly."""
    stdout = sys.stdout
    with Path(os.devnull).open("w") as sys.stdout:  # the tables are not what is frozen here
        status = main(list(words))
    sys.stdout = stdout
    if status:
        raise SystemExit(f"eofm {' '.join(words)} ended with status {status}")


def digest(data: bytes) -> str:
    """Half a sha256, which is enough to tell two values apart."""
    return hashlib.sha256(data).hexdigest()[:32]


def of_tensor(tensor: torch.Tensor) -> str:
    """Kind, shape and bytes of a tensor."""
    array = tensor.detach().cpu().contiguous().numpy()
    return f"{array.dtype} {array.shape} {digest(array.tobytes())}"


def of_file(path: Path) -> str:
    """The bytes of a file."""
    return digest(path.read_bytes())


def exact(value: object) -> object:
    """A number as it is in memory; whatever else as it is."""
    return value.hex() if isinstance(value, float) else value


def of_run(folder: Path) -> Iterator[tuple[str, object]]:
    """Losses of every step, weights of every export and checkpoint, and what exports give."""
    for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        step = row["step"]
        for name in sorted(set(row) - {"step", "seconds", "time", "images_per_second", "crc32"}):
            yield f"step {step}/{name}", exact(row[name])
    saved = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    for name, tensor in saved["state_dict"].items():
        yield f"checkpoint/{name}", of_tensor(tensor)
    images = tile_arrays()[:4]
    for name in ("init", "student", "teacher"):
        encoder = eofm.load_encoder(folder / "export" / name)
        yield f"{name}/vectors", of_tensor(encoder.embed(images_of(images)))
        for key, tensor in encoder.trunk.state_dict().items():
            yield f"{name}/{key}", of_tensor(tensor)


def tile_arrays() -> list[np.ndarray]:
    """Sixteen images with 13 bands and made-up digital numbers, uint16 (13, 56, 56)."""
    generator = np.random.default_rng(0)
    return list(generator.integers(200, 4000, (16, 13, 56, 56), dtype=np.uint16))


def images_of(arrays: list[np.ndarray]) -> eofm.Imagery:
    """These as Sentinel-2 L1C."""
    bands = tuple(
        f"B{n}"
        for n in ["01", "02", "03", "04", "05", "06", "07", "08", "8A", "09", "10", "11", "12"]
    )
    spec = eofm.ImageSpec(eofm.Sensor.S2_L1C, bands, eofm.Unit.DN, (56, 56), 10.0)
    pixels = torch.from_numpy(np.stack(arrays)).float()
    return eofm.Imagery(pixels, spec, torch.ones(len(pixels), 56, 56, dtype=torch.bool))


def of_store(path: Path) -> Iterator[tuple[str, object]]:
    """Planes, masks and the index of a store, byte for byte; its card holds dates of making."""
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.suffix == ".npy":
            yield str(file.relative_to(path)), of_file(file)
    yield from ((f"index/{name}", value) for name, value in of_table(path / "index.parquet"))
    store = eofm.Store(path)
    labels = store.labels(range(len(store)))
    yield "labels", of_tensor(labels.multi_hot)
    yield "known", of_tensor(labels.known)
    yield "fractions", of_tensor(store.fractions(range(len(store))))


def of_table(path: Path) -> Iterator[tuple[str, object]]:
    """Every column of a table of labels but the paths, which depend on where it was made."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    for name in table.column_names:
        if name not in {"map", "path", "source", "scene"}:
            yield name, digest(repr(table.column(name).to_pylist()).encode())


def of_real_tiles(data: Path, exports: dict[str, Path]) -> Iterator[tuple[str, object]]:
    """Pixels of a real EuroSAT tile of each class, and their features by several encoders."""
    order = [
        "B01",
        "B02",
        "B03",
        "B04",
        "B05",
        "B06",
        "B07",
        "B08",
        "B09",
        "B10",
        "B11",
        "B12",
        "B8A",
    ]
    tiles = [sorted(kind.glob("*.tif"))[0] for kind in sorted((data / "eurosat_ms/test").iterdir())]
    encoders = {name: eofm.load_encoder(path) for name, path in exports.items()}
    for tile in tiles:
        image = eofm.read_geotiff(tile, sensor="s2-l1c", unit="dn", bands=order)
        yield f"{tile.stem}/pixels", of_tensor(image.pixels)
        yield f"{tile.stem}/valid", of_tensor(image.valid)
        for name, encoder in encoders.items():
            yield f"{tile.stem}/{name}", of_tensor(encoder.embed(image))


def freeze(work: Path) -> dict[str, object]:
    """Return every number by name."""
    found: dict[str, object] = {}
    world, store = work / "world", work / "world" / "store-s2-l1c"

    def keep(name: str, values: Iterator[tuple[str, object]]) -> None:
        found.update({f"{name}/{key}": value for key, value in values})
        sys.stderr.write(f"{len(found):5d} numbers after {name}\n")

    def train(name: str, *words: str) -> None:
        out = work / "runs" / name.replace(" ", "-")
        run("pretrain", *SMALL, *words, "--data.world", str(world), "--run.out", str(out))
        keep(name, of_run(out))

    train("no options", *STEPS)
    keep("store", of_store(store))
    for name, changes in RUNS.items():
        method = {**PLAIN, **changes}
        words = [word for key, value in method.items() for word in (f"--method.{key}", str(value))]
        train(name, "--data.store", str(store), *STEPS, *words)
    table = work / "labels.parquet"
    run("labels", str(world / "scenes" / "dw"), "--scheme", "dynamic-world", "--window", "20",
        "--out", str(table))  # fmt: skip
    keep("labels", of_table(table))
    seen = {name: work / "runs" / name / "export" / "student" for name in ("softcon", "mse")}
    weights = Path(os.environ.get("EOFM_REAL_WEIGHTS", "../shared/weights"))
    if (start := weights / "natural_images_vits14.safetensors").is_file():
        method = [w for k, v in PLAIN.items() for w in (f"--method.{k}", str(v))]
        model = ("--model.architecture", "vits14", "--model.weights", str(start))
        rest = ["--model.input_init", "rgb-nearest", "--optim.epochs", "1", "--optim.lr", "0.002"]
        rest += ["--trainer.precision", "32-true"]  # `auto` is measured for a network of this size
        train("real start", "--data.store", str(store), *method, *model, *rest)
        seen |= {f"real {n}": work / "runs/real-start/export" / n for n in ("init", "student")}
    data = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data"))
    if data.is_dir():
        keep("tiles", of_real_tiles(data, seen))
    return found


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Name what is not the same in both."""
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def cli() -> int:
    """Freeze, and compare where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file of another version")
    parser.add_argument("--work", type=Path, help="folder to work in; a temporary one if not said")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        found = freeze(asked.work or Path(temporary))
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")
    if asked.against is None:
        return 0
    unlike = differences(json.loads(asked.against.read_text()), found)
    sys.stdout.write(("\n".join(unlike[:40]) or f"all {len(found)} numbers are equal") + "\n")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(cli())
