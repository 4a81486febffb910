"""Training what does not fit one device: weights, gradients and moments in shards (FSDP2).

Blocks are gathered one at a time, when they run; student and teacher are cut alike, so that the
teacher follows shard by shard. What is too small to cut (the loss's scale and bias) every process
keeps whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from eofm.errors import ConfigError
from eofm.method import CombinedTerms
from eofm.method.teacher import Branch
from eofm.train.config import PretrainConfig
from eofm.train.distributed.batchnorm import SharedNorms
from eofm.train.module import PretrainModule


def check_sharding(config: PretrainConfig, world: int, precision: str) -> None:
    """Refuse what has not been made to work with shards.

    Args:
        config: All settings.
        world: How many processes there are.
        precision: In Lightning's words.

    Raises:
        ConfigError: If sharding is asked for together with it.
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
    """One SoftCon run on networks in shards."""

    def configure_model(self) -> None:
        """Cut the networks up, once the processes have met."""
        if self.device_mesh is None or any(_is_cut(p) for p in self.method.parameters()):
            return
        self.method.old_names = False
        SharedNorms(gpu=self.device_mesh.device_type == "cuda").apply(self.method)
        shard(self.method, self.device_mesh["data_parallel"])

    def arrange(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let no group hold both shards and whole parameters: one kernel takes a group."""
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
    """Cut student, teacher and the layers of terms up, block by block, in place."""
    for part in _parts(method):
        for block in _blocks(part):
            fully_shard(block, mesh=mesh)
        # also of the outermost part: the teacher, which has no way back, would stay whole
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        if isinstance(part, Branch):
            part.sharded = True
            register_fsdp_forward_method(part, "project")
    for parameter in method.parameters():
        if parameter.requires_grad and not _is_cut(parameter):
            parameter.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]


def _parts(method: CombinedTerms) -> Iterator[nn.Module]:
    """Yield what is called as a whole, and has parameters."""
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
        parameters: Of both kinds.
        largest: The bound.
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
    """Make the module whole again, in place, in all processes and on the CPU: to export it."""
    for part in module.modules():  # `module.to` would look for the shards
        for name, parameter in dict(part._parameters).items():
            if parameter is not None:
                whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
                part._parameters[name] = nn.Parameter(
                    whole.detach().cpu(), requires_grad=parameter.requires_grad
                )
        for name, buffer in dict(part._buffers).items():
            part._buffers[name] = None if buffer is None else buffer.cpu()
