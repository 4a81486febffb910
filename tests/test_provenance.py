"""How a record, a run and a card were made: versions of libraries, and the commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

import eofm
from eofm.bench import records
from eofm.environment import commit, versions_of
from eofm.train.run_folder import environment


def test_versions_are_those_of_the_code_that_runs() -> None:
    """The package on the path, whatever is installed; torch with its build; none is invented."""
    versions = versions_of(("eofm", "python", "torch", "numpy", "not_a_library"))

    assert eofm.__version__ == versions["eofm"]
    assert str(torch.__version__) == versions["torch"]
    assert platform.python_version() == versions["python"]
    assert "unknown" == versions["not_a_library"]


def test_the_commit_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own repository it is told, in somebody else's it is not."""
    package = tmp_path / "eofm"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(eofm, "__file__", str(package / "__init__.py"))
    assert "" == commit()

    def git(*words: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True
        )

    git("init")
    git("commit", "--allow-empty", "-m", "foreign")
    assert "" == commit()
    assert environment("cpu")["commit"] is None
    git("add", "eofm")
    git("commit", "-m", "ours")
    clean = commit()
    (package / "__init__.py").write_text("x = 1\n")

    assert 40 == len(clean)
    assert environment("cpu")["commit"] == f"{clean}-dirty"
    assert f"{clean}-dirty" == commit()


def test_the_processor_is_told() -> None:
    """Device and threads, as text."""
    assert records.device_name(torch.device("cpu")).startswith("cpu, ")
