"""Write an encoder for others: weights and card, programs for those without eofm, a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from eofm.errors import WeightsError
from eofm.weights.cards import WEIGHTS
from eofm.weights.cards.card import Score
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import Encoder, save_encoder
from eofm.weights.encoder_card import Card, serialise, sha256, write_whole
from eofm.weights.export import readme, sidecar
from eofm.weights.export.program import (
    Program,
    ProgramFormat,
    ProgramInput,
    check_onnx_packages,
    graph_of,
    trace,
    write_program,
)
from eofm.weights.load import load_weights

SAFETENSORS: Final = "safetensors"
FORMATS: Final = (SAFETENSORS, *ProgramFormat)


@dataclass(frozen=True)
class Exported:
    """An encoder on disk.

    Args:
        directory: Where.
        card: As written, with the hash of the weights.
        programs: That were written this time.
    """

    directory: Path
    card: Card
    programs: tuple[Program, ...] = ()

    def describe(self) -> str:
        """Return what is where, one line per program."""
        lines = [f"wrote {self.directory}: {self.card.name}, {self.card.source}"]
        lines += [
            f"  {p.file}: takes {p.input} pixels, differs from the network by {p.max_abs_diff:.2g}"
            for p in self.programs
        ]
        return "\n".join(lines)


def export_encoder(
    encoder: Encoder,
    directory: Path | str,
    formats: Sequence[ProgramFormat] = (),
    *,
    takes: ProgramInput = ProgramInput.NORMALISED,
    scores: Sequence[Score] = (),
) -> Exported:
    """Write weights, card, `preprocess.json` and `README.md`, and the programs asked for.

    A program is compared with the network before anything is put in place; if one fails, the
    folder stays as it was. `load_encoder` reads the folder. Programs of the same weights that an
    earlier export left there stay.

    Args:
        encoder: What to write.
        directory: Made if needed.
        formats: Programs to write.
        takes: What the programs take.
        scores: Published scores, for the model card.

    Raises:
        WeightsError: If packages for ONNX are missing, a program disagrees with the network, the
            folder holds a README or programs that are not of these weights, or cannot be written.
    """
    directory = Path(directory)
    if ProgramFormat.ONNX in formats:
        check_onnx_packages()
    card = replace(encoder.card, sha256=sha256(serialise(encoder.trunk, encoder.card)))
    kept = sidecar.kept_programs(directory, card, [f"encoder.{form}" for form in formats])
    _check_readme(directory / readme.FILE)
    with tempfile.TemporaryDirectory() as scratch:
        programs = _make_programs(encoder, formats, takes, Path(scratch))
        save_encoder(encoder, directory)
        try:
            for program in programs:
                write_whole(directory / program.file, (Path(scratch) / program.file).read_bytes())
            _write_words(encoder, card, directory, programs, kept, scores)
        except OSError as error:
            raise WeightsError(
                "the programs of the encoder cannot be written",
                found=error,
                where=directory,
                remedy="name a folder that can be written to, on a disk with free space",
            ) from error
    return Exported(directory, card, programs)


def _make_programs(
    encoder: Encoder, formats: Sequence[ProgramFormat], takes: ProgramInput, scratch: Path
) -> tuple[Program, ...]:
    if not formats:
        return ()
    graph = graph_of(encoder, takes)
    traced = trace(graph, encoder.recipe)
    return tuple(
        write_program(form, traced, graph, encoder.recipe, scratch / f"encoder.{form}")
        for form in dict.fromkeys(formats)
    )


def _write_words(
    encoder: Encoder,
    card: Card,
    directory: Path,
    programs: Sequence[Program],
    kept: Mapping[str, Any],
    scores: Sequence[Score],
) -> None:
    beside = sidecar.content(card, encoder.dim, programs)
    beside["programs"] = {**kept, **beside["programs"]}
    text = json.dumps(beside, indent=2, ensure_ascii=False) + "\n"
    write_whole(directory / sidecar.FILE, text.encode())
    formats = [form for form in ProgramFormat if f"encoder.{form}" in beside["programs"]]
    text = readme.model_card(card, encoder.dim, formats, scores, directory.name)
    write_whole(directory / readme.FILE, text.encode())


def _check_readme(path: Path) -> None:
    """Refuse to replace a README that is not a model card of ours."""
    if path.is_file() and readme.MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise WeightsError(
            "the folder has a README of its own, which a model card would replace",
            found=path,
            remedy="name a folder for the encoder alone",
        )


def export_source(config: ExportConfig) -> Exported:
    """Write what a checkpoint, an export or a published name holds, in the formats asked for.

    Raises:
        WeightsError: If the source cannot be read, or the result not be written: see
            `eofm.weights.export.write.export_encoder`.
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
