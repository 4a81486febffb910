"""Settings of the verbs of `eofm bench` that read records or plans. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from eofm.bench.config import check_force, check_seed
from eofm.errors import ConfigError
from eofm.settings import checked_settings


def _check_resampling(resamples: int, seed: int) -> None:
    if resamples < 1:
        raise ConfigError("bootstrap must be positive", found=resamples, where="--bootstrap")
    check_seed(seed)


@dataclass(frozen=True)
@checked_settings
class TableConfig:
    """Print the records of a file as tables.

    Args:
        results: File of records, as `--out` of a benchmark run names it.
        task: The only task that is looked at: a family (bigearthnet) or a full name
            (bigearthnet-v1-s1-43).
        probe: The only probe that is looked at: knn, linear, ...
        nonstandard: Show also rows of which the input was forced or changed on purpose, marked.
        slice: Score the test samples of each season, year or country by themselves, from the
            predictions beside the records. Days are those of the products that names hold.
        classes: Score class by class, beside how often train holds each class: the rank correlation
            of the two stands below, and by how much a score rises with ten times as many.
    """

    results: str = field(metadata={"positional": True})
    task: str = ""
    probe: str = ""
    nonstandard: bool = False
    slice: Literal["season", "year", "country"] | None = None
    classes: bool = False

    def __post_init__(self) -> None:
        if self.classes and self.slice is not None:
            raise ConfigError(
                "a table is of classes or of slices, not of both",
                found=f"--classes and --slice {self.slice}",
                remedy="leave one of them out",
            )


@dataclass(frozen=True)
@checked_settings
class RecordsExportConfig:
    """Write the records of a file as Markdown, CSV and one HTML page with figures.

    Args:
        results: File of records.
        out: Folder; made if needed. Empty: the name of the file without its ending.
        task: The only task that is looked at: a family (bigearthnet) or a full name
            (bigearthnet-v1-s1-43).
        probe: The only probe that is looked at: knn, linear, ...
        nonstandard: Show also rows of which the input was forced or changed on purpose, marked.
        bootstrap: Number of resamples behind the intervals of the classes.
        seed: Seed of the resampling.
    """

    results: str = field(metadata={"positional": True})
    out: str = ""
    task: str = ""
    probe: str = ""
    nonstandard: bool = False
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_resampling(self.bootstrap, self.seed)


@dataclass(frozen=True)
@checked_settings
class CompareConfig:
    """Compare two models on the same test samples, by paired bootstrap.

    Args:
        one: Name of a model in the records.
        other: Name of the model it is compared with.
        results: File of records.
        task: The only task that is looked at: a family (bigearthnet) or a full name
            (bigearthnet-v1-s1-43).
        probe: The only probe that is looked at: knn, linear, ...
        bootstrap: Number of resamples.
        seed: Seed of the resampling.
    """

    one: str = field(metadata={"positional": True})
    other: str = field(metadata={"positional": True})
    results: str = "runs/bench/results.jsonl"
    task: str = ""
    probe: str = ""
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_resampling(self.bootstrap, self.seed)
        if self.one == self.other:
            raise ConfigError("a model is compared with another one", found=self.one)


@dataclass(frozen=True)
@checked_settings
class AggregateConfig:
    """Aggregate scores over tasks: interquartile mean of normalised scores, with intervals.

    Args:
        results: Files of records, comma separated, of two tasks or more.
        tasks: The only tasks that take part, comma separated: families or full names.
        probe: Which probe: knn, linear, ...
        low: What becomes 0 on each task: the name of a model in the records, or the number 0.
        high: What becomes 1: a name, or the number 1.
        bootstrap: Number of resamples.
        seed: Seed of the resampling.
    """

    results: str = field(metadata={"positional": True})
    tasks: str = ""
    probe: str = "knn"
    low: str = "imagestats"
    high: str = "1"
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_resampling(self.bootstrap, self.seed)


@dataclass(frozen=True)
@checked_settings
class ValidateConfig:
    """Check records against their predictions and declarations; status 1 if one fails.

    Args:
        results: File of records; predictions lie in a folder beside it.
        task: The only task whose records are checked: a family or a full name.
    """

    results: str = field(metadata={"positional": True})
    task: str = ""


@dataclass(frozen=True)
@checked_settings
class PlanConfig:
    """Show the steps from a task's images to a model's input, or why there are none.

    Args:
        task: Name of a task: a family (bigearthnet: what `eofm bench bigearthnet` runs) or a full
            name (bigearthnet-v1-s1-43).
        model: One encoder, as in `eofm bench eurosat --model`.
        recipe: YAML file that says what a timm: network expects.
        force: Mismatches to accept, comma separated: sensor, missing-band.
    """

    task: str = field(metadata={"positional": True})
    model: str = field(metadata={"positional": True})
    recipe: str | None = None
    force: str = ""

    def __post_init__(self) -> None:
        check_force(self.force)
