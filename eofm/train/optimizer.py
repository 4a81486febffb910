"""Parameter groups: how fast each parameter learns, and which ones decay.

Pure functions of names and depths, so that a resumed run continues as it began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from eofm.networks.trunk import Trunk
from eofm.train.config import PretrainConfig

# Parameters whose size has a meaning of its own; pulling them to zero is no regularisation.
_TABLES = ("cls_token", "pos_embed", "reg_token", "register_tokens", "gamma")


@dataclass(frozen=True)
class ParameterRate:
    """The learning rate of a parameter.

    Args:
        factor: On the learning rate.
        frozen: At rate 0 in the first epochs (`optim.freeze_epochs`), and not by
            `requires_grad`. The gradient must cross it to reach the input layer anyway, and DDP
            fixes what it reduces before the first step.
    """

    factor: float = 1.0
    frozen: bool = False


def parameter_rates(
    trunk: Trunk,
    layer_decay: float,
    *,
    freeze: bool,
    new_input: bool,
    input_rate: float | None = None,
) -> dict[str, ParameterRate]:
    """Return the learning rate of each parameter of a trunk, by name.

    A parameter of layer i of d blocks gets layer_decay^(d + 1 - i): the earlier, the slower
    (arXiv 2106.08254). That would starve an input layer that was drawn at random, of all layers the
    one with most to learn: its factor is 1. Filters copied from RGB weights follow the decay: they
    carry the start, and at the full rate the features of a pretrained transformer collapsed within
    ten steps (effective rank 94 to 25). The input layer is never frozen.

    Args:
        trunk: Says which layer a parameter is of.
        layer_decay: Factor from one layer to the one before it; 1 for none.
        freeze: All but the input layer are frozen first.
        new_input: The input layer was drawn at random.
        input_rate: Factor for the input layer that replaces both rules.
    """
    own = f"{trunk.input_layer}."
    made = {}
    for name, _ in trunk.named_parameters():
        is_input = name.startswith(own)
        # not every network of timm says how deep its layers lie
        depth = 0 if layer_decay == 1 else trunk.depth + 1 - trunk.layer_of(name)
        factor = layer_decay**depth
        if is_input and input_rate is not None:
            factor = input_rate
        elif is_input and new_input:
            factor = 1.0
        made[name] = ParameterRate(factor, freeze and not is_input)
    return made


_AS_USUAL: Final = ParameterRate()


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    peak: float = 1.0,
    rates: Mapping[str, ParameterRate] | None = None,
    *,
    tables_decay: bool = False,
) -> list[dict[str, Any]]:
    """Put parameters that decay alike and learn at one rate into one group each.

    Biases, norms, LayerScale, CLS, register and position parameters and scalars do not decay.
    DINOv2 (arXiv 2304.07193) exempts only the vectors: there CLS and position tables decay.

    Args:
        named: Names and parameters; those without gradient are left out.
        weight_decay: Of those that decay.
        peak: Learning rate at factor 1.
        rates: By name; factor 1 where none is given.
        tables_decay: CLS, register and position parameters decay as well, as in DINOv2.

    Returns:
        Groups for an optimiser, each with its `lr` and whether it is `frozen` first; factor 1 comes
        first.
    """
    made: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        own = _AS_USUAL if rates is None else rates.get(name, _AS_USUAL)
        table = not tables_decay and any(part in _TABLES for part in name.split("."))
        exempt = parameter.ndim <= 1 or table
        made.setdefault((own.frozen, -own.factor, exempt), []).append(parameter)
    return [
        {
            "params": made[frozen, slowness, exempt],
            "weight_decay": 0.0 if exempt else weight_decay,
            "lr": -slowness * peak,
            "frozen": frozen,
        }
        for frozen, slowness, exempt in sorted(made)
    ]


def make_optimizer(groups: list[dict[str, Any]], config: PretrainConfig) -> Optimizer:
    """Return the optimizer of a run.

    Args:
        groups: Parameters with their settings.
        config: All settings.
    """
    # a fused step undoes the scaling of a float16 loss itself, too late for gradient clipping
    fused = config.trainer.precision != "16-mixed"
    if config.optim.optimizer == "sgd":
        whole = config.trainer.strategy != "fsdp"  # torch has no fused SGD for shards
        return SGD(groups, momentum=0.9, fused=fused and whole)
    return AdamW(groups, betas=(0.9, 0.999), fused=fused)
