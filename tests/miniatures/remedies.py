"""Carry out what the remedy of an error says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Mapping

from click.testing import CliRunner
from rasterio.rio.main import main_group

from eofm.errors import EofmError

_RIO = re.compile(r"\brio [^;]+")
_BANDS = re.compile(r"--bands ((?:[A-Z0-9]+ ?\b)+)")
_UNIT = re.compile(r'--unit ([a-z0-9-]+)|unit="([a-z0-9-]+)"')


def run_rio(error: EofmError, stand_for: Mapping[str, object] | None = None) -> list[str]:
    """Run the `rio` command that a remedy names, and return its words.

    Args:
        error: The error.
        stand_for: Word of the command, such as `FILE`, -> what it stands for.
    """
    found = _RIO.search(error.remedy or "")
    assert found, error.remedy
    words = [str((stand_for or {}).get(word, word)) for word in shlex.split(found[0])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of rasterio's own commands
        done = CliRunner().invoke(main_group, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return words


def run_python(error: EofmError, warned: str = "error") -> list[str]:
    """Run the `python -c` command that a remedy ends in, and return its arguments.

    Args:
        error: The error.
        warned: What becomes of warnings; `ignore` where libraries use what they deprecate.
    """
    _, found, command = (error.remedy or "").partition("python -c ")
    assert found, error.remedy
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-W", warned, "-c", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return words[1:]


def named_bands(error: EofmError) -> list[str]:
    """Return the bands that a remedy says to state."""
    found = _BANDS.search(error.remedy or "")
    assert found, error.remedy
    return found[1].split()


def named_unit(error: EofmError) -> str:
    """Return the unit that a remedy says to state."""
    found = _UNIT.search(error.remedy or "")
    assert found, error.remedy
    return found[1] or found[2]
