"""How a record was made: versions, commit, memory."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

import eofm

if sys.platform != "win32":
    import resource

_LIBRARIES: Final = ("torch", "torchmetrics", "timm", "rasterio", "numpy")


def library_versions() -> dict[str, str]:
    """Return the versions of eofm and of what computes features and scores."""
    found = {"eofm": eofm.__version__, "python": sys.version.split()[0]}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def commit() -> str:
    """Return the commit eofm runs from, `-dirty` if it has changes; empty outside a checkout.

    A package installed into the tree of some other repository does not report that one's commit.
    """
    package = Path(eofm.__file__).parent
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def peak_memory_mb() -> float | None:
    """Return the largest resident memory of the process so far, where the system tells."""
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # bytes there, kB elsewhere


def device_name(device: torch.device) -> str:
    """Return what a device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
