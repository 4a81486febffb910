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
    "AcceptSensor": "eofm.recipe",
    "AcceptSize": "eofm.recipe",
    "Encoder": "eofm.models.encoder",
    "EofmError": "eofm.errors",
    "FillBand": "eofm.recipe",
    "ImageSpec": "eofm.spec",
    "Imagery": "eofm.imagery",
    "Labels": "eofm.imagery",
    "Normalization": "eofm.spec",
    "PretrainConfig": "eofm.train.config",
    "Preprocess": "eofm.preprocess",
    "Recipe": "eofm.recipe",
    "Sensor": "eofm.spec",
    "SpecMismatch": "eofm.errors",
    "Store": "eofm.data.pack",
    "Unit": "eofm.spec",
    "load_encoder": "eofm.models.encoder",
    "load_weights": "eofm.models.load",
    "plan": "eofm.preprocess",
    "pretrain": "eofm.train.run",
    "read_geotiff": "eofm.data.image",
    "save_encoder": "eofm.models.encoder",
}

if TYPE_CHECKING:
    from eofm.data.image import read_geotiff
    from eofm.data.pack import Store
    from eofm.errors import EofmError, SpecMismatch
    from eofm.imagery import Imagery, Labels
    from eofm.models.encoder import Encoder, load_encoder, save_encoder
    from eofm.models.load import load_weights
    from eofm.preprocess import Preprocess, plan
    from eofm.recipe import AcceptSensor, AcceptSize, FillBand, Recipe
    from eofm.spec import ImageSpec, Normalization, Sensor, Unit
    from eofm.train.config import PretrainConfig
    from eofm.train.run import pretrain

__all__ = [
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
    "load_encoder",
    "load_weights",
    "plan",
    "pretrain",
    "read_geotiff",
    "save_encoder",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'eofm' has no attribute {name!r}")
    value: object = vars(importlib.import_module(_HOME[name]))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *_HOME])
