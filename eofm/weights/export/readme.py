"""The model card of an export: `README.md`, with the front matter that model hubs read.

It is made from the card, so that the two cannot disagree, and says nothing the card does not.
Beside the fields of model hubs the front matter has those of the model card template of
geoembeddings.org (read in November 2026), as far as the card knows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import yaml

from eofm.contract.recipe import Recipe
from eofm.contract.spec import Sensor
from eofm.weights.cards.card import UNSTATED, Score
from eofm.weights.encoder_card import Card
from eofm.weights.export.program import ProgramFormat

FILE: Final = "README.md"
MARK: Final = "library_name: eofm"

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
        card: Of the encoder.
        dim: Width of an embedding, D.
        formats: Programs that lie beside it.
        scores: As published; none were measured by exporting.
        folder: What the snippets call the folder.
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
    lines = ["---", *_licence_lines(card.licence), MARK, "tags:"]
    lines += [f"- {tag}" for tag in tags]
    names = _data_sets(card.training_data)
    lines += ["datasets:", *(f"- {json.dumps(name)}" for name in names)] if names else []
    template = yaml.safe_dump(_template(card, dim, scores), sort_keys=False, allow_unicode=True)
    return "\n".join([*lines, template.rstrip(), "---", ""])


def _template(card: Card, dim: int, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the fields of the template of geoembeddings.org that the card answers."""
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
    """Return a published score as hubs read it."""
    result = {
        "task": {"type": "image-classification", "name": score.probe},
        "dataset": {"type": score.task, "name": score.task},
        "metrics": [{"type": score.metric, "value": score.value}],
        "source": {"name": f"as published: {score.source}"},
    }
    return {"name": card.name, "results": [result]}


def _licence_lines(licence: str) -> list[str]:
    """Return what model hubs read: an SPDX identifier, or `other` with a name.

    >>> _licence_lines("CC-BY-4.0"), _licence_lines("not stated")
    (['license: "cc-by-4.0"'], ['license: "other"', 'license_name: "not-stated"'])
    """
    name = licence.lower().replace(" ", "-")
    if licence == UNSTATED:
        return ['license: "other"', f"license_name: {json.dumps(name)}"]
    return [f"license: {json.dumps(name)}"]


def _licence(card: Card) -> str:
    """Return what may be done with the weights; who exports them has to state it."""
    if card.licence != UNSTATED:
        return ""
    return (
        "## Licence\n\nNot stated: that of the training data is not known to eofm. Whoever trained"
        " the weights\nstates it with `eofm models export FOLDER --licence NAME --to FOLDER`.\n"
    )


def _data_sets(training_data: str) -> list[str]:
    """Return the names that the description begins with, spelt as identifiers.

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
