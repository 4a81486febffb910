"""The default input of `eofm pretrain`: the embedded synthetic world, written and packed once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from eofm.train.config import DataConfig

# A class counts as present from 1 % of the map on: any single pixel would make "trees" a label of
# nearly every scene.
MIN_SHARE: Final = 0.01


def demo_path(config: DataConfig) -> Path:
    """Return where the packed store of the synthetic world lies, once it is made."""
    return Path(config.world) / (
        "stores" if config.views == "sensors" else f"store-{config.sensor}"
    )


def make_demo(config: DataConfig) -> None:
    """Write and pack the synthetic world if it is not there: one sensor, or both beside another.

    Writing and packing both resume where a killed run left off, and an existing world with other
    settings is an error.

    Raises:
        ConfigError: If the folder holds another world.
        StoreError: If the store cannot be written or read.
    """
    from eofm.datasets.ssl4eo import PackSsl4eoConfig
    from eofm.datasets.ssl4eo.pack import pack_ssl4eo
    from eofm.world.config import WorldConfig
    from eofm.world.files import write_world

    root = Path(config.world)
    scenes = root / "scenes"
    print(f"synthetic world in {root}: made once, used again", file=sys.stderr)  # noqa: T201
    write_world(
        WorldConfig(out=str(scenes), scenes=config.scenes, seed=config.seed, size=config.size)
    )
    both = config.views == "sensors"
    pack_ssl4eo(
        PackSsl4eoConfig(
            root=str(scenes),
            sensor=None if both else config.sensor,
            sensors="s2-l1c,s1-grd" if both else None,
            landcover=str(scenes / "dw"),
            scheme="dynamic-world",
            threshold=MIN_SHARE,
            out=str(demo_path(config)),
        )
    )
