"""`eofm pretrain`: from a store to encoders, a table and figures, in one folder."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from eofm.environment import end_with_starter
from eofm.errors import EofmError
from eofm.formats.text import parse_yaml, settings_text
from eofm.method import LabelSimilarity, Objective
from eofm.method.objectives import asks_for_places
from eofm.terminal import Ended
from eofm.train.build import build_module, check_before_world, make_recipe, open_data
from eofm.train.config import PretrainConfig, TrainerConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.distributed import (
    WARNING,
    ProcessPlace,
    Stopped,
    broadcast,
    find_place,
    process_group,
    requeue,
)
from eofm.train.dry_run import describe, doubts, measure, world_for
from eofm.train.evaluate import export_branches, export_init
from eofm.train.module import PretrainModule
from eofm.train.monitor.guard import CollapseGuard
from eofm.train.monitor.online import OnlineMonitor
from eofm.train.monitor.run_log import FAILURE, RunLog, StepLog, make_writers
from eofm.train.monitor.throughput import Throughput
from eofm.train.result import Report, write_report
from eofm.train.run_folder import (
    RunFolder,
    check_checkpoint,
    environment,
    from_dict,
    open_folder,
)
from eofm.train.trainer import (
    check_sharding,
    choose_device,
    cpu_has_bf16,
    fit,
    settle,
    use_attention,
)
from eofm.weights.load import CHECKPOINT_KEY
from eofm.weights.start import Origin

__all__ = ["follow", "held_out_words", "main", "make_callbacks", "prepare", "pretrain"]


def pretrain(config: PretrainConfig) -> Report:
    """Train an encoder, export it, and evaluate it.

    With several processes, the calling process is the first one or becomes one of the others.

    Args:
        config: All settings; a copy is saved in the run folder.

    Returns:
        The report; its text is the table.

    Raises:
        ConfigError: If the settings are invalid or contradict each other.
        StoreError: If the store is incomplete or damaged.
        WeightsError: If the weights to start from do not fit.
        TrainingError: If there is too little data, or the loss is not finite.
        SystemExit: With status 130 or 143, if the process got SIGINT (Ctrl-C) or SIGTERM; the run
            can be resumed. With status 0 or 1 in all processes but the first, which reports.
    """
    started = time.monotonic()
    place = find_place(config.trainer)
    precision, accelerator = choose_device(config)
    check_sharding(config, place.world, precision)
    if place.rank > 0:
        follow(place, accelerator)
    folder, config = open_folder(config)
    if config.run.resume:  # with its earlier processes and device, unless others are requested
        place = place if place.launched else find_place(config.trainer)
        precision, accelerator = choose_device(config)
        check_sharding(config, place.world, precision)
    _use_threads(config, place)
    if accelerator == "cpu" and not config.run.resume:
        config, words = settle(config, bf16=cpu_has_bf16())
        precision, _ = choose_device(config)
        if words:
            _say(words)
    if config.run.dry_run:
        return _dry_run(config, place, precision, accelerator)
    with contextlib.ExitStack() as owned:
        try:
            if config.run.resume:
                owned.enter_context(folder.owned())
            return _run(folder, config, place, accelerator, owned, started)
        except Stopped as stopped:
            _stop(stopped, folder)
        except Ended as ended:  # outside the training steps
            _stop(Stopped(ended.signum, 0), folder)


def _run(
    folder: RunFolder,
    config: PretrainConfig,
    place: ProcessPlace,
    accelerator: str,
    owned: contextlib.ExitStack,
    started: float,
) -> Report:
    """Train, export and report; `owned` keeps the folder for this process."""
    data, module, origin = prepare(config, place)
    if config.run.resume and folder.checkpoint.is_file():
        check_checkpoint(folder.checkpoint, config, CHECKPOINT_KEY, module.teachers)
    elif config.run.resume:
        _say(f"there is no checkpoint in {folder.path} yet: the run starts from the beginning")
    callbacks = make_callbacks(config, data, folder)
    if not config.run.resume:
        owned.enter_context(folder.owned())
        folder.check_free()  # another run may have started in it meanwhile
        folder.start(config)
    if not (folder.export / "init" / "card.json").is_file():  # it may have failed before
        facts = json.dumps(environment(accelerator), indent=2) + "\n"
        folder.write("environment.json", facts)
        folder.write("plan.txt", module.describe_plans() + "\n")
        folder.write("weights.txt", origin.describe() + "\n")
        export_init(module, folder, origin.line)
    _say(_opening(data, module, origin, place))
    for each in doubts(config, data, module):
        _say(f"warning: {each}")
    with process_group(place, accelerator) as group:
        broadcast(settings_text(config))
        seconds = fit(module, data, folder, config, group, callbacks)
    encoders = export_branches(module, data, folder, config)
    report = write_report(folder, data.store, data, module, encoders, config, seconds)
    (folder.path / FAILURE).unlink(missing_ok=True)  # from a failure after the last step
    folder.done.touch()
    _say(f"done in {time.monotonic() - started:.0f} s; everything is in {folder.path}")
    _say(f"next: one page about it by: eofm report {shlex.quote(str(folder.path))}")
    return report


def _dry_run(
    config: PretrainConfig, place: ProcessPlace, precision: str, accelerator: str
) -> Report:
    """Describe the run from a few trial steps that are discarded."""
    with world_for(config) as readable:
        data, module, origin = prepare(readable, place)
        use_attention(module, config.trainer.attention)
        device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        opening = _opening(data, module, origin, place)
        measured = measure(readable, data, module, device, precision)
        return Report(describe(readable, data, module, opening, measured), (), 0.0)


def follow(place: ProcessPlace, accelerator: str) -> NoReturn:
    """Train together with the first process, which sends the settings.

    Raises:
        SystemExit: At the end.
    """
    try:
        with process_group(place, accelerator) as group:
            config = from_dict(parse_yaml(broadcast("")), "the first process")
            _use_threads(config, place)
            data, module, _ = prepare(config, place)
            folder = RunFolder(Path(str(config.run.out)))
            fit(module, data, folder, config, group, make_callbacks(config, data, folder))
    except Stopped as stopped:
        raise SystemExit(128 + stopped.signum) from None
    raise SystemExit(0)


def _use_threads(config: PretrainConfig, place: ProcessPlace) -> None:
    threads = config.run.threads
    if not threads and place.per_node > 1:  # otherwise each process would use all cores
        threads = max(1, (os.cpu_count() or 1) // place.per_node)
    if threads:
        torch.set_num_threads(threads)


def prepare(
    config: PretrainConfig, place: ProcessPlace
) -> tuple[StoreDataModule, PretrainModule, Origin]:
    """Create data and network identically in all processes; the first creates the demo's world.

    Args:
        config: All settings.
        place: Rank of this process.

    Returns:
        The data, the module to train, and the origin of its weights.

    Raises:
        ConfigError: If the settings are invalid or contradict each other.
        StoreError: If the store is incomplete or damaged.
        WeightsError: If the weights to start from do not fit.
        TrainingError: If there is too little data.
    """
    if config.data.store is None and place.rank == 0:
        check_before_world(config, place.world)
    store, second_store = open_data(config.data, make=place.rank == 0)
    L.seed_everything(config.optim.seed, verbose=False)
    data = StoreDataModule(
        store,
        config.data,
        config.optim.batch,
        config.optim.seed,
        readers=config.run.readers,
        accumulate=config.trainer.accumulate,
        second_store=second_store,
        exchange=config.method.objective is Objective.SHUFFLED,
        shares=config.method.similarity is LabelSimilarity.FRACTION,
        places=asks_for_places(config.method),
    )
    data.batches(place.rank, place.world)  # refuses a batch that cannot be divided
    recipe = make_recipe(store, data.train_rows.tolist(), config.model)
    module, origin = build_module(config, data, recipe)
    return data, module, origin


def _opening(
    data: StoreDataModule, module: PretrainModule, origin: Origin, place: ProcessPlace
) -> str:
    store, second_sensor = data.store, module.second_sensor
    size = sum(p.numel() for p in module.method.student.trunk.parameters())  # type: ignore[attr-defined]
    kind = "SYNTHETIC scenes" if store.synthetic else "scenes"
    return (
        f"{len(data.train_rows)} {kind} to train on, {held_out_words(data)}, "
        f"{store.spec.sensor}, {len(store.spec.bands)} bands"
        + ("" if second_sensor is None else f", paired with {second_sensor.name}")
        + module.config.colour_note
        + f"\n"
        f"{module.config.model.architecture}, {size / 1e6:.1f} M parameters, from {origin.line}"
        + (f"\n{place.world} processes" if place.world > 1 else "")
    )


def held_out_words(data: StoreDataModule) -> str:
    """Return the number of labelled held-out scenes, and their use."""
    if not data.divided:
        return f"{len(data.test_rows)} labelled ones held out (whole locations)"
    return (
        f"{len(data.val_rows) + len(data.test_rows)} labelled ones held out (whole locations: "
        f"{len(data.val_rows)} to evaluate while it trains, {len(data.test_rows)} to score at the "
        "end)"
    )


def _stop(stopped: Stopped, folder: RunFolder) -> NoReturn:
    """Exit with the status of the signal, and print how to resume the run."""
    name, path = signal.Signals(stopped.signum).name, shlex.quote(str(folder.path))
    if folder.checkpoint.is_file():
        where = f"stopped by {name}" + (f" after step {stopped.step}" if stopped.step else "")
        how = "resume the run with"
    else:
        where, how = f"stopped by {name} before there was a checkpoint", "start the run again with"
    if folder.config.is_file():
        _say(f"{where}; {how}\n    eofm pretrain --run.out {path} --run.resume true")
    else:
        _say(f"{where}; nothing was written: give the same command again")
    if stopped.signum == WARNING:
        _say(requeue())
    raise SystemExit(128 + stopped.signum)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def make_callbacks(
    config: PretrainConfig, data: StoreDataModule, folder: RunFolder
) -> list[Callback]:
    """Return the callbacks for logs, evaluation, progress and guard; checkpoints come after them.

    Args:
        config: All settings.
        data: Data with the held-out scenes.
        folder: Folder of the run.

    Raises:
        ConfigError: If a logger is not installed, or a store to evaluate has too few labels.
    """
    settings: dict[str, object] = asdict(config)
    log = RunLog(folder.path, make_writers(config.monitor.writers, folder.path, settings))
    throughput = Throughput(log)
    steps = StepLog(log)
    if not config.monitor.evaluates:
        return [steps, throughput, CollapseGuard(config, folder.checkpoint, None)]
    online = OnlineMonitor(config, data, log, throughput)
    return [steps, online, throughput, CollapseGuard(config, folder.checkpoint, online)]


def main() -> int:
    """Train with the first process; return the exit status.

    Only the first process to fail reports the error. Arguments: accelerator and first process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others
    end_with_starter(int(sys.argv[2]))
    try:
        follow(find_place(TrainerConfig()), sys.argv[1])
    except EofmError as error:
        print(f"eofm pretrain: error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
