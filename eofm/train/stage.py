"""Going on from an earlier stage: its networks and its optimizer, other data, another schedule.

A later stage must go on from before the anneal (`constant.ckpt`); from the annealed end, raising
the rate again would lose what the anneal gained (arXiv 2403.08763).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eofm.errors import WeightsError
from eofm.weights.receipt import hash_file
from eofm.weights.start import Origin

# What a checkpoint calls the names of the optimizer's parameters, in the order it counts them.
PARAMETERS: Final = "parameters"
_METHOD: Final = "method."
_QUEUE: Final = "queue."


@dataclass(frozen=True)
class Stage:
    """What a checkpoint of an earlier stage hands on.

    Args:
        path: The checkpoint.
        progress: How far that stage was, in words.
        tensors: Of student, teacher and heads, by name.
        moments: The optimizer's state of each parameter, by name.
        optimizer: Name of the optimizer's settings of that stage, `adamw` or `sgd`.
    """

    path: Path
    progress: str
    tensors: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Any]]
    optimizer: str

    @property
    def origin(self) -> Origin:
        """What the export and the run's folder say of where training started."""
        return Origin(
            weights=f"stage {self.path} ({self.progress}), with the optimizer's moments",
            input_layer="as it was",
            loaded=tuple(sorted(self.tensors)),
            new_input=False,
            sha256=hash_file(self.path),
        )


def open_stage(path: Path, key: str) -> Stage:
    """Read the checkpoint of a run.

    Args:
        path: The file.
        key: Where eofm keeps its own things in a checkpoint.

    Raises:
        WeightsError: If there is none, or it is not that of a run.
    """
    if not path.is_file():
        raise WeightsError("there is no checkpoint", found="no such file", where=path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        own = saved[key]
        states = saved["optimizer_states"][0]["state"]
        return Stage(
            path=path,
            progress=own["progress"],
            tensors={
                name.removeprefix(_METHOD): tensor
                for name, tensor in saved["state_dict"].items()
                if name.startswith(_METHOD)
            },
            moments={name: states[i] for i, name in enumerate(own[PARAMETERS]) if i in states},
            optimizer=own["config"]["optim"]["optimizer"],
        )
    except Exception as error:  # unpickling raises many kinds
        raise WeightsError(
            "this is no checkpoint of a run to go on from",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="checkpoints/constant.ckpt or last.ckpt of `eofm pretrain`",
            where=path,
        ) from error


def hand_on(stage: Stage, method: nn.Module) -> None:
    """Give networks and heads the values they had at the end of the earlier stage.

    A queue of keys begins anew: its images, their places and classes are those of other data.

    Raises:
        WeightsError: If they are not alike, tensor by tensor.
    """
    mine, theirs = _without_queue(method.state_dict()), _without_queue(stage.tensors)
    wrong = [
        f"{name}: {_shape(theirs, name)} there, {_shape(mine, name)} here"
        for name in sorted({*mine, *theirs})
        if _shape(theirs, name) != _shape(mine, name)
    ]
    if wrong:
        raise WeightsError(
            "the earlier stage trained another network",
            found=f"{len(wrong)} tensors differ, such as {wrong[0]}",
            expected="the same architecture, bands, size and heads",
            where=stage.path,
            remedy="continue with the settings of that run, or start from its export by "
            "model.weights, which adapts the input layer and draws new heads",
        )
    method.load_state_dict(theirs, strict=False)


def _without_queue(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_QUEUE)}


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "none"


def take_up(optimizer: Optimizer, names: Sequence[str], stage: Stage, kind: str) -> None:
    """Give the optimizer the moments of the earlier stage; its rates and groups stay its own.

    Args:
        optimizer: New, without a state.
        names: Of its parameters, in its order.
        stage: The earlier stage.
        kind: `adamw` or `sgd`.

    Raises:
        WeightsError: If the earlier stage had another optimizer.
    """
    if kind != stage.optimizer:
        raise WeightsError(
            "the earlier stage had another optimizer",
            found=stage.optimizer,
            expected=kind,
            where=stage.path,
            remedy=f"add --optim.optimizer {stage.optimizer}",
        )
    fresh = optimizer.state_dict()
    states = {i: dict(stage.moments[name]) for i, name in enumerate(names) if name in stage.moments}
    optimizer.load_state_dict({"state": states, "param_groups": fresh["param_groups"]})
