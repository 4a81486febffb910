"""What the demo has instead of the defaults for training. Standard library and YAML only.

`eofm pretrain` without data of one's own trains a small network on the embedded synthetic world, in
minutes on two CPU cores. Heads of 4096 would cost more than that network; λ and the mask were
chosen by the linear probe on held-out synthetic scenes. `configs/pretrain/default.yaml` is that
demo in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Final

from eofm.method.config import SoftConConfig, SoftUnit

DEMO_METHOD: Final = SoftConConfig(
    soft_weight=10.0, soft_unit=SoftUnit.PLAIN, mask_ratio=0.5, hidden=512, dim=128
)


def demo_defaults(words: Sequence[str]) -> Mapping[str, object]:
    """Return by option what the demo has instead of the defaults; nothing where a store is named.

    Args:
        words: Words of the command line after the verb.
    """
    if any(word.startswith(("--data.store", "--data=")) or word == "--data" for word in words):
        return {}
    if any(_names_a_store(Path(file)) for file in _files(words)):
        return {}
    usual = asdict(SoftConConfig())
    return {
        f"method.{key}": value.value if isinstance(value, StrEnum) else value
        for key, value in asdict(DEMO_METHOD).items()
        if value != usual[key]
    }


def _files(words: Sequence[str]) -> list[str]:
    files = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    return files + [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--config"]


def _names_a_store(file: Path) -> bool:
    """Whether a settings file says what to train on; the parser tells what is wrong with it."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    data = content.get("data") if isinstance(content, dict) else None
    return isinstance(data, dict) and data.get("store") is not None
