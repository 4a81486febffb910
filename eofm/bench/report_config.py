"""Settings of `eofm bench table|plot|compare|export|ablate`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from eofm.bench.config import BenchEurosatConfig, listed
from eofm.errors import ConfigError


@dataclass(frozen=True)
class TableConfig:
    """Print the records of a file as tables.

    Args:
        results: File of records, as `--out` of a benchmark run names it.
        task: Only this task.
        probe: Only this probe: knn, linear, ...
        nonstandard: Also rows of which the input was forced or ablated.
    """

    results: str = field(metadata={"positional": True})
    task: str = ""
    probe: str = ""
    nonstandard: bool = False


@dataclass(frozen=True)
class ExportConfig:
    """Write the records of a file as Markdown, CSV and one HTML page with figures.

    Args:
        results: File of records.
        out: Folder; made if needed. Empty: the name of the file without its ending.
        task: Only this task.
        probe: Only this probe: knn, linear, ...
        nonstandard: Also rows of which the input was forced or ablated.
        bootstrap: Resamples behind the intervals of the classes.
        seed: Of the resampling.
    """

    results: str = field(metadata={"positional": True})
    out: str = ""
    task: str = ""
    probe: str = ""
    nonstandard: bool = False
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bootstrap < 1:
            raise ConfigError(
                "bootstrap must be positive", found=self.bootstrap, where="--bootstrap"
            )


@dataclass(frozen=True)
class CompareConfig:
    """Compare two models on the same test samples, by paired bootstrap.

    Args:
        one: Name of a model in the records.
        other: Name of the model it is compared with.
        results: File of records.
        task: Only this task.
        probe: Only this probe: knn, linear, ...
        bootstrap: Resamples.
        seed: Of the resampling.
    """

    one: str = field(metadata={"positional": True})
    other: str = field(metadata={"positional": True})
    results: str = "runs/bench/results.jsonl"
    task: str = ""
    probe: str = ""
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bootstrap < 1:
            raise ConfigError(
                "bootstrap must be positive", found=self.bootstrap, where="--bootstrap"
            )
        if self.one == self.other:
            raise ConfigError("a model is compared with another one", found=self.one)


NORMALIZATIONS: Final = ("own", "zscore", "two-sigma", "divide10000")


@dataclass(frozen=True)
class AblateConfig(BenchEurosatConfig):
    """Score encoders on EuroSAT with other sizes and normalisations than they were trained with.

    Args:
        size: Sizes in pixels, comma separated; rounded to whole patches. `own` is the recipe's.
        normalization: Comma separated: own, zscore or two-sigma by statistics of the training
            split, divide10000.
        figure: PNG of the curves; empty draws none.
    """

    verb: ClassVar[str] = "ablate"

    size: str = "32,64,128,own"
    normalization: str = ",".join(NORMALIZATIONS)
    probe: str = "knn"
    controls: bool = False
    out: str = "runs/bench/ablation.jsonl"
    figure: str = "runs/bench/ablation.png"

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [word for word in self.normalizations if word not in NORMALIZATIONS]
        if unknown or not self.normalizations:
            raise ConfigError(
                "there is no such normalisation",
                found=", ".join(unknown) or "nothing",
                expected=", ".join(NORMALIZATIONS),
                where="--normalization",
            )
        wrong = [w for w in self.sizes if w != "own" and not (w.isdecimal() and int(w) > 0)]
        if wrong or not self.sizes:
            raise ConfigError(
                "a size is a number of pixels, or `own`",
                found=", ".join(wrong) or "nothing",
                where="--size",
            )

    @property
    def sizes(self) -> tuple[str, ...]:
        """The entries of `size`, each once."""
        return listed(self.size)

    @property
    def normalizations(self) -> tuple[str, ...]:
        """The entries of `normalization`, each once."""
        return listed(self.normalization)
