"""Settings of the verbs `eofm models ...`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from eofm.errors import require
from eofm.settings import checked_settings

__all__ = [
    "FORMATS",
    "DownloadConfig",
    "ExportConfig",
    "InfoConfig",
    "ListConfig",
    "MergeModelsConfig",
    "VerifyWeightsConfig",
]


@dataclass(frozen=True)
@checked_settings
class ListConfig:
    """List published weights.

    Args:
        sensor: Only those for this sensor and product level.
        json: Print JSON instead of a table.
    """

    sensor: Literal["s1-grd", "s1-rtc", "s2-l1c", "s2-l2a", "rgb", "naip"] | None = None
    json: bool = field(default=False, metadata={"flag": True})


@dataclass(frozen=True)
@checked_settings
class InfoConfig:
    """Print the card of published weights.

    Args:
        name: As `eofm models list` prints it; name@alternative for another recipe.
    """

    name: str = field(metadata={"positional": True})


@dataclass(frozen=True)
@checked_settings
class DownloadConfig:
    """Download published weights, for use here or on a machine without network.

    Args:
        name: As `eofm models list` prints it.
        to: Output folder. Default: EOFM_WEIGHTS, or the folder of torch.hub.
    """

    name: str = field(metadata={"positional": True})
    to: str | None = None


@dataclass(frozen=True)
@checked_settings
class VerifyWeightsConfig:
    """Compare files with their published or recorded hashes.

    Args:
        folder: An export (weights.safetensors, card.json), or a folder of downloads.
    """

    folder: str = field(metadata={"positional": True})


@dataclass(frozen=True)
@checked_settings
class MergeModelsConfig:
    """Merge two encoders by linear interpolation of their weights.

    Args:
        first: An export, a run, a checkpoint, or a name of `eofm models list`.
        second: The same, of the architecture and recipe of the first, such as the start and the
            student of a run.
        out: Folder to write weights.safetensors, card.json, preprocess.json and README.md into.
        alpha: Share of the second in every weight: 0 is the first, 1 the second.
    """

    first: str = field(metadata={"positional": True})
    second: str = field(metadata={"positional": True})
    out: str
    alpha: float = 0.5

    def __post_init__(self) -> None:
        low, high = 0.0, 1.0
        require(low <= self.alpha <= high, "alpha", self.alpha, "0 to 1")


FORMATS: Final = ("safetensors", "pt2", "onnx")


@dataclass(frozen=True)
@checked_settings
class ExportConfig:
    """Export an encoder to a folder that `eofm.load_encoder` reads.

    Args:
        source: Checkpoint of a run, such as runs/mine/checkpoints/last.ckpt; the folder of an
            export; or the name of published weights (`eofm models list`).
        to: Folder to write weights.safetensors, card.json, preprocess.json and README.md into.
        branch: For a checkpoint, which of the two networks; default: the student. After a short
            run the student is ahead (measured on the demo); after a long one the teacher, a moving
            average, may be: both can be exported.
        sensor: For the checkpoint of a run on two sensors, the sensor of the input layer; default:
            the optical one.
        formats: Comma-separated. `safetensors` is always written; `pt2` (torch.export) and `onnx`
            (needs the extra `onnx`) add programs that run without eofm, compared with the network.
        takes: Input of the programs: `normalised` pixels, or `physical` ones in the recipe's
            unit, at its size, with the normalisation inside the program.
        licence: Licence of the weights, an SPDX identifier, instead of the one on their card.
    """

    source: str = field(metadata={"positional": True})
    to: str
    branch: Literal["student", "teacher"] | None = None
    sensor: str | None = None
    formats: str = "safetensors"
    takes: Literal["normalised", "physical"] = "normalised"
    licence: str | None = None

    def __post_init__(self) -> None:
        unknown = [word for word in self.formats.split(",") if word.strip() not in FORMATS]
        require(not unknown, "formats", self.formats, ", ".join(FORMATS))
        require(
            self.branch is None or self.source.endswith(".ckpt"),
            "branch",
            self.branch,
            "nothing: only the checkpoint of a run has two networks",
        )
        require(
            self.sensor is None or self.source.endswith(".ckpt"),
            "sensor",
            self.sensor,
            "nothing: only the checkpoint of a run has two input layers",
        )

    @property
    def programs(self) -> tuple[str, ...]:
        """The formats that are programs, without duplicates."""
        words = [word.strip() for word in self.formats.split(",")]
        return tuple(dict.fromkeys(word for word in words if word != "safetensors"))
