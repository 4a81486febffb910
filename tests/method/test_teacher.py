"""The teacher and its momentum, and a batch in chunks: the step of the whole, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from eofm import method as softcon
from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method import HeadNorm, make_teacher, momentum_at, projection_head, update_teacher
from eofm.method.branches import check_chunks
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit


@pytest.mark.parametrize(
    ("base", "values"),
    [
        (0.99, (0.99, 0.991464, 0.995, 0.998536, 1.0)),
        (0.996, (0.996, 0.996586, 0.998, 0.999414, 1.0)),
    ],
)
def test_momentum_schedule(base, values):
    """A cosine from the base to 1, and 1 beyond the end."""
    found = [momentum_at(step, 200, base) for step in (0, 50, 100, 150, 200)]

    assert values == pytest.approx(found, abs=1e-6)
    assert 1.0 == momentum_at(300, 200, base)


def test_teacher_update_is_the_moving_average_of_parameters_only(generator):
    """Parameters follow θ' ← m θ' + (1-m) θ, m = 1 changes no bit, buffers are left alone."""
    student = projection_head(4, 6, 3, HeadNorm.BN, generator)
    teacher = make_teacher(student)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn(p.shape, generator=generator))
        student[1].running_mean.add_(7.0)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    update_teacher(teacher, student, 1.0)

    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    update_teacher(teacher, student, 0.9)
    for name, p in teacher.named_parameters():
        expected = 0.9 * before[name] + 0.1 * dict(student.named_parameters())[name]
        torch.testing.assert_close(p, expected.detach())
    assert torch.equal(teacher[1].running_mean, before["1.running_mean"])


def step(chunk: int, mask_ratio: float, batch: int = 7) -> tuple[softcon.SoftCon, Tensor, int]:
    """One step: the method with its gradients, its loss, and the bytes kept for the way back."""
    generator = torch.Generator().manual_seed(0)
    trunk = build_vit("vit-tiny-14", 3, (56, 56), generator)
    config = softcon.SoftConConfig(hidden=16, dim=8, mask_ratio=mask_ratio)
    method = softcon.SoftCon(trunk, config, generator).double()
    for branch in (method.student, method.teacher):
        branch.chunk = chunk
    views = torch.randn(2, batch, 3, 56, 56, generator=generator).double().unbind()
    hot = (torch.rand(batch, 4, generator=generator) < 0.5).to(torch.uint8)
    labels = Labels(hot, torch.ones(batch, dtype=torch.bool))
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = method((views[0], views[1]), labels, torch.Generator().manual_seed(1))
    weights = {p.untyped_storage().data_ptr() for p in method.parameters()}
    size = sum(count for address, count in kept.items() if address not in weights)
    output.loss.backward()
    return method, output.loss.detach(), size


@pytest.mark.slow
@pytest.mark.parametrize("mask_ratio", [0.0, 0.5])
@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_chunks_give_the_gradients_of_the_whole_batch(chunk: int, mask_ratio: float) -> None:
    """Loss, every gradient, the heads' batch statistics: equal in float64, whatever the chunk.

    Sums run in another order, which in float32 costs 1e-6 on one processor and 4e-6 on the next;
    in float64 rounding is below 1e-12 everywhere, and a gradient that is wrong is not.
    """
    whole, loss, _ = step(0, mask_ratio)
    parts, other, _ = step(chunk, mask_ratio)

    assert loss.dtype is torch.float64
    assert torch.allclose(loss, other, rtol=1e-12)
    largest = max(float(p.grad.abs().max()) for p in whole.parameters() if p.grad is not None)
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            assert float((a.grad - b.grad).abs().max()) < 1e-12 * largest, name
    for (name, a), b in zip(whole.named_buffers(), parts.buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-12, atol=1e-12), name


@pytest.mark.slow
def test_chunks_keep_less_for_the_way_back() -> None:
    """The forward pass of 16 images in chunks of 2 keeps less than a fifth of the whole one's."""
    whole, parts = step(0, 0.0, batch=16)[2], step(2, 0.0, batch=16)[2]

    assert parts < whole / 5


def test_batch_norms_in_the_trunk_are_refused() -> None:
    """They would see a chunk instead of the batch; without chunks they are welcome."""
    resnet = build_resnet("resnet18", 3, (64, 64), torch.Generator().manual_seed(0))
    check_chunks(resnet, 0)
    with pytest.raises(ConfigError, match="batch norms") as caught:
        check_chunks(resnet, 4)
    assert "resnet" in str(caught.value).lower()
