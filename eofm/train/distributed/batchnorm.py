"""Batch norms that see the batch of all processes.

On GPUs torch's own; on CPUs, for which torch has none, the same in two sums.

timm has norms that also drop and activate (`BatchNormAct2d`), by modules inside the norm, in their
order. What replaces such a norm takes these over; torch's own conversion would lose the activation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient is summed likewise."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ANN401 (torch's signature)
        """Return the sum of a tensor over all processes."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        """Return the sum of the gradients over all processes."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all processes, of any shape (B, C, ...)."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised batch; the running statistics follow as in torch."""
        if not (self.training and dist.is_initialized()):
            return _then(self, super().forward(input))
        x = input.float()
        axes = [0, *range(2, x.ndim)]
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        count = _sum(count)
        mean = _sum(x.sum(axes)) / count
        shape = (1, -1) + (1,) * (x.ndim - 2)
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count  # in a second pass, which cancels less
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return _then(self, out.to(input.dtype))

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        step = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)  # type: ignore[arg-type]
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance, step)


class SyncedBatchNorm(nn.SyncBatchNorm):
    """Torch's, for GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised batch."""
        return _then(self, super().forward(input))


def _then(norm: nn.Module, normalised: Tensor) -> Tensor:
    """Return what the modules inside a norm make of its output: of torch's own there are none."""
    for module in norm.children():
        normalised = module(normalised)
    return normalised


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)
    return total


class SharedNorms(LayerSync):
    """Lightning's hook for it: converts every batch norm, the teacher's included."""

    def __init__(self, *, gpu: bool) -> None:
        self.gpu = gpu

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with its batch norms replaced; names and tensors stay."""
        for name, child in model.named_children():
            if isinstance(child, _BatchNorm):
                setattr(
                    model, name, _shared(child, SyncedBatchNorm if self.gpu else SharedBatchNorm)
                )
            else:
                self.apply(child)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model as it is: alone, such a norm is torch's."""
        return model


def _shared(norm: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.train(norm.training)
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    for name, module in norm.named_children():
        setattr(made, name, module)
    return made
