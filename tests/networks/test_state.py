"""Files are read whole or refused with the reason; a network takes every tensor or none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eofm.errors import WeightsError
from eofm.networks.state import load_strict, read_state


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
