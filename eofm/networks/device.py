"""Where networks run."""

from __future__ import annotations

import torch

from eofm.errors import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means here.

    Raises:
        ConfigError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "there is no GPU here", found="--device cuda", remedy="use --device cpu, or auto"
        )
    _, _, number = name.partition(":")
    if number and int(number) >= torch.cuda.device_count():
        raise ConfigError(
            "there is no such GPU here",
            found=name,
            expected=f"one of {torch.cuda.device_count()}, counted from 0",
            remedy="use --device cpu, or auto",
        )
    return torch.device(name)
