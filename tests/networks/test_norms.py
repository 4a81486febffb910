"""Batch norms remember the images that an encoder will be given, and no others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from eofm.errors import TrainingError
from eofm.networks.norms import has_batch_norm, refresh_batch_norms
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit


def buffers(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the running statistics."""
    return {name: value.clone() for name, value in network.named_buffers() if "running" in name}


def test_statistics_are_those_torch_takes(generator: torch.Generator) -> None:
    """Another implementation, of weight averaging, comes to the same numbers."""
    resnet = build_resnet("resnet18", 3, (32, 32), generator)
    batches = [torch.rand(4, 3, 32, 32, generator=generator) for _ in range(3)]
    other = build_resnet("resnet18", 3, (32, 32), torch.Generator().manual_seed(0))
    other.load_state_dict(resnet.state_dict())

    assert 3 == refresh_batch_norms(resnet, batches)
    update_bn(batches, other.train())
    expected = buffers(other)
    assert all(
        torch.allclose(expected[name], value, rtol=1e-4, atol=1e-6)
        for name, value in buffers(resnet).items()
    )


def test_the_first_norm_remembers_the_mean_of_its_input(generator: torch.Generator) -> None:
    """By hand: the mean over all batches of what the first convolution puts out."""
    resnet = build_resnet("resnet18", 2, (32, 32), generator).train()
    batches = [torch.rand(4, 2, 32, 32, generator=generator) for _ in range(2)]

    refresh_batch_norms(resnet, batches)

    out = resnet.conv1(torch.cat(batches)).mean(dim=(0, 2, 3)).detach()
    assert torch.allclose(out, resnet.bn1.running_mean, atol=1e-6)


def test_only_the_statistics_change(generator: torch.Generator) -> None:
    """Weights, momentum and the mode of every part, mixed as it may be, are as they were."""
    resnet = build_resnet("resnet18", 2, (32, 32), generator).train()
    resnet.layer2.eval()
    modes = [module.training for module in resnet.modules()]
    weights = {name: p.clone() for name, p in resnet.named_parameters()}
    before = buffers(resnet)

    refresh_batch_norms(resnet, [torch.rand(4, 2, 32, 32, generator=generator)])

    assert modes == [module.training for module in resnet.modules()]
    assert 0.1 == resnet.bn1.momentum
    assert all(torch.equal(weights[name], p) for name, p in resnet.named_parameters())
    assert not torch.equal(before["bn1.running_mean"], resnet.bn1.running_mean)


def test_a_transformer_is_left_alone(generator: torch.Generator) -> None:
    """There is nothing to take anew, and no image is looked at."""
    vit = build_vit("vit-tiny-14", 2, (28, 28), generator)

    assert not has_batch_norm(vit)
    assert has_batch_norm(build_resnet("resnet18", 2, (32, 32), generator))
    assert 0 == refresh_batch_norms(vit, [])


def test_no_image_is_an_error(generator: torch.Generator) -> None:
    """Statistics of nothing would be a network that puts out nonsense."""
    with pytest.raises(TrainingError, match="no images"):
        refresh_batch_norms(build_resnet("resnet18", 2, (32, 32), generator), [])
