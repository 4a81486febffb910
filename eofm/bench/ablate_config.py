"""Settings of `eofm bench ablate TASK`, one per task. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from eofm.bench.config import (
    BenchBigEarthNetConfig,
    BenchConfig,
    BenchEurosatConfig,
    BenchFolderConfig,
    BenchResisc45Config,
    BenchSat6Config,
    BenchSo2SatConfig,
    BenchTreeSatAIConfig,
    BenchUCMercedConfig,
    listed,
    pixel_sizes,
)
from eofm.errors import ConfigError

AUTO: Final = "auto"
NORMALIZATIONS: Final = ("own", "zscore", "two-sigma", "minmax", "divide10000", "divide255")
OUT: Final = "runs/bench/ablation.jsonl"
FIGURE: Final = "runs/bench/ablation.png"


@dataclass(frozen=True)
class AblateSettings(BenchConfig):
    """Which sizes and normalisations encoders are fed instead of their own.

    Args:
        size: Sizes in pixels, comma separated, or a range A..B:STEP; rounded to whole patches.
            `own` is the recipe's.
        normalization: Comma separated: own; zscore, two-sigma or minmax by statistics of the
            training split; divide10000 for Sentinel-2, divide255 for 8-bit images. `auto`: all
            that suit the images.
        figure: PNG of the curves; empty draws none.
    """

    size: str = "32,64,128,own"
    normalization: str = AUTO
    probe: str = "knn"
    controls: bool = False
    out: str = OUT
    figure: str = FIGURE

    def __post_init__(self) -> None:
        super().__post_init__()
        pixel_sizes(self.size)
        unknown = [w for w in listed(self.normalization) if w not in (AUTO, *NORMALIZATIONS)]
        if unknown or not listed(self.normalization):
            raise ConfigError(
                "there is no such normalisation",
                found=", ".join(unknown) or "nothing",
                expected=", ".join((AUTO, *NORMALIZATIONS)),
                where="--normalization",
            )

    @property
    def normalizations(self) -> tuple[str, ...]:
        """The entries of `normalization`, each once."""
        return listed(self.normalization)


# Defaults of the task's own settings come last in the order in which dataclasses collect fields,
# so `out` and `probe` are those above.


@dataclass(frozen=True)
class AblateConfig(AblateSettings, BenchEurosatConfig):
    """Score encoders on EuroSAT with other sizes and normalisations than they were trained with."""

    verb: ClassVar[str] = "ablate"


@dataclass(frozen=True)
class AblateEurosatConfig(AblateConfig):
    """Score encoders on EuroSAT with other sizes and normalisations than they were trained with."""

    verb: ClassVar[str] = "ablate eurosat"


@dataclass(frozen=True)
class AblateBigEarthNetConfig(AblateSettings, BenchBigEarthNetConfig):
    """Score encoders on BigEarthNet with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate bigearthnet"


@dataclass(frozen=True)
class AblateFolderConfig(AblateSettings, BenchFolderConfig):
    """Score encoders on your own images with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate folder"


@dataclass(frozen=True)
class AblateSo2SatConfig(AblateSettings, BenchSo2SatConfig):
    """Score encoders on So2Sat with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate so2sat"


@dataclass(frozen=True)
class AblateTreeSatAIConfig(AblateSettings, BenchTreeSatAIConfig):
    """Score encoders on TreeSatAI with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate treesatai"


@dataclass(frozen=True)
class AblateSat6Config(AblateSettings, BenchSat6Config):
    """Score encoders on SAT-6 with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate sat6"


@dataclass(frozen=True)
class AblateUCMercedConfig(AblateSettings, BenchUCMercedConfig):
    """Score encoders on UC Merced with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate ucmerced"


@dataclass(frozen=True)
class AblateResisc45Config(AblateSettings, BenchResisc45Config):
    """Score encoders on RESISC45 with other sizes and normalisations than their own."""

    verb: ClassVar[str] = "ablate resisc45"
