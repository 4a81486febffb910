"""Verbs of weights and encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    "models list": Verb(
        "list published weights that are known by name",
        "eofm.weights.config:ListConfig",
        "eofm.weights.catalogue:list_models",
        (
            "eofm models list",
            "eofm models list --sensor s2-l1c",
            "eofm models list --json",
        ),
    ),
    "models info": Verb(
        "say what published weights are: recipe, source, licence, published scores",
        "eofm.weights.config:InfoConfig",
        "eofm.weights.catalogue:show_model",
        (
            "eofm models info softcon_vits14_s2",
            "eofm models info softcon_vits14_s2@torchgeo-zscore",
        ),
    ),
    "models download": Verb(
        "fetch published weights, for use here or on a machine without network",
        "eofm.weights.config:DownloadConfig",
        "eofm.weights.catalogue:download_model",
        (
            "eofm models download softcon_vits14_s2",
            "eofm models download softcon_vits14_s2 --to weights",
            "EOFM_WEIGHTS=weights EOFM_OFFLINE=1 eofm models info softcon_vits14_s2",
        ),
    ),
    "models verify": Verb(
        "compare an export, or a folder of downloads, with its hashes",
        "eofm.weights.config:VerifyWeightsConfig",
        "eofm.weights.catalogue:verify",
        ("eofm models verify runs/mine/export/student", "eofm models verify weights"),
    ),
    "models merge": Verb(
        "write the encoder whose weights lie between those of two, such as a run's start and end",
        "eofm.weights.config:MergeModelsConfig",
        "eofm.weights.merge:merge_models",
        (
            "eofm models merge runs/mine/export/init runs/mine/export/student \\",
            "    --alpha 0.5 --out encoders/halfway",
        ),
    ),
    "models export": Verb(
        "write a checkpoint, an export or published weights for others: safetensors, pt2, onnx",
        "eofm.weights.config:ExportConfig",
        "eofm.weights.export.write:export_source",
        (
            "eofm models export runs/mine/checkpoints/last.ckpt --to encoders/mine",
            "eofm models export runs/mine/export/student --to encoders/mine --formats pt2,onnx",
            "eofm models export softcon_vits14_s2 --to encoders/softcon --formats onnx \\",
            "    --takes physical",
        ),
    ),
}
