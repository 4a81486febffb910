"""Settings of the verbs `eofm models ...`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ListConfig:
    """Published weights that are known by name.

    Args:
        sensor: Only those for this sensor and product level.
        json: Print JSON instead of a table.
    """

    sensor: Literal["s1-grd", "s1-rtc", "s2-l1c", "s2-l2a", "rgb", "naip"] | None = None
    json: bool = field(default=False, metadata={"flag": True})


@dataclass(frozen=True)
class InfoConfig:
    """Everything on the card of published weights.

    Args:
        name: As `eofm models list` prints it; name@alternative for another recipe.
    """

    name: str = field(metadata={"positional": True})


@dataclass(frozen=True)
class DownloadConfig:
    """Fetch published weights, to be used here or carried to a machine without network.

    Args:
        name: As `eofm models list` prints it.
        to: Folder to put the file into. Without it: EOFM_WEIGHTS, or the folder of torch.hub.
    """

    name: str = field(metadata={"positional": True})
    to: str | None = None


@dataclass(frozen=True)
class VerifyWeightsConfig:
    """Compare files with their published or recorded hashes.

    Args:
        folder: An export (weights.safetensors, card.json), or a folder of downloads.
    """

    folder: str = field(metadata={"positional": True})
