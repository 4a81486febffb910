"""The public API as a caller writes it: checked by mypy --strict, never run.

`typing.assert_type` holds what a name gives, so that a type that falls back to Any is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import eofm
from eofm.contract.preprocess import Plan
from eofm.geo.change import ChangeResult
from eofm.geo.class_map import LearntMap
from eofm.geo.embeddings import ChipTable, PatchGrid
from eofm.geo.explore import ExplorePage
from eofm.geo.search import SearchResult
from eofm.raster.scene import Scene
from eofm.train.result import Report
from eofm.weights.encoder import Card


def read(path: Path) -> eofm.Imagery:
    """From a file or a product to imagery."""
    image = eofm.read_geotiff(path, sensor="s2-l1c", unit="dn", window=(0, 0, 112, 112))
    assert_type(image, eofm.Imagery)
    assert_type(image.pixels, Tensor)
    assert_type(image.spec, eofm.ImageSpec)
    scene = eofm.open_scene(path, sensor=eofm.Sensor.S2_L2A, unit=eofm.Unit.DN)
    assert_type(scene, Scene)
    assert_type(eofm.from_xarray(image.to_xarray()), eofm.Imagery)
    return eofm.read_scene(path, bands=["B02", "B03"], gsd=10.0)


def state() -> tuple[eofm.ImageSpec, eofm.Recipe]:
    """What images are, and what a network expects."""
    bands = ("B02", "B03")
    rule = eofm.Normalization.two_sigma((1000.0, 900.0), (300.0, 280.0), "measured")
    spec = eofm.ImageSpec(eofm.Sensor.S2_L2A, bands, eofm.Unit.DN, (224, 224), 10.0)
    return spec, eofm.Recipe(eofm.Sensor.S2_L2A, bands, eofm.Unit.DN, (224, 224), rule)


def fit(spec: eofm.ImageSpec, recipe: eofm.Recipe) -> eofm.Preprocess:
    """From a statement to the steps, with exceptions that have a reason."""
    waivers = (
        eofm.FillBand("B10", 0.0, "no band of Level-2A"),
        eofm.AcceptSensor(eofm.Sensor.S2_L2A, "a test"),
        eofm.AcceptSize((120, 120), "a test"),
        eofm.AcceptScale("a test"),
        eofm.AcceptPixels("a test"),
    )
    try:
        steps = eofm.plan(spec, recipe, waivers)
    except eofm.SpecMismatch as error:
        assert_type(error.problem, str)
        steps = eofm.plan(spec, recipe)
    assert_type(steps, Plan)
    return eofm.Preprocess(steps)


def embed(image: eofm.Imagery, array: NDArray[np.uint16], spec: eofm.ImageSpec) -> Tensor:
    """From weights to vectors."""
    encoder = eofm.load_weights("softcon_vits14_s2", progress=False)
    assert_type(encoder, eofm.Encoder)
    assert_type(encoder.recipe, eofm.Recipe)
    assert_type(encoder.embed(image), Tensor)
    module: nn.Module = encoder
    assert_type(module.training, bool)
    card = eofm.save_encoder(encoder, "encoders/mine")
    assert_type(card, Card)
    again = eofm.load_encoder(Path("encoders/mine"))
    return again.embed(array, spec=spec)


def maps(scene: str) -> int:
    """From a scene to vectors, and to what is made of them."""
    chips = eofm.embed_chips(scene, "softcon_vits14_s2", chips=32)
    assert_type(chips, ChipTable)
    patches = eofm.embed_patches(scene, "softcon_vits14_s2")
    assert_type(patches, PatchGrid)
    assert_type(eofm.open_embeddings("embeddings/mine"), ChipTable | PatchGrid)
    assert_type(eofm.map_classes(patches, "polygons.gpkg", "class"), LearntMap)
    assert_type(eofm.detect_change(patches, patches, rate=0.01), ChangeResult)
    assert_type(eofm.explore(patches, Path("page.html")), ExplorePage)
    found = eofm.search(chips, at=(11.5, 48.1))
    assert_type(found, SearchResult)
    return len(chips)


def labels(path: str, rows: Sequence[int]) -> eofm.Labels:
    """From a packed store to labels."""
    store = eofm.Store(path)
    assert_type(len(store), int)
    assert_type(store.spec, eofm.ImageSpec)
    found = store.labels(rows)
    assert_type(found, eofm.Labels)
    assert_type(found.multi_hot, Tensor)
    return found


def train() -> str:
    """From settings to a report."""
    try:
        report = eofm.pretrain(eofm.PretrainConfig())
    except eofm.EofmError as error:
        return f"{error.problem}; {error.remedy or ''} ({eofm.__version__})"
    assert_type(report, Report)
    assert_type(report.describe(), str)
    return report.describe()
