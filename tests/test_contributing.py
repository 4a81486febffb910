"""What `docs/contributing.md` says is one file is one file: weights and an option of the method."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contributing import apply_change

import eofm
from eofm.networks.vit import build_vit

PACKAGE = Path(eofm.__file__).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of the package, to be changed; what is unchanged stays compiled."""
    shutil.copytree(PACKAGE, tmp_path / "eofm")
    return tmp_path


VERB = """
import sys
from eofm.cli import main
def verb(*words):
    try: status = main(list(words))
    except SystemExit as done: status = done.code
    if status: sys.exit(f"{words}: {status}")
"""


def run(copy: Path, code: str) -> list[str]:
    """What Python prints with the changed package, in parts divided by `##`."""
    kept = {"PYTHONPATH": str(copy), "EOFM_WEIGHTS": str(copy / "weights"), "EOFM_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", VERB + code],
        env={**os.environ, **kept},
        capture_output=True,
        text=True,
        check=False,
        cwd=copy,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.split("##\n")


def changed_files(copy: Path) -> list[str]:
    """The files of the copy that are not those of the package."""
    return [
        path.relative_to(copy).as_posix()
        for path in sorted((copy / "eofm").rglob("*.py"))
        if path.read_bytes() != (PACKAGE / path.relative_to(copy / "eofm")).read_bytes()
    ]


@pytest.mark.slow
def test_weights_are_one_row(copy: Path) -> None:
    """The row alone makes them known to `models`, `load_weights` and torch.hub."""
    apply_change("eofm/weights/cards/softcon.py", copy)
    network = build_vit("vit-tiny-14", 13, (224, 224), torch.Generator().manual_seed(0))
    (copy / "weights").mkdir()
    torch.save(network.state_dict(), copy / "weights" / "toy_vit_s2.pth")

    assert ["eofm/weights/cards/softcon.py"] == changed_files(copy)
    code = """
verb("models", "list")
print("##")
import eofm, eofm.hub
encoder = eofm.load_weights("toy_vit_s2")
print(encoder.dim, eofm.hub.ENTRIES["toy_vit_s2"]().recipe == encoder.recipe)
"""
    listed, loaded = run(copy, code)
    assert "toy_vit_s2" in listed
    assert f"{network.dim} True" == loaded.strip()


def test_an_option_is_one_field(copy: Path) -> None:
    """The field alone makes the option: command line, help, YAML and Python know it."""
    apply_change("eofm/method/config.py", copy)

    assert ["eofm/method/config.py"] == changed_files(copy)
    code = """
verb("pretrain", "--method.hard_weight", "2", "--print_config")
print("##")
verb("pretrain", "--help-all")
print("##")
from eofm.method import SoftConConfig
print(SoftConConfig(hard_weight=2.0).weights)
"""
    printed, helped, weights = run(copy, code)
    assert "  hard_weight: 2.0\n" in printed
    assert "Weight of the hard term." in helped
    assert "(2.0, 1.0)" == weights.strip()
