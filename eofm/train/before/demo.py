"""The demo: what `eofm pretrain` trains without data of one's own, and its own defaults.

A small network on the embedded synthetic world, written and packed once, trains in minutes on two
CPU cores. Heads of 4096 would cost more than that network. λ and size were chosen on the world of
seed 1, epochs by the time they take. `configs/pretrain/default.yaml` is that demo in full, with its
scores.

Imported by the command line: standard library and YAML only, until the world is made.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Final

from eofm.errors import DataError
from eofm.formats.text import read_yaml, settings_files
from eofm.method.config import SoftConConfig
from eofm.train.config import DataConfig, ModelConfig, OptimConfig, PretrainConfig

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


# Of so few labelled places the soft term has more to say than the hard one: λ 4 in units of equal
# gradients. 16 patches instead of 64 give twice as many steps in the same time.
DEMO: Final = PretrainConfig(
    model=ModelConfig(size=56),
    method=SoftConConfig(soft_weight=4.0, mask_ratio=0.5, hidden=512, dim=128),
    optim=OptimConfig(epochs=18),
)


def demo_defaults(words: Sequence[str]) -> Mapping[str, object]:
    """Return by option what the demo has instead of the defaults; nothing where a store is named.

    Args:
        words: Words of the command line after the verb.
    """
    if any(word.startswith(("--data.store", "--data=")) or word == "--data" for word in words):
        return {}
    if any(_names_a_store(Path(file)) for file in settings_files(words)):
        return {}
    usual, demo = asdict(PretrainConfig()), asdict(DEMO)
    return {
        f"{group}.{key}": value.value if isinstance(value, StrEnum) else value
        for group, values in demo.items()
        for key, value in values.items()
        if value != usual[group][key]
    }


def _names_a_store(file: Path) -> bool:
    """Whether a settings file says what to train on; the parser tells what is wrong with it."""
    try:
        content = read_yaml(file)
    except DataError:
        return False
    data = content.get("data") if isinstance(content, dict) else None
    return isinstance(data, dict) and data.get("store") is not None
