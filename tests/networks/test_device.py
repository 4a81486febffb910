"""Names of devices: those that are here, and words for all others."""

from __future__ import annotations

import pytest
import torch

from eofm.errors import ConfigError
from eofm.networks.device import device_of


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_what_the_remedy_names_works(name: str) -> None:
    """Both are devices on any machine."""
    assert device_of(name).type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cuda:-1", ""])
def test_what_is_no_name(name: str) -> None:
    """One error of the package, not of torch."""
    with pytest.raises(ConfigError, match="not the name of a device"):
        device_of(name)


@pytest.mark.parametrize(("name", "words"), [("cuda", "no GPU"), ("cuda:7", "no such GPU")])
def test_what_is_not_here(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=words):
        device_of(name)


def test_the_first_gpu_is_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda:0` of a machine without a GPU is refused like `cuda:7`."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="no such GPU"):
        device_of("cuda:0")
