"""Settings of what is trained on images rather than on features. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from eofm.errors import ConfigError


@dataclass(frozen=True)
class TrainingConfig:
    """How networks are trained, by `--probe finetune` and by the protocols of papers.

    Args:
        epochs: Passes over train; 0 takes 20 for finetune, else what the protocol says.
        batch: Images of a step; 0 takes 32 for finetune, else what the protocol says.
        rate: Learning rate of finetune's head, AdamW.
        factors: Rates of finetune's network over that of its head, comma separated: the best on
            val is taken. 0 keeps the network frozen and in evaluation mode.
        weight_decay: Of finetune; norms, biases and tables of tokens never decay.
        layer_decay: Of finetune: factor on the rate from one layer to the one before it; 1 is
            none.
        warmup: Share of finetune's steps in which the rate rises.
        crop: Smallest share of the area of finetune's random crops; 1 crops nothing.
        flips: Mirror finetune's images at random, in both directions.
        faults: Repeat those faults of a paper's protocol that are part of its numbers. Such rows
            are marked and left out of tables.
    """

    epochs: int = 0
    batch: int = 0
    rate: float = 5e-3
    factors: str = "0.01,0.1,1"
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    warmup: float = 0.05
    crop: float = 0.8
    flips: bool = True
    faults: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "weight_decay"):
            self._check(name, vars(self)[name] >= 0, "0 or more")
        self._check("rate", self.rate > 0, "above 0")
        for name in ("layer_decay", "crop"):
            self._check(name, 0 < vars(self)[name] <= 1, "above 0, at most 1")
        self._check("warmup", 0 <= self.warmup < 1, "0 or more, below 1")
        self._check("factors", bool(self.tried) and min(self.tried) >= 0, "numbers, 0 or more")

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(
                "this setting of the training is out of range",
                found=vars(self)[name],
                expected=expected,
                where=f"--train.{name}",
            )

    @property
    def tried(self) -> tuple[float, ...]:
        """The entries of `factors`, each once; none if one is no number."""
        try:
            words = [word for word in self.factors.split(",") if word.strip()]
            return tuple(dict.fromkeys(float(word) for word in words))
        except ValueError:
            return ()
