"""Verbs of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    "pretrain": Verb(
        "pretrain an encoder by soft contrastive learning; with no option, a demo in minutes",
        "eofm.train.config:PretrainConfig",
        "eofm.train.run:pretrain",
        (
            "eofm pretrain",
            "eofm pretrain --data.store stores/mine --dry-run",
            "eofm pretrain --data.store stores/mine --optim.epochs 20 --run.out runs/mine",
            "eofm pretrain --data.store stores/mine --model.architecture vits14 \\",
            "    --model.weights dinov2_vits14 --model.size 224 --run.out runs/mine",
            "eofm pretrain --method.objective moco --optim.seed 1",
            "eofm pretrain --data.store stores/both --data.views sensors --trainer.devices 4",
            "eofm pretrain --data.store stores/next --optim.schedule infinite --optim.floor 0.1 \\",
            "    --model.continue_from runs/mine/checkpoints/constant.ckpt",
            "eofm pretrain --run.out runs/mine --run.resume true",
        ),
        (
            "data.store",
            "data.holdout",
            "data.views",
            "data.unlabelled",
            "model.architecture",
            "model.weights",
            "model.continue_from",
            "model.input_init",
            "model.size",
            "model.statistics",
            "method.objective",
            "method.similarity",
            "method.soft_weight",
            "method.mask_ratio",
            "augment.scale",
            "optim.epochs",
            "optim.batch",
            "optim.optimizer",
            "optim.lr",
            "optim.schedule",
            "optim.warmup",
            "optim.layer_decay",
            "optim.freeze_epochs",
            "optim.seed",
            "trainer.devices",
            "trainer.precision",
            "run.out",
            "run.resume",
            "run.dry_run",
            "monitor.every_epochs",
            "monitor.loggers",
        ),
        "eofm.train.before.demo:demo_defaults",
        {"--dry-run": "--run.dry_run=true"},
    ),
    "report": Verb(
        "write one HTML page about a run (finished, going on, or dead), or to compare several",
        "eofm.train.config:ReportConfig",
        "eofm.train.report.page:report",
        (
            "eofm report runs/mine",
            "eofm report runs/mine runs/other --out comparison.html",
            "eofm report runs/mine --store stores/moved-here",
        ),
    ),
}
