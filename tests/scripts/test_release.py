"""The release script: version, changelog, and a wheel that works away from the checkout."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import eofm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def release() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the script changes."""
    (tmp_path / "eofm").mkdir()
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "eofm" / "__init__.py").write_text('"""It."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CITATION.cff").write_text("title: it\nversion: 0.1.0\n")
    (tmp_path / "changelog.d" / "b.md").write_text("- Second.\n")
    (tmp_path / "changelog.d" / "a.md").write_text("- First.\n")
    return tmp_path


def test_the_version_is_set_in_both_places(release: ModuleType, checkout: Path) -> None:
    """The package and the citation say the same, and nothing else changes."""
    release.set_version(checkout, "0.2.0")

    assert '"""It."""\n\n__version__ = "0.2.0"\n' == (checkout / "eofm/__init__.py").read_text()
    assert "title: it\nversion: 0.2.0\n" == (checkout / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "# Changes\n\nWords.\n\n## 0.1.0\n\n- Old.\n",
            "# Changes\n\nWords.\n\n## 0.2.0 (2026-12-01)\n\n- First.\n- Second.\n\n"
            "## 0.1.0\n\n- Old.\n",
        ),
        (
            "# Changes\n\n## Unreleased (0.2.0)\n\n- New.\n\n## 0.1.0\n\n- Old.\n",
            "# Changes\n\n## 0.2.0 (2026-12-01)\n\n- New.\n\n- First.\n- Second.\n\n"
            "## 0.1.0\n\n- Old.\n",
        ),
        ("# Changes\n", "# Changes\n\n## 0.2.0 (2026-12-01)\n\n- First.\n- Second.\n"),
    ],
    ids=["no part", "unreleased part", "first release"],
)
def test_fragments_become_one_part(
    release: ModuleType, checkout: Path, before: str, after: str
) -> None:
    """They are taken in the order of their names, once, and none is lost."""
    (checkout / "CHANGELOG.md").write_text(before)

    assert 2 == release.collect_changes(checkout, "0.2.0", "2026-12-01")
    assert after == (checkout / "CHANGELOG.md").read_text()
    assert [] == list((checkout / "changelog.d").iterdir())
    assert 0 == release.collect_changes(checkout, "0.2.0", "2026-12-01")


def test_the_citation_is_valid_and_current() -> None:
    """CITATION.cff has what the format asks for, and the version of the package."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())

    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert eofm.__version__ == citation["version"]


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(release: ModuleType, tmp_path: Path) -> None:
    """It passes `twine check --strict`, installs alone, and its program runs."""
    pytest.importorskip("build", reason="the extra `release` is not installed")
    pytest.importorskip("twine", reason="the extra `release` is not installed")
    (tmp_path / "try").mkdir()

    wheel = release.build(ROOT, tmp_path / "dist")
    release.try_wheel(wheel, tmp_path / "try", borrow=True)

    assert f"eofm-{eofm.__version__}-py3-none-any.whl" == wheel.name
