"""`eofm pretrain`: from a store to encoders, a table and figures, in one folder."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from eofm.data.pack import Store
from eofm.errors import ConfigError
from eofm.models.adapt import InputInit, PositionRecipe
from eofm.models.encoder import Encoder, load_encoder
from eofm.models.start import Origin, start_from
from eofm.models.trunk import Trunk
from eofm.recipe import Recipe
from eofm.softcon import mean_label_similarity
from eofm.train.checkpoints import Checkpoints, WholeFiles
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.demo import demo_store
from eofm.train.export import OBJECTIVE, export_trunk, make_card
from eofm.train.folder import RunFolder, config_hash, environment, open_folder
from eofm.train.module import CHECKPOINT_KEY, PretrainModule, settings_of
from eofm.train.monitor import LogLines, MetricsFile
from eofm.train.recipe import make_recipe, training_plan
from eofm.train.report import Report, write_report
from eofm.train.stage import open_stage

LICENCE: Final = "Apache-2.0"


def pretrain(config: PretrainConfig) -> Report:
    """Train an encoder, export it, and say what it is worth.

    Args:
        config: All settings; the folder gets a copy.

    Returns:
        The report, whose text is the table.

    Raises:
        ConfigError: If the settings cannot be obeyed.
        StoreError: If the store is half written or damaged.
        WeightsError: If the weights to start from do not fit.
        TrainingError: If there is too little data, or the loss is not finite.
        SystemExit: With status 143, if the process got SIGTERM: the run can be resumed.
    """
    started = time.monotonic()
    precision, accelerator = choose_device(config)
    folder, config = open_folder(config)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    store = Store(config.data.store) if config.data.store else demo_store(config.data)
    L.seed_everything(config.optim.seed, verbose=False)
    data = StoreDataModule(
        store, config.data, config.optim.batch, config.optim.seed, readers=config.run.readers
    )
    recipe = make_recipe(store, data.train_rows.tolist(), config.model)
    module, origin = _module(config, store, data, recipe)
    if not config.run.resume:
        folder.start(config)
    if not (folder.export / "init" / "card.json").is_file():  # or it died before it got there
        facts = json.dumps(environment(accelerator), indent=2) + "\n"
        folder.write("environment.json", facts)
        folder.write("plan.txt", module.preprocess.plan.describe() + "\n")
        folder.write("weights.txt", origin.describe() + "\n")
        init = make_card(module.card, recipe, f"initialisation: {origin.line}")
        export_trunk(module.method.student.trunk, init, folder.export / "init")  # type: ignore[arg-type]
    _say(_opening(store, data, module, origin))
    seconds = _fit(module, data, folder, config, precision, accelerator)
    encoders = _export(module, recipe, folder, config.optim.epochs)
    report = write_report(folder, store, data, module, encoders, config, seconds)
    folder.done.touch()
    _say(f"done in {time.monotonic() - started:.0f} s; everything is in {folder.path}")
    return report


def choose_device(config: PretrainConfig) -> tuple[str, str]:
    """Return (precision, accelerator) in Lightning's words.

    Raises:
        ConfigError: If a GPU is asked for and there is none, or bfloat16 on a CPU that emulates it:
            measured at a thirtieth of the speed of float32.
    """
    gpu = torch.cuda.is_available() and config.run.accelerator != "cpu"
    if config.run.accelerator == "gpu" and not gpu:
        raise ConfigError("there is no GPU", where="run.accelerator", remedy="use auto or cpu")
    if config.run.precision == "auto":
        return ("bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true"), (
            "gpu" if gpu else "cpu"
        )
    if config.run.precision == "bf16-mixed" and not gpu and not _cpu_has_bf16():
        raise ConfigError(
            "this CPU has no bfloat16 arithmetic",
            found="run.precision=bf16-mixed on a CPU without AVX512-BF16 or AMX",
            expected="32-true",
            remedy="leave run.precision at auto",
        )
    return config.run.precision, "gpu" if gpu else "cpu"


def _cpu_has_bf16() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(
        word in flags.read_text() for word in ("avx512_bf16", "amx_bf16")
    )


def _module(
    config: PretrainConfig, store: Store, data: StoreDataModule, recipe: Recipe
) -> tuple[PretrainModule, Origin]:
    generator = torch.Generator().manual_seed(config.optim.seed)
    trunk, origin = start_from(
        config.model.weights,
        config.model.architecture,
        recipe,
        generator,
        input_init=InputInit(config.model.input_init),
        positions=PositionRecipe(config.model.position),
    )
    _check_mask(config, trunk)
    settings = settings_of(config)
    mean = 0.5
    if settings.soft_weight > 0:
        mean = mean_label_similarity(store.labels(data.train_rows.tolist()), settings.similarity)
    plan = training_plan(store.spec, recipe)
    card = _card_facts(config, store, data)
    made = PretrainModule(
        trunk, config, plan, recipe, mean, card, generator, new_input=origin.new_input
    )
    if config.model.continue_from is not None:
        stage = open_stage(Path(config.model.continue_from), CHECKPOINT_KEY)
        made.continue_stage(stage)
        origin = stage.origin
    return made, origin


def _check_mask(config: PretrainConfig, trunk: Trunk) -> None:
    if config.method.mask_ratio > 0 and not trunk.drops_tokens:
        raise ConfigError(
            f"{config.model.architecture} has no tokens to drop, and masking of pixels is not "
            "built",
            found=f"mask ratio {config.method.mask_ratio:g}",
            expected="0",
            where="method.mask_ratio",
            remedy="add --method.mask_ratio 0",
        )


def _card_facts(config: PretrainConfig, store: Store, data: StoreDataModule) -> dict[str, Any]:
    synthetic = store.synthetic or (data.replay is not None and data.replay.synthetic)
    made_up = " (synthetic, not observed)" if synthetic else ""
    again = ""
    if data.replay is not None:
        again = f"; {config.data.replay_share:.0%} of each batch from {data.replay.path.name}"
    return {
        "name": Path(config.run.out or "eofm").name,
        "architecture": config.model.architecture,
        "positions": config.model.position,
        "objective": OBJECTIVE,
        "training_data": f"packed store {store.path.name}{made_up}, {store.spec.sensor}{again}",
        "counts": {
            "scenes": len(store),
            "train": len(data.train_rows),
            "held_out": len(data.test_rows),
        },
        "synthetic": synthetic,
        "licence": LICENCE,
        "config_hash": config_hash(config),
    }


def _opening(store: Store, data: StoreDataModule, module: PretrainModule, origin: Origin) -> str:
    size = sum(p.numel() for p in module.method.student.trunk.parameters())  # type: ignore[attr-defined]
    kind = "SYNTHETIC scenes" if store.synthetic else "scenes"
    return (
        f"{len(data.train_rows)} {kind} to train on, {len(data.test_rows)} labelled ones held out "
        f"(whole locations), {store.spec.sensor}, {len(store.spec.bands)} bands\n"
        f"{module.config.model.architecture}, {size / 1e6:.1f} M parameters, from {origin.line}"
    )


def _fit(
    module: PretrainModule,
    data: StoreDataModule,
    folder: RunFolder,
    config: PretrainConfig,
    precision: str,
    accelerator: str,
) -> float:
    """Train; return the seconds it took."""
    checkpoints = Checkpoints(
        folder.checkpoint,
        steps=config.run.checkpoint_steps,
        minutes=config.run.checkpoint_minutes,
    )
    progress: Callback = RichProgressBar() if sys.stderr.isatty() else LogLines()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = L.Trainer(
        max_epochs=config.optim.epochs,
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        gradient_clip_val=config.optim.clip,
        logger=False,
        callbacks=[MetricsFile(folder.metrics), progress, checkpoints],
        plugins=[WholeFiles()],
        enable_progress_bar=isinstance(progress, RichProgressBar),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder.path,
    )
    last = folder.checkpoint if config.run.resume and folder.checkpoint.is_file() else None
    began = time.monotonic()
    with warnings.catch_warnings():
        # lightning 2.6 asks torch 2.15 for a leaf the old way
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        try:
            trainer.fit(module, datamodule=data, ckpt_path=None if last is None else str(last))
        except SIGTERMException:  # a checkpoint has been saved
            _stop(trainer, folder)
    if trainer.received_sigterm:  # in the very last step
        _stop(trainer, folder)
    module.to("cpu")
    return time.monotonic() - began


def _stop(trainer: L.Trainer, folder: RunFolder) -> NoReturn:
    """End the process as SIGTERM asks, and say how to go on."""
    _say(
        f"stopped by SIGTERM after step {trainer.global_step}; the same run goes on with\n"
        f"    eofm pretrain --run.out {folder.path} --run.resume true"
    )
    raise SystemExit(128 + signal.SIGTERM)


def _export(
    module: PretrainModule, recipe: Recipe, folder: RunFolder, epochs: int
) -> dict[str, Encoder]:
    """Write student and teacher; return them with the initialisation."""
    encoders = {"initialisation": load_encoder(folder.export / "init")}
    for name, branch in (("student", module.method.student), ("teacher", module.method.teacher)):
        card = make_card(module.card, recipe, f"{name} after {epochs} epochs")
        encoders[name] = export_trunk(branch.trunk, card, folder.export / name)  # type: ignore[arg-type]
    return encoders


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
