"""Where networks run."""

from __future__ import annotations

import torch

from eofm.errors import ConfigError

_REMEDY = "use --device cpu, or auto"


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means here.

    Raises:
        ConfigError: If it is not the name of a device, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            "this is not the name of a device",
            found=name,
            expected="auto, cpu, cuda, or one of several GPUs, as cuda:1",
            remedy=_REMEDY,
        ) from error
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU here", found="--device cuda", remedy=_REMEDY)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(
            "there is no such GPU here",
            found=name,
            expected=f"one of {torch.cuda.device_count()}, counted from 0",
            remedy=_REMEDY,
        )
    return device
