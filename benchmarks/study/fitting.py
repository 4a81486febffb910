"""Training as `eofm pretrain` does it, without its folder: no checkpoints, no report."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import lightning as L

from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.module import PretrainModule


def fit(
    config: PretrainConfig,
    data: StoreDataModule,
    module: PretrainModule,
    *,
    precision: str = "32-true",
    callbacks: Sequence[L.Callback] = (),
) -> int:
    """Train; return the number of steps.

    Args:
        config: Epochs and clipping.
        data: As `eofm.train.run.prepare` makes it.
        module: The same; it is trained in place.
        precision: Number format.
        callbacks: What looks on.
    """
    trainer = L.Trainer(
        max_epochs=config.optim.epochs,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        gradient_clip_val=config.optim.clip,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        trainer.fit(module, datamodule=data)
    return int(trainer.global_step)
