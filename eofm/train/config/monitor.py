"""Settings of `eofm pretrain`: what is watched while it trains. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from eofm.errors import require

LOGGERS: Final = ("tensorboard", "wandb")


@dataclass(frozen=True)
class MonitorConfig:
    """What is watched while it trains. Nothing here changes the result.

    Args:
        every_epochs: Look at the embeddings of held-out scenes after so many epochs (and before
            the first step); 0 for never.
        every_steps: Also after so many steps; 0 for never.
        dense: Also after steps 1, 2, 4, 8, ... up to this one, to see a stability gap.
        scenes: Held-out scenes to look at, and as many labelled training scenes beside them, whose
            nearest ones vote and to which the linear probe is fitted.
        branch: Which of the two networks is looked at.
        store: A labelled store to look at instead of the held-out locations.
        before: A second labelled store, of what the start was good at: is it forgotten?
        loggers: Comma-separated, besides the files of the run: `tensorboard`, `wandb` (each needs
            the extra of its name).
        collapse_std: Stop if the spread of the embedding (1 fills the sphere, 0 is one point) stays
            below this; that of held-out scenes also at a tenth or less of what it was before the
            first step. 0 for never.
        collapse_steps: How many steps in a row, after the warm-up, count as staying.
    """

    every_epochs: int = 1
    every_steps: int = 0
    dense: int = 0
    scenes: int = 128
    branch: Literal["student", "teacher"] = "student"
    store: str | None = None
    before: str | None = None
    loggers: str = ""
    collapse_std: float = 0.02
    collapse_steps: int = 100

    def __post_init__(self) -> None:
        for name, value, low in (
            ("every_epochs", self.every_epochs, 0),
            ("every_steps", self.every_steps, 0),
            ("dense", self.dense, 0),
            ("scenes", self.scenes, 8),
            ("collapse_steps", self.collapse_steps, 1),
        ):
            require(value >= low, f"monitor.{name}", value, f"{low} or more")
        low_std, high_std = 0.0, 1.0
        require(
            low_std <= self.collapse_std < high_std,
            "monitor.collapse_std",
            self.collapse_std,
            "0 to below 1",
        )
        unknown = [word for word in self.writers if word not in LOGGERS]
        require(not unknown, "monitor.loggers", self.loggers, ", ".join(LOGGERS))

    @property
    def writers(self) -> tuple[str, ...]:
        """The loggers asked for, each once."""
        words = [word.strip() for word in self.loggers.split(",")]
        return tuple(dict.fromkeys(word for word in words if word))

    @property
    def looks(self) -> bool:
        """Whether embeddings are looked at at all."""
        return bool(self.every_epochs or self.every_steps or self.dense)
