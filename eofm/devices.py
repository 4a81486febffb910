"""Which device a name means here, or one error that says what there is."""

from __future__ import annotations

from typing import Final

import torch

from eofm.errors import ConfigError

_REMEDY: Final = 'use the CPU: --device cpu, or in Python device="cpu" and .to("cpu")'


def device_of(name: torch.device | str | int) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means here.

    Args:
        name: Its name; a device itself, or the number of a GPU, as torch has them.

    Raises:
        ConfigError: If it is not the name of a device, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if isinstance(name, int) else name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            "this is not the name of a device",
            found=name,
            expected="auto, cpu, cuda, or one of several GPUs, as cuda:1",
            remedy=_REMEDY,
        ) from error
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("there is no GPU here", found=str(device), remedy=_REMEDY)
    if device.type != "cuda":
        return device
    if device.index is None and not torch.cuda.is_available():
        raise ConfigError("there is no GPU here", found=str(device), remedy=_REMEDY)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(
            "there is no such GPU here",
            found=str(device),
            expected=f"one of {torch.cuda.device_count()}, counted from 0",
            remedy=_REMEDY,
        )
    return device
