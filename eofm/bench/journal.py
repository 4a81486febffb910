"""What a training has tried, on disk: a killed run goes on with the next rate.

Shapes: M heads, N images, K classes.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from eofm.errors import DataError, TrainingError
from eofm.io import replacing

# In the file of the best state, where not the state but what it said of val is kept.
SAID: Final = "said of val"


@dataclass(frozen=True)
class Fit:
    """What one run has reached.

    Args:
        scores: Of each head on val, by the number that decides; NaN where it diverged.
        epoch: At whose end.
    """

    scores: tuple[float, ...]
    epoch: int

    @property
    def ranked(self) -> list[float]:
        """The scores, a diverged head below all others."""
        return [-1.0 if math.isnan(score) else score for score in self.scores]

    @property
    def best(self) -> float:
        """The best of them; -1 if all heads have diverged."""
        return max(self.ranked)


@dataclass(frozen=True)
class Choice:
    """The best of all that was tried.

    Args:
        factor: Rate of the networks over that of the head.
        head: Which head of that fit.
        epoch: At whose end.
    """

    factor: float
    head: int
    epoch: int


class Journal:
    """What has been tried, on disk: scores of every fit, and state and words of the best one.

    Args:
        folder: Its own; made if needed.

    Raises:
        DataError: If the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tried: dict[float, Fit] = {}
        file = folder / "tried.json"
        try:
            for factor, fit in json.loads(file.read_text("utf-8")) if file.is_file() else []:
                self.tried[factor] = Fit(tuple(fit["scores"]), fit["epoch"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _broken(file, error) from error

    def add(self, factor: float, fit: Fit, state: dict[str, Tensor]) -> None:
        """Write a fit down, and its state if it is the best: the state first.

        A kill between the two repeats the fit, with the same result.
        """
        best = max((known.best for known in self.tried.values()), default=-1.0)
        self.tried[factor] = fit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if fit.best > best:
                with replacing(self.folder / "best.pt") as temporary:
                    torch.save(state, temporary)
            text = json.dumps([[f, asdict(known)] for f, known in self.tried.items()])
            with replacing(self.folder / "tried.json") as temporary:
                temporary.write_text(text, "utf-8")
        except (OSError, RuntimeError) as error:  # torch's writer has no error of its own
            raise DataError(
                "what was trained cannot be kept",
                found=error,
                where=self.folder,
                remedy="make room, and run the same command again",
            ) from error

    def best(self) -> Choice:
        """Return the best head of all fits; of equals the first.

        Raises:
            TrainingError: If all have diverged.
        """
        ranked = [
            (score, Choice(factor, head, fit.epoch))
            for factor, fit in self.tried.items()
            for head, score in enumerate(fit.ranked)
        ]
        score, choice = max(ranked, key=lambda one: one[0])
        if score < 0:
            raise TrainingError(
                "the loss was finite at no rate",
                found=f"factors {', '.join(f'{factor:g}' for factor in self.tried)}",
                where=self.folder,
                remedy="try smaller --train.factors, or a smaller --train.rate",
            )
        return choice

    def state(self) -> dict[str, Tensor]:
        """Return the state of the best fit."""
        return _read(self.folder / "best.pt")

    def said(self) -> Tensor:
        """Return what the heads of the best fit say of val, (M, N, K)."""
        return _read(self.folder / "best.pt")[SAID]

    def forget(self) -> None:
        """Remove what has served its purpose."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise _broken(path, error) from error
    return content


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        "the journal of a training cannot be read",
        found=error,
        where=path,
        remedy="remove its folder, and run the same command again: it starts anew",
    )
