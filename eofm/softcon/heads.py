"""Projector and predictor (MoCo-v3, arXiv 2104.02057)."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import nn


class HeadNorm(StrEnum):
    """Normalisation inside the heads: batch, layer, or none."""

    BN = "bn"
    LN = "ln"
    NONE = "none"


def projection_head(
    dim: int, hidden: int, out: int, norm: HeadNorm, generator: torch.Generator
) -> nn.Sequential:
    """Three linear layers, dim - hidden - hidden - out (MoCo-v3, arXiv 2104.02057)."""
    return _head((dim, hidden, hidden, out), norm, generator)


def prediction_head(
    out: int, hidden: int, norm: HeadNorm, generator: torch.Generator
) -> nn.Sequential:
    """Two linear layers, out - hidden - out, on the student's side only."""
    return _head((out, hidden, out), norm, generator)


def _head(widths: tuple[int, ...], norm: HeadNorm, generator: torch.Generator) -> nn.Sequential:
    """No biases; norm and ReLU between layers, and a last norm without scale and shift."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        last = i == len(widths) - 2
        layers.append(_linear(widths[i], widths[i + 1], generator))
        layers.append(_norm(norm, widths[i + 1], affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Torch's default, U(±1/sqrt(inputs)), drawn from `generator` and not from the global state."""
    layer = nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(device="cpu")
    nn.init.uniform_(layer.weight, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _norm(norm: HeadNorm, width: int, *, affine: bool) -> nn.Module:
    match norm:
        case HeadNorm.BN:
            return nn.BatchNorm1d(width, affine=affine)
        case HeadNorm.LN:
            return nn.LayerNorm(width, elementwise_affine=affine)
        case HeadNorm.NONE:
            return nn.Identity()
