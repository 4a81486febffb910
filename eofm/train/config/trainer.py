"""Settings of `eofm pretrain`: the machines it runs on. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eofm.errors import require


@dataclass(frozen=True)
class TrainerConfig:
    """Processes, number format and memory. Only `accumulate` changes the objective.

    Args:
        devices: GPUs, or processes on CPUs, per machine. 0: as many as torchrun or srun started,
            else one. `optim.batch` is shared out among all processes: every scene of it is a
            negative, batch norms see all of it, and the scenes of a step are the same however many
            processes there are.
        num_nodes: Machines. More than one need torchrun or srun on each. 0: as many as those
            started.
        strategy: `ddp` keeps the whole network on each device; `fsdp` shards weights, gradients and
            the optimizer's moments, for networks that do not fit (FSDP2). `auto` is ddp.
        accelerator: `auto`, `cpu` or `gpu`.
        precision: Number format; `auto` is bf16-mixed on a GPU that has it and float32 elsewhere.
            16-mixed scales the loss, and needs a GPU.
        tf32: Let a GPU round the factors of float32 matrix products to 10 bits. Those of the loss
            are rounded too.
        accumulate: Batches per optimizer step: gradients are averaged over so many, and the
            teacher moves once. Negatives stay within one batch, and batch norms too; see `chunk`
            for a large batch in little memory. The learning rate counts all of them.
        chunk: Images that run through the trunk at a time, with gradients recomputed chunk by
            chunk (as in GradCache, arXiv 2101.06983): the memory of one chunk's activations for
            the result of the whole batch, and a forward pass more. 0 for all at once.
    """

    devices: int = 0
    num_nodes: int = 0
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    tf32: bool = False
    accumulate: int = 1
    chunk: int = 0

    def __post_init__(self) -> None:
        for name, value, low in (
            ("devices", self.devices, 0),
            ("num_nodes", self.num_nodes, 0),
            ("accumulate", self.accumulate, 1),
            ("chunk", self.chunk, 0),
        ):
            require(value >= low, f"trainer.{name}", value, f"{low} or more")
