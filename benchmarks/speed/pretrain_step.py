"""Time of a pretraining step: token dropping against dense, store against memory, share of views.

    python benchmarks/speed/pretrain_step.py [--architecture vits14] [--size 224] [--batch 16]

All variants take turns in one run, so that a machine whose speed drifts treats them alike; what
is printed are medians and their ratios, one JSON line each. Imagery is random numbers in a packed
store of 13 native-resolution bands: this is about speed, not learning. On a GPU the step runs in
bfloat16, and one more line compares loss and gradient of one step with the CPU's.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timing import DEVICE, now
from torch.optim import AdamW

from eofm import method as softcon
from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Sensor, Unit, resolution_groups
from eofm.method import LabelFacts
from eofm.networks.vit import build_vit
from eofm.store.format import LabelRule, StoreCard
from eofm.store.reader import Store
from eofm.store.writer import Entry, StoreWriter
from eofm.train.build import make_recipe, training_plan
from eofm.train.config import DataConfig, ModelConfig, OptimConfig, PretrainConfig, SoftConConfig
from eofm.train.datamodule import Batch, StoreDataModule
from eofm.train.module import PretrainModule
from eofm.train.optimizer import parameter_groups

CLASSES = tuple(f"class-{i}" for i in range(9))


def write_store(path: Path, scenes: int, size: int) -> Store:
    """Write random 13-band scenes with the published mean and spread, and random labels."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    stats = STATISTICS["ssl4eo-s12-l1c"]
    spec = ImageSpec(Sensor.S2_L1C, bands, Unit.DN, (size, size), 10.0)
    groups = resolution_groups(bands)
    rng = np.random.default_rng(0)
    rule = LabelRule("dynamic-world", CLASSES, 0.0, 0.25)
    valid = torch.ones(1, size, size, dtype=torch.bool)
    with StoreWriter(path, StoreCard(spec, groups, rule, {}, {"synthetic": True})) as writer:
        for i in range(scenes):
            planes = {}
            for gsd, names in groups.items():
                index = [bands.index(b) for b in names]
                mean = np.array(stats.mean)[index].reshape(1, -1, 1, 1)
                std = np.array(stats.std)[index].reshape(1, -1, 1, 1)
                side = size * 10 // gsd
                noise = rng.standard_normal((1, len(names), side, side))
                planes[gsd] = torch.from_numpy((mean + std * noise).clip(1).astype(np.uint16))
            hot = (1, *(int(x) for x in rng.random(8) < 0.4))
            fraction = tuple(h / sum(hot) for h in hot)
            place = f"{i:06d}"
            entry = Entry(place, place, "", 0, 0, "", place, "dn", fraction, hot, True, 1.0)
            writer.append(entry, NativeImagery(planes, groups, spec, valid))
            writer.source_done(place, 0)
        writer.finish()
    return Store(path)


class Stepper:
    """One variant: a module, its optimiser and an endless stream of batches."""

    def __init__(self, store: Store, config: PretrainConfig) -> None:
        self.data = StoreDataModule(store, config.data, config.optim.batch, 0)
        recipe = make_recipe(store, self.data.train_rows.tolist(), config.model)
        generator = torch.Generator().manual_seed(0)
        trunk = build_vit(config.model.architecture, 13, recipe.size, generator)
        plan = training_plan(store.spec, recipe)
        self.module = PretrainModule(
            trunk, config, plan, recipe, LabelFacts(len(CLASSES)), {}, generator
        )
        self.module.to(DEVICE).train()
        self.optimizer = AdamW(
            parameter_groups(self.module.method.named_parameters(), 0.1), 1e-4, fused=True
        )
        self.stream = self._batches()
        imagery, labels = self.load()
        planes = {gsd: plane.clone() for gsd, plane in imagery.planes.items()}
        # a batch of the loader is overwritten by a later one
        self.fixed = replace(imagery, planes=planes, valid=imagery.valid.clone()), labels

    def _batches(self) -> Iterator[Batch]:
        loader = self.data.train_dataloader()
        while True:
            loader.sampler.set_epoch(loader.sampler.epoch + 1)
            yield from loader

    def load(self) -> Batch:
        """Return the next batch on the device."""
        imagery, labels = next(self.stream)
        return imagery.to(DEVICE), labels.to(DEVICE)

    def step(self, batch: Batch) -> tuple[float, float]:
        """Take one step; return seconds of all of it and of making the views."""
        start = now()
        _, first, second = self.module.two_views(batch[0])
        views = now() - start
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = self.module.outcome(batch[0], first, second, batch[1]).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        softcon.update_teacher(self.module.method.teacher, self.module.method.student, 0.99)
        return now() - start, views


def compare(store: Store, base: PretrainConfig, rounds: int) -> list[dict[str, object]]:
    """Time all mask ratios from memory, and the first from the store, in turn."""
    ratios = (0.0, 0.5, 0.75)
    variants = {
        ratio: Stepper(store, replace(base, method=replace(base.method, mask_ratio=ratio)))
        for ratio in ratios
    }
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for ratio, variant in variants.items():
            whole, views = variant.step(variant.fixed)
            begun = now()
            variant.step(variant.load())
            loaded = now() - begun
            if turn:  # the first turn warms up
                times.setdefault(f"memory {ratio}", []).append(whole)
                times.setdefault(f"views {ratio}", []).append(views)
                times.setdefault(f"store {ratio}", []).append(loaded)
    median = {name: float(np.median(values)) for name, values in times.items()}
    return [
        {
            "architecture": base.model.architecture,
            "batch": base.optim.batch,
            "mask_ratio": ratio,
            "scenes_per_s": round(base.optim.batch / median[f"memory {ratio}"], 2),
            "times_dense": round(median["memory 0.0"] / median[f"memory {ratio}"], 2),
            "store_over_memory": round(median[f"memory {ratio}"] / median[f"store {ratio}"], 3),
            "views_share": round(median[f"views {ratio}"] / median[f"memory {ratio}"], 3),
        }
        for ratio in ratios
    ]


def agreement(store: Store, base: PretrainConfig) -> dict[str, object]:
    """Compare loss and student gradient of one step on CPU and GPU, from the same views."""
    stepper = Stepper(store, base)
    module, (native, labels) = stepper.module.cpu(), next(stepper.stream)
    _, first, second = module.two_views(native)
    results = {}
    for name, device, half in (
        ("cpu", "cpu", False),
        ("fp32", "cuda", False),
        ("bf16", "cuda", True),
    ):
        module.to(device).zero_grad()
        module.masks.manual_seed(0)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            views = (first.pixels.to(device), second.pixels.to(device))
            output = module.method(views, module.of_views(labels).to(device), module.masks)
        output.loss.backward()
        gradients = [p.grad.flatten().double().cpu() for p in module.method.student.parameters()]
        results[name] = output.loss.item(), torch.cat(gradients)
    loss, gradient = results.pop("cpu")
    return {
        f"{name}_{what}": value
        for name, (other, moved) in results.items()
        for what, value in (
            ("loss_relative_difference", abs(other - loss) / abs(loss)),
            (
                "gradient_relative_difference",
                float((moved - gradient).norm() / gradient.norm()),
            ),
        )
    }


def main() -> None:
    """Run and print all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="vits14")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--window", type=int, default=264)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or "cpu"
    print(json.dumps({"device": name, "torch": torch.__version__, **vars(given)}))
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", 4 * given.batch, given.window)
        base = PretrainConfig(
            data=DataConfig(store=str(store.path), holdout=0.0),
            model=ModelConfig(architecture=given.architecture, size=given.size),
            method=SoftConConfig(hidden=4096, dim=256),
            optim=OptimConfig(batch=given.batch),
        )
        if DEVICE == "cuda":
            print(json.dumps(agreement(store, base)), flush=True)
        for line in compare(store, base, given.rounds):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
