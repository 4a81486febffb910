"""Files are read whole or refused with the reason; a network takes every tensor or none.

Batch norms remember the images that an encoder will be given, and no others.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import update_bn

from eofm.errors import TrainingError, WeightsError
from eofm.networks.resnet import build_resnet
from eofm.networks.state import has_batch_norm, load_strict, read_state, refresh_batch_norms
from eofm.networks.vit import build_vit


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_state_dicts_are_read(tmp_path, suffix, generator):
    """Both formats give back the tensors that were saved."""
    state = {"a.weight": torch.randn(3, 2, generator=generator), "b": torch.ones(2)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = read_state(path)

    assert list(state) == sorted(found)
    assert all(torch.equal(state[k], v) for k, v in found.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, suffix, share, generator):
    """A file cut short anywhere is an error that names it, never a state dict."""
    state = {"a.weight": torch.randn(300, 20, generator=generator)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(WeightsError, match=f"weights{suffix}"):
        read_state(path)


def test_code_is_not_run(tmp_path):
    """A pickle that would run code is refused, and the code does not run."""
    target = tmp_path / "touched"
    path = tmp_path / "weights.pth"

    class Evil:
        def __reduce__(self):
            return (type(target).touch, (target,))

    torch.save({"a": Evil()}, path)
    with pytest.raises(WeightsError, match="never run"):
        read_state(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_web_pages_are_recognised(tmp_path, suffix):
    """The error page of a download is called what it is."""
    path = tmp_path / f"weights{suffix}"
    path.write_text("\n<!DOCTYPE html><html>404</html>")
    with pytest.raises(WeightsError, match="web page"):
        read_state(path)


def test_other_contents_are_refused(tmp_path):
    """A missing file, a nested checkpoint, a list and an empty dict are each explained."""
    with pytest.raises(WeightsError, match="no such weights file"):
        read_state(tmp_path / "absent.pth")
    for name, content, message in (
        ("nested", {"teacher": {"a": torch.ones(1)}, "epoch": 3}, "teacher, epoch"),
        ("list", [torch.ones(1)], "list"),
        ("empty", {}, "nothing"),
    ):
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message):
            read_state(path)


def test_strict_loading_lists_every_fault():
    """Missing, foreign and misshapen tensors are all named, and nothing is loaded."""
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    state = {"weight": torch.zeros(2, 4), "gamma": torch.ones(2)}
    with pytest.raises(WeightsError) as caught:
        load_strict(layer, state, where="somewhere")

    text = str(caught.value)
    for words in ("missing bias", "foreign gamma", "(2, 4), not (2, 3)", "somewhere"):
        assert words in text
    assert torch.equal(before, layer.weight)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_the_prefix_of_a_wrapper_goes(tmp_path: Path, prefix: str) -> None:
    """What torch.compile and DistributedDataParallel put before every name is taken off."""
    plain = {"a.weight": torch.ones(2), "b.module.bias": torch.zeros(1)}
    torch.save({prefix + key: value for key, value in plain.items()}, tmp_path / "w.pth")

    assert list(plain) == list(read_state(tmp_path / "w.pth"))


def test_a_prefix_that_some_names_carry_stays(tmp_path: Path) -> None:
    """`module.` before a part of the names is a part of the network."""
    names = ["module.weight", "head.weight"]
    torch.save({name: torch.ones(1) for name in names}, tmp_path / "w.pth")

    assert names == list(read_state(tmp_path / "w.pth"))


# ------------------------------------------------------------------------------------- batch norms


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
    """There is nothing to compute again, and no image is read."""
    vit = build_vit("vit-tiny-14", 2, (28, 28), generator)

    assert not has_batch_norm(vit)
    assert has_batch_norm(build_resnet("resnet18", 2, (32, 32), generator))
    assert 0 == refresh_batch_norms(vit, [])


def test_no_image_is_an_error(generator: torch.Generator) -> None:
    """Statistics of nothing would be a network that puts out nonsense."""
    with pytest.raises(TrainingError, match="no images"):
        refresh_batch_norms(build_resnet("resnet18", 2, (32, 32), generator), [])
