"""How a record was made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import eofm
from eofm.bench import records as provenance


def test_versions_name_what_computes_scores() -> None:
    """The package, the language and the libraries a score may depend on."""
    versions = provenance.library_versions()

    assert eofm.__version__ == versions["eofm"]
    assert torch.__version__.partition("+")[0] in versions["torch"]
    assert {"python", "numpy", "timm", "rasterio"} < set(versions)


def test_the_commit_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own repository it is told, in somebody else's it is not."""
    package = tmp_path / "eofm"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(eofm, "__file__", str(package / "__init__.py"))
    assert "" == provenance.commit()

    def git(*words: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True
        )

    git("init")
    git("commit", "--allow-empty", "-m", "foreign")
    assert "" == provenance.commit()
    git("add", "eofm")
    git("commit", "-m", "ours")
    clean = provenance.commit()
    (package / "__init__.py").write_text("x = 1\n")

    assert 40 == len(clean)
    assert f"{clean}-dirty" == provenance.commit()


def test_the_processor_is_told() -> None:
    """Device and threads, as text."""
    assert provenance.device_name(torch.device("cpu")).startswith("cpu, ")
