"""eofm: pretrain, benchmark and use satellite encoders.

    import eofm

    encoder = eofm.load_encoder("runs/demo/export/student")
    image = eofm.read_geotiff("scene.tif", sensor="s2-l1c", unit="dn")
    vectors = encoder.embed(image)          # or a SpecMismatch that says what does not fit

Every name is loaded when it is first used: `import eofm` itself takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

__version__ = "0.1.0"

_HOME: Final = {
    "AcceptPixels": "eofm.contract.recipe",
    "AcceptScale": "eofm.contract.recipe",
    "AcceptSensor": "eofm.contract.recipe",
    "AcceptSize": "eofm.contract.recipe",
    "Encoder": "eofm.weights.encoder",
    "EofmError": "eofm.errors",
    "FillBand": "eofm.contract.recipe",
    "ImageSpec": "eofm.contract.spec",
    "Imagery": "eofm.contract.imagery",
    "Labels": "eofm.contract.imagery",
    "Normalization": "eofm.contract.spec",
    "PretrainConfig": "eofm.train.config",
    "Preprocess": "eofm.contract.preprocess",
    "Recipe": "eofm.contract.recipe",
    "Sensor": "eofm.contract.spec",
    "SpecMismatch": "eofm.errors",
    "Store": "eofm.store.reader",
    "Unit": "eofm.contract.spec",
    "detect_change": "eofm.geo.change",
    "embed_chips": "eofm.geo.embedding.embed",
    "embed_patches": "eofm.geo.embedding.embed",
    "explore": "eofm.geo.explore",
    "from_xarray": "eofm.raster.cube",
    "load_encoder": "eofm.weights.encoder",
    "load_weights": "eofm.weights.load",
    "map_classes": "eofm.geo.class_map",
    "open_embeddings": "eofm.geo.embedding_files",
    "open_scene": "eofm.raster.opening",
    "plan": "eofm.contract.preprocess",
    "pretrain": "eofm.train.run",
    "read_geotiff": "eofm.raster.opening",
    "read_scene": "eofm.raster.opening",
    "save_encoder": "eofm.weights.encoder",
    "search": "eofm.geo.search",
}

if TYPE_CHECKING:
    from eofm.contract.imagery import Imagery, Labels
    from eofm.contract.preprocess import Preprocess, plan
    from eofm.contract.recipe import (
        AcceptPixels,
        AcceptScale,
        AcceptSensor,
        AcceptSize,
        FillBand,
        Recipe,
    )
    from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
    from eofm.errors import EofmError, SpecMismatch
    from eofm.geo.change import detect_change
    from eofm.geo.class_map import map_classes
    from eofm.geo.embedding.embed import embed_chips, embed_patches
    from eofm.geo.embedding_files import open_embeddings
    from eofm.geo.explore import explore
    from eofm.geo.search import search
    from eofm.raster.cube import from_xarray
    from eofm.raster.opening import open_scene, read_geotiff, read_scene
    from eofm.store.reader import Store
    from eofm.train.config import PretrainConfig
    from eofm.train.run import pretrain
    from eofm.weights.encoder import Encoder, load_encoder, save_encoder
    from eofm.weights.load import load_weights

__all__ = [
    "AcceptPixels",
    "AcceptScale",
    "AcceptSensor",
    "AcceptSize",
    "Encoder",
    "EofmError",
    "FillBand",
    "ImageSpec",
    "Imagery",
    "Labels",
    "Normalization",
    "Preprocess",
    "PretrainConfig",
    "Recipe",
    "Sensor",
    "SpecMismatch",
    "Store",
    "Unit",
    "__version__",
    "detect_change",
    "embed_chips",
    "embed_patches",
    "explore",
    "from_xarray",
    "load_encoder",
    "load_weights",
    "map_classes",
    "open_embeddings",
    "open_scene",
    "plan",
    "pretrain",
    "read_geotiff",
    "read_scene",
    "save_encoder",
    "search",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'eofm' has no attribute {name!r}")
    value: object = vars(importlib.import_module(_HOME[name]))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names alone: what completion offers is what eofm promises."""
    return sorted(__all__)
