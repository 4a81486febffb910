"""Settings of `eofm bench`. Standard library only."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import Final, Literal

from eofm.errors import ConfigError

PROBES: Final = ("knn", "linear")


@dataclass(frozen=True)
class BenchEurosatConfig:
    """Score encoders and controls on EuroSAT MS.

    Args:
        root: Folder of EuroSAT MS as published (class folders, or the archive's folder above
            them), or with train/<class> and test/<class>.
        model: What to score, comma separated: folders written by an export, `imagestats` (band
            statistics), `random` (untrained, of the first encoder's architecture and recipe) or
            random:FOLDER. NAME=FOLDER chooses the name in the table.
        probe: Which probes, comma separated: knn, linear.
        split: How tiles are divided: `spatial` (by longitude) or `stratified` (by hash) for the
            published layout, `given` for train and test folders. `auto`: spatial or given.
        controls: Add imagestats and random to the models, if they are not among them.
        out: Results are appended to this file, one JSON record per line.
        cache: Folder of computed features; empty computes them anew.
        k: Number of neighbours of the kNN probe.
        bootstrap: Resamples of the test tiles behind an interval.
        seed: Of the random encoder and of the resampling.
        limit: At most so many tiles of each split, chosen by hash. The result says so.
        batch: Tiles embedded at once.
        device: Where networks run; `auto` takes a GPU if there is one.
    """

    root: str
    model: str = "imagestats"
    probe: str = "knn,linear"
    split: Literal["auto", "spatial", "stratified", "given"] = "auto"
    controls: bool = True
    out: str = "runs/bench/eurosat.jsonl"
    cache: str = "runs/bench/features"
    k: int = 5
    bootstrap: int = 1000
    seed: int = 0
    limit: int | None = None
    batch: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("bootstrap", self.bootstrap), ("batch", self.batch)):
            if value < 1:
                raise ConfigError(f"{name} must be positive", found=value, where=f"--{name}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError("limit must be positive", found=self.limit, where="--limit")
        unknown = [name for name in self.probes if name not in PROBES]
        if unknown or not self.probes:
            raise ConfigError(
                "there is no such probe",
                found=self.probe or "nothing",
                expected=", ".join(PROBES),
                where="--probe",
            )
        if not self.models:
            raise ConfigError("there is nothing to score", where="--model")

    @property
    def models(self) -> tuple[str, ...]:
        """The entries of `model`, each once."""
        return _listed(self.model)

    @property
    def probes(self) -> tuple[str, ...]:
        """The entries of `probe`, each once."""
        return _listed(self.probe)

    def command(self) -> str:
        """Return the command line that does the same."""
        words = ["eofm", "bench", "eurosat"]
        for field in fields(self):
            value = vars(self)[field.name]
            if value != field.default:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                words += [f"--{field.name}", text]
        return shlex.join(words)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
