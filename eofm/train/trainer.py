"""Lightning's trainer: device, number format, and sharding.

The faster number format and attention on a CPU cannot be inferred from its name, so one block of
the network is timed with each before the first step. Fused attention is optimised for long
sequences; with the 16 to 256 tokens of a training view, two plain matrix products may be faster.
bfloat16 may be twice as fast as float32, or far slower. The choice is saved in the settings of the
run, so that a run that is resumed, or repeated from its config.yaml, rounds identically.

Networks that do not fit on one device are trained with sharded weights, gradients and moments
(FSDP2). Blocks are gathered one at a time, when they run. Student and teacher are sharded
identically, so that the teacher is updated shard by shard. Every process keeps a full copy of
parameters that are too small to shard (the loss's scale and bias).
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from eofm.errors import ConfigError
from eofm.method import CombinedTerms
from eofm.method.branches import Branch
from eofm.networks.vit import Architecture, block_of, find_architecture
from eofm.terminal import Ended, signals_end
from eofm.train.checkpoint import AtomicCheckpointIO, Checkpoints, RandomStates
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.distributed import (
    KnownEnvironment,
    ProcessGroup,
    SharedNorms,
    Stopped,
    handlers_kept,
)
from eofm.train.module import PretrainModule
from eofm.train.run_folder import RunFolder

__all__ = [
    "SMALLEST_WIDTH",
    "WORTH",
    "CpuSpeed",
    "ShardedModule",
    "check_sharding",
    "choose_device",
    "clip",
    "cpu_has_bf16",
    "fit",
    "gather",
    "make_trainer",
    "measure_cpu",
    "settle",
    "shard",
    "use_attention",
]

# ------------------------------------------------------------- number format and attention of a CPU

# Narrower networks are not timed: they train in minutes either way, and so give the same numbers on
# every machine.
SMALLEST_WIDTH: Final = 384
# bfloat16 rounds, so it must be this much faster.
WORTH: Final = 1.1
_TOKENS: Final = 1024  # maximum per pass: under a second for a ViT-B on one core
_REPEATS: Final = 2


@dataclass(frozen=True)
class CpuSpeed:
    """Seconds of a forward and backward pass of one block, by (precision, attention)."""

    seconds: dict[tuple[str, str], float]

    def fastest(self, attention: str) -> tuple[str, str]:
        """Return the fastest pair.

        Args:
            attention: As in `trainer.attention`: `auto` leaves it open.
        """
        open_to = {
            key: took * (WORTH if key[0] == "bf16-mixed" else 1)
            for key, took in self.seconds.items()
            if attention in ("auto", key[1])
        }
        return min(open_to, key=open_to.__getitem__)

    def describe(self, chosen: tuple[str, str]) -> str:
        """Return the measurements and the choice in one line."""
        others = ", ".join(
            f"{' '.join(key)} {1e3 * took:.0f} ms" for key, took in sorted(self.seconds.items())
        )
        return f"on this CPU {chosen[0]} with {chosen[1]} attention: a block takes {others}"


def settle(config: PretrainConfig, *, bf16: bool) -> tuple[PretrainConfig, str]:
    """Return the settings with precision and attention chosen, and a line about the choice.

    If the precision is stated, it is used and nothing is measured: such a run gives the same
    numbers on every start.

    Args:
        config: All settings of a new run on a CPU.
        bf16: Whether this CPU has bfloat16 arithmetic.

    Returns:
        The unchanged settings and an empty line if the precision is stated, or if the network is
        small or not a ViT of eofm.
    """
    trainer = config.trainer
    architecture = find_architecture(config.model.architecture)
    if architecture is None or architecture.width < SMALLEST_WIDTH:
        return config, ""
    if trainer.precision != "auto":
        return config, ""
    precisions = ("32-true", "bf16-mixed") if bf16 else ("32-true",)
    speed = measure_cpu(architecture, config.model.size, config.optim.batch, precisions)
    precision, attention = speed.fastest(trainer.attention)
    made = replace(trainer, precision=precision, attention=attention)  # type: ignore[arg-type]
    return replace(config, trainer=made), speed.describe((precision, attention))


def measure_cpu(
    architecture: Architecture, size: int, batch: int, precisions: tuple[str, ...]
) -> CpuSpeed:
    """Time one block with both kinds of attention in each precision, on the tokens of an image.

    Args:
        architecture: Architecture of the network.
        size: Side of an image in pixels.
        batch: Images per step; fewer are used if they have many tokens.
        precisions: Precisions to time.
    """
    tokens = (size // architecture.patch) ** 2 + 1 + architecture.registers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = block_of(architecture).train()
        images = torch.randn(max(1, min(batch, _TOKENS // tokens)), tokens, architecture.width)
    seconds = {}
    for attention in ("fused", "plain"):
        use_attention(block, attention)
        for precision in precisions:
            once = [_pass(block, images, precision) for _ in range(_REPEATS + 1)]
            seconds[precision, attention] = min(once[1:])
    return CpuSpeed(seconds)


def _pass(block: nn.Module, images: torch.Tensor, precision: str) -> float:
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        out = block(images)
    out.float().sum().backward()
    block.zero_grad()
    return time.perf_counter() - began


def use_attention(network: nn.Module, attention: str) -> None:
    """Set attention of all timm blocks to one fused kernel, or to two products and a softmax.

    Args:
        network: Network to modify; both forms agree up to rounding.
        attention: `fused` or `plain`; `auto` leaves it to timm.
    """
    if attention == "auto":
        return
    for part in network.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = attention == "fused"  # type: ignore[assignment]  # a flag of timm


# ------------------------------------------------------------------------------------------- shards


def check_sharding(config: PretrainConfig, world: int, precision: str) -> None:
    """Refuse settings that sharding does not support.

    Args:
        config: All settings.
        world: Number of processes.
        precision: Lightning's name of it.

    Raises:
        ConfigError: If sharding is combined with one of them.
    """
    if config.trainer.strategy != "fsdp":
        return
    for holds, found, expected in (
        (world > 1, "one process", "trainer.devices of 2 or more"),
        (precision != "16-mixed", "trainer.precision=16-mixed", "bf16-mixed or 32-true"),
        (not config.trainer.chunk, f"trainer.chunk={config.trainer.chunk}", "trainer.chunk=0"),
        (
            not config.monitor.evaluates,
            "the online monitor, which evaluates whole networks",
            "monitor.every_epochs=0, monitor.every_steps=0, monitor.dense=0",
        ),
        (config.model.continue_from is None, "model.continue_from", "model.weights"),
    ):
        if not holds:
            raise ConfigError(
                "sharding does not go with the other settings",
                found=found,
                expected=expected,
                where="trainer.strategy=fsdp",
                remedy="trainer.strategy=ddp has no such limit: only ViT-L and larger need shards",
            )


class ShardedModule(PretrainModule):
    """A SoftCon run with sharded networks."""

    def configure_model(self) -> None:
        """Shard the networks, once the processes are connected."""
        if self.device_mesh is None or any(_is_cut(p) for p in self.method.parameters()):
            return
        self.method.old_names = False
        SharedNorms(gpu=self.device_mesh.device_type == "cuda").apply(self.method)
        shard(self.method, self.device_mesh["data_parallel"])

    def arrange(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Separate sharded from whole parameters, as one fused kernel processes a group."""
        return [
            {**group, "params": part}
            for group in groups
            for cut in (True, False)
            if (part := [p for p in group["params"] if _is_cut(p) is cut])
        ]

    def clip(self, parameters: list[nn.Parameter], largest: float) -> None:
        """Scale all gradients so that their norm, over shards and the rest, is bounded."""
        clip(parameters, largest)


def shard(method: CombinedTerms, mesh: DeviceMesh) -> None:
    """Shard student, teacher and the layers of terms block by block, in place."""
    for part in _parts(method):
        for block in _blocks(part):
            fully_shard(block, mesh=mesh)
        # also the outermost part: the teacher has no backward pass and would stay gathered
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        if isinstance(part, Branch):
            part.sharded = True
            register_fsdp_forward_method(part, "project")
    for parameter in method.parameters():
        if parameter.requires_grad and not _is_cut(parameter):
            parameter.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]


def _parts(method: CombinedTerms) -> Iterator[nn.Module]:
    """Yield the modules that are called as a unit and have parameters."""
    terms = [part for term in method.terms.values() for part in term.children()]
    for part in (method.student, *terms, method.teacher, *method.frozen.values()):
        if part is not None and any(True for _ in part.parameters()):
            yield part


def _blocks(part: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the transformers inside a part."""
    for name, module in part.named_modules():
        if name.endswith("blocks") and isinstance(module, (nn.ModuleList, nn.Sequential)):
            yield from module


def _is_cut(parameter: Tensor) -> bool:
    return isinstance(parameter, DTensor)


def _average(parameter: Tensor) -> None:
    """Average the gradient of a whole parameter over the processes, as is done for shards."""
    if parameter.grad is not None:
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def clip(parameters: Sequence[Tensor], largest: float) -> None:
    """Scale all gradients so that their norm, over shards and whole parameters, is bounded.

    Args:
        parameters: Sharded and whole parameters.
        largest: Upper bound of the norm.
    """
    cut = [p.grad for p in parameters if p.grad is not None and _is_cut(p)]
    rest = [p.grad for p in parameters if p.grad is not None and not _is_cut(p)]
    norm = torch.nn.utils.get_total_norm(cut)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    total = torch.linalg.vector_norm(
        torch.stack([whole, *(torch.linalg.vector_norm(g).to(whole) for g in rest)])
    )
    factor = (largest / (total + 1e-6)).clamp(max=1.0)
    for gradient in [g.to_local() for g in cut if isinstance(g, DTensor)] + rest:
        gradient.mul_(factor.to(gradient))


def gather(module: nn.Module) -> None:
    """Gather the full module in place, in all processes and on the CPU, for export."""
    for part in module.modules():  # `module.to` would expect the shards
        for name, parameter in dict(part._parameters).items():
            if parameter is not None:
                whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
                part._parameters[name] = nn.Parameter(
                    whole.detach().cpu(), requires_grad=parameter.requires_grad
                )
        for name, buffer in dict(part._buffers).items():
            part._buffers[name] = None if buffer is None else buffer.cpu()


# ------------------------------------------------------------------------------------------ trainer

_AUTO_GPU: Final = "bf16-mixed"


def choose_device(config: PretrainConfig) -> tuple[str, str]:
    """Return Lightning's names of precision and accelerator.

    Raises:
        ConfigError: If more GPUs are requested than there are, or half precision on a CPU without
            it: emulated bfloat16 was measured at one thirtieth of the speed of float32.
    """
    trainer = config.trainer
    gpu = torch.cuda.is_available() and trainer.accelerator != "cpu"
    if trainer.accelerator == "gpu" and not gpu:
        raise ConfigError("there is no GPU", where="trainer.accelerator", remedy="use auto or cpu")
    if gpu and trainer.devices > torch.cuda.device_count():
        raise ConfigError(
            "there are fewer GPUs than requested",
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
    """Train, from the last checkpoint if the run resumes; return the duration in seconds.

    Args:
        module: Module to train in place; it is on the CPU afterwards.
        data: Data to train on.
        folder: Run folder for the checkpoints.
        config: All settings.
        group: The processes that train together.
        callbacks: Logs, monitor and guard, which run before the checkpoint of a step.

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
        # lightning 2.6 uses the deprecated leaf check of torch 2.15
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        # torch 2.15 has a new name for it, which earlier versions lack
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
    """Return Lightning's strategy for the processes."""
    if config.trainer.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=group.place.world,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    # buffers are equal by construction: every norm uses the batch of all processes
    return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
