"""Settings of `eofm pretrain`: how and where to run. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunConfig:
    """How and where to run. Nothing here changes the result.

    Args:
        out: Run folder. Default: runs/pretrain-<date>-<time>.
        resume: Continue the run in `out` from its last checkpoint. `auto` continues it if it has
            begun, and starts it otherwise: one command for a job that is put back into the queue.
        threads: CPU threads; 0 leaves the choice to torch.
        readers: Threads that read batches ahead, each one batch.
        checkpoint_steps: Save a checkpoint after so many steps; 0 for never. There is one at the
            end of every epoch, and when the process is asked to stop (SIGTERM), in any case.
        checkpoint_minutes: Save one when so many minutes have passed since the last; 0 for never.
        checkpoint_keep: Keep the checkpoints of the last so many epochs; last.ckpt and best.ckpt
            are kept in any case. The best is that of the online monitor, else of the mean loss.
        figures: Draw figures at the end.
        licence: Of the exported weights, an SPDX identifier; without it that of the data, where
            their data card states one, and otherwise none is stated.
    """

    out: str | None = None
    resume: bool | Literal["auto"] = False
    threads: int = 0
    readers: int = 2
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    checkpoint_keep: int = 0
    figures: bool = True
    licence: str | None = None
