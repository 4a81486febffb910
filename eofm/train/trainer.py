"""From a module and data to a trained module: makes Lightning's trainer, and runs it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from eofm.errors import ConfigError
from eofm.terminal import Ended, signals_end
from eofm.train.before.cpu_speed import use_attention
from eofm.train.checkpoint import AtomicCheckpointIO, Checkpoints, RandomStates
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.distributed.batchnorm import SharedNorms
from eofm.train.distributed.processes import KnownEnvironment, ProcessGroup
from eofm.train.distributed.sharding import gather
from eofm.train.module import PretrainModule
from eofm.train.run_folder import RunFolder
from eofm.train.signals import Stopped, handlers_kept

_AUTO_GPU: Final = "bf16-mixed"


def choose_device(config: PretrainConfig) -> tuple[str, str]:
    """Return (precision, accelerator) in Lightning's words.

    Raises:
        ConfigError: If a GPU is asked for and there is none, or too few; or half precision on a CPU
            that has none: emulated bfloat16 was measured at a thirtieth of the speed of float32.
    """
    trainer = config.trainer
    gpu = torch.cuda.is_available() and trainer.accelerator != "cpu"
    if trainer.accelerator == "gpu" and not gpu:
        raise ConfigError("there is no GPU", where="trainer.accelerator", remedy="use auto or cpu")
    if gpu and trainer.devices > torch.cuda.device_count():
        raise ConfigError(
            "there are fewer GPUs than asked for",
            found=f"{torch.cuda.device_count()} GPUs",
            expected=f"trainer.devices={trainer.devices}",
        )
    if trainer.precision == "auto":
        return (_AUTO_GPU if gpu and torch.cuda.is_bf16_supported() else "32-true"), (
            "gpu" if gpu else "cpu"
        )
    if trainer.precision == "16-mixed" and not gpu:
        raise ConfigError(
            "float16 needs a GPU",
            found="trainer.precision=16-mixed on a CPU",
            expected="32-true",
            remedy="leave trainer.precision at auto",
        )
    if trainer.precision == "bf16-mixed" and not gpu and not cpu_has_bf16():
        raise ConfigError(
            "this CPU has no bfloat16 arithmetic",
            found="trainer.precision=bf16-mixed on a CPU without AVX512-BF16 or AMX",
            expected="32-true",
            remedy="leave trainer.precision at auto",
        )
    return trainer.precision, "gpu" if gpu else "cpu"


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(
        word in flags.read_text() for word in ("avx512_bf16", "amx_bf16")
    )


def fit(
    module: PretrainModule,
    data: StoreDataModule,
    folder: RunFolder,
    config: PretrainConfig,
    group: ProcessGroup,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Train, from the last checkpoint if the run resumes; return the seconds it took.

    Args:
        module: Is trained in place, and is on the CPU afterwards.
        data: What to train on.
        folder: Takes the checkpoints.
        config: All settings.
        group: The processes that train together.
        callbacks: Logs, monitor and guard; they come before the checkpoint of a step.

    Raises:
        Stopped: If the run was asked to stop; a checkpoint has been saved.
    """
    torch.set_float32_matmul_precision("high" if config.trainer.tf32 else "highest")
    use_attention(module, config.trainer.attention)
    random = RandomStates(group.place.rank, config.optim.seed)
    random.scatter(module)
    by_monitor = data.divided or config.monitor.store is not None
    observers = [*callbacks, random]
    trainer = make_trainer(config, folder, group, module, observers, by_monitor=by_monitor)
    last = str(folder.checkpoint) if config.run.resume and folder.checkpoint.is_file() else None
    began = time.monotonic()
    with handlers_kept(), signals_end(), warnings.catch_warnings():
        # lightning 2.6 asks torch 2.15 for a leaf the old way
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        # torch 2.15 has a new name for it, which earlier ones do not know
        warnings.filterwarnings("ignore", message=".*broadcast_buffers` is deprecated.*")
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last)
        except SIGTERMException as error:  # before the first step
            raise Stopped(15, trainer.global_step) from error
        except Ended as ended:
            raise Stopped(ended.signum, trainer.global_step) from ended
    if config.trainer.strategy == "fsdp":
        gather(module)
    else:
        module.to("cpu")
    return time.monotonic() - began


def make_trainer(
    config: PretrainConfig,
    folder: RunFolder,
    group: ProcessGroup,
    module: PretrainModule,
    callbacks: Sequence[Callback],
    *,
    by_monitor: bool,
) -> L.Trainer:
    """Return Lightning's trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    precision, accelerator = choose_device(config)
    schedule = module.schedule
    checkpoints = Checkpoints(
        folder.checkpoint,
        steps=config.run.checkpoint_steps,
        minutes=config.run.checkpoint_minutes,
        keep=config.run.checkpoint_keep,
        constant=schedule.anneal_step if schedule.open_ended else None,
        by_monitor=by_monitor,
    )
    shards = config.trainer.strategy == "fsdp"
    several = group.place.world > 1
    return L.Trainer(
        max_epochs=config.optim.epochs,
        accelerator=accelerator,
        devices=group.place.per_node,
        num_nodes=group.place.nodes,
        strategy=_strategy(config, group) if several else "auto",
        precision=precision,  # type: ignore[arg-type]
        accumulate_grad_batches=config.trainer.accumulate,
        gradient_clip_val=config.optim.clip,
        logger=False,
        callbacks=[*callbacks, checkpoints],
        plugins=[
            AtomicCheckpointIO(),
            *([KnownEnvironment(group.place)] if several else []),
            *([SharedNorms(gpu=accelerator == "gpu")] if several and not shards else []),
        ],
        enable_progress_bar=any(isinstance(each, ProgressBar) for each in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder.path,
    )


def _strategy(config: PretrainConfig, group: ProcessGroup) -> Strategy:
    """Return how the processes share the work."""
    if config.trainer.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=group.place.world,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    # buffers are equal by construction: every norm sees the batch of all processes
    return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
