"""`eofm pretrain`: from a store to encoders, a table and figures, in one folder."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import lightning as L
import torch
import yaml

from eofm.method import Exclude, LabelSimilarity, Objective, SoftCon
from eofm.method.teacher import check_chunks
from eofm.train.branches import export_branches, export_init
from eofm.train.building import build_module, check_before_world, open_data
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.engine import choose_device, fit
from eofm.train.folder import (
    RunFolder,
    check_checkpoint,
    environment,
    from_dict,
    open_folder,
    to_yaml,
)
from eofm.train.module import PretrainModule
from eofm.train.monitoring.watch import watch
from eofm.train.processes import ProcessPlace, find_place, share, together
from eofm.train.recipe import make_recipe
from eofm.train.report import Report, write_report
from eofm.train.sharding import check_sharding
from eofm.train.stopping import WARNING, Stopped, requeue
from eofm.weights.checkpoint import CHECKPOINT_KEY
from eofm.weights.start import Origin


def pretrain(config: PretrainConfig) -> Report:
    """Train an encoder, export it, and say what it is worth.

    With several processes this is the first of them, or becomes one of the others.

    Args:
        config: All settings; the folder gets a copy.

    Returns:
        The report, whose text is the table.

    Raises:
        ConfigError: If the settings cannot be obeyed.
        StoreError: If the store is half written or damaged.
        WeightsError: If the weights to start from do not fit.
        TrainingError: If there is too little data, or the loss is not finite.
        SystemExit: With status 143, if the process got SIGTERM: the run can be resumed. With status
            0 or 1 in all processes but the first: that one reports.
    """
    started = time.monotonic()
    place = find_place(config.trainer)
    precision, accelerator = choose_device(config)
    check_sharding(config, place.world, precision)
    if place.rank > 0:
        follow(place, accelerator)
    folder, config = open_folder(config)
    _use_threads(config, place)
    data, module, origin = _prepare(config, place)
    if config.run.resume and folder.checkpoint.is_file():
        check_checkpoint(folder.checkpoint, config, CHECKPOINT_KEY)
    watchers = watch(config, data, folder)
    if not config.run.resume:
        folder.start(config)
    if not (folder.export / "init" / "card.json").is_file():  # or it died before it got there
        facts = json.dumps(environment(accelerator), indent=2) + "\n"
        folder.write("environment.json", facts)
        folder.write("plan.txt", module.describe_plans() + "\n")
        folder.write("weights.txt", origin.describe() + "\n")
        export_init(module, folder, origin.line)
    _say(_opening(data, module, origin, place))
    try:
        with together(place, accelerator) as group:
            share(to_yaml(config))
            seconds = fit(module, data, folder, config, group, watchers)
    except Stopped as stopped:
        _stop(stopped, folder)
    encoders = export_branches(module, data, folder, config)
    report = write_report(folder, data.store, data, module, encoders, config, seconds)
    folder.done.touch()
    _say(f"done in {time.monotonic() - started:.0f} s; everything is in {folder.path}")
    return report


def follow(place: ProcessPlace, accelerator: str) -> NoReturn:
    """Train along with the first process, which says with what settings.

    Raises:
        SystemExit: At the end.
    """
    try:
        with together(place, accelerator) as group:
            config = from_dict(yaml.safe_load(share("")), "the first process")
            _use_threads(config, place)
            data, module, _ = _prepare(config, place)
            folder = RunFolder(Path(str(config.run.out)))
            fit(module, data, folder, config, group, watch(config, data, folder))
    except Stopped as stopped:
        raise SystemExit(128 + stopped.signum) from None
    raise SystemExit(0)


def _use_threads(config: PretrainConfig, place: ProcessPlace) -> None:
    threads = config.run.threads
    if not threads and place.per_node > 1:  # or each process would take all cores
        threads = max(1, (os.cpu_count() or 1) // place.per_node)
    if threads:
        torch.set_num_threads(threads)


def _prepare(
    config: PretrainConfig, place: ProcessPlace
) -> tuple[StoreDataModule, PretrainModule, Origin]:
    """Make data and network, the same in all processes; the first one makes the demo's world."""
    if config.data.store is None and place.rank == 0:
        check_before_world(config, place.world)
    store, beside = open_data(config.data, make=place.rank == 0)
    L.seed_everything(config.optim.seed, verbose=False)
    data = StoreDataModule(
        store,
        config.data,
        config.optim.batch,
        config.optim.seed,
        readers=config.run.readers,
        accumulate=config.trainer.accumulate,
        beside=beside,
        exchange=config.method.objective is Objective.SHUFFLED,
        shares=config.method.similarity is LabelSimilarity.FRACTION,
        places=config.method.hard_exclude is Exclude.SAME_LOCATION,
    )
    data.batches(place.rank, place.world)  # refuses what cannot be shared out
    recipe = make_recipe(store, data.train_rows.tolist(), config.model)
    module, origin = build_module(config, data, recipe)
    check_chunks(module.method.student.trunk, config.trainer.chunk)  # type: ignore[arg-type]
    return data, module, origin


def _opening(
    data: StoreDataModule, module: PretrainModule, origin: Origin, place: ProcessPlace
) -> str:
    store, partner = data.store, module.partner
    size = sum(p.numel() for p in module.method.student.trunk.parameters())  # type: ignore[attr-defined]
    kind = "SYNTHETIC scenes" if store.synthetic else "scenes"
    return (
        f"{len(data.train_rows)} {kind} to train on, {len(data.test_rows)} labelled ones held out "
        f"(whole locations), {store.spec.sensor}, {len(store.spec.bands)} bands"
        + ("" if partner is None else f", paired with {partner.name}")
        + f"\n"
        f"{module.config.model.architecture}, {size / 1e6:.1f} M parameters, from {origin.line}"
        + (f"\n{place.world} processes" if place.world > 1 else "")
        + _caution(module)
    )


def _caution(module: PretrainModule) -> str:
    """Say so if the labels cannot tell the training scenes apart."""
    if isinstance(module.method, SoftCon) and module.method.facts.all_alike:
        return (
            "\nwarning: all labelled training scenes have the same labels, so every similarity is "
            "1: the soft term calls all scenes one, and only the hard term separates them"
        )
    return ""


def _stop(stopped: Stopped, folder: RunFolder) -> NoReturn:
    """End the process as the signal asks, and say how to go on."""
    _say(
        f"stopped by {signal.Signals(stopped.signum).name} after step {stopped.step}; the same run "
        f"goes on with\n    eofm pretrain --run.out {folder.path} --run.resume true"
    )
    if stopped.signum == WARNING:
        _say(requeue())
    raise SystemExit(128 + stopped.signum)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
