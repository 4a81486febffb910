"""Where networks run."""

from __future__ import annotations

import torch

from eofm.errors import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "there is no GPU here", found="--device cuda", remedy="use --device cpu, or auto"
        )
    return torch.device(name)
