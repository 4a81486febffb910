"""Export an encoder: weights and card, programs that run without eofm, a model card.

The model card, `README.md`, has the front matter that model hubs read. It is generated from the
card, so the two always agree, and has no other content. In addition to the fields of model hubs
the front matter has those of the model card template of geoembeddings.org (as of November 2026),
as far as the card has them.

`preprocess.json` is for users of a program without eofm. It contains the recipe, a description of
the preprocessing, numbers for testing another implementation, and the measured difference of each
program from the network.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from eofm.contract.preprocess import normalize, plan
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import ImageSpec, Sensor
from eofm.errors import WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_json
from eofm.weights.cards import WEIGHTS
from eofm.weights.cards.card import UNSTATED, Score
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import Card, Encoder, save_encoder, serialise, sha256, write_whole
from eofm.weights.load import load_weights
from eofm.weights.programs import (
    INPUT,
    OUTPUT,
    Program,
    ProgramFormat,
    ProgramInput,
    check_onnx_packages,
    graph_of,
    trace,
    write_program,
)

__all__ = [
    "FORMATS",
    "PREPROCESS",
    "PREPROCESS_FORMAT",
    "README",
    "README_MARK",
    "SAFETENSORS",
    "Exported",
    "example",
    "export_encoder",
    "export_source",
    "in_words",
    "kept_programs",
    "model_card",
    "preprocess_record",
]

# ---------------------------------------------------------------------------------------- README.md

README: Final = "README.md"
README_MARK: Final = "library_name: eofm"

_MISSION: Final = {
    Sensor.S1_GRD: "sentinel-1",
    Sensor.S1_RTC: "sentinel-1",
    Sensor.S2_L1C: "sentinel-2",
    Sensor.S2_L2A: "sentinel-2",
    Sensor.RGB: "rgb",
    Sensor.NAIP: "naip",
}
_DATA_TYPE: Final = {
    "sentinel-1": "SAR",
    "sentinel-2": "multispectral",
    "rgb": "RGB",
    "naip": "multispectral",
}
_PRODUCT: Final = {
    Sensor.S1_GRD: "sentinel-1-grd",
    Sensor.S1_RTC: "sentinel-1-rtc",
    Sensor.S2_L1C: "sentinel-2-l1c",
    Sensor.S2_L2A: "sentinel-2-l2a",
    Sensor.RGB: "rgb",
    Sensor.NAIP: "naip",
}
_SNIPPETS: Final = {
    ProgramFormat.PT2: """\
With torch alone (`preprocess.json` says what pixels it takes and how to make them):

```python
import torch

embed = torch.export.load("{folder}/encoder.pt2").module()
vectors = embed(pixels)  # {shape} -> (B, {dim})
```
""",
    ProgramFormat.ONNX: """\
With ONNX Runtime (`preprocess.json` says what pixels it takes and how to make them):

```python
import onnxruntime

session = onnxruntime.InferenceSession("{folder}/encoder.onnx")
(vectors,) = session.run(["embedding"], {{"pixels": pixels}})  # {shape} float32
```
""",
}


def model_card(
    card: Card, dim: int, formats: Sequence[ProgramFormat], scores: Sequence[Score], folder: str
) -> str:
    """Return the text of the model card.

    Args:
        card: Card of the encoder.
        dim: Width of an embedding, D.
        formats: Programs in the same folder.
        scores: Published scores; exporting measures none.
        folder: Name of the folder in the snippets.
    """
    parts = [
        _front_matter(card, dim, scores),
        f"# {card.name}\n",
        _summary(card, dim),
        _input(card.recipe),
        _loading(card, dim, formats, folder),
        _training(card),
        _licence(card),
        _scores(scores),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(card: Card, dim: int, scores: Sequence[Score]) -> str:
    tags = [
        "earth-observation",
        "remote-sensing",
        _MISSION[card.recipe.sensor],
        "feature-extraction",
    ]
    tags += ["synthetic-data"] * card.synthetic
    lines = ["---", *_licence_lines(card.licence), README_MARK, "tags:"]
    lines += [f"- {tag}" for tag in tags]
    names = _data_sets(card.training_data)
    lines += ["datasets:", *(f"- {json.dumps(name)}" for name in names)] if names else []
    template = yaml.safe_dump(_template(card, dim, scores), sort_keys=False, allow_unicode=True)
    return "\n".join([*lines, template.rstrip(), "---", ""])


def _template(card: Card, dim: int, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the fields of the template of geoembeddings.org that the card can fill."""
    sensor = card.recipe.sensor
    image = {
        "data_types": [_DATA_TYPE[_MISSION[sensor]]],
        "product_names": [_PRODUCT[sensor]],
        "patch_size": card.recipe.size[0],
        "temporal_context": "single-date",
    }
    trained = {**image, "training_strategy": card.objective}
    made_up = "trained on synthetic imagery, of no use on real imagery"
    fields = {
        "description": " ".join(_summary(card, dim).split()),
        "provider": f"whoever publishes at {card.url}" if card.url else UNSTATED,
        "embedding_spatial_types": ["patch", "scene"],
        "embedding_temporal_type": ["single-date"],
        "embedding_spatial_context": "spatial context beyond embedding spatial type",
        "embedding_temporal_context": "temporal context determined by embedding temporal type",
        "embedding_dimension": dim,
        "model_architecture": card.architecture,
        "publication_link": f"https://arxiv.org/abs/{card.paper}" if card.paper else "",
        "cautions": made_up if card.synthetic else "",
        "pretraining": trained if card.objective != "none" else {},
        "inference": image,
        "model-index": [_published(card, score) for score in scores],
    }
    return {name: value for name, value in fields.items() if value}


def _published(card: Card, score: Score) -> dict[str, Any]:
    """Return a published score in the format of model hubs."""
    result = {
        "task": {"type": "image-classification", "name": score.probe},
        "dataset": {"type": score.task, "name": score.task},
        "metrics": [{"type": score.metric, "value": score.value}],
        "source": {"name": f"as published: {score.source}"},
    }
    return {"name": card.name, "results": [result]}


def _licence_lines(licence: str) -> list[str]:
    """Return the lines for model hubs: an SPDX identifier, or `other` with a name.

    >>> _licence_lines("CC-BY-4.0"), _licence_lines("not stated")
    (['license: "cc-by-4.0"'], ['license: "other"', 'license_name: "not-stated"'])
    """
    name = licence.lower().replace(" ", "-")
    if licence == UNSTATED:
        return ['license: "other"', f"license_name: {json.dumps(name)}"]
    return [f"license: {json.dumps(name)}"]


def _licence(card: Card) -> str:
    """Return the section on the licence; if unknown, the exporter has to state it."""
    if card.licence != UNSTATED:
        return ""
    return (
        "## Licence\n\nNot stated: that of the training data is not known to eofm. Whoever trained"
        " the weights\nstates it with `eofm models export FOLDER --licence NAME --to FOLDER`.\n"
    )


def _data_sets(training_data: str) -> list[str]:
    """Return the data sets at the start of the description, spelt as identifiers.

    >>> _data_sets("SSL4EO-S12 v1.1 with SSL4EO-S12-ML: four seasons")
    ['ssl4eo-s12-v1.1', 'ssl4eo-s12-ml']
    >>> _data_sets("none")
    []
    """
    names = re.split(r"[,:;(]", training_data)[0].lower().split(" with ")
    slugs = [re.sub(r"[^a-z0-9./]+", "-", name).strip("-") for name in names]
    return [slug for slug in slugs if slug not in {"", "none"}]


def _summary(card: Card, dim: int) -> str:
    lines = [
        f"Encoder of {card.recipe.sensor} imagery: architecture `{card.architecture}`,"
        f" embedding width {dim}.",
        f"Objective: {card.objective}." if card.objective != "none" else "Untrained.",
        f"Weights: {card.source}.",
    ]
    lines += [f"Paper: [arXiv {card.paper}](https://arxiv.org/abs/{card.paper})."] * bool(
        card.paper
    )
    lines += [f"Fetched from {card.url}"] * bool(card.url)
    return "\n".join(lines) + "\n"


def _input(recipe: Recipe) -> str:
    norm = recipe.normalization
    rows = [
        f"| `{band}` | {shift:g} | {scale:g} |"
        for band, shift, scale in zip(recipe.bands, norm.shift, norm.scale, strict=True)
    ]
    tail = f", clipped to {list(norm.clip)}" if norm.clip else ""
    tail += f", truncated to {norm.levels} levels" if norm.levels else ""
    return "\n".join(
        [
            "## What it expects\n",
            f"Sensor and level `{recipe.sensor}`, unit `{recipe.unit}`, bands in the order below.",
            f"Resized to {recipe.size[0]} x {recipe.size[1]} pixels ({recipe.resize.kernel},"
            f" antialias={recipe.resize.antialias}, {recipe.resize.order}).",
            f"Normalised as (x - shift) / scale{tail}.",
            f"Constants: {norm.source}.\n",
            "| band | shift | scale |",
            "|---|---:|---:|",
            *rows,
            "",
        ]
    )


def _loading(card: Card, dim: int, formats: Sequence[ProgramFormat], folder: str) -> str:
    height, width = card.recipe.size
    shape = f"(B, {len(card.recipe.bands)}, {height}, {width})"
    bands = card.recipe.sensor
    parts = [
        f"""## How to load it

With eofm, which refuses imagery that does not fit:

```python
import eofm

encoder = eofm.load_encoder("{folder}")
image = eofm.read_geotiff("scene.tif", sensor="{bands}", unit="{card.recipe.unit}")
vector = encoder.embed(image)  # (1, {dim})
```

From a clone of eofm that is not installed, with torch and timm only:

```python
import torch

encoder = torch.hub.load("path/to/eofm", "eofm", source="local", weights="{folder}")
vectors = encoder(encoder.preprocess(array, spec))  # spec: an ImageSpec says what the array is
```

As bare tensors under their published names:

```python
from safetensors.torch import load_file

state = load_file("{folder}/weights.safetensors")
```
"""
    ]
    parts += [_SNIPPETS[form].format(folder=folder, shape=shape, dim=dim) for form in formats]
    return "\n".join(parts)


def _training(card: Card) -> str:
    if card.training_data == "none":
        return ""
    lines = ["## Training data\n", f"{card.training_data}."]
    lines += [f"{number} {what}." for what, number in card.counts.items()]
    if card.synthetic:
        lines.append("**Synthetic**: the imagery was made up, not observed.")
    return "\n".join(lines) + "\n"


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return ""
    rows = [f"| {s.task} | {s.probe} | {s.metric} | {s.value:g} | {s.source} |" for s in scores]
    return "\n".join(
        [
            "## Scores, as published\n",
            "Copied from their source; measured neither here nor by eofm's protocol.\n",
            "| task | probe | metric | value | source |",
            "|---|---|---|---:|---|",
            *rows,
            "",
        ]
    )


# ---------------------------------------------------------------------------------- preprocess.json

PREPROCESS: Final = "preprocess.json"
PREPROCESS_FORMAT: Final = "eofm-preprocess-1"

_POOLED: Final = {
    Pooling.CLS: "the CLS token after the final norm",
    Pooling.MEAN: "the mean of the patch tokens after the final norm",
}
# Below the range, inside it, above it, in units of `scale` from `shift`. Those inside are halfway
# between two of 255 levels, so that float32 and float64 give the same level.
_PROBES: Final = (-0.5, 0.3, 0.7, 1.5)


def preprocess_record(card: Card, dim: int, programs: Sequence[Program]) -> dict[str, Any]:
    """Return the contents of `preprocess.json`.

    Args:
        card: Card of the encoder.
        dim: Width of an embedding, D.
        programs: Exported programs.
    """
    recipe = card.recipe
    shape = ["batch", len(recipe.bands), *recipe.size]
    values = {
        ProgramInput.NORMALISED: "normalised: after all steps",
        ProgramInput.PHYSICAL: f"{recipe.unit}: after all steps but the normalisation",
    }
    return {
        "format": PREPROCESS_FORMAT,
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
    """Return the steps from an image to the recipe, one per line."""
    # twice the size, so that the plan includes resizing; the GSD does not affect the steps
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
    """Return pixels, one column per band, and their normalised values."""
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
    """Return the entries of an earlier sidecar in `directory` for programs that are kept.

    Args:
        directory: Folder of the encoder.
        card: Card of the encoder, with the hash of its weights.
        rewritten: Names of the programs that will be replaced.

    Raises:
        WeightsError: If a program that would be kept belongs to other weights.
    """
    there = {path.name for path in directory.glob("encoder.*")} - set(rewritten)
    if not there:
        return {}
    try:
        with foreign(WeightsError, "the programs that are there are not known", where=directory):
            earlier = read_json(directory / PREPROCESS)
            known = earlier["programs"] if earlier["weights_sha256"] == card.sha256 else {}
            return {name: known[name] for name in sorted(there)}
    except WeightsError as error:
        raise WeightsError(
            "the folder contains programs of other weights, which would remain next to these",
            found=", ".join(sorted(there)),
            expected=f"a new folder, or one of {card.name}",
            where=directory,
            remedy="name another folder, or delete those files",
        ) from error


# --------------------------------------------------------------------------------------- the folder

SAFETENSORS: Final = "safetensors"
FORMATS: Final = (SAFETENSORS, *ProgramFormat)


@dataclass(frozen=True)
class Exported:
    """An encoder on disk.

    Args:
        directory: Folder of the encoder.
        card: Card as written, with the hash of the weights.
        programs: Programs written this time.
    """

    directory: Path
    card: Card
    programs: tuple[Program, ...] = ()

    def describe(self) -> str:
        """Return the location, with one line per program."""
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
    """Write weights, card, `preprocess.json` and `README.md`, and the requested programs.

    A program is compared with the network before any file is replaced; if one fails, the folder is
    unchanged. `load_encoder` reads the folder. Programs of the same weights from an earlier export
    are kept.

    Args:
        encoder: Encoder to write.
        directory: Output folder, created if needed.
        formats: Programs to write.
        takes: Input of the programs.
        scores: Published scores, for the model card.

    Raises:
        WeightsError: If packages for ONNX are missing, a program differs from the network, the
            folder has a README or programs of other weights, or cannot be written.
    """
    directory = Path(directory)
    if ProgramFormat.ONNX in formats:
        check_onnx_packages()
    card = replace(encoder.card, sha256=sha256(serialise(encoder.trunk, encoder.card)))
    kept = kept_programs(directory, card, [f"encoder.{form}" for form in formats])
    _check_readme(directory / README)
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
    beside = preprocess_record(card, encoder.dim, programs)
    beside["programs"] = {**kept, **beside["programs"]}
    text = json.dumps(beside, indent=2, ensure_ascii=False) + "\n"
    write_whole(directory / PREPROCESS, text.encode())
    formats = [form for form in ProgramFormat if f"encoder.{form}" in beside["programs"]]
    text = model_card(card, encoder.dim, formats, scores, directory.name)
    write_whole(directory / README, text.encode())


def _check_readme(path: Path) -> None:
    """Raise an error for a README that is not a model card of eofm."""
    if path.is_file() and README_MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise WeightsError(
            "the folder has its own README, which a model card would replace",
            found=path,
            remedy="name a folder for the encoder alone",
        )


def export_source(config: ExportConfig) -> Exported:
    """Export a checkpoint, an export or published weights in the requested formats.

    Raises:
        WeightsError: If the source cannot be read, or the result cannot be written: see
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
        # a published score is valid for the weights with their own recipe only
        scores=published.scores if published and published.recipe == encoder.recipe else (),
    )
