"""Every notebook is what its source says, and runs from the first cell to the last."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
SOURCES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "make")

pytest.importorskip("nbformat", reason="the extra `notebooks` is not installed")
pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")


@pytest.fixture
def make() -> ModuleType:
    """The script that writes notebooks."""
    spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_is_that_of_its_source(make: ModuleType, source: Path) -> None:
    """Nobody has edited one without the other; outputs are small and name no place of a machine."""
    import nbformat

    committed = nbformat.read(source.with_suffix(".ipynb"), 4)

    cells = [(c.cell_type, c.source) for c in committed.cells]
    assert cells == [(c.cell_type, c.source) for c in make.read(source).cells]
    assert any(c.get("outputs") for c in committed.cells)
    assert source.with_suffix(".ipynb").stat().st_size < 400_000
    text = source.with_suffix(".ipynb").read_text("utf-8")
    assert None is re.search(r"/(?:root|home|tmp|work)/", text)


def test_the_list_of_notebooks_is_that_of_the_sources(make: ModuleType) -> None:
    """A source that is added is written and run."""
    assert sorted(make.NAMES) == [source.stem for source in SOURCES]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_runs(make: ModuleType, source: Path, tmp_path: Path) -> None:
    """From a fresh kernel, in an empty folder, every cell ends without an error."""
    pytest.importorskip("ipykernel", reason="the extra `notebooks` is not installed")

    done = make.execute(make.read(source), tmp_path)

    assert all(cell.get("execution_count") for cell in done.cells if cell.cell_type == "code")
