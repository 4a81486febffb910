"""The default input of `eofm pretrain`: the embedded synthetic world, written and packed once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from eofm.data.pack import Store
from eofm.train.config import DataConfig

# A class counts as present from 1 % of the map on: any single pixel would make "trees" a label of
# nearly every scene.
MIN_SHARE: Final = 0.01


def demo_store(config: DataConfig) -> Store:
    """Return the packed store of the synthetic world, made if it is not there.

    Writing and packing both resume where a killed run left off, and an existing world with other
    settings is an error.

    Raises:
        ConfigError: If the folder holds another world.
        StoreError: If the store cannot be written or read.
    """
    from eofm.data.config import PackSsl4eoConfig
    from eofm.data.ssl4eo_pack import pack_ssl4eo
    from eofm.data.world import write_world
    from eofm.data.world_config import WorldConfig

    root = Path(config.world)
    scenes = root / "scenes"
    print(f"synthetic world in {root}: made once, used again", file=sys.stderr)  # noqa: T201
    write_world(
        WorldConfig(out=str(scenes), scenes=config.scenes, seed=config.seed, size=config.size)
    )
    store = root / f"store-{config.sensor}"
    pack_ssl4eo(
        PackSsl4eoConfig(
            root=str(scenes),
            sensor=config.sensor,
            landcover=str(scenes / "dw"),
            scheme="dynamic-world",
            threshold=MIN_SHARE,
            out=str(store),
        )
    )
    return Store(store)
