"""Which number format and which attention are faster on this CPU: measured before the first step.

Fused attention is made for long sequences; at the 16 to 256 tokens of a training view a CPU may be
faster with two plain matrix products. bfloat16 may be twice as fast as float32, or far slower. What
a CPU does cannot be read off its name, so one block of the network is run both ways.

The choice goes into the settings of the run, so that a run that is resumed, or repeated from its
config.yaml, rounds as it began.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from eofm.networks.vit import Architecture, block_of, find_architecture
from eofm.train.config import PretrainConfig

# Narrower networks are not measured: they train in minutes either way, and give the same numbers on
# every machine.
SMALLEST_WIDTH: Final = 384
# bfloat16 rounds: it must be worth it.
WORTH: Final = 1.1
_TOKENS: Final = 1024  # in a pass, at most: under a second for a ViT-B on one core
_REPEATS: Final = 2


@dataclass(frozen=True)
class CpuSpeed:
    """Seconds of a forward and backward pass of one block, by (precision, attention)."""

    seconds: dict[tuple[str, str], float]

    def fastest(self, attention: str) -> tuple[str, str]:
        """Return the fastest pair.

        Args:
            attention: As in `trainer.attention`: `auto` leaves it open.
        """
        open_to = {
            key: took * (WORTH if key[0] == "bf16-mixed" else 1)
            for key, took in self.seconds.items()
            if attention in ("auto", key[1])
        }
        return min(open_to, key=open_to.__getitem__)

    def describe(self, chosen: tuple[str, str]) -> str:
        """Return what was measured and what is taken, in one line."""
        others = ", ".join(
            f"{' '.join(key)} {1e3 * took:.0f} ms" for key, took in sorted(self.seconds.items())
        )
        return f"on this CPU {chosen[0]} with {chosen[1]} attention: a block takes {others}"


def settle(config: PretrainConfig, *, bf16: bool) -> tuple[PretrainConfig, str]:
    """Return the settings with precision and attention chosen, and a line that says so.

    A precision that is stated is obeyed, and nothing is measured: such a run gives the same numbers
    on every start.

    Args:
        config: All settings, of a run on a CPU that begins.
        bf16: Whether this CPU has bfloat16 arithmetic.

    Returns:
        The settings as they are, and no line, where the precision is stated or the network is small
        or no ViT of ours.
    """
    trainer = config.trainer
    architecture = find_architecture(config.model.architecture)
    if architecture is None or architecture.width < SMALLEST_WIDTH:
        return config, ""
    if trainer.precision != "auto":
        return config, ""
    precisions = ("32-true", "bf16-mixed") if bf16 else ("32-true",)
    speed = measure(architecture, config.model.size, config.optim.batch, precisions)
    precision, attention = speed.fastest(trainer.attention)
    made = replace(trainer, precision=precision, attention=attention)  # type: ignore[arg-type]
    return replace(config, trainer=made), speed.describe((precision, attention))


def measure(
    architecture: Architecture, size: int, batch: int, precisions: tuple[str, ...]
) -> CpuSpeed:
    """Run one block both ways in each precision, on as many tokens as an image has.

    Args:
        architecture: Of the network.
        size: Of an image, in pixels.
        batch: Images of a step; fewer are enough where they have many tokens.
        precisions: To try.
    """
    tokens = (size // architecture.patch) ** 2 + 1 + architecture.registers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = block_of(architecture).train()
        images = torch.randn(max(1, min(batch, _TOKENS // tokens)), tokens, architecture.width)
    seconds = {}
    for attention in ("fused", "plain"):
        use_attention(block, attention)
        for precision in precisions:
            once = [_pass(block, images, precision) for _ in range(_REPEATS + 1)]
            seconds[precision, attention] = min(once[1:])
    return CpuSpeed(seconds)


def _pass(block: nn.Module, images: torch.Tensor, precision: str) -> float:
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        out = block(images)
    out.float().sum().backward()
    block.zero_grad()
    return time.perf_counter() - began


def use_attention(network: nn.Module, attention: str) -> None:
    """Let all blocks of timm compute attention in one kernel, or in two products and a softmax.

    Args:
        network: Is changed; both forms agree up to rounding.
        attention: `fused` or `plain`; `auto` leaves it to timm.
    """
    if attention == "auto":
        return
    for part in network.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = attention == "fused"  # type: ignore[assignment]  # a flag of timm
