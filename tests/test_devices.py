"""Devices are named, and one that is not here is refused in the package's words, with a way out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from eofm.contract.imagery import Imagery, Labels
from eofm.contract.recipe import Recipe
from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
from eofm.environment import device_of
from eofm.errors import ConfigError
from eofm.weights.encoder import Encoder, random_encoder


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


def image() -> Imagery:
    """Two bands of one pixel."""
    spec = ImageSpec("s2-l2a", ["B02", "B03"], "dn", (1, 1), 10.0)
    return Imagery(torch.full((1, 2, 1, 1), 500.0), spec, torch.ones(1, 1, 1, dtype=torch.bool))


def encoder() -> Encoder:
    """An untrained network."""
    scaled = Normalization.zscore(mean=(-12.0, -19.0), std=(4.0, 5.0), source="test")
    recipe = Recipe(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (28, 28), scaled)
    return random_encoder("vit-tiny-14-2blocks", recipe, 0)


MOVERS: dict[str, Callable[[], Callable[..., object]]] = {
    "imagery": lambda: image().to,
    "labels": lambda: Labels(torch.zeros(1, 2), torch.ones(1, dtype=torch.bool)).to,
    "encoder": lambda: encoder().to,
    "encoder, by name": lambda: lambda name: encoder().to(device=name),
}


@pytest.mark.parametrize("what", MOVERS)
@pytest.mark.parametrize("name", ["cuda", "cuda:3", torch.device("cuda"), "gpu"])
def test_nothing_moves_to_what_is_not_here(
    what: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was torch's own error; the remedy that is printed works."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    move = MOVERS[what]()

    with pytest.raises(ConfigError) as caught:
        move(name)

    assert '.to("cpu")' in str(caught.value.remedy)
    assert move("cpu") is not None


def test_an_encoder_has_no_gpu_to_go_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda()` is another way to say it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    network = encoder()

    for number in (None, 0):
        with pytest.raises(ConfigError, match="GPU here"):
            network.cuda(number)


def test_an_encoder_moves_as_every_module_does() -> None:
    """By device, dtype, tensor, or both; `auto` is a device too."""
    network = encoder()

    for given in ((torch.float64,), ("cpu", torch.float64), (torch.ones(1).double(),)):
        assert network.to(torch.float32).to(*given) is network
        assert next(network.parameters()).dtype is torch.float64
    assert network.to(dtype=torch.float32).to("auto") is network
    assert next(network.parameters()).dtype is torch.float32


def test_a_device_that_is_no_gpu_is_no_number_of_one() -> None:
    """`cpu:0` and `meta` are torch's names, and need no GPU."""
    assert [device_of(name).type for name in ("cpu:0", "meta")] == ["cpu", "meta"]
    assert torch.equal(image().to("cpu").pixels, image().pixels)
