"""Where a number that is not finite came from: parameters, input rows, or the first layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from eofm.errors import EofmError, TrainingError

_SHOWN: Final = 3


def broken_tensors(module: nn.Module) -> list[str]:
    """Return the names of parameters and buffers that hold a NaN or an infinity."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, value in named if not _finite(value).all()]


def broken_rows(batch: Tensor) -> list[int]:
    """Return which rows of a batch (B, ...) hold a NaN or an infinity."""
    return torch.nonzero(~_finite(batch).flatten(1).all(dim=1)).flatten().tolist()


def first_broken(module: nn.Module, forward: Callable[[], object]) -> str | None:
    """Return which part of `module` first gives out something that is not finite, and its rows.

    Args:
        module: Is inspected while `forward` runs.
        forward: Calls it; its own errors do not matter here.
    """
    found: list[str] = []
    names = {part: name for name, part in module.named_modules() if name}

    def inspect(part: nn.Module, _: object, output: object) -> None:
        if not found and isinstance(output, Tensor) and not _finite(output).all():
            rows = broken_rows(output) if output.ndim > 1 else []
            where = f", rows {_few(rows)} of {len(output)}" if rows else ""
            found.append(f"{names[part]} ({type(part).__name__}){where}")

    handles: list[RemovableHandle] = [part.register_forward_hook(inspect) for part in names]
    try:
        with torch.no_grad():
            forward()
    except EofmError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def not_finite(
    module: nn.Module,
    views: Sequence[Tensor],
    forward: Callable[[], object] | None,
    loss: str,
    step: int,
) -> TrainingError:
    """Return the error that says where a loss that is not finite came from.

    Args:
        module: The method.
        views: What it was given, (B, ...) each.
        forward: Gives it the same once more; None where that cannot be done.
        loss: The loss and its terms, in words.
        step: Steps taken before this one.
    """
    seen = [loss]
    tensors = broken_tensors(module)
    rows = sorted({row for view in views for row in broken_rows(view)})
    if tensors:
        seen.append(f"{len(tensors)} tensors of the networks are not finite: {_few(tensors)}")
    if rows:
        seen.append(f"pixels of rows {_few(rows)} of the batch are not finite")
    layer = None if forward is None else first_broken(module, forward)
    if layer is not None:
        seen.append(f"the first layer to give out a NaN or infinity is {layer}")
    return TrainingError(
        "the loss is not finite",
        found="; ".join(seen),
        where=f"step {step}",
        remedy=_remedy(tensors, rows),
    )


def _remedy(tensors: Sequence[str], rows: Sequence[int]) -> str:
    if rows:
        return "look for broken scenes: eofm data verify STORE, eofm data check STORE"
    if tensors:
        return "an earlier step went too far: lower optim.lr, lengthen optim.warmup, set optim.clip"
    return "lower optim.lr, lengthen optim.warmup, use run.precision 32-true, raise method.tau"


def _finite(value: Tensor) -> Tensor:
    return torch.isfinite(value.detach())


def _few(items: Sequence[object]) -> str:
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"
