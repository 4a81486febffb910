"""`preprocess.json`: what stands beside a program, for those who run it without eofm.

It states the recipe, says in words how pixels come to it, gives numbers to test one's own
version on, and records how far each program was seen to differ from the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from eofm.contract.preprocess import normalize, plan
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import ImageSpec
from eofm.errors import WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_json
from eofm.weights.encoder_card import Card
from eofm.weights.export.program import INPUT, OUTPUT, Program, ProgramInput

FILE: Final = "preprocess.json"
FORMAT: Final = "eofm-preprocess-1"

_POOLED: Final = {
    Pooling.CLS: "the CLS token after the final norm",
    Pooling.MEAN: "the mean of the patch tokens after the final norm",
}
# Below the range, inside it, above it, in units of `scale` from `shift`. Those inside are half
# way between two of 255 levels, so that float32 and float64 agree on the level.
_PROBES: Final = (-0.5, 0.3, 0.7, 1.5)


def content(card: Card, dim: int, programs: Sequence[Program]) -> dict[str, Any]:
    """Return what `preprocess.json` holds.

    Args:
        card: Of the encoder.
        dim: Width of an embedding, D.
        programs: Files that hold it.
    """
    recipe = card.recipe
    shape = ["batch", len(recipe.bands), *recipe.size]
    values = {
        ProgramInput.NORMALISED: "normalised: after all steps",
        ProgramInput.PHYSICAL: f"{recipe.unit}: after all steps but the normalisation",
    }
    return {
        "format": FORMAT,
        "name": card.name,
        "architecture": card.architecture,
        "weights_sha256": card.sha256,
        "recipe": recipe.to_dict(),
        "steps": in_words(recipe),
        "example": example(recipe),
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": ["batch", dim],
            "what": _POOLED[recipe.pooling],
        },
        "programs": {
            program.file: {
                "input": {
                    "name": INPUT,
                    "dtype": "float32",
                    "shape": shape,
                    "values": values[program.input],
                },
                **{k: v for k, v in asdict(program).items() if k not in {"file", "input"}},
            }
            for program in programs
        },
        "versions": dict(card.versions or {}),
    }


def in_words(recipe: Recipe) -> list[str]:
    """Return the way of an image to the recipe, one step a line."""
    # twice the size, so that the plan shows how to resize; the GSD does not enter the steps
    size = (2 * recipe.size[0], 2 * recipe.size[1])
    spec = ImageSpec(recipe.sensor, recipe.bands, recipe.unit, size, 10.0)
    numbered = [line.strip() for line in plan(spec, recipe).describe().splitlines()]
    steps = [line.partition(". ")[2] for line in numbered if line[:1].isdigit()]
    norm = recipe.normalization
    formula = "y = (x - shift) / scale for each band, in float32"
    formula += f"; y = min(max(y, {norm.clip[0]:g}), {norm.clip[1]:g})" if norm.clip else ""
    formula += f"; y = floor({norm.levels} y) / {norm.levels}" if norm.levels else ""
    return [
        f"begin with {recipe.sensor} pixels in unit {recipe.unit}, as floating-point numbers",
        *steps,
        f"normalising is: {formula}; shift and scale are in recipe.normalization",
        "resizing has half-pixel centres (align_corners=False); an image that has the size"
        " already is not resized",
    ]


def example(recipe: Recipe) -> dict[str, Any]:
    """Return pixels, one column per band, and what normalising makes of them."""
    norm = recipe.normalization
    probes = torch.tensor(_PROBES, dtype=torch.float64)[:, None]
    physical = probes * torch.tensor(norm.scale) + torch.tensor(norm.shift)
    physical = torch.tensor([[float(f"{x:.6g}") for x in row] for row in physical.tolist()])
    normalised = normalize(physical[:, :, None, None], norm)[:, :, 0, 0]
    return {
        "bands": list(recipe.bands),
        "unit": str(recipe.unit),
        "pixels": [[float(f"{x:.6g}") for x in row] for row in physical.tolist()],
        "normalised": [[float(f"{y:.6g}") for y in row] for row in normalised.tolist()],
    }


def kept_programs(directory: Path, card: Card, rewritten: Sequence[str]) -> Mapping[str, Any]:
    """Return what an earlier sidecar in `directory` says of programs that stay.

    Args:
        directory: Where the encoder is written.
        card: Of the encoder, with the hash of its weights.
        rewritten: Names of the programs that are about to be replaced.

    Raises:
        WeightsError: If a program that would stay is not one of these weights.
    """
    there = {path.name for path in directory.glob("encoder.*")} - set(rewritten)
    if not there:
        return {}
    try:
        with foreign(WeightsError, "the programs that are there are not known", where=directory):
            earlier = read_json(directory / FILE)
            known = earlier["programs"] if earlier["weights_sha256"] == card.sha256 else {}
            return {name: known[name] for name in sorted(there)}
    except WeightsError as error:
        raise WeightsError(
            "the folder holds programs of other weights, which would stand beside these",
            found=", ".join(sorted(there)),
            expected=f"a new folder, or one of {card.name}",
            where=directory,
            remedy="name another folder, or delete those files",
        ) from error
