"""What holds an encoder becomes a folder: a checkpoint, an earlier export, a published name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eofm.networks.state import load_strict
from eofm.networks.trunk import Trunk
from eofm.train.config import ExportConfig
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import Encoder, build_trunk, save_encoder
from eofm.weights.encoder_card import Card
from eofm.weights.export import Exported, export_encoder
from eofm.weights.load import load_weights
from eofm.weights.program import ProgramFormat, ProgramInput


def export_trunk(trunk: Trunk, card: Card, directory: Path) -> Encoder:
    """Write a trunk with its card, and return it as an encoder of its own (a copy)."""
    copy = build_trunk(card)
    load_strict(
        copy, {k: v.detach().cpu().clone() for k, v in trunk.state_dict().items()}, card.name
    )
    encoder = Encoder(copy, card)
    save_encoder(encoder, directory)
    return encoder


def export_source(config: ExportConfig) -> Exported:
    """Write what a checkpoint, an export or a published name holds, in the formats asked for.

    Raises:
        WeightsError: If the source cannot be read, or the result not be written: see
            `eofm.weights.export.export_encoder`.
    """
    source = config.source if config.branch is None else f"{config.source}@{config.branch}"
    encoder = load_weights(source, sensor=config.sensor)
    if config.licence is not None:
        encoder = Encoder(encoder.trunk, replace(encoder.card, licence=config.licence))
    published = WEIGHTS.get(encoder.card.name.partition("@")[0])
    return export_encoder(
        encoder,
        config.to,
        [ProgramFormat(name) for name in config.programs],
        takes=ProgramInput(config.takes),
        # a published score belongs to the weights with their own recipe
        scores=published.scores if published and published.recipe == encoder.recipe else (),
    )
