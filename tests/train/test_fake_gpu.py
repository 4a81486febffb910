"""A training step on a GPU that is not there: no tensor is left behind on the CPU.

torch's fake tensors carry a device and a shape but no numbers, so a step "on cuda" runs anywhere
and stops at the first operation on tensors of two devices. What a step asks of numbers (is all of
this finite?) is answered as it would be for good data. The way back is not run: torch's engine
wants a real driver.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from kornia.augmentation.container.params import ParamItem
from pretrain_settings import with_groups
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from eofm.loading.views import View, Views
from eofm.train.config import PretrainConfig
from eofm.train.module import PretrainModule
from eofm.train.run import pretrain

pytestmark = pytest.mark.slow


class Looked(BaseException):
    """The step has been tried; the run need not go on."""


def on_gpu(mode: FakeTensorMode, value: Any) -> Any:
    """Return the same structure with every tensor a fake one on cuda."""
    if isinstance(value, Tensor):
        with mode:
            return torch.empty(value.shape, dtype=value.dtype, device="cuda")
    if isinstance(value, Mapping):
        return {key: on_gpu(mode, one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(on_gpu(mode, one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: on_gpu(mode, getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


@contextmanager
def moved(mode: FakeTensorMode, module: nn.Module) -> Iterator[None]:
    """Replace parameters and buffers by fake ones, for a while."""
    kept = [(part, dict(part._parameters), dict(part._buffers)) for part in module.modules()]
    for part, _, _ in kept:
        for name, parameter in part._parameters.items():
            if parameter is not None:
                fake = on_gpu(mode, parameter.data)
                part._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = on_gpu(mode, buffer)
    try:
        yield
    finally:
        for part, parameters, buffers in kept:
            part._parameters.update(parameters)
            part._buffers.update(buffers)


def answered(_: FakeTensor) -> bool:
    """All is finite and valid; nothing is wrong."""
    line = next(f.line for f in reversed(traceback.extract_stack()) if "/eofm/" in f.filename)
    return ".all()" in str(line)


@pytest.fixture
def step_on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """Run one step as on a GPU, and return its loss."""
    inner, finite, drawn = PretrainModule.training_step, torch.isfinite, Views.draw
    losses: list[Tensor] = []

    def step(self: PretrainModule, batch: object, batch_idx: int) -> Tensor:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        given = on_gpu(mode, batch)
        with moved(mode, self), mode:
            losses.append(inner(self, given, batch_idx))
        raise Looked

    def draw(self: Views, shape: torch.Size) -> list[ParamItem]:
        with unset_fake_temporarily():  # kornia looks at the numbers it draws, on the CPU
            return drawn(self, shape)

    def run(config: PretrainConfig) -> Tensor:
        monkeypatch.setattr(Views, "draw", draw)
        monkeypatch.setattr(PretrainModule, "training_step", step)
        monkeypatch.setattr(PretrainModule, "log_dict", lambda *_, **__: None)
        monkeypatch.setattr(FakeTensor, "__bool__", answered)
        monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
        monkeypatch.setattr(torch, "isfinite", lambda x: True if not x.ndim else finite(x))
        with pytest.raises(Looked):
            pretrain(config)
        return losses[-1]

    return run


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"objective": "moco"},
        {"objective": "soft"},
        {"objective": "shuffled"},
        {"queue": 8, "hard_exclude": "same-location"},
        {"hard_exclude": "same-labels"},
        {"soft_form": "ce"},
        {"soft_form": "mse"},
        {"soft_form": "mse-shifted"},
        {"similarity": "jaccard"},
        {"similarity": "idf"},
        {"similarity": "fraction"},
        {"soft_scale": "learned"},
        {"soft_bias": "fixed"},
        {"soft_neighbours": 2},
        {"head": "moco2"},
        {"head_norm": "ln"},
        {"symmetric": False},
        {"mask_ratio": 0.0},
    ],
    ids=str,
)
def test_every_choice_of_the_method_stays_on_the_device(
    config: PretrainConfig,
    step_on_gpu: Callable[[PretrainConfig], Tensor],
    method: dict[str, object],
) -> None:
    """The loss is there, whatever of the method is chosen."""
    loss = step_on_gpu(
        with_groups(config, method=method, optim={"batch": 4}, monitor={"every_epochs": 0})
    )

    assert ("cuda", torch.float32, 0) == (loss.device.type, loss.dtype, loss.ndim)


@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("data", {"views": "seasons"}),
        ("trainer", {"chunk": 2}),
        ("model", {"architecture": "resnet50"}),
        ("model", {"normalization": "zscore"}),
    ],
    ids=str,
)
def test_every_kind_of_step_stays_on_the_device(
    config: PretrainConfig,
    step_on_gpu: Callable[[PretrainConfig], Tensor],
    group: str,
    options: dict[str, object],
) -> None:
    """Views, chunks, networks and normalisations."""
    base = with_groups(
        config, method={"mask_ratio": 0.0}, optim={"batch": 4}, monitor={"every_epochs": 0}
    )

    assert "cuda" == step_on_gpu(with_groups(base, **{group: options})).device.type


def test_what_is_left_behind_is_found(
    config: PretrainConfig,
    step_on_gpu: Callable[[PretrainConfig], Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Views that stay on the CPU stop the step: the tests above can fail."""
    left = [View(pixels, torch.ones, torch.clone) for pixels in torch.randn(2, 4, 13, 56, 56)]
    monkeypatch.setattr(PretrainModule, "two_views", lambda *_: (None, *left))
    with pytest.raises(Exception, match="same device"):
        step_on_gpu(with_groups(config, optim={"batch": 4}, monitor={"every_epochs": 0}))
