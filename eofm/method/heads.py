"""Projector and predictor: those of MoCo-v3 (arXiv 2104.02057) and of MoCo-v2 (2003.04297)."""

from __future__ import annotations

import torch
from torch import nn

from eofm.method.config import HeadForm, HeadNorm, SoftConConfig


def head_of(config: SoftConConfig, *, drops_tokens: bool) -> HeadForm:
    """Return the form of the heads: `auto` follows the trunk.

    Args:
        config: The objective.
        drops_tokens: Whether the trunk computes on kept patches alone, as a transformer does.
    """
    if config.head is not HeadForm.AUTO:
        return config.head
    return HeadForm.MOCO3 if drops_tokens else HeadForm.MOCO3_RESNET


def projection_head(
    dim: int,
    hidden: int,
    out: int,
    norm: HeadNorm,
    generator: torch.Generator,
    form: HeadForm = HeadForm.MOCO3,
) -> nn.Sequential:
    """Return the layers from the trunk's vector to the embedding.

    Args:
        dim: Width of the trunk's vector, D.
        hidden: Width between the layers, h.
        out: Width of the embedding, d.
        norm: Between the layers and after the last; MoCo-v2 has none whatever is said here.
        generator: Source of the weights, on the CPU.
        form: Form of the heads.
    """
    match form:
        case HeadForm.MOCO3 | HeadForm.AUTO:  # without a trunk that decides, a transformer's
            return _head((dim, hidden, hidden, out), norm, generator)
        case HeadForm.MOCO3_RESNET:
            return _head((dim, hidden, out), norm, generator)
        case HeadForm.MOCO2:
            first = linear_layer(dim, hidden, generator, bias=True)
            return nn.Sequential(first, nn.ReLU(), linear_layer(hidden, out, generator, bias=True))


def projector_of(
    config: SoftConConfig, width: int, generator: torch.Generator, *, drops_tokens: bool
) -> nn.Sequential:
    """Return the projector that the settings of a method ask for.

    Args:
        config: The objective.
        width: Of the trunk's vector, D.
        generator: Source of the weights, on the CPU.
        drops_tokens: Whether the trunk computes on kept patches alone, as a transformer does.
    """
    form = head_of(config, drops_tokens=drops_tokens)
    return projection_head(width, config.hidden, config.dim, config.head_norm, generator, form)


def prediction_head(
    out: int,
    hidden: int,
    norm: HeadNorm,
    generator: torch.Generator,
    form: HeadForm = HeadForm.MOCO3,
) -> nn.Sequential:
    """Return the two layers out - hidden - out on the student's side; none (identity) in MoCo-v2.

    Args:
        out: Width of the embedding, d.
        hidden: Width between the layers, h.
        norm: Between the layers, and after the last if the form has one there.
        generator: Source of the weights, on the CPU.
        form: Form of the heads.
    """
    if form is HeadForm.MOCO2:
        return nn.Sequential()
    return _head((out, hidden, out), norm, generator, last_norm=form is HeadForm.MOCO3)


def _head(
    widths: tuple[int, ...], norm: HeadNorm, generator: torch.Generator, *, last_norm: bool = True
) -> nn.Sequential:
    """No biases; norm and ReLU between layers, and a last norm without scale and shift."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        last = i == len(widths) - 2
        layers.append(linear_layer(widths[i], widths[i + 1], generator))
        if last_norm or not last:
            layers.append(_norm(norm, widths[i + 1], affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def linear_layer(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = False
) -> nn.Linear:
    """Torch's default, U(±1/sqrt(inputs)), drawn from `generator` and not from the global state."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _norm(norm: HeadNorm, width: int, *, affine: bool) -> nn.Module:
    match norm:
        case HeadNorm.BN:
            return nn.BatchNorm1d(width, affine=affine)
        case HeadNorm.LN:
            return nn.LayerNorm(width, elementwise_affine=affine)
        case HeadNorm.NONE:
            return nn.Identity()
