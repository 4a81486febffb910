"""How fast each parameter learns, and which parameters decay.

Pure functions of names and depths, so that a resumed run continues where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from eofm.networks.trunk import Trunk

# Parameters whose size has a meaning of its own; pulling them to zero is no regularisation.
_TABLES = ("cls_token", "pos_embed", "reg_token", "register_tokens", "gamma")


@dataclass(frozen=True)
class ParameterPace:
    """How fast a parameter learns.

    Args:
        factor: On the learning rate.
        waits: Stands still in the first epochs (`optim.freeze_epochs`): at rate 0, and not by
            `requires_grad`. The gradient must cross it to reach the input layer anyway, and DDP
            fixes what it reduces before the first step.
    """

    factor: float = 1.0
    waits: bool = False


def paces(
    trunk: Trunk,
    layer_decay: float,
    *,
    freeze: bool,
    new_input: bool,
    input_rate: float | None = None,
) -> dict[str, ParameterPace]:
    """Return the pace of each parameter of a trunk, by name.

    A parameter of layer i of d blocks gets layer_decay^(d + 1 - i): the earlier, the slower
    (arXiv 2106.08254). That would starve an input layer that was drawn at random, of all layers the
    one with most to learn: it gets 1. Filters copied from RGB weights follow the decay: they carry
    the start, and at full pace the features of a pretrained transformer collapsed within ten steps
    (effective rank 94 to 25). The input layer never waits.

    Args:
        trunk: Says which layer a parameter is of.
        layer_decay: Factor from one layer to the one before it; 1 for none.
        freeze: All but the input layer wait.
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
        made[name] = ParameterPace(factor, freeze and not is_input)
    return made


_AS_USUAL: Final = ParameterPace()


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    rate: float = 1.0,
    pace: Mapping[str, ParameterPace] | None = None,
    *,
    tables_decay: bool = False,
) -> list[dict[str, Any]]:
    """Put parameters that decay alike and learn at one pace into one group each.

    Biases, norms, LayerScale, CLS, register and position parameters and scalars do not decay.
    DINOv2 (arXiv 2304.07193) exempts only the vectors: there CLS and position tables decay.

    Args:
        named: Names and parameters; those without gradient are left out.
        weight_decay: Of those that decay.
        rate: Learning rate at factor 1.
        pace: By name; full pace where none is given.
        tables_decay: CLS, register and position parameters decay as well, as in DINOv2.

    Returns:
        Groups for an optimiser, each with its `lr` and whether it `waits`; full pace comes first.
    """
    made: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        own = _AS_USUAL if pace is None else pace.get(name, _AS_USUAL)
        table = not tables_decay and any(part in _TABLES for part in name.split("."))
        exempt = parameter.ndim <= 1 or table
        made.setdefault((own.waits, -own.factor, exempt), []).append(parameter)
    return [
        {
            "params": made[waits, slowness, exempt],
            "weight_decay": 0.0 if exempt else weight_decay,
            "lr": -slowness * rate,
            "waits": waits,
        }
        for waits, slowness, exempt in sorted(made)
    ]
